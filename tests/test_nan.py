"""Networks that give NaN or infinity for some frames: computed again, counted, replaced on request, never written."""

import json
from fractions import Fraction

import numpy as np
import pytest

pytest.importorskip("torch")

import av
import networks
import onnx
from clips import make_clip
from onnx import helper, numpy_helper

from videosr.engines import load
from videosr.errors import EngineError
from videosr.frame import FORMATS, ColorSpec, Frame, Matrix, Range, Siting
from videosr.media.planes import to_av_frame
from videosr.options import OnNan, UpscaleOptions
from videosr.upscaler import Upscaler

LEFT = ColorSpec(matrix=Matrix.BT709, range=Range.LIMITED, siting=Siting.LEFT)
DARK, BRIGHT = 40, 220


def frame(level, pts, format="yuv420p", height=48, width=64):
    """A picture of one grey, with one bright corner where `level` is BRIGHT."""
    fmt = FORMATS[format]
    planes = [np.full(fmt.plane_shape(i, height, width), 128 << fmt.bits - 8, fmt.dtype) for i in range(fmt.planes)]
    for plane in planes if fmt.family == "rgb" else planes[:1]:
        plane[:] = DARK << fmt.bits - 8
        plane[:12, :12] = level << fmt.bits - 8
    return Frame(planes=tuple(planes), format=fmt, pts=pts, time_base=Fraction(1, 25), duration=1, color=LEFT)


def doctored(source, path, kind):
    """A deployment-form network whose features turn into NaN, or infinity, where the picture is bright."""
    model = onnx.load(source)
    conv = next(n for n in model.graph.node if n.output[0] == "conv_in" or n.name == "conv_in")
    weight = next(i for i in model.graph.initializer if i.name == conv.input[1])
    values = numpy_helper.to_array(weight).copy()
    values[0], scale = 0, 3
    values[0, :, values.shape[2] // 2, values.shape[3] // 2] = 1 / scale  # the first feature: the pixel's grey
    weight.CopyFrom(numpy_helper.from_array(values, weight.name))
    bias = next(i for i in model.graph.initializer if i.name == conv.input[2])
    shift = numpy_helper.to_array(bias).copy()
    shift[0] = 0
    bias.CopyFrom(numpy_helper.from_array(shift, bias.name))
    out = conv.output[0]
    conv.output[0] = f"{out}_sound"
    limit = numpy_helper.from_array(np.array(0.7, np.float32), "limit")
    first = numpy_helper.from_array(np.array([0], np.int64), "first")
    model.graph.initializer.extend([limit, first])
    grey = helper.make_node("Gather", [f"{out}_sound", "first"], ["grey"], axis=1)
    left = helper.make_node("Sub", ["limit", "grey"], ["left"])
    bad = helper.make_node("Sqrt", ["left"], ["bad"]) if kind == "nan" else None
    nodes = [grey, left]
    if bad is None:  # 1 / relu(limit - grey) is infinite where the picture is bright
        nodes += [helper.make_node("Relu", ["left"], ["rest"]), helper.make_node("Reciprocal", ["rest"], ["bad"])]
    else:
        nodes.append(bad)
    nodes.append(helper.make_node("Add", [f"{out}_sound", "bad"], [out]))
    at = list(model.graph.node).index(conv) + 1
    for n, node in enumerate(nodes):
        model.graph.node.insert(at + n, node)
    onnx.save(model, path)
    return path


@pytest.fixture(scope="module", params=["nan", "inf"])
def broken(request, paragon, tmp_path_factory):
    return doctored(paragon.deploy, tmp_path_factory.mktemp("nan") / f"{request.param}.onnx", request.param)


@pytest.fixture(scope="module")
def broken_image(tmp_path_factory):
    """An image network that runs on tensors: nearest neighbour plus sqrt(0.7 - x)."""
    g = networks.Graph()
    x = g.input("lr", "N", 3, "H", "W")
    bad = g.node("Sqrt", g.node("Sub", g.constant(np.array(0.7, np.float32)), x))
    g.enlarged(g.node("Add", x, bad), 2, "hr")
    return g.save(tmp_path_factory.mktemp("nan") / "image.onnx", "hr")


def run(upscaler, frames):
    made = [f for frame in frames for f in upscaler.process(frame)]
    return made + list(upscaler.flush())


LEVELS = [DARK, DARK + 2, BRIGHT, DARK + 4, DARK + 6]


@pytest.mark.parametrize("format", ["yuv420p", "yuv420p10le", "gbrp"])
@pytest.mark.parametrize("precision", ["f32", "bf16"])
def test_a_run_ends_with_the_frame_and_the_network(broken, format, precision):
    upscaler = Upscaler(UpscaleOptions(model=str(broken), threads=1, precision=precision))
    frames = [frame(level, 100 + n, format) for n, level in enumerate(LEVELS)]
    assert len(run(upscaler, frames[:2])) == 2
    with pytest.raises(EngineError, match=rf"{broken.name}: gives NaN.*4\.080 s \(pts 102\).*--on-nan bicubic"):
        run(upscaler, frames)
    assert (upscaler.mended, upscaler.replaced) == (0, 0)


@pytest.mark.parametrize("format", ["yuv420p", "gbrp"])
def test_bicubic_replaces_that_frame_alone(broken, format):
    frames = [frame(level, n, format) for n, level in enumerate(LEVELS)]
    upscaler = Upscaler(UpscaleOptions(model=str(broken), threads=1, on_nan=OnNan.BICUBIC))
    made = run(upscaler, frames)
    assert (upscaler.mended, upscaler.replaced) == (0, 1)
    small, large = frames[2].planes[0], made[2].planes[0]
    assert [f.pts for f in made] == [0, 1, 2, 3, 4]
    np.testing.assert_allclose(large[4:20:2, 4:20:2], small[2:10, 2:10], atol=1)
    np.testing.assert_allclose(large[40:, 40:], DARK, atol=1)
    others = run(Upscaler(UpscaleOptions(model=str(broken), threads=1)), frames[:2])
    assert all(a.same_picture(b) for a, b in zip(others, made, strict=False))


def test_networks_on_tensors_are_watched_as_well(broken_image):
    frames = [frame(level, n) for n, level in enumerate(LEVELS)]
    with pytest.raises(EngineError, match=r"pts 2\)"):
        run(Upscaler(UpscaleOptions(model=str(broken_image), threads=1)), frames)
    upscaler = Upscaler(UpscaleOptions(model=str(broken_image), threads=1, on_nan=OnNan.BICUBIC))
    assert len(run(upscaler, frames)) == 5
    assert upscaler.replaced == 1


@pytest.mark.filterwarnings("error")
def test_values_whose_sum_is_beyond_float32_are_told_of_once(paragon):
    engine = load(paragon.image, threads=1, precision="f32")
    plain = engine.run
    engine.run = lambda x, average=None: plain(x, average) * 0 + np.float32(3e38)
    with pytest.raises(EngineError, match=r"gives NaN"):
        run(Upscaler(UpscaleOptions(model=str(paragon.image), threads=1), engine), [frame(BRIGHT, 0)])


def test_what_only_half_precision_breaks_is_mended(paragon):
    """An engine that fails as half precision does: the frame comes out as from float32."""
    sound = load(paragon.image, threads=1, precision="f32")
    half = load(paragon.image, threads=1, precision="f32")
    half.precision = "f16"
    plain = half.run
    half.run = lambda x, average=None: plain(x, average) * (np.float32(np.nan) if x.max() > 0.7 else np.float32(1))
    options = UpscaleOptions(model=str(paragon.image), threads=1)
    frames = [frame(level, n) for n, level in enumerate(LEVELS)]
    upscaler = Upscaler(options, half)
    made = run(upscaler, frames)
    assert (upscaler.mended, upscaler.replaced) == (1, 0)
    assert all(a.same_picture(b) for a, b in zip(made, run(Upscaler(options, sound), frames), strict=True))


def test_a_float32_engine_that_could_not_be_loaded_is_asked_for_again(paragon, monkeypatch):
    """And frames are not mended by the one that breaks them."""
    half = load(paragon.image, threads=1, precision="f32")
    half.precision = "f16"
    plain = half.run
    half.run = lambda x, average=None: plain(x, average) * np.float32(np.nan)
    upscaler = Upscaler(UpscaleOptions(model=str(paragon.image), threads=1), half)
    for _ in range(2):
        with monkeypatch.context() as patch:
            patch.setattr(upscaler, "_in_float32", lambda: (_ for _ in ()).throw(EngineError("no memory")))
            with pytest.raises(EngineError, match="no memory"):
                run(upscaler, [frame(DARK, 0)])
    assert len(run(upscaler, [frame(DARK, 0)])) == 1
    assert upscaler.mended == 1


def test_a_recurrent_network_begins_anew_behind_such_a_frame(tmp_path):
    network = networks.video(tmp_path / "video.onnx", rectified_state=False, state_used_twice=True)
    engine = load(network, threads=1)
    assert engine.interface == "recurrent"
    plain, calls = engine.step, []

    def step(x, *, reset):
        calls.append(reset)
        out = plain(x, reset=reset)
        return out * np.float32(np.nan) if len(calls) == 2 else out

    engine.step = step
    upscaler = Upscaler(UpscaleOptions(model=str(network), threads=1), engine)
    made = run(upscaler, [frame(DARK + n, n) for n in range(4)])
    assert len(made) == 4
    assert upscaler.mended == 1
    assert calls == [True, False, True, True, False]


def test_the_command_says_so_and_ends_with_1(broken, tmp_path, videosr):
    clip = make_clip(tmp_path / "in.mkv", frames=6)
    output = tmp_path / "out.mkv"
    done = videosr("upscale", clip, output, "--model", broken, "--threads", "1")
    assert done.code == 1
    assert "NaN or infinity" in done.err
    assert not output.exists()
    done = videosr("upscale", clip, output, "--model", broken, "--threads", "1", "--on-nan", "bicubic", "--json")
    assert done.code == 0
    events = [json.loads(line) for line in done.out.splitlines()]
    assert events[-1]["event"] == "done"
    assert events[-1]["replaced"] > 0
    assert any("interpolated" in event.get("message", "") for event in events)


@pytest.mark.parametrize("broken", ["nan"], indirect=True)
def test_a_run_that_ended_goes_on_with_bicubic(broken, tmp_path, videosr):
    """What was finished before the frame that the network cannot make is kept, and taken up with the other choice."""
    clip, output, whole = tmp_path / "in.mkv", tmp_path / "out.mkv", tmp_path / "whole.mkv"
    with av.open(str(clip), "w") as out:
        stream = out.add_stream("ffv1", rate=25, options={"level": "3"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for n in range(254):  # a whole segment, of 240 frames, comes before the bright one
            coded = to_av_frame(frame(BRIGHT if n == 250 else DARK + n % 20, n).planes, FORMATS["yuv420p"])
            coded.pts, coded.time_base = n, Fraction(1, 25)
            out.mux(stream.encode(coded))
        out.mux(stream.encode(None))
    command = ("--model", broken, "--threads", "1", "--codec", "ffv1", "--json")
    done = videosr("upscale", clip, output, *command)
    assert done.code == 1
    assert not output.exists()
    assert len(list((tmp_path / ".out.mkv.videosr").glob("*.seg"))) == 1
    for path in (output, whole):
        done = videosr("upscale", clip, path, *command, "--on-nan", "bicubic")
        assert done.code == 0, done.err
        told = json.loads(done.out.splitlines()[-1])
        assert (told["frames"], told["replaced"]) == (254, 1)
    assert output.read_bytes() == whole.read_bytes()
    assert not (tmp_path / ".out.mkv.videosr").exists()

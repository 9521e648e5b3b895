"""The VapourSynth filter: the frames of the core, in any order, with their properties; and errors where they belong."""

from __future__ import annotations

import random
import threading
from fractions import Fraction
from functools import cache

import numpy as np
import pytest

vs = pytest.importorskip("vapoursynth", reason="vapoursynth is not installed")

import vsvideosr  # noqa: E402
from vsvideosr.frames import core_format  # noqa: E402

from videosr.engines.choice import choose  # noqa: E402
from videosr.errors import EngineError, MissingExtraError  # noqa: E402
from videosr.frame import ColorSpec, Frame, Matrix, Range, Siting  # noqa: E402
from videosr.options import UpscaleOptions  # noqa: E402
from videosr.temporal import Mode  # noqa: E402
from videosr.upscaler import Upscaler  # noqa: E402

WIDTH, HEIGHT = 48, 32
SD = ColorSpec(matrix=Matrix.SMPTE170M, range=Range.LIMITED, siting=Siting.LEFT)  # what is assumed at this size


def pictures(format, count=14, cut=6, repeats=(3, 4, 9), noise=4.0):
    """Planes of a noisy moving picture in the core's terms: a cut, and repeats of the picture before."""
    fmt, rng = core_format(format), np.random.default_rng(5)
    base = {k: rng.random((2, 4, 6)) for k in (False, True)}
    frames = []
    for t in range(count):
        if t in repeats:
            frames.append(frames[-1])
            continue
        planes = []
        for i in range(fmt.planes):
            rows, columns = fmt.plane_shape(i, HEIGHT, WIDTH)
            blocks = np.kron(base[t >= cut][min(i, 1)], np.ones((rows // 4, columns // 6)))
            value = np.roll(blocks, t, axis=1) * 0.6 + 0.2 + rng.normal(0, noise / 255, (rows, columns))
            top = (1 << fmt.bits) - 1
            planes.append(np.clip(np.rint(value * top), 0, top).astype(fmt.dtype))
        frames.append(tuple(planes))
    return frames


def clip_of(frames, format, props=lambda n: {}, seen=None):
    """A clip that gives these pictures."""
    blank = vs.core.std.BlankClip(
        width=frames[0][0].shape[1], height=frames[0][0].shape[0], format=format.id, length=len(frames), fpsnum=24
    )

    def fill(n, f):
        out = f.copy()
        for i, plane in enumerate(frames[n]):
            np.asarray(out[i])[...] = plane
        for key in ("_Matrix", "_Range", "_ChromaLocation"):
            out.props.pop(key, None)
        out.props.update(props(n))
        if seen is not None:
            seen.append(n)
        return out

    return blank.std.ModifyFrame(blank, fill)


def planes(frame):
    return tuple(np.array(plane) for plane in frame)


def equal(a, b):
    return len(a) == len(b) and all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


def sequential(frames, format, color, **options):
    """What the core makes of the pictures, one after the other."""
    upscaler = Upscaler(UpscaleOptions(**options))
    results = []
    for n, picture in enumerate(frames):
        frame = Frame(planes=picture, format=core_format(format), pts=n, time_base=Fraction(1), color=color)
        results += upscaler.process(frame)
    return [*results, *upscaler.flush()]


@pytest.fixture(scope="module", autouse=True)
def engines():
    """Every network is loaded once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("videosr.upscaler.choose", cache(choose))
        yield


@pytest.fixture(autouse=True)
def threads():
    """The core is shared by all tests."""
    before = vs.core.num_threads
    yield
    vs.core.num_threads = before


@pytest.fixture(scope="module")
def yuv():
    return vs.core.get_video_format(vs.YUV420P8)


@pytest.fixture(scope="module")
def frames(yuv):
    return pictures(yuv)


@pytest.fixture(scope="module")
def expected(frames, yuv):
    return sequential(frames, yuv, SD)


ORDERS = {
    "forwards": range(14),
    "backwards": range(13, -1, -1),
    "at random": random.Random(3).sample(range(14), 14),
    "one from the middle": [8],
    "again and again": [5, 5, 2, 5, 13, 2],
}


@pytest.mark.parametrize("num_threads", [1, 4])
@pytest.mark.parametrize("order", ORDERS)
def test_any_order_gives_the_sequential_frames(frames, expected, yuv, order, num_threads):
    vs.core.num_threads = num_threads
    clip = vsvideosr.upscale(clip_of(frames, yuv))
    assert (clip.num_frames, clip.fps, clip.width, clip.height) == (14, 24, 2 * WIDTH, 2 * HEIGHT)
    asked = [(n, clip.get_frame_async(n)) for n in ORDERS[order]]
    for n, future in asked:
        frame = future.result()
        assert equal(planes(frame), expected[n].planes), n
        assert frame.props["_SceneChangePrev"] == expected[n].scene_start == (n in (0, 6))


def test_the_window_matters(frames, expected, yuv):
    """Otherwise the test above would show nothing."""
    alone = vsvideosr.upscale(clip_of(frames, yuv), temporal="off")
    same = [equal(planes(alone.get_frame(n)), expected[n].planes) for n in range(14)]
    assert same[0]
    assert same[6]
    assert sum(same) < 6


@pytest.mark.parametrize("options", [{"temporal": Mode.EMA}, {"denoise": 0.5}, {"sharpen": 0.4}], ids=str)
def test_options_reach_the_core(frames, yuv, options):
    results = sequential(frames, yuv, SD, **options)
    clip = vsvideosr.upscale(clip_of(frames, yuv), **options)
    assert all(equal(planes(clip.get_frame(n)), results[n].planes) for n in (13, 5, 4, 0))


def test_neighbours_share_work(frames, yuv):
    """Repeats are not computed, and the source is not asked eight times for every frame."""
    vs.core.num_threads = 2
    seen = []
    made = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vsvideosr, "Upscaler", lambda options: made.append(Upscaler(options)) or made[0])
        clip = vsvideosr.upscale(clip_of(frames, yuv, seen=seen))
    list(clip.frames(close=True))
    assert made[0].reused == 3
    assert set(seen) == set(range(14))
    assert len(seen) < 2 * 14


@pytest.mark.parametrize("name", ["GRAY8", "YUV422P10", "YUV420P16", "YUV411P8", "RGB24"])
def test_formats(name):
    format = vs.core.get_video_format(getattr(vs, name))
    given = pictures(format, count=3, repeats=())
    color = {
        vs.RGB: ColorSpec(matrix=Matrix.RGB, range=Range.FULL),
        vs.GRAY: ColorSpec(matrix=Matrix.SMPTE170M, range=Range.LIMITED),
        vs.YUV: SD if format.subsampling_w else ColorSpec(matrix=Matrix.SMPTE170M, range=Range.LIMITED),
    }[format.color_family]
    results = sequential(given, format, color)
    clip = vsvideosr.upscale(clip_of(given, format))
    assert clip.format.id == format.id
    assert all(equal(planes(frame), results[n].planes) for n, frame in enumerate(clip.frames()))


def test_more_bits(frames, expected, yuv):
    clip = vsvideosr.upscale(clip_of(frames, yuv), bits=10)
    assert clip.format.name == "YUV420P10"
    frame = planes(clip.get_frame(3))
    for fine, coarse in zip(frame, expected[3].planes, strict=True):
        assert np.abs(fine / 4 - coarse.astype(float)).max() <= 0.75
    assert any((plane % 4).any() for plane in frame)


@pytest.mark.parametrize("name", ["RGBS", "RGBH", "YUV444PS", "YUV420PH", "GRAYS"])
def test_floats_are_the_same_picture(name):
    """The float clip goes through 16 bits; 16-bit integers of the same colour come out within a few 16-bit codes."""
    format = vs.core.get_video_format(getattr(vs, name))
    integer = format.replace(sample_type=vs.INTEGER, bits_per_sample=16)
    matrix = 0 if format.color_family == vs.RGB else 1
    clip = clip_of(pictures(integer, count=2, repeats=(), noise=0.0), integer, lambda n: {"_Matrix": matrix})
    result = vsvideosr.upscale(clip.resize.Point(format=format.id))
    assert result.format.id == format.id
    back = result.resize.Point(format=integer.id, dither_type="none")
    worst = 80 if format.bits_per_sample == 16 else 6
    for ours, direct in zip(back.frames(), vsvideosr.upscale(clip).frames(), strict=True):
        for a, b in zip(planes(ours), planes(direct), strict=True):
            assert np.abs(a.astype(int) - b).max() <= worst
        assert ours.props["_Range"] == direct.props["_Range"]


def test_floats_outside_the_nominal_range():
    odd = vs.core.std.BlankClip(width=32, height=32, format=vs.RGBS, length=1, color=[-0.05, 1.08, 0.5])
    red, green, blue = planes(vsvideosr.upscale(odd).get_frame(0))
    assert np.abs(np.stack([red + 0.05, green - 1.08, blue - 0.5])).max() < 0.02

    def spoil(n, f):
        out = f.copy()
        plane = np.asarray(out[0])
        plane[0, :3] = np.nan, np.inf, -np.inf
        return out

    spoiled = vsvideosr.upscale(odd.std.ModifyFrame(odd, spoil)).get_frame(0)
    assert all(np.isfinite(plane).all() for plane in planes(spoiled))


def test_properties_are_read(frames, yuv):
    """A picture tagged otherwise is another picture, exactly as the core makes it."""
    color = ColorSpec(matrix=Matrix.BT2020_NCL, range=Range.FULL, primaries=9, transfer=16, siting=Siting.TOPLEFT)
    tags = {"_Matrix": 9, "_Range": 1, "_Primaries": 9, "_Transfer": 16, "_ChromaLocation": 2}
    results = sequential(frames, yuv, color)
    clip = vsvideosr.upscale(clip_of(frames, yuv, lambda n: tags))
    frame = clip.get_frame(1)
    assert equal(planes(frame), results[1].planes)
    assert {key: frame.props[key] for key in tags} == tags


def test_properties_that_are_lists_say_nothing(frames, yuv):
    plain = vsvideosr.upscale(clip_of(frames, yuv)).get_frame(1)
    odd = vsvideosr.upscale(clip_of(frames, yuv, lambda n: {"_Matrix": [1, 5], "_Range": [0, 1]})).get_frame(1)
    assert equal(planes(odd), planes(plain))


def test_properties_are_set(frames, yuv):
    """Colour that was guessed is said; the rest of the properties is carried."""
    own = {"_SARNum": 4, "_SARDen": 3, "_DurationNum": 1, "_DurationDen": 24, "_PictType": "B", "Mine": [1, 2]}
    props = vsvideosr.upscale(clip_of(frames, yuv, lambda n: own)).get_frame(1).props
    assert {key: props[key] for key in own} == own
    assert (props["_Matrix"], props["_Range"], props["_ChromaLocation"]) == (6, 0, 0)
    assert "_Primaries" not in props
    assert "_Transfer" not in props


def test_a_change_of_colour_begins_a_scene(frames, yuv):
    clip = vsvideosr.upscale(clip_of(frames, yuv, lambda n: {"_Range": int(n >= 2)}))
    assert [clip.get_frame(n).props["_SceneChangePrev"] for n in (1, 2, 3)] == [0, 1, 0]


def test_scene_changes_of_others_are_honoured(frames, yuv):
    """They decide where windows end, also for frames whose history holds them."""
    clip = vsvideosr.upscale(clip_of(frames, yuv, lambda n: {"_SceneChangePrev": int(n == 2)}))
    said = [clip.get_frame(n).props["_SceneChangePrev"] for n in range(14)]
    assert said == [1, 0, 1, *[0] * 11]  # our own detector finds 6
    fresh = sequential(frames[2:], yuv, SD)
    assert equal(planes(clip.get_frame(2)), fresh[0].planes)
    assert equal(planes(clip.get_frame(5)), fresh[3].planes)


def test_alpha_is_enlarged(frames, yuv):
    mask = vs.core.std.BlankClip(width=WIDTH, height=HEIGHT, format=vs.GRAY8, length=14, color=200)
    clip = vs.core.std.ClipToProp(clip_of(frames, yuv), mask)
    alpha = vsvideosr.upscale(clip, bits=10).get_frame(0).props["_Alpha"]
    assert (alpha.width, alpha.height, alpha.format.name) == (2 * WIDTH, 2 * HEIGHT, "Gray10")
    assert np.abs(np.asarray(alpha[0]).astype(int) - 200 / 255 * 1023).max() <= 1


def test_properties_of_another_kind_than_their_names_say_are_carried_and_mean_nothing(frames, yuv):
    """Scripts set what they like: a mask that is a number, a scene change that is text."""
    clip = vsvideosr.upscale(clip_of(frames, yuv, lambda n: {"_Alpha": 1, "_SceneChangePrev": "no", "_Matrix": "709"}))
    frame = clip.get_frame(1)
    assert frame.props["_Alpha"] == 1
    assert frame.props["_SceneChangePrev"] == 0
    assert frame.props["_Matrix"] == vs.MATRIX_ST170_M


def test_variable_frame_rate(frames, yuv):
    clip = clip_of(frames, yuv)
    clip = clip[:7] + clip[7:].std.AssumeFPS(fpsnum=30)
    result = vsvideosr.upscale(clip)
    assert result.fps == clip.fps == 0
    assert [result.get_frame(n).props["_DurationDen"] for n in (0, 13)] == [24, 30]


def test_memory_is_bounded(yuv, monkeypatch):
    sessions = []

    class Watched(vsvideosr.Session):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            sessions.append(self)

    monkeypatch.setattr(vsvideosr, "Session", Watched)
    vs.core.num_threads = 2
    clip = vsvideosr.upscale(clip_of(pictures(yuv, count=40), yuv))
    for n in [*range(40), *range(39, 0, -3)]:
        clip.get_frame(n).close()
        assert len(sessions[0]._seen) <= 10
        assert len(sessions[0]._recent) <= 4


def test_an_error_is_its_frame_alone(frames, expected, yuv, monkeypatch):
    """The script goes on, and whoever asks again gets the frame."""
    failing = threading.Event()
    failing.set()

    class Faulty(Upscaler):
        def finish(self, pending):
            if failing.is_set() and pending.window.frames[0].pts == 5:
                raise EngineError("the engine failed: no memory left")
            return super().finish(pending)

    monkeypatch.setattr(vsvideosr, "Upscaler", Faulty)
    clip = vsvideosr.upscale(clip_of(frames, yuv))
    with pytest.raises(vs.Error, match=r"frame 5: the engine failed: no memory left"):
        clip.get_frame(5)
    assert equal(planes(clip.get_frame(6)), expected[6].planes)
    failing.clear()
    assert equal(planes(clip.get_frame(5)), expected[5].planes)


def test_an_error_of_the_source_is_passed_on(frames, yuv):
    def fail(n, f):
        if n == 12:
            raise ValueError("no such frame")
        return f

    clip = clip_of(frames, yuv)
    clip = vsvideosr.upscale(clip.std.ModifyFrame(clip, fail))
    with pytest.raises(vs.Error, match="no such frame"):
        clip.get_frame(12)
    clip.get_frame(11)


BAD_OPTIONS = [
    ({"temporal": "often"}, r"temporal 'often' is not one of off, ema, adaptive"),
    ({"denoise": 1.5}, r"1\.5 is not between 0 and 1"),
    ({"denoise": 0.5, "temporal": "off"}, r"needs .*adaptive or ema"),
    ({"model": "nonesuch"}, r"'nonesuch' is neither a shipped one \(.*realtime-2x.*\) nor a file"),
    ({"engine": "abacus"}, r"'abacus' is not one of native, openvino"),
    ({"device": "tpu"}, r"'tpu' is not one of auto, cpu, cuda"),
    ({"precision": "f8"}, r"'f8' is not one of auto"),
    ({"threads": 0}, r"threads 0 is not positive"),
    ({"bits": 11}, r"bits=11: .* 8, 10, 12 and 16 are usual"),
    ({"bits": "10"}, r"bits '10' is str, not a whole number"),
    ({"sharpen": 2}, r"sharpen 2 is not between 0 and 1"),
    ({"sharpen": "0.4"}, r"sharpen '0.4' is str, not a number from 0 to 1"),
    ({"denoise": "0.5"}, r"denoise '0.5' is str, not a number from 0 to 1"),
    ({"tta": "0"}, r"tta '0' is str, not True or False"),
    ({"threads": 1.5}, r"threads 1.5 is float, not a whole number"),
    ({"device": 0}, r"device 0 is int, not a device's name"),
    ({"denoise": 0.5, "temporal": "off"}, r"needs temporal adaptive or ema"),
    ({"on_nan": "black"}, r"on_nan 'black' is not one of fail, bicubic"),
    ({"model": None}, r"model None is NoneType, not a shipped model's name or a path"),
]


@pytest.mark.parametrize(("options", "message"), BAD_OPTIONS, ids=lambda o: str(o)[:24])
def test_bad_options(frames, yuv, options, message):
    with pytest.raises(vs.Error, match=f"^vsvideosr.upscale: .*{message}"):
        vsvideosr.upscale(clip_of(frames, yuv), **options)


def blank(**how):
    return vs.core.std.BlankClip(width=WIDTH, height=HEIGHT, length=2, **how)


BAD_CLIPS = {
    "changes its format or size.*resize": lambda: blank(varsize=True),
    "changes its format or size.*constant": lambda: blank(varformat=True),
    "YUV444P32; use clip.resize.Bicubic": lambda: blank(format=vs.core.query_video_format(vs.YUV, vs.INTEGER, 32)),
    "Gray11; use clip.resize.Bicubic.*GRAY16": lambda: blank(
        format=vs.core.query_video_format(vs.GRAY, vs.INTEGER, 11)
    ),
    "not a video clip": lambda: vs.core.std.BlankAudio(),
}


@pytest.mark.parametrize("message", BAD_CLIPS)
def test_bad_clips(message):
    with pytest.raises(vs.Error, match=message):
        vsvideosr.upscale(BAD_CLIPS[message]())


def test_floats_stay_floats():
    with pytest.raises(vs.Error, match=r"bits=8: a float clip stays float.*resize"):
        vsvideosr.upscale(blank(format=vs.RGBS), bits=8)


def test_a_network_with_its_state_inside_is_refused(frames, yuv, tmp_path):
    networks = pytest.importorskip("networks", reason="torch is not installed")
    model = networks.video(tmp_path / "video.onnx", state_used_twice=True)
    with pytest.raises(vs.Error, match=r"video.onnx: .*state inside.*--form deploy"):
        vsvideosr.upscale(clip_of(frames, yuv), model, precision="f32")


def test_an_engine_that_cannot_be_loaded(frames, yuv, monkeypatch):
    """As when a plugin has brought another build of OpenVINO into the process."""

    def broken(options):
        raise ImportError("OpenVINO Python version (1) mismatches with OpenVINO Runtime library version (2)\nAnd more.")

    monkeypatch.setattr(vsvideosr, "Upscaler", broken)
    with pytest.raises(vs.Error, match=r"openvino engine cannot be loaded: .*mismatches.*engine='onnxruntime'"):
        vsvideosr.upscale(clip_of(frames, yuv))


def test_a_missing_extra_names_the_command_that_brings_it(frames, yuv, monkeypatch):
    def missing(options):
        raise MissingExtraError("--engine tensorrt", "tensorrt")

    monkeypatch.setattr(vsvideosr, "Upscaler", missing)
    with pytest.raises(vs.Error, match=r": engine tensorrt needs .*/uv run --extra tensorrt videosr "):
        vsvideosr.upscale(clip_of(frames, yuv), engine="tensorrt")

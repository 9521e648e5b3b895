"""One suite for every engine: the same inputs give the same pictures, and the same files are refused."""

from __future__ import annotations

import sys
from functools import cache

import native
import numpy as np
import pytest

torch = pytest.importorskip("torch")

import networks  # noqa: E402
from cuda_host import COMPILER  # noqa: E402
from hostdevice import HostDevice  # noqa: E402

from videosr.engines import ENGINES, Interface, load  # noqa: E402
from videosr.engines.cuda import CudaEngine  # noqa: E402
from videosr.engines.network import Network  # noqa: E402
from videosr.errors import EngineError, MissingExtraError, NetworkError, UsageError, remedy  # noqa: E402

ON_GPU = [pytest.param(name, marks=pytest.mark.gpu) for name in ("tensorrt", "tensorrt_rtx")]
ONNX_ENGINES = ["openvino", "onnxruntime", *ON_GPU]
CLOSE = {"cuda": 5e-3}  # in half precision; others in float32
CLOSEST = 1e-4


@pytest.fixture(params=[*ONNX_ENGINES, "native", "torch", "cuda"])
def name(request):
    if request.param == "native":
        native.needed()
    elif request.param != "cuda":
        pytest.importorskip(request.param)
    elif not COMPILER:
        pytest.skip("g++ is not installed: kernels cannot be compiled for the host")
    return request.param


@pytest.fixture(params=ONNX_ENGINES)
def onnx_name(request):
    pytest.importorskip(request.param)
    return request.param


def device(name):
    return "cuda" if name.startswith(("tensorrt", "cuda")) else "cpu"


def test_every_engine_is_in_this_suite():
    on_gpu = {param.values[0] for param in ON_GPU}
    assert {"native", "openvino", "onnxruntime", "torch", "cuda"} | on_gpu == set(ENGINES)


@cache
def on_the_stand_in(path):
    """Our own kernel, run on the host; half precision is all it has."""
    return CudaEngine(Network.open(path), device=HostDevice())


def fp32(name, path):
    if name == "cuda":
        return on_the_stand_in(path)
    return load(path, name, device=device(name), precision="f32", threads=1)


def pictures(*shape, seed=0):
    return np.random.default_rng(seed).random(shape).astype(np.float32)


def forward(model, frame, average=None):
    """What the network computes, in torch, its rim replicated."""
    from videosr.export import padded_forward

    with torch.no_grad():
        inputs = [torch.from_numpy(x) for x in (frame, average) if x is not None]
        return padded_forward(model, 8, *inputs).numpy()


def deployed(paragon, name):
    return fp32(name, paragon.weights if name == "torch" else paragon.deploy)


def assert_close(got, wanted, name=""):
    assert got.shape == wanted.shape
    assert got.dtype == np.float32
    assert np.abs(got - wanted).max() <= CLOSE.get(name, CLOSEST) * np.abs(wanted).max()


@pytest.mark.parametrize("shape", [(1, 3, 24, 32), (1, 3, 17, 23), (3, 3, 11, 9), (1, 3, 1, 1), (1, 3, 2, 37)])
def test_every_engine_computes_the_network(paragon, name, shape):
    engine = deployed(paragon, name)
    precision = "f16" if name == "cuda" else "f32"
    assert (engine.scale, engine.interface, engine.precision) == (2, Interface.AVERAGE, precision)
    frame = pictures(*shape)
    assert_close(engine.run(frame), forward(paragon.model, frame), name)


def test_a_batch_is_its_pictures_one_by_one(paragon, name):
    engine = deployed(paragon, name)
    frames, averages = pictures(4, 3, 13, 18), pictures(4, 3, 13, 18, seed=1)
    together = engine.run(frames, averages)
    for i in range(4):
        assert_close(together[i : i + 1], engine.run(frames[i : i + 1], averages[i : i + 1]))


def test_the_average_goes_to_the_detail_path_alone(paragon, name):
    engine = deployed(paragon, name)
    frame, average = pictures(1, 3, 14, 19), pictures(1, 3, 14, 19, seed=1)
    out = engine.run(frame, average)
    assert_close(out, forward(paragon.model, frame, average), name)
    assert_close(engine.run(frame, frame), engine.run(frame))
    # The base path is linear and sees the frame; with the average held, only it changes.
    other = pictures(1, 3, 14, 19, seed=2)
    base_of = forward(paragon.model, frame - other, average) - forward(paragon.model, np.zeros_like(frame), average)
    assert_close(out - engine.run(other, average), base_of)
    assert np.abs(out - engine.run(frame)).max() > 0.02  # the two paths can be told apart


def test_a_flat_picture_stays_flat_to_its_rim(paragon, name):
    engine = deployed(paragon, name)
    out = engine.run(np.full((1, 3, 9, 12), 0.5, np.float32))
    assert np.ptp(out[0, :, ::2, ::2], axis=(1, 2)).max() < CLOSEST


def test_results_are_the_callers(paragon, name):
    """A later run changes nothing in an earlier result, nor an input."""
    engine = deployed(paragon, name)
    frame = pictures(1, 3, 10, 12)
    copy = frame.copy()
    first = engine.run(frame)
    kept = first.copy()
    engine.run(pictures(1, 3, 10, 12, seed=5))
    assert np.array_equal(first, kept)
    first[:] = 7
    assert np.array_equal(engine.run(frame), kept)
    assert np.array_equal(frame, copy)


def test_any_float_layout_is_taken(paragon, name):
    engine = deployed(paragon, name)
    frame = pictures(1, 3, 10, 12)
    wanted = engine.run(frame)
    strided = np.ascontiguousarray(frame.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    assert np.array_equal(engine.run(strided), wanted)
    assert np.array_equal(engine.run(frame.astype(np.float64)), wanted)


def test_the_identity_names_what_the_bits_depend_on(paragon, name):
    engine = deployed(paragon, name)
    assert name in engine.identity
    assert engine.network.sha256 in engine.identity
    assert engine.precision in engine.identity
    assert deployed(paragon, name).identity == engine.identity


def test_networks_without_state_have_no_steps(paragon, name):
    with pytest.raises(EngineError, match=r"random.*no steps"):
        deployed(paragon, name).step(pictures(1, 3, 8, 8), reset=True)


# Files that are not ours


def test_image_networks(paragon, onnx_name):
    engine = fp32(onnx_name, paragon.image)
    assert (engine.scale, engine.interface) == (2, Interface.IMAGE)
    frame = pictures(2, 3, 15, 21)
    with torch.no_grad():
        assert_close(engine.run(frame), paragon.model(torch.from_numpy(frame)).numpy())


@pytest.mark.parametrize("scale", [1, 2, 3, 4])
def test_community_networks_of_any_whole_scale(tmp_path, onnx_name, scale):
    engine = fp32(onnx_name, networks.nearest(tmp_path / "nearest.onnx", scale))
    assert (engine.scale, engine.interface) == (scale, Interface.IMAGE)
    frame = pictures(2, 3, 9, 14)
    assert np.array_equal(engine.run(frame), frame.repeat(scale, axis=2).repeat(scale, axis=3))


def test_a_network_for_a_batch_of_one_gets_its_pictures_one_by_one(tmp_path, onnx_name):
    engine = fp32(onnx_name, networks.nearest(tmp_path / "one.onnx", batch=1))
    frame = pictures(3, 3, 9, 14)
    assert np.array_equal(engine.run(frame), frame.repeat(2, axis=2).repeat(2, axis=3))


@pytest.mark.parametrize("multiple", [2, 4, 8])
def test_networks_that_need_a_size_multiple(tmp_path, onnx_name, multiple):
    engine = fp32(onnx_name, networks.unshuffled(tmp_path / "unshuffled.onnx", multiple))
    for height, width in ((multiple, 3 * multiple), (2 * multiple + 1, 3 * multiple - 1), (1, 1)):
        frame = pictures(1, 3, height, width)
        assert np.array_equal(engine.run(frame), frame.repeat(2, axis=2).repeat(2, axis=3))


def test_networks_that_the_graph_ties_to_one_size_are_refused(tmp_path, onnx_name):
    path = networks.fixed_reshape(tmp_path / "fixed.onnx")
    with pytest.raises(NetworkError, match=r"fixed\.onnx.*32x24"):
        fp32(onnx_name, path)


def test_networks_of_a_stated_size_run_at_any_or_are_refused(tmp_path, onnx_name):
    """Where only the declaration is fixed, an engine that can lift it may."""
    path = networks.nearest(tmp_path / "declared.onnx", size=(24, 32))
    if onnx_name != "openvino":
        with pytest.raises(NetworkError, match=r"declared\.onnx.*32x24"):
            fp32(onnx_name, path)
        return
    frame = pictures(1, 3, 10, 11)
    assert np.array_equal(fp32(onnx_name, path).run(frame), frame.repeat(2, axis=2).repeat(2, axis=3))


KINDS = [
    "classifier",
    "one channel in",
    "four channels out",
    "smaller",
    "1.5x",
    "two nameless inputs",
    "no picture",
]


@pytest.fixture(scope="module")
def strangers(tmp_path_factory):
    return networks.not_upscalers(tmp_path_factory.mktemp("strangers"))


@pytest.mark.parametrize("kind", KINDS)
def test_other_networks_are_refused_by_file_name(strangers, onnx_name, kind):
    path = strangers[kind]
    with pytest.raises(NetworkError) as caught:
        fp32(onnx_name, path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["text", "empty", "truncated", "damaged", "folder", "missing"])
def test_broken_files_are_refused_by_name(tmp_path, paragon, name, kind):
    good = paragon.weights if name == "torch" else paragon.deploy
    path = tmp_path / f"{kind}{good.suffix}"
    data = good.read_bytes()
    if kind == "text":
        path.write_text("this is no network\n" * 40)
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "truncated":
        path.write_bytes(data[: len(data) // 2])
    elif kind == "damaged":
        middle = len(data) // 3
        path.write_bytes(data[:100] + bytes(200) + data[300:middle] + b"\xff" * 300 + data[middle + 300 :])
    elif kind == "folder":
        path.mkdir()
    with pytest.raises(NetworkError) as caught:
        fp32(name, path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


# Published video networks


@pytest.fixture(scope="module")
def clip():
    """Five frames of a noisy picture that drifts, (5, 1, 3, 18, 26)."""
    wide = pictures(1, 3, 18, 31, seed=3)
    noise = np.random.default_rng(4).normal(0, 0.02, (5, 1, 3, 18, 26)).astype(np.float32)
    return np.stack([wide[..., t : t + 26] for t in range(5)]) + noise


def averaged(clip, blend=0.2):
    """The published blend of the input frames, from the first."""
    average, out = None, []
    for frame in clip:
        average = frame if average is None else ((1 - blend) * frame + blend * average).astype(np.float32)
        out.append(average)
    return out


def assert_recurs(engine, clip, wanted, blend=0.2):
    """The engine gives the recurrence, whether its interface keeps it inside or takes the average."""
    for _ in range(2):  # the second time it starts from a state that is not its own
        for t, (frame, average) in enumerate(zip(clip, averaged(clip, blend), strict=True)):
            if engine.interface is Interface.RECURRENT:
                out = engine.step(frame, reset=t == 0)
            else:
                out = engine.run(frame, average)
            assert_close(out, wanted[t])


def test_published_video_networks_recur_as_torch_does(paragon, onnx_name, clip):
    wanted, features = [], None
    with torch.no_grad():
        for frame in clip:
            output, features = paragon.model.forward_video(torch.from_numpy(frame), features)
            wanted.append(output.numpy())
        alone = paragon.model(torch.from_numpy(clip[0])).numpy()
    assert_close(wanted[0], alone)
    engine = fp32(onnx_name, paragon.video)
    assert engine.scale == 2
    assert_recurs(engine, clip, wanted)
    assert np.abs(wanted[4] - paragon.model(torch.from_numpy(clip[4])).detach().numpy()).max() > 1e-3


@pytest.mark.parametrize("blend", [0.2, 0.45])
@pytest.mark.parametrize("form", ["plain", "scaled_input", "state_used_twice"])
def test_other_video_networks_recur_from_an_exact_start(tmp_path, onnx_name, clip, form, blend):
    path = networks.video(tmp_path / f"{form}.onnx", blend=blend, **({} if form == "plain" else {form: True}))
    onnxruntime = pytest.importorskip("onnxruntime")
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    # The exact state of a first frame: a fixed point, reached by showing the frame until nothing changes.
    state = np.zeros((1, 8, 18, 26), np.float32)
    for _ in range(30):
        first, state = session.run(None, {"input": clip[0], "prev_feat": state})
    wanted = [first]
    for frame in clip[1:]:
        output, state = session.run(None, {"input": frame, "prev_feat": state})
        wanted.append(output)
    engine = fp32(onnx_name, path)
    assert_recurs(engine, clip, wanted, blend)


def test_a_state_that_is_no_average_of_features_is_refused(tmp_path, onnx_name):
    """No start is known from which its first frame would come out as if it stood alone."""
    path = networks.video(tmp_path / "strange.onnx", rectified_state=True)
    with pytest.raises(NetworkError, match=r"strange\.onnx.*state"):
        fp32(onnx_name, path)


def test_recurrent_networks_do_not_run_out_of_order(tmp_path, onnx_name):
    engine = fp32(onnx_name, networks.video(tmp_path / "video.onnx", state_used_twice=True))
    assert engine.interface is Interface.RECURRENT
    with pytest.raises(EngineError, match=r"video\.onnx.*in order"):
        engine.run(pictures(1, 3, 8, 8))


def test_a_recurrent_network_takes_another_size_at_a_reset(tmp_path, onnx_name, clip):
    engine = fp32(onnx_name, networks.video(tmp_path / "video.onnx", state_used_twice=True))
    engine.step(clip[0], reset=True)
    small = np.ascontiguousarray(clip[1][..., :9, :13])
    after = engine.step(small, reset=True)
    fresh = fp32(onnx_name, engine.network.path).step(small, reset=True)
    assert np.array_equal(after, fresh)


# Asking for what is not there


def test_missing_packages_name_the_extra(paragon, name, monkeypatch):
    if name == "native":
        pytest.skip("it brings no package")
    library, own = ("cupy", "gpu_cupy") if name == "cuda" else (name, name)
    monkeypatch.setitem(sys.modules, library, None)  # import raises ModuleNotFoundError
    monkeypatch.delitem(sys.modules, f"videosr.engines.{own}", raising=False)
    with pytest.raises(MissingExtraError, match=name) as caught:
        load(paragon.deploy, name, device=device(name))
    assert remedy(caught.value.extra) in str(caught.value)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"engine": "tensorflow"}, "tensorflow.*openvino, onnxruntime, torch"),
        ({"device": "tpu"}, "tpu.*cpu, cuda"),
        ({"device": "cuda"}, "openvino.*--engine torch"),
        ({"precision": "int4"}, "int4"),
        ({"engine": "onnxruntime", "precision": "bf16"}, "bf16"),
        ({"engine": "torch", "precision": "bf16"}, "bf16"),
    ],
)
def test_impossible_requests_are_refused(paragon, options, said):
    path = paragon.weights if options.get("engine") == "torch" else paragon.deploy
    with pytest.raises(UsageError, match=said):
        load(path, **options)


def test_torch_says_when_there_is_no_such_device(paragon):
    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device here")
    with pytest.raises(EngineError, match="cuda"):
        load(paragon.weights, "torch", device="cuda")


def test_a_half_precision_file_is_close_to_the_full_one(paragon, onnx_name):
    engine = load(paragon.half, onnx_name, device=device(onnx_name), threads=1)
    frame = pictures(1, 3, 16, 20)
    wanted = forward(paragon.model, frame)
    assert np.abs(engine.run(frame) - wanted).max() < 4e-3 * max(1, np.abs(wanted).max())

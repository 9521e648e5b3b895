"""The ONNX Runtime engine: community networks, published video networks, and files that are neither."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("onnxruntime")
onnx = pytest.importorskip("onnx")
torch = pytest.importorskip("torch")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402
from safetensors.torch import save_file  # noqa: E402

from videosr.archs.paragonsr2 import ParagonSR2  # noqa: E402
from videosr.engines.base import Interface  # noqa: E402
from videosr.engines.network import Network  # noqa: E402
from videosr.engines.onnxruntime import OnnxRuntimeEngine  # noqa: E402
from videosr.engines.openvino import OpenVINOEngine  # noqa: E402
from videosr.errors import EngineError, NetworkError, UsageError  # noqa: E402
from videosr.export import export  # noqa: E402

FLOAT, HALF = TensorProto.FLOAT, TensorProto.FLOAT16
NEAREST = {"mode": "nearest", "nearest_mode": "floor", "coordinate_transformation_mode": "asymmetric"}


def write(path, nodes, inputs, outputs, constants=()):
    """An ONNX file; ports are (name, type, shape)."""
    ports = [[helper.make_tensor_value_info(*port) for port in side] for side in (inputs, outputs)]
    graph = helper.make_graph(nodes, "test", *ports, [numpy_helper.from_array(v, n) for n, v in constants])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.save(model, path)
    return Network.open(path)


def enlarger(path, scale=2, shape=("N", 3, "H", "W"), kind=FLOAT, names=("picture", "larger")):
    """Nearest neighbour, as a community network might be."""
    resize = helper.make_node("Resize", [names[0], "", "factors"], [names[1]], **NEAREST)
    factors = np.array([1, 1, scale, scale], np.float32)
    out = (names[1], kind, [shape[0], 3, None, None])
    return write(path, [resize], [(names[0], kind, shape)], [out], [("factors", factors)])


def shuffler(path, multiple):
    """Takes only sizes that are multiples of a number: space to depth and back, twice as large."""
    size = ("N", 3, "H", "W")
    down = helper.make_node("SpaceToDepth", ["x"], ["deep"], blocksize=multiple)
    up = helper.make_node("DepthToSpace", ["deep"], ["same"], blocksize=multiple)
    resize = helper.make_node("Resize", ["same", "", "factors"], ["y"], **NEAREST)
    factors = np.array([1, 1, 2, 2], np.float32)
    return write(path, [down, up, resize], [("x", FLOAT, size)], [("y", FLOAT, size)], [("factors", factors)])


@pytest.mark.parametrize("scale", [1, 2, 3])
@pytest.mark.parametrize("kind", [FLOAT, HALF])
@pytest.mark.parametrize("batch", ["N", 1])
def test_any_image_network_runs(tmp_path, scale, kind, batch):
    engine = OnnxRuntimeEngine(enlarger(tmp_path / "a.onnx", scale, (batch, 3, "H", "W"), kind), threads=1)
    assert (engine.scale, engine.interface) == (scale, Interface.IMAGE)
    frame = np.random.default_rng(0).random((2, 3, 5, 7), np.float32)
    output = engine.run(frame)
    assert output.dtype == np.float32
    assert np.abs(output - frame.repeat(scale, 2).repeat(scale, 3)).max() < (1e-3 if kind == HALF else 1e-7)


def test_sizes_are_padded_to_the_multiple_a_network_needs(tmp_path, capfd):
    engine = OnnxRuntimeEngine(shuffler(tmp_path / "a.onnx", 4), threads=1)
    frame = np.random.default_rng(0).random((1, 3, 5, 10), np.float32)
    assert np.array_equal(engine.run(frame), frame.repeat(2, 2).repeat(2, 3))
    assert capfd.readouterr().err == ""  # the trials are nobody's business


def test_a_published_video_network_starts_every_scene_exactly(tmp_path):
    torch.manual_seed(0)
    model = ParagonSR2("realtime", 2, upsampler_alpha=0.0, detail_gain=1.0, layer_scale=0.1).eval()
    save_file(model.state_dict(), tmp_path / "a.safetensors")
    export(tmp_path / "a.safetensors", tmp_path / "a.onnx", form="video", alpha=0.0, blend=0.3)
    engine = OnnxRuntimeEngine(Network.open(tmp_path / "a.onnx"), threads=1)
    assert (engine.scale, engine.interface) == (2, Interface.RECURRENT)
    frames = torch.rand(6, 1, 3, 11, 14)
    features = None
    for i, frame in enumerate(frames):
        if i == 4:
            features = None
        with torch.no_grad():
            expected, features = model.forward_video(frame, features, 0.3)
        output = engine.step(frame.numpy(), reset=i in (0, 4))
        assert np.abs(output - expected.numpy()).max() < 1e-5
    with pytest.raises(EngineError, match="runs in steps"):
        engine.run(frames[0].numpy())


def test_what_is_no_upscaler_is_refused(tmp_path):
    (tmp_path / "text.onnx").write_text("hello")
    with pytest.raises(NetworkError, match="not an ONNX network"):
        Network.open(tmp_path / "text.onnx")

    def refused(network, match):
        with pytest.raises(NetworkError, match=match) as caught:
            OnnxRuntimeEngine(network, threads=1)
        assert "\n" not in str(caught.value)

    refused(enlarger(tmp_path / "a.onnx", shape=("N", 3, 64, 64)), "made for 64x64 only; export it with dynamic")
    refused(enlarger(tmp_path / "a.onnx", shape=("N", 4, "H", "W")), r"not a float \(N, 3, H, W\) tensor")
    refused(enlarger(tmp_path / "a.onnx", kind=TensorProto.UINT8), r"not a float \(N, 3, H, W\) tensor")
    two = helper.make_node("Split", ["x"], ["y", "z"], axis=2, num_outputs=2)
    size = ("N", 3, "H", "W")
    ports = [(name, FLOAT, size) for name in "xyz"]
    refused(write(tmp_path / "a.onnx", [two], ports[:1], ports[1:]), "inputs x and outputs y, z are not an upscaler's")
    mean = helper.make_node("GlobalAveragePool", ["x"], ["y"])
    refused(write(tmp_path / "a.onnx", [mean], ports[:1], ports[1:2]), "not an upscaler by a whole factor")
    unknown = helper.make_node("Enlarge", ["x"], ["y"], domain="elsewhere")
    refused(write(tmp_path / "a.onnx", [unknown], ports[:1], ports[1:2]), "ONNX Runtime cannot load it")


@pytest.mark.parametrize("engine", [OnnxRuntimeEngine, OpenVINOEngine])
def test_networks_of_samples_up_to_255_are_refused(tmp_path, engine):
    size = ("N", 3, "H", "W")
    levels = [("levels", np.float32(255))]
    nodes = [helper.make_node("Mul", ["x", "levels"], ["z"]), helper.make_node("Floor", ["z"], ["y"])]
    network = write(tmp_path / "a.onnx", nodes, [("x", FLOAT, size)], [("y", FLOAT, size)], levels)
    with pytest.raises(NetworkError, match=r"a\.onnx: makes 127 of mid grey, 0\.5; its samples seem to be 0\.\.255: "):
        engine(network, threads=1)


def test_failures_are_engine_errors_of_one_line(tmp_path):
    engine = OnnxRuntimeEngine(enlarger(tmp_path / "a.onnx"), threads=1)
    with pytest.raises(EngineError, match="ONNX Runtime failed on 8x8") as caught:
        engine.run(np.zeros((1, 4, 8, 8), np.float32))
    assert "\n" not in str(caught.value)
    with pytest.raises(EngineError, match="has no steps"):
        engine.step(np.zeros((1, 3, 8, 8), np.float32), reset=True)
    with pytest.raises(UsageError, match="precision 'f16': ONNX Runtime computes as the file says"):
        OnnxRuntimeEngine(engine.network, precision="f16")


def test_identity_tells_networks_apart(tmp_path):
    a = OnnxRuntimeEngine(enlarger(tmp_path / "a.onnx", 2), threads=1)
    b = OnnxRuntimeEngine(enlarger(tmp_path / "b.onnx", 3), threads=1)
    assert a.identity != b.identity
    assert a.identity == OnnxRuntimeEngine(a.network, threads=1).identity

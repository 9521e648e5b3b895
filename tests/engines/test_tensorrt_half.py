"""Half precision written into the graph: close to float32, types right for strongly typed runtimes."""

from __future__ import annotations

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("torch")

import networks  # noqa: E402
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from videosr.engines.tensorrt_half import to_half  # noqa: E402
from videosr.errors import NetworkError  # noqa: E402


def session(data):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def outputs(data, size=(24, 33)):
    """Of a picture; the state, where there is one, is random too."""
    rng, run = np.random.default_rng(0), session(data)
    ports = {port.name: port.shape[1] if port.name == "prev_feat" else 3 for port in run.get_inputs()}
    return run.run(None, {name: rng.random((1, count, *size), np.float32) for name, count in ports.items()})


def psnr(a, b):
    error = np.mean((a.astype(np.float64) - b) ** 2)
    return -10 * np.log10(error) if error else np.inf


def kinds(data):
    """(type of layer, type of its first output) of every layer."""
    model = onnx.shape_inference.infer_shapes(onnx.load_model_from_string(data), strict_mode=True)
    types = {v.name: v.type.tensor_type.elem_type for v in (*model.graph.value_info, *model.graph.output)}
    return [(node.op_type, types.get(node.output[0])) for node in model.graph.node]


FORMS = [("realtime", "deploy"), ("realtime", "video"), ("stream", "deploy"), ("stream", "image"), ("photo", "image")]


@pytest.mark.parametrize(("variant", "form"), FORMS)
def test_networks_are_the_same_to_a_fraction_of_a_code(tmp_path, variant, form):
    data = getattr(networks.Paragon(tmp_path, 2, variant), form).read_bytes()
    half = to_half(data, "x")
    onnx.checker.check_model(onnx.load_model_from_string(half), full_check=True)
    for exact, made in zip(outputs(data), outputs(half), strict=True):
        assert made.dtype == np.float32
        assert psnr(exact, made) > 60
    convolutions = [kind for op, kind in kinds(half) if op == "Conv"]
    assert convolutions.count(TensorProto.FLOAT16) > len(convolutions) // 2
    gates = [kind for op, kind in kinds(half) if op in ("ReduceMean", "Sqrt", "Div", "Pow", "Softmax")]
    assert TensorProto.FLOAT16 not in gates
    assert len(half) < len(data)


def test_the_base_path_keeps_the_picture_in_float32(paragon):
    """What the second input has no part in is bit for bit what it was."""
    data = paragon.deploy.read_bytes()
    model = onnx.load_model_from_string(to_half(data, "x"))
    base = next(node for node in model.graph.node if "base.weight" in node.input)
    assert not any(name.endswith("/half") for name in base.input)
    # Values that float16 cannot tell apart (2049/4096 and its neighbour) differ in the result of the base path.
    run = session(model.SerializeToString())
    frame = np.full((1, 3, 8, 8), 0.5, np.float32)
    other = frame + np.float32(2**-14)
    a, b = (run.run(None, {"input": x, "average": frame})[0] for x in (frame, other))
    assert np.abs((b - a) - 2**-14).max() < 1e-6


def test_networks_in_half_precision_stay_as_they_are(paragon):
    data = paragon.half.read_bytes()
    assert to_half(data, "x") is data


def test_networks_without_heavy_layers_stay_as_they_are(tmp_path):
    data = networks.nearest(tmp_path / "nearest.onnx").read_bytes()
    assert to_half(data, "x") is data


@pytest.mark.parametrize("options", [{}, {"scaled_input": True}, {"state_used_twice": True}])
def test_states_keep_their_type(tmp_path, options):
    data = networks.video(tmp_path / "video.onnx", **options).read_bytes()
    rng = np.random.default_rng(1)
    feeds = {"input": rng.random((1, 3, 9, 11), np.float32), "prev_feat": rng.random((1, 8, 9, 11), np.float32)}
    exact, made = (session(d).run(None, feeds) for d in (data, to_half(data, "x")))
    for a, b in zip(exact, made, strict=True):
        assert b.dtype == np.float32
        assert psnr(a, b) > 60


def picture(*shape):
    return helper.make_tensor_value_info("x", TensorProto.FLOAT, list(shape) or ["N", 3, "H", "W"])


def model(nodes, constants, outputs=("y",), inputs=None):
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs]
    tensors = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "test", inputs or [picture()], ports, tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9).SerializeToString()


WEIGHT = np.random.default_rng(0).normal(0, 0.3, (3, 3, 3, 3)).astype(np.float32)
CONV = helper.make_node("Conv", ["x", "w"], ["c"], pads=[1, 1, 1, 1])


@pytest.mark.parametrize(
    ("nodes", "constants"),
    [
        pytest.param([helper.make_node("Pad", ["c", "pads", "fill"], ["y"])],
                     {"pads": np.array([0, 0, 1, 1, 0, 0, 2, 2]), "fill": np.float32(0.25)}, id="pad with a value"),
        pytest.param([helper.make_node("Clip", ["c", "low", "", ], ["y"])], {"low": np.float32(0)}, id="open clip"),
        pytest.param([helper.make_node("Resize", ["c", "", "s"], ["y"], mode="linear")],
                     {"s": np.array([1, 1, 2, 2], np.float32)}, id="resize keeps float32 factors"),
        pytest.param([helper.make_node("Mul", ["c", "c"], ["y"])], {}, id="square"),
        pytest.param([helper.make_node("Relu", ["c"], ["r"]), helper.make_node("Add", ["r", "x"], ["y"])], {},
                     id="skip"),
        pytest.param([helper.make_node("Shape", ["c"], ["n"]), helper.make_node("Reshape", ["c", "n"], ["y"])], {},
                     id="sizes"),
        pytest.param([helper.make_node("Constant", [], ["k"], value=numpy_helper.from_array(np.float32(3))),
                      helper.make_node("Mul", ["c", "k"], ["y"])], {}, id="constant node"),
        pytest.param([helper.make_node("PRelu", ["c", "slope"], ["y"])],
                     {"slope": np.full((3, 1, 1), 0.1, np.float32)}, id="prelu"),
        pytest.param([helper.make_node("Split", ["c"], ["a", "b", "d"], axis=1),
                      helper.make_node("Concat", ["a", "d", "b"], ["y"], axis=1)], {}, id="split and concat"),
    ],
)  # fmt: skip
def test_layers_between_keep_to_their_types(nodes, constants):
    data = model([CONV, *nodes], {"w": WEIGHT, **constants})
    half = to_half(data, "x")
    onnx.checker.check_model(onnx.load_model_from_string(half), full_check=True)
    assert psnr(*(outputs(d, (8, 10))[0] for d in (data, half))) > 55


def test_an_output_that_is_read_inside_too_is_float32_outside():
    data = model([CONV, helper.make_node("Relu", ["c"], ["y"])], {"w": WEIGHT}, ("c", "y"))
    exact, made = (outputs(d, (8, 10)) for d in (data, to_half(data, "x")))
    assert [value.dtype for value in made] == [np.float32, np.float32]
    assert min(psnr(a, b) for a, b in zip(exact, made, strict=True)) > 55


def test_weights_beyond_float16_stay_float32():
    data = model([helper.make_node("Conv", ["x", "w"], ["y"], pads=[1, 1, 1, 1])], {"w": WEIGHT * 1e6})
    assert to_half(data, "x") is data


@pytest.mark.parametrize("data", [b"no network", b"\xff" * 50])
def test_what_is_no_network_is_refused_by_name(data):
    with pytest.raises(NetworkError, match=r"bad\.onnx"):
        to_half(data, "bad.onnx")


def test_control_flow_is_refused():
    branch = helper.make_graph(
        [helper.make_node("Identity", ["c"], ["b"])], "branch", [],
        [helper.make_tensor_value_info("b", TensorProto.FLOAT, None)],
    )  # fmt: skip
    chosen = helper.make_node("If", ["yes"], ["y"], then_branch=branch, else_branch=branch)
    data = model([CONV, chosen], {"w": WEIGHT, "yes": np.array(True)})
    with pytest.raises(NetworkError, match=r"control flow.*f32"):
        to_half(data, "x")

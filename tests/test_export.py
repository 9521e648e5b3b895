"""Exported networks: equal to torch, named as promised, complete in themselves, or not there at all."""

from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")

from safetensors.torch import save_file  # noqa: E402

from videosr import export as exporting  # noqa: E402
from videosr.archs import checkpoint, fold, onnx_graph  # noqa: E402
from videosr.archs.paragonsr2 import SCALES, VARIANTS, ParagonSR2  # noqa: E402
from videosr.engines.network import Network  # noqa: E402
from videosr.errors import NetworkError, UsageError  # noqa: E402
from videosr.export import export, padded_forward  # noqa: E402


@pytest.fixture(autouse=True)
def _fewer_blocks(monkeypatch):
    """Two blocks, one of them shifted, show all that thirty-six do."""
    for name in ("photo", "pro"):
        monkeypatch.setitem(VARIANTS, name, replace(VARIANTS[name], groups=1, blocks=2))


def network(variant="realtime", scale=2, alpha=0.0, **options):
    torch.manual_seed(0)
    options = {"detail_gain": 0.5, "layer_scale": 0.1, "window_size": 8} | options
    return ParagonSR2(variant, scale, upsampler_alpha=alpha, **options).eval()


@pytest.fixture
def ours(tmp_path):
    """A realtime 2x network of our own: its model, its file."""
    model, path = network(), tmp_path / "ours.safetensors"
    checkpoint.save(path, model, name="ours-2x", training="none", license="MIT")
    return model, path


def run(path, **inputs):
    onnxruntime = pytest.importorskip("onnxruntime")
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(None, {name: value.numpy() for name, value in inputs.items()})


CASES = [
    *[("realtime", scale, "deploy", "fp32", 0.0) for scale in SCALES],
    ("realtime", 2, "deploy", "fp16", 0.3),
    ("realtime", 3, "image", "fp32", 0.3),
    ("realtime", 4, "video", "fp16", 0.0),
    ("stream", 2, "deploy", "fp32", 0.0),
    ("stream", 8, "image", "fp16", 0.0),
    ("stream", 2, "video", "fp32", 0.4),
    ("photo", 2, "deploy", "fp32", 0.4),
    ("photo", 3, "image", "fp16", 0.0),
    ("photo", 2, "video", "fp32", 0.0),
    ("pro", 2, "deploy", "fp16", 0.0),
    ("pro", 2, "image", "fp32", 0.4),
    ("pro", 4, "video", "fp32", 0.0),
]


@pytest.mark.parametrize(("variant", "scale", "form", "precision", "alpha"), CASES)
def test_every_export_of_published_weights_agrees_with_torch(tmp_path, variant, scale, form, precision, alpha):
    source, output = tmp_path / "published.safetensors", tmp_path / "net.onnx"
    save_file(network(variant, scale).state_dict(), source)
    report = export(source, output, form=form, precision=precision, alpha=alpha, window_size=8)
    assert len(report.checks) == 4
    assert {(c.height % 2, c.width % 2) for c in report.checks} == {(0, 0), (1, 1)}
    for check in report.checks:
        assert check.inside <= report.tolerance
        assert (check.rim <= report.tolerance) == (form != "deploy")
        assert (check.folded is not None) == (form == "deploy")
        assert (check.state is not None) == (form == "video")
    assert len(report.lines()) == 6 + (form == "deploy")
    metadata = Network.open(output).metadata
    assert metadata == report.metadata
    assert metadata.keys() <= exporting.METADATA_KEYS.keys()
    assert (metadata["variant"], metadata["scale"], metadata["form"]) == (variant, str(scale), form)
    assert (metadata["alpha"], metadata["halo"], metadata["name"]) == (repr(alpha), "0", "published")
    assert metadata.get("window_size") == ("8" if variant in ("photo", "pro") else None)
    assert metadata.get("blend") == ("0.2" if form == "video" else None)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_the_limit_of_stream_products_is_exported(tmp_path, precision):
    """So tight that it shows: with the published one the same weights make another picture."""
    source, outputs = tmp_path / "net.safetensors", []
    x = torch.rand(1, 3, 12, 12)
    for limit in (65504.0, 1e-3):
        model = network("stream", layer_scale=1.0, product_limit=limit)
        checkpoint.save(source, model, name="ours", training="none", license="MIT")
        report = export(source, tmp_path / "net.onnx", precision=precision)  # has compared it with torch
        assert report.metadata["product_limit"] == repr(limit)
        outputs.append(run(tmp_path / "net.onnx", input=x, average=x)[0])
    assert np.abs(outputs[0] - outputs[1]).max() > 5e-3


def test_our_own_weights_get_a_replicated_rim_and_need_no_settings(tmp_path, ours):
    model, source = ours
    report = export(source, tmp_path / "net.onnx")
    assert report.rim_is_exact
    assert max(c.rim for c in report.checks) <= report.tolerance
    assert dict(report.metadata) == {
        "format": "1",
        "name": "ours-2x",
        "variant": "realtime",
        "scale": "2",
        "form": "deploy",
        "precision": "fp32",
        "alpha": "0.0",
        "halo": "8",
        "chroma": "network",
        "reach": "7",
        "training": "none",
        "license": "MIT",
        "checkpoint_sha256": checkpoint.load(source)[1].sha256,
    }
    # Any size, any batch: the rim of a single pixel is replicated as that of a picture.
    for size in ((1, 1), (5, 33)):
        x, average = torch.rand(2, 3, *size), torch.rand(2, 3, *size)
        (output,) = run(tmp_path / "net.onnx", input=x, average=average)
        assert np.abs(output - padded_forward(model, 8, x, average).numpy()).max() < 1e-5


def test_names_of_the_deployment_form_are_a_contract(tmp_path, ours):
    export(ours[1], tmp_path / "net.onnx")
    graph = onnx.load(tmp_path / "net.onnx").graph
    nodes = {node.name: node.op_type for node in graph.node}
    body = {f"body.0.blocks.{i}.{part}" for i in range(3) for part in ("conv1", "dw", "gelu", "conv2", "add")}
    assert nodes.keys() - body == {
        *("pad_input", "pad_average", "base", "conv_in", "conv_mid", "tail", "sum", "shuffle", "crop")
    }
    assert [nodes[n] for n in ("base", "tail", "sum", "shuffle", "crop")] == [
        *("Conv", "Conv", "Add", "DepthToSpace", "Slice")
    ]
    shapes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    assert shapes["base.weight"] == (12, 3, 3, 3)
    assert shapes["tail.weight"] == (12, 16, 5, 5)
    assert shapes["tail.bias"] == (12,)
    assert shapes["conv_in.weight"] == (16, 3, 3, 3)
    assert [port.name for port in (*graph.input, *graph.output)] == ["input", "average", "output"]
    export(ours[1], tmp_path / "net.onnx", padding="zero")
    nodes = {node.name for node in onnx.load(tmp_path / "net.onnx").graph.node}
    assert not nodes & {"pad_input", "pad_average", "crop"}


def test_half_precision_keeps_the_picture_in_float32(tmp_path):
    source = tmp_path / "net.safetensors"
    save_file(network("stream").state_dict(), source)
    export(source, tmp_path / "net.onnx", precision="fp16", alpha=0.0)
    model = onnx.shape_inference.infer_shapes(onnx.load(tmp_path / "net.onnx"))
    types = {value.name: value.type.tensor_type.elem_type for value in (*model.graph.value_info, *model.graph.output)}
    full, half = onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16
    assert {types[name] for name in ("conv_in", "body.0.blocks.0.gate", "conv_mid", "tail")} == {half}
    assert {types[name] for name in ("base", "body.0.blocks.0.product", "sum", "output")} == {full}


def test_video_networks_start_exactly_with_two_runs(tmp_path):
    model, source = network(), tmp_path / "published.safetensors"
    save_file(model.state_dict(), source)
    export(source, tmp_path / "net.onnx", form="video", alpha=0.0, blend=0.4)
    x = torch.rand(1, 3, 12, 15)
    naive, features = run(tmp_path / "net.onnx", input=x, prev_feat=torch.zeros(1, 16, 12, 15))
    started, _ = run(tmp_path / "net.onnx", input=x, prev_feat=torch.from_numpy(features / np.float32(1 - 0.4)))
    alone = padded_forward(model, 0, x).numpy()
    assert np.abs(started - alone).max() < 1e-5 < 1e-3 < np.abs(naive - alone).max()


def test_a_network_that_does_not_do_what_torch_does_is_not_written(tmp_path, ours, monkeypatch):
    true_tail = fold.tail

    def wrong_tail(model):
        tail = true_tail(model)
        return fold.Convolution(tail.weight.flip(2), tail.bias)

    monkeypatch.setattr(onnx_graph.fold, "tail", wrong_tail)
    with pytest.raises(NetworkError, match=r"net\.onnx: not written: .* differs from torch by .* inside \(noise"):
        export(ours[1], tmp_path / "net.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["ours.safetensors"]


def test_not_a_number_is_not_within_tolerance(tmp_path, ours, monkeypatch):
    monkeypatch.setattr(exporting, "_difference", lambda got, expected: np.full(got.shape, np.nan))
    with pytest.raises(NetworkError, match="differs from torch by nan"):
        export(ours[1], tmp_path / "net.onnx")


def test_without_onnx_runtime_openvino_checks(tmp_path, ours, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    monkeypatch.delitem(sys.modules, "videosr.engines.onnxruntime", raising=False)
    report = export(ours[1], tmp_path / "net.onnx")
    assert report.runtime.startswith("OpenVINO")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"form": "onnx"}, "form 'onnx' is not one of deploy, image, video"),
        ({"precision": "int8"}, "precision 'int8' is not one of fp32, fp16"),
        ({"padding": "reflect"}, "padding 'reflect' is neither 'replicate' nor 'zero'"),
        ({"form": "video", "padding": "replicate"}, "padding 'replicate' has no place in it"),
        ({"form": "video", "blend": 1.0}, "blend 1.0 is out of range"),
        ({"alpha": 0.5}, r"--alpha 0\.5 contradicts the 0\.0"),
    ],
)
def test_wrong_options_are_refused(tmp_path, ours, options, message):
    with pytest.raises(UsageError, match=message):
        export(ours[1], tmp_path / "net.onnx", **options)
    assert not (tmp_path / "net.onnx").exists()


def test_natural_pictures_are_pictures():
    picture = exporting.natural_picture(37, 53, torch.Generator().manual_seed(0))
    assert picture.shape == (1, 3, 37, 53)
    assert (picture.min(), picture.max()) == (0, 1)
    steps = (picture[..., 1:] - picture[..., :-1]).abs()
    assert steps.median() < 0.1 < 0.3 < steps.max()  # smooth, with edges; of white noise the median is 0.29


def test_the_command_names_types_as_everywhere_else(ours, tmp_path, videosr):
    path = tmp_path / "half.onnx"
    done = videosr("export", ours[1], "-o", path, "--precision", "f16")
    assert done.code == 0, done.err
    assert Network.open(path).metadata["precision"] == "fp16"


@pytest.mark.parametrize("name", ["light.safetensors", "light.bin", "light"])
def test_no_other_file_is_written_over(ours, tmp_path, name):
    (tmp_path / name).write_bytes(b"mine")
    with pytest.raises(UsageError, match=rf"{name}: what is exported is an ONNX network; name it light\.onnx"):
        export(ours[1], tmp_path / name)
    assert (tmp_path / name).read_bytes() == b"mine"

"""Graphs rewritten for OpenVINO's sake compute what they did."""

from __future__ import annotations

import numpy as np
import openvino as ov
import openvino.opset13 as ops
import pytest

pytest.importorskip("torch")

import networks

from videosr.engines import Picture
from videosr.engines.network import Network
from videosr.engines.openvino_planes import build
from videosr.engines.openvino_rewrite import split_concats
from videosr.frame import FORMATS, ColorSpec, Matrix, Range, Siting
from videosr.models import registry


def joins(model: ov.Model) -> int:
    """Concats of maps; those along axis 0 put shapes together."""
    concats = [op for op in model.get_ordered_ops() if op.get_type_name() == "Concat"]
    return sum(op.get_attributes()["axis"] > 0 for op in concats)


def results(model: ov.Model, *pictures: np.ndarray) -> np.ndarray:
    compiled = ov.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return next(iter(compiled(list(pictures)).values()))


def test_the_stream_network_joins_no_maps(tmp_path):
    model = ov.Core().read_model(networks.Paragon(tmp_path, 2, "stream").deploy)
    pictures = np.random.default_rng(0).random((2, 1, 3, 24, 20), dtype=np.float32)
    before = results(model, *pictures)
    assert joins(model) == 6
    split_concats(model)
    assert joins(model) == 0
    np.testing.assert_allclose(results(model, *pictures), before, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("axis", "size", "pads", "parts"), [(1, 1, 0, 2), (1, 1, 0, 3), (1, 3, 1, 2), (1, 1, 1, 2), (2, 1, 0, 2)]
)
def test_only_plain_1x1_convolutions_of_joined_channels_are_split(axis, size, pads, parts):
    rng = np.random.default_rng(1)
    x = ops.parameter([1, 4, 6, 5], ov.Type.f32)
    joined = ops.concat([ops.multiply(x, ops.constant(np.float32(i + 1))) for i in range(parts)], axis)
    kernel = rng.standard_normal((3, 4 * parts if axis == 1 else 4, size, size)).astype(np.float32)
    y = ops.convolution(joined, ops.constant(kernel), [1, 1], [pads, pads], [pads, pads], [1, 1])
    model = ov.Model([ops.result(y)], [x])
    picture = rng.random((1, 4, 6, 5), dtype=np.float32)
    before = results(model, picture)
    split_concats(model)
    assert joins(model) == ((axis, size, pads) != (1, 1, 0))
    np.testing.assert_allclose(results(model, picture), before, rtol=0, atol=1e-4)


@pytest.mark.parametrize("model", [m.name for m in registry.shipped() if m.name.startswith(("light", "realtime"))])
def test_depthwise_convolutions_keep_openvino_from_fusing_them(model):
    """Their bias is added behind, in two places (see `simplify_gelu`); a fused one takes two reorders of wide maps."""
    path = registry.find(model)
    network, fmt = Network.open(path), FORMATS["yuv420p"]
    scale, spec = network.number("scale", 1), ColorSpec(matrix=Matrix.BT709, range=Range.LIMITED, siting=Siting.LEFT)
    source, target = (Picture(height=48 * n, width=64 * n, format=fmt, color=spec) for n in (1, scale))
    model = build(ov.Core(), network, source, target, scale).picture
    depthwise = [op for op in model.get_ordered_ops() if op.get_type_name() == "GroupConvolution"]
    readers = [sorted(r.get_node().get_type_name() for r in op.output(0).get_target_inputs()) for op in depthwise]
    assert readers == [["Add", "Minimum"]] * 3

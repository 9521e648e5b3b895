"""Rewriting a network's graph into what OpenVINO computes faster on CPUs in float32."""

from __future__ import annotations

import numpy as np
import openvino as ov
import openvino.opset13 as ops
from numpy.typing import NDArray
from openvino import Node

_GELU_LIMIT = 4.0
_GELU_TAPS = (
    0.397895734,
    -0.0645623381,
    0.00876137591,
    -0.000811080004,
    4.76150944e-05,
    -1.58043584e-06,
    2.24159599e-08,
)
"""Phi(x) - 1/2 = x * sum of taps[i] * x^(2 i) on [-4, 4], the standard normal distribution function, least squares on
Chebyshev nodes weighted by |x|, exactly 1/2 at 4: x * Phi(x) is then within 2.1e-4 of GELU everywhere."""


def simplify_gelu(model: ov.Model) -> None:
    """Replace the exact GELU, whose erf takes as long as the depthwise convolution before it, by a polynomial.

    Only in float32: an error of 2e-4 in a feature is far below an output code. Half precision keeps OpenVINO's own.

    The bias of the convolution before it is added behind, in two places, which keeps OpenVINO from fusing the depthwise
    convolution with the 1x1 before it on AVX2. That kernel needs another memory layout than all others have, and two
    reorders of the network's widest maps around it cost more than it saves (a tenth of the network).
    """
    for op in model.get_ordered_ops():
        if op.get_type_name() != "Gelu":
            continue
        x, bias = op.input_value(0), _bias_of(op.input_value(0).get_node())
        if bias is None:
            y = ops.clamp(x, -_GELU_LIMIT, _GELU_LIMIT)
        else:
            before = x.get_node().input_value(0)
            low, high, shift = (ops.constant(v) for v in (-_GELU_LIMIT - bias, _GELU_LIMIT - bias, bias))
            x, y = ops.add(before, shift), ops.add(ops.maximum(ops.minimum(before, high), low), shift)
        square = ops.multiply(y, y)
        total = ops.constant(np.float32(_GELU_TAPS[-1]))
        for tap in _GELU_TAPS[-2::-1]:
            total = ops.add(ops.multiply(total, square), ops.constant(np.float32(tap)))
        phi = ops.add(ops.multiply(total, y), ops.constant(np.float32(0.5)))
        op.output(0).replace(ops.multiply(x, phi).output(0))


def _bias_of(add: Node) -> NDArray[np.float32] | None:
    """The constant per channel that an Add puts on a depthwise convolution, (1, C, 1, 1); None of other nodes."""
    if add.get_type_name() != "Add" or add.input_value(0).get_node().get_type_name() != "GroupConvolution":
        return None
    constant = add.input_value(1).get_node()
    if constant.get_type_name() == "Reshape":  # ONNX has a row of them
        constant = constant.input_value(0).get_node()
    if constant.get_type_name() != "Constant":
        return None
    return np.asarray(constant.get_data(), np.float32).reshape(1, -1, 1, 1)


def split_concats(model: ov.Model) -> None:
    """Replace a 1x1 convolution of joined maps by the sum of a convolution of each.

    The sum is taken inside the second convolution; joining the maps and bringing the wide result into that
    convolution's memory layout took an eighth of the stream network.
    """
    plain = {"strides": [1, 1], "dilations": [1, 1], "pads_begin": [0, 0], "pads_end": [0, 0]}
    for op in model.get_ordered_ops():
        joined = op.input_value(0).get_node() if op.get_type_name() == "Convolution" else None
        if joined is None or joined.get_type_name() != "Concat" or joined.get_attributes()["axis"] != 1:
            continue
        kernel = op.input_value(1).get_node()
        if kernel.get_type_name() != "Constant" or list(kernel.get_output_shape(0))[2:] != [1, 1]:
            continue
        if any(list(op.get_attributes()[name]) != values for name, values in plain.items()):
            continue
        sizes = [part.get_partial_shape()[1].get_length() for part in joined.input_values()]
        pieces = np.split(np.asarray(kernel.get_data(), np.float32), np.cumsum(sizes)[:-1], axis=1)
        total, *others = (
            ops.convolution(part, ops.constant(np.ascontiguousarray(piece)), [1, 1], [0, 0], [0, 0], [1, 1])
            for part, piece in zip(joined.input_values(), pieces, strict=True)
        )
        for other in others:
            total = ops.add(total, other)
        op.output(0).replace(total.output(0))

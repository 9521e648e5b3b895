"""A deployment-form network rewritten to read and write video planes, as an OpenVINO model.

Everything around the network's non-linear body is linear: chroma interpolation, the Y'CbCr matrix, the base path, the
folded tail, the matrix back, chroma decimation, the scaling to codes. So instead of converting pictures to R'G'B' and
back, the matrix goes into the weights of `conv_in`, and the last convolutions emit luma and chroma samples directly
(`emission`), rounded to integers in the same pass.

The model works on a strip of the picture with a halo around it; the host cuts the strips and repeats edge samples.
Where `color` would repeat the result's outermost sample to filter chroma at the picture's edge, this takes what the
network makes of the halo; everywhere else the two agree to one code.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import openvino.opset13 as ops
from numpy.typing import NDArray

from videosr.color import levels, siting_offsets, upsampling_taps
from videosr.engines.base import Picture
from videosr.engines.emission import (
    Emission,
    Layout,
    Sample,
    colour_planes,
    emission,
    enlargements,
    joined,
    rgb_from_values,
)
from videosr.engines.network import Network
from videosr.engines.openvino_rewrite import simplify_gelu, split_concats
from videosr.errors import NetworkError

type Node = Any  # openvino.Node; its stubs are not typed


def _constant(model: ov.Model, name: str, path: Path) -> NDArray[np.float64]:
    for op in model.get_ordered_ops():
        if op.get_friendly_name() == name and op.get_type_name() == "Constant":
            return np.asarray(op.get_data(), np.float64)
    raise NetworkError(f"{path}: says it is in deployment form but has no {name!r}; export it again")


def _node(model: ov.Model, name: str, path: Path) -> Node:
    for op in model.get_ordered_ops():
        if op.get_friendly_name() == name:
            return op
    raise NetworkError(f"{path}: says it is in deployment form but has no node {name!r}; export it again")


def _conv(x: Node, weights: NDArray[Any], name: str) -> Node:
    pads = [weights.shape[2] // 2, weights.shape[3] // 2]
    kernel = ops.constant(np.ascontiguousarray(weights, np.float32))
    return ops.convolution(x, kernel, strides=[1, 1], pads_begin=pads, pads_end=pads, dilations=[1, 1], name=name)


def _emitting(x: Node, weights: NDArray[np.float64], plan: Emission, name: str) -> Node:
    """The convolution that emits `plan`, whose kernels are given a channel each.

    Where two pixels side by side are emitted at once, each kernel is there twice, shifted by a pixel; the stride is 2.
    """
    size, pixels = weights.shape[-1], plan.pixels
    kernel = np.zeros((len(plan.group), *weights.shape[1:3], size + pixels - 1), np.float32)
    for k, (pixel, channel) in enumerate(plan.group):
        kernel[k, :, :, pixel : pixel + size] = weights[channel]
    begin, end = [size // 2, size // 2], [size // 2, size // 2 + pixels - 1]
    return ops.convolution(x, ops.constant(kernel), [1, pixels], begin, end, [1, 1], name=name)


def _tail(model: ov.Model, path: Path, plan: Emission) -> tuple[str, NDArray[np.float64], NDArray[np.float64]]:
    """The last convolution, before `plan`: the name of the first layer that it replaces, its kernel and its bias.

    Nothing non-linear stands between `conv_mid` and `tail`, so they can be joined to one kernel, two pixels larger.
    That is done where it takes fewer products, as with few channels to emit (luma alone of 4:2:0 video).
    """
    tail, bias = (_constant(model, f"tail.{part}", path) for part in ("weight", "bias"))
    middle, offset = (_constant(model, f"conv_mid.{part}", path) for part in ("weight", "bias"))
    size, more = tail.shape[-1], middle.shape[-1] - 1

    def products(size: int) -> float:
        return float(middle.shape[1] * len(plan.group) / plan.pixels * size * (size + plan.pixels - 1))

    if products(size + more) >= products(size) + middle.size:
        return "tail", tail, bias
    return "conv_mid", *joined((middle, offset), (tail, bias))


def _biased(x: Node, bias: NDArray[Any]) -> Node:
    return ops.add(x, ops.constant(np.asarray(bias, np.float32).reshape(1, -1, 1, 1)))


def _floats(plane: Node) -> Node:
    return ops.convert(plane, "f32")


def _values(planes: list[Node], source: Picture) -> list[Node]:
    """Float codes of planes to component values: luma in [0, 1], chroma in [-1/2, 1/2]."""
    values = []
    for i, plane in enumerate(planes):
        offset, gain = levels(source.format, source.color.range, i)
        values.append(
            ops.multiply(ops.subtract(plane, ops.constant(np.float32(offset))), ops.constant(np.float32(1 / gain)))
        )
    return values


def _components(planes: list[Node], source: Picture) -> Node:
    """Float codes of the planes of a strip to component values at luma resolution, (1, 3, h, w)."""
    fmt, color = source.format, source.color
    values = _values(planes, source)
    if fmt.family == "gray":
        return ops.concat(values * 3, axis=1)
    fw, fh = 1 << fmt.log2_w, 1 << fmt.log2_h
    if fmt.family == "rgb" or fw == fh == 1:
        return ops.concat(values, axis=1)
    across, down = siting_offsets(color.siting, fw, fh)
    (_, taps_x), (_, taps_y) = upsampling_taps(fw, across), upsampling_taps(fh, down)
    chroma = ops.concat(values[1:], axis=0)  # Cb and Cr as a batch of 2: both take the same filter
    begin, end = ops.constant(np.array([0, 0, 2, 2])), ops.constant(np.array([0, 0, 2, 2]))
    chroma = ops.pad(chroma, begin, end, "edge")
    # A channel for each phase, interleaved by hand: OpenVINO's depth-to-space makes square blocks only.
    kernel = np.einsum("aj,bi->abji", taps_y, taps_x).reshape(fh * fw, 1, 5, 5).astype(np.float32)
    chroma = ops.convolution(chroma, ops.constant(kernel), [1, 1], [0, 0], [0, 0], [1, 1])
    _, _, rows, columns = chroma.get_output_partial_shape(0).to_shape()
    chroma = ops.reshape(chroma, ops.constant(np.array([2, fh, fw, rows, columns])), special_zero=False)
    chroma = ops.transpose(chroma, ops.constant(np.array([0, 3, 1, 4, 2])))
    chroma = ops.reshape(chroma, ops.constant(np.array([1, 2, rows * fh, columns * fw])), special_zero=False)
    return ops.concat([values[0], chroma], axis=1)


def _chroma(planes: list[Node], source: Picture, target: Picture, scale: int) -> tuple[Node, Layout]:
    """Chroma beside the network (see `color.from_rgb`): (2, rows, columns, samples) integers, and their layout."""
    taps = [upsampling_taps(int(factor), offset)[1] for factor, offset in enlargements(source, target, scale)]
    down, across = (len(t) for t in taps)
    (offset_in, gain_in), (offset_out, gain_out) = (levels(p.format, p.color.range, 1) for p in (source, target))
    kernel = np.einsum("aj,bi->abji", *taps).reshape(-1, 1, 5, 5) * (gain_out / gain_in)
    values = ops.subtract(ops.concat(planes, axis=0), ops.constant(np.float32(offset_in)))
    codes = ops.add(_conv(values, kernel, "chroma_planes"), ops.constant(np.float32(offset_out)))
    samples = tuple(Sample(1, row, column) for row in range(down) for column in range(across))
    return _finish(codes, target), Layout(samples, (1 << source.format.log2_h, 1 << source.format.log2_w))


def _average(frames: list[list[Node]], inverse_square: Node, active: Node, source: Picture) -> list[Node]:
    """`temporal.average` of float planes, newest first; `active` (window - 1,) is 0 for a frame that only fills up."""
    axis = ops.constant(np.int64(0))
    guide = frames[0][0]
    fw, fh = 1 << source.format.log2_w, 1 << source.format.log2_h
    weights = []
    for k, planes in enumerate(frames[1:]):
        d = ops.abs(ops.subtract(planes[0], guide))
        ring = ops.constant(np.array([0, 0, 1, 1]))
        d = ops.avg_pool(ops.pad(d, ring, ring, "edge"), [1, 1], [0, 0], [0, 0], [3, 3], True)
        w = ops.exp(ops.multiply(ops.multiply(d, d), ops.negative(inverse_square)))
        weights.append(ops.multiply(w, ops.gather(active, ops.constant(np.int64(k)), axis)))
    out = []
    for i, value in enumerate(frames[0]):
        chroma = i > 0 and source.format.family == "yuv" and (fw, fh) != (1, 1)
        total: Node = ops.constant(np.float32(1))
        for planes, w in zip(frames[1:], weights, strict=True):
            if chroma:
                w = ops.avg_pool(w, [fh, fw], [0, 0], [0, 0], [fh, fw], True)
            value = ops.add(value, ops.multiply(w, planes[i]))
            total = ops.add(total, w)
        out.append(ops.divide(value, total))
    return out


@dataclass(frozen=True, slots=True)
class StripModels:
    """The rewritten network: one model, or two so that only the detail path runs in half precision.

    Attributes:
        detail: from planes to the detail path's part of the codes, (1, channels, rows, columns) float32; None if
            `picture` does that too.
        picture: from planes (and the result of `detail`) to finished samples. Each output is (pictures, rows, columns,
            samples), but the last is one number: the sum of the codes before rounding, finite if all of them are.
        layouts: for each output but the last, the layout of each of its pictures.
    """

    detail: ov.Model | None
    picture: ov.Model
    layouts: tuple[tuple[Layout, ...], ...]


def build(
    core: ov.Core,
    network: Network,
    source: Picture,
    target: Picture,
    scale: int,
    *,
    window: int = 1,
    denoise: float = 0.0,
    split: bool = False,
) -> StripModels:
    """The strip models of a network in deployment form.

    Inputs of the first: for each frame of the window, newest first, its colour planes as (1, 1, rows, columns) integers
    of the size of `source` (the strip with its halo); with a window also `inverse_square` (1 / threshold^2, in codes)
    and `active` (window - 1,), 0 for a frame that only fills up. `picture` in two pieces takes the newest frame's
    planes and `detail`. Outputs are integers of the target's type.

    Args:
        core: OpenVINO.
        network: in deployment form.
        source: strip with halo; its width even, its size a multiple of the chroma subsampling.
        target: format and colour of the result; its size is not used.
        scale: of the network.
        window: frames per inference.
        denoise: how far the base path too is moved towards the average, 0..1; needs `split` False.
        split: in two pieces.

    Raises:
        NetworkError: the file is not in the deployment form it claims.
    """
    path = network.path
    model = core.read_model(path)
    apart = network.chroma_apart(source.format, target.format)
    plan = emission(target, scale, 1 if apart else colour_planes(target.format))
    inputs, frames = [], []
    for k in range(window):
        planes = _plane_inputs(source, k)
        inputs += planes
        frames.append([_floats(p) for p in planes])
    still, average = frames[0], _components(frames[0], source)
    if window > 1:
        inverse_square = ops.parameter([], ov.Type.f32, name="inverse_square")
        active = ops.parameter([window - 1], ov.Type.f32, name="active")
        inputs += [inverse_square, active]
        mean = _average(frames, inverse_square, active, source)
        average = _components(mean, source)
        if denoise:
            share = ops.constant(np.float32(denoise))
            still = [ops.add(f, ops.multiply(ops.subtract(m, f), share)) for f, m in zip(still, mean, strict=True)]

    to_rgb = rgb_from_values(source)
    conv_in = np.einsum("oryx,rc->ocyx", _constant(model, "conv_in.weight", path), to_rgb)
    features = _biased(_conv(average, conv_in, "conv_in"), _constant(model, "conv_in.bias", path))
    _node(model, "conv_in", path).output(0).replace(features.output(0))
    last, kernel, rest = _tail(model, path, plan)
    tail = np.einsum("eo,ocyx->ecyx", plan.weights, kernel)
    detail = _emitting(_node(model, f"{last}/WithoutBiases", path).input_value(0), tail, plan, "tail_planes")
    if not split:
        simplify_gelu(model)
        split_concats(model)
    base = np.einsum("eo,oryx,rc->ecyx", plan.weights, _constant(model, "base.weight", path), to_rgb)
    bias = (plan.weights @ rest + plan.offset)[[channel for _, channel in plan.group]]
    assembly = _Assembly(source, target, scale, plan, base, bias, apart)
    if not split:
        outputs, layouts = assembly.outputs(still, detail)
        return StripModels(None, ov.Model(outputs, inputs, f"{path.stem}_planes"), layouts)
    first = ov.Model([ops.result(detail)], inputs, f"{path.stem}_detail")
    planes = _plane_inputs(source, 0)
    added = ops.parameter(detail.get_output_partial_shape(0), ov.Type.f32, name="detail")
    outputs, layouts = assembly.outputs([_floats(p) for p in planes], added)
    return StripModels(first, ov.Model(outputs, [*planes, added], f"{path.stem}_picture"), layouts)


@dataclass(frozen=True, slots=True)
class _Assembly:
    """How the planes of a strip and the detail path's part of the codes become samples.

    Attributes:
        source: the strip.
        target: format and colour of the result.
        scale: of the network.
        plan: what is emitted.
        base: weights of the base path, from component values to what is emitted.
        bias: of both paths, a number for each emitted channel.
        apart: whether chroma is interpolated beside the network.
    """

    source: Picture
    target: Picture
    scale: int
    plan: Emission
    base: NDArray[np.float64]
    bias: NDArray[np.float64]
    apart: bool

    def outputs(self, still: list[Node], detail: Node) -> tuple[list[Node], tuple[tuple[Layout, ...], ...]]:
        """The outputs of `StripModels.picture` and their layouts, from planes as float codes."""
        base = self.base
        # The base path is one filter for R, G and B, so what it makes of luma depends on luma alone.
        if self.apart and not base[:, 1:].round(9).any():
            base, components = base[:, :1], _values(still, self.source)[0]
        else:
            components = _components(still, self.source)
        codes = ops.add(_biased(detail, self.bias), _emitting(components, base, self.plan, "base_planes"))
        codes = _gathered(codes, self.plan)
        total = ops.result(ops.reduce_sum(codes, ops.constant(np.arange(4)), keep_dims=False))
        outputs, layouts = [_finish(codes, self.target)], ((self.plan.layout,),)
        if not self.apart:
            return [*outputs, total], layouts
        chroma, layout = _chroma(still[1:], self.source, self.target, self.scale)
        second = Layout(tuple(Sample(2, s.row, s.column) for s in layout.samples), layout.cell)
        return [*outputs, chroma, total], (*layouts, (layout, second))


def _plane_inputs(source: Picture, k: int) -> list[Node]:
    kind = ov.Type.u8 if source.format.bits == 8 else ov.Type.u16
    shapes = [source.format.plane_shape(i, source.height, source.width) for i in range(colour_planes(source.format))]
    return [ops.parameter([1, 1, *shape], kind, name=f"plane_{k}_{i}") for i, shape in enumerate(shapes)]


def _gathered(codes: Node, plan: Emission) -> Node:
    """Parts summed to samples."""
    if plan.gather is None:
        return codes
    after = [size - 1 - before for size, before in zip(plan.gather.shape[2:], plan.before, strict=True)]
    return ops.convolution(codes, ops.constant(plan.gather), [1, 1], list(plan.before), after, [1, 1])


def _finish(codes: Node, target: Picture) -> Node:
    """Codes rounded and clamped to integer samples, channels last."""
    codes = ops.clamp(ops.round(codes, "half_to_even"), 0.0, float((1 << target.format.bits) - 1))
    codes = ops.convert(codes, "u8" if target.format.bits == 8 else "u16")
    return ops.result(ops.transpose(codes, ops.constant(np.array([0, 2, 3, 1]))))

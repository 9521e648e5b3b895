"""A deployment-form network rewritten to read and write video planes, as an OpenVINO model.

Everything around the network's non-linear body is linear: chroma interpolation, the Y'CbCr matrix, the base path, the
folded tail, the matrix back, chroma decimation, the scaling to codes. So instead of converting pictures to R'G'B' and
back, the matrix goes into the weights of `conv_in`, and the last convolutions emit luma and chroma samples directly:
at scale 2 and 4:2:0 that is 8 output channels in place of 12, rounded to integers in the same pass.

The model works on a strip of the picture with a halo around it; the host cuts the strips and repeats edge samples.
Where `color` would repeat the result's outermost sample to filter chroma at the picture's edge, this takes what the
network makes of the halo; everywhere else the two agree to one code.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import openvino.opset13 as ops
from numpy.typing import NDArray

from videosr.color import (
    chroma_enlargement,
    downsampling_taps,
    levels,
    luma_matrix,
    rgb_from_ycc,
    siting_offsets,
    upsampling_taps,
)
from videosr.engines.base import Picture
from videosr.engines.network import Network
from videosr.engines.openvino_rewrite import simplify_gelu, split_concats
from videosr.errors import NetworkError
from videosr.frame import PixelFormat

type Node = Any  # openvino.Node; its stubs are not typed


@dataclass(frozen=True, slots=True)
class Sample:
    """One output sample of a cell: its plane, and its row and column inside the cell's block of that plane."""

    plane: int
    row: int
    column: int


@dataclass(frozen=True, slots=True)
class Layout:
    """What a picture of an output tensor, (rows, columns, samples), is made of.

    Attributes:
        samples: what a cell holds, in channel order; by plane, row, column.
        cell: (rows, columns) of input luma samples that one cell belongs to.
    """

    samples: tuple[Sample, ...]
    cell: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Emission:
    """What the last convolutions have to emit, a channel each, for every low-resolution pixel.

    Attributes:
        samples: the output samples the pixel owns, in channel order.
        weights: (channels, 3 * scale^2): from the network's own channels (R, G, B by sub-pixel) to parts of samples,
            in codes.
        offset: (channels,) codes to add.
        gather: (samples, channels, rows, columns): the sum of parts, from the pixel's neighbours too; None: parts are
            samples.
        before: rows and columns of `gather` above and left of the pixel itself.
    """

    samples: tuple[Sample, ...]
    weights: NDArray[np.float64]
    offset: NDArray[np.float64]
    gather: NDArray[np.float32] | None
    before: tuple[int, int]

    @property
    def pixels(self) -> int:
        """How many neighbours in a row are emitted at once: two where that fills a vector of eight."""
        return 2 if self.gather is None and 2 * len(self.offset) <= 8 else 1

    @property
    def group(self) -> tuple[tuple[int, int], ...]:
        """(pixel, channel) of everything emitted at once."""
        pairs = [(pixel, channel) for pixel in range(self.pixels) for channel in range(len(self.offset))]
        if self.pixels == 2:  # what lies side by side in the output comes side by side
            pairs.sort(key=lambda at: (self.samples[at[1]].plane, self.samples[at[1]].row, at[0]))
        return tuple(pairs)

    @property
    def layout(self) -> Layout:
        """Of the finished tensor."""
        if self.pixels == 1:
            return Layout(self.samples, (1, 1))
        wide = 1 + max(s.column for s in self.samples)
        own = [(self.samples[channel], pixel) for pixel, channel in self.group]
        return Layout(tuple(Sample(s.plane, s.row, s.column + pixel * wide) for s, pixel in own), (1, 2))


def colour_planes(format: PixelFormat) -> int:
    """Number of planes a network sees: all but alpha."""
    return 1 if format.family == "gray" else 3


def supported(network: Network, source: PixelFormat, target: PixelFormat, scale: int) -> bool:
    """Whether planes of these formats have a rewritten form: output chroma blocks must be whole per input sample."""
    if source.family == "gray" or target.family == "gray":
        return source.family == target.family
    apart = network.chroma_apart(source, target)
    across, down = (scale << source.log2_w, scale << source.log2_h) if apart else (scale, scale)
    return across % (1 << target.log2_w) == 0 and down % (1 << target.log2_h) == 0


def rgb_from_values(picture: Picture) -> NDArray[np.float64]:
    """The 3x3 matrix from a picture's own component values, after `_components`, to R'G'B'."""
    return rgb_from_ycc(picture.color.matrix) if picture.format.family == "yuv" else np.eye(3)


def emission(target: Picture, scale: int, planes: int) -> Emission:
    """The plan of the last convolutions for the first `planes` planes of a target of this format and colour."""
    fmt, s = target.format, scale
    inverse = np.eye(3) if fmt.family == "rgb" else np.linalg.inv(rgb_from_ycc(luma_matrix(target.color)))
    parts: list[tuple[int, NDArray[np.float64], float]] = []  # sample, (3, s, s) weights, offset
    places: list[tuple[int, int]] = []  # the neighbour a part comes from
    samples: list[Sample] = []
    for plane in range(planes):
        offset, gain = levels(fmt, target.color.range, plane)
        chroma = fmt.family == "yuv" and plane > 0
        fw, fh = (1 << fmt.log2_w, 1 << fmt.log2_h) if chroma else (1, 1)
        across, down = siting_offsets(target.color.siting, fw, fh)
        first_x, taps_x = downsampling_taps(fw, across)
        first_y, taps_y = downsampling_taps(fh, down)
        for row in range(s // fh):
            for column in range(s // fw):
                samples.append(Sample(plane, row, column))
                blocks: dict[tuple[int, int], NDArray[np.float64]] = {}
                for j, wy in enumerate(taps_y):
                    for i, wx in enumerate(taps_x):
                        if wy * wx == 0:
                            continue
                        (oy, y), (ox, x) = divmod(fh * row + first_y + j, s), divmod(fw * column + first_x + i, s)
                        blocks.setdefault((oy, ox), np.zeros((s, s)))[y, x] += wy * wx
                for place, block in sorted(blocks.items()):
                    own = place == (0, 0)
                    parts.append(
                        (len(samples) - 1, gain * inverse[plane][:, None, None] * block, offset if own else 0.0)
                    )
                    places.append(place)
    gather = None
    near = np.array(places)
    above, left = (int(n) for n in -near.min(axis=0))
    if near.any():
        rows, columns = near.max(axis=0) - near.min(axis=0) + 1
        gather = np.zeros((len(samples), len(parts), rows, columns), np.float32)
        for channel, ((sample, _, _), (oy, ox)) in enumerate(zip(parts, places, strict=True)):
            gather[sample, channel, oy + above, ox + left] = 1
    return Emission(
        samples=tuple(samples),
        weights=np.stack([w.reshape(-1) for _, w, _ in parts]),
        offset=np.array([o for _, _, o in parts]),
        gather=gather,
        before=(above, left),
    )


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
    """The convolution with one kernel a channel of `plan`, as it is grouped: a stride as wide as the group."""
    size, pixels = weights.shape[-1], plan.pixels
    kernel = np.zeros((len(plan.group), *weights.shape[1:3], size + pixels - 1), np.float32)
    for k, (pixel, channel) in enumerate(plan.group):
        kernel[k, :, :, pixel : pixel + size] = weights[channel]
    begin, end = [size // 2, size // 2], [size // 2, size // 2 + pixels - 1]
    return ops.convolution(x, ops.constant(kernel), [1, pixels], begin, end, [1, 1], name=name)


def _tail(model: ov.Model, path: Path, plan: Emission) -> tuple[str, NDArray[np.float64], NDArray[np.float64]]:
    """The first convolution that the last one replaces, and that one's kernel and bias, before `plan`.

    Nothing non-linear stands between `conv_mid` and `tail`. As one kernel two pixels larger they are fewer products
    where few channels are emitted (of 4:2:0 video luma alone), and one map less goes through memory.
    """
    tail, bias = (_constant(model, f"tail.{part}", path) for part in ("weight", "bias"))
    middle, offset = (_constant(model, f"conv_mid.{part}", path) for part in ("weight", "bias"))
    size, more = tail.shape[-1], middle.shape[-1] - 1

    def products(size: int) -> float:
        return float(middle.shape[1] * len(plan.group) / plan.pixels * size * (size + plan.pixels - 1))

    if products(size + more) >= products(size) + middle.size:
        return "tail", tail, bias
    return "conv_mid", *joined((middle, offset), (tail, bias))


def joined(
    first: tuple[NDArray[np.float64], NDArray[np.float64]], second: tuple[NDArray[np.float64], NDArray[np.float64]]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Kernel and bias of the convolution that two make, one after the other, each given as its kernel and bias."""
    (middle, offset), (tail, bias) = first, second
    size, more = tail.shape[-1], middle.shape[-1] - 1
    kernel = np.zeros((len(tail), middle.shape[1], size + more, size + more))
    for y, x in np.ndindex(size, size):
        kernel[:, :, y : y + more + 1, x : x + more + 1] += np.einsum("om,mcyx->ocyx", tail[:, :, y, x], middle)
    return kernel, bias + tail.sum(axis=(2, 3)) @ offset.ravel()


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
    chroma = ops.concat(values[1:], axis=0)  # one after the other as a batch of 2: both take the same filter
    begin, end = ops.constant(np.array([0, 0, 2, 2])), ops.constant(np.array([0, 0, 2, 2]))
    chroma = ops.pad(chroma, begin, end, "edge")
    # One phase a channel, then interleaved; depth-to-space does not do rectangular blocks.
    kernel = np.einsum("aj,bi->abji", taps_y, taps_x).reshape(fh * fw, 1, 5, 5).astype(np.float32)
    chroma = ops.convolution(chroma, ops.constant(kernel), [1, 1], [0, 0], [0, 0], [1, 1])
    _, _, rows, columns = chroma.get_output_partial_shape(0).to_shape()
    chroma = ops.reshape(chroma, ops.constant(np.array([2, fh, fw, rows, columns])), special_zero=False)
    chroma = ops.transpose(chroma, ops.constant(np.array([0, 3, 1, 4, 2])))
    chroma = ops.reshape(chroma, ops.constant(np.array([1, 2, rows * fh, columns * fw])), special_zero=False)
    return ops.concat([values[0], chroma], axis=1)


def enlargements(source: Picture, target: Picture, scale: int) -> list[tuple[Fraction, float]]:
    """`color.chroma_enlargement` of planes of chroma beside the network, of rows and of columns."""
    factors = [(1 << p.format.log2_w, 1 << p.format.log2_h) for p in (source, target)]
    sitings = [siting_offsets(p.color.siting, *f) for p, f in zip((source, target), factors, strict=True)]
    pairs = [[(f[along], o[along]) for f, o in zip(factors, sitings, strict=True)] for along in (1, 0)]
    return [chroma_enlargement(scale, *pair) for pair in pairs]


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
    """`temporal.average` of float planes, newest first; `active` (window - 1,) is 0 where a frame is only filling."""
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
    """The rewritten network, in one piece or, so that the detail path alone runs in half precision, in two.

    Attributes:
        detail: planes to the detail path's part of the codes, (1, channels, rows, columns) float32; None in one piece.
        picture: planes (and `detail`) to finished samples, a (pictures, rows, columns, samples) tensor an output; its
            last output is the sum of the network's codes before they are rounded, which is finite if all of them are.
        layouts: of every output but the last: one for each of its pictures.
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

    # The base path is one filter for R, G and B, so what it makes of luma depends on luma alone.
    luma_alone = apart and not base[:, 1:].round(9).any()
    if luma_alone:
        base = base[:, :1]

    def finished(still: list[Node], detail: Node) -> tuple[list[Node], tuple[tuple[Layout, ...], ...]]:
        components = _values(still, source)[0] if luma_alone else _components(still, source)
        codes = ops.add(_biased(detail, bias), _emitting(components, base, plan, "base_planes"))
        codes = _gathered(codes, plan)
        total = ops.result(ops.reduce_sum(codes, ops.constant(np.arange(4)), keep_dims=False))
        outputs, layouts = [_finish(codes, target)], ((plan.layout,),)
        if not apart:
            return [*outputs, total], layouts
        chroma, layout = _chroma(still[1:], source, target, scale)
        second = Layout(tuple(Sample(2, s.row, s.column) for s in layout.samples), layout.cell)
        return [*outputs, chroma, total], (*layouts, (layout, second))

    if not split:
        outputs, layouts = finished(still, detail)
        return StripModels(None, ov.Model(outputs, inputs, f"{path.stem}_planes"), layouts)
    first = ov.Model([ops.result(detail)], inputs, f"{path.stem}_detail")
    planes = _plane_inputs(source, 0)
    added = ops.parameter(detail.get_output_partial_shape(0), ov.Type.f32, name="detail")
    outputs, layouts = finished([_floats(p) for p in planes], added)
    return StripModels(first, ov.Model(outputs, [*planes, added], f"{path.stem}_picture"), layouts)


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

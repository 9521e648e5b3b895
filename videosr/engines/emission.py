"""What a network in deployment form has to emit for video planes to come out of it: the plan, without any library.

Behind the network's last non-linear layer all is linear: the tail, the base path, the matrix from R'G'B', chroma
decimation, the scaling to codes. So the last convolutions can make luma and chroma samples directly: at scale 2 and
4:2:0 that is 8 output channels in place of 12. `emission` says which channel makes which part of which sample, with
what weights; `openvino_planes` and `native_weights` build from that.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from videosr.color import chroma_enlargement, downsampling_taps, levels, luma_matrix, rgb_from_ycc, siting_offsets
from videosr.engines.base import Picture
from videosr.engines.network import Network
from videosr.frame import PixelFormat


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
        weights: (channels, 3 * scale^2): what the network itself would make (R, G and B of each sub-pixel) times this
            is what each channel has to hold, in codes.
        offset: (channels,) codes to add.
        gather: (samples, channels, rows, columns), where a chroma filter reaches over the edge of the pixel: channels
            are then parts of samples, and this kernel of zeros and ones adds up the parts that belong to a sample,
            those of neighbouring pixels included. None: each channel is a sample.
        before: rows and columns of `gather` above and left of the pixel itself.
    """

    samples: tuple[Sample, ...]
    weights: NDArray[np.float64]
    offset: NDArray[np.float64]
    gather: NDArray[np.float32] | None
    before: tuple[int, int]

    @property
    def pixels(self) -> int:
        """How many pixels side by side are emitted at once: two where that fits into a vector of eight."""
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
    """Whether planes of these formats can be emitted: an input sample must become a whole number of chroma samples."""
    if source.family == "gray" or target.family == "gray":
        return source.family == target.family
    apart = network.chroma_apart(source, target)
    across, down = (scale << source.log2_w, scale << source.log2_h) if apart else (scale, scale)
    return across % (1 << target.log2_w) == 0 and down % (1 << target.log2_h) == 0


def rgb_from_values(picture: Picture) -> NDArray[np.float64]:
    """The 3x3 matrix from a picture's own components, luma in [0, 1] and chroma in [-1/2, 1/2], to R'G'B'."""
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


def enlargements(source: Picture, target: Picture, scale: int) -> list[tuple[Fraction, float]]:
    """`color.chroma_enlargement` of planes of chroma beside the network, of rows and of columns."""
    factors = [(1 << p.format.log2_w, 1 << p.format.log2_h) for p in (source, target)]
    sitings = [siting_offsets(p.color.siting, *f) for p, f in zip((source, target), factors, strict=True)]
    pairs = [[(f[along], o[along]) for f, o in zip(factors, sitings, strict=True)] for along in (1, 0)]
    return [chroma_enlargement(scale, *pair) for pair in pairs]

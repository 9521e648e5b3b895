"""Video planes to R'G'B' and back: matrix, range, chroma siting and bit depth, for numpy and cupy arrays alike.

Nothing is clamped on the way in, and only to the code range on the way out, so that super-whites, super-blacks and
colours outside the gamut come back as they went. Transfer and primaries are not touched: networks work on R'G'B' as it
is coded.

Sources: ITU-T H.273 (8.1-8.3: matrices, ranges, siting), ITU-R BT.601, BT.709, BT.2020.
"""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from videosr.errors import InputError
from videosr.frame import Array, ColorSpec, Matrix, PixelFormat, Range, Siting, namespace

_KR_KB = {
    Matrix.BT709: (0.2126, 0.0722),
    Matrix.FCC: (0.30, 0.11),
    Matrix.BT470BG: (0.299, 0.114),
    Matrix.SMPTE170M: (0.299, 0.114),
    Matrix.SMPTE240M: (0.212, 0.087),
    Matrix.BT2020_NCL: (0.2627, 0.0593),
    # Constant luminance and ICtCp are not linear in R'G'B'. Treated as BT.2020 NCL both ways they come back exactly;
    # what the network sees in between is slightly off in colour, as it is for any HDR picture.
    Matrix.BT2020_CL: (0.2627, 0.0593),
    Matrix.ICTCP: (0.2627, 0.0593),
}

BAYER = (
    np.array(
        [
            [0, 32, 8, 40, 2, 34, 10, 42],
            [48, 16, 56, 24, 50, 18, 58, 26],
            [12, 44, 4, 36, 14, 46, 6, 38],
            [60, 28, 52, 20, 62, 30, 54, 22],
            [3, 35, 11, 43, 1, 33, 9, 41],
            [51, 19, 59, 27, 49, 17, 57, 25],
            [15, 47, 7, 39, 13, 45, 5, 37],
            [63, 31, 55, 23, 61, 29, 53, 21],
        ],
        np.float32,
    )
    + 0.5
) / 64
"""Ordered-dither thresholds in (0, 1), mean 1/2 (Bayer 1973): fixed, so that a frame always gives the same codes."""


@cache
def rgb_from_ycc(matrix: Matrix) -> NDArray[np.float64]:
    """The 3x3 matrix from (Y', Cb, Cr), Y' in [0, 1] and chroma in [-1/2, 1/2], to (R', G', B') in [0, 1].

    Raises:
        InputError: the matrix is unspecified, or one that videosr does not know.
    """
    if matrix == Matrix.RGB:
        return np.eye(3)
    if matrix == Matrix.YCGCO:  # H.273 8.3: planes are Y, Cg, Co
        return np.array([[1.0, -1.0, 1.0], [1.0, 1.0, 0.0], [1.0, -1.0, -1.0]])
    if matrix not in _KR_KB:
        name, known = getattr(matrix, "name", matrix), ", ".join(m.name for m in Matrix if m != Matrix.UNSPECIFIED)
        raise InputError(f"matrix coefficients {name} of a frame's color say no way to R'G'B'; give one of: {known}")
    kr, kb = _KR_KB[matrix]
    kg = 1 - kr - kb
    return np.array(
        [
            [1.0, 0.0, 2 * (1 - kr)],
            [1.0, -2 * kb * (1 - kb) / kg, -2 * kr * (1 - kr) / kg],
            [1.0, 2 * (1 - kb), 0.0],
        ]
    )


def luma_matrix(color: ColorSpec) -> Matrix:
    """The matrix that makes luma (and chroma) of a picture with this colour; BT.709 where it says R'G'B'."""
    return Matrix.BT709 if color.matrix == Matrix.RGB else color.matrix


def converted(color: ColorSpec, source: PixelFormat, target: PixelFormat) -> ColorSpec:
    """The colour of a picture after a change of pixel format: kept, but for what the new format cannot mean.

    R'G'B' becomes BT.709 limited range, which players assume when nothing is said; Y'CbCr becomes full-range R'G'B'.
    """
    if target.family == "rgb" and source.family != "rgb":
        color = replace(color, matrix=Matrix.RGB, range=Range.FULL)
    elif target.family != "rgb" and source.family == "rgb":
        color = replace(color, matrix=Matrix.BT709, range=Range.LIMITED)
    elif target.family == "yuv":
        color = replace(color, matrix=luma_matrix(color))  # gray may come tagged as R'G'B'
    if target.family != "yuv" or not (target.log2_w or target.log2_h):
        return replace(color, siting=Siting.UNSPECIFIED)
    return replace(color, siting=Siting.LEFT) if color.siting == Siting.UNSPECIFIED else color


def levels(format: PixelFormat, color_range: Range, plane: int) -> tuple[float, float]:
    """(offset, scale) of a plane's codes: code = offset + scale * value; value in [0, 1], of chroma in [-1/2, 1/2]."""
    peak = float((1 << format.bits) - 1)
    step = float(1 << (format.bits - 8))
    chroma = format.family == "yuv" and plane in (1, 2)
    if format.alpha and plane == format.planes - 1:
        return 0.0, peak
    if color_range == Range.LIMITED:
        return (128 * step, 224 * step) if chroma else (16 * step, 219 * step)
    return (float(1 << (format.bits - 1)), peak) if chroma else (0.0, peak)


def siting_offsets(siting: Siting, factor_w: int, factor_h: int) -> tuple[float, float]:
    """Where the first chroma sample sits in luma samples, (horizontally, vertically) from the first luma sample."""
    mid_w, mid_h = (factor_w - 1) / 2, (factor_h - 1) / 2
    across = mid_w if siting in (Siting.CENTER, Siting.TOP, Siting.BOTTOM) else 0.0
    if siting in (Siting.TOPLEFT, Siting.TOP):
        return across, 0.0
    if siting in (Siting.BOTTOMLEFT, Siting.BOTTOM):
        return across, float(factor_h - 1)
    return across, mid_h


def catmull_rom(distance: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """The cubic of Catmull and Rom (1974) at these distances from its centre, in samples."""
    d = np.abs(distance)
    near, far = 1.5 * d**3 - 2.5 * d**2 + 1, -0.5 * d**3 + 2.5 * d**2 - 4 * d + 2
    return np.where(d < 1, near, np.where(d < 2, far, 0.0))


def upsampling_taps(factor: int, offset: float) -> tuple[int, NDArray[np.float64]]:
    """Catmull-Rom interpolation to a grid `factor` times as fine, one row of taps a phase.

    Args:
        factor: output samples per input sample.
        offset: where the first input sample sits, in output samples from the first of those.

    Returns:
        (first, taps): output sample factor*i + p is the sum over j of taps[p, j] * input[i + first + j].
    """
    first, count = -2, 5
    at = (np.arange(factor, dtype=np.float64)[:, None] - offset) / factor
    return first, catmull_rom(at - np.arange(first, first + count))


def downsampling_taps(factor: int, offset: float) -> tuple[int, NDArray[np.float64]]:
    """The mean over `factor` luma samples' width, centred on the chroma sample.

    Returns:
        (first, taps): chroma sample i is the sum over j of taps[j] * luma[factor*i + first + j].
    """
    left, right = offset + 0.5 - factor / 2, offset + 0.5 + factor / 2  # edges of the mean; sample n covers [n, n + 1]
    first, last = int(np.floor(left)), int(np.ceil(right))
    taps = [min(n + 1, right) - max(n, left) for n in range(first, last)]
    return first, np.array(taps) / factor


def chroma_enlargement(scale: int, source: tuple[int, float], target: tuple[int, float]) -> tuple[Fraction, float]:
    """How chroma samples of a picture lie to those of its enlargement, along one axis.

    Args:
        scale: luma samples of the enlargement per luma sample.
        source: luma samples per chroma sample and the first one's offset (`siting_offsets`), of the picture.
        target: the same of the enlargement.

    Returns:
        (factor, offset) as in `upsampling_taps`.
    """
    (source_factor, source_offset), (target_factor, target_offset) = source, target
    offset = (scale * (source_offset + 0.5) - target_offset - 0.5) / target_factor
    return Fraction(scale * source_factor, target_factor), offset


def _sum_of_taps(xp: Any, plane: Array, axis: int, start: NDArray[np.intp], taps: NDArray[np.float64]) -> Array:
    """Along `axis`, output n = sum over j of taps[n, j] * plane[start[n] + j], edge samples repeated outside."""
    size = plane.shape[axis]
    out: Array = 0
    for j in range(taps.shape[1]):
        share = taps[:, j].astype(np.float32)
        if not share.any():  # asked on the host: a GPU would have to be waited for
            continue
        weight = xp.asarray(share)
        index = xp.asarray(np.clip(start + j, 0, size - 1))
        out = out + xp.take(plane, index, axis=axis) * (weight[:, None] if axis == 0 else weight[None, :])
    return out


def _upsample(xp: Any, plane: Array, axis: int, factor: float, offset: float, size: int) -> Array:
    """`upsampling_taps` along an axis, for any factor."""
    at = (np.arange(size) - offset) / factor
    start = np.floor(at).astype(np.intp) - 1
    return _sum_of_taps(xp, plane, axis, start, catmull_rom(at[:, None] - start[:, None] - np.arange(4)))


def _downsample(xp: Any, plane: Array, axis: int, factor: int, offset: float, size: int) -> Array:
    first, taps = downsampling_taps(factor, offset)
    return _sum_of_taps(xp, plane, axis, np.arange(size) * factor + first, np.broadcast_to(taps, (size, len(taps))))


def unmultiplied(planes: tuple[Array, ...], format: PixelFormat) -> tuple[Array, ...]:
    """R'G'B' that was multiplied by alpha, the last of the planes, as it was before; black where that is 0."""
    top, alpha = (1 << format.bits) - 1, planes[-1].astype("uint32")
    share = alpha.clip(1)
    colours = ((p.astype("uint32") * top + share // 2) // share for p in planes[:-1])
    return (*(colour.clip(0, top).astype(format.dtype) for colour in colours), planes[-1])


def to_rgb(planes: tuple[Array, ...], format: PixelFormat, color: ColorSpec) -> Array:
    """Video planes to R'G'B'.

    Args:
        planes: as in `Frame.planes`, integer codes, or float codes (a temporal average); alpha is ignored.
        format: of the planes.
        color: resolved; matrix, range and siting are used.

    Returns:
        (3, H, W) float32, nominal range [0, 1], not clamped.

    Raises:
        InputError: unknown matrix.
    """
    xp = namespace(planes[0])
    height, width = planes[0].shape
    values = []
    for i in range(1 if format.family == "gray" else 3):
        offset, scale = levels(format, color.range, i)
        value = (planes[i].astype(xp.float32) - np.float32(offset)) * np.float32(1 / scale)
        if i and format.family == "yuv":
            factors = 1 << format.log2_w, 1 << format.log2_h
            across, down = siting_offsets(color.siting, *factors)
            if factors[1] > 1:
                value = _upsample(xp, value, 0, factors[1], down, height)
            if factors[0] > 1:
                value = _upsample(xp, value, 1, factors[0], across, width)
        values.append(value)
    if format.family == "gray":
        return xp.stack(values * 3)
    if format.family == "rgb":
        return xp.stack(values)
    m = rgb_from_ycc(color.matrix).astype(np.float32)
    return xp.stack([m[i, 0] * values[0] + m[i, 1] * values[1] + m[i, 2] * values[2] for i in range(3)])


def from_rgb(
    rgb: Array,
    format: PixelFormat,
    color: ColorSpec,
    *,
    dither: bool,
    chroma: tuple[tuple[Array, ...], PixelFormat, ColorSpec] | None = None,
) -> tuple[Array, ...]:
    """R'G'B' to video planes, the reverse of `to_rgb`.

    Args:
        rgb: (3, H, W) float32.
        format: of the result; without alpha.
        color: matrix, range and siting of the result.
        dither: ordered dither instead of rounding to the nearest code.
        chroma: planes, format and colour of the smaller Y'CbCr picture that this is an enlargement of: chroma is
            interpolated from that, and `rgb` gives luma only.

    Returns:
        planes of `format.dtype`, clamped to the code range.

    Raises:
        InputError: unknown matrix.
    """
    xp = namespace(rgb)
    height, width = rgb.shape[1:]
    if format.family == "rgb":
        values = [rgb[0], rgb[1], rgb[2]]
    else:
        m = np.linalg.inv(rgb_from_ycc(luma_matrix(color))).astype(np.float32)
        count = 1 if format.family == "gray" or chroma else 3
        values = [m[i, 0] * rgb[0] + m[i, 1] * rgb[1] + m[i, 2] * rgb[2] for i in range(count)]
    if format.family == "yuv":
        factors = 1 << format.log2_w, 1 << format.log2_h
        across, down = siting_offsets(color.siting, *factors)
        rows, columns = format.plane_shape(1, height, width)
        for i in range(1, len(values)):
            if factors[1] > 1:
                values[i] = _downsample(xp, values[i], 0, factors[1], down, rows)
            if factors[0] > 1:
                values[i] = _downsample(xp, values[i], 1, factors[0], across, columns)
    if chroma:
        values += _enlarge_chroma(*chroma, format, color, (height, width))
    planes = []
    for i, value in enumerate(values):
        offset, scale = levels(format, color.range, i)
        planes.append(quantise(value * np.float32(scale) + np.float32(offset), format, dither=dither))
    return tuple(planes)


def _enlarge_chroma(
    planes: tuple[Array, ...],
    source: PixelFormat,
    source_color: ColorSpec,
    target: PixelFormat,
    target_color: ColorSpec,
    size: tuple[int, int],
) -> list[Array]:
    """The chroma of an enlarged picture by Catmull-Rom interpolation between the samples of the small one.

    Args:
        planes: of the picture, integer or float codes.
        source: its format, Y'CbCr.
        source_color: its colour.
        target: format of the enlargement.
        target_color: colour of it; the matrix is the same.
        size: (rows, columns) of its luma, a whole multiple.

    Returns:
        Cb and Cr, float32 in [-1/2, 1/2], not clamped.
    """
    xp = namespace(planes[0])
    scale = size[0] // planes[0].shape[0]
    (source_w, source_h), (target_w, target_h) = ((1 << f.log2_w, 1 << f.log2_h) for f in (source, target))
    source_x, source_y = siting_offsets(source_color.siting, source_w, source_h)
    target_x, target_y = siting_offsets(target_color.siting, target_w, target_h)
    down = chroma_enlargement(scale, (source_h, source_y), (target_h, target_y))
    across = chroma_enlargement(scale, (source_w, source_x), (target_w, target_x))
    rows, columns = target.plane_shape(1, *size)
    values = []
    for i in (1, 2):
        offset, gain = levels(source, source_color.range, i)
        value = (planes[i].astype(xp.float32) - np.float32(offset)) * np.float32(1 / gain)
        value = _upsample(xp, value, 0, float(down[0]), down[1], rows)
        values.append(_upsample(xp, value, 1, float(across[0]), across[1], columns))
    return values


def resample_chroma(
    plane: Array,
    format: PixelFormat,
    source: tuple[tuple[int, float], tuple[int, float]],
    target: tuple[tuple[int, float], tuple[int, float]],
    size: tuple[int, int],
) -> Array:
    """A chroma plane of the same picture with its samples in other places, by Catmull-Rom interpolation.

    Args:
        plane: (H, W) codes.
        format: that has their bits.
        source: downwards and across, luma samples per chroma sample and the first one's offset (`siting_offsets`).
        target: the same of the result.
        size: (rows, columns) of the result.
    """
    xp = namespace(plane)
    value = plane.astype(xp.float32)
    for axis in (0, 1):
        if source[axis] != target[axis]:
            factor, offset = chroma_enlargement(1, source[axis], target[axis])
            value = _upsample(xp, value, axis, float(factor), offset, size[axis])
    return quantise(value, format, dither=False)


def quantise(codes: Array, format: PixelFormat, *, dither: bool) -> Array:
    """Codes (H, W) float32 to integers of `format.dtype`, clamped; rounded half up, or with ordered dither."""
    xp = namespace(codes)
    rows, columns = codes.shape
    shift: Any = np.float32(0.5)
    if dither:
        shift = xp.asarray(np.tile(BAYER, (-(-rows // 8), -(-columns // 8)))[:rows, :columns])
    return xp.clip(xp.floor(codes + shift), 0, (1 << format.bits) - 1).astype(format.dtype)


def enlarge(rgb: Array, scale: int) -> Array:
    """R'G'B', (3, H, W) float32, enlarged by Catmull-Rom interpolation to (3, scale*H, scale*W)."""
    xp = namespace(rgb)
    height, width = rgb.shape[1:]
    for axis, size in ((1, height), (2, width)):
        at = (scale - 1) / 2
        rgb = xp.stack([_upsample(xp, plane, axis - 1, scale, at, size * scale) for plane in rgb])
    return rgb


def resize_plane(plane: Array, format: PixelFormat, scale: int, target: PixelFormat) -> Array:
    """A full-range plane enlarged by Catmull-Rom interpolation: for planes no network sees (alpha).

    Args:
        plane: (H, W) codes of `format`.
        format: of the input.
        scale: whole factor.
        target: of the result, which may have another bit depth.
    """
    xp = namespace(plane)
    gain = ((1 << target.bits) - 1) / ((1 << format.bits) - 1)
    value = plane.astype(xp.float32) * np.float32(gain)
    for axis in (0, 1):
        value = _upsample(xp, value, axis, scale, (scale - 1) / 2, plane.shape[axis] * scale)
    return quantise(value, target, dither=False)

"""Sharper pictures than the networks give: unsharp masking, held to what is around each pixel.

A network that is trained for the least error gives the mean of all that could have been there, and a mean is soft: on
compressed video the finest octave that the source still holds comes out with some 80 % of its energy. This raises it.
It gives no detail that was not there, and moves the picture away from the least error.

Source: unsharp masking with binomial kernels, as FFmpeg's `unsharp`; the limit is that of limited sharpening
(`LimitedSharpen`, Didée 2004), which keeps edges from growing halos.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from videosr.frame import Array, PixelFormat, complete, is_on_gpu, namespace, place_of

OVERSHOOT = 3
"""How far, in codes of 8 bits, a pixel may leave the range of the 3x3 pixels around it."""
_BAND = 1 << 17
"""Pixels that are done at a time on the host: their intermediate results stay in the cache."""
_WEIGHTS = 2, 5, 1
"""Of R', G', B' in what stands for luma, in eighths."""


def sharpen(planes: tuple[Array, ...], format: PixelFormat, amount: float, scale: int) -> tuple[Array, ...]:
    """The picture with its luma sharpened; chroma and alpha stay.

    The blur is exact in float32, for up to 16 bits, and each operation after it rounds once: so the result is the same
    wherever it is computed.

    Args:
        planes: of `format`, on the host or on a GPU.
        format: theirs.
        amount: what is added of the difference from the blurred picture; 0 nothing, 1 all.
        scale: how many times larger than its source the picture is: by that goes how coarse the detail is.

    Returns:
        The planes, new ones where they changed.
    """
    if not amount:
        return planes
    with place_of(planes[0]):
        if format.family == "rgb":
            made = _sharper_rgb(planes[:3], format.bits, amount, scale)
        else:
            made = (_sharper(planes[0], format.bits, amount, scale), *planes[1:3])
    complete(made[0])
    return (*made, *planes[len(made) :])


def _sharper_rgb(planes: tuple[Array, ...], bits: int, amount: float, scale: int) -> tuple[Array, ...]:
    """R', G' and B' with the difference added that sharpening makes to their luma: colours keep their edges."""
    xp = namespace(planes[0])
    luma = sum(weight * plane.astype(xp.uint32) for weight, plane in zip(_WEIGHTS, planes, strict=True)) >> 3
    luma = luma.astype(planes[0].dtype)
    change = _sharper(luma, bits, amount, scale).astype(xp.int32) - luma
    return tuple((plane + change).clip(0, (1 << bits) - 1).astype(plane.dtype) for plane in planes)


def _sharper(plane: Array, bits: int, amount: float, scale: int) -> Array:
    """A plane sharpened, in bands of rows; its own dtype."""
    xp = namespace(plane)
    spacings = _spacings(scale)
    margin = sum(spacings)
    padded = xp.pad(plane, margin, mode="edge")
    made = xp.empty_like(plane)
    for rows in _bands(plane):
        band = padded[rows.start : rows.stop + 2 * margin]
        around = band[margin - 1 : 1 - margin or None, margin - 1 : 1 - margin or None]
        over = OVERSHOOT << (bits - 8)
        low = _over_3x3(around, xp.minimum).astype(xp.float32) - over
        high = _over_3x3(around, xp.maximum).astype(xp.float32) + over
        sharp = plane[rows].astype(xp.float32)
        sharp += xp.float32(amount) * (sharp - _blurred(band.astype(xp.float32), spacings))
        sharp = xp.rint(xp.minimum(xp.maximum(sharp, low), high))
        made[rows] = sharp.clip(0, (1 << bits) - 1).astype(plane.dtype)
    return made


def _spacings(scale: int) -> tuple[int, ...]:
    """How far apart the taps of the binomials [1 2 1] / 4 are, which one after the other make the blur.

    Their variances, half a square of the spacing each, add up to (scale / 2) squared for 2, to a little more for 3, and
    to less for 4, where more brought less VMAF NEG.
    """
    return (1,) if scale < 2 else (1, 1) if scale == 2 else (1, 2)


def _blurred(band: Array, spacings: tuple[int, ...]) -> Array:
    """A band without its margin, blurred along both axes."""
    for s in spacings:
        band = band[: -2 * s] + 2 * band[s:-s] + band[2 * s :]
        band = band[:, : -2 * s] + 2 * band[:, s:-s] + band[:, 2 * s :]
    return band * band.dtype.type(1 / 16 ** len(spacings))


def _over_3x3(band: Array, extreme: Callable[[Array, Array], Array]) -> Array:
    """The least or the greatest of the 3x3 pixels around each, without the outermost rows and columns."""
    band = extreme(extreme(band[:-2], band[1:-1]), band[2:])
    return extreme(extreme(band[:, :-2], band[:, 1:-1]), band[:, 2:])


def _bands(plane: Array) -> Iterator[slice]:
    """The rows to do at a time: all of them on a GPU."""
    height, width = plane.shape
    step = height if is_on_gpu(plane) else max(_BAND // width, 1)
    for top in range(0, height, step):
        yield slice(top, min(top + step, height))

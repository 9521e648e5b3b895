"""The colour behind what is fully transparent, which nobody sees, but a network does.

Most tools leave it black. A network, and any filter, would mix that into the first pixels that are seen, which shows
as a dark rim. So before a picture is enlarged, the colour of what is seen is carried on into what is not.
"""

from __future__ import annotations

from collections.abc import Sequence

from videosr.color import to_rgb
from videosr.frame import Array, Frame, PixelFormat, complete, namespace

FAINT = 4 / 255
"""Alpha that counts as none where there is none as well: lossy codecs put as much into what was fully transparent."""
SPARE = 4
"""Pixels beyond a network's reach, for the filters around it: chroma's, alpha's, and the resampling of the result."""
_ABOVE = 8 / 255
"""By how much colour must exceed alpha to count: codecs move either by a few codes."""
_FEW = 0.05
"""Share of the half transparent pixels, below which as many may do so in a premultiplied picture."""


def spread(frame: Frame, reach: int) -> Frame:
    """The frame with the colour of what is seen carried on into what is fully transparent, as far as that is needed.

    What shows stays as it is. So do premultiplied pictures: their hidden black is part of what shows.

    Args:
        frame: with an alpha plane, or without.
        reach: how many pixels away from a pixel that is seen others may still tell.
    """
    fmt = frame.format
    if not fmt.alpha:
        return frame
    alpha = frame.planes[-1]
    if alpha.min() or not alpha.max() or _is_premultiplied(frame):
        return frame
    hidden = alpha <= int(FAINT * ((1 << fmt.bits) - 1))
    *colours, _ = frame.planes
    if fmt.subsampled:
        made = [*_grown(colours[:1], hidden, reach), *_grown(colours[1:], _blocks(hidden, fmt, colours[1]), reach)]
    else:
        made = _grown(colours, hidden, reach)
    complete(made[-1])
    return frame.with_planes((*made, alpha))


def _is_premultiplied(frame: Frame) -> bool:
    """Whether no colour is brighter than its alpha allows: formats of video do not say whether they mean it so.

    A picture that merely looks so is dark where it ends, and what is hidden does no harm there.
    """
    fmt, alpha = frame.format, frame.planes[-1]
    top = (1 << fmt.bits) - 1
    rows, columns = ((alpha > 0) & (alpha < top)).nonzero()
    if not len(rows):
        return False
    seen = [frame.planes[0][rows, columns]]
    for plane in frame.planes[1:-1]:
        seen.append(plane[rows >> fmt.log2_h, columns >> fmt.log2_w])
    rgb = to_rgb(tuple(samples[None] for samples in seen), PixelFormat.of(fmt.family, fmt.bits), frame.color)
    return bool((rgb.max(axis=(0, 1)) > alpha[rows, columns] / top + _ABOVE).mean() < _FEW)


def _blocks(hidden: Array, fmt: PixelFormat, chroma: Array) -> Array:
    """Which samples of subsampled chroma belong to hidden pixels alone."""
    (rows, columns), (down, across) = chroma.shape, (1 << fmt.log2_h, 1 << fmt.log2_w)
    beyond = (0, rows * down - hidden.shape[0]), (0, columns * across - hidden.shape[1])
    whole = namespace(hidden).pad(hidden, beyond, constant_values=True)
    return whole.reshape(rows, down, columns, across).all(axis=(1, 3))


def _grown(planes: Sequence[Array], hidden: Array, steps: int) -> list[Array]:
    """Planes in which known samples have grown into hidden ones, a ring at a time: each new one is the mean of those
    around it that are known by then.

    Only the rings are looked at, so that the work does not grow with the picture.
    """
    xp = namespace(hidden)
    rows, columns = hidden.shape
    width = columns + 2  # with a frame of nothing around the picture, so that every sample has eight neighbours
    around = (-width - 1, -width, -width + 1, -1, 1, width - 1, width, width + 1)
    known, unknown = xp.pad(~hidden, 1), xp.pad(hidden, 1)
    near = known[:-2] | known[1:-1] | known[2:]
    near = near[:, :-2] | near[:, 1:-1] | near[:, 2:]
    ring = xp.flatnonzero(xp.pad(near & hidden, 1))
    known, unknown = known.ravel(), unknown.ravel()
    grown = [xp.pad(xp.where(hidden, 0, plane), 1).ravel() for plane in planes]
    for _ in range(steps):
        if not len(ring):
            break
        count, sums = xp.zeros(len(ring), xp.int32), [xp.zeros(len(ring), xp.int32) for _ in grown]
        following = xp.zeros_like(unknown)
        unknown[ring] = False
        for step in around:
            beside = ring + step
            count += known[beside]
            for total, plane in zip(sums, grown, strict=True):
                total += plane[beside]
            following[beside] = unknown[beside]
        for total, plane in zip(sums, grown, strict=True):
            plane[ring] = (total + count // 2) // count
        known[ring] = True
        ring = xp.flatnonzero(following)
    made = [plane.reshape(rows + 2, width)[1:-1, 1:-1] for plane in grown]
    still = unknown.reshape(rows + 2, width)[1:-1, 1:-1]
    return [xp.where(still, plane, new) for plane, new in zip(planes, made, strict=True)]

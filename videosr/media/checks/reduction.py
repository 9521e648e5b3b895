"""Pictures reduced to few R'G'B' pixels, each a mean over twice its width and height, weighted by a triangle.

Every sample counts where it lies, chroma too: its siting moves it against luma by up to a sample, which pictures of
saturated colours show as soon as copies are not much smaller than their originals. Nothing is rounded or cut off on
the way. So a picture and a right enlargement of it come to the same copy but for what is finer than that.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from videosr.color import levels, rgb_from_ycc, siting_offsets, to_rgb
from videosr.frame import Array, ColorSpec, Matrix, PixelFormat, Range

BACKGROUND = 0.5
"""The grey that pictures with alpha are shown on; R', G' and B' in [0, 1]."""
_RGB, _FULL = PixelFormat.parse("gbrp"), ColorSpec(matrix=Matrix.RGB, range=Range.FULL)


def reduced_size(fmt: PixelFormat, width: int, height: int, most: tuple[int, int]) -> tuple[int, int]:
    """(columns, rows) of a picture's copies: a quarter of its own, half of its chroma's; at least 2, at most `most`."""
    rows, columns = fmt.plane_shape(1, height, width)
    return max(2, min(most[0], width // 4, columns // 2)), max(2, min(most[1], height // 4, rows // 2))


def reduced(
    planes: tuple[Array, ...], fmt: PixelFormat, color: ColorSpec, size: tuple[int, int], parity: int | None = None
) -> Array:
    """A small copy of a picture; alpha is left out.

    Args:
        planes: codes as in `Frame.planes`.
        fmt: of the planes.
        color: resolved; matrix, range and siting are used.
        size: (columns, rows) of the copy.
        parity: take the first (0) or second (1) of each two rows alone, a field of interlaced video; None: all rows.

    Returns:
        (rows, columns, 3) float32, codes of 255.
    """
    (height, width), (columns, rows) = planes[0].shape, size
    values = []
    for i in range(1 if fmt.family == "gray" else 3):
        plane, subsampled = planes[i], fmt.family == "yuv" and i > 0
        step_x, step_y = (1 << fmt.log2_w, 1 << fmt.log2_h) if subsampled else (1, 1)
        first_x, first_y = siting_offsets(color.siting, step_x, step_y) if subsampled else (0.0, 0.0)
        if parity is not None:
            plane, step_y, first_y = plane[parity::2], 2 * step_y, first_y + parity * step_y
        down = _weights(rows, height, plane.shape[0], step_y, first_y)
        across = _weights(columns, width, plane.shape[1], step_x, first_x)
        offset, scale = levels(fmt, color.range, i)
        values.append((down @ plane.astype(np.float32) @ across.T - offset) / scale)
    copy = np.stack(values * 3 if fmt.family == "gray" else values, axis=-1)
    if fmt.family == "yuv":
        copy = copy @ rgb_from_ycc(color.matrix).T
    return (255 * copy.clip(0, 1)).astype(np.float32)


def reduced_on_grey(
    planes: tuple[Array, ...],
    fmt: PixelFormat,
    color: ColorSpec,
    size: tuple[int, int],
    parity: int | None = None,
    *,
    premultiplied: bool = False,
) -> Array:
    """`reduced`, of what a picture with alpha shows on `BACKGROUND`.

    Args:
        planes: as for `reduced`, and so are those that follow.
        fmt: a format with alpha.
        color: resolved.
        size: of the copy.
        parity: of a field.
        premultiplied: colours are multiplied by alpha.
    """
    alpha = planes[-1].astype(np.float32) / ((1 << fmt.bits) - 1)
    rgb = to_rgb(planes, fmt, color)
    seen = ((rgb if premultiplied else rgb * alpha) + BACKGROUND * (1 - alpha)).clip(0, 1)
    return reduced(tuple(255 * seen), _RGB, _FULL, size, parity)


@lru_cache(maxsize=64)
def _weights(cells: int, length: int, samples: int, step: int, first: float) -> NDArray[np.float32]:
    """What each of a row's samples counts for each cell of its copy.

    Args:
        cells: in the copy.
        length: luma samples, which the copy spans.
        samples: of the row.
        step: luma samples from one to the next; each covers that much, the outer ones all up to the picture's edge.
        first: where the first one is centred, from the first luma sample's centre.

    Returns:
        (cells, samples) float32, the sum of each row 1.
    """
    edges = (first + 0.5 + step * (np.arange(samples + 1) - 0.5)).clip(0, length)
    edges[0], edges[-1] = 0, length
    far = (edges * (cells / length) - np.arange(0.5, cells)[:, None]).clip(-1, 1)
    below = np.where(far < 0, (1 + far) ** 2, 2 - (1 - far) ** 2)  # twice the triangle's integral up to an edge
    weights = np.diff(below, axis=1)
    found: NDArray[np.float32] = (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
    return found

"""Scene cuts: whether a frame begins a new scene, told from it and the frame before it alone.

Each frame is reduced to a thumbnail of its luma, and `score` asks how far one thumbnail can be had from the other:

- Lit otherwise? The histogram of the more contrasted one is first made that of the other, value by value in order
  ("histogram specification", Gonzalez and Woods 3.3). Any gain, offset, gamma or clipping is undone by that, so that
  flashes and fades are no cuts; what cuts between scenes of equal brightness differ in is left.
- Moved as a whole? Phase correlation (Kuglin and Hines 1975) finds the shift; the height of its peak says how much of
  the picture followed it.
- Moved in parts? A small search around that shift, block by block, by normalised cross-correlation.

The three answers are added up. Their scales and the threshold were chosen on labelled pairs (see scripts/scene_bar.py).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from videosr.frame import Array

type Thumbnail = np.ndarray[Any, np.dtype[np.float32]]

CUT = 1.5
"""The `score` from which on a frame begins a new scene."""

_CELLS = 64 * 36  # about as many samples a thumbnail has
_BLOCK = 8  # samples a side of the blocks that are searched for
_REACH = 2  # samples they are searched for on either side of the common shift
_BLACK = 24.0  # letterbox bars are darker; they would make any two scenes alike
_DARK = 48.0  # a structureless picture darker than this is a black one, not a flash
_FLAT = 3.0  # standard deviation under which a thumbnail has no structure
_SHOWN = 12.0  # standard deviation from which on a picture next to a black one is a scene, not a step of a fade
_SAME = 0.95  # correlation over which two pictures follow one another for certain
_GRAIN = 9.0  # variance that noise and coding may put into a block without meaning anything
_FAINT = 3.0  # contrast in a block at which its structure counts by half
_BAND = 0.2  # cycles a sample: standard deviation of the Gaussian that keeps noise out of the phase correlation


def thumbnail(plane: Array, bits: int) -> Thumbnail:
    """A small picture of a luma plane, by area averaging: float32 on the host, 0..255 whatever the bit depth.

    Cells are squares of the same whole number of samples, some 64x36 of them to a 16:9 picture, at least 8 a side where
    the picture has as many samples; what is left over at the right and lower edges is not looked at. Cells of 16 rows
    or more are averaged over every second row, or fewer. The sums are of integers, hence the same on every device.
    """
    cell, step = cells(plane.shape)
    rows, columns = plane.shape[0] // cell, plane.shape[1] // cell
    picked = plane[: rows * cell, : columns * cell].reshape(rows, cell, columns * cell)[:, ::step]
    sums = picked.sum(axis=1, dtype="uint32").reshape(rows, columns, cell).sum(axis=2)
    host = sums.get() if hasattr(sums, "get") else sums
    return np.asarray(host / (picked.shape[1] * cell * 2.0 ** (bits - 8)), np.float32)


def cells(shape: tuple[int, ...]) -> tuple[int, int]:
    """(samples a side of a thumbnail's cells, every how many rows are averaged), for a plane of that shape."""
    height, width = shape
    cell = max(1, min(round((height * width / _CELLS) ** 0.5), height // _BLOCK, width // _BLOCK))
    return cell, max(1, cell // 8)


def is_cut(prev: Thumbnail, cur: Thumbnail) -> bool:
    """Whether a scene begins with the second of two consecutive frames, given as thumbnails."""
    return prev.shape != cur.shape or score(prev, cur) >= CUT


def score(prev: Thumbnail, cur: Thumbnail) -> float:
    """How different two thumbnails of the same shape are; their order matters little.

    Some 0.2 for frames that follow one another, 2.5 for frames that do not, `CUT` between them. A change between black
    and a picture is a cut; one between any other even colour and a picture is not (a flash looks like that).
    """
    area = _content(prev, cur)
    a, b = prev[area], cur[area]
    if min(a.shape) < _BLOCK:
        return 0.0
    if a.std() < b.std():
        a, b = b, a
    if b.std() < _FLAT:
        return 2 * CUT if b.mean() < _DARK and a.std() > _SHOWN else 0.0
    a = np.interp(a, np.sort(a, axis=None), np.sort(b, axis=None)).astype(np.float32)
    alike = _correlation(a, b)
    if alike > _SAME:
        return 1 - alike
    dy, dx, peak = _shift(a, b)
    here = slice(max(0, -dy), b.shape[0] - max(0, dy)), slice(max(0, -dx), b.shape[1] - max(0, dx))
    there = slice(max(0, dy), b.shape[0] + min(0, dy)), slice(max(0, dx), b.shape[1] + min(0, dx))
    alike = max(0.0, alike, _correlation(a[there], b[here]))
    unexplained = min(_unexplained(a, b, *shift) for shift in {(0, 0), (dy, dx)})
    return 1 - alike + unexplained - 0.5 * float(np.log(max(peak, 1e-3)))


def _content(a: Thumbnail, b: Thumbnail) -> tuple[slice, slice]:
    """The rows and columns inside the black bars that the two have in common, less the cells that are partly bar."""
    shown = np.maximum(a, b) >= _BLACK
    spans = []
    for lit in (shown.any(axis=1), shown.any(axis=0)):
        found = np.flatnonzero(lit)
        if found.size == 0:
            return slice(0, 0), slice(0, 0)
        first, last = int(found[0]), int(found[-1])
        spans.append(slice(first + (first > 0), last + (last == lit.size - 1)))
    return spans[0], spans[1]


def _shift(a: Thumbnail, b: Thumbnail) -> tuple[int, int, float]:
    """The (dy, dx), a third of the size at most, with a[y + dy, x + dx] like b[y, x]; its peak, 1 for a pure shift."""
    height, width = b.shape
    taper = np.sqrt(np.outer(np.hanning(height + 2)[1:-1], np.hanning(width + 2)[1:-1])).astype(np.float32)
    cross = np.fft.rfft2((a - a.mean()) * taper) * np.conj(np.fft.rfft2((b - b.mean()) * taper))
    power = np.abs(cross)
    band = np.exp(-(np.fft.fftfreq(height)[:, None] ** 2 + np.fft.rfftfreq(width) ** 2) / (2 * _BAND**2))
    surface = np.fft.irfft2(cross / (power + 0.01 * power.mean() + 1e-6) * band, s=b.shape)
    most = height // 3, width // 3
    surface = np.roll(surface, most, (0, 1))[: 2 * most[0] + 1, : 2 * most[1] + 1]
    dy, dx = np.unravel_index(int(surface.argmax()), surface.shape)
    full = np.fft.irfft2(band.astype(np.complex64), s=b.shape)[0, 0]
    return int(dy) - most[0], int(dx) - most[1], float(surface[dy, dx] / full)


def _correlation(a: Thumbnail, b: Thumbnail) -> float:
    """The normalised correlation of two pictures."""
    a, b = a - a.mean(), b - b.mean()
    return float((a * b).mean() / np.sqrt(((a * a).mean() + 4) * ((b * b).mean() + 4)))


def _unexplained(a: Thumbnail, b: Thumbnail, dy: int, dx: int) -> float:
    """The share, 0..1, of the contrast of `b` and `a` that no block of `a` within `_REACH` of (dy, dx) accounts for.

    1 - r for the block of `a` with the highest normalised correlation r, averaged over the blocks of `b` by contrast.
    Blocks that would come from outside `a` are left out.
    """
    size, reach = _BLOCK, 2 * _REACH + 1
    rows, columns = b.shape[0] // size, b.shape[1] // size
    top, left = (b.shape[0] - rows * size) // 2, (b.shape[1] - columns * size) // 2
    blocks = b[top : top + rows * size, left : left + columns * size].reshape(rows, size, columns, size)
    blocks = blocks - blocks.mean(axis=(1, 3), keepdims=True)
    variance = (blocks * blocks).mean(axis=(1, 3))

    y = np.arange(top + dy - _REACH, top + dy + rows * size + _REACH)
    x = np.arange(left + dx - _REACH, left + dx + columns * size + _REACH)
    near = a[np.ix_(y.clip(0, a.shape[0] - 1), x.clip(0, a.shape[1] - 1))]
    # candidates[i, j, p, q] is the block of `a` that lies p - _REACH, q - _REACH from where block i, j is expected
    candidates = sliding_window_view(near, (size + reach - 1,) * 2)[::size, ::size]
    candidates = sliding_window_view(candidates, (size, size), axis=(2, 3))
    covariances = np.einsum("ijpqyx,iyjx->ijpq", candidates, blocks) / size**2
    means, squares = (sliding_window_view(_box_means(s), (reach, reach))[::size, ::size] for s in (near, near * near))
    variances = np.maximum(squares - means * means, 0)
    likeness = covariances / np.sqrt((variances + _GRAIN) * (variance[:, :, None, None] + _GRAIN))

    likeness, variances = likeness.reshape(rows, columns, -1), variances.reshape(rows, columns, -1)
    best = likeness.argmax(axis=2)[:, :, None]
    r, found = (np.take_along_axis(table, best, 2)[:, :, 0] for table in (likeness, variances))
    inside = np.abs(y[_REACH + size // 2 : -_REACH : size] * 2 - a.shape[0]) < a.shape[0]
    beside = np.abs(x[_REACH + size // 2 : -_REACH : size] * 2 - a.shape[1]) < a.shape[1]
    weight = np.sqrt(np.maximum(variance, found)) * np.outer(inside, beside)
    total = float(weight.sum())
    if total == 0:
        return 1.0
    contrast = total / (int(inside.sum()) * int(beside.sum()))
    return (1 - float((weight * r).sum()) / total) * contrast / (contrast + _FAINT)


def _box_means(plane: Array) -> Array:
    """The mean of every block of a plane, by where it begins, through a summed-area table."""
    size = _BLOCK
    table = np.zeros((plane.shape[0] + 1, plane.shape[1] + 1))
    np.cumsum(np.cumsum(plane, axis=0, dtype=np.float64), axis=1, out=table[1:, 1:])
    return (table[size:, size:] - table[:-size, size:] - table[size:, :-size] + table[:-size, :-size]) / size**2

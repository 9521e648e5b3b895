"""Scene cuts: whether a frame begins a new scene, told from it and the frame before it alone.

Each frame is reduced to a thumbnail of its luma. `score` says how badly the earlier thumbnail, moved and lit as well
as may be, explains the structure of the later one. Moving: one global shift by phase correlation (Kuglin and Hines
1975), then a small search around it block by block. Lighting: blocks are compared by normalised cross-correlation,
which no gain or offset changes, so that flashes and fades are no cuts, and cuts between scenes of equal brightness
are.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from videosr.frame import Array

type Thumbnail = np.ndarray[Any, np.dtype[np.float32]]

CUT = 0.5
"""The score from which on a frame begins a new scene."""

_CELLS = 64 * 36  # about as many samples a thumbnail has
_BLOCK = 8  # samples a side of the blocks that are compared


def thumbnail(plane: Array, bits: int) -> Thumbnail:
    """A small picture of a luma plane, by area averaging: float32 on the host, 0..255 whatever the bit depth.

    Cells are squares of the same whole number of samples, some 64x36 of them to a 16:9 picture, never fewer than 8 a
    side unless the picture is smaller; what is left over at the right and lower edges is not looked at. Tall cells
    are averaged over every other row, or fewer, eight at least. The sums are of integers, hence the same on every
    device.
    """
    height, width = plane.shape
    cell = max(1, min(round((height * width / _CELLS) ** 0.5), height // 8, width // 8))
    rows, columns = height // cell, width // cell
    step = max(1, cell // 8)
    picked = plane[: rows * cell, : columns * cell].reshape(rows, cell, columns * cell)[:, ::step]
    sums = picked.sum(axis=1, dtype="uint32").reshape(rows, columns, cell).sum(axis=2)
    host = sums.get() if hasattr(sums, "get") else sums
    return np.asarray(host / (picked.shape[1] * cell * 2.0 ** (bits - 8)), np.float32)


def is_cut(prev: Thumbnail, cur: Thumbnail) -> bool:
    """Whether a scene begins with the second of two consecutive frames, given as thumbnails."""
    return prev.shape != cur.shape or score(prev, cur) >= CUT


def score(prev: Thumbnail, cur: Thumbnail) -> float:
    """How much of the structure of `cur` is not in `prev`, from 0 (all is) to 1; both of the same shape."""
    a = prev - prev.mean()
    b = cur - cur.mean()
    return float(1 - abs((a * b).mean()) / (a.std() * b.std() + 1))

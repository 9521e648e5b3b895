"""Pictures that no camera takes: noise, dithered pictures, stripes and checkerboards of single pixels, flat fields.

A network that multiplies features is a polynomial of its input, bounded only where it was trained. Photographs have
little contrast from one pixel to the next; screens, fields of interlaced video and test charts have all there is. Nor
have they saturated colours without texture, which drawings have: where nothing tells a network to leave such a field
alone, it shifts its brightness.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

KINDS = ("noise", "bits", "dithered", "stripes", "checkerboard", "flat")

MOSAIC = 4
"""Shades along either edge of a dithered picture."""


def pattern(size: int, scale: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """One of these pictures as an HR patch whose LR version keeps the contrast: an LR pixel is `scale` HR pixels wide.

    Args:
        size: edge in HR pixels.
        scale: of the network.
        rng: decides what it is.

    Returns:
        (size, size, 3).
    """
    cells = -(-size // scale)
    kind = KINDS[rng.integers(len(KINDS))]
    depth = int(rng.choice((1, 3)))  # the same in all three channels, or not
    first, second = rng.uniform(0, 255, 3), rng.uniform(0, 255, 3)
    extreme = rng.random() < 0.5
    if kind == "flat":
        colour = 255.0 * rng.integers(0, 2, 3) if extreme else first
        return np.broadcast_to(np.rint(colour).astype(np.uint8), (size, size, 3)).copy()
    if extreme:  # all the contrast there is
        first, second = np.zeros(3), np.full(3, 255.0)
    if kind == "noise":
        mix = rng.random((cells, cells, depth))
    elif kind == "bits":
        mix = rng.integers(0, 2, (cells, cells, depth)).astype(np.float64)
    elif kind == "dithered":  # a mosaic of greys or colours, each by as many cells of either extreme
        patch = -(-cells // MOSAIC)
        shades = rng.random((MOSAIC, MOSAIC, depth)).repeat(patch, 0).repeat(patch, 1)[:cells, :cells]
        mix = (rng.random((cells, cells, depth)) < shades).astype(np.float64)
    else:
        width = int(rng.integers(1, 4))
        rows, columns = np.arange(cells)[:, None] // width, np.arange(cells)[None] // width
        along = columns if kind == "stripes" else rows + columns
        mix = np.broadcast_to((along % 2)[..., None], (cells, cells, 1)).astype(np.float64)
    small = np.rint(first + (second - first) * mix).astype(np.uint8)
    return small.repeat(scale, 0).repeat(scale, 1)[:size, :size]

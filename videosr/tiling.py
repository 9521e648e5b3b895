"""Cutting a picture into tiles, for networks that cannot take it whole: which tiles, and how they are joined.

The plan depends on the picture's size and the settings alone, never on free memory, so that the same frame always
takes the same way. All tiles of a plan are of one size and begin at multiples of the network's grid, where its windows
begin in the whole picture too; the last ones end where the picture ends.

Neighbours share pixels. A network that sees only so far gives in each tile's middle what it gives in the whole
picture: shared pixels are cut in half, and nothing is lost. Of a network that sees everything, tiles are an
approximation; the shares of two neighbours then change linearly from one to the other over half of what they share,
so that no seam is left, and the outer quarters, where a tile's own rim tells, are not used at all.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from videosr.errors import UsageError
from videosr.frame import Array, namespace

WINDOWED_EDGE = 384
"""Edge of the tiles, pixels, of networks with window attention, which take up to 40 kB of memory a pixel."""

PLAIN_EDGE = 2048
"""Edge of the tiles of all others."""

OVERLAP = 64
"""Pixels that neighbouring tiles share at least, where a network's reach is unknown or the whole picture."""

GRID = 16
"""What tiles begin at multiples of, where a network names no window: many need sizes that 8 or 16 divides."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Tiling:
    """How pictures of any size are cut for one network.

    Attributes:
        edge: of a tile, pixels at most; 0: pictures are not cut.
        overlap: pixels that neighbours share at least.
        grid: what tiles begin at multiples of.
        blend: whether neighbours are mixed where they overlap, or cut.
    """

    edge: int
    overlap: int
    grid: int
    blend: bool

    @staticmethod
    def of(edge: int | None, *, window: int, reach: int | None) -> Tiling:
        """The tiling for a network.

        Args:
            edge: as asked for; 0: none; None: `WINDOWED_EDGE` or `PLAIN_EDGE`.
            window: edge of its attention windows; 0: it has none.
            reach: how many pixels away from its own an output pixel sees; None: unknown, or the whole picture.

        Raises:
            UsageError: too small an edge for tiles that share what they must.
        """
        grid = window if window > 0 else GRID
        overlap = OVERLAP if reach is None else 2 * max(reach, 0)
        least = 2 * (overlap + grid)
        if edge is None:
            edge = max(least, WINDOWED_EDGE if window > 0 else PLAIN_EDGE)
        if edge and edge < least:
            raise UsageError(
                f"tiles of {edge} pixels are too small for this network: give --tile {least} or more, or 0"
            )
        return Tiling(edge=edge, overlap=overlap, grid=grid, blend=reach is None)

    def __str__(self) -> str:
        """All of it, for identities."""
        join = "blended" if self.blend else "cut"
        return f"tiles {self.edge}, overlap {self.overlap} {join}, grid {self.grid}" if self.edge else "no tiles"

    def cuts(self, height: int, width: int) -> bool:
        """Whether a picture of this size is cut."""
        return 0 < self.edge < max(height, width)

    def axis(self, length: int) -> Axis:
        """The tiles along one axis of a picture."""
        if not self.cuts(length, length):
            return Axis(size=length, starts=(0,))
        # Sizes that leave whole steps of the grid before the last tile; the largest first.
        steps = -(-(length - self.edge) // self.grid)
        count = self._count(length, steps)
        while self._count(length, steps + 1) == count:
            steps += 1
        starts = tuple(self.grid * (i * steps // (count - 1)) for i in range(count))
        return Axis(size=length - self.grid * steps, starts=starts)

    def _count(self, length: int, steps: int) -> int:
        """How many tiles it takes if the last one begins after so many steps; 0: they are too small."""
        stride = (length - self.grid * steps - self.overlap) // self.grid
        return 1 - -steps // stride if stride > 0 else 0

    def run(self, upscale: Callable[..., Array], scale: int, *pictures: Array | None) -> Array:
        """What `upscale` makes of pictures, tile by tile.

        Args:
            upscale: takes crops of the pictures and gives one picture `scale` times as large.
            scale: of the network.
            pictures: (N, 3, H, W), all of one shape; None is passed on as it is.

        Returns:
            (N, 3, scale*H, scale*W) float32.
        """
        first = next(picture for picture in pictures if picture is not None)
        if not self.cuts(first.shape[2], first.shape[3]):
            return upscale(*pictures)
        rows, columns = self.axis(first.shape[2]), self.axis(first.shape[3])
        down, across = (axis.shares(scale, self.blend) for axis in (rows, columns))
        xp = namespace(first)
        result = xp.zeros((*first.shape[:2], first.shape[2] * scale, first.shape[3] * scale), dtype=xp.float32)
        for top, down_share in zip(rows.starts, down, strict=True):
            for left, across_share in zip(columns.starts, across, strict=True):
                place = (..., slice(top, top + rows.size), slice(left, left + columns.size))
                tile = upscale(*(None if picture is None else picture[place] for picture in pictures))
                target = result[
                    ..., scale * top : scale * (top + rows.size), scale * left : scale * (left + columns.size)
                ]
                target += tile * xp.asarray(down_share)[:, None] * xp.asarray(across_share)
        return result


@dataclass(frozen=True, slots=True)
class Axis:
    """Tiles along one axis.

    Attributes:
        size: of each, pixels.
        starts: their first pixels, rising.
    """

    size: int
    starts: tuple[int, ...]

    def shares(self, scale: int, blend: bool) -> list[Array]:
        """Of each tile in each of its output pixels: float32 vectors of scale * size, whose sum is one everywhere."""
        length = scale * (self.starts[-1] + self.size)
        at = np.arange(length) + 0.5
        # The share of all tiles from one on: rises from 0 to 1 in the middle of what it and the one before it share.
        later = [np.ones(length)]
        for before, start in zip(self.starts, self.starts[1:], strict=False):
            shared = scale * (before + self.size - start)
            ramp = shared / 2 if blend else 0.0
            middle = scale * start + shared // 2
            later.append(np.clip((at - middle) / ramp + 0.5, 0, 1) if ramp else (at > middle).astype(float))
        later.append(np.zeros(length))
        return [
            (later[i] - later[i + 1])[scale * start : scale * (start + self.size)].astype(np.float32)
            for i, start in enumerate(self.starts)
        ]

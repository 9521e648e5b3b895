"""Pictures as they are to be seen: FFmpeg's display matrix applied to the samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

from videosr.color import converted, resample_chroma, siting_offsets
from videosr.frame import Array, ColorSpec, Frame, PixelFormat, Siting, StreamInfo

TOLERANCE = 0.0175
"""Tangent of the angle by which a matrix may miss a quarter turn: FFmpeg's degree (`configure_input_video_filter`)."""

type Grid = tuple[int, float]
"""Where chroma samples lie along an axis: luma samples from one to the next, and of the first one from the first."""


@dataclass(frozen=True, slots=True)
class Orientation:
    """What is done to a picture before it is shown: the eight ways of turning by quarters and mirroring.

    Attributes:
        sideways: rows and columns change places; what follows is done to the result.
        mirrored: left and right change places.
        inverted: top and bottom change places.
    """

    sideways: bool = False
    mirrored: bool = False
    inverted: bool = False

    @classmethod
    def of(cls, matrix: Sequence[int] | None) -> Self | None:
        """The orientation that FFmpeg's display matrix asks for; None if it is no such one.

        The matrix (`libavutil/display.h`) takes the source's (x, y) to (a x + c y, b x + d y), a and b being its first
        two entries and c and d the first two of its second row. Its scale is none of our business: demuxers have made
        a sample aspect ratio of it.

        Args:
            matrix: nine integers; None: pictures are shown as they are.
        """
        if matrix is None:
            return cls()
        a, b, c, d = (matrix[i] for i in (0, 1, 3, 4))
        if a and d and abs(b) <= TOLERANCE * abs(a) and abs(c) <= TOLERANCE * abs(d):
            return cls(False, a < 0, d < 0)
        if b and c and abs(a) <= TOLERANCE * abs(b) and abs(d) <= TOLERANCE * abs(c):
            return cls(True, c < 0, b < 0)
        return None

    def info(self, info: StreamInfo) -> StreamInfo:
        """What a stream of such pictures says of itself once they are upright."""
        fmt, color = self._coded(info.format, info.color, (info.height, info.width))
        if self.sideways:
            info = replace(info, width=info.height, height=info.width, sar=1 / info.sar)
        return replace(info, format=fmt, color=color, rotation=0)

    def frame(self, frame: Frame) -> Frame:
        """The frame upright.

        Where chroma samples come to lie where no siting has a name for it, they are moved to the nearest place that
        has one. Chroma that is subsampled otherwise across than down becomes 4:4:4 when it is turned on its side.
        """
        if self == Orientation():
            return frame
        size = frame.height, frame.width
        fmt, color = self._coded(frame.format, frame.color, size)
        planes = [self._turned(plane) for plane in frame.planes]
        if frame.format.subsampled:
            have, wanted = self._grids(frame.format, frame.color, size), _grids(fmt, color)
            if have != wanted:
                shape = fmt.plane_shape(1, *planes[0].shape)
                planes[1:3] = [resample_chroma(plane, fmt, have, wanted, shape) for plane in planes[1:3]]
        sar = 1 / frame.sar if self.sideways else frame.sar
        return replace(frame, planes=tuple(planes), format=fmt, color=color, sar=sar)

    def _turned(self, plane: Array) -> Array:
        if self.sideways:
            plane = plane.T
        return plane[:: -1 if self.inverted else 1, :: -1 if self.mirrored else 1].copy()

    def _coded(self, fmt: PixelFormat, color: ColorSpec, size: tuple[int, int]) -> tuple[PixelFormat, ColorSpec]:
        """Format and colour of the upright form of a picture of so many rows and columns."""
        if not fmt.subsampled:
            return fmt, color
        if self.sideways and fmt.log2_w != fmt.log2_h:
            full = PixelFormat.of(fmt.family, fmt.bits, alpha=fmt.alpha)
            return full, converted(color, fmt, full)
        (rows, down), (columns, across) = self._grids(fmt, color, size)
        down = _nearest(down, (0.0, (rows - 1) / 2, float(rows - 1)))
        across = _nearest(across, (0.0, (columns - 1) / 2))
        named = (color.siting, *Siting)
        siting = next(siting for siting in named if siting_offsets(siting, columns, rows) == (across, down))
        return fmt, replace(color, siting=siting)

    def _grids(self, fmt: PixelFormat, color: ColorSpec, size: tuple[int, int]) -> tuple[Grid, Grid]:
        """Where the chroma samples of a picture of so many rows and columns have come to lie: downwards and across."""
        grids = _grids(fmt, color)
        if self.sideways:
            grids, size = grids[::-1], size[::-1]
        (rows, down), (columns, across) = grids
        if self.inverted:
            down = (size[0] - 1) % rows - down
        if self.mirrored:
            across = (size[1] - 1) % columns - across
        return (rows, down), (columns, across)


UPRIGHT = Orientation()


def _grids(fmt: PixelFormat, color: ColorSpec) -> tuple[Grid, Grid]:
    """Where the format's chroma samples lie: downwards and across."""
    columns, rows = 1 << fmt.log2_w, 1 << fmt.log2_h
    across, down = siting_offsets(color.siting, columns, rows)
    return (rows, down), (columns, across)


def _nearest(offset: float, named: Sequence[float]) -> float:
    return min(named, key=lambda place: abs(place - offset))

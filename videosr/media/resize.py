"""Bringing finished pictures to a wanted size with a good resampler."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction

from av.video.reformatter import Interpolation, VideoReformatter

from videosr.errors import UsageError
from videosr.frame import Frame, StreamInfo
from videosr.media.planes import PlaneReader, to_av_frame

SIDES = 16, 16384
"""Least and most columns and rows of what is asked for."""


def wanted_size(info: StreamInfo, width: int | None, height: int | None, multiple: int = 2) -> tuple[int, int]:
    """The size asked for; one of the two may be left open and then follows the picture's shape.

    What is asked for is what is seen: of a picture that is shown on its side, rows and columns change places.

    Args:
        info: of the upscaled picture.
        width: columns or None.
        height: rows or None.
        multiple: of this number is what was left open; most video needs even sizes.

    Returns:
        columns and rows of the coded picture.

    Raises:
        UsageError: a size beyond `SIDES`.
    """
    if info.rotation % 180 == 90:
        shown = replace(info, width=info.height, height=info.width, rotation=0)
        rows, columns = wanted_size(shown, width, height, multiple)
        return columns, rows
    if width is None:
        width = info.width if height is None else round(info.width * height / info.height / multiple) * multiple
    if height is None:
        height = round(info.height * width / info.width / multiple) * multiple
    for name, value in (("width", width), ("height", height)):
        if not SIDES[0] <= value <= SIDES[1]:
            raise UsageError(f"output {name} {value} is not between {SIDES[0]} and {SIDES[1]}")
    return width, height


class Resizer:
    """A stage that resamples pictures by FFmpeg's Lanczos filter (`SWS_LANCZOS`); the shape seen on screen is kept.

    Args:
        info: of the pictures that come.
        width: columns wanted.
        height: rows wanted.
    """

    def __init__(self, info: StreamInfo, width: int, height: int) -> None:
        # The display aspect ratio stays, so what the sample counts change the sample's shape takes up.
        self._sar = info.sar * Fraction(info.width, info.height) / Fraction(width, height)
        self.info = replace(info, width=width, height=height, sar=self._sar)
        self._reader = PlaneReader()
        self._reformatter = VideoReformatter()

    def process(self, frame: Frame) -> Iterator[Frame]:
        """Resample one frame."""
        picture = to_av_frame(frame.planes, frame.format, frame.color.siting)
        resized = self._reformatter.reformat(
            picture, width=self.info.width, height=self.info.height, interpolation=Interpolation.LANCZOS
        )
        yield replace(frame, planes=self._reader.read(resized, frame.format), sar=self._sar)

    def flush(self) -> Iterator[Frame]:
        """Nothing is kept back."""
        return iter(())

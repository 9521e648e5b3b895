"""Pictures that change their size, shape, format or colour in mid-stream, brought to what the stream began with.

Recordings of broadcasts do that at every other advertisement. A file has one size, so those pictures are resampled into
it, with black beside them where their shape on the screen is another one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction

import numpy as np
from av.video.reformatter import Interpolation, VideoReformatter

from videosr.color import from_rgb, levels, resize_plane, to_rgb
from videosr.frame import Array, ColorSpec, Frame, PixelFormat, StreamInfo
from videosr.media.colorinfo import INEXACT, changes
from videosr.media.planes import PlaneReader, to_av_frame

SAME_SHAPE = Fraction(1, 50)
"""Relative difference of aspect ratios below which a picture fills the other's frame: sizes are rounded."""


class Conformer:
    """A stage that passes frames of the stream's size, format and colour, and converts the others to it.

    Args:
        info: of the stream: size, format, colour and sample aspect ratio of every result.
    """

    def __init__(self, info: StreamInfo) -> None:
        self._info = info
        self._reader = PlaneReader()
        self._reformatter = VideoReformatter()

    def process(self, frame: Frame) -> Iterator[Frame]:
        """Take a frame, give one."""
        info = self._info
        size = frame.width, frame.height
        if (*size, frame.format, frame.color, frame.sar) == (
            info.width,
            info.height,
            info.format,
            info.color,
            info.sar,
        ):
            yield frame
            return
        width, height = fitted(frame, info)
        planes = frame.planes
        if (width, height) != size:
            picture = to_av_frame(planes, frame.format, frame.color.siting)
            picture = self._reformatter.reformat(
                picture, width=width, height=height, interpolation=Interpolation.LANCZOS
            )
            planes = self._reader.read(picture, frame.format)
        if frame.format != info.format or not changes(frame.color, info.color).keys() <= set(INEXACT):
            planes = recoded(planes, frame, info)
        framed = tuple(_framed(plane, i, info, (width, height)) for i, plane in enumerate(planes))
        yield replace(frame, planes=framed, format=info.format, color=info.color, sar=info.sar)

    def flush(self) -> Iterator[Frame]:
        """Nothing is kept back."""
        return iter(())


def fitted(frame: Frame, info: StreamInfo) -> tuple[int, int]:
    """The (columns, rows) that a picture takes of a stream's frame, its shape on the screen kept; even numbers."""
    shape = frame.sar * Fraction(frame.width, frame.height)
    wanted = info.sar * Fraction(info.width, info.height)
    if abs(shape / wanted - 1) <= SAME_SHAPE:
        return info.width, info.height
    if shape < wanted:
        return _even(info.width * shape / wanted), info.height
    return info.width, _even(info.height * wanted / shape)


def recoded(planes: tuple[Array, ...], frame: Frame, info: StreamInfo) -> tuple[Array, ...]:
    """Planes in a stream's format and colour. FFmpeg's scaler is no help: it leaves the matrix of Y'CbCr as it is.

    Args:
        planes: of any size.
        frame: has their format and colour.
        info: of the stream.
    """
    fmt = info.format
    opaque = PixelFormat.of(fmt.family, fmt.bits, fmt.log2_w, fmt.log2_h)
    rgb = to_rgb(planes, frame.format, frame.color)
    made = from_rgb(rgb, opaque, info.color, dither=fmt.bits < frame.format.bits)
    if not fmt.alpha:
        return made
    if frame.format.alpha:
        return (*made, resize_plane(planes[-1], frame.format, 1, fmt))
    return (*made, np.full(made[0].shape, (1 << fmt.bits) - 1, fmt.dtype))


def _even(value: Fraction) -> int:
    return max(2, round(value / 2) * 2)


def _framed(plane: Array, index: int, info: StreamInfo, size: tuple[int, int]) -> Array:
    """A plane in the middle of a black one."""
    rows, columns = info.format.plane_shape(index, info.height, info.width)
    if plane.shape == (rows, columns):
        return plane
    fmt = info.format
    chroma = fmt.family == "yuv" and index in (1, 2)
    # Whole chroma samples from the edge, so that all planes move alike.
    left = (info.width - size[0]) // 2 >> fmt.log2_w << (0 if chroma else fmt.log2_w)
    top = (info.height - size[1]) // 2 >> fmt.log2_h << (0 if chroma else fmt.log2_h)
    black = np.full((rows, columns), _black(info.format, info.color, index), plane.dtype)
    part = black[top : top + plane.shape[0], left : left + plane.shape[1]]
    part[...] = plane[: part.shape[0], : part.shape[1]]
    return black


def _black(fmt: PixelFormat, color: ColorSpec, plane: int) -> int:
    """The code of black; alpha is opaque."""
    offset, scale = levels(fmt, color.range, plane)
    opaque = fmt.alpha and plane == fmt.planes - 1
    return round(offset + scale * opaque)

"""Between FFmpeg's frames and numpy planes.

The only place that knows FFmpeg's memory layouts: padded rows, G-B-R plane order, semi-planar and packed formats.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from videosr.errors import InputError
from videosr.frame import Array, PixelFormat, Siting, on_host

RGB_TO_GBR = (2, 0, 1)
"""Index into (G, B, R[, A]) of R, G, B: FFmpeg stores planar RGB as G, B, R."""


@lru_cache
def planar_format(name: str, *, opaque: bool = False) -> PixelFormat:
    """The planar format that holds every sample of an FFmpeg pixel format unchanged.

    Args:
        name: FFmpeg's name, of any layout (`nv12`, `yuvj420p`, `p010le`, `bgra`, `pal8`, `yuv420p10be`, ...).
        opaque: take a palette as colours without alpha.

    Raises:
        InputError: no planar form exists in videosr (floating point, Bayer, ...).
    """
    plain = name.removesuffix("be") + "le" if name.endswith("be") else name
    if plain.startswith("yuvj"):
        plain = "yuv" + plain.removeprefix("yuvj")
    try:
        return PixelFormat.parse(plain)
    except InputError:
        pass
    fmt = av.VideoFormat(name, 64, 64)
    if fmt.is_bayer or "f16" in name or "f32" in name or name.startswith("xyz"):
        raise InputError(f"pixel format {name} has no planar integer form; convert the input with FFmpeg first")
    if fmt.has_palette:
        return PixelFormat.of("rgb", 8, alpha=not opaque)
    components = fmt.components
    has_alpha = any(c.is_alpha for c in components) and not name.startswith(("vuyx", "xv"))
    colours = len(components) - has_alpha
    bits = max(8, max(c.bits for c in components))
    if fmt.is_rgb:
        return PixelFormat.of("rgb", bits, alpha=has_alpha)
    if colours == 1:
        # Grey with alpha has no planar form of its own; as R = G = B nothing is lost.
        return PixelFormat.of("rgb", bits, alpha=True) if has_alpha else PixelFormat.of("gray", bits)
    log2_w = (64 // fmt.chroma_width(64)).bit_length() - 1
    log2_h = (64 // fmt.chroma_height(64)).bit_length() - 1
    return PixelFormat.of("yuv", bits, log2_w, log2_h, has_alpha)


class PlaneReader:
    """Copies the planes of decoded frames into numpy arrays, repacking other layouts losslessly."""

    def __init__(self) -> None:
        self._reformatter = VideoReformatter()

    def read(self, frame: av.VideoFrame, fmt: PixelFormat) -> tuple[Array, ...]:
        """The frame's planes as C-contiguous arrays that own their memory, RGB as R, G, B.

        Args:
            frame: a frame in system memory.
            fmt: `planar_format` of the frame's format.
        """
        name = frame.format.name
        if name != fmt.name and name.replace("yuvj", "yuv") != fmt.name:
            # Same components on both sides: swscale only moves samples, whatever the matrix and range say.
            frame = self._reformatter.reformat(frame, format=fmt.name, threads=1)
        planes = frame.planes
        order: Sequence[int] = range(fmt.planes)
        if fmt.family == "rgb":
            order = (*RGB_TO_GBR, 3)[: fmt.planes]
        return tuple(_copy_plane(planes[i], fmt) for i in order)


def _rows(plane: av.video.plane.VideoPlane, fmt: PixelFormat) -> Array:
    """A view of a plane's rows, padding included, top row first."""
    samples = np.frombuffer(plane, dtype=fmt.dtype)
    rows = samples.reshape(plane.height, abs(plane.line_size) // fmt.dtype.itemsize)
    return rows[::-1] if plane.line_size < 0 else rows


def _copy_plane(plane: av.video.plane.VideoPlane, fmt: PixelFormat) -> Array:
    return np.ascontiguousarray(_rows(plane, fmt)[:, : plane.width]).copy()


def to_av_frame(planes: Sequence[Array], fmt: PixelFormat, siting: Siting = Siting.UNSPECIFIED) -> av.VideoFrame:
    """An FFmpeg frame with a copy of the planes.

    Args:
        planes: as `videosr.frame.Frame` describes them; brought to the host if need be.
        fmt: their format.
        siting: of the chroma; FFmpeg's scaler moves it where it is not told.
    """
    height, width = planes[0].shape
    frame = av.VideoFrame(width, height, fmt.name)
    frame.chroma_location = int(siting)
    targets = frame.planes
    order: Sequence[int] = range(fmt.planes)
    if fmt.family == "rgb":
        order = (*RGB_TO_GBR, 3)[: fmt.planes]
    for array, i in zip(planes, order, strict=True):
        _rows(targets[i], fmt)[:, : targets[i].width] = on_host(array)
    return frame

"""Which files videosr writes, and what each kind of container can hold."""

from __future__ import annotations

import io
import os
from functools import lru_cache
from pathlib import Path

import av
import av.error

from videosr.errors import UsageError

CONTAINERS = {".mkv": "matroska", ".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".webm": "webm"}
"""FFmpeg's muxer by file suffix."""
IMAGES = {".png": "png", ".jpg": "mjpeg", ".jpeg": "mjpeg", ".webp": "libwebp"}
"""FFmpeg's encoder by suffix of a still image."""
BOOKKEEPING = ("major_brand", "minor_version", "compatible_brands", "encoder")
"""Global metadata that describes the old file rather than its content."""


def container_format(path: str | os.PathLike[str]) -> str:
    """FFmpeg's muxer for an output file, or "image" for a still image, by its suffix.

    Args:
        path: a file name, a suffix such as ".mkv", or a bare extension such as "mkv".

    Raises:
        UsageError: videosr does not write such files.
    """
    name = os.fspath(path).lower()
    suffix = Path(name).suffix or (name if name.startswith(".") else f".{name}")
    if suffix in IMAGES:
        return "image"
    try:
        return CONTAINERS[suffix]
    except KeyError:
        known = ", ".join(s.removeprefix(".") for s in (*CONTAINERS, *IMAGES))
        raise UsageError(f"{os.fspath(path)}: output files end in one of: {known}") from None


@lru_cache
def holds_codec(container: str, codec: str) -> bool:
    """Whether FFmpeg's muxer takes streams of that encoder or codec."""
    out = av.open(io.BytesIO(), "w", format=container)
    try:
        out.add_mux_stream(codec, width=64, height=64)
        out.start_encoding()
    except av.error.InvalidDataError:
        return True  # for want of what the encoder will say of its stream
    except (ValueError, av.error.FFmpegError):
        return False  # MOV refuses some only here: AV1, VP8, VP9
    return True

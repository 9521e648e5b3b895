"""Pictures too large to be taken: refused by what their headers say, before memory is asked for.

A few kilobytes can claim, and even hold, a picture of gigabytes.
"""

from __future__ import annotations

import os
import re

import av
import av.error
import av.logging

from videosr.errors import InputError
from videosr.media.logs import captured
from videosr.media.source import MAX_SIDE, open_input, video_stream

DEFAULT_MAX_PIXELS = 2**26
"""Pixels of a picture that is taken unless more are allowed: 8192x8192, two pictures of 8K video."""
_REFUSED = re.compile(r"Picture size (\d+)x(\d+)")  # libavutil/imgutils.c, av_image_check_size2


def check_size(name: str, width: int, height: int, most: int) -> None:
    """Refuse a picture of more than `most` pixels, or of a side that no encoder takes.

    Raises:
        InputError: it is too large.
    """
    if max(width, height) > MAX_SIDE:
        raise InputError(f"{name}: {width}x{height} is too large; the limit is {MAX_SIDE} pixels a side")
    if width * height > most:
        raise InputError(
            f"{name}: {width}x{height} is too large: {width * height} pixels, the limit is {most} (--max-pixels)"
        )


def check_refused(path: str | os.PathLike[str], index: int, most: int) -> None:
    """Say so if it was its size for which FFmpeg would not decode a video stream; it tells that in its log alone.

    Raises:
        InputError: it was.
    """
    try:
        with captured(av.logging.ERROR, local=False) as logs, open_input(path, most) as container:
            stream = video_stream(container, os.fspath(path), index)
            stream.codec_context.options = {"max_pixels": str(most)}
            for packet in container.demux(stream):
                stream.codec_context.decode(packet)
                break
    except av.error.FFmpegError:
        pass  # what it is about is in the log
    for _, _, message in logs:
        if (size := _REFUSED.search(message)) is not None:
            check_size(os.fspath(path), int(size[1]), int(size[2]), most)

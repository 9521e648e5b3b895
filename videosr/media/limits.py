"""Pictures too large to be taken: refused by what their headers say, before memory is asked for.

A few kilobytes can claim, and even hold, a picture of gigabytes.
"""

from __future__ import annotations

from videosr.errors import InputError

MAX_SIDE = 16384
MAX_PIXELS = 2**28
"""What no option raises."""
DEFAULT_MAX_PIXELS = 2**26
"""Pixels of a picture that is taken unless more are allowed: 8192x8192, two pictures of 8K video."""


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

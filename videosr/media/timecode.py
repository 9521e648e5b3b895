"""Timecode: labels of frames, `HH:MM:SS:FF`, with drop-frame counting (SMPTE ST 12-1)."""

from __future__ import annotations

import re

_LABEL = re.compile(r"(\d\d):(\d\d):(\d\d)([:;.])(\d{2,3})")


def advance(label: str, frames: int, nominal: int) -> str | None:
    """The label so many frames later; None where that cannot be said, the label being none at this rate.

    Args:
        label: FFmpeg's form; a semicolon or full stop before the frames says that drop-frame counting is used.
        frames: not negative.
        nominal: frames a second as they are counted: 30 for 30000/1001.
    """
    match = _LABEL.fullmatch(label.strip())
    if match is None:
        return None
    hours, minutes, seconds, mark, frame = match.groups()
    dropped = 0 if mark == ":" else nominal // 15  # labels left out each minute, but for every tenth
    if nominal < 1 or (dropped and nominal % 30) or (mark != ":" and not dropped):
        return None
    total = 60 * int(hours) + int(minutes)
    number = (60 * total + int(seconds)) * nominal + int(frame) - dropped * (total - total // 10)
    if _label(number, nominal, dropped, mark) != match.group():
        return None
    return _label(number + frames, nominal, dropped, mark)


def _label(number: int, nominal: int, dropped: int, mark: str) -> str:
    """The label of a frame by its number since midnight."""
    tens, rest = divmod(number, 600 * nominal - 9 * dropped)
    skips = max(0, (rest - dropped) // (60 * nominal - dropped))
    number += dropped * (9 * tens + skips)
    seconds, frame = divmod(number, nominal)
    return f"{seconds // 3600 % 24:02}:{seconds // 60 % 60:02}:{seconds % 60:02}{mark}{frame:02}"

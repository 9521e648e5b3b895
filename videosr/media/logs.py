"""What FFmpeg says in its log and nowhere else."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import av.logging


@contextmanager
def captured(level: int, *, local: bool = True) -> Iterator[list[tuple[int, str, str]]]:
    """Collect FFmpeg's log instead of passing it on: (level, who said it, message).

    PyAV tells of a message that comes several times in a row when another one follows, and so in somebody else's log;
    and it leaves repeats out. Neither is so here.

    Args:
        level: the least important one that is wanted, by `av.logging`.
        local: of this thread alone.
    """
    before = av.logging.get_level(), av.logging.get_skip_repeated()
    av.logging.set_level(level)
    av.logging.set_skip_repeated(False)
    try:
        with av.logging.Capture():
            av.logging.log(level, "videosr", "")  # what is still to be told of the messages before
        with av.logging.Capture(local=local) as logs:
            yield logs
    finally:
        av.logging.set_level(before[0])
        av.logging.set_skip_repeated(before[1])

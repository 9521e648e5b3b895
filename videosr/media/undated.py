"""Pictures at the beginning of a file that have no time."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import closing
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import av

LEADING = 16
"""Pictures that are waited for, at most: each is held decoded."""


def times_before(first: int, durations: Sequence[int]) -> list[int]:
    """When pictures begin that last so long, one after the other, until `first`; all in ticks."""
    times = []
    for duration in reversed(durations):
        first -= max(1, duration)
        times.append(first)
    return times[::-1]


def dated(pictures: Generator[av.VideoFrame]) -> Generator[av.VideoFrame]:
    """The same pictures; at most `LEADING` at the beginning that have no time get it from the first one that has.

    FFmpeg gives none to what Matroska shows before 0. Where there are more of them, or all are like that, they stay so.
    """
    waiting: list[av.VideoFrame] = []
    settled = False
    with closing(pictures):
        for picture in pictures:
            if not settled and picture.pts is None and picture.dts is None:
                waiting.append(picture)
                settled = len(waiting) > LEADING
                if not settled:
                    continue
                picture = waiting.pop()
            elif not settled and waiting and picture.pts is not None:
                times = times_before(picture.pts, [one.duration for one in waiting])
                for one, time in zip(waiting, times, strict=True):
                    one.pts = time
            settled = True
            yield from waiting
            waiting.clear()
            yield picture
        yield from waiting

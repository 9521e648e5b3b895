"""A fast first pass: where the segments of a film begin and end, and what their frames are.

The pass decodes the film once and looks for scene cuts, as the upscaler does, so it finds the segments that one process
would make. It notes a checksum of every frame: who decodes a part of the film from somewhere in its middle can tell
whether that gave the frames that decoding from the beginning gives. It does not where groups of pictures refer to
each other, where a picture is refreshed bit by bit, and where an index is wrong.
"""

from __future__ import annotations

import queue
import threading
import zlib
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from videosr.frame import Frame, on_host
from videosr.look import Seen, look_at
from videosr.temporal import HISTORY


class Mark(NamedTuple):
    """What a decoded frame is known by.

    Attributes:
        pts: its presentation time in ticks.
        duration: in ticks.
        crc: CRC-32 of its sample aspect ratio, colour and planes.
    """

    pts: int
    duration: int
    crc: int

    @staticmethod
    def of(frame: Frame) -> Mark:
        """A frame's."""
        crc = zlib.crc32(f"{frame.sar} {frame.color}".encode())
        for plane in frame.planes:
            crc = zlib.crc32(np.ascontiguousarray(on_host(plane)), crc)
        return Mark(frame.pts, frame.duration, crc)


@dataclass(frozen=True, slots=True)
class Piece:
    """A segment to be made.

    Attributes:
        first: the number of its first frame.
        lead: how many of `marks` are of frames before that.
        marks: of those and of its own frames, in order.
    """

    first: int
    lead: int
    marks: tuple[Mark, ...]

    @property
    def frames(self) -> int:
        """How many it has."""
        return len(self.marks) - self.lead


def pieces(frames: Iterable[Frame], closes: Callable[[int, bool], bool]) -> Iterator[Piece]:
    """The segments that consecutive frames fall into.

    Args:
        frames: decoded, from the first one on.
        closes: whether a segment of so many frames closes before the next one, which begins a scene or not.
    """
    before: deque[Mark] = deque(maxlen=HISTORY)
    marks: list[Mark] = []
    first = 0
    seen: Seen | None = None
    for frame in frames:
        seen = look_at(frame, seen)
        if marks and closes(len(marks), seen.cut):
            yield Piece(first, len(before), (*before, *marks))
            first += len(marks)
            before.extend(marks)
            marks = []
        marks.append(Mark.of(frame))
    if marks:
        yield Piece(first, len(before), (*before, *marks))


def ahead[S, T](source: Iterable[S], make: Callable[[Iterator[S]], Iterator[T]], depth: int) -> Generator[T]:
    """What is made of a source, in a thread of its own while earlier items are worked on.

    Args:
        source: is left at the next of its items when this generator is closed, however many go into one that is made.
        make: makes the items.
        depth: how many may wait.

    Raises:
        BaseException: what making them raised.
    """
    ready: queue.Queue[tuple[T] | BaseException | None] = queue.Queue(depth)
    stop = threading.Event()

    def put(item: tuple[T] | BaseException | None) -> bool:
        while not stop.is_set():
            try:
                ready.put(item, timeout=0.1)
            except queue.Full:
                continue
            return True
        return False

    def until_stopped() -> Iterator[S]:
        for one in source:
            if stop.is_set():
                return
            yield one

    def work() -> None:
        try:
            for item in make(until_stopped()):
                if not put((item,)):
                    break
            else:
                put(None)
        except BaseException as exc:  # carried over to the caller's thread, where it is raised
            put(exc)

    thread = threading.Thread(target=work, name="videosr-plan", daemon=True)
    thread.start()
    try:
        while (item := ready.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item[0]
    finally:
        stop.set()
        thread.join()

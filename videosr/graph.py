"""Source, stages, sink: each in a thread of its own, joined by bounded queues.

The first error anywhere stops all of them and is the one raised. Ctrl-C stops them too; whatever cleans up after a
stage runs in its own thread, and `run` returns only when every thread has ended.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from videosr.frame import Frame

_END = None
_POLL = 0.1  # seconds between looks at the stop flag while a queue is full or empty
_STARTING = 1.0  # seconds in which a thread begins


class Stage(Protocol):
    """Something frames pass through."""

    def process(self, frame: Frame) -> Iterable[Frame]:
        """Take a frame, give back any number of finished ones."""

    def flush(self) -> Iterable[Frame]:
        """Give back what is still inside, at the end."""


class Sink(Protocol):
    """Where frames end."""

    def write(self, frame: Frame) -> None:
        """Take a frame."""

    def finish(self) -> None:
        """All frames have come."""


class NullSink:
    """Takes frames and forgets them."""

    def write(self, frame: Frame) -> None:
        """Forget it."""

    def finish(self) -> None:
        """Nothing was kept."""


@dataclass(slots=True)
class Timing:
    """Where a node's time went, in seconds.

    Attributes:
        name: of the node.
        busy: working.
        starved: waiting for input.
        blocked: waiting for room downstream.
        frames: number of frames it put out (of the sink: took).
    """

    name: str
    busy: float = 0.0
    starved: float = 0.0
    blocked: float = 0.0
    frames: int = 0

    def __add__(self, other: Timing) -> Timing:
        """Both runs of a node together."""
        sums = (getattr(self, key) + getattr(other, key) for key in ("busy", "starved", "blocked", "frames"))
        return Timing(self.name, *sums)


class _Stopped(Exception):  # noqa: N818 - not an error: another thread asked to stop
    """The graph is being torn down."""


class Graph:
    """One chain of nodes.

    Args:
        source: yields frames. An iterator of it that can be closed is closed, in the thread that ran it.
        stages: (name, stage) in order.
        sink: where they go.
        depth: frames a queue holds.
        progress: called in the sink's thread after every frame with the number of frames so far.
    """

    def __init__(
        self,
        source: Iterable[Frame],
        stages: Sequence[tuple[str, Stage]],
        sink: Sink,
        *,
        depth: int = 4,
        progress: Callable[[int], None] | None = None,
    ) -> None:
        self._source, self._stages, self._sink, self._progress = source, stages, sink, progress
        self._stop = threading.Event()
        self._error: BaseException | None = None
        self._lock = threading.Lock()
        self._queues: list[queue.Queue[Frame | None]] = [queue.Queue(depth) for _ in range(len(stages) + 1)]
        self.timings = [Timing(name) for name in ("decode", *(name for name, _ in stages), "encode")]

    def run(self) -> None:
        """Run to the end.

        Raises:
            BaseException: the first error of any node, or KeyboardInterrupt.
        """
        jobs = [self._run_source, *(self._stage_job(i) for i in range(len(self._stages))), self._run_sink]
        ended = [threading.Event() for _ in jobs]
        threads = [
            threading.Thread(target=self._guard, args=(job, end), name=f"videosr-{timing.name}", daemon=True)
            for job, end, timing in zip(jobs, ended, self.timings, strict=True)
        ]
        begun = 0
        # Not by `Thread.join`: a signal that arrives in there can make a running thread count as ended (bpo-45274).
        try:
            for thread in threads:
                thread.start()
                begun += 1
            while not ended[-1].wait(_POLL):  # in slices: on some systems a signal reaches Python only between them
                pass
        except BaseException as exc:
            self._fail(exc)
            if begun < len(threads):  # interrupted while one was being started, which may come to run or not
                ended[begun].wait(_STARTING)
        for end, thread in zip(ended[:begun], threads, strict=False):
            end.wait()
            thread.join()
        if self._error is not None:
            raise self._error

    def _fail(self, error: BaseException) -> None:
        with self._lock:
            if self._error is None:
                self._error = error
        self._stop.set()

    def _guard(self, job: Callable[[], None], ended: threading.Event) -> None:
        try:
            job()
        except _Stopped:
            pass
        except BaseException as exc:  # carried over to the caller's thread, where it is raised
            self._fail(exc)
        finally:
            ended.set()

    def _get(self, index: int, timing: Timing) -> Frame | None:
        start = time.perf_counter()
        try:
            while not self._stop.is_set():
                try:
                    return self._queues[index].get(timeout=_POLL)
                except queue.Empty:
                    continue
            raise _Stopped
        finally:
            timing.starved += time.perf_counter() - start

    def _put(self, index: int, frame: Frame | None, timing: Timing) -> None:
        start = time.perf_counter()
        try:
            while not self._stop.is_set():
                try:
                    return self._queues[index].put(frame, timeout=_POLL)
                except queue.Full:
                    continue
            raise _Stopped
        finally:
            timing.blocked += time.perf_counter() - start

    def _forward(self, frames: Iterable[Frame], index: int, timing: Timing) -> None:
        """Put frames into a queue, booking the time their making takes."""
        iterator: Iterator[Frame] = iter(frames)
        try:
            while True:
                start = time.perf_counter()
                frame = next(iterator, _END)
                timing.busy += time.perf_counter() - start
                if frame is _END:
                    return
                timing.frames += 1
                self._put(index, frame, timing)
        finally:
            if isinstance(iterator, Generator):
                iterator.close()

    def _run_source(self) -> None:
        timing = self.timings[0]
        self._forward(self._source, 0, timing)
        self._put(0, _END, timing)

    def _stage_job(self, index: int) -> Callable[[], None]:
        stage, timing = self._stages[index][1], self.timings[index + 1]

        def job() -> None:
            while (frame := self._get(index, timing)) is not _END:
                self._forward(stage.process(frame), index + 1, timing)
            self._forward(stage.flush(), index + 1, timing)
            self._put(index + 1, _END, timing)

        return job

    def _run_sink(self) -> None:
        timing = self.timings[-1]
        while (frame := self._get(len(self._stages), timing)) is not _END:
            start = time.perf_counter()
            self._sink.write(frame)
            timing.busy += time.perf_counter() - start
            timing.frames += 1
            if self._progress is not None:
                self._progress(timing.frames)
        start = time.perf_counter()
        self._sink.finish()
        timing.busy += time.perf_counter() - start

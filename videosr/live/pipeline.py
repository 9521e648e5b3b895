"""From the intake to the outputs: one thread begins on frames, another waits for them and hands them on."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from videosr.frame import Frame, StreamInfo
from videosr.live.fanout import Fanout
from videosr.live.intake import Intake
from videosr.live.ladder import Finish, Ladder
from videosr.live.ledger import Ledger, Reason
from videosr.live.queues import BoundedQueue, Closed
from videosr.machine import cores
from videosr.media.rescale import Rescaler

SMALL_PICTURE = 200_000
"""Pixels up to which an engine gives a frame to one core alone; larger ones it shares out among several."""
SPARE = 0.01
"""Seconds added to what a frame is expected to take, for what its threads may be held up."""


class Estimate:
    """A cautious estimate of how long a frame takes to the outputs: running mean plus twice the mean deviation.

    Args:
        most: seconds that one measurement counts as at most: a hiccup must not stop the stream for long.
    """

    def __init__(self, most: float) -> None:
        self._most = most
        self._mean = self._deviation = 0.0

    def add(self, seconds: float) -> None:
        """One more measurement."""
        seconds = min(seconds, self._most)
        self._deviation += 0.1 * (abs(seconds - self._mean) - self._deviation)
        self._mean += 0.1 * (seconds - self._mean)

    def fade(self) -> None:
        """A frame was dropped because of this estimate: lower it a little, else no frame would ever be tried again."""
        self._mean *= 0.95
        self._deviation *= 0.95

    def forget(self) -> None:
        """Another form of work begins."""
        self._mean = self._deviation = 0.0

    @property
    def seconds(self) -> float:
        """The estimate."""
        return self._mean + 2 * self._deviation


@dataclass(frozen=True, slots=True)
class _UnderWay:
    pts: int
    level: int
    begun: float
    key: bool
    finish: Finish


class Pipeline:
    """Upscales what the intake gives, drops what comes too late, and feeds the fanout.

    Args:
        intake: started by `start`.
        ladder: the forms of work.
        ledger: the account.
        fanout: where frames go.
        info: what every frame is brought to, should the source change.
        under_way: frames to work on at a time, see `frames_at_a_time`.
        tap: is given each frame of the source that is worked on, for whoever wants to compare.
    """

    def __init__(
        self,
        intake: Intake,
        ladder: Ladder,
        ledger: Ledger,
        fanout: Fanout,
        info: StreamInfo,
        under_way: int,
        tap: Callable[[Frame], None] | None = None,
    ) -> None:
        self._intake, self._ladder, self._ledger, self._fanout, self._tap = intake, ladder, ledger, fanout, tap
        self._fit = Rescaler(info)
        most = ledger.budget or 0.0
        self._estimate = Estimate(most)
        self._last_steps = Estimate(most)  # encoding and handing out
        self._computed: BoundedQueue[_UnderWay] = BoundedQueue(under_way)
        # Taken before a frame is, so that whether it is late is judged when work on it can begin and not before.
        self._slots = threading.Semaphore(under_way)
        self._error: BaseException | None = None
        self.ended = threading.Event()
        self._threads = [
            threading.Thread(target=self._guard, args=(job,), name=f"videosr-{name}", daemon=True)
            for name, job in (("upscale", self._upscale), ("deliver", self._deliver))
        ]

    @property
    def depths(self) -> dict[str, int]:
        """Frames in each queue."""
        return {"source": len(self._intake.queue), "computing": len(self._computed)}

    def start(self) -> None:
        """Begin."""
        self._intake.start()
        for thread in self._threads:
            thread.start()

    def finish(self) -> None:
        """Wait for the threads after `ended`, or after the intake's queue has been closed. Raises what they did."""
        for thread in self._threads:
            thread.join()
        self._fanout.release(all_of_it=True)
        if self._error is not None:
            raise self._error

    def abandon(self) -> None:
        """Take no more; what is queued is dropped, what is being computed is delivered."""
        for frame in self._intake.queue.drain():
            if frame is not None:
                self._ledger.drop(frame.pts, Reason.CLOSED)

    def _guard(self, job: Callable[[], None]) -> None:
        try:
            job()
        except BaseException as exc:  # raised again by `finish`, in the caller's thread
            if self._error is None:
                self._error = exc
        finally:
            self._computed.close()
            self._intake.queue.close()

    def _upscale(self) -> None:
        key = slot = False
        queue = self._intake.queue
        try:
            while True:
                if not slot:
                    slot = self._slots.acquire()
                frame = queue.get()
                if frame is None:
                    self._ladder.rest()
                    key = True
                    continue
                if self._tap is not None:
                    self._tap(frame)
                self._ladder.decide()
                if self._ledger.late(frame.pts, self._estimate.seconds + SPARE):
                    self._ledger.drop(frame.pts, Reason.LATE)
                    self._estimate.fade()
                    self._ladder.frame(lost=True)
                    continue
                begun, level = self._ledger.now(), self._ladder.level
                work = _UnderWay(frame.pts, level, begun, key, self._ladder.rung.start(frame))
                key = slot = False
                try:
                    self._computed.put(work)
                except Closed:
                    self._forsake(work)
                    raise
        except Closed:
            pass
        finally:
            self.abandon()

    def _deliver(self) -> None:
        level, key = 0, False
        try:
            while True:
                work = self._computed.get()
                if work is None:
                    continue
                try:
                    frame = work.finish()
                except BaseException:
                    self._ledger.drop(work.pts, Reason.CLOSED)
                    raise
                self._slots.release()
                key = key or work.key
                if self._ledger.late(work.pts, self._last_steps.seconds):
                    self._ledger.drop(work.pts, Reason.LATE)
                    self._last_steps.fade()
                    self._ladder.frame(lost=True)
                else:
                    done = self._ledger.now()
                    arrival = self._ledger.deliver(work.pts)
                    self._fanout.frame(self._fit.rescale(frame), arrival, key=key)
                    key = False
                    self._ledger.latency.add(self._ledger.now() - arrival)
                    self._last_steps.add(self._ledger.now() - done)
                    self._ladder.frame(lost=False)
                if work.level != level:
                    level = work.level
                    self._estimate.forget()
                self._estimate.add(self._ledger.now() - work.begun)
        except Closed:
            pass
        finally:
            for left in self._computed.drain():
                self._forsake(left)
            self._slots.release()  # whoever waits for one is to find that all is over
            self.ended.set()

    def _forsake(self, work: _UnderWay) -> None:
        """Drop a frame under way, and wait for its end."""
        self._ledger.drop(work.pts, Reason.CLOSED)
        with suppress(Exception):  # what fails here fails after what made it end, which is what is reported
            work.finish()


def frames_at_a_time(info: StreamInfo, threads: int | None) -> int:
    """How many frames keep all cores busy; more would only wait inside the engine, and be late.

    Args:
        info: of the source.
        threads: of the engine; None: all that this process may use.
    """
    return max(2, math.ceil((threads or cores()) / max(1, round(info.width * info.height / SMALL_PICTURE))))

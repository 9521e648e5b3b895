"""Reading the source: pacing, reconnecting, placing on the timeline, and a bounded queue of frames behind it."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction

from videosr.errors import InputError
from videosr.frame import Frame
from videosr.live.ledger import Ledger, Reason
from videosr.live.outputs import BACKOFF
from videosr.live.queues import BoundedQueue, Closed
from videosr.live.timeline import TICKS, TIME_BASE, Timeline
from videosr.media.live_codec import Coded, LiveAudio
from videosr.media.live_input import InputLost, LiveInput, Picture, Sound, SourceSpec

WAITING = 4
"""Frames in the queue of a source that can wait."""
MOST = 32
"""Frames in any queue, whatever the budget."""
LONGEST_PAUSE = 1.0
"""Seconds by which a paced source's times may leap before pacing begins anew there."""


LARGEST_LAG = 0.2
"""Seconds by which packets may come behind their time before that is taken as their time: no burst makes up for it."""


class Pace:
    """Holds packets back until their time, as a player would.

    Args:
        stop: ends all waiting.
    """

    def __init__(self, stop: threading.Event) -> None:
        self._stop = stop
        self._zero: float | None = None
        self._last = 0.0

    def restart(self) -> None:
        """The next packet is due at once."""
        self._zero = None

    def wait(self, seconds: float) -> None:
        """Wait until a packet of this time is due."""
        now = time.monotonic()
        if self._zero is None or not -LONGEST_PAUSE < seconds - self._last < LONGEST_PAUSE:
            self._zero = now - seconds
        self._last = seconds
        due = self._zero + seconds
        if due > now:
            self._stop.wait(due - now)
        elif now - due > LARGEST_LAG:
            self._zero += now - due


class Intake:
    """Reads the source in a thread of its own.

    Args:
        spec: the source.
        first: a connection to it, already open.
        pace: holds packets back; None takes them as they come.
        ledger: is told of every frame.
        sound: called with each audio packet, ready to be muxed.
        audio: turns the source's audio packets into those; None: there is no audio.
        say: is told of losses and returns.
        stop: ends it.

    Attributes:
        queue: frames, their pts on the output timeline; None where the source was interrupted.
        losses: times the source was lost.
        damaged: packets that could not be decoded.
        connected: whether there is a source at the moment.
        error: why it ended, if not by the source's own end.
    """

    def __init__(
        self,
        spec: SourceSpec,
        first: LiveInput,
        *,
        pace: Pace | None,
        ledger: Ledger,
        sound: Callable[[Coded], None],
        audio: LiveAudio | None,
        say: Callable[[str], None],
        stop: threading.Event,
    ) -> None:
        self._spec, self._input, self._pace = spec, first, pace
        self._ledger, self._sound, self._audio, self._say, self._stop = ledger, sound, audio, say, stop
        self._timeline = Timeline()
        rate = first.info.rate or Fraction(25)
        self.losses = self.damaged = 0
        self.connected = True
        self.error: InputError | None = None
        if ledger.budget is None:
            self.queue: BoundedQueue[Frame | None] = BoundedQueue(WAITING)
        else:
            size = min(MOST, max(2, math.ceil(ledger.budget * rate)))
            self.queue = BoundedQueue(size, self._spill)
        self._tick = round(TICKS / rate)
        self._thread = threading.Thread(target=self._run, name="videosr-read", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._set_pace()
        self._thread.start()

    def _set_pace(self) -> None:
        if self._pace is not None:
            self._pace.restart()
            self._input.wait = self._pace.wait

    def join(self, seconds: float) -> None:
        """Wait for the thread, which a silent source may hold up."""
        self._thread.join(seconds)

    @property
    def leaps(self) -> int:
        """Times the source's clock leapt or wrapped."""
        return self._timeline.leaps

    def _spill(self, frame: Frame | None) -> None:
        if frame is not None:
            self._ledger.drop(frame.pts, Reason.FULL)

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                try:
                    self._read()
                    return
                except InputLost as exc:
                    if not self._input.live:
                        self._say(f"{exc}; taken as its end")
                        return
                    self._say(f"source lost: {exc}; connecting again")
                self.losses += 1
                self.connected = False
                self.queue.put(None)
                self._input.close()
                if not self._reconnect():
                    return
                self.connected = True
                self._say(f"{self._spec.url}: source is back")
        except Closed:
            pass
        except InputError as exc:
            self.error = exc
        finally:
            self.connected = False
            self.queue.close()

    def _reconnect(self) -> bool:
        attempt = 0
        while not self._stop.wait(BACKOFF[min(attempt, len(BACKOFF) - 1)]):
            attempt += 1
            try:
                self._input = LiveInput(self._spec)
            except InputError:
                continue  # a source half back may be anything; only time tells
            self._timeline.restart()
            self._set_pace()
            if self._audio is not None and self._input.audio is not None:
                self._audio.attach(self._input.audio)
            return True
        return False

    def _read(self) -> None:
        for event in self._input:
            if self._stop.is_set():
                return
            if isinstance(event, Picture):
                self._take(event)
            elif self._audio is not None:
                self._hear(self._audio, event)
        self.damaged += self._input.damaged

    def _take(self, picture: Picture) -> None:
        frame = picture.frame
        ticks = round(frame.pts * frame.time_base / TIME_BASE)
        duration = round(frame.duration * frame.time_base / TIME_BASE) or self._tick
        pts = self._timeline.place("video", ticks, duration)
        self._ledger.take(pts, picture.arrival)
        try:
            self.queue.put(replace(frame, pts=pts, duration=duration, time_base=TIME_BASE))
        except Closed:
            self._ledger.drop(pts, Reason.CLOSED)
            raise

    def _hear(self, audio: LiveAudio, sound: Sound) -> None:
        packet = sound.packet
        base = Fraction(packet.time_base.num, packet.time_base.den)
        ticks = round((packet.pts or 0) * base / TIME_BASE)
        duration = round((packet.duration or 0) * base / TIME_BASE)
        for coded in audio.feed(packet, self._timeline.place("audio", ticks, duration), sound.arrival):
            self._sound(coded)

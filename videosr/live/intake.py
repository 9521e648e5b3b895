"""Reading the source: pacing, reconnecting, placing on the timeline, and a bounded queue of frames behind it."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction

from videosr.errors import InputError, UsageError
from videosr.frame import Frame
from videosr.live.ledger import Ledger, Reason
from videosr.live.outputs import BACKOFF
from videosr.live.queues import BoundedQueue, Closed
from videosr.live.timeline import FORWARD, TICKS, TIME_BASE, Timeline
from videosr.media.captions import captions_of
from videosr.media.live.codec import Coded, LiveAudio
from videosr.media.live.input import LiveInput, Picture, Sound
from videosr.media.live.source import InputLost, SourceSpec

WAITING = 4
"""Frames in the queue of a source that can wait."""
MOST = 32
"""Frames in any queue, whatever the budget."""
LONGEST_PAUSE = FORWARD / TICKS
"""Seconds that a packet is held back at most; one that is due later belongs to a new clock, as in `Timeline`."""
LARGEST_LAG = 0.2
"""Seconds by which pictures may come behind their time before that is taken as their time: no burst makes up for it."""
SOUND_AHEAD = 5.0
"""Seconds by which sound may come before its time: in files it often lies that far before its pictures."""


class Pace:
    """Holds packets back until their time, as a player would.

    The pictures set the pace. Where sound lies behind them in the file it is late and passes; where it lies ahead of
    them it passes too, for to hold it back would hold them back behind it, and let them come in a burst.

    Args:
        stop: ends all waiting.
        now: a clock in seconds.
    """

    def __init__(self, stop: threading.Event, now: Callable[[], float] = time.monotonic) -> None:
        self._stop, self._now = stop, now
        self._zero: float | None = None

    def restart(self) -> None:
        """The next packet is due at once."""
        self._zero = None

    def wait(self, seconds: float, video: bool) -> float:
        """Wait until a packet may pass.

        Args:
            seconds: its time on the source's clock.
            video: it is of the pictures.

        Returns:
            When it counts as come, on the monotonic clock: for sound ahead of its time, when it is due.
        """
        now = self._now()
        if self._zero is None:
            self._zero = now - seconds
        early = self._zero + seconds - now - (0 if video else SOUND_AHEAD)
        if early > LONGEST_PAUSE or (video and early < -LARGEST_LAG):
            self._zero = now - seconds
        elif early > 0:
            self._stop.wait(early)
        now = self._now()
        return now if video else max(now, self._zero + seconds)


class Intake:
    """Reads the source in a thread of its own.

    Args:
        spec: the source.
        first: a connection to it, already open.
        pace: holds packets back; None takes them as they come.
        ledger: is told of every frame.
        sound: called with each audio packet, ready to be muxed.
        captions: called with the pts and the captions of each frame that has some.
        date: called when the source is back, with the pts of its first picture and the time of day, in seconds since
            1970, at which pts 0 would have been by its coming.
        audio: turns the source's audio packets into those; None: there is no audio.
        say: is told of losses and returns.
        stop: ends it.

    Attributes:
        queue: frames, their pts on the output timeline; None where the source was interrupted.
        losses: times the source was lost.
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
        captions: Callable[[int, bytes], None],
        date: Callable[[int, float], None],
        audio: LiveAudio | None,
        say: Callable[[str], None],
        stop: threading.Event,
    ) -> None:
        self._spec, self._input, self._pace = spec, first, pace
        self._ledger, self._sound, self._captions, self._date = ledger, sound, captions, date
        self._audio, self._say, self._stop = audio, say, stop
        self._timeline = Timeline()
        rate = first.info.rate or Fraction(25)
        self.losses = self._damaged_before = 0
        self.connected = True
        self._undated = False
        self.error: BaseException | None = None
        if ledger.budget is None:
            self.queue: BoundedQueue[Frame | None] = BoundedQueue(WAITING)
        else:
            size = min(MOST, max(2, math.ceil(ledger.budget * rate)))
            self.queue = BoundedQueue(size, self._spill)
        self._tick = round(TICKS / rate)
        self._noted: set[str] = set()
        self._tell()
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
    def damaged(self) -> int:
        """Packets of the pictures that could not be decoded."""
        return self._damaged_before + self._input.damaged

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
                        if self._spec.remote:
                            raise InputError(f"{exc}, before its end; get the file first, and serve that") from exc
                        self._say(f"{exc}; taken as its end")
                        return
                    self._say(f"source lost: {exc}; connecting again")
                self.losses += 1
                self.connected = False
                self.queue.put(None)
                self._damaged_before = self.damaged
                self._input.damaged = 0
                self._input.close()
                if not self._reconnect():
                    return
                self.connected = True
                self._say(f"{self._spec.shown}: source is back")
        except Closed:
            pass
        except BaseException as exc:  # raised again by `Server.run`, in the caller's thread
            self.error = exc
        finally:
            self.connected = False
            self.queue.close()

    def _reconnect(self) -> bool:
        attempt = 0
        while not self._stop.wait(BACKOFF[min(attempt, len(BACKOFF) - 1)]):
            attempt += 1
            try:
                again = LiveInput(self._spec)
            except (InputError, UsageError):
                continue  # a source half back may be anything; only time tells
            if again.repeats(self._input):
                again.close()
                continue  # its playlist stands still
            self._input = again
            self._timeline.restart()
            self._undated = True
            self._set_pace()
            if self._audio is not None and self._input.audio is not None:
                self._audio.attach(self._input.audio)
            return True
        return False

    def _tell(self) -> None:
        """Say what the source has noted, each line once: much of it is the same after a reconnection."""
        while self._input.notes:
            line = self._input.notes.pop(0)
            if line not in self._noted:
                self._noted.add(line)
                self._say(line)

    def _read(self) -> None:
        for event in self._input:
            if self._stop.is_set():
                return
            self._tell()
            if isinstance(event, Picture):
                self._take(event)
            elif self._audio is not None:
                self._hear(self._audio, event)

    def _take(self, picture: Picture) -> None:
        frame = picture.frame
        ticks = round(frame.pts * frame.time_base / TIME_BASE)
        duration = round(frame.duration * frame.time_base / TIME_BASE) or self._tick
        pts = self._timeline.place("video", ticks, duration)
        if self._undated:
            self._undated = False
            self._date(pts, time.time() - (time.monotonic() - picture.arrival) - pts / TICKS)
        self._ledger.take(pts, picture.arrival)
        if triplets := captions_of(frame):
            self._captions(pts, triplets)
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

"""The end of the line: waits for computed frames, encodes them once, and hands them to every output."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Sequence

from videosr.frame import Frame
from videosr.live.outputs import Output, Raw
from videosr.live.timeline import TICKS
from videosr.media.live.codec import Coded, LiveEncoder

HELD_SOUND = 1024
"""Audio packets that may wait for their picture."""


class Fanout:
    """Gives every output every frame, and the sound that goes with it.

    Sound is not delayed by the network, so it waits here for the pictures that it belongs to, or for as long as the
    budget allows, and goes out beside them.

    Args:
        outputs: where to.
        encoder: for those that take coded video; None if none does.
        patience: seconds sound waits for its picture.
    """

    def __init__(self, outputs: Sequence[Output], encoder: LiveEncoder | None, patience: float) -> None:
        self._outputs = outputs
        self._encoder, self._patience = encoder, patience
        self._lock = threading.Lock()
        self._sound: deque[Coded] = deque(maxlen=HELD_SOUND)
        self._shown = 0  # end of the last picture

    def frame(self, frame: Frame, arrival: float, *, key: bool) -> None:
        """Encode and hand out one frame. Raises OutputError."""
        self._reach(frame.pts)  # after a pause, what was heard meanwhile goes before the picture that ends it
        for output in self._outputs:
            if output.raw:
                output.put(Raw(frame, arrival))
        if self._encoder is not None:
            packets = self._encoder.encode(frame, arrival, key=key)
            for coded in packets:
                self._hand_out(coded)
        self._reach(frame.pts + frame.duration)

    def _reach(self, pts: int) -> None:
        with self._lock:
            self._shown = pts
        self.release()

    def sound(self, coded: Coded) -> None:
        """Take an audio packet; called by the thread that reads."""
        with self._lock:
            self._sound.append(coded)
        self.release()

    def captions(self, pts: int, triplets: bytes) -> None:
        """Take a frame's captions; called by the thread that reads. They outlive the frame, should it be dropped."""
        if self._encoder is not None:
            self._encoder.caption(pts, triplets)

    def release(self, *, all_of_it: bool = False) -> None:
        """Hand out the sound whose time has come."""
        now = time.monotonic()
        with self._lock:
            ready: list[Coded] = []
            while self._sound and (
                all_of_it
                or self._sound[0].pts <= self._shown + TICKS // 50
                or now - self._sound[0].arrival >= self._patience
            ):
                ready.append(self._sound.popleft())
            # Under the lock, so that two threads cannot put them into another order.
            for coded in ready:
                self._hand_out(coded)

    def _hand_out(self, coded: Coded) -> None:
        for output in self._outputs:
            if not output.raw or not coded.video:
                output.put(coded)

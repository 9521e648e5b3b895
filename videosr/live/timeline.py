"""One output timeline that never goes back, whatever the source's clock does.

Sources wrap (MPEG-TS counts 33 bits of 90 kHz: 26.5 hours), start anew after a reconnection, or jump. Output times are
ticks of 90 kHz in integers without bound; a muxer that counts 33 bits cuts them itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

TICKS = 90_000
"""Ticks a second of the output timeline."""
TIME_BASE = Fraction(1, TICKS)
WRAP = 2**33
"""Ticks after which MPEG-TS timestamps begin anew (ISO/IEC 13818-1, 2.4.3.7)."""
FORWARD = 10 * TICKS
"""A source whose times leap further than this has begun a new clock; a smaller gap is a gap and stays."""
BACKWARD = 1 * TICKS
"""The same for leaps back; smaller ones are disorder."""


@dataclass(slots=True)
class _Lane:
    offset: int = 0
    last: int = -1  # output ticks
    reached: int = -1  # the same where nothing would be moved
    fresh: bool = True  # nothing yet since the source (re)started


class Timeline:
    """Places the packets and frames of a source's streams on the output timeline.

    All streams share one offset, so that they stay in sync; where the clock leaps, the first stream to do so finds the
    new offset and the others follow it when their own leap comes.
    """

    def __init__(self) -> None:
        self._lanes: dict[str, _Lane] = {}
        self._offset: int | None = None
        self._end = 0
        self.leaps = 0
        """Times the source's clock leapt or wrapped."""

    def restart(self) -> None:
        """The source is about to begin anew, with a clock of its own: it continues where the timeline ends."""
        self._offset = None
        for lane in self._lanes.values():
            lane.fresh = True

    def place(self, stream: str, ticks: int, duration: int) -> int:
        """The output time of something at `ticks` of the source's clock.

        Args:
            stream: any name; times of one stream come in increasing order but for small disorder.
            ticks: source time in 1/90000 s.
            duration: in the same unit; 0 where unknown.

        Returns:
            Ticks, later than any given for this stream before: what lies further back is moved.
        """
        lane = self._lanes.setdefault(stream, _Lane())
        if self._offset is None:
            self._offset = self._end - ticks
        if lane.fresh:
            lane.offset, lane.fresh = self._offset, False
            before = self._end
            lane.reached = ticks + lane.offset  # it may lie far from the others in the file
            joins = abs(lane.reached - before) <= FORWARD
        else:
            before = lane.last
            # Or the stream has paused, while others went on by the same clock to where it comes back.
            out = ticks + lane.offset
            joins = self._joins(out, lane.reached) or (
                lane.offset == self._offset and out > lane.reached and abs(out - self._end) <= FORWARD
            )
        if not joins:
            lane.offset = self._leap(ticks, before)
            lane.reached = ticks + lane.offset
        lane.reached = max(lane.reached, ticks + lane.offset)
        out = max(ticks + lane.offset, lane.last + 1)
        lane.last = out
        self._end = max(self._end, out + max(duration, 1))
        return out

    @staticmethod
    def _joins(out: int, last: int) -> bool:
        return -BACKWARD <= out - last <= FORWARD

    def _leap(self, ticks: int, last: int) -> int:
        """The offset that continues a stream whose last output time was `last`."""
        assert self._offset is not None
        self.leaps += 1
        turns = round((last - ticks - self._offset) / WRAP)
        for offset in (self._offset, self._offset + turns * WRAP):
            if self._joins(ticks + offset, last):
                self._offset = offset
                return offset
        self._offset = self._end - ticks
        return self._offset

"""HLS: MPEG-TS chunks to segments and a playlist (RFC 8216), in memory."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from fractions import Fraction

from videosr.live.timeline import TICKS

LISTED = 6
"""Segments in the playlist."""
KEPT = 2 * LISTED + 2
"""Segments that can still be fetched: each for its own length and that of a playlist after the last one that lists it
(RFC 8216, 6.2.2), and one to spare, as lengths differ."""
SHORTEST = 9 * TICKS // 10
"""What a segment has at least, in 1/90000 s; keyframes come every second."""
BEYOND = 49 * TICKS // 100
"""What a segment may have beyond the target duration, in 1/90000 s: lengths count as rounded (RFC 8216, 4.3.3.1)."""


def target_duration(rate: Fraction | None) -> int:
    """Seconds that segments stay within while pictures come: a keyframe is the first a second after the one before.

    Args:
        rate: pictures a second, None where not known.
    """
    return max(1, math.ceil(1 + (1 / rate if rate else 0) - Fraction(BEYOND, TICKS)))


@dataclass(frozen=True, slots=True)
class Chunk:
    """Some transport packets.

    Attributes:
        data: whole ones.
        key: a video keyframe begins here, tables before it.
        pts: of that keyframe, or else of the packet they come from, in 1/90000 s.
    """

    data: bytes
    key: bool
    pts: int


@dataclass(frozen=True, slots=True)
class Segment:
    """A finished segment.

    Attributes:
        number: its media sequence number.
        data: MPEG-TS, beginning with a keyframe unless none came in time.
        seconds: its length.
        began: seconds since 1970 of what it begins with.
        leaps: its times do not go on from those of the segment before it.
        leaps_before: how many segments before it did so.
    """

    number: int
    data: bytes
    seconds: float
    began: float
    leaps: bool
    leaps_before: int


class Segmenter:
    """Cuts a stream of chunks at keyframes; where none comes in time, elsewhere.

    Players take their distance from the live edge from the target duration, and a playlist's must not change (RFC 8216,
    6.2.1). So where pictures stay away, the sound is cut without them, and where nothing comes at all, the times leap
    from one segment to the next, and the playlist says so.

    Args:
        epoch: seconds since 1970 at pts 0.
        target: the target duration in seconds.
        whole: list all segments from the first on, and keep none of their data.
    """

    def __init__(self, epoch: float = 0.0, target: int = 1, *, whole: bool = False) -> None:
        self._epoch, self._target, self.whole = epoch, target, whole
        self._longest = target * TICKS + BEYOND
        self._open: list[bytes] = []
        self._start: int | None = None
        self._began = 0.0
        self._last = 0
        self._number = self._leaps_before = 0
        self._leaps = False
        self._dates: deque[tuple[int, float]] = deque()
        self.segments: deque[Segment] = deque(maxlen=None if whole else KEPT)

    def date(self, pts: int, epoch: float) -> None:
        """Say that what comes from some pts on was taken later than by the clock so far, as the source was away.

        Any one thread may call this, before it gives the chunks on. A segment begins at the first keyframe there, whose
        date tells of the gap; dates never go back.

        Args:
            pts: from which on.
            epoch: seconds since 1970 at pts 0, by the new clock.
        """
        self._dates.append((pts, epoch))

    def add(self, chunk: Chunk) -> Segment | None:
        """Take a chunk; the segment it completes."""
        returned = chunk.key and self._catch_up(chunk.pts)
        if self._start is None:
            if not chunk.key:
                return None
            self._begin(chunk.pts)
        assert self._start is not None
        done = None
        # Without a keyframe a little earlier, so that the next chunk of a stream that flows is not too late.
        enough = SHORTEST if chunk.key else self._longest - TICKS // 10
        if chunk.pts - self._start >= enough or (returned and self._open):
            done = self._close(chunk.pts)
            self._leaps = chunk.pts > self._start + self._longest
            self._begin(chunk.pts)
        self._last = max(self._last, chunk.pts)
        self._open.append(chunk.data)
        return done

    def _catch_up(self, pts: int) -> bool:
        """Take over what `date` said up to these pts; whether there was something."""
        returned = False
        while self._dates and pts >= self._dates[0][0]:
            self._epoch = max(self._epoch, self._dates.popleft()[1])
            returned = True
        return returned

    def _begin(self, pts: int) -> None:
        self._start, self._began = pts, self._epoch + pts / TICKS

    def finish(self, until: int = 0) -> Segment | None:
        """Nothing more is coming: the last segment, if there is something in it.

        Args:
            until: pts at which the last packet ends.
        """
        return self._close(max(self._last, until, self._start + 1)) if self._start is not None else None

    def _close(self, end: int) -> Segment:
        assert self._start is not None
        seconds = min(end - self._start, self._longest) / TICKS
        data = b"".join(self._open)
        segment = Segment(self._number, data, seconds, self._began, self._leaps, self._leaps_before)
        self._number += 1
        self._leaps_before += self._leaps
        self._open.clear()
        self.segments.append(replace(segment, data=b"") if self.whole else segment)
        return segment

    def find(self, number: int) -> Segment | None:
        """The segment of that number, if it is still there."""
        return next((s for s in self.segments if s.number == number), None)

    def playlist(self, name: str = "{}.ts", *, ended: bool = False) -> str:
        """The media playlist.

        Args:
            name: of a segment as a URL, "{}" where its number goes.
            ended: nothing more is coming.
        """
        listed = list(self.segments)[0 if self.whole else -LISTED :]
        lines = [
            "#EXTM3U",
            "#EXT-X-VERSION:3",
            f"#EXT-X-TARGETDURATION:{self._target}",
            f"#EXT-X-MEDIA-SEQUENCE:{listed[0].number if listed else self._number}",
            f"#EXT-X-DISCONTINUITY-SEQUENCE:{listed[0].leaps_before if listed else self._leaps_before}",
        ]
        if self.whole:
            lines.append("#EXT-X-PLAYLIST-TYPE:EVENT")
        for segment in listed:
            if segment.leaps:
                lines.append("#EXT-X-DISCONTINUITY")
            moment = datetime.fromtimestamp(segment.began, UTC)
            lines.append(f"#EXT-X-PROGRAM-DATE-TIME:{moment.isoformat(timespec='milliseconds')}")
            lines.append(f"#EXTINF:{segment.seconds:.6f},")
            lines.append(name.replace("{}", str(segment.number)))
        if ended:
            lines.append("#EXT-X-ENDLIST")
        return "\n".join(lines) + "\n"

"""HLS: MPEG-TS chunks to segments and a playlist (RFC 8216), in memory."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from datetime import UTC, datetime

from videosr.live.timeline import TICKS

LISTED = 6
"""Segments in the playlist."""
KEPT = 12
"""Segments that can still be fetched: a client may be reading an older playlist."""


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
        data: MPEG-TS, beginning with a keyframe.
        seconds: its length.
        start: pts of its first keyframe.
    """

    number: int
    data: bytes
    seconds: float
    start: int


class Segmenter:
    """Cuts a stream of chunks at keyframes.

    Args:
        epoch: seconds since 1970 at pts 0.
        target: seconds a segment has at least.
    """

    def __init__(self, epoch: float, target: float = 0.9) -> None:
        self._epoch, self._target = epoch, target
        self._open: list[bytes] = []
        self._start: int | None = None
        self._last = 0
        self._number = 0
        self._longest = 1
        self.segments: deque[Segment] = deque(maxlen=KEPT)

    def add(self, chunk: Chunk) -> Segment | None:
        """Take a chunk; the segment it completes."""
        done = None
        self._last = max(self._last, chunk.pts)
        if chunk.key:
            if self._start is not None and chunk.pts - self._start >= self._target * TICKS:
                done = self._close(chunk.pts)
            if self._start is None:
                self._start = chunk.pts
        if self._start is not None:
            self._open.append(chunk.data)
        return done

    def finish(self) -> Segment | None:
        """Nothing more is coming: the last segment, if there is something in it."""
        return self._close(max(self._last, self._start + 1)) if self._start is not None else None

    def _close(self, end: int) -> Segment:
        assert self._start is not None
        seconds = (end - self._start) / TICKS
        segment = Segment(self._number, b"".join(self._open), seconds, self._start)
        self._longest = max(self._longest, math.ceil(seconds))
        self._number += 1
        self._open.clear()
        self._start = None
        self.segments.append(segment)
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
        listed = list(self.segments)[-LISTED:]
        lines = [
            "#EXTM3U",
            "#EXT-X-VERSION:3",
            f"#EXT-X-TARGETDURATION:{self._longest}",
            f"#EXT-X-MEDIA-SEQUENCE:{listed[0].number if listed else self._number}",
        ]
        for segment in listed:
            moment = datetime.fromtimestamp(self._epoch + segment.start / TICKS, UTC)
            lines.append(f"#EXT-X-PROGRAM-DATE-TIME:{moment.isoformat(timespec='milliseconds')}")
            lines.append(f"#EXTINF:{segment.seconds:.6f},")
            lines.append(name.replace("{}", str(segment.number)))
        if ended:
            lines.append("#EXT-X-ENDLIST")
        return "\n".join(lines) + "\n"

"""The times of a file as one time line, also where its clock leaps.

MPEG transport and program streams are joined by appending one to the other: titles of a DVD, recordings, programmes
with other material cut into them. Every part has a clock of its own then. FFmpeg's command closes such leaps
(`ts_discontinuity_detect` in fftools/ffmpeg_demux.c), its libraries do not. Here, as there, a decoding time that goes
back, or far ahead, begins a new part. A part begins where no track of it overlaps the one before it.

It is packets that are moved, and each by the byte at which it lies. So all who read a file, whatever of it and from
wherever on, find the same times.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import av
import av.error
from av.stream import Stream

from videosr.media.source import open_input

if TYPE_CHECKING:
    type Packet = av.Packet[Stream]

    from av.container import InputContainer

FORMATS = frozenset({"mpegts", "mpeg"})
"""FFmpeg's demuxers of files that are joined so."""
TICKS = 90_000
"""Ticks a second of both (ISO/IEC 13818-1, 2.4.3.7)."""
WRAP = 2**33
"""Ticks after which they begin anew."""
FORWARD = 10 * TICKS
"""`dts_delta_threshold` of FFmpeg: what leaps further has begun a new part; a smaller gap is a gap and stays."""
BACKWARD = TICKS // 10
"""FFmpeg's limit for leaps back."""
AHEAD = 16 << 20
"""Bytes behind a leap by which every track has begun anew; multiplexers part tracks by a second or two."""
APART = 10 * TICKS
"""Ticks between the places that are kept to seek to."""
KEPT = 16
"""Files whose clocks are remembered."""


class Leap(NamedTuple):
    """Where a part begins whose clock is another one.

    Attributes:
        time: seconds, on the one line.
        by: seconds by which the clock leaps.
    """

    time: Fraction
    by: Fraction


@dataclass(slots=True)
class _Track:
    """What was last seen of a stream, in ticks of the file."""

    part: int
    decoded: int
    end: int  # of the latest picture or sound
    starts: list[int]  # bytes at which parts begin
    parts: list[int]  # which ones


@dataclass(slots=True)
class _Entry:
    """A stream's way from one part into the next, in ticks of the file."""

    before: int
    end: int
    begin: int


@dataclass(slots=True)
class _Part:
    """A stretch of the file with one clock."""

    found: int  # byte up to which the file was read when its first packet came
    now: int = -(2**62)  # latest decoding time of any stream
    entries: dict[int, _Entry] = field(default_factory=dict)
    offset: int | None = None  # ticks to add, once they are known


class Clock:
    """The times of one file. It reads the file by itself, some way ahead of whoever asks. To be closed.

    Args:
        name: of the file; None: its times are as they should be.
        key: under which it is remembered once the file was read to its end.

    Attributes:
        leaps: that were met up to now.
    """

    def __init__(self, name: str | None = None, key: tuple[str, int, int] | None = None) -> None:
        self.leaps: list[Leap] = []
        self._name, self._key = name, key
        self._container: InputContainer | None = None
        self._packets: Iterator[Packet] | None = None
        self._done = name is None
        self._reached = 0
        self._tracks: dict[int, _Track] = {}
        self._parts = [_Part(0, offset=0)]
        self._settled = 1  # parts whose offset is known
        self._starts, self._begun = [0], [0]  # bytes at which parts begin for streams of other kinds; which ones
        self._places: dict[int, list[tuple[int, int, int]]] = {}  # part, time and byte of some keyframes

    # -- what readers use ---------------------------------------------------------------------------------------

    def demux(self, container: InputContainer, *streams: Stream) -> Iterator[Packet]:
        """The packets of some streams of the file, moved to where they belong.

        Raises:
            FFmpegError: see PyAV.
        """
        if self._name is None:
            yield from container.demux(*streams)
            return
        offsets: dict[int, int] = {}  # of what shares a packet of the container with the one before it
        ends: dict[int, int] = {}
        for packet in container.demux(*streams):
            index = packet.stream_index
            if packet.size and packet.pos is not None:
                offsets[index] = self._offset(index, packet.pos)
            pts, dts, offset = packet.pts, packet.dts, offsets.get(index, 0)
            if pts is not None and dts is not None:
                pts = _shown(pts, dts, ends.get(index))
                ends[index] = max(ends.get(index, pts), pts + (packet.duration or 0))
            if pts is not None and pts + offset != packet.pts:
                packet.pts = pts + offset
            if dts is not None and offset:
                packet.dts = dts + offset
            yield packet

    def seek(self, container: InputContainer, stream: Stream, pts: int) -> None:
        """Let a container go on at, or before, the last keyframe of a stream that is not shown after a time.

        Args:
            container: of the file.
            stream: of it.
            pts: the time on the one line, in the stream's ticks.
        """
        while not self._done:
            self._step()
        if not self.leaps:
            container.seek(pts, stream=stream, backward=True)
            return
        byte = 0
        for part, time, at in self._places.get(stream.index, ()):
            if time + self._offset_of(part) <= pts:
                byte = at
        container.seek(byte, unsupported_byte_offset=True)

    def close(self) -> None:
        """Stop reading."""
        self._packets = None
        if self._container is not None:
            self._container.close()
            self._container = None

    # -- reading ahead ------------------------------------------------------------------------------------------

    def _offset(self, index: int, byte: int) -> int:
        """Ticks to add to a packet of a stream that lies at a byte."""
        while not self._done and self._reached <= byte + AHEAD:
            self._step()
        track = self._tracks.get(index)
        starts, parts = (track.starts, track.parts) if track else (self._starts, self._begun)
        return self._offset_of(parts[max(0, bisect_right(starts, byte) - 1)])

    def _offset_of(self, part: int) -> int:
        while self._parts[part].offset is None:
            self._step()
        return self._parts[part].offset or 0

    def _step(self) -> None:
        """Read one more packet."""
        if self._packets is None:
            assert self._name is not None
            self._container = open_input(self._name, fflags="+ignidx")  # of times that go back it gets very slow
            streams = [s for s in self._container.streams if s.type in ("video", "audio")]
            self._packets = iter(self._container.demux(streams)) if streams else iter(())
        packet: Packet | None = None
        try:
            packet = next(self._packets, None)
            whole = True
        except av.error.FFmpegError:
            whole = False  # whoever reads the file will say so
        if packet is None:
            self._done = True
            self.close()
            if whole and self._key is not None:
                if len(_complete) == KEPT:
                    _complete.clear()
                _complete[self._key] = self
        elif packet.size:
            self._note(packet)
        while self._settled < len(self._parts):
            if not self._done and self._reached <= self._parts[self._settled].found + AHEAD:
                break
            self._settle(self._parts[self._settled])
            self._settled += 1

    def _note(self, packet: Packet) -> None:
        """Find out which part of the file a packet is in."""
        index, byte, decoded = packet.stream_index, packet.pos, packet.dts
        if decoded is None:  # times of presentation go to and fro
            return
        track = self._tracks.get(index)
        shown = decoded if packet.pts is None else _shown(packet.pts, decoded, track.end if track else None)
        if byte is None:  # it shares a packet of the container with the one before it
            if track is None or not self._goes_on(track, decoded):
                return
            byte = self._reached
        elif track is None:
            latest = len(self._parts) - 1
            track = self._tracks[index] = _Track(latest, decoded, shown, [byte], [latest])
        elif not self._goes_on(track, decoded):
            self._turn(track, index, byte, decoded, shown)
        self._reached = max(self._reached, byte)
        part = self._parts[track.part]
        if index in part.entries:
            part.entries[index].begin = min(part.entries[index].begin, shown)
        part.now = max(part.now, decoded)
        track.decoded = decoded
        track.end = max(track.end, shown + (packet.duration or 0))
        if packet.stream.type == "video" and packet.is_keyframe:
            places = self._places.setdefault(index, [])
            if not places or places[-1][0] != track.part or shown >= places[-1][1] + APART:
                places.append((track.part, shown, byte))

    def _goes_on(self, track: _Track, decoded: int) -> bool:
        """Whether a track is still in its part. A gap in its times is a pause if another track has no such gap."""
        if decoded < track.decoded - BACKWARD:
            return False
        return decoded <= track.decoded + FORWARD or abs(decoded - self._parts[track.part].now) <= FORWARD

    def _turn(self, track: _Track, index: int, byte: int, decoded: int, shown: int) -> None:
        """Let a track enter the part that another one has entered, or a new one."""
        newer = range(len(self._parts) - 1, track.part, -1)
        found = next((n for n in newer if abs(decoded - self._parts[n].now) <= FORWARD), None)
        if found is None:
            found = len(self._parts)
            self._parts.append(_Part(self._reached, decoded))
            self._starts.append(byte)
            self._begun.append(found)
        self._parts[found].entries[index] = _Entry(track.part, track.end, shown)
        track.starts.append(byte)
        track.parts.append(found)
        track.part, track.end = found, shown

    def _settle(self, part: _Part) -> None:
        """Find what to add to a part's times; those of earlier ones are known."""
        entries = list(part.entries.values())
        part.offset = max((self._parts[e.before].offset or 0) + e.end - e.begin for e in entries)
        for earlier in self._parts[: self._settled]:
            if earlier.offset is not None and abs(part.offset - earlier.offset) <= BACKWARD:
                part.offset = earlier.offset  # that clock goes on
                break
        first = entries[0]
        by = first.begin - first.end
        by -= round(by / WRAP) * WRAP  # FFmpeg takes a time before the first one for one after a turn of the clock
        self.leaps.append(Leap(Fraction(first.begin + part.offset, TICKS), Fraction(by, TICKS)))


def _shown(pts: int, dts: int, end: int | None) -> int:
    """When a packet is shown. FFmpeg gives the last P picture of a part, if it has no such time, one of the next part.

    Args:
        pts: as stated.
        dts: as stated.
        end: of what was shown up to now in this stream.
    """
    if 0 <= pts - dts <= FORWARD:
        return pts
    return dts if end is None else max(end, dts)


_complete: dict[tuple[str, int, int], Clock] = {}
"""Of files that were read to their end: who makes a film piece by piece opens it many times."""


def clock_of(container: InputContainer) -> Clock:
    """The clock of an open file. To be closed."""
    name = container.name.removeprefix("file:")
    if container.format.name not in FORMATS or "://" in name:
        return Clock()
    stat = Path(name).stat()
    key = name, stat.st_size, stat.st_mtime_ns
    return _complete.get(key) or Clock(name, key)

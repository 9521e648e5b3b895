"""The elementary streams of an MPEG transport stream: those that begin late, and AAC that changes on the way.

FFmpeg knows the streams that are announced where it looks: in the first 5 MB and seconds, and at the end. A recording
often begins before the film whose further sound it has; PyAV does not tell of streams that appear while it reads. So
the starts of all packets are looked at here (ISO/IEC 13818-1, 2.4.3), and FFmpeg made to look as far as is needed.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import av
import av.error
import numpy as np

from videosr.errors import quoted
from videosr.frame import Array

if TYPE_CHECKING:
    from av.container.streams import StreamContainer
    from av.stream import Stream

PROBED = 5_000_000
"""Bytes that FFmpeg looks at by itself (`probesize`)."""
DEEPEST = 64 << 20
"""Bytes that it is made to look at, at most: it keeps them in memory."""
BEHIND = 4 << 20
"""Bytes from the first ones of a stream in which it is announced, and there is enough to know its parameters."""
DEEP = {"scan_all_pmts": "1", "analyzeduration": "1000000000"}
"""Options of FFmpeg's demuxer: new announcements (PMT) count, as they do to its command; look at 1000 seconds."""
STEPS = (188, 192, 204)
"""Bytes from one packet to the next: plain, with times (Blu-ray), with checksums."""
PACKET, SYNC = 188, 0x47
BLOCK = 1 << 20
SPARSE = 16
"""Of the blocks that FFmpeg cannot be made to look at, one in so many shows what streams there are."""
IN_STEP = 0.9
"""Share of the packets of a block that must be where they are expected, before others are looked for."""
FRAMED = 0.9
"""Share of the units of sound that must begin with an ADTS header, for what they say to be what all is."""
OFTEN = 2
"""Units of a form that are no accident of damage."""


@dataclass(slots=True)
class _Seen:
    """What was seen of one elementary stream.

    Attributes:
        byte: at which it begins.
        units: of sound (PES packets).
        forms: profile, rate and channels by the ADTS headers with which units begin, and how many units each.
    """

    byte: int
    units: int = 0
    forms: Counter[tuple[int, int]] = field(default_factory=Counter)


def probe_options(path: str, streams: StreamContainer) -> dict[str, str]:
    """Options with which FFmpeg's demuxer finds the streams that begin late, where it can.

    Args:
        path: of the file.
        streams: that it has found without them.
    """
    known = {s.id for s in streams if not _is_vague(s)}
    starts = _starts(path, DEEPEST)
    late = [byte for pid, byte in starts.items() if pid not in known and pid in _announced(path, byte)]
    if not late:
        return {}
    return DEEP | {"probesize": str(max(PROBED, max(late) + BEHIND))}


def unseen(path: str, streams: StreamContainer) -> list[str]:
    """What FFmpeg has not found in a transport stream: one line for each elementary stream.

    Args:
        path: the file.
        streams: that it has found.
    """
    known = {s.id for s in streams}
    remedy = f"ffmpeg -probesize 2G -analyzeduration 2G -i {quoted(path)} -map 0 -c copy whole.mkv"
    return [
        f"stream 0x{pid:x} ({kinds[pid]}): begins too late to be found: upscale what `{remedy}` makes"
        for pid, byte in sorted(_starts(path, every=SPARSE).items())
        if pid not in known and pid in (kinds := _announced(path, byte))
    ]


def changing(path: str) -> tuple[set[int], set[int]]:
    """Ids of the streams in ADTS frames (AAC) whose profile, rate or channels change; and of those of which that
    cannot be seen here, for their frames do not begin with the units.
    """
    sound = {pid: seen for pid, seen in _scanned(path).items() if seen.units}
    framed = {pid for pid, seen in sound.items() if seen.forms.total() >= FRAMED * seen.units}
    varying = {pid for pid in framed if sum(count >= OFTEN for count in sound[pid].forms.values()) > 1}
    return varying, sound.keys() - framed


def _is_vague(stream: Stream) -> bool:
    """Whether FFmpeg knows that a stream is there, but has found none of it."""
    context = stream.codec_context
    if isinstance(context, av.AudioCodecContext):
        return not context.sample_rate
    return isinstance(context, av.VideoCodecContext) and not context.width


def _starts(path: str, limit: int | None = None, every: int = 1) -> dict[int, int]:
    return {pid: seen.byte for pid, seen in _scanned(path, limit, every).items()}


def _announced(path: str, byte: int) -> dict[int, str]:
    """The streams that FFmpeg finds from a byte on, by their ids: what each is."""
    with Path(path).open("rb") as file:
        file.seek(max(0, byte - BLOCK))  # the announcement comes before the stream
        part = io.BytesIO(file.read(BLOCK + BEHIND))
    with suppress(av.error.FFmpegError), av.open(part, format="mpegts", container_options=DEEP) as container:
        return {s.id: s.type for s in container.streams}
    return {}


def _scanned(path: str, limit: int | None = None, every: int = 1) -> dict[int, _Seen]:
    """What is in a file, or in so many of its bytes: who only opens it does not read it all; see `_scan`."""
    stat = Path(path).stat()
    every = every if stat.st_size > DEEPEST else 1  # nothing is passed over, and what was scanned is known
    return _scan(path, min(stat.st_size, limit or stat.st_size), every, stat.st_mtime_ns)


@lru_cache
def _scan(path: str, size: int, every: int, time: int) -> dict[int, _Seen]:
    """All elementary streams that have data, by their packet identifiers, which are FFmpeg's stream ids.

    Args:
        path: the file.
        size: bytes of it to look at.
        every: of the blocks behind `DEEPEST` one in so many is read.
        time: of its last change: another file under the name is read anew.
    """
    del time
    found: dict[int, _Seen] = {}
    with suppress(OSError):  # whoever reads it all will say so
        for at, packets in _blocks(path, size, every):
            # A unit begins in it, it is not damaged, and there is something in it.
            begins = np.flatnonzero(((packets[:, 1] & 0xC0) == 0x40) & ((packets[:, 3] & 0x10) != 0))
            _note(at[begins], packets[begins], found)
    return found


def _note(at: Array, packets: Array, found: dict[int, _Seen]) -> None:
    """Add what packets show in which units begin: (n,) bytes at which they lie, and (n, 188) uint8."""
    pids = (packets[:, 1] & 0x1F).astype(np.int64) << 8 | packets[:, 2]
    rows = np.arange(len(packets))
    adaptation = np.where(packets[:, 3] & 0x20, packets[:, 4].astype(np.int64) + 1, 0)
    # Behind the last byte zeros are read, which nothing begins with.
    padded = np.pad(packets, ((0, 0), (0, 2 * 256 + 16)))
    unit = 4 + adaptation
    is_unit = (padded[rows, unit] == 0) & (padded[rows, unit + 1] == 0) & (padded[rows, unit + 2] == 1)
    is_sound = is_unit & ((padded[rows, unit + 3] & 0xE0) == 0xC0)
    frame = unit + 9 + padded[rows, unit + 8]
    is_frame = is_sound & (padded[rows, frame] == 0xFF) & ((padded[rows, frame + 1] & 0xF6) == 0xF0)
    for pid in np.unique(pids[is_unit]).tolist():
        mine = pids == pid
        seen = found.setdefault(pid, _Seen(int(at[mine & is_unit][0])))
        seen.units += int((mine & is_sound).sum())
        these = mine & is_frame
        first, second = padded[rows, frame + 2][these] & 0xFD, padded[rows, frame + 3][these] >> 6
        seen.forms.update(zip(first.tolist(), second.tolist(), strict=True))  # without the private bit


def _blocks(path: str, size: int, every: int = 1) -> Iterator[tuple[Array, Array]]:
    """The packets in a file, in order: (n,) the bytes at which they lie, and (n, 188) uint8. Arguments: see `_scan`."""
    at, step = 0, PACKET
    with Path(path).open("rb", buffering=0) as file:
        while at < size:
            file.seek(at)
            data = np.frombuffer(file.read(min(BLOCK, size - at)), np.uint8)
            skip = 0
            if len(data) < PACKET:
                return
            if not _in_step(data, step, 0) >= IN_STEP:
                step, skip = max(((s, k) for s in STEPS for k in range(s)), key=lambda way: _in_step(data, *way))
            count = (len(data) - skip - PACKET) // step + 1
            packets = np.lib.stride_tricks.sliding_window_view(data, PACKET)[skip::step][:count]
            good = packets[:, 0] == SYNC
            yield at + skip + step * np.flatnonzero(good), packets[good]
            at += skip + step * count
            if at >= DEEPEST:
                at += (every - 1) * BLOCK // step * step


def _in_step(data: Array, step: int, skip: int) -> float:
    """Share of the packets that are where they are expected."""
    marks = data[skip::step]
    return float((marks == SYNC).mean()) if len(marks) else 0.0

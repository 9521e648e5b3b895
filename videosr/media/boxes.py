"""Boxes of a finished MP4 or MOV (ISO/IEC 14496-12, 4.2), changed in place where FFmpeg cannot be told better."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

_EPOCH = datetime(1904, 1, 1, tzinfo=UTC)
_DATED = ((b"mvhd",), (b"trak", b"tkhd"), (b"trak", b"mdia", b"mdhd"))


def movie(file: BinaryIO) -> tuple[int, bytes]:
    """Where a file's `moov` lies, and all of it; nothing at the file's end if there is none.

    Raises:
        OSError: the file cannot be read.
    """
    at, end = 0, file.seek(0, 2)
    while at + 8 <= end:
        file.seek(at)
        size, kind = struct.unpack(">I4s", file.read(8))
        if size == 1 and at + 16 <= end:
            (size,) = struct.unpack(">Q", file.read(8))
        if kind == b"moov":
            file.seek(at)
            return at, file.read(min(size, end - at))
        at += max(size, 8)
    return end, b""


def places(data: bytes, path: tuple[bytes, ...], at: int = 8, end: int | None = None) -> Iterator[int]:
    """Where boxes of a `moov` lie that are reached by kinds within kinds; an empty one is any."""
    end = len(data) if end is None else end
    while at + 8 <= end:
        size, kind = struct.unpack_from(">I4s", data, at)
        if kind == path[0] or not path[0]:
            if len(path) == 1:
                yield at
            else:  # before the boxes in it `stsd` has 8 bytes, an entry for pictures 78
                yield from places(data, path[1:], at + 8 + {b"stsd": 8, b"": 78}.get(path[0], 0), at + size)
        at += max(size, 8)


def since_1904(text: str) -> int | None:
    """The seconds that a header has of a creation time; None if it is no time, or one that 32 bits do not hold."""
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        return None
    seconds = int(((time if time.tzinfo else time.replace(tzinfo=UTC)) - _EPOCH).total_seconds())
    return seconds if 0 < seconds < 1 << 32 else None


def set_created(path: Path, seconds: int) -> None:
    """Write when a film was made into the headers of a finished file and of its tracks.

    FFmpeg writes that, too, but with free-form tags (`use_metadata_tags`) once more among these, of which its demuxer
    makes one text that is no time.

    Raises:
        OSError: the file cannot be read or written.
    """
    with path.open("rb+") as file:
        begin, data = movie(file)
        for kinds in _DATED:
            for place in places(data, kinds):
                file.seek(begin + place + 12)
                file.write(struct.pack(">2Q" if data[place + 8] else ">2I", seconds, seconds))  # modified, too

"""The elementary streams of an MPEG program stream (VOB, MPG): those that begin late, too.

Such a file has no list of them. FFmpeg takes those that it finds in the first 5 MB (`probesize`), and PyAV knows of no
others. Subtitles of a DVD often begin later. FFmpeg keeps in memory what it looks at, so it cannot look at all of a
film. ISO/IEC 13818-1, 2.5.3; substreams of private_stream_1 as in FFmpeg's `mpegps_read_packet`.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

from videosr.errors import quoted

PROBED = 5_000_000
"""Bytes that FFmpeg looks at (`probesize`)."""
DEEPEST = 64 << 20
"""Bytes that it is made to look at, at most."""

_PREFIX = b"\0\0\1"
_PACK, _PRIVATE_1, _PROGRAM_END = 0xBA, 0xBD, 0xB9
_MPEG = range(0xC0, 0xF0)
_HEADER = 14
_KINDS = (
    (range(0x20, 0x40), "subtitle"),
    (range(0x80, 0x88), "audio, ac3"),
    (range(0x88, 0x90), "audio, dts"),
    (range(0xA0, 0xB0), "audio, pcm_dvd"),
    (range(0xC0, 0xC8), "audio, ac3"),
    (range(0x1C0, 0x1E0), "audio"),
    (range(0x1E0, 0x1F0), "video"),
)


def probe_options(path: str) -> dict[str, str]:
    """Options with which FFmpeg's demuxer finds the streams of a program stream that begin late, where it can."""
    late = [byte for byte in _known(path).values() if PROBED // 2 < byte < DEEPEST]
    return {"probesize": str(max(late) + (1 << 20)), "analyzeduration": "1000000000"} if late else {}


def unseen(path: str, seen: Iterable[int]) -> list[str]:
    """What FFmpeg has not found in a program stream: one line for each elementary stream.

    Args:
        path: the file.
        seen: ids of the streams that it has found.
    """
    late = sorted(_known(path).keys() - set(seen))
    remedy = f"ffmpeg -fflags +genpts -probesize 2G -analyzeduration 2G -i {quoted(path)} -map 0 -c copy whole.mkv"
    return [f"stream 0x{i:x} ({_kind(i)}): begins too late to be found: upscale what `{remedy}` makes" for i in late]


def _kind(identifier: int) -> str | None:
    """What an elementary stream is, by its FFmpeg id; None where a player would show nothing of it."""
    return next((kind for ids, kind in _KINDS if identifier in ids), None)


def _known(path: str) -> dict[int, int]:
    stat = Path(path).stat()
    return {i: byte for i, byte in _first_bytes(path, stat.st_size, stat.st_mtime_ns).items() if _kind(i)}


@lru_cache
def _first_bytes(path: str, size: int, time: int) -> dict[int, int]:
    """Where each elementary stream begins: bytes, by FFmpeg's stream id.

    Args:
        path: the file.
        size: of it.
        time: of its last change: another file under the name is read anew.
    """
    del time
    found: dict[int, int] = {}
    with Path(path).open("rb", buffering=1 << 20) as file, suppress(OSError):  # whoever reads it all will say so
        at = 0
        while 0 <= at < size:
            file.seek(at)
            head = file.read(_HEADER)
            code = head[3] if len(head) == _HEADER else 0
            if head[:3] != _PREFIX or code < _PROGRAM_END:
                at = _next_pack(file, at + 1)
            elif code == _PROGRAM_END:
                at += 4
            elif code == _PACK:
                at += 14 + (head[13] & 7) if head[4] >> 6 == 1 else 12  # of MPEG-2 with its stuffing, or of MPEG-1
            else:
                if code in _MPEG:
                    found.setdefault(0x100 + code, at)
                elif code == _PRIVATE_1:
                    file.seek(at + 9 + head[8])
                    found.setdefault(int.from_bytes(file.read(1)), at)
                at += 6 + int.from_bytes(head[4:6], "big")
    return found


def _next_pack(file: BinaryIO, at: int) -> int:
    """Where the next pack begins, from a byte on; -1: nowhere."""
    mark = _PREFIX + bytes([_PACK])
    file.seek(at)
    rest = b""
    while block := file.read(1 << 20):
        found = (rest + block).find(mark)
        if found >= 0:
            return at - len(rest) + found
        at, rest = at + len(block), block[-3:]
    return -1

"""Files appended to one another, as `cat` does it, where the format does not allow that and FFmpeg does not say so."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

_EBML, _SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"
_FLV_TAGS = frozenset({8, 9, 18})
_REMEDY = "cut the file there and join the parts with mkvmerge, as in `mkvmerge -o all.mkv part1 + part2`"


def joined(name: str, demuxer: str) -> list[str]:
    """What of a file lies behind its end and is another file: at most one line.

    Args:
        name: of the file, or an address, of which there is nothing to see.
        demuxer: FFmpeg's, which reads it.
    """
    if "://" in name:
        return []
    for kind, lost, search in _KINDS:
        if kind in demuxer.split(","):
            with Path(name).open("rb") as file:
                at = search(file)
            return [] if at is None else [f"{lost} that begins at byte {at} ({_REMEDY})"]
    return []


def _second_movie(file: BinaryIO) -> int | None:
    """FFmpeg passes over every `moov` but the first; fragments behind another one it reads all the same."""
    at = begin = movies = 0
    end = file.seek(0, os.SEEK_END)
    while at < end:  # a damaged file may state any size
        file.seek(at)
        head = file.read(16).ljust(8, b"\0")
        size, kind = struct.unpack_from(">I4s", head)
        if size == 1 and len(head) == 16:
            (size,) = struct.unpack_from(">Q", head, 8)
        if kind == b"moof":
            return None
        if kind == b"ftyp" and movies == 1:
            begin = at
        movies += kind == b"moov"
        if size < 8:
            break
        at += size
    return begin if movies > 1 and begin else None


def _second_segment(file: BinaryIO) -> int | None:
    """A Matroska or WebM file's Segment, if its size is known, ends where the other file begins (RFC 8794, 4 and 6)."""
    at = 0
    for wanted in (_EBML, _SEGMENT):
        file.seek(at)
        head = file.read(12)
        length = 9 - head[4].bit_length() if len(head) == 12 else 0
        if head[:4] != wanted or not 1 <= length <= 8:
            return None
        size = int.from_bytes(head[4 : 4 + length]) & ~(1 << 7 * length)
        if size == (1 << 7 * length) - 1:  # unknown
            return None
        at += 4 + length + size
    file.seek(at)
    return at if file.read(4) == _EBML else None


def _second_header(file: BinaryIO) -> int | None:
    """FFmpeg ends where a tag of FLV is none (Adobe Flash Video 10.1, E.3)."""
    at = 9 + 4
    while True:
        file.seek(at)
        head = file.read(4)
        if len(head) < 4 or head[0] & 0x1F not in _FLV_TAGS:
            return at if head == b"FLV\x01" else None
        at += 11 + int.from_bytes(head[1:]) + 4


_KINDS: tuple[tuple[str, str, Callable[[BinaryIO], int | None]], ...] = (
    ("mov", "another film", _second_movie),
    ("matroska", "the times of another film", _second_segment),
    ("flv", "another film", _second_header),
)
"""FFmpeg's demuxer, what it makes of such a file, and how the second one is found."""

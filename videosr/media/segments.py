"""Segments: the encoded video in pieces that can be made apart and joined without encoding again.

A segment file holds the packets of one closed run of frames, as its encoder gave them, in decoding order. Nothing in
it depends on its neighbours, so segments may be made in any order, on any machine, and a run that was interrupted
goes on with the first one that is missing. Decoding times are not stored: they follow from the presentation times of
the whole stream (`decode_times`) and are worked out when the segments are joined.

The file, all numbers little-endian: magic, u32 length, header (JSON), u32 CRC-32 of the header; then for each packet
i64 pts, i64 duration, u32 payload size, u8 flags (1: keyframe), u32 CRC-32 of these fields and the payload, payload;
then the end mark, u64 number of packets, u32 CRC-32 of that number. A file without its end mark is unfinished.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import struct
import zlib
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from videosr.errors import InputError, OutputError
from videosr.files import move

MAGIC = b"vsrseg01"
END = b"vsrsend1"
_LENGTH = struct.Struct("<I")
_FIELDS = struct.Struct("<qqIB")
_CRC = struct.Struct("<I")
_TRAILER = struct.Struct("<8sQI")
_KEYFRAME = 1


class EncodedPacket(NamedTuple):
    """One coded picture.

    Attributes:
        pts: presentation time in ticks of the segment's time base.
        duration: in ticks.
        key: decoding can begin here.
        data: the payload as the encoder gave it.
    """

    pts: int
    duration: int
    key: bool
    data: bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class SegmentHeader:
    """What a muxer must know of the coded stream; equal for all segments of one output.

    Attributes:
        codec: FFmpeg's name of the encoder.
        width: columns of luma samples.
        height: rows of luma samples.
        pix_fmt: FFmpeg's pixel format.
        time_base: (numerator, denominator) of the seconds a tick.
        rate: (numerator, denominator) of the nominal frames per second; (0, 1) where unknown.
        sar: (numerator, denominator) of the sample aspect ratio.
        color: matrix, range, primaries, transfer and siting as H.273 code points.
        extradata: the encoder's global headers, in base64.
        template: a Matroska or MOV file of the coded stream's parameters without its pictures, in base64.
    """

    codec: str
    width: int
    height: int
    pix_fmt: str
    time_base: tuple[int, int]
    rate: tuple[int, int]
    sar: tuple[int, int]
    color: tuple[int, int, int, int, int]
    extradata: str
    template: str

    @property
    def extradata_bytes(self) -> bytes:
        """The global headers."""
        return base64.b64decode(self.extradata)

    @property
    def template_bytes(self) -> bytes:
        """The parameter file."""
        return base64.b64decode(self.template)

    @property
    def tick(self) -> Fraction:
        """Seconds a tick."""
        return Fraction(*self.time_base)


class SegmentWriter:
    """Writes a segment file; it appears under its name only when `finish` has written it whole.

    Args:
        path: final name.
        header: the stream's parameters.

    Raises:
        OutputError: the file cannot be written; the message names it.
    """

    def __init__(self, path: Path, header: SegmentHeader) -> None:
        self.path = path
        self.count = 0
        self._part = path.with_name(f".{path.name}.part")
        encoded = json.dumps(asdict(header), separators=(",", ":")).encode()
        try:
            self._file: BinaryIO = self._part.open("wb")
        except OSError as exc:
            raise OutputError.writing(self._part, exc) from exc
        self._write(MAGIC + _LENGTH.pack(len(encoded)) + encoded + _CRC.pack(zlib.crc32(encoded)))

    def add(self, packet: EncodedPacket) -> None:
        """Append a packet, in decoding order."""
        fields = _FIELDS.pack(packet.pts, packet.duration, len(packet.data), _KEYFRAME if packet.key else 0)
        self._write(fields + _CRC.pack(zlib.crc32(packet.data, zlib.crc32(fields))))
        self._write(packet.data)
        self.count += 1

    def _write(self, data: bytes) -> None:
        try:
            self._file.write(data)
        except OSError as exc:
            raise OutputError.writing(self._part, exc) from exc

    def finish(self) -> None:
        """Write the end mark, flush to the disk and give the file its name."""
        number = struct.pack("<Q", self.count)
        self._write(_TRAILER.pack(END, self.count, zlib.crc32(number)))
        try:
            self._file.flush()
            os.fsync(self._file.fileno())
            self._file.close()
            move(self._part, self.path)
        except OSError as exc:
            raise OutputError.writing(self.path, exc) from exc

    def abort(self) -> None:
        """Leave nothing behind."""
        with contextlib.suppress(OSError):  # the write error that brought us here is the one to report
            self._file.close()
        with contextlib.suppress(OSError):
            self._part.unlink(missing_ok=True)


class Segment:
    """A finished segment file; reading it again and again costs no memory beyond one packet.

    Raises:
        InputError: it is missing, unfinished or damaged; the message names it.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        try:
            with self.path.open("rb") as file:
                self.header, self._start = self._read_header(file)
                self._end = file.seek(-_TRAILER.size, os.SEEK_END)
                mark, self.frames, crc = _TRAILER.unpack(file.read(_TRAILER.size))
        except OSError as exc:
            raise InputError(f"{self.path}: segment cannot be read: {exc.strerror}") from exc
        except struct.error as exc:
            raise self._damaged("is cut short") from exc
        if mark != END or crc != zlib.crc32(struct.pack("<Q", self.frames)) or self._end < self._start:
            raise self._damaged("is unfinished or cut short")

    def _damaged(self, what: str) -> InputError:
        return InputError(f"{self.path}: segment {what}; delete it and run again")

    def _read_header(self, file: BinaryIO) -> tuple[SegmentHeader, int]:
        if file.read(len(MAGIC)) != MAGIC:
            raise self._damaged("is not one of this version")
        (length,) = _LENGTH.unpack(file.read(_LENGTH.size))
        encoded = file.read(length)
        (crc,) = _CRC.unpack(file.read(_CRC.size))
        if zlib.crc32(encoded) != crc:
            raise self._damaged("has a damaged header")
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in json.loads(encoded).items()}
        return SegmentHeader(**values), file.tell()

    def times(self) -> Iterator[tuple[int, int]]:
        """The (pts, duration) of every packet in decoding order, payloads skipped."""
        with self.path.open("rb") as file:
            position = file.seek(self._start)
            for _ in range(self.frames):
                if position >= self._end:
                    raise self._damaged("has fewer packets than it states")
                pts, duration, size, _flags = _FIELDS.unpack(file.read(_FIELDS.size))
                yield pts, duration
                position = file.seek(_CRC.size + size, os.SEEK_CUR)

    def packets(self) -> Iterator[EncodedPacket]:
        """Every packet in decoding order, checksums checked."""
        with self.path.open("rb") as file:
            file.seek(self._start)
            for _ in range(self.frames):
                fields = file.read(_FIELDS.size)
                if len(fields) < _FIELDS.size or file.tell() > self._end:
                    raise self._damaged("has fewer packets than it states")
                pts, duration, size, flags = _FIELDS.unpack(fields)
                stored = file.read(_CRC.size)
                if file.tell() + size > self._end:
                    raise self._damaged("has a damaged packet")
                data = file.read(size)
                if _CRC.pack(zlib.crc32(data, zlib.crc32(fields))) != stored:
                    raise self._damaged("has a damaged packet")
                yield EncodedPacket(pts, duration, bool(flags & _KEYFRAME), data)
            if file.tell() != self._end:
                raise self._damaged("has more data than it states")


def decode_times(decode_order: Sequence[int], tick: int = 1) -> list[int]:
    """Decoding times for packets in decoding order.

    With D the depth by which packets come before their turn, packet i is decoded when the picture D places earlier is
    shown: dts[i] = sorted(pts)[i - D], continued backwards for the first D. So dts never exceeds pts, increases
    strictly, and has the smallest delay that allows both, whatever encoder made the packets.

    Args:
        decode_order: distinct presentation times in decoding order.
        tick: distance at which the first D are continued backwards, at least 1.

    Raises:
        InputError: a presentation time occurs twice.
    """
    shown = sorted(decode_order)
    if any(a == b for a, b in pairwise(shown)):
        raise InputError("two pictures of the video have the same presentation time; the segments do not fit together")
    depth = max((i - bisect_left(shown, pts) for i, pts in enumerate(decode_order)), default=0)
    return [shown[i - depth] if i >= depth else shown[0] - (depth - i) * tick for i in range(len(shown))]


@dataclass(frozen=True, kw_only=True, slots=True)
class SegmentRule:
    """Where one segment ends and the next begins: by content and settings only, never by time or machine.

    Attributes:
        shortest: a scene cut after at least this many frames closes the segment.
        longest: a segment closes after this many frames without a cut.
    """

    shortest: int = 48
    longest: int = 240

    def closes(self, frames: int, cut: bool) -> bool:
        """Whether the segment that holds `frames` frames closes before the next one.

        Args:
            frames: frames in the segment so far.
            cut: the next frame begins a new scene.
        """
        return frames >= self.longest or (cut and frames >= self.shortest)

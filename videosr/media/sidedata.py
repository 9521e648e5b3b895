"""Side data of decoded frames, read in a way that does not crash PyAV."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import Any

import av

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_TEXT = frozenset({b"tEXt", b"zTXt", b"iTXt"})


class FrameSideData:
    """Reads the side data of one stream's frames.

    PyAV 19 releases the metadata of side data twice, once it has been looked at, which ends the process. Of FFmpeg's
    decoders PNG's alone makes such metadata, the name of an ICC profile (`iCCP` in libavcodec/pngdec.c): a picture is
    decoded without it, and where it lies in the header, as that of APNG, side data is not touched.

    Args:
        context: of the stream.
    """

    def __init__(self, context: av.VideoCodecContext) -> None:
        self._png = context.codec.canonical_name in ("png", "apng")
        self._met: dict[str, bytes] = {}  # in PNG, of what FFmpeg gives no side data, or none that can be looked at
        self._untouchable = self._png and any(self._note(kind) for kind, _, _ in _chunks(context.extradata or b""))

    def expect(self, packet: av.Packet[Any]) -> av.Packet[Any]:
        """Of a packet that is going to be decoded, the one to decode."""
        if not self._png:
            return packet
        data = bytes(packet)
        profiles = [(begin, end) for kind, begin, end in _chunks(data) if self._note(kind)]
        if not profiles:
            return packet
        begin, end = profiles[0]
        made = av.Packet(data[:begin] + data[end:])
        made.stream, made.time_base, made.opaque = packet.stream, packet.time_base, packet.opaque
        made.pts, made.dts, made.duration = packet.pts, packet.dts, packet.duration
        made.is_keyframe = packet.is_keyframe
        return made

    def _note(self, kind: bytes) -> bool:
        """Whether a chunk of PNG is an ICC profile."""
        if kind == b"iCCP":
            self._met["ICC_PROFILE"] = b""
        elif kind in _TEXT:
            self._met["PNG_TEXT"] = b""
        return kind == b"iCCP"

    def of(self, picture: av.VideoFrame) -> dict[str, bytes]:
        """A frame's side data by FFmpeg's names without AV_FRAME_DATA; a PNG's profile and texts come empty."""
        if self._untouchable:
            return self._met
        return {kind.name: bytes(data) for kind, data in picture.side_data.items()} | self._met


def _chunks(png: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Kind, begin and end of each chunk (PNG, third edition, 5.3)."""
    at = len(_SIGNATURE) if png.startswith(_SIGNATURE) else 0
    while at + 8 <= len(png):
        size, kind = struct.unpack_from(">I4s", png, at)
        yield kind, at, at + size + 12
        at += size + 12

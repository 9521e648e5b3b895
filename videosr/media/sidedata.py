"""What rides on decoded frames: side data, read in a way that does not crash."""

from __future__ import annotations

import struct
from typing import Any

import av

_SIGNATURE = b"\x89PNG\r\n\x1a\n"


class FrameSideData:
    """Reads the side data of one stream's frames.

    PyAV 19 releases the metadata of side data twice, once it has been looked at, which ends the process. Of FFmpeg's
    decoders PNG's alone makes such metadata, the name of an ICC profile (`iCCP` in libavcodec/pngdec.c): side data of
    such pictures is not touched.

    Args:
        context: of the stream.
    """

    def __init__(self, context: av.VideoCodecContext) -> None:
        self._png = context.codec.canonical_name in ("png", "apng")
        self._profile = self._png and _has_profile(context.extradata or b"")

    def expect(self, packet: av.Packet[Any]) -> None:
        """A packet that is going to be decoded."""
        if self._png and not self._profile:
            self._profile = _has_profile(memoryview(packet))

    def of(self, picture: av.VideoFrame) -> dict[str, bytes]:
        """A frame's side data by FFmpeg's names without AV_FRAME_DATA; a PNG's profile comes alone, and empty."""
        if self._profile:
            return {"ICC_PROFILE": b""}
        return {kind.name: bytes(data) for kind, data in picture.side_data.items()}


def _has_profile(png: bytes | memoryview) -> bool:
    """Whether there is an ICC profile before the picture (PNG, third edition, 5.6: `iCCP` precedes `IDAT`)."""
    at = len(_SIGNATURE) if png[: len(_SIGNATURE)] == _SIGNATURE else 0
    while at + 8 <= len(png):
        size, kind = struct.unpack_from(">I4s", png, at)
        if kind in (b"iCCP", b"IDAT", b"fdAT"):
            return bool(kind == b"iCCP")
        at += size + 12
    return False

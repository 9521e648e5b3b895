"""Side data of decoded frames, read in a way that does not crash PyAV."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import av

from videosr.media.stills.picturedata import in_jpeg, in_png, in_webp

_READERS = {"png": in_png, "apng": in_png, "mjpeg": in_jpeg, "webp": in_webp}
_REMEMBERED, _ROOM = 64, 2**26
"""Pictures whose packets have been seen and that may not have come out yet; bytes of what was found in them."""


class FrameSideData:
    """Reads the side data of one stream's frames.

    PyAV 19 releases the metadata of side data twice, once it has been looked at, which ends the process. Of FFmpeg's
    decoders PNG's alone makes such metadata, the name of an ICC profile (`iCCP` in libavcodec/pngdec.c): a picture is
    decoded without it, and where it lies in the header, as that of APNG, side data is not touched.

    Args:
        context: of the stream.
        also: side data that the file holds for all frames of the stream, by the names that `of` gives.
    """

    def __init__(self, context: av.VideoCodecContext, also: Mapping[str, bytes] | None = None) -> None:
        self._read = _READERS.get(context.codec.canonical_name)
        self._header, profiles = self._read(context.extradata or b"") if self._read else ({}, [])
        self._header |= also or {}
        self._untouchable = bool(profiles)
        # By pts, of packets: what FFmpeg gives no side data of, or none that can be looked at.
        self._found: dict[int | None, dict[str, bytes]] = {}

    def expect(self, packet: av.Packet[Any]) -> av.Packet[Any]:
        """Note what a packet holds, before it is decoded; returns the packet to decode in its place."""
        if self._read is None:
            return packet
        data = bytes(packet)
        self._found[packet.pts], profiles = self._read(data)
        while len(self._found) > _REMEMBERED or (len(self._found) > 1 and self._size() > _ROOM):
            del self._found[next(iter(self._found))]
        if not profiles:
            return packet
        for begin, end in reversed(profiles):
            data = data[:begin] + data[end:]
        made = av.Packet(data)
        made.stream, made.time_base, made.opaque = packet.stream, packet.time_base, packet.opaque
        made.pts, made.dts, made.duration = packet.pts, packet.dts, packet.duration
        made.is_keyframe = packet.is_keyframe
        return made

    def _size(self) -> int:
        return sum(len(data) for found in self._found.values() for data in found.values())

    def of(self, picture: av.VideoFrame) -> dict[str, bytes]:
        """A frame's side data, that found in its packet included, by FFmpeg's names without `AV_FRAME_DATA_`."""
        found = self._found.get(picture.pts)
        if found is None:  # its time was corrected meanwhile
            found = next(reversed(self._found.values()), {})
        if self._untouchable:
            return self._header | found
        return self._header | found | {kind.name: bytes(data) for kind, data in picture.side_data.items()}

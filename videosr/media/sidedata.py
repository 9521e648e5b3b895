"""Side data of decoded frames, read in a way that does not crash PyAV."""

from __future__ import annotations

from typing import Any

import av

from videosr.media.picturedata import in_jpeg, in_png, in_webp

_READERS = {"mjpeg": in_jpeg, "webp": in_webp}


class FrameSideData:
    """Reads the side data of one stream's frames.

    PyAV 19 releases the metadata of side data twice, once it has been looked at, which ends the process. Of FFmpeg's
    decoders PNG's alone makes such metadata, the name of an ICC profile (`iCCP` in libavcodec/pngdec.c): a picture is
    decoded without it, and where it lies in the header, as that of APNG, side data is not touched.

    Args:
        context: of the stream.
    """

    def __init__(self, context: av.VideoCodecContext) -> None:
        self._codec = context.codec.canonical_name
        self._png = self._codec in ("png", "apng")
        self._met, profiles = in_png(context.extradata or b"") if self._png else ({}, [])
        self._untouchable = bool(profiles)

    def expect(self, packet: av.Packet[Any]) -> av.Packet[Any]:
        """Of a packet that is going to be decoded, the one to decode."""
        if self._codec in _READERS:
            self._met |= _READERS[self._codec](bytes(packet))
        if not self._png:
            return packet
        data = bytes(packet)
        found, profiles = in_png(data)
        self._met |= found
        if not profiles:
            return packet
        begin, end = profiles[0]
        made = av.Packet(data[:begin] + data[end:])
        made.stream, made.time_base, made.opaque = packet.stream, packet.time_base, packet.opaque
        made.pts, made.dts, made.duration = packet.pts, packet.dts, packet.duration
        made.is_keyframe = packet.is_keyframe
        return made

    def of(self, picture: av.VideoFrame) -> dict[str, bytes]:
        """A frame's side data by FFmpeg's names without AV_FRAME_DATA, and what it gives no side data of."""
        if self._untouchable:
            return self._met
        return {kind.name: bytes(data) for kind, data in picture.side_data.items()} | self._met

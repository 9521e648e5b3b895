"""Messages in coded pictures: supplemental enhancement information (ITU-T H.264 and H.265, Annex D), AV1's metadata.

FFmpeg's decoders give what they say as side data of frames; PyAV can hand its encoders none, so they are put into the
coded pictures here, as FFmpeg's own encoders would have written them. No picture changes by that.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

REGISTERED = 4
"""Payload type of user data registered by ITU-T T.35, and of the same in AV1 (`metadata_type`, 6.7.1)."""
_START = re.compile(rb"\x00?\x00\x00\x01")


class Message(NamedTuple):
    """One message.

    Attributes:
        payload: as the standard of its type has it.
        kind: payload type of H.264 and H.265; AV1 has room for `REGISTERED` alone.
    """

    payload: bytes
    kind: int = REGISTERED


def embed(packet: bytes, messages: Sequence[Message], codec: str) -> bytes:
    """A coded picture with messages.

    Args:
        packet: an access unit with start codes (H.264, H.265), or a temporal unit (AV1): what FFmpeg's encoders give.
        messages: of kinds that the codec has.
        codec: "h264", "hevc" or "av1"; FFmpeg's name of it, not of an encoder (`av.Codec.canonical_name`).

    Returns:
        The packet; as it was, if there are no messages or no picture in it.
    """
    return _WRITERS[codec](packet, messages) if messages else packet


def _before_h264_slice(packet: bytes, messages: Sequence[Message]) -> bytes:
    """Units of type 6 before the first slice (H.264, 7.4.1.2.3)."""
    return _before_slice(packet, messages, lambda unit: b"\x06" if 1 <= unit[0] & 31 <= 5 else b"")


def _before_hevc_slice(packet: bytes, messages: Sequence[Message]) -> bytes:
    """Prefix units, of type 39, before the first slice, of the same layers (H.265, 7.4.2.4.4)."""
    return _before_slice(
        packet, messages, lambda unit: bytes([39 << 1 | unit[0] & 1, unit[1]]) if unit[0] >> 1 & 63 < 32 else b""
    )


def _before_slice(packet: bytes, messages: Sequence[Message], header: Callable[[bytes], bytes]) -> bytes:
    """Messages before the first unit for which `header` gives the beginning of theirs."""
    for start in _START.finditer(packet):
        unit = packet[start.end() : start.end() + 2]
        if len(unit) == 2 and (begin := header(unit)):
            made = b"".join(
                b"\0\0\0\1" + begin + escaped(bytes([m.kind]) + _size(m.payload) + m.payload) + b"\x80"
                for m in messages
            )
            return packet[: start.start()] + made + packet[start.start() :]
    return packet


def _size(payload: bytes) -> bytes:
    """Its length: a byte of 255 for each whole 255, then the rest (H.264 7.3.2.3.1, H.265 7.3.5)."""
    return b"\xff" * (len(payload) // 255) + bytes([len(payload) % 255])


def escaped(payload: bytes) -> bytes:
    """With emulation prevention (H.264 7.4.1, H.265 7.4.2): nothing in it looks like a start code."""
    return re.sub(rb"\x00\x00(?=[\x00-\x03])", b"\x00\x00\x03", payload)


def _before_shown_frame(unit: bytes, messages: Sequence[Message]) -> bytes:
    """Metadata (AV1, 5.8 and 6.7.2) before the last frame of a temporal unit: the one that is shown."""
    at, frame = 0, None
    while at < len(unit):
        kind, extended, sized = unit[at] >> 3 & 15, unit[at] >> 2 & 1, unit[at] >> 1 & 1
        if kind in (3, 6):  # a frame's header, or all of a frame
            frame = at
        at += 1 + extended
        if not sized:
            break
        size, width = leb128(unit, at)
        at += width + size
    if frame is None:
        return unit
    # Of type 5 and with a size; in it the kind of metadata, and a bit that ends it.
    made = b"".join(
        bytes([5 << 3 | 2]) + _as_leb128(len(m.payload) + 2) + bytes([m.kind]) + m.payload + b"\x80" for m in messages
    )
    return unit[:frame] + made + unit[frame:]


def leb128(data: bytes, at: int) -> tuple[int, int]:
    """A number and the bytes it takes (AV1, 4.10.5)."""
    value = 0
    for i, byte in enumerate(data[at : at + 8]):
        value |= (byte & 127) << 7 * i
        if byte < 128:
            return value, i + 1
    return value, 8


def _as_leb128(value: int) -> bytes:
    made = bytearray()
    while value > 127:
        made.append(value & 127 | 128)
        value >>= 7
    return bytes([*made, value])


_WRITERS: dict[str, Callable[[bytes, Sequence[Message]], bytes]] = {
    "h264": _before_h264_slice,
    "hevc": _before_hevc_slice,
    "av1": _before_shown_frame,
}

"""Closed captions embedded in coded video: from the frames of the source into the packets of the output.

CTA-608 and CTA-708 captions ride on pictures (ATSC A/53 part 4, 6.2.3): three bytes each for a field's two characters
or a piece of a caption channel packet. FFmpeg's decoders give them as side data; PyAV can hand its encoders none, so
they are put into the coded pictures here, as a message of user data registered by ITU-T T.35, which is what FFmpeg's
own encoders would have written. No picture changes by that.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

from videosr.frame import Frame

CAPTIONS = "A53_CC"
"""FFmpeg's name of the side data."""
_MOST = 31
"""Triplets that one message holds: their number has five bits."""
_PROVIDER = b"\xb5\x00\x31GA94\x03"
"""Country (the United States), provider (ATSC), user identifier, and the type of user data that is captions."""
_START = re.compile(rb"\x00?\x00\x00\x01")


def captions_of(frame: Frame) -> bytes:
    """The triplets that ride on a frame; empty where none do."""
    return dict(frame.side_data).get(CAPTIONS, b"")


def without_captions(frame: Frame) -> Frame:
    """The frame with all else that rides on it."""
    return replace(frame, side_data=tuple(pair for pair in frame.side_data if pair[0] != CAPTIONS))


def holds_captions(codec: str) -> bool:
    """Whether captions can be put into a codec's packets.

    Args:
        codec: its name, not an encoder's (`av.Codec.canonical_name`).
    """
    return codec in _WRITERS


def as_read(triplets: bytes, codec: str) -> bytes:
    """What PyAV reads of captions that were embedded: of AV1 the last message alone."""
    return triplets[(max(len(triplets), 1) - 1) // (3 * _MOST) * 3 * _MOST :] if codec == "av1" else triplets


def embed(packet: bytes, triplets: bytes, codec: str) -> bytes:
    """A coded picture with captions.

    Args:
        packet: an access unit with start codes (H.264, H.265), or a temporal unit (AV1): what FFmpeg's encoders give.
        triplets: as `captions_of` gives them.
        codec: one that `holds_captions`.

    Returns:
        The packet; as it was, if there are no captions or no picture in it.
    """
    size = 3 * _MOST
    pieces = [triplets[at : at + size] for at in range(0, len(triplets) // 3 * 3, size)]
    messages = [_PROVIDER + bytes([0x40 | len(p) // 3 & _MOST, 0xFF]) + p[: len(p) // 3 * 3] + b"\xff" for p in pieces]
    return _WRITERS[codec](packet, messages) if messages else packet


def _before_h264_slice(packet: bytes, messages: list[bytes]) -> bytes:
    """Units of type 6 before the first slice (H.264, 7.4.1.2.3)."""
    return _before_slice(packet, messages, lambda unit: b"\x06" if 1 <= unit[0] & 31 <= 5 else b"")


def _before_hevc_slice(packet: bytes, messages: list[bytes]) -> bytes:
    """Prefix units, of type 39, before the first slice, of the same layers (H.265, 7.4.2.4.4)."""
    return _before_slice(
        packet, messages, lambda unit: bytes([39 << 1 | unit[0] & 1, unit[1]]) if unit[0] >> 1 & 63 < 32 else b""
    )


def _before_slice(packet: bytes, messages: list[bytes], header: Callable[[bytes], bytes]) -> bytes:
    """Messages (payload type 4) before the first unit for which `header` gives the beginning of theirs."""
    for start in _START.finditer(packet):
        unit = packet[start.end() : start.end() + 2]
        if len(unit) == 2 and (begin := header(unit)):
            made = b"".join(
                b"\0\0\0\1" + begin + _escaped(bytes([4, len(message)]) + message) + b"\x80" for message in messages
            )
            return packet[: start.start()] + made + packet[start.start() :]
    return packet


def _escaped(payload: bytes) -> bytes:
    """With emulation prevention (H.264 7.4.1, H.265 7.4.2): nothing in it looks like a start code."""
    return re.sub(rb"\x00\x00(?=[\x00-\x03])", b"\x00\x00\x03", payload)


def _before_shown_frame(unit: bytes, messages: list[bytes]) -> bytes:
    """Metadata (AV1, 5.8 and 6.7.2) before the last frame of a temporal unit: the one that is shown."""
    at, frame = 0, None
    while at < len(unit):
        kind, extended, sized = unit[at] >> 3 & 15, unit[at] >> 2 & 1, unit[at] >> 1 & 1
        if kind in (3, 6):  # a frame's header, or all of a frame
            frame = at
        at += 1 + extended
        if not sized:
            break
        size, width = _leb128(unit, at)
        at += width + size
    if frame is None:
        return unit
    # Of type 5 and with a size; in it the kind of metadata, 4, and a bit that ends it.
    made = b"".join(bytes([5 << 3 | 2, len(message) + 2, 4]) + message + b"\x80" for message in messages)
    return unit[:frame] + made + unit[frame:]


def _leb128(data: bytes, at: int) -> tuple[int, int]:
    """A number and the bytes it takes (AV1, 4.10.5)."""
    value = 0
    for i, byte in enumerate(data[at : at + 8]):
        value |= (byte & 127) << 7 * i
        if byte < 128:
            return value, i + 1
    return value, 8


_WRITERS: dict[str, Callable[[bytes, list[bytes]], bytes]] = {
    "h264": _before_h264_slice,
    "hevc": _before_hevc_slice,
    "av1": _before_shown_frame,
}

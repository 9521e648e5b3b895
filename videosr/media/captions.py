"""Closed captions embedded in coded video.

CTA-608 and CTA-708 captions ride on pictures (ATSC A/53 part 4, 6.2.3): three bytes each for a field's two characters
or a piece of a caption channel packet.
"""

from __future__ import annotations

from dataclasses import replace

from videosr.frame import Frame
from videosr.media.user_data import Message

CAPTIONS = "A53_CC"
"""FFmpeg's name of the side data."""
_MOST = 31
"""Triplets that one message holds: their number has five bits."""
_PROVIDER = b"\xb5\x00\x31GA94\x03"
"""Country (the United States), provider (ATSC), user identifier, and the type of user data that is captions."""


def captions_of(frame: Frame) -> bytes:
    """The triplets that ride on a frame; empty where none do."""
    return dict(frame.side_data).get(CAPTIONS, b"")


def without_captions(frame: Frame) -> Frame:
    """The frame with all else that rides on it."""
    return replace(frame, side_data=tuple(pair for pair in frame.side_data if pair[0] != CAPTIONS))


def as_read(triplets: bytes, codec: str) -> bytes:
    """What PyAV reads of captions that were embedded: of AV1 the last message alone."""
    return triplets[(max(len(triplets), 1) - 1) // (3 * _MOST) * 3 * _MOST :] if codec == "av1" else triplets


def caption_messages(triplets: bytes) -> list[Message]:
    """The messages of a picture that hold these."""
    size = 3 * _MOST
    pieces = [triplets[at : at + size] for at in range(0, len(triplets) // 3 * 3, size)]
    counted = ((len(piece) // 3, piece) for piece in pieces)
    return [Message(_PROVIDER + bytes([0x40 | n & _MOST, 0xFF]) + piece[: 3 * n] + b"\xff") for n, piece in counted]

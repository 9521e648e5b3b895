"""What rides on frames and is written into the coded pictures of the output."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from videosr.media.captions import CAPTIONS, caption_messages
from videosr.media.hdr import AMBIENT, ambient_message
from videosr.media.hdr10plus import DYNAMIC, dynamic_message
from videosr.media.user_data import Message

_MAKERS: dict[str, Callable[[bytes], list[Message]]] = {
    CAPTIONS: caption_messages,
    DYNAMIC: dynamic_message,
    AMBIENT: ambient_message,
}
RIDERS = tuple(_MAKERS)
"""The kinds, by FFmpeg's names."""
_CODECS = {
    "h264": frozenset({CAPTIONS, AMBIENT}),
    "hevc": frozenset({CAPTIONS, DYNAMIC, AMBIENT}),
    "av1": frozenset({CAPTIONS, DYNAMIC}),
}
"""What FFmpeg's decoders of them read again."""


def written(codec: str) -> frozenset[str]:
    """The kinds of side data (FFmpeg's names) that are put into a codec's pictures.

    Args:
        codec: FFmpeg's name of it, not an encoder's (`av.Codec.canonical_name`).
    """
    return _CODECS.get(codec, frozenset())


def messages(side_data: Iterable[tuple[str, bytes]], codec: str) -> list[Message]:
    """What to put into the picture of a frame on which this rides."""
    kinds = written(codec)
    return [message for kind, data in side_data if kind in kinds for message in _MAKERS[kind](data)]


def as_written(kind: str, data: bytes) -> bytes:
    """Side data, one of `written`, in a form that is the same where it says the same; empty if nothing is written."""
    return data if kind == CAPTIONS else b"".join(message.payload for message in _MAKERS[kind](data))

"""Side data that rides on single frames (captions, HDR10+, ambient light, Dolby Vision), put into coded pictures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from videosr.media import dolby
from videosr.media.captions import CAPTIONS, caption_messages
from videosr.media.hdr import AMBIENT, ambient_message
from videosr.media.hdr10plus import DYNAMIC, dynamic_message
from videosr.media.user_data import Message, embed

SideData = tuple[tuple[str, bytes], ...]
"""(FFmpeg side-data name, payload) pairs of a frame."""
_MESSAGES: dict[str, Callable[[bytes], list[Message]]] = {
    CAPTIONS: caption_messages,
    DYNAMIC: dynamic_message,
    AMBIENT: ambient_message,
}
_CODECS = {
    "h264": frozenset({CAPTIONS, AMBIENT}),
    "hevc": frozenset({CAPTIONS, DYNAMIC, AMBIENT, dolby.RPU}),
    "av1": frozenset({CAPTIONS, DYNAMIC}),
}
"""By codec, the kinds of side data that FFmpeg's decoder of it finds again."""
RIDERS = (*_MESSAGES, dolby.RPU)
"""All kinds of side data that can ride on a frame, by FFmpeg's names."""


@dataclass(frozen=True, slots=True)
class Riders:
    """Which side data goes into the pictures of an output stream, and how.

    Attributes:
        codec: the stream's codec by FFmpeg's name, not its encoder's (`av.Codec.canonical_name`).
        fit: how the pictures were made from the source's.
        dolby: whether the stream is Dolby Vision as its source is (`dolby.carried`).
    """

    codec: str
    fit: dolby.Fit = dolby.Fit()  # noqa: RUF009  # it is never changed
    dolby: bool = False

    @property
    def kinds(self) -> frozenset[str]:
        """The kinds of side data that the stream has a place for, by FFmpeg's names."""
        return _CODECS.get(self.codec, frozenset()) - (frozenset() if self.dolby else {dolby.RPU})

    def of(self, side_data: SideData) -> SideData:
        """The part of a frame's side data that is written."""
        kinds = self.kinds
        return tuple(pair for pair in side_data if pair[0] in kinds)

    def put(self, packet: bytes, riding: SideData) -> bytes:
        """A frame's coded picture with side data put into it; `riding` is what `of` has left of that."""
        messages = [message for kind, data in riding if kind != dolby.RPU for message in _MESSAGES[kind](data)]
        units = [dolby.unit(dolby.fitted(data, self.fit)) for kind, data in riding if kind == dolby.RPU]
        return embed(packet, messages, self.codec) + b"".join(units)


def as_written(kind: str, data: bytes) -> bytes:
    """Side data of a kind in `RIDERS`, in a form that is equal where the same is said; empty: nothing is written."""
    if kind == CAPTIONS:
        return data
    if kind == dolby.RPU:
        return dolby.said(data)
    return b"".join(message.payload for message in _MESSAGES[kind](data))

"""Whether a decoder that works on several frames at once has given all of them at the end.

FFmpeg's frame threads (`pthread_frame.c`) report a packet that cannot be decoded when its turn comes. Among the last
packets, which are still under way when the decoder is drained, they do not: the frames behind it are lost without an
error, or its own is not marked as damaged, and concealed in one way or another. So what the last packets hold is
decoded again on one thread, from a keyframe on.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Any

import av
import av.error

from videosr.media.decoders import other_decoder

CHECKED = 32
"""Frames at the end that must be the same: more than decoders have under way, with their threads and B-frames."""
_RUN_UP = 2 * CHECKED
"""Packets to keep behind a keyframe: a frame may have two, of a field each, and some have none."""
_ROOM = 128 << 20
"""Bytes to keep at most."""


class Tail:
    """The end of a video stream, as packets that went into a decoder and as frames that came out of it."""

    def __init__(self) -> None:
        self._packets: deque[list[av.Packet[Any]]] = deque([[]])  # each list but the first begins with a keyframe
        self._bytes = 0
        self._whole = True  # `_packets` begin with a keyframe, or with the stream
        self._short = 0  # packets beyond frames
        self._last: deque[tuple[int | None, bool]] = deque(maxlen=CHECKED)

    def put(self, packet: av.Packet[Any]) -> None:
        """The next packet, as the decoder takes it."""
        if packet.is_keyframe:
            self._packets.append([])
        self._packets[-1].append(packet)
        self._short += 1
        self._bytes += packet.size
        while len(self._packets) > 1 and (self._bytes > _ROOM or self._behind_the_first() >= _RUN_UP):
            self._forget()
            self._whole = True
        if self._bytes > _ROOM:
            self._forget()
            self._packets.append([])
            self._whole = False

    def _behind_the_first(self) -> int:
        return sum(map(len, self._packets)) - len(self._packets[0])

    def _forget(self) -> None:
        self._bytes -= sum(packet.size for packet in self._packets.popleft())

    def gave(self, frames: Iterable[av.VideoFrame]) -> None:
        """The decoder's next frames, as it gave them."""
        for frame in frames:
            self._last.append(_traits(frame))
            self._short -= 1

    def is_torn(self, context: av.VideoCodecContext) -> bool:
        """Whether frames at the end are missing or damaged, or may be: the decoder has been drained.

        Args:
            context: the decoder.
        """
        packets = [packet for group in self._packets for packet in group]
        if not self._whole:
            return self._short > 0
        decoder = other_decoder(context, context.codec.name)
        decoder.thread_count = 1
        traits: list[tuple[int | None, bool]] = []
        for number, packet in enumerate([*packets, None]):
            try:
                traits += map(_traits, decoder.decode(packet))
            except av.error.FFmpegError:
                if number >= len(packets) - CHECKED:
                    return True
        end = traits[-CHECKED:]
        return any(damaged for _, damaged in end) or end != list(self._last)[max(len(self._last) - len(end), 0) :]


def _traits(frame: av.VideoFrame) -> tuple[int | None, bool]:
    """Its time, and whether it is marked as damaged."""
    return frame.dts if frame.pts is None else frame.pts, frame.is_corrupt

"""Streams of the source that go to the output as they are: what still has to be done to their packets."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING

import av
from av.stream import Stream

from videosr.media.audio_format import known_layout
from videosr.media.source import codec_name, open_input

if TYPE_CHECKING:
    type Packet = av.Packet[Stream]


EDITED = frozenset({"mp4", "mov"})
"""Containers that have edit lists."""
OPUS_PREROLL = Fraction(8, 100)
"""Seconds of hidden sound that decoders of Opus have to have heard before (RFC 7845, 4.6); others need a packet."""
LONGEST_LEAD = Fraction(1, 5)
"""Seconds of sound that an encoder puts before its first sample, at most; more than that an edit list hides."""


def hides_sound(stream: Stream) -> bool:
    """Whether a file's edit list hides more of a stream's beginning than an encoder puts there.

    FFmpeg gives all of that as the codec's delay, of which others make a header that drops as much.
    """
    context = stream.codec_context
    if not isinstance(context, av.AudioCodecContext) or "mov" not in stream.container.format.name:
        return False
    return context.initial_padding > LONGEST_LEAD * context.sample_rate


def is_hidden(packet: Packet) -> bool:
    """Whether a packet of sound lies outside of what its file's edit list shows, and no decoder needs it.

    MP4 files that were cut without coding them anew have seconds of these; containers without edit lists would play
    them.
    """
    stream = packet.stream
    if not packet.is_discard or stream.type != "audio" or packet.pts is None or stream.start_time is None:
        return False
    tick = Fraction(packet.time_base.num, packet.time_base.den)
    begin, end = packet.pts * tick, (packet.pts + (packet.duration or 0)) * tick
    unit = Fraction(stream.time_base.num, stream.time_base.den)
    shown = stream.start_time * unit
    needed = OPUS_PREROLL if codec_name(stream) == "opus" else end - begin
    if end <= shown - needed:
        return True
    return stream.duration is not None and begin >= shown + stream.duration * unit + needed


def cover_attachment(name: str, stream: Stream) -> tuple[str, str, bytes]:
    """Name, MIME type and bytes of cover art, as Matroska keeps it: in an attachment."""
    codec = codec_name(stream)
    suffix, mimetype = {"mjpeg": ("jpg", "image/jpeg")}.get(codec, (codec, f"image/{codec}"))
    with open_input(name) as again:
        again.streams[stream.index].discard = av.stream.Discard.none
        picture = next((bytes(p) for p in again.demux(again.streams[stream.index]) if p.size), b"")
    tags = stream.metadata
    return tags.get("filename", f"cover.{suffix}"), tags.get("mimetype", mimetype), picture


def add_copy(out: av.container.OutputContainer, source: Stream) -> Stream:
    """Add a stream of the same codec to an output.

    Of PCM FFmpeg's mp4 muxer wants to know the places of the speakers, and says so only when it closes the file.

    Raises:
        ValueError: the container holds no such streams.
    """
    made = out.add_stream_from_template(source, opaque=True)
    context = made.codec_context
    if isinstance(context, av.AudioCodecContext):
        context.layout = known_layout(context.layout)
    return made


class StreamCopy:
    """Moves packets of one stream to its copy, with times that every muxer accepts.

    Audio whose times are coarser than its samples (Matroska's milliseconds) gets its exact times back when it goes to a
    container that counts samples: they follow from the number of samples a packet holds, as long as that agrees with
    the stated times to one tick.
    """

    def __init__(self, source: Stream, target: Stream, strict: bool) -> None:
        self._target = target
        self._strict = int(strict)  # two packets may not have one time
        self._earliest = -(2**62)
        self.moved = 0
        self._first: int | None = None
        self._ahead = 0
        self._raw_aac = strict and codec_name(source) == "aac" and bool(source.codec_context.extradata)
        context = source.codec_context
        if isinstance(context, av.VideoCodecContext):
            self._ahead = context.reorder_depth
        self._tick = Fraction(source.time_base.num, source.time_base.den)
        self._sample = Fraction(0)
        if isinstance(context, av.AudioCodecContext) and context.frame_size and context.sample_rate:
            self._sample = Fraction(1, context.sample_rate)
            self._length = context.frame_size * self._sample
        self._expected: Fraction | None = None
        self._rate = context.sample_rate if isinstance(context, av.AudioCodecContext) else 0
        self._lead: Fraction | None = None

    def lead(self, packet: Packet) -> Fraction:
        """Seconds at the beginning of the stream that decoders throw away, as the first of its packets says.

        Every copy of the stream says so too, in its header: where it is cut, as much has to stand before the cut. It is
        AV_PKT_DATA_SKIP_SAMPLES, whose first four bytes count samples, low byte first.
        """
        if self._lead is None:
            self._lead = Fraction(0)
            if self._rate and packet.has_sidedata("skip_samples"):
                skipped = int.from_bytes(bytes(packet.get_sidedata("skip_samples"))[:4], "little")
                if skipped <= self._rate * LONGEST_LEAD:
                    self._lead = Fraction(skipped, self._rate)
        return self._lead

    def storable(self, packet: Packet) -> bool:
        """False for what the mp4 muxer refuses: raw AAC, described in the header, that begins like a framed one."""
        return not (self._raw_aac and packet.size > 2 and bytes(packet)[0] == 0xFF and bytes(packet)[1] >> 4 == 0xF)

    def take(self, packet: Packet) -> Packet:
        """The packet for the output; the same payload and side data."""
        if packet.dts is None and packet.pts is not None:
            packet.dts = self._undated(packet, packet.pts)
        elif packet.pts is None:
            packet.pts = packet.dts
        if self._sample and packet.pts is not None:
            self._sharpen(packet, packet.pts)
        packet.stream = self._target
        packet.rescale_ts(self._target.time_base)
        if packet.dts is not None and packet.pts is not None:
            if packet.dts < self._earliest:
                packet.dts = self._earliest
                self.moved += 1
            packet.pts = max(packet.pts, packet.dts)
            self._earliest = packet.dts + self._strict
        return packet

    def _undated(self, packet: Packet, pts: int) -> int:
        """When a packet without a decoding time is decoded.

        Matroska has no such times. FFmpeg infers them from those of presentation, but not for the first pictures of a
        stream that are decoded ahead of their turn.
        """
        if not self._ahead:
            return pts
        if self._first is None:
            self._first = pts
        dts = self._first - self._ahead * (packet.duration or 0)
        self._ahead -= 1
        return min(pts, dts)

    def _sharpen(self, packet: Packet, pts: int) -> None:
        finer = Fraction(self._target.time_base.num, self._target.time_base.den) < self._tick
        if not finer or abs((packet.duration or 0) * self._tick - self._length) > self._tick:
            self._expected = None
            return
        stated = pts * self._tick
        if self._expected is None or abs(self._expected - stated) > self._tick:
            self._expected = stated
        packet.pts = packet.dts = round(self._expected / self._sample)
        packet.duration = round(self._length / self._sample)
        packet.time_base = self._sample
        self._expected += self._length

"""Re-encoding of the streams that a target container cannot hold as they are: audio and text subtitles."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import TYPE_CHECKING, Protocol

import av
import av.error
from av.stream import Stream
from av.subtitles.subtitle import AssSubtitle, SubtitleSet

from videosr.media.audio_format import AudioTarget
from videosr.media.cues import LONGEST, Screen, Span, is_blank, joined
from videosr.media.resample import Resampler

if TYPE_CHECKING:
    type Packet = av.Packet[Stream]


class Converter(Protocol):
    """Turns packets of one stream into packets of another codec."""

    stream: Stream

    @property
    def errors(self) -> int:
        """Packets that were damaged and left out."""

    def feed(self, packet: Packet) -> list[Packet]:
        """The packets that follow from one more of the source."""

    def flush(self) -> list[Packet]:
        """The packets still pending."""


def add_converted(out: av.container.OutputContainer, source: Stream, codec: str) -> Converter:
    """Add a stream of another codec to an output and return what fills it.

    Raises:
        ValueError: the encoder takes nothing like the source.
    """
    return AudioConverter(out, source, codec) if source.type == "audio" else SubtitleConverter(out, source, codec)


class AudioConverter:
    """Decodes, resamples where the encoder must have it, and encodes audio; times are kept (`Resampler`).

    Attributes:
        changes: what of rate, layout and samples becomes another, in words.
    """

    def __init__(self, out: av.container.OutputContainer, source: Stream, codec: str) -> None:
        decoder = source.codec_context
        assert isinstance(decoder, av.AudioCodecContext)
        self._decoder = decoder
        target = AudioTarget.nearest(codec, decoder)
        self.changes = target.changes(decoder)
        stream = out.add_stream(codec)
        assert isinstance(stream, av.audio.stream.AudioStream)
        self.stream: Stream = stream
        encoder = stream.codec_context
        target.configure(encoder)
        stream.time_base = encoder.time_base
        encoder.open()
        self._encoder = encoder
        self._resampler = Resampler(encoder)
        self.errors = 0

    def feed(self, packet: Packet) -> list[Packet]:
        """The packets that follow from one more of the source; a damaged one is counted in `errors`."""
        try:
            pieces = [piece for frame in self._decoder.decode(packet) for piece in self._resampler.take(frame)]
        except av.error.FFmpegError:
            self.errors += 1
            return []
        return self._encoded(pieces)

    def flush(self) -> list[Packet]:
        """What decoder, resampler and encoder still hold."""
        pieces = [piece for frame in self._decoder.decode(None) for piece in self._resampler.take(frame)]
        return self._encoded([*pieces, *self._resampler.flush(), None])

    def _encoded(self, pieces: Sequence[av.AudioFrame | None]) -> list[Packet]:
        return [self._own(packet) for piece in pieces for packet in self._encoder.encode(piece)]

    def _own(self, packet: Packet) -> Packet:
        packet.stream = self.stream
        return packet


class SubtitleConverter:
    """Turns text subtitles into another text format; styling that the target lacks is lost.

    MP4's text track shows one thing at a time, so there those that overlap are cut and joined (`Screen`).
    """

    def __init__(self, out: av.container.OutputContainer, source: Stream, codec: str) -> None:
        decoder = source.codec_context
        assert isinstance(decoder, av.subtitles.codeccontext.SubtitleCodecContext)
        decoder.open(strict=False)
        self._decoder = decoder
        stream = out.add_stream(codec)
        assert isinstance(stream, av.subtitles.stream.SubtitleStream)
        self.stream: Stream = stream
        self._time_base = Fraction(source.time_base.num, source.time_base.den)
        stream.time_base = Fraction(1, 1000)
        self._encoder = stream.codec_context
        self._encoder.subtitle_header = decoder.subtitle_header
        self._screen = Screen() if codec == "mov_text" else None
        self._damaged = 0

    @property
    def errors(self) -> int:
        """Packets that were damaged or found no place."""
        return self._damaged + (self._screen.lost if self._screen is not None else 0)

    def feed(self, packet: Packet) -> list[Packet]:
        """The subtitles that follow in the other format; a damaged one is counted in `errors`."""
        if packet.pts is None or packet.size == 0:
            return []
        try:
            text = self._decoder.decode2(packet)
        except av.error.FFmpegError:
            self._damaged += 1
            return []
        if text is None or len(text) == 0:
            return []
        milliseconds = text.end_display_time - text.start_display_time
        if milliseconds > LONGEST:  # FFmpeg's mark of an end that nobody knows
            milliseconds = 0
        duration = packet.duration or round(Fraction(milliseconds, 1000) / self._time_base)
        if self._screen is None:
            return [self._timed(self._encoder.encode_subtitle(text), packet.pts, duration)]
        end = packet.pts + duration if duration else None
        events = [r.ass for r in text if isinstance(r, AssSubtitle) and not is_blank(r.ass)]
        return self._encoded([span for event in events for span in self._screen.add(packet.pts, end, event)])

    def _encoded(self, spans: list[Span]) -> list[Packet]:
        return [
            self._timed(
                self._encoder.encode_subtitle(SubtitleSet.create(joined(span.events), 0, 0)),
                span.begin,
                span.end - span.begin,
            )
            for span in spans
        ]

    def _timed(self, packet: Packet, pts: int, duration: int) -> Packet:
        packet.stream = self.stream
        packet.time_base = self._time_base
        packet.pts = packet.dts = pts
        packet.duration = duration
        packet.is_keyframe = True
        return packet

    def flush(self) -> list[Packet]:
        """The last subtitles."""
        return self._encoded(self._screen.finish()) if self._screen is not None else []

"""Rates, layouts and kinds of samples: what files say of their sound, and what encoders take in its place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Self

import av
import av.error
from av.audio.resampler import AudioResampler

OPUS_RATE = 48_000
"""The one rate at which Opus is decoded (RFC 7845, 5)."""
BITS_PER_CHANNEL = {"aac": 96_000, "libopus": 64_000}
USUAL_LAYOUTS = ("mono", "stereo", "3.0", "quad", "5.0", "5.1", "6.1", "7.1")
"""One of each number of channels that every encoder takes: Opus no others (RFC 7845, 5.1.1.2)."""
_FLOAT = frozenset({"flt", "fltp", "dbl", "dblp"})
_BACK, _SIDE = ("BL", "BR"), ("SL", "SR")


@dataclass(frozen=True, slots=True)
class AudioTarget:
    """What an encoder is given.

    Attributes:
        codec: FFmpeg's encoder.
        rate: samples a second.
        layout: of the speakers.
        format: of the samples.
    """

    codec: str
    rate: int
    layout: av.AudioLayout
    format: av.AudioFormat

    @classmethod
    def nearest(cls, codec: str, decoder: av.AudioCodecContext) -> Self:
        """The format nearest to the source that an encoder takes; the encoder has been opened with it.

        Args:
            codec: FFmpeg's encoder.
            decoder: of the source, with its rate and layout.

        Raises:
            ValueError: it takes nothing of the kind.
        """
        encoder = av.Codec(codec, "w")
        rates = [OPUS_RATE] if codec == "libopus" else encoder.audio_rates or [decoder.sample_rate]
        rate = min((r for r in rates if r >= decoder.sample_rate), default=max(rates))
        layout = known_layout(decoder.layout)
        for candidate in (layout, _nearest_layout(layout)):
            target = cls(codec, rate, candidate, _nearest_format(encoder.audio_formats or [], decoder.format))
            if target._works(decoder):
                return target
        raise ValueError(f"{codec} cannot be made of {layout.name} at {decoder.sample_rate} Hz")

    def configure(self, encoder: av.AudioCodecContext) -> None:
        """Tell an encoder that is not open yet."""
        encoder.sample_rate, encoder.layout, encoder.format = self.rate, self.layout, self.format
        encoder.time_base = Fraction(1, self.rate)
        if self.codec in BITS_PER_CHANNEL:
            encoder.bit_rate = BITS_PER_CHANNEL[self.codec] * self.layout.nb_channels
        if self.codec == "libopus" and self.layout.nb_channels > 2:
            encoder.options["mapping_family"] = "1"

    def changes(self, decoder: av.AudioCodecContext) -> list[str]:
        """What differs from the source, in words."""
        found = []
        if self.rate != decoder.sample_rate:
            found.append(f"{decoder.sample_rate} Hz becomes {self.rate} Hz")
        layout = known_layout(decoder.layout)
        if self.layout != layout:
            found.append(f"{layout.name} becomes {self.layout.name}")
        if self.codec == "flac" and decoder.codec.lossless and decoder.format and decoder.format.name in _FLOAT:
            found.append(f"{decoder.format.bits}-bit floating point becomes 24-bit integers")
        return found

    def _works(self, decoder: av.AudioCodecContext) -> bool:
        """Whether the encoder opens, and FFmpeg mixes what the decoder gives into what it wants."""
        encoder = av.CodecContext.create(self.codec, "w")
        assert isinstance(encoder, av.AudioCodecContext)
        self.configure(encoder)
        silence = av.AudioFrame(decoder.format or self.format, decoder.layout, 64)
        silence.sample_rate = decoder.sample_rate
        try:
            encoder.open()
            AudioResampler(encoder.format, encoder.layout, self.rate, threads=1).resample(silence)
        except (ValueError, av.error.FFmpegError):
            return False
        return True


def known_layout(layout: av.AudioLayout) -> av.AudioLayout:
    """The layout; the usual one of as many channels where a file (AVI, WMA, PCM in MKV) says only how many there are.

    It stays as it is where there is no usual one.
    """
    if not layout.name.endswith(" channels"):
        return layout
    try:
        return av.AudioLayout(f"{layout.nb_channels}c")
    except ValueError:
        return layout


def _nearest_format(formats: Sequence[av.AudioFormat], source: av.AudioFormat | None) -> av.AudioFormat:
    """The shortest of an encoder's samples that are as long as the source's, else the longest.

    FLAC keeps 24 bits of four bytes, all that there is in LPCM, and as much as there is in single-precision numbers.
    """
    ordered = sorted(formats, key=lambda f: f.bytes)
    return next((f for f in ordered if source is not None and f.bytes >= source.bytes), ordered[-1])


def _nearest_layout(layout: av.AudioLayout) -> av.AudioLayout:
    """The usual layout that has most of the speakers, and of those the one with the fewest others."""
    wanted = _places(layout)

    def cost(name: str) -> tuple[int, int]:
        places = _places(av.AudioLayout(name))
        return len(wanted - places), len(places - wanted)

    return av.AudioLayout(min(USUAL_LAYOUTS, key=cost))


def _places(layout: av.AudioLayout) -> set[str]:
    """FFmpeg's names of the speakers; a single pair behind the front ones is the same at the sides and at the back."""
    names = {channel.name for channel in layout.channels}
    return names if names >= {*_BACK} else {dict(zip(_SIDE, _BACK, strict=True)).get(name, name) for name in names}

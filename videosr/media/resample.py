"""Decoded audio as an encoder takes it, also if the source changes its rate or layout midway."""

from __future__ import annotations

from fractions import Fraction

import av
import av.error
from av.audio.resampler import AudioResampler

LARGEST_GAP = Fraction(1, 20)
"""Seconds by which audio may stray from its timestamps (rounded to milliseconds in Matroska) before it is moved."""
LARGEST_OVERLAP = Fraction(1)
"""Seconds of audio that may lie behind its time and be dropped; times further back are those of another film."""


class Resampler:
    """Brings audio into an encoder's format, layout and rate, in pieces of its frame size; times count samples.

    Sources change in mid-stream, television at every advertisement. What was there before the change is finished
    first, so that no sample is lost. Where there are fewer samples than the times say, the gap stays; where there are
    more, those that would lead to sound that comes late are dropped.

    Args:
        encoder: open.
    """

    def __init__(self, encoder: av.AudioCodecContext) -> None:
        self._encoder = encoder
        self._rate = encoder.sample_rate
        self._kind: tuple[str, str, int] | None = None
        self._inner: AudioResampler | None = None
        self._next: int | None = None  # sample of the output

    def take(self, frame: av.AudioFrame) -> list[av.AudioFrame]:
        """The pieces that follow from one more frame.

        Raises:
            av.error.FFmpegError: it cannot be converted; the next one begins anew.
        """
        kind = frame.format.name, frame.layout.name, frame.sample_rate
        made = self.flush() if kind != self._kind else []
        if self._inner is None:
            encoder = self._encoder
            self._inner = AudioResampler(encoder.format, encoder.layout, self._rate, encoder.frame_size, threads=1)
            self._kind = kind
        try:
            return made + self._timed(self._inner.resample(frame))
        except av.error.FFmpegError:
            self._inner = None
            raise

    def flush(self) -> list[av.AudioFrame]:
        """What is still held, the last piece perhaps a short one."""
        inner, self._inner = self._inner, None
        return self._timed(inner.resample(None)) if inner is not None else []

    def _timed(self, pieces: list[av.AudioFrame]) -> list[av.AudioFrame]:
        made = []
        for piece in pieces:
            at = self._next
            if piece.pts is not None and piece.time_base is not None:
                stated = round(piece.pts * Fraction(piece.time_base.num, piece.time_base.den) * self._rate)
                if at is None or stated - at > LARGEST_GAP * self._rate:
                    at = stated
                elif LARGEST_GAP * self._rate < at - stated <= LARGEST_OVERLAP * self._rate:
                    continue
            at = at or 0
            piece.pts, piece.time_base = at, Fraction(1, self._rate)
            self._next = at + piece.samples
            made.append(piece)
        return made

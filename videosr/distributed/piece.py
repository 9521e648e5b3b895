"""What a worker does: make one segment of a film, on any machine that gives the same bits."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Generator, Mapping
from contextlib import closing
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any

from videosr.distributed.plan import Mark, Piece
from videosr.distributed.pool import frames_told
from videosr.errors import InputError, OutputError
from videosr.film import Film, TranscodeOptions, open_source
from videosr.frame import Frame, StreamInfo
from videosr.journal import differences, segment_name
from videosr.media.decoder import Decoder
from videosr.media.segments import Segment
from videosr.media.stills.numbered import RATE
from videosr.upscaler import Upscaler

_CHUNK = 8 << 20


@dataclass(frozen=True, slots=True)
class Chunk:
    """The next bytes of the segment's file."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Uncut:
    """Decoding in the middle of the film gives other frames: it has to be decoded from the beginning."""


@dataclass(frozen=True, slots=True)
class Unfit:
    """This machine would make other bits.

    Attributes:
        why: what differs.
    """

    why: str


@dataclass(frozen=True, slots=True)
class Made:
    """A segment that was made, and the counts of `Upscaler` for it.

    Attributes:
        reused: frames that were repeats and not computed again.
        mended: frames that were computed again in float32.
        replaced: frames that the network could not make.
    """

    reused: int
    mended: int
    replaced: int

    @staticmethod
    def since(before: Made, upscaler: Upscaler) -> Made:
        """What an upscaler has counted since then."""
        now = Made.by(upscaler)
        return Made(now.reused - before.reused, now.mended - before.mended, now.replaced - before.replaced)

    @staticmethod
    def by(upscaler: Upscaler) -> Made:
        """All that an upscaler has counted."""
        return Made(upscaler.reused, upscaler.mended, upscaler.replaced)


class _Differs(Exception):  # noqa: N818 - not an error: there is another way
    """A decoded frame is not the one that the plan knows."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MakePiece:
    """Makes a segment.

    Attributes:
        source: the file.
        container: of the output.
        options: what to make of the film.
        job: `Film.job` where the work was planned; a machine on which it differs makes nothing.
        info: the decoded stream, as it was found there.
        origin: `Decoder.origin`.
        piece: the segment.
        linear: decode from the beginning.
        folder: where the segment goes; None: it is sent as `Chunk`s.
    """

    source: Path
    container: str
    options: TranscodeOptions
    job: Mapping[str, Any]
    info: StreamInfo
    origin: Fraction
    piece: Piece
    linear: bool
    folder: Path | None

    def __call__(self, tell: Callable[[Any], None]) -> Made | Unfit:
        """Make it.

        Raises:
            VideosrError: it cannot be made.
        """
        film = _opened(self.source, self.container, self.options)
        if changed := differences(self.job, film.job, names=("where the work was planned", "here")):
            return Unfit(changed)
        try:
            if self.folder is not None:
                return self._make(film, self.folder, tell)
            with tempfile.TemporaryDirectory(prefix="videosr-") as folder:
                made = self._make(film, Path(folder), tell)
                with (Path(folder) / segment_name(self.piece.first)).open("rb") as file:
                    while data := file.read(_CHUNK):
                        tell(Chunk(data))
                return made
        except BaseException:
            _films.clear()  # what is under way in it is of no use to the next one
            raise

    def _make(self, film: Film, folder: Path, tell: Callable[[Any], None]) -> Made:
        if self.linear:
            return self._decoded(film, folder, tell, linear=True)
        try:
            return self._decoded(film, folder, tell, linear=False)
        except (_Differs, InputError):  # an error in the file itself comes again
            tell(Uncut())
        _films.clear()
        film = _opened(self.source, self.container, self.options)
        return self._decoded(film, folder, tell, linear=True)

    def _decoded(self, film: Film, folder: Path, tell: Callable[[Any], None], *, linear: bool) -> Made:
        piece, counts = self.piece, Made.by(film.upscaler)
        with self._decoder(film, linear) as decoder, closing(self._frames(decoder, linear)) as frames:
            try:
                before = list(islice(frames, piece.lead))
                film.make(before, frames, piece.first, folder, frames_told(tell))
            except _Differs as exc:
                if linear:
                    raise InputError(
                        f"{self.source}: is decoded to other frames here than where the work was planned; is it the "
                        "same file, and is the machine sound?"
                    ) from exc
                raise
        segment = Segment(folder / segment_name(piece.first))
        if segment.frames != piece.frames:
            raise OutputError(f"{segment.path}: has {segment.frames} frames where {piece.frames} were planned")
        return Made.since(counts, film.upscaler)

    def _decoder(self, film: Film, linear: bool) -> Decoder:
        """A decoder that stands at the film's beginning, or not far from the piece's."""
        piece = self.piece
        if linear or piece.first == piece.lead:
            return open_source(self.source, self.options)
        # A little earlier: of two fields only the first has the time of their frame.
        first = piece.marks[0]
        start = (first.pts - first.duration) * self.info.time_base - self.origin
        return Decoder(
            self.source,
            start=max(start, Fraction(0)),
            rate=self.options.framerate or RATE,
            deinterlace=film.decoder.deinterlace,
            max_pixels=self.options.max_pixels,
            follow=not self.options.strict,
        )

    def _frames(self, decoder: Decoder, linear: bool) -> Generator[Frame]:
        """The piece's frames and those that lead to it, each found to be the right one."""
        marks = self.piece.marks
        if not linear and _kind(decoder.info) != _kind(self.info):
            raise _Differs
        source = iter(decoder)
        if linear:
            skipped = 0
            while skipped < self.piece.first - self.piece.lead:
                if next(source, None) is None:
                    raise _Differs
                skipped += 1
        for mark in marks:
            frame = next(source, None)
            while not linear and frame is not None and frame.pts < mark.pts:
                frame = next(source, None)
            if frame is None or Mark.of(frame) != mark:
                raise _Differs
            yield frame


_films: dict[tuple[Path, str, TranscodeOptions], Film] = {}
"""The film that this process last worked on: to load a network takes longer than to make a few frames."""


def _opened(source: Path, container: str, options: TranscodeOptions) -> Film:
    key = source, container, options
    if key not in _films:
        _films.clear()
        with Film(source, container, options) as film:  # every piece has a decoder of its own
            _films[key] = film
    return _films[key]


def _kind(info: StreamInfo) -> tuple[object, ...]:
    """What makes the same planes the same picture."""
    return info.width, info.height, info.format, info.time_base, info.color, info.sar

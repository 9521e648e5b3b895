"""A film's segments made by several workers: plans the segments, gives them out, gathers them in the journal."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from videosr.distributed.piece import Chunk, Made, MakePiece, Uncut, Unfit
from videosr.distributed.plan import Piece, ahead, pieces
from videosr.distributed.pool import Done, Failed, Frames, Outcome, Pool, Told
from videosr.errors import InputError, OutputError, UsageError
from videosr.files import move
from videosr.film import Film
from videosr.journal import Journal, segment_name
from videosr.machine import cores
from videosr.media.segments import Segment

ATTEMPTS = 4
"""How often a segment is tried at most, if workers die at it."""


class Workers(Protocol):
    """What makes segments: processes of this machine, or a cluster."""

    def run(self, jobs: Iterator[tuple[int, MakePiece]]) -> Generator[tuple[int, Outcome]]:
        """Do jobs, each under a number of its own; yields their outcomes as they come (`Pool.run`).

        Closed before the end, it lets none begin any more.
        """


class LocalCrew:
    """Makes a film's segments in several processes of this machine.

    Args:
        size: how many.

    Raises:
        UsageError: that is not positive.
    """

    def __init__(self, size: int) -> None:
        if size < 1:
            raise UsageError(f"--jobs {size} is not positive")
        self._size = size

    def fill(self, film: Film, journal: Journal, told: Callable[[int], None], warn: Callable[[str], None]) -> None:
        """See `transcode.Crew`."""
        share = max(1, cores() // self._size)
        with Pool(self._size) as pool:
            fill(film, journal, told, warn, pool, self._size, threads=share, folder=journal.folder)


def fill(
    film: Film,
    journal: Journal,
    told: Callable[[int], None],
    warn: Callable[[str], None],
    workers: Workers,
    size: int,
    *,
    threads: int,
    folder: Path | None = None,
) -> None:
    """Have everything made that a journal lacks; the workers' counts are added to those of the film's upscaler.

    Args:
        film: just opened.
        journal: of its output.
        told: is called with the number of frames made so far; may raise.
        warn: is told what goes wrong without ending the work.
        workers: make the segments.
        size: how many workers there are, about.
        threads: of the network in each of them, if the film's options do not say.
        folder: the journal's folder, if workers can write there; None: they send segments in messages.

    Raises:
        UsageError: the network needs its frames in order.
        VideosrError: something could not be made.
    """
    if film.upscaler.sequential:
        name = film.upscaler.engine.network.name
        raise UsageError(f"{name} keeps a state of its own and needs all frames in order: leave --jobs and --ray out")
    _Head(film, journal, told, warn, folder, threads).work(workers, size)


class _Head:
    """One run of `fill`."""

    def __init__(
        self,
        film: Film,
        journal: Journal,
        told: Callable[[int], None],
        warn: Callable[[str], None],
        folder: Path | None,
        threads: int,
    ) -> None:
        self._film, self._journal, self._told, self._warn, self._folder = film, journal, told, warn, folder
        upscale = film.options.upscale
        self._options = replace(film.options, upscale=replace(upscale, threads=upscale.threads or threads))
        self._finished = {segment.first for segment in journal.segments()}
        self._counts: dict[int, int] = {}
        self._made = 0
        self._linear = False

    def work(self, workers: Workers, size: int) -> None:
        film = self._film
        with closing(ahead(film.decoder, lambda frames: pieces(frames, film.closes), size + 2)) as planned:
            lost = self._round(workers, (self._task(p) for p in planned if p.first not in self._finished), last=False)
            for attempt in range(2, ATTEMPTS + 1):
                lost = self._round(workers, lost, last=attempt == ATTEMPTS)

    def _round(self, workers: Workers, tasks: Iterable[MakePiece], *, last: bool) -> list[MakePiece]:
        """Have segments made.

        Returns:
            Those whose makers died, unless it is the last attempt: then that is an error.
        """
        given: dict[int, MakePiece] = {}
        lost: list[MakePiece] = []

        def jobs() -> Iterator[tuple[int, MakePiece]]:
            for task in tasks:
                first = task.piece.first
                given[first] = task
                self._part(first).unlink(missing_ok=True)
                yield first, task

        with closing(workers.run(jobs())) as outcomes:
            for first, outcome in outcomes:
                if isinstance(outcome, Failed) and outcome.lost and not last:
                    self._warn(f"{outcome.message}: frames from {first} on are made again")
                    self._count(first, 0)
                    lost.append(given.pop(first))
                    continue
                self._take(first, outcome)
                if not isinstance(outcome, Told):
                    del given[first]
        return lost

    def _task(self, piece: Piece) -> MakePiece:
        film = self._film
        return MakePiece(
            source=film.source.absolute(),
            container=film.container,
            options=self._options,
            job=film.job,
            info=film.decoder.info,
            origin=film.decoder.origin,
            piece=piece,
            linear=self._linear,
            folder=self._folder and self._folder.absolute(),
        )

    def _take(self, first: int, outcome: Outcome) -> None:
        match outcome:
            case Told(Frames(done)):
                self._count(first, done)
            case Told(Chunk(data)):
                self._receive(first, data)
            case Told(Uncut()):
                if not self._linear:
                    self._linear = True
                    self._warn("cannot be decoded from its middle on: each segment decodes all before it")
            case Told(str(line)):
                self._warn(line)
            case Done(Made() as made):
                upscaler = self._film.upscaler
                upscaler.reused += made.reused
                upscaler.mended += made.mended
                upscaler.replaced += made.replaced
                self._finish(first)
            case Done(Unfit(why)):
                raise OutputError(f"{self._film.source}: a worker would make other bits: {why}")
            case Failed(message, code, number):
                kind = UsageError if code == UsageError.exit_code else OutputError
                raise kind(message) from (OSError(number, os.strerror(number)) if number else None)

    def _count(self, first: int, done: int) -> None:
        self._made += done - self._counts.get(first, 0)
        self._counts[first] = done
        self._told(self._made)

    def _part(self, first: int) -> Path:
        return self._journal.folder / f".{segment_name(first)}.sent"

    def _receive(self, first: int, data: bytes) -> None:
        path = self._part(first)
        try:
            with path.open("ab") as file:
                file.write(data)
        except OSError as exc:
            raise OutputError.writing(path, exc) from exc

    def _finish(self, first: int) -> None:
        """A segment is whole: count it, and if it was sent, let the disk have it and give it its name."""
        path = self._journal.folder / segment_name(first)
        part = self._part(first)
        if part.exists():
            try:
                with part.open("rb+") as file:
                    os.fsync(file.fileno())
                move(part, path)
            except OSError as exc:
                raise OutputError.writing(path, exc) from exc
        try:
            self._count(first, Segment(path).frames)
        except InputError as exc:
            with suppress(OSError):
                path.unlink(missing_ok=True)
            raise OutputError(str(exc)) from exc

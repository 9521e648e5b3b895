"""File to file: a film is upscaled into segments, which are joined with everything else that the source holds.

`_film` plans the streams, opens the journal, has the missing segments made (`Film.fill`, or a `Crew` of processes) and
muxes. `_numbered` writes a picture for each frame instead, and `_still` does a single picture.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Protocol

from videosr.errors import InputError, OutputError, UsageError, VideosrError
from videosr.film import Film, TranscodeOptions, open_source
from videosr.frame import StreamInfo
from videosr.graph import Timing
from videosr.journal import Finished, Journal, fingerprint
from videosr.losses import Report, not_finite, written_of
from videosr.media.codecs import alpha_note, notes
from videosr.media.containers import container_format
from videosr.media.dolby import CONFIGURATION
from videosr.media.muxer import mux
from videosr.media.orientation import UPRIGHT, Orientation
from videosr.media.probe import DROP, plan_streams
from videosr.media.resize import Resizer, wanted_size
from videosr.media.stills.images import (
    check_image_size,
    image_losses,
    image_settings,
    picture_data_kept,
    without_idle_alpha,
    working_format,
    write_image,
)
from videosr.media.stills.numbered import RATE, Numbered
from videosr.media.stills.sequence import PictureFiles
from videosr.models import registry
from videosr.options import UpscaleOptions
from videosr.progress import Progress
from videosr.upscaler import Upscaler

__all__ = ["Crew", "Result", "TranscodeOptions", "transcode"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """What was made.

    Attributes:
        frames: video frames of the output.
        resumed: how many of them an earlier run had finished.
        reused: how many were repeats and not computed again.
        mended: how many were not finite at first, and were computed again in float32.
        replaced: how many were not finite in float32 either, and were interpolated (`--on-nan bicubic`).
        width: of the output.
        height: of the output.
        timings: where each thread's time went; empty where other processes did the work.
        warnings: what could not be kept, was guessed or repaired.
    """

    frames: int
    resumed: int
    reused: int
    mended: int
    replaced: int
    width: int
    height: int
    timings: tuple[Timing, ...]
    warnings: tuple[str, ...]


_last = threading.local()
"""The upscaler of the last picture of each thread, whose engine the next one takes, and what it was loaded for."""


class Crew(Protocol):
    """Makes a film's segments in other processes."""

    def fill(self, film: Film, journal: Journal, told: Callable[[int], None], warn: Callable[[str], None]) -> None:
        """Make all that the journal lacks, as `Film.fill` would, and add to the counts of the film's upscaler.

        Args:
            film: just opened.
            journal: of its output.
            told: is called with the number of frames made so far; may raise.
            warn: is told what goes wrong without ending the work.

        Raises:
            VideosrError: something could not be made.
        """


def transcode(
    source: str | Path,
    output: str | Path | Numbered,
    options: TranscodeOptions,
    progress: Progress,
    crew: Crew | None = None,
    permit: Callable[[], None] | None = None,
) -> Result:
    """Upscale a video file, or a still image, into a new file, or a video into numbered pictures.

    The output appears under its name only when it is complete; so does each of numbered pictures.

    Args:
        source: what PyAV can read.
        output: its suffix names the container.
        options: see `TranscodeOptions`.
        progress: is told of frames and warnings.
        crew: makes the segments; None: this process does, one after the other. The output is the same.
        permit: is called before anything is made and again before the output gets its name, and may raise; by default
            what is under that name then must not be there, or `options` say to replace it. Not for numbered pictures.

    Raises:
        VideosrError: see the tree in `errors`; nothing is left behind.
    """
    source = Path(source)
    if isinstance(output, Numbered):
        _check_paths(source, output.path)
        return _numbered(source, output, options, progress, crew)
    output = Path(output)
    container = container_format(output)
    _check_paths(source, output)
    permit = permit or partial(_check_free, output, options.overwrite)
    permit()
    if container == "image":
        return _still(source, output, options, progress, permit)
    return _film(source, output, container, options, progress, crew, permit)


def _film(
    source: Path,
    output: Path,
    container: str,
    options: TranscodeOptions,
    progress: Progress,
    crew: Crew | None,
    permit: Callable[[], None],
) -> Result:
    """Upscale frames into segments and join them with the other streams."""
    with Film(source, container, options) as film:
        plan = plan_streams(source, container, trimmed=options.trimmed)
        says = written_of(film.decoder, container)
        kept = film.riders.kinds | says.keys()
        alpha = alpha_note(film.settings, film.decoder.info)
        report = Report(progress, film.decoder, kept, options.strict, alpha)
        report.losses([*plan.losses, *notes(film.settings, film.decoder.info, film.decoder.hdr)])
        if film.decoder.numbered is not None and options.framerate is None:
            progress.note(f"the pictures are taken to be {RATE} a second; --framerate says otherwise")
        with _journal(film, output, progress) as journal:
            resumed = _fill(film, options, journal, report, progress, crew, lambda: report.losses([]))
            segments = journal.segments()
            # In the journal's folder, where the next run tidies up after one that was killed.
            paths = [segment.path for segment in segments]
            made = mux(
                paths,
                source,
                output,
                plan,
                trimmed=options.trimmed,
                matrix=film.decoder.display_matrix,
                says=says | ({CONFIGURATION: film.decoder.dolby} if film.riders.dolby else {}),
                folder=journal.folder,
                accept=report.losses,
                permit=permit,
            )
            report.warnings(made)
    return _result(film, film.coded, segments, resumed, report)


def _numbered(
    source: Path, output: Numbered, options: TranscodeOptions, progress: Progress, crew: Crew | None
) -> Result:
    """Upscale frames into a picture for each."""
    suffix = output.path.suffix.lower()
    with Film(source, suffix, options) as film:
        decoder = film.decoder
        coded = (Orientation.of(decoder.display_matrix) or UPRIGHT).info(film.coded)
        check_image_size(output.path, film.settings, coded.width, coded.height)
        report = Report(progress, decoder, picture_data_kept(film.settings, decoder.first_data), options.strict)
        report.losses([*plan_streams(source, "image").losses, *image_losses(suffix, film.settings, decoder.info)])
        first = decoder.first_number
        before = _in_the_way(source, output, first, film)
        with _journal(film, output.path, progress) as journal:
            files = PictureFiles(output, first, journal.folder)
            known = journal.segments()
            known_numbers = {first + at + n for at, frames, _ in known for n in range(frames)}
            if not options.overwrite and (others := [n for n in before if n not in known_numbers]):
                raise UsageError(f"{output.name(others[0])} exists; choose another name or give --overwrite")
            files.forget_missing(known)

            def written() -> None:
                files.write()
                report.losses([_UNEVEN] if files.uneven else [])

            resumed = _fill(film, options, journal, report, progress, crew, written)
            segments = journal.segments()
        end = first + sum(segment.frames for segment in segments)
        if behind := [number for number in before if number >= end]:
            report.warnings([f"{output.name(behind[0])} and what is behind it was there before, and stays"])
    return _result(film, coded, segments, resumed, report)


_UNEVEN = "how long each frame is shown is lost: that differs here, and numbered pictures have no times"


def _in_the_way(source: Path, output: Numbered, first: int, film: Film) -> list[int]:
    """The numbers of pictures that are there and are to be made.

    Raises:
        UsageError: one of them belongs to the source.
        OutputError: the output's folder cannot be looked into.
    """
    known = film.decoder.numbered is not None and film.expected is not None
    end = first + (film.expected or 0) if known else math.inf
    try:
        there = [number for number in output.there() if first <= number < end]
    except OSError as exc:
        raise OutputError.writing(output.path, exc) from exc
    own = {file.resolve() for file in ([source] if film.decoder.numbered is None else film.decoder.numbered.files())}
    if mixed := next((number for number in there if output.name(number).resolve() in own), None):
        raise UsageError(f"{output.name(mixed)} belongs to the input; choose another output")
    return there


def _fill(
    film: Film,
    options: TranscodeOptions,
    journal: Journal,
    report: Report,
    progress: Progress,
    crew: Crew | None,
    meanwhile: Callable[[], None],
) -> int:
    """Have all segments made that a journal lacks.

    Args:
        film: just opened.
        options: with which it was.
        journal: of its output.
        report: is told of what goes wrong.
        progress: is told of frames.
        crew: makes them; None: this process does.
        meanwhile: is called every now and then, and at the end; may raise.

    Returns:
        Frames that an earlier run had finished.

    Raises:
        VideosrError: something could not be made, there is nothing to make, or the source has changed.
    """
    resumed = sum(segment.frames for segment in journal.segments())
    _tell_choices(progress, options.upscale.model, film.upscaler, film.decoder.info, "video")
    progress.begin(film.expected, film.coded.rate, resumed)

    def told(made: int) -> None:
        progress.frames(resumed + made)
        meanwhile()  # of what begins in mid-film, such as captions, the user hears at once, not at the end

    if crew is None:
        film.fill(journal.gaps(), journal.folder, told)
    else:
        crew.fill(film, journal, told, progress.warning)
    meanwhile()
    report.warnings(not_finite(film.upscaler))
    if _changed(film):
        raise InputError(f"{film.source}: was changed or cut short while it was read; run again")
    if not journal.segments():
        raise InputError(f"{film.source}: no frame lies in the part that was asked for; it may be too short")
    return resumed


def _result(film: Film, shown: StreamInfo, segments: list[Finished], resumed: int, report: Report) -> Result:
    """What was made of a film; `shown` has the size of its pictures."""
    return Result(
        frames=sum(segment.frames for segment in segments),
        resumed=resumed,
        reused=film.upscaler.reused,
        mended=film.upscaler.mended,
        replaced=film.upscaler.replaced,
        width=shown.width,
        height=shown.height,
        timings=tuple(film.timings),
        warnings=tuple(report.said),
    )


def _tell_choices(progress: Progress, asked: str, upscaler: Upscaler, info: StreamInfo, what: str) -> None:
    """Tell which network was chosen for a video or picture, if that was left open, and why; and which engine."""
    if asked in registry.CHOICES:
        kind = "compressed" if info.compressed else "lossless or made for editing"
        why = "" if asked == registry.ANIME else f", as the {what} is {kind} ({info.codec})"
        progress.note(f"the network is {upscaler.options.model}{why}")
    progress.note(upscaler.chosen)


@contextmanager
def _journal(film: Film, output: Path, progress: Progress) -> Iterator[Journal]:
    """The output's journal; says so where it is kept for a next run.

    Raises:
        UsageError, OutputError: see `Journal`.
    """
    journal, ours = Journal(output, film.job, replace=film.options.overwrite), False
    try:
        with journal:
            ours = True
            try:
                yield journal
            except VideosrError:  # what a worker says of the source is an error of the output here
                if _changed(film):
                    journal.void()
                raise
    except BaseException:
        if ours and journal.kept:
            progress.warning("what is finished is kept: the same command goes on from there")
        raise


def _changed(film: Film) -> bool:
    """Whether the source has changed since it was opened; not if it cannot be read now, for it may come back."""
    try:
        return bool(fingerprint(film.source) != film.job["input"])
    except InputError:
        return False


def _still(
    source: Path, output: Path, options: TranscodeOptions, progress: Progress, permit: Callable[[], None]
) -> Result:
    """Upscale one picture into an image file."""
    with open_source(source, options) as decoder:
        frames = list(islice(decoder, 2))
        if not frames:
            raise InputError(f"{source}: no frame lies in the part that was asked for; it may be too short")
        if len(frames) > 1:
            raise UsageError(f"{source} is a video: give {output} a video suffix, or take one picture with --frames 1")
        frame = without_idle_alpha(frames[0])
        info = replace(decoder.info, format=frame.format)
        settings = image_settings(output.suffix.lower(), options.encoder, info)
        kept = picture_data_kept(settings, frame.side_data)
        report = Report(progress, decoder, kept, options.strict)
        report.losses([*image_losses(output.suffix.lower(), settings, info), *_other_pictures(source)])
        upscale = replace(options.upscaling(info), pix_fmt=working_format(settings).name)
        upscaler = _upscaler(upscale)
        _tell_choices(progress, options.upscale.model, upscaler, decoder.info, "picture")
        resizer, info = None, upscaler.output_info(info)
        if options.resized:
            resizer = Resizer(info, *wanted_size(info, options.width, options.height, multiple=1))
            info = resizer.info
        check_image_size(output, settings, info.width, info.height)
        (made,) = [*upscaler.process(frame), *upscaler.flush()]
        if resizer is not None:
            (made,) = resizer.process(made)
        permit()
        made = write_image(output, made, settings, decoder.display_matrix)
        report.warnings(not_finite(upscaler))
    return Result(
        frames=1,
        resumed=0,
        reused=0,
        mended=upscaler.mended,
        replaced=upscaler.replaced,
        width=made.width,
        height=made.height,
        timings=(),
        warnings=tuple(report.said),
    )


def _upscaler(options: UpscaleOptions) -> Upscaler:
    """An upscaler, with the engine of this thread's last picture if that is the same: loading takes longest."""
    network = Path(registry.find(options.model)).stat()
    key = replace(options, pix_fmt=None), network.st_mtime_ns, network.st_size
    if getattr(_last, "key", None) != key:
        _last.key = None
        _last.upscaler = None  # before the next one is loaded: on a GPU there may be no room for two
        _last.upscaler = Upscaler(key[0])
        _last.key = key
    loaded: Upscaler = _last.upscaler
    upscaler = Upscaler(replace(loaded.options, pix_fmt=options.pix_fmt), loaded.engine)
    upscaler.chosen = loaded.chosen
    return upscaler


def _other_pictures(source: Path) -> list[str]:
    """What an image does not keep of a file with several pictures, as bursts are; one line each."""
    return [str(plan) for plan in plan_streams(source, "image").streams if plan.type == "video" and plan.action == DROP]


def _check_free(output: Path, overwrite: bool) -> None:
    """Raises UsageError: the output exists and is not to be replaced."""
    if not overwrite and output.exists():
        raise UsageError(f"{output} exists; choose another name or give --overwrite")


def _check_paths(source: Path, output: Path) -> None:
    """Refuse at once what would fail, or destroy something, only at the end.

    Raises:
        UsageError: the output is the input, or is a folder.
        OutputError: its folder is not there, or its name is impossible.
    """
    try:
        if output.exists():
            if source.exists() and output.samefile(source):
                raise UsageError(f"{output} is the input itself; choose another output")
            if not output.is_file():
                raise UsageError(f"{output} is not a file; name the output file")
        if not output.absolute().parent.is_dir():
            raise OutputError(f"{output.absolute().parent}: there is no such folder; make it first")
    except OSError as exc:  # too long a name, a folder that may not be looked into
        if isinstance(exc, OutputError):
            raise
        raise OutputError.writing(output, exc) from exc

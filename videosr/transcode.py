"""File to file: a film is upscaled into segments, which are joined with everything else that the source holds.

`_film` plans the streams, opens the journal, has the missing segments made (`Film.fill`, or a `Crew` of processes) and
muxes. `_numbered` writes a picture for each frame instead, and `_still` does a single picture.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Protocol

from videosr.errors import InputError, OutputError, StrictError, UsageError, VideosrError
from videosr.film import Film, TranscodeOptions, open_source, riders_of
from videosr.frame import StreamInfo
from videosr.graph import Timing
from videosr.journal import Finished, Journal, fingerprint
from videosr.media.codecs import EncoderSettings, alpha_note, notes, output_info, resolve
from videosr.media.containers import container_format
from videosr.media.decoder import Decoder
from videosr.media.dolby import CONFIGURATION
from videosr.media.immersive import describable
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

__all__ = ["Crew", "Result", "TranscodeOptions", "picture_losses", "transcode"]


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
        says = _says(film.decoder, container)
        kept = film.riders.kinds | says.keys()
        alpha = alpha_note(film.settings, film.decoder.info)
        report = _Report(progress, film.decoder, kept, options.strict, alpha)
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
        report = _Report(progress, decoder, picture_data_kept(film.settings, decoder.first_data), options.strict)
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
    report: _Report,
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
    if options.upscale.model in registry.CHOICES:
        progress.note(_suited(options.upscale.model, film.upscaler, film.decoder.info, "video"))
    progress.note(film.upscaler.chosen)
    progress.begin(film.expected, film.coded.rate, resumed)

    def told(made: int) -> None:
        progress.frames(resumed + made)
        meanwhile()  # of what begins in mid-film, such as captions, the user hears at once, not at the end

    if crew is None:
        film.fill(journal.gaps(), journal.folder, told)
    else:
        crew.fill(film, journal, told, progress.warning)
    meanwhile()
    report.warnings(_not_finite(film.upscaler))
    if _changed(film):
        raise InputError(f"{film.source}: was changed or cut short while it was read; run again")
    if not journal.segments():
        raise InputError(f"{film.source}: no frame lies in the part that was asked for; it may be too short")
    return resumed


def _result(film: Film, shown: StreamInfo, segments: list[Finished], resumed: int, report: _Report) -> Result:
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


def _suited(asked: str, upscaler: Upscaler, info: StreamInfo, what: str) -> str:
    """Which network was chosen for a video or picture, and why."""
    if asked == registry.ANIME:
        return f"the network is {upscaler.options.model}"
    kind = "compressed" if info.compressed else "lossless or made for editing"
    return f"the network is {upscaler.options.model}, as the {what} is {kind} ({info.codec})"


@contextmanager
def _journal(film: Film, output: Path, progress: Progress) -> Iterator[Journal]:
    """The output's journal; says so where it is kept for a next run.

    Raises:
        UsageError, OutputError: see `Journal`.
    """
    journal = Journal(output, film.job, replace=film.options.overwrite)
    try:
        with journal:
            try:
                yield journal
            except VideosrError:  # what a worker says of the source is an error of the output here
                if _changed(film):
                    journal.void()
                raise
    except BaseException:
        if journal.kept:
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
        report = _Report(progress, decoder, kept, options.strict)
        report.losses([*image_losses(output.suffix.lower(), settings, info), *_other_pictures(source)])
        upscale = replace(options.upscaling(info), pix_fmt=working_format(settings).name)
        upscaler = _upscaler(upscale)
        if options.upscale.model in registry.CHOICES:
            progress.note(_suited(options.upscale.model, upscaler, decoder.info, "picture"))
        progress.note(upscaler.chosen)
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
        report.warnings(_not_finite(upscaler))
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


def picture_losses(source: Path, suffix: str) -> list[str]:
    """What would be lost of the picture, enlarged twice, by the default encoder for such an output: a line for each.

    Args:
        source: what PyAV can read; its first frame is decoded.
        suffix: of the output, "mkv" or "png" say.

    Raises:
        VideosrError: `source` has no picture, or there are no such outputs.
    """
    output = Path(f"output.{suffix.removeprefix('.').lower()}")
    container = container_format(output)
    with Decoder(source) as decoder:
        info = decoder.info
        if container == "image":
            frame = without_idle_alpha(next(iter(decoder)))
            info = replace(info, format=frame.format)
            settings = image_settings(output.suffix, EncoderSettings(), info)
            found, kept = image_losses(output.suffix, settings, info), picture_data_kept(settings, frame.side_data)
        else:
            doubled = replace(info, width=2 * info.width, height=2 * info.height)
            settings = resolve(EncoderSettings(), doubled, container, hdr=decoder.hdr)
            found = [*notes(settings, info, decoder.hdr), *alpha_note(settings, info)]
            riders = riders_of(decoder, settings, output_info(settings, doubled), container)
            kept = riders.kinds | _says(decoder, container).keys()
        return [*found, *(f"{what} cannot be kept" for what in decoder.losses(kept))]


def _not_finite(upscaler: Upscaler) -> list[str]:
    """What became of frames for which the network gave NaN or infinity."""
    counts = ((upscaler.mended, "computed again in f32"), (upscaler.replaced, "interpolated"))
    return [f"the network gave NaN or infinity for {n} frame{'s' * (n > 1)}: {how}" for n, how in counts if n]


def _says(decoder: Decoder, container: str) -> dict[str, bytes]:
    """What can be written into a film of views and surroundings."""
    return describable(decoder.views, container, turned=decoder.info.rotation != 0)


class _Report:
    """Tells each loss, guess and repair once; under `--strict` a loss is an error.

    Args:
        progress: is told.
        decoder: of the source.
        kept: the side data of frames that is written.
        strict: whether `--strict` is on.
        alpha: what to say once something is transparent.
    """

    def __init__(
        self, progress: Progress, decoder: Decoder, kept: frozenset[str], strict: bool, alpha: Sequence[str] = ()
    ) -> None:
        self._progress, self._decoder, self._kept, self._strict, self._alpha = progress, decoder, kept, strict, alpha
        self.said: list[str] = []

    def losses(self, found: list[str]) -> None:
        """Tell these losses, those that the decoder has met so far, and the decoder's warnings.

        Raises:
            StrictError: there is a loss that was not told before, and `--strict` is on.
        """
        found = [*found, *(f"{what} cannot be kept" for what in self._decoder.losses(self._kept))]
        if self._decoder.transparent:
            found += self._alpha
        new = [line for line in found if line not in self.said]
        if self._strict and new:
            raise StrictError(f"{self._decoder.name}: --strict forbids what would not be kept: {'; '.join(new)}")
        self.warnings([*new, *self._decoder.warnings])

    def warnings(self, found: list[str]) -> None:
        """Tell each line that is new."""
        for line in found:
            if line not in self.said:
                self.said.append(line)
                self._progress.warning(line)


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

"""File to file: decode, upscale, encode in segments, join them with everything else the source holds."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from fractions import Fraction
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from videosr import __version__
from videosr.errors import InputError, OutputError, StrictError, UsageError
from videosr.frame import Frame, StreamInfo
from videosr.graph import Graph, Stage, Timing
from videosr.journal import Journal, fingerprint
from videosr.media.codecs import EncoderSettings, notes, output_info, resolve
from videosr.media.containers import container_format
from videosr.media.decoder import Decoder
from videosr.media.deinterlace import Deinterlace, Plan, deinterlacing
from videosr.media.encoder import SegmentEncoder, library_versions
from videosr.media.fields import detect
from videosr.media.images import image_losses, image_settings, without_idle_alpha, working_format, write_image
from videosr.media.muxer import mux
from videosr.media.probe import plan_streams
from videosr.media.resize import Resizer, wanted_size
from videosr.media.segments import SegmentRule
from videosr.progress import Progress
from videosr.temporal import HISTORY
from videosr.upscaler import UpscaleOptions, Upscaler


@dataclass(frozen=True, kw_only=True, slots=True)
class TranscodeOptions:
    """What to make of a file.

    Attributes:
        upscale: how frames are upscaled.
        encoder: how the video is encoded; empty fields are chosen by the picture and the container.
        width: columns of the output; None follows the network, or `height`.
        height: rows of the output; None follows the network, or `width`.
        start: seconds into the source at which to begin.
        duration: seconds to take.
        frames: frames to take.
        deinterlace: what to do about interlaced video.
        field_rate: make a frame of each field of interlaced video, not of both.
        overwrite: replace an existing output, or an unfinished one made with other settings.
        strict: refuse rather than lose or convert anything.
    """

    upscale: UpscaleOptions = field(default_factory=UpscaleOptions)
    encoder: EncoderSettings = field(default_factory=EncoderSettings)
    width: int | None = None
    height: int | None = None
    start: Fraction | None = None
    duration: Fraction | None = None
    frames: int | None = None
    deinterlace: Deinterlace = Deinterlace.AUTO
    field_rate: bool = False
    overwrite: bool = False
    strict: bool = False

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises:
            UsageError: a negative start, nothing to take, or a size that is none.
        """
        if self.start is not None and self.start < 0:
            raise UsageError(f"--start {float(self.start):g} lies before the beginning")
        if self.duration is not None and self.duration <= 0:
            raise UsageError(f"--duration {float(self.duration):g} is not positive")
        if self.frames is not None and self.frames < 1:
            raise UsageError(f"--frames {self.frames} is not positive")
        if self.height is not None and self.width is None and self.height < 1:
            raise UsageError(f"--height {self.height} is not positive")
        if self.width is not None and min(self.width, self.height or 1) < 1:
            raise UsageError(f"--size {self.width}x{self.height} is not positive")
        if self.field_rate and self.deinterlace is Deinterlace.OFF:
            raise UsageError("--field-rate makes frames of fields: it needs --deinterlace auto or bwdif")

    @property
    def trimmed(self) -> bool:
        """Whether only a part of the source is taken."""
        return self.start is not None or self.duration is not None or self.frames is not None


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """What was made.

    Attributes:
        frames: video frames of the output.
        resumed: of them, those that an earlier run had finished.
        reused: of them, repeats that were not computed again.
        width: of the output.
        height: of the output.
        timings: where each thread's time went.
        warnings: what could not be kept, was guessed or repaired.
    """

    frames: int
    resumed: int
    reused: int
    width: int
    height: int
    timings: tuple[Timing, ...]
    warnings: tuple[str, ...]


class SegmentSink:
    """Encodes frames into segment files, closing one and opening the next where the rule says.

    Args:
        folder: where the files go.
        settings: resolved.
        info: of the coded stream.
        finished: segments that are there already, from the first on.
        lead: frames that come first and are in those: they only bring the upscaler into its stride.
    """

    def __init__(
        self, folder: Path, settings: EncoderSettings, info: StreamInfo, finished: list[Path], lead: int
    ) -> None:
        self._folder, self._settings, self._info, self._lead = folder, settings, info, lead
        self._rule = SegmentRule()
        self._encoder: SegmentEncoder | None = None
        self._frames = 0  # in the open segment
        self.segments = list(finished)

    def write(self, frame: Frame) -> None:
        """Encode a frame. Raises OutputError."""
        if self._lead:
            self._lead -= 1
            return
        if self._settings.segmented and self._encoder and self._rule.closes(self._frames, frame.scene_start):
            self.finish()
        if self._encoder is None:
            path = self._folder / f"{len(self.segments):06d}.seg"
            self._encoder = SegmentEncoder(path, self._settings, self._info)
            self.segments.append(path)
            self._frames = 0
        self._encoder.encode(frame)
        self._frames += 1

    def finish(self) -> None:
        """Close the open segment. Raises OutputError."""
        if self._encoder is not None:
            self._encoder.finish()
            self._encoder = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._encoder is not None:
            self._encoder.abort()


def transcode(source: Path, output: Path, options: TranscodeOptions, progress: Progress) -> Result:
    """Upscale a video file, or a still image, into a new file.

    The output appears under its name only when it is complete.

    Args:
        source: what PyAV can read.
        output: its suffix names the container.
        options: see `TranscodeOptions`.
        progress: is told of frames and warnings.

    Raises:
        VideosrError: see the tree in `errors`; nothing is left behind.
    """
    container = container_format(output)
    _check_paths(source, output, options.overwrite)
    if container == "image":
        return _still(source, output, options, progress)
    return _film(source, output, container, options, progress)


def _film(source: Path, output: Path, container: str, options: TranscodeOptions, progress: Progress) -> Result:
    """Upscale frames into segments and join them with the other streams."""
    with open_source(source, options) as decoder:
        plan = plan_streams(source, container)
        upscaler = Upscaler(options.upscale)
        info = upscaler.output_info(decoder.info)
        stages: list[tuple[str, Stage]] = []
        if options.width or options.height:
            # The upscaler gives the format the encoder takes, and the resampler works in that.
            width, height = wanted_size(info, options.width, options.height)
            info = Resizer(info, width, height).info
        settings = resolve(options.encoder, info, container, hdr=decoder.hdr)
        upscaler = Upscaler(replace(options.upscale, pix_fmt=settings.pix_fmt), upscaler.engine)
        coded = output_info(settings, info)
        stages.append(("upscale", upscaler))
        if options.width or options.height:
            stages.append(("resize", Resizer(upscaler.output_info(decoder.info), coded.width, coded.height)))
        report = _Report(progress, decoder, options.strict)
        report.losses([*plan.losses, *notes(settings, info, decoder.hdr)])

        with _journal(source, output, options, decoder.deinterlace, upscaler, settings, coded, progress) as journal:
            progress.begin(expected_frames(decoder.info, options), info.rate, journal.frames)
            # A frame depends on itself and the few before it, so the upscaler has to see only those again.
            lead = min(journal.frames, HISTORY)
            ahead = journal.frames - lead
            with SegmentSink(journal.folder, settings, coded, journal.segments, lead) as sink:
                graph = Graph(_after(decoder, ahead), stages, sink, progress=lambda n, _: progress.frames(ahead + n))
                graph.run()
            report.losses([])
            if not sink.segments:
                raise InputError(f"{source}: no frame lies in the part that was asked for; it may be too short")
            # In the journal's folder, where the next run tidies up after one that was killed.
            report.warnings(mux(sink.segments, source, output, plan, trimmed=options.trimmed, folder=journal.folder))
    return Result(
        frames=ahead + graph.timings[-1].frames,
        resumed=journal.frames,
        reused=upscaler.reused,
        width=coded.width,
        height=coded.height,
        timings=tuple(graph.timings),
        warnings=tuple(report.said),
    )


def _after(decoder: Decoder, count: int) -> Generator[Frame]:
    """The frames behind the first `count`. They are decoded all the same: that is quick, exact and always possible."""
    frames = iter(decoder)
    try:
        yield from islice(frames, count, None)
    finally:
        if isinstance(frames, Generator):
            frames.close()


@contextmanager
def _journal(
    source: Path,
    output: Path,
    options: TranscodeOptions,
    deinterlace: Plan | None,
    upscaler: Upscaler,
    settings: EncoderSettings,
    coded: StreamInfo,
    progress: Progress,
) -> Iterator[Journal]:
    """The output's journal; says so where it is kept for a next run.

    Raises:
        UsageError, OutputError: see `Journal`.
    """
    job: Mapping[str, Any] = {
        "videosr": __version__,
        "input": fingerprint(source),
        **{name: _text(getattr(options, name)) for name in ("start", "duration", "frames")},
        "deinterlace": _text(deinterlace),
        "size": f"{coded.width}x{coded.height}",
        **asdict(settings),
        "color": repr(coded.color),
        "upscaler": upscaler.identity,
        "encoders": library_versions(),
        "segments": asdict(SegmentRule()),
    }
    journal = Journal(output, job, replace=options.overwrite)
    try:
        with journal:
            yield journal
    except BaseException:
        if journal.kept:
            progress.warning("what is finished is kept: the same command goes on from there")
        raise


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def _still(source: Path, output: Path, options: TranscodeOptions, progress: Progress) -> Result:
    """Upscale one picture into an image file."""
    with open_source(source, options) as decoder:
        frames = list(islice(decoder, 2))
        if not frames:
            raise InputError(f"{source}: no frame lies in the part that was asked for; it may be too short")
        if len(frames) > 1:
            raise UsageError(f"{source} is a video: give {output} a video suffix, or take one picture with --frames 1")
        frame = without_idle_alpha(frames[0])
        info = replace(decoder.info, format=frame.format)
        settings = image_settings(output, options.encoder, info)
        report = _Report(progress, decoder, options.strict)
        report.losses(image_losses(output, settings, info))
        upscaler = Upscaler(replace(options.upscale, pix_fmt=working_format(settings).name))
        (made,) = [*upscaler.process(frame), *upscaler.flush()]
        if options.width or options.height:
            info = upscaler.output_info(info)
            (made,) = Resizer(info, *wanted_size(info, options.width, options.height)).process(made)
        made = write_image(output, made, settings, decoder.display_matrix)
    return Result(
        frames=1, resumed=0, reused=0, width=made.width, height=made.height, timings=(), warnings=tuple(report.said)
    )


def open_source(source: Path, options: TranscodeOptions) -> Decoder:
    """The frames that are to be upscaled.

    Raises:
        InputError: see `Decoder`.
    """
    wanted, why = deinterlacing(options.deinterlace, lambda: detect(source), double=options.field_rate)
    decoder = Decoder(source, start=options.start, duration=options.duration, frames=options.frames, deinterlace=wanted)
    if why:
        decoder.warnings.append(why)
    return decoder


class _Report:
    """Tells once what cannot be kept and what was guessed or repaired; refuses losses under `--strict`."""

    def __init__(self, progress: Progress, decoder: Decoder, strict: bool) -> None:
        self._progress, self._decoder, self._strict = progress, decoder, strict
        self.said: list[str] = []

    def losses(self, found: list[str]) -> None:
        """What would be lost, with what the decoder has met so far, and the decoder's warnings.

        Raises:
            StrictError: there is a loss that was not told before, and `--strict` is on.
        """
        found = [*found, *(f"{what} cannot be kept" for what in self._decoder.losses)]
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


def expected_frames(info: StreamInfo, options: TranscodeOptions) -> int | None:
    """Frames that will come, as far as the container says."""
    total = info.frames or None
    if total is None and info.duration and info.rate:
        total = round(info.duration * info.rate)
    if total and info.rate:
        total -= min(total, round((options.start or 0) * info.rate))
        if options.duration is not None:
            total = min(total, round(options.duration * info.rate))
    if options.frames is not None:
        total = min(total, options.frames) if total else options.frames
    return total


def _check_paths(source: Path, output: Path, overwrite: bool) -> None:
    """Refuse early what could only fail, or destroy something, late.

    Raises:
        UsageError: the output is the input, exists, or is a folder.
        OutputError: its folder is not there, or its name is impossible.
    """
    try:
        if output.exists():
            if source.exists() and output.samefile(source):
                raise UsageError(f"{output} is the input itself; choose another output")
            if not output.is_file():
                raise UsageError(f"{output} is not a file; name the output file")
            if not overwrite:
                raise UsageError(f"{output} exists; choose another name or give --overwrite")
        if not output.absolute().parent.is_dir():
            raise OutputError(f"{output.absolute().parent}: there is no such folder; make it first")
    except OSError as exc:  # too long a name, a folder that may not be looked into
        if isinstance(exc, OutputError):
            raise
        raise OutputError.writing(output, exc) from exc

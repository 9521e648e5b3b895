"""File to file: decode, upscale, encode in segments, join them with everything else the source holds."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Self

from videosr.errors import InputError, OutputError, StrictError, UsageError
from videosr.frame import Frame, StreamInfo
from videosr.graph import Graph, Stage, Timing
from videosr.media.codecs import EncoderSettings, notes, output_info, resolve
from videosr.media.containers import container_format
from videosr.media.decoder import Decoder
from videosr.media.encoder import SegmentEncoder
from videosr.media.images import image_settings, write_image
from videosr.media.muxer import mux
from videosr.media.probe import Plan, plan_streams
from videosr.media.resize import Resizer, wanted_size
from videosr.media.segments import SegmentRule
from videosr.progress import Progress
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
        overwrite: replace an existing output.
        strict: refuse rather than lose or convert anything.
    """

    upscale: UpscaleOptions = field(default_factory=UpscaleOptions)
    encoder: EncoderSettings = field(default_factory=EncoderSettings)
    width: int | None = None
    height: int | None = None
    start: Fraction | None = None
    duration: Fraction | None = None
    frames: int | None = None
    overwrite: bool = False
    strict: bool = False

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises:
            UsageError: a negative start, or nothing to take.
        """
        if self.start is not None and self.start < 0:
            raise UsageError(f"--start {float(self.start):g} lies before the beginning")
        if self.duration is not None and self.duration <= 0:
            raise UsageError(f"--duration {float(self.duration):g} is not positive")
        if self.frames is not None and self.frames < 1:
            raise UsageError(f"--frames {self.frames} is not positive")

    @property
    def trimmed(self) -> bool:
        """Whether only a part of the source is taken."""
        return self.start is not None or self.duration is not None or self.frames is not None


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """What was made.

    Attributes:
        frames: video frames written.
        reused: of them, repeats that were not computed again.
        width: of the output.
        height: of the output.
        timings: where each thread's time went.
        warnings: what could not be kept, was guessed or repaired.
    """

    frames: int
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
    """

    def __init__(self, folder: Path, settings: EncoderSettings, info: StreamInfo) -> None:
        self._folder, self._settings, self._info = folder, settings, info
        self._rule = SegmentRule()
        self._encoder: SegmentEncoder | None = None
        self._frames = 0  # in the open segment
        self.segments: list[Path] = []

    def write(self, frame: Frame) -> None:
        """Encode a frame. Raises OutputError."""
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
    window = {"start": options.start, "duration": options.duration, "frames": options.frames}
    with Decoder(source, **window) as decoder:  # type: ignore[arg-type]
        if container == "image":
            return _still(decoder, output, options, progress)
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
        lost = [*plan.losses, *decoder.losses, *notes(settings, info)]
        _report(lost, decoder.warnings, options.strict, source, progress)
        said = len(decoder.warnings)
        progress.begin(_expected(decoder.info, options), info.rate)

        with _segment_folder(output) as folder, SegmentSink(folder, settings, coded) as sink:
            graph = Graph(decoder, stages, sink, progress=lambda done, _: progress.frames(done))
            graph.run()
            later = [*decoder.warnings[said:], *_missed(decoder.losses, lost, options.strict, source)]
            later += _mux(sink.segments, source, output, plan, options.trimmed)
        for warning in later:
            progress.message(f"{source}: {warning}")
    return Result(
        frames=graph.timings[-1].frames,
        reused=upscaler.reused,
        width=coded.width,
        height=coded.height,
        timings=tuple(graph.timings),
        warnings=(*lost, *decoder.warnings[:said], *later),
    )


def _expected(info: StreamInfo, options: TranscodeOptions) -> int | None:
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


def _mux(segments: list[Path], source: Path, output: Path, plan: Plan, trimmed: bool) -> list[str]:
    if not segments:
        raise InputError(f"{source}: no frame to write in the part that was asked for")
    return mux(segments, source, output, plan, trimmed=trimmed)


def _report(lost: list[str], guessed: list[str], strict: bool, source: Path, progress: Progress) -> None:
    """Say before work starts what will not be kept as it is, or refuse."""
    if strict and lost:
        raise StrictError(f"{source}: --strict forbids what would not be kept: {'; '.join(lost)}")
    for line in (*lost, *guessed):
        progress.message(f"{source}: {line}")


def _missed(losses: list[str], known: list[str], strict: bool, source: Path) -> list[str]:
    """Losses that showed only while frames were read."""
    new = [line for line in losses if line not in known]
    if strict and new:
        raise StrictError(f"{source}: --strict forbids what would not be kept: {'; '.join(new)}")
    return new


def _still(decoder: Decoder, output: Path, options: TranscodeOptions, progress: Progress) -> Result:
    """Upscale the first frame into an image file."""
    frame = next(iter(decoder), None)
    if frame is None:
        raise InputError(f"{decoder.name}: no picture in the part that was asked for")
    if (decoder.info.frames > 1) and options.frames != 1:
        raise UsageError(
            f"{decoder.name} is a video: give {output} a video suffix, or take one picture with --frames 1"
        )
    settings = image_settings(output, options.encoder, decoder.info)
    upscaler = Upscaler(replace(options.upscale, pix_fmt=settings.pix_fmt))
    info = upscaler.output_info(decoder.info)
    (made,) = [*upscaler.process(frame), *upscaler.flush()]
    if options.width or options.height:
        resizer = Resizer(info, *wanted_size(info, options.width, options.height))
        (made,) = resizer.process(made)
        info = resizer.info
    for line in decoder.warnings:
        progress.message(f"{decoder.name}: {line}")
    write_image(output, made, settings)
    progress.frames(1)
    return Result(
        frames=1, reused=0, width=info.width, height=info.height, timings=(), warnings=tuple(decoder.warnings)
    )


def _check_paths(source: Path, output: Path, overwrite: bool) -> None:
    """Refuse early what could only fail, or destroy something, late.

    Raises:
        UsageError: the output is the input, or exists.
        OutputError: its folder is not there.
    """
    if output.exists():
        if source.exists() and output.samefile(source):
            raise UsageError(f"{output} is the input itself; choose another output")
        if output.is_dir():
            raise UsageError(f"{output} is a folder; name the output file")
        if not overwrite:
            raise UsageError(f"{output} exists; choose another name or give --overwrite")
    if not output.absolute().parent.is_dir():
        raise OutputError(f"{output.absolute().parent}: there is no such folder; make it first")


@contextmanager
def _segment_folder(output: Path) -> Iterator[Path]:
    """A folder beside the output, gone at the end."""
    try:
        folder = Path(tempfile.mkdtemp(prefix=f".{output.name}.", suffix=".segments", dir=output.absolute().parent))
    except OSError as exc:
        raise OutputError(f"{output.absolute().parent}: cannot write there: {exc.strerror}") from exc
    try:
        yield folder
    finally:
        with suppress(OSError):
            shutil.rmtree(folder)

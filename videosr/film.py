"""A video file opened for upscaling: everything its frames pass through, and how segments are made of them.

The way of a frame: decode -> upscale -> (download from the GPU) -> conform to one size and format -> (resize) ->
(recode colour) -> encode into a segment. Each step is a thread of a `Graph`.

A segment depends on its own frames and the few before them, so segments may be made in any order, in any process and
on any machine, with the same bits, as long as `Film.job` is the same there.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import asdict, dataclass, field, replace
from fractions import Fraction
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from videosr import __version__, machine
from videosr.download import Download
from videosr.errors import UsageError
from videosr.frame import Frame, StreamInfo
from videosr.graph import Graph, Stage, Timing
from videosr.journal import Gap, fingerprint, segment_name
from videosr.media.codecs import EncoderSettings, canonical_name, output_info, resolve
from videosr.media.conform import Conformer
from videosr.media.containers import IMAGES
from videosr.media.decoder import Decoder
from videosr.media.deinterlace import Deinterlace, Plan, deinterlacing
from videosr.media.dolby import Fit, carried
from videosr.media.encoder import SegmentEncoder, library_versions
from videosr.media.encoders import NVENC
from videosr.media.fields import Fields, detect
from videosr.media.limits import DEFAULT_MAX_PIXELS
from videosr.media.nvenc import takes_gpu_frames
from videosr.media.resize import Resizer, wanted_size
from videosr.media.riders import Riders
from videosr.media.segments import SegmentRule
from videosr.media.stills.images import image_settings, working_format
from videosr.media.stills.numbered import RATE
from videosr.media.stills.sequence import RUN, PictureEncoder
from videosr.options import UpscaleOptions
from videosr.temporal import HISTORY
from videosr.upscaler import Upscaler


@dataclass(frozen=True, kw_only=True, slots=True)
class TranscodeOptions:
    """What to make of a file.

    Attributes:
        upscale: how frames are upscaled.
        encoder: how the video is encoded; empty fields are chosen by the picture and the container.
        width: columns of the output as it is shown; None follows the network, or `height`.
        height: rows of the output as it is shown; None follows the network, or `width`.
        start: seconds into the source at which to begin.
        duration: seconds to take.
        frames: frames to take.
        framerate: of numbered pictures, frames a second; None: `numbered.RATE`.
        deinterlace: what to do about interlaced video.
        field_rate: make a frame of each field of interlaced video, not of both.
        segments: where the work is cut into pieces that are encoded apart.
        max_pixels: pictures of the source with more are refused before memory is asked for.
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
    framerate: Fraction | None = None
    deinterlace: Deinterlace = Deinterlace.AUTO
    field_rate: bool = False
    segments: SegmentRule = field(default_factory=SegmentRule)
    max_pixels: int = DEFAULT_MAX_PIXELS
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
        if self.framerate is not None and not Fraction(1, 100) <= self.framerate <= 300:
            raise UsageError(f"--framerate {float(self.framerate):g} is not from 0.01 to 300")
        if self.frames is not None and self.frames < 1:
            raise UsageError(f"--frames {self.frames} is not positive")
        if self.height is not None and self.width is None and self.height < 1:
            raise UsageError(f"--height {self.height} is not positive")
        if self.width is not None and min(self.width, self.height or 1) < 1:
            raise UsageError(f"--size {self.width}x{self.height} is not positive")
        if self.max_pixels < 1:
            raise UsageError(f"--max-pixels {self.max_pixels} is not positive")
        if self.field_rate and self.deinterlace in (Deinterlace.OFF, Deinterlace.FILM):
            raise UsageError("--field-rate makes frames of fields: it needs --deinterlace auto or bwdif")

    @property
    def trimmed(self) -> bool:
        """Whether only a part of the source is taken."""
        return self.start is not None or self.duration is not None or self.frames is not None

    @property
    def resized(self) -> bool:
        """Whether the output's size is given."""
        return bool(self.width or self.height)

    def upscaling(self, info: StreamInfo) -> UpscaleOptions:
        """How a certain source is upscaled (see `UpscaleOptions.of`).

        Raises:
            UsageError: the output would be too large or too small.
        """
        size = wanted_size(info, self.width, self.height, multiple=1) if self.resized else None
        return self.upscale.of(info, size)


def riders_of(decoder: Decoder, settings: EncoderSettings, coded: StreamInfo, container: str) -> Riders:
    """Which side data of a source's frames (captions, HDR10+, Dolby Vision) an output stream repeats in its pictures.

    Args:
        decoder: of the source.
        settings: of the output's encoder, resolved.
        coded: describes the output stream.
        container: FFmpeg's name of the muxer.
    """
    codec = canonical_name(settings.codec)
    across, down = Fraction(coded.width, decoder.info.width), Fraction(coded.height, decoder.info.height)
    fit = Fit(across, down, decoder.cropped)
    return Riders(codec, fit, carried(decoder.dolby, container, codec, coded.format.bits))


class SegmentSink:
    """Encodes frames into segment files, closing one and opening the next where the rule says.

    Args:
        folder: where the files go.
        film: whose frames they are.
        first: the number of the first frame.
    """

    def __init__(self, folder: Path, film: Film, first: int) -> None:
        self._folder, self._film, self._next = folder, film, first
        self._encoder: SegmentEncoder | PictureEncoder | None = None
        self._frames = 0  # in the open segment

    def write(self, frame: Frame) -> None:
        """Encode a frame. Raises OutputError."""
        if self._encoder is not None and self._film.closes(self._frames, frame.scene_start):
            self.finish()
        if self._encoder is None:
            self._encoder = self._film.encoder(self._folder / segment_name(self._next))
            self._frames = 0
        self._encoder.encode(frame)
        self._frames += 1
        self._next += 1

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


class Film:
    """A video file that is being upscaled. To be closed, by `with` or by `close`.

    Args:
        source: what PyAV can read.
        container: of the output, by FFmpeg's name; or the suffix of numbered pictures (`sequence`).
        options: what to make of it.

    Attributes:
        source: the file.
        container: of the output.
        options: as given, with the network, engine and device that were chosen where they say "auto".
        pictures: whether the output is numbered pictures.
        decoder: gives the frames that are to be upscaled.
        upscaler: enlarges them, into the encoder's pixel format.
        settings: of the encoder, with nothing left open.
        coded: describes the stream that is encoded.
        riders: which side data of the frames the encoded pictures repeat.
        job: everything that the output's bits depend on, as flat JSON values.
        timings: where each thread's time has gone.

    Raises:
        VideosrError: the file, the network or the encoder cannot be used.
    """

    def __init__(self, source: Path, container: str, options: TranscodeOptions) -> None:
        self.source, self.container, self.options = source, container, options
        self.pictures = container in IMAGES
        self.timings: list[Timing] = []
        self.decoder = open_source(source, options)
        try:
            self._prepare()
        except BaseException:
            self.decoder.close()
            raise

    def _prepare(self) -> None:
        options = self.options
        upscaler = Upscaler(options.upscaling(self.decoder.info))
        self.options = options = replace(options, upscale=upscaler.options)  # other processes must choose the same
        device = upscaler.engine.device
        if device is not None and self.decoder.deinterlace is None:
            self.decoder.close()
            self.decoder = open_on_gpu(self.decoder, options, device.index)
        decoder = self.decoder
        info = upscaler.output_info(decoder.info)
        if options.resized:
            size = wanted_size(info, options.width, options.height, multiple=1 if self.pictures else 2)
            info = Resizer(info, *size).info
        self.settings: EncoderSettings
        if self.pictures:
            self.settings = image_settings(self.container, options.encoder, decoder.info)
            pix_fmt = working_format(self.settings).name
        else:
            self.settings = resolve(options.encoder, info, self.container, hdr=decoder.hdr)
            pix_fmt = self.settings.pix_fmt
        # Only now the encoder's pixel format is known: the upscaler makes that, with the engine that is loaded.
        self.upscaler = Upscaler(replace(options.upscale, pix_fmt=pix_fmt), upscaler.engine)
        self.upscaler.chosen = upscaler.chosen
        made = self.upscaler.output_info(decoder.info)
        self.coded: StreamInfo
        if self.pictures:
            self.coded = replace(info, format=made.format, color=made.color)
        else:
            self.coded = output_info(self.settings, info)
        self.riders = riders_of(decoder, self.settings, self.coded, self.container)
        self._stages = self._between(made)
        self.job = self._job()

    def _between(self, made: StreamInfo) -> list[tuple[str, Stage]]:
        """The stages between decoder and encoder, by name; `made` describes the frames that the upscaler gives."""
        device, coded = self.upscaler.engine.device, self.coded
        stages: list[tuple[str, Stage]] = [("upscale", self.upscaler)]
        if device is not None and (self.options.resized or not takes_gpu_frames(self.settings, coded)):
            stages.append(("download", Download(device)))
        stages.append(("conform", Conformer(made)))
        if self.options.resized:
            stages.append(("resize", Resizer(made, coded.width, coded.height)))
        if coded.color != made.color:
            stages.append(("recode", Conformer(coded)))
        return stages

    def _job(self) -> dict[str, Any]:
        """See `job`."""
        options, device = self.options, self.upscaler.engine.device
        return {
            "videosr": __version__,
            "input": fingerprint(self.source),
            **{name: _text(getattr(options, name)) for name in ("start", "duration", "frames", "framerate")},
            "deinterlace": _text(self.decoder.deinterlace),
            "size": f"{self.coded.width}x{self.coded.height}",
            **asdict(self.settings),
            "color": repr(self.coded.color),
            "upscaler": self.upscaler.identity,
            "encoders": library_versions() + (f", {device.gpu}" if device and self.settings.codec in NVENC else ""),
            "numpy": machine.numpy_build(),
            "cpu": machine.instruction_sets(),
            "segments": asdict(options.segments),
        }

    @property
    def expected(self) -> int | None:
        """Frames that will come, as far as the container says."""
        return expected_frames(self.decoder.info, self.options)

    def encoder(self, segment: Path) -> SegmentEncoder | PictureEncoder:
        """What makes a segment of consecutive frames. Raises OutputError."""
        if self.pictures:
            return PictureEncoder(segment, self.settings, self.coded, self.decoder.display_matrix)
        return SegmentEncoder(segment, self.settings, self.coded, self.riders)

    def closes(self, frames: int, cut: bool) -> bool:
        """Whether a segment of so many frames closes before the next one (`SegmentRule.closes`)."""
        if self.pictures:
            return frames >= RUN
        return self.settings.segmented and self.options.segments.closes(frames, cut)

    def fill(self, gaps: Iterable[Gap], folder: Path, told: Callable[[int], None]) -> None:
        """Make the segments of some gaps, in one pass over the file. Only once: it uses the decoder's frames up.

        Args:
            gaps: in order.
            folder: where segments go.
            told: is called with the number of frames made so far.

        Raises:
            VideosrError: something could not be made; whole segments stay.
        """
        gaps = list(gaps)
        if self.upscaler.sequential:
            gaps = [Gap(gaps[0].first, None)]  # its state comes from the beginning and cannot be taken up later
        source = iter(self.decoder)
        recent: deque[Frame] = deque(maxlen=HISTORY)
        at = made = 0

        def frames() -> Iterator[Frame]:
            for frame in source:
                recent.append(frame)
                yield frame

        passing = frames()
        try:
            for gap in gaps:
                # Frames of finished segments are decoded too: unlike seeking, that always gives the same frames.
                for frame in islice(passing, gap.first - at):
                    if self.upscaler.sequential:
                        self.upscaler.remember(frame)
                count = None if gap.end is None else gap.end - gap.first
                made += self.make(recent, islice(passing, count), gap.first, folder, _beyond(made, told))
                at = gap.end or 0
        finally:
            if isinstance(source, Generator):
                source.close()

    def make(
        self,
        before: Iterable[Frame],
        frames: Iterable[Frame],
        first: int,
        folder: Path,
        told: Callable[[int], None],
    ) -> int:
        """Make segments of consecutive frames, the first of which begins one.

        Args:
            before: the `HISTORY` frames before those, or as many as there are.
            frames: the frames.
            first: the number of the first one.
            folder: where the segments go.
            told: is called with the number of frames made so far.

        Returns:
            The number of frames.

        Raises:
            VideosrError: something could not be made; whole segments stay.
        """
        if not self.upscaler.sequential:
            for frame in before:
                self.upscaler.remember(frame)
        with SegmentSink(folder, self, first) as sink:
            graph = Graph(frames, self._stages, sink, progress=told)
            graph.run()
        self.timings = [a + b for a, b in zip(self.timings, graph.timings, strict=False)] or graph.timings
        return graph.timings[-1].frames

    def close(self) -> None:
        """Release the file."""
        self.decoder.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def _beyond(made: int, told: Callable[[int], None]) -> Callable[[int], None]:
    """`told`, for a count that begins at 0 after `made` frames."""
    return lambda frames: told(made + frames)


def open_source(source: Path, options: TranscodeOptions) -> Decoder:
    """Open the frames that are to be upscaled, deinterlaced if they have to be.

    Raises:
        InputError: see `Decoder`.
        UsageError: a frame rate is given of what has one.
    """

    def fields() -> Fields:
        return detect(source, max_pixels=options.max_pixels)

    plan, why = deinterlacing(options.deinterlace, fields, double=options.field_rate)
    decoder = _decoder(source, options, plan)
    if options.framerate is not None and decoder.numbered is None:
        decoder.close()
        raise UsageError(f"--framerate is for numbered pictures: {source} says itself when its frames are shown")
    if why:
        decoder.warnings.append(why)
    return decoder


def open_on_gpu(decoder: Decoder, options: TranscodeOptions, index: int) -> Decoder:
    """Open the same frames again, to be decoded on a GPU as far as that is possible.

    Args:
        decoder: on the CPU, closed; it does not deinterlace.
        options: with which it was opened.
        index: of the GPU, as CUDA counts.

    Raises:
        InputError: see `Decoder`.
    """
    opened = _decoder(decoder.name, options, device=index)
    opened.warnings[:0] = [line for line in decoder.warnings if line not in opened.warnings]
    return opened


def _decoder(
    source: str | Path, options: TranscodeOptions, deinterlace: Plan | None = None, device: int | None = None
) -> Decoder:
    return Decoder(
        source,
        start=options.start,
        duration=options.duration,
        frames=options.frames,
        rate=options.framerate or RATE,
        deinterlace=deinterlace,
        max_pixels=options.max_pixels,
        follow=not options.strict,
        device=device,
    )


def expected_frames(info: StreamInfo, options: TranscodeOptions) -> int | None:
    """How many frames will come, as far as the container says."""
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


def _text(value: object) -> str | None:
    return None if value is None else str(value)

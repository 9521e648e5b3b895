"""Measuring on video: a clip is made smaller, perhaps compressed, enlarged again and compared with itself.

Everything streams: a few frames are held at a time, however long the clip is.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import chain, islice
from pathlib import Path

import av
import av.error
import numpy as np
from av.video.stream import VideoStream
from numpy.typing import NDArray

from videosr import color, metrics
from videosr.errors import EngineError, InputError, OutputError
from videosr.evaluate.images import list_images, read_image
from videosr.evaluate.temporal import flicker, motion_error
from videosr.evaluate.vmaf import Vmaf, available
from videosr.frame import ColorSpec, Frame, Matrix, PixelFormat, Range, Siting
from videosr.media.decoder import Decoder
from videosr.media.planes import PlaneReader, to_av_frame

type Enlarge = Callable[[Iterable[Frame]], Iterator[Frame]]
"""Frames in, as many larger frames out, in order; some may come late."""

FORMATS = frozenset(f"yuv{sub}p{bits}" for sub in ("420", "422", "444") for bits in ("", "10le"))
"""Pixel formats that x264 and libvmaf both take."""
SEQUENCE = ColorSpec(matrix=Matrix.BT709, range=Range.LIMITED, siting=Siting.LEFT)
"""The colour that a folder of images is given as a video: 8 bit 4:2:0."""
PSNR_LIMIT = 100.0
"""An exact frame counts as so many dB, so that one black frame does not make a mean infinite."""
SMALLEST = 64
"""Pixels a side under which VMAF and SSIM have no meaning."""
_RATE = 25


@dataclass(frozen=True, kw_only=True, slots=True)
class VideoScores:
    """How close an enlarged clip came to its original.

    Attributes:
        clip: its name.
        model: what enlarged it.
        crf: of x264, at which the small clip was compressed; None for not at all.
        frames: how many were measured.
        psnr: dB, (6 Y + Cb + Cr) / 8.
        psnr_y: dB, mean of the frames, as the next two.
        psnr_cb: of the subsampled plane.
        psnr_cr: likewise.
        ssim_y: SSIM of the luma.
        vmaf: 0..100, None where FFmpeg was built without libvmaf.
        vmaf_neg: by the model that gives nothing for sharpening.
        flicker: code values of 8 bits (see `temporal.flicker`), None where nothing stands still.
        motion: pixels (see `temporal.motion_error`), None where nothing can be followed.
    """

    clip: str
    model: str
    crf: float | None
    frames: int
    psnr: float
    psnr_y: float
    psnr_cb: float
    psnr_cr: float
    ssim_y: float
    vmaf: float | None
    vmaf_neg: float | None
    flicker: float | None
    motion: float | None


class Reference:
    """The frames that everything is compared with, as often as they are needed.

    Args:
        path: a clip, or a folder whose images are its frames.
        scale: the frames are cropped, at the bottom and the right, to whole chroma samples of the small clip.
        frames: take no more than so many.

    Raises:
        InputError: it cannot be read, is not Y'CbCr of 8 or 10 bits, or is too small.
    """

    def __init__(self, path: str | Path, scale: int, frames: int | None = None) -> None:
        self.path, self.scale, self.limit = Path(path), scale, frames
        first = next(iter(self.frames()), None)
        if first is None:
            raise InputError(f"{path}: has no frame")
        self.format = first.format

    @property
    def name(self) -> str:
        """File or folder name."""
        return self.path.resolve().name

    def frames(self) -> Iterator[Frame]:
        """The frames, numbered from 0."""
        source = _images(self.path) if self.path.is_dir() else _decoded(self.path)
        for number, frame in enumerate(islice(source, self.limit)):
            yield replace(self._cropped(frame), pts=number, time_base=Fraction(1, _RATE), duration=1, side_data=())

    def _cropped(self, frame: Frame) -> Frame:
        fmt = frame.format
        fmt = PixelFormat.of(fmt.family, fmt.bits, fmt.log2_w, fmt.log2_h)  # without alpha
        if fmt.name not in FORMATS:
            raise InputError(
                f"{self.path}: {fmt.name} is not measured: convert it to one of {', '.join(sorted(FORMATS))}; "
                "pictures are measured where their folder is named"
            )
        down, across = self.scale << fmt.log2_h, self.scale << fmt.log2_w
        height, width = frame.height // down * down, frame.width // across * across
        if min(height, width) < SMALLEST * self.scale:
            size, least = f"{frame.width}x{frame.height}", SMALLEST * self.scale
            raise InputError(f"{self.path}: {size} is too small to measure: {least} pixels a side are needed")
        sizes = [fmt.plane_shape(i, height, width) for i in range(3)]
        planes = tuple(np.ascontiguousarray(p[:h, :w]) for p, (h, w) in zip(frame.planes, sizes, strict=False))
        return frame.with_planes(planes, fmt)


def _decoded(path: Path) -> Iterator[Frame]:
    with Decoder(path) as decoder:
        yield from decoder


def _images(folder: Path) -> Iterator[Frame]:
    fmt = PixelFormat.parse("yuv420p")
    for path in list_images(folder):
        rgb = read_image(path).astype(np.float32).transpose(2, 0, 1) / 255
        planes = color.from_rgb(rgb, fmt, SEQUENCE, dither=False)
        yield Frame(planes=planes, format=fmt, pts=0, time_base=Fraction(1, _RATE), color=SEQUENCE)


def shrink(frame: Frame, scale: int) -> Frame:
    """A frame made smaller by antialiased bicubic (`metrics.imresize`), every plane by itself, chroma by its siting.

    Args:
        frame: sizes whole multiples of `scale` chroma samples.
        scale: whole factor.
    """
    return _resized(frame, 1 / scale)


def bicubic_video(scale: int) -> Enlarge:
    """The baseline: every plane by bicubic interpolation (a = -0.5), chroma by its siting."""
    return lambda frames: (_resized(frame, scale) for frame in frames)


def _resized(frame: Frame, ratio: float) -> Frame:
    fmt = frame.format
    factors = 1 << fmt.log2_h, 1 << fmt.log2_w
    across, down = color.siting_offsets(frame.color.siting, factors[1], factors[0])
    # A chroma sample lies so many luma samples behind the first of its own, which are 1 / ratio times as wide after
    # resizing: relative to the middle of them, where `imresize` puts it, it moves.
    middle = [(offset + 0.5) / factor - 0.5 for offset, factor in zip((down, across), factors, strict=True)]
    shift = (1 / ratio - 1) * middle[0], (1 / ratio - 1) * middle[1]
    planes = []
    for i, plane in enumerate(frame.planes):
        values = metrics.imresize(plane.astype(np.float32), ratio, shift=shift if i else (0.0, 0.0))
        planes.append(color.quantise(values, fmt, dither=False))
    return frame.with_planes(tuple(planes))


def recoded(frames: Iterable[Frame], crf: float, path: Path) -> Callable[[], Iterator[Frame]]:
    """Compress frames by x264 (preset medium, one thread, so that it gives the same bits anywhere).

    Args:
        frames: in one of `FORMATS`, numbered by pts.
        crf: x264's constant quality.
        path: the file to write, Matroska.

    Returns:
        What reads them back, as often as it is called; colour and times are those of `frames`.

    Raises:
        OutputError: x264 refuses them.
    """
    kept: list[Frame] = []
    try:
        with av.open(str(path), "w", format="matroska") as container:
            stream: VideoStream | None = None
            for frame in frames:
                if stream is None:
                    kept.append(frame)
                    stream = container.add_stream("libx264", rate=_RATE, options={"crf": f"{crf:g}"})
                    stream.width, stream.height, stream.pix_fmt = frame.width, frame.height, frame.format.name
                    stream.codec_context.thread_count = 1
                picture = to_av_frame(frame.planes, frame.format)
                picture.pts, picture.time_base = frame.pts, frame.time_base
                container.mux(stream.encode(picture))
            if stream is not None:
                container.mux(stream.encode())
    except av.error.FFmpegError as exc:
        raise OutputError(f"x264 at CRF {crf:g}: {exc.strerror}") from exc

    def read() -> Iterator[Frame]:
        reader, first = PlaneReader(), kept[0]
        with av.open(str(path)) as container:
            for number, picture in enumerate(container.decode(video=0)):
                yield replace(first, planes=reader.read(picture, first.format), pts=number)

    return read


def evaluate_video(
    reference: Reference, models: Mapping[str, Enlarge], crfs: Sequence[float | None] = (None,)
) -> Iterator[VideoScores]:
    """Measure several ways to enlarge one clip.

    Args:
        reference: the original.
        models: by the names they get in the result.
        crfs: how the small clip is compressed by x264 before it is enlarged; None for not at all.

    Yields:
        each model's scores for the first CRF, then for the next.

    Raises:
        EngineError: a model returned other sizes, formats or numbers of frames.
        OutputError: x264 failed.
    """
    with tempfile.TemporaryDirectory(prefix="videosr-evaluate-") as folder:
        for crf in crfs:

            def small() -> Iterator[Frame]:
                return (shrink(frame, reference.scale) for frame in reference.frames())

            source = small if crf is None else recoded(small(), crf, Path(folder) / f"{crf:g}.mkv")
            for model, enlarge in models.items():
                yield compare(enlarge(source()), reference.frames(), clip=reference.name, model=model, crf=crf)


def compare(
    shown: Iterable[Frame], originals: Iterable[Frame], *, clip: str = "", model: str = "", crf: float | None = None
) -> VideoScores:
    """Measure frames against their originals, of the same number, size and format.

    Raises:
        EngineError: they are not.
    """
    rows: list[list[float]] = []
    restless: list[float | None] = []
    strayed: list[float | None] = []
    before: tuple[NDArray[np.float32], NDArray[np.float32]] | None = None
    frames, truth = iter(shown), iter(originals)
    first = next(truth, None)
    if first is None:
        raise InputError(f"{clip}: has no frame")
    with Vmaf(first.width, first.height, first.format) if available() else nullcontext() as vmaf:
        for original in chain((first,), truth):
            frame = next(frames, None)
            if frame is None:
                raise EngineError(f"{clip}: {model} returned only {len(rows)} frames")
            _check(frame, original, f"{clip}: {model}")
            rows.append(_of_frame(frame, original))
            if vmaf is not None:
                vmaf.add(frame, original)
            now = _luma(frame), _luma(original)
            if before is not None:
                pairs = (before[0], now[0]), (before[1], now[1])
                restless.append(flicker(*pairs))
                strayed.append(motion_error(*pairs))
            before = now
        if next(frames, None) is not None:
            raise EngineError(f"{clip}: {model} returned more than the {len(rows)} frames there are")
        seen = vmaf.result() if vmaf is not None else (None, None)
    y, cb, cr, ssim = (float(x) for x in np.mean(rows, axis=0))
    return VideoScores(
        clip=clip,
        model=model,
        crf=crf,
        frames=len(rows),
        psnr=(6 * y + cb + cr) / 8,
        psnr_y=y,
        psnr_cb=cb,
        psnr_cr=cr,
        ssim_y=ssim,
        vmaf=seen[0],
        vmaf_neg=seen[1],
        flicker=_mean(restless),
        motion=_mean(strayed),
    )


def _mean(values: Sequence[float | None]) -> float | None:
    """Of those that there are."""
    found = [value for value in values if value is not None]
    return float(np.mean(found)) if found else None


def _check(frame: Frame, original: Frame, what: str) -> None:
    for name, got, wanted in (
        ("size", (frame.width, frame.height), (original.width, original.height)),
        ("format", frame.format.name, original.format.name),
        ("frame", frame.pts, original.pts),
    ):
        if got != wanted:
            raise EngineError(f"{what} returned {name} {got} instead of {wanted}")


def _of_frame(frame: Frame, original: Frame) -> list[float]:
    """PSNR of the three planes and SSIM of the luma."""
    peak = float((1 << original.format.bits) - 1)
    pairs = list(zip(frame.planes, original.planes, strict=True))
    values = [min(metrics.psnr(a, b, peak=peak), PSNR_LIMIT) for a, b in pairs]
    return [*values, metrics.ssim(*pairs[0], peak=peak)]


def _luma(frame: Frame) -> NDArray[np.float32]:
    """In 8-bit code values."""
    luma: NDArray[np.float32] = frame.planes[0].astype(np.float32) * np.float32(2.0 ** (8 - frame.format.bits))
    return luma

"""Scenes of two films: pictures of both at the same moments, and what was measured there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from videosr import color, scenes
from videosr.errors import InputError
from videosr.evaluate.video import FORMATS, SEQUENCE, SMALLEST, VideoScores
from videosr.evaluate.video import compare as measure
from videosr.frame import Frame, Matrix, PixelFormat, Range, StreamInfo
from videosr.media.decoder import Decoder
from videosr.media.dolby import is_nothing_else
from videosr.media.orientation import UPRIGHT, Orientation
from videosr.media.rescale import Rescaler
from videosr.media.resize import Resizer

RUN = 8
"""Consecutive frames that are measured of each scene."""
SHORTEST = 12
"""Frames that a scene must have to be shown."""
SHOWN = 1920, 1080
"""Columns and rows of a picture that are shown at most; of a larger one, the part where the films differ most."""
SHAPES = 0.02
"""Films whose aspect ratios differ by more than this share are of different shapes."""
RATES = 0.002
"""Films whose frame rates differ by more than this share have other frames."""
ROUNDED = Fraction(1, 50)
"""Seconds that a frame may come late because its film's times are rounded, or begin otherwise."""

type Picture = NDArray[np.uint8]
"""(H, W, 3) R'G'B'."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """A moment of two films.

    Attributes:
        time: seconds from the first frame.
        pictures: of the films and, if there is one, the reference; all of one size.
        corner: row and column of the shown part.
    """

    time: Fraction
    pictures: tuple[Picture, ...]
    corner: tuple[int, int]

    @property
    def difference(self) -> float:
        """Mean absolute difference of the first two, in code values of 8 bits."""
        a, b = (p.astype(np.int16) for p in self.pictures[:2])
        return float(np.abs(a - b).mean())


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """What two films have come to.

    Attributes:
        names: of the films, and of the reference if there is one.
        infos: of the same.
        size: columns and rows that all were brought to.
        samples: in the order of time.
        scores: of both films against the reference; without one, of the second against the first.
        notes: what was done to make them comparable, and why something is lacking; one line each.
    """

    names: tuple[str, ...]
    infos: tuple[StreamInfo, ...]
    size: tuple[int, int]
    samples: tuple[Sample, ...]
    scores: tuple[VideoScores, ...]
    notes: tuple[str, ...]


class _Film:
    """One of the films; its frames come upright.

    Raises:
        InputError: it cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with Decoder(path) as decoder:
            self.colourless = is_nothing_else(decoder.dolby)
            orientation, self._origin = Orientation.of(decoder.display_matrix), decoder.origin
            self.askew, self._orientation = orientation is None, orientation or UPRIGHT
            self.info = self._orientation.info(decoder.info)
            first = next(iter(decoder), None)
        if first is None:
            raise InputError(f"{path}: has no frame")
        self._begin = first.time - self._origin

    def frames(self, time: Fraction, count: int) -> list[Frame]:
        """So many consecutive frames from the one on that is shown at a time, in seconds from the first one."""
        return list(islice(self._since(time), count))

    def shown(self, times: Sequence[Fraction]) -> list[Frame]:
        """The frames shown at these moments, in their order; ends with the last one that it is long enough for."""
        found: list[Frame] = []
        late = min([ROUNDED, *((b - a) / 2 for a, b in pairwise(times))])
        frames = self._since(times[0], late)
        before, after = next(frames, None), next(frames, None)
        for time in times:
            while before is not None and after is not None and self._begun(before, after, time, late):
                before, after = after, next(frames, None)
            if before is None or (after is None and not self._lasts(before, time)):
                break
            found.append(before)
        return found

    def _since(self, time: Fraction, late: Fraction = ROUNDED) -> Iterator[Frame]:
        """Frames from the one on that is shown at a time; none where it is shorter."""
        for back in (2 * self._interval, Fraction(10), time):  # there may be no frame for long
            frames = self._from(time - back)
            before = next(frames, None)
            if before is not None and (self.time(before) <= time or back >= time):
                break
        else:
            return
        for after in frames:
            if not self._begun(before, after, time, late):
                yield before
                yield after
                yield from frames
                return
            before = after
        if self._lasts(before, time):
            yield before

    def _begun(self, before: Frame, after: Frame, time: Fraction, late: Fraction) -> bool:
        """Whether the second of two frames is the one shown then, if it may come so late."""
        wait = self.time(after) - time
        return wait <= 0 or (wait <= late and wait < time - self.time(before))

    def _lasts(self, last: Frame, time: Fraction) -> bool:
        return time < self.time(last) + max(self._interval / 2, last.duration * last.time_base)

    def time(self, frame: Frame) -> Fraction:
        """Of a frame, in seconds from the first one."""
        return frame.time - self._origin - self._begin

    @property
    def _interval(self) -> Fraction:
        return 1 / (self.info.rate or Fraction(25))

    def _from(self, time: Fraction) -> Iterator[Frame]:
        """Frames from a time on, none where it is shorter."""
        try:
            decoder = Decoder(self.path, start=self._begin + time if time > 0 else None)
        except InputError:
            return
        with decoder:
            yield from map(self._orientation.frame, decoder)

    def times(self, end: Fraction | None, told: Callable[[int], None]) -> list[Fraction]:
        """The middles of its scenes up to an end, in seconds from the first frame."""
        middles: list[Fraction] = []
        times: list[Fraction] = []  # of the frames of the open scene
        before: scenes.Thumbnail | None = None
        with Decoder(self.path) as decoder:
            for number, frame in enumerate(decoder):
                if end is not None and number and self.time(frame) >= end:
                    break
                now = scenes.thumbnail(frame.planes[0], frame.format.bits)
                if before is not None and scenes.is_cut(before, now):
                    if len(times) >= SHORTEST:
                        middles.append(times[len(times) // 2])
                    times = []
                times.append(self.time(frame))
                before = now
                told(number + 1)
        if len(times) >= SHORTEST or not middles:
            middles.append(times[len(times) // 2])
        return middles


def compared(
    first: Path,
    second: Path,
    reference: Path | None = None,
    *,
    scenes: int = 6,
    at: Sequence[Fraction] = (),
    told: Callable[[int], None] = lambda frames: None,
) -> Comparison:
    """Compare two films, or two pictures.

    The smaller is enlarged by FFmpeg's Lanczos filter. Scenes are chosen evenly over what all of them have; of each,
    the moment in its middle is shown and `RUN` frames from there on are measured, by those nearest to them in time.

    Args:
        first: a film.
        second: another of the same content.
        reference: what both should look like.
        scenes: how many to show at most.
        at: moments to show instead, in seconds from the first frame.
        told: is called with the number of frames that were looked at for scenes.

    Raises:
        InputError: one of them cannot be read, or they have no moment in common.
    """
    films = [_Film(path) for path in (first, second, reference) if path is not None]
    infos = [film.info for film in films]
    size = max(((i.width, i.height) for i in infos), key=lambda s: s[0] * s[1])
    if reference is not None:
        size = infos[2].width, infos[2].height
    notes = list(_notes(films, size))
    times = list(at) or _spread(films, scenes, told)
    samples, rows = [], []
    truth = films[2 if reference else 0]
    target = _measured(truth.info, size)
    measured = min(size) >= SMALLEST
    for time in times:
        originals = truth.frames(time, RUN)
        moments = [truth.time(frame) for frame in originals]
        runs = [originals if film is truth else film.shown(moments) if moments else [] for film in films]
        if _transparent(infos):
            runs = [[_on_grey(frame) for frame in run] for run in runs]
        count = min(map(len, runs))
        if not count:
            notes.append(f"at {float(time):.3f} s not all of them have a frame")
            continue
        samples.append(_sample(time, [run[0] for run in runs], size))
        if measured:
            shown = [[_fit(f, n, target) for n, f in enumerate(run[:count])] for run in runs]
            names = [film.path.name for film in films]
            models = (0, 1) if reference else (1,)
            rows.append([measure(shown[m], shown[films.index(truth)], clip=names[m], model=names[m]) for m in models])
    if not samples:
        if at:
            given = ", ".join(f"{float(time):g}" for time in at)
            raise InputError(f"--at {given}: not all of the films have a frame there; give an earlier time")
        raise InputError(f"{second}: has no frame at the times at which scenes of {first} are; is it the same film?")
    if not measured:
        notes.append(f"under {SMALLEST} pixels a side nothing is measured")
    return Comparison(
        names=tuple(str(film.path) for film in films),
        infos=tuple(infos),
        size=size,
        samples=tuple(samples),
        scores=tuple(_mean(column) for column in zip(*rows, strict=True)),
        notes=tuple(notes),
    )


def _spread(films: Sequence[_Film], most: int, told: Callable[[int], None]) -> list[Fraction]:
    """Middles of scenes, as many as `most`, evenly chosen over what all of the films have."""
    lengths = [film.info.duration for film in films if film.info.duration is not None]
    found = films[0].times(min(lengths, default=None), told)
    if len(found) <= most:
        return found
    return sorted({found[(2 * n + 1) * len(found) // (2 * most)] for n in range(most)})


def _notes(films: Sequence[_Film], size: tuple[int, int]) -> Iterator[str]:
    width, height = size
    if _transparent([film.info for film in films]):
        yield "what is transparent is shown on grey"
    for film in films:
        info = film.info
        if (info.width, info.height) != size:
            how = "made smaller" if info.width * info.height > width * height else "enlarged"
            yield f"{film.path.name} was {how} from {info.width}x{info.height} to {width}x{height} by a Lanczos filter"
        shape = Fraction(info.width, info.height) * info.sar / (Fraction(width, height) * films[0].info.sar)
        truth = films[-1 if len(films) > 2 else 0]
        if info.rate and truth.info.rate and abs(info.rate / truth.info.rate - 1) > RATES:
            rates = f"{float(info.rate):g} frames a second and {truth.path.name} {float(truth.info.rate):g}"
            yield f"{film.path.name} has {rates}: what both show at the same moments is compared"
        if abs(shape - 1) > SHAPES and film.info.sar == films[0].info.sar:
            yield f"{film.path.name} has another shape, and was stretched"
        if film.askew:
            yield f"{film.path.name} is to be turned by no multiple of 90 degrees: it is shown as it is coded"
        if film.colourless:
            yield f"{film.path.name} is Dolby Vision of profile 5, and shown without its metadata: in wrong colours"
        elif info.color.transfer in (16, 18):
            yield f"{film.path.name} is HDR, and shown as it is coded: pale on an ordinary screen"


def _transparent(infos: Sequence[StreamInfo]) -> bool:
    """Whether all have alpha: where one has lost it, the colours behind it show."""
    return all(info.format.alpha for info in infos)


def _on_grey(frame: Frame) -> Frame:
    """What shows of a frame with alpha: the colours of what is fully transparent, which nobody sees, may be any."""
    fmt = PixelFormat.of("rgb", frame.format.bits)
    spec = replace(frame.color, matrix=Matrix.RGB, range=Range.FULL)
    alpha = frame.planes[-1].astype(np.float32) / ((1 << fmt.bits) - 1)
    rgb = 0.5 + alpha * (color.to_rgb(frame.planes, frame.format, frame.color) - 0.5)
    return replace(frame.with_planes(color.from_rgb(rgb, fmt, spec, dither=False), fmt), color=spec)


def _resized(frame: Frame, size: tuple[int, int]) -> Frame:
    if (frame.width, frame.height) == size:
        return frame
    info = StreamInfo(width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base)
    (made,) = Resizer(info, *size).process(frame)
    return made


def _sample(time: Fraction, frames: Sequence[Frame], size: tuple[int, int]) -> Sample:
    pictures = []
    for frame in (_resized(f, size) for f in frames):
        rgb = color.to_rgb(frame.planes, frame.format, frame.color)
        pictures.append(np.rint(np.clip(rgb, 0, 1) * 255).astype(np.uint8).transpose(1, 2, 0))
    row, column = _corner(pictures[0], pictures[1])
    part = slice(row, row + SHOWN[1]), slice(column, column + SHOWN[0])
    return Sample(time=time, pictures=tuple(p[part] for p in pictures), corner=(row, column))


def _corner(a: Picture, b: Picture) -> tuple[int, int]:
    """Where the part of the shown size begins in which two pictures differ most."""
    difference = np.abs(a.astype(np.int16) - b.astype(np.int16)).sum(axis=2)
    table = np.zeros((difference.shape[0] + 1, difference.shape[1] + 1), np.int64)
    np.cumsum(np.cumsum(difference, axis=0, dtype=np.int64), axis=1, out=table[1:, 1:])
    height, width = (min(n, most) for n, most in zip(difference.shape, SHOWN[::-1], strict=True))
    sums = table[height:, width:] - table[:-height, width:] - table[height:, :-width] + table[:-height, :-width]
    row, column = np.unravel_index(int(sums.argmax()), sums.shape)
    return int(row), int(column)


def _measured(info: StreamInfo, size: tuple[int, int]) -> StreamInfo:
    """What is measured: the reference as it is, where VMAF takes such pictures."""
    width, height = size
    if info.format.name not in FORMATS:
        fmt = PixelFormat.parse("yuv444p10le" if info.format.bits > 8 else "yuv444p")
        info = replace(info, format=fmt, color=SEQUENCE)
    return replace(info, width=width, height=height)


def _fit(frame: Frame, number: int, target: StreamInfo) -> Frame:
    """A frame of the size, format and colour that is measured."""
    frame = _resized(frame, (target.width, target.height))
    if frame.format.alpha:
        opaque = PixelFormat.of(frame.format.family, frame.format.bits, frame.format.log2_w, frame.format.log2_h)
        frame = frame.with_planes(frame.planes[:-1], opaque)
    if (frame.format, frame.color.matrix, frame.color.range) != (
        target.format,
        target.color.matrix,
        target.color.range,
    ):
        frame = Rescaler(target).rescale(frame)
    return replace(frame, pts=number, time_base=Fraction(1, 25), duration=1, side_data=())


def _mean(scores: Sequence[VideoScores]) -> VideoScores:
    """Of all scenes, by their frames; of what not all have, by those that have it."""
    values: dict[str, Any] = {"frames": sum(s.frames for s in scores)}
    for name in ("psnr", "psnr_y", "psnr_cb", "psnr_cr", "ssim_y", "vmaf", "vmaf_neg", "flicker", "motion"):
        there = [(getattr(s, name), s.frames) for s in scores if getattr(s, name) is not None]
        total = sum(frames for _, frames in there)
        values[name] = sum(value * frames for value, frames in there) / total if total else None
    return replace(scores[0], **values)

"""Whether two videos show the same pictures: small copies of sampled frames, compared.

An enlargement keeps the mean of every part of a picture, whatever network made it; wrong colours, green or black
frames, and pictures at another frame's time do not. So frames are reduced to few R'G'B' pixels by their own tags,
which takes grain, sharpness and most of what a codec loses out of the comparison. Of pictures with alpha what shows is
compared, for colours that do not show are changed on purpose (`transparency`). Pictures of few tones, as scanned and
dithered ones, do not keep the mean: where an enlargement goes below black or above white it is cut off.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import av
import numpy as np
from av.video.reformatter import Interpolation, VideoReformatter

from videosr.errors import InputError
from videosr.frame import Array, Matrix
from videosr.media.colorinfo import color_of
from videosr.media.planes import planar_format

WIDTH, HEIGHT = 64, 36
SMALLEST = 8
"""Columns and rows that pictures must have: of smaller ones the copies are what is at an edge of something."""
MOST = 192
"""Samples that are kept at least, where there are as many frames; at most twice as many."""
LEAST_PSNR = 20.0
"""dB, of every sampled frame."""
LEAST_MEDIAN = 26.0
"""dB, of the middle one of all samples."""
LEAST_FEW_TONES = 16.0
"""dB, in place of both, where every picture is of few tones. Networks make 20 of the worst dither; black makes 6 of one
that is half white."""
FEW_TONES, LEAST_CONTRAST = 16, 128
"""Greys at most of a picture of few tones, and codes of 255 between the darkest and the lightest."""
MOST_COLOUR = 2.0
"""RMS codes by which the affine map that takes one video's colours to the other's may move them. What codecs lose is no
such map: coarse H.264 moves real clips by up to 0.8; BT.601 taken for BT.709 by 2 to 4, limited range for full by 8."""
MOST_COLOUR_FEW_TONES = 32.0
"""The same where every picture is of few tones; networks take the worst dither 23 away."""
GREY = 128
"""What pictures with alpha are shown on."""
LEAST_MOTION = 2.0
"""RMS codes by which neighbouring frames must differ for their order to be judged."""
_SWSCALE = frozenset({Matrix.BT709, Matrix.FCC, Matrix.BT470BG, Matrix.SMPTE170M, Matrix.SMPTE240M, Matrix.BT2020_NCL})
"""Matrices that FFmpeg's scaler knows; others are read as BT.2020, in both videos alike."""


@dataclass(slots=True)
class Samples:
    """Small copies of some frames of a video and of their neighbours: of the same ones in every video of a length.

    Attributes:
        size: (columns, rows) of the copies; None: at most `WIDTH` x `HEIGHT`, half the first frame's and its chroma's.
        parity: take the first (0) or second (1) of each two rows alone, a field of interlaced video; None: all rows.
        codec: FFmpeg's name of it, for what the frames do not say of their colours.
        premultiplied: colours are multiplied by alpha.
        step: every frame whose number this divides is a sample.
        pictures: (rows, columns, 3) uint8 by the frame's number.
        visible: the same, on grey, of frames with alpha.
        few_tones: numbers of the frames that are of few tones.
    """

    size: tuple[int, int] | None = None
    parity: int | None = None
    codec: str = ""
    premultiplied: bool = False
    step: int = 1
    pictures: dict[int, Array] = field(default_factory=dict)
    visible: dict[int, Array] = field(default_factory=dict)
    few_tones: set[int] = field(default_factory=set)
    _reformatter: VideoReformatter = field(default_factory=VideoReformatter)

    def _wanted(self, number: int) -> bool:
        return number % self.step in (0, 1, self.step - 1)

    def add(self, number: int, frame: av.VideoFrame) -> None:
        """Keep a frame if it is one of the samples; frames come in order, from 0."""
        if number >= 2 * MOST * self.step:
            self.step *= 2
            self.pictures = {n: picture for n, picture in self.pictures.items() if self._wanted(n)}
            self.visible = {n: picture for n, picture in self.visible.items() if self._wanted(n)}
        if self._wanted(number):
            if frame.format.name in ("monob", "monow"):  # which FFmpeg's scaler would not reduce to the right mean
                frame = self._reformatter.reformat(frame, format="gray", threads=1)
            if self._has_few_tones(frame):
                self.few_tones.add(number)
            self.pictures[number] = self._small(frame)
            if frame.format.has_palette or any(c.is_alpha for c in frame.format.components):
                self.visible[number] = self._small(self._on_grey(frame))

    def _has_few_tones(self, frame: av.VideoFrame) -> bool:
        grey: Array = self._reformatter.reformat(frame, format="gray", threads=1).to_ndarray()
        tones = np.flatnonzero(np.bincount(grey.ravel(), minlength=256))
        return bool(len(tones) <= FEW_TONES and tones[-1] - tones[0] >= LEAST_CONTRAST)

    def _small(self, frame: av.VideoFrame) -> Array:
        if self.size is None:
            width, height, fmt = frame.width, frame.height, frame.format
            columns = max(2, min(width // 2, fmt.chroma_width(width)))  # 4:1:1 has fewer of chroma
            self.size = min(WIDTH, columns), min(HEIGHT, max(2, min(height // 2, fmt.chroma_height(height))))
        matrix, range_ = _colour(frame, self.codec)
        columns, rows = self.size
        small = self._reformatter.reformat(
            frame,
            width=columns,
            height=rows if self.parity is None else frame.height,
            format="rgb24",
            src_colorspace=matrix,
            src_color_range=range_,
            interpolation=Interpolation.AREA,
            threads=1,
        )
        if self.parity is not None:
            rows_of_field: Array = np.ascontiguousarray(small.to_ndarray()[self.parity :: 2])
            small = av.VideoFrame.from_ndarray(rows_of_field, "rgb24").reformat(
                width=columns, height=rows, interpolation=Interpolation.AREA, threads=1
            )
        return small.to_ndarray()

    def _on_grey(self, frame: av.VideoFrame) -> av.VideoFrame:
        matrix, range_ = _colour(frame, self.codec)
        whole = self._reformatter.reformat(frame, format="rgba", src_colorspace=matrix, src_color_range=range_)
        rgba = whole.to_ndarray().astype(np.uint32)
        on_grey = rgba[..., :3] * (255 if self.premultiplied else rgba[..., 3:]) + GREY * (255 - rgba[..., 3:])
        return av.VideoFrame.from_ndarray((on_grey // 255).clip(0, 255).astype(np.uint8), "rgb24")


def _colour(frame: av.VideoFrame, codec: str) -> tuple[int, int]:
    """Matrix and range as they are to be read (`colorinfo`)."""
    try:
        fmt = planar_format(frame.format.name)
    except InputError:
        return int(Matrix.BT709), frame.color_range
    color, _ = color_of(frame, fmt, codec)
    return int(color.matrix if color.matrix in _SWSCALE else Matrix.BT2020_NCL), int(color.range)


@dataclass(frozen=True, slots=True)
class Likeness:
    """How alike two videos are.

    Attributes:
        samples: pairs compared.
        median: PSNR of the middle one, dB; 99 where pictures are the same.
        worst: of the worst one.
        worst_frame: its number.
        colour: RMS codes by which colours as a whole are moved.
        noise: RMS codes by which they differ besides.
        late: how many frames later than the first video the second shows its pictures: -1, 0 or 1.
        few_tones: the first video's pictures are all of few tones.
    """

    samples: int
    median: float
    worst: float
    worst_frame: int
    colour: float
    noise: float
    late: int
    few_tones: bool = False

    @property
    def problems(self) -> list[str]:
        """What is wrong, a line each."""
        if not self.samples:
            return []
        lines = []
        least_median, least = (LEAST_FEW_TONES,) * 2 if self.few_tones else (LEAST_MEDIAN, LEAST_PSNR)
        if self.median < least_median:
            lines.append(
                f"pictures differ: PSNR of small copies {self.median:.1f} dB, at least {least_median:g} expected"
            )
        elif self.worst < least:
            lines.append(
                f"frame {self.worst_frame} shows another picture: PSNR of small copies {self.worst:.1f} dB, at least "
                f"{least:g} expected"
            )
        most = MOST_COLOUR_FEW_TONES if self.few_tones else MOST_COLOUR
        if self.colour > max(most, self.noise):  # noise shrinks the contrast of what is fitted to it
            lines.append(f"colours are off by {self.colour:.1f} codes of 255, at most {most:g} expected")
        if self.late:
            lines.append(f"pictures are shown one frame {'late' if self.late > 0 else 'early'}")
        return lines


def compare(a: Samples, b: Samples, fields: int = 1) -> Likeness:
    """Compare two videos with as many frames, or with `fields` frames in the second for each of the first."""
    both = bool(a.visible and b.visible)  # alpha may have been left out
    ours, theirs = (a.visible, b.visible) if both else (a.pictures, b.pictures)
    scores: list[tuple[float, int]] = []
    pairs: list[tuple[Array, Array]] = []
    votes = {-1: 0, 0: 0, 1: 0}
    for number, picture in sorted(ours.items()):
        other = theirs.get(number * fields)
        if other is None:
            continue
        error = _rms(picture, other)
        if number % a.step == 0:
            scores.append((_psnr(error), number))
            pairs.append((picture, other))
        before, after = ours.get(number - 1), ours.get(number + 1)
        if before is None or after is None or min(_rms(picture, before), _rms(picture, after)) < LEAST_MOTION:
            continue
        errors = {1: _rms(before, other), 0: error, -1: _rms(after, other)}
        best = min(errors, key=lambda late: (errors[late], late != 0))
        votes[best if errors[best] < 0.5 * error else 0] += 1
    if not scores:
        return Likeness(0, 0.0, 0.0, 0, 0.0, 0.0, 0)
    late = max(votes, key=lambda n: votes[n])
    middle = sorted(scores)[len(scores) // 2][0]
    worst, frame = min(scores)
    late = late if votes[late] >= 3 and votes[late] > votes[0] else 0
    return Likeness(len(scores), middle, worst, frame, *_moved(pairs), late, a.few_tones >= {n for _, n in scores})


def _moved(pairs: list[tuple[Array, Array]]) -> tuple[float, float]:
    """How far the affine map between colours, by least squares over all samples, takes them from where they were, and
    how far they then are from where they should be: RMS codes.
    """
    a, b = (np.concatenate([pair[i].reshape(-1, 3) for pair in pairs]).astype(np.float64) for i in (0, 1))
    known = np.hstack([a, np.ones((len(a), 1))])
    # By the normal equations: few numbers, however many samples.
    map_ = np.linalg.lstsq(known.T @ known, known.T @ b, rcond=1e-12)[0]
    mapped = known @ map_
    return float(np.sqrt(np.square(mapped - a).mean())), float(np.sqrt(np.square(mapped - b).mean()))


def _rms(a: Array, b: Array) -> float:
    return float(np.sqrt(np.square(a.astype(np.float32) - b).mean()))


def _psnr(rms: float) -> float:
    return 99.0 if rms < 255 * 10 ** (-99 / 20) else float(20 * np.log10(255 / rms))

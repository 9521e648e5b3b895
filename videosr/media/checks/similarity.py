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
from av.video.reformatter import VideoReformatter

from videosr.frame import Array
from videosr.media.checks.reduction import reduced, reduced_on_grey, reduced_size
from videosr.media.checks.shift import MOST_SHIFT, Pair, shifted
from videosr.media.colorinfo import color_of
from videosr.media.planes import PlaneReader, planar_format

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
LEAST_COLOUR = 32.0
"""Codes between R', G' and B' somewhere in the copy of a picture that has colours."""
MOST_COLOUR = 2.0
"""RMS codes by which the affine map that takes one video's colours to the other's may move them. What codecs lose is no
such map: coarse H.264 moves real clips by up to 0.8; BT.601 taken for BT.709 by 2 to 4, limited range for full by 8."""
MOST_COLOUR_OF_SLOPES, EDGE = 0.3, 8
"""The same where one of the videos is R'G'B', as a share of the RMS codes by which neighbouring pixels of the copies
differ, less where those are of more of the first video's columns or rows than an edge spoils: what enlargements
overshoot at saturated edges is cut off there. Small test patterns have shares of up to 0.24."""
MOST_COLOUR_FEW_TONES = 32.0
"""The same where every picture is of few tones; networks take the worst dither 23 away."""
LEAST_MOTION = 0.5
"""RMS codes by which neighbouring frames must differ for their order to be judged."""


@dataclass(slots=True)
class Samples:
    """Small copies of some frames of a video and of their neighbours: of the same ones in every video of a length.

    Attributes:
        size: (columns, rows) of the copies; None: `reduced_size` of the first frame, at most `WIDTH` x `HEIGHT`.
        parity: take the first (0) or second (1) of each two rows alone, a field of interlaced video; None: all rows.
        codec: FFmpeg's name of it, for what the frames do not say of their colours.
        premultiplied: colours are multiplied by alpha.
        step: every frame whose number this divides is a sample.
        pictures: (rows, columns, 3) float16, codes of 255, by the frame's number.
        visible: the same, on grey, of frames with alpha.
        few_tones: numbers of the frames that are of few tones.
        pixel: (columns, rows) of the first frame in each pixel of the copies.
        rgb: the frames are R'G'B'.
    """

    size: tuple[int, int] | None = None
    parity: int | None = None
    codec: str = ""
    premultiplied: bool = False
    step: int = 1
    pictures: dict[int, Array] = field(default_factory=dict)
    visible: dict[int, Array] = field(default_factory=dict)
    few_tones: set[int] = field(default_factory=set)
    pixel: tuple[float, float] = (1.0, 1.0)
    rgb: bool = False
    _reader: PlaneReader = field(default_factory=PlaneReader)
    _reformatter: VideoReformatter = field(default_factory=VideoReformatter)

    def _wanted(self, number: int) -> bool:
        return number % self.step in (0, 1, self.step - 1)

    def add(self, number: int, frame: av.VideoFrame) -> None:
        """Keep a frame if it is one of the samples; frames come in order, from 0."""
        if number >= 2 * MOST * self.step:
            self.step *= 2
            self.pictures = {n: picture for n, picture in self.pictures.items() if self._wanted(n)}
            self.visible = {n: picture for n, picture in self.visible.items() if self._wanted(n)}
        if not self._wanted(number):
            return
        fmt = planar_format(frame.format.name)
        color, _ = color_of(frame, fmt, self.codec)
        planes, self.rgb = self._reader.read(frame, fmt), fmt.family == "rgb"
        if self.size is None:
            self.size = reduced_size(fmt, frame.width, frame.height, (WIDTH, HEIGHT))
            self.pixel = frame.width / self.size[0], frame.height / self.size[1]
        picture = reduced(planes, fmt, color, self.size, self.parity)
        self.pictures[number] = picture.astype(np.float16)
        # What has colours in Y'CbCr is a test pattern: scans and dithers are grey, or R'G'B' of few colours.
        if (fmt.family != "yuv" or np.ptp(picture, axis=2).max() < LEAST_COLOUR) and self._has_few_tones(frame):
            self.few_tones.add(number)
        if fmt.alpha:
            seen = reduced_on_grey(planes, fmt, color, self.size, self.parity, premultiplied=self.premultiplied)
            self.visible[number] = seen.astype(np.float16)

    def _has_few_tones(self, frame: av.VideoFrame) -> bool:
        grey: Array = self._reformatter.reformat(frame, format="gray", threads=1).to_ndarray()
        tones = np.flatnonzero(np.bincount(grey.ravel(), minlength=256))
        return bool(len(tones) <= FEW_TONES and tones[-1] - tones[0] >= LEAST_CONTRAST)


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
        shift: columns and rows of the first video by which the second's pictures lie further right and down.
        few_tones: the first video's pictures are all of few tones.
        most_colour: what `colour` may be.
    """

    samples: int
    median: float
    worst: float
    worst_frame: int
    colour: float
    noise: float
    late: int
    shift: tuple[float, float] = (0.0, 0.0)
    few_tones: bool = False
    most_colour: float = MOST_COLOUR

    @property
    def problems(self) -> list[str]:
        """What is wrong, a line each."""
        if not self.samples:
            return []
        lines = []
        least_median, least = (LEAST_FEW_TONES,) * 2 if self.few_tones else (LEAST_MEDIAN, LEAST_PSNR)
        if self.most_colour > MOST_COLOUR:  # what is cut off shows in every frame alike
            least_median = least
        if self.median < least_median:
            lines.append(
                f"pictures differ: PSNR of small copies {self.median:.1f} dB, at least {least_median:g} expected"
            )
        elif self.worst < least:
            lines.append(
                f"frame {self.worst_frame} shows another picture: PSNR of small copies {self.worst:.1f} dB, at least "
                f"{least:g} expected"
            )
        if self.colour > max(self.most_colour, self.noise):  # noise shrinks the contrast of what is fitted to it
            lines.append(f"colours are off by {self.colour:.1f} codes of 255, at most {self.most_colour:.2g} expected")
        if self.late:
            lines.append(f"pictures are shown one frame {'late' if self.late > 0 else 'early'}")
        elif not lines and max(map(abs, self.shift)) > MOST_SHIFT:
            right, down = self.shift
            lines.append(f"pictures are shifted by {right:+.1f} columns and {down:+.1f} rows of the source")
        return lines


def compare(a: Samples, b: Samples, fields: int = 1, *, still: bool = True) -> Likeness:
    """Compare two videos with as many frames, or with `fields` frames in the second for each of the first.

    Without `still`, a frame may show another moment than its original, as deinterlaced ones do: a shift may be motion.
    """
    both = bool(a.visible and b.visible)  # alpha may have been left out
    ours, theirs = (a.visible, b.visible) if both else (a.pictures, b.pictures)
    scores: list[tuple[float, int]] = []
    pairs: list[Pair] = []
    votes = {-1: 0, 0: 0, 1: 0}
    for number, picture in sorted(ours.items()):
        other = theirs.get(number * fields)
        if other is None:
            continue
        error = _rms(picture, other)
        before, after = ours.get(number - 1), ours.get(number + 1)
        if number % a.step == 0:
            scores.append((_psnr(error), number))
            around = (picture if neighbour is None else neighbour for neighbour in (before, after))
            pairs.append(Pair(picture, other, *around))
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
    shift = shifted(pairs, a.pixel) if still else (0.0, 0.0)
    few_tones = a.few_tones >= {n for _, n in scores}
    most_colour = MOST_COLOUR_FEW_TONES if few_tones else MOST_COLOUR
    if a.rgb or b.rgb:
        most_colour = max(most_colour, MOST_COLOUR_OF_SLOPES * _slope(pairs) * min(1.0, EDGE / min(a.pixel)))
    return Likeness(len(scores), middle, worst, frame, *_moved(pairs), late, shift, few_tones, most_colour)


def _slope(pairs: list[Pair]) -> float:
    """RMS codes by which neighbouring pixels of the first video's copies differ, across and down."""
    slopes = [np.gradient(pair.ours.astype(np.float32), axis=axis) for pair in pairs for axis in (0, 1)]
    return float(np.sqrt(np.mean([np.square(slope).mean() for slope in slopes])))


def _moved(pairs: list[Pair]) -> tuple[float, float]:
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
    return float(np.sqrt(np.square(a.astype(np.float32) - b.astype(np.float32)).mean()))


def _psnr(rms: float) -> float:
    return 99.0 if rms < 255 * 10 ** (-99 / 20) else float(20 * np.log10(255 / rms))

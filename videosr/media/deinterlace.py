"""Interlaced frames to whole ones, by FFmpeg's filters.

A result depends on a frame, the one before and the one after it (film matching looks one further back), so a part of a
video comes out as it does in the whole, if decoding begins `LEAD` frames earlier.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from fractions import Fraction

import av
import av.error
import numpy as np

from videosr.errors import InputError
from videosr.frame import Frame, PixelFormat, StreamInfo
from videosr.media.captions import without_captions
from videosr.media.fields import Fields, Scan
from videosr.media.planes import PlaneReader, to_av_frame

LEAD = 4
"""Frames ahead of the first wanted one, after which a result no longer depends on where decoding began."""


class Deinterlace(StrEnum):
    """What to do about interlaced video."""

    AUTO = "auto"
    BWDIF = "bwdif"
    FILM = "film"
    OFF = "off"


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """How frames are made whole.

    Attributes:
        order: the field shown first: "tff" or "bff".
        film: fields are matched to the frames of film they came from; what still is combed is interpolated.
        double: a frame for each field instead of one for both.
    """

    order: str
    film: bool = False
    double: bool = False

    def filters(self, fmt: PixelFormat) -> list[tuple[str, str]]:
        """FFmpeg's filters with their options, in order, for frames of a format."""
        mode = f"mode={'send_field' if self.double else 'send_frame'}:parity={self.order}"
        if not (self.film and _matches(fmt)):
            return [("bwdif", f"{mode}:deint=all")]
        return [("fieldmatch", f"order={self.order}:combmatch=full"), ("bwdif", f"{mode}:deint=interlaced")]

    def info(self, info: StreamInfo) -> StreamInfo:
        """What the stream of results says of itself, given what the interlaced one says."""
        if not self.double:
            return info
        rate = None if info.rate is None else info.rate * 2
        return replace(info, rate=rate, time_base=info.time_base / 2, frames=info.frames * 2)


def _matches(fmt: PixelFormat) -> bool:
    """Whether `fieldmatch` takes the format as it is: it knows 8 bits only."""
    return fmt.family == "yuv" and fmt.bits == 8 and not fmt.alpha and fmt.log2_h <= 1 and fmt.name != "yuv440p"


def deinterlacing(wanted: Deinterlace, found: Callable[[], Fields], *, double: bool = False) -> tuple[Plan | None, str]:
    """What is to be done, and a line that says why; an empty one where there is nothing to say.

    Args:
        wanted: what was asked for.
        found: looks at the video (`fields.detect`).
        double: a frame for each field was asked for.
    """
    if wanted is Deinterlace.OFF:
        return None, ""
    fields = found()
    order = {"tff": "top", "bff": "bottom"}[fields.order]
    rate = "one frame for each field" if double else "one frame for each"
    if wanted is Deinterlace.AUTO and fields.scan is Scan.PROGRESSIVE:
        marked = f"marked as interlaced, but the picture is not ({fields.seen}): left as it is"
        return None, marked if fields.marked else ""
    what = "not found to be interlaced" if fields.scan is Scan.PROGRESSIVE else str(fields.scan)
    film = wanted is Deinterlace.FILM or (wanted is Deinterlace.AUTO and fields.scan is Scan.TELECINE and not double)
    if fields.scan is Scan.TELECINE:
        what = "telecined film (3:2 pulldown)"
    elif wanted is Deinterlace.FILM:
        what += ", to be taken for film"
    how = "fields matched to the film's frames, the repeats kept" if film else f"deinterlaced by bwdif, {rate}"
    return Plan(order=fields.order, film=film, double=double), f"{what}, {order} field first ({fields.seen}): {how}"


def _carrier(fmt: PixelFormat) -> PixelFormat:
    """The format that bwdif takes with the same planes: some depths it has not, and FFmpeg would convert the codes."""
    deep_gray = fmt.family == "gray" and fmt.bits > 8
    deep_alpha = fmt.alpha and (fmt.bits in (12, 14) or (fmt.family == "rgb" and fmt.bits > 8))
    if not (deep_gray or deep_alpha):
        return fmt
    return PixelFormat.of(fmt.family, 16, fmt.log2_w, fmt.log2_h, fmt.alpha)


class Deinterlacer:
    """A stage that makes interlaced frames whole; every frame, or field, keeps its time.

    Args:
        plan: how.
    """

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._reader = PlaneReader()
        self._graph: av.filter.Graph | None = None
        self._kind: tuple[object, ...] | None = None
        self._frames: dict[int, Frame] = {}  # by number, of those not yet finished
        self._halves: set[int] = set()  # of those, which have given one of two
        self._count = 0

    def process(self, frame: Frame) -> Iterator[Frame]:
        """Take a frame; gives what is finished, a frame or two later."""
        kind = frame.width, frame.height, frame.format
        if kind != self._kind:
            yield from self.flush()
            self._graph, self._kind = self._made(frame), kind
        assert self._graph is not None
        picture = to_av_frame(frame.planes, _carrier(frame.format))
        picture.pts, picture.time_base = self._count, Fraction(1)
        self._frames[self._count] = frame
        self._count += 1
        self._graph.vpush(picture)
        yield from self._finished(self._graph)

    def flush(self) -> Iterator[Frame]:
        """Give what is still inside; what comes next stands alone."""
        if self._graph is not None:
            self._graph.vpush(None)
            yield from self._finished(self._graph)
        self._graph, self._kind = None, None
        self._frames.clear()

    def run(self, frames: Iterable[Frame]) -> Iterator[Frame]:
        """All of a sequence."""
        for frame in frames:
            yield from self.process(frame)
        yield from self.flush()

    def _made(self, frame: Frame) -> av.filter.Graph:
        fmt = frame.format
        if frame.width >> fmt.log2_w < 3 or frame.height >> fmt.log2_h < 4:
            size = f"{frame.width}x{frame.height} {fmt.name}"
            raise InputError(f"pictures of {size} are too small to be deinterlaced: give --deinterlace off")
        graph = av.filter.Graph()
        width, height, name = frame.width, frame.height, _carrier(frame.format).name
        chain = [graph.add_buffer(width=width, height=height, format=name, time_base=Fraction(1))]
        chain += [graph.add(name, options) for name, options in self._plan.filters(frame.format)]
        chain.append(graph.add("buffersink"))
        return graph.link_nodes(*chain)

    def _finished(self, graph: av.filter.Graph) -> Iterator[Frame]:
        while True:
            try:
                picture = graph.vpull()
            except (av.error.BlockingIOError, av.error.EOFError):
                return
            assert picture.pts is not None
            # Times go through the filters as numbers of frames, so that nothing is rounded on the way.
            number = picture.pts * picture.time_base.numerator // picture.time_base.denominator
            yield self._timed(number, picture, second=number in self._halves)

    def _timed(self, number: int, picture: av.VideoFrame, *, second: bool) -> Frame:
        """The result with the time and the data of the frame it was made of."""
        frame = self._frames[number]
        fmt = frame.format
        planes = self._reader.read(picture, _carrier(fmt))
        if _carrier(fmt) != fmt:
            planes = tuple(np.minimum(plane, (1 << fmt.bits) - 1) for plane in planes)
        made = replace(frame, planes=planes, interlaced=False)
        if second or not self._plan.double:
            del self._frames[number]
        if not self._plan.double:
            return made
        if not second:
            self._halves.add(number)
        else:
            self._halves.remove(number)
            made = without_captions(made)  # they have come with the first field
        following = self._frames.get(number + 1)
        length = frame.duration if following is None else min(frame.duration, following.pts - frame.pts)
        return replace(
            made,
            pts=2 * frame.pts + (length if second else 0),
            duration=length if not second else 2 * frame.duration - length,
            time_base=frame.time_base / 2,
            key=frame.key and not second,
        )

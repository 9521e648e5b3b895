"""Whether a video is interlaced: what its flags say, and what its pictures show.

Flags lie in both directions (progressive film in an interlaced broadcast, combed pictures in a file marked
progressive), so FFmpeg's `idet` looks at the pictures of a few places of the file. The places depend on the file alone,
so every part of it, and every run, is judged alike.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from fractions import Fraction

import av
import av.error
from av.video.stream import VideoStream

from videosr.media.limits import DEFAULT_MAX_PIXELS
from videosr.media.repeats import Repeats
from videosr.media.source import open_input, plausible_rate, video_stream

PLACES, PLACE_FRAMES = 5, 40
"""Where a video that is marked as interlaced is looked at, and frames each."""
FEW_PLACES, FEW_FRAMES = 3, 24
"""The same where nothing marks it."""
FASTEST = 31
"""Frames per second above which nothing is interlaced unless it says so: 50 and 60 are rates of fields."""
FILMED = 26, 31
"""Frames per second between which there may be film in 3:2 pulldown: 30, of which a few may be pulled down by flags."""
ROWS = range(402, 1153, 2)
"""Rows of what may be interlaced without saying so. idet takes fine lines in small moving pictures for combs."""
FIELD = Fraction(1001, 60000)
"""Seconds of a field of video at 59.94 Hz, which is where film is pulled down."""
TOLERANCE = Fraction(12, 10000)
"""Seconds by which times may be off: Matroska counts milliseconds."""
TURNS = 8
"""Changes between two and three fields, one behind the other, that are no accident."""
VERDICT = "lavfi.idet.multiple.current_frame"
"""What idet says of a frame in the light of its neighbours: "tff", "bff", "progressive" or "undetermined"."""
FIELD_ORDERS = {2: "tff", 3: "bff", 4: "bff", 5: "tff"}
"""`AVFieldOrder` by the field shown first: TT, BB, TB (coded top first), BT."""


RATIO = 1.15
"""How much better the fields of two neighbouring frames must fit one way round than the other (`intl_thres` of idet).
FFmpeg's own 1.04 takes pans of sharp progressive pictures for interlaced ones; those differ by less than 1.1, fields by
more than 1.2."""


class Scan(StrEnum):
    """How the pictures of a video came about."""

    PROGRESSIVE = "progressive"
    INTERLACED = "interlaced"
    TELECINE = "telecine"
    """Film at 24 frames per second whose fields fill 30 frames, two and three in turn."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Fields:
    """What was found.

    Attributes:
        scan: the verdict.
        order: the field shown first: "tff" or "bff"; only a guess where `scan` is progressive.
        marked: the stream or its frames are marked as interlaced.
        combed: frames that idet found to be interlaced.
        clean: frames that it found to be progressive.
    """

    scan: Scan
    order: str
    marked: bool
    combed: int
    clean: int

    @property
    def seen(self) -> str:
        """The count, for people."""
        return f"idet: {self.combed} of {self.combed + self.clean} frames are combed"


@dataclass(slots=True)
class _Counts:
    """What idet said of single frames, and what came again, if that was looked at."""

    repeats: Repeats | None
    marks: int = 0
    orders: Counter[str] = field(default_factory=Counter)

    def add(self, frames: Iterator[av.VideoFrame]) -> None:
        """Count consecutive frames."""
        if self.repeats is not None:
            self.repeats.begin()
        for frame in frames:
            self.orders[frame.metadata.get(VERDICT, "")] += 1
            if self.repeats is not None:
                self.repeats.add(frame)


class Pulldown:
    """Recognises soft telecine: film whose frames a player is told to show for two and three fields in turn.

    That is said by flags (MPEG-2 `repeat_first_field`, H.264 `pic_struct`), of which the times of the frames are left.
    """

    def __init__(self) -> None:
        self._last, self._turns = 0, 0

    def add(self, step: Fraction) -> bool:
        """Take the seconds from a frame to the next one; whether that settles it."""
        fields = next((n for n in (2, 3) if abs(step - n * FIELD) < TOLERANCE), 0)
        self._turns = self._turns + 1 if {fields, self._last} == {2, 3} else 0
        self._last = fields
        return self._turns == TURNS


def detect(path: str | os.PathLike[str], index: int | None = None, max_pixels: int = DEFAULT_MAX_PIXELS) -> Fields:
    """Look at a video's flags and at its pictures.

    Args:
        path: the file.
        index: of the video stream; the best one by default.
        max_pixels: larger pictures are not looked at.

    Raises:
        InputError: it cannot be opened.
    """
    with open_input(path, max_pixels) as container:
        stream = video_stream(container, os.fspath(path), index)
        context = stream.codec_context
        stated = FIELD_ORDERS.get(context.field_order)
        rate = plausible_rate(stream.average_rate) or plausible_rate(stream.guessed_rate)
        marked = stated is not None
        film = rate is None or min(FILMED) <= rate <= max(FILMED)
        seen = _Counts(Repeats() if film else None)
        possible = marked or (context.height in ROWS and (rate is None or rate <= FASTEST))
        if possible and stream.frames != 1:
            for other in container.streams:
                if other.index != stream.index:
                    other.discard = av.stream.Discard.all
            context.thread_type = "AUTO"
            context.options = {"max_pixels": str(max_pixels)}
            _look(container, stream, seen, *((PLACES, PLACE_FRAMES) if marked else (FEW_PLACES, FEW_FRAMES)))
        marked |= seen.marks > 0
        return _judge(seen, marked, stated or ("bff" if context.name == "dvvideo" else "tff"))


def _judge(seen: _Counts, marked: bool, stated: str) -> Fields:
    orders = seen.orders
    clean = orders["progressive"]
    order = max(("tff", "bff"), key=lambda name: (orders[name], name == stated))
    # The order has to be one: where idet finds both, it sees fine lines and no fields.
    combed = orders[order] if orders[order] >= 9 * (orders["tff"] + orders["bff"] - orders[order]) else 0
    share = combed / max(1, combed + clean)
    if marked:
        scan = Scan.INTERLACED if share >= 0.2 or combed + clean < 5 else Scan.PROGRESSIVE
    else:
        scan = Scan.INTERLACED if share >= 0.6 and combed >= 10 else Scan.PROGRESSIVE
    order = order if combed else stated
    if (marked or combed >= 10) and seen.repeats is not None:  # film's frames are clean for the greater part
        for film in (order, {"tff": "bff", "bff": "tff"}[order])[: 1 if combed else 2]:
            if seen.repeats.film(film):
                scan, order = Scan.TELECINE, film
                break
    return Fields(scan=scan, order=order, marked=marked, combed=combed, clean=clean)


def _look(container: av.container.InputContainer, stream: VideoStream, seen: _Counts, places: int, frames: int) -> None:
    """Have idet count some frames at some places."""
    begin = Fraction(container.start_time or 0, 1_000_000)
    length = Fraction(container.duration or 0, 1_000_000)
    if length <= 4:
        places, frames = 1, places * frames
    base = Fraction(stream.time_base.num, stream.time_base.den)
    for place in range(places):
        try:
            if place:
                container.seek(round((begin + length * place / places) / base), stream=stream, backward=True)
            seen.add(_idet(container, stream, frames, seen))
        except av.error.FFmpegError:
            continue  # a place that cannot be read says nothing; whoever reads the whole file will tell


def _idet(
    container: av.container.InputContainer, stream: VideoStream, count: int, seen: _Counts
) -> Iterator[av.VideoFrame]:
    """Frames of the stream with idet's findings in their metadata."""
    graph: av.filter.Graph | None = None
    form: tuple[int, int, str] | None = None
    for frame in _some(container, stream, count):
        seen.marks += frame.interlaced_frame
        if graph is None:
            form = frame.width, frame.height, frame.format.name
            graph = av.filter.Graph()
            graph.link_nodes(
                graph.add_buffer(template=frame), graph.add("idet", f"intl_thres={RATIO}"), graph.add("buffersink")
            )
        if form != (frame.width, frame.height, frame.format.name):
            break
        graph.vpush(frame)
        yield from ready(graph)
    if graph is not None:
        graph.vpush(None)
        yield from ready(graph)


def _some(container: av.container.InputContainer, stream: VideoStream, count: int) -> Iterator[av.VideoFrame]:
    """The next frames of the stream, damaged ones left out."""
    for packet in container.demux(stream):
        try:
            frames = stream.codec_context.decode(packet if packet.size else None)
        except av.error.EOFError:
            return
        except av.error.FFmpegError:
            continue
        for frame in frames:
            if not frame.is_corrupt:
                yield frame
                count -= 1
            if not count:
                stream.codec_context.flush_buffers()
                return


def ready(graph: av.filter.Graph) -> Iterator[av.VideoFrame]:
    """What a graph has finished."""
    while True:
        try:
            frame = graph.vpull()
        except (av.error.BlockingIOError, av.error.EOFError):
            return
        yield frame

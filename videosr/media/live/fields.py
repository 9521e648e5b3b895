"""Interlaced pictures of a live source made whole."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from fractions import Fraction

import av
import av.filter

from videosr.frame import Frame
from videosr.media.deinterlace import Deinterlace, Deinterlacer, Plan, deinterlacing
from videosr.media.fields import FIELD_ORDERS, RATIO, VERDICT, detect, ready
from videosr.media.live.source import SourceSpec
from videosr.media.planes import to_av_frame

VOTES = 10
"""Pictures that idet finds to be combed, after which their order of fields is known."""


class Whole:
    """A stage that makes interlaced pictures whole, by the means of `deinterlace`; a frame for each.

    A file's pictures are looked at beforehand, and all are treated alike. Of what comes as it comes there are only the
    pictures' marks, which broadcasts change from one programme to the next: those that are marked are deinterlaced, a
    frame later, and the others left as they are. Which field is shown first is told by the first of them: there marks
    are often wrong.

    Args:
        spec: the source.
        context: of its video.
        note: is told what is done, in a line.
    """

    def __init__(self, spec: SourceSpec, context: av.VideoCodecContext, note: Callable[[str], None]) -> None:
        self._note, self._noted = note, False
        self._looked_at = spec.file
        self._order = FIELD_ORDERS.get(context.field_order, "bff" if context.name == "dvvideo" else "tff")
        self._deinterlacer: Deinterlacer | None = None
        self._fields: _Fields | None = None
        if spec.file:
            plan, why = deinterlacing(Deinterlace.AUTO, lambda: detect(spec.url))
            if why:
                note(why)
            if plan is not None:
                self._deinterlacer = Deinterlacer(plan)

    def take(self, frame: Frame) -> Iterator[Frame]:
        """Take a frame; gives what is finished, of interlaced ones a frame later."""
        if not self._looked_at:
            yield from self._follow(frame)
        if self._deinterlacer is not None:
            yield from self._deinterlacer.process(frame)
        else:
            yield frame

    def _follow(self, frame: Frame) -> Iterator[Frame]:
        """Begin or end with deinterlacing as a frame is marked."""
        if not frame.interlaced:
            yield from self.flush()
            self._deinterlacer = self._fields = None
            return
        if self._deinterlacer is None:
            self._deinterlacer, self._fields = Deinterlacer(Plan(order=self._order)), _Fields()
            if not self._noted:
                self._noted = True
                self._note("pictures that are marked as interlaced are deinterlaced by bwdif, one frame for each")
        if self._fields is not None and (order := self._fields.order(frame)):
            self._fields = None
            if order != self._order:
                self._order = order
                yield from self.flush()
                self._deinterlacer = Deinterlacer(Plan(order=order))

    def flush(self) -> Iterator[Frame]:
        """Give what is still inside."""
        if self._deinterlacer is not None:
            yield from self._deinterlacer.flush()


class _Fields:
    """Finds out which field of interlaced pictures is shown first."""

    def __init__(self) -> None:
        self._votes: Counter[str] = Counter()
        self._graph: av.filter.Graph | None = None
        self._kind: tuple[object, ...] | None = None
        self._count = 0

    def order(self, frame: Frame) -> str:
        """Take the next frame; "tff" or "bff" once it is known, "" before."""
        kind = frame.width, frame.height, frame.format
        if self._graph is None or kind != self._kind:
            self._graph, self._kind = av.filter.Graph(), kind
            self._graph.link_nodes(
                self._graph.add_buffer(
                    width=frame.width, height=frame.height, format=frame.format.name, time_base=Fraction(1)
                ),
                self._graph.add("idet", f"intl_thres={RATIO}"),
                self._graph.add("buffersink"),
            )
        picture = to_av_frame(frame.planes, frame.format)
        picture.pts, picture.time_base = self._count, Fraction(1)
        self._count += 1
        self._graph.vpush(picture)
        self._votes.update(seen.metadata.get(VERDICT, "") for seen in ready(self._graph))
        order = max(("tff", "bff"), key=self._votes.__getitem__)
        return order if self._votes[order] >= VOTES else ""

"""A live source: packets as they come, decoded at once, with the moment each was demuxed."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import TYPE_CHECKING

import av
import av.error
from av.audio.stream import AudioStream

from videosr.errors import InputError
from videosr.frame import ColorSpec, Frame, PixelFormat, StreamInfo
from videosr.media.captions import CAPTIONS
from videosr.media.colorinfo import color_of
from videosr.media.cropping import Cropping
from videosr.media.hdr import SideData
from videosr.media.limits import MAX_PIXELS, MAX_SIDE
from videosr.media.live.codec import TIME_BASE
from videosr.media.live.fields import Whole
from videosr.media.live.source import LONG_PROBE, READ_TIMEOUT, SHORT_PROBE, Connection, InputLost, SourceSpec
from videosr.media.orientation import UPRIGHT, Orientation
from videosr.media.planes import PlaneReader, planar_format
from videosr.media.rehearsal import describe
from videosr.media.sidedata import FrameSideData
from videosr.media.source import (
    coded_display_matrix,
    compresses,
    fraction,
    plausible_rate,
    unpack_matrix,
    video_stream,
)

if TYPE_CHECKING:
    from av.stream import Stream

    type Packet = av.Packet[Stream]

ARRIVALS = 256
"""Packets whose arrival is remembered until their frames come; decoders reorder fewer."""
RECENT = 10_000
"""Packets of the pictures that are known again when they come a second time: more than players' playlists hold."""
REORDERED = 16
"""Packets that a decoder may take before it gives a picture (H.264 and H.265)."""


@dataclass(frozen=True, slots=True)
class Picture:
    """A decoded frame, its times on the source's clock.

    Attributes:
        frame: the frame.
        arrival: monotonic seconds at which its packet was demuxed.
    """

    frame: Frame
    arrival: float


@dataclass(frozen=True, slots=True)
class Sound:
    """A packet of the audio stream.

    Attributes:
        packet: as demuxed, pts set.
        arrival: monotonic seconds at which it was.
    """

    packet: Packet
    arrival: float


class LiveInput:
    """One connection to a source.

    Args:
        spec: what to read.

    Attributes:
        info: of the video, from its first frame; frames come upright.
        audio: the audio stream that goes with it, if there is one.
        began: monotonic seconds at which its first packet was demuxed.
        live: it has no end of its own: an end is a loss.
        recent: time and size of the last packets of the pictures, if it comes by segments.
        damaged: packets that could not be decoded.
        notes: lines, not yet said, about what is done to the pictures, and what is left out.
        wait: what paces: called with each packet's time on the source's clock in seconds, and whether it is of the
            video; returns the monotonic seconds at which the packet counts as demuxed.

    Raises:
        InputLost: it cannot be reached (live sources).
        InputError: it cannot be used.
        UsageError: an unknown format, or options that it does not have.
    """

    def __init__(self, spec: SourceSpec) -> None:
        self._spec = spec
        self.wait: Callable[[float, bool], float] | None = None
        self.damaged = 0
        self.notes: list[str] = []
        self._connection = Connection(spec, SHORT_PROBE)
        if not self._connection.container.streams.video and spec.remote:
            self._connection.close()  # its picture may come later than its sound
            self._connection = Connection(spec, LONG_PROBE)
        try:
            container = self._connection.container
            self._stream = video_stream(container, spec.shown)
            if spec.file:
                describe(container, spec.shown)
            self.audio = self._sound(container)
            self.live = self._connection.live
            self._untimed = self._connection.untimed
            stated = self._stream.time_base
            self._time_base = TIME_BASE if self._untimed else Fraction(stated.num, stated.den)
            self.recent: deque[tuple[int | None, int]] = deque(maxlen=RECENT if self._connection.segmented else 0)
            self._arrivals: dict[int, float] = {}
            self._seen: float | None = None  # the moment of the last picture
            self._blind = 0  # packets since that gave none
            self._reader = PlaneReader()
            self._kinds: dict[tuple[object, ...], tuple[PixelFormat, ColorSpec]] = {}
            context = self._stream.codec_context
            self._cropping, self._side_data = Cropping(context), FrameSideData(context)
            self._lost = SideData(context)
            self._stated_sar = fraction(self._stream.sample_aspect_ratio)
            self._sar_is_the_containers = self._stated_sar != fraction(context.sample_aspect_ratio)
            self._stated = coded_display_matrix(context)
            self._matrix = self._stated
            self._orientation = Orientation.of(self._matrix) or UPRIGHT
            context.thread_type = "SLICE"  # frame threads would each hold a frame back
            context.options = {"max_pixels": str(MAX_PIXELS)}
            self._whole = Whole(spec, context, self._note)
            self._events = self._read()
            self._held: list[Picture | Sound] = []
            self.info = self._first()
            self.began = self._held[0].arrival
        except BaseException:
            self.close()
            raise

    @property
    def losses(self) -> list[str]:
        """What rides on the frames read so far and is not carried, by what people call it."""
        return self._lost.losses(frozenset({CAPTIONS}))

    def _note(self, line: str) -> None:
        if line:
            self.notes.append(f"{self._spec.shown}: {line}")

    def _sound(self, container: av.container.InputContainer) -> AudioStream | None:
        """What players choose: of the picture's programme, by preference the default track."""
        usable = [s for s in container.streams.audio if s.codec_context is not None]
        best = container.streams.best("audio", related=self._stream)  # None before the sound has begun
        return next((s for s in usable if best is not None and s.index == best.index), usable[0] if usable else None)

    def _first(self) -> StreamInfo:
        """Read up to the first frame, which says what the stream is."""
        try:
            for event in self._events:
                self._held.append(event)
                if isinstance(event, Picture):
                    frame, stream = event.frame, self._stream
                    self._note(self._turning())
                    self._note(self._left_out())
                    rates = map(plausible_rate, (stream.average_rate, stream.guessed_rate, stream.base_rate))
                    return StreamInfo(
                        width=frame.width,
                        height=frame.height,
                        format=frame.format,
                        time_base=self._time_base,
                        rate=next((rate for rate in rates if rate), None),
                        color=frame.color,
                        sar=frame.sar,
                        codec=stream.codec_context.codec.canonical_name,
                        compressed=compresses(stream.codec_context),
                    )
        except InputLost as exc:
            if self.live:
                raise
            raise InputError(f"{exc}, before the first frame") from exc
        kind = InputLost if self.live else InputError
        raise kind(f"{self._spec.shown}: has no decodable video frame")

    def repeats(self, before: LiveInput) -> bool:
        """Whether it begins with what an earlier connection has given, as a playlist does that stands still."""
        return bool(self.recent) and self.recent[0] in before.recent

    def __iter__(self) -> Iterator[Picture | Sound]:
        """What comes, in the order in which it comes. Raises InputLost at an error, and at the end if it is `live`."""
        held, self._held = self._held, []
        if not self.live:  # what was read of a file to see what it is counts as read now
            now = time.monotonic()
            self._arrivals = dict.fromkeys(self._arrivals, now)
            held = [replace(event, arrival=now) for event in held]
        yield from held
        yield from self._events

    def _read(self) -> Iterator[Picture | Sound]:
        try:
            yield from self._demuxed()
        except InputLost:
            yield from self._pictures(self._whole.flush(), time.monotonic())
            raise
        yield from self._pictures(self._whole.flush(), time.monotonic())

    def _demuxed(self) -> Iterator[Picture | Sound]:
        streams: list[Stream] = [self._stream, *([self.audio] if self.audio is not None else [])]
        for packet in self._connection.packets(streams):
            video = packet.stream_index == self._stream.index
            if video:
                self.recent.append((packet.dts, packet.size))
            if self._untimed:
                self._stamp(packet)
            time_ = packet.dts if packet.dts is not None else packet.pts
            if self.wait is not None and time_ is not None:
                arrival = self.wait(float(time_ * Fraction(packet.time_base.num, packet.time_base.den)), video)
            else:
                arrival = time.monotonic()
            if not video:
                if packet.pts is not None:
                    yield Sound(packet, arrival)
                continue
            if packet.pts is not None:
                self._arrivals[packet.pts] = arrival
                while len(self._arrivals) > ARRIVALS:
                    del self._arrivals[next(iter(self._arrivals))]
            yield from self._decode(packet, arrival)
        if self.live:
            raise InputLost(f"{self._spec.shown}: ended")
        yield from self._decode(None, time.monotonic())

    def _stamp(self, packet: Packet) -> None:
        """Give a packet its coming as its time, in the order of decoding, in which pictures take it over."""
        packet.time_base = self._time_base
        packet.pts, packet.dts, packet.duration = None, round(time.monotonic() / self._time_base), 0

    def _decode(self, packet: Packet | None, arrival: float) -> Iterator[Picture]:
        if packet is not None:
            packet = self._side_data.expect(packet)
        try:
            pictures = self._stream.codec_context.decode(packet)
        except av.error.EOFError:
            return
        except av.error.FFmpegError:
            self.damaged += 1
            pictures = []
        self._watch(bool(pictures), arrival)
        for picture in map(self._cropping.of, pictures):
            pts = picture.pts if picture.pts is not None else picture.dts
            if pts is None:
                self.damaged += 1
                continue
            yield from self._pictures(self._whole.take(self._frame(picture, pts)), arrival)

    def _pictures(self, frames: Iterator[Frame], arrival: float) -> Iterator[Picture]:
        for frame in frames:
            yield Picture(self._orientation.frame(frame), self._arrivals.pop(frame.pts, arrival))

    def _watch(self, seen: bool, now: float) -> None:
        """Notice that packets give no pictures any more, because another coding has taken the place of the first.

        Not before there was one, which a stream that is joined midway begins with at its next keyframe.

        Raises:
            InputLost: for too long, of a source that has no end.
        """
        if seen:
            self._blind, self._seen = 0, now
        elif self.live and self._seen is not None:
            self._blind += 1
            if self._blind > REORDERED and now - self._seen > READ_TIMEOUT:
                raise InputLost(f"{self._spec.shown}: no picture for {READ_TIMEOUT:.0f} s")

    def _frame(self, picture: av.VideoFrame, pts: int) -> Frame:
        key = (picture.format.name, picture.width, picture.height, picture.colorspace, picture.color_range)
        if key not in self._kinds:
            if max(picture.width, picture.height) > MAX_SIDE:
                raise InputError(f"{self._spec.shown}: {picture.width}x{picture.height} is too large")
            self._kinds.clear()
            fmt = planar_format(picture.format.name, opaque=True)
            color, _ = color_of(picture, fmt, self._stream.codec_context.codec.canonical_name)
            self._kinds[key] = fmt, color
        fmt, color = self._kinds[key]
        rides = self._side_data.of(picture)
        self._lost.of(rides)
        self._orient(picture, rides)
        return Frame(
            planes=self._reader.read(picture, fmt),
            format=fmt,
            pts=pts,
            time_base=self._time_base,
            duration=max(0, picture.duration),
            color=color,
            sar=self._sar(),
            interlaced=picture.interlaced_frame,
            key=picture.key_frame,
            side_data=tuple((kind, data) for kind, data in rides.items() if kind == CAPTIONS),
        )

    def _sar(self) -> Fraction:
        """Of the last picture: the container's, where that says another than the coded video did, which may change."""
        coded = fraction(self._stream.codec_context.sample_aspect_ratio)
        return (self._stated_sar if self._sar_is_the_containers else coded or self._stated_sar) or Fraction(1)

    def _orient(self, picture: av.VideoFrame, rides: Mapping[str, bytes]) -> None:
        """Find out how a picture is to be shown.

        What the container says holds for all. What the coded video says holds until it says something else, or begins
        anew with a keyframe (H.264, annex D); FFmpeg's decoder tells it only of the picture in whose packet it was.
        """
        if self._stated:
            return
        matrix = unpack_matrix(rides.get("DISPLAYMATRIX"))
        if matrix is not None or picture.key_frame:
            self._matrix = matrix
            self._orientation = Orientation.of(matrix) or UPRIGHT

    def _turning(self) -> str:
        orientation = Orientation.of(self._matrix)
        if orientation is None:
            a, b, _, c, d, *_ = (entry / 65536 for entry in self._matrix or ())
            return (
                f"its display matrix ({a:g} {b:g} {c:g} {d:g}) asks for more than quarter turns "
                "and mirroring: pictures stay as they are coded; turn them with FFmpeg's rotate filter"
            )
        return "" if orientation == UPRIGHT else "turned upright, as its display matrix says"

    def _left_out(self) -> str:
        """A line about the streams that are not served."""
        used = {self._stream.index, self.audio.index if self.audio is not None else -1}
        others = Counter(stream.type for stream in self._connection.container.streams if stream.index not in used)
        counts = ", ".join(
            f"{count} {kind}" for kind, count in others.items() if kind in ("video", "audio", "subtitle")
        )
        return f"one video and one audio stream are served; left out: {counts}" if counts else ""

    def close(self) -> None:
        """Let go of the source; not while another thread iterates."""
        self._connection.close()

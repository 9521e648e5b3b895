"""A part of a film: what of the streams beside the picture belongs to it, and where they have to begin for that."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing, suppress
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from itertools import chain
from typing import TYPE_CHECKING

import av
import av.error
from av.stream import Stream
from av.video.stream import VideoStream

from videosr.media.clock import clock_of
from videosr.media.probe import COPY, TEXT_SUBTITLES, Plan
from videosr.media.source import codec_name, is_attached_picture, open_input, plausible_rate, video_stream
from videosr.media.timecode import advance

if TYPE_CHECKING:
    type Packet = av.Packet[Stream]

PGS_COMPOSITION, PGS_STATE, PGS_OBJECTS = 0x16, 10, 13
"""Type of a presentation composition segment; where its state and its number of objects are."""
BELATED = 2
"""Seconds of video after which no packet of another stream that is shown earlier is looked for."""


@dataclass(frozen=True, slots=True)
class Window:
    """The part of the source that the output shows.

    Attributes:
        start: seconds of the first video frame.
        end: seconds at which the last one ends.
    """

    start: Fraction
    end: Fraction


class Part:
    """Cuts streams to a window and moves them so that it begins at 0.

    Audio is cut between packets. Video can only begin at a keyframe: at the last one before the window if the container
    can hide what is shown earlier, else at the first one in it. Subtitles that are on the screen when the window begins
    are moved to its start, and end with it; graphics without a duration are on the screen until the next ones come.

    Args:
        name: the source.
        plan: of its streams.
        window: the part.

    Attributes:
        window: as given.
        losses: what cannot be kept.
        notes: what is kept and not shown.
    """

    def __init__(self, name: str, plan: Plan, window: Window) -> None:
        self.window = window
        self.losses: list[str] = []
        self.notes: list[str] = []
        self._video = plan.video
        hides = plan.container in ("mp4", "mov")  # by an edit list
        with open_input(name) as source:
            copied = [source.streams[p.index] for p in plan.streams if p.action == COPY and not p.target]
            films = {s.index: _Film(window, hides) for s in copied if s.type == "video" and not is_attached_picture(s)}
            pictures = [s for s in copied if s.type == "subtitle" and codec_name(s) not in TEXT_SUBTITLES]
            graphics = {s.index: _Graphics(s) for s in pictures}
            self._cut_away = _Frames(video_stream(source, name, plan.video))
            tags = (source.metadata, *(stream.metadata for stream in source.streams))
            if films or graphics or any(key.lower() == "timecode" for key in chain(*tags)):
                self._look(source, films, graphics)
        entries = {i: film.entry for i, film in films.items()} | {i: shown.entry for i, shown in graphics.items()}
        self._entries = {i: entry for i, entry in entries.items() if entry is not None}
        self._beyond: dict[int, list[Packet]] = {i: [] for i in films}
        for i, film in films.items():
            late = (film.entry or window.start) - window.start
            if film.missing and film.entry == window.end:
                self.losses.append(f"stream {i}: is left out: it has no keyframe in the part")
            elif film.missing:
                self.losses.append(
                    f"stream {i}: begins {float(late):.3f} s late, at its first keyframe in the part: {plan.container} "
                    "cannot hide the pictures that earlier ones need"
                )
            elif film.hidden:
                self.notes.append(
                    f"stream {i}: {film.hidden} pictures before the start are kept, hidden by an edit list: later ones "
                    "need them"
                )

    def _look(
        self,
        source: av.container.InputContainer,
        films: Mapping[int, _Film],
        graphics: Mapping[int, _Graphics],
    ) -> None:
        """Read the streams up to the start."""
        start, end = self.window.start, self.window.end
        wanted = {self._video, *films, *graphics}
        for stream in source.streams:
            if stream.index not in wanted:
                stream.discard = av.stream.Discard.all
        with closing(clock_of(source)) as clock, suppress(av.error.FFmpegError):  # damage: whoever copies will say so
            for packet in clock.demux(source, *(source.streams[i] for i in sorted(wanted))):
                tick = Fraction(packet.time_base.num, packet.time_base.den)
                stamp = packet.pts if packet.pts is not None else packet.dts
                if stamp is None:
                    continue
                index, begin = packet.stream_index, stamp * tick
                decoded = (packet.dts if packet.dts is not None else stamp) * tick
                if index in films:
                    films[index].see(packet, begin, decoded)
                elif begin >= start:
                    settled = all(film.settled or decoded >= end for film in films.values())
                    if index == self._video and decoded >= start + BELATED and settled:
                        break
                elif index in graphics:
                    graphics[index].see(packet, begin)
                elif not packet.is_discard:
                    self._cut_away.times.append(stamp)

    def take(self, packet: Packet, lead: Fraction) -> list[Packet]:
        """The packets that now are known to belong to the part, with their times in it.

        Args:
            packet: the next one of its stream.
            lead: seconds of its stream that have to stand before the start.
        """
        stamp = packet.pts if packet.pts is not None else packet.dts
        if stamp is None:  # cover art
            return [packet]
        index, window = packet.stream_index, self.window
        tick = Fraction(packet.time_base.num, packet.time_base.den)
        begin, length = stamp * tick, (packet.duration or 0) * tick
        entry = self._entries.get(index, window.start - lead)
        if packet.stream.type == "subtitle":
            if begin >= window.end or (begin < window.start and begin < entry and begin + length <= window.start):
                return []
            if begin < window.start:
                late = round((window.start - begin) / tick)
                packet.duration = max(0, (packet.duration or 0) - late)
                packet.pts = packet.dts = stamp + late
            rest = round((window.end - max(begin, window.start)) / tick)
            packet.duration = min(packet.duration or 0, max(1, rest))  # else the file would last as long as they do
        elif begin < entry or (begin >= window.end and index not in self._beyond):
            return []
        shift = round(window.start / tick)
        decoded = packet.dts
        if packet.pts is not None:
            packet.pts -= shift
        if packet.dts is not None:
            packet.dts -= shift
        if index not in self._beyond:
            return [packet]
        if begin >= window.end:  # pictures that are shown earlier may need it
            if decoded is not None and decoded * tick < window.end:
                self._beyond[index].append(packet)
            return []
        needed, self._beyond[index] = self._beyond[index], []
        return [*needed, packet]

    def tags(self, tags: Mapping[str, str], owner: str) -> dict[str, str]:
        """Tags with the timecode of the part's first frame.

        Args:
            tags: of the source.
            owner: what to call it where the timecode is left out, which is a loss.
        """
        made = dict(tags)
        if not self._cut_away.times:
            return made
        for key in [key for key in tags if key.lower() == "timecode"]:
            nominal = self._nominal
            label = advance(made[key], len(self._cut_away.times), nominal) if nominal else None
            if label is None:
                self.losses.append(
                    f"{owner}: timecode {made.pop(key)} is left out: that of the part's first frame cannot be counted"
                )
            else:
                made[key] = label
        return made

    @cached_property
    def _nominal(self) -> int | None:
        # Only for who has a timecode, and once: it looks at every frame before the start.
        return self._cut_away.nominal(self.window.start)


class _Frames:
    """The video's frames before the start.

    Attributes:
        times: of presentation, in ticks.
    """

    def __init__(self, stream: VideoStream) -> None:
        self._tick = Fraction(stream.time_base.num, stream.time_base.den)
        self._rate = plausible_rate(stream.average_rate)
        self.times: list[int] = []

    def nominal(self, start: Fraction) -> int | None:
        """Frames a second as timecode counts them; None where the frames are not as many, or not evenly spaced."""
        times = sorted(self.times)
        first, count = times[0] * self._tick, len(times)
        step = (start - first) / count
        even = all(abs(first + i * step - time * self._tick) <= self._tick for i, time in enumerate(times))
        # Rates that containers with coarse ticks state are rough, but tell 24 from 25.
        if self._rate is None or not even or abs(step - 1 / self._rate) > step / 100 + self._tick / count:
            return None
        return round(self._rate)


class _Film:
    """Finds the keyframe at which a copied video begins.

    Attributes:
        entry: seconds of the keyframe; None: the video begins by itself after the start.
        hidden: pictures from there to the start.
        missing: pictures from the start to there.
        settled: nothing that follows makes a difference.
    """

    def __init__(self, window: Window, hides: bool) -> None:
        self._window, self._hides = window, hides
        self.entry = None if hides else window.end
        self.hidden = self.missing = 0
        self.settled = False

    def see(self, packet: Packet, begin: Fraction, decoded: Fraction) -> None:
        """Note one packet, shown and decoded at these seconds."""
        start = self._window.start
        if self._hides:
            self.settled = self.settled or decoded >= start
            if packet.is_keyframe and begin <= start:
                self.entry, self.hidden = begin, 0
            if self.entry is not None and self.entry <= begin < start:
                self.hidden += 1
        elif not self.settled and start <= begin < self._window.end:
            if packet.is_keyframe:
                self.entry, self.settled = begin, True
            else:
                self.missing += 1


class _Graphics:
    """Finds what of a stream of pictures of text is on the screen at the start.

    Attributes:
        entry: seconds of the packet with which that begins; None: nothing is, or the packets say how long they last.
    """

    def __init__(self, stream: Stream) -> None:
        self._pgs = codec_name(stream) == "hdmv_pgs_subtitle"
        self.entry: Fraction | None = None

    def see(self, packet: Packet, begin: Fraction) -> None:
        """Note a packet that is shown before the start.

        Presentation graphics build on what was sent since their last epoch start or acquisition point, and are taken
        away by a composition of no objects (FFmpeg's pgssubdec.c).
        """
        new, shows = True, True
        if self._pgs:
            data = bytes(packet)
            if len(data) <= PGS_OBJECTS or data[0] != PGS_COMPOSITION:
                return
            new, shows = bool(data[PGS_STATE] & 0xC0), data[PGS_OBJECTS] > 0
        if packet.duration or not shows:
            self.entry = None
        elif new or self.entry is None:
            self.entry = begin

"""The packets of one stream, and whether an output has those of its input."""

from __future__ import annotations

import hashlib
from array import array
from collections import Counter
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import partial
from itertools import accumulate, islice, pairwise
from math import lcm
from typing import Any, Self

import av
import av.error
from av.stream import Stream
from av.subtitles.codeccontext import SubtitleCodecContext
from av.subtitles.subtitle import AssSubtitle

from videosr.media.checks.payload import content
from videosr.media.cues import is_blank
from videosr.media.probe import CONVERT, COPY, TEXT_SUBTITLES, StreamPlan
from videosr.media.source import codec_name

AUDIO_TOLERANCE = Fraction(1, 10)
"""Seconds by which the length of converted audio may differ: encoders work in blocks."""
HASH = 8
"""Bytes of a packet's hash."""


@dataclass(slots=True)
class Track:
    """The packets of one stream, in a few bytes each: a film's sound may be millions of them.

    Attributes:
        tick: seconds.
        times: presentation times in ticks, decoding times where there are none.
        codec: FFmpeg's name of it.
        header: the stream's extradata.
        hashes: of the payloads, however they are framed, `HASH` bytes each.
        durations: in ticks, 0 where unknown.
        blank: which packets are text subtitles without text, a byte each.
        length: when the last one ends, in ticks.
        disorder: packets whose decoding time is before that of one ahead, or after their own presentation.
        back: the numbers of those of the first kind, which no muxer takes as they are.
        errors: packets that could not be decoded, where that was tried.
    """

    tick: Fraction
    codec: str = ""
    header: bytes = b""
    times: array[int] = field(default_factory=partial(array, "q"))
    hashes: bytearray = field(default_factory=bytearray)
    durations: array[int] = field(default_factory=partial(array, "q"))
    blank: bytearray = field(default_factory=bytearray)
    length: int = 0
    disorder: int = 0
    back: set[int] = field(default_factory=set)
    errors: int = 0
    _decoded: int | None = None
    _content: Any = field(default_factory=partial(hashlib.blake2b, digest_size=HASH))

    @classmethod
    def of(cls, stream: Stream) -> Self:
        """That of a stream, without its packets."""
        context = stream.codec_context
        header = b"" if context is None else bytes(context.extradata or b"")
        return cls(Fraction(stream.time_base.num, stream.time_base.den), codec_name(stream), header)

    def add(self, packet: av.Packet[Stream]) -> None:
        """Note a packet."""
        time, data = packet.pts if packet.pts is not None else packet.dts or 0, bytes(packet)
        self.times.append(time)
        self.hashes += hashlib.blake2b(content(data, self.codec, self.header), digest_size=HASH).digest()
        self._content.update(data)
        self.durations.append(packet.duration or 0)
        self.blank.append(_is_blank(packet))
        if packet.dts is not None:
            early = self._decoded is not None and packet.dts < self._decoded
            self.disorder += early or (packet.pts is not None and packet.pts < packet.dts)
            if early:
                self.back.add(len(self.times) - 1)
            else:
                self._decoded = packet.dts
        self.length = max(self.length, time + (packet.duration or 0))

    def cues(self) -> list[int]:
        """When subtitles begin, in ticks: of the packets without those that only clear the screen."""
        return [time for time, blank in zip(self.times, self.blank, strict=True) if not blank]

    def changes(self) -> list[int]:
        """When the text on the screen changes, in ticks: at every begin of a cue, and at ends while others go on."""
        begins = sorted(set(self.cues()))
        following = dict(pairwise(begins))
        on_screen: Counter[int] = Counter()
        for time, duration, blank in zip(self.times, self.durations, self.blank, strict=True):
            if not blank:
                on_screen[time] += 1
                on_screen[time + duration if duration else following.get(time, self.length + 1)] -= 1
        edges = sorted(on_screen)
        counts = accumulate(on_screen[edge] for edge in edges)
        return [edge for edge, count in zip(edges, counts, strict=True) if count]

    @property
    def content(self) -> bytes:
        """Hash of all payloads, however they are cut."""
        digest: bytes = self._content.digest()
        return digest

    @property
    def begin(self) -> Fraction:
        """Seconds of the earliest packet."""
        return min(self.times, default=0) * self.tick

    @property
    def end(self) -> Fraction:
        """Seconds at which the last one to end does."""
        return self.length * self.tick


def differences(plan: StreamPlan, was: Track, now: Track, shift: Fraction) -> Iterator[str]:
    """A line for each thing in which the packets of a kept stream are not what the plan promises.

    Args:
        plan: what was to be done with the stream.
        was: in the input.
        now: in the output.
        shift: seconds by which the whole file was moved.
    """
    name = f"stream {plan.index} ({plan.type}, {plan.codec})"
    if now.errors:
        yield f"{name}: {now.errors} packets cannot be decoded"
    if now.disorder and not was.disorder:
        yield f"{name}: {now.disorder} packets are out of order"
    if plan.action == CONVERT and plan.type == "audio":
        yield from _in_extent(name, was, now, shift)
        return
    if plan.codec.startswith("pcm_") and was.hashes != now.hashes:
        # Samples are packets as each container cuts them.
        if was.content != now.content:
            yield f"{name}: has other content"
        yield from _in_extent(name, was, now, shift)
        return
    expected: Sequence[int] = was.times
    found: Sequence[int] = now.times
    if plan.action == CONVERT:  # MP4's text track shows one thing at a time
        expected, found = was.changes() if plan.target == "mov_text" else was.cues(), now.cues()
    if len(expected) != len(found):
        yield f"{name}: {len(found)} packets, expected {len(expected)}"
        return
    if plan.action == COPY and was.hashes != now.hashes:
        first = next(i for i, (x, y) in enumerate(zip(was.hashes, now.hashes, strict=True)) if x != y)
        yield f"{name}: packet {first // HASH} has other content"
    back: Container[int] = was.back if plan.action == COPY else ()
    yield from _in_synchrony(name, expected, found, (was.tick, now.tick), shift, back)
    if plan.action == COPY:
        yield from _in_durations(name, was, now, whole=plan.type != "audio")


def _in_extent(name: str, was: Track, now: Track, shift: Fraction) -> Iterator[str]:
    """Begin and end of sound. What lies before 0 is the old encoder's delay, which decoding removes."""
    for what, x, y in (("begins", was.begin, now.begin), ("ends", was.end, now.end)):
        if abs(max(x + shift, Fraction(0)) - max(y, Fraction(0))) > AUDIO_TOLERANCE:
            yield f"{name}: {what} at {float(y):.3f} s, expected {float(x + shift):.3f} s"


def _in_synchrony(
    name: str,
    was: Sequence[int],
    now: Sequence[int],
    ticks: tuple[Fraction, Fraction],
    shift: Fraction,
    back: Container[int],
) -> Iterator[str]:
    """The first packet that has not kept its place against the video, but for those `back` that had to be moved.

    Times are in ticks.
    """
    unit, (a, b, moved) = _in_one_unit(*ticks, shift)
    tolerance = max(a, b)
    for i, (x, y) in enumerate(zip(was, now, strict=True)):
        if abs(offset := y * b - x * a - moved) > tolerance and i not in back:
            yield f"{name}: packet {i} is {float(offset * unit):+.4f} s off against the video"
            return


def _in_durations(name: str, was: Track, now: Track, *, whole: bool) -> Iterator[str]:
    """The first packet that says how long it lasts, in both files, and does not last as long.

    Without `whole` the last one may differ: audio may be cut there, which not all containers can say.
    """
    unit, (a, b) = _in_one_unit(was.tick, now.tick)
    count = len(was.durations) - (not whole)
    for i, (x, y) in enumerate(islice(zip(was.durations, now.durations, strict=True), max(0, count))):
        moved = i in was.back or i + 1 in was.back  # MP4 and MOV have the steps from one packet to the next
        if x and y and abs(x * a - y * b) > a + b and not moved:  # both ends are rounded
            lengths = float(y * b * unit), float(x * a * unit)
            yield f"{name}: packet {i} lasts {lengths[0]:.4f} s, expected {lengths[1]:.4f} s"
            return


def _is_blank(packet: av.Packet[Stream]) -> bool:
    """Whether a packet is a text subtitle without text, such as MP4 has to clear the screen."""
    context = packet.stream.codec_context
    if not isinstance(context, SubtitleCodecContext) or codec_name(packet.stream) not in TEXT_SUBTITLES:
        return False
    try:
        text = context.decode2(packet) if packet.size else None
    except av.error.FFmpegError:
        return False
    return all(is_blank(rect.ass) for rect in text or () if isinstance(rect, AssSubtitle))


def _in_one_unit(*seconds: Fraction) -> tuple[Fraction, list[int]]:
    """A unit of time of which all of these are whole numbers, and those: integers are compared many times faster."""
    whole = lcm(*(time.denominator for time in seconds))
    return Fraction(1, whole), [int(time * whole) for time in seconds]

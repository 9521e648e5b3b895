"""An independent check that an output holds everything of its input: both files are read with plain PyAV."""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import asdict, dataclass, field
from fractions import Fraction
from typing import Any

import av
import av.error
from av.stream import Disposition, Stream

from videosr.media.containers import container_format
from videosr.media.languages import same_language
from videosr.media.probe import BOOKKEEPING, CONVERT, COPY, DROP, TRACK_BOOKKEEPING, Plan, StreamPlan, plan_streams
from videosr.media.source import coded_display_matrix, open_input, video_stream

AUDIO_TOLERANCE = Fraction(1, 10)
"""Seconds by which the length of converted audio may differ: encoders work in blocks."""
HDR = ("MASTERING_DISPLAY_METADATA", "CONTENT_LIGHT_LEVEL")
REPACKED = frozenset({"h264", "hevc", "aac", "vvc", "av1", "truehd"})
"""Codecs whose packets muxers write in another framing (start codes or lengths, ADTS headers) with the same content."""


@dataclass(frozen=True, slots=True)
class Report:
    """What was compared.

    Attributes:
        problems: one line for each difference.
        facts: what was found, for people and scripts; plain JSON values.
    """

    problems: list[str]
    facts: dict[str, Any]

    @property
    def ok(self) -> bool:
        """Nothing is missing or different."""
        return not self.problems

    def as_json(self) -> dict[str, Any]:
        """The report as plain JSON values."""
        return {"ok": self.ok, **asdict(self)}


@dataclass(slots=True)
class _Track:
    """The packets of one stream: times in ticks, payload hashes."""

    tick: Fraction
    times: list[int] = field(default_factory=list)
    hashes: list[bytes] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    length: int = 0

    def add(self, packet: av.Packet[Stream]) -> None:
        time = packet.pts if packet.pts is not None else packet.dts or 0
        self.times.append(time)
        self.hashes.append(hashlib.blake2b(bytes(packet), digest_size=8).digest())
        self.sizes.append(packet.size)
        self.length = max(self.length, time + (packet.duration or 0))

    def without_blanks(self) -> _Track:
        """Without the packets that only clear the screen: most formats of subtitles have none."""
        full = [i for i, size in enumerate(self.sizes) if size > 2]
        return _Track(
            self.tick,
            [self.times[i] for i in full],
            [self.hashes[i] for i in full],
            [self.sizes[i] for i in full],
            self.length,
        )

    @property
    def begin(self) -> Fraction:
        return min(self.times, default=0) * self.tick

    @property
    def end(self) -> Fraction:
        return self.length * self.tick


@dataclass(slots=True)
class _File:
    """One file, read to its end."""

    tick: Fraction
    width: int
    height: int
    sar: Fraction
    matrix: tuple[int, ...] | None
    rotation: int = 0
    errors: int = 0
    corrupt: int = 0
    last_duration: int = 0
    pts: list[int | None] = field(default_factory=list)
    color: dict[str, int] = field(default_factory=dict)
    hdr: dict[str, bytes] = field(default_factory=dict)
    tracks: dict[int, _Track] = field(default_factory=dict)


def verify(source: str | os.PathLike[str], output: str | os.PathLike[str], *, scale: int | None = None) -> Report:
    """Compare an output with what it was made from.

    Frames are counted and timed by decoding both files; every other stream is compared packet by packet. Which streams
    must be there is what `plan_streams` promises for the output's container.

    Args:
        source: the input video.
        output: the file made from its whole length.
        scale: if given, the picture must be exactly this many times as large.

    Raises:
        InputError: one of the files cannot be opened at all.
    """
    container = container_format(output)
    plan = plan_streams(source, container)
    check = _Check(plan)
    with open_input(source) as a, open_input(output) as b:
        main = _upscaled_stream(plan, b, os.fspath(output))
        before = _read(source, plan.video)
        after = _read(output, main)
        check.picture(before, after, scale)
        check.times(before, after)
        check.streams(a, b, main, before, after)
        check.chapters(a, b)
        check.tags("file", a.metadata, b.metadata, _lost(plan, "tag "))
    return Report(check.problems, check.facts)


def _upscaled_stream(plan: Plan, output: av.container.InputContainer, name: str) -> int:
    """Index of the upscaled stream: its place among the video streams is the one it had."""
    videos = [p for p in plan.streams if p.type == "video" and p.action != DROP]
    place = next(i for i, p in enumerate(videos) if p.index == plan.video)
    found = output.streams.video
    return found[place].index if place < len(found) else video_stream(output, name).index


def _read(path: str | os.PathLike[str], index: int) -> _File:
    """Read a file to its end; a damaged one on one thread, where damage is concealed the same way every time."""
    with open_input(path) as container:
        file = _read_video(container, index, 0)
    if file.errors or file.corrupt:
        with open_input(path) as container:
            file = _read_video(container, index, 1)
    # A second pass for the other streams: what a damaged container yields depends on which streams are asked for.
    with open_input(path) as container:
        others = [s for s in container.streams if s.index != index and s.type != "attachment"]
        container.streams[index].discard = av.stream.Discard.all
        file.tracks = {s.index: _Track(Fraction(s.time_base.num, s.time_base.den)) for s in others}
        for packet in container.demux(others) if others else ():
            if packet.size or packet.pts is not None:
                file.tracks[packet.stream_index].add(packet)
    return file


def _read_video(container: av.container.InputContainer, index: int, threads: int) -> _File:
    stream = container.streams[index]
    assert isinstance(stream, av.video.stream.VideoStream)
    for other in container.streams:
        if other.index != index:
            other.discard = av.stream.Discard.all
    context = stream.codec_context
    context.thread_type = "AUTO"
    context.thread_count = threads
    sar = stream.sample_aspect_ratio
    file = _File(
        tick=Fraction(stream.time_base.num, stream.time_base.den),
        width=context.width,
        height=context.height,
        sar=Fraction(sar.num, sar.den) if sar.num and sar.den else Fraction(1),
        matrix=coded_display_matrix(context),
    )
    for packet in container.demux(stream):
        try:
            frames = context.decode(packet)
        except av.error.EOFError:
            continue
        except av.error.FFmpegError:
            file.errors += 1
            continue
        for frame in frames:
            _note_frame(file, frame)
    return file


def _note_frame(file: _File, frame: av.VideoFrame) -> None:
    if not file.pts:
        file.width, file.height, file.rotation = frame.width, frame.height, frame.rotation
        file.color = {
            "matrix": frame.colorspace,
            "range": 2 if frame.format.name.startswith("yuvj") else frame.color_range,
            "primaries": frame.color_primaries,
            "transfer": frame.color_trc,
            "siting": frame.chroma_location,
        }
        file.hdr = {kind.name: bytes(data) for kind, data in frame.side_data.items() if kind.name in HDR}
    file.pts.append(frame.pts)
    file.last_duration = frame.duration
    file.corrupt += frame.is_corrupt


class _Check:
    """Collects differences."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self.problems: list[str] = []
        self.facts: dict[str, Any] = {"losses": list(plan.losses)}
        self._shift = Fraction(0)

    def _differ(self, text: str) -> None:
        self.problems.append(text)

    # -- the video ----------------------------------------------------------------------------------------------

    def picture(self, a: _File, b: _File, scale: int | None) -> None:
        """Size, aspect, rotation and colour tags."""
        self.facts["size"] = [b.width, b.height]
        if scale is not None and (b.width, b.height) != (a.width * scale, a.height * scale):
            self._differ(f"video: size {b.width}x{b.height}, expected {a.width * scale}x{a.height * scale}")
        dar_a, dar_b = a.sar * a.width / a.height, b.sar * b.width / b.height
        if abs(dar_b / dar_a - 1) > Fraction(1, 200):
            self._differ(
                f"video: display aspect {float(dar_b):.4f}, expected {float(dar_a):.4f} (SAR {b.sar}, was {a.sar})"
            )
        linear_a, linear_b = ((m or (65536, 0, 0, 0, 65536))[:5] for m in (a.matrix, b.matrix))
        if a.rotation != b.rotation or linear_a != linear_b:
            self._differ(f"video: rotation {b.rotation} (matrix {b.matrix}), expected {a.rotation} (matrix {a.matrix})")
        for name, value in a.color.items():
            stated = value not in ((0,) if name in ("range", "siting") else (0, 2, 3))
            if name == "matrix" and value == 0:
                stated = False  # R'G'B' in, whatever the encoder takes out
            if stated and name != "siting" and b.color.get(name) != value:
                self._differ(f"video: colour {name} {b.color.get(name)}, expected {value}")
        self.facts["color"] = b.color
        self.facts["hdr"] = sorted(b.hdr)
        for name in sorted(set(a.hdr) - set(b.hdr)):
            self._differ(f"video: {name.lower().replace('_', ' ')} is missing")
        if b.errors or b.corrupt:
            self._differ(f"video: {b.errors} decoding errors, {b.corrupt} damaged frames")

    def times(self, a: _File, b: _File) -> None:
        """Number, presentation times and last duration of the frames."""
        self.facts |= {
            "frames_in": len(a.pts), "frames_out": len(b.pts), "input_errors": a.errors, "input_damaged": a.corrupt,
            "tick_in": str(a.tick), "tick_out": str(b.tick),
        }  # fmt: skip
        if len(a.pts) != len(b.pts):
            self._differ(f"video: {len(b.pts)} frames, expected {len(a.pts)}")
        if not a.pts or not b.pts or a.pts[0] is None or b.pts[0] is None:
            return
        shift = b.pts[0] * b.tick - a.pts[0] * a.tick
        self._shift = shift if abs(shift) > b.tick / 2 else Fraction(0)
        self.facts["shift"] = float(self._shift)
        wrong = []
        for i, (was, now) in enumerate(zip(a.pts, b.pts, strict=False)):
            if was is None or now is None:
                if now is None:
                    wrong.append((i, float(was * a.tick) if was is not None else 0.0, float("nan")))
                continue
            expected = was * a.tick + self._shift
            if abs(now * b.tick - expected) > b.tick / 2:
                wrong.append((i, float(expected), float(now * b.tick)))
        if wrong:
            i, expected_s, found_s = wrong[0]
            more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
            self._differ(f"video: frame {i} is shown at {found_s:.6f} s, expected {expected_s:.6f} s{more}")
        if a.last_duration and b.last_duration and len(a.pts) == len(b.pts):
            lengths = (a.last_duration * a.tick, b.last_duration * b.tick)
            if abs(lengths[0] - lengths[1]) > max(a.tick, b.tick):
                self._differ(
                    f"video: the last frame lasts {float(lengths[1]):.6f} s, expected {float(lengths[0]):.6f} s"
                )

    # -- the other streams --------------------------------------------------------------------------------------

    def streams(
        self,
        a: av.container.InputContainer,
        b: av.container.InputContainer,
        main: int,
        before: _File,
        after: _File,
    ) -> None:
        """Every kept stream, matched by kind and order."""
        kept = [
            p
            for p in self._plan.streams
            if p.action in (COPY, CONVERT)
            and p.target != "chapters"
            and (p.index not in before.tracks or before.tracks[p.index].times)  # muxers leave empty tracks out
        ]
        self.facts["streams"] = {"kept": len(kept), "dropped": sum(p.action == "drop" for p in self._plan.streams)}
        left: dict[str, list[Stream]] = {}
        for stream in b.streams:
            if stream.index != main and (stream.index not in after.tracks or after.tracks[stream.index].times):
                left.setdefault(stream.type, []).append(stream)
        for plan in kept:
            original = a.streams[plan.index]
            matches = left.get(plan.type, [])
            if not matches:
                self._differ(f"stream {plan.index} ({plan.type}, {plan.codec}) is missing")
                continue
            copy = matches.pop(0)
            if isinstance(original, av.stream.AttachmentStream):
                self._attachment(original, copy)
                continue
            self._track(plan, before.tracks[plan.index], after.tracks[copy.index])
            self._disposition(original, copy)
            self._stream_tags(a, original, copy)
        self._stream_tags(a, a.streams[self._plan.video], b.streams[main])

    def _disposition(self, original: Stream, copy: Stream) -> None:
        was, now = original.disposition, copy.disposition
        if self._plan.container in ("mp4", "mov"):
            # These formats enable one track of each kind, and know no other flag for most kinds.
            was, now = was & ~Disposition.default, now & ~Disposition.default
        if was != now:
            self._differ(f"stream {original.index}: disposition {now!r}, expected {was!r}")

    def _stream_tags(self, source: av.container.InputContainer, original: Stream, copy: Stream) -> None:
        lost = _lost(self._plan, f"stream {original.index}: tag ")
        created = source.metadata.get("creation_time") or source.metadata.get("CREATION_TIME")
        self.tags(f"stream {original.index}", _content_tags(original, created), dict(copy.metadata), lost)

    def _attachment(self, original: av.stream.AttachmentStream, copy: Stream) -> None:
        assert isinstance(copy, av.stream.AttachmentStream)
        if (original.name, original.data) != (copy.name, copy.data):
            self._differ(f"attachment {original.name}: content or name differs")

    def _track(self, plan: StreamPlan, was: _Track, now: _Track) -> None:
        name = f"stream {plan.index} ({plan.type}, {plan.codec})"
        if plan.action == CONVERT and plan.type == "audio":
            self._converted_audio(name, was, now)
            return
        if plan.action == CONVERT:
            was, now = was.without_blanks(), now.without_blanks()
        if len(was.times) != len(now.times):
            self._differ(f"{name}: {len(now.times)} packets, expected {len(was.times)}")
            return
        if plan.action == COPY and was.hashes != now.hashes and not _only_repacked(plan, was, now):
            first = next(i for i, (x, y) in enumerate(zip(was.hashes, now.hashes, strict=True)) if x != y)
            self._differ(f"{name}: packet {first} has other content")
        self._synchrony(name, was, now, was.tick + now.tick)

    def _converted_audio(self, name: str, was: _Track, now: _Track) -> None:
        """Begin and end; what lies before 0 is the old encoder's delay, which decoding removes."""
        for what, x, y in (("begins", was.begin, now.begin), ("ends", was.end, now.end)):
            if abs(max(x + self._shift, Fraction(0)) - max(y, Fraction(0))) > AUDIO_TOLERANCE:
                self._differ(f"{name}: {what} at {float(y):.3f} s, expected {float(x + self._shift):.3f} s")

    def _synchrony(self, name: str, was: _Track, now: _Track, tolerance: Fraction) -> None:
        """Every packet has kept its place against the video."""
        for i, (x, y) in enumerate(zip(was.times, now.times, strict=True)):
            offset = y * now.tick - x * was.tick - self._shift
            if abs(offset) > tolerance:
                self._differ(f"{name}: packet {i} is {float(offset):+.4f} s off against the video")
                return

    def chapters(self, a: av.container.InputContainer, b: av.container.InputContainer) -> None:
        """Number, times and titles of chapters."""
        if self._plan.container == "image":
            return
        lists = [
            [(c["start"] * _fraction(c), c["end"] * _fraction(c), c["metadata"].get("title", "")) for c in f.chapters()]
            for f in (a, b)
        ]
        self.facts["chapters"] = len(lists[1])
        if len(lists[0]) != len(lists[1]):
            self._differ(f"{len(lists[1])} chapters, expected {len(lists[0])}")
            return
        for i, (was, now) in enumerate(zip(*lists, strict=True)):
            millisecond = Fraction(1, 1000)
            if was[2] != now[2] or abs(now[0] - was[0] - self._shift) > millisecond:
                self._differ(
                    f"chapter {i}: {now[2]!r} at {float(now[0]):.3f} s, expected {was[2]!r} at {float(was[0]):.3f} s"
                )

    def tags(self, name: str, was: dict[str, str], now: dict[str, str], lost: set[str]) -> None:
        """Every tag of content is there with its value; names of tags do not depend on case."""
        if self._plan.container == "image":
            return
        found = {k.lower(): v for k, v in now.items()}
        found.setdefault("title", found.get("name", ""))
        for key, value in was.items():
            plain = key.lower()
            if plain in BOOKKEEPING or key in lost or plain in lost:
                continue
            have = [found[k] for k in (plain, plain.split("-")[0]) if k in found]
            same = value in have
            if plain == "creation_time":
                same = any(_same_instant(value, other) for other in have)
            elif plain.startswith("location"):
                same = same or any(_same_place(value, other) for other in have)
            elif plain == "language":
                same = any(same_language(value, other) for other in have)
            if not same:
                self._differ(f"{name}: tag {key} is {have[0] if have else None!r}, expected {value!r}")


def _fraction(chapter: Any) -> Fraction:
    return Fraction(chapter["time_base"].num, chapter["time_base"].den)


def _same_instant(a: str, b: str) -> bool:
    """Whether two times of day differ only in how they are written."""
    plain = [t.replace("T", " ").rstrip("Z").split(".")[0] for t in (a, b)]
    return plain[0] == plain[1]


def _lost(plan: Plan, mark: str) -> set[str]:
    """The tags that the plan said would be lost."""
    return {line.removeprefix(mark).split(" ")[0] for line in plan.losses if line.startswith(mark)}


def _content_tags(stream: Stream, created: str | None) -> dict[str, str]:
    """Tags of a stream that say something of its content, and that the file as a whole does not say as well."""
    tags = {k.lower(): v for k, v in stream.metadata.items() if not k.lower().startswith(TRACK_BOOKKEEPING)}
    if tags.get("language") == "und":
        del tags["language"]
    if "creation_time" in tags and _same_instant(tags["creation_time"], created or ""):
        del tags["creation_time"]
    if "name" in tags:
        tags.setdefault("title", tags.pop("name"))
    return tags


def _same_place(a: str, b: str) -> bool:
    """Whether two ISO 6709 locations differ only in leading and trailing zeros."""
    numbers = [[float(n) for n in re.findall(r"[+-][0-9.]+", text)] for text in (a, b)]
    return bool(numbers[0]) and numbers[0] == numbers[1]


def _only_repacked(plan: StreamPlan, was: _Track, now: _Track) -> bool:
    """Whether packets differ as another framing makes them differ: each by a few bytes and no more."""
    if plan.codec not in REPACKED:
        return False
    return all(abs(x - y) <= max(64, x // 50) for x, y in zip(was.sizes, now.sizes, strict=True))

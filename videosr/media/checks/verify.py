"""An independent check that an output holds everything of its input.

Both files are read to their ends with plain PyAV (`readback`), not with `Decoder`, so that a fault of that cannot hide
itself. `_Check` then compares the two readings: the picture's properties, frame times, sampled pictures, the other
streams packet by packet (`tracks`), chapters and tags.
"""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from fractions import Fraction
from typing import Any

import av
import av.error
from av.stream import Disposition, Stream

from videosr.media.captions import CAPTIONS, as_read
from videosr.media.chapters import ROUNDING, Chapter, as_held, chapters_of
from videosr.media.checks.readback import Reading, read_file
from videosr.media.checks.similarity import SMALLEST, compare
from videosr.media.checks.tags import content_tags, missing, plain
from videosr.media.checks.tracks import differences
from videosr.media.containers import container_format
from videosr.media.copies import EDITED
from videosr.media.dolby import RPU, Fit, carried, said_of_fitted, same_kind
from videosr.media.fields import Scan, detect
from videosr.media.hdr import FURTHER_SIDE_DATA, LATER, same_static, says_nothing
from videosr.media.hdr10plus import DYNAMIC
from videosr.media.immersive import as_said, describable
from videosr.media.matroska.more import More, file_tags, missing_of, more_of
from videosr.media.planes import planar_format
from videosr.media.probe import (
    CONVERT,
    COPY,
    DROP,
    REMADE,
    Plan,
    plan_streams,
)
from videosr.media.riders import Riders
from videosr.media.source import clean_text, open_input, reel, video_stream
from videosr.media.stills.numbered import RATE, Numbered

ASSUMED = {"prores": "range", "dnxhd": "matrix"}
"""The colour property that readers of a codec assume, whatever the file says: pictures were converted to that."""


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


def verify(
    source: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    scale: int | None = None,
    framerate: Fraction = RATE,
) -> Report:
    """Compare an output with what it was made from.

    Frames are counted and timed by decoding both files, and sampled ones compared; every other stream is compared
    packet by packet. Which streams must be there is what `plan_streams` promises for the output's container.

    Args:
        source: the input video.
        output: the file made from its whole length.
        scale: if given, the picture must be exactly this many times as large.
        framerate: with which numbered pictures were made into that file.

    Raises:
        InputError: one of the files cannot be opened at all.
    """
    container = container_format(output)
    plan = plan_streams(source, container)
    check = _Check(plan)
    with open_input(source) as a, open_input(output) as b:
        main = _upscaled_stream(plan, b, os.fspath(output))
        scan = detect(source, plan.video)
        interlaced = scan.scan is not Scan.PROGRESSIVE
        parity = ("tff", "bff").index(scan.order) if interlaced else None
        before = read_file(source, plan.video, parity=parity, shown=container not in EDITED)
        if Numbered.of(source) is not None:
            before.tick = 1 / framerate
        after = read_file(output, main, like=before, decode_audio=True)
        check.picture(before, after, scale)
        # Each field of interlaced video may have become a frame.
        fields = 2 if interlaced and before.pts and len(after.pts) == 2 * len(before.pts) else 1
        check.times(before, after, fields, timed=container != "image")
        check.likeness(before, after, fields)
        check.riders(before, after, fields)
        check.streams(a, b, main, before, after)
        check.chapters(a, b)
        if container == "matroska":
            check.more(more_of(a), more_of(b))
        code = b.streams[main].metadata.get("timecode")  # where MP4 and MOV have the whole file's
        found = ({"timecode": code} if code else {}) | file_tags(b)
        check.tags("file", file_tags(a), found, _lost(plan, None, "tag"))
    return Report(check.problems, check.facts)


def _upscaled_stream(plan: Plan, output: av.container.InputContainer, name: str) -> int:
    """Index of the upscaled stream: it has the same place among the video streams as in the source."""
    videos = [p for p in plan.streams if p.type == "video" and p.action != DROP]
    place = next(i for i, p in enumerate(videos) if p.index == plan.video)
    found = output.streams.video
    return found[place].index if place < len(found) else video_stream(output, name).index


class _Check:
    """Collects differences."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self.problems: list[str] = []
        self.facts: dict[str, Any] = {"losses": list(plan.losses)}
        self._shift = Fraction(0)
        self._places: dict[int, int] = {}  # of streams in the output

    def _differ(self, text: str) -> None:
        self.problems.append(text)

    # -- the video ----------------------------------------------------------------------------------------------

    def picture(self, a: Reading, b: Reading, scale: int | None) -> None:
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
            if name == "range" and (_is_rgb(a) or (value, b.color.get(name)) == (1, 0)):
                stated = False  # R'G'B' has none, and "limited" is what readers assume where none is stated (QuickTime)
            if (name == "matrix" and value == 0) or name == ASSUMED.get(b.codec):
                stated = False  # the encoder sets its own; `likeness` checks that the pictures look the same
            if name in ("matrix", "range") and self._plan.container == "image":
                stated = False  # each kind of file has but one
            if stated and name != "siting" and b.color.get(name) != value:
                self._differ(f"video: colour {name} {b.color.get(name)}, expected {value}")
        self.facts["color"] = b.color
        self.facts["hdr"] = sorted(b.hdr)
        for name in sorted(a.hdr):
            if says_nothing(name, a.hdr[name]):
                continue
            if name not in b.hdr:
                self._differ(f"video: {name.lower().replace('_', ' ')} is missing")
            elif not same_static(name, a.hdr[name], b.hdr[name]):
                self._differ(f"video: {name.lower().replace('_', ' ')} has other values")
        self.facts["losses"] += [f"{LATER[name]} cannot be kept" for name in sorted(a.later)]
        for name in sorted(b.later - a.later):
            self._differ(f"video: {name.lower().replace('_', ' ')} begins or changes in mid-film")
        for kind, said in as_said(describable(a.views, self._plan.container, turned=a.rotation != 0)).items():
            if as_said(b.views).get(kind) != said:
                self._differ(f"video: {kind.lower()} is {as_said(b.views).get(kind)}, expected {said}")
        if b.errors or b.corrupt:
            self._differ(f"video: {b.errors} decoding errors, {b.corrupt} damaged frames")

    def times(self, a: Reading, b: Reading, fields: int = 1, timed: bool = True) -> None:
        """Number, presentation times and last duration of the frames, `fields` of them for each of the input.

        Of pictures, numbered or one, it is their number alone: they are not `timed`.
        """
        was_pts, was_durations = _in_fields(a, fields)
        tick = a.tick / fields
        self.facts |= {
            "frames_in": len(a.pts), "frames_out": len(b.pts), "input_errors": a.errors, "input_damaged": a.corrupt,
            "tick_in": str(a.tick), "tick_out": str(b.tick), "frames_each": fields,
        }  # fmt: skip
        if len(was_pts) != len(b.pts):
            self._differ(f"video: {len(b.pts)} frames, expected {len(was_pts)}")
        if not timed or not a.pts or not b.pts or a.pts[0] is None or b.pts[0] is None:
            return
        # Times were rounded to the output's ticks, the first frame's too. So the shift of the whole file is only known
        # to lie in an interval [low, high], which every frame's time narrows.
        low = high = Fraction(0)
        shift = b.pts[0] * b.tick - a.pts[0] * a.tick
        if abs(shift) > b.tick / 2:
            low, high = shift - b.tick / 2, shift + b.tick / 2
        wrong = []
        latest: int | None = None
        for i, (was, now) in enumerate(zip(was_pts, b.pts, strict=False)):
            if was is None or (latest is not None and was <= latest) or now is None:
                continue  # the input has no time here, or one that goes back: it could not be kept
            latest = was
            moved = now * b.tick - was * tick
            if moved - b.tick / 2 > high or moved + b.tick / 2 < low:
                wrong.append((i, float(was * tick + (low + high) / 2), float(now * b.tick)))
            elif low != high:
                low, high = max(low, moved - b.tick / 2), min(high, moved + b.tick / 2)
        self._shift = (low + high) / 2
        self.facts["shift"] = float(self._shift)
        if wrong:
            i, expected_s, found_s = wrong[0]
            more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
            self._differ(f"video: frame {i} is shown at {found_s:.6f} s, expected {expected_s:.6f} s{more}")
        if was_durations[-1] and b.durations[-1] and len(was_pts) == len(b.pts):
            lengths = (was_durations[-1] * tick, b.durations[-1] * b.tick)
            if abs(lengths[0] - lengths[1]) > max(a.tick, b.tick):
                self._differ(
                    f"video: the last frame lasts {float(lengths[1]):.6f} s, expected {float(lengths[0]):.6f} s"
                )

    def likeness(self, a: Reading, b: Reading, fields: int = 1) -> None:
        """Pictures, by small copies of sampled frames (`similarity`)."""
        # Where the picture changes its shape, the two are not cut alike.
        if a.changed or min(a.width, a.height) < SMALLEST:
            self.facts["likeness"] = None
            return
        # A deinterlaced frame shows the moment of its first field, one that was left interlaced those of both.
        found = max(
            (
                compare(samples, b.samples, fields, still=a.fields is None)
                for samples in (a.samples, a.fields)
                if samples is not None
            ),
            key=lambda likeness: likeness.median,
        )
        self.facts["likeness"] = {
            "samples": found.samples, "median_psnr": round(found.median, 2), "worst_psnr": round(found.worst, 2),
            "worst_frame": found.worst_frame, "colour": round(found.colour, 2),
            "shift": [round(way, 2) for way in found.shift],
        }  # fmt: skip
        if b.changed:
            self._differ(f"video: {b.changed} frames have another size, format or shape than the first one")
        for line in found.problems:
            self._differ(f"video: {line}")

    def riders(self, a: Reading, b: Reading, fields: int = 1) -> None:
        """Captions and metadata, where the output's codec has a place for them: the same on every frame."""
        self.facts["captions"], self.facts["hdr10plus"] = len(b.riders[CAPTIONS]), len(b.riders[DYNAMIC])
        vision = False
        if a.dolby and b.form is not None:
            vision = carried(a.dolby, self._plan.container, b.codec, planar_format(b.form[2]).bits)
        if vision and not same_kind(a.dolby, b.dolby):
            self._differ("video: the stream does not say that it is Dolby Vision as its source is")
        for kind in sorted(Riders(b.codec, dolby=vision).kinds):
            before, after = a.riders[kind], b.riders[kind]
            if kind == CAPTIONS:  # they come with the first of two fields
                expected = {number * fields: as_read(triplets, b.codec) for number, triplets in before.items()}
            else:
                if kind == RPU:
                    fit = Fit(Fraction(b.width, a.width), Fraction(b.height, a.height), a.cropped)
                    before = {number: said_of_fitted(data, fit) for number, data in before.items()}
                expected = {number * fields + n: data for number, data in before.items() for n in range(fields)}
            wrong = [n for n in sorted(expected | after) if expected.get(n) != after.get(n)]
            if wrong:
                more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
                what = "differs" if wrong[0] in after else "is missing"
                self._differ(f"video: {FURTHER_SIDE_DATA[kind]} of frame {wrong[0]} {what}{more}")

    # -- the other streams --------------------------------------------------------------------------------------

    def streams(
        self,
        a: av.container.InputContainer,
        b: av.container.InputContainer,
        main: int,
        before: Reading,
        after: Reading,
    ) -> None:
        """Every kept stream, matched by kind and order."""
        kept = [
            p
            for p in self._plan.streams
            if p.action in (COPY, CONVERT)
            and p.target not in REMADE
            and (p.index not in before.tracks or before.tracks[p.index].times)  # muxers leave empty tracks out
        ]
        self.facts["streams"] = {"kept": len(kept), "dropped": sum(p.action == DROP for p in self._plan.streams)}
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
            self._places[plan.index] = copy.index
            self.problems += differences(plan, before.tracks[plan.index], after.tracks[copy.index], self._shift)
            self._disposition(original, copy)
            self._stream_tags(a, original, copy)
        self._places[self._plan.video] = main
        self._disposition(a.streams[self._plan.video], b.streams[main])
        self._stream_tags(a, a.streams[self._plan.video], b.streams[main])

    def _disposition(self, original: Stream, copy: Stream) -> None:
        was, now = original.disposition, copy.disposition
        for name in _lost(self._plan, original.index, "flag"):
            was, now = was & ~Disposition[name], now & ~Disposition[name]
        if self._plan.container in ("mp4", "mov", "image"):
            # These formats enable one track of each kind, and know no other flag for most kinds; HEIF is one of them,
            # and other pictures have no flag at all.
            was, now = (_one_name(flags & ~Disposition.default) for flags in (was, now))
        if was != now:
            self._differ(f"stream {original.index}: disposition {now!r}, expected {was!r}")

    def _stream_tags(self, source: av.container.InputContainer, original: Stream, copy: Stream) -> None:
        lost = _lost(self._plan, original.index, "tag")
        created = {key.lower(): value for key, value in file_tags(source).items()}.get("creation_time")
        self.tags(f"stream {original.index}", content_tags(original, created), {**copy.metadata, **reel(copy)}, lost)

    def _attachment(self, original: av.stream.AttachmentStream, copy: Stream) -> None:
        assert isinstance(copy, av.stream.AttachmentStream)
        if (clean_text(original.name or "unnamed"), original.data) != (copy.name, copy.data):
            self._differ(f"attachment {original.name}: content or name differs")

    def chapters(self, a: av.container.InputContainer, b: av.container.InputContainer) -> None:
        """Number, times and titles of chapters."""
        if self._plan.container == "image":
            return
        found = chapters_of(b)
        self.facts["chapters"] = len(found)
        films = [Fraction(file.duration or 2**62, 1_000_000) + shift for file, shift in ((a, self._shift), (b, 0))]
        moved = [Chapter(c.start + self._shift, c.end + self._shift, c.title) for c in chapters_of(a)]
        if len(moved) != len(found):
            self._differ(f"{len(found)} chapters, expected {len(moved)}")
            return
        for i, (was, now) in enumerate(zip(as_held(moved, self._plan.container), found, strict=True)):
            open_end = was.end <= was.start and self._plan.container in EDITED
            last = was.end >= films[0] - ROUNDING and now.end >= films[1] - ROUNDING  # until the film ends, that is
            ends = open_end or last or abs(now.end - was.end) <= ROUNDING
            if was.title != now.title or abs(now.start - was.start) > ROUNDING or not ends:
                self._differ(
                    f"chapter {i}: {now.title!r} from {float(now.start):.3f} to {float(now.end):.3f} s, "
                    f"expected {was.title!r} from {float(was.start):.3f} to {float(was.end):.3f} s"
                )

    def more(self, was: More, now: More) -> None:
        """What Matroska says and FFmpeg does not read."""
        for index, place in self._places.items():
            found = now.tracks[place].marks if place < len(now.tracks) else ()
            if index < len(was.tracks) and was.tracks[index].marks != found:
                self._differ(f"stream {index}: its language (BCP 47), or that it is switched off, is not what it was")
        for line in missing_of(was, now):
            self._differ(line)

    def tags(self, name: str, was: dict[str, str], now: dict[str, str], lost: set[str]) -> None:
        """Every tag of content is there with its value."""
        if self._plan.container == "image":
            return
        for key, found, expected in missing(was, now, lost):
            self._differ(f"{name}: tag {key} is {found!r}, expected {expected!r}")


def _is_rgb(file: Reading) -> bool:
    """Whether the pictures are R'G'B', for which range has no meaning."""
    return file.form is not None and planar_format(file.form[2]).family == "rgb"


def _in_fields(a: Reading, fields: int) -> tuple[list[int | None], list[int]]:
    """Times and durations of the frames that should be there, in ticks of the input or, for fields, in halves."""
    if fields == 1:
        return a.pts, a.durations
    pts: list[int | None] = []
    durations: list[int] = []
    for i, (time, duration) in enumerate(zip(a.pts, a.durations, strict=True)):
        following = a.pts[i + 1] if i + 1 < len(a.pts) else None
        if time is not None and following is not None:
            duration = min(duration or following - time, following - time)
        pts += [None, None] if time is None else [2 * time, 2 * time + duration]
        durations += [duration, duration]
    return pts, durations


def _one_name(flags: Disposition) -> Disposition:
    """Dispositions without the second name that MP4's demuxer finds for two of them."""
    for name, other in (
        (Disposition.hearing_impaired, Disposition.captions),
        (Disposition.visual_impaired, Disposition.descriptions),
    ):
        if other in flags:
            flags = flags & ~other | name
    return flags


def _lost(plan: Plan, stream: int | None, kind: str) -> set[str]:
    """The names, made plain, of tags or flags that the plan said would be lost."""
    return {plain(misfit.name) for misfit in plan.misfits if (misfit.stream, misfit.kind) == (stream, kind)}

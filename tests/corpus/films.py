"""Times, shapes and fields: films whose frames come when, as large and as turned as films do."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from fractions import Fraction
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
from clips import VFR_PTS, make_clip

from corpus.case import Case, Mismatch, Outcome
from corpus.reader import Plane

X264 = {"preset": "ultrafast", "x264-params": "bframes=3:b-pyramid=none:keyint=8"}
FAST = ("--preset", "ultrafast")
GAPS = (*VFR_PTS[:8], *(t + 3700 for t in VFR_PTS[8:]))
"""Uneven times in milliseconds with a gap of three seconds."""


def clip(folder: Path, name: str = "in.mkv", **options: Any) -> Path:
    """A small film, by default of 16 frames with B-frames."""
    return make_clip(folder / name, **{"options": X264, "color": (1, 1, 1, 1, 1), **options})


# -- times ------------------------------------------------------------------------------------------------------------


def edited(folder: Path, skip: int) -> Path:
    """An MP4 whose edit list begins `skip` frames into the film (ISO/IEC 14496-12, 8.6.6)."""
    path = clip(folder, "in.mp4", frames=24)
    data = bytearray(path.read_bytes())
    at = data.index(b"elst") + 8
    (count,) = struct.unpack_from(">I", data, at)
    assert count == 1
    length, begin = struct.unpack_from(">Ii", data, at + 4)
    with av.open(str(path)) as film:
        tick = film.streams.video[0].time_base
    struct.pack_into(">Ii", data, at + 4, length, begin + round(Fraction(skip, 24) * tick.denominator))
    path.write_bytes(data)
    return path


def negative(folder: Path) -> Path:
    """A film that begins half a second before 0, as its sound does."""
    plain, path = clip(folder, "plain.mkv", pts=VFR_PTS, audio=[("flac", "eng")]), folder / "in.mkv"
    with av.open(str(plain)) as a, av.open(str(path), "w", container_options={"avoid_negative_ts": "disabled"}) as b:
        copies = {s.index: b.add_stream_from_template(s) for s in a.streams}
        for packet in a.demux():
            if packet.pts is not None and packet.dts is not None:
                packet.stream = copies[packet.stream_index]
                packet.pts, packet.dts = packet.pts - 500, packet.dts - 500
                b.mux(packet)
    plain.unlink()
    return path


def wrapping(folder: Path) -> Path:
    """MPEG-TS whose 33-bit clock (ISO/IEC 13818-1, 2.4.3.7) comes to its end a third of a second into the film."""
    plain, path = clip(folder, "plain.ts", frames=24, audio=[("mp2", "eng")]), folder / "in.ts"
    with av.open(str(plain)) as a, av.open(str(path), "w") as b:
        copies = {s.index: b.add_stream_from_template(s) for s in a.streams}
        for packet in a.demux():
            if packet.pts is not None and packet.dts is not None:
                packet.stream = copies[packet.stream_index]
                packet.pts, packet.dts = (t + 2**33 - 30000 for t in (packet.pts, packet.dts))
                b.mux(packet)
    plain.unlink()
    with av.open(str(path)) as made:
        video = made.streams.video[0].index
        shown = [p.pts for p in made.demux(made.streams.video[0]) if p.pts is not None]
        assert video >= 0
        assert min(shown) < 0 < max(shown), "FFmpeg counts what lies before the wrap from below 0"
    return path


def without_times(folder: Path) -> Path:
    """A bare H.264 stream."""
    return clip(folder, "in.h264", frames=12, time_base=Fraction(1, 24))


def two_kinds(folder: Path, kinds: Sequence[dict[str, Any]]) -> Path:
    """A stream that changes in the middle."""
    data = b""
    for kind in kinds:
        made = clip(folder, "part.h264", frames=8, time_base=Fraction(1, 24), **kind)
        data += made.read_bytes()
        made.unlink()
    path = folder / "in.h264"
    path.write_bytes(data)
    return path


def regular(outcome: Outcome) -> str:
    """Frames at equal distances."""
    assert outcome.after is not None
    times = [p.time for p in outcome.after.pictures]
    steps = {round(b - a, 3) for a, b in pairwise(times)}
    if max(steps) - min(steps) > Fraction(2, 1000):
        raise Mismatch(f"steps from {float(min(steps))} to {float(max(steps))} s")
    return f"{len(times)} frames"


def times() -> Iterator[Case]:
    """When frames are shown."""
    kept = "every frame at its time, within half a tick"
    case = partial(Case, group="times", options=FAST, expected=kept, silent=True)
    audio = [("aac", "eng")]
    for end in ("mkv", "mp4"):
        yield case(name=f"variable rate with gaps and B-frames, mkv to {end}", output=f"out.{end}", quick=True,
                   make=partial(clip, pts=GAPS, audio=[("flac", "eng")] if end == "mkv" else audio))  # fmt: skip
        for rate in (Fraction(24000, 1001), Fraction(30000, 1001), Fraction(60000, 1001)):
            tick = 1 / Fraction(rate.numerator)
            make = partial(clip, name="in.mp4", rate=rate, time_base=tick, audio=audio)
            yield case(name=f"{rate} frames a second, mp4 to {end}", make=make, output=f"out.{end}")
    for end in ("mkv", "mp4"):
        yield case(name=f"negative times, mkv to {end}", make=negative, output=f"out.{end}", quick=True,
                   without=("times", "tracks"), check=_same_steps, expected="every step kept; begins at 0")  # fmt: skip
    late = tuple(t + 700 for t in VFR_PTS)
    for end in ("mkv", "mp4"):
        yield case(name=f"edit list that delays the picture against the sound, mp4 to {end}", output=f"out.{end}",
                   make=partial(clip, name="in.mp4", pts=late, audio=audio), quick=end == "mp4")  # fmt: skip
        yield case(name=f"edit list that skips frames, mp4 to {end}", output=f"out.{end}", quick=end == "mkv",
                   make=partial(edited, skip=6))  # fmt: skip
    for end in ("mkv", "mp4"):
        yield case(name=f"33-bit clock that wraps, ts to {end}", output=f"out.{end}", without=("times", "tracks"),
                   make=wrapping, check=_same_steps, expected="every step kept", quick=True)  # fmt: skip
    yield case(name="one frame", make=partial(clip, frames=1), quick=True)
    yield case(name="two frames an hour apart", make=partial(clip, pts=(0, 3_600_000)))
    yield case(name="no times at all, h264 to mkv", make=without_times, check=regular, quick=True, silent=False,
               says="without a timestamp", without=("times",), expected="times filled in")  # fmt: skip
    for what, *kinds in (
        ("size changes", {}, {"width": 80}),
        ("shape of the pixels changes", {"sar": Fraction(4, 3)}, {"sar": Fraction(1)}),
    ):
        made = partial(two_kinds, kinds=kinds)
        yield case(name=f"{what} in mid-stream", make=made, says="the picture changes from", silent=False, quick=True,
                   without=("times",), expected="fitted into the first size, and said")  # fmt: skip
        yield case(name=f"{what} in mid-stream, --strict", make=made, options=(*FAST, "--strict"), code=1, quick=True,
                   silent=False, says="split the file there", expected="refused")  # fmt: skip


def _same_steps(outcome: Outcome) -> str:
    """Times may be moved as a whole, sound and picture by the same."""
    assert outcome.before is not None
    assert outcome.after is not None
    lists = [[p.time for p in f.pictures] for f in (outcome.before, outcome.after)]
    if len(lists[0]) != len(lists[1]):
        raise Mismatch(f"times {[float(t) for t in lists[1]]} of {[float(t) for t in lists[0]]}")
    moved = [b - a for a, b in zip(*lists, strict=True)]
    tick = outcome.after.video.tick + outcome.before.video.tick
    if max(moved) - min(moved) > tick:
        raise Mismatch(f"moved by {float(min(moved)):.4f} to {float(max(moved)):.4f} s")
    for was, now in zip(outcome.before.others, outcome.after.others, strict=True):
        off = {n[0] - w[0] for w, n in zip(was.packets, now.packets, strict=True)}
        if max(off) - min(off) > was.tick + now.tick + tick or abs(min(off) - moved[0]) > was.tick + now.tick + tick:
            raise Mismatch(f"sound moved by {float(min(off)):.4f} s, the picture by {float(moved[0]):.4f} s")
    return f"moved by {float(moved[0]):.3f} s"


# -- shapes -----------------------------------------------------------------------------------------------------------


def cropped(folder: Path) -> Path:
    """H.264 with a cropping window in its sequence parameters (ITU-T H.264, 7.4.2.1.1)."""
    plain, path = clip(folder, "plain.mkv"), folder / "in.mkv"
    with av.open(str(plain)) as a, av.open(str(path), "w") as b:
        stream = b.add_stream_from_template(a.streams.video[0])
        options = "crop_left=6:crop_right=2:crop_top=4:crop_bottom=8"
        cut = av.BitStreamFilterContext(f"h264_metadata={options}", a.streams.video[0], stream)
        for packet in a.demux(a.streams.video[0]):
            for made in cut.filter(packet if packet.size else None):
                made.stream = stream
                b.mux(made)
    plain.unlink()
    return path


def shapes() -> Iterator[Case]:
    """Sizes, aspects, turns."""
    case = partial(Case, group="shape", options=FAST, expected="twice as large, shape and turn kept", silent=True)
    for end in ("mp4", "mkv", "mov"):
        for angle in (0, 90, 180, 270):
            yield case(name=f"rotation {angle} in {end}", make=partial(clip, name=f"in.{end}", rotation=angle),
                       output=f"out.{end}", quick=angle == 90)  # fmt: skip
        for sar in (Fraction(16, 11), Fraction(64, 45), Fraction(8, 9), Fraction(1, 2)):
            yield case(name=f"pixels of {sar.numerator}:{sar.denominator} in {end}", output=f"out.{end}",
                       make=partial(clip, name=f"in.{end}", sar=sar), quick=sar == Fraction(64, 45))  # fmt: skip
    yield case(name="pixels of 16:11, ffv1", make=partial(clip, sar=Fraction(16, 11), codec="ffv1", options={}),
               options=("--codec", "ffv1"))  # fmt: skip
    yield case(name="cropping in H.264", make=cropped, quick=True)
    sizes = ((16, 16), (17, 16), (16, 17), (17, 17), (18, 34), (33, 47), (63, 65), (131, 31), (321, 181))
    for width, height in sizes:
        for pix_fmt in ("yuv420p", "yuv444p10le"):
            yield case(name=f"{width}x{height} {pix_fmt}", quick=(width, height) in ((16, 16), (17, 17), (33, 47)),
                       make=partial(clip, width=width, height=height, frames=3, codec="ffv1", options={},
                                    pix_fmt=pix_fmt, color=(1, 1, 1, 1, int("420" in pix_fmt))))  # fmt: skip
    for width, height in ((1920, 1080), (3840, 2160), (7680, 4320), (16384, 16)):
        for tile in ((), ("--tile", "1024")) if height > 16 else ((),):
            yield case(name=f"{width}x{height}{', in tiles' * bool(tile)}", large=True,
                       options=("--codec", "ffv1", *tile),
                       make=partial(clip, width=width, height=height, frames=2, codec="ffv1", options={}))  # fmt: skip


# -- fields -----------------------------------------------------------------------------------------------------------

FIELD_ROWS, FIELD_COLUMNS = 480, 64


def moment(time: int) -> Plane:
    """A pattern that moves four columns a field."""
    y, x = np.mgrid[0:FIELD_ROWS, 0:FIELD_COLUMNS]
    wave = np.sin((x - 4 * time) * 2 * np.pi / 32) * np.cos(y * 2 * np.pi / 120)
    return np.rint(126 + 80 * wave).astype(np.uint8)


def interlaced(folder: Path, fields: Sequence[int], rate: Fraction, *, tagged: bool, top_first: bool = True) -> Path:
    """Frames woven from two fields each; `fields` are the moments of all fields in the order of showing."""
    path = folder / "in.mkv"
    order = "tff=1" if top_first else "bff=1"
    options = {"preset": "ultrafast", "crf": "3", **({"x264-params": order, "flags": "+ildct+ilme"} if tagged else {})}
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=rate, options=options)
        stream.width, stream.height, stream.pix_fmt = FIELD_COLUMNS, FIELD_ROWS, "yuv420p"
        for i, (a, b) in enumerate(zip(fields[::2], fields[1::2], strict=True)):
            luma = moment(a)
            later = slice(1 if top_first else 0, None, 2)
            luma[later] = moment(b)[later]
            gray = np.full((FIELD_ROWS // 2, FIELD_COLUMNS), 128, np.uint8)
            frame = av.VideoFrame.from_ndarray(np.vstack([luma, gray]), format="yuv420p")
            frame.pts, frame.time_base = i, 1 / rate
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path


def pulled_down(folder: Path, frames: int = 24) -> Path:
    """MPEG-2 film with the flags of 2:3 pulldown (ITU-T H.262, 6.3.10 `repeat_first_field`), timed by them."""
    plain = make_clip(folder / "plain.m2v", frames=frames, width=64, height=64, codec="mpeg2video",
                      rate=Fraction(30000, 1001), time_base=Fraction(1001, 30000), options={"g": "12"})  # fmt: skip
    path, fields, shown = folder / "in.ts", 0, 0
    with av.open(str(plain)) as a, av.open(str(path), "w") as b:
        stream = b.add_stream_from_template(a.streams.video[0])
        stream.time_base = Fraction(1, 90000)
        for packet in a.demux(a.streams.video[0]):
            if not packet.size:
                continue
            data = bytearray(packet)
            if (at := data.find(b"\0\0\1\xb5\x14")) >= 0:  # sequence extension: not progressive_sequence
                data[at + 5] &= ~0x08
            at = data.index(b"\0\0\1\xb5", data.index(b"\0\0\1\0"))  # picture coding extension
            assert data[at + 4] >> 4 == 8
            three = shown % 2 == 0
            data[at + 7] = data[at + 7] & ~0x82 | (0x80 if shown % 4 < 2 else 0) | (0x02 if three else 0)
            data[at + 8] |= 0x80  # progressive_frame
            made = av.Packet(bytes(data))
            made.stream, made.time_base = stream, Fraction(1, 90000)
            made.pts = made.dts = 90000 + fields * 3003 // 2
            made.is_keyframe = packet.is_keyframe
            b.mux(made)
            fields, shown = fields + 2 + three, shown + 1
    plain.unlink()
    return path


def _pulldown(outcome: Outcome) -> str:
    """Frames of two and three fields in turn, as in the source."""
    assert outcome.after is not None
    times = [p.time for p in outcome.after.pictures]
    steps = [round((b - a) / Fraction(1001, 60000)) for a, b in pairwise(times)]
    if steps != [3 - n % 2 for n in range(len(steps))]:
        raise Mismatch(f"steps of {steps} fields")
    return f"{len(times)} frames, of three and two fields in turn"


def _combing(outcome: Outcome) -> str:
    """How far rows stray from their neighbours, beside the same in the source."""
    assert outcome.before is not None
    assert outcome.after is not None

    def comb(luma: Plane, step: int) -> float:
        rows = luma.astype(float)[::step]
        return float(np.abs(2 * rows[1:-1] - rows[:-2] - rows[2:]).mean())

    was, now = (comb(f.pictures[1].planes[0], s) for f, s in ((outcome.before, 1), (outcome.after, 2)))
    if now > 0.25 * was:
        raise Mismatch(f"combing {now:.2f}, {was:.2f} in the source")
    if any(p.interlaced for p in outcome.after.pictures):
        raise Mismatch("frames of the output are marked as interlaced")
    return f"combing {was:.1f} before, {now:.1f} after"


def fields() -> Iterator[Case]:
    """Interlaced and telecined video."""
    pal = list(range(120))
    case = partial(Case, group="fields", options=FAST, check=_combing, expected="made whole, and said")
    for tagged in (True, False):
        for first in ("top", "bottom"):
            make = partial(interlaced, fields=pal, rate=Fraction(25), tagged=tagged, top_first=first == "top")
            name = f"interlaced, {'tagged' if tagged else 'not tagged'}, {first} field first"
            yield case(name=name, make=make, says=f"{first} field first", quick=tagged and first == "top")
    for end in ("mkv", "mp4"):
        yield case(name=f"pulldown flags in MPEG-2, ts to {end}", make=pulled_down, says="soft telecine",
                   check=_pulldown, output=f"out.{end}", quick=end == "mkv", without=("times",),
                   expected="every frame at its time, and said")  # fmt: skip
    film = [t for n in range(48) for t in [2 * n] * (3 - n % 2)]  # the second frame, which is looked at, is combed
    make = partial(interlaced, fields=film[: len(film) // 2 * 2], rate=Fraction(30000, 1001), tagged=False)
    yield case(name="telecined, not tagged", make=make, says="telecined film", check=None,
               expected="fields matched, and said")  # fmt: skip
    make = partial(interlaced, fields=pal, rate=Fraction(25), tagged=True)
    yield case(name="interlaced, a frame for each field", make=make, options=(*FAST, "--field-rate"), check=_doubled,
               without=("frames", "times"), expected="twice the frames, at half the distance")  # fmt: skip
    yield case(name="interlaced, --deinterlace off", make=make, options=(*FAST, "--deinterlace", "off"), check=None,
               expected="left as it is")  # fmt: skip
    still = [t // 2 for t in pal]
    make = partial(interlaced, fields=still, rate=Fraction(25), tagged=True)
    yield case(name="tagged as interlaced, but progressive", make=make, check=None, says="the picture is not",
               expected="left as it is, and said")  # fmt: skip


def _doubled(outcome: Outcome) -> str:
    assert outcome.before is not None
    assert outcome.after is not None
    count = len(outcome.after.pictures)
    if count != 2 * len(outcome.before.pictures):
        raise Mismatch(f"{count} frames of {len(outcome.before.pictures)}")
    return regular(outcome)


def cases() -> Iterator[Case]:
    """All of them."""
    yield from times()
    yield from shapes()
    yield from fields()

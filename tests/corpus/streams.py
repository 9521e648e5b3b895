"""Everything beside the picture: sound, subtitles, fonts, chapters, covers, second films, timecodes."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from fractions import Fraction
from functools import partial
from pathlib import Path

import av
import numpy as np

from corpus.case import Case, Mismatch, Outcome
from corpus.films import FAST, clip

CHAPTERS = ((0, 250, "one"), (250, 500, "zwei — ü"), (500, 667, "three"))
FONTS = (("a font.ttf", "font/ttf", bytes(range(256)) * 9), ("b.otf", "font/otf", b"OTTO" + bytes(500)))
ASS = """[Script Info]
ScriptType: v4.00+
PlayResX: 64
PlayResY: 48

[V4+ Styles]
Format: Name, Fontname, Fontsize, PrimaryColour
Style: Default,a font,12,&H00FFFFFF

[Events]
Format: Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, Text
"""


def with_stream(folder: Path, other: Path) -> Path:
    """A film with fonts and the one stream of another file, which is used up."""
    plain, path = clip(folder, "plain.mkv", attachments=FONTS), folder / "in.mkv"
    with av.open(str(plain)) as a, av.open(str(other)) as c, av.open(str(path), "w") as b:
        copies = [(s, b.add_stream_from_template(s)) for s in (a.streams.video[0], c.streams[0])]
        copies[1][1].metadata["language"] = "jpn"
        for s in a.streams:
            if isinstance(s, av.stream.AttachmentStream):
                b.add_attachment(s.name or "", s.mimetype or "", s.data)
        for (source, copy), container in zip(copies, (a, c), strict=True):
            for packet in container.demux(source):
                if packet.size:
                    packet.stream = copy
                    b.mux(packet)
    plain.unlink()
    other.unlink()
    return path


def ass(folder: Path) -> Path:
    """Styled subtitles, two of them at once."""
    lines = [("0.05", "0.35", "{\\i1}first{\\i0}"), ("0.05", "0.25", "{\\pos(9,9)}sign"), ("0.40", "0.60", "last")]
    events = "".join(f"Dialogue: 0,0:00:0{a},0:00:0{b},Default,,0,0,0,,{text}\n" for a, b, text in lines)
    path = folder / "subtitles.ass"
    path.write_text(ASS + events, encoding="utf-8")
    return with_stream(folder, path)


def pgs(folder: Path) -> Path:
    """Presentation graphics of Blu-ray: a white box is shown and taken away."""

    def segment(kind: int, payload: bytes) -> bytes:
        return struct.pack(">BH", kind, len(payload)) + payload

    def composition(number: int, state: int, objects: bytes) -> bytes:
        count = len(objects) // 8
        return segment(0x16, struct.pack(">HHBHBBBB", 64, 48, 0x10, number, state, 0, 0, count) + objects)

    window = segment(0x17, struct.pack(">BBHHHH", 1, 0, 8, 8, 16, 8))
    palette = segment(0x14, bytes([0, 0, 1, 235, 128, 128, 255]))
    row = bytes([0x00, 0x80 | 16, 1, 0x00, 0x00])  # sixteen pixels of colour 1, end of line
    pixels = struct.pack(">HH", 16, 8) + row * 8
    picture = segment(0x15, struct.pack(">HBB", 0, 0, 0xC0) + len(pixels).to_bytes(3, "big") + pixels)
    shown = composition(0, 0x80, struct.pack(">HBBHH", 0, 0, 0, 8, 8)) + window + palette + picture + segment(0x80, b"")
    gone = composition(1, 0x00, b"") + window + segment(0x80, b"")
    path = folder / "subtitles.sup"  # each segment behind "PG" and its times on a clock of 90 kHz
    framed = b""
    for time, segments in ((9000, shown), (36000, gone)):
        at = 0
        while at < len(segments):
            end = at + 3 + int.from_bytes(segments[at + 1 : at + 3], "big")
            framed += b"PG" + struct.pack(">II", time, 0) + segments[at:end]
            at = end
    path.write_bytes(framed)
    return with_stream(folder, path)


def cover(folder: Path, name: str) -> Path:
    """A film with a cover."""
    plain, path = clip(folder, f"plain{Path(name).suffix}"), folder / name
    picture = av.VideoFrame.from_ndarray(np.full((20, 20, 3), 90, np.uint8), format="rgb24")
    encoder = av.CodecContext.create("png", "w")
    assert isinstance(encoder, av.VideoCodecContext)
    encoder.width, encoder.height, encoder.pix_fmt, encoder.time_base = 20, 20, "rgb24", Fraction(1, 25)
    data = b"".join(bytes(p) for p in [*encoder.encode(picture), *encoder.encode(None)])
    with av.open(str(plain)) as a, av.open(str(path), "w") as b:
        video = b.add_stream_from_template(a.streams.video[0])
        if path.suffix == ".mkv":
            b.add_attachment("cover.png", "image/png", data)
        else:
            art = b.add_stream("png", rate=25)
            art.width, art.height, art.pix_fmt = 20, 20, "rgb24"
            art.disposition = av.stream.Disposition.attached_pic
        for packet in a.demux(a.streams.video[0]):
            if packet.size:
                packet.stream = video
                b.mux(packet)
        if path.suffix != ".mkv":
            packet = av.Packet(data)
            packet.stream, packet.pts, packet.dts, packet.time_base = art, 0, 0, Fraction(1, 25)
            b.mux(packet)
    plain.unlink()
    return path


def two_films(folder: Path) -> Path:
    """A file with two videos; the first one is the film."""
    parts = [clip(folder, "a.mkv", width=96, height=64), clip(folder, "b.mkv", pix_fmt="yuv444p")]
    path = folder / "in.mkv"
    with av.open(str(path), "w") as b:
        sources = [av.open(str(part)) for part in parts]
        copies = [b.add_stream_from_template(a.streams.video[0]) for a in sources]
        for a, copy in zip(sources, copies, strict=True):
            for packet in a.demux(a.streams.video[0]):
                if packet.size:
                    packet.stream = copy
                    b.mux(packet)
            a.close()
    for part in parts:
        part.unlink()
    return path


def timecode(folder: Path) -> Path:
    """A QuickTime film with a timecode track."""
    return clip(folder, "in.mov", metadata={"timecode": "01:02:03:04"})


def _timecode_kept(outcome: Outcome) -> str:
    assert outcome.after is not None
    found = {t.tags.get("timecode") for t in (outcome.after.video, *outcome.after.others)}
    if "01:02:03:04" not in {*found, outcome.after.tags.get("timecode")}:
        raise Mismatch(f"timecodes {found}")
    return ""


def _one_cover(outcome: Outcome) -> str:
    assert outcome.before is not None
    assert outcome.after is not None
    pictures = [t.packets[0][2] for f in (outcome.before, outcome.after) for t in f.others if t.type == "video"]
    digests = {*pictures, *(digest for _, digest in outcome.after.attachments)}
    if len(digests) != 1:
        raise Mismatch(f"covers {digests}")
    return ""


def cases() -> Iterator[Case]:
    """All of them."""
    case = partial(Case, group="streams", options=FAST, expected="kept as it was", silent=True)
    many = [("aac", "eng"), ("flac", "deu"), ("libopus", "jpn"), ("pcm_s16le", "fra")]
    full = partial(clip, audio=many, subtitles=["eng", "fra"], chapters=CHAPTERS, attachments=FONTS,
                   metadata={"title": "Ein Titel – ü", "comment": "c"})  # fmt: skip
    yield case(name="four audio, two subtitles, chapters, fonts, tags", make=full, quick=True)
    yield case(name="the same to mp4", make=full, output="out.mp4", says="convert to", silent=False, quick=True,
               without=("tracks", "attachments", "chapters"),
               expected="converted or dropped, and said before")  # fmt: skip
    yield case(name="the same to mp4, --strict", make=full, output="out.mp4", code=1, says="--strict forbids",
               options=(*FAST, "--strict"), silent=False, expected="refused", quick=True)  # fmt: skip
    yield case(name="the same to webm", make=full, output="out.webm", says="convert to", silent=False,
               options=("--preset", "12"), without=("tracks", "attachments", "chapters"),
               expected="converted or dropped, and said before")  # fmt: skip
    two = partial(clip, name="in.mp4", audio=[("aac", "eng"), ("aac", "deu")], chapters=CHAPTERS)
    for end in ("mp4", "mov", "mkv"):
        yield case(name=f"two audio, chapters, mp4 to {end}", make=two, output=f"out.{end}", without=("tracks",),
                   check=_audio_kept)  # fmt: skip
    yield case(name="ASS with fonts", make=ass, quick=True)
    yield case(name="ASS with fonts to mp4", make=ass, output="out.mp4", says="convert to mov_text", silent=False,
               without=("tracks", "attachments"), expected="converted, fonts dropped, and said before",
               quick=True)  # fmt: skip
    yield case(name="PGS", make=pgs, quick=True)
    yield case(name="PGS to mp4", make=pgs, output="out.mp4", says="drop", silent=False,
               without=("tracks", "attachments"), expected="dropped, and said before")  # fmt: skip
    yield case(name="PGS to mp4, --strict", make=pgs, output="out.mp4", options=(*FAST, "--strict"), code=1,
               says="--strict forbids", silent=False, expected="refused")  # fmt: skip
    yield case(name="cover art, mkv", make=partial(cover, name="in.mkv"), quick=True, without=("tracks", "attachments"),
               check=_one_cover)  # fmt: skip
    for end in ("mp4", "mkv"):
        yield case(name=f"cover art, mp4 to {end}", make=partial(cover, name="in.mp4"), output=f"out.{end}",
                   without=("tracks", "attachments"), check=_one_cover, quick=end == "mp4")  # fmt: skip
    yield case(name="two videos", make=two_films, quick=True)
    yield case(name="timecode track, mov to mov", make=timecode, output="out.mov", without=("tracks",),
               check=_timecode_kept, quick=True)  # fmt: skip
    yield case(name="timecode track, mov to mkv", make=timecode, without=("tracks",), check=_timecode_kept,
               expected="kept as the video's tag")  # fmt: skip


def _audio_kept(outcome: Outcome) -> str:
    """Every packet of sound, where MP4 shows chapters as a track of their own."""
    assert outcome.before is not None
    assert outcome.after is not None
    lists = [
        [[p[2] for p in t.packets] for t in f.others if t.type == "audio"] for f in (outcome.before, outcome.after)
    ]
    if lists[0] != lists[1]:
        raise Mismatch("sound differs")
    return ""

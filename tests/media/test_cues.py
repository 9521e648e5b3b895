from fractions import Fraction
from itertools import pairwise

import av
import numpy as np
import pytest
from clips import make_clip
from doubling import double

from videosr.media.checks.verify import verify
from videosr.media.cues import Screen, is_blank, joined

STYLE = "Arial,20,&H00FFFFFF,&H000000FF,&H00000000,&H00000000,0,{italic},0,0,100,100,0,0,1,2,2,2,10,10,10,1"
ASS = f"""[Script Info]
ScriptType: v4.00+
[V4+ Styles]
Format: Name, Fontname, Fontsize, PrimaryColour, SecondaryColour, OutlineColour, BackColour, Bold, Italic, Underline, \
StrikeOut, ScaleX, ScaleY, Spacing, Angle, BorderStyle, Outline, Shadow, Alignment, MarginL, MarginR, MarginV, Encoding
Style: Default,{STYLE.format(italic=0)}
Style: Thought,{STYLE.format(italic=-1)}
[Events]
Format: Layer, Start, End, Style, Name, MarginL, MarginR, MarginV, Effect, Text
"""


def film(folder, events):
    """A film of five seconds with ASS subtitles: (begin, end, style, text), times in seconds."""
    script = folder / "subtitles.ass"
    lines = [
        f"Dialogue: 0,0:00:{begin:05.2f},0:00:{end:05.2f},{style},,0,0,0,,{text}\n"
        for begin, end, style, text in events
    ]
    script.write_text(ASS + "".join(lines), encoding="utf-8")
    plain = make_clip(folder / "plain.mkv", pts=range(0, 5000, 250), width=32, height=32, codec="ffv1")
    path = folder / "film.mkv"
    with av.open(str(plain)) as a, av.open(str(script)) as b, av.open(str(path), "w") as out:
        for source, target in [(c, out.add_stream_from_template(c.streams[0])) for c in (a, b)]:
            for packet in source.demux():
                if packet.size:
                    packet.stream = target
                    out.mux(packet)
    return path


def texts(path):
    """(begin, end, text, italic letters) of every subtitle that shows something; times in seconds."""
    found = []
    with av.open(str(path)) as container:
        stream = container.streams.subtitles[0]
        for packet in container.demux(stream):
            data = bytes(packet)
            end = 2 + int.from_bytes(data[:2], "big")
            if packet.size and data[2:end]:
                begin = float(packet.pts * stream.time_base)
                styles = [data[end + 10 + 12 * i : end + 22 + 12 * i] for i in range(len(data[end + 10 :]) // 12)]
                italic = [tuple(np.frombuffer(s[:4], ">u2").tolist()) for s in styles if s[6] & 2]
                found.append((begin, begin + float(packet.duration * stream.time_base), data[2:end].decode(), italic))
    return found


@pytest.mark.parametrize("suffix", [".mp4", ".mov"])
def test_subtitles_that_overlap_are_shown_together_at_their_times(tmp_path, suffix):
    events = [
        (0.1, 4.0, "Default", "SIGN"),
        (1.0, 2.0, "Thought", "one"),
        (2.0, 2.5, "Default", "two"),
        (2.3, 4.5, "Default", "{\\i1}thr{\\i0}ee"),
        (3.0, 3.5, "Default", "{\\pos(4,4)}"),
        (4.7, 4.9, "Default", "end"),
    ]
    source = film(tmp_path, events)
    output = tmp_path / f"out{suffix}"
    assert double(source, output) == []
    assert texts(output) == [
        (0.1, 1.0, "SIGN", []),
        (1.0, 2.0, "SIGN\none", [(5, 8)]),
        (2.0, 2.3, "SIGN\ntwo", []),
        (2.3, 2.5, "SIGN\ntwo\nthree", [(9, 12)]),
        (2.5, 4.0, "SIGN\nthree", [(5, 8)]),
        (4.0, 4.5, "three", [(0, 3)]),
        (4.7, 4.9, "end", []),
    ]
    assert verify(source, output).problems == []


@pytest.mark.parametrize(("late", "found"), [(0.2, "packet 4 is"), (None, "3 packets, expected 5")])
def test_subtitles_at_other_times_are_found(tmp_path, late, found):
    events = [(0.1, 3.0, "Default", "SIGN"), (1.0, 2.0, "Default", "one"), (2.5, 2.7, "Default", "two")]
    source = film(tmp_path, events)
    other = tmp_path / "other"
    other.mkdir()
    events = events[:2] if late is None else [*events[:2], (2.5, 2.7 + late, "Default", "two")]
    output = tmp_path / "out.mp4"
    double(film(other, events), output)
    assert any(found in line for line in verify(source, output).problems)


def on_screen(events, time):
    """What a screen shows that does not mind overlaps."""
    return [text for begin, end, text in events if begin <= time < end]


def test_at_every_moment_the_same_is_on_the_screen():
    rng = np.random.default_rng(3)
    for _ in range(200):
        begins = np.sort(rng.integers(0, 20, 8))
        events = [(int(b), int(b + rng.integers(1, 12)), b"%d" % i) for i, b in enumerate(begins)]
        screen = Screen()
        spans = [span for event in events for span in screen.add(*event)] + screen.finish()
        assert screen.lost == 0
        assert all(a.begin < a.end <= b.begin for a, b in pairwise(spans))
        for time in range(40):
            shown = [span.events for span in spans if span.begin <= time < span.end]
            assert [e for events in shown for e in events] == on_screen(events, time)


def test_what_has_no_end_lasts_until_the_next_begins():
    screen = Screen()
    spans = screen.add(5, None, b"a") + screen.add(5, 7, b"b") + screen.add(9, None, b"c") + screen.finish()
    assert spans == [(5, 7, [b"a", b"b"]), (7, 9, [b"a"]), (9, 9, [b"c"])]


def test_what_comes_late_begins_late_and_too_much_is_counted():
    screen = Screen()
    assert screen.add(5, 9, b"a") + screen.add(7, 9, b"b") == [(5, 7, [b"a"])]
    assert screen.add(2, 8, b"c") + screen.add(1, 6, b"d") == []
    assert screen.lost == 1
    assert screen.finish() == [(7, 8, [b"a", b"b", b"c"]), (8, 9, [b"a", b"b"])]
    for _ in range(1000):
        assert screen.add(20, 30, b"x" * 1000) == []
    (span,) = screen.finish()
    assert screen.lost == 1001 - len(span.events)
    assert len(joined([b"0,0,Default,,0,0,0,," + e for e in span.events])) < 2**17


@pytest.mark.parametrize(
    ("text", "blank"), [("", True), ("{\\an8} \\N", True), ("{\\i1}.", False), ("a,b", False), ("{", False)]
)
def test_blanks(text, blank):
    assert is_blank(b"3,0,Default,,0,0,0,," + text.encode()) is blank


def test_lines_keep_their_own_style():
    events = [b"0,0,Default,,0,0,0,,a,b", b"7,1,Sign,,0,0,0,,c,d"]
    assert joined(events) == b"0,0,Default,,0,0,0,,a,b\\N{\\rSign}c,d"
    assert joined(events[:1]) == events[0]


def test_times_of_a_part_with_overlaps(tmp_path):
    source = film(
        tmp_path, [(0.1, 4.0, "Default", "SIGN"), (0.5, 0.8, "Default", "gone"), (2.0, 3.0, "Default", "one")]
    )
    output = tmp_path / "part.mp4"
    double(source, output, start=Fraction(1), frames=16)
    assert [t[:3] for t in texts(output)] == [(0, 1, "SIGN"), (1, 2, "SIGN\none"), (2, 3, "SIGN")]

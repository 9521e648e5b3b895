"""Chapters that an output cannot hold as they are: named before work starts, and no fault to `verify`."""

from __future__ import annotations

from fractions import Fraction

import av
import pytest
from clips import make_clip
from doubling import double

from videosr.media.checks.verify import verify
from videosr.media.matroska.elements import (
    ATOM,
    CHAPTERS,
    CLUSTER,
    DISPLAY,
    EDITION,
    INFO,
    SEEK_HEAD,
    SEEK_ID,
    SEEK_POSITION,
    SEGMENT,
    TRACKS,
    element,
    elements,
)
from videosr.media.probe import plan_streams, probe


def tampered(output, path, chapters):
    """A copy of an output with other chapters."""
    with av.open(str(output)) as source, av.open(str(path), "w") as out:
        made = [dict(chapter) for chapter in source.chapters()]
        out.set_chapters(chapters(made))
        stream = out.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(source.streams.video[0]):
            if packet.size:
                packet.stream = stream
                out.mux(packet)
    return path


@pytest.mark.parametrize("suffix", ["mp4", "mov"])
@pytest.mark.parametrize(
    ("chapters", "held", "lost"),
    [
        ([(0, 300, "a"), (300, 300, "of no length")], [0, 0.3], []),
        ([(0, 300, "a"), (300, 300, "b"), (500, 700, "c")], [0, 0.3, 0.5], []),
        ([(0, 1000, "a"), (5000, 5000, "behind the end")], [0, 5], []),
        ([(0, 5000, "longer than the film")], [0], []),
        ([(0, 200, "a"), (400, 800, "b")], [0, 0.4], ["do not end where the next one begins"]),
        ([(100, 500, "a"), (500, 800, "b")], [0, 0.5], ["chapter 'a' begins at 0.100 s"]),
        ([(100, 500, "alone")], [0], ["chapter 'alone' begins at 0.100 s"]),
    ],
)
def test_what_mp4_cannot_say_is_named_and_no_fault(tmp_path, suffix, chapters, held, lost):
    source, output = make_clip(tmp_path / "in.mkv", frames=24, chapters=chapters), tmp_path / f"out.{suffix}"
    losses = plan_streams(source, suffix).losses
    assert len(losses) == len(lost)
    assert all(words in line for words, line in zip(lost, losses, strict=True))
    assert plan_streams(source, "matroska").losses == ()
    double(source, output)
    assert [float(chapter.start) for chapter in probe(output).chapters] == held
    assert verify(source, output).problems == []


@pytest.mark.parametrize("suffix", ["mp4", "mov"])
def test_chapters_without_a_title_stay_chapters(tmp_path, suffix):
    plain = make_clip(tmp_path / "a.mkv", frames=24, chapters=[(0, 300, "a"), (300, 600, "b"), (600, 900, "c")])
    source = tampered(plain, tmp_path / "in.mkv", lambda made: [made[0], {**made[1], "metadata": {}}, made[2]])
    output = tmp_path / f"out.{suffix}"
    double(source, output)
    assert [(float(c.start), c.title) for c in probe(output).chapters] == [(0, "a"), (0.3, ""), (0.6, "c")]
    assert verify(source, output).problems == []


def test_chapters_at_other_times_are_still_found_in_mp4(tmp_path):
    source = make_clip(tmp_path / "in.mkv", frames=24, chapters=[(0, 300, "a"), (300, 600, "b"), (600, 900, "c")])
    output = tmp_path / "out.mp4"
    double(source, output)

    def late(chapters):
        tenth = round(Fraction(1, 10) / Fraction(chapters[0]["time_base"].num, chapters[0]["time_base"].den))
        chapters[0]["end"] += tenth
        chapters[1]["start"] += tenth
        return chapters

    assert verify(source, tampered(output, tmp_path / "late.mp4", late)).problems == [
        "chapter 0: 'a' from 0.000 to 0.400 s, expected 'a' from 0.000 to 0.300 s",
        "chapter 1: 'b' from 0.400 to 0.600 s, expected 'b' from 0.300 to 0.600 s",
    ]


def atom(start, *more, title=b"one"):
    identifier = (start // 10**8 + 1).to_bytes()
    return element(
        ATOM, element(0x73C4, identifier) + element(0x91, start.to_bytes(8)) + display(title) + b"".join(more)
    )


def display(title, language=b"eng"):
    return element(DISPLAY, element(0x85, title) + element(0x437C, language))


def with_chapters(clip, path, *editions, last=False):
    """A Matroska file with these editions of chapters: ahead of the pictures, or at its end, where an index says."""
    head = bytearray(clip.read_bytes())
    first, segment = list(elements(head, 0, len(head)))[:2]
    parts = [e for e in elements(head, segment.data, len(head)) if e.id in (INFO, TRACKS, CLUSTER)]
    media = b"".join(bytes(head[e.start : e.end]) for e in parts)
    chapters = element(CHAPTERS, b"".join(element(EDITION, edition) for edition in editions))
    if last:

        def index(position):
            entries = ((SEEK_ID, CHAPTERS.to_bytes(4)), (SEEK_POSITION, position.to_bytes(8)))
            return element(SEEK_HEAD, element(0x4DBB, b"".join(element(*entry) for entry in entries)))

        body = index(len(index(0)) + len(media)) + media + chapters
    else:
        body = chapters + media
    path.write_bytes(bytes(head[first.start : first.end]) + element(SEGMENT, body))
    return path


def test_names_in_further_languages_are_named_where_they_are_lost(tmp_path):
    chapters = atom(0, display(b"ichi", b"jpn")) + atom(10**8)
    source = with_chapters(make_clip(tmp_path / "plain.mkv", frames=5), tmp_path / "in.mkv", chapters)
    alike = with_chapters(tmp_path / "plain.mkv", tmp_path / "alike.mkv", chapters + atom(10**8, title=b"same UID"))
    assert plan_streams(source, "matroska", trimmed=True).losses == ()
    for path, container, trimmed in ((source, "mp4", False), (source, "webm", True), (alike, "matroska", True)):
        losses = plan_streams(path, container, trimmed=trimmed).losses
        assert any("names in further languages" in line for line in losses)


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize(
    ("editions", "words"),
    [
        ([atom(0, atom(10**8, title=b"within"))], "those within others"),
        ([atom(0), atom(0, title=b"other")], "several editions"),
        ([atom(10**8) + atom(10**8, title=b"as early")], "do not begin after"),
        ([element(0x45DD, b"\1") + atom(0)], "another order"),
        ([element(0x45BD, b"\1") + atom(0)], "an edition is hidden"),
        ([atom(0, element(0x98, b"\1"))], "some are hidden"),
        ([element(0x45DD, b"\0") + element(0x45BD, b"\0") + atom(0, element(0x98, b"\0")) + atom(10**8)], ""),
    ],
)
def test_what_ffmpeg_does_not_read_of_matroska_is_named_of_a_part(tmp_path, editions, words, last):
    clip = make_clip(tmp_path / "plain.mkv", frames=5)
    source = with_chapters(clip, tmp_path / "in.mkv", *editions, last=last)
    assert probe(source).chapters
    assert plan_streams(source, "matroska").losses == ()
    losses = plan_streams(source, "matroska", trimmed=True).losses
    assert len(losses) == bool(words)
    assert all(line.startswith("chapters: ") and words in line for line in losses)


def test_an_index_that_leads_nowhere_or_in_circles_is_left(tmp_path):
    clip = make_clip(tmp_path / "plain.mkv", frames=5)
    source = with_chapters(clip, tmp_path / "in.mkv", atom(0, atom(1)), last=True)
    data = source.read_bytes()
    at = data.index(SEEK_POSITION.to_bytes(2)) + 10
    for position in (0, 2**64 - 1):
        source.write_bytes(data[:at] + position.to_bytes(8) + data[at + 8 :])
        assert plan_streams(source, "matroska").losses == ()

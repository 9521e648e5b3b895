"""What Matroska says and FFmpeg does not carry: it arrives in Matroska, and is named where it does not."""

from __future__ import annotations

import hashlib
import zlib
from dataclasses import replace
from fractions import Fraction

import av
import pytest
from clips import make_clip
from doubling import FAST, double

from videosr.media.checks.verify import verify
from videosr.media.matroska.elements import (
    ATOM,
    ATTACHMENTS,
    CHAPTERS,
    CLUSTER,
    CRC32,
    DISPLAY,
    EDITION,
    INFO,
    SEEK,
    SEEK_HEAD,
    SEEK_ID,
    SEEK_POSITION,
    SEGMENT,
    SIMPLE_TAG,
    TAG,
    TAGS,
    TARGETS,
    TRACKS,
    Node,
    attachments,
    coded,
    element,
    elements,
    payloads,
    summed,
    tree,
)
from videosr.media.matroska.more import carry, more_of
from videosr.media.probe import plan_streams, probe

UID = 0x73C5
SEGMENT_UID, PREVIOUS = Node(0x73A4, b"0123456789abcdef"), Node(0x3CB923, b"fedcba9876543210")
MARKS = {0: [(0x22B59D, b"und")], 1: [(0x22B59D, b"pt-BR")], 2: [(0x22B59D, b"zh-Hant"), (0xB9, b"\0")]}
FONT = ("font.ttf", "font/ttf", bytes(range(256)))


def atom(uid, start, *more):
    times = Node(0x91, start.to_bytes(8)), Node(0x92, (start + 10**8).to_bytes(8))
    return Node(ATOM, (Node(0x73C4, bytes([uid])), *times, *more))


def display(text, language):
    return Node(DISPLAY, (Node(0x85, text), Node(0x437C, b"por"), Node(0x437D, language)))


def tag(name, value, *targets, more=()):
    simple = Node(SIMPLE_TAG, (Node(0x45A3, name), *more, Node(0x4487, value)))
    return Node(TAG, (Node(TARGETS, tuple(Node(*target) for target in targets)), simple))


EDITIONS = (
    Node(EDITION, (atom(1, 0, display(b"Um", b"pt-BR"), display(b"One", b"en-GB"), atom(2, 10**7)), atom(3, 10**8))),
    Node(EDITION, (Node(0x45DD, b"\1"), atom(4, 2 * 10**8, Node(0x98, b"\1")))),
)
BINARY = Node(TAG, (Node(TARGETS, ()), Node(SIMPLE_TAG, (Node(0x45A3, b"B"), Node(0x4485, b"\0")))))
FILE_TAGS = (
    tag(b"TITLE", b"Show", (0x68CA, b"\x46"), more=(Node(0x447B, b"pt-BR"),)),
    tag(b"TITLE", b"Season", (0x68CA, b"\x3c")),
    BINARY,
    tag(b"PLACE", b"kitchen", (0x68CA, b"\x1e"), (0x63C4, b"\1")),
)
TRACK_TAGS = (
    tag(b"BPS", b"11", (0x63C5, b"\x64")),  # the video's, which is not its any more
    tag(b"BPS", b"22", (0x63C5, b"\x65")),
    tag(b"MOOD", b"calm", (0x63C5, b"\x64")),
    tag(b"GONE", b"x", (0x63C5, b"\x99")),
)


@pytest.fixture
def source(tmp_path):
    return rich(tmp_path / "in.mkv")


def rich(path, chapters=EDITIONS, tags=(*FILE_TAGS, *TRACK_TAGS), title=None, repeated=False):
    """A film that says it all; its tracks have the UIDs 100, 101 and so on."""
    plain = make_clip(
        path.with_name("plain.mkv"), frames=12, audio=[("flac", "por")], subtitles=["chi"], attachments=[FONT]
    )
    head = bytearray(plain.read_bytes())
    start, segment = list(elements(head, 0, len(head)))[:2]
    kept = {e.id: bytes(head[e.start : e.end]) for e in elements(head, segment.data, len(head)) if e.id != CLUSTER}
    clusters = b"".join(
        bytes(head[e.start : e.end]) for e in elements(head, segment.data, len(head)) if e.id == CLUSTER
    )
    (info,) = (tree(bytes(data)) for data in payloads(plain, INFO))
    (tracks,) = (tree(bytes(data)) for data in payloads(plain, TRACKS))
    entries = []
    for i, entry in enumerate(tracks):
        inside = [Node(UID, bytes([100 + i])) if node.id == UID else node for node in entry.inside]
        entries.append(entry.with_inside((*inside, *(Node(*mark) for mark in MARKS[i]))))
    info = (*info, SEGMENT_UID, PREVIOUS, *([Node(0x7BA9, title)] if title else []))
    parts = [summed(INFO, info), summed(TRACKS, entries), kept[ATTACHMENTS]]
    parts += [summed(CHAPTERS, chapters), summed(TAGS, tags), clusters]
    if repeated:
        place = sum(map(len, parts)) + 39  # the index is that long
        index = Node(SEEK, (Node(SEEK_ID, TRACKS.to_bytes(4)), Node(SEEK_POSITION, place.to_bytes(8))))
        parts = [summed(SEEK_HEAD, (index,)), *parts, summed(TRACKS, entries)]
    path.write_bytes(bytes(head[start.start : start.end]) + element(SEGMENT, b"".join(parts)))
    return path


def inside(path, wanted):
    """All elements in those of a kind."""
    return [node for data in payloads(path, wanted) for node in tree(bytes(data))]


def test_it_arrives(source, tmp_path):
    assert plan_streams(source, "matroska").losses == ()
    output, again = tmp_path / "out.mkv", tmp_path / "again.mkv"
    for path in (output, again):
        assert double(source, path) == []
    assert hashlib.sha256(output.read_bytes()).digest() == hashlib.sha256(again.read_bytes()).digest()
    for i, entry in enumerate(inside(output, TRACKS)):
        assert {(n.id, n.value) for n in entry.inside if n.id in (0x22B59D, 0xB9)} == set(MARKS[i])
    assert {SEGMENT_UID, PREVIOUS} <= set(inside(output, INFO))
    assert inside(output, CHAPTERS) == list(EDITIONS)
    tags = inside(output, TAGS)
    assert tags[:4] == list(FILE_TAGS)
    assert coded(tags).count(b"BPS") == 1
    assert b"GONE" not in coded(tags)
    with av.open(str(output)) as container:
        video, audio, subtitles, font = container.streams
        assert (audio.metadata["BPS"], video.metadata["MOOD"]) == ("22", "calm")
        assert all("DURATION" in stream.metadata for stream in (video, audio, subtitles))
        assert font.data == FONT[2]
        assert len(list(container.decode(video))) == 12
    assert [chapter.title for chapter in probe(output).chapters] == ["One", "", ""]
    assert verify(source, output).problems == []


@pytest.mark.parametrize("names", [1, 40])
def test_the_file_stays_sound(tmp_path, names):
    """With much to say, chapters and tags are behind the pictures, where the index tells of them."""
    chapters = [Node(EDITION, tuple(atom(i + 1, i * 10**8, *[display(b"a name", b"en")] * names) for i in range(5)))]
    source = rich(tmp_path / "in.mkv", chapters=chapters)
    output = tmp_path / "out.mkv"
    double(source, output)
    data = bytearray(output.read_bytes())
    header, segment = elements(data, 0, len(data))
    assert (header.start, segment.end) == (0, len(data))
    top = list(elements(data, segment.data, segment.end))
    assert top[-1].end == len(data)
    for found in top:
        first = next(elements(data, found.data, found.end), None)
        if first is not None and first.id == CRC32:
            assert zlib.crc32(data[first.end : found.end]).to_bytes(4, "little") == data[first.data : first.end]
    places = {found.id: found.start for found in top}
    assert (places[CHAPTERS] > places[CLUSTER]) == (names > 1)
    assert places[TAGS] > places[CLUSTER]
    index = tree(bytes(data[top[0].data : top[0].end]))
    said = {int.from_bytes(seek.inside[0].data): int.from_bytes(seek.inside[1].data) for seek in index}
    assert len(said) == 6
    assert {key: place + segment.data for key, place in said.items()} == {key: places[key] for key in said}
    assert verify(source, output).problems == []
    with av.open(str(output)) as container:
        container.seek(400_000)
        assert next(container.decode(video=0)).pts > 0


def test_of_a_part_languages_arrive_and_the_rest_is_named(source, tmp_path):
    losses = plan_streams(source, "matroska", trimmed=True).losses
    for words in ("season", "binary", "variants", "several editions", "within others", "before or after"):
        assert any(words in line for line in losses)
    output = tmp_path / "part.mkv"
    double(source, output, start=Fraction(1, 10), frames=6)
    assert output.read_bytes().count(b"\x22\xb5\x9d\x85pt-BR") == 1
    assert [chapter.title for chapter in probe(output).chapters] == ["", ""]


def test_chapters_of_a_part_keep_their_languages_and_further_names(tmp_path):
    names = display(b"Deux", b"fr"), display(b"Zwei", b"de")
    uid = Node(0x73C4, (2**40 + 7).to_bytes(8))  # of which FFmpeg keeps 32 bits
    second = atom(1, 2 * 10**8, *names)
    second = second.with_inside((uid, *second.inside[1:]))
    chapters = Node(EDITION, (atom(1, 0, display(b"Un", b"fr")), second))
    source, output = rich(tmp_path / "in.mkv", chapters=(chapters,), tags=()), tmp_path / "part.mkv"
    assert not any("chapters" in line for line in plan_streams(source, "matroska", trimmed=True).losses)
    double(source, output, start=Fraction(1, 5), frames=3)
    (edition,) = inside(output, CHAPTERS)
    (kept,) = (node for node in edition.inside if node.id == ATOM)
    assert tuple(node for node in kept.inside if node.id == DISPLAY) == names


@pytest.mark.parametrize("container", ["mp4", "mov", "webm"])
def test_other_containers_do_not_have_it(source, container):
    losses = plan_streams(source, container).losses
    lines = ["stream 1: that its language is pt-BR cannot be kept: it is por", "stream 2: that it is switched off"]
    for words in (*lines, "tags: those of chapters", "season", "several editions", "before or after"):
        assert any(words in line for line in losses)
    assert not any(line.startswith("stream 0: that") for line in losses)


@pytest.mark.parametrize(
    ("gone", "found"),
    [
        (b"pt-BR", "stream 1: its language"),
        (b"zh-Hant", "stream 2: its language"),
        (PREVIOUS.data, "which files come before and after"),
        (b"en-GB", "chapters: "),
        (b"Season", "tags: title of level 60"),
        (b"kitchen", "tags: place of level 30"),
    ],
)
def test_what_is_missing_is_found(source, tmp_path, gone, found):
    output = tmp_path / "out.mkv"
    double(source, output)
    data = output.read_bytes()
    output.write_bytes(data.replace(gone, b"?" * len(gone), 1))
    assert any(line.startswith(found) for line in verify(source, output).problems)


def test_chapters_move_with_everything(source, tmp_path):
    output = tmp_path / "out.mkv"
    double(source, output)
    with av.open(str(source)) as container:
        assert carry(output, more_of(container), {0: (), 1: (), 2: ()}, Fraction(1, 2))
    assert [float(chapter.start) for chapter in probe(output).chapters] == [0.5, 0.6, 0.7]
    first = inside(output, CHAPTERS)[0].inside[0]
    assert [n.data for n in first.inside[-1].inside if n.id == 0x91] == [(510 * 10**6).to_bytes(4)]


@pytest.mark.parametrize(("suffix", "part"), [(".mkv", 6), (".mkv", None), (".mp4", None), (".webm", 6)])
def test_the_title_is_the_films(tmp_path, suffix, part):
    """FFmpeg would have it that the last title among the tags is the film's, be it the season's."""
    tags = (tag(b"TITLE", b"The film", (0x68CA, b"\x32")), tag(b"TITLE", b"Season", (0x68CA, b"\x3c")))
    source, output = rich(tmp_path / "in.mkv", tags=tags, title=b"The film\0"), tmp_path / f"out{suffix}"
    settings = FAST if suffix != ".webm" else replace(FAST, codec="libsvtav1", preset="12")
    double(source, output, frames=part, settings=settings)
    for path in (source, output):
        titles = {value for name, value in probe(path).metadata.items() if name.lower() == "title"}
        assert titles == {"The film"}
    if part is None:
        assert verify(source, output).problems == []


def test_tracks_that_are_written_twice_are_there_once(tmp_path):
    """mkvmerge can repeat the headers behind the pictures."""
    source, output = rich(tmp_path / "in.mkv", repeated=True), tmp_path / "out.mkv"
    double(source, output)
    marks = [{(n.id, n.value) for n in entry.inside if n.id in (0x22B59D, 0xB9)} for entry in inside(output, TRACKS)]
    assert marks == [set(MARKS[i]) for i in range(3)]


def test_what_is_damaged_is_left_and_named(tmp_path):
    source, output = rich(tmp_path / "in.mkv"), tmp_path / "out.mkv"
    data = source.read_bytes()
    whole = coded(EDITIONS[1:])
    assert data.count(whole) == 1
    source.write_bytes(data.replace(whole, whole[:2] + bytes([whole[2] + 1]) + whole[3:]))
    assert any("several editions" in line for line in plan_streams(source, "matroska").losses)
    double(source, output)
    assert verify(source, output).problems == []


@pytest.mark.parametrize("stray", [Node(0x4DAA, b"x"), Node(0x98, bytes(9))])
def test_what_does_not_belong_in_chapters_is_not_written(tmp_path, stray):
    source, output = rich(tmp_path / "in.mkv", chapters=[Node(EDITION, (atom(1, 0, stray),))]), tmp_path / "out.mkv"
    double(source, output)
    assert stray not in inside(output, CHAPTERS)[0].inside[0].inside
    assert [chapter.start for chapter in probe(output).chapters] == [
        chapter.start for chapter in probe(source).chapters
    ]


def test_what_is_too_large_is_left_and_named(tmp_path, monkeypatch):
    displays = [display(b"a name", b"en")] * 100
    source = rich(tmp_path / "in.mkv", chapters=[Node(EDITION, (atom(1, 0, *displays), atom(3, 10**8)))])
    output = tmp_path / "out.mkv"
    monkeypatch.setattr("videosr.media.matroska.elements.LARGEST", 1000)
    assert any("further languages" in line for line in plan_streams(source, "matroska").losses)
    double(source, output)
    assert verify(source, output).problems == []
    assert coded(inside(output, CHAPTERS)).count(b"a name") == 1
    tags = coded(inside(output, TAGS))
    assert tags.count(b"kitchen") == tags.count(b"Season") == 1


def test_texts_that_are_not_unicode_become_it(tmp_path):
    source, output = rich(tmp_path / "in.mkv", tags=(tag(b"PLACE", b"caf\xe9"),)), tmp_path / "out.mkv"
    double(source, output)
    assert "café".encode() in output.read_bytes()
    assert verify(source, output).problems == []


def of_attachment(uid):
    """A text and something binary, in one tag."""
    text = Node(SIMPLE_TAG, (Node(0x45A3, b"LICENCE"), Node(0x4487, b"OFL")))
    binary = Node(SIMPLE_TAG, (Node(0x45A3, b"SPECIMEN"), Node(0x4485, b"\0\1\2")))
    return Node(TAG, (Node(TARGETS, (Node(0x63C6, bytes([uid])),)), text, binary))


def test_tags_of_attachments_arrive_with_what_is_binary(tmp_path):
    source, output = rich(tmp_path / "in.mkv", tags=(of_attachment(99), of_attachment(98))), tmp_path / "out.mkv"
    (uid,) = attachments(source)
    was, now = (element(0x46AE, number.to_bytes(8), 1) for number in (uid, 99))
    source.write_bytes(source.read_bytes().replace(was, now))
    assert attachments(source) == [99]
    assert double(source, output) == []
    (uid,) = attachments(output)
    assert [node for node in inside(output, TAGS) if b"OFL" in coded([node])] == [of_attachment(uid)]
    assert verify(source, output).problems == []
    output.write_bytes(output.read_bytes().replace(b"\0\1\2", b"\0\1\3"))
    assert any("specimen" in problem for problem in verify(source, output).problems)


def test_a_file_without_any_of_it_stays_as_ffmpeg_makes_it(tmp_path):
    source = make_clip(tmp_path / "in.mp4", frames=5, metadata={"title": "A clip"})
    output = tmp_path / "out.mkv"
    double(source, output)
    assert probe(output).metadata["title"] == "A clip"
    data = bytearray(output.read_bytes())
    segment = list(elements(data, 0, len(data)))[1]
    order = [e.id for e in elements(data, segment.data, len(data))]
    assert order.index(TAGS) < order.index(CLUSTER)


def test_elements_that_nest_without_end_are_refused():
    data = b""
    for _ in range(60):
        data = element(ATOM, data)
    with pytest.raises(ValueError, match="nested"):
        tree(data)

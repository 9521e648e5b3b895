"""What Matroska says and FFmpeg does not carry: variants of languages, tracks that are off, chapters and tags in full.

`more_of` reads it by itself, `carry` writes it into a file that FFmpeg has made, `lost` names it where that cannot be:
in another container, and of a part of a film. RFC 9559.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import av

from videosr.media.containers import BOOKKEEPING
from videosr.media.matroska.elements import (
    ATOM,
    CHAPTER_STRING,
    CHAPTER_TRACK,
    CHAPTERS,
    DISPLAY,
    EDITION,
    INFO,
    SIMPLE_TAG,
    TAG,
    TAG_NAME,
    TAG_STRING,
    TAGS,
    TARGETS,
    TITLE,
    TRACK_ENTRY,
    TRACKS,
    Node,
    attachments,
    number,
    payloads,
    tree,
)
from videosr.media.matroska.header import Edit, rewrite
from videosr.media.source import is_attached_picture

if TYPE_CHECKING:
    from av.container.streams import StreamContainer

TRACK_TYPE, TRACK_UID, FLAG_ENABLED, LANGUAGE_BCP47 = 0x83, 0x73C5, 0xB9, 0x22B59D
KINDS = {1: "video", 2: "audio", 17: "subtitle", 33: "subtitle"}
"""Of tracks, for those that FFmpeg makes streams of."""
LINKS = frozenset({0x3CB923, 0x3EB923})
"""PrevUUID and NextUUID: the files before and after this one."""
OF_SEGMENT = LINKS | {TITLE, 0x73A4, 0x4444}
"""Besides the title, the segment's UUID and those of the family it belongs to, for others that refer to it."""
CHAPTER_TIMES, CHAPTER_SEGMENT, CHAPTER_TRACK_UID, CHAPTER_UID = (0x91, 0x92), 0x6E67, 0x89, 0x73C4
LEVEL, OF_TRACK, OF_EDITION, OF_CHAPTER, OF_ATTACHMENT = 0x68CA, 0x63C5, 0x63C9, 0x63C4, 0x63C6
"""What the target of a tag is: the level (70 a collection, 60 a season, 50 a film), or things with these UIDs."""
USUAL_LEVEL, TAG_BINARY, TAG_BCP47 = 50, 0x4485, 0x447B

# fmt: off
_ABOUT = (LEVEL, OF_TRACK, OF_EDITION, OF_CHAPTER, OF_ATTACHMENT)
NUMBERS = {
    EDITION: {0x45BC, 0x45BD, 0x45DB, 0x45DD}, CHAPTER_TRACK: {CHAPTER_TRACK_UID},
    ATOM: {CHAPTER_UID, *CHAPTER_TIMES, 0x98, 0x4598, 0x6EBC, 0x4588, 0x63C3},
    TARGETS: {*_ABOUT}, SIMPLE_TAG: {0x4484, 0x44B4},
}
OTHERS = {
    CHAPTERS: {EDITION}, EDITION: {ATOM, 0x4520}, ATOM: {ATOM, DISPLAY, CHAPTER_TRACK, CHAPTER_SEGMENT, 0x5654, 0x6944},
    DISPLAY: {CHAPTER_STRING, 0x437C, 0x437D, 0x437E}, TAGS: {TAG}, TAG: {TARGETS, SIMPLE_TAG}, TARGETS: {0x63CA},
    SIMPLE_TAG: {SIMPLE_TAG, TAG_NAME, TAG_STRING, TAG_BINARY, TAG_BCP47, 0x447A},
}
# fmt: on
"""What elements of chapters and tags may hold (RFC 9559, 5.1.7 and 5.1.8). On anything else FFmpeg's demuxer may take
the whole header for damaged."""
LONGEST_MARK = 64
"""Bytes of a track's language or flag."""


class Track(NamedTuple):
    """What a track says.

    Attributes:
        uid: that tags and chapters refer to.
        marks: its language by BCP 47, and that it is off.
    """

    uid: int
    marks: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class More:
    """What a Matroska file says and FFmpeg does not carry.

    Attributes:
        tracks: one for each of FFmpeg's streams but for attachments; none if they cannot be told apart.
        info: of the segment: title, UUIDs.
        chapters: all editions.
        tags: all of the file's.
        attachments: the UIDs that tags refer to, in the file's order.
    """

    tracks: tuple[Track, ...] = ()
    info: tuple[Node, ...] = ()
    chapters: tuple[Node, ...] = ()
    tags: tuple[Node, ...] = ()
    attachments: tuple[int, ...] = ()


def more_of(container: av.container.InputContainer) -> More:
    """What a file says; nothing where it is no Matroska file, and of what is damaged in it."""
    path = _matroska(container)
    if path is None:
        return More()
    entries = [e.inside for e in _read(path, TRACKS) if e.id == TRACK_ENTRY]
    entries = [entry for entry in entries if _value(entry, TRACK_TYPE) in KINDS]
    same = [KINDS[_value(entry, TRACK_TYPE)] for entry in entries] == _kinds(container.streams)
    return More(
        tracks=tuple(Track(_value(entry, TRACK_UID), tuple(_marks(entry))) for entry in entries) if same else (),
        info=tuple(node for node in _read(path, INFO) if node.id in OF_SEGMENT),
        chapters=_regular(path, CHAPTERS),
        tags=_regular(path, TAGS),
        attachments=tuple(attachments(path)),
    )


def file_tags(container: av.container.InputContainer) -> dict[str, str]:
    """A file's tags as FFmpeg gives them, but with the title that the file has, and one creation time.

    FFmpeg has one list for the tags of the film, its editions, its season and its series: the last title in it stands.
    A QuickTime file may state its creation time in its header and among its tags, of which FFmpeg makes "one;other".
    """
    path, tags = _matroska(container), dict(container.metadata)
    for key in tags:
        if key.lower() == "creation_time":
            tags[key] = tags[key].split(";")[0]
    titles = [node.data for node in _read(path, INFO) if node.id == TITLE] if path is not None else []
    title = titles[0].split(b"\0")[0].decode() if titles else ""
    return {**{key: value for key, value in tags.items() if key.lower() != "title"}, "title": title} if title else tags


def _matroska(container: av.container.InputContainer) -> Path | None:
    """Where a file lies, None if it is no Matroska file on a disk."""
    name = container.name.removeprefix("file:")
    return Path(name) if "matroska" in container.format.name and "://" not in name else None


def _read(path: Path, wanted: int) -> Iterator[Node]:
    # Tags may be there several times, all else but once; where muxers repeat the tracks they say the same again.
    for data in islice(payloads(path, wanted), None if wanted == TAGS else 1):
        with suppress(ValueError):
            yield from tree(bytes(data))


def _regular(path: Path, wanted: int) -> tuple[Node, ...]:
    """All in the elements of a kind; nothing if there is something else in them than belongs there."""
    nodes = tuple(_read(path, wanted))
    return nodes if _is_regular(wanted, nodes) else ()


def _is_regular(parent: int, nodes: Iterable[Node]) -> bool:
    for node in nodes:
        if node.id in NUMBERS.get(parent, ()):
            if len(node.data) > 8:
                return False
        elif node.id not in OTHERS.get(parent, ()) or not _is_regular(node.id, node.inside):
            return False
    return True


def _kinds(streams: StreamContainer) -> list[str]:
    """What kinds FFmpeg's streams of tracks are; attachments have streams after these."""
    return [s.type for s in streams if s.type != "attachment" and not is_attached_picture(s)]


def _value(nodes: Iterable[Node], identifier: int, default: int = 0) -> int:
    return next((number(node.data) for node in nodes if node.id == identifier), default)


def _marks(entry: Iterable[Node]) -> Iterator[Node]:
    for node in entry:
        off = node.id == FLAG_ENABLED and not number(node.data)
        if (off or node.id == LANGUAGE_BCP47) and len(node.data) <= LONGEST_MARK:
            yield node


def lost(more: More, streams: StreamContainer, kept: Iterable[int], container: str, *, trimmed: bool) -> list[str]:
    """What of it an output does not have, a line each; of chapters see `chapters.unread`.

    Args:
        more: of the source.
        streams: of the source.
        kept: those that the output has.
        container: FFmpeg's muxer.
        trimmed: the output has a part of the film only.
    """
    lines = []
    if container != "matroska":
        for index in sorted(set(kept) & set(range(len(more.tracks)))):
            for mark in more.tracks[index].marks:
                language, said = streams[index].language or "und", mark.data.decode("ascii", "replace")
                if mark.id == FLAG_ENABLED:
                    lines.append(f"stream {index}: that it is switched off cannot be kept")
                elif "-" in said:
                    lines.append(f"stream {index}: that its language is {said} cannot be kept: it is {language}")
    if container != "matroska" or trimmed:
        lines += [f"tags: {line} cannot be kept" for line in sorted(_beyond_ffmpeg(more.tags, container))]
        if any(node.id in LINKS for node in more.info):
            lines.append("that other files come before or after this one cannot be kept")
    return lines


def missing_of(was: More, now: More) -> Iterator[str]:
    """What an output of the whole film does not say of its segment, chapters and tags as the source does, a line each.

    Where everything is moved, chapters have other times: those are not looked at.
    """
    if not {node for node in was.info if node.id in LINKS} <= set(now.info):
        yield "which files come before and after this one is not what it was"
    if was.chapters and [_timeless(node) for node in was.chapters] != [_timeless(node) for node in now.chapters]:
        yield "chapters: their names, languages, order or marks are not what they were"
    said = {_said(tag, now) for tag in now.tags}
    for tag in was.tags:
        expected = _said(tag, was)
        about = {number(node.data) for node in _targets(tag) if node.id == OF_ATTACHMENT}
        is_kept = bool(about & set(was.attachments[: len(now.attachments)])) or _is_of_film(tag, was)
        if expected and is_kept and expected not in said:
            names = ", ".join(_name(node) for node in tag.inside if node.id == SIMPLE_TAG)
            yield f"tags: {names} of level {_value(_targets(tag), LEVEL, USUAL_LEVEL)} are not what they were"


def _timeless(node: Node) -> Node:
    """A chapter without what is another number in the output."""
    kept = [_timeless(n) for n in node.inside if n.id not in (*CHAPTER_TIMES, CHAPTER_TRACK)]
    return node.with_inside(kept) if node.inside else node


def _said(tag: Node, more: More) -> frozenset[Node]:
    """What a tag of a file, chapter or attachment says, and of what; nothing where that describes the old file.

    Attachments count by their places, for they have other UIDs in the output.
    """
    simple = [node for node in tag.inside if node.id == SIMPLE_TAG and _name(node) not in BOOKKEEPING]
    places = {uid: place for place, uid in enumerate(more.attachments)}
    return frozenset([*simple, *_renumbered(_targets(tag), OF_ATTACHMENT, places)]) if simple else frozenset()


def _renumbered(nodes: Iterable[Node], identifier: int, numbers: Mapping[int, int]) -> Iterator[Node]:
    """Elements in which those of a kind have other numbers; those that have none are left out."""
    for node in nodes:
        if node.id != identifier:
            yield node
        elif number(node.data) in numbers:
            yield _unsigned(identifier, numbers[number(node.data)])


def _beyond_ffmpeg(tags: Iterable[Node], container: str) -> set[str]:
    """What FFmpeg does not read of tags, or write."""
    found = set[str]()
    for tag in tags:
        targets = _targets(tag)
        level = _value(targets, LEVEL, USUAL_LEVEL)
        if level != USUAL_LEVEL or any(node.id == OF_EDITION for node in targets):
            found.add("what some are of (a season, an episode, an edition)")
        if container != "matroska" and any(node.id == OF_CHAPTER for node in targets):
            found.add("those of chapters")
        for node in _below(tag):
            if node.id == TAG_BINARY:
                found.add("binary ones")
            elif node.id == TAG_BCP47 and b"-" in node.data:
                found.add("variants of their languages")
    return found


def _is_of_film(tag: Node, more: More) -> bool:
    """Whether a tag is about the file or what it is a part of, or about chapters that are there."""
    about = {node.id for node in _targets(tag)}
    return not about & {OF_TRACK, OF_ATTACHMENT} and (bool(more.chapters) or not about & {OF_CHAPTER, OF_EDITION})


def _targets(tag: Node) -> tuple[Node, ...]:
    return tuple(node for targets in tag.inside if targets.id == TARGETS for node in targets.inside)


def _below(node: Node) -> Iterator[Node]:
    for inside in node.inside:
        yield inside
        yield from _below(inside)


def carry(path: Path, more: More, tracks: Mapping[int, tuple[str, ...]], delay: Fraction | None) -> bool:
    """Write it into a finished file.

    Args:
        path: a Matroska file made by FFmpeg.
        more: of the source.
        tracks: in the file's order, which track of the source each is, and how the names of its tags begin that the
            source's are not to replace.
        delay: seconds by which everything was moved; None: the file has a part of the film only, whose chapters, but
            for their names, and tags are FFmpeg's.

    Returns:
        Whether it was done; False if there is no room, the file being left as it was.

    Raises:
        OSError: the file cannot be read or written.
    """
    known = {more.tracks[index].uid: index for index in tracks} if more.tracks else {}
    uids = dict[int, int]()  # of the source's tracks, in the file

    def in_tracks(nodes: tuple[Node, ...]) -> tuple[Node, ...]:
        if not more.tracks or len(nodes) != len(tracks):
            return nodes
        made = []
        for entry, index in zip(nodes, tracks, strict=True):
            uids[more.tracks[index].uid] = _value(entry.inside, TRACK_UID)
            made.append(entry.with_inside((*entry.inside, *more.tracks[index].marks)))
        return tuple(made)

    def in_info(nodes: tuple[Node, ...]) -> tuple[Node, ...]:
        said = {node.id for node in more.info} | ({TITLE} if more.tags else set())  # FFmpeg's may be that of a tag
        return (*(node for node in nodes if node.id not in said), *more.info)

    def in_chapters(nodes: tuple[Node, ...]) -> tuple[Node, ...]:
        if delay is None:
            return tuple(_named(nodes, known_chapters(more.chapters)))
        return tuple(_chapter(node, delay, uids) for node in more.chapters) or nodes

    def in_tags(nodes: tuple[Node, ...]) -> tuple[Node, ...]:
        if not more.tags:
            return nodes
        names = {uids[uid]: tracks[index] for uid, index in known.items() if uid in uids}
        attached = dict(zip(more.attachments, attachments(path), strict=False))  # the last ones may be left out
        return tuple(_tags(more, nodes, uids, names, attached))

    edits: dict[int, Edit] = {TRACKS: in_tracks, CHAPTERS: in_chapters}
    if delay is not None:
        edits |= {INFO: in_info, TAGS: in_tags}
    return rewrite(path, edits)


def _named(written: Iterable[Node], chapters: Mapping[int, Node]) -> Iterator[Node]:
    """FFmpeg's chapters with the names and languages that the source's, given by their short UIDs, have."""
    for edition in written:
        atoms = []
        for atom in edition.inside:
            was = chapters.get(_short_uid(atom)) if atom.id == ATOM else None
            if was is not None:
                names = (node for node in was.inside if node.id == DISPLAY)
                atom = atom.with_inside((*(node for node in atom.inside if node.id != DISPLAY), *names))
            atoms.append(atom)
        yield edition.with_inside(atoms)


def known_chapters(editions: Iterable[Node]) -> dict[int, Node]:
    """Chapters by what FFmpeg leaves of their UIDs; none if two are alike, or one is 0: it changes them all then."""
    chapters = [node for edition in editions for node in edition.inside if node.id == ATOM]
    known = {_short_uid(chapter): chapter for chapter in chapters}
    return known if len(known) == len(chapters) and 0 not in known else {}


def _short_uid(chapter: Node) -> int:
    return _value(chapter.inside, CHAPTER_UID) % 2**32


def _chapter(node: Node, delay: Fraction, uids: Mapping[int, int]) -> Node:
    """An edition or chapter with all in it, at its time in the output."""
    made = []
    elsewhere = any(inside.id == CHAPTER_SEGMENT for inside in node.inside)  # the times are those of another file
    for inside in node.inside:
        if inside.id == CHAPTER_TRACK:
            tracks = [t for t in inside.inside if t.id == CHAPTER_TRACK_UID and number(t.data) in uids]
            if not tracks:
                continue
            inside = inside.with_inside(_unsigned(t.id, uids[number(t.data)]) for t in tracks)
        elif inside.id == ATOM:
            inside = _chapter(inside, delay, uids)
        elif node.id == ATOM and inside.id in CHAPTER_TIMES and delay and not elsewhere:
            inside = _unsigned(inside.id, max(0, number(inside.data) + round(delay * 10**9)))
        made.append(inside)
    return node.with_inside(made) if node.inside else node


def _unsigned(identifier: int, value: int) -> Node:
    return Node(identifier, value.to_bytes(max(1, (value.bit_length() + 7) // 8), "big"))


def _tags(
    more: More,
    written: Iterable[Node],
    uids: Mapping[int, int],
    made_anew: Mapping[int, tuple[str, ...]],
    attached: Mapping[int, int],
) -> Iterator[Node]:
    """The source's tags and, of those that FFmpeg has written, what the source's cannot say.

    Args:
        more: of the source.
        written: by FFmpeg.
        uids: of the source's tracks, in the output.
        made_anew: by tracks of the output, how the names of tags begin that are FFmpeg's.
        attached: UIDs of the source's attachments, in the output.
    """
    for tag in more.tags:
        targets, simple = _targets(tag), [node for node in tag.inside if node.id == SIMPLE_TAG]
        if any(node.id == OF_ATTACHMENT for node in targets):
            targets = tuple(_renumbered(targets, OF_ATTACHMENT, attached))
            if simple and any(node.id == OF_ATTACHMENT for node in targets):
                yield Node(TAG, (Node(TARGETS, targets), *simple))
            continue
        tracks = [uids[uid] for node in targets if node.id == OF_TRACK and (uid := number(node.data)) in uids]
        if tracks:
            names = ("duration", *(name for uid in tracks for name in made_anew.get(uid, ())))
            simple = [node for node in simple if not _begins(node, names)]
        elif _is_of_film(tag, more):
            simple = [node for node in simple if _name(node) not in BOOKKEEPING]
        else:
            continue
        if simple:
            kept = [node for node in targets if node.id != OF_TRACK]
            yield Node(TAG, (Node(TARGETS, (*kept, *(_unsigned(OF_TRACK, uid) for uid in tracks))), *simple))
    for tag in written:
        targets = _targets(tag)
        track = next((number(node.data) for node in targets if node.id == OF_TRACK), None)
        if track is not None:
            names = ("duration", *made_anew.get(track, ("",)))  # all, of a track that the source's tags do not reach
            yield tag.with_inside(node for node in tag.inside if node.id != SIMPLE_TAG or _begins(node, names))
        elif any(n.id == OF_CHAPTER and not more.chapters for n in targets):
            yield tag


def _name(tag: Node) -> str:
    return next((node.data.decode().lower() for node in tag.inside if node.id == TAG_NAME), "")


def _begins(tag: Node, names: tuple[str, ...]) -> bool:
    return _name(tag).startswith(names)

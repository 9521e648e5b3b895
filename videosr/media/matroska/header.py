"""Rewrites what stands before the pictures in a finished Matroska file; the pictures stay where they are."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from os import SEEK_END
from pathlib import Path
from typing import BinaryIO

from videosr.media.matroska.elements import (
    ATTACHMENTS,
    CHAPTERS,
    CLUSTER,
    INFO,
    SEEK,
    SEEK_HEAD,
    SEEK_ID,
    SEEK_POSITION,
    SEGMENT,
    TAGS,
    TRACKS,
    VOID,
    Node,
    elements,
    filler,
    number,
    sized,
    summed,
    tree,
)

type Edit = Callable[[tuple[Node, ...]], tuple[Node, ...]]

ORDER = (INFO, TRACKS, CHAPTERS, ATTACHMENTS, TAGS)
"""Of elements before the pictures in a file of FFmpeg's."""
BEHIND = ((), (TAGS,), (TAGS, CHAPTERS))
"""What goes to the end of the file, where the index of elements tells of it, as far as there is no room in front."""


def rewrite(path: Path, edits: Mapping[int, Edit]) -> bool:
    """Change elements of the Segment in a finished file.

    Args:
        path: a Matroska file made by FFmpeg.
        edits: by identifier, what makes the new content of an element of the old one; called in the order of `ORDER`.

    Returns:
        Whether it was done; False if there is no room, or the file is not as FFmpeg's are, and was left as it was.

    Raises:
        OSError: the file cannot be read or written.
    """
    with path.open("rb+") as file:
        segment = next((e for e in elements(bytearray(file.read(64)), 0, 64) if e.id == SEGMENT), None)
        if segment is None:
            return False
        old, pictures = _front(file, segment.data)
        if SEEK_HEAD not in old or not set(old) <= {SEEK_HEAD, VOID, *ORDER}:
            return False
        try:
            new = _edited(old, edits)
            index = _entries(old[SEEK_HEAD])
        except ValueError:
            return False
        if all(new.get(identifier) == old.get(identifier) for identifier in ORDER):
            return True
        file.seek(0, SEEK_END)
        end = file.tell()
        for behind in BEHIND:
            front = _laid_out(new, behind, index, segment.data, pictures, end)
            if front is not None:
                break
        else:
            return False
        added = b"".join(new.get(identifier, b"") for identifier in behind)
        file.write(added)
        length = segment.data - segment.start - 4
        file.seek(segment.data - length)
        file.write(sized(end + len(added) - segment.data, length))
        file.write(front)
    return True


def _front(file: BinaryIO, at: int) -> tuple[dict[int, bytes], int]:
    """The elements before the first picture, whole, and where that begins."""
    found = dict[int, bytes]()
    while True:
        file.seek(at)
        start = bytearray(file.read(16))
        head = next(elements(start, 0, len(start)), None)
        if head is None or head.id == CLUSTER:
            return found, at
        file.seek(at)
        found[head.id] = file.read(head.end)
        at += head.end


def _payload(whole: bytes) -> bytes:
    return whole[next(elements(bytearray(whole[:16]), 0, 16)).data :]


def _edited(old: Mapping[int, bytes], edits: Mapping[int, Edit]) -> dict[int, bytes]:
    """The elements of `ORDER` as they are to be; those that do not change keep their bytes.

    Raises:
        ValueError: one is damaged.
    """
    new = {identifier: old[identifier] for identifier in ORDER if identifier in old}
    for identifier in ORDER:
        if identifier in edits:
            was = tree(_payload(old[identifier])) if identifier in old else ()
            made = edits[identifier](was)
            if made != was:
                new[identifier] = summed(identifier, made)
    return new


def _entries(seek_head: bytes) -> dict[int, int]:
    """Where in the Segment elements begin, as the index says."""
    found = dict[int, int]()
    for seek in tree(_payload(seek_head)):
        said = {node.id: number(node.data) for node in seek.inside}
        found[said.get(SEEK_ID, 0)] = said.get(SEEK_POSITION, 0)
    return found


def _laid_out(
    new: Mapping[int, bytes], behind: Collection[int], index: Mapping[int, int], start: int, pictures: int, end: int
) -> bytes | None:
    """All before the pictures, None if there is no room.

    Args:
        new: the elements.
        behind: those of them that follow each other from `end` on.
        index: where elements begin, those that stay among them.
        start: of the Segment's content.
        pictures: where they begin.
        end: of the file.
    """
    front = [identifier for identifier in ORDER if identifier in new and identifier not in behind]
    places = dict(index)
    at = len(_index({**index, **dict.fromkeys(new, 0)}))
    for identifier in front:
        places[identifier] = at
        at += len(new[identifier])
    left = pictures - start - at
    if left < 0 or left == 1:
        return None
    at = end - start
    for identifier in behind:
        if identifier in new:
            places[identifier] = at
            at += len(new[identifier])
    return b"".join([_index(places), *(new[identifier] for identifier in front), filler(left)])


def _index(places: Mapping[int, int]) -> bytes:
    """An index of elements, its length depending on their number alone."""
    entries = (
        Node(SEEK, (Node(SEEK_ID, identifier.to_bytes(4, "big")), Node(SEEK_POSITION, place.to_bytes(8, "big"))))
        for identifier, place in places.items()
    )
    return summed(SEEK_HEAD, entries)

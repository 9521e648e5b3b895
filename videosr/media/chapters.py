"""Chapters: as FFmpeg gives them, as an output has them, and what of a file's chapters comes through neither."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import av

from videosr.media.copies import EDITED
from videosr.media.matroska.elements import ATOM, CHAPTERS, DISPLAY, EDITION, children, elements, payloads
from videosr.media.source import clean_tags, clean_text

if TYPE_CHECKING:
    from av.container.core import Chapter as ChapterEntry

    from videosr.media.part import Window

FLAGS = {
    (EDITION, 0x45DD): "that they are to be played in another order (ordered edition)",
    (EDITION, 0x45BD): "that an edition is hidden",
    (ATOM, 0x98): "that some are hidden",
}
"""Flags of Matroska's chapters, by element that has them and their own identifier."""
ROUNDING = Fraction(1, 1000)
"""Seconds by which times may differ that are the same: containers count in milliseconds."""


class Chapter(NamedTuple):
    """A chapter, its times in seconds."""

    start: Fraction
    end: Fraction
    title: str


def chapters_of(container: av.container.Container) -> list[Chapter]:
    """The chapters of a file, in its order."""
    found = []
    for chapter in container.chapters():
        tick, title = _tick(chapter), clean_text(chapter["metadata"].get("title", ""))
        found.append(Chapter(chapter["start"] * tick, chapter["end"] * tick, title))
    return found


def moved_chapters(
    container: av.container.InputContainer, delay: Fraction, window: Window | None, target: str
) -> list[ChapterEntry]:
    """The chapters of a source as PyAV takes them for an output.

    Args:
        container: the source.
        delay: seconds by which everything is moved.
        window: the part that the output has, which then begins at 0; None: all of it.
        target: FFmpeg's muxer. That of MP4 and MOV leaves chapters without a title out of the track of titles.
    """
    made: list[ChapterEntry] = []
    for chapter in container.chapters():
        tick = _tick(chapter)
        start, end = chapter["start"] * tick + delay, chapter["end"] * tick + delay
        if window is not None:
            start, end = (min(max(time, window.start), window.end) - window.start for time in (start, end))
            if end <= start:
                continue
        tags = ({"title": ""} if target in EDITED else {}) | clean_tags(chapter["metadata"])
        made.append({**chapter, "start": round(start / tick), "end": round(end / tick), "metadata": tags})
    return made


def as_held(chapters: Sequence[Chapter], container: str) -> list[Chapter]:
    """Chapters as a container can say them.

    MP4 and MOV have a track of their titles, one after the other from 0 on: each ends where the next one begins. One
    that would end where it begins, at the end of the list, lasts until the film ends.

    Args:
        chapters: with the output's times.
        container: FFmpeg's muxer.
    """
    if container not in EDITED:
        return list(chapters)
    held = []
    for i, (start, end, title) in enumerate(chapters):
        begin = start if i else Fraction(0)
        held.append(Chapter(begin, chapters[i + 1].start if i + 1 < len(chapters) else begin + end - start, title))
    return held


def lost_times(source: av.container.InputContainer, container: str) -> list[str]:
    """What a container cannot say of a source's chapters, a line each; behind the film's end nothing is lost.

    Args:
        source: the file.
        container: FFmpeg's muxer.
    """
    chapters, film = chapters_of(source), Fraction(source.duration or 2**62, 1_000_000)
    held = as_held(chapters, container)
    lines = []
    if chapters and held[0].start < chapters[0].start - ROUNDING:
        title, start = chapters[0].title, float(chapters[0].start)
        lines.append(f"chapter {title!r} begins at {start:.3f} s: in {container} it begins at 0")
    ends = sum(
        was.end > was.start and abs(min(now.end, film) - min(was.end, film)) > ROUNDING
        for was, now in zip(chapters[:-1], held[:-1], strict=True)
    )
    if ends:
        lines.append(f"chapters that do not end where the next one begins: in {container} they do ({ends} of them)")
    return lines


def unread(path: Path, read: int, *, named: bool) -> list[str]:
    """What Matroska's chapters hold that FFmpeg does not read, a line each.

    Args:
        path: a Matroska or WebM file.
        read: how many chapters FFmpeg finds in it.
        named: those have all their names in the output.
    """
    found = set[str]()
    for data in payloads(path, CHAPTERS):
        editions = [list(children(data, edition)) for edition in elements(data, 0, len(data)) if edition.id == EDITION]
        atoms = [list(children(data, element)) for inside in editions for element in inside if element.id == ATOM]
        for parent, lists in ((EDITION, editions), (ATOM, atoms)):
            set_ = {e.id for inside in lists for e in inside if any(data[e.data : e.end])}
            found |= {line for (owner, flag), line in FLAGS.items() if owner == parent and flag in set_}
        if len(editions) > 1:
            found.add("that there are several editions of them")
        elif len(atoms) > read:
            found.add("those that do not begin after the one before them")
        if not named and any(sum(element.id == DISPLAY for element in atom) > 1 for atom in atoms):
            found.add("their names in further languages")
        if any(element.id == ATOM for atom in atoms for element in atom):
            found.add("those within others")
    return [f"chapters: {line} cannot be kept" for line in sorted(found)]


def _tick(chapter: ChapterEntry) -> Fraction:
    return Fraction(chapter["time_base"].num, chapter["time_base"].den)

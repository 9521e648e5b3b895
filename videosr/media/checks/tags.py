"""Tags of two files: which of them say the same, however each container writes them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from av.stream import Stream

from videosr.media.containers import BOOKKEEPING
from videosr.media.immersive import says_of_views
from videosr.media.languages import same_language
from videosr.media.probe import TRACK_BOOKKEEPING
from videosr.media.source import clean_tags, reel

NEVER = "1970-01-01T00:00:00"
"""The creation time that a clock gives which was never set; some containers do not keep it."""


def plain(name: str) -> str:
    """A tag's name without what containers do not keep of it: Matroska has capitals and, by FFmpeg, no spaces."""
    return name.lower().replace(" ", "_")


def content_tags(stream: Stream, created: str | None) -> dict[str, str]:
    """Tags of a stream that describe its content, without those that only repeat the file's.

    Args:
        stream: the stream.
        created: the file's creation time.
    """
    tags = {
        k.lower(): v
        for k, v in {**stream.metadata, **reel(stream)}.items()
        if not k.lower().startswith(TRACK_BOOKKEEPING)
    }
    tags = {k: v for k, v in tags.items() if not says_of_views(k, v)}
    if tags.get("language") == "und":
        del tags["language"]
    if "creation_time" in tags and _same_instant(tags["creation_time"], created or ""):
        del tags["creation_time"]
    if "name" in tags:
        tags.setdefault("title", tags.pop("name"))
    return tags


def missing(was: Mapping[str, str], now: Mapping[str, str], lost: set[str]) -> Iterator[tuple[str, str | None, str]]:
    """The tags of content that do not have their value any more: name, value found and value expected.

    Args:
        was: the source's.
        now: the output's.
        lost: names, made `plain`, that need not be there.
    """
    found = {plain(k): v for k, v in now.items()}
    found.setdefault("title", found.get("name", ""))
    for key, value in clean_tags(was).items():
        name = plain(key)
        if name in BOOKKEEPING or name in lost:
            continue
        if name == "creation_time" and _same_instant(value, NEVER):
            continue
        have = [found[k] for k in (name, name.split("-")[0]) if k in found]
        same = value in have
        if name == "creation_time":
            same = any(_same_instant(value, other) for other in have)
        elif name.startswith("location"):
            same = same or any(_same_place(value, other) for other in have)
        elif name == "language":
            same = any(same_language(value, other) for other in have)
        if not same:
            yield key, have[0] if have else None, value


def _same_instant(a: str, b: str) -> bool:
    """Whether two times of day differ only in how they are written."""
    written = [t.replace("T", " ").rstrip("Z").split(".")[0] for t in (a, b)]
    return written[0] == written[1]


def _same_place(a: str, b: str) -> bool:
    """Whether two ISO 6709 locations differ only in leading and trailing zeros."""
    numbers = [[float(n) for n in re.findall(r"[+-][0-9.]+", text)] for text in (a, b)]
    return bool(numbers[0]) and numbers[0] == numbers[1]

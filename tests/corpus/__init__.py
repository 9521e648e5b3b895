"""Odd, hostile and high-end video in generated files, with what must come of each: see `scripts/corpus.py`."""

from __future__ import annotations

from collections.abc import Iterator

from corpus.case import Case


def all_cases() -> Iterator[Case]:
    """Every case, group by group."""
    from corpus import colour, films, hdr, streams

    for room in (colour, films, streams, hdr):
        yield from room.cases()

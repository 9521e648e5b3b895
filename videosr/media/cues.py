"""Text subtitles as FFmpeg decodes them, and which of them are on the screen at the same time."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

MOST = 100
"""Subtitles on the screen at once; more are no film's, and would be repeated in every span."""
LONGEST = 2**31
"""Milliseconds that a subtitle may last."""
LONGEST_TEXT = 2**16 - 1
"""Bytes of one text in MP4 (3GPP TS 26.245)."""
_OVERRIDES = re.compile(rb"\{[^}]*\}|\\[nNh]")


class Span(NamedTuple):
    """A time in which the screen stays as it is.

    Attributes:
        begin: ticks.
        end: ticks.
        events: what is shown, in the order in which it appeared.
    """

    begin: int
    end: int
    events: list[bytes]


class Screen:
    """Cuts subtitles that overlap at every begin and end, for formats that show one thing at a time.

    Attributes:
        lost: subtitles that found no place.
    """

    def __init__(self) -> None:
        self._shown: list[tuple[int | None, bytes]] = []  # (end, event)
        self._at = 0
        self.lost = 0

    def add(self, begin: int, end: int | None, event: bytes) -> list[Span]:
        """The spans that are over when one more subtitle begins.

        Args:
            begin: ticks; what begins before the one ahead of it is shown from there on.
            end: ticks; None: it lasts until the next one begins.
            event: an ASS event as FFmpeg has it, `ReadOrder,Layer,Style,Name,MarginL,MarginR,MarginV,Effect,Text`.
        """
        spans: list[Span] = []
        if not self._shown:
            self._at = max(self._at, begin)
        elif begin > self._at:
            spans = self._until(begin)
        room = len(self._shown) < MOST and sum(len(e) for _, e in self._shown) + len(event) <= LONGEST_TEXT
        if room and (end is None or end > self._at):
            self._shown.append((end, event))
        else:
            self.lost += 1
        return spans

    def finish(self) -> list[Span]:
        """The spans that are left; a last one whose end nobody knows has no length."""
        last = max((end for end, _ in self._shown if end is not None), default=self._at)
        spans = self._until(last)
        if self._shown:
            spans.append(Span(self._at, self._at, [event for _, event in self._shown]))
        return spans

    def _until(self, time: int) -> list[Span]:
        spans = []
        shown = [(time if end is None else end, event) for end, event in self._shown]
        while shown and self._at < time:
            cut = min(time, *(end for end, _ in shown))
            spans.append(Span(self._at, cut, [event for _, event in shown]))
            self._at = cut
            shown = [(end, event) for end, event in shown if end > cut]
        self._at = max(self._at, time)
        self._shown = list(shown)
        return spans


def joined(events: Sequence[bytes]) -> bytes:
    """One event that shows several, each on a line of its own and in its own style."""
    first, *others = events
    fields = [event.split(b",", 8) for event in others]
    return first + b"".join(b"\\N{\\r" + f[2] + b"}" + f[8] for f in fields)


def is_blank(event: bytes) -> bool:
    """Whether an event shows no text."""
    return not _OVERRIDES.sub(b"", event.split(b",", 8)[-1]).strip()

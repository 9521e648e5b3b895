"""How long work is shown: a bar on a terminal, plain lines when piped, JSON lines when asked for."""

from __future__ import annotations

import json
import sys
import time
from fractions import Fraction
from pathlib import Path
from typing import Any, TextIO

from tqdm import tqdm

_PLAIN_EVERY = 5.0  # seconds between plain lines
_JSON_EVERY = 0.5


class Progress:
    """Shows frames done, frames per second, speed against real time and the time left.

    Args:
        name: what is being worked on.
        as_json: one JSON object a line on stdout, `{"event": ..., ...}`, in place of text.
        quiet: nothing but errors.
        stream: where text goes.
    """

    def __init__(self, name: str, *, as_json: bool = False, quiet: bool = False, stream: TextIO | None = None) -> None:
        self._name, self._json, self._quiet = name, as_json, quiet
        self._stream = stream or sys.stderr
        self._total: int | None = None
        self._rate: Fraction | None = None
        self._begun = self._shown = time.monotonic()
        self._done = 0
        self._bar: tqdm[Any] | None = None

    def begin(self, total: int | None, rate: Fraction | None) -> None:
        """Work starts.

        Args:
            total: frames expected, None where unknown.
            rate: frames per second of the video, None where unknown.
        """
        self._total, self._rate = total, rate
        self._begun = self._shown = time.monotonic()
        self.event("begin", name=self._name, total=total, rate=float(rate) if rate else None)
        if not self._json and not self._quiet and self._stream.isatty():
            self._bar = tqdm(total=total, unit="frame", desc=self._name, file=self._stream, dynamic_ncols=True)

    def frames(self, done: int) -> None:
        """So many frames are done."""
        self._done = done
        now = time.monotonic()
        if self._bar is not None:
            self._bar.set_postfix_str(self._speed(), refresh=False)
            self._bar.update(done - self._bar.n)
        elif not self._quiet and now - self._shown >= (_JSON_EVERY if self._json else _PLAIN_EVERY):
            self._shown = now
            if self._json:
                self.event("progress", frames=done, total=self._total, fps=round(self._fps(), 3), eta=self._eta())
            else:
                of = f"/{self._total}" if self._total else ""
                eta = self._eta()
                left = f", {eta:.0f} s left" if eta is not None else ""
                self._say(f"{self._name}: {done}{of} frames, {self._fps():.1f} fps, {self._speed()}{left}")

    def message(self, text: str) -> None:
        """A note or warning for the user: one line."""
        if self._json:
            self.event("warning", message=text)
        elif not self._quiet:
            self._say(text)

    def event(self, kind: str, **fields: Any) -> None:
        """A JSON line; nothing in the other forms."""
        if self._json:
            sys.stdout.write(json.dumps({"event": kind, **fields}) + "\n")
            sys.stdout.flush()

    def done(self, output: Path, frames: int, size: str, reused: int) -> None:
        """Say what was made."""
        if self._json:
            self.event("done", output=str(output), frames=frames, size=size, reused=reused, seconds=self.seconds)
        elif not self._quiet:
            repeats = f", {reused} of them repeats" if reused else ""
            self._done = frames
            self._say(f"{output}: {frames} frames{repeats}, {size}, {self._fps():.1f} fps, {self._speed()}")

    def close(self) -> None:
        """End the bar."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    @property
    def seconds(self) -> float:
        """Since the beginning."""
        return time.monotonic() - self._begun

    def _fps(self) -> float:
        return self._done / max(self.seconds, 1e-6)

    def _speed(self) -> str:
        return f"{self._fps() / float(self._rate):.2f}x real time" if self._rate else f"{self._fps():.1f} fps"

    def _eta(self) -> float | None:
        if not self._total or not self._done:
            return None
        return round(max(self._total - self._done, 0) / self._fps(), 1)

    def _say(self, text: str) -> None:
        if self._bar is not None:
            self._bar.write(text, file=self._stream)
        else:
            self._stream.write(text + "\n")
            self._stream.flush()

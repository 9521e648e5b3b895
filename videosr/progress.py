"""How work is shown: a bar on a terminal, plain lines when piped, JSON lines when asked for."""

from __future__ import annotations

import io
import json
import sys
import time
from fractions import Fraction
from pathlib import Path
from typing import Any, TextIO

from tqdm import tqdm

from videosr.errors import one_line

JSON_EVERY = 0.5  # seconds between lines on progress
_PLAIN_EVERY = 5.0


class Voice:
    """Where progress is reported: text with a bar, or JSON lines on stdout.

    Args:
        as_json: one JSON object a line, `{"event": ..., ...}`, in place of text.
        quiet: nothing but what went wrong.
        stream: where text goes; stderr by default.
    """

    def __init__(self, *, as_json: bool = False, quiet: bool = False, stream: TextIO | None = None) -> None:
        self.as_json, self.quiet = as_json, quiet
        self._stream = stream or sys.stderr or io.StringIO()  # Python has no stderr where the caller closed it
        self.bar: tqdm[Any] | None = None
        """There is one on terminals."""

    def event(self, kind: str, **fields: Any) -> None:
        """A JSON line; nothing in the other forms."""
        if self.as_json:
            sys.stdout.write(json.dumps({"event": kind, **fields}, default=str) + "\n")
            sys.stdout.flush()

    def say(self, text: str) -> None:
        """A line for people; nothing in the other forms."""
        if not self.as_json and not self.quiet:
            self.write(text)

    def write(self, text: str) -> None:
        """A line for people, also for those who asked for quiet."""
        text = one_line(text)
        if self.bar is not None:
            self.bar.write(text, file=self._stream)
        else:
            self._stream.write(text + "\n")
            self._stream.flush()

    def open_bar(self, total: int | None, unit: str, name: str = "", initial: int = 0) -> None:
        """Begin a bar, where the text goes to a terminal."""
        if not self.as_json and not self.quiet and self._stream.isatty():
            desc = one_line(name) or None
            self.bar = tqdm(total=total, initial=initial, unit=unit, desc=desc, file=self._stream, dynamic_ncols=True)

    def close(self) -> None:
        """End the bar."""
        if self.bar is not None:
            self.bar.close()
            self.bar = None


class Progress(Voice):
    """Shows frames done, frames per second, speed against real time and the time left.

    Args:
        name: what is being worked on.
        as_json: see `Voice`. The events are `note`, `begin`, `progress`, `warning`, then `done` or `error`.
        quiet: nothing but errors.
        stream: where text goes; stderr by default.
    """

    def __init__(self, name: str, *, as_json: bool = False, quiet: bool = False, stream: TextIO | None = None) -> None:
        super().__init__(as_json=as_json, quiet=quiet, stream=stream)
        self._name = name
        self._total: int | None = None
        self._rate: Fraction | None = None
        self._begun = self._shown = time.monotonic()
        self._first: float | None = None  # when the first frame was done: what came before is not speed
        self._before = self._done = 0

    def begin(self, total: int | None, rate: Fraction | None, before: int = 0) -> None:
        """Work starts, or goes on.

        Args:
            total: frames expected, None where unknown.
            rate: frames per second of the video, None where unknown.
            before: frames that an earlier run has finished.
        """
        self._total, self._rate, self._before = total, rate, before
        self._begun = self._shown = time.monotonic()
        self.event("begin", name=self._name, total=total, rate=float(rate) if rate else None, resumed=before)
        self.open_bar(total, " frames", _short(self._name), before)
        if before:
            self.say(f"{self._name}: going on behind the {before} frames that an earlier run has finished")

    def frames(self, done: int) -> None:
        """So many frames are done."""
        if done <= self._before:
            return  # once more, only to get into stride
        self._done = done
        now = time.monotonic()
        if self._first is None:
            self._first = now
            self._shown = -_PLAIN_EVERY if self.as_json else now  # a reader may wait for work to have begun
        if self.bar is not None:
            self.bar.set_postfix_str(self._times_real_time(self._fps()), refresh=False)
            self.bar.update(done - self.bar.n)
        elif now - self._shown >= (JSON_EVERY if self.as_json else _PLAIN_EVERY):
            self._shown = now
            fps, left = self._fps(), self._seconds_left()
            self.event("progress", frames=done, total=self._total, fps=fps and round(fps, 3), eta=left)
            parts = [f"{done}/{self._total} frames" if self._total else f"{done} frames"]
            parts += [f"{fps:.1f} fps", self._times_real_time(fps)] if fps else []
            parts += [f"{tqdm.format_interval(left)} left"] if left is not None else []
            self.say(f"{self._name}: {', '.join(filter(None, parts))}")

    def warning(self, text: str) -> None:
        """Something the user should know: one line."""
        self.event("warning", name=self._name, message=text)
        self.say(f"{self._name}: {text}")

    def note(self, text: str) -> None:
        """How it is done: one line; nothing to worry about."""
        if text:
            self.event("note", name=self._name, message=text)
            self.say(f"{self._name}: {text}")

    def error(self, text: str, exit_code: int) -> None:
        """Tell a JSON reader how it ended; people get the error itself."""
        self.event("error", name=self._name, message=text, exit_code=exit_code)

    def done(self, output: Path, size: str, frames: int, reused: int, *, mended: int = 0, replaced: int = 0) -> None:
        """Say what was made; ends the bar.

        Args:
            output: the file.
            size: of its picture.
            frames: in it.
            reused: of them, repeats.
            mended: of them, those that had to be computed again in float32.
            replaced: of them, those that the network could not make.
        """
        if self.bar is not None:
            self.bar.total = self.bar.n  # it was an estimate where the container does not state a number
        self.close()
        seconds = time.monotonic() - self._begun
        counts = {"frames": frames, "reused": reused, "mended": mended, "replaced": replaced}
        self.event("done", output=str(output), size=size, **counts, seconds=round(seconds, 3))
        line = f"{output}: {size}"
        if self._first is not None:
            fps = (frames - self._before) / max(seconds, 1e-6)
            repeats = f" ({reused} of them repeats)" if reused else ""
            line += f", {frames} frame{'s' * (frames != 1)}{repeats} in {seconds:.1f} s: {fps:.1f} fps"
            line += f", {self._times_real_time(fps)}" if self._rate else ""
        self.say(line)

    def _fps(self) -> float | None:
        """Frames per second since the first one, None before the second."""
        count = self._done - self._before
        if self._first is None or count < 2:
            return None
        return (count - 1) / max(time.monotonic() - self._first, 1e-6)

    def _times_real_time(self, fps: float | None) -> str:
        return f"{fps / float(self._rate):.2f}x real time" if fps and self._rate else ""

    def _seconds_left(self) -> float | None:
        fps = self._fps()
        if not self._total or not fps:
            return None
        return round(max(self._total - self._done, 0) / fps, 1)


def _short(name: str) -> str:
    """A name that leaves room for the bar."""
    return name if len(name) <= 32 else f"{name[:31]}\N{HORIZONTAL ELLIPSIS}"

"""How a batch is shown: one bar over all frames, plain lines when piped, JSON lines when asked for."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from tqdm import tqdm

from videosr.errors import one_line
from videosr.progress import JSON_EVERY, Voice

_PLAIN_EVERY = 10.0  # seconds between plain lines


class Report(Voice):
    """Tells of a batch. Text goes to stderr, JSON lines to stdout.

    The events: `file` for each one before work starts (`action`: make, done, refuse), `plan`; then for each file that
    is made `begin`, `warning`, `done` or `error`, with `progress` of the whole in between; `end`.

    Args:
        as_json: JSON lines in place of text.
        quiet: nothing but what went wrong.
    """

    def __init__(self, *, as_json: bool = False, quiet: bool = False) -> None:
        super().__init__(as_json=as_json, quiet=quiet)
        self._looking = False
        self._expected: dict[Path, int] = {}
        self._done: dict[Path, int] = {}
        self._before = self._frames = self._total = 0
        self._begun = self._shown = time.monotonic()
        self.failures: list[tuple[Path, str]] = []
        self.made = 0

    @property
    def frames(self) -> int:
        """Frames that were made in this run."""
        return self._frames - self._before

    def start(self, expected: dict[Path, int], *, looking: bool = False) -> None:
        """Work on files begins.

        Args:
            expected: frames of each, 0 where that is unknown.
            looking: files are only looked at, each a single step.
        """
        self.close()
        self._looking = looking
        self._expected, self._done = dict(expected), {}
        self._total, self._frames, self._before = sum(expected.values()), 0, 0
        self._begun = self._shown = time.monotonic()
        if expected:
            self.open_bar(self._total, " files" if looking else " frames")

    def begin(self, file: Path, total: int | None, resumed: int) -> None:
        """A file's work begins, or goes on behind frames that an earlier run has finished."""
        self.event("begin", file=file, total=total, resumed=resumed)
        self._expect(file, total or self._expected.get(file, 0))
        self._done[file] = resumed
        self._before += resumed
        self._frames += resumed
        if self.bar is not None:
            self.bar.initial += resumed
        self._show()
        if resumed:
            self.say(f"{file}: going on behind the {resumed} frames that an earlier run has finished")

    def progress(self, file: Path, done: int) -> None:
        """So many frames of a file are done."""
        step = done - self._done.get(file, 0)
        if step > 0:  # else once more, only to get into stride
            self._done[file] = done
            self._frames += step
            self._expect(file, max(self._expected.get(file, 0), done))
            self._show()

    def warning(self, file: Path, text: str) -> None:
        """Something the user should know."""
        self.event("warning", file=file, message=text)
        self.say(f"{file}: {text}")

    def done(self, file: Path, frames: int, line: str, **fields: Any) -> None:
        """A file is made."""
        self.progress(file, frames)
        self._expect(file, frames)
        self.made += 1
        self.event("done", file=file, frames=frames, **fields)
        self.say(line)
        self._show()

    def failed(self, file: Path, message: str, exit_code: int = 1) -> None:
        """A file could not be made."""
        self._expect(file, self._done.get(file, 0))
        self.failures.append((file, message))
        self.event("error", file=file, message=message, exit_code=exit_code)
        self.say(f"FAILED: {_named(file, message)}")
        self._show()

    def _expect(self, file: Path, frames: int) -> None:
        self._total += frames - self._expected.get(file, 0)
        self._expected[file] = frames

    def _show(self) -> None:
        now = time.monotonic()
        if self.bar is not None:
            self.bar.total = self._total
            counts = f"{len(self.failures)} failed"
            self.bar.set_postfix_str(counts if self._looking else f"{self.made} files, {counts}", refresh=False)
            self.bar.update(self._frames - self.bar.n)
        elif not self._looking and now - self._shown >= (JSON_EVERY if self.as_json else _PLAIN_EVERY):
            self._shown = now
            fps = self.frames / max(now - self._begun, 1e-6)
            left = round((self._total - self._frames) / fps, 1) if fps else None
            self.event(
                "progress",
                frames=self._frames,
                total=self._total,
                fps=round(fps, 3),
                eta=left,
                files=self.made,
                failed=len(self.failures),
            )
            parts = [f"{self._frames}/{self._total} frames", count(self.made), f"{fps:.1f} fps"]
            parts += [f"{tqdm.format_interval(left)} left"] if left is not None else []
            self.say(", ".join(parts))

    def end(self, known: int, seconds: float) -> None:
        """The table of what failed, and the sum."""
        self.close()
        failed = len(self.failures)
        self.event("end", made=self.made, known=known, failed=failed, frames=self.frames, seconds=round(seconds, 3))
        if self.as_json:
            return
        if failed:
            width = max(len(one_line(str(file))) for file, _ in self.failures)
            width = min(width, 60)
            self.write(f"{count(failed)} could not be made:")
            for file, message in self.failures:
                self.write(f"  {one_line(str(file)):{width}}  {message.removeprefix(f'{one_line(str(file))}: ')}")
        speed = f", {count(self.frames, 'frame')} in {tqdm.format_interval(seconds)}" if self.frames else ""
        self.say(f"{count(self.made)} made{speed}; {known} were done before; {failed} failed")


def _named(file: Path, message: str) -> str:
    """The message, with the file's name before it unless it has it."""
    return message if message.startswith(one_line(str(file))) else f"{file}: {message}"


def count(things: int, name: str = "file") -> str:
    """A number of files, or of other things, in words."""
    return f"{things:,} {name}{'s' * (things != 1)}"

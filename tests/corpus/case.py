"""A case of the corpus, and how it is put to the test."""

from __future__ import annotations

import contextlib
import functools
import io
import json
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from corpus.reader import File, differences, read
from videosr import upscaler


class Outcome(NamedTuple):
    """What became of a file.

    Attributes:
        source: the file of the case.
        output: what was to be made.
        warnings: what was said.
        error: the error line, without the program's name.
        before: the source as the corpus reads it, where `output` was made.
        after: the output likewise.
    """

    source: Path
    output: Path
    warnings: list[str]
    error: str
    before: File | None = None
    after: File | None = None


class Mismatch(Exception):  # noqa: N818  # an outcome, not an error of the program
    """The outcome is not what it should be."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """One file, the command it is given to, and what must come of it.

    Attributes:
        group: of cases.
        name: within the group.
        make: writes the file into a folder and returns it.
        expected: what must come of it, in words.
        options: of `videosr upscale`; `{shared}` stands for the folder of what cases share.
        output: name of the output; its suffix chooses the container.
        code: exit code.
        says: a text that a warning (of exit code 0) or the error has to contain.
        silent: no warning may be given.
        without: what the comparison with the source leaves out, see `reader.differences`.
        check: looks at the output; returns a figure for the table, raises `Mismatch`.
        scale: of the network.
        large: too large for a test run.
        quick: among those that the tests run.
    """

    group: str
    name: str
    make: Callable[[Path], Path]
    expected: str
    options: tuple[str, ...] = ()
    output: str = "out.mkv"
    code: int = 0
    says: str = ""
    silent: bool = False
    without: tuple[str, ...] = ()
    check: Callable[[Outcome], str] | None = None
    scale: int = 2
    large: bool = False
    quick: bool = False

    @property
    def id(self) -> str:
        """Group and name."""
        return f"{self.group}: {self.name}"


@dataclass
class Row:
    """A line of the table."""

    case: Case
    problems: list[str] = field(default_factory=list)
    figure: str = ""

    @property
    def ok(self) -> bool:
        """Everything is as it should be."""
        return not self.problems


def run(case: Case, folder: Path) -> Row:
    """Make the file of a case in a folder of its own, upscale it with the command, and judge."""
    row = Row(case)
    source = case.make(folder)
    here = set(folder.iterdir())
    output = folder / case.output
    options = [option.replace("{shared}", str(folder.parent)) for option in case.options]
    code, warnings, error = command(["upscale", str(source), str(output), "--json", *options])
    outcome = Outcome(source, output, warnings, error)
    left = set(folder.iterdir()) - here - {output}
    if left:
        row.problems.append(f"left behind: {', '.join(p.name for p in left)}")
    if code != case.code:
        row.problems.append(f"exit code {code}, expected {case.code}: {error or warnings}")
        return row
    if case.says and not any(case.says in line for line in (*warnings, error)):
        row.problems.append(f"{case.says!r} was not said, but {[*warnings, error]}")
    if case.silent and warnings:
        row.problems.append(f"said {warnings}")
    if code:
        if output.exists():
            row.problems.append("there is an output all the same")
        if not error or "\n" in error or "internal error" in error:
            row.problems.append(f"not one clear line: {error!r}")
        return row
    try:
        outcome = outcome._replace(before=read(source, untimed="times" in case.without), after=read(output))
        assert outcome.before is not None
        assert outcome.after is not None
        row.problems += differences(outcome.before, outcome.after, scale=case.scale, without=case.without)
        if case.check is not None:
            row.figure = case.check(outcome)
    except (Mismatch, AssertionError) as exc:
        row.problems.append(str(exc))
    return row


def command(arguments: list[str]) -> tuple[int, list[str], str]:
    """Run the command line in this process: exit code, warnings, error."""
    from videosr.cli import main

    handlers = {s: signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    out, err = io.StringIO(), io.StringIO()
    before, sys.argv = sys.argv, ["videosr", *arguments]
    code: object = 0
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err), _shared_networks():
            main()
    except SystemExit as exc:
        code = exc.code
    finally:
        sys.argv = before
        for number, handler in handlers.items():
            signal.signal(number, handler)
    events = [json.loads(line) for line in out.getvalue().splitlines() if line.startswith("{")]
    warnings = [e["message"] for e in events if e["event"] == "warning"]
    return int(str(code)), warnings, err.getvalue().strip().removeprefix("videosr: ")


_once = functools.cache(upscaler.choose)


@contextlib.contextmanager
def _shared_networks() -> Iterator[None]:
    """Load every network once a process, which is most of the time of a small file."""
    before = upscaler.choose
    upscaler.choose = _once
    try:
        yield
    finally:
        upscaler.choose = before

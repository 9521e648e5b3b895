"""The record of what a batch has made: in a hidden folder of the output folder, a line of JSON for every step.

A file is done if a line says that this output was made from this input with these settings, and the output is still
what it was then. Names decide nothing. A line is written before a file is begun and after it is done or has failed; if
a run is ended between the output's appearance and the second line, the first one shows that the output is new, and has
still to be compared with its source.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, NamedTuple, Self

from videosr.batch.settings import as_known_now
from videosr.errors import OutputError
from videosr.files import hold
from videosr.journal import differences

FOLDER = ".videosr"
_FILE, _LOCK = "batch.jsonl", "lock"


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """A line.

    Attributes:
        state: "begun", "done", or "failed": what was begun has left no output, and one that appears is somebody else's.
        output: path within the output folder, with `/`.
        input: the source's `journal.fingerprint`.
        settings: all that was asked for, as flat JSON values.
        file: the output's fingerprint: before it was begun (None: there was none), or as it was made.
        source: where the input was: a file that is still there keeps its output's name.
    """

    state: Literal["begun", "done", "failed"]
    output: str
    input: str
    settings: Mapping[str, Any]
    file: str | None
    source: str


class Known(NamedTuple):
    """What the record says of an output.

    Attributes:
        begun: the last line of a run that has not come to its end.
        done: the last one of a run that has.
    """

    begun: Entry | None = None
    done: Entry | None = None


class Verdict(NamedTuple):
    """What to do about a file.

    Attributes:
        action: "make" it, "check" what was made by a run that ended before it had compared it with its source, leave it
            because it is "done", or "refuse" to touch the output.
        reason: why, where that is not plain.
    """

    action: Literal["make", "check", "done", "refuse"]
    reason: str = ""


def judge(
    known: Known, input: str, settings: Mapping[str, Any], file: str | None, *, overwrite: bool = False
) -> Verdict:
    """What is to be done about an output.

    Args:
        known: what the record says.
        input: the source's fingerprint.
        settings: as asked for now.
        file: fingerprint of the output as it is, None if there is none.
        overwrite: replace files that no batch has made.
    """
    begun, done = known
    if file is None:
        return Verdict("make", "its output was deleted" if done and not begun else "")
    uncompared = False
    if begun and file != begun.file:  # it appeared, whole, just before the run was ended
        uncompared = True
        done = Entry(**{**asdict(begun), "state": "done", "file": file})
    if done is None:
        if overwrite:
            return Verdict("make", "replaces a file that no batch has made")
        return Verdict("refuse", "there is such a file, and no batch has made it; move it away or give --overwrite")
    if file != done.file:
        return Verdict("make", "its output was changed")
    if input != done.input:
        return Verdict("make", "the input was changed")
    then = as_known_now(done.settings, settings)
    if settings != then:
        return Verdict("make", f"other settings: {differences(then, settings)}")
    if uncompared:
        return Verdict("check", "the run that made it ended before it was compared with its source")
    return Verdict("done")


def read(folder: Path) -> dict[str, Known]:
    """The record in an output folder, by output.

    Raises:
        OutputError: it is there and cannot be read.
    """
    path = folder / FOLDER / _FILE
    known: dict[str, Known] = {}
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return known
    except OSError as exc:
        raise OutputError(f"{path}: cannot be read: {exc.strerror}") from exc
    for line in data.splitlines():
        try:
            entry = _parse(line)
        except (ValueError, TypeError, RecursionError):
            continue  # cut short by whatever ended that run, or damaged: the step is taken again
        before = known.get(entry.output, Known())
        match entry.state:
            case "begun":
                known[entry.output] = before._replace(begun=entry)
            case "done":
                known[entry.output] = Known(done=entry)
            case "failed":
                known[entry.output] = before._replace(begun=None)
    return known


def _parse(line: bytes) -> Entry:
    """Raises ValueError or TypeError: it is no entry."""
    entry = Entry(**json.loads(line))
    texts = (entry.output, entry.input, entry.source, *(() if entry.file is None else (entry.file,)))
    whole = all(isinstance(text, str) for text in texts) and isinstance(entry.settings, dict)
    if not whole or entry.state not in ("begun", "done", "failed"):
        raise ValueError("a field is of another type")
    return entry


class Ledger:
    """The record of an output folder, held by one batch at a time.

    Raises:
        OutputError: the folder cannot be written to, or another batch is at work in it.
    """

    def __init__(self, folder: Path) -> None:
        home = folder / FOLDER
        self._lock = ExitStack()
        try:
            home.mkdir(parents=True, exist_ok=True)
            hold(home / _LOCK, self._lock)
        except BlockingIOError as exc:
            raise OutputError(f"{folder}: another batch is at work here; wait for it or choose another -o") from exc
        except OSError as exc:
            raise OutputError.writing(home, exc) from exc
        self._path = home / _FILE
        self.known = read(folder)
        try:
            # Windows has no O_NOFOLLOW, but without its O_BINARY would write other line ends.
            kind = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
            self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_APPEND | kind, 0o644)
            if os.lseek(self._file, 0, os.SEEK_END):
                os.lseek(self._file, -1, os.SEEK_END)
                if os.read(self._file, 1) != b"\n":
                    os.write(self._file, b"\n")  # behind a line that was cut short
        except OSError as exc:
            self._lock.close()
            raise OutputError.writing(self._path, exc) from exc

    def add(self, entry: Entry) -> None:
        """Write a line, down to the disk. Raises OutputError."""
        line = json.dumps(asdict(entry)).encode() + b"\n"
        try:
            if os.write(self._file, line) < len(line):
                raise OutputError(f"{self._path}: cannot be written; free some space or choose another disk")
            os.fsync(self._file)
        except OSError as exc:
            if isinstance(exc, OutputError):
                raise
            raise OutputError.writing(self._path, exc) from exc

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        os.close(self._file)
        self._lock.close()

"""The journal of a file under way: finished segments beside the output, and what they were made from.

Whatever ends a run (a kill, a power cut, a full disk) costs the segment it was in. The same command finds the journal
and goes on behind the last finished segment; the output is the same, byte for byte. A command that would give other
bits is refused, with the difference.

The journal is a hidden folder beside the output: `job.json`, and segments (`media.segments`) under the number of their
first frame, `000000000.seg`, `000000240.seg`, ... They may come in any order, so there may be gaps between them.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

from videosr.errors import InputError, OutputError, UsageError
from videosr.files import hold, write_atomically
from videosr.media.segments import Segment
from videosr.media.stills.numbered import Numbered

_SAMPLES, _SAMPLE_BYTES = 64, 1 << 16
_LONG = 80  # letters of two values from which on only what differs in them is told


def fingerprint(path: Path) -> str:
    """What an input is, by content and not by name: its size and a hash over 4 MiB spread evenly over it.

    Of numbered pictures it is their number, sizes and times of change too: a picture that was made anew often has the
    same size.

    Raises:
        InputError: it cannot be read, or is something that has no beginning and end, such as a pipe.
    """
    if (pictures := Numbered.of(path)) is not None:
        return _of_pictures(pictures.files())
    try:
        if not stat.S_ISREG(path.stat().st_mode) and not path.is_dir():  # to open a pipe is to wait for its other end
            raise InputError(f"{path}: is a pipe or device, which can be read only once; store it in a file first")
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            digest = hashlib.sha256(str(size).encode())
            for n in range(_SAMPLES):
                file.seek(max(size - _SAMPLE_BYTES, 0) * n // (_SAMPLES - 1))
                digest.update(file.read(_SAMPLE_BYTES))
    except OSError as exc:
        raise InputError(f"{path}: cannot be read: {exc.strerror}") from exc
    return f"{size} bytes, {digest.hexdigest()[:32]}"


def _of_pictures(files: Sequence[Path]) -> str:
    """The fingerprint of numbered pictures."""
    file = files[0]
    digest = hashlib.sha256()
    try:
        for file in files:
            state = file.stat()
            digest.update(f"{state.st_size} {state.st_mtime_ns} ".encode())
        for n in range(_SAMPLES):
            file = files[(len(files) - 1) * n // (_SAMPLES - 1)]
            with file.open("rb") as opened:
                digest.update(opened.read(_SAMPLE_BYTES))
    except OSError as exc:
        raise InputError(f"{file}: cannot be read: {exc.strerror}") from exc
    return f"{len(files)} pictures, {digest.hexdigest()[:32]}"


def differences(then: Mapping[str, Any], now: Mapping[str, Any], *, names: tuple[str, str] = ("then", "now")) -> str:
    """What two jobs differ in, at most three things of it, in words; empty where they are the same.

    Args:
        then: a job.
        now: another.
        names: what to call the two.
    """
    changes = []
    for key in [key for key in (*then, *(k for k in now if k not in then)) if then.get(key) != now.get(key)][:3]:
        a, b = then.get(key), now.get(key)
        if isinstance(a, str) and isinstance(b, str) and len(a + b) > _LONG:
            # Of lists of words, such as the processor's instruction sets, what is not in both.
            in_a, in_b = a.split(), b.split()
            a, b = (" ".join(w for w in x if w not in y) for x, y in ((in_a, in_b), (in_b, in_a)))
        changes.append(f"{key}: {a!r} {names[0]}, {b!r} {names[1]}")
    return "; ".join(changes)


def segment_name(first: int) -> str:
    """The name of the file of a segment that begins with this frame."""
    return f"{first:09d}.seg"


def folder_of(output: Path) -> Path:
    """Where the journal of an output is, or would be."""
    name = output.name
    if len(name) > 50:  # the names of files are limited
        name = f"{name[:40]}-{hashlib.sha256(os.fsencode(name)).hexdigest()[:8]}"
    return output.absolute().with_name(f".{name}.videosr")


def stored(output: Path) -> int:
    """Bytes of segments that an unfinished run of an output has left; 0 if they cannot be counted."""
    try:
        return sum(path.stat().st_size for path in folder_of(output).glob("*.seg"))
    except OSError:
        return 0


def discard(output: Path) -> None:
    """Remove what is left of an output's runs, unless one is under way."""
    folder = folder_of(output)
    if folder.is_symlink() or not folder.is_dir():
        return
    with suppress(OSError), ExitStack() as lock:
        hold(folder / "lock", lock)
        _remove(folder, lock)


def _remove(folder: Path, lock: ExitStack) -> None:
    """Remove a journal that we hold, and let go of it."""
    shutil.rmtree(folder, ignore_errors=True)
    left = folder.exists()  # for Windows removes no file that is open, as the lock is
    lock.close()
    if left:
        with suppress(OSError):  # another run may hold it by now
            (folder / "lock").unlink()
            folder.rmdir()


class Finished(NamedTuple):
    """A finished segment.

    Attributes:
        first: the number of its first frame in the output.
        frames: how many it has.
        path: its file.
    """

    first: int
    frames: int
    path: Path


class Gap(NamedTuple):
    """Frames that are not made yet.

    Attributes:
        first: the number of the first one.
        end: of the first one behind them; None: all there are.
    """

    first: int
    end: int | None


class Journal:
    """The journal of one output, kept for the next run if this one ends early with something finished.

    A context manager: all happens on entering, for a signal between making and entering would leave what was made.

    Args:
        output: the file that is being made.
        job: all that the output's bits depend on, as flat JSON values.
        replace: throw an unfinished run with another job away instead of refusing.

    Attributes:
        folder: where segments go, each under `segment_name` when it is whole.

    Raises:
        OutputError: nothing can be written beside the output, or another run is making the same file.
        UsageError: an unfinished run with another job is there.
    """

    def __init__(self, output: Path, job: Mapping[str, Any], *, replace: bool = False) -> None:
        self.folder = folder_of(output)
        self._output, self._replace = output, replace
        self._job: dict[str, Any] = json.loads(json.dumps(job))  # tuples are lists in a file
        self._void = False
        self._lock = ExitStack()

    def __enter__(self) -> Self:
        if self.folder.is_symlink():  # what it leads to is not ours to clear
            raise OutputError(f"{self.folder}: is a link, and not the folder of an unfinished run: remove it")
        try:
            self.folder.mkdir(exist_ok=True)
            hold(self.folder / "lock", self._lock)
        except BlockingIOError as exc:
            raise OutputError(
                f"{self._output}: another run is making this file; wait for it or choose another name"
            ) from exc
        except OSError as exc:
            raise OutputError.writing(self._output, exc) from exc
        except KeyboardInterrupt:
            self._lock.close()  # which may hold it or not
            with suppress(OSError):  # unless it is another run's
                hold(self.folder / "lock", self._lock)
                self._let_go(keep=any(self.folder.glob("*.seg")))
            raise
        try:
            self._begin()
        except BaseException as exc:
            # Interrupted or out of disk before anything is finished: nothing for a next run.
            self._let_go(keep=isinstance(exc, UsageError) or any(self.folder.glob("*.seg")))
            raise
        return self

    def _begin(self) -> None:
        job, path = self._job, self.folder / "job.json"
        try:
            known = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            known = None
        if not isinstance(known, dict) or (known != job and self._replace):
            known = None  # a run that was killed before it could write it finished nothing
        if known is not None and known != job:
            raise UsageError(
                f"{self._output}: an unfinished run of another kind is there ({differences(known, job)}): repeat its "
                f"command where it was begun, or give --overwrite to throw away what is in {self.folder}"
            )
        if known is None:
            self._clear(())
            write_atomically(path, json.dumps(job, indent=1).encode())
            return
        self._clear(s for s in self.segments() if _sound(s.path))

    def segments(self) -> list[Finished]:
        """What is finished, from the first on."""
        found: list[Finished] = []
        end = 0
        for path in sorted(self.folder.glob("*.seg")):
            try:
                first, frames = int(path.stem), Segment(path).frames
            except (InputError, ValueError):
                continue
            if frames and first >= end:
                found.append(Finished(first, frames, path))
                end = first + frames
        return found

    def gaps(self) -> Iterator[Gap]:
        """What is still to be made, in order; last all that comes behind the last segment, if there is anything."""
        at = 0
        for first, frames, _ in self.segments():
            if first > at:
                yield Gap(at, first)
            at = first + frames
        yield Gap(at, None)

    def _clear(self, finished: Iterable[Finished]) -> None:
        """Delete all but the job and what is finished."""
        keep = {"job.json", "lock", *(segment.path.name for segment in finished)}
        for path in self.folder.iterdir():
            if path.name not in keep:
                path.unlink(missing_ok=True)

    def _let_go(self, *, keep: bool) -> None:
        if keep:
            self._lock.close()
        else:
            _remove(self.folder, self._lock)

    def void(self) -> None:
        """Keep nothing for a next run, however this one ends."""
        self._void = True

    @property
    def kept(self) -> bool:
        """Whether there is something for a next run."""
        return self.folder.exists()

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._let_go(keep=exc is not None and not self._void and any(self.folder.glob("*.seg")))


def _sound(path: Path) -> bool:
    """Whether every checksum of a segment is right."""
    try:
        return all(True for _ in Segment(path).packets())
    except InputError:
        return False

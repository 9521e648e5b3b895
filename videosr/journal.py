"""The journal of a file under way: finished segments beside the output, and what they were made from.

Whatever ends a run (a kill, a power cut, a full disk) costs the segment it was in. The same command finds the journal
and goes on behind the last finished segment; the output is the same, byte for byte. A command that would give other
bits is refused, with the difference.

The journal is a hidden folder beside the output: `job.json`, `000000.seg`, `000001.seg`, ... (`media.segments`).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from videosr.errors import InputError, OutputError, StrictError, UsageError
from videosr.files import write_atomically
from videosr.media.segments import Segment

try:
    import fcntl
except ImportError:  # Windows: two runs into one output are not told apart there
    fcntl = None  # type: ignore[assignment]

_SAMPLES, _SAMPLE_BYTES = 64, 1 << 16


def fingerprint(path: Path) -> str:
    """What an input is, by content and not by name: its size and a hash over 4 MiB spread evenly over it.

    Raises:
        InputError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            digest = hashlib.sha256(str(size).encode())
            for n in range(_SAMPLES):
                file.seek(max(size - _SAMPLE_BYTES, 0) * n // (_SAMPLES - 1))
                digest.update(file.read(_SAMPLE_BYTES))
    except OSError as exc:
        raise InputError(f"{path}: cannot be read: {exc.strerror}") from exc
    return f"{size} bytes, {digest.hexdigest()[:32]}"


class Journal:
    """The journal of one output, kept for the next run if this one ends early with something finished.

    Args:
        output: the file that is being made.
        job: all that the output's bits depend on, as flat JSON values.
        replace: throw an unfinished run with another job away instead of refusing.

    Attributes:
        folder: where segments go.
        segments: finished ones, from the first on.
        frames: in those.

    Raises:
        OutputError: nothing can be written beside the output, or another run is making the same file.
        UsageError: an unfinished run with another job is there.
    """

    def __init__(self, output: Path, job: Mapping[str, Any], *, replace: bool = False) -> None:
        name = output.name
        if len(name) > 50:  # the names of files are limited
            name = f"{name[:40]}-{hashlib.sha256(os.fsencode(name)).hexdigest()[:8]}"
        self.folder = output.absolute().with_name(f".{name}.videosr")
        self.segments: list[Path] = []
        self.frames = 0
        self._output = output
        try:
            self.folder.mkdir(exist_ok=True)
            self._lock = _lock(self.folder / "lock")
        except BlockingIOError as exc:
            raise OutputError(f"{output}: another run is making this file; wait for it or choose another name") from exc
        except OSError as exc:
            raise OutputError.writing(output, exc) from exc
        try:
            self._begin(json.loads(json.dumps(job)), replace)  # tuples are lists in a file
        except BaseException:
            self._lock.close()
            raise

    def _begin(self, job: dict[str, Any], replace: bool) -> None:
        path = self.folder / "job.json"
        try:
            known = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            known = None
        if not isinstance(known, dict) or (known != job and replace):
            known = None  # a run that was killed before it could write it finished nothing
        if known is not None and known != job:
            keys = [key for key in (known | job) if known.get(key) != job.get(key)]
            changes = "; ".join(f"{key}: {known.get(key)!r} then, {job.get(key)!r} now" for key in keys[:3])
            raise UsageError(
                f"{self._output}: an unfinished run with other settings is there ({changes}): "
                f"repeat its command, or give --overwrite to throw away what is in {self.folder}"
            )
        if known is None:
            self._clear()
            try:
                write_atomically(path, json.dumps(job, indent=1).encode())
            except OutputError:
                self._remove()
                raise
            return
        self._take_stock()

    def _take_stock(self) -> None:
        """Check what is finished; what is damaged, and all behind it, is made again."""
        for path in sorted(self.folder.glob("*.seg")):
            if path.name != f"{len(self.segments):06d}.seg":
                break
            try:
                segment = Segment(path)
                frames = sum(1 for _ in segment.packets())  # every checksum
            except InputError:
                break
            self.segments.append(path)
            self.frames += frames
        self._clear()

    def _clear(self) -> None:
        """Delete all but the job and the finished segments."""
        keep = {"job.json", "lock", *(path.name for path in self.segments)}
        for path in self.folder.iterdir():
            if path.name not in keep:
                path.unlink(missing_ok=True)

    def _remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def kept(self) -> bool:
        """Whether there is something for a next run."""
        return self.folder.exists()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # An input or a request that cannot be used will not get better by going on.
        hopeless = isinstance(exc, InputError | UsageError | StrictError)
        finished = exc is not None and not hopeless and any(self.folder.glob("*.seg"))
        if not finished:
            self._remove()
        self._lock.close()


def _lock(path: Path) -> contextlib.ExitStack:
    """Hold a file until the result is closed, or the process has ended in whatever way.

    Raises:
        BlockingIOError: another process holds it.
        OSError: it cannot be made.
    """
    with contextlib.ExitStack() as stack:
        if fcntl is not None:
            file = stack.enter_context(path.open("wb"))
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return stack.pop_all()

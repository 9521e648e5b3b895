"""OpenVINO itself, with a cache of compiled models that several processes may share."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

import openvino as ov

from videosr.errors import UsageError
from videosr.files import write_atomically

try:
    import fcntl
except ImportError:  # no such locks on this system: then there is no cache either
    fcntl = None  # type: ignore[assignment]

_KEPT = 50  # compiled models kept between runs, some 100 KB each; every size and format of a picture makes one
_MOST = 2 * _KEPT  # kept while a run goes on


class CachingCore(ov.Core):  # type: ignore[misc]  # OpenVINO is not typed
    """A core that does without the cache, rather than wait, while another process may be writing to it.

    OpenVINO believes what it finds there: on a damaged file it may hang for good. So beside every `NAME.blob` lies a
    `NAME.sum` with its hash, and a file that does not agree with that goes.

    Args:
        folder: of the cache; None: there is none.
    """

    def __init__(self, folder: Path | None) -> None:
        super().__init__()
        self.folder = folder
        self._sound: dict[str, tuple[int, int]] = {}  # files found to be whole, with their times and sizes of then
        if folder is not None:
            self.set_property({"CACHE_DIR": str(folder)})

    def compile_model(self, model: Any, device: str, options: dict[str, Any]) -> ov.CompiledModel:
        """See `openvino.Core.compile_model`."""
        with _alone(self.folder) as cached:
            if self.folder is None or not cached or not self._tidied(self.folder):
                return super().compile_model(model, device, {**options, "CACHE_DIR": ""})
            compiled = super().compile_model(model, device, options)
            self._vouch(self.folder)
            return compiled

    def _tidied(self, folder: Path) -> bool:
        """Remove the files that are not as they were written, and the oldest if there are many; whether that worked."""
        try:
            blobs = list(folder.glob("*.blob"))
            if len(blobs) > _MOST:
                blobs = _prune(blobs)
            names = {blob.name for blob in blobs}
            self._sound = {name: state for name, state in self._sound.items() if name in names}
            for blob in blobs:
                self._check(blob)
        except OSError:
            return False
        return True

    def _check(self, blob: Path) -> None:
        """Remove a file that is not as it was written."""
        stat = blob.stat()
        state = stat.st_mtime_ns, stat.st_size
        if self._sound.get(blob.name) == state:
            return
        stated = blob.with_suffix(".sum")
        if stated.is_file() and stated.read_bytes() == _sum(blob):
            self._sound[blob.name] = state
        else:
            self._sound.pop(blob.name, None)
            blob.unlink()

    def _vouch(self, folder: Path) -> None:
        for blob in folder.glob("*.blob"):
            if blob.name not in self._sound:
                with suppress(OSError):  # without it, the file goes next time
                    write_atomically(blob.with_suffix(".sum"), _sum(blob))


def _prune(blobs: Iterable[Path]) -> list[Path]:
    """Remove all but the youngest `_KEPT`; which are left. Raises OSError."""
    by_age = sorted(blobs, key=lambda path: path.stat().st_mtime, reverse=True)
    for old in by_age[_KEPT:]:
        old.unlink()
        old.with_suffix(".sum").unlink(missing_ok=True)
    return by_age[:_KEPT]


def _sum(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "blake2b").hexdigest().encode()


@contextmanager
def _alone(folder: Path | None) -> Iterator[bool]:
    """Whether this process has the folder to itself."""
    if folder is None:
        yield False
        return
    with ExitStack() as held:
        try:
            file = held.enter_context((folder / "lock").open("w"))
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # released when the file is closed
        except OSError:  # held, gone, or on a disk without locks
            alone = False
        else:
            alone = True
        yield alone


def core() -> ov.Core:
    """The one core of this process. Its cache lies in `$XDG_CACHE_HOME/videosr/openvino`.

    Raises:
        UsageError: this process was forked from one that has a core. OpenVINO's threads stay behind there, and it waits
            for them for ever, even with a core made anew.
    """
    made, process = _core()
    if process != os.getpid():
        raise UsageError(
            "OpenVINO does not work in a process that was forked from one that has used it: start processes by "
            'multiprocessing.get_context("spawn"), or take another engine there'
        )
    return made


@cache
def _core() -> tuple[ov.Core, int]:
    """The core, and the process that made it."""
    return _make_core(), os.getpid()


def _make_core() -> ov.Core:
    if fcntl is None:
        return CachingCore(None)
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "videosr" / "openvino"
    try:
        root.mkdir(parents=True, exist_ok=True)
        with _alone(root) as alone:
            if alone:
                _prune(root.glob("*.blob"))
    except OSError:
        return CachingCore(None)  # a read-only home costs some start-up time, nothing else
    return CachingCore(root)

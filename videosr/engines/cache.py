"""What was built for one machine and is worth keeping: engines and what their libraries learn while building.

One file an entry, in `$XDG_CACHE_HOME/videosr/engines`: a line of magic, a line of JSON (the whole key, facts, length
and SHA-256 of the payload), the payload. Its name is a digest of the key, and its key is compared again when it is
read, so that an engine is never taken for another: not for another network of the same file name, not after a driver
or library was replaced, not on another GPU. Files appear whole (`files.write_atomically`); what is cut off, altered or
not of this kind counts as not there, and is made again.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import BinaryIO

from videosr.errors import OutputError
from videosr.files import write_atomically

try:
    import fcntl
except ImportError:  # Windows: two processes may then build the same engine; each file is still whole
    fcntl = None  # type: ignore[assignment]

_MAGIC = b"videosr cache 1\n"
_HEADER_LIMIT = 1 << 16
SUFFIX = ".entry"

type Key = Mapping[str, str]
"""All that a payload depends on. One that differs in any value is another entry."""


def default_folder() -> Path:
    """`$XDG_CACHE_HOME/videosr/engines`, or below `~/.cache`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "videosr" / "engines"


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """An entry of the cache.

    Attributes:
        path: its file.
        key: what it was made for; empty where the file is broken.
        facts: what is known of it besides, as measured when it was made.
        size: bytes on disk.
        used: when it was last read or written, seconds since the epoch.
        problem: why it cannot be used, "" where it can.
        payload: its content; empty in a listing.
    """

    path: Path
    key: Key = field(default_factory=dict)
    facts: Mapping[str, str] = field(default_factory=dict)
    size: int = 0
    used: float = 0.0
    problem: str = ""
    payload: bytes = b""


class Cache:
    """A folder of entries that several processes share.

    Args:
        folder: it is made when something is first written; None: `default_folder()`.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or default_folder()

    def path(self, key: Key) -> Path:
        """The file of the entry with this key."""
        return self.folder / f"{_digest(key)}{SUFFIX}"

    def read(self, key: Key) -> Entry | None:
        """The entry with this key; None where there is none that is whole and was made for exactly this key."""
        path = self.path(key)
        entry = _read(path, whole=True)
        if entry is None or entry.problem or dict(entry.key) != dict(key):
            return None
        with suppress(OSError):
            os.utime(path)  # `prune` goes by what is used
        return entry

    def write(self, key: Key, payload: bytes, facts: Mapping[str, str] | None = None) -> None:
        """Keep a payload, in place of what was there.

        Raises:
            OutputError: the folder cannot be made or written.
        """
        header = {
            "key": dict(key),
            "facts": dict(facts or {}),
            "bytes": len(payload),
            "sha256": hashlib.sha256(payload).hexdigest(),
        }
        path = self.path(key)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as exc:
            raise OutputError.writing(self.folder, exc) from exc
        write_atomically(path, _MAGIC + json.dumps(header, sort_keys=True).encode() + b"\n" + payload)

    @contextmanager
    def alone(self, key: Key, waiting: Callable[[], None] = lambda: None) -> Iterator[None]:
        """Hold an entry against other processes that would make it too; they wait, and then find it made.

        Args:
            key: of the entry.
            waiting: called once, if another process holds it.

        Where locks or the folder cannot be had, nothing is held: the work may then be done twice.
        """
        with self._lock_file(key) as file:
            if file is not None:
                with suppress(OSError):  # of a disk without locks
                    _lock(file, waiting)
            yield

    @contextmanager
    def _lock_file(self, key: Key) -> Iterator[BinaryIO | None]:
        if fcntl is None:
            yield None
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            file = self.path(key).with_suffix(".lock").open("wb")
        except OSError:
            yield None
            return
        with file:
            yield file

    def entries(self) -> list[Entry]:
        """Every entry, last used first; payloads are checked but not kept."""
        found = [_read(path, whole=False) for path in self.folder.glob(f"*{SUFFIX}")]
        return sorted((e for e in found if e is not None), key=lambda e: -e.used)

    def prune(self, keep: Callable[[Entry], bool]) -> list[Entry]:
        """Delete broken entries and those not to keep; returns what was deleted.

        Args:
            keep: whether a whole entry stays.

        Raises:
            OutputError: a file cannot be deleted.
        """
        gone = [entry for entry in self.entries() if entry.problem or not keep(entry)]
        for entry in gone:
            try:
                entry.path.unlink(missing_ok=True)
            except OSError as exc:
                raise OutputError.writing(entry.path, exc) from exc
        # A lock without an entry is left over, unless someone is building just now: that takes minutes, not a day.
        for lock in self.folder.glob("*.lock"):
            with suppress(OSError):
                if not lock.with_suffix(SUFFIX).exists() and time.time() - lock.stat().st_mtime > 86400:
                    lock.unlink()
        return gone


def _digest(key: Key) -> str:
    return hashlib.sha256(json.dumps(dict(key), sort_keys=True).encode()).hexdigest()[:32]


def _lock(file: BinaryIO, waiting: Callable[[], None]) -> None:
    """Raises OSError: the disk has no locks."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        waiting()
        fcntl.flock(file, fcntl.LOCK_EX)  # ends with the process that holds it, however that ends


def _read(path: Path, *, whole: bool) -> Entry | None:
    """An entry's file; None where there is none. What is wrong with it stands in `problem`."""
    try:
        data = path.read_bytes()
        stat = path.stat()
    except OSError:
        return None
    entry = Entry(path=path, size=stat.st_size, used=stat.st_mtime)
    magic, newline = data[: len(_MAGIC)], data.find(b"\n", len(_MAGIC), len(_MAGIC) + _HEADER_LIMIT)
    if magic != _MAGIC or newline < 0:
        return replace(entry, problem="not an entry of this cache")
    try:
        header = json.loads(data[len(_MAGIC) : newline])
        key, facts = _texts(header["key"]), _texts(header["facts"])
        length, digest = int(header["bytes"]), str(header["sha256"])
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return replace(entry, problem="its header is damaged")
    payload = data[newline + 1 :]
    problem = ""
    if len(payload) != length or hashlib.sha256(payload).hexdigest() != digest:
        problem = "its content is damaged"
    elif f"{_digest(key)}{SUFFIX}" != path.name:
        problem = "its name belongs to another key"
    return replace(entry, key=key, facts=facts, problem=problem, payload=payload if whole and not problem else b"")


def _texts(value: object) -> dict[str, str]:
    """A mapping of texts.

    Raises:
        TypeError: it is something else.
    """
    if not isinstance(value, dict) or not all(isinstance(v, str) for v in value.values()):
        raise TypeError(f"{value!r} is not a mapping of texts")
    return value

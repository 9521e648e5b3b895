"""Files that are either there completely, under their names, or not at all; and files that one process holds."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from videosr.errors import OutputError

try:
    import fcntl
except ImportError:  # Windows
    import msvcrt

    fcntl = None  # type: ignore[assignment]

_PATIENCE = 2.0  # seconds
_IN_USE = (5, 32)
"""Windows' ERROR_ACCESS_DENIED and ERROR_SHARING_VIOLATION."""


def hold(path: Path, until: ExitStack) -> None:
    """Hold a file until the stack is closed, or the process has ended in whatever way. What is in it stays.

    Args:
        path: of the file.
        until: gets what lets go of it before it is held, so that a signal in here leaves nothing held that it lacks.
            Closed where the file cannot be held.

    Raises:
        BlockingIOError: another process holds it.
        OSError: it cannot be made, or is a link: in a folder that others write to that may lead anywhere.
    """
    file = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o644)
    until.callback(os.close, file)
    try:
        if fcntl is not None:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        else:
            _lock_first_byte(file)
    except OSError:
        until.close()
        raise


def _lock_first_byte(file: int) -> None:
    """Windows' lock: it is of bytes, which need not be there. Raises BlockingIOError: another process has it."""
    try:
        msvcrt.locking(file, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]  # mypy looks at the system it runs on
    except PermissionError as exc:
        raise BlockingIOError(exc.errno, exc.strerror) from exc


def move(path: Path, to: Path) -> None:
    """Rename a closed file; what has the other name already is replaced.

    Windows refuses that while anyone has one of the two open, as scanners for viruses and players of a playlist do for
    an instant: there it is tried again for two seconds.

    Raises:
        OSError: it cannot be renamed.
    """
    until = time.monotonic() + _PATIENCE
    while True:
        try:
            path.replace(to)
            return
        except PermissionError as exc:
            if getattr(exc, "winerror", None) not in _IN_USE or time.monotonic() > until:
                raise
        time.sleep(0.05)


def write_atomically(path: Path, data: bytes, folder: Path | None = None) -> None:
    """Write a file beside its name, let the disk have it, and rename it.

    Args:
        path: its name.
        data: what it holds.
        folder: on the same disk, where it is written; a process that is killed leaves it there.

    Raises:
        OutputError: it cannot be written; what was under the name is still there.
    """
    # Names are limited, and path's may be long.
    with written(path, (folder or path.parent) / f".{path.name[:50]}.{secrets.token_hex(4)}") as file:
        file.write(data)


@contextmanager
def written(path: Path, temporary: Path) -> Iterator[BinaryIO]:
    """A file to write, which gets its name when the block has ended and the disk has all of it.

    Args:
        path: its name.
        temporary: on the same disk, its name until then; if the block fails, nothing is left under it. What a process
            that was killed has left there is replaced.

    Raises:
        OutputError: it cannot be written; what was under the name is still there.
    """
    try:
        temporary.unlink(missing_ok=True)
        try:
            with temporary.open("xb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            move(temporary, path)
        except BaseException:
            with suppress(OSError):
                temporary.unlink()
            raise
    except OSError as exc:
        if isinstance(exc, OutputError):  # of another file that is written meanwhile
            raise
        raise OutputError.writing(path, exc) from exc

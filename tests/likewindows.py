"""A process of Linux that lacks what Windows lacks, and may not remove or rename a file that any process has open.

Much else differs there. `python -c "import likewindows; ..."`, before videosr is imported.
"""

from __future__ import annotations

import errno
import fcntl
import importlib
import multiprocessing.resource_tracker
import os
import signal
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

NAMES = {
    os: ("O_NOFOLLOW", "O_NONBLOCK", "fork", "geteuid", "getuid", "mkfifo", "nice", "sched_getaffinity", "sysconf"),
    signal: ("SIGHUP", "SIGPIPE", "SIGUSR1", "SIGUSR2", "pthread_kill", "pthread_sigmask"),
}
MODULES = ("fcntl", "grp", "pwd", "resource", "termios")


def _locking(file: int, mode: int, count: int) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as exc:
        raise PermissionError(errno.EACCES, "Permission denied") from exc


def _users(path: str) -> list[str]:
    """Who has a file open."""
    found = []
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        try:
            if os.readlink(link) == path:  # noqa: PTH115
                found.append(str(link))
        except OSError:  # it has ended meanwhile
            continue
    return found


def _whole(path: Any, folder: int) -> str:
    where = Path(os.readlink(f"/proc/self/fd/{folder}")) if folder >= 0 else Path.cwd()  # noqa: PTH115
    there = where / os.fsdecode(path)
    return str(Path(os.path.realpath(there.parent)) / there.name)


def _refuse(event: str, args: tuple[Any, ...]) -> None:
    if event == "os.remove":
        names = [_whole(args[0], args[1])]
    elif event == "os.rename":
        names = [_whole(args[0], args[2]), _whole(args[1], args[3])]
    else:
        return
    for name in names:
        if _users(name):
            raise PermissionError(errno.EACCES, "used by another process", name)


def _pretend() -> None:
    for name in ("asyncio", "multiprocessing.popen_spawn_posix", "tempfile"):  # they are what they are on Linux
        importlib.import_module(name)
    multiprocessing.resource_tracker._HAVE_SIGMASK = False  # type: ignore[attr-defined]
    sys.modules.update(dict.fromkeys(MODULES))  # type: ignore[arg-type]
    for module, names in NAMES.items():
        for name in names:
            if hasattr(module, name):
                delattr(module, name)
    locks: Any = types.ModuleType("msvcrt")
    locks.locking, locks.LK_NBLCK = _locking, 2
    sys.modules["msvcrt"] = locks
    subprocess.Popen.terminate = subprocess.Popen.kill  # type: ignore[method-assign]
    sys.addaudithook(_refuse)


_pretend()

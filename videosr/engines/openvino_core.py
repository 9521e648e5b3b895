"""OpenVINO itself, with a cache of compiled models that several processes may share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import openvino as ov

try:
    import fcntl
except ImportError:  # no such locks on this system: then there is no cache either
    fcntl = None  # type: ignore[assignment]

_KEPT = 50  # compiled models kept between runs, some 100 KB each; every size and format of a picture makes one


class _CachingCore(ov.Core):  # type: ignore[misc]  # OpenVINO is not typed
    """A core that compiles under a lock: another process must not read a model that this one is still writing."""

    folder: Path | None = None

    def compile_model(self, *args: Any, **options: Any) -> ov.CompiledModel:
        """See `openvino.Core.compile_model`."""
        with _locked(self.folder):
            return super().compile_model(*args, **options)


@contextmanager
def _locked(folder: Path | None) -> Iterator[None]:
    if folder is None:
        yield
        return
    with (folder / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # released when the file is closed
        yield


@cache
def core() -> ov.Core:
    """The one core of this process. Its cache lies in `$XDG_CACHE_HOME/videosr/openvino`."""
    made = _CachingCore()
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "videosr" / "openvino"
    if fcntl is None:
        return made
    try:
        root.mkdir(parents=True, exist_ok=True)
        with _locked(root):
            blobs = sorted(root.glob("*.blob"), key=lambda path: path.stat().st_mtime, reverse=True)
            for old in blobs[_KEPT:]:
                old.unlink()
    except OSError:
        return made  # a read-only home costs some start-up time, nothing else
    made.set_property({"CACHE_DIR": str(root)})
    made.folder = root
    return made

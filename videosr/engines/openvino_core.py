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
    """A core that leaves the cache alone while another process may be writing to it, and waits for nobody."""

    folder: Path | None = None

    def compile_model(self, model: Any, device: str, options: dict[str, Any]) -> ov.CompiledModel:
        """See `openvino.Core.compile_model`."""
        with _alone(self.folder) as cached:
            return super().compile_model(model, device, options if cached else {**options, "CACHE_DIR": ""})


@contextmanager
def _alone(folder: Path | None) -> Iterator[bool]:
    """Whether this process has the folder to itself."""
    if folder is None:
        yield False
        return
    with (folder / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # released when the file is closed
        except BlockingIOError:
            yield False
        else:
            yield True


@cache
def core() -> ov.Core:
    """The one core of this process. Its cache lies in `$XDG_CACHE_HOME/videosr/openvino`."""
    made = _CachingCore()
    if fcntl is None:
        return made
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "videosr" / "openvino"
    try:
        root.mkdir(parents=True, exist_ok=True)
        with _alone(root) as alone:
            blobs = sorted(root.glob("*.blob"), key=lambda path: path.stat().st_mtime, reverse=True)
            for old in blobs[_KEPT:] if alone else ():
                old.unlink()
    except OSError:
        return made  # a read-only home costs some start-up time, nothing else
    made.set_property({"CACHE_DIR": str(root)})
    made.folder = root
    return made

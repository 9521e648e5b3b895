"""The two libraries that speak TensorRT: `tensorrt` (10 and later) and `tensorrt_rtx`, behind one name.

Their Python interfaces are the same but for a few parts, which are asked for by name here and nowhere else. TensorRT
tunes kernels while it builds, on the GPU that will run them. TensorRT-RTX builds without a GPU, in a second, and
compiles kernels when an engine first runs.
"""

from __future__ import annotations

import gc
import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from videosr.errors import EngineError, MissingExtraError

NAMES = ("tensorrt", "tensorrt_rtx")
RTX_CAPABILITIES = ((7, 5), (8, 0), (8, 6), (8, 9), (12, 0), (12, 1))
"""Compute capabilities TensorRT-RTX 1.x builds for; Hopper (9.0) is none of them."""


class Library:
    """One of the libraries, loaded.

    Args:
        name: one of `NAMES`.

    Attributes:
        trt: the module; its types are not known to type checkers.
        logger: given to everything the library makes; keeps what went wrong.

    Raises:
        MissingExtraError: it is not installed.
        EngineError: it is, but does not load.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        try:
            self.trt: Any = importlib.import_module(name)
        except ModuleNotFoundError as exc:
            raise MissingExtraError(f"the {name} engine", "cuda" if name == "tensorrt_rtx" else "tensorrt") from exc
        except (ImportError, OSError) as exc:
            raise EngineError(f"{name} is installed but does not load: {_first_line(exc)}") from exc
        self.logger: Any = _logger(self.trt)

    @property
    def version(self) -> str:
        """Of the library."""
        return str(self.trt.__version__)

    @property
    def rtx(self) -> bool:
        """Whether kernels are compiled when an engine runs, not when it is built."""
        return hasattr(self.trt, "ComputeCapability")

    def problem(self) -> str:
        """What the library last complained of; "" if nothing. Asking clears it."""
        said, self.logger.errors[:] = list(self.logger.errors), []
        return said[0] if said else ""


@contextmanager
def uncollected() -> Iterator[None]:
    """No garbage is collected inside.

    TensorRT holds a lock while it logs, and whatever frees a builder waits for that lock. Should a collection begin in
    the logger, which is Python, and find an earlier builder, the thread would wait for itself (seen with TensorRT-RTX
    1.7). So a builder is made and used under this.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _logger(trt: Any) -> Any:
    class Logger(trt.ILogger):  # type: ignore[misc]
        """Keeps errors instead of printing: they become part of an exception's one line."""

        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            """See `ILogger`; may come from any thread."""
            if severity in (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR):
                self.errors.append(_first_line(message))

    return Logger()


def _first_line(reason: object) -> str:
    lines = str(reason).strip().splitlines()
    return lines[0] if lines else type(reason).__name__

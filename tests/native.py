"""Whether our own CPU kernels can be tested here."""

from __future__ import annotations

import os
import platform
import shutil

import pytest

from videosr.engines import native_library
from videosr.errors import EngineError, UsageError

COMPILER = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")


def needed() -> None:
    """Skip where they cannot be: no C compiler, or another CPU. Fail where they should be there."""
    try:
        native_library.kernels()
    except UsageError as exc:
        pytest.skip(str(exc))
    except EngineError as exc:
        if COMPILER and platform.machine() == "x86_64":
            raise
        pytest.skip(str(exc))

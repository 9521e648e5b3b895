"""Imported by the other scripts; not a command.

What their command lines share: types of arguments, and how they end.
"""

from __future__ import annotations

import math
import subprocess
import sys
from argparse import ArgumentTypeError
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import NoReturn

from videosr.errors import VideosrError, one_line

try:
    from av import FFmpegError
except ModuleNotFoundError:  # `gpu_bars.py` runs without PyAV
    FFmpegError = OSError


def size(text: str) -> tuple[int, int]:
    """WxH: columns and rows."""
    columns, x, rows = text.partition("x")
    if not (x and columns.isdecimal() and rows.isdecimal() and int(columns) and int(rows)):
        raise ArgumentTypeError(f"{text!r} is not of the form 1920x1080")
    return int(columns), int(rows)


def even_size(text: str) -> tuple[int, int]:
    """WxH of pictures that are made in 4:2:0."""
    found = size(text)
    if any(side % 2 for side in found):
        raise ArgumentTypeError(f"{text!r} is odd; 4:2:0 takes even sizes")
    return found


def count(text: str) -> int:
    """A whole number of at least 1."""
    if not (text.isdecimal() and int(text)):
        raise ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)


def positive(text: str) -> float:
    """A finite number above 0."""
    try:
        found = float(text)
    except ValueError:
        found = math.nan
    if not 0 < found < math.inf:
        raise ArgumentTypeError(f"{text!r} is not a number above 0")
    return found


def moment(text: str) -> Fraction:
    """Seconds since the beginning, exact."""
    try:
        found = Fraction(text)
    except (ValueError, ZeroDivisionError):
        found = Fraction(-1)
    if found < 0:
        raise ArgumentTypeError(f"{text!r} is not a number of seconds")
    return found


def existing(text: str) -> Path:
    """The path of a file or folder that is there."""
    if not Path(text).exists():
        raise ArgumentTypeError(f"{text}: there is no such file or folder")
    return Path(text)


def among(names: Sequence[str]) -> Callable[[str], list[str]]:
    """Some of these names, with commas between them."""

    def some(text: str) -> list[str]:
        found = text.split(",")
        for name in found:
            if name not in names:
                raise ArgumentTypeError(f"{name!r} is not one of {', '.join(names)}")
        return found

    return some


def run(main: Callable[[], int | None]) -> NoReturn:
    """Run a script and end with the exit code that it returns; what is wrong with what it was given is one line."""
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
    except VideosrError as exc:
        message, code = str(exc), exc.exit_code
    except ModuleNotFoundError as exc:
        message, code = f"the package {exc.name} is not installed", 1
    except subprocess.CalledProcessError as exc:  # which has said why
        message, code = f"{' '.join(map(str, exc.cmd))}: exit code {exc.returncode}", 1
    except (OSError, FFmpegError) as exc:
        message, code = str(exc), 1
    print(one_line(f"{Path(sys.argv[0]).name}: {message}"), file=sys.stderr)
    sys.exit(code)

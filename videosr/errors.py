"""The exceptions of videosr.

    VideosrError                  anything this package refuses or fails at; `.exit_code` is the command's exit code
    ├── InputError (ValueError)   the input file, stream, image or network cannot be used as it is          exit 1
    │   └── NetworkError          ... a network or weight file in particular
    ├── OutputError (OSError)     the output cannot be written, encoded or finalised                         exit 1
    ├── EngineError (RuntimeError) an inference engine failed, or refused the network                        exit 1
    ├── MissingExtraError (ImportError)  a part of videosr needs packages that are not installed            exit 1
    ├── StrictError               `--strict` is on and something could not be kept as it was                 exit 1
    └── UsageError (ValueError)   options that contradict each other or are out of range                     exit 2

Every message is one line that names the file or option, the value that is wrong and the remedy. Exceptions of other
libraries are mapped to these where they enter (`raise ... from exc`), so that nobody above `media` has to know PyAV and
nobody above `engines` has to know OpenVINO. Each class is also the builtin that a caller would catch.
"""

from __future__ import annotations

import errno
import os
import shlex
import sys
import unicodedata
from typing import Self


def one_line(text: str) -> str:
    """A text as one line that is safe for every terminal, whatever names of files are in it.

    Control characters, line ends of all kinds and bytes that are no Unicode are shown as Python writes them, `\\n`.
    """
    if text.isprintable():
        return text
    unfit = ("Cc", "Cs", "Zl", "Zp")
    return "".join(c.encode("unicode_escape").decode() if unicodedata.category(c) in unfit else c for c in text)


def first_line(exc: BaseException) -> str:
    """What a library says went wrong, without the lines behind the first; the error's class if it says nothing."""
    return (str(exc).strip() or type(exc).__name__).splitlines()[0]


class VideosrError(Exception):
    """Base of everything videosr raises on purpose."""

    exit_code = 1

    def __str__(self) -> str:
        """The message, in one line."""
        return one_line(super().__str__())


class InputError(VideosrError, ValueError):
    """The input cannot be read, decoded or used as it is."""


class NetworkError(InputError):
    """A network or checkpoint file is broken, unknown or does not fit the request."""


class OutputError(VideosrError, OSError):
    """The output cannot be opened, encoded, written or finalised."""

    @classmethod
    def writing(cls, path: str | os.PathLike[str], exc: Exception) -> Self:
        """The error of a file that the system does not let us write, with what can be done about it.

        Args:
            path: the file.
            exc: an OSError, or PyAV's likeness of one.
        """
        remedy = _REMEDIES.get(getattr(exc, "errno", 0), "")
        return cls(f"{os.fspath(path)}: cannot be written: {getattr(exc, 'strerror', '') or exc}{remedy}")


_REMEDIES = {
    errno.ENOSPC: "; free some space or choose another disk",
    errno.EDQUOT: "; free some space or choose another disk",
    errno.EFBIG: "; a limit or the file system forbids files of this size",
    errno.EACCES: "; choose a folder you may write to",
    errno.EPERM: "; choose a folder you may write to",
    errno.EROFS: "; choose a folder you may write to",
}


class EngineError(VideosrError, RuntimeError):
    """An inference engine failed while loading or running a network."""


def remedy(extra: str) -> str:
    """How to get what an extra brings, by either of README's ways: videosr is on no package index."""
    uv = r".uv\Scripts\uv" if sys.platform == "win32" else ".uv/bin/uv"
    return f"in videosr's folder: {uv} run --extra {extra} videosr ..., or pip install {quoted(f'.[{extra}]')}"


def quoted(text: str) -> str:
    """A word of a command that is printed for people, as their shell has to be given it."""
    return f'"{text}"' if sys.platform == "win32" else shlex.quote(text)  # no name there has a quotation mark


class MissingExtraError(VideosrError, ImportError):
    """A feature needs packages that are not installed.

    Args:
        feature: what was asked for, as the user would name it.
        extra: the extra of the `videosr` distribution that brings the packages.
    """

    def __init__(self, feature: str, extra: str) -> None:
        super().__init__(f"{feature} needs packages that are not installed; {remedy(extra)}")
        self.extra = extra


class StrictError(VideosrError):
    """Something would be lost or converted, and `--strict` forbids that."""


class UsageError(VideosrError, ValueError):
    """The request itself makes no sense: an option value out of range, or options that contradict each other."""

    exit_code = 2

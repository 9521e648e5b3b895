"""Which files a batch works on."""

from __future__ import annotations

import glob
import os
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path

from videosr.batch.ledger import read
from videosr.batch.names import Item, named
from videosr.errors import InputError, UsageError
from videosr.media.containers import IMAGES, container_format
from videosr.media.stills.numbered import Numbered

# fmt: off
VIDEO_SUFFIXES = frozenset({
    ".264", ".265", ".3g2", ".3gp", ".asf", ".avi", ".divx", ".dv", ".f4v", ".flv", ".h264", ".h265", ".hevc",
    ".ivf", ".m1v", ".m2ts", ".m2v", ".m4v", ".mkv", ".mod", ".mov", ".mp4", ".mpe", ".mpeg", ".mpg", ".mts",
    ".mxf", ".nut", ".obu", ".ogm", ".ogv", ".qt", ".rm", ".rmvb", ".tod", ".ts", ".vob", ".webm", ".wmv",
    ".wtv", ".y4m",
})
# fmt: on
"""What is taken for video where no pattern says what to take."""
PICTURE_SUFFIXES = frozenset({
    ".avif", ".bmp", ".dpx", ".heic", ".heif", ".hif", ".jp2", ".jxl", ".pbm", ".pgm", ".pnm", ".ppm", ".tga", ".tif",
    ".tiff", *IMAGES,
})  # fmt: skip
"""What is taken for a picture where pictures are made: more than can be written."""
LISTS = frozenset({".txt", ".m3u", ".m3u8"})
_WINDOWS_OWN = frozenset({"$recycle.bin", "system volume information"})
"""Folders that Windows keeps on every disk and hides: of what was deleted, and one that nobody may look into."""


@dataclass(slots=True)
class Found:
    """What the arguments come to.

    Attributes:
        items: in the order of the arguments, within a folder by name.
        left: files left aside because of their names: how many of each suffix.
        unreadable: folders that could not be looked into, and why.
    """

    items: list[Item] = field(default_factory=list)
    left: Counter[str] = field(default_factory=Counter)
    unreadable: list[tuple[Path, InputError]] = field(default_factory=list)


def find(arguments: Iterable[str], out: Path, to: str, pattern: str | None = None) -> Found:
    """The files that folders, globs and lists name.

    A folder that is the only argument has its tree mirrored in `out`; of several, each has one of its own name there. A
    glob's matches keep their paths from the first wildcard on; a list's files theirs within the list's folder. Hidden
    files and what lies in `out` are not looked at, and links to folders not followed.

    Args:
        arguments: folders, files, globs (`**` for any depth), lists (.txt, .m3u; one path a line, `#` for comments), or
            "-" for a list on standard input. A list may name folders.
        out: the output folder.
        to: suffix of the outputs.
        pattern: names to take, such as `*.mkv`; by default those of video, or of pictures where `to` is one's suffix.

    Raises:
        UsageError: an argument names nothing, or lies in `out`.
        OutputError: the record in `out` cannot be read.
    """
    arguments = list(arguments)
    search = _Search(out, pattern, PICTURE_SUFFIXES if container_format(to) == "image" else VIDEO_SUFFIXES)
    for argument in arguments:
        search.add(argument, alone=len(arguments) == 1)
    search.found.items = named(search.pairs, to, VIDEO_SUFFIXES | PICTURE_SUFFIXES, read(out))
    return search.found


class _Search:
    """Collects pairs of a source and its path below the output folder, that still with the source's suffix."""

    def __init__(self, out: Path, pattern: str | None, suffixes: frozenset[str]) -> None:
        self._out, self._pattern, self._suffixes = _real(out), pattern, suffixes
        self._seen: set[Path] = set()
        self.pairs: list[tuple[Path, Path]] = []
        self.found = Found()

    def add(self, argument: str, *, alone: bool) -> None:
        if not argument:  # Path would take it for the folder that we are in: a script's variable was not set
            raise UsageError("'' names no file; give a folder, a glob or a list, as . for the folder you are in")
        path = Path(argument)
        if argument == "-":
            self._list(sys.stdin.buffer.read() if sys.stdin else b"", argument, Path())
        elif path.is_dir():
            self._folder(path, Path() if alone else Path(_real(path).name))
        elif path.is_file() and path.suffix.lower() in LISTS:
            try:
                data = path.read_bytes()
            except OSError as exc:
                raise UsageError(f"{path}: cannot be read as a list of files: {exc.strerror}") from exc
            self._list(data, argument, path.parent)
        elif path.exists():
            self._asked_for(path, Path(path.name))
        elif glob.has_magic(argument):
            self._glob(argument)
        elif Numbered.of(path) is not None:
            raise UsageError(
                f"{argument}: numbered pictures are one film, which `videosr upscale` takes; to make each by itself, "
                "give their folder and --to png"
            )
        else:
            raise UsageError(f"{argument}: there is no such file or folder")

    def _is_output(self, path: Path) -> bool:
        return _real(path).is_relative_to(self._out)

    def _folder(self, folder: Path, below: Path) -> None:
        if self._is_output(folder):
            raise UsageError(f"{folder} lies in the output folder {self._out}; choose another -o")
        for _, files in self._walk(folder):
            for path in files:
                self._file(path, below / path.relative_to(folder))

    def _walk(self, folder: Path) -> Iterator[tuple[Path, list[Path]]]:
        """A folder and all below it, with their files: nothing hidden, nor what is behind links to folders."""
        for parent, folders, files in os.walk(folder, onerror=self._unreadable):
            here = Path(parent)
            folders[:] = sorted(f for f in folders if not _is_hidden(f) and _real(here / f) != self._out)
            yield here, [here / name for name in sorted(files) if not _is_hidden(name)]

    def _unreadable(self, exc: OSError) -> None:
        problem = InputError(f"{exc.filename}: cannot be looked into: {exc.strerror}")
        self.found.unreadable.append((Path(exc.filename), problem))

    def _glob(self, pattern: str) -> None:
        fixed = Path(*_until_magic(Path(pattern).parts))
        matches = sorted(set(self._matches(Path(pattern))))
        if not matches:
            raise UsageError(f"{pattern}: matches nothing")
        for match in matches:
            below = match.relative_to(fixed)
            if match.is_dir():
                # With ** what is inside matches by itself.
                if "**" not in Path(pattern).parts and not self._is_output(match):
                    self._folder(match, below)
            else:
                self._file(match, below)

    def _matches(self, pattern: Path) -> Iterator[Path]:
        """What matches a glob. `**` goes where `_walk` does: Python's own would follow links, round in circles too."""
        parts = pattern.parts
        if "**" not in parts:
            yield from map(Path, glob.glob(str(pattern)))  # noqa: PTH207 (Path.glob takes no absolute pattern)
            return
        at = parts.index("**")
        for top in map(Path, glob.glob(str(Path(*parts[:at])))):  # noqa: PTH207
            for here, files in self._walk(top):
                if at + 1 == len(parts):
                    yield from files
                else:
                    yield from self._matches(Path(glob.escape(str(here)), *parts[at + 1 :]))

    def _list(self, data: bytes, name: str, base: Path) -> None:
        if b"\0" in data:
            raise UsageError(f"{name}: is not a list of files: it has zero bytes; give one path a line, in UTF-8")
        # As Python does it with names of files: they may be in an encoding of long ago.
        for line in data.decode("utf-8-sig", errors="surrogateescape").split("\n"):
            entry = line.rstrip("\r")
            if not entry or entry.startswith("#"):
                continue
            path = base / entry
            # An anchor rather than an absolute path: on Windows `\films\a.avi` has one, and is not absolute.
            inside = not Path(entry).anchor and ".." not in Path(entry).parts
            below = Path(entry) if inside else Path(path.name)
            if path.is_dir():
                self._folder(path, below)
            else:
                self._asked_for(path, below)

    def _asked_for(self, path: Path, below: Path) -> None:
        """A file that was asked for by its name."""
        if self._is_output(path):
            raise UsageError(f"{path} lies in the output folder {self._out}; choose another -o")
        self._file(path, below)

    def _file(self, path: Path, below: Path) -> None:
        if self._pattern is None and below.suffix.lower() not in self._suffixes:
            self.found.left[below.suffix.lower() or "no suffix"] += 1
            return
        if self._pattern is not None and not fnmatch(below.name.lower(), self._pattern.lower()):
            self.found.left[below.suffix.lower() or "no suffix"] += 1
            return
        real = _real(path)
        if real in self._seen or real.is_relative_to(self._out):
            return
        self._seen.add(real)
        self.pairs.append((path, below))


def _is_hidden(name: str) -> bool:
    """Whether the name of a file or folder says that it is not for its user's eyes."""
    return name.startswith(".") or name.casefold() in _WINDOWS_OWN


def _real(path: Path) -> Path:
    """The path behind links, as far as they can be followed: `Path.resolve` raises where they go round in a circle."""
    return Path(os.path.realpath(path))


def _until_magic(parts: tuple[str, ...]) -> Iterator[str]:
    for part in parts:
        if glob.has_magic(part):
            return
        yield part

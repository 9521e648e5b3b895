"""The library of our own CPU kernels (`kernels/strips.c`), as ctypes sees it.

It is compiled when videosr is installed, where a C compiler is there (`scripts/build_native.py`).
"""

from __future__ import annotations

import ctypes
import hashlib
import platform
import struct
import sys
from ctypes import POINTER, Structure, byref, c_float, c_int, c_int32, c_ssize_t, c_void_p
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from videosr.errors import EngineError, UsageError
from videosr.frame import Array

FOLDER = Path(__file__).parent / "kernels"
LANES = (16, 8)
"""Widths of vectors that there are functions for, the widest first."""
MAX_BLOCKS, MAX_PARTS, MAX_PHASES = 16, 64, 8
_KINDS = {"uint8": 0, "uint16": 1, "float32": 2}
_X86 = ("x86_64", "amd64")
_ELF_HEADER = 64  # bytes
_INSTEAD = "use --engine openvino"
_REMEDY = (
    "install a C compiler (gcc 9, clang 10, or later) and then videosr again (in its folder: .uv/bin/uv sync "
    "--reinstall-package videosr, or pip install --force-reinstall --no-deps .)"
)


class Plane(Structure):
    """`struct plane`."""

    _fields_ = [("data", c_void_p), ("stride", c_ssize_t), ("rows", c_int32), ("columns", c_int32), ("kind", c_int32)]

    @staticmethod
    def of(array: Array) -> Plane:
        """A 2-D array whose samples lie side by side in a row; it has to outlive what is done with it."""
        if array.shape[1] > 1 and array.strides[1] != array.itemsize:
            raise ValueError(f"samples {array.strides[1]} bytes apart do not lie side by side")
        return Plane(array.ctypes.data, array.strides[0], *array.shape, _KINDS[array.dtype.name])


class Picture(Structure):
    """`struct picture`."""

    _fields_ = [("planes", Plane * 3), ("gain", c_float * 3), ("offset", c_float * 3), ("colours", c_int32)]


class Taps(Structure):
    """`struct taps`."""

    _fields_ = [
        ("high", c_int32),
        ("wide", c_int32),
        ("down", c_float * 5 * MAX_PHASES),
        ("across", c_float * 5 * MAX_PHASES),
    ]

    @staticmethod
    def of(down: NDArray[np.float64], across: NDArray[np.float64]) -> Taps:
        """A row of five taps a phase, each way (`color.upsampling_taps`)."""
        taps = Taps(len(down), len(across))
        for rows, given in ((taps.down, down), (taps.across, across)):
            for row, values in zip(rows, given, strict=False):
                row[:] = values.tolist()
        return taps


class Part(Structure):
    """`struct part`."""

    _fields_ = [("sample", c_int32), ("output", c_int32), ("row", c_int32), ("column", c_int32)]


class Target(Structure):
    """`struct target`."""

    _fields_ = [
        ("plane", Plane * 3),
        ("down", c_int32 * 3),
        ("across", c_int32 * 3),
        ("peak", c_float),
        ("planes", c_int32),
        ("parts", c_int32),
        ("part", Part * MAX_PARTS),
    ]


class Weights(Structure):
    """`struct network`."""

    _fields_ = [
        ("weights", POINTER(c_float)),
        ("scale", c_int32),
        ("channels", c_int32),
        ("blocks", c_int32),
        ("outputs", c_int32),
        ("colours", c_int32),
        ("base_colours", c_int32),
        ("limit", c_float),
    ]


class Kernels(NamedTuple):
    """The functions for one width of vectors. They let other Python threads run.

    Attributes:
        lanes: float32 numbers of a vector.
        source: a hash of what they were compiled from, by what, and how.
    """

    lanes: int
    source: str
    library: ctypes.CDLL

    def strip(
        self, weights: Weights, still: Picture, average: Picture, taps: Taps, target: Target, at: int, n: int
    ) -> bool:
        """`strip_N`: columns of the target from pixel `at` on; returns whether results are finite.

        Raises:
            EngineError: no memory.
        """
        other = still if average is still else average
        return self._call("strip", byref(weights), byref(still), byref(other), byref(taps), byref(target), at, n) > 0

    def enlarge(self, source: Plane, taps: Taps, gain: float, offset: float, peak: float, target: Plane) -> None:
        """`enlarge_N`: all of a plane.

        Raises:
            EngineError: no memory.
        """
        numbers = (c_float(gain), c_float(offset), c_float(peak))
        self._call("enlarge", byref(source), byref(taps), *numbers, byref(target), 0, target.rows)

    def average(
        self, pictures: list[Picture], block: tuple[int, int], inverse: float, out: Picture, rows: tuple[int, int]
    ) -> None:
        """`average_N`: rows of the smallest plane, and what belongs to them of the others.

        Args:
            pictures: newest first.
            block: rows and columns of the first plane that a sample of the others covers.
            inverse: 1 / threshold^2, in codes.
            out: float32 planes.
            rows: first, and behind the last.

        Raises:
            EngineError: no memory.
        """
        many = (Picture * len(pictures))(*pictures)
        self._call("average", many, len(pictures), block[1], block[0], c_float(inverse), byref(out), *rows)

    def _call(self, name: str, *arguments: Any) -> int:
        status: int = getattr(self.library, f"{name}_{self.lanes}")(*arguments)
        if status < 0:
            raise EngineError("not enough memory for the rows under way; close other programs")
        return status


def kernels() -> tuple[Kernels, ...]:
    """The kernels for this CPU, for the widest vectors in front.

    Raises:
        UsageError: there are none for it.
        EngineError: they were not compiled when videosr was installed, or from other sources than those here.
    """
    if platform.machine().lower() not in _X86 or sys.platform != "linux":
        raise UsageError(f"the native engine is for 64-bit x86 CPUs on Linux: {_INSTEAD}")
    library, source, most = _library()
    if most < min(LANES):
        raise UsageError(f"the native engine needs AVX2 and FMA, which this CPU lacks: {_INSTEAD}")
    return tuple(Kernels(lanes, source, library) for lanes in LANES if lanes <= most)


@cache
def _library() -> tuple[ctypes.CDLL, str, int]:
    path = FOLDER / "native.so"
    if not path.is_file():
        raise EngineError(f"the native engine's kernels were not compiled: {_REMEDY}, or {_INSTEAD}")
    try:
        _check_end(path)
        library = ctypes.CDLL(str(path))
        for name in ("videosr_source", "videosr_build"):
            getattr(library, name).restype = ctypes.c_char_p
        source, build = library.videosr_source().decode(), library.videosr_build().decode()
        most: int = library.videosr_lanes()
    except (OSError, AttributeError) as exc:
        raise EngineError(f"{path}: cannot be loaded: {exc}; {_REMEDY}, or {_INSTEAD}") from exc
    if source != source_hash():
        raise EngineError(f"{path}: made of other sources than those here: {_REMEDY}, or {_INSTEAD}")
    for lanes in LANES:
        for name in ("strip", "enlarge", "average"):
            getattr(library, f"{name}_{lanes}").restype = c_int
    return library, f"{source} {build}", most


def _check_end(path: Path) -> None:
    """Refuse a library that was cut short, as by a full disk: to load it would kill the process.

    Raises:
        OSError: it ends before its section headers do, which linkers put last.
    """
    with path.open("rb") as file:
        head = file.read(_ELF_HEADER)
    if len(head) == _ELF_HEADER and head.startswith(b"\x7fELF"):
        (start,) = struct.unpack_from("<Q", head, 40)
        size, count = struct.unpack_from("<HH", head, 58)
        if path.stat().st_size < start + size * count:
            raise OSError(f"it has {path.stat().st_size} bytes of {start + size * count}")


def source_hash() -> str:
    """Of the sources that lie here; `scripts/build_native.py` makes the same."""
    sources = sorted(path for path in FOLDER.iterdir() if path.suffix in (".c", ".h"))
    return hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:16]

"""Runs CUDA kernels without a GPU: a .cu file compiled by g++ against the headers in `cuda/`, which see.

    module = HostModule(folder / "planes.cu", {"BITS": 10})
    module.launch("to_rgb", (grid_x, grid_y), (32, 8), [source, target, width, height, 0.5], shared=4096)

Arrays are numpy's; kernels see them between addresses that nobody may touch, and nobody else's. Numbers become what the
kernel's parameter is. A kernel is what stands behind `extern "C" __global__ void`.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

HEADERS = Path(__file__).parent / "cuda"
COMPILER = shutil.which("g++") or ""
FLAGS = [
    *("-std=c++17", "-O2", "-fPIC", "-shared", "-march=native", "-U_FORTIFY_SOURCE", "-w"),
    *("-ffp-contract=off", "-fno-strict-aliasing"),  # nvcc contracts too; kernels that care say fmaf
    "-fno-gnu-unique",  # or what is `__shared__` in a template would be one variable of all libraries
    *("-fsanitize=alignment,bounds", "-fsanitize-undefined-trap-on-error"),
]
_KERNEL = re.compile(r'extern\s+"C"\s+__global__\s+void\s+(?:__launch_bounds__\s*\([^{;]*?\)\s+)?(\w+)\s*\(')
_DYNAMIC = re.compile(r"extern\s+__shared__\s+(?:__align__\s*\(\s*\w+\s*\)\s*)?([\w\s]+?)\s*(\w+)\s*\[\s*\]\s*;")
_PAGE = 4096 * 16  # the largest page of the machines this runs on
_POISON = 0xFF


class KernelError(Exception):
    """A kernel did what it may not."""


@functools.cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    """Where compiled kernels are kept, as long as this process lives."""
    return tempfile.TemporaryDirectory(prefix="videosr-kernels-", ignore_cleanup_errors=True)


def compiled(source: Path, defines: Mapping[str, object]) -> tuple[Path, list[str]]:
    """The shared library of a source file, and its kernels; made once a process."""
    text = source.read_text(encoding="utf-8")
    kernels = list(dict.fromkeys(_KERNEL.findall(text)))
    macros = "".join(f"#define {name} {value}\n" for name, value in defines.items())
    key = hashlib.sha256(f"{source}\n{macros}{text}".encode()).hexdigest()[:16]
    library = Path(_folder().name) / f"{source.stem}-{key}.so"
    if not library.exists():
        code = library.with_suffix(".cpp")
        body = _DYNAMIC.sub(lambda m: f"CUDA_HOST_DYNAMIC({m[1].strip()}, {m[2]});", text)
        ends = "".join(f"CUDA_HOST_KERNEL({kernel})\n" for kernel in kernels)
        code.write_text(f'#include <host.h>\n{macros}#line 1 "{source}"\n{body}\n{ends}', encoding="utf-8")
        command = [COMPILER, *FLAGS, f"-I{HEADERS}", f"-I{source.parent}", "-o", str(library), str(code)]
        run = subprocess.run(command, capture_output=True, text=True, check=False)
        if run.returncode:
            raise KernelError(f"{source.name} does not compile on the host:\n{run.stderr[:4000]}")
    return library, kernels


class HostModule:
    """The kernels of a source file.

    Args:
        source: a .cu file.
        defines: macros, as with -D.
        order: the order in which threads and blocks run, for launches that give none: 0 as they are numbered, warps in
            step; 1 backwards, each warp as far as it gets; others by lot.

    Raises:
        KernelError: it does not compile.
    """

    def __init__(self, source: Path | str, defines: Mapping[str, object] | None = None, *, order: int = 0) -> None:
        path, self.kernels = compiled(Path(source), defines or {})
        self.order = order
        self._library = ctypes.CDLL(str(path))
        self._library.cuda_host_alloc.restype = ctypes.c_void_p
        self._library.cuda_host_alloc.argtypes = [ctypes.c_size_t]
        self._library.cuda_host_free.argtypes = [ctypes.c_void_p, ctypes.c_size_t]

    def launch(
        self,
        name: str,
        grid: Sequence[int] | int,
        block: Sequence[int] | int,
        args: Sequence[object],
        shared: int = 0,
        order: int | None = None,
    ) -> None:
        """Run a kernel to its end; arrays that it writes are changed.

        Args:
            name: of the kernel.
            grid: blocks in x, y, z.
            block: threads in x, y, z.
            args: C-contiguous arrays of the type the parameter points to (or uint8, or one that it is a vector of) and
                writable if it is to write them, None for a null pointer; Python or numpy numbers; for a structure its
                bytes. The same array may be given twice.
            shared: bytes of dynamic shared memory.
            order: see the class.

        Raises:
            KernelError: it touched what is not its own, waited for what never comes, or takes other arguments.
        """
        if name not in self.kernels:
            raise KernelError(f"there is no kernel {name}, but {', '.join(self.kernels)}")
        signature = getattr(self._library, f"cuda_host_signature_{name}")
        signature.restype = ctypes.c_char_p
        words = signature().decode().split()
        if len(words) != len(args):
            raise KernelError(f"{name} takes {len(words)} arguments ({' '.join(words)}), not {len(args)}")
        buffers: dict[int, _Buffer] = {}
        cells = []
        try:
            for number, (word, value) in enumerate(zip(words, args, strict=True)):
                where = f"{name}: argument {number} ({word})"
                if isinstance(value, np.ndarray):
                    if id(value) not in buffers:
                        buffers[id(value)] = _Buffer(self._library, value, number)
                    cells.append(_pointer(where, word, value, buffers[id(value)].address))
                else:
                    cells.append(_scalar(where, word, value))
            pointers = (ctypes.c_void_p * max(len(cells), 1))(*[ctypes.addressof(cell) for cell in cells])
            shape = (ctypes.c_uint * 6)(*_three(grid), *_three(block))
            text = ctypes.create_string_buffer(400)
            chosen = self.order if order is None else order
            launch = getattr(self._library, f"cuda_host_launch_{name}")
            launch.restype = None
            launch(shape, ctypes.c_size_t(shared), pointers, ctypes.c_uint(chosen), text, ctypes.c_size_t(len(text)))
            if text.value:
                raise KernelError(_located(text.value.decode(), buffers.values()))
            for buffer in buffers.values():
                buffer.fetch(name)
        finally:
            for buffer in buffers.values():
                buffer.free()


class _Buffer:
    """A copy of an array that ends just where memory ends (16-byte aligned), poison before and behind it."""

    def __init__(self, library: ctypes.CDLL, array: np.ndarray, number: int) -> None:
        if not array.flags.c_contiguous:
            raise KernelError(f"argument {number}: not contiguous")
        self.array, self.number, self._library = array, number, library
        used = -(-array.nbytes // 16) * 16
        self._size = -(-max(used, 1) // _PAGE) * _PAGE
        self._start = library.cuda_host_alloc(self._size)
        if not self._start:
            raise MemoryError
        self.address = self._start + self._size - used
        ctypes.memset(self._start, _POISON, self._size)
        ctypes.memmove(self.address, array.ctypes.data, array.nbytes)

    def fetch(self, name: str) -> None:
        """Copy the result back.

        Raises:
            KernelError: something was written beside it, or to an array that is not to be written.
        """
        whole = np.frombuffer((ctypes.c_uint8 * self._size).from_address(self._start), np.uint8)
        first = self.address - self._start
        own, after = whole[first : first + self.array.nbytes], whole[first + self.array.nbytes :]
        if (whole[:first] != _POISON).any() or (after != _POISON).any():
            raise KernelError(f"{name}: writes beside argument {self.number}")
        bytes_before = self.array.reshape(-1).view(np.uint8)
        if self.array.flags.writeable:
            bytes_before[:] = own
        elif not np.array_equal(bytes_before, own):
            raise KernelError(f"{name}: writes to argument {self.number}, which is read-only")

    def distance(self, address: int) -> int:
        """Bytes from the array's start."""
        return address - self.address

    def free(self) -> None:
        self._library.cuda_host_free(self._start, self._size)


def _located(message: str, buffers) -> str:
    """The message, with the argument that an address is nearest to."""
    found = re.search(r"address (0x[0-9a-f]+)", message)
    if not found or not buffers:
        return message
    address = int(found[1], 16)
    near = min(buffers, key=lambda b: min(abs(b.distance(address)), abs(b.distance(address) - b.array.nbytes)))
    distance, size = near.distance(address), near.array.nbytes
    if not -_PAGE * 16 <= distance < size + _PAGE * 16:
        return message
    return f"{message}: byte {distance} of argument {near.number}, which has {size}"


def _three(shape: Sequence[int] | int) -> list[int]:
    values = [shape] if isinstance(shape, int) else list(shape)
    return [*values, 1, 1][:3]


_KINDS = {"f": "f", "i": "i", "u": "ub"}


def _pointer(where: str, word: str, array: np.ndarray, address: int) -> ctypes.c_void_p:
    """The argument for an array, whose type has to be what the kernel believes it to be."""
    kind, size = word[1:2], int(re.sub(r"\D", "", word) or 0)
    fits = array.dtype.kind in _KINDS.get(kind, "") and array.itemsize == size
    # A structure: __half, or a vector of what the array holds.
    if not word.startswith("p") or not (
        fits or array.dtype == np.uint8 or (kind == "s" and size % array.itemsize == 0)
    ):
        raise KernelError(f"{where}: an array of {array.dtype} does not fit")
    return ctypes.c_void_p(address)


def _scalar(where: str, word: str, value: object):
    """The argument for anything but an array."""
    if word.startswith("p"):
        if value is not None:
            raise KernelError(f"{where}: {value!r} is no array")
        return ctypes.c_void_p(None)
    kind, size = word[0], int(word[1:])
    if kind == "s":
        data = bytes(value) if isinstance(value, bytes | bytearray | np.void) else np.float16(value).tobytes()
        if len(data) != size:
            raise KernelError(f"{where}: {len(data)} bytes in place of {size}")
        return (ctypes.c_uint8 * size).from_buffer_copy(data)
    if kind != "f" and value != int(value):
        raise KernelError(f"{where}: {value!r} is not whole")
    made = np.array(value if kind == "f" else int(value), f"{kind}{size}")
    return (ctypes.c_uint8 * size).from_buffer_copy(made.tobytes())

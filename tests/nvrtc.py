"""CUDA kernels compiled by NVRTC, for GPUs that need not be there."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import videosr.engines

ARCHITECTURES = (75, 80, 86, 89, 90, 100, 120)
"""Compute capabilities that kernels are compiled for: Turing to Blackwell."""

_FACTS = re.compile(
    r"Function properties for (\w+)\s*\n"
    r"[^\n]*?(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads"
    r"\s*\n[^\n]*?Used (\d+) registers"
)


class Facts(NamedTuple):
    """Of a compiled kernel: bytes of its stack, bytes spilled, registers of a thread."""

    stack: int
    spilled: int
    registers: int


def compiled(
    source: str, defines: Mapping[str, object], architecture: int, options: Sequence[str] = ()
) -> dict[str, Facts]:
    """Compile a file of `videosr/engines/kernels` to machine code: its kernels."""
    nvrtc = pytest.importorskip("cuda.bindings.nvrtc", reason="cuda-bindings is not installed")  # torch brings it
    pathfinder = pytest.importorskip("cuda.pathfinder", reason="cuda-pathfinder is not installed")
    headers = pathfinder.find_nvidia_header_directory("cudart")
    if headers is None:
        pytest.skip("CUDA's headers are not installed")

    def call(name: str, *arguments: object) -> Any:
        error, *made = getattr(nvrtc, name)(*arguments)
        if error != nvrtc.nvrtcResult.NVRTC_SUCCESS:
            raise RuntimeError(f"{name}: {error}")
        return made[0] if made else None

    def text(name: str) -> bytes:
        held = b" " * call(f"{name}Size", program)
        call(name, program, held)
        return held

    path = Path(videosr.engines.__file__).parent / "kernels" / source
    program = call("nvrtcCreateProgram", path.read_bytes(), source.encode(), 0, [], [])
    macros = [f"-D{name}={value}" for name, value in defines.items()]
    given = ["--std=c++17", f"-I{headers}", f"--gpu-architecture=sm_{architecture}", "--ptxas-options=-v"]
    given += [*options, *macros]
    try:
        call("nvrtcCompileProgram", program, len(given), [option.encode() for option in given])
    except RuntimeError:
        pytest.fail(f"{source} for sm_{architecture}:\n{text('nvrtcGetProgramLog').decode()}", pytrace=False)
    assert len(text("nvrtcGetCUBIN")) > 1000
    log = text("nvrtcGetProgramLog").decode()
    return {name: Facts(int(stack), int(a) + int(b), int(n)) for name, stack, a, b, n in _FACTS.findall(log)}

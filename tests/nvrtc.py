"""CUDA kernels compiled by NVRTC, for GPUs that need not be there."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

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
    nvrtc = pytest.importorskip("cupy", reason="cupy is not installed", exc_type=ImportError).cuda.nvrtc
    pathfinder = pytest.importorskip("cuda.pathfinder", reason="cuda-pathfinder is not installed")
    headers = pathfinder.find_nvidia_header_directory("cudart")
    if headers is None:
        pytest.skip("CUDA's headers are not installed")
    path = Path(videosr.engines.__file__).parent / "kernels" / source
    program = nvrtc.createProgram(path.read_text(encoding="utf-8"), source, (), ())
    macros = [f"-D{name}={value}" for name, value in defines.items()]
    given = ["--std=c++17", f"-I{headers}", f"--gpu-architecture=sm_{architecture}", "--ptxas-options=-v"]
    try:
        nvrtc.compileProgram(program, (*given, *options, *macros))
    except nvrtc.NVRTCError:
        pytest.fail(f"{source} for sm_{architecture}:\n{nvrtc.getProgramLog(program)}", pytrace=False)
    assert len(nvrtc.getCUBIN(program)) > 1000
    log = nvrtc.getProgramLog(program)
    return {name: Facts(int(stack), int(a) + int(b), int(n)) for name, stack, a, b, n in _FACTS.findall(log)}

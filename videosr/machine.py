"""What results and speed depend on in a machine: its instruction sets, by which libraries choose code, and cores."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path
from typing import Any

import numpy as np

_VECTOR = re.compile(r"ssse3|sse4_[12]|avx\w*|amx_\w+|fma4?|f16c|asimd\w*|sve\w*|sme(?!p)\w*|fphp|bf16|i8mm")


def instruction_sets(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """The processor's vector instructions, as words: "x86_64 avx avx2 f16c fma ...".

    Sums of floating-point numbers depend on how many are added at once, so what one processor makes another may not.
    Where the system does not list them, the architecture alone.

    Args:
        cpuinfo: where Linux lists them.
    """
    words: set[str] = set()
    try:
        lines = cpuinfo.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        lines = []
    for line in lines:
        name, _, value = line.partition(":")
        if name.strip() in ("flags", "Features"):
            words = {word for word in value.split() if _VECTOR.fullmatch(word)}
            break
    return " ".join([platform.machine(), *sorted(words)])


def cores() -> int:
    """How many of the processor's cores this process may run on; all, where the system does not tell."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def numpy_build() -> str:
    """numpy's version and the instructions that it uses here, as words: "2.4.1 X86_V2 X86_V3"."""
    config: Any = np.show_config(mode="dicts")
    extensions = config["SIMD Extensions"]
    return " ".join([np.__version__, *extensions["baseline"], *extensions.get("found", ())])

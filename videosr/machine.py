"""What results and speed depend on in a machine: its instruction sets, by which libraries choose code, and cores."""

from __future__ import annotations

import math
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
    """How many threads this process can keep at work: of the cores that it may run on, and within its `quota`."""
    affinity = getattr(os, "sched_getaffinity", None)
    usable = len(affinity(0)) if affinity else os.cpu_count() or 1
    return max(1, math.ceil(min(usable, quota())))


def quota(own: Path = Path("/proc/self/cgroup"), groups: Path = Path("/sys/fs/cgroup")) -> float:
    """How many cores' time a container may use (Linux's control groups: `cpu.max`, `cpu.cfs_quota_us`); inf: no limit.

    More threads than that would wait for each other at every turn.

    Args:
        own: where Linux says which groups this process is in.
        groups: where they are mounted.
    """
    allowed = math.inf
    try:
        lines = own.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return allowed
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, name = rest.partition(":")
        if controllers and "cpu" not in controllers.split(","):
            continue
        mounted = groups / controllers  # of version 2, which has no controllers here, the folder itself
        group = mounted / name.lstrip("/")
        for folder in (group, *group.parents):
            if not folder.is_relative_to(mounted):
                break
            allowed = min(allowed, _share(folder))
    return allowed


def _share(group: Path) -> float:
    """What one control group allows, in cores."""
    try:
        if (limit := group / "cpu.max").exists():
            most, period = limit.read_text(encoding="ascii").split()
        else:
            most = (group / "cpu.cfs_quota_us").read_text(encoding="ascii")
            period = (group / "cpu.cfs_period_us").read_text(encoding="ascii")
        return int(most) / int(period) if int(most) > 0 else math.inf
    except (OSError, ValueError, ZeroDivisionError):  # "max", or there is no such file
        return math.inf


def numpy_build() -> str:
    """numpy's version and the instructions that it uses here, as words: "2.4.1 X86_V2 X86_V3"."""
    config: Any = np.show_config(mode="dicts")
    extensions = config["SIMD Extensions"]
    return " ".join([np.__version__, *extensions["baseline"], *extensions.get("found", ())])

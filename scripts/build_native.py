"""Imported by hatchling; not a command.

Compiles our own CPU kernels when videosr is installed, where a C compiler is there; runs without them otherwise.
Hatchling runs it (`[tool.hatch.build.targets.wheel.hooks.custom]`), for wheels and editable installs alike.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

FOLDER = Path("videosr") / "engines" / "kernels"
LIBRARY = "native.so"
COMPILERS = ("cc", "gcc", "clang")
FLAGS = ("-O3", "-fPIC", "-fno-math-errno", "-fno-trapping-math", "-fvisibility=default")
LEVELS = {8: ("-mavx2", "-mfma")}  # by lanes of a vector: what `dispatch.c` asks the CPU for, and no more
LEVELS[16] = (*LEVELS[8], *(f"-mavx512{part}" for part in ("f", "dq", "bw", "vl", "cd")))


class BuildHook(BuildHookInterface[Any]):
    """See the module."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile, and put the library beside its sources and into the wheel."""
        folder = Path(self.root) / FOLDER
        problem = compiled(folder)
        if problem:
            self.app.display_warning(f"videosr's own CPU kernels are left out: {problem}")
            return
        build_data["artifacts"].append(str(FOLDER / LIBRARY))
        build_data["pure_python"] = False
        place = sysconfig.get_platform().replace("-", "_").replace(".", "_")
        build_data["tag"] = f"py3-none-{place}"  # any Python calls it through ctypes


def compiled(folder: Path) -> str:
    """Compile the sources in a folder there; returns why that could not be done, or nothing."""
    if platform.machine().lower() not in ("x86_64", "amd64") or sys.platform != "linux":
        return f"they are written for 64-bit x86 on Linux, not {platform.machine()} on {sys.platform}"
    named = os.environ.get("CC")
    try:
        command = shlex.split(named) if named else [next((c for c in COMPILERS if shutil.which(c)), "")]
        if not command or not shutil.which(command[0]):
            return f"no C compiler ({named or ', '.join(COMPILERS)})"
        _compile(command, folder)
    except subprocess.CalledProcessError as exc:
        lines = exc.stderr.strip().splitlines() or [f"exit code {exc.returncode}"]
        return f"{command[0]}: {next((line for line in lines if 'error' in line), lines[-1])}"
    except (OSError, ValueError) as exc:  # a folder that cannot be written to, a CC that is no command
        return str(exc)
    return ""


def _compile(command: list[str], folder: Path) -> None:
    """Compile and link into the folder."""
    build = shlex.join([*command[1:], *FLAGS])
    facts = {"SOURCE": source_hash(folder), "BUILD": build.replace("\\", "/").replace('"', "'")}
    with tempfile.TemporaryDirectory() as scratch:

        def strips(lanes: int) -> str:
            made = str(Path(scratch) / f"strips_{lanes}.o")
            names = [f"-DLANES={lanes}", f"-DFUNCTION(name)=name##_{lanes}", *LEVELS[lanes]]
            _run([*command, *FLAGS, *names, "-c", str(folder / "strips.c"), "-o", made])
            return made

        with ThreadPoolExecutor() as workers:  # some seconds each
            objects = list(workers.map(strips, LEVELS))
        objects.append(str(Path(scratch) / "dispatch.o"))
        names = [f'-D{name}="{value}"' for name, value in facts.items()]
        _run([*command, *FLAGS, *names, "-c", str(folder / "dispatch.c"), "-o", objects[-1]])
        made = Path(scratch) / LIBRARY
        _run([*command, "-shared", *objects, "-o", str(made), "-lm"])
        with tempfile.TemporaryDirectory(dir=folder, prefix=f"{LIBRARY}.") as beside:
            kept = Path(beside) / LIBRARY
            shutil.copyfile(made, kept)
            kept.replace(folder / LIBRARY)  # whoever has the old one open goes on with it


def source_hash(folder: Path) -> str:
    """What the library says it was made of; `engines.native_library` makes the same."""
    sources = sorted(path for path in folder.iterdir() if path.suffix in (".c", ".h"))
    return hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:16]


def _run(command: list[str]) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True, errors="replace")

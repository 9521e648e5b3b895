"""What goes wrong around videosr: `python scripts/faults.py [--only NAME]...`.

Runs `videosr upscale` under faults: the disk is full at every stage of writing, the input vanishes or is cut while it
is read, or the disk cannot read some of it, the encoder refuses or fails, the process is killed, the clock jumps, the
output cannot be.
After each: the right exit code, one clear line, nothing new under the output's name, and no temporary file but the
journal of finished segments where a repeated command goes on from it and gives the bytes of an undisturbed run.
Prints a table; exit code 1 if anything was otherwise.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from common import run

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))
import badsector  # noqa: E402
from clips import make_clip  # noqa: E402

OPTIONS = ("--codec", "ffv1", "--threads", "1", "-q")
FRAMES = 300
"""Two segments."""
AT = 260
"""The frame at which faults strike that strike at a frame: one segment is finished."""
OLD = "what was there before"

PROLOGUE = """
import errno, os, shutil, signal, sys, time
from pathlib import Path
from videosr import cli, progress
source, output = Path(sys.argv[2]), Path(sys.argv[3])
frames = progress.Progress.frames

def at_frame(act, number={at}):
    def told(self, done):
        frames(self, done)
        if done == number:
            act()
    progress.Progress.frames = told

{fault}
cli.main()
"""
"""What is run in place of `python -m videosr`: the same, with a fault in wait."""

REMOVE = "at_frame(source.unlink)"
CUT = "at_frame(lambda: os.truncate(source, source.stat().st_size // 2), 10)"
REPLACE = "at_frame(lambda: source.write_bytes(bytes(1000)))"
WORKER = """
def kill_worker():
    children = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()
    workers = [c for c in children if b"distributed.pool" in Path(f"/proc/{c}/cmdline").read_bytes()]
    os.kill(int(workers[0]), signal.SIGKILL)
def told(self, done, before=iter([kill_worker])):
    frames(self, done)
    next(before, int)()
progress.Progress.frames = told
"""
KILL = "at_frame(lambda: os.kill(os.getpid(), signal.SIGKILL))"
END = "at_frame(lambda: os.kill(os.getpid(), signal.SIGTERM))"
CLOCK = """
now, jumps = time.time, iter(range(10**9))
time.time = lambda: now() + (-1) ** next(jumps) * 86400
"""
ENCODER = """
import av.error
from videosr.media import encoder
take = encoder.SegmentEncoder._take
def failing(self, picture):
    if picture is not None and picture.pts > 10_000:
        raise_from(self)
    take(self, picture)
def raise_from(self):
    class Broken:
        def encode(self, picture):
            raise av.error.ExternalError(-542398533, "Generic error in an external library")
    self._context = Broken()
encoder.SegmentEncoder._take = failing
"""


@dataclass(frozen=True, kw_only=True)
class Fault:
    """A fault and what must come of it.

    Attributes:
        name: for the table.
        code: exit code; negative for a signal.
        says: what the line must contain.
        inside: Python that is run in the process before videosr is.
        options: besides `OPTIONS`.
        limit: bytes a file may have.
        place: makes the folder of the output something else; gives the output.
        sector: bytes of the input, from and to, that the disk cannot read.
        resumes: a repeated command, undisturbed, gives the right bytes.
    """

    name: str
    code: int = 1
    says: str = ""
    inside: str = ""
    options: tuple[str, ...] = ()
    limit: int | None = None
    place: Callable[[Path], Path] | None = None
    sector: tuple[int, int] | None = None
    resumes: bool = True


class Bench:
    """A film, what becomes of it undisturbed, and runs under faults.

    Args:
        folder: for its files.
        film: what is other about it (`make_clip`).
    """

    def __init__(self, folder: Path, **film: Any) -> None:
        self.folder = folder
        common = {"frames": FRAMES, "codec": "ffv1", "options": {"level": "3"}, "noise": 9.0}
        self.film = make_clip(folder / "film.mkv", **{**common, "audio": [("flac", "eng")], **film})
        self.badsector = badsector.build(folder)
        self.right = folder / "right.mkv"
        done = self._run(self.film, self.right, Fault(name=""))
        assert done.returncode == 0, done.stderr

    def _run(self, source: Path, output: Path, fault: Fault) -> subprocess.CompletedProcess[str]:
        def limited() -> None:
            if fault.limit is not None:
                import resource

                resource.setrlimit(resource.RLIMIT_FSIZE, (fault.limit, fault.limit))

        start = ["-c", PROLOGUE.format(at=AT, fault=fault.inside)] if fault.inside else ["-m", "videosr"]
        command = [sys.executable, *start, "upscale", str(source), str(output), *OPTIONS, *fault.options]
        environment = dict(os.environ)
        if fault.sector is not None:
            assert self.badsector is not None
            environment |= badsector.environment(self.badsector, source, *fault.sector)
        return subprocess.run(command, capture_output=True, text=True, preexec_fn=limited, timeout=600, env=environment)

    def problems(self, fault: Fault) -> list[str]:
        """What was not as it should be."""
        found: list[str] = []
        with tempfile.TemporaryDirectory(dir=self.folder) as name:
            source, home = Path(name) / "in.mkv", Path(name) / "out"
            shutil.copyfile(self.film, source)
            home.mkdir()
            output = fault.place(home) if fault.place else home / "out.mkv"
            before = _content(output)
            done = self._run(source, output, fault)
            lines = [line for line in done.stderr.splitlines() if line]  # a shown ^C is ended by a new line
            if done.returncode != fault.code:
                found.append(f"exit code {done.returncode}, expected {fault.code}: {' / '.join(lines[-2:])}")
            wordless = fault.code <= 0
            if not wordless and (len(lines) != 1 or fault.says not in lines[0] or "internal error" in lines[0]):
                found.append(f"said {' / '.join(lines)!r}, expected one line with {fault.says!r}")
            if fault.code and _content(output) != before:
                found.append("something new has the output's name")
            if fault.code == 0 and _content(output) != self.right.read_bytes():
                found.append("other bytes than undisturbed")
            journal = output.with_name(f".{output.name}.videosr")
            if home.is_dir():
                own = {output, journal} | ({output.parent} if fault.place else set())
                left = [p.name for p in home.iterdir() if p not in own]
                if left:
                    found.append(f"left behind: {left}")
            if _is_dir(journal) and not any(journal.glob("*.seg")) and fault.code > 0:
                found.append("a journal without a segment was left")
            if fault.resumes:
                shutil.copyfile(self.film, source)
                again = self._run(source, output, Fault(name="", options=("--overwrite",)))
                if again.returncode or output.read_bytes() != self.right.read_bytes():
                    found.append(f"repeated: exit code {again.returncode}, or other bytes: {again.stderr.strip()}")
                elif _is_dir(journal):
                    found.append("the journal is still there")
        return found

    def sizes(self) -> Iterator[int]:
        """Limits on the size of files at which writing fails at every stage: the first byte to the last."""
        size = self.right.stat().st_size
        yield from (1, 100, 1000, 5000)
        yield from (size * part // 16 for part in range(1, 16))
        yield size - 1


def sectors(bench: Bench) -> Iterator[Fault]:
    """Sectors of the input that cannot be read, between those that its fingerprint reads."""
    size, sample = bench.film.stat().st_size, 1 << 16
    for name, n in (("beginning", 1), ("middle", 32), ("end", 62)):
        first = (size - sample) * n // 63 + sample + 500
        yield Fault(name=f"a sector of the input cannot be read, near its {name}", sector=(first, first + 512),
                    says=f"cannot be read at byte {first}: Input/output error")  # fmt: skip


LARGE = {"frames": 80, "width": 160, "height": 120, "pix_fmt": "yuv444p10le", "noise": 20.0}
"""A film of more than the 4 MiB that its fingerprint reads."""


def _content(path: Path) -> bytes | None:
    try:
        if not path.is_file():
            return None  # reading a FIFO would wait
        return path.read_bytes()
    except OSError:  # none, or nothing that can be one
        return None


def _is_dir(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:
        return False


@contextmanager
def small_disk(folder: Path, options: str) -> Iterator[bool]:
    """A disk in memory at a folder, by options of its mount, as far as one may make such; says whether it is there."""
    try:
        made = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], capture_output=True)
    except OSError:
        yield False
        return
    try:
        yield made.returncode == 0
    finally:
        if made.returncode == 0:
            subprocess.run(["umount", str(folder)], check=True)


def disks(bench: Bench, size: int) -> list[str] | None:
    """The problems on a disk of that size; None where none can be made. What is kept, goes on when there is space."""
    found: list[str] = []
    with tempfile.TemporaryDirectory(dir=bench.folder) as name, small_disk(Path(name), f"size={size}") as there:
        if not there:
            return None
        output = Path(name) / "out.mkv"
        done = bench._run(bench.film, output, Fault(name=""))
        lines = done.stderr.splitlines()
        if done.returncode != 1 or not lines or "free some space" not in lines[-1]:
            found.append(f"exit code {done.returncode}: {' / '.join(lines)}")
        if output.exists():
            found.append("there is an output")
        left = [p.name for p in Path(name).iterdir()]
        if left and left != [".out.mkv.videosr"]:
            found.append(f"left behind: {left}")
        subprocess.run(["mount", "-o", "remount,size=1g", name], check=True)
        again = bench._run(bench.film, output, Fault(name=""))
        if again.returncode or output.read_bytes() != bench.right.read_bytes():
            found.append(f"with space: exit code {again.returncode}, or other bytes: {again.stderr.strip()}")
    return found


def picture_disks(bench: Bench, size: int) -> list[str] | None:
    """The problems with numbered pictures on a disk of that size; None where none can be made."""

    def run(folder: Path) -> subprocess.CompletedProcess[str]:
        command = [
            sys.executable,
            "-m",
            "videosr",
            "upscale",
            str(bench.film),
            str(folder / "%d.png"),
            "--frames",
            "60",
        ]
        return subprocess.run([*command, "--threads", "1", "-q"], capture_output=True, text=True, timeout=600)

    def pictures(folder: Path) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in folder.glob("*.png")}

    found: list[str] = []
    with (
        tempfile.TemporaryDirectory(dir=bench.folder) as straight,
        tempfile.TemporaryDirectory(dir=bench.folder) as name,
        small_disk(Path(name), f"size={size}") as there,
    ):
        if not there:
            return None
        done = run(Path(name))
        if done.returncode != 1 or len(done.stderr.splitlines()) != 1 or "free some space" not in done.stderr:
            found.append(f"exit code {done.returncode}: {done.stderr.strip()}")
        run(Path(straight))
        right = pictures(Path(straight))
        if not pictures(Path(name)).items() <= right.items():
            found.append("a picture is not whole")
        subprocess.run(["mount", "-o", "remount,size=1g", name], check=True)
        again = run(Path(name))
        if again.returncode or pictures(Path(name)) != right or len(list(Path(name).iterdir())) != len(right):
            found.append(f"with space: exit code {again.returncode}, or other files: {again.stderr.strip()}")
    return found


def read_only(bench: Bench) -> list[str] | None:
    """The problems with an output on a disk that may only be read; None where none can be made."""
    with tempfile.TemporaryDirectory(dir=bench.folder) as name, small_disk(Path(name), "ro") as there:
        if not there:
            return None
        done = bench._run(bench.film, Path(name) / "out.mkv", Fault(name=""))
        lines = done.stderr.splitlines()
        if done.returncode != 1 or len(lines) != 1 or "Read-only file system; choose a folder" not in lines[0]:
            return [f"exit code {done.returncode}: {' / '.join(lines)}"]
        return []


def _fifo(home: Path) -> Path:
    os.mkfifo(home / "out.mkv")
    return home / "out.mkv"


def _old(home: Path) -> Path:
    (home / "out.mkv").write_text(OLD, encoding="utf-8")
    return home / "out.mkv"


def faults() -> Iterator[Fault]:
    """All but full disks."""
    yield Fault(name="input removed while it is read", inside=REMOVE, says="No such file")
    yield Fault(name="input cut short while it is read", inside=CUT, says="in.mkv")
    yield Fault(name="input replaced while it is read", inside=REPLACE, says="in.mkv")
    yield Fault(name="killed", inside=KILL, code=-signal.SIGKILL)
    yield Fault(name="one of two workers is killed", inside=WORKER, options=("--jobs", "2"), code=0)
    yield Fault(name="ended", inside=END, code=130, says="interrupted")
    yield Fault(name="the clock jumps by days", inside=CLOCK, code=0)
    yield Fault(name="the encoder fails in the middle", inside=ENCODER, says="encoding failed")
    yield Fault(name="the encoder has no such option", options=("-x", "nonsense=1"), code=2, says="no such option")
    yield Fault(
        name="the encoder refuses a value",
        code=2,
        says="refuses",
        options=("--codec", "libx264", "--pix-fmt", "yuv444p", "-x", "profile=baseline"),
    )
    yield Fault(name="no such encoder", options=("--codec", "nonsense"), code=2, says="no such encoder")
    yield Fault(name="output is a FIFO", place=_fifo, code=2, says="is not a file", resumes=False)
    yield Fault(name="output is a folder", place=lambda home: home, code=2, says="", resumes=False)
    yield Fault(name="output is a device", place=lambda _: Path("/dev/full"), code=2, says="", resumes=False)
    yield Fault(name="output's folder is not there", place=lambda home: home / "no" / "out.mkv", resumes=False,
                says="there is no such folder")  # fmt: skip
    yield Fault(name="output's name is too long", place=lambda home: home / f"{'x' * 300}.mkv", says="name too long",
                resumes=False)  # fmt: skip
    yield Fault(name="an output is there", place=_old, code=2, says="exists")
    yield Fault(name="an output is there, to be replaced, and the encoder fails", place=_old, inside=ENCODER,
                options=("--overwrite",), says="encoding failed")  # fmt: skip
    yield Fault(name="output where nothing may be written", place=lambda _: Path("/proc/out.mkv"), resumes=False,
                says="/proc/out.mkv")  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", help="faults with this in their name")
    args = parser.parse_args()
    count = failed = 0
    print("| fault | outcome |\n|---|---|", flush=True)

    def row(name: str, found: list[str]) -> None:
        nonlocal count, failed
        count, failed = count + 1, failed + bool(found)
        print(f"| {name} | {'FAILED: ' + '; '.join(found) if found else 'ok'} |", flush=True)

    def chosen(name: str) -> bool:
        return not args.only or any(part in name for part in args.only)

    with tempfile.TemporaryDirectory(prefix="videosr-faults-") as folder:
        bench = Bench(Path(folder))
        for fault in faults():
            if chosen(fault.name):
                row(fault.name, bench.problems(fault))
        if chosen("output on a read-only mount") and (found := read_only(bench)) is not None:
            row("output on a read-only mount", found)
        large = Bench(Path(tempfile.mkdtemp(dir=folder)), **LARGE)
        for fault in sectors(large) if large.badsector else ():
            if chosen(fault.name):
                row(fault.name, large.problems(fault))
        for size in bench.sizes():
            name = f"files of more than {size} bytes cannot be written"
            if chosen(name):
                row(name, bench.problems(Fault(name=name, limit=size, says="cannot be written")))
        for size in bench.sizes():
            name = f"disk of {max(size // 4096, 1) * 4096} bytes"
            wanted = chosen(name) and size >= 4096
            if wanted and (found := disks(bench, max(size // 4096, 1) * 4096)) is not None:
                row(name, found)
        for size in (1, 10, 40, 70):
            name = f"numbered pictures on a disk of {size * 4096} bytes"
            if chosen(name) and (found := picture_disks(bench, size * 4096)) is not None:
                row(name, found)
    if not count:
        parser.error(f"no fault has {' or '.join(args.only)} in its name")
    print(f"\n{count} faults, {failed} failures")
    return 1 if failed else 0


if __name__ == "__main__":
    run(main)

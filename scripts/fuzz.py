"""Spoiled files against videosr: `python scripts/fuzz.py --seed 1 --count 1000 [--kind mkv]...`.

Every input is made from a whole file by seeded mistakes (`fuzz_seeds`) and goes through the calls that the commands
make (`fuzz_targets`), many of them in one child process. A finding is an input on which the child ends (a crash of the
interpreter), takes more than `--seconds` of processor time (or, where it waits or the machine is busy, ten times that),
more memory than `--memory`, raises what is no error of videosr, leaves files behind, or says that all is well when what
it made is not sound. `--only KIND:INDEX` repeats one input, with the traceback. Prints a table of counts; exit code 1
if anything was found.
"""

from __future__ import annotations

import argparse
import os
import resource
import select
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import fuzz_seeds as seeds
from common import count, positive, run

PER_CHILD = 200
POLL = 0.05
PAGE, TICKS = (os.sysconf(name) for name in ("SC_PAGE_SIZE", "SC_CLK_TCK"))
PATIENCE = 10
"""Seconds by the clock for one of processor time: others may be at work on the machine."""


def child(kind: str, seed: int, first: int, last: int, folder: Path, debug: bool) -> None:
    """Work through inputs and print, a line each, when one begins and how it ended."""
    os.environ["XDG_CACHE_HOME"] = str(folder / "cache")
    import fuzz_targets as targets

    targets.share_networks()
    answers, sys.stdout = sys.stdout, sys.stderr
    files = sorted(p for p in (folder / kind).iterdir() if p.is_file() and p.name != seeds.MARK)
    files += sorted((folder / kind / "segments").glob("*.seg"))
    if kind == "journal":
        files = [p for p in files if p.suffix in (".json", ".seg")]
    for index in range(first, last):
        print(f"begin {index}", file=answers, flush=True)
        with tempfile.TemporaryDirectory(dir=folder) as work:
            try:
                word = targets.run(kind, seed, index, files, Path(work))
            except targets.FindingError as exc:
                word = f"FOUND {exc}"
            except Exception as exc:
                if debug:
                    traceback.print_exc()
                word = f"FOUND {type(exc).__name__}: {' '.join(str(exc).split())[:200]}"
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
        print(f"end {index} {peak} {word}", file=answers, flush=True)


class Child:
    """A child process and the input it is at."""

    def __init__(self, args: argparse.Namespace, kind: str, first: int, last: int, folder: Path) -> None:
        command = [sys.executable, __file__, "--child", str(folder), "--seed", str(args.seed), "--kind", kind]
        command += ["--range", str(first), str(last), *(["--debug"] if args.debug else [])]
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  # lives as long as the process
        stderr = None if args.debug else self._errors
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, env=environment)
        self._args = args
        self._first, self._last = first, last
        self.at = first

    def outcomes(self) -> Iterator[str]:
        """How each input ended, the first being `at`; ends early, with the input in question, if the child must."""
        stdout = self._process.stdout
        assert stdout is not None
        first = 300  # it has to import everything, torch among it
        deadline, spent = time.monotonic() + PATIENCE * first, float(first)
        pending = b""
        while self.at < self._last:
            ready, _, _ = select.select([stdout], [], [], POLL)
            data = os.read(stdout.fileno(), 1 << 16) if ready else b""
            *lines, pending = (pending + data).split(b"\n")
            for line in lines:
                word, _, rest = line.decode().partition(" ")
                allowed = self._args.seconds + (first if self.at == self._first else 0)
                deadline, spent = time.monotonic() + PATIENCE * allowed, self._spent() + allowed
                if word == "end":
                    _, peak, outcome = rest.split(" ", 2)
                    self.at += 1
                    if int(peak) > self._args.memory:
                        self._kill()
                        yield f"FOUND took {peak} MiB of memory"
                        return
                    yield outcome
            if ready and not data:
                code = self._process.wait()
                self._errors.seek(0)
                said = self._errors.read().decode(errors="replace").strip().splitlines()[-1:]
                self.at += 1
                yield f"FOUND the interpreter ended: exit code {code} {' '.join(said)}"
                return
            if time.monotonic() > deadline or self._spent() > spent:
                self._kill()
                self.at += 1
                yield f"FOUND not done after {self._args.seconds:g} s"
                return
            if self._rss() > self._args.memory:
                self._kill()
                self.at += 1
                yield f"FOUND takes more than {self._args.memory} MiB of memory"
                return
        self._process.wait()

    def _rss(self) -> int:
        """MiB in use, 0 where the system does not say."""
        try:
            return int(Path(f"/proc/{self._process.pid}/statm").read_text().split()[1]) * PAGE >> 20
        except (OSError, IndexError):
            return 0

    def _spent(self) -> float:
        """Seconds of processor time used, 0 where the system does not say."""
        try:
            fields = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
            return (int(fields[11]) + int(fields[12])) / TICKS  # utime and stime, proc_pid_stat(5)
        except (OSError, IndexError):
            return 0

    def _kill(self) -> None:
        self._process.kill()
        self._process.wait()


def fuzz(args: argparse.Namespace, kind: str, first: int, last: int, folder: Path) -> Counter[str]:
    """Counts of outcomes of a kind's inputs; findings are printed."""
    seeds.make(kind, folder / kind)
    counts: Counter[str] = Counter()
    at = first
    while at < last:
        process = Child(args, kind, at, min(at + PER_CHILD, last), folder)
        for outcome in process.outcomes():
            word = "FOUND" if outcome.startswith("FOUND") else outcome
            counts[word] += 1
            if word == "FOUND":
                print(f"  {kind}:{process.at - 1}  {outcome.removeprefix('FOUND ')}", flush=True)
        at = process.at
    return counts


def one(text: str) -> tuple[str, int]:
    """KIND:INDEX."""
    kind, _, index = text.partition(":")
    if kind not in seeds.KINDS or not index.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not KIND:INDEX, with a kind of {', '.join(seeds.KINDS)}")
    return kind, int(index)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=count, default=1000, help="inputs, spread over the kinds")
    parser.add_argument("--first", type=int, default=0, help="number of each kind's first input, to go on with a run")
    parser.add_argument("--kind", action="append", choices=seeds.KINDS, help="only this; may be repeated")
    parser.add_argument("--only", type=one, metavar="KIND:INDEX", help="this one input, with all that is said")
    parser.add_argument("--seconds", type=positive, default=30, help="most processor time of an input")
    parser.add_argument("--memory", type=int, default=2048, metavar="MIB", help="most memory of a child")
    parser.add_argument("--debug", action="store_true", help="show tracebacks")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--range", type=int, nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        child(args.kind[0], args.seed, *args.range, args.child, args.debug)
        return 0
    kinds = args.kind or list(seeds.KINDS)
    share = -(-args.count // len(kinds))
    ranges = {kind: (args.first, args.first + share) for kind in kinds}
    if args.only:
        kind, index = args.only
        ranges, args.debug = {kind: (index, index + 1)}, True
    total: Counter[str] = Counter()
    print("| kind | inputs | done | refused | found | inputs/s |\n|---|---|---|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory(prefix="videosr-fuzz-") as folder:
        for kind, (first, last) in ranges.items():
            begun = time.monotonic()
            counts = fuzz(args, kind, first, last, Path(folder))
            total += counts
            speed = counts.total() / (time.monotonic() - begun)
            row = (kind, counts.total(), counts["done"], counts["refused"], counts["FOUND"], f"{speed:.1f}")
            print(f"| {' | '.join(map(str, row))} |", flush=True)
    print(f"\n{total.total()} inputs, seed {args.seed}: {total['FOUND']} findings")
    return 1 if total["FOUND"] else 0


if __name__ == "__main__":
    run(main)

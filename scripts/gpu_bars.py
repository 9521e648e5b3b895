"""Every bar of the GPU path, measured in one call where there is a GPU; prints Markdown.

    python scripts/gpu_bars.py [--clip film-1080p.mp4] [--minutes 9] [--json FILE]

Each part runs in a process of its own with a time limit, since a fault in CUDA ends all that a process can do there;
each figure is printed, and written to FILE, as soon as it is there. What cannot be measured says why: of TensorRT,
PyAV, OpenVINO, ONNX Runtime and torch each may be missing. Without a clip one is made. Ratios are of one run, figures
are medians of rounds. Exit code 1 if a bar is missed, or none could be measured.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # nothing has to be installed
sys.path.insert(0, str(Path(__file__).resolve().parent))

from common import count, existing, positive, run, size
from gpu_parts import (
    CODES,
    COMPILED,
    COPIES,
    FILM,
    MEMORY,
    PARTS,
    PSNR,
    REALTIME,
    STREAM,
    WRONG,
    Case,
    Figure,
    Measured,
    main_figure,
    run_part,
)

from videosr.engines import CUDA_ENGINES, Engine, load
from videosr.engines.nvidia import NoDriverError, gpus

PART_SECONDS = 240
FIGURE = "FIGURE "


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar.

    Attributes:
        name: what is measured.
        aim: lowest value, or the highest where `below`.
        figure: that was measured for it.
        below: whether smaller is better.
    """

    name: str
    aim: float
    figure: Figure
    below: bool = False

    @property
    def met(self) -> bool | None:
        """Whether it is met; None: not measured."""
        value = self.figure.value
        if value is None:
            return None
        return value <= self.aim if self.below else value >= self.aim

    def __str__(self) -> str:
        sign, verdict = (
            ("<=" if self.below else ">="),
            {True: "met", False: "**MISSED**", None: "not measured"}[self.met],
        )
        value = "-" if self.figure.value is None else f"{self.figure.value:,.5g} {self.figure.unit}"
        note = f"{self.figure.name}: {self.figure.note}".replace("|", "/")
        return f"| {self.name} | {value} | {sign} {self.aim:,.5g} | {verdict} | {note} |"


def bars_of(figures: Mapping[str, Figure]) -> list[Bar]:
    """The bars, by the figures of the fastest engine."""

    def best(prefix: str) -> Figure:
        mine = [figure for name, figure in figures.items() if name.startswith(prefix)]
        there = [figure for figure in mine if figure.value is not None]
        if there:
            return max(there, key=lambda figure: figure.value or 0)
        reasons = "; ".join(f"{f.name.removeprefix(prefix)}: {f.note}" for f in mine)
        return Figure(prefix.strip(), None, "", reasons or "not run")

    def of(name: str) -> Figure:
        return figures.get(name, Figure(name, None, "", "not run"))

    fastest, compiled = best(REALTIME), of(COMPILED)
    engine = fastest.name.removeprefix(REALTIME)
    ratio = Figure(f"{fastest.name} to {COMPILED}", None, "x", compiled.note)
    if fastest.value and compiled.value:
        ratio = Figure(ratio.name, fastest.value / compiled.value, "x", f"that: {compiled.value:,.0f} frames/s")
    return [
        Bar("kernels as color.py, temporal.py, scenes.py", 0, of(WRONG), below=True),
        Bar("realtime, engine only", 2000, fastest),
        Bar("realtime, against torch.compile", 5, ratio),
        Bar("stream, engine only", 400, best(STREAM)),
        Bar("memory", 600, of(MEMORY + engine), below=True),
        Bar("within one 8-bit code", 99.9, of(CODES + engine)),
        Bar("PSNR", 55, of(PSNR + engine)),
        Bar("file to null sink", 240, of(FILM + engine)),
        Bar("file to null sink, copied between host and GPU", 1, of(COPIES + engine), below=True),
    ]


def parts(engines: Sequence[str]) -> list[tuple[str, str]]:
    """(part, engine) in the order in which they are run: what is most wanted first."""
    return [
        *(("engine", name) for name in engines),
        ("compiled", ""),
        ("kernels", ""),
        *(("stream", name) for name in engines),
        *(("fine", name) for name in engines),
    ]


def apart(command: Sequence[str], part: str, engine: str, limit: float) -> Measured:
    """The figures of a part that runs in a process of its own, as they come."""
    name, unit = main_figure(part, engine)
    if limit < 5:
        yield Figure(name, None, unit, "no time left")
        return
    own = [*command, "--part", part, *(["--engine", engine] if engine else [])]
    process = subprocess.Popen(own, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
    watch = threading.Timer(limit, process.kill)
    watch.start()
    said, given = "", False
    try:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith(FIGURE):
                figure = Figure(**json.loads(line.removeprefix(FIGURE)))
                given |= figure.name == name
                yield figure
            elif line.strip():
                said = line.strip()
        code = process.wait()
    finally:
        watch.cancel()
        process.kill()
    if code:
        title = f"{name}, after that" if given else name
        yield Figure(title, None, unit, f"ended with {code} ({limit:.0f} s were given): {said[:300]}")


def options_of(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clip", type=existing, help="an H.264 film of 1920x1080; default: one that is made")
    parser.add_argument("--engine", choices=CUDA_ENGINES, action="append", help="default: each; may be repeated")
    parser.add_argument("--size", type=size, default="1920x1080", help="of the input")
    parser.add_argument("--count", type=count, default=300, help="frames of a round")
    parser.add_argument(
        "--minutes", type=positive, default=9.0, help="after which no part is begun, and what runs is ended"
    )
    parser.add_argument("--json", type=Path, help="write the figures there too, as they come")
    parser.add_argument("--part", choices=PARTS, help="run this part alone, in this process")
    parser.add_argument("--folder", type=Path, help="where to make what a part needs; default: one that is deleted")
    return parser.parse_args(arguments)


def main(
    arguments: list[str] | None = None, make: Callable[[Path, str], Engine] | None = None, device: str = "cuda"
) -> int:
    """Run; 1 if a bar is missed or none was measured. With `make` all parts run in this process."""
    options = options_of(arguments)
    columns, rows = options.size
    engines = options.engine or list(CUDA_ENGINES)
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as made:
        folder = options.folder or Path(made)
        loader = make or (lambda path, name: load(path, name, device="cuda"))
        case = Case((rows, columns), options.count, folder, options.clip, device, loader)
        if options.part:
            for figure in run_part(case, options.part, options.engine[0] if options.engine else ""):
                print(FIGURE + json.dumps(asdict(figure)), flush=True)
            return 0
        try:
            machine = str(gpus()[0])
        except NoDriverError as exc:
            if make is None:
                print(f"nothing can be measured: {exc}")
                return 1
            machine = "a stand-in for a GPU"
        print(f"# {machine}, {columns}x{rows}\n\n| figure | value | |\n|---|---|---|", flush=True)
        figures: dict[str, Figure] = {}
        given = [f"--size={columns}x{rows}", f"--count={options.count}", f"--folder={folder}"]
        given += [f"--clip={options.clip}"] if options.clip else []
        command = [sys.executable, "-u", __file__, *given]
        for part, engine in parts(engines):
            left = 60 * options.minutes - (time.monotonic() - begun)
            found = run_part(case, part, engine) if make else apart(command, part, engine, min(PART_SECONDS, left))
            for figure in found:
                figures[figure.name] = figure
                print(figure, flush=True)
                if options.json:
                    write(options.json, machine, figures)
    bars = bars_of(figures)
    print("\n| bar | measured | aim | | how |\n|---|---|---|---|---|")
    print("\n".join(map(str, bars)))
    return 1 if any(bar.met is False for bar in bars) or all(bar.met is None for bar in bars) else 0


def write(path: Path, machine: str, figures: dict[str, Figure]) -> None:
    """All there is so far."""
    bars = [
        asdict(bar.figure) | {"name": bar.name, "figure": bar.figure.name, "aim": bar.aim, "met": bar.met}
        for bar in bars_of(figures)
    ]
    values = {"machine": machine, "figures": [asdict(figure) for figure in figures.values()], "bars": bars}
    path.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    run(main)

"""What a batch bears: a thousand files with bad ones among them, and being killed again and again.

Usage: python scripts/batch_bar.py many [CLIP ...] [--files 1000] [--bad 50] [--jobs 1]
       python scripts/batch_bar.py kills [CLIP ...] [--kills 100] [--clips 6] [--frames 600] [--jobs 1] [--seed 1]

`many` prints what was made, what failed and why, and the memory of all processes of the batch in each tenth of the run.
Exit code 1 if a good file is missing or differs from what `videosr upscale` makes, a bad one was not told of, or memory
grew by more than a tenth after the first fifth.

`kills` ends the batch with SIGKILL at random moments, by turns its first process alone and all of them at once, until
that has happened so often; when a batch is done before, the next one begins. Prints the frames that were told as done
and were not kept, which may be a segment for each file under way. Exit code 1 if an output differs from that of a batch
left in peace, a kill cost more than that, a file is under its final name that is not complete, looked for after every
kill, or anything but the outputs is left at the end.

The files are the clips that are named, which `many` copies by turns; without any, they are made on the spot.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import av
import numpy as np
from common import count, existing, run

from videosr.batch.ledger import FOLDER, read
from videosr.errors import InputError
from videosr.media.segments import Segment, SegmentRule

COMMAND = (sys.executable, "-m", "videosr")
FAST = ("--codec", "libx264", "--preset", "ultrafast", "--temporal", "off")


def make_clip(path: Path, frames: int, seed: int, width: int = 96, height: int = 64) -> Path:
    """Moving texture with a cut every 70 frames."""
    rng = np.random.default_rng(seed)
    with av.open(path, "w") as out:
        stream = out.add_stream("libx264", rate=25, options={"preset": "ultrafast", "crf": "28"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for n in range(frames):
            if n % 70 == 0:
                texture = rng.integers(40, 216, (height // 4 + 32, width // 4 + 32), np.uint8).repeat(4, 0).repeat(4, 1)
            x, y = n % 70, n % 50
            luma = np.ascontiguousarray(texture[y : y + height, x : x + width])
            chroma = np.full((height // 2, width), 128, np.uint8)
            planes = np.concatenate([luma.reshape(-1), chroma.reshape(-1)]).reshape(height * 3 // 2, width)
            out.mux(stream.encode(av.VideoFrame.from_ndarray(planes, format="yuv420p")))
        out.mux(stream.encode(None))
    return path


def make_bad(path: Path, good: bytes, n: int) -> None:
    """One of six kinds of files that are no film."""
    kinds = (
        b"",
        b"This is no film.\n" * 40,
        np.random.default_rng(n).bytes(20_000),
        good[:300],
        b"\x1a\x45\xdf\xa3" + bytes(5_000),
        good[:40] + np.random.default_rng(n).bytes(3_000),
    )
    path.write_bytes(kinds[n % len(kinds)])


# -- many files -------------------------------------------------------------------------------------------------------


def memory(first: int) -> float:
    """MiB resident in a process and its children (Linux)."""
    pages = 0
    children = Path(f"/proc/{first}/task/{first}/children")
    try:
        for pid in [first, *map(int, children.read_text().split())]:
            pages += int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except OSError:
        return 0.0  # one has just ended
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def many(options: argparse.Namespace, folder: Path) -> bool:
    tree, out = folder / "in", folder / "out"
    patterns = options.clip or [make_clip(folder / f"clip{n}.mp4", 8 + n, n) for n in range(5)]
    kinds = len(patterns)
    wanted = []
    for n, clip in enumerate(patterns):
        subprocess.run((*COMMAND, "upscale", clip, folder / f"clip{n}.mkv", *FAST, "-q"), check=True)
        wanted.append((folder / f"clip{n}.mkv").read_bytes())
    bad = set(random.Random(options.seed).sample(range(options.files), options.bad))
    for n in range(options.files):
        path = tree / f"shelf{n // 100:02d}" / f"film{n:04d}{patterns[n % kinds].suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        data = patterns[n % kinds].read_bytes()
        make_bad(path, data, n) if n in bad else path.write_bytes(data)
    command = (*COMMAND, "batch", tree, "-o", out, *FAST, "--jobs", str(options.jobs), "--json")
    begun = time.monotonic()
    samples: list[float] = []
    ended = threading.Event()
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:

        def watch() -> None:
            while not ended.wait(0.25):
                samples.append(memory(process.pid))

        threading.Thread(target=watch, daemon=True).start()
        assert process.stdout is not None
        events = [json.loads(line) for line in process.stdout]
        ended.set()
    seconds = time.monotonic() - begun
    errors = [e for e in events if e["event"] == "error"]
    outputs = {n: out / f"shelf{n // 100:02d}" / f"film{n:04d}.mkv" for n in range(options.files)}
    good = sum(n not in bad and path.exists() and path.read_bytes() == wanted[n % kinds] for n, path in outputs.items())
    told = {Path(e["file"]).stem for e in errors} == {f"film{n:04d}" for n in bad}
    unwanted = sum(outputs[n].exists() for n in bad)
    tenths = [samples[len(samples) * n // 10 : len(samples) * (n + 1) // 10] for n in range(10)]
    peaks = [max(part) for part in tenths] if all(tenths) else []
    flat = bool(peaks) and max(peaks[2:]) <= 1.1 * max(peaks[:2])
    print(f"{options.files} files, {options.bad} of them bad, {options.jobs} at once: {seconds:.0f} s")
    print(f"  made and equal to upscale's: {good}; told of as failed: {len(errors)}; exit code {process.returncode}")
    for reason, number in Counter(e["message"].partition(": ")[2] for e in errors).most_common():
        print(f"    {number:4} {reason}")
    verdict = "" if flat else "  GREW" if peaks else "NOT MEASURED, it was over too soon: give more --files"
    print(f"  peak MiB in each tenth: {' '.join(f'{peak:.0f}' for peak in peaks)}{verdict}")
    right = good == options.files - options.bad and told and not unwanted and process.returncode == 1
    return right and flat


# -- kills ------------------------------------------------------------------------------------------------------------


def kept(out: Path, lengths: dict[str, int]) -> int:
    """Frames that are finished in an output folder: whole files and segments."""
    known = read(out)
    frames = 0
    for name, length in lengths.items():
        entry, output = known.get(name), out / name
        if output.exists() and entry is not None:
            frames += length
            continue
        for path in sorted(output.with_name(f".{output.name}.videosr").glob("*.seg")):
            try:
                frames += Segment(path).frames
            except InputError:
                break
    return frames


def run_and_kill(
    command: tuple[Any, ...], moment: float, everything: bool, lengths: dict[str, int], out: Path
) -> tuple[int, int]:
    """Run a batch and kill it. Returns its exit code, and the frames it knew or told of as done."""
    known = told = 0
    with subprocess.Popen((*command, out), stdout=subprocess.PIPE, text=True, start_new_session=True) as process:

        def kill() -> None:
            if everything:
                os.killpg(process.pid, signal.SIGKILL)
            else:
                process.kill()

        timer = threading.Timer(moment, kill)
        timer.start()
        assert process.stdout is not None
        for line in process.stdout:
            try:
                event = json.loads(line)
            except ValueError:
                break  # cut short
            if event["event"] == "file" and event["action"] == "done":
                known += lengths[str(Path(event["output"]).relative_to(out))]
            elif event["event"] == "progress":
                told = event["frames"]
        timer.cancel()
    return process.returncode, known + told


def kills(options: argparse.Namespace, folder: Path) -> bool:
    tree, chance = folder / "in", random.Random(options.seed)
    (tree / "two").mkdir(parents=True)
    for n, clip in enumerate(options.clip):
        shutil.copyfile(clip, tree / ("two" if n % 2 else "") / clip.name)
    for n in range(0 if options.clip else options.clips):
        make_clip(tree / f"{'two/' if n % 2 else ''}clip{n}.mp4", options.frames + 37 * n, n)
    batch = (*COMMAND, "batch", tree, *FAST, "--jobs", str(options.jobs), "--json", "-o")
    peace = folder / "peace"
    begun = time.monotonic()
    told_of = subprocess.run((*batch, peace), check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()
    seconds = time.monotonic() - begun
    made = [event for event in map(json.loads, told_of) if event["event"] == "done"]
    lengths = {str(Path(event["output"]).relative_to(peace)): event["frames"] for event in made}
    wanted = {name: (peace / name).read_bytes() for name in lengths}
    print(f"{len(made)} clips, {sum(lengths.values())} frames, {options.jobs} at once: {seconds:.1f} s in peace")
    done = rounds = wrong = left = early = 0
    costs: list[int] = []
    while done < options.kills:
        out = folder / f"out{rounds}"
        rounds += 1
        code = -signal.SIGKILL.value
        while code == -signal.SIGKILL:
            moment = chance.uniform(0, 0.6 * seconds) if done < options.kills else 3600.0
            code, told = run_and_kill(batch, moment, done % 2 == 1, lengths, out)
            if code == -signal.SIGKILL:
                done += 1
                time.sleep(0.2)  # workers whose parent alone was killed are on their way out
                costs.append(max(0, told - kept(out, lengths)))
                early += sum((out / name).exists() and (out / name).read_bytes() != wanted[name] for name in lengths)
        wrong += code != 0
        wrong += sum((out / name).read_bytes() != wanted[name] for name in lengths)
        found = {str(p.relative_to(out)) for p in out.rglob("*") if p.is_file() and FOLDER not in p.parts}
        left += len(found - set(lengths))
        print(f"  batch {rounds} whole after {done} kills in all; {wrong} wrong, {early} early", flush=True)
    longest = SegmentRule().longest * options.jobs
    print(f"  {done} kills over {rounds} batches: {wrong} wrong outputs or exit codes, {left} files left over")
    print(f"  files under a final name that were not complete: {early}")
    print(f"  frames lost a kill: {sum(costs) / max(len(costs), 1):.0f} on average, {max(costs, default=0)} at most")
    return not wrong and not left and not early and max(costs, default=0) <= longest


def main() -> bool:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bar", choices=["many", "kills"])
    parser.add_argument("clip", type=existing, nargs="*")
    parser.add_argument("--files", type=count, default=1000)
    parser.add_argument("--bad", type=int, default=50)
    parser.add_argument("--kills", type=count, default=100)
    parser.add_argument("--clips", type=count, default=6)
    parser.add_argument("--frames", type=count, default=600)
    parser.add_argument("--jobs", type=count, default=1)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    if not 0 <= options.bad <= options.files:
        parser.error(f"--bad: {options.bad} of {options.files} files")
    with tempfile.TemporaryDirectory() as folder:
        fine = (many if options.bar == "many" else kills)(options, Path(folder))
    return not fine


if __name__ == "__main__":
    run(main)

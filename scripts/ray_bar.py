"""What cutting a film into segments and handing them to Ray costs, against one process in plain `videosr upscale`.

Usage: python scripts/ray_bar.py [CLIP] [--seconds 60] [--rounds 3] [--threads N] [-m NAME]

One film is made by turns by plain `upscale`, by one process that is handed segments (`LocalCrew`), and by a Ray cluster
of one node, this machine, that was begun before and has made a few frames. Prints what it took to begin the cluster and
to have the first frames from it, then the median times, by the clock and of the processors (all processes together,
which other load on the machine tells on less), and whether the outputs are equal. Exit code 1 if an output differs, or
if Ray takes more than a tenth longer than plain `upscale` by the clock.

Without CLIP, a film is made of the sample clip, over and over.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import statistics
import tempfile
import time
from collections import defaultdict
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import av
from common import count, existing, positive, run

from videosr.distributed.cluster import RayCrew, connected
from videosr.distributed.crew import LocalCrew
from videosr.film import TranscodeOptions
from videosr.machine import cores
from videosr.media.codecs import EncoderSettings
from videosr.options import UpscaleOptions
from videosr.progress import Progress
from videosr.transcode import Crew, transcode

SAMPLE = Path(__file__).parent.parent / "samples" / "bunny.mp4"
BAR = 0.10


class Watch(Progress):
    """Notes when the first frame was done."""

    def __init__(self) -> None:
        super().__init__("film", quiet=True)
        self.first = 0.0

    def frames(self, done: int) -> None:
        """See `Progress.frames`."""
        self.first = self.first or time.monotonic()


def repeated(clip: Path, output: Path, seconds: float) -> Path:
    """A clip's packets over and over, until there are so many seconds."""
    with av.open(str(output), "w") as out:
        stream, shift, last = None, 0, 0
        while stream is None or last * stream.time_base < seconds:
            with av.open(str(clip)) as source:
                video = source.streams.video[0]
                if stream is None:
                    stream = out.add_stream_from_template(video)
                    stream.time_base = video.time_base
                for packet in source.demux(video):
                    if packet.dts is None:
                        continue
                    last = max(last, shift + packet.pts + packet.duration)
                    packet.pts, packet.dts, packet.stream = packet.pts + shift, packet.dts + shift, stream
                    out.mux(packet)
            shift = last
    return output


@dataclass(frozen=True)
class Taken:
    """What a film took.

    Attributes:
        first: seconds to the first word of progress.
        whole: seconds in all.
        cpu: processor seconds of all processes.
        frames: it has.
    """

    first: float
    whole: float
    cpu: float
    frames: int


def processor_seconds() -> float:
    """What this process, those it began and those that they began have used (Linux)."""
    ticks, children = {}, defaultdict(list)
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue  # it has just ended
            ticks[int(entry.name)] = sum(map(int, fields[11:15]))  # utime, stime, and those of children that ended
            children[int(fields[1])].append(int(entry.name))
    found, todo = 0, [os.getpid()]
    while todo:
        pid = todo.pop()
        found += ticks.get(pid, 0)
        todo += children[pid]
    return found / os.sysconf("SC_CLK_TCK")


def make(clip: Path, output: Path, options: TranscodeOptions, crew: Crew | None) -> Taken:
    """Make a film."""
    watch, begun, used = Watch(), time.monotonic(), processor_seconds()
    result = transcode(clip, output, options, watch, crew)
    ended = time.monotonic()
    return Taken(watch.first - begun, ended - begun, processor_seconds() - used, result.frames)


def main() -> bool:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clip", type=existing, nargs="?")
    parser.add_argument("--seconds", type=positive, default=60)
    parser.add_argument("--rounds", type=count, default=3)
    parser.add_argument("--threads", type=count, default=cores())
    parser.add_argument("-m", "--model", default=UpscaleOptions().model)
    args = parser.parse_args()
    options = TranscodeOptions(
        upscale=UpscaleOptions(model=args.model, threads=args.threads),
        encoder=EncoderSettings(codec="libx264", preset="veryfast"),
        duration=Fraction(args.seconds) if args.clip else None,
        overwrite=True,
    )
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as folder, connected("local") as address:
        started = time.monotonic() - begun
        clip = args.clip or repeated(SAMPLE, Path(folder) / "film.mp4", args.seconds)
        output = Path(folder) / "out.mkv"
        crews: dict[str, Crew | None] = {
            "upscale": None,
            "one process": LocalCrew(1),
            "ray, one node": RayCrew(address),
        }
        # Processes begin, and libraries and networks are loaded: that is paid once, not by every film.
        warm = {name: make(clip, output, replace(options, frames=8), crew) for name, crew in crews.items()}
        print(f"a cluster of this machine began in {started:.1f} s; the first 8 frames then took", end=" ")
        print(", ".join(f"{taken.whole:.1f} s ({name})" for name, taken in warm.items()), flush=True)
        taken: dict[str, list[Taken]] = {name: [] for name in crews}
        outputs: set[bytes] = set()
        for n in range(args.rounds):
            for name, crew in crews.items():
                one = make(clip, output, options, crew)
                taken[name].append(one)
                outputs.add(hashlib.sha256(output.read_bytes()).digest())
                figures = f"{one.whole:.2f} s, {one.first:.2f} s to the first word, {one.cpu:.2f} s of processors"
                print(f"  round {n + 1}, {name}: {figures}", flush=True)
    print(f"{clip.name}: {taken['upscale'][0].frames} frames, {args.threads} threads, medians of {args.rounds} rounds")
    whole = {name: statistics.median(one.whole for one in all_) for name, all_ in taken.items()}
    cpu = {name: statistics.median(one.cpu for one in all_) for name, all_ in taken.items()}
    for name in crews:
        print(
            f"  {name:14} {whole[name]:7.2f} s ({whole[name] / whole['upscale'] - 1:+.1%}), "
            f"{cpu[name]:7.2f} s of processors ({cpu[name] / cpu['upscale'] - 1:+.1%})"
        )
    ratio = whole["ray, one node"] / whole["upscale"]
    print(f"  outputs equal: {'yes' if len(outputs) == 1 else 'NO'}; overhead of Ray on one node: {ratio - 1:.1%}")
    raise SystemExit(len(outputs) > 1 or ratio > 1 + BAR)


if __name__ == "__main__":
    run(main)

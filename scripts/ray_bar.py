"""What cutting a film into segments and handing them to Ray costs, against one process in plain `videosr upscale`.

Usage: python scripts/ray_bar.py [CLIP] [--seconds 20] [--rounds 3] [--threads N] [-m NAME]

One film is made by turns by plain `upscale`, by one process that is handed segments (`LocalCrew`), and by a Ray cluster
of one node, this machine, that was begun before and has made a few frames. Prints the median times and whether the
outputs are equal. Exit code 1 if an output differs, or if Ray takes more than a tenth longer than plain `upscale`.

Without CLIP, a film is made of the sample clip, over and over.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av

from videosr.distributed.cluster import RayCrew, connected
from videosr.distributed.crew import LocalCrew
from videosr.film import TranscodeOptions
from videosr.media.codecs import EncoderSettings
from videosr.progress import Progress
from videosr.transcode import Crew, transcode
from videosr.upscaler import UpscaleOptions

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


def run(clip: Path, output: Path, options: TranscodeOptions, crew: Crew | None) -> tuple[float, float, int]:
    """Seconds to the first frame that was told of, seconds from there to the end, and frames."""
    watch, begun = Watch(), time.monotonic()
    result = transcode(clip, output, options, watch, crew)
    return watch.first - begun, time.monotonic() - watch.first, result.frames


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clip", type=Path, nargs="?")
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("-m", "--model", default=UpscaleOptions().model)
    args = parser.parse_args()
    options = TranscodeOptions(
        upscale=UpscaleOptions(model=args.model, threads=args.threads),
        encoder=EncoderSettings(codec="libx264", preset="veryfast"),
        duration=Fraction(args.seconds) if args.clip else None,
        overwrite=True,
    )
    with tempfile.TemporaryDirectory() as folder, connected("local") as address:
        clip = args.clip or repeated(SAMPLE, Path(folder) / "film.mp4", args.seconds)
        crews: dict[str, Crew | None] = {
            "upscale": None,
            "one process": LocalCrew(1),
            "ray, one node": RayCrew(address),
        }
        times: dict[str, list[tuple[float, float, int]]] = {name: [] for name in crews}
        outputs: set[bytes] = set()
        for crew in crews.values():  # processes begin, and libraries are loaded: that is paid once, not by every film
            run(clip, Path(folder) / "out.mkv", replace(options, frames=8), crew)
        for n in range(args.rounds):
            for name, crew in crews.items():
                output = Path(folder) / "out.mkv"
                times[name].append(run(clip, output, options, crew))
                outputs.add(output.read_bytes())
                print(
                    f"  round {n + 1}, {name}: {times[name][-1][0]:.2f} s, then {times[name][-1][1]:.2f} s", flush=True
                )
    medians = {name: [statistics.median(t[k] for t in taken) for k in (0, 1)] for name, taken in times.items()}
    plain = sum(medians["upscale"])
    frames = times["upscale"][0][2]
    print(f"{clip.name}: {frames} frames, {args.threads} threads, medians of {args.rounds} rounds")
    for name, (before, after) in medians.items():
        print(
            f"  {name:14} {before:6.2f} s to the first word of progress, {before + after:6.2f} s in all "
            f"({(before + after) / plain - 1:+.1%})"
        )
    ratio = sum(medians["ray, one node"]) / plain
    print(f"  outputs equal: {'yes' if len(outputs) == 1 else 'NO'}; overhead of Ray on one node: {ratio - 1:.1%}")
    raise SystemExit(len(outputs) > 1 or ratio > 1 + BAR)


if __name__ == "__main__":
    main()

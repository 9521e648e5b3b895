"""A very long film: `python scripts/long_run.py CLIP... [--frames 100000] [--size 32x24] [-- OPTIONS]`.

Shrinks the clips, strings them together, again and again, with a tone beside them until there are so many frames, and
upscales that with `videosr upscale OPTIONS`. Frames in must be frames out, each at its time, sound and picture as
far apart at the end as at the beginning to less than a millisecond, and the memory in use must not grow with the
length. Prints what was measured; exit code 1 if something is not as it should be.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from common import count, even_size, existing, run

RATE = Fraction(24000, 1001)
SAMPLES = 8000
"""Of sound, a second."""
GROWTH = 16
"""MiB that memory may grow from the second tenth of the work to the last."""


def pictures(clips: list[Path], width: int, height: int) -> list[bytes]:
    """The clips' frames at that size, as planar 4:2:0."""
    found = []
    for clip in clips:
        with av.open(str(clip)) as container:
            for frame in container.decode(video=0):
                small = frame.reformat(width, height, "yuv420p")
                found.append(small.to_ndarray().tobytes())
    return found


def write(path: Path, shown: list[bytes], frames: int, width: int, height: int) -> None:
    """The film, H.264 and AAC: MP4 has exact times for both."""
    with av.open(str(path), "w") as out:
        video = out.add_stream("libx264", rate=RATE, options={"preset": "ultrafast", "crf": "18", "threads": "1"})
        video.width, video.height, video.pix_fmt = width, height, "yuv420p"
        video.time_base = video.codec_context.time_base = 1 / RATE
        audio = out.add_stream("aac", rate=SAMPLES)
        audio.codec_context.layout = "mono"
        sound = tones(audio, frames / RATE)
        ready = next(sound, None)
        for n in range(frames):
            picture = av.VideoFrame.from_ndarray(
                np.frombuffer(shown[n % len(shown)], np.uint8).reshape(height * 3 // 2, width), format="yuv420p"
            )
            picture.pts, picture.time_base = n, 1 / RATE
            out.mux(video.encode(picture))
            while ready is not None and ready[0] <= n / RATE:
                out.mux(ready[1])
                ready = next(sound, None)
        out.mux(video.encode(None))
        while ready is not None:
            out.mux(ready[1])
            ready = next(sound, None)


def tones(stream: av.audio.stream.AudioStream, seconds: Fraction) -> Iterator[tuple[Fraction, list[av.Packet]]]:
    """A tone as coded packets, with the seconds at which it begins."""
    size = 1024
    wave = (0.2 * np.sin(2 * np.pi * 200 * np.arange(size) / SAMPLES)).astype(np.float32)[None]
    for i in range(int(seconds * SAMPLES) // size):
        frame = av.AudioFrame.from_ndarray(wave, format="fltp", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = SAMPLES, i * size, Fraction(1, SAMPLES)
        yield Fraction(i * size, SAMPLES), list(stream.encode(frame))
    yield seconds, list(stream.encode(None))


def times(path: Path) -> tuple[list[Fraction], Fraction]:
    """When frames are shown, in order, by decoding; and when the last packet of sound begins."""
    with av.open(str(path)) as container:
        tick = container.streams.video[0].time_base
        shown = [f.pts * Fraction(tick.numerator, tick.denominator) for f in container.decode(video=0)]
    with av.open(str(path)) as container:
        tick = container.streams.audio[0].time_base
        last = max(p.pts for p in container.demux(audio=0) if p.pts is not None)
    return shown, last * Fraction(tick.numerator, tick.denominator)


def watch(pid: int, seen: list[tuple[float, float]], done: threading.Event) -> None:
    """Note (seconds, MiB in use) of a process every second."""
    begun = time.monotonic()
    page = os.sysconf("SC_PAGE_SIZE")
    while not done.wait(1):
        try:
            pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        except (OSError, IndexError):
            return
        seen.append((time.monotonic() - begun, pages * page / 2**20))


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="%(prog)s [-h] [--frames N] [--size WxH] CLIP... [-- OPTIONS OF videosr upscale]",
    )
    parser.add_argument("clips", nargs="+", type=existing, metavar="CLIP")
    parser.add_argument("--frames", type=count, default=100_000)
    parser.add_argument("--size", type=even_size, default="32x24")
    arguments = sys.argv[1:]
    split = arguments.index("--") if "--" in arguments else len(arguments)
    args = parser.parse_args(arguments[:split])
    if args.frames < RATE:
        parser.error("--frames: a second at least, 24")
    width, height = args.size
    shown = pictures(args.clips, width, height)
    problems = []
    with tempfile.TemporaryDirectory(prefix="videosr-long-") as folder:
        source, output = Path(folder) / "long.mp4", Path(folder) / "out.mp4"
        write(source, shown, args.frames, width, height)
        print(f"{args.frames} frames of {width}x{height} are {float(args.frames / RATE / 3600):.2f} hours", flush=True)
        command = [sys.executable, "-m", "videosr", "upscale", str(source), str(output), "-q"]
        begun = time.monotonic()
        process = subprocess.Popen([*command, *(arguments[split + 1 :] or ["--preset", "ultrafast"])])
        seen: list[tuple[float, float]] = []
        done = threading.Event()
        watcher = threading.Thread(target=watch, args=(process.pid, seen, done))
        watcher.start()
        code = process.wait()
        done.set()
        watcher.join()
        seconds = time.monotonic() - begun
        if code:
            print(f"FAILED: exit code {code}")
            return 1
        (before, sound_before), (after, sound_after) = times(source), times(output)
    print(f"{len(after)} frames out of {len(before)} in {seconds:.0f} s, {len(after) / seconds:.0f} a second")
    if len(after) != len(before):
        problems.append("frames in are not frames out")
    late = max((abs(a - b) for a, b in zip(before, after, strict=False)), default=Fraction(0))
    drift = abs((after[-1] - sound_after) - (before[-1] - sound_before))
    print(f"times at most {float(late) * 1000:.4f} ms off; sound {float(drift) * 1000:.4f} ms off at the end")
    if max(late, drift) >= Fraction(1, 1000):
        problems.append("times are off")
    tenth = len(seen) // 10
    if tenth:
        parts = seen[tenth : 2 * tenth], seen[-2 * tenth : -tenth]
        early, last = (statistics.median(mib for _, mib in part) for part in parts)
        most = max(mib for _, mib in seen)
        print(f"memory: {early:.0f} MiB in the second tenth, {last:.0f} in the last but one, {most:.0f} at most")
        if last - early > GROWTH:
            problems.append(f"memory grew by {last - early:.0f} MiB")
    print("; ".join(problems) or "all as it should be")
    return 1 if problems else 0


if __name__ == "__main__":
    run(main)

"""Peak memory along a long video: prints the resident set after the first frames and at the end.

Usage: python scripts/memory_bar.py [--size 640x360] [--frames 2000] [--encode]

The video is made on the spot: moving texture, H.264. Without --encode finished frames go nowhere, so that the figure is
videosr's own and not the encoder's look-ahead. Exit code 1 if memory grew by more than a tenth after frame 100.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import av
import numpy as np
from common import count, even_size, run

from videosr.graph import Graph, NullSink
from videosr.media.codecs import EncoderSettings
from videosr.media.decoder import Decoder
from videosr.progress import Progress
from videosr.transcode import TranscodeOptions, transcode
from videosr.upscaler import Upscaler

_EARLY = 100


def make_video(path: Path, width: int, height: int, frames: int) -> None:
    rng = np.random.default_rng(0)
    texture = rng.integers(40, 216, (height // 4 + 64, width // 4 + 64), np.uint8).repeat(4, 0).repeat(4, 1)
    with av.open(path, "w") as out:
        stream = out.add_stream("libx264", rate=25, options={"preset": "ultrafast", "crf": "28"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for n in range(frames):
            x, y = (3 * n) % 256, (2 * n) % 256
            luma = np.ascontiguousarray(texture[y : y + height, x : x + width])
            chroma = np.full((height // 2, width), 128, np.uint8)
            planes = np.concatenate([luma.reshape(-1), chroma.reshape(-1)]).reshape(height * 3 // 2, width)
            out.mux(stream.encode(av.VideoFrame.from_ndarray(planes, format="yuv420p")))
        out.mux(stream.encode(None))


def peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # Linux counts in KiB


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=even_size, default="640x360")
    parser.add_argument("--frames", type=count, default=2000)
    parser.add_argument("--encode", action="store_true", help="with x264 veryfast, to a file")
    parser.add_argument("--make", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    width, height = options.size
    if options.frames <= _EARLY:
        parser.error(f"--frames: more than {_EARLY}, after which memory must not grow")
    if options.make:
        make_video(options.make, width, height, options.frames)
        return 0
    early = [0.0]

    def watch(done: int) -> None:
        if done == _EARLY:
            early[0] = peak()

    with tempfile.TemporaryDirectory() as folder:
        clip = Path(folder) / "clip.mp4"
        # In a process of its own: an encoder's memory must not hide ours.
        size_and_length = ["--size", f"{width}x{height}", "--frames", str(options.frames)]
        subprocess.run([sys.executable, __file__, "--make", clip, *size_and_length], check=True)
        if options.encode:
            progress = Progress(clip.name, quiet=True)
            progress.frames = watch  # type: ignore[method-assign]
            settings = EncoderSettings(codec="libx264", preset="veryfast")
            transcode(clip, Path(folder) / "out.mkv", TranscodeOptions(encoder=settings), progress)
        else:
            with Decoder(clip) as decoder:
                Graph(decoder, [("upscale", Upscaler())], NullSink(), progress=watch).run()
    end = peak()
    print(f"{width}x{height}, {options.frames} frames, {'x264 veryfast' if options.encode else 'null sink'}")
    print(f"  peak RSS: {early[0]:.0f} MiB at frame {_EARLY}, {end:.0f} MiB at the end")
    return end > 1.1 * early[0]


if __name__ == "__main__":
    run(main)

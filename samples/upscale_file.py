"""Upscale a video file from Python: everything else in it is kept.

python samples/upscale_file.py samples/bunny.mp4 bunny-2x.mkv
"""

from __future__ import annotations

import sys
from pathlib import Path

from videosr.errors import VideosrError
from videosr.media.codecs import EncoderSettings
from videosr.options import UpscaleOptions
from videosr.progress import Progress
from videosr.temporal import Mode
from videosr.transcode import TranscodeOptions, transcode


def main(source: Path, output: Path) -> None:
    options = TranscodeOptions(
        upscale=UpscaleOptions(temporal=Mode.ADAPTIVE),
        encoder=EncoderSettings(crf=18, preset="veryfast"),
        overwrite=True,
    )
    progress = Progress(source.name)
    try:
        result = transcode(source, output, options, progress)
    except VideosrError as exc:  # one line that says what is wrong and what to do
        sys.exit(str(exc))
    finally:
        progress.close()
    print(f"{output}: {result.frames} frames of {result.width}x{result.height}, {result.reused} repeats")
    for timing in result.timings:
        print(f"  {timing.name}: {timing.busy:.1f} s at work, {timing.starved + timing.blocked:.1f} s waiting")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]))

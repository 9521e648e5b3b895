"""Upscale one still image, or the first frame of a video.

python samples/upscale_image.py photo.jpg photo-2x.png
"""

from __future__ import annotations

import sys
from pathlib import Path

import av
import numpy as np

from videosr.errors import VideosrError
from videosr.media.decoder import Decoder
from videosr.options import UpscaleOptions
from videosr.temporal import Mode
from videosr.upscaler import Upscaler


def main(source: Path, output: Path) -> None:
    try:
        with Decoder(source) as decoder:
            frame = next(iter(decoder))
        upscaler = Upscaler(UpscaleOptions(model="realtime-2x", temporal=Mode.OFF, pix_fmt="gbrp"))
        larger = upscaler.picture([frame])
    except VideosrError as exc:
        sys.exit(str(exc))
    rgb = np.stack(larger.planes[:3], axis=2)  # (2 H, 2 W, 3) uint8, ready for Pillow or OpenCV as well
    av.VideoFrame.from_ndarray(rgb, format="rgb24").save(output)
    print(f"{output}: {larger.width}x{larger.height}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))

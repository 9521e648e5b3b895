"""Upscale one still image, or the first frame of a video, as it is shown.

python samples/upscale_image.py photo.jpg photo-2x.png
"""

from __future__ import annotations

import sys
from pathlib import Path

import av
import numpy as np

from videosr.errors import VideosrError
from videosr.media.decoder import Decoder
from videosr.media.orientation import UPRIGHT, Orientation
from videosr.options import UpscaleOptions
from videosr.temporal import Mode
from videosr.upscaler import Upscaler


def main(source: Path, output: Path) -> None:
    try:
        with Decoder(source) as decoder:
            frame = next(iter(decoder))
            upright = Orientation.of(decoder.display_matrix) or UPRIGHT  # telephones write how they were held
        upscaler = Upscaler(UpscaleOptions(model="realtime-2x", temporal=Mode.OFF, pix_fmt="gbrp"))
        larger = upright.frame(upscaler.picture([frame]))
        rgb = np.stack(larger.planes[:3], axis=2)  # (2 H, 2 W, 3) uint8, ready for Pillow or OpenCV as well
        av.VideoFrame.from_ndarray(rgb, format="rgb24").save(output)
    except VideosrError as exc:  # one line that names the file
        sys.exit(str(exc))
    except (OSError, ValueError, av.FFmpegError) as exc:
        sys.exit(f"{output}: cannot be written: {exc}")
    print(f"{output}: {larger.width}x{larger.height}")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]))

"""A picture of what videosr does: a crop of one frame enlarged by bicubic interpolation (left) and by videosr (right).

Usage: python scripts/before_after.py CLIP OUT.png [--at SECONDS] [--crop X,Y,W,H] [--model NAME]
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np

from videosr import color
from videosr.frame import ColorSpec, Frame, Matrix, PixelFormat, Range
from videosr.media.codecs import EncoderSettings
from videosr.media.decoder import Decoder
from videosr.media.images import image_settings, write_image
from videosr.metrics import imresize
from videosr.models import registry
from videosr.options import UpscaleOptions
from videosr.upscaler import Upscaler


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clip", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--at", type=Fraction, default=Fraction(0), help="seconds")
    parser.add_argument("--crop", default="0,0,240,160", help="of the source: left, top, width, height")
    parser.add_argument("--model", default=registry.DEFAULT)
    options = parser.parse_args()
    x, y, width, height = map(int, options.crop.split(","))

    with Decoder(options.clip, start=options.at, frames=1) as decoder:
        frame = next(iter(decoder))
        info = decoder.info
    rgb = PixelFormat.parse("gbrp")
    upscaler = Upscaler(UpscaleOptions(model=options.model, pix_fmt="gbrp"))
    s = upscaler.scale
    after = np.stack(upscaler.picture([frame]).planes, axis=2)
    source = np.rint(np.clip(color.to_rgb(frame.planes, frame.format, frame.color), 0, 1) * 255).astype(np.uint8)
    before = imresize(source.transpose(1, 2, 0), s)

    crop = np.s_[s * y : s * (y + height), s * x : s * (x + width)]
    line = np.full((s * height, 4, 3), 255, np.uint8)
    joined = np.concatenate([before[crop], line, after[crop]], axis=1)
    planes = tuple(np.ascontiguousarray(joined[:, :, i]) for i in range(3))
    full = ColorSpec(matrix=Matrix.RGB, range=Range.FULL)
    made = Frame(planes=planes, format=rgb, pts=0, time_base=frame.time_base, color=full)
    write_image(options.output, made, image_settings(options.output, EncoderSettings(), replace(info, format=rgb)))


if __name__ == "__main__":
    main()

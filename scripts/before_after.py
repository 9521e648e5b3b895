"""A picture of what videosr does: a crop of one frame enlarged by bicubic interpolation (left) and by videosr (right).

Usage: python scripts/before_after.py CLIP OUT.png [--at SECONDS] [--crop X,Y,W,H] [--model NAME]
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
from common import existing, moment, run

from videosr import color
from videosr.frame import ColorSpec, Frame, Matrix, PixelFormat, Range
from videosr.media.codecs import EncoderSettings
from videosr.media.decoder import Decoder
from videosr.media.stills.images import IMAGES, image_settings, write_image
from videosr.metrics import imresize
from videosr.models import registry
from videosr.options import UpscaleOptions
from videosr.upscaler import Upscaler


def rectangle(text: str) -> tuple[int, ...]:
    """X,Y,W,H."""
    found = text.split(",")
    if len(found) != 4 or not all(part.isdecimal() for part in found) or "0" in found[2:]:
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form X,Y,W,H")
    return tuple(map(int, found))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clip", type=existing)
    parser.add_argument("output", type=Path)
    parser.add_argument("--at", type=moment, default=Fraction(0), help="seconds")
    parser.add_argument("--crop", type=rectangle, default="0,0,240,160", help="of the source: left, top, width, height")
    parser.add_argument("--model", default=registry.DEFAULT)
    options = parser.parse_args()
    x, y, width, height = options.crop
    suffix = options.output.suffix.lower()
    if suffix not in IMAGES:
        parser.error(f"{options.output}: a picture's name ends in {', '.join(IMAGES)}")
    with Decoder(options.clip, start=options.at, frames=1) as decoder:
        frame = next(iter(decoder))
        info = decoder.info
    if x + width > frame.width or y + height > frame.height:
        parser.error(f"--crop: goes beyond the {frame.width}x{frame.height} of {options.clip}")
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
    write_image(options.output, made, image_settings(suffix, EncoderSettings(), replace(info, format=rgb)))


if __name__ == "__main__":
    run(main)

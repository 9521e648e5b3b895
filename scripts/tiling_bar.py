"""What tiles cost: pictures taken whole and in tiles, compared with each other and with their originals.

Usage: python scripts/tiling_bar.py NETWORK.onnx ... --images FOLDER [--tile PIXELS] [--size 640] [--count 4]

From the middle of every image a square is cut that becomes `size` input pixels a side, shrunk by the network's scale
(antialiased bicubic). Near borders are the pixels where neighbouring tiles are mixed, and four input pixels on either
side. What tiles cost there is set against what they cost elsewhere, each as PSNR against the original lost from whole
to tiled: so it does not matter that one place of a picture is harder than another.

Bars: no more than 0.05 dB lost near borders than elsewhere, and tiled against whole 45 dB or more. Exit code 1 if one
is missed.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
from common import count, existing, run

from videosr.engines import load
from videosr.evaluate.images import IMAGE_SUFFIXES, read_image
from videosr.metrics import imresize
from videosr.options import UpscaleOptions
from videosr.tiling import Tiling
from videosr.upscaler import Upscaler

_BESIDE = 4


def near_borders(tiling: Tiling, size: int, scale: int) -> np.ndarray:
    """Where along a side of `scale * size` output pixels tiles meet; bool."""
    axis = tiling.axis(size)
    near = np.zeros(scale * size, bool)
    starts = scale * np.array(axis.starts)
    for start, share in zip(starts[1:], axis.shares(scale, tiling.blend)[1:], strict=True):
        first, full = np.argmax(share > 0), np.argmax(share == 1)
        near[start + first - scale * _BESIDE : start + full + scale * _BESIDE] = True
    return near


def psnr(error: np.ndarray) -> float:
    return float(-10 * np.log10(max(np.mean(error**2), 1e-12)))


def measure(network: Path, images: list[Path], tile: int | None, size: int, engine: str) -> bool:
    """Print a line for each image and one for all; whether the bars are met."""
    upscaler = Upscaler(UpscaleOptions(tile=tile), load(network, engine, precision="f32"))
    scale, run, tiling = upscaler.scale, upscaler.engine.run, upscaler.tiling
    side = near_borders(tiling, size, scale)
    border = side[:, None] | side[None]
    if not side.any():
        sys.exit(f"{network}: pictures of {size}x{size} go through whole ({tiling}): give a larger --size")
    print(f"{network.name}: {tiling}; {len(tiling.axis(size).starts)} tiles a side, {border.mean():.0%} near borders")
    rows = []
    for path in images:
        original = read_image(path).astype(np.float32) / 255
        top, left = ((n - scale * size) // 2 for n in original.shape[:2])
        if min(top, left) < 0:
            print(f"  {path.name}: smaller than {scale * size}x{scale * size}, left out")
            continue
        original = original[top : top + scale * size, left : left + scale * size]
        x = imresize(original, 1 / scale).astype(np.float32).transpose(2, 0, 1)[None]
        whole, tiled = (np.clip(out[0].transpose(1, 2, 0), 0, 1) for out in (run(x), tiling.run(run, scale, x)))
        lost = [psnr((whole - original)[where]) - psnr((tiled - original)[where]) for where in (border, ~border)]
        rows.append((psnr(tiled - whole), *lost, psnr(whole - original)))
        print(
            "  {}: tiled against whole {:.1f} dB; lost near borders {:+.4f} dB, elsewhere {:+.4f}".format(
                path.name, *rows[-1]
            )
        )
    if not rows:
        sys.exit("no image was large enough")
    likeness, near, far, quality = np.mean(rows, axis=0)
    met = bool(near - far <= 0.05 and min(r[0] for r in rows) >= 45)
    print(
        f"  all {len(rows)}: {likeness:.1f} dB (least {min(r[0] for r in rows):.1f}); near borders {near - far:+.4f} dB"
    )
    print(f"  beside elsewhere; whole against the originals {quality:.2f} dB: {'met' if met else 'MISSED'}", flush=True)
    return met


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="+", type=existing)
    parser.add_argument("--images", type=existing, required=True)
    parser.add_argument("--tile", type=count, help="edge of the tiles; by default the one that goes with the network")
    parser.add_argument("--size", type=count, default=640, help="of the square, in input pixels")
    parser.add_argument("--count", type=count, default=4, help="images")
    parser.add_argument("--engine", default="openvino")
    arguments = parser.parse_args()
    images = sorted(p for p in arguments.images.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES)[: arguments.count]
    met = [measure(n, images, arguments.tile, arguments.size, arguments.engine) for n in arguments.networks]
    return not all(met)


if __name__ == "__main__":
    run(main)

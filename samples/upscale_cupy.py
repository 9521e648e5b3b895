"""Upscale cupy arrays; where there is no GPU, numpy's take their place, with the same code.

python samples/upscale_cupy.py frames-2x.npy

Needs cupy for the GPU (the extra `cuda`).
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy

from videosr.arrays import frame_of, picture_of
from videosr.upscaler import Upscaler


def arrays() -> Any:
    """cupy if it can be used, else numpy."""
    try:
        import cupy
    except ModuleNotFoundError:
        return numpy
    try:
        return cupy if cupy.cuda.runtime.getDeviceCount() else numpy
    except cupy.cuda.runtime.CUDARuntimeError:
        return numpy


def main(output: Path) -> None:
    xp = arrays()
    y, x = xp.mgrid[:90, :160]
    upscaler = Upscaler()
    frames = []
    for t in range(6):
        disc = (x - 30 - 4 * t) ** 2 + (y - 45) ** 2 < 400
        rgb = xp.stack([x * 255 // 160, y * 255 // 90, xp.where(disc, 230, 60)]).astype("uint8")
        frames += upscaler.process(frame_of(rgb, pts=t))
    frames += upscaler.flush()
    large = xp.stack([picture_of(frame) for frame in frames])  # where the pictures were
    xp.save(output, large)
    print(f"{output}: {large.shape} {large.dtype} of {xp.__name__} ({upscaler.chosen})")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]))

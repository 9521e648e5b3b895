"""Upscale pictures that are numpy arrays, as a sequence: temporal reuse works on them too.

python samples/upscale_arrays.py frames-2x.npy
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from videosr.frame import FORMATS, ColorSpec, Frame, Matrix, Range
from videosr.options import UpscaleOptions
from videosr.upscaler import Upscaler

COLOR = ColorSpec(matrix=Matrix.RGB, range=Range.FULL)


def pictures(count: int = 12, height: int = 90, width: int = 160) -> Iterator[NDArray[np.uint8]]:
    """(height, width, 3) uint8 R'G'B': a disc that moves over a gradient, under some grain."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:height, :width]
    for t in range(count):
        disc = np.hypot(x - 30 - 4 * t, y - height / 2) < 20
        rgb = np.stack([x * 255 / width, y * 255 / height, np.where(disc, 230, 60)], axis=2)
        yield np.clip(rgb + rng.normal(0, 4, rgb.shape), 0, 255).astype(np.uint8)


def frames() -> Iterator[Frame]:
    for t, rgb in enumerate(pictures()):
        planes = tuple(np.ascontiguousarray(rgb[:, :, i]) for i in range(3))
        yield Frame(planes=planes, format=FORMATS["gbrp"], pts=t, time_base=Fraction(1, 24), color=COLOR)


def main(output: Path) -> None:
    upscaler = Upscaler(UpscaleOptions(model="realtime-2x"))
    results = []
    for frame in frames():
        results += upscaler.process(frame)  # some frames later, in order
    results += upscaler.flush()
    stacked = np.stack([np.stack(frame.planes, axis=2) for frame in results])
    np.save(output, stacked)
    print(f"{output}: {stacked.shape} {stacked.dtype}")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]))

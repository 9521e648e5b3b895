"""Upscale torch tensors, on the GPU where there is one: they never leave it.

python samples/upscale_tensors.py frames-2x.pt

Needs torch (the extra `torch`), and cupy for the GPU (`cuda`).
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import torch

from videosr.arrays import frame_of, picture_of
from videosr.upscaler import Upscaler

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def pictures(count: int = 6, height: int = 90, width: int = 160) -> Iterator[torch.Tensor]:
    """(3, height, width) uint8 R'G'B': a square that moves over a gradient."""
    y = torch.linspace(0, 255, height, device=DEVICE)[:, None].expand(height, width)
    x = torch.linspace(0, 255, width, device=DEVICE).expand(height, width)
    for t in range(count):
        third = torch.full_like(x, 60)
        third[30:60, 20 + 8 * t : 50 + 8 * t] = 230
        yield torch.stack([x, y, third]).to(torch.uint8)


def main(output: Path) -> None:
    upscaler = Upscaler()  # takes the GPU if there is one
    frames = []
    for t, picture in enumerate(pictures()):
        frames += upscaler.process(frame_of(picture, pts=t))
    frames += upscaler.flush()
    large = torch.stack([torch.from_dlpack(picture_of(frame)) for frame in frames])
    torch.save(large, output)
    print(f"{output}: {tuple(large.shape)} {large.dtype} on {large.device} ({upscaler.chosen})")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]))

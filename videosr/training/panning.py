"""Clips made of still pictures: a camera that moves, by whole HR pixels.

They are fractions of LR pixels: the motion is sub-pixel where it counts, and the HR picture stays sharp.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from videosr.training.packing import Pixels

STILL = 0.4
"""Share of panned pictures that do not move at all: there the temporal window helps most."""

PAN = 2.0
"""Standard deviation of the speed of pans along either axis, HR pixels a frame."""


def speed(rng: np.random.Generator) -> NDArray[np.float64]:
    """Of a pan, rows and columns a frame."""
    return rng.normal(0, PAN, 2) if rng.random() >= STILL else np.zeros(2)


def pan(picture: Pixels, length: int, shown: int, rng: np.random.Generator) -> Pixels:
    """A clip (length, H, W, 3) whose frame `shown` is the picture; what moves into the others repeats its rim.

    Args:
        picture: (H, W, 3).
        length: frames.
        shown: one of them.
        rng: draws the speed.
    """
    offsets = np.rint((np.arange(length) - shown)[:, None] * speed(rng)).astype(int)
    height, width, _ = picture.shape
    rows = np.clip(np.arange(height) + offsets[:, :1], 0, height - 1)
    columns = np.clip(np.arange(width) + offsets[:, 1:], 0, width - 1)
    clip: Pixels = picture[rows[:, :, None], columns[:, None, :]]
    return clip

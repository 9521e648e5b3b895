"""By how much one video's pictures lie beside another's: least squares over all samples (Lucas and Kanade 1981)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from videosr.frame import Array

MOST_SHIFT = 0.75
"""Of the first video's columns or rows. Enlargements are 0.1 off at most; networks that do not keep the middle of a
pixel where it is 0.25, or 0.375 if they enlarge four times; the coarsest coding moves real clips by up to 0.5."""
LEAST_SLOPE = 2.0
"""RMS codes by which neighbouring pixels of copies must differ for a shift that way to be judged."""
LEAST_SHARE = 0.25
"""Of the squared difference between the videos, which a shift must explain."""
CERTAINTY = 10
"""Standard errors of what is found that a shift must be, for errors of neighbouring pixels are alike."""
_LUMA = (0.2126, 0.7152, 0.0722)
"""Shares of R', G' and B'; of any matrix, for where a picture lies is the same in all."""


class Pair(NamedTuple):
    """Copies of a frame of both videos, and of the first one's frames around it (itself where there are none)."""

    ours: Array
    theirs: Array
    before: Array
    after: Array


def shifted(pairs: Sequence[Pair], pixel: tuple[float, float]) -> tuple[float, float]:
    """How far the second video's pictures lie further right and down; 0 where nothing shows that surely.

    Contrast, brightness and a share of the frames before and after are fitted as well: networks may change the former,
    and averages over time the latter, which is no shift.

    Args:
        pairs: of copies, (rows, columns, 3) each.
        pixel: columns and rows of the first video in each of their pixels; what is returned is in those.
    """
    normal, moments, energy, count = np.zeros((6, 6)), np.zeros(6), 0.0, 0
    for pair in pairs:
        a, b, before, after = (copy.astype(np.float64) @ _LUMA for copy in pair)
        slopes = (np.gradient(a, axis=axis) for axis in (1, 0))
        known = np.stack([part.ravel() for part in (*slopes, a, np.ones_like(a), before - a, after - a)])
        lost = (a - b).ravel()
        normal, moments = normal + known @ known.T, moments + known @ lost
        energy, count = energy + lost @ lost, count + lost.size
    found, inverse, left = _fit(normal, moments, energy)
    if left > (1 - LEAST_SHARE) * _fit(normal[2:, 2:], moments[2:], energy)[2]:
        return 0.0, 0.0
    errors = np.sqrt(left / max(count, 1) * np.diag(inverse))
    sure = (np.diag(normal) >= count * LEAST_SLOPE**2) & (np.abs(found) > CERTAINTY * errors)
    right, down = (float(found[n] * pixel[n]) if sure[n] else 0.0 for n in (0, 1))
    return right, down


def _fit(
    normal: NDArray[np.float64], moments: NDArray[np.float64], energy: float
) -> tuple[NDArray[np.float64], NDArray[np.float64], float]:
    """Solution of normal equations, the inverse of their matrix, and what is left of the energy."""
    inverse = np.linalg.pinv(normal, rcond=1e-9, hermitian=True)
    found = inverse @ moments
    return found, inverse, max(float(energy - found @ moments), 0.0)

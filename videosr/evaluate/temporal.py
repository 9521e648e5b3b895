"""How restless an upscaled video is beside its original: flicker, and errors of motion.

Both look at two consecutive frames of each, and take from the original alone where they may look.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

type Luma = NDArray[np.float32]
"""(H, W), in 8-bit code values whatever the bit depth."""
type Pair = tuple[Luma, Luma]
"""A frame and the one after it."""

STILL = 2.0
"""The original stands still where it changes by no more than this, in code values."""
BLOCK = 32
_WINDOW = 2 * BLOCK
_TEXTURE = 4.0
_CHANGED = 8.0


def flicker(shown: Pair, original: Pair) -> float | None:
    """Mean absolute difference between the picture's change and the original's, where the original stands still.

    Nothing is warped, so nothing depends on an estimate of motion. 0 is ideal; in code values. None where no pixel of
    the original stands still.
    """
    change = original[1] - original[0]
    still = np.abs(change) <= STILL
    if not still.any():
        return None
    return float(np.abs(shown[1] - shown[0] - change)[still].mean())


def motion_error(shown: Pair, original: Pair) -> float | None:
    """How far the picture's motion is from the original's: the mean distance in pixels over textured blocks.

    It asks what tOF asks (Chu et al. 2020, TecoGAN: the difference of two optical flows) without a flow library. For
    each block of 32 x 32: the original's motion in whole pixels is the peak of the phase correlation (Kuglin and Hines
    1975) of windows of 64 x 64; what is left of a pixel is then solved for by least squares (Lucas and Kanade 1981) in
    the original and in the picture alike, and the two are compared. A block is left out where the original has no
    texture in two directions, or where that motion does not explain it. Motion of more than 31 pixels is not found.

    0 is ideal. None where no block is left, or where the picture has fewer than 64 pixels a side.
    """
    height, width = original[1].shape
    if min(height, width) < _WINDOW:
        return None
    motion = _whole_pixels(original)
    older, newer = _blocks(original, motion)
    truth, smallest, unexplained = _remainder(older, newer)
    usable = (unexplained <= _CHANGED) & (smallest >= _TEXTURE) & (np.abs(truth).max(axis=-1) <= 1)
    if not usable.any():
        return None
    found, _, _ = _remainder(*_blocks(shown, motion))
    distance = np.hypot(*np.moveaxis(np.clip(found, -2, 2) - truth, -1, 0))
    return float(distance[usable].mean())


def _windows(luma: Luma) -> NDArray[np.float32]:
    """Overlapping windows of twice the block size, a block apart: (rows, columns, 64, 64)."""
    return sliding_window_view(luma, (_WINDOW, _WINDOW))[::BLOCK, ::BLOCK]


def _whole_pixels(pair: Pair) -> NDArray[np.intp]:
    """(rows, columns, 2): where the content of each window of the newer frame comes from, as (down, right)."""
    taper = np.hanning(_WINDOW).astype(np.float32)
    taper = taper[:, None] * taper
    older, newer = (
        np.fft.rfft2((w - w.mean(axis=(2, 3), keepdims=True)) * taper) for w in (_windows(luma) for luma in pair)
    )
    cross = older * newer.conj()
    # A little of the power is added, so that frequencies that hold nothing do not vote.
    cross /= np.abs(cross) + 1.0 + 0.01 * np.abs(cross).mean(axis=(2, 3), keepdims=True)
    surface = np.fft.irfft2(cross, s=(_WINDOW, _WINDOW))
    peak = surface.reshape(*surface.shape[:2], -1).argmax(axis=2)
    shift = np.stack(np.unravel_index(peak, (_WINDOW, _WINDOW)), axis=-1)
    return np.where(shift >= BLOCK, shift - _WINDOW, shift)


def _blocks(pair: Pair, motion: NDArray[np.intp]) -> Pair:
    """The middle of each window of the newer frame, and what lies where `motion` says in the older one."""
    rows, columns = motion.shape[:2]
    inner = BLOCK // 2 + np.arange(BLOCK)
    y = (np.arange(rows) * BLOCK)[:, None] + inner
    x = (np.arange(columns) * BLOCK)[:, None] + inner
    height, width = pair[0].shape
    from_y = np.clip(y[:, None, :] + motion[..., :1], 0, height - 1)
    from_x = np.clip(x[None, :, :] + motion[..., 1:], 0, width - 1)
    older = pair[0][from_y[..., :, None], from_x[..., None, :]]
    return older, pair[1][y[:, None, :, None], x[None, :, None, :]]


def _remainder(older: Any, newer: Any) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """One step of Lucas and Kanade's least squares on blocks (rows, columns, n, n).

    Returns:
        (rows, columns, 2), how far (down, right) in pixels the newer's content lay in the older; the smaller eigenvalue
        of the mean structure tensor, in (code values per pixel)^2; the mean change that this motion leaves unexplained.
    """
    both = (older + newer) / 2
    down, across = np.gradient(both, axis=(2, 3))
    difference = newer - older
    a, b, c = ((p * q).mean(axis=(2, 3)) for p, q in ((down, down), (down, across), (across, across)))
    e, f = ((g * difference).mean(axis=(2, 3)) for g in (down, across))
    a, c = a + 0.01, c + 0.01  # keeps flat blocks solvable
    determinant = a * c - b * b
    motion = np.stack([c * e - b * f, a * f - b * e], axis=-1) / determinant[..., None]
    smallest = (a + c) / 2 - np.sqrt(np.square((a - c) / 2) + b * b)
    rest = difference - motion[..., 0, None, None] * down - motion[..., 1, None, None] * across
    return motion, smallest, np.abs(rest).mean(axis=(2, 3))

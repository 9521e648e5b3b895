"""Temporal reuse: which earlier frames help a frame, and how much.

A frame's average may look at the frame itself and at most `HISTORY - 1` earlier frames of its scene, never at how one
got there, so any frame can be made from its own predecessors, in any order, bit for bit. Two definitions share that
window:

- `Mode.EMA` is the blend published with ParagonSR2, feat_t = (1 - a) conv_in(x_t) + a feat_{t-1}. conv_in is affine
  and the weights sum to one, so feat_t = conv_in(e_t) with e_t the same blend of the input frames.
- `Mode.ADAPTIVE` weighs each earlier frame per pixel by its likeness to the current one (non-local means along time,
  Buades et al. 2005, with the patch distance a 3x3 mean of absolute differences): what moved gets no weight, so
  nothing ghosts.

The average is made of the video planes as they are; averaging commutes with the colour matrix. A network takes the
frame on its base path and the average on its detail path.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from videosr.frame import Array, Frame, PixelFormat

HISTORY = 8
"""The most frames of video a result depends on: the frame and seven before it."""

DEPTH = 4
"""The most distinct frames that `Mode.ADAPTIVE` averages."""

BLEND = 0.2
"""The published blend factor a of `Mode.EMA`."""

LIKENESS = 3.4
"""The likeness scale t of `Mode.ADAPTIVE` as a multiple of white noise's standard deviation."""

GRAIN_LIKENESS = 0.9
"""The same of noise whose neighbouring samples are alike: grain, which is to be kept, or texture that moves."""

WHITE = 0.12
"""Correlation of neighbouring samples up to which noise counts as white."""

SOFT = 0.18
"""Correlation from which on it counts as grain or texture."""

CLEAN = 0.5
"""Noise (8-bit code values) up to which a picture counts as clean and is left alone."""

NOISY = 1.0
"""Noise (8-bit code values) from which on the likeness scale is the full multiple of it."""

_BLOCK = 8  # samples a side of a block whose noise is measured
_GRID = (18, 32)  # most rows and columns of measured blocks: the cost is the same at every picture size
_TONES = 4  # groups of equal size, from dark to light, that are measured apart
_QUANTILES = (0.02, 0.1)  # of the blocks' estimates; the noise is read off where they begin
_BIAS = 0.75  # what is read off of the true value, for white Gaussian noise
_QUIET = 0.2  # share of the blocks, those of the least estimates, whose samples are compared with their neighbours
_CLIPPED = (24.0, 231.0)  # blocks outside (8-bit code values) are clipped or letterbox: they hide the noise


class Noise(NamedTuple):
    """What was measured of the noise between two frames.

    Attributes:
        sigma: standard deviation, in 8-bit code values.
        correlation: of samples beside each other and one above the other. White noise has 0, film grain and what a
            codec leaves of noise 0.3 and more, fine texture that moves 0.2 and more.
    """

    sigma: float
    correlation: float = 0.0


class Mode(StrEnum):
    """What the detail path sees besides the frame itself."""

    OFF = "off"
    EMA = "ema"
    ADAPTIVE = "adaptive"


def ema_weights(count: int) -> list[float]:
    """The weights of `count` >= 1 frames under `Mode.EMA`, newest first; they sum to one.

    w_k = (1 - a) a^k, and the oldest frame takes all that is left, a^(count-1). That is the published recursion e_0 =
    x_0, e_t = (1 - a) x_t + a e_{t-1} started at the oldest frame, hence exact wherever the scene began inside the
    window, and off by at most a^HISTORY = 2.6e-6 of full scale otherwise. Renormalising (1 - a) a^k instead would
    agree nowhere near a scene's start: of its second frame it would make 0.833 and 0.167, not 0.8 and 0.2.
    """
    return [(1 - BLEND) * BLEND**k for k in range(count - 1)] + [BLEND ** (count - 1)]


def window(
    history: Sequence[Frame],
    mode: Mode,
    cut: Callable[[Frame, Frame], bool],
    same: Callable[[Frame, Frame], bool] = Frame.same_picture,
) -> tuple[Frame, ...]:
    """The frames that the average of `history[-1]` is made of, newest first.

    The walk goes back from the newest frame over at most `HISTORY` frames and ends at a scene cut. `Mode.EMA` takes
    them all. `Mode.ADAPTIVE` takes one of each run of identical pictures, `DEPTH` at most: animation on twos then
    gives a drawing and its repeat the same list, and the repeat needs no computing (see `same_window`).

    Args:
        history: consecutive frames, oldest first, the current one last; more than the last `HISTORY` are ignored.
        mode: `Mode.OFF` gives the current frame alone.
        cut: whether a scene begins at its second argument, which follows its first. Must depend on the two alone.
        same: whether the two, in that order, carry the same samples. Callers that hold the answer may pass it.
    """
    frames = [history[-1]]
    if mode is Mode.OFF:
        return tuple(frames)
    recent = history[-HISTORY:]
    for older, newer in zip(recent[-2::-1], recent[:0:-1], strict=True):
        if older.format != newer.format or older.planes[0].shape != newer.planes[0].shape or cut(older, newer):
            break
        if mode is Mode.ADAPTIVE and same(older, newer):
            continue
        frames.append(older)
        if mode is Mode.ADAPTIVE and len(frames) == DEPTH:
            break
    return tuple(frames)


def same_window(a: Sequence[Frame], b: Sequence[Frame]) -> bool:
    """Whether two windows hold the same pictures, so that the result for one is the result for the other."""
    return len(a) == len(b) and all(x is y or x.same_picture(y) for x, y in zip(a, b, strict=True))


def threshold(frames: Sequence[Frame], noise: Noise | None = None, *, keep_grain: bool = True) -> float:
    """The likeness scale t of a window under `Mode.ADAPTIVE`, in code values of the frames' format.

    It is a multiple of the noise of the two newest frames: `LIKENESS` of white noise, `GRAIN_LIKENESS` of noise that is
    correlated from `SOFT` on. 0 means: clean, or nothing to compare with; the average is then the frame itself and need
    not be computed. Between `CLEAN` and `NOISY` it grows steadily from 0, and between `WHITE` and `SOFT` it changes
    steadily, so that a video near a limit does not switch back and forth.

    Args:
        frames: of a window, newest first.
        noise: `noise_of` the two newest, where it is known.
        keep_grain: False takes all noise for white.
    """
    if len(frames) < 2:
        return 0.0
    if noise is None:
        noise = noise_of(frames[0], frames[1])
    faded = min(1.0, max(0.0, (noise.sigma - CLEAN) / (NOISY - CLEAN)))
    soft = min(1.0, max(0.0, (noise.correlation - WHITE) / (SOFT - WHITE))) if keep_grain else 0.0
    likeness = LIKENESS + soft * (GRAIN_LIKENESS - LIKENESS)
    return likeness * noise.sigma * faded * 2.0 ** (frames[0].format.bits - 8)


def average(frames: Sequence[Frame], mode: Mode, threshold: float = 0.0) -> tuple[Array, ...]:
    """The average e of a window's frames, newest first: float32 planes in code values, not rounded, without alpha.

    `Mode.EMA`: e = sum_k w_k x_k with `ema_weights`. `Mode.ADAPTIVE`: e = sum_k w_k x_k / sum_k w_k at every pixel
    with w_0 = 1 and w_k = exp(-(d_k / t)^2), d_k the 3x3 mean (edges replicated) of |x_k - x_0| on the first plane, t
    the `threshold` in code values. Subsampled planes use the mean of the weights over the block of pixels that a
    sample covers. With one frame, a threshold of 0 or `Mode.OFF` the result is the newest frame.
    """
    fmt = frames[0].format
    colors = fmt.planes - fmt.alpha
    if mode is Mode.OFF or (mode is Mode.ADAPTIVE and threshold <= 0):
        frames = frames[:1]
    planes = [[plane.astype("float32") for plane in frame.planes[:colors]] for frame in frames]
    if mode is Mode.EMA:
        weights = ema_weights(len(frames))
        return tuple(sum(w * x for w, x in zip(weights, xs, strict=True)) for xs in zip(*planes, strict=True))
    guide = planes[0][0]
    sums = list(planes[0])
    totals: list[Any] = [1.0] * colors
    for other in planes[1:]:
        weight = _likeness(guide, other[0], threshold)
        for i, x in enumerate(other):
            w = weight if x.shape == weight.shape else _block_mean(weight, fmt)
            sums[i] = sums[i] + w * x
            totals[i] = totals[i] + w
    return tuple(s / n for s, n in zip(sums, totals, strict=True)) if len(frames) > 1 else tuple(sums)


def noise_of(newer: Frame, older: Frame) -> Noise:
    """The noise in `newer`, from the first planes of the two alone.

    On a fixed grid of 8x8 blocks the smaller of two estimates: that of the block less its mean and slopes (exact where
    the picture is smooth), and that of the difference of the frames, over sqrt(2) (exact where it stands still). Noise
    alone makes much the same estimate everywhere, texture that moves makes widely different ones; so the estimates are
    followed from a low quantile to a lower one and as far again. As grain changes with tone, that is done for dark to
    light blocks apart; the second lowest of the four results is taken. Clean video gives about 0, and so does noise
    that a codec has frozen from frame to frame, which averaging could not remove.

    The correlation is that of the frames' difference, in the fifth of the blocks where the estimates are least.
    """
    if 0 in noise_grid(newer.planes[0].shape):
        return Noise(0.0)
    x, y = _blocks(newer.planes[0]), _blocks(older.planes[0])
    d, ramp = x - y, (2 * np.arange(_BLOCK) - (_BLOCK - 1)).astype(x.dtype)
    rows, columns = x.sum(axis=3), x.sum(axis=1)
    slopes = np.einsum("aib,i->ab", rows, ramp), np.einsum("abj,j->ab", columns, ramp)
    power, change = np.einsum("aibj,aibj->ab", x, x), np.einsum("aibj,aibj->ab", d, d)
    beside = np.einsum("aibj,aibj->ab", d[:, :, :, 1:], d[:, :, :, :-1])
    above = np.einsum("aibj,aibj->ab", d[:, 1:], d[:, :-1])
    sums = rows.sum(axis=1), power, *slopes, d.sum(axis=(1, 3)), change, beside + above
    return noise_of_sums(np.stack(sums, axis=-1).astype(np.float64), newer.format.bits)


def noise_grid(shape: tuple[int, ...]) -> tuple[int, int]:
    """How many blocks `noise_of` looks at in a plane, (rows, columns); they are spread evenly over it."""
    rows, columns = (min(size // _BLOCK, most) for size, most in zip(shape, _GRID, strict=True))
    return rows, columns


def noise_of_sums(sums: NDArray[np.float64], bits: int) -> Noise:
    """`noise_of` from sums over its blocks. Of whole codes they are exact, so that all devices come to one result.

    Args:
        sums: (rows, columns, 7), of each block x and of its difference d from the frame before: x, x^2, x times twice
            its row's distance from the middle, x times twice its column's, d, d^2, and d times the d right of it and
            the d below it, as far as those are in the block.
        bits: of a code.
    """
    count, scale = _BLOCK**2, 2.0 ** (8 - bits)
    total, squares, down, across, change, changes, pairs = np.moveaxis(sums, -1, 0)
    tilt = (down**2 + across**2) / (count * (_BLOCK**2 - 1) / 3)  # what slopes account for of the sum of squares
    spatial = np.maximum(squares - total**2 / count - tilt, 0) / (count - 3)
    temporal = np.maximum(changes - change**2 / count, 0) / (count - 1) / 2
    mean = total / count * scale
    shown = (mean > _CLIPPED[0]) & (mean < _CLIPPED[1])
    if np.count_nonzero(shown) * 20 < shown.size:
        return Noise(0.0)
    estimates = np.sqrt(np.minimum(spatial, temporal)[shown])
    read: list[float] = []
    for group in np.array_split(estimates[np.argsort(mean[shown], kind="stable")], min(_TONES, estimates.size)):
        low, high = np.quantile(group, _QUANTILES, method="lower")
        read.append(max(0.0, 2 * float(low) - float(high)))
    quiet = estimates <= np.quantile(estimates, _QUIET, method="lower")
    shift = (change[shown][quiet] / count) ** 2
    variance = float((changes[shown][quiet] / count - shift).sum())
    covariance = float((pairs[shown][quiet] / (2 * _BLOCK * (_BLOCK - 1)) - shift).sum())
    correlation = covariance / variance if variance > 0 else 0.0
    return Noise(sorted(read)[(len(read) - 1) // 2] * scale / _BIAS, correlation)


def _blocks(plane: Array) -> NDArray[np.floating[Any]]:
    """Blocks spread evenly over a plane, as (rows, 8, columns, 8) on the host, in floats that sum squares exactly."""
    counts, spots = noise_grid(plane.shape), []
    for size, count in zip(plane.shape, counts, strict=True):
        first = np.arange(count) * (size // _BLOCK) // count * _BLOCK
        spots.append((first[:, None] + np.arange(_BLOCK)).ravel())
    picked = plane[spots[0]][:, spots[1]]
    host = picked.get() if hasattr(picked, "get") else picked
    exact = np.float32 if plane.dtype == np.uint8 else np.float64
    return np.asarray(host, exact).reshape(counts[0], _BLOCK, counts[1], _BLOCK)


def _likeness(guide: Array, other: Array, threshold: float) -> Array:
    """exp(-(d / t)^2) at every pixel, d the 3x3 mean of |other - guide|."""
    d = np.pad(np.abs(other - guide), 1, mode="edge")
    d = d[:-2] + d[1:-1] + d[2:]
    d = (d[:, :-2] + d[:, 1:-1] + d[:, 2:]) * np.float32(1 / (9 * threshold))
    return np.exp(-(d * d))


def _block_mean(weight: Array, fmt: PixelFormat) -> Array:
    """The mean of a map over each chroma sample's block of luma samples, edges replicated where the size is odd."""
    h, w = 1 << fmt.log2_h, 1 << fmt.log2_w
    rows, columns = fmt.plane_shape(1, *weight.shape)
    weight = np.pad(weight, ((0, rows * h - weight.shape[0]), (0, columns * w - weight.shape[1])), mode="edge")
    return weight.reshape(rows, h, columns, w).mean(axis=(1, 3))

"""Image quality by the field's definitions, in numpy alone: PSNR, SSIM, BT.601 luma, and MATLAB's `imresize`.

Images are arrays of H x W or H x W x C; 8-bit images are uint8, everything else is float in code values (0..255) unless
stated otherwise.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

type Image = NDArray[Any]
type Kernel = Literal["bicubic", "lanczos3"]


def _cubic(x: Image) -> Image:
    """Keys' cubic convolution kernel with a = -0.5 (Keys 1981), the one of MATLAB's `imresize`."""
    a = np.abs(x)
    near, far = (1.5 * a - 2.5) * a * a + 1, ((-0.5 * a + 2.5) * a - 4) * a + 2
    return np.where(a <= 1, near, np.where(a <= 2, far, 0.0))


def _lanczos3(x: Image) -> Image:
    """Three-lobed Lanczos kernel."""
    return np.where(np.abs(x) < 3, np.sinc(x) * np.sinc(x / 3), 0.0)


_KERNELS: dict[str, tuple[Callable[[Image], Image], int]] = {"bicubic": (_cubic, 4), "lanczos3": (_lanczos3, 6)}


def resize_taps(
    size: int, out_size: int, scale: float, kernel: Kernel = "bicubic", *, shift: float = 0.0
) -> tuple[Image, Image]:
    """Which input samples make each output sample, and how much of each.

    Args:
        size: samples in.
        out_size: samples out.
        scale: out per in; below 1 the kernel is widened by 1 / scale (antialiasing).
        kernel: "bicubic" or "lanczos3".
        shift: how much further on every output sample sits, in input samples: for chroma that is not sited centrally.

    Returns:
        indices, int, and weights, float64, both (taps, out_size). The indices of a sample are consecutive, its weights
        sum to one. Beyond the border the last sample is repeated: the LR images in circulation were made so (newer
        MATLABs mirror instead).
    """
    function, width = _KERNELS[kernel]
    shrink = min(scale, 1.0)
    support = width / shrink
    centre = (np.arange(out_size) + 0.5) / scale - 0.5 + shift
    taps = int(np.ceil(support)) + 2
    indices = np.floor(centre - support / 2).astype(np.int64) + np.arange(taps)[:, None]
    weights = function(shrink * (centre - indices))
    weights /= weights.sum(axis=0)
    # Rounding leaves 1e-17 where the kernel ends; zeros between other taps stay, so that taps are consecutive.
    used = np.flatnonzero(np.any(np.abs(weights) > 1e-12, axis=1))
    ends = slice(used[0], used[-1] + 1)
    indices, weights = indices[ends], weights[ends]
    return np.clip(indices, 0, size - 1), weights


def imresize(
    image: Image, scale: float, kernel: Kernel = "bicubic", *, shift: tuple[float, float] = (0.0, 0.0)
) -> Image:
    """MATLAB's `imresize(image, scale, kernel)`, antialiased when it shrinks; the field's way to make LR images.

    Args:
        image: (H, W) or (H, W, C). uint8 is rounded to 8 bits after the vertical pass and again after the horizontal
            one, as MATLAB does; float is not rounded.
        scale: output size over input size; the output has ceil(scale * size) rows and columns.
        kernel: "bicubic" (a = -0.5) or "lanczos3".
        shift: how much further (down, to the right) every output sample sits, in input samples.

    Returns:
        The resized image in the dtype of `image`.
    """
    result = image
    for axis in (0, 1):
        size = image.shape[axis]
        # The subtraction keeps 1/3 * 300 from becoming 101 rows by the last bit of the product.
        out_size = int(np.ceil(scale * size - 1e-9))
        indices, weights = resize_taps(size, out_size, scale, kernel, shift=shift[axis])
        dtype = np.float64 if image.dtype in (np.uint8, np.float64) else np.float32
        shape = [1] * image.ndim
        shape[axis] = out_size
        total: Image = np.zeros((*result.shape[:axis], out_size, *result.shape[axis + 1 :]), dtype)
        for index, weight in zip(indices, weights, strict=True):
            total += np.take(result, index, axis=axis) * weight.reshape(shape).astype(dtype)
        # MATLAB rounds halves away from zero; values below zero are clipped, so floor(x + 0.5) is that.
        result = np.clip(np.floor(total + 0.5), 0, 255).astype(np.uint8) if image.dtype == np.uint8 else total
    return result


def to_y(rgb: Image) -> Image:
    """BT.601 luma of the field's tables (MATLAB's `rgb2ycbcr`): (..., 3) in 0..255 to (...) in 16..235, float64."""
    weights = np.array([65.481, 128.553, 24.966]) / 255
    return 16 + np.asarray(rgb, np.float64) @ weights


def psnr(image: Image, reference: Image, *, border: int = 0, peak: float = 255.0) -> float:
    """Peak signal-to-noise ratio in dB over all samples; infinite where both are equal.

    Args:
        image: (H, W) or (H, W, C).
        reference: of the same shape.
        border: pixels left out at each edge.
        peak: the value of full white.

    Raises:
        ValueError: the shapes differ, or the border leaves nothing.
    """
    difference = _inside(image, reference, border)
    error = float(np.mean(np.square(difference[0] - difference[1])))
    return float("inf") if error == 0 else float(10 * np.log10(peak * peak / error))


def _inside(image: Image, reference: Image, border: int) -> tuple[Image, Image]:
    """Both as float64 without their borders."""
    if image.shape != reference.shape:
        raise ValueError(f"images of {image.shape} and {reference.shape} cannot be compared")
    if 2 * border >= min(image.shape[:2]):
        raise ValueError(f"a border of {border} leaves nothing of {image.shape}")
    inside = (slice(border, image.shape[0] - border), slice(border, image.shape[1] - border))
    return np.asarray(image[inside], np.float64), np.asarray(reference[inside], np.float64)


def ssim(image: Image, reference: Image, *, border: int = 0, peak: float = 255.0) -> float:
    """Structural similarity of two one-channel images (Wang et al. 2004), 1 where both are equal.

    Gaussian window of 11 x 11 with sigma 1.5, K1 = 0.01, K2 = 0.03, averaged where the window fits wholly, as in the
    authors' own code.

    Args:
        image: (H, W).
        reference: of the same shape.
        border: pixels left out at each edge.
        peak: the value of full white.

    Raises:
        ValueError: the shapes differ, there are channels, or fewer than 11 pixels are left.
    """
    x, y = _inside(image, reference, border)
    if x.ndim != 2 or min(x.shape) < 11:
        raise ValueError(f"SSIM needs one channel of 11 x 11 pixels or more, not {x.shape}")
    mean_x, mean_y = _gaussian(x), _gaussian(y)
    var_x, var_y = _gaussian(x * x) - mean_x**2, _gaussian(y * y) - mean_y**2
    covariance = _gaussian(x * y) - mean_x * mean_y
    c1, c2 = (0.01 * peak) ** 2, (0.03 * peak) ** 2
    numerator = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    return float(np.mean(numerator / ((mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2))))


def _gaussian(image: Image) -> Image:
    """SSIM's window as a weighted mean, where it fits: (H, W) to (H - 10, W - 10)."""
    taps = np.exp(-(np.arange(-5, 6) ** 2) / (2 * 1.5**2))
    taps /= taps.sum()
    rows, columns = image.shape[0] - 10, image.shape[1] - 10
    image = sum(t * image[i : i + rows] for i, t in enumerate(taps))
    image = sum(t * image[:, i : i + columns] for i, t in enumerate(taps))
    return image

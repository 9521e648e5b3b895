"""What training minimises: a weighted sum of terms, each a function of (N, 3, H, W) output and target in 0..1."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from videosr.training.config import TrainingConfig
from videosr.training.perceptual import Perceptual

LUMA = (0.299, 0.587, 0.114)
"""Of R'G'B', by ITU-R BT.601."""


def charbonnier(output: Tensor, target: Tensor) -> Tensor:
    """sqrt(difference^2 + 1e-3^2), averaged (Lai et al. 2017)."""
    return torch.sqrt((output - target).square() + 1e-6).mean()


def psnr_loss(output: Tensor, target: Tensor, knee: float = 37.0) -> Tensor:
    """Squared error e of each patch as s ln(1 + e / s), averaged: e itself where it is small, its decibels where not.

    s is the squared error of `knee` decibels. A table's PSNR is the mean of the pictures' decibels, so that smooth
    pictures count as much as busy ones; a mean of squared errors is that of the busy ones (after Chen et al. 2021,
    HINet, whose loss is the PSNR itself).
    """
    errors = (output - target).square().mean(dim=(1, 2, 3))
    s = 10 ** (-knee / 10)
    return s * torch.log1p(errors / s).mean()


def ssim_loss(output: Tensor, target: Tensor) -> Tensor:
    """1 - SSIM (Wang et al. 2004; as a loss Zhao et al. 2017), of each channel, with the window of `metrics.ssim`."""
    offsets = torch.arange(-5.0, 6.0, device=output.device)
    taps = torch.softmax(-(offsets**2) / (2 * 1.5**2), dim=0)

    def mean(x: Tensor) -> Tensor:
        x = F.conv2d(x.flatten(0, 1)[:, None], taps.view(1, 1, 1, -1))
        return F.conv2d(x, taps.view(1, 1, -1, 1))

    mean_x, mean_y = mean(output), mean(target)
    var_x, var_y = mean(output * output) - mean_x**2, mean(target * target) - mean_y**2
    covariance = mean(output * target) - mean_x * mean_y
    c1, c2 = 0.01**2, 0.03**2
    numerator = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    return 1 - (numerator / ((mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2))).mean()


def fft_loss(output: Tensor, target: Tensor) -> Tensor:
    """L1 of the two-dimensional spectra, real and imaginary parts apart (Cho et al. 2021, MIMO-UNet).

    The transform is orthonormal, so the weight means the same at every patch size.
    """
    difference = torch.fft.rfft2(output - target, norm="ortho")
    return torch.view_as_real(difference).abs().mean()


def consistency_loss(output: Tensor, target: Tensor) -> Tensor:
    """L1 of the change from one frame to the next, against the target's (the temporal loss of Chu et al. 2020, plain).

    The second half of either holds the frames before those of the first half. What stands still in the target and
    flickers in the output costs; what moves may move.
    """
    change, expected = (newer - older for newer, older in (x.chunk(2) for x in (output, target)))
    return F.l1_loss(change, expected)


def of_luma(term: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    """`term` of the luma of both, (N, 1, H, W) in 0..1: BT.601's, full range."""

    def luma_term(output: Tensor, target: Tensor) -> Tensor:
        r, g, b = LUMA
        return term(*(r * x[:, :1] + g * x[:, 1:2] + b * x[:, 2:] for x in (output, target)))

    return luma_term


def of_chroma(term: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    """`term` of the chroma of both as 4:2:0 video keeps it: (N, 2, H/2, W/2), Cb and Cr by BT.601, each the mean of
    2x2 pixels, in -1/2..1/2.
    """
    r, g, b = LUMA

    def halves(x: Tensor) -> Tensor:
        x = F.avg_pool2d(x, 2)
        luma = r * x[:, :1] + g * x[:, 1:2] + b * x[:, 2:]
        blue, red = x[:, 2:] - luma, x[:, :1] - luma
        return torch.cat((blue / (2 * (1 - b)), red / (2 * (1 - r))), dim=1)

    return lambda output, target: term(halves(output), halves(target))


CHROMA_KNEE = 10.0
"""Decibels by which the chroma of pictures is closer to the original's than luma is, roughly."""

PIXEL: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "l1": F.l1_loss,
    "charbonnier": charbonnier,
    "l2": F.mse_loss,
}


class Objective(nn.Module):
    """The weighted terms that need no training of their own.

    Args:
        config: its `schedule.loss`, `loss_weights` and `perceptual`.

    Raises:
        NetworkError: the weights of the perceptual loss cannot be used.
    """

    def __init__(self, config: TrainingConfig) -> None:
        super().__init__()
        w = config.loss_weights
        perceptual = Perceptual(config.perceptual) if config.perceptual is not None and w.perceptual else None
        self.vgg = perceptual  # registered, so that it moves along to the device
        schedule = config.schedule
        pixel = (PIXEL | {"psnr": partial(psnr_loss, knee=schedule.loss_knee)})[schedule.loss]
        chroma = (PIXEL | {"psnr": partial(psnr_loss, knee=schedule.loss_knee + CHROMA_KNEE)})[schedule.loss]
        terms: dict[str, tuple[float, Callable[[Tensor, Tensor], Tensor] | None]] = {
            schedule.loss: (w.pixel, pixel),
            "luma": (w.luma, of_luma(pixel)),
            "chroma": (w.chroma, of_chroma(chroma)),
            "ssim": (w.ssim, ssim_loss),
            "fft": (w.fft, fft_loss),
            "consistency": (w.consistency, consistency_loss),
            "perceptual": (w.perceptual, perceptual),
        }
        self.terms = {name: (weight, term) for name, (weight, term) in terms.items() if weight and term is not None}

    def forward(self, output: Tensor, target: Tensor) -> dict[str, Tensor]:
        """Each term by its name, weighted: their sum is what is minimised."""
        return {name: weight * term(output, target) for name, (weight, term) in self.terms.items()}

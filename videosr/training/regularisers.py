"""What is left out of the features in training, so that the network learns to do with the rest."""

from __future__ import annotations

import torch
from torch import Tensor

from videosr.archs.families import Network

BANDS = 8
"""Rings of equal width that a spectrum is cut into, from zero frequency to the corner."""


def drop_bands(features: Tensor, kept: Tensor) -> Tensor:
    """Features without some of their frequencies.

    Args:
        features: (N, C, H, W).
        kept: (N, BANDS) of 0 and 1: which rings of the spectrum stay, from low to high frequency.
    """
    height, width = features.shape[2:]
    down = torch.fft.fftfreq(height, device=features.device)[:, None]
    across = torch.fft.rfftfreq(width, device=features.device)
    ring = (torch.sqrt(down**2 + across**2) * (BANDS / 0.5**0.5)).long().clamp(max=BANDS - 1)
    spectrum = torch.fft.rfft2(features.float()) * kept.to(features.device)[:, None, ring]
    left: Tensor = torch.fft.irfft2(spectrum, s=(height, width)).to(features.dtype)
    return left


def add_frequency_dropout(network: Network, share: float) -> None:
    """Random bands of the spectrum of every group's features are left out in training; nothing changes in use.

    Dropout for super-resolution as in Kong et al. 2022, of frequencies instead of channels. Each band goes with the
    same chance, but the lowest, which holds the means, stays; what is kept is not scaled up. Drawn from torch's
    generator of the CPU, on which exact resumption rests.
    """

    def drop(_: torch.nn.Module, __: tuple[Tensor, ...], output: Tensor) -> Tensor:
        if not network.training:
            return output
        kept = (torch.rand(len(output), BANDS) >= share).float()
        kept[:, 0] = 1
        return drop_bands(output, kept)

    for group in network.body:
        group.register_forward_hook(drop)

"""How random weights begin: features of natural pictures equally strong, and gates open.

Random kernels see little but brightness, and a network takes hundreds of updates to find out that there are edges. So
the first ones are the principal components of training patches, scaled to variance 1 (patch whitening: Coates, Ng and
Lee 2011, "An analysis of single-layer networks in unsupervised feature learning").
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from videosr.archs.paragon_blocks import StreamBlock
from videosr.archs.paragonsr2 import ParagonSR2
from videosr.export import natural_picture

FLOOR = 1e-4
"""Added to variances, of values in 0..1: what is weaker than about two code values is noise, not a feature."""


def whitening(pictures: Tensor, channels: int) -> tuple[Tensor, Tensor]:
    """Kernels and biases of a 3x3 convolution whose outputs are white (mean 0, variance 1, no correlation).

    Args:
        pictures: (N, C, H, W).
        channels: of the output. The strongest components come first; where there are more channels than components,
            random mixtures of all of them fill up.

    Returns:
        (channels, C, 3, 3) and (channels,).
    """
    patches = F.unfold(pictures.double(), 3).transpose(1, 2).flatten(0, 1)
    mean = patches.mean(dim=0)
    variances, components = torch.linalg.eigh(torch.cov(patches.T))  # ascending
    kernels = (components / (variances.clamp(min=0) + FLOOR).sqrt()).T.flip(0)
    if channels > len(kernels):
        # Drawn on the CPU, so that a run begins alike on every device.
        mixtures = torch.randn(channels - len(kernels), len(kernels)).to(kernels) * len(kernels) ** -0.5
        kernels = torch.cat([kernels, mixtures @ kernels])
    kernels = kernels[:channels]
    weight = kernels.reshape(channels, pictures.shape[1], 3, 3)
    return weight.to(pictures), (-kernels @ mean).to(pictures)


@torch.no_grad()
def open_gates(network: ParagonSR2) -> None:
    """Start the stream network anew: kernels that keep the variance, gates that let half of the channels through.

    With torch's kernels, each of which takes two thirds of the variance away, the product of two branches is next to
    nothing, and so are its gradients. Variance kept as in He et al. 2015, for layers without a rectifier.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and module.weight.requires_grad and module.bias is not None:
            module.weight.normal_(std=module.weight[0].numel() ** -0.5)
            module.bias.zero_()
    for module in network.modules():
        if isinstance(module, StreamBlock) and module.gate.bias is not None:
            module.gate.bias[len(module.gate.bias) // 2 :] = 1
    network.conv_out.weight.mul_(0.1)  # the base path is a good picture already: begin near it


def natural_pictures() -> Tensor:
    """Always the same pictures, (16, 3, 96, 96) in 0..1, to see what features a network makes of such."""
    generator = torch.Generator().manual_seed(0)
    return torch.cat([natural_picture(96, 96, generator) for _ in range(16)])


def bias_of(layer: nn.Module) -> Tensor:
    """The bias of a convolution or of a linear layer that has one."""
    assert isinstance(layer, nn.Conv2d | nn.Linear)
    assert layer.bias is not None
    return layer.bias

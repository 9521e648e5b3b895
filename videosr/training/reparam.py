"""Structural re-parameterisation: convolutions trained as sums of linear branches that fold to one kernel exactly.

The branches live in weight space, not on feature maps (as in Bhardwaj et al. 2022, SESR, and Hu et al. 2022,
"Online convolutional re-parameterization"): a step costs a few small products more, whatever the picture's size, and
the network that comes out is the plain one. What changes is the geometry that the optimiser walks in.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize


class Expanded(nn.Module):
    """The kernel of a dense convolution: w + (k x k after a 1 x 1 to many channels) + a 1 x 1.

    Args:
        weight: (out, in, k, k), k odd: the kernel it starts as, exactly.
        factor: channels between the two convolutions of the second branch, in units of the larger of `out` and `in`.
    """

    def __init__(self, weight: Tensor, factor: int) -> None:
        super().__init__()
        out, inner, size, _ = weight.shape
        between = factor * max(out, inner)
        self.narrow = nn.Parameter(torch.randn(between, inner) * inner**-0.5)
        self.wide = nn.Parameter(torch.zeros(out, between, size, size))
        self.point = nn.Parameter(torch.zeros(out, inner, 1, 1)) if size > 1 else None

    def forward(self, weight: Tensor) -> Tensor:
        """The folded kernel, in the shape of `weight`."""
        with torch.autocast(weight.device.type, enabled=False):  # kernels are float32 whatever they are used in
            kernel = weight + torch.einsum("omyx,mi->oiyx", self.wide, self.narrow)
        if self.point is not None:
            kernel = kernel + F.pad(self.point, [weight.shape[-1] // 2] * 4)
        return kernel


class ExpandedDepthwise(nn.Module):
    """The kernel of a depthwise convolution: w times a factor per channel, a point, a row and a column.

    Args:
        weight: (channels, 1, k, k), k odd: the kernel it starts as, exactly.
    """

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        channels, _, size, _ = weight.shape
        self.gain = nn.Parameter(torch.ones(channels, 1, 1, 1))
        self.point = nn.Parameter(torch.zeros(channels, 1, 1, 1))
        self.row = nn.Parameter(torch.zeros(channels, 1, 1, size))
        self.column = nn.Parameter(torch.zeros(channels, 1, size, 1))

    def forward(self, weight: Tensor) -> Tensor:
        """The folded kernel, in the shape of `weight`."""
        rim = weight.shape[-1] // 2
        cross = F.pad(self.row, [0, 0, rim, rim]) + F.pad(self.column, [rim, rim, 0, 0])
        return self.gain * weight + cross + F.pad(self.point, [rim] * 4)


def expand(network: nn.Module, factor: int) -> None:
    """Over-parameterise every trained convolution of a network, in place; it computes what it did before.

    Names of parameters change; `folded_parameters` gives the plain ones.
    """
    for module in list(network.modules()):
        if isinstance(module, nn.Conv2d) and module.weight.requires_grad:
            weight = module.weight
            branches = ExpandedDepthwise(weight) if module.groups > 1 else Expanded(weight, factor)
            parametrize.register_parametrization(module, "weight", branches.to(weight))


@torch.no_grad()
def folded_parameters(network: nn.Module, plain: nn.Module) -> list[Tensor]:
    """The values of `network`, expanded or not, in the order of the parameters of `plain`, its twin before `expand`."""
    modules = dict(network.named_modules())
    values = []
    for name, _ in plain.named_parameters():
        owner, _, leaf = name.rpartition(".")
        values.append(getattr(modules[owner], leaf).detach())
    return values

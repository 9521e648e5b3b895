"""The linear tail of ParagonSR2 as one convolution, differentiably: the same function for half the arithmetic.

Nothing non-linear stands between `up` and the output, so `up`, PixelShuffle, `conv_out` and `detail_gain` compose into
one 5x5 convolution at LR resolution. Gradients flow through the composition to the small kernels it is made of.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from videosr.archs.families import Network
from videosr.archs.paragonsr2 import ParagonSR2


def fold_tail(network: ParagonSR2) -> tuple[Tensor, Tensor]:
    """Kernel (3 * scale^2, C, 5, 5) and bias (3 * scale^2) of the convolution that replaces all after `conv_mid`."""
    scale, up, out = network.scale, network.up[0], network.conv_out
    assert isinstance(up, nn.Conv2d)
    assert up.bias is not None
    # The response of the tail to a single one in each feature channel is the folded kernel, mirrored.
    response = F.pad(up.weight.flip(2, 3).transpose(0, 1), (1, 1, 1, 1))
    response = F.conv2d(F.pixel_shuffle(response, scale), out.weight, padding=1)
    kernel = F.pixel_unshuffle(response, scale).flip(2, 3).transpose(0, 1)
    # Far from borders the bias of `up` is a pattern that repeats with every LR pixel.
    pattern = F.pixel_shuffle(up.bias.view(1, -1, 1, 1).expand(1, -1, 3, 3), scale)
    pattern = F.conv2d(pattern, out.weight, out.bias)[:, :, scale - 1 : 2 * scale - 1, scale - 1 : 2 * scale - 1]
    bias = F.pixel_unshuffle(pattern, scale).flatten()
    return kernel * network.detail_gain, bias * network.detail_gain


def forward_folded(network: Network, x: Tensor, average: Tensor | None = None) -> Tensor:
    """`network(x, average)`, equal but for rounding and for the rim, where the unfolded one pads inner maps with zeros.

    Args:
        network: any variant and scale. Only ParagonSR2 has a linear tail; others run as they are.
        x: (N, 3, H, W), RGB in 0..1.
        average: what ParagonSR2's detail path sees instead, same shape.

    Returns:
        (N, 3, scale * H, scale * W), unclamped. Under autocast the tail is folded, and the base path computed, in
        float32 all the same: half precision there would be an error of the pictures, of about 59 dB.
    """
    if not isinstance(network, ParagonSR2):
        output: Tensor = network(x)
        return output
    exact = torch.autocast(x.device.type, enabled=False)
    with exact:
        kernel, bias = fold_tail(network)
    if x.is_contiguous(memory_format=torch.channels_last):
        kernel = kernel.contiguous(memory_format=torch.channels_last)
    features = network.conv_mid(network.body(network.conv_in(x if average is None else average)))
    detail = F.pixel_shuffle(F.conv2d(features, kernel, bias, padding=2), network.scale)
    with torch.no_grad(), exact:
        base: Tensor = network.base(x)
    return detail + base

"""A network that begins as one of another scale.

What the body of a network finds in a picture depends little on how far it is then enlarged, and at 2x it learns that
from four times as much of every original as at 4x. So the body stays as it is, and only what enlarges is made anew.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from videosr.archs.paragonsr2 import ParagonSR2
from videosr.training.growing import least_squares
from videosr.training.start import bias_of

TAIL = ("base.", "up.", "conv_out.", "detail_gain")
"""What depends on the scale, as state-dict names begin."""

RIM = 8
"""LR pixels at the edges of a patch that the fit does not see: near them the network pads with zeros."""


@torch.no_grad()
def rescaled(known: ParagonSR2, scale: int) -> ParagonSR2:
    """The body of a network of any scale with a random tail for this one, which `fit_tail` has still to fit.

    Args:
        known: any variant; left as it is.
        scale: of the result, see `ParagonSR2`.
    """
    network = ParagonSR2(
        known.variant,
        scale,
        upsampler_alpha=known.base.alpha,
        export_safe=not known.has_windows,
        window_size=known.window_size,
        product_limit=known.product_limit,
    )
    body = {name: value for name, value in known.state_dict().items() if not name.startswith(TAIL)}
    network.load_state_dict(body, strict=False)
    network.conv_out.weight.zero_()
    bias_of(network.conv_out).zero_()
    return network


def is_fitted(network: ParagonSR2) -> bool:
    """Whether the tail makes a picture already."""
    return bool(network.conv_out.weight.any())


@torch.no_grad()
def fit_tail(network: ParagonSR2, lr: Tensor, hr: Tensor) -> None:
    """Give a rescaled network the tail that comes nearest to these pictures with its body.

    Three of the channels that `up` makes become the detail path's picture, by least squares, and `conv_out` passes
    them on; the others stay random, and begin as nothing in the output.

    Args:
        network: from `rescaled`.
        lr: (N, 3, H, W), RGB in 0..1.
        hr: (N, 3, scale * H, scale * W), what it is to make of them.
    """
    features = network.conv_mid(network.body(network.conv_in(lr)))
    wanted = F.pixel_unshuffle(hr - network.base(lr), network.scale)
    height, width = lr.shape[2:]
    seen = F.unfold(features, 3, padding=1).view(len(lr), -1, height, width)
    rims = [min(RIM, size // 4) for size in (height, width)]
    rows, columns = (slice(rim, -rim, 2) for rim in rims)  # neighbours say much the same
    kernels, biases = least_squares(seen[..., rows, columns], wanted[..., rows, columns])
    up, out = network.up[0], network.conv_out
    assert isinstance(up, nn.Conv2d)
    strength = up.weight.std() / kernels.std()  # as strong as the random ones, so that all learn as fast
    picture = slice(len(kernels))  # 3 * scale^2, which PixelShuffle makes the first three channels of
    up.weight[picture] = kernels.view_as(up.weight[picture]) * strength
    bias_of(up)[picture] = biases * strength
    out.weight[range(3), range(3), 1, 1] = 1 / (strength * network.detail_gain)

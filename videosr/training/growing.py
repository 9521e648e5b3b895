"""A photo network that begins as what a realtime network has learned.

Training `photo` from random weights spends its first hours on what `realtime` knows already. Both are rows of residual
blocks made of the same convolutions (1x1, depthwise 3x3, GELU, 1x1), so the small network fits into the large one:
its channels become the first ones, its blocks every few blocks, and what is new begins random but without a say in
the output (after Net2Net: Chen, Goodfellow and Shlens 2016).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from videosr.archs.paragonsr2 import NanoBlock, ParagonSR2, PhotoBlock

ANCHOR = 32.0
"""The value of one channel that is the same everywhere. Beside it the other features do not count in the root mean
square, so that the blocks' normalisation begins as a division by a constant, which its learned scale undoes."""


@torch.no_grad()
def grown(small: ParagonSR2, layer_scale: float) -> ParagonSR2:
    """A photo network that computes what a realtime network does, to about 70 dB on pictures, and can go on from there.

    Args:
        small: a realtime network; left as it is.
        layer_scale: of the channels that are new.
    """
    large = ParagonSR2("photo", small.scale, upsampler_alpha=small.base.alpha, layer_scale=layer_scale)
    known, channels = small.conv_in.out_channels, large.conv_in.out_channels
    anchor = channels - 1
    _put(small.conv_in, large.conv_in, known, 3)
    large.conv_in.weight[anchor] = 0
    _bias(large.conv_in)[anchor] = ANCHOR

    old = [module for module in small.body.modules() if isinstance(module, NanoBlock)]
    new = [module for module in large.body.modules() if isinstance(module, PhotoBlock)]
    for block in new:
        for norm in (block.norm, block.attn_norm):
            norm.scale.fill_(ANCHOR * channels**-0.5)
            norm.scale[anchor] = channels**-0.5
        block.conv1.weight[:, anchor] = 0
        for layer in (block.conv2, block.attn.proj):  # nothing is added to what is known, nor to the anchor
            for rows in (slice(known), slice(anchor, None)):
                layer.weight[rows] = 0
                _bias(layer)[rows] = 0
    for i, nano in enumerate(old):
        block = new[len(new) * i // len(old)]
        wide = nano.dw.out_channels
        _put(nano.conv1, block.conv1, wide, known)
        _put(nano.dw, block.dw, wide, 1)
        _put(nano.conv2, block.conv2, known, wide)
        block.scale.gamma[:, :known] = nano.scale.gamma
    _put(small.conv_mid, large.conv_mid, known, known)
    _put(small.up[0], large.up[0], known * small.scale**2, known)
    _put(small.conv_out, large.conv_out, 3, known)
    large.detail_gain.copy_(small.detail_gain)
    return large


def _put(known: nn.Module, layer: nn.Module, rows: int, columns: int) -> None:
    """A known kernel into the corner of a larger one; what those rows see besides begins as nothing."""
    assert isinstance(known, nn.Conv2d)
    assert isinstance(layer, nn.Conv2d)
    layer.weight[:rows] = 0
    layer.weight[:rows, :columns] = known.weight
    _bias(layer)[:rows] = _bias(known)


def _bias(layer: nn.Conv2d | nn.Linear) -> Tensor:
    assert layer.bias is not None
    return layer.bias

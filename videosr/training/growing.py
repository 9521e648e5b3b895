"""Larger networks that begin as what a smaller one has learned.

Training from random weights spends its first hours on what `realtime` knows already. All of ParagonSR2's networks are
rows of residual blocks of 1x1 and depthwise 3x3 convolutions, so the small network fits into the large one: its
channels become the first ones, its blocks every few blocks, and what is new begins random but without a say in the
output (after Net2Net: Chen, Goodfellow and Shlens 2016). For NEXUS, which is built otherwise, see `growing_nexus`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from videosr.archs.families import Network
from videosr.archs.paragonsr2 import NanoBlock, ParagonSR2, PhotoBlock, RMSNorm, StreamBlock
from videosr.training.growing_nexus import grown_nexus
from videosr.training.start import bias_of, natural_pictures, whitening

GROWN = {"fine": "realtime", "photo": "realtime", "stream": "realtime", "nexus_tiny": "fine"}
"""The variants that can begin so, and from what."""

ANCHOR = 32.0
"""The value of one channel that is the same everywhere. Beside it the other features do not count in the root mean
square, so that the normalisation of photo's blocks begins as a division by a constant, which its learned scale
undoes."""


@torch.no_grad()
def grown(small: ParagonSR2, variant: str, layer_scale: float, *, windows: bool = True) -> Network:
    """A network that computes what a smaller one does, and can go on from there.

    Args:
        small: a network of the variant in `GROWN`; left as it is.
        variant: "fine", which begins as it; "photo", within 71 dB of it; "stream", which has products in place of GELU
            and begins within half a decibel of its quality; or "nexus_tiny", within 48 dB of it but at the borders.
        layer_scale: of what is new.
        windows: with window attention, where the variant can do without.
    """
    if variant == "nexus_tiny":
        return grown_nexus(small, layer_scale)
    large = ParagonSR2(
        variant, small.scale, upsampler_alpha=small.base.alpha, layer_scale=layer_scale, export_safe=not windows
    )
    known = small.conv_in.out_channels
    _put(small.conv_in, large.conv_in, known, 3)
    old = [module for module in small.body.modules() if isinstance(module, NanoBlock)]
    {"fine": _fine, "photo": _photo, "stream": _stream}[variant](small, old, large)
    _put(small.conv_mid, large.conv_mid, known, known)
    _put(small.up[0], large.up[0], known * small.scale**2, known)
    _put(small.conv_out, large.conv_out, 3, known)
    large.detail_gain.copy_(small.detail_gain)
    return large


def _fine(small: ParagonSR2, old: list[NanoBlock], large: ParagonSR2) -> None:
    """Wider, and with more of the same blocks."""
    new = [module for module in large.body.modules() if isinstance(module, NanoBlock)]
    known = small.conv_in.out_channels
    for block in new:  # nothing is added to what is known
        block.conv2.weight[:known] = 0
        bias_of(block.conv2)[:known] = 0
    for nano, block in zip(old, _spread(new, len(old)), strict=True):
        _put_block(nano, block, known)


def _put_block(nano: NanoBlock, block: NanoBlock | PhotoBlock, known: int) -> None:
    wide = nano.dw.out_channels
    _put(nano.conv1, block.conv1, wide, known)
    _put(nano.dw, block.dw, wide, 1)
    _put(nano.conv2, block.conv2, known, wide)
    block.scale.gamma[:, :known] = nano.scale.gamma


def _photo(small: ParagonSR2, old: list[NanoBlock], large: ParagonSR2) -> None:
    """Photo's blocks are those of realtime with a normalisation before them and attention after them."""
    known, channels = small.conv_in.out_channels, large.conv_in.out_channels
    anchor = channels - 1
    large.conv_in.weight[anchor] = 0
    bias_of(large.conv_in)[anchor] = ANCHOR
    new = [module for module in large.body.modules() if isinstance(module, PhotoBlock)]
    for block in new:
        norms: list[RMSNorm] = [block.norm]
        layers: list[nn.Conv2d | nn.Linear] = [block.conv2]
        if not block.export_safe:
            norms.append(block.attn_norm)
            layers.append(block.attn.proj)
        for norm in norms:
            norm.scale.fill_(ANCHOR * channels**-0.5)
            norm.scale[anchor] = channels**-0.5
        block.conv1.weight[:, anchor] = 0
        for layer in layers:  # nothing is added to what is known, nor to the anchor
            for rows in (slice(known), slice(anchor, None)):
                layer.weight[rows] = 0
                bias_of(layer)[rows] = 0
    for nano, block in zip(old, _spread(new, len(old)), strict=True):
        _put_block(nano, block, known)


def _stream(small: ParagonSR2, old: list[NanoBlock], large: ParagonSR2) -> None:
    """Stream's blocks multiply v, what Nano gives to GELU, by b + c v; with a + b v + c v^2 next to GELU on pictures.

    Fitted to the first block, then to the second on what the first makes of it, and so on.
    """
    known, channels = small.conv_in.out_channels, large.conv_in.out_channels
    pictures = natural_pictures()
    kernels, biases = whitening(pictures, channels - known)
    large.conv_in.weight[known:], bias_of(large.conv_in)[known:] = kernels, biases
    new = [module for module in large.body.modules() if isinstance(module, StreamBlock)]
    for block in new:
        block.dw1.weight.zero_()
        block.dw1.weight[:, :, 1, 1] = 1
        block.fuse.weight[:known] = 0
        block.fuse.weight[:known, :known, 0, 0] = torch.eye(known)
        block.out.weight[:known] = 0  # nothing is added to what is known
        bias_of(block.dw1).zero_()
        for layer in (block.fuse, block.out):
            bias_of(layer)[:known] = 0
        bias_of(block.gate)[2 * channels :] = 1  # open, as in `start.open_gates`
    features = small.conv_in(pictures)
    for nano, block in zip(old, _spread(new, len(old)), strict=True):
        wide = nano.dw.out_channels
        before = nano.dw(nano.conv1(features))
        constant, linear, square = _parabolas(before)
        second = slice(2 * channels, 2 * channels + wide)
        for rows in (slice(wide), second):  # both factors see what GELU saw
            block.proj.weight[rows] = 0
            block.proj.weight[rows, :known] = nano.conv1.weight
            bias_of(block.proj)[rows] = bias_of(nano.conv1)
        block.gate.weight[:wide], bias_of(block.gate)[:wide] = nano.dw.weight, bias_of(nano.dw)
        block.gate.weight[second] = nano.dw.weight * square[:, None, None, None]
        bias_of(block.gate)[second] = bias_of(nano.dw) * square + linear
        _put(nano.conv2, block.out, known, wide)
        bias_of(block.out)[:known] += nano.conv2.weight[:, :, 0, 0] @ constant
        block.scale.gamma[:, :known] = nano.scale.gamma
        after = constant.view(-1, 1, 1) + before * (linear.view(-1, 1, 1) + before * square.view(-1, 1, 1))
        features = features + nano.scale(nano.conv2(after))


def _spread[T](blocks: list[T], count: int) -> list[T]:
    """So many of them, evenly spread."""
    return [blocks[len(blocks) * i // count] for i in range(count)]


def _parabolas(values: Tensor) -> Tensor:
    """Coefficients of 1, v and v^2, (3, C), of the parabola of each channel of `values`, (N, C, H, W), next to GELU."""
    samples = values.double().transpose(0, 1).flatten(1)
    powers = torch.stack([torch.ones_like(samples), samples, samples**2], dim=-1)
    fitted: Tensor = torch.linalg.lstsq(powers, F.gelu(samples)[..., None]).solution
    return fitted[..., 0].T.to(values)


def _put(known: nn.Module, layer: nn.Module, rows: int, columns: int) -> None:
    """A known kernel into the corner of a larger one; what those rows see besides begins as nothing."""
    assert isinstance(known, nn.Conv2d)
    assert isinstance(layer, nn.Conv2d)
    layer.weight[:rows] = 0
    layer.weight[:rows, :columns] = known.weight
    bias_of(layer)[:rows] = bias_of(known)

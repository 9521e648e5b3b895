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
from videosr.archs.paragon_blocks import PRODUCT_LIMIT, NanoBlock, PhotoBlock, RMSNorm, StreamBlock
from videosr.archs.paragonsr2 import ParagonSR2
from videosr.training.growing_nexus import grown_nexus
from videosr.training.start import bias_of, natural_pictures

GROWN = {"fine": "realtime", "photo": "realtime", "stream": "fine", "nexus_tiny": "fine"}
"""The variants that can begin so, and from what."""

ANCHOR = 32.0
"""The value of one channel that is the same everywhere. Beside it the other features do not count in the root mean
square, so that the normalisation of photo's blocks begins as a division by a constant, which its learned scale
undoes."""

STREAM_BLOCKS, STREAM_AFTER = (0, 1, 2, 5, 6, 7), (0, 1, 4, 5, 6, 7)
"""Of fine's eight blocks, which ones stream's six begin as, and after which ones their results are to be what fine has:
tried on Set5, where it gave 36.4 dB of fine's 37.2."""

ROOM = 1.25
"""The limit of stream's products over what all but one in ten thousand of them come to on natural pictures."""


@torch.no_grad()
def grown(small: ParagonSR2, variant: str, layer_scale: float, *, windows: bool = True) -> Network:
    """A network that computes what a smaller one does, and can go on from there.

    Args:
        small: a network of the variant in `GROWN`; left as it is.
        variant: "fine", which begins as it; "photo", within 71 dB of it; "stream", which has products in place of GELU
            and two blocks fewer, and begins within a decibel of its quality; or "nexus_tiny", within 48 dB of it but
            at the borders.
        layer_scale: of what is new.
        windows: with window attention, where the variant can do without.
    """
    if variant == "nexus_tiny":
        return grown_nexus(small, layer_scale)
    large = ParagonSR2(
        variant,
        small.scale,
        upsampler_alpha=small.base.alpha,
        layer_scale=layer_scale,
        export_safe=not windows,
        product_limit=PRODUCT_LIMIT,
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

    Six of fine's blocks become such products, each scaled to stay within the limit, and what is made of them is fitted
    by least squares to the features that fine has after its block, on what the blocks before make of the pictures.
    """
    pictures = natural_pictures()
    features = small.conv_in(pictures)
    wanted = []
    for nano in old:
        features = nano(features)
        wanted.append(features)
    features = small.conv_in(pictures)
    channels = small.conv_in.out_channels
    new = [module for module in large.body.modules() if isinstance(module, StreamBlock)]
    for block, known, after in zip(new, STREAM_BLOCKS, STREAM_AFTER, strict=True):
        nano = old[known]
        wide = nano.dw.out_channels
        block.dw1.weight.zero_()
        block.dw1.weight[:, :, 1, 1] = 1
        block.fuse.weight.zero_()
        block.fuse.weight[:, :channels, 0, 0] = torch.eye(channels)
        block.fuse.weight[:, channels:].normal_(std=1e-3)  # of the dilated kernels next to nothing, so that they learn
        for layer in (block.dw1, block.fuse):
            bias_of(layer).zero_()
        before = nano.dw(nano.conv1(features))
        seen = before[:, :, ::4, ::4]
        linear, square = _parabolas(seen)[1:]
        usual = (seen * (linear.view(-1, 1, 1) + seen * square.view(-1, 1, 1))).transpose(0, 1).flatten(1)
        share = block.limit / (ROOM * torch.quantile(usual.abs(), 0.9999, dim=1))
        for rows in (slice(wide), slice(wide, None)):  # both factors see what GELU saw
            block.proj.weight[rows] = nano.conv1.weight
            bias_of(block.proj)[rows] = bias_of(nano.conv1)
        block.gate.weight[:wide] = nano.dw.weight * share.view(-1, 1, 1, 1)
        block.gate.weight[wide:] = nano.dw.weight * square.view(-1, 1, 1, 1)
        bias_of(block.gate)[:wide] = bias_of(nano.dw) * share
        bias_of(block.gate)[wide:] = bias_of(nano.dw) * square + linear
        change = (wanted[after] - features) / block.scale.gamma
        products = block.products(features)
        block.out.weight[:, :, 0, 0], bias_of(block.out)[:] = least_squares(products, change)
        features = features + block.scale(block.out(products))


def least_squares(given: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
    """Weight (D, C) and bias (D) of the 1x1 convolution from (N, C, H, W) that comes nearest to (N, D, H, W)."""
    inputs, outputs = (x.double().transpose(0, 1).flatten(1) for x in (given, wanted))
    inputs = torch.cat([inputs, torch.ones_like(inputs[:1])])
    moments = inputs @ inputs.T
    moments += torch.diag(1e-6 * moments.diagonal())  # channels may be all but the same
    solution = torch.linalg.solve(moments, inputs @ outputs.T).T.to(given)
    return solution[:, :-1], solution[:, -1]


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

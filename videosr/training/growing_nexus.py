"""A NEXUS that begins as what a fine network has learned.

A Nano block mixes the features into twice as many channels, convolves each of those, passes them through GELU and adds
a mixture of them to the features. NEXUS's channel attention does the same but for the first step: depthwise 3x3, 1x1,
GELU, depthwise 3x3, 1x1. So its features carry, beside those of the small network, what the next Nano block mixes from
them, kept up to date by whoever changes them. Its channels:

    x        the small network's features as they were when the group of blocks began,
    change   what the group's blocks have added to them since: 0 when it begins,
    mixed    what the next Nano block mixes from x + change,
    colour   the picture less its mean, for the base path,
    balance  less all of these, so that the sum is 0,
    anchor   a large constant.

The last two make layer normalisation the division by a constant, less another one, which its own scale and offset undo.
Every Nano block gives up those mixed channels that do least, so that there is room for all.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from videosr.archs.nexus import (
    Block,
    DualDimensionAttention,
    EfficientChannelAttention,
    GatedFeedForward,
    Group,
    LayerNorm,
    Nexus,
    steps,
)
from videosr.archs.paragon_blocks import BLUR_TAPS, LayerScale, NanoBlock
from videosr.archs.paragonsr2 import ParagonSR2
from videosr.errors import UsageError
from videosr.training.start import bias_of, natural_pictures

ANCHOR = 96.0
"""The value of that channel: beside it the others hardly count in a variance."""

_SIZE = 0.2
"""Root mean square of what may be of any size because a linear layer follows: about that of the features."""

_LEAK = 0.01
"""What LeakyReLU leaves of what is negative."""


@torch.no_grad()
def grown_nexus(small: ParagonSR2, layer_scale: float) -> Nexus:
    """A nexus_tiny that computes what a fine network does, within 48 dB but at the borders, and can go on from there.

    Only what is new in its blocks learns (`requires_grad`). The picture itself runs through all the rest, and what the
    fine network knows is in its channel attention to many digits: every step of an optimiser would be an error of the
    whole picture. No block is ever left out (`DropPath`), as what is known has no second one to do it. Training that
    starts from the weights it leaves trains everything.

    Args:
        small: a fine network of scale 2 or 3; left as it is.
        layer_scale: of every stage. Those that are new begin without a say in the output.

    Raises:
        UsageError: another scale.
    """
    if len(steps(small.scale)) > 1:
        raise UsageError(f"network: a NEXUS of scale {small.scale} cannot begin as a fine network: leave weights out")
    large = Nexus("nexus_tiny", small.scale, layer_scale=layer_scale)
    channels = _Channels(small.conv_in.out_channels, large.conv_in.out_channels)
    features = small.conv_in(natural_pictures())
    nanos = []
    for module in small.body.modules():
        if isinstance(module, NanoBlock):
            nanos.append(_reduced(module, features, channels.room))
            features = module(features)
    _begin(large, channels, small.conv_in, nanos[0])
    groups = [module for module in large.body if isinstance(module, Group)]
    each = len(nanos) // len(groups)
    known: list[nn.Module] = []
    for index, group in enumerate(groups):
        blocks = [block for block in group.blocks if isinstance(block, Block)]
        for block in blocks:
            block.drop.rate = 0.0
            _quieten(block, channels)
        first = index * each
        own, following = nanos[first : first + each], nanos[first + each : first + each + 1]
        for place, (nano, after) in enumerate(zip(own, [*own[1:], None], strict=True)):
            block = blocks[len(blocks) * place // each]
            _compute(block, channels, nano, after)
            known += [block.norms[0], block.stages[0], block.scales[0]]
        _close(group.conv, channels, own[0], following[0] if following else None, len(groups))
    _enlarge(small, large, channels, small.conv_mid(features))
    large.requires_grad_(False)
    for group in groups:
        group.blocks.requires_grad_(True)
    for module in known:
        module.requires_grad_(False)
    return large


class _Channels:
    """Which channels are what, see above.

    Args:
        known: channels of the small network.
        count: of the large one.
    """

    def __init__(self, known: int, count: int) -> None:
        self.known, self.count = known, count
        self.room = count - 2 * known - 5
        """How many mixed ones there are."""
        self.x, self.change, self.mixed = slice(known), slice(known, 2 * known), slice(2 * known, count - 5)
        self.colour, self.balance, self.anchor = slice(count - 5, count - 2), count - 2, count - 1

    def balanced(self, weight: Tensor, bias: Tensor) -> None:
        """Have the balance's row make the sum of all 0."""
        for values in (weight, bias):
            values[self.balance] = 0
            values[self.balance] = -values.sum(0)


@dataclass(frozen=True, slots=True)
class _Nano:
    """A Nano block, its LayerScale folded in: weights of its dense layers (out, in), depthwise ones (out, 1, 3, 3)."""

    mix: Tensor
    mix_bias: Tensor
    depthwise: Tensor
    depthwise_bias: Tensor
    out: Tensor
    out_bias: Tensor


def _reduced(nano: NanoBlock, features: Tensor, room: int) -> _Nano:
    """The block with so many mixed channels, what the others add on average kept."""
    mixed = nano.conv1(features)
    given = F.gelu(nano.dw(mixed))
    size = mixed.square().mean((0, 2, 3)).sqrt() / _SIZE
    out = nano.scale.gamma.view(-1, 1) * nano.conv2.weight[:, :, 0, 0]
    order = (given.std((0, 2, 3)) * out.norm(dim=0)).argsort(descending=True)
    kept, least = order[:room].sort().values, order[room:]
    return _Nano(
        mix=(nano.conv1.weight[:, :, 0, 0] / size[:, None])[kept],
        mix_bias=(bias_of(nano.conv1) / size)[kept],
        depthwise=(nano.dw.weight * size[:, None, None, None])[kept],
        depthwise_bias=bias_of(nano.dw)[kept],
        out=out[:, kept],
        out_bias=nano.scale.gamma.flatten() * bias_of(nano.conv2) + out[:, least] @ given.mean((0, 2, 3))[least],
    )


def _begin(large: Nexus, channels: _Channels, conv_in: nn.Conv2d, first: _Nano) -> None:
    """The small network's features, of a picture whose mean has been taken off, and what is mixed from them."""
    weight, bias = _cleared(large.conv_in)
    offset = bias_of(conv_in) + torch.einsum("oiyx,i->o", conv_in.weight, large.mean.flatten())
    weight[channels.x], bias[channels.x] = conv_in.weight, offset
    weight[channels.mixed] = torch.einsum("mo,oiyx->miyx", first.mix, conv_in.weight)
    bias[channels.mixed] = first.mix @ offset + first.mix_bias
    weight[channels.colour, :, 1, 1] = torch.eye(3)
    channels.balanced(weight, bias)
    bias[channels.anchor] = ANCHOR


def _quieten(block: Block, channels: _Channels) -> None:
    """Every stage sees the features as they are, but the anchor as 1, and adds nothing yet."""
    mean = ANCHOR / channels.count
    for norm, stage in zip(block.norms, block.stages, strict=True):
        assert isinstance(norm, LayerNorm)
        norm.weight.fill_((ANCHOR * mean - mean**2) ** 0.5)  # the standard deviation
        norm.bias.fill_(mean)
        norm.weight[channels.anchor], norm.bias[channels.anchor] = channels.count**-0.5, 0
        if isinstance(stage, EfficientChannelAttention):
            _cleared(stage.conv[4])
            factors = stage.squeeze.fc[2]
            assert isinstance(factors, nn.Linear)
            factors.weight.zero_()  # every one is 1/2
        elif isinstance(stage, DualDimensionAttention):
            _cleared(stage.spatial.proj)
            _cleared(stage.channel.proj)
        elif isinstance(stage, GatedFeedForward):
            _cleared(stage.conv2)


def _compute(block: Block, channels: _Channels, now: _Nano, after: _Nano | None) -> None:
    """Have a block's channel attention do what a Nano block does, and mix for the one after it in the group."""
    stage, scale, known = block.stages[0], block.scales[0], channels.known
    assert isinstance(stage, EfficientChannelAttention)
    assert isinstance(scale, LayerScale)
    depthwise, dense, still, out = (layer for layer in stage.conv if isinstance(layer, nn.Conv2d))
    for layer in (depthwise, still):
        weight, _ = _cleared(layer)
        weight[:, 0, 1, 1] = 1
    depthwise.weight[channels.mixed], bias_of(depthwise)[channels.mixed] = now.depthwise, now.depthwise_bias
    # gelu(v) - gelu(-v) = v: x passes GELU unchanged in two units of opposite sign.
    mixed = slice(channels.room)
    passing = [(slice(channels.room + i * known, channels.room + (i + 1) * known), 1 - 2 * i) for i in range(2)]
    used = slice(channels.room + 2 * known)
    dense.weight[used], bias_of(dense)[used] = 0, 0
    dense.weight[mixed, channels.mixed, 0, 0] = torch.eye(channels.room)
    for units, sign in passing:
        dense.weight[units, channels.x, 0, 0] = sign * torch.eye(known)
    weight, bias = out.weight[:, :, 0, 0], bias_of(out)
    weight[channels.change, mixed], bias[channels.change] = now.out, now.out_bias
    if after is not None:
        weight[channels.mixed, mixed] = after.mix @ now.out
        for units, sign in passing:
            weight[channels.mixed, units] = sign * (after.mix - now.mix)
        bias[channels.mixed] = after.mix @ now.out_bias + after.mix_bias - now.mix_bias
    channels.balanced(weight, bias)
    whole = 2 / scale.gamma.flatten()  # squeeze-and-excitation halves
    weight *= whole[:, None]
    bias *= whole


def _close(conv: nn.Conv2d, channels: _Channels, first: _Nano, following: _Nano | None, groups: int) -> None:
    """The end of a group, whose residual holds x and mixed as they were at its beginning.

    Args:
        conv: the group's convolution, of which the centre is enough.
        channels: what is where.
        first: the group's first block.
        following: the next group's; None in the last group, which puts the features into `change`, times the number of
            groups: the weighted sum begins as the mean of all groups, and none of the others puts anything there.
        groups: how many there are.
    """
    weight, bias = _cleared(conv)
    centre = weight[:, :, 1, 1]
    if following is not None:
        centre[channels.x, channels.change] = torch.eye(channels.known)
        centre[channels.mixed, channels.change] = following.mix
        centre[channels.mixed, channels.x] = following.mix - first.mix
        bias[channels.mixed] = following.mix_bias - first.mix_bias
    else:
        centre[channels.change, channels.x] = centre[channels.change, channels.change] = groups * torch.eye(
            channels.known
        )
    channels.balanced(centre, bias)


def _enlarge(small: ParagonSR2, large: Nexus, channels: _Channels, features: Tensor) -> None:
    """The small network's tail and base path.

    LeakyReLU stands between. Pairs of opposite sign pass it as they are, of as many directions of the features as there
    is room for; colours are not negative.

    Args:
        small: the small network.
        large: the large one.
        channels: what is where.
        features: of the small one before its `up`, (N, C, H, W).
    """
    known, enlarged = channels.known, small.scale**2
    weight, bias = _cleared(large.conv_body)
    weight[channels.change, channels.change], bias[channels.change] = small.conv_mid.weight, bias_of(small.conv_mid)

    up, new_up = small.up[0], large.up[0]
    assert isinstance(up, nn.Conv2d)
    assert isinstance(new_up, nn.Conv2d)
    pairs = (large.conv_up.out_channels - 3) // 2
    into, back = _directions(features, up.weight, pairs)
    mean = features.mean((0, 2, 3))
    lost = mean - back @ (into @ mean)
    colours = slice(2 * pairs, 2 * pairs + 3)
    weight, bias = _cleared(large.conv_up)
    weight[:pairs, channels.change, 1, 1] = into
    weight[pairs : 2 * pairs, channels.change, 1, 1] = -into
    weight[colours, channels.colour, 1, 1] = torch.eye(3)
    bias[colours] = large.mean.flatten()

    size = small.up(features).square().mean((0, 2, 3)).sqrt() / _SIZE
    shrunk = 1 / size.repeat_interleave(enlarged)
    weight, bias = _cleared(new_up)
    detail = torch.einsum("o,ocyx,cd->odyx", shrunk, up.weight, back) / (1 + _LEAK)
    weight[: known * enlarged, :pairs], weight[: known * enlarged, pairs : 2 * pairs] = detail, -detail
    bias[: known * enlarged] = shrunk * (bias_of(up) + torch.einsum("ocyx,c->o", up.weight, lost))
    base = _base_path(small.scale)
    for colour in range(3):
        first = (known + colour) * enlarged
        weight[first : first + enlarged, colours][:, colour] = base

    weight, bias = _cleared(large.conv_out)
    weight[:, :known] = small.conv_out.weight * small.detail_gain * size[:, None, None]
    weight[:, known : known + 3, 1, 1] = torch.eye(3)
    bias.copy_(bias_of(small.conv_out) * small.detail_gain - large.mean.flatten())


def _directions(features: Tensor, kernel: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Those `count` directions of features (N, C, H, W) that a kernel (out, C, h, w) behind them makes most of.

    Returns:
        (count, C), to what is found along them, of standard deviation 1/2, and (C, count), back.
    """
    values = features.transpose(0, 1).flatten(1)
    values = values - values.mean(1, keepdim=True)
    root = torch.linalg.cholesky(values @ values.T / values.shape[1] + 1e-12 * torch.eye(len(values)))
    used = torch.linalg.svd(kernel.permute(0, 2, 3, 1).flatten(0, 2) @ root, full_matrices=False).Vh[:count]
    return used @ torch.linalg.inv(root) / 2, root @ used.T * 2


def _base_path(scale: int) -> Tensor:
    """Every pixel `scale` times in each direction, then blurred, as a kernel (scale^2, 3, 3) at LR resolution."""
    taps = torch.zeros(scale, 3)
    for phase in range(scale):
        for offset, tap in enumerate(BLUR_TAPS, -(len(BLUR_TAPS) // 2)):
            taps[phase, 1 + (phase + offset) // scale] += tap
    return torch.einsum("ay,bx->abyx", taps, taps).flatten(0, 1)


def _cleared(layer: nn.Module) -> tuple[Tensor, Tensor]:
    """Its weight and bias, filled with zeros."""
    assert isinstance(layer, nn.Conv2d)
    with torch.no_grad():
        return layer.weight.zero_(), bias_of(layer).zero_()

"""NEXUS, an image super-resolution transformer for offline work: the quality tier.

    output = mean + reconstruct(shallow + conv_body(sum_g softmax(weights)_g * group_g)),   shallow = conv_in(x - mean)

Tensors are NCHW, RGB, values in [0, 1]. Only a design note of it is public; it gives the widths, depths and heads of
`VARIANTS` and this order of things, and is silent on much. What stands here where it is silent:

- The note's tokens (B, N, C) are kept as maps (N, C, H, W), its linear layers are 1x1 convolutions; in `channels_last`
  memory the two are the same. Normalisation is LayerNorm over channels, before each stage, as in HAT and DAT.
- The stages of a block (channel attention, dual-dimension attention, feed-forward) follow each other, each in a
  residual of its own with its own LayerScale (CaiT, Touvron et al. 2021) and stochastic depth, whose rate rises
  linearly from 0 to 0.1 over the blocks (Swin, HAT). LayerScale starts at 0.1.
- "Efficient channel attention" is HAT's CAB (Chen et al. 2023) with both its 3x3 convolutions depthwise separable and
  none of its squeezing between them: dw 3x3, 1x1, GELU, dw 3x3, 1x1, then squeeze-and-excitation to 1/16.
- ALiBi (Press et al. 2022) in the plane: the distance is Euclidean, in pixels of the window's grid.
- Shifted windows (by half a window in every second block of a group) do not wrap around: the grid is moved, and windows
  that reach over the picture's rim attend to what is inside it. That is Swin's cyclic shift with its mask, and takes
  any height and width.
- Attention across channels is DAT's (Chen et al. 2023, after Restormer, Zamir et al. 2022): queries and keys of unit
  length over all pixels, one learned temperature a head. Both paths have projections of their own; what comes out of
  them is mixed with two softmaxed scalars a block.
- Frequency enhancement is on by default, in the spatial path. Low frequencies are the 3x3 mean (at the rim of what
  there is), high ones the rest of the normalised features; alpha is a scalar a block and starts at 0.
- Feed-forward is DAT's SGFN with all its hidden channels 3 C: 1x1, GELU, one half multiplied by the normalised and
  depthwise-convolved other half, 1x1.
- Every group's output goes into the weighted sum as it is, and the next group starts from it.
- `reconstruct` is HAT's: 3x3 to 64 channels, LeakyReLU, 3x3 and PixelShuffle (twice by two at scale 4), 3x3 to RGB.
  The mean is that of DIV2K, as in HAT.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from videosr.archs.paragon_blocks import ChannelAttention, LayerScale, ResidualGroup

SCALES = (2, 3, 4)
WINDOW = 16
MLP_RATIO = 3
DROP_PATH = 0.1
MEAN = (0.4488, 0.4371, 0.4040)
HIDDEN = -1e4
"""What the score of a key outside the picture is lowered by: its weight underflows to 0, in half precision too."""
FEATURES = 64
"""Channels of the reconstruction."""


@dataclass(frozen=True, slots=True)
class VariantSpec:
    """What distinguishes a variant: channels, blocks of each group, heads of either attention."""

    channels: int
    depths: tuple[int, ...]
    heads: int


VARIANTS: dict[str, VariantSpec] = {
    "nexus_tiny": VariantSpec(128, (6,) * 4, 4),
    "nexus_small": VariantSpec(180, (6,) * 6, 6),
    "nexus_medium": VariantSpec(256, (6,) * 6, 8),
    "nexus_large": VariantSpec(256, (6,) * 12, 8),
    "nexus_extreme": VariantSpec(320, (6,) * 14, 10),
}


def steps(scale: int) -> tuple[int, ...]:
    """The factors by which the reconstruction enlarges, one after the other."""
    return (2, 2) if scale == 4 else (scale,)


class LayerNorm(nn.Module):
    """Layer normalisation over the channels of each pixel."""

    EPS = 1e-5

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the same shape."""
        y = F.layer_norm(x.permute(0, 2, 3, 1), self.weight.shape, self.weight, self.bias, self.EPS)
        return y.permute(0, 3, 1, 2)


class DropPath(nn.Module):
    """Stochastic depth (Huang et al. 2016): in training a residual is left out with the chance `rate`, per picture.

    Drawn from torch's generator of the CPU, on which exact resumption rests.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the same shape; what is kept is scaled up."""
        if not self.training or not self.rate:
            return x
        kept = (torch.rand(len(x), 1, 1, 1) >= self.rate).to(x)
        return x * kept / (1 - self.rate)


class EfficientChannelAttention(nn.Module):
    """Two depthwise-separable convolutions, then squeeze-and-excitation."""

    def __init__(self, channels: int) -> None:
        super().__init__()

        def depthwise() -> nn.Conv2d:
            return nn.Conv2d(channels, channels, 3, padding=1, groups=channels)

        self.conv = nn.Sequential(
            depthwise(), nn.Conv2d(channels, channels, 1), nn.GELU(), depthwise(), nn.Conv2d(channels, channels, 1)
        )
        self.squeeze = ChannelAttention(channels)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the same shape."""
        out: Tensor = self.squeeze(self.conv(x))
        return out


def alibi(heads: int, window: int) -> Tensor:
    """What is added to the scores inside a window: -2^(-8/heads * i) * distance, i = 1..heads.

    Returns:
        (heads, window^2, window^2) float32, queries before keys, both row by row.
    """
    place = torch.stack(torch.meshgrid(torch.arange(window), torch.arange(window), indexing="ij"), -1).view(-1, 2)
    distance = torch.cdist(place.double(), place.double(), compute_mode="donot_use_mm_for_euclid_dist")
    slopes = 2.0 ** (-8 / heads * torch.arange(1, heads + 1).double())
    return (-slopes[:, None, None] * distance).float()


class SpatialAttention(nn.Module):
    """Self-attention inside square windows on a grid that may be shifted, the distance counting against a key.

    Args:
        channels: of the features.
        heads: dividing them.
        window: edge of a window.
        shift: how far the grid's first corner lies outside the picture, up and left.
        frequency: let high frequencies modulate queries and keys.
    """

    bias: Tensor

    def __init__(self, channels: int, heads: int, window: int, shift: int, frequency: bool) -> None:
        super().__init__()
        self.heads, self.window, self.shift = heads, window, shift
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.proj = nn.Conv2d(channels, channels, 1)
        self.alpha = nn.Parameter(torch.zeros(())) if frequency else None
        self.register_buffer("bias", alibi(heads, window), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the same shape; any H, W."""
        n, c, height, width = x.shape
        w, shift, heads = self.window, self.shift, self.heads
        qkv = self.qkv(x)
        if self.alpha is not None:
            factor = 1 + self.alpha * (x - low_frequencies(x))
            qkv = qkv * torch.cat((factor, factor, torch.ones_like(factor)), dim=1)
        rim = (shift, -(width + shift) % w, shift, -(height + shift) % w)
        qkv = windows(F.pad(qkv, rim), w)
        q, k, v = qkv.view(-1, w * w, 3, heads, c // heads).permute(2, 0, 3, 1, 4)
        bias = self.bias.to(q.dtype)[None]
        if any(rim):
            outside = F.pad(q.new_zeros(n, 1, height, width), rim, value=HIDDEN)
            bias = bias + windows(outside, w).view(-1, 1, 1, w * w)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=bias.expand(len(q), -1, -1, -1))
        rows, columns = (height + rim[2] + rim[3]) // w, (width + rim[0] + rim[1]) // w
        y = y.transpose(1, 2).reshape(n, rows, columns, w, w, c)
        y = y.permute(0, 5, 1, 3, 2, 4).reshape(n, c, rows * w, columns * w)
        out: Tensor = self.proj(y[:, :, shift : shift + height, shift : shift + width])
        return out


def low_frequencies(x: Tensor) -> Tensor:
    """The 3x3 mean at every pixel, at the rim of what there is; (N, C, H, W) to the same shape."""
    return F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False)


def windows(x: Tensor, size: int) -> Tensor:
    """(N, C, rows * size, columns * size) to (N * rows * columns, size^2, C)."""
    n, c, height, width = x.shape
    x = x.reshape(n, c, height // size, size, width // size, size).permute(0, 2, 4, 3, 5, 1)
    return x.reshape(-1, size * size, c)


class AcrossChannels(nn.Module):
    """Self-attention of channels with channels, over all pixels of the picture."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.proj = nn.Conv2d(channels, channels, 1)
        self.temperature = nn.Parameter(torch.ones(heads, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the same shape."""
        n, c, height, width = x.shape
        q, k, v = self.qkv(x).view(n, 3, self.heads, c // self.heads, height * width).unbind(1)
        # Sums over a whole picture are more than half precision can hold.
        with torch.autocast(x.device.type, enabled=False):
            q, k = F.normalize(q.float(), dim=-1), F.normalize(k.float(), dim=-1)
            attention = torch.softmax(q @ k.transpose(-2, -1) * self.temperature.float(), dim=-1)
        out: Tensor = self.proj((attention.to(v.dtype) @ v).reshape(n, c, height, width))
        return out


class DualDimensionAttention(nn.Module):
    """Attention in windows and attention across channels, side by side, mixed with two learned shares."""

    def __init__(self, channels: int, heads: int, window: int, shift: int, frequency: bool) -> None:
        super().__init__()
        self.spatial = SpatialAttention(channels, heads, window, shift, frequency)
        self.channel = AcrossChannels(channels, heads)
        self.mix = nn.Parameter(torch.zeros(2))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the same shape."""
        share = self.mix.softmax(0)
        out: Tensor = share[0] * self.spatial(x) + share[1] * self.channel(x)
        return out


class GatedFeedForward(nn.Module):
    """DAT's spatial-gate feed-forward: half of the hidden channels, convolved, multiplies the other half."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = MLP_RATIO * channels // 2
        self.conv1 = nn.Conv2d(channels, 2 * half, 1)
        self.norm = LayerNorm(half)
        self.dw = nn.Conv2d(half, half, 3, padding=1, groups=half)
        self.conv2 = nn.Conv2d(half, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the same shape."""
        a, b = F.gelu(self.conv1(x)).chunk(2, dim=1)
        out: Tensor = self.conv2(a * self.dw(self.norm(b)))
        return out


class Block(nn.Module):
    """Channel attention, dual-dimension attention and feed-forward, each in a residual of its own."""

    def __init__(self, stages: list[nn.Module], channels: int, drop: float, layer_scale: float) -> None:
        super().__init__()
        self.norms = nn.ModuleList(LayerNorm(channels) for _ in stages)
        self.stages = nn.ModuleList(stages)
        self.scales = nn.ModuleList(LayerScale(channels, layer_scale) for _ in stages)
        self.drop = DropPath(drop)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the same shape."""
        for norm, stage, scale in zip(self.norms, self.stages, self.scales, strict=True):
            x = x + self.drop(scale(stage(norm(x))))
        return x


class Group(ResidualGroup):
    """Blocks, one 3x3 convolution, and a residual around all of them."""

    def __init__(self, blocks: list[nn.Module], channels: int) -> None:
        super().__init__(blocks)
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the same shape."""
        change: Tensor = self.conv(super().forward(x))
        return x + change


class Nexus(nn.Module):
    """The whole network.

    Args:
        variant: one of `VARIANTS`.
        scale: 2, 3 or 4.
        layer_scale: start value of every LayerScale.
        frequency: with frequency enhancement.
        window_size: of the windows; no parameter depends on it.

    Raises:
        ValueError: unknown variant or scale.
    """

    mean: Tensor
    reach: int | None = None
    """Every output pixel sees the whole picture; see `ParagonSR2.reach`."""
    has_windows = True

    def __init__(
        self,
        variant: str = "nexus_tiny",
        scale: int = 2,
        *,
        layer_scale: float = 0.1,
        frequency: bool = True,
        window_size: int = WINDOW,
    ) -> None:
        super().__init__()
        if variant not in VARIANTS:
            raise ValueError(f"variant {variant!r} is not one of {', '.join(VARIANTS)}")
        if scale not in SCALES:
            raise ValueError(f"scale {scale} is not one of {', '.join(map(str, SCALES))}")
        spec = VARIANTS[variant]
        c, heads = spec.channels, spec.heads
        self.variant, self.scale, self.window_size = variant, scale, window_size
        self.register_buffer("mean", torch.tensor(MEAN).view(1, 3, 1, 1), persistent=False)
        self.conv_in = nn.Conv2d(3, c, 3, padding=1)
        rates: Iterator[float] = iter(torch.linspace(0, DROP_PATH, sum(spec.depths), device="cpu").tolist())

        def block(index: int) -> nn.Module:
            shift = window_size // 2 if index % 2 else 0
            attention = DualDimensionAttention(c, heads, window_size, shift, frequency)
            return Block([EfficientChannelAttention(c), attention, GatedFeedForward(c)], c, next(rates), layer_scale)

        self.body = nn.ModuleList(Group([block(i) for i in range(depth)], c) for depth in spec.depths)
        self.shares = nn.Parameter(torch.zeros(len(spec.depths)))
        self.conv_body = nn.Conv2d(c, c, 3, padding=1)
        self.conv_up = nn.Conv2d(c, FEATURES, 3, padding=1)
        self.up = nn.Sequential()
        for factor in steps(scale):
            self.up.append(nn.Conv2d(FEATURES, FEATURES * factor * factor, 3, padding=1))
            self.up.append(nn.PixelShuffle(factor))
        self.conv_out = nn.Conv2d(FEATURES, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) to (N, 3, scale*H, scale*W), values unclamped; any H, W."""
        shallow = self.conv_in(x - self.mean)
        shares = self.shares.softmax(0)
        features, deep = shallow, torch.zeros_like(shallow)
        for share, group in zip(shares, self.body, strict=True):
            features = group(features)
            deep = deep + share * features
        features = F.leaky_relu(self.conv_up(shallow + self.conv_body(deep)))
        out: Tensor = self.conv_out(self.up(features))
        return out + self.mean

"""What ParagonSR2 (`paragonsr2`) is made of: its filters, layers and blocks; NEXUS shares some of them.

Tensors are NCHW. State-dict names follow the published checkpoints of generation 11.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

type AttentionMode = Literal["sdpa", "flex"]

SHARP_TAPS = (-1 / 32, 0.0, 9 / 32, 16 / 32, 9 / 32, 0.0, -1 / 32)
BLUR_TAPS = (1 / 16, 4 / 16, 6 / 16, 4 / 16, 1 / 16)
HALF_MAX = 65504.0
"""The largest float16: what the products of published stream networks are clamped to."""
PRODUCT_LIMIT = 8.0
"""What those of our own are clamped to, see `StreamBlock`."""


class SeparableFilter(nn.Module):
    """A fixed depthwise 1xk then kx1 filter, zero padded by k // 2."""

    kernel: Tensor

    def __init__(self, channels: int, taps: tuple[float, ...]) -> None:
        super().__init__()
        k = len(taps)
        self.register_buffer("kernel", torch.tensor(taps))
        self.h = nn.Conv2d(channels, channels, (1, k), padding=(0, k // 2), groups=channels, bias=False)
        self.v = nn.Conv2d(channels, channels, (k, 1), padding=(k // 2, 0), groups=channels, bias=False)
        with torch.no_grad():
            self.h.weight.copy_(self.kernel.view(1, 1, 1, k).expand(channels, 1, 1, k))
            self.v.weight.copy_(self.kernel.view(1, 1, k, 1).expand(channels, 1, k, 1))
        self.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the same shape."""
        filtered: Tensor = self.v(self.h(x))
        return filtered


class MagicKernelUpsample(nn.Module):
    """The base path: optional pre-filter, nearest-neighbour enlargement, blur at output resolution.

    The published pre-filter is called "sharp" and softens (response 1 at DC, 1/2 at pi/2, 0 at Nyquist); it is here to
    reproduce published networks, ours keep alpha 0. Zero padding darkens the outermost output ring (11/16 of a flat
    white); whoever deploys our networks pads the input by replication and crops (`export`).
    """

    def __init__(self, channels: int, scale: int, alpha: float) -> None:
        super().__init__()
        self.scale, self.alpha = scale, alpha
        self.sharp = SeparableFilter(channels, SHARP_TAPS)
        self.blur = SeparableFilter(channels, BLUR_TAPS)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) to (N, 3, scale*H, scale*W)."""
        if self.alpha > 0:
            x = x + self.alpha * (self.sharp(x) - x)
        enlarged: Tensor = self.blur(F.interpolate(x, scale_factor=self.scale, mode="nearest"))
        return enlarged


class RMSNorm(nn.Module):
    """Root-mean-square normalisation over the channels of each pixel; the variance is taken in float32."""

    EPS = 1e-6

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(channels, 1, 1))
        self.bias = nn.Parameter(torch.zeros(channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the same shape and dtype."""
        rms = torch.sqrt(x.float().pow(2).mean(dim=1, keepdim=True) + self.EPS).to(x.dtype)
        return self.scale * x / rms + self.bias


class LayerScale(nn.Module):
    """A learned factor per channel (CaiT, Touvron et al. 2021)."""

    def __init__(self, channels: int, init: float) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.full((1, channels, 1, 1), init))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the same shape."""
        return self.gamma * x


class WindowAttention(nn.Module):
    """Self-attention inside square windows, cyclically shifted in every second block; no mask, no position bias.

    Attributes:
        mode: how it is computed; "flex" needs CUDA.
    """

    HEADS = 4

    def __init__(self, channels: int, window_size: int, shift: int) -> None:
        super().__init__()
        self.window_size, self.shift = window_size, shift
        self.mode: AttentionMode = "sdpa"
        self.qkv = nn.Linear(channels, 3 * channels)
        self.proj = nn.Linear(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the same shape; any H, W (padded with zeros to whole windows inside)."""
        n, c, height, width = x.shape
        w, heads = self.window_size, self.HEADS
        x = F.pad(x, (0, -width % w, 0, -height % w)).permute(0, 2, 3, 1)
        rows, columns = x.shape[1], x.shape[2]
        if self.shift:
            x = torch.roll(x, (-self.shift, -self.shift), (1, 2))
        x = x.reshape(n, rows // w, w, columns // w, w, c).permute(0, 1, 3, 2, 4, 5).reshape(-1, w * w, c)
        q, k, v = self.qkv(x).reshape(-1, w * w, 3, heads, c // heads).permute(2, 0, 3, 1, 4)
        if self.mode == "flex":
            from torch.nn.attention.flex_attention import flex_attention

            x = flex_attention(q, k, v)
        else:
            x = F.scaled_dot_product_attention(q, k, v)
        x = self.proj(x.transpose(1, 2).reshape(-1, w * w, c))
        x = x.reshape(n, rows // w, columns // w, w, w, c).permute(0, 1, 3, 2, 4, 5).reshape(n, rows, columns, c)
        if self.shift:
            x = torch.roll(x, (self.shift, self.shift), (1, 2))
        return x[:, :height, :width].permute(0, 3, 1, 2)


class NanoBlock(nn.Module):
    """x + LayerScale(conv2(gelu(dw(conv1(x)))))."""

    def __init__(self, channels: int, layer_scale: float) -> None:
        super().__init__()
        wide = 2 * channels
        self.conv1 = nn.Conv2d(channels, wide, 1)
        self.dw = nn.Conv2d(wide, wide, 3, padding=1, groups=wide)
        self.conv2 = nn.Conv2d(wide, channels, 1)
        self.scale = LayerScale(channels, layer_scale)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the same shape."""
        residual: Tensor = self.scale(self.conv2(F.gelu(self.dw(self.conv1(x)))))
        return x + residual


class DilatedDepthwise(nn.Conv2d):
    """A dilated depthwise convolution, zero padded to the same size, whose gradients on a CPU are quick.

    Those of torch there take four times as long as what is done here.
    """

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the same shape."""
        if x.is_cpu and torch.is_grad_enabled():
            result: Tensor = _DilatedDepthwise.apply(x, self.weight, self.bias, self.dilation[0])
            return result
        return super().forward(x)


class _DilatedDepthwise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, step: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.step = step
        return F.conv2d(x, weight, bias, padding=step * (weight.shape[-1] // 2), dilation=step, groups=len(weight))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        x, weight = ctx.saved_tensors
        step, size, (height, width) = ctx.step, weight.shape[-1], x.shape[2:]
        pad = step * (size // 2)
        before = F.conv2d(gradient, weight.flip(2, 3), padding=pad, dilation=step, groups=len(weight))
        seen = F.pad(x, (pad, pad, pad, pad))
        taps = [
            (seen[:, :, i * step : i * step + height, j * step : j * step + width] * gradient).sum((0, 2, 3))
            for i in range(size)
            for j in range(size)
        ]
        return before, torch.stack(taps, 1).view_as(weight), gradient.sum((0, 2, 3)), None


class StreamBlock(nn.Module):
    """Two depthwise scales fused, then a gated product taken in float32 and clamped.

    Args:
        channels: of its input and output.
        layer_scale: start value of the LayerScale.
        limit: of the products. At `HALF_MAX` the block is a polynomial of its input, and six of them one of degree 64,
            which runs away on pictures unlike those it was trained on; at the largest product of natural pictures it
            is the same on those, and bounded on all others.
    """

    def __init__(self, channels: int, layer_scale: float, limit: float = HALF_MAX) -> None:
        super().__init__()
        self.limit = limit
        wide = 4 * channels
        self.dw1 = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
        self.dw3 = DilatedDepthwise(channels, channels, 3, padding=3, dilation=3, groups=channels)
        self.fuse = nn.Conv2d(2 * channels, channels, 1)
        self.proj = nn.Conv2d(channels, wide, 1)
        self.gate = nn.Conv2d(wide, wide, 3, padding=1, groups=wide)
        self.out = nn.Conv2d(wide // 2, channels, 1)
        self.scale = LayerScale(channels, layer_scale)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the same shape."""
        residual: Tensor = self.scale(self.out(self.products(x)))
        return x + residual

    def products(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, 2C, H, W), what the last convolution sees."""
        y = self.fuse(torch.cat((self.dw1(x), self.dw3(x)), dim=1))
        a, b = self.gate(self.proj(y)).chunk(2, dim=1)
        product: Tensor = a.float() * b.float()
        if self.limit < HALF_MAX or not self.training:  # training does not come near that of half precision
            product = product.clamp(-self.limit, self.limit)
        return product.to(x.dtype)


class PhotoBlock(nn.Module):
    """A convolution stage, then window attention; one LayerScale serves both."""

    def __init__(self, channels: int, layer_scale: float, window_size: int, shift: int, export_safe: bool) -> None:
        super().__init__()
        wide = 2 * channels
        self.norm = RMSNorm(channels)
        self.conv1 = nn.Conv2d(channels, wide, 1)
        self.dw = nn.Conv2d(wide, wide, 3, padding=1, groups=wide)
        self.conv2 = nn.Conv2d(wide, channels, 1)
        self.scale = LayerScale(channels, layer_scale)
        self.export_safe = export_safe
        if not export_safe:
            self.attn_norm = RMSNorm(channels)
            self.attn = WindowAttention(channels, window_size, shift)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the same shape."""
        x = x + self.scale(self.conv2(F.gelu(self.dw(self.conv1(self.norm(x))))))
        if not self.export_safe:
            x = x + self.scale(self.attn(self.attn_norm(x)))
        return x


class ChannelAttention(nn.Module):
    """Squeeze-and-excitation (Hu et al. 2018) without biases."""

    REDUCTION = 16

    def __init__(self, channels: int) -> None:
        super().__init__()
        squeezed = channels // self.REDUCTION
        self.fc = nn.Sequential(
            nn.Linear(channels, squeezed, bias=False),
            nn.GELU(),
            nn.Linear(squeezed, channels, bias=False),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the same shape."""
        factor: Tensor = self.fc(x.mean(dim=(2, 3)))
        return x * factor[:, :, None, None]


class TokenDictionaryAttention(nn.Module):
    """Every pixel attends to a small learned dictionary of tokens."""

    TOKENS = 64
    REDUCED = 16

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.token_dict = nn.Parameter(torch.randn(1, self.TOKENS, channels) * 0.02)
        self.q_proj = nn.Linear(channels, self.REDUCED)
        self.k_proj = nn.Linear(channels, self.REDUCED)
        self.v_proj = nn.Linear(channels, channels)
        self.out_proj = nn.Linear(channels, channels)
        self.factor = self.REDUCED**-0.5

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the same shape."""
        n, c, height, width = x.shape
        q = self.q_proj(x.flatten(2).transpose(1, 2))
        k, v = self.k_proj(self.token_dict), self.v_proj(self.token_dict)
        attention = torch.softmax(q @ k.transpose(1, 2) * self.factor, dim=-1)
        out: Tensor = self.out_proj(attention @ v)
        return out.transpose(1, 2).reshape(n, c, height, width)


class ProBlock(nn.Module):
    """Convolution, channel attention, window attention and token dictionary, each with its own LayerScale."""

    def __init__(self, channels: int, layer_scale: float, window_size: int, shift: int, export_safe: bool) -> None:
        super().__init__()
        wide = 2 * channels
        self.norm1 = RMSNorm(channels)
        self.conv1 = nn.Conv2d(channels, wide, 1)
        self.dw = nn.Conv2d(wide, wide, 3, padding=1, groups=wide)
        self.conv2 = nn.Conv2d(wide, channels, 1)
        self.scale1 = LayerScale(channels, layer_scale)
        self.channel_attn = ChannelAttention(channels)
        self.scale2 = LayerScale(channels, layer_scale)
        self.export_safe = export_safe
        if not export_safe:
            self.norm3 = RMSNorm(channels)
            self.window_attn = WindowAttention(channels, window_size, shift)
            self.scale3 = LayerScale(channels, layer_scale)
        self.norm4 = RMSNorm(channels)
        self.token_ca = TokenDictionaryAttention(channels)
        self.scale4 = LayerScale(channels, layer_scale)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the same shape."""
        x = x + self.scale1(self.conv2(F.gelu(self.dw(self.conv1(self.norm1(x))))))
        x = x + self.scale2(self.channel_attn(x))
        if not self.export_safe:
            x = x + self.scale3(self.window_attn(self.norm3(x)))
        residual: Tensor = self.scale4(self.token_ca(self.norm4(x)))
        return x + residual


class ResidualGroup(nn.Module):
    """A plain sequence of blocks (each carries its own residual).

    Attributes:
        use_checkpointing: recompute blocks in the backward pass to save memory.
    """

    def __init__(self, blocks: list[nn.Module]) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*blocks)
        self.use_checkpointing = False

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the same shape."""
        for block in self.blocks:
            recompute = self.use_checkpointing and x.requires_grad
            x = checkpoint(block, x, use_reentrant=False) if recompute else block(x)
        return x

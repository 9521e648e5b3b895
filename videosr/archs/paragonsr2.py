"""ParagonSR2, the dual-path super-resolution network of Philip Hofmann (MIT), implemented from its description.

    output = base(x) + detail_gain * conv_out(pixel_shuffle(up(conv_mid(body(conv_in(x))))))

Tensors are NCHW, RGB, values in [0, 1]; `base` is a fixed filter, everything else is learned. State-dict names follow
the published checkpoints of generation 11, so that those load as they are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from videosr.archs.paragon_blocks import (
    HALF_MAX,
    ChannelAttention,
    MagicKernelUpsample,
    NanoBlock,
    PhotoBlock,
    ProBlock,
    ResidualGroup,
    StreamBlock,
    WindowAttention,
)

SCALES = (2, 3, 4, 8)
FEATURE_BLEND = 0.2
"""Weight of the previous features in the published video mode."""


@dataclass(frozen=True, slots=True)
class VariantSpec:
    """What distinguishes a variant: channels, groups x blocks, and the published defaults of two scalars."""

    channels: int
    groups: int
    blocks: int
    detail_gain: float
    upsampler_alpha: float


VARIANTS: dict[str, VariantSpec] = {
    "light": VariantSpec(8, 1, 3, 0.05, 0.0),  # ours: realtime at half its width
    "realtime": VariantSpec(16, 1, 3, 0.05, 0.3),
    "fine": VariantSpec(32, 2, 4, 0.05, 0.0),  # ours: realtime at twice its width, with eight blocks
    "stream": VariantSpec(32, 2, 3, 0.1, 0.0),
    "photo": VariantSpec(64, 4, 4, 0.1, 0.4),
    "pro": VariantSpec(64, 6, 6, 0.1, 0.4),
}


class ParagonSR2(nn.Module):
    """The whole network.

    Args:
        variant: one of `VARIANTS`.
        scale: 2, 3, 4 or 8.
        upsampler_alpha: strength of the base path's pre-filter; None takes the variant's published default.
        detail_gain: start value of the learned gain; None takes the variant's published default.
        layer_scale: start value of every LayerScale (published: 1e-5; 0.1 trains far better).
        export_safe: leave window attention out.
        window_size: of the window attention; not recorded in checkpoints.
        product_limit: of stream's blocks, see `StreamBlock`; not recorded in published checkpoints.

    Raises:
        ValueError: unknown variant or scale.
    """

    def __init__(
        self,
        variant: str = "realtime",
        scale: int = 2,
        *,
        upsampler_alpha: float | None = None,
        detail_gain: float | None = None,
        layer_scale: float = 1e-5,
        export_safe: bool = False,
        window_size: int = 16,
        product_limit: float = HALF_MAX,
    ) -> None:
        super().__init__()
        if variant not in VARIANTS:
            raise ValueError(f"variant {variant!r} is not one of {', '.join(VARIANTS)}")
        if scale not in SCALES:
            raise ValueError(f"scale {scale} is not one of {', '.join(map(str, SCALES))}")
        spec = VARIANTS[variant]
        c = spec.channels
        self.variant, self.scale, self.window_size, self.product_limit = variant, scale, window_size, product_limit
        self.base = MagicKernelUpsample(3, scale, spec.upsampler_alpha if upsampler_alpha is None else upsampler_alpha)
        self.conv_in = nn.Conv2d(3, c, 3, padding=1)

        def shift(index: int) -> int:
            return window_size // 2 if index % 2 else 0  # every second block, counted over the whole body

        make: dict[str, Callable[[int], nn.Module]] = {
            "light": lambda i: NanoBlock(c, layer_scale),
            "realtime": lambda i: NanoBlock(c, layer_scale),
            "fine": lambda i: NanoBlock(c, layer_scale),
            "stream": lambda i: StreamBlock(c, layer_scale, product_limit),
            "photo": lambda i: PhotoBlock(c, layer_scale, window_size, shift(i), export_safe),
            "pro": lambda i: ProBlock(c, layer_scale, window_size, shift(i), export_safe),
        }
        self.body = nn.Sequential(
            *(
                ResidualGroup([make[variant](g * spec.blocks + b) for b in range(spec.blocks)])
                for g in range(spec.groups)
            )
        )
        self.conv_mid = nn.Conv2d(c, c, 3, padding=1)
        self.up = nn.Sequential(nn.Conv2d(c, c * scale * scale, 3, padding=1), nn.PixelShuffle(scale))
        self.conv_out = nn.Conv2d(c, 3, 3, padding=1)
        self.detail_gain = nn.Parameter(torch.tensor(float(spec.detail_gain if detail_gain is None else detail_gain)))

    @property
    def has_windows(self) -> bool:
        """Whether there is window attention in it."""
        return any(isinstance(module, WindowAttention) for module in self.modules())

    @property
    def reach(self) -> int | None:
        """How many input pixels away from its own an output pixel sees; None where that is the whole picture.

        Cyclic shifts join opposite rims of the picture, and channel attention averages over all of it.
        """
        if self.has_windows or any(isinstance(module, ChannelAttention) for module in self.modules()):
            return None
        steps = {NanoBlock: 1, PhotoBlock: 1, StreamBlock: 4}
        body = sum(steps.get(type(module), 0) for module in self.body.modules())
        return 1 + body + 1 + 2  # conv_in, body, conv_mid; up and conv_out as one 5x5 convolution

    def detail(self, features: Tensor) -> Tensor:
        """What the learned path adds, from `conv_in`'s features (N, C, H, W) to (N, 3, scale*H, scale*W)."""
        out: Tensor = self.detail_gain * self.conv_out(self.up(self.conv_mid(self.body(features))))
        return out

    def forward(self, x: Tensor, average: Tensor | None = None) -> Tensor:
        """(N, 3, H, W) to (N, 3, scale*H, scale*W), values unclamped.

        Args:
            x: the frame; the base path always sees this.
            average: what the detail path sees instead, same shape (the temporal average of the frame's window).
        """
        base: Tensor = self.base(x)
        return base + self.detail(self.conv_in(x if average is None else average))

    def forward_video(
        self, x: Tensor, prev_feat: Tensor | None = None, blend: float = FEATURE_BLEND
    ) -> tuple[Tensor, Tensor]:
        """The published video mode: the output and the feature map that is the next frame's `prev_feat`.

        Args:
            x: the frame, (N, 3, H, W).
            prev_feat: (N, C, H, W), or None for the first frame of a scene.
            blend: weight of `prev_feat`.
        """
        features = self.conv_in(x)
        if prev_feat is not None:
            features = (1 - blend) * features + blend * prev_feat
        return self.base(x) + self.detail(features), features

"""The adversarial loss: a U-Net that tells upscaled pictures from real ones, pixel by pixel, in four ways.

After MUNet, the discriminator of ParagonSR2 (Philip Hofmann, MIT), from its description: a U-Net (Schonfeld et al.
2020) with spectral normalisation (Miyato et al. 2018) and self-attention in its middle (Zhang et al. 2019), beside it
branches that look at gradients, at spectra and at single patches; learned weights say at each pixel which of the four
to believe.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

from videosr.training.config import DiscriminatorConfig


def _conv(inner: int, out: int, size: int = 3, stride: int = 1) -> nn.Module:
    return spectral_norm(nn.Conv2d(inner, out, size, stride, (size - 1) // 2))


def _stage(inner: int, out: int) -> nn.Sequential:
    return nn.Sequential(_conv(inner, out), nn.LeakyReLU(0.2), _conv(out, out), nn.LeakyReLU(0.2))


class SelfAttention(nn.Module):
    """Every pixel of a small map attends to all others; added by a learned factor that begins at 0 (SAGAN)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        reduced = max(1, channels // 8)
        self.query, self.key, self.value = (_conv(channels, c, 1) for c in (reduced, reduced, channels))
        self.gain = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to the same shape."""
        q, k, v = (layer(x).flatten(2).transpose(1, 2) for layer in (self.query, self.key, self.value))
        attended = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(x.shape)
        return x + self.gain * attended


class MUNet(nn.Module):
    """How real every pixel of a picture is, as a logit.

    Args:
        num_feat: channels at full size.
        ch_mult: channels of each size, in units of `num_feat`; the first is the full size, each next one half of it.
    """

    def __init__(self, num_feat: int = 64, ch_mult: tuple[int, ...] = (1, 2, 4, 8)) -> None:
        super().__init__()
        widths = [num_feat * m for m in ch_mult]
        self.entry = _conv(3, widths[0])
        pairs = list(pairwise(widths))
        self.down = nn.ModuleList(nn.Sequential(_conv(a, b, 4, 2), nn.LeakyReLU(0.2), _stage(b, b)) for a, b in pairs)
        self.middle = SelfAttention(widths[-1])
        self.up = nn.ModuleList(_stage(b + a, a) for a, b in reversed(pairs))
        self.patch = _conv(widths[-1], num_feat, 1)
        self.gradient, self.frequency = _stage(6, num_feat), _stage(3, num_feat)
        self.heads = nn.ModuleList(_conv(c, 1) for c in (widths[0], num_feat, num_feat, num_feat))
        self.trust = _conv(widths[0] + 3 * num_feat, 4)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) in 0..1 to (N, 1, H, W); any size that halves as often as `ch_mult` asks."""
        size = x.shape[2:]
        y = F.leaky_relu(self.entry(x), 0.2)
        passed = [y]
        for down in self.down:
            passed.append(down(passed[-1]))
        middle = y = self.middle(passed.pop())
        for up in self.up:
            skip = passed.pop()
            enlarged = F.interpolate(y, size=skip.shape[2:], mode="bilinear", align_corners=False)
            y = up(torch.cat((enlarged, skip), dim=1))
        branches = [
            y,
            self.gradient(_gradients(x)),
            F.interpolate(self.frequency(_spectrum(x)), size=size, mode="bilinear", align_corners=False),
            F.interpolate(F.leaky_relu(self.patch(middle), 0.2), size=size, mode="bilinear", align_corners=False),
        ]
        logits = torch.cat([head(branch) for head, branch in zip(self.heads, branches, strict=True)], dim=1)
        trust = torch.softmax(self.trust(torch.cat(branches, dim=1)), dim=1)
        verdict: Tensor = (trust * logits).sum(dim=1, keepdim=True)
        return verdict


def _gradients(x: Tensor) -> Tensor:
    """Differences to the pixel on the right and below, (N, 6, H, W); 0 at the far rim."""
    return torch.cat((F.pad(x.diff(dim=3), (0, 1)), F.pad(x.diff(dim=2), (0, 0, 0, 1))), dim=1)


def _spectrum(x: Tensor) -> Tensor:
    """log(1 + |F|) of the orthonormal spectrum, (N, 3, H, W // 2 + 1), low frequencies in the middle of the rows."""
    magnitude = torch.fft.rfft2(x.float(), norm="ortho").abs()
    centred: Tensor = torch.fft.fftshift(torch.log1p(magnitude), dim=2)
    return centred


class Adversary:
    """A discriminator with its optimiser.

    The loss is the original one (Goodfellow et al. 2014), the network's the non-saturating form.

    Args:
        config: its size and learning rate.
        device: torch device; on CUDA it computes in bfloat16 as the network does.
    """

    def __init__(self, config: DiscriminatorConfig, device: torch.device) -> None:
        self.device = device
        self.network = MUNet(config.num_feat, config.ch_mult).to(device)
        self.optimizer = torch.optim.AdamW(
            self.network.parameters(), lr=config.learning_rate, betas=(0.9, 0.99), weight_decay=0.0
        )

    def loss(self, output: Tensor) -> Tensor:
        """What the upscaled pictures cost for not passing as real; gradients go to them alone."""
        self.network.requires_grad_(False)
        cost = F.softplus(-self._judge(output)).mean()
        self.network.requires_grad_(True)
        return cost

    def update(self, output: Tensor, target: Tensor) -> Tensor:
        """One step of the discriminator; returns its loss (0.69 where it cannot tell)."""
        upscaled, real = self._judge(torch.cat((output.detach(), target))).chunk(2)
        cost = 0.5 * (F.softplus(upscaled).mean() + F.softplus(-real).mean())
        self.optimizer.zero_grad(set_to_none=True)
        cost.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        return cost.detach()

    def state_dict(self) -> dict[str, Any]:
        """All that a resumed run needs."""
        return {"network": self.network.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The reverse of `state_dict`; raises what torch does where it does not fit."""
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])

    def _judge(self, pictures: Tensor) -> Tensor:
        with torch.autocast("cuda", torch.bfloat16, enabled=self.device.type == "cuda"):
            logits: Tensor = self.network(pictures)
        return logits.float()

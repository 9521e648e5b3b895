"""The exact algebra of deployment: the linear parts of ParagonSR2 as single convolutions at input resolution.

Nothing non-linear stands between `conv_mid` and the output, nor in the base path. Both are affine and commute with
shifts by whole input pixels, so each of them *is* a convolution to 3*scale^2 channels followed by one pixel shuffle,
and its kernel is what it answers to an impulse. The kernels are read off that way in float64 and rounded once.

Output channels are in the order of `torch.nn.PixelShuffle` and of ONNX DepthToSpace in CRD mode:
`colour * scale^2 + dy * scale + dx`.

The folded forms equal the original wherever the original's own zero padding of intermediate maps is out of sight: all
but the outermost ring of output pixels for `tail`, all for `base` at alpha 0, all but two rings at alpha > 0. So on an
input padded by two or more pixels, the output cropped after, they are equal everywhere.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from videosr.archs.paragonsr2 import ParagonSR2

HALO = 8
"""Input pixels of replicated rim for our own networks. Realtime sees 7 far: zero padding is out of its sight."""


@dataclass(frozen=True, slots=True)
class Convolution:
    """Weights of an ordinary "same" convolution of odd size.

    Attributes:
        weight: (out, in, k, k).
        bias: (out,).
    """

    weight: Tensor
    bias: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        """(N, in, H, W) to (N, out, H, W), zero padded, in the type of x."""
        return F.conv2d(x, self.weight.to(x), self.bias.to(x), padding=self.weight.shape[-1] // 2)


class Deployed(nn.Module):
    """The deployment form in torch: tail and base folded, the rim replicated.

    Args:
        model: the network, on any device, which is then that of the copy too; its values are copied.
        halo: input pixels of replicated rim; 0 for the zero padding of published networks.
        half: the detail path in float16; the base path and the sum stay in float32.
    """

    def __init__(self, model: ParagonSR2, halo: int, *, half: bool = False) -> None:
        super().__init__()
        self.scale, self.halo = model.scale, halo
        self.working = torch.float16 if half else torch.float32
        self.body = copy.deepcopy(nn.Sequential(model.conv_in, model.body, model.conv_mid))
        self.tail, self.base = _layer(tail(model)), _layer(base(model))
        self.body.to(self.working)
        self.tail.to(self.working)
        self.eval().requires_grad_(False)

    def forward(self, frame: Tensor, average: Tensor | None = None) -> Tensor:
        """(N, 3, H, W) to (N, 3, scale*H, scale*W), float32, unclamped; arguments as `ParagonSR2.forward`."""
        sides = [self.halo] * 4
        frame = F.pad(frame, sides, mode="replicate")
        average = frame if average is None else F.pad(average, sides, mode="replicate")
        detail = self.tail(self.body(average.to(self.working))).float()
        output = F.pixel_shuffle(self.base(frame) + detail, self.scale)
        edge = self.halo * self.scale
        return output[:, :, edge : output.shape[2] - edge, edge : output.shape[3] - edge]


def tail(model: ParagonSR2) -> Convolution:
    """`up`, pixel shuffle, `conv_out` and `detail_gain` as one 5x5 convolution C -> 3*scale^2, float64."""
    net = copy.deepcopy(model).double()
    channels = net.conv_in.out_channels
    return _probe(lambda x: net.detail_gain * net.conv_out(net.up(x)), channels, 2, model.scale, net.detail_gain.device)


def base(model: ParagonSR2) -> Convolution:
    """The base path as one convolution 3 -> 3*scale^2, float64: 3x3 at alpha 0, 9x9 with the pre-filter; bias 0."""
    net = copy.deepcopy(model.base).double()
    return _probe(net, 3, 4 if model.base.alpha > 0 else 1, model.scale, net.blur.kernel.device)


def scaled(conv: nn.Conv2d | nn.Linear, gamma: Tensor) -> tuple[Tensor, Tensor]:
    """(weight, bias) of `conv` followed by a factor per output channel (LayerScale), float64."""
    factor = gamma.detach().double().flatten()
    weight = conv.weight.detach().double()
    bias = torch.zeros_like(factor) if conv.bias is None else conv.bias.detach().double()
    return weight * factor.view(-1, *[1] * (weight.ndim - 1)), bias * factor


def _layer(weights: Convolution) -> nn.Conv2d:
    out, inner, size, _ = weights.weight.shape
    layer = nn.Conv2d(inner, out, size, padding=size // 2, device=weights.weight.device)
    layer.load_state_dict({"weight": weights.weight, "bias": weights.bias})
    return layer


@torch.no_grad()
def _probe(
    affine: Callable[[Tensor], Tensor], channels: int, reach: int, scale: int, device: torch.device
) -> Convolution:
    """The convolution that `affine`, (N, channels, H, W) to (N, 3, scale*H, scale*W), is away from the border.

    Args:
        affine: an affine map in float64 that commutes with shifts by whole input pixels.
        channels: of its input.
        reach: how many input pixels away from its own an output pixel can see.
        scale: the enlargement.
        device: of the map.
    """
    # All answers lie far enough inside for zero padding, of whichever map, to be out of their sight.
    margin = 2 * reach
    size = 2 * margin + 1
    impulses = torch.zeros(channels + 1, channels, size, size, dtype=torch.float64, device=device)
    impulses[:-1, :, margin, margin] = torch.eye(channels, dtype=torch.float64, device=device)
    answers = F.pixel_unshuffle(affine(impulses), scale)
    nothing = answers[-1, :, margin, margin]
    seen = slice(margin - reach, margin + reach + 1)
    # A convolution layer correlates, so the kernel is the mirrored impulse response.
    kernel = (answers[:-1, :, seen, seen] - nothing[None, :, None, None]).flip(2, 3).transpose(0, 1)
    return Convolution(kernel.contiguous(), nothing.clone())

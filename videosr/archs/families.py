"""The architectures: the one place that knows them all."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from videosr.archs import nexus, nexus_weights, paragon_weights, paragonsr2
from videosr.archs.fold import HALO, Deployed
from videosr.archs.nexus import Nexus
from videosr.archs.paragon_blocks import HALF_MAX, PRODUCT_LIMIT
from videosr.archs.paragonsr2 import ParagonSR2
from videosr.archs.weights import Weights

type Network = ParagonSR2 | Nexus


@dataclass(frozen=True, kw_only=True, slots=True)
class Start:
    """What a network starts training with.

    Attributes:
        upsampler_alpha: of ParagonSR2's base path.
        detail_gain: of ParagonSR2.
        layer_scale: of every LayerScale.
        windows: with window attention, where the variant has it.
    """

    upsampler_alpha: float = 0.0
    detail_gain: float = 1.0
    layer_scale: float = 0.1
    windows: bool = True


@dataclass(frozen=True, kw_only=True, slots=True)
class Family:
    """An architecture. The functions take its own networks only.

    Attributes:
        name: in the header of our files.
        variants: that it has.
        halo: input pixels of replicated rim that networks of our own are used with; 0: zero padding.
        averages: whether it takes the temporal average of a frame's window beside the frame.
        new: (variant, scale, start) to a network with random weights; ValueError if it has no such one.
        read: (weights, alpha, window_size) to the network in a file and its generation; see `checkpoint.load`.
        header: what of a network its tensors, variant, scale and window size do not tell.
        deployed: (network, halo, half) to a copy that computes the network as it is used, on a picture padded by halo.
    """

    name: str
    variants: tuple[str, ...]
    halo: int
    averages: bool
    new: Callable[[str, int, Start], Network]
    read: Callable[[Weights, float | None, int | None], tuple[Network, str]]
    header: Callable[[Any], dict[str, str]]
    deployed: Callable[[Any, int, bool], nn.Module]


class Whole(nn.Module):
    """A network that is used as it was trained.

    Args:
        network: its values are copied.
        halo: input pixels of replicated rim.
        half: in float16.
    """

    def __init__(self, network: nn.Module, halo: int, half: bool) -> None:
        super().__init__()
        self.halo = halo
        self.working = torch.float16 if half else torch.float32
        self.network = copy.deepcopy(network).to(self.working)
        self.eval().requires_grad_(False)

    def forward(self, frame: Tensor) -> Tensor:
        """(N, 3, H, W) to (N, 3, scale*H, scale*W), float32, unclamped."""
        padded = F.pad(frame, [self.halo] * 4, mode="replicate") if self.halo else frame
        output: Tensor = self.network(padded.to(self.working)).float()
        edge = self.halo * (output.shape[2] // padded.shape[2])
        return output[:, :, edge : output.shape[2] - edge, edge : output.shape[3] - edge]


def _paragon_header(network: ParagonSR2) -> dict[str, str]:
    header = {"upsampler_alpha": repr(float(network.base.alpha))}
    if network.variant == "stream" and network.product_limit < HALF_MAX:
        header["product_limit"] = repr(network.product_limit)
    return header


PARAGON = Family(
    name="ParagonSR2",
    variants=tuple(paragonsr2.VARIANTS),
    halo=HALO,
    averages=True,
    new=lambda variant, scale, start: ParagonSR2(
        variant,
        scale,
        upsampler_alpha=start.upsampler_alpha,
        detail_gain=start.detail_gain,
        layer_scale=start.layer_scale,
        export_safe=not start.windows,
        product_limit=PRODUCT_LIMIT,
    ),
    read=paragon_weights.read,
    header=_paragon_header,
    deployed=lambda network, halo, half: Deployed(network, halo, half=half),
)
NEXUS = Family(
    name="NEXUS",
    variants=tuple(nexus.VARIANTS),
    halo=HALO,
    averages=False,
    new=lambda variant, scale, start: Nexus(variant, scale, layer_scale=start.layer_scale),
    read=lambda weights, _, window_size: (nexus_weights.read(weights, window_size), ""),
    header=lambda _: {},
    deployed=Whole,
)
FAMILIES = (PARAGON, NEXUS)


def family_of(variant: str) -> Family:
    """The family of a variant.

    Raises:
        ValueError: there is no such variant.
    """
    for family in FAMILIES:
        if variant in family.variants:
            return family
    known = ", ".join(name for family in FAMILIES for name in family.variants)
    raise ValueError(f"variant {variant!r} is not one of {known}")


def family_in(weights: Weights) -> Family:
    """The family of the network in a file. What is none is taken for ParagonSR2, whose reader says what is missing."""
    return NEXUS if nexus_weights.recognises(weights) else PARAGON

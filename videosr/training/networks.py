"""The network that is trained: as it begins, and as it is measured."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray

from videosr.archs import checkpoint
from videosr.archs.exact import exact_float32
from videosr.archs.families import Network, Start, family_of
from videosr.archs.paragon_blocks import ResidualGroup, WindowAttention
from videosr.archs.paragonsr2 import ParagonSR2
from videosr.errors import NetworkError, UsageError
from videosr.evaluate import Upscale
from videosr.training.config import NetworkConfig
from videosr.training.growing import GROWN, grown
from videosr.training.rescaling import rescaled
from videosr.training.start import open_gates


def upscaler(network: Network) -> Upscale:
    """A network as it is deployed: a ParagonSR2 folded, a picture's border repeated and cropped away again.

    Args:
        network: on any device; its present weights are copied.
    """
    device = next(network.parameters()).device
    family = family_of(network.variant)
    deployed = family.deployed(network, family.halo, False)

    def upscale(image: NDArray[np.float32]) -> NDArray[np.float32]:
        with torch.no_grad(), exact_float32():
            x = torch.from_numpy(image).permute(2, 0, 1)[None].to(device)
            return np.asarray(deployed(x)[0].permute(1, 2, 0).cpu())

    return upscale


def new_network(config: NetworkConfig) -> tuple[Network, Mapping[str, str]]:
    """The network as training starts it, and the header of the weights it starts from (empty for random ones).

    Raises:
        NetworkError: the weights to start from are of another network.
        UsageError: `config` names no network, or window attention that is there shall not be.
    """
    network, header = _plain_network(config)
    if config.attention_mode == "off" and network.has_windows:
        raise UsageError(f'network: attention_mode "off": {config.weights or config.variant} has window attention')
    for module in network.modules():
        if isinstance(module, ResidualGroup):
            module.use_checkpointing = config.checkpointing
        elif isinstance(module, WindowAttention) and config.attention_mode != "off":
            module.mode = config.attention_mode
    return network, header


def _plain_network(config: NetworkConfig) -> tuple[Network, Mapping[str, str]]:
    windows = config.attention_mode != "off"
    if config.weights is None:
        start = Start(
            upsampler_alpha=config.upsampler_alpha,
            detail_gain=config.detail_gain,
            layer_scale=config.layer_scale,
            windows=windows,
        )
        try:
            network = family_of(config.variant).new(config.variant, config.scale, start)
        except ValueError as exc:
            raise UsageError(f"network: {exc}") from exc
        if isinstance(network, ParagonSR2) and network.variant == "stream":
            open_gates(network)
        return network, {}
    network, info = checkpoint.load(config.weights, alpha=config.upsampler_alpha)
    if (network.variant, network.scale) == (config.variant, config.scale):
        return network.train(), info.metadata
    if network.variant == config.variant and isinstance(network, ParagonSR2):
        before = info.metadata.get("training", "unknown")
        told = {"training": f"{before}; then a tail for {config.scale}x fitted to the body"}
        return rescaled(network, config.scale).train(), {**info.metadata, **told}
    grows = GROWN.get(config.variant) == network.variant and config.scale == network.scale
    if grows and isinstance(network, ParagonSR2):
        return grown(network, config.variant, config.layer_scale, windows=windows), info.metadata
    raise NetworkError(
        f"{config.weights}: is {network.variant} {network.scale}x and not {config.variant} {config.scale}x"
    )

"""Learning from what a better network makes of the same input.

Most of the difference between an output and the original is what no network can know. It averages out over many
batches, and until then it drowns what there is to learn. A teacher's output has none of it (distillation: Hinton,
Vinyals and Dean 2015; for super-resolution Gao et al. 2018, "Image Super-Resolution Using Knowledge Distillation").
"""

from __future__ import annotations

import torch
from torch import Tensor

from videosr.archs import checkpoint
from videosr.archs.exact import exact_float32
from videosr.archs.families import family_of
from videosr.errors import NetworkError
from videosr.training.config import TeacherConfig


class Teacher:
    """A trained network that has a say in what is to be learned.

    Args:
        config: its weights, and how much it says.
        scale: of the network that learns.
        device: torch device.

    Attributes:
        device: as given.

    Raises:
        NetworkError: its weights cannot be used, or are of another scale.
    """

    def __init__(self, config: TeacherConfig, scale: int, device: torch.device) -> None:
        network, _ = checkpoint.load(config.weights)
        if network.scale != scale:
            raise NetworkError(f"{config.weights}: is {network.variant} {network.scale}x: no teacher of {scale}x")
        family = family_of(network.variant)
        self._network = family.deployed(network, family.halo, False).to(device).to(memory_format=torch.channels_last)
        self.device, self._share = device, config.share

    @torch.no_grad()
    def target(self, lr: Tensor, hr: Tensor) -> Tensor:
        """What is to be learned: the original, and the mean of what the teacher makes of the input's reflections.

        Args:
            lr: (N, 3, H, W) in 0..1.
            hr: (N, 3, scale*H, scale*W); so is the result.
        """
        made = torch.zeros_like(hr)
        with torch.autocast(lr.device.type, enabled=False), exact_float32():
            for axes in ([], [2], [3], [2, 3]):
                made += self._network(lr.flip(axes)).flip(axes)
        return torch.lerp(hr, made / 4, self._share)

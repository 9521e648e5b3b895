"""The perceptual loss: distance of the features that a VGG19 sees (Johnson et al. 2016; before ReLU as in ESRGAN)."""

from __future__ import annotations

import safetensors
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from videosr.errors import NetworkError, UsageError
from videosr.training.config import PerceptualConfig

_BLOCKS = (2, 2, 4, 4, 4)  # convolutions of VGG19 between one pooling and the next
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, which it was trained on


def _numbers() -> dict[str, int]:
    """The number in torchvision's `features` of every convolution, by the paper's name: conv1_1 is 0, conv5_4 is 34."""
    numbers, number = {}, 0
    for block, count in enumerate(_BLOCKS, 1):
        for i in range(1, count + 1):
            numbers[f"conv{block}_{i}"] = number
            number += 2  # itself and its ReLU
        number += 1  # pooling
    return numbers


class Perceptual(nn.Module):
    """Weighted L1 of VGG19's answers to output and target, (N, 3, H, W) in 0..1 each.

    Args:
        config: the weights and the layers.

    Raises:
        UsageError: a layer that VGG19 has not.
        NetworkError: the weights cannot be read or are of another network.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, config: PerceptualConfig) -> None:
        super().__init__()
        numbers = _numbers()
        if unknown := sorted(set(config.layers) - set(numbers)):
            raise UsageError(f"perceptual: layer {', '.join(unknown)} is none of VGG19's: {', '.join(numbers)}")
        if not config.layers:
            raise UsageError("perceptual: layers names none")
        try:
            tensors = load_file(config.weights)
        except (OSError, safetensors.SafetensorError) as exc:
            raise NetworkError(f"{config.weights}: cannot be read as .safetensors: {exc}") from exc
        last = max(numbers[name] for name in config.layers)
        self.weights = config.layers
        self.convolutions = nn.ModuleDict()
        inner = 3
        for name, number in numbers.items():
            if number > last:
                break
            weight, bias = (tensors.get(f"features.{number}.{part}") for part in ("weight", "bias"))
            if weight is None or bias is None or weight.ndim != 4 or weight.shape[1:] != (inner, 3, 3):
                raise NetworkError(f"{config.weights}: features.{number} is no {name} of a VGG19")
            layer = nn.Conv2d(inner, len(weight), 3, padding=1)
            layer.load_state_dict({"weight": weight, "bias": bias})
            self.convolutions[name] = layer
            inner = len(weight)
        self.register_buffer("mean", torch.tensor(_MEAN).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(_STD).view(1, 3, 1, 1))
        self.requires_grad_(False)

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        """The loss, a scalar."""
        with torch.no_grad():
            expected = self.features(target)
        found = self.features(output)
        return torch.stack([self.weights[n] * F.l1_loss(found[n], expected[n]) for n in self.weights]).sum()

    def features(self, x: Tensor) -> dict[str, Tensor]:
        """The answers of the layers that are compared, before their ReLU."""
        x = (x - self.mean) / self.std
        answers = {}
        for name, layer in self.convolutions.items():
            if name.endswith("_1") and name != "conv1_1":
                x = F.max_pool2d(x, 2)
            x = layer(x)
            if name in self.weights:
                answers[name] = x
            x = F.relu(x)
        return answers

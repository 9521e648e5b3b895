"""What moves the weights: AdamW, or Muon for the dense kernels and AdamW for the rest."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Literal

import torch
from torch import Tensor, nn

RATE = 3.0
"""Muon's learning rate in units of AdamW's, whose steps would be as long at the same rate (Liu et al. 2025): in its own
every direction counts alike, so that they may be longer."""

_MOMENTUM = 0.95
_STEPS = 5
_QUINTIC = (3.4445, -4.7750, 2.0315)
"""Of the Newton-Schulz iteration: singular values between 0 and 1 are driven to about 1 in five steps."""


class Muon(torch.optim.Optimizer):
    """Steps along the momentum with all its singular values made 1 (Jordan et al. 2024, "Muon: An optimizer for hidden
    layers in neural networks"), so that a kernel also learns what only few of its gradients speak of.

    A convolution's kernel counts as the matrix (out, in * height * width). Unlike `torch.optim.Muon` it takes those,
    works on all matrices of a shape at once, and asks the device for nothing, so that a CUDA graph can record it.

    Args:
        params: of two dimensions or more.
        lr: as for AdamW; a tensor if it is to change inside a CUDA graph.
    """

    def __init__(self, params: Iterable[Tensor], lr: float | Tensor) -> None:
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One update of every parameter that has a gradient."""
        for group in self.param_groups:
            alike: dict[torch.Size, list[Tensor]] = {}
            for parameter in group["params"]:
                if parameter.grad is not None:
                    alike.setdefault(parameter.shape, []).append(parameter)
            for shape, parameters in alike.items():
                gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
                momenta = [self._momentum(parameter) for parameter in parameters]
                torch._foreach_lerp_(momenta, gradients, 1 - _MOMENTUM)
                ahead = torch.stack(torch._foreach_lerp(gradients, momenta, _MOMENTUM)).flatten(2)  # Nesterov's
                length = 0.2 * max(ahead.shape[1:]) ** 0.5  # the root mean square of AdamW's steps is about 0.2
                steps = orthogonal(ahead) * (group["lr"] * (-RATE * length))
                torch._foreach_add_(parameters, list(steps.reshape(-1, *shape).unbind()))

    def _momentum(self, parameter: Tensor) -> Tensor:
        state: dict[str, Any] = self.state[parameter]
        if not state:
            state["momentum"] = torch.zeros_like(parameter)
        momentum: Tensor = state["momentum"]
        return momentum


def orthogonal(matrices: Tensor) -> Tensor:
    """Matrices (N, rows, columns) with their singular values brought to between 0.7 and 1.2; float32."""
    tall = matrices.shape[1] > matrices.shape[2]
    x: Tensor = matrices.mT if tall else matrices
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-12)
    a, b, c = _QUINTIC
    for _ in range(_STEPS):
        square = x @ x.mT
        x = a * x + (b * square + c * square @ square) @ x
    return x.mT if tall else x


def optimizers(
    trained: list[nn.Parameter], kind: Literal["adamw", "muon"], rate: float | Tensor
) -> list[torch.optim.Optimizer]:
    """Those that move a network's trained parameters, together all of them and each once.

    Args:
        trained: on their device already.
        kind: "muon" leaves to AdamW what is no matrix between features: depthwise kernels, the first and the last
            convolution, biases and factors.
        rate: the learning rate; a tensor on CUDA, so that a recorded step finds it.
    """
    cuda = isinstance(rate, Tensor)
    matrices = [p for p in trained if kind == "muon" and p.ndim in (2, 4) and min(p.shape[:2]) > 3]
    known = {id(parameter) for parameter in matrices}
    others = [parameter for parameter in trained if id(parameter) not in known]
    # A short memory of squared gradients: after a jump of the loss the steps are small at once.
    adamw = torch.optim.AdamW(others, lr=rate, betas=(0.9, 0.99), weight_decay=0.0, capturable=cuda, fused=not cuda)
    return [adamw, Muon(matrices, rate)] if matrices else [adamw]

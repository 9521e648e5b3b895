"""The published network in torch, which engines are compared with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from videosr.archs import checkpoint


def published(
    weights: Path, size: tuple[int, int], device: str, *, half: bool, compiled: bool
) -> tuple[Callable[[], object], Callable[[], object]]:
    """(start, wait) of the published network, not folded, in torch, channels last; see `measure`.

    Args:
        weights: a checkpoint.
        size: (rows, columns) of the picture.
        device: torch's name of it.
        half: in float16.
        compiled: by `torch.compile`.
    """
    model, _ = checkpoint.load(weights, alpha=0.0)
    return of_model(model, size, device, half=half, compiled=compiled)


def of_model(
    model: torch.nn.Module, size: tuple[int, int], device: str, *, half: bool, compiled: bool
) -> tuple[Callable[[], object], Callable[[], object]]:
    """(start, wait) of a network in torch, as `published`."""
    kind = torch.float16 if half else torch.float32
    network: Any = model.eval().to(device, kind).to(memory_format=torch.channels_last)
    if compiled:
        network = torch.compile(network)
    x = torch.rand(1, 3, *size, device=device, dtype=kind).to(memory_format=torch.channels_last)

    def start() -> None:
        with torch.inference_mode():
            network(x)

    def wait() -> None:
        if device.startswith("cuda"):
            torch.cuda.synchronize(device)

    return start, wait

"""A device that is not the CPU, without one: torch's "meta" has shapes and no values."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Apart(TorchDispatchMode):
    """Refuses to compute with tensors of the CPU and of "meta" together, as CUDA does; only copies go across."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor) and x.ndim]
        devices = {x.device.type for x in tensors}
        if len(devices) > 1 and func is not torch.ops.aten.copy_.default:
            raise RuntimeError(f"{func}: expected all tensors to be on the same device, not on {devices}")
        if func is torch.ops.aten.equal.default:  # of values, as `torch.cov` asks of its weights
            return True
        return func(*args, **(kwargs or {}))


def without_autocast(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which "meta" has not."""
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())

"""torch: runs checkpoints as they are, folded, on the CPU or a CUDA device.

The engine for trying a checkpoint before exporting it, and what every other engine can be compared with.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from videosr.archs import checkpoint
from videosr.archs.families import family_of
from videosr.engines.base import Engine, Interface
from videosr.engines.network import Network
from videosr.errors import EngineError, UsageError
from videosr.frame import Array


class TorchEngine(Engine):
    """A checkpoint in torch, in the form in which it is deployed.

    Args:
        path: `.safetensors` or `.pth`.
        device: "cpu", "cuda" or "cuda:N".
        precision: "f32", "f16" (the detail path), or "auto": f16 on CUDA, else f32.
        threads: CPU threads; None leaves torch's own choice. It holds for torch as a whole.
        alpha: `upsampler_alpha` of the training, where the checkpoint does not record it.
        window_size: of the window attention, likewise.

    Raises:
        NetworkError: see `archs.checkpoint.load`.
        UsageError: unknown precision, or a setting the checkpoint does not record.
        EngineError: the device is not there.
    """

    def __init__(
        self,
        path: Path,
        *,
        device: str = "cpu",
        precision: str = "auto",
        threads: int | None = None,
        alpha: float | None = None,
        window_size: int | None = None,
    ) -> None:
        if precision == "auto":
            precision = "f16" if device.startswith("cuda") else "f32"
        if precision not in ("f32", "f16"):
            raise UsageError(f"precision {precision!r} of the torch engine is not one of auto, f32, f16")
        model, info = checkpoint.load(path, alpha=alpha, window_size=window_size)
        family = family_of(model.variant)
        halo = family.halo if info.metadata.get("padding") == "replicate" else 0
        self.interface = Interface.AVERAGE if family.averages else Interface.IMAGE
        told = {key: value for key, value in info.metadata.items() if model.has_windows or key != "window_size"}
        if model.reach is not None:
            told["reach"] = str(model.reach)
        self.network = Network(path=path, sha256=info.sha256, metadata=told)
        self.scale, self.precision = model.scale, precision
        if threads is not None:
            torch.set_num_threads(threads)
        try:
            self._device = torch.device(device)
            net = family.deployed(model, halo, precision == "f16").to(self._device)
        except (RuntimeError, AssertionError) as exc:  # torch asserts that it was built with CUDA
            raise EngineError(f"torch cannot use the device {device!r}: {_first_line(exc)}") from exc
        self._net = net.to(memory_format=torch.channels_last)
        self._settings = " ".join(f"{k} {v}" for k, v in family.header(model).items())
        self._settings += f" window {model.window_size} halo {halo}"

    @property
    def identity(self) -> str:
        """See `Engine.identity`."""
        name = torch.cuda.get_device_name(self._device) if self._device.type == "cuda" else self._device.type
        return f"torch {torch.__version__} {name} {self.precision} {self._settings} {self.network.sha256}"

    @torch.inference_mode()
    def run(self, frame: Array, average: Array | None = None) -> Array:
        """See `Engine.run`."""
        inputs = [
            torch.from_numpy(np.ascontiguousarray(picture, np.float32))
            .to(self._device)
            .contiguous(memory_format=torch.channels_last)
            for picture in (frame, average)
            if picture is not None
        ]
        try:
            output: Array = self._net(*inputs).contiguous().cpu().numpy()
        except RuntimeError as exc:  # out of memory is one
            raise EngineError(f"torch failed on a batch of shape {frame.shape}: {_first_line(exc)}") from exc
        return output


def _first_line(exc: BaseException) -> str:
    return (str(exc).strip() or type(exc).__name__).splitlines()[0]

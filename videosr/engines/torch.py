"""torch: runs checkpoints as they are, folded, on the CPU or a CUDA device.

The engine for trying a checkpoint before exporting it, and what every other engine can be compared with. On CUDA the
network is in half precision, channels last, recorded into a CUDA graph for each picture size, and takes and gives
arrays of the GPU; video planes go through the same buffers, streams and kernels as with TensorRT.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.dlpack import from_dlpack

from videosr.archs import checkpoint
from videosr.archs.exact import exact_float32
from videosr.archs.families import family_of
from videosr.engines.base import Engine, Interface, Picture, PlanarRunner
from videosr.engines.gpu_device import Device, cuda_device
from videosr.engines.gpu_execution import Conversion, Execution, Layout
from videosr.engines.gpu_planes import Planes, PlanesRunner
from videosr.engines.network import Network
from videosr.errors import EngineError, MissingExtraError, UsageError, first_line, remedy
from videosr.frame import Array, is_on_gpu, namespace

type Work = Callable[[], None]

_cuda: Any = torch.cuda  # has no types

_SIZES = 3
"""Picture sizes whose CUDA graphs are kept."""
_WARM = 3
"""Runs before the network is recorded: torch chooses algorithms and allocates in the first ones."""


class TorchEngine(Engine):
    """A checkpoint in torch, in the form in which it is deployed.

    Args:
        path: `.safetensors` or `.pth`.
        device: "cpu", "cuda" or "cuda:N".
        precision: "f32", "f16" (the detail path), or "auto": f16 on CUDA, else f32.
        threads: CPU threads; None leaves torch's own choice. It holds for torch as a whole.
        alpha: `upsampler_alpha` of the training, where the checkpoint does not record it.
        window_size: of the window attention, likewise.
        gpu: the device's memory, made already; None makes it, if cupy is installed.

    Raises:
        NetworkError: see `archs.checkpoint.load`.
        UsageError: unknown precision, or a setting the checkpoint does not record.
        EngineError: the device is not there.
    """

    dithers = True

    def __init__(
        self,
        path: Path,
        *,
        device: str = "cpu",
        precision: str = "auto",
        threads: int | None = None,
        alpha: float | None = None,
        window_size: int | None = None,
        gpu: Device | None = None,
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
            raise EngineError(f"torch cannot use the device {device!r}: {first_line(exc)}") from exc
        self._net: Callable[..., Tensor] = net.to(memory_format=torch.channels_last)
        self._windows = model.has_windows
        self.device = gpu or _gpu(self._device)
        self._graphs = self._device.type == "cuda"
        self._recorded: dict[tuple[tuple[int, ...], int], _Recorded] = {}
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
        pictures = [picture for picture in (frame, average) if picture is not None]
        try:
            inputs = [self._tensor(picture) for picture in pictures]
            output = self._forward(inputs)
            if not is_on_gpu(frame):
                made: Array = output.contiguous().cpu().numpy()
                return made
            own = output.clone(memory_format=torch.contiguous_format)  # a graph's output is written again
            if self._device.type == "cuda":
                torch.cuda.current_stream(self._device).synchronize()
            return namespace(frame).from_dlpack(own)
        except RuntimeError as exc:  # out of memory is one
            raise EngineError(f"torch failed on a batch of shape {frame.shape}: {first_line(exc)}") from exc

    def planar(self, source: Picture, target: Picture, window: int, denoise: float = 0.0) -> PlanarRunner | None:
        """See `Engine.planar`. Networks with window attention are cut into tiles, as tensors."""
        if self.device is None or self._windows:
            return None
        planes = Planes(self.device, self.network, ("float32", "float32"), source, target, window, denoise)
        execution = self._open(self.device, (source.height, source.width), planes.conversion())
        return PlanesRunner(execution, planes, str(self.network.path))

    def ready(self, size: tuple[int, int]) -> Execution:
        """The network ready for pictures of (rows, columns), as tensors on the GPU.

        Raises:
            EngineError: there is no GPU, or cupy is missing.
        """
        if self.device is None:
            raise EngineError(f"torch has no arrays of a GPU here: give --device cuda, with cupy ({remedy('cuda')})")
        return self._open(self.device, size)

    def _open(self, device: Device, size: tuple[int, int], conversion: Conversion | None = None) -> Execution:
        names = ["input", "average"][: 1 + (self.interface is Interface.AVERAGE)]
        inputs = {name: Layout((1, 3, *size), "float32") for name in names}
        outputs = {"output": Layout((1, 3, self.scale * size[0], self.scale * size[1]), "float32")}
        context = TorchContext(self._net, device, inputs | outputs, _on_stream(self._device))
        return Execution(device, [context], inputs, outputs, conversion, graphs=False)

    def _tensor(self, picture: Array) -> Tensor:
        """A batch as torch has it, without a copy where it is on the device already."""
        if is_on_gpu(picture):
            return from_dlpack(picture)
        return torch.from_numpy(np.ascontiguousarray(picture, np.float32)).to(self._device)

    def _forward(self, inputs: Sequence[Tensor]) -> Tensor:
        """The network; on CUDA from a graph, whose output stays until the next call."""
        if not self._graphs:
            return self._net(*(x.contiguous(memory_format=torch.channels_last) for x in inputs))
        key = tuple(inputs[0].shape), len(inputs)
        if key not in self._recorded:
            while len(self._recorded) >= _SIZES:
                del self._recorded[next(iter(self._recorded))]
            own = [torch.empty_like(x, memory_format=torch.channels_last) for x in inputs]
            self._recorded[key] = _Recorded(self._net, own)
        recorded = self._recorded[key]
        for own_input, x in zip(recorded.inputs, inputs, strict=True):
            own_input.copy_(x)
        return recorded.replay()


class _Recorded:
    """A network as a CUDA graph: one launch in place of some fifty.

    Args:
        net: the network.
        inputs: what it reads whenever it is replayed.
        output: where its result goes; None: where it likes.
    """

    def __init__(self, net: Callable[..., Tensor], inputs: Sequence[Tensor], output: Tensor | None = None) -> None:
        self.inputs = inputs

        def work() -> Tensor:
            made = net(*(x.contiguous(memory_format=torch.channels_last) for x in inputs))
            return made if output is None else output.copy_(made)

        aside = _cuda.Stream(inputs[0].device)
        aside.wait_stream(torch.cuda.current_stream(inputs[0].device))
        with exact_float32():
            with torch.cuda.stream(aside):
                for _ in range(_WARM):
                    work()
            aside.synchronize()
            self._graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self._graph, stream=aside, capture_error_mode="thread_local"):
                self._output = work()

    def replay(self) -> Tensor:
        """Queue it on the current stream; the output is written again by the next replay."""
        self._graph.replay()
        return self._output


class TorchContext:
    """See `gpu_execution.Context`: the network in torch, on tensors that lie where it is told.

    Args:
        net: the network.
        device: whose memory it is.
        layouts: of the network's tensors, the output last.
        queue: does work on a stream.
    """

    def __init__(
        self,
        net: Callable[..., Tensor],
        device: Device,
        layouts: Mapping[str, Layout],
        queue: Callable[[Work, int], None],
    ) -> None:
        self._net, self._device, self._layouts, self._queue = net, device, layouts, queue
        self._bound: dict[str, int] = {}
        self._recorded: dict[tuple[int, ...], _Recorded] = {}

    def bind(self, name: str, address: int) -> None:
        """See `Context.bind`."""
        self._bound[name] = address

    def enqueue(self, stream: int) -> None:
        """See `Context.enqueue`. torch records its own graphs, one for each set of tensors."""
        addresses = tuple(self._bound[name] for name in self._layouts)
        try:
            self._queue(lambda: self._run(addresses), stream)
        except RuntimeError as exc:  # out of memory is one
            raise EngineError(f"torch failed: {first_line(exc)}") from exc

    @torch.inference_mode()
    def _run(self, addresses: tuple[int, ...]) -> None:
        if addresses not in self._recorded:
            *inputs, output = (
                from_dlpack(self._device.view(address, layout.shape, layout.dtype))
                for address, layout in zip(addresses, self._layouts.values(), strict=True)
            )
            self._recorded[addresses] = _Recorded(self._net, inputs, output)
        self._recorded[addresses].replay()

    def capturable(self, stream: int) -> bool:
        """See `Context.capturable`: its memory is torch's, which only torch can record."""
        return False


def _on_stream(place: torch.device) -> Callable[[Work, int], None]:
    """Has torch queue its work on a `cudaStream_t`."""

    def queue(work: Work, stream: int) -> None:
        with torch.cuda.stream(_cuda.ExternalStream(stream, place)):
            work()

    return queue


def _gpu(place: torch.device) -> Device | None:
    """The memory of a CUDA device as frames have it; None where cupy is missing: frames then come from the host."""
    if place.type != "cuda":
        return None
    try:
        return cuda_device(place.index or 0, "frames on the GPU")
    except MissingExtraError:
        return None

"""Our own CUDA kernel for the realtime network: one launch from picture to enlarged picture.

`kernels/realtime.cu` says how, and at what cost; `cuda_weights` reads the deployment file. Everything around it, frames
under way, streams, graphs and video planes, is what TensorRT's engines use.

What has run and what has not is in docs/gpu.md.
"""

from __future__ import annotations

import hashlib
from importlib import resources
from typing import NamedTuple

import numpy as np

from videosr.engines.base import Engine, Interface, Picture, PlanarRunner
from videosr.engines.cuda_planes import C_TYPES
from videosr.engines.cuda_weights import Packed, read
from videosr.engines.gpu_device import Device, Kernels, cuda_device
from videosr.engines.gpu_execution import Conversion, Execution, Layout
from videosr.engines.gpu_planes import Planes, PlanesRunner
from videosr.engines.network import Network
from videosr.engines.tensorrt_check import reference_of, self_test
from videosr.errors import EngineError, UsageError
from videosr.frame import Array, complete, namespace

SOURCE, HEADER = "realtime.cu", "tensor.cuh"
LEAST = (7, 5)
"""Compute capability: the first whose tensor cores the kernel knows."""
_HALO = 6  # as in the kernel's source
_WARP = 32
_TRIAL = (24, 96)
"""Where the kernel is tested: wider than one strip of most GPUs."""
_SMALL = 1 << 20
"""Input pixels below which one frame does not fill a GPU, so that two run side by side."""
_SIZES = 2
"""Picture sizes kept ready at a time."""


class Shape(NamedTuple):
    """How the kernel is laid out for a GPU.

    Attributes:
        tiles: warps a block, each with 16 columns.
        blocks: on a multiprocessor at once.
    """

    tiles: int
    blocks: int

    @property
    def shared(self) -> int:
        """Bytes of shared memory a block: 3 x 4 rows of 32 channels and 12 of 16, float16."""
        return 16 * self.tiles * (12 * 64 + 12 * 32)

    @property
    def columns(self) -> int:
        """Of the picture that a block makes."""
        return 16 * self.tiles - 2 * _HALO

    def strip(self, height: int, width: int, multiprocessors: int) -> int:
        """Rows that a block makes, an even number: such that all blocks run at once, if that leaves them worth it.

        A block begins 12 rows above its strip, so few long strips are better than many short ones.
        """
        across = -(-width // self.columns)
        down = max(1, multiprocessors * self.blocks // across)
        rows = max(-(-height // down), 4 * _HALO)
        return rows + rows % 2


def shape_for(capability: tuple[int, int]) -> Shape:
    """As many columns a block as shared memory holds: 64 KiB on Turing, 163 on A100, 227 on H100 and B200, else 99."""
    if capability < (8, 0):
        return Shape(3, 1)
    if capability in ((8, 0), (8, 7)):
        return Shape(8, 1)
    if capability[0] in (9, 10):
        return Shape(6, 2)  # two blocks, so that one computes while the other waits at a barrier
    return Shape(5, 1)


def macros(scale: int, output: str, shape: Shape) -> dict[str, object]:
    """What the kernel's source is compiled with."""
    return {"SCALE": scale, "OUTPUT": C_TYPES[output], "TILES": shape.tiles, "BLOCKS": shape.blocks}


class CudaEngine(Engine):
    """The realtime network on an NVIDIA GPU, by our own kernel.

    Args:
        network: realtime 2x or 4x, in deployment form.
        precision: "f16", or "auto", which is the same.
        index: of the GPU, as CUDA counts.
        device: the GPU, made already.

    Raises:
        NetworkError: another network.
        UsageError: another precision.
        MissingExtraError: cupy is not installed.
        EngineError: no GPU, one older than Turing, or the self-test failed there.
    """

    dithers = True

    def __init__(
        self, network: Network, *, precision: str = "auto", index: int = 0, device: Device | None = None
    ) -> None:
        if precision not in ("auto", "f16"):
            raise UsageError(
                f"precision {precision!r} of the cuda engine is not one of auto, f16: use --engine tensorrt_rtx, "
                "tensorrt or torch"
            )
        self.network, self.interface, self.precision = network, Interface.AVERAGE, "f16"
        self._packed = read(network)
        self.scale = self._packed.scale
        device = device or cuda_device(index, "the cuda engine")
        if device.gpu.capability < LEAST:
            raise EngineError(f"the cuda engine needs compute capability 7.5, not {device.gpu}; use --engine torch")
        self.device: Device = device
        self._shape = shape_for(device.gpu.capability)
        self._weights = Weights(device, self._packed)
        self._ready: dict[tuple[int, int], Execution] = {}
        self._test()

    @property
    def identity(self) -> str:
        """See `Engine.identity`."""
        folder = resources.files("videosr.engines") / "kernels"
        sources = b"".join((folder / name).read_bytes() for name in (SOURCE, HEADER))
        kernel = hashlib.sha256(sources).hexdigest()[:16]
        return f"cuda {kernel} {self.device.gpu} {self.precision} {self.network.sha256}"

    def run(self, frame: Array, average: Array | None = None) -> Array:
        """See `Engine.run`."""
        execution = self.ready((frame.shape[2], frame.shape[3]))
        complete(frame)
        pictures = (frame, frame if average is None else average)
        tickets = [execution.submit([p[i : i + 1] for p in pictures]) for i in range(len(frame))]
        together = namespace(frame).concatenate([execution.result(ticket)[0] for ticket in tickets])
        complete(together)
        return together

    def planar(self, source: Picture, target: Picture, window: int, denoise: float = 0.0) -> PlanarRunner:
        """See `Engine.planar`. What becomes 8 bits comes out of the kernel in half precision, 16 times finer."""
        output = "float16" if target.format.bits == 8 else "float32"
        planes = Planes(self.device, self.network, ("float32", output), source, target, window, denoise)
        execution = self._open((source.height, source.width), planes.conversion(), output)
        return PlanesRunner(execution, planes, str(self.network.path))

    def ready(self, size: tuple[int, int]) -> Execution:
        """The kernel ready for pictures of (rows, columns), as tensors.

        Raises:
            EngineError: out of memory.
        """
        if size not in self._ready:
            while len(self._ready) >= _SIZES:
                del self._ready[next(iter(self._ready))]
            self._ready[size] = self._open(size)
        return self._ready[size]

    def _open(self, size: tuple[int, int], conversion: Conversion | None = None, output: str = "float32") -> Execution:
        """Contexts and buffers for a size."""
        lanes = 2 if size[0] * size[1] < _SMALL else 1
        kernels = self.device.kernels(SOURCE, macros(self.scale, output, self._shape))
        layouts = {name: Layout((1, 3, *size), "float32") for name in ("input", "average")}
        made = {"output": Layout((1, 3, self.scale * size[0], self.scale * size[1]), output)}
        contexts = [CudaContext(self.device, kernels, self._weights, self._shape, layouts | made) for _ in range(lanes)]
        return Execution(self.device, contexts, layouts, made, conversion, slots=2 + lanes)

    def _test(self) -> None:
        """Compare the kernel's pictures with those of OpenVINO in float32."""
        execution = self._open(_TRIAL)

        def step(frame: Array, average: Array | None, reset: bool) -> Array:
            return np.asarray(execution.run([frame, frame if average is None else average])[0])

        reference = reference_of(self.network)
        verdict = self_test(step, self.interface, reference, _TRIAL, self.precision, 0.0)
        if verdict.problem:
            raise EngineError(f"{self.network.path}: the cuda engine gives {verdict.problem}; use another --engine")


class Weights:
    """A network's weights on the device.

    Args:
        device: where.
        packed: they.
    """

    def __init__(self, device: Device, packed: Packed) -> None:
        stream, event = device.stream(), device.event()
        self.arrays = []
        for values in (packed.products, packed.biases):
            host, array = device.pinned(values.shape, values.dtype.name), device.empty(values.shape, values.dtype.name)
            np.copyto(host, values)
            device.upload(host, array, stream)
            device.record(event, stream)
            device.synchronize(event)
            self.arrays.append(array)


class CudaContext:
    """See `gpu_execution.Context`: the kernel for pictures of one size.

    Args:
        device: where.
        kernels: compiled.
        weights: of the network.
        shape: that the kernels were compiled for.
        layouts: of `input`, `average` and `output`.
    """

    def __init__(
        self, device: Device, kernels: Kernels, weights: Weights, shape: Shape, layouts: dict[str, Layout]
    ) -> None:
        self._device, self._kernels, self._weights, self._shape = device, kernels, weights, shape
        self._layouts = layouts
        self._bound: dict[str, int] = {}
        height, width = layouts["input"].shape[2:]
        strip = shape.strip(height, width, device.multiprocessors)
        self._grid = (-(-width // shape.columns), -(-height // strip), 1)
        self._numbers = [np.int32(value) for value in (height, width, strip)]

    def bind(self, name: str, address: int) -> None:
        """See `Context.bind`."""
        self._bound[name] = address

    def enqueue(self, stream: int) -> None:
        """See `Context.enqueue`."""
        arrays = [
            self._device.view(self._bound[name], layout.shape, layout.dtype) for name, layout in self._layouts.items()
        ]
        arguments = [*arrays, *self._weights.arrays, *self._numbers]
        block = (_WARP * self._shape.tiles, 1, 1)

        def work() -> None:
            self._kernels.launch("realtime", self._grid, block, arguments, self._shape.shared)

        self._device.queue(work, self._device.stream_of(stream))

    def capturable(self, stream: int) -> bool:
        """See `Context.capturable`."""
        return True

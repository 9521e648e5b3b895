"""Our own CUDA kernels for the networks of real time: features stay on the multiprocessor, whole or block by block.

`cuda_realtime` and `cuda_blocks` say what is launched, the sources in `kernels` how it works and at what cost;
`cuda_weights` reads deployment files. Everything around it, frames under way, streams, graphs and video planes, is what
TensorRT's engines use.
"""

from __future__ import annotations

import hashlib
from importlib import resources

import numpy as np

from videosr.engines import cuda_blocks, cuda_realtime
from videosr.engines.base import Engine, Interface, Picture, PlanarRunner
from videosr.engines.cuda_weights import read
from videosr.engines.gpu_device import Device, cuda_device
from videosr.engines.gpu_execution import Conversion, Execution, Layout
from videosr.engines.gpu_planes import Planes, PlanesRunner
from videosr.engines.network import Network
from videosr.engines.tensorrt_check import reference_of, self_test
from videosr.errors import EngineError, UsageError
from videosr.frame import Array, complete, namespace

_HEADERS = ("features.cuh", "tensor.cuh")
_SMALL = 1 << 20
"""Input pixels below which one frame does not fill a GPU, so that two run side by side."""
_SIZES = 2
"""Picture sizes kept ready at a time."""


class CudaEngine(Engine):
    """A network of real time on an NVIDIA GPU, by our own kernels.

    Args:
        network: realtime 2x or 4x, stream or fine 2x, in deployment form.
        precision: "f16", or "auto", which is the same.
        index: of the GPU, as CUDA counts.
        device: the GPU, made already.

    Raises:
        NetworkError: another network.
        UsageError: another precision.
        MissingExtraError: cupy is not installed.
        EngineError: no GPU, one older than Turing (for stream and fine, than Ampere), or the self-test failed there.
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
        self._packed = packed = read(network)
        self.scale = packed.scale
        self._kind = cuda_realtime if packed.variant == "realtime" else cuda_blocks
        device = device or cuda_device(index, "the cuda engine")
        if device.gpu.capability < self._kind.LEAST:
            least = ".".join(map(str, self._kind.LEAST))
            others = "tensorrt_rtx, tensorrt or torch" if device.gpu.capability >= cuda_realtime.LEAST else "torch"
            raise EngineError(
                f"the cuda engine needs compute capability {least} for the {packed.variant} network, not {device.gpu}; "
                f"use --engine {others}"
            )
        self.device: Device = device
        self._weights = tuple(part.upload(device) for part in packed.parts)
        self._ready: dict[tuple[int, int], Execution] = {}
        self._test()

    @property
    def identity(self) -> str:
        """See `Engine.identity`."""
        folder = resources.files("videosr.engines") / "kernels"
        sources = b"".join((folder / name).read_bytes() for name in (self._kind.SOURCE, *_HEADERS))
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
        layouts = {name: Layout((1, 3, *size), "float32") for name in ("input", "average")}
        made = {"output": Layout((1, 3, self.scale * size[0], self.scale * size[1]), output)}
        contexts = [self._kind.Context(self.device, self._packed, self._weights, layouts | made) for _ in range(lanes)]
        return Execution(self.device, contexts, layouts, made, conversion, slots=2 + lanes)

    def _test(self) -> None:
        """Compare the kernel's pictures with those of OpenVINO in float32."""
        size = self._kind.trial(self.device.gpu.capability, self._packed)
        execution = self._open(size)

        def step(frame: Array, average: Array | None, reset: bool) -> Array:
            return np.asarray(execution.run([frame, frame if average is None else average])[0])

        reference = reference_of(self.network)
        verdict = self_test(step, self.interface, reference, size, self.precision, 0.0)
        if verdict.problem:
            raise EngineError(f"{self.network.path}: the cuda engine gives {verdict.problem}; use another --engine")

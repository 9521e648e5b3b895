"""The GPU as cupy gives it. Nothing in here has run on a GPU yet; `scripts/check_tensorrt.py` runs all of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from importlib import resources
from typing import Any

import cupy
import cupyx
import numpy as np
from numpy.typing import NDArray

from videosr.engines.gpu_device import Device, Event, Gpu, Graph, Kernels, Stream
from videosr.engines.nvidia import driver_text
from videosr.errors import EngineError
from videosr.frame import Array

_ERRORS = (cupy.cuda.runtime.CUDARuntimeError, cupy.cuda.driver.CUDADriverError)


class CupyDevice(Device):
    """A CUDA device.

    Args:
        index: of it, as CUDA counts (`CUDA_VISIBLE_DEVICES` applies).

    Raises:
        EngineError: it is not there, or the driver is too old for cupy's CUDA.
    """

    def __init__(self, index: int = 0) -> None:
        try:
            self._device = cupy.cuda.Device(index)
            self._device.use()
            facts = cupy.cuda.runtime.getDeviceProperties(index)
            driver = cupy.cuda.runtime.driverGetVersion()
        except _ERRORS as exc:
            raise EngineError(f"no CUDA device {index}: {exc} (see videosr doctor)") from exc
        self.index, self.multiprocessors = index, facts["multiProcessorCount"]
        self.gpu = Gpu(
            name=facts["name"].decode(),
            capability=(facts["major"], facts["minor"]),
            driver=driver_text(driver),
            memory=facts["totalGlobalMem"],
        )

    def stream(self) -> Stream:
        """See `Device.stream`."""
        return cupy.cuda.Stream(non_blocking=True)

    def handle(self, stream: Stream) -> int:
        """See `Device.handle`."""
        return int(stream.ptr)

    def stream_of(self, handle: int) -> Stream:
        """See `Device.stream_of`."""
        return cupy.cuda.Stream.from_external(_Foreign(handle))

    def event(self) -> Event:
        """See `Device.event`."""
        return cupy.cuda.Event(block=True, disable_timing=True)  # who waits leaves the processor to encoders

    def record(self, event: Event, stream: Stream) -> None:
        """See `Device.record`."""
        event.record(stream)

    def wait(self, stream: Stream, event: Event) -> None:
        """See `Device.wait`."""
        stream.wait_event(event)

    def synchronize(self, event: Event) -> None:
        """See `Device.synchronize`.

        Raises:
            EngineError: what was queued before it failed.
        """
        try:
            event.synchronize()
        except _ERRORS as exc:
            raise EngineError(f"{self.gpu.name}: {exc}") from exc

    def empty(self, shape: tuple[int, ...], dtype: str, stream: Stream | None = None) -> Array:
        """See `Device.empty`.

        Raises:
            EngineError: out of memory.
        """
        self._device.use()  # the current device belongs to a thread
        try:
            with stream or nullcontext():
                return cupy.empty(shape, dtype)
        except cupy.cuda.memory.OutOfMemoryError as exc:
            raise EngineError(f"{self.gpu.name}: out of memory; close other programs or give --tile") from exc

    def holds(self, array: Array) -> bool:
        """See `Device.holds`."""
        if not isinstance(array, cupy.ndarray):
            return False
        if array.device.id != self.index:
            raise EngineError(
                f"a frame lies on CUDA device {array.device.id}, the engine on {self.index}: give --device "
                f"cuda:{array.device.id}"
            )
        return True

    def pinned(self, shape: tuple[int, ...], dtype: str) -> NDArray[Any]:
        """See `Device.pinned`."""
        array: NDArray[Any] = cupyx.empty_pinned(shape, np.dtype(dtype))
        return array

    def address(self, array: Array) -> int:
        """See `Device.address`."""
        return int(array.data.ptr)

    def view(self, address: int, shape: tuple[int, ...], dtype: str) -> Array:
        """See `Device.view`."""
        size = math.prod(shape) * np.dtype(dtype).itemsize
        memory = cupy.cuda.UnownedMemory(address, size, None, self.index)
        return cupy.ndarray(shape, dtype, cupy.cuda.MemoryPointer(memory, 0))

    def upload(self, source: NDArray[Any], target: Array, stream: Stream) -> None:
        """See `Device.upload`."""
        target.set(source, stream=stream)

    def download(self, source: Array, target: NDArray[Any], stream: Stream) -> None:
        """See `Device.download`."""
        source.get(stream=stream, out=target, blocking=False)

    def copy(self, source: Array, target: Array, stream: Stream) -> None:
        """See `Device.copy`."""
        self._device.use()
        with stream:
            cupy.copyto(target, source, casting="same_kind")

    def queue(self, work: Callable[[], None], stream: Stream) -> None:
        """See `Device.queue`. Arrays made on the way are freed to the stream's own pool, so in its order."""
        self._device.use()
        with stream:
            work()

    def kernels(self, source: str, defines: Mapping[str, object], options: Sequence[str] = ()) -> Kernels:
        """See `Device.kernels`. cupy keeps what is compiled in `~/.cupy/kernel_cache`."""
        folder = resources.files("videosr.engines") / "kernels"
        code = (folder / source).read_text(encoding="utf-8")
        macros = [f"-D{name}={value}" for name, value in defines.items()]
        module = cupy.RawModule(code=code, options=("--std=c++17", f"-I{folder}", *options, *macros))
        self._device.use()
        try:
            module.compile()
        except (cupy.cuda.compiler.CompileException, *_ERRORS) as exc:
            raise EngineError(f"{self.gpu.name}: {source} cannot be compiled: {exc}") from exc
        return CupyKernels(module)

    def capture(self, work: Callable[[], None], stream: Stream) -> Graph:
        """See `Device.capture`."""
        stream.begin_capture()
        try:
            work()
        finally:
            try:
                graph: Graph = stream.end_capture()
            except _ERRORS as exc:
                raise EngineError(f"{self.gpu.name}: no CUDA graph of this engine: {exc}") from exc
        return graph

    def used_memory(self) -> int:
        """See `Device.used_memory`."""
        free, total = cupy.cuda.runtime.memGetInfo()
        return int(total - free)


class _Foreign:
    """A stream by its `cudaStream_t`, as the CUDA stream protocol has it: (version, handle)."""

    def __init__(self, handle: int) -> None:
        self._handle = handle

    def __cuda_stream__(self) -> tuple[int, int]:
        return 0, self._handle


class CupyKernels(Kernels):
    """Kernels of a module."""

    def __init__(self, module: Any) -> None:
        self._module = module
        self._functions: dict[str, Any] = {}

    def launch(
        self, name: str, grid: Sequence[int], block: Sequence[int], args: Sequence[Any], shared: int = 0
    ) -> None:
        """See `Kernels.launch`."""
        function = self._functions.get(name) or self._functions.setdefault(name, self._module.get_function(name))
        if shared > 48 << 10:  # more than every GPU has is given to those who ask
            function.max_dynamic_shared_size_bytes = shared
            function.preferred_shared_memory_carveout = 100  # percent, so that as many blocks run at once as can
        function(tuple(grid), tuple(block), tuple(args), shared_mem=shared)

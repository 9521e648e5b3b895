"""The GPU as cupy gives it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from hashlib import sha256
from importlib import resources
from typing import Any

import cupy
import cupyx
import numpy as np
from numpy.typing import NDArray

from videosr.engines.gpu_device import Device, Event, Gpu, Graph, Kernels, Stream
from videosr.engines.nvidia import driver_text
from videosr.errors import EngineError, remedy
from videosr.frame import Array

_ERRORS = (cupy.cuda.runtime.CUDARuntimeError, cupy.cuda.driver.CUDADriverError)
_NO_MEMORY = 2
"""cudaErrorMemoryAllocation, CUDA_ERROR_OUT_OF_MEMORY: of pinned memory, modules and graphs."""


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
            old = "; install a newer NVIDIA driver" if "InsufficientDriver" in str(exc) else ""
            raise EngineError(f"no CUDA device {index}: {exc}{old} (see videosr doctor)") from exc
        self.index, self.multiprocessors = index, facts["multiProcessorCount"]
        self.gpu = Gpu(
            name=facts["name"].decode(),
            capability=(facts["major"], facts["minor"]),
            driver=driver_text(driver),
            memory=facts["totalGlobalMem"],
        )

    @contextmanager
    def _here(self) -> Iterator[None]:
        """The device current, and errors of CUDA as one line.

        Which device is current belongs to a thread; frames come from several. Streams, events, memory and modules are
        made on the one that is.

        Raises:
            EngineError: CUDA failed.
        """
        try:
            self._device.use()
            yield
        except cupy.cuda.memory.OutOfMemoryError as exc:
            raise self._no_memory() from exc
        except _ERRORS as exc:
            if exc.status == _NO_MEMORY:
                raise self._no_memory() from exc
            raise EngineError(f"{self.gpu.name}: {exc}; see videosr doctor, or give --device cpu") from exc

    def _no_memory(self) -> EngineError:
        return EngineError(f"{self.gpu.name}: out of memory; close other programs or give --tile")

    def use(self) -> None:
        """See `Device.use`."""
        with self._here():
            pass

    def stream(self) -> Stream:
        """See `Device.stream`."""
        with self._here():
            return cupy.cuda.Stream(non_blocking=True)

    def handle(self, stream: Stream) -> int:
        """See `Device.handle`."""
        return int(stream.ptr)

    def stream_of(self, handle: int) -> Stream:
        """See `Device.stream_of`."""
        return cupy.cuda.Stream.from_external(_Foreign(handle))

    def event(self) -> Event:
        """See `Device.event`."""
        with self._here():
            return cupy.cuda.Event(block=True, disable_timing=True)  # who waits leaves the processor to encoders

    def record(self, event: Event, stream: Stream) -> None:
        """See `Device.record`."""
        with self._here():
            event.record(stream)

    def wait(self, stream: Stream, event: Event) -> None:
        """See `Device.wait`."""
        with self._here():
            stream.wait_event(event)

    def synchronize(self, event: Event) -> None:
        """See `Device.synchronize`.

        Raises:
            EngineError: what was queued before it failed.
        """
        with self._here():
            event.synchronize()

    def empty(self, shape: tuple[int, ...], dtype: str, stream: Stream | None = None) -> Array:
        """See `Device.empty`.

        Raises:
            EngineError: out of memory.
        """
        with self._here(), stream or nullcontext():
            return cupy.empty(shape, dtype)

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
        with self._here():
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
        with self._here():
            target.set(source, stream=stream)

    def download(self, source: Array, target: NDArray[Any], stream: Stream) -> None:
        """See `Device.download`."""
        with self._here():
            source.get(stream=stream, out=target, blocking=False)

    def copy(self, source: Array, target: Array, stream: Stream) -> None:
        """See `Device.copy`."""
        with self._here(), stream:
            cupy.copyto(target, source, casting="same_kind")

    def queue(self, work: Callable[[], None], stream: Stream) -> None:
        """See `Device.queue`. Arrays made on the way are freed to the stream's own pool, so in its order."""
        with self._here(), stream:
            work()

    def kernels(self, source: str, defines: Mapping[str, object], options: Sequence[str] = ()) -> Kernels:
        """See `Device.kernels`. cupy keeps what is compiled in `~/.cupy/kernel_cache`."""
        folder = resources.files("videosr.engines") / "kernels"
        code = (folder / source).read_text(encoding="utf-8")
        # cupy knows what it has kept by the source alone, without the files that this includes.
        headers = sorted(file.name for file in folder.iterdir() if file.name.endswith(".cuh"))
        code += f"\n// {sha256(b''.join((folder / name).read_bytes() for name in headers)).hexdigest()}\n"
        macros = [f"-D{name}={value}" for name, value in defines.items()]
        module = cupy.RawModule(code=code, options=("--std=c++17", f"-I{folder}", *options, *macros))
        with self._here():
            try:
                module.compile()
            except (cupy.cuda.compiler.CompileException, RuntimeError, OSError) as exc:  # headers, NVRTC, its cache
                lines = str(exc).strip().splitlines() or [type(exc).__name__]
                reason = next((line for line in lines if "error" in line), lines[0])
                raise EngineError(
                    f"{self.gpu.name}: {source} cannot be compiled: {reason}; install cupy anew ({remedy('cuda')}), or "
                    "use another --engine"
                ) from exc
        return CupyKernels(module)

    def capture(self, work: Callable[[], None], stream: Stream) -> Graph:
        """See `Device.capture`."""
        try:
            with self._here():
                stream.begin_capture()
                try:
                    work()
                finally:
                    graph = stream.end_capture()  # also what failed has to end
        except EngineError as exc:
            raise EngineError(f"no CUDA graph of this engine: {exc}") from exc
        return _CupyGraph(self._here, graph)

    def used_memory(self) -> int:
        """See `Device.used_memory`."""
        with self._here():
            free, total = cupy.cuda.runtime.memGetInfo()
        return int(total - free)


class _CupyGraph:
    """See `gpu_device.Graph`."""

    def __init__(self, here: Callable[[], AbstractContextManager[None]], graph: Any) -> None:
        self._here, self._graph = here, graph

    def launch(self, stream: Stream) -> None:
        """See `Graph.launch`."""
        with self._here():
            self._graph.launch(stream)


class _Foreign:
    """A stream by its `cudaStream_t`, as the CUDA stream protocol has it: (version, handle)."""

    def __init__(self, handle: int) -> None:
        self._handle = handle

    def __cuda_stream__(self) -> tuple[int, int]:
        return 0, self._handle


class CupyKernels(Kernels):
    """Kernels of a module; each is launched with the same shared memory every time."""

    def __init__(self, module: Any) -> None:
        self._module = module
        self._functions: dict[str, Any] = {}

    def launch(
        self, name: str, grid: Sequence[int], block: Sequence[int], args: Sequence[Any], shared: int = 0
    ) -> None:
        """See `Kernels.launch`."""
        function = self._functions.get(name)
        if function is None:
            function = self._functions[name] = self._module.get_function(name)
            if shared > 48 << 10:  # more than every GPU has is given to those who ask
                function.max_dynamic_shared_size_bytes = shared
                function.preferred_shared_memory_carveout = 100  # percent, so that as many blocks run at once as can
        function(tuple(grid), tuple(block), tuple(args), shared_mem=shared)

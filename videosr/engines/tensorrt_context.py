"""A serialised engine made ready to run on this machine's GPU. Has not run on a GPU yet."""

from __future__ import annotations

from typing import Any

from videosr.engines.gpu_device import Device
from videosr.engines.tensorrt_builder import Definition, Size
from videosr.engines.tensorrt_library import Library, uncollected
from videosr.errors import EngineError
from videosr.frame import Array


class LoadedEngine:
    """An engine in the GPU's memory.

    Args:
        definition: the network it was built from.
        plan: the engine, serialised.
        learned: kernels compiled in earlier runs (TensorRT-RTX's runtime cache), b"" for none.

    Raises:
        EngineError: it is not for this library and GPU.
    """

    @uncollected()
    def __init__(self, definition: Definition, plan: bytes, learned: bytes = b"") -> None:
        self._library, self._inputs = definition.library, definition.inputs
        library = self._library
        library.problem()
        self._runtime = library.trt.Runtime(library.logger)
        self._engine = self._runtime.deserialize_cuda_engine(plan)
        if self._engine is None:
            raise EngineError(f"{library.name} cannot load the engine: {library.problem()}")
        self._config: Any = None
        self._kernels: Any = None
        if library.rtx:
            trt = library.trt
            self._config = self._engine.create_runtime_config()
            # All kernels are compiled before the first frame is done: then results do not change when a better kernel
            # is ready, and what runs can be recorded. Recording is ours, with the buffers of each slot.
            self._config.dynamic_shapes_kernel_specialization_strategy = (
                trt.DynamicShapesKernelSpecializationStrategy.EAGER
            )
            self._config.cuda_graph_strategy = trt.CudaGraphStrategy.DISABLED
            self._kernels = self._config.create_runtime_cache()
            if learned:
                self._kernels.deserialize(learned)  # refused if it is another machine's; then they are compiled again
            self._config.set_runtime_cache(self._kernels)

    def learned(self) -> bytes:
        """The kernels compiled so far, b"" where the library compiles none."""
        return bytes(self._kernels.serialize()) if self._kernels is not None else b""

    @uncollected()
    def context(self, device: Device, size: Size) -> TensorRTContext:
        """A context for pictures of one size, with memory of its own.

        Raises:
            EngineError: the engine does not take this size, or out of memory.
        """
        library = self._library
        strategy = library.trt.ExecutionContextAllocationStrategy.USER_MANAGED
        if self._config is not None:
            self._config.set_execution_context_allocation_strategy(strategy)
            made = self._engine.create_execution_context(self._config)
        else:
            made = self._engine.create_execution_context(strategy)
        if made is None:
            raise EngineError(f"{library.name} cannot make an execution context: {library.problem()}")
        if made.active_optimization_profile < 0:  # of an engine for many sizes, the first context alone begins with one
            stream, done = device.stream(), device.event()
            if not made.set_optimization_profile_async(0, device.handle(stream)):
                raise EngineError(f"{library.name} cannot run the engine twice at once: {library.problem()}")
            device.record(done, stream)
            device.synchronize(done)
        for port in self._inputs:
            if not made.set_input_shape(port.name, (1, port.channels, *size)):
                raise EngineError(f"the engine does not take pictures of {size[1]}x{size[0]}: {library.problem()}")
        needed = int(made.update_device_memory_size_for_shapes())
        memory = device.empty((max(needed, 1),), "uint8")
        made.set_device_memory(device.address(memory), needed)
        return TensorRTContext(self, library, made, memory)


class TensorRTContext:
    """See `gpu_execution.Context`.

    Args:
        owner: the engine; it has to live as long as its contexts.
        library: it is of.
        made: the library's execution context, shapes set.
        memory: what it works in; kept as long as it.
    """

    def __init__(self, owner: LoadedEngine, library: Library, made: Any, memory: Array) -> None:
        self._owner, self._library, self._made, self._memory = owner, library, made, memory

    def bind(self, name: str, address: int) -> None:
        """See `Context.bind`."""
        if not self._made.set_tensor_address(name, address):
            raise EngineError(f"{self._library.name} does not take a buffer for {name}: {self._library.problem()}")

    def enqueue(self, stream: int) -> None:
        """See `Context.enqueue`."""
        if not self._made.execute_async_v3(stream):
            raise EngineError(f"{self._library.name} failed: {self._library.problem()}")

    def capturable(self, stream: int) -> bool:
        """See `Context.capturable`. `tensorrt` has no such question; there it shows when it is tried."""
        ask = getattr(self._made, "is_stream_capturable", None)
        return True if ask is None else bool(ask(stream))

"""A stand-in for the GPU: streams, events and graphs on the host, run in any order that they allow.

Nothing that is queued happens at once. When the host waits for an event, work is taken from the front of streams that
may go on, one piece at a time and by lot, until the event has come: an edge that is missing between two streams shows
as a wrong picture for some seed, as it would, some day, on a GPU.
"""

from __future__ import annotations

import random
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import cuda_host
import numpy as np
import pytest

import videosr.engines
from videosr.engines.gpu_device import Device, Gpu
from videosr.errors import EngineError

GPU = Gpu("Stand-in 3000", (8, 6), "580.65.06, CUDA 13.2", 12 << 30)


@dataclass(eq=False)
class HostEvent:
    """Counts how often it was recorded and how often that point was reached."""

    recorded: int = 0
    reached: int = 0


@dataclass(eq=False)
class HostStream:
    """Work in order: (kind, what, generation)."""

    number: int
    work: deque = field(default_factory=deque)


class DeviceArray(np.ndarray):
    """What the stand-in takes for an array of the GPU; what is computed from one is one."""

    def get(self) -> np.ndarray:
        """As cupy's: a copy on the host."""
        return np.array(self)


def on_device(array) -> DeviceArray:
    """A copy of an array as one of the GPU."""
    return np.array(array).view(DeviceArray)


class HostKernels:
    """Kernels compiled for the host (`cuda_host`)."""

    def __init__(self, source: str, defines, order: int) -> None:
        if not cuda_host.COMPILER:
            pytest.skip("g++ is not installed: kernels cannot be compiled for the host")
        folder = Path(videosr.engines.__file__).parent / "kernels"
        self._module = cuda_host.HostModule(folder / source, defines, order=order)

    def launch(self, name, grid, block, args, shared=0) -> None:
        plain = [a.tobytes() if isinstance(a, np.ndarray) and a.dtype.names else a for a in args]
        self._module.launch(name, grid, block, plain, shared)


class HostGraph:
    def __init__(self, work: list[Callable[[], None]]) -> None:
        self.work = work

    def launch(self, stream: HostStream) -> None:
        stream.work.extend(("run", piece, 0) for piece in self.work)


class HostDevice(Device):
    """See the module.

    Args:
        seed: of the lots, by which the threads of kernels take their turns too.
        waits: False leaves out what streams wait for: for tests of the tests.
    """

    def __init__(self, seed: int = 0, *, waits: bool = True, gpu: Gpu = GPU) -> None:
        self.gpu = gpu
        self._random, self._seed = random.Random(seed), seed
        self._one_at_a_time = threading.Lock()
        self._waits = waits
        self.streams: dict[int, HostStream] = {}
        self.arrays: dict[int, np.ndarray] = {}
        self.captures = 0
        self.host_waits = 0
        self._recording: list[Callable[[], None]] | None = None
        self._current = threading.local()

    def use(self) -> None:
        self._current.here = True

    def check_current(self) -> None:
        """Libraries that are not told of a device take the one that is current in the thread."""
        assert getattr(self._current, "here", False), "another device may be current in this thread"

    def stream(self) -> HostStream:
        made = HostStream(len(self.streams) + 1)
        self.streams[made.number] = made
        return made

    def handle(self, stream: HostStream) -> int:
        return stream.number

    def stream_of(self, handle: int) -> HostStream:
        return self.streams[handle]

    def event(self) -> HostEvent:
        return HostEvent()

    def record(self, event: HostEvent, stream: HostStream) -> None:
        event.recorded += 1
        stream.work.append(("record", event, event.recorded))

    def wait(self, stream: HostStream, event: HostEvent) -> None:
        if self._waits:
            stream.work.append(("wait", event, event.recorded))

    def synchronize(self, event: HostEvent) -> None:
        self.host_waits += 1
        wanted = event.recorded
        while event.reached < wanted:
            with self._one_at_a_time:  # several threads may wait
                if event.reached < wanted:
                    self._run_one()

    def _run_one(self) -> None:
        able = [
            s
            for s in self.streams.values()
            if s.work and not (s.work[0][0] == "wait" and s.work[0][1].reached < s.work[0][2])
        ]
        assert able, "streams wait for each other"
        kind, what, generation = self._random.choice(able).work.popleft()
        if kind == "run":
            what()
        elif kind == "record":
            what.reached = max(what.reached, generation)

    def empty(self, shape, dtype, stream=None):
        array = np.full(shape, 77, dtype).view(DeviceArray)  # whoever reads what was not written sees it
        if stream is not None:
            return array  # one of many: not looked up by its address
        self.arrays[array.ctypes.data] = array
        return array

    def holds(self, array) -> bool:
        return isinstance(array, DeviceArray)

    def pinned(self, shape, dtype):
        return np.full(shape, 55, dtype)

    def address(self, array) -> int:
        return array.ctypes.data

    def view(self, address, shape, dtype):
        return self.arrays[address].reshape(shape).view(dtype)

    def upload(self, source, target, stream: HostStream) -> None:
        self._add(lambda: np.copyto(target, source), stream)

    def download(self, source, target, stream: HostStream) -> None:
        self._add(lambda: np.copyto(target, source), stream)

    def copy(self, source, target, stream: HostStream) -> None:
        self._add(lambda: np.copyto(target, source, casting="same_kind"), stream)

    def queue(self, work: Callable[[], None], stream: HostStream) -> None:
        self._add(work, stream)

    def kernels(self, source, defines, options=()) -> HostKernels:
        return HostKernels(source, defines, self._seed)

    def launched(self, work: Callable[[], None], handle: int) -> None:
        """What a library queues by a stream's handle."""
        self._add(work, self.streams[handle])

    def _add(self, work: Callable[[], None], stream: HostStream) -> None:
        if self._recording is not None:
            self._recording.append(work)
        else:
            stream.work.append(("run", work, 0))

    def capture(self, work: Callable[[], None], stream: HostStream) -> HostGraph:
        self._recording = []
        try:
            work()
            self.captures += 1
            return HostGraph(self._recording)
        finally:
            self._recording = None

    def used_memory(self) -> int:
        return sum(array.nbytes for array in self.arrays.values())


class HostContext:
    """An engine's execution context: a function of named arrays, queued on a stream.

    Args:
        device: where.
        network: inputs by name -> outputs by name.
        inputs: names of the inputs.
        outputs: names of the outputs.
        capturable: what is answered to that question.
    """

    def __init__(self, device: HostDevice, network, inputs, outputs, *, capturable: bool = True) -> None:
        self.device, self.network, self.inputs, self.outputs = device, network, inputs, outputs
        self.bound: dict[str, int] = {}
        self.enqueued = 0
        self._capturable = capturable

    def bind(self, name: str, address: int) -> None:
        if name not in (*self.inputs, *self.outputs):
            raise EngineError(f"no tensor {name}")
        self.bound[name] = address

    def enqueue(self, stream: int) -> None:
        self.device.check_current()
        self.enqueued += 1
        arrays = {name: self.device.arrays[self.bound[name]] for name in (*self.inputs, *self.outputs)}

        def work() -> None:
            made = self.network({name: arrays[name].copy() for name in self.inputs})
            for name in self.outputs:
                arrays[name][...] = made[name]

        self.device.launched(work, stream)

    def capturable(self, stream: int) -> bool:
        return self._capturable


class OnnxLoader:
    """Makes "loaded" engines that run, in ONNX Runtime, the ONNX network that the engine was built from.

    Args:
        spoil: (precision, picture) -> what comes out in its place.
        kernels: what the library has compiled when it has run.
    """

    def __init__(self, spoil=lambda precision, picture: picture, kernels: bytes = b"kernels") -> None:
        self.spoil, self.kernels = spoil, kernels
        self.loaded: list[tuple[bytes, bytes]] = []
        self.contexts: list[HostContext] = []

    def __call__(self, definition, plan: bytes, kernels: bytes) -> OnnxLoaded:
        self.loaded.append((plan, kernels))
        return OnnxLoaded(self, definition)


class OnnxLoaded:
    def __init__(self, loader: OnnxLoader, definition) -> None:
        import onnxruntime

        self.loader, self.definition = loader, definition
        self.precision = "f16" if b"/half" in definition.data else "f32"
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(definition.data, options, providers=["CPUExecutionProvider"])

    def learned(self) -> bytes:
        return self.loader.kernels

    def context(self, device: HostDevice, size) -> HostContext:
        device.check_current()
        names = [port.name for port in self.definition.outputs]

        def network(arrays):
            made = dict(zip(names, self.session.run(names, arrays), strict=True))
            made[names[0]] = self.loader.spoil(self.precision, made[names[0]])
            return made

        context = HostContext(device, network, [port.name for port in self.definition.inputs], names)
        self.loader.contexts.append(context)
        return context

"""The little of CUDA that the execution of an engine needs: arrays, streams, events, graphs.

`gpu_cupy.CupyDevice` is the real thing. Tests run the same buffers, streams, graphs and ping-pong on the host,
with a device that runs what is queued in any order that streams and events allow.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from numpy.typing import NDArray

from videosr.errors import EngineError, MissingExtraError, remedy
from videosr.frame import Array

type Stream = Any
"""A queue of work on the device; work of one stream happens in order."""
type Event = Any
"""A point in a stream's work that other streams, or the host, can wait for."""


class Graph(Protocol):
    """Work that was recorded once and is started with one call."""

    def launch(self, stream: Stream) -> None:
        """Queue all of it on a stream."""


class Kernels(Protocol):
    """A file of CUDA kernels, compiled for a device."""

    def launch(
        self, name: str, grid: Sequence[int], block: Sequence[int], args: Sequence[Any], shared: int = 0
    ) -> None:
        """Queue a kernel on the stream whose work is being queued (`Device.queue`).

        Args:
            name: of it.
            grid: blocks along x, y, z.
            block: threads of one along x, y, z.
            args: arrays of the device, numpy numbers of the parameters' own types, and structures, which are copied:
                numpy arrays of no dimension whose type has the structure's layout.
            shared: bytes of dynamic shared memory.
        """


@dataclass(frozen=True, slots=True)
class Gpu:
    """A GPU, by what an engine's fitness for it depends on.

    Attributes:
        name: the product.
        capability: CUDA compute capability.
        driver: its release and the CUDA version it speaks, as "580.65.06, CUDA 13.2".
        memory: bytes in all.
    """

    name: str
    capability: tuple[int, int]
    driver: str
    memory: int

    def __str__(self) -> str:
        major, minor = self.capability
        return f"{self.name} (compute capability {major}.{minor}, driver {self.driver})"


class Device(ABC):
    """A GPU and its memory.

    Attributes:
        gpu: which.
        index: as CUDA counts.
        multiprocessors: it has.
        uploaded: bytes that have been copied to it, as far as `Execution` knows.
        downloaded: bytes that have been copied from it, likewise.
    """

    gpu: Gpu
    index: int = 0
    multiprocessors: int = 1
    uploaded: int = 0
    downloaded: int = 0

    @abstractmethod
    def use(self) -> None:
        """Make it the current one of this thread, for libraries that are not told of a device.

        Raises:
            EngineError: it cannot be used any more.
        """

    @abstractmethod
    def stream(self) -> Stream:
        """A new stream that does not wait for the default stream."""

    @abstractmethod
    def handle(self, stream: Stream) -> int:
        """The `cudaStream_t` of a stream."""

    @abstractmethod
    def stream_of(self, handle: int) -> Stream:
        """A stream by its `cudaStream_t`; it does not own it."""

    @abstractmethod
    def event(self) -> Event:
        """A new event; waiting for it before it is recorded returns at once."""

    @abstractmethod
    def record(self, event: Event, stream: Stream) -> None:
        """Put the event behind all that is queued on the stream."""

    @abstractmethod
    def wait(self, stream: Stream, event: Event) -> None:
        """Let what is queued on the stream from now on wait for the event. The host does not wait."""

    @abstractmethod
    def synchronize(self, event: Event) -> None:
        """Let the host wait for the event."""

    @abstractmethod
    def empty(self, shape: tuple[int, ...], dtype: str, stream: Stream | None = None) -> Array:
        """An array on the device, C-contiguous, not initialised.

        Args:
            shape: of it.
            dtype: of it.
            stream: that writes it, where it is one of many made and dropped: its memory is then taken from, and goes
                back to, what this stream alone writes, so that the stream's order is all the waiting there has to be.
        """

    @abstractmethod
    def holds(self, array: Array) -> bool:
        """Whether an array lies on this device; False: it is the host's.

        Raises:
            EngineError: it lies on another device.
        """

    @abstractmethod
    def pinned(self, shape: tuple[int, ...], dtype: str) -> NDArray[Any]:
        """An array on the host in page-locked memory, which copies need to be asynchronous."""

    @abstractmethod
    def address(self, array: Array) -> int:
        """Of an array on the device."""

    @abstractmethod
    def view(self, address: int, shape: tuple[int, ...], dtype: str) -> Array:
        """What lies on the device at an address, C-contiguous, as an array that does not own it."""

    @abstractmethod
    def upload(self, source: NDArray[Any], target: Array, stream: Stream) -> None:
        """Queue a copy from pinned memory to the device."""

    def put(self, source: NDArray[Any]) -> Array:
        """A copy of an array of the host on the device, complete."""
        host, made = self.pinned(source.shape, source.dtype.name), self.empty(source.shape, source.dtype.name)
        stream, done = self.stream(), self.event()
        host[...] = source
        self.upload(host, made, stream)
        self.record(done, stream)
        self.synchronize(done)
        return made

    @abstractmethod
    def download(self, source: Array, target: NDArray[Any], stream: Stream) -> None:
        """Queue a copy from the device to pinned memory."""

    @abstractmethod
    def copy(self, source: Array, target: Array, stream: Stream) -> None:
        """Queue a copy on the device, from an array of any strides, converted to the target's type."""

    @abstractmethod
    def queue(self, work: Callable[[], None], stream: Stream) -> None:
        """Queue what `work` does to arrays of the device."""

    @abstractmethod
    def kernels(self, source: str, defines: Mapping[str, object], options: Sequence[str] = ()) -> Kernels:
        """Compile a file of the folder `kernels` for this device.

        Args:
            source: name of the file.
            defines: macros.
            options: others of NVRTC.

        Raises:
            EngineError: it does not compile.
        """

    @abstractmethod
    def capture(self, work: Callable[[], None], stream: Stream) -> Graph:
        """Record what `work` queues on the stream, without doing it.

        Raises:
            EngineError: it does something that cannot be recorded.
        """

    @abstractmethod
    def used_memory(self) -> int:
        """Bytes in use on the GPU, by everyone."""


def cuda_device(index: int, feature: str) -> Device:
    """A CUDA device, by its index, as cupy gives it.

    Args:
        index: as CUDA counts.
        feature: what needs it, as the user would name it.

    Raises:
        MissingExtraError: cupy is not installed.
        EngineError: cupy does not load, or the device cannot be used.
    """
    try:
        from videosr.engines.gpu_cupy import CupyDevice
    except ModuleNotFoundError as exc:
        raise MissingExtraError(feature, "cuda") from exc
    except (ImportError, OSError) as exc:  # what is said by libraries that it misses goes over many lines
        reason = next((line.strip() for line in str(exc).splitlines() if line.strip(" =-")), type(exc).__name__)
        again = f"install it anew ({remedy('cuda')})"
        raise EngineError(f"cupy is installed but does not load: {reason}; {again}") from exc
    return CupyDevice(index)

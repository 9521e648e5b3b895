"""How frames go through an engine on the GPU: buffers, streams, events, graphs, and the state of recurrent networks.

Three streams, one a stage, and events between them; the host waits only for finished results:

    in    upload -> to the network's inputs ---. uploaded
    net                                        '-> network ---. computed
    out                                                       '-> to the output's planes -> download ---> downloaded

Frames that come from the host go back to it. Frames that lie on the device stay there: they are read where they are and
held until they have been, results are made in arrays of their own, and nothing of them crosses the bus.

A frame lives in a slot: pinned host buffers, and device buffers for what crosses the bus, made once. A slot is used
again only after its download is done and its result copied out. The network's own tensors, much larger than planes, are
fewer: two sets for each execution context, one being worked on and one being filled or emptied; a set is filled again
when the network has read it, and written again when it has been emptied. With several contexts ("lanes") several
networks run at once, which pays where one small frame does not fill the GPU.

The state of a recurrent network goes back and forth between two buffers: each frame reads one and writes the other.
Nothing is copied, and the frames run in order, because they share one `net` stream.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from videosr.engines.base import baked_blend
from videosr.engines.gpu_device import Device, Event, Graph, Stream
from videosr.errors import EngineError
from videosr.frame import Array

STATE_IN, STATE_OUT = "prev_feat", "feature_map"


class Context(Protocol):
    """An engine ready to run at one picture size."""

    def bind(self, name: str, address: int) -> None:
        """Tell where a tensor lies on the device, for what is queued from now on."""

    def enqueue(self, stream: int) -> None:
        """Queue the network on a `cudaStream_t`.

        Raises:
            EngineError: the library refused.
        """

    def capturable(self, stream: int) -> bool:
        """Whether `enqueue` may be recorded into a CUDA graph."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Shape and type of a buffer.

    Attributes:
        shape: of it.
        dtype: of it.
        told: of a result: it goes to the host wherever the frame is, because the host has to know it.
    """

    shape: tuple[int, ...]
    dtype: str
    told: bool = False


@dataclass(frozen=True, slots=True)
class Conversion:
    """What is done on the device around the network.

    Attributes:
        uploads: what comes from the host for a frame.
        downloads: what goes back.
        before: (uploaded, inputs, parameters) -> None: writes the network's inputs.
        after: (uploaded, outputs, downloaded, parameters) -> None: writes what is downloaded.
    """

    uploads: Sequence[Layout]
    downloads: Sequence[Layout]
    before: Callable[[Sequence[Array], Mapping[str, Array], Any], None]
    after: Callable[[Sequence[Array], Mapping[str, Array], Sequence[Array], Any], None]


class Ticket:
    """A frame under way; `Execution.result` waits for it."""

    def __init__(self, slot: _Slot) -> None:
        self.slot: _Slot | None = slot
        self.lock = threading.Lock()
        self.arrays: tuple[Array, ...] = ()


@dataclass(slots=True)
class _Slot:
    """What a frame under way has from its upload to its download.

    `sources` and `results` are what is read and written for the frame in it: the slot's own buffers, or arrays of
    the device that came with the frame and go with it. They are held until all work on them is done.
    """

    host_in: list[NDArray[Any]]
    device_in: list[Array]
    device_out: list[Array]
    host_out: list[NDArray[Any]]
    uploaded: Event
    downloaded: Event
    sources: list[Array] = field(default_factory=list)
    results: list[Array] = field(default_factory=list)
    ticket: Ticket | None = None


@dataclass(slots=True)
class _Tensors:
    """A set of the network's tensors, and the graphs in which they are bound, by which state is current."""

    lane: int
    inputs: dict[str, Array]
    outputs: dict[str, Array]
    computed: Event
    emptied: Event
    graphs: dict[int, Graph] = field(default_factory=dict)


class Execution:
    """An engine's contexts with everything they need to run frame after frame at one size.

    `submit` is for one thread at a time; `result` for any.

    Args:
        device: where.
        contexts: one a lane. A recurrent network has one: its frames depend on each other.
        inputs: the network's, by name, the picture first.
        outputs: likewise.
        conversion: what is done around the network; None: pictures come and go as the network has them.
        slots: frames under way at most.
        graphs: whether the network is recorded into CUDA graphs.

    Attributes:
        blend: of a recurrent network (`engines.base.baked_blend`); 0 for others.

    Raises:
        EngineError: out of memory, or the network's state is not a running average of features.
    """

    def __init__(
        self,
        device: Device,
        contexts: Sequence[Context],
        inputs: Mapping[str, Layout],
        outputs: Mapping[str, Layout],
        conversion: Conversion | None = None,
        *,
        slots: int = 3,
        graphs: bool = True,
    ) -> None:
        device.use()
        self._device, self._contexts, self._conversion = device, contexts, conversion
        self._graphs = graphs
        self._warm = [False] * len(contexts)
        self._in, self._out = device.stream(), device.stream()
        self._net = [device.stream() for _ in contexts]
        self._states: list[Array] = []
        self._current = 0
        self.blend = 0.0
        if STATE_IN in inputs:
            layout = inputs[STATE_IN]
            self._states = [device.empty(layout.shape, layout.dtype) for _ in range(2)]
        inputs = {name: layout for name, layout in inputs.items() if name != STATE_IN}
        outputs = {name: layout for name, layout in outputs.items() if name != STATE_OUT}
        lanes = len(contexts)
        count = slots if conversion is None else min(slots, 2 * lanes)
        self._tensors = [self._make_tensors(i % lanes, inputs, outputs) for i in range(max(count, lanes))]
        made = conversion.downloads if conversion else outputs.values()
        self._told = [layout.told for layout in made]
        self._slots = [self._make_slot(self._tensors[i % len(self._tensors)]) for i in range(slots)]
        self._turn = 0
        self._warm_up()
        if self._states:
            self.blend = self._measure_blend()

    @property
    def in_flight(self) -> int:
        """Frames to keep under way beside the one being submitted."""
        return len(self._slots) - 1

    def submit(self, arrays: Sequence[Array], parameters: Any = None, *, reset: bool = True) -> Ticket:
        """Start on a frame.

        Args:
            arrays: as `Conversion.uploads`, or the network's inputs; where there are fewer, the others are not looked
                at (the conversion knows by its parameters). Those on the host may be changed when this returns; those
                on the device have to be complete now and unchanged until the result is there.
            parameters: for the conversion.
            reset: of a recurrent network: the frame begins a scene.

        Raises:
            EngineError: the library refused.
        """
        self._device.use()  # the library behind the contexts takes the one that is current
        slot = self._slots[self._turn % len(self._slots)]
        tensors = self._tensors[self._turn % len(self._tensors)]
        self._turn += 1
        earlier = slot.ticket  # asked once: another thread may fetch that result meanwhile
        if earlier is not None:
            self.result(earlier)
        device, net, conversion = self._device, self._net[tensors.lane], self._conversion
        stays = self._take(slot, arrays)
        if conversion is not None:
            device.wait(self._in, tensors.computed)
            device.queue(partial(conversion.before, list(slot.sources), tensors.inputs, parameters), self._in)
        device.record(slot.uploaded, self._in)
        device.wait(net, slot.uploaded)
        device.wait(net, tensors.emptied)
        if self._states and reset:
            self._restart(tensors)
        self._advance(tensors)
        device.record(tensors.computed, net)
        device.wait(self._out, tensors.computed)
        slot.results = list(slot.device_out)
        for i, array in enumerate(slot.device_out):
            if stays and not self._told[i]:
                slot.results[i] = device.empty(array.shape, array.dtype.name, self._out)
        if conversion is not None:
            after = partial(conversion.after, list(slot.sources), tensors.outputs, list(slot.results), parameters)
            device.queue(after, self._out)
            device.record(tensors.emptied, self._out)
        for made, own, host in zip(slot.results, slot.device_out, slot.host_out, strict=True):
            if made is own:
                device.download(made, host, self._out)
                device.downloaded += host.nbytes
            elif conversion is None:
                device.copy(own, made, self._out)
        device.record(slot.downloaded, self._out)
        slot.ticket = Ticket(slot)
        return slot.ticket

    def _take(self, slot: _Slot, arrays: Sequence[Array]) -> bool:
        """Bring a frame to where the device can read it; whether it lies there already, so that its result stays."""
        device, stays = self._device, False
        slot.sources = list(slot.device_in)
        for i, (array, host, target) in enumerate(zip(arrays, slot.host_in, slot.device_in, strict=False)):
            if device.holds(array):
                stays = True
                slot.sources[i] = array
                if self._conversion is None:  # the network reads its own tensors
                    device.copy(array, target, self._in)
            else:
                np.copyto(host, array, casting="same_kind")
                device.upload(host, target, self._in)
                device.uploaded += host.nbytes
        return stays

    def result(self, ticket: Ticket) -> tuple[Array, ...]:
        """Wait for a frame: as `Conversion.downloads`, or the network's outputs; complete, and owned by the caller.

        Raises:
            EngineError: something failed on the device.
        """
        with ticket.lock:
            slot = ticket.slot
            if slot is not None:
                self._device.synchronize(slot.downloaded)
                ticket.arrays = tuple(
                    host.copy() if made is own else made
                    for made, own, host in zip(slot.results, slot.device_out, slot.host_out, strict=True)
                )
                slot.sources, slot.results = [], []
                ticket.slot = slot.ticket = None
        return ticket.arrays

    def run(self, arrays: Sequence[Array], parameters: Any = None, *, reset: bool = True) -> tuple[Array, ...]:
        """`submit` and `result` in one."""
        return self.result(self.submit(arrays, parameters, reset=reset))

    def spin(self, count: int) -> None:
        """Run the network alone, `count` times, on whatever lies in its tensors, and wait for it: to measure it."""
        self._device.use()
        for i in range(count):
            self._advance(self._tensors[i % len(self._tensors)])
        for tensors in self._tensors:
            self._device.record(tensors.computed, self._net[tensors.lane])
        for tensors in self._tensors:
            self._device.synchronize(tensors.computed)

    def _make_tensors(self, lane: int, inputs: Mapping[str, Layout], outputs: Mapping[str, Layout]) -> _Tensors:
        device = self._device
        return _Tensors(
            lane=lane,
            inputs={name: device.empty(layout.shape, layout.dtype) for name, layout in inputs.items()},
            outputs={name: device.empty(layout.shape, layout.dtype) for name, layout in outputs.items()},
            computed=device.event(),
            emptied=device.event(),
        )

    def _make_slot(self, tensors: _Tensors) -> _Slot:
        """A slot; without a conversion its device buffers are the network's tensors themselves."""
        device, conversion = self._device, self._conversion
        if conversion is None:
            device_in, device_out = list(tensors.inputs.values()), list(tensors.outputs.values())
        else:
            device_in = [device.empty(layout.shape, layout.dtype) for layout in conversion.uploads]
            device_out = [device.empty(layout.shape, layout.dtype) for layout in conversion.downloads]
        return _Slot(
            host_in=[device.pinned(array.shape, array.dtype.name) for array in device_in],
            device_in=device_in,
            device_out=device_out,
            host_out=[device.pinned(array.shape, array.dtype.name) for array in device_out],
            uploaded=device.event(),
            downloaded=device.event(),
        )

    def _restart(self, tensors: _Tensors) -> None:
        """Make the state from which the frame comes out as if it stood alone.

        From a state of zeros the network makes features (1 - blend) times too small; divided by that they are it.
        """
        state, factor = self._states[self._current], 1 / (1 - self.blend)
        self._device.queue(lambda: state.fill(0), self._net[tensors.lane])
        self._advance(tensors)
        made = self._states[self._current]
        self._device.queue(lambda: _scale(made, factor), self._net[tensors.lane])

    def _advance(self, tensors: _Tensors) -> None:
        """Queue the network once; a recurrent one reads the current state and its result is current after."""
        stream, parity = self._net[tensors.lane], self._current
        graph = tensors.graphs.get(parity) or self._record(tensors, stream)
        if graph is None:
            self._bind(tensors)
            self._contexts[tensors.lane].enqueue(self._device.handle(stream))
            self._warm[tensors.lane] = True
        else:
            graph.launch(stream)
        if self._states:
            self._current = 1 - parity

    def _record(self, tensors: _Tensors, stream: Stream) -> Graph | None:
        """The network as a CUDA graph with these tensors; None where that cannot be, or not yet.

        An engine compiles and loads kernels the first time it runs, which cannot be recorded.
        """
        context, handle = self._contexts[tensors.lane], self._device.handle(stream)
        if not self._graphs or not self._warm[tensors.lane] or not context.capturable(handle):
            return None
        self._bind(tensors)
        try:
            graph = self._device.capture(lambda: context.enqueue(handle), stream)
        except EngineError:
            self._graphs = False  # slower, and right
            return None
        tensors.graphs[self._current] = graph
        return graph

    def _bind(self, tensors: _Tensors) -> None:
        arrays = tensors.inputs | tensors.outputs
        if self._states:
            arrays[STATE_IN], arrays[STATE_OUT] = self._states[self._current], self._states[1 - self._current]
        for name, array in arrays.items():
            self._contexts[tensors.lane].bind(name, self._device.address(array))

    def _warm_up(self) -> None:
        """Run the network once in every lane, so that what compiles or loads when it first runs has done so."""
        device = self._device
        for lane, stream in enumerate(self._net):
            tensors = self._tensors[lane]
            for array in (*tensors.inputs.values(), *self._states):
                device.queue(partial(array.fill, 0), stream)
            self._advance(tensors)
            device.record(tensors.computed, stream)
            device.synchronize(tensors.computed)

    def _measure_blend(self) -> float:
        """The blend baked into a recurrent network, from a picture seen after a state of zeros."""
        tensors, stream, device = self._tensors[0], self._net[0], self._device
        picture, state = next(iter(tensors.inputs.values())), self._states[self._current]
        ramp = device.pinned(picture.shape, picture.dtype.name)
        ramp.reshape(-1)[:] = np.linspace(0, 1, ramp.size)
        device.upload(ramp, picture, stream)
        device.queue(lambda: state.fill(0), stream)
        seen = []
        for _ in range(2):
            self._advance(tensors)
            made = self._states[self._current]
            host = device.pinned(made.shape, made.dtype.name)
            device.download(made, host, stream)
            seen.append(host)
        device.record(tensors.computed, stream)
        device.synchronize(tensors.computed)
        blend = baked_blend(seen[0].astype(np.float32), seen[1].astype(np.float32))
        if blend is None:
            raise EngineError("the network's state is not a running average of features")
        return blend


def _scale(array: Array, factor: float) -> None:
    array *= array.dtype.type(factor)

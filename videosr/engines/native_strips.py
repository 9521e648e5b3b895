"""Running our CPU kernels over pictures: strips of columns, as many at once as there are threads.

A frame is a ticket with tasks for the worker threads: first its window is averaged, in bands of rows, if it has one;
then its strips are computed, and chroma is interpolated if the network makes luma alone. The bits of a pixel do not
depend on the strip that it is in, so the plan may follow the picture's size.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from ctypes import POINTER, c_float
from functools import partial

import numpy as np

from videosr.color import levels, siting_offsets, upsampling_taps
from videosr.engines import native_library as native
from videosr.engines.base import NotFinite, Picture, PlanarRunner
from videosr.engines.emission import colour_planes, emission, enlargements
from videosr.engines.native_weights import Layers, Packed, pack
from videosr.errors import EngineError
from videosr.frame import Array

_STEP = 16
"""Columns that the widest vector holds."""
_WIDEST = 384
"""Columns of a strip, at most: rows of wider ones leave the caches."""
_BAND = 32
"""Chroma rows that one task averages."""


class _Ticket:
    """A frame under way: its output planes, what it is made of, and the tasks still missing."""

    def __init__(self, planes: tuple[Array, ...], sources: list[tuple[Array, ...]]) -> None:
        self.planes, self.sources = planes, sources
        self.done = threading.Event()
        self.error: Exception | None = None
        self._missing = 0
        self._then: Callable[[], None] = self.done.set
        self._lock = threading.Lock()

    def expect(self, tasks: int, then: Callable[[], None]) -> None:
        """Call `then` when so many tasks have finished."""
        self._missing, self._then = tasks, then

    def run(self, task: Callable[[], None]) -> None:
        """Run one of the tasks. What it or `then` raises is kept for `result`, which would wait forever otherwise."""
        try:
            if self.error is None:
                task()
        except Exception as exc:
            self.error = exc
        with self._lock:
            self._missing -= 1
            last = self._missing == 0
        if last:
            try:
                self._then()
            except Exception as exc:
                self.error = self.error or exc
                self.done.set()


class NativeRunner(PlanarRunner):
    """See `PlanarRunner`.

    Args:
        kernels: to run.
        workers: the threads that run them.
        layers: the network.
        source: the whole input picture.
        target: format and colour of the output.
        apart: the network makes luma alone.
        threads: of the workers.
        denoise: how far the base path, and chroma beside the network, are moved towards the average, 0..1.
    """

    def __init__(
        self,
        kernels: native.Kernels,
        workers: ThreadPoolExecutor,
        layers: Layers,
        source: Picture,
        target: Picture,
        *,
        apart: bool,
        threads: int,
        denoise: float = 0.0,
    ) -> None:
        self._kernels, self._workers, self._denoise = kernels, workers, np.float32(denoise)
        self._source, self._target, self._scale = source, target, layers.scale
        self._packed = packed = pack(layers, source, target, apart=apart)
        self._weights = native.Weights(
            packed.values.ctypes.data_as(POINTER(c_float)),
            layers.scale,
            layers.channels,
            len(layers.blocks),
            packed.outputs,
            packed.colours,
            packed.base_colours,
            layers.limit,
        )
        fmt = source.format
        self._block = (1 << fmt.log2_h, 1 << fmt.log2_w) if fmt.family == "yuv" else (1, 1)
        offsets = siting_offsets(source.color.siting, self._block[1], self._block[0])
        self._taps = native.Taps.of(
            *(upsampling_taps(f, o)[1] for f, o in zip(self._block, reversed(offsets), strict=True))
        )
        self._chroma = None
        if apart:
            ways = enlargements(source, target, layers.scale)
            self._chroma = native.Taps.of(*(upsampling_taps(int(factor), offset)[1] for factor, offset in ways))
        rim = layers.reach + max((abs(column) for *_, column in _parts(packed)), default=0)
        self._columns, self._starts = strips(source.width, rim)
        self.in_flight = 1 + -(-threads // len(self._starts))

    def submit(self, frames: Sequence[Sequence[Array]], threshold: float) -> object:
        """See `PlanarRunner.submit`."""
        fmt, scale = self._target.format, self._scale
        height, width = self._source.height * scale, self._source.width * scale
        planes = tuple(np.empty(fmt.plane_shape(i, height, width), fmt.dtype) for i in range(colour_planes(fmt)))
        count = colour_planes(self._source.format)
        shapes = [self._source.format.plane_shape(i, self._source.height, self._source.width) for i in range(count)]
        for frame in frames:  # the kernels trust these shapes: others would make them read beyond the arrays
            if [plane.shape for plane in frame[:count]] != shapes:
                raise EngineError(f"planes of {[plane.shape for plane in frame[:count]]} where {shapes} were to come")
        ticket = _Ticket(planes, [tuple(map(_rows, frame[:count])) for frame in frames])
        pictures = [self._picture(sources) for sources in ticket.sources]
        if len(pictures) == 1 or threshold <= 0:
            self._start(ticket, pictures[0], pictures[0])
            return ticket
        averages = tuple(np.empty(plane.shape, np.float32) for plane in ticket.sources[0])
        ticket.sources.append(averages)
        mean = self._picture(averages)
        rows = averages[-1].shape[0]
        bands = [(top, min(top + _BAND, rows)) for top in range(0, rows, _BAND)]
        ticket.expect(len(bands), lambda: self._start(ticket, self._still(ticket, pictures[0]), mean))
        for band in bands:
            self._post(ticket, partial(self._average, pictures, mean, threshold, band))
        return ticket

    def result(self, ticket: object) -> tuple[Array, ...]:
        """See `PlanarRunner.result`."""
        assert isinstance(ticket, _Ticket)
        ticket.done.wait()
        if ticket.error is not None:
            if isinstance(ticket.error, EngineError):
                raise ticket.error
            raise EngineError(f"our own CPU kernels failed: {ticket.error}") from ticket.error
        return ticket.planes

    def _post(self, ticket: _Ticket, task: Callable[[], None]) -> None:
        try:
            self._workers.submit(ticket.run, task)
        except RuntimeError as exc:  # the interpreter ends, or there can be no more threads
            raise EngineError(f"no thread for our own CPU kernels: {exc}") from exc

    def _still(self, ticket: _Ticket, newest: native.Picture) -> native.Picture:
        """What the base path sees: the newest frame, moved towards the average if there is `denoise`."""
        if not self._denoise:
            return newest
        frame, *_, mean = ticket.sources
        ticket.sources[0] = tuple(f + self._denoise * (m - f) for f, m in zip(frame, mean, strict=True))
        return self._picture(ticket.sources[0])

    def _average(
        self, pictures: list[native.Picture], mean: native.Picture, threshold: float, band: tuple[int, int]
    ) -> None:
        self._kernels.average(pictures, self._block, 1.0 / (threshold * threshold), mean, band)

    def _start(self, ticket: _Ticket, still: native.Picture, average: native.Picture) -> None:
        """Post the strips, and chroma that is made beside the network."""
        made = 1 if self._chroma else len(ticket.planes)
        target = self._struct(ticket.planes[:made])

        def strip(start: int) -> None:
            arguments = (self._weights, still, average, self._taps, target, start, self._columns)
            if not self._kernels.strip(*arguments):
                raise NotFinite("the network gave values that are not finite")

        chroma = range(made, len(ticket.planes))
        ticket.expect(len(self._starts) + len(chroma), ticket.done.set)
        for start in self._starts:
            self._post(ticket, partial(strip, start))
        for i in chroma:
            self._post(ticket, partial(self._enlarge, ticket, i))

    def _enlarge(self, ticket: _Ticket, i: int) -> None:
        """A plane of chroma beside the network (see `color.from_rgb`)."""
        assert self._chroma is not None
        source, target = ticket.sources[0][i], ticket.planes[i]
        (zero, gain), (offset, scale) = (levels(p.format, p.color.range, i) for p in (self._source, self._target))
        peak = float((1 << self._target.format.bits) - 1)
        factor = scale / gain
        planes = (native.Plane.of(source), self._chroma, factor, offset - zero * factor, peak, native.Plane.of(target))
        self._kernels.enlarge(*planes)

    def _picture(self, planes: tuple[Array, ...]) -> native.Picture:
        """Planes of the input, or their average, which is in codes too, as the kernels take them."""
        picture = native.Picture(colours=len(planes))
        for i, plane in enumerate(planes):
            offset, gain = levels(self._source.format, self._source.color.range, i)
            picture.planes[i] = native.Plane.of(plane)
            picture.gain[i], picture.offset[i] = 1 / gain, -offset / gain
        return picture

    def _struct(self, planes: tuple[Array, ...]) -> native.Target:
        """Output planes that the network makes, as the kernels take them."""
        target = native.Target(peak=float((1 << self._target.format.bits) - 1), planes=len(planes))
        samples = self._packed.plan.samples
        for i, plane in enumerate(planes):
            target.plane[i] = native.Plane.of(plane)
            target.down[i] = 1 + max(s.row for s in samples if s.plane == i)
            target.across[i] = 1 + max(s.column for s in samples if s.plane == i)
        parts = _parts(self._packed)
        target.parts = len(parts)
        for place, part in zip(target.part, parts, strict=False):
            place.sample, place.output, place.row, place.column = part
        return target


def able(source: Picture, target: Picture, scale: int, *, apart: bool) -> bool:
    """Whether the kernels make planes of these formats, given that `emission.supported` says so too.

    Not where a sample of chroma is made of rows of neighbours below, nor where a plane is enlarged more than eight
    times.
    """
    if apart:
        return all(f.denominator == 1 and f <= native.MAX_PHASES for f, _ in enlargements(source, target, scale))
    plan = emission(target, scale, colour_planes(target.format))
    gather, above = plan.gather, plan.before[0]
    return gather is None or (gather.shape[2] == 1 + above <= 2 and gather.shape[1] <= native.MAX_PARTS)


def strips(width: int, rim: int) -> tuple[int, list[int]]:
    """(columns of a strip with its rims, where each begins), so that as few columns as possible are computed twice."""
    sizes = [n for n in range(_STEP, _WIDEST + 1, _STEP) if n > 2 * rim]
    columns = min(sizes, key=lambda n: (n * -(-width // (n - 2 * rim)), -n))
    return columns, list(range(0, width, columns - 2 * rim))


def _parts(packed: Packed) -> list[tuple[int, int, int, int]]:
    """(sample, output, row, column) of each part that samples are sums of; none where each output is a sample."""
    plan = packed.plan
    if plan.gather is None:
        return []
    above, left = plan.before
    return [(s, output, row - above, column - left) for s, output, row, column in np.argwhere(plan.gather).tolist()]


def _rows(plane: Array) -> Array:
    """The plane with the samples of each row side by side, copied if they are not."""
    return plane if plane.shape[1] == 1 or plane.strides[1] == plane.itemsize else np.ascontiguousarray(plane)

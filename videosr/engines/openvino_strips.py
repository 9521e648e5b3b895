"""Running a rewritten network over a picture in strips, several at a time.

A strip is a band of the picture's full width, with some of its neighbours' rows above and below (the halo). Strips keep
intermediate maps in the CPU's caches, bound the memory whatever the picture's size, and let each core work without
waiting for others. The plan depends on the picture's size alone, so the same frame is always cut alike.

`StripRunner.submit` copies each strip of the input into the buffers of an idle request and starts it; when it is done,
OpenVINO's thread calls `_Assembler.take`, which copies the result into the output planes; `result` waits for the last.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import openvino as ov
from numpy.typing import NDArray

from videosr.engines.base import NotFinite, Picture, PlanarRunner
from videosr.engines.emission import Layout, colour_planes
from videosr.engines.network import Network
from videosr.engines.openvino_planes import build
from videosr.errors import EngineError
from videosr.frame import Array

_HALF_BITS = 12
"""Most bits of samples for half precision: sums of larger codes, for a window's average, overflow float16."""
_STRIP_PIXELS = 200_000
"""Luma samples of a strip, about: a 640x360 picture is one strip, 1920x1080 ten."""


@dataclass(frozen=True, slots=True)
class StripPlan:
    """How a picture is cut.

    Attributes:
        tops: first luma row of each strip.
        rows: luma rows of every strip, without halo.
        halo_y: rows of halo above and below.
        halo_x: columns of halo left and right.
        columns: luma columns without halo, rounded up to whole chroma samples and pairs.
    """

    tops: tuple[int, ...]
    rows: int
    halo_y: int
    halo_x: int
    columns: int

    @staticmethod
    def of(source: Picture, halo: int, reach: int) -> StripPlan:
        """The plan for pictures of this size, for a network with this border halo and receptive radius, in pixels."""
        fw, fh = 1 << source.format.log2_w, 1 << source.format.log2_h
        step = max(fh, 2)
        count = max(1, round(source.height * source.width / _STRIP_PIXELS))
        rows = _up(-(-source.height // count), step)
        tops = tuple(range(0, source.height, rows))
        # Interpolated chroma reads two samples beyond a strip's rows.
        halo_y = halo if len(tops) == 1 else max(halo, reach + 2 * fh * (fh > 1))
        return StripPlan(tops, rows, _up(halo_y, step), _up(halo, max(fw, 2)), _up(source.width, max(fw, 2)))


def _up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple


class _Ticket:
    """A frame under way: its output planes and the strips still missing."""

    def __init__(self, planes: tuple[NDArray[Any], ...], strips: int) -> None:
        self.planes = planes
        self.missing = strips
        self.done = threading.Event()
        self.lock = threading.Lock()
        self.error: Exception | None = None

    def finished(self, error: Exception | None = None) -> None:
        with self.lock:
            self.missing -= 1
            self.error = self.error or error
            if self.missing == 0:
                self.done.set()


class _Assembler:
    """Takes computed strips. It holds no reference to the request queue, or the two would keep each other alive."""

    def __init__(
        self,
        plan: StripPlan,
        layouts: tuple[tuple[Layout, ...], ...],
        colour_inputs: int,
        buffers: list[list[NDArray[Any]]],
        finishers: list[ov.InferRequest],
    ) -> None:
        self._plan, self._layouts, self._colour_inputs = plan, layouts, colour_inputs
        self._buffers, self._finishers = buffers, finishers

    def take(self, request: Any, job: tuple[_Ticket, int, int]) -> None:
        """Finish a strip and copy it into the output planes; called by OpenVINO's threads."""
        ticket, strip, index = job
        try:
            finished = request
            if self._finishers:
                finished = self._finishers[index]
                feeds = [*self._buffers[index][: self._colour_inputs], request.get_output_tensor().data]
                finished.infer({i: ov.Tensor(feed) for i, feed in enumerate(feeds)})
            for output, layouts in enumerate(self._layouts):
                tensor = finished.get_output_tensor(output).data
                for cells, layout in zip(tensor, layouts, strict=True):
                    self._paste(cells, layout, ticket.planes, self._plan.tops[strip])
            if not np.isfinite(finished.get_output_tensor(len(self._layouts)).data):
                raise NotFinite("the network gave values that are not finite")
        except Exception as exc:  # `result` raises it; without this, it would wait forever
            ticket.finished(exc)
        else:
            ticket.finished()

    def _paste(self, cells: NDArray[Any], layout: Layout, planes: tuple[NDArray[Any], ...], top_row: int) -> None:
        """Copy a strip's samples, (rows, columns, samples), to their places in the output planes."""
        plan, (high, wide) = self._plan, layout.cell
        channel = 0
        while channel < len(layout.samples):
            sample = layout.samples[channel]
            block = [s for s in layout.samples if s.plane == sample.plane]
            down, across = 1 + max(s.row for s in block), 1 + max(s.column for s in block)
            plane = planes[sample.plane]
            rows = plane[top_row // high * down + sample.row : (top_row + plan.rows) // high * down : down]
            columns = -(-plane.shape[1] // across)
            top, left = plan.halo_y // high, plan.halo_x // wide
            part = cells[top : top + len(rows), left : left + columns, channel : channel + across]
            word = {2: np.uint16, 4: np.uint32, 8: np.uint64}.get(cells.itemsize * across)
            if word and rows.shape[1] == columns * across and cells.shape[2] % across == 0:
                rows.view(word)[...] = part.view(word)[:, :, 0]  # a cell's samples of a row in one go
            else:
                for i in range(across):
                    target = rows[:, i::across]
                    target[...] = part[:, : target.shape[1], i]
            channel += across


class StripRunner(PlanarRunner):
    """See `PlanarRunner`.

    Args:
        core: OpenVINO.
        network: in deployment form.
        source: the whole input picture.
        target: format and colour of the output.
        scale: of the network.
        window: frames a submit, at most.
        denoise: see `openvino_planes.build`.
        precision: of the detail path; of deeper samples than `_HALF_BITS` it is float32.
        threads: strips computed at once.

    Raises:
        EngineError: OpenVINO cannot compile the models.
        NetworkError: see `openvino_planes.build`.
    """

    def __init__(
        self,
        core: ov.Core,
        network: Network,
        source: Picture,
        target: Picture,
        scale: int,
        *,
        window: int = 1,
        denoise: float = 0.0,
        precision: str = "f32",
        threads: int = 1,
    ) -> None:
        self._source, self._target, self._scale, self._window = source, target, scale, window
        self._plan = plan = StripPlan.of(source, network.number("halo", 0), network.number("reach", 0))
        self.in_flight = 1 + -(-threads // len(plan.tops))
        strip = Picture(
            height=plan.rows + 2 * plan.halo_y,
            width=plan.columns + 2 * plan.halo_x,
            format=source.format,
            color=source.color,
        )
        half = precision != "f32" and max(source.format.bits, target.format.bits) <= _HALF_BITS
        models = build(core, network, strip, target, scale, window=window, denoise=denoise, split=half and not denoise)
        options = {"INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": threads}
        try:
            first = models.detail or models.picture
            hint = precision if models.detail else "f32"
            compiled = core.compile_model(first, "CPU", options | {"INFERENCE_PRECISION_HINT": hint})
            self._requests = ov.AsyncInferQueue(compiled, threads + 1)
            finishers: list[ov.InferRequest] = []
            if models.detail:
                second = core.compile_model(models.picture, "CPU", options | {"INFERENCE_PRECISION_HINT": "f32"})
                finishers = [second.create_infer_request() for _ in range(threads + 1)]
        except RuntimeError as exc:
            raise EngineError(f"{network.path}: OpenVINO cannot compile its planar form: {exc}") from exc
        self._buffers = [
            [np.zeros(tuple(i.get_shape()), i.get_element_type().to_dtype()) for i in compiled.inputs]
            for _ in range(threads + 1)
        ]
        assembler = _Assembler(plan, models.layouts, colour_planes(source.format), self._buffers, finishers)
        self._requests.set_callback(assembler.take)
        # OpenVINO's threads call Python, so buffers and interpreter have to stay until none of them can any more.
        weakref.finalize(self, self._requests.wait_all)

    def submit(self, frames: Sequence[Sequence[Array]], threshold: float) -> object:
        """See `PlanarRunner.submit`."""
        fmt, scale = self._target.format, self._scale
        height, width = self._source.height * scale, self._source.width * scale
        out = tuple(np.empty(fmt.plane_shape(i, height, width), fmt.dtype) for i in range(colour_planes(fmt)))
        ticket = _Ticket(out, len(self._plan.tops))
        count = colour_planes(self._source.format)
        for strip, top in enumerate(self._plan.tops):
            index = self._requests.get_idle_request_id()  # waits for one; its last strip has been copied out by then
            buffers = self._buffers[index]
            for k in range(self._window):
                planes = frames[min(k, len(frames) - 1)]
                for i in range(count):
                    self._cut(planes[i], buffers[k * count + i][0, 0], i, top)
            if self._window > 1:
                buffers[-2][...] = 1.0 / (threshold * threshold) if threshold > 0 else 0.0
                buffers[-1][...] = [k + 1 < len(frames) and threshold > 0 for k in range(self._window - 1)]
            try:
                self._requests.start_async({i: ov.Tensor(b) for i, b in enumerate(buffers)}, (ticket, strip, index))
            except RuntimeError as exc:
                raise EngineError(f"OpenVINO failed to start: {exc}") from exc
        return ticket

    def result(self, ticket: object) -> tuple[Array, ...]:
        """See `PlanarRunner.result`."""
        assert isinstance(ticket, _Ticket)
        ticket.done.wait()
        if isinstance(ticket.error, NotFinite):
            raise ticket.error
        if ticket.error is not None:
            raise EngineError(f"OpenVINO failed: {ticket.error}") from ticket.error
        return ticket.planes

    def _cut(self, plane: Array, strip: NDArray[Any], index: int, top: int) -> None:
        """Copy a strip with its halo out of a plane, repeating the plane's edge samples outside it."""
        plan, fmt = self._plan, self._source.format
        chroma = fmt.family == "yuv" and index > 0
        sy, sx = (fmt.log2_h, fmt.log2_w) if chroma else (0, 0)
        first, left = (top - plan.halo_y) >> sy, plan.halo_x >> sx
        rows, columns = plane.shape
        inside = slice(max(first, 0), min(first + strip.shape[0], rows))
        above, below = inside.start - first, inside.stop - first
        strip[above:below, left : left + columns] = plane[inside]
        strip[above:below, :left] = plane[inside, :1]
        strip[above:below, left + columns :] = plane[inside, -1:]
        strip[:above] = strip[above]
        strip[below:] = strip[below - 1]

"""Video planes in, video planes out: the colour conversions around an engine, on the device.

Only the planes cross the bus: 1.5 bytes a pixel of 8-bit 4:2:0 in place of 12 of float32 R'G'B'. `cuda_planes` has the
arithmetic; here is what is launched when. A frame alone takes two launches, one on either side of the network; one with
a window takes one more, which averages the window into planes of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from videosr.engines.base import NotFinite, Picture, PlanarRunner
from videosr.engines.cuda_planes import PlaneKernels
from videosr.engines.gpu_device import Device
from videosr.engines.gpu_execution import Conversion, Execution, Layout, Ticket
from videosr.engines.network import Network
from videosr.frame import Array, PixelFormat, namespace


class Parameters(NamedTuple):
    """What differs from frame to frame.

    Attributes:
        frames: in the window; 1 where it is not averaged.
        threshold: of `temporal.average`, in code values.
    """

    frames: int
    threshold: float


class Planes:
    """The conversions of one kind of picture.

    Args:
        device: where.
        network: the network.
        tensors: types of its inputs and of its output.
        source: what goes in.
        target: what comes out.
        window: frames at most.
        denoise: how far the base path too follows the average.
    """

    def __init__(
        self,
        device: Device,
        network: Network,
        tensors: tuple[str, str],
        source: Picture,
        target: Picture,
        window: int,
        denoise: float,
    ) -> None:
        self.source, self.target = source, replace(target, format=_opaque(target.format))
        self.colors = source.format.planes - source.format.alpha
        self._window = window
        apart = network.chroma_apart(source.format, self.target.format)
        dither = target.format.bits < source.format.bits  # rounding would band
        self._kernels = PlaneKernels(
            device, source, self.target, tensors=tensors, apart=apart, denoise=denoise, dither=dither
        )
        self._follows = apart and denoise > 0  # the result's chroma follows the average

    def conversion(self) -> Conversion:
        """As an `Execution` takes it. Last of what is downloaded is one byte: whether all was finite."""
        uploads = _layouts(self.source, self.colors) * self._window
        downloads = [*_layouts(self.target, self.target.format.planes), Layout((1,), "uint8", told=True)]
        return Conversion(uploads, downloads, self.before, self.after)

    def before(self, uploaded: Sequence[Array], inputs: Mapping[str, Array], parameters: Parameters) -> None:
        """See `Conversion.before`."""
        average = self._average(uploaded, parameters) if parameters.frames > 1 else None
        self._kernels.to_tensors(uploaded[: self.colors], list(inputs.values()), average)

    def after(
        self, uploaded: Sequence[Array], outputs: Mapping[str, Array], made: Sequence[Array], parameters: Parameters
    ) -> None:
        """See `Conversion.after`."""
        (tensor,) = outputs.values()
        *planes, finite = made
        finite.fill(1)
        average = self._average(uploaded, parameters) if self._follows and parameters.frames > 1 else None
        self._kernels.to_planes(tensor, planes, finite, uploaded[: self.colors], average)

    def _average(self, uploaded: Sequence[Array], parameters: Parameters) -> list[Array]:
        """The average of the window; its memory goes back to the stream that it was made on."""
        frames = [uploaded[k * self.colors : (k + 1) * self.colors] for k in range(parameters.frames)]
        average = [namespace(plane).empty(plane.shape, "float32") for plane in frames[0]]
        self._kernels.average(frames, parameters.threshold, average)
        return average


class PlanesRunner(PlanarRunner):
    """See `PlanarRunner`."""

    def __init__(self, execution: Execution, planes: Planes, name: str) -> None:
        self._execution, self._planes, self._name = execution, planes, name
        self.in_flight = execution.in_flight

    def submit(self, frames: Sequence[Sequence[Array]], threshold: float) -> Ticket:
        """See `PlanarRunner.submit`."""
        arrays = [plane for frame in frames for plane in frame[: self._planes.colors]]
        return self._execution.submit(arrays, Parameters(len(frames) if threshold > 0 else 1, threshold))

    def result(self, ticket: object) -> tuple[Array, ...]:
        """See `PlanarRunner.result`."""
        if not isinstance(ticket, Ticket):
            raise TypeError(f"{ticket!r} is no ticket of this runner")
        *planes, finite = self._execution.result(ticket)
        if not finite[0]:
            raise NotFinite(f"{self._name}: its result holds NaN or infinity; try --precision f32")
        return tuple(planes)


def _layouts(picture: Picture, planes: int) -> list[Layout]:
    """Of the first planes of a picture."""
    shapes = (picture.format.plane_shape(i, picture.height, picture.width) for i in range(planes))
    return [Layout(shape, picture.format.dtype.name) for shape in shapes]


def _opaque(format: PixelFormat) -> PixelFormat:
    """The same format without alpha."""
    return PixelFormat.of(format.family, format.bits, format.log2_w, format.log2_h) if format.alpha else format

"""Video planes in, video planes out: the colour conversions around an engine, on the device.

The arithmetic is `color`'s and `temporal`'s own, on the arrays of the device (cupy), so it agrees with them by making.
Each of its operations is a kernel of its own: right, not yet fast. Only the planes cross the bus: 1.5 bytes a pixel of
8-bit 4:2:0 in place of 12 of float32 R'G'B'.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import NamedTuple

from videosr import color, temporal
from videosr.engines.base import Interface, NotFinite, Picture, PlanarRunner
from videosr.engines.network import Network
from videosr.engines.tensorrt_execution import Conversion, Execution, Layout, Ticket
from videosr.frame import Array, Frame, PixelFormat
from videosr.temporal import Mode


class Parameters(NamedTuple):
    """What differs from frame to frame.

    Attributes:
        frames: in the window.
        threshold: of `temporal.average`, in code values.
    """

    frames: int
    threshold: float


class Planes:
    """The conversions of one kind of picture.

    Args:
        network: the network.
        interface: of it.
        source: what goes in.
        target: what comes out.
        window: frames at most.
        denoise: how far the base path too follows the average.
    """

    def __init__(
        self, network: Network, interface: Interface, source: Picture, target: Picture, window: int, denoise: float
    ) -> None:
        self.source, self.target, self.window, self.denoise = source, target, window, denoise
        self.interface = interface
        self.format = _opaque(target.format)
        self.apart = network.chroma_apart(source.format, self.format)
        self.colors = source.format.planes - source.format.alpha

    def conversion(self) -> Conversion:
        """As an `Execution` takes it. Last of what is downloaded is one byte: whether all was finite."""
        source, target = self.source, self.target
        planes = [
            Layout(source.format.plane_shape(i, source.height, source.width), source.format.dtype.name)
            for i in range(self.colors)
        ]
        made = [
            Layout(self.format.plane_shape(i, target.height, target.width), self.format.dtype.name)
            for i in range(self.format.planes)
        ]
        uploads = planes * self.window
        return Conversion(uploads, [*made, Layout((1,), "uint8", told=True)], self.before, self.after)

    def before(self, uploaded: Sequence[Array], inputs: Mapping[str, Array], parameters: Parameters) -> None:
        """See `Conversion.before`."""
        picture, *others = inputs.values()
        frame, average = self._window(uploaded, parameters)
        rgb = color.to_rgb(frame, self.source.format, self.source.color)
        _fill(picture, rgb)
        for other in others:
            if average is not None:
                rgb = color.to_rgb(average, self.source.format, self.source.color)
            _fill(other, rgb)

    def after(
        self, uploaded: Sequence[Array], outputs: Mapping[str, Array], made: Sequence[Array], parameters: Parameters
    ) -> None:
        """See `Conversion.after`."""
        (out,) = outputs.values()
        rgb = out[0, :, : self.target.height, : self.target.width].astype("float32")
        chroma = None
        if self.apart:
            chroma = (self._window(uploaded, parameters)[0], self.source.format, self.source.color)
        planes = color.from_rgb(rgb, self.format, self.target.color, dither=False, chroma=chroma)
        *targets, finite = made
        for target, plane in zip(targets, planes, strict=True):
            target[...] = plane
        xp = color.namespace(rgb)
        finite[0] = xp.isfinite(rgb).all()

    def _window(
        self, uploaded: Sequence[Array], parameters: Parameters
    ) -> tuple[tuple[Array, ...], tuple[Array, ...] | None]:
        """(the frame's planes, those of the window's average or None), in codes."""
        frame = tuple(uploaded[: self.colors])
        if parameters.frames == 1:
            return frame, None
        frames = [
            Frame(
                planes=tuple(uploaded[k * self.colors : (k + 1) * self.colors]),
                format=_opaque(self.source.format),
                pts=0,
                time_base=Fraction(1),
            )
            for k in range(parameters.frames)
        ]
        average = temporal.average(frames, Mode.ADAPTIVE, parameters.threshold)
        if self.denoise:
            share = average[0].dtype.type(self.denoise)
            frame = tuple(f + share * (a - f) for f, a in zip(frame, average, strict=True))
        return frame, average


class PlanesRunner(PlanarRunner):
    """See `PlanarRunner`."""

    def __init__(self, execution: Execution, planes: Planes, name: str) -> None:
        self._execution, self._planes, self._name = execution, planes, name
        self.in_flight = execution.in_flight

    def submit(self, frames: Sequence[Sequence[Array]], threshold: float) -> Ticket:
        """See `PlanarRunner.submit`."""
        arrays = [plane for frame in frames for plane in frame[: self._planes.colors]]
        return self._execution.submit(arrays, Parameters(len(frames), threshold))

    def result(self, ticket: object) -> tuple[Array, ...]:
        """See `PlanarRunner.result`."""
        if not isinstance(ticket, Ticket):
            raise TypeError(f"{ticket!r} is no ticket of this runner")
        *planes, finite = self._execution.result(ticket)
        if not finite[0]:
            raise NotFinite(f"{self._name}: its result holds NaN or infinity; try --precision f32")
        return tuple(planes)


def _fill(target: Array, rgb: Array) -> None:
    """Write a (3, H, W) picture into a (1, 3, rows, columns) tensor, its last row and column repeated."""
    height, width = rgb.shape[1:]
    target[0, :, :height, :width] = rgb
    if target.shape[3] > width:
        target[0, :, :height, width:] = rgb[:, :, -1:]
    if target.shape[2] > height:
        target[0, :, height:, :] = target[0, :, height - 1 : height, :]


def _opaque(format: PixelFormat) -> PixelFormat:
    """The same format without alpha."""
    return PixelFormat.of(format.family, format.bits, format.log2_w, format.log2_h) if format.alpha else format

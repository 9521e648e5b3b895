"""Video planes to R'G'B' tensors and back on an NVIDIA GPU: the kernels of `kernels/planes.cu` and their parameters.

They compute what `color.to_rgb`, `color.from_rgb` and `temporal.average` do, in the same order and in float32, in one
launch each. Planes are 2-D arrays of the device with any strides.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from videosr import color
from videosr.engines.base import Picture
from videosr.engines.gpu_device import Device
from videosr.errors import EngineError
from videosr.frame import Array
from videosr.temporal import DEPTH

SOURCE = "planes.cu"
OPTIONS = ("--fmad=false",)  # products are rounded before they are added, as numpy's are
_PHASES, _TAPS, _MEAN = 32, 4, 5  # as in the kernels' source, like all that follows
_TILE, _THREADS = (64, 16), (32, 8)  # pixels (across, down) that a block makes; its threads
_PLANE = np.dtype([("data", "u8"), ("pitch", "i4"), ("step", "i4")], align=True)
_AXIS = np.dtype(
    [
        ("size", "i4"),
        ("period", "i4"),
        ("advance", "i4"),
        ("start", "i4", (_PHASES,)),
        ("taps", "f4", (_PHASES, _TAPS)),
    ],
    align=True,
)
_AVERAGE = np.dtype([("first", "i4"), ("count", "i4"), ("taps", "f4", (_MEAN,))], align=True)
_LEVELS = np.dtype([("offset", "f4", (3,)), ("gain", "f4", (3,))], align=True)
_SOURCE = np.dtype(
    [("frame", _PLANE, (3,)), ("average", _PLANE, (3,)), ("share", "f4"), ("levels", _LEVELS)],
    align=True,
)
_TO_TENSORS = np.dtype(
    [
        ("source", _SOURCE),
        ("tensors", "u8", (2,)),
        ("height", "i4"),
        ("width", "i4"),
        ("rows", "i4"),
        ("columns", "i4"),
        ("matrix", "f4", (9,)),
        ("across", _AXIS),
        ("down", _AXIS),
    ],
    align=True,
)
_WINDOW = np.dtype(
    [
        ("frames", _PLANE, (DEPTH, 3)),
        ("average", _PLANE, (3,)),
        ("count", "i4"),
        ("height", "i4"),
        ("width", "i4"),
        ("likeness", "f4"),
    ],
    align=True,
)
_TO_PLANES = np.dtype(
    [
        ("tensor", "u8"),
        ("rows", "i4"),
        ("columns", "i4"),
        ("height", "i4"),
        ("width", "i4"),
        ("made", _PLANE, (3,)),
        ("dither", "i4"),
        ("peak", "f4"),
        ("levels", _LEVELS),
        ("matrix", "f4", (9,)),
        ("across", _AVERAGE),
        ("down", _AVERAGE),
        ("source", _SOURCE),
        ("source_across", _AXIS),
        ("source_down", _AXIS),
        ("finite", "u8"),
    ],
    align=True,
)
_FAMILIES = ("gray", "yuv", "rgb")
C_TYPES = {"uint8": "unsigned char", "uint16": "unsigned short", "float32": "float", "float16": "__half"}


class PlaneKernels:
    """The kernels for one kind of picture.

    All arrays are the device's, or such as have `__cuda_array_interface__`; work is queued on the current stream, and
    arrays have to stay until it is done.

    Args:
        device: where.
        source: what goes into a network.
        target: what is made of what comes out; its format has no alpha.
        tensors: types of the network's inputs and of its output: "float32" or "float16".
        apart: the result's chroma is interpolated from the source's (`Network.chroma_apart`).
        denoise: how far a frame is moved towards the average of its window, 0..1.
        dither: ordered dither instead of rounding.

    Raises:
        InputError: unknown matrix.
        EngineError: `apart`, with a scale so large that chroma has too many phases.
    """

    def __init__(
        self,
        device: Device,
        source: Picture,
        target: Picture,
        *,
        tensors: tuple[str, str] = ("float32", "float32"),
        apart: bool = False,
        denoise: float = 0.0,
        dither: bool = False,
    ) -> None:
        self.source, self.target = source, target
        made = target.format
        self._kernels = device.kernels(
            SOURCE,
            {
                "SAMPLE": C_TYPES[source.format.dtype.name],
                "FAMILY": _FAMILIES.index(source.format.family),
                "LOG2_W": source.format.log2_w,
                "LOG2_H": source.format.log2_h,
                "INPUT": C_TYPES[tensors[0]],
                "OUTPUT": C_TYPES[tensors[1]],
                "MADE": C_TYPES[made.dtype.name],
                "MADE_FAMILY": _FAMILIES.index(made.family),
                "MADE_LOG2_W": made.log2_w,
                "MADE_LOG2_H": made.log2_h,
                "APART": int(apart),
            },
            OPTIONS,
        )
        self._colors = source.format.planes - source.format.alpha
        self._apart = apart
        self._to_tensors = self._job_to_tensors(denoise)
        self._to_planes = self._job_to_planes(denoise, dither)
        self._average = np.zeros((), _WINDOW)
        self._average["height"], self._average["width"] = source.height, source.width

    def to_tensors(
        self, frame: Sequence[Array], tensors: Sequence[Array], average: Sequence[Array] | None = None
    ) -> None:
        """Write a network's inputs, as `color.to_rgb`; the picture's last row and column are repeated to their size.

        Args:
            frame: colour planes of the source, integer codes; alpha is ignored.
            tensors: (1, 3, rows, columns), C-contiguous: the picture and, where the network has a detail path, what
                that sees.
            average: of the frame's window (see `average`); without one both tensors get the frame.
        """
        job = self._to_tensors.copy()
        _place(job["source"]["frame"], frame[: self._colors])
        _place(job["source"]["average"], average or ())
        job["tensors"][: len(tensors)] = [_address(tensor) for tensor in tensors]
        job["rows"], job["columns"] = rows, columns = tensors[0].shape[2:]
        self._launch("window_to_tensors" if average else "to_tensors", (rows, columns), _TILE, job)

    def average(self, frames: Sequence[Sequence[Array]], threshold: float, average: Sequence[Array]) -> None:
        """Average a window, as `temporal.average` with `Mode.ADAPTIVE`.

        Args:
            frames: colour planes of at most `temporal.DEPTH` frames, newest first.
            threshold: in code values, above 0.
            average: float32 planes of the same shapes, written.
        """
        job = self._average.copy()
        for place, frame in zip(job["frames"], frames, strict=False):
            _place(place, frame[: self._colors])
        _place(job["average"], average)
        job["count"], job["likeness"] = len(frames), 1 / (9 * threshold)
        self._launch("average_window", (self.source.height, self.source.width), _TILE, job)

    def to_planes(
        self,
        tensor: Array,
        planes: Sequence[Array],
        finite: Array,
        frame: Sequence[Array] = (),
        average: Sequence[Array] | None = None,
    ) -> None:
        """Write video planes from a network's output, as `color.from_rgb`.

        Args:
            tensor: (1, 3, rows, columns), C-contiguous; its upper left part is the picture.
            planes: of the target's format, written. Samples of the first lie side by side; of R'G'B' those of all.
            finite: (1,) uint8, set to 0 if a value of the picture is NaN or infinite, else left as it is.
            frame: colour planes of the source, where chroma is apart.
            average: of the frame's window, where chroma is apart and moved towards that.
        """
        job = self._to_planes.copy()
        job["tensor"], job["finite"] = _address(tensor), _address(finite)
        job["rows"], job["columns"] = tensor.shape[2:]
        _place(job["made"], planes)
        _place(job["source"]["frame"], frame[: self._colors])
        _place(job["source"]["average"], average or ())
        target = self.target
        across, down = 2, 1  # pixels that a thread makes
        if target.format.family == "yuv":
            across, down = max(2, 1 << target.format.log2_w), 1 << target.format.log2_h
        tile = across * _THREADS[0], down * _THREADS[1]
        name = "window_to_planes" if average else "to_planes"
        self._launch(name, (target.height, target.width), tile, job)

    def _launch(self, name: str, size: tuple[int, int], tile: tuple[int, int], job: NDArray[Any]) -> None:
        """Queue a kernel over a picture of (rows, columns) in tiles of (columns, rows)."""
        self._kernels.launch(name, (-(-size[1] // tile[0]), -(-size[0] // tile[1])), _THREADS, [job])

    def _job_to_tensors(self, share: float) -> NDArray[Any]:
        job, source = np.zeros((), _TO_TENSORS), self.source
        job["source"] = _source(source, share)
        job["height"], job["width"] = source.height, source.width
        if source.format.family == "yuv":
            job["matrix"] = color.rgb_from_ycc(source.color.matrix).ravel()
            (down, across), (rows, columns) = _chroma(source), source.format.plane_shape(1, source.height, source.width)
            job["across"] = _axis(columns, Fraction(across[0]), across[1])
            job["down"] = _axis(rows, Fraction(down[0]), down[1])
        return job

    def _job_to_planes(self, share: float, dither: bool) -> NDArray[Any]:
        job, source, target = np.zeros((), _TO_PLANES), self.source, self.target
        job["height"], job["width"] = target.height, target.width
        job["dither"], job["peak"] = dither, (1 << target.format.bits) - 1
        levels = [color.levels(target.format, target.color.range, i) for i in range(target.format.planes)]
        for i, (offset, scale) in enumerate(levels):
            job["levels"]["offset"][i], job["levels"]["gain"][i] = offset, scale
        if target.format.family != "rgb":
            job["matrix"] = np.linalg.inv(color.rgb_from_ycc(color.luma_matrix(target.color))).ravel()
        if target.format.family == "yuv":
            for name, (factor, offset) in zip(("down", "across"), _chroma(target), strict=True):
                first, taps = color.downsampling_taps(factor, offset)
                job[name]["first"], job[name]["count"] = first, len(taps)
                job[name]["taps"][: len(taps)] = taps
        if self._apart:
            job["source"] = _source(source, share)
            scale, sizes = target.height // source.height, source.format.plane_shape(1, source.height, source.width)
            axes = zip(("source_down", "source_across"), sizes, _chroma(source), _chroma(target), strict=True)
            for name, size, own, other in axes:
                job[name] = _axis(size, *color.chroma_enlargement(scale, own, other))
        return job


def _chroma(picture: Picture) -> tuple[tuple[int, float], tuple[int, float]]:
    """Luma samples a chroma sample, and the first one's offset from the first luma sample: (down, across)."""
    factors = 1 << picture.format.log2_w, 1 << picture.format.log2_h
    across, down = color.siting_offsets(picture.color.siting, *factors)
    return (factors[1], down), (factors[0], across)


def _axis(size: int, factor: Fraction, offset: float) -> NDArray[Any]:
    """`color.catmull_rom` interpolation along an axis of `size` samples; factor and offset as `upsampling_taps`."""
    axis, period = np.zeros((), _AXIS), factor.numerator
    if period > _PHASES:
        raise EngineError(
            f"chroma of {factor} times the samples has more than {_PHASES} phases; give --pix-fmt another"
        )
    at = (np.arange(period) - offset) / float(factor)
    start = np.floor(at).astype(np.intp) - 1
    axis["size"], axis["period"], axis["advance"] = size, period, factor.denominator
    axis["start"][:period] = start
    axis["taps"][:period] = color.catmull_rom(at[:, None] - start[:, None] - np.arange(_TAPS))
    return axis


def _source(picture: Picture, share: float) -> NDArray[Any]:
    source = np.zeros((), _SOURCE)
    source["share"] = share
    for i in range(1 if picture.format.family == "gray" else 3):
        offset, scale = color.levels(picture.format, picture.color.range, i)
        source["levels"]["offset"][i], source["levels"]["gain"][i] = offset, 1 / scale
    return source


def _place(places: NDArray[Any], planes: Sequence[Array]) -> None:
    """Write down where planes lie."""
    for place, plane in zip(places, planes, strict=False):
        facts = facts_of(plane)
        size = np.dtype(facts["typestr"]).itemsize
        pitch, step = facts.get("strides") or (plane.shape[1] * size, size)
        place["data"], place["pitch"], place["step"] = facts["data"][0], pitch, step // size


def _address(array: Array) -> int:
    return int(facts_of(array)["data"][0])


def facts_of(array: Array) -> Mapping[str, Any]:
    """Address, strides and type, of an array of the device or, where tests run kernels there, of the host."""
    facts = getattr(array, "__cuda_array_interface__", None)
    made: Mapping[str, Any] = array.__array_interface__ if facts is None else facts
    return made

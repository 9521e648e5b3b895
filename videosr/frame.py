"""What travels through the graph: a picture's planes with their exact time and colour, and what a stream says.

Colour is described by the code points of ITU-T H.273, the numbers that FFmpeg (`AVColorSpace`, `AVColorRange`,
`AVColorPrimaries`, `AVColorTransferCharacteristic`) and VapourSynth (`_Matrix`, `_Primaries`, `_Transfer`) use as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from enum import IntEnum
from fractions import Fraction
from importlib import import_module
from typing import Any, Self

import numpy as np

from videosr.errors import InputError, UsageError

type Array = Any  # a numpy array on the host, a cupy array on the GPU; the code that takes one says its dtype and shape


def is_on_gpu(array: Array) -> bool:
    """Whether an array lies in a GPU's memory."""
    return hasattr(array, "get")


def on_host(array: Array) -> Array:
    """An array in the host's memory: itself, or a copy of one that lies on the GPU."""
    return array.get() if is_on_gpu(array) else array


def namespace(array: Array) -> Any:
    """numpy or cupy, whichever made the array. (cupy 14 has no `__array_namespace__`.)"""
    return np if isinstance(array, np.ndarray) else import_module(type(array).__module__.partition(".")[0])


def place_of(array: Array) -> AbstractContextManager[Any]:
    """Entered around work on an array: cupy makes new ones on the GPU that is current in the thread."""
    place: AbstractContextManager[Any] = nullcontext() if isinstance(array, np.ndarray) else array.device
    return place


def complete(array: Array) -> None:
    """Wait until what this thread has queued on an array's GPU is done, so that others may be given the array."""
    if not isinstance(array, np.ndarray):
        with place_of(array):
            namespace(array).cuda.get_current_stream().synchronize()


class Matrix(IntEnum):
    """Matrix coefficients, H.273 table 4 (`AVColorSpace`)."""

    RGB = 0
    BT709 = 1
    UNSPECIFIED = 2
    FCC = 4
    BT470BG = 5
    SMPTE170M = 6
    SMPTE240M = 7
    YCGCO = 8
    BT2020_NCL = 9
    BT2020_CL = 10
    ICTCP = 14


class Range(IntEnum):
    """Quantisation range (`AVColorRange`): limited is 16..235/240 at 8 bits, full is 0..255."""

    UNSPECIFIED = 0
    LIMITED = 1
    FULL = 2


class Siting(IntEnum):
    """Where 4:2:0 / 4:2:2 chroma samples sit relative to luma (`AVChromaLocation`)."""

    UNSPECIFIED = 0
    LEFT = 1
    CENTER = 2
    TOPLEFT = 3
    TOP = 4
    BOTTOMLEFT = 5
    BOTTOM = 6


UNSPECIFIED_CODE = 2
"""The H.273 code point "unspecified" of primaries and transfer."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ColorSpec:
    """The colour of a picture.

    Attributes:
        matrix: how Y'CbCr is made from R'G'B'.
        range: limited or full.
        primaries: H.273 table 2 code point, carried along and never interpreted.
        transfer: H.273 table 3 code point, carried along and never interpreted.
        siting: chroma sample location; meaningless without subsampling.
    """

    matrix: Matrix = Matrix.UNSPECIFIED
    range: Range = Range.UNSPECIFIED
    primaries: int = UNSPECIFIED_CODE
    transfer: int = UNSPECIFIED_CODE
    siting: Siting = Siting.UNSPECIFIED


@dataclass(frozen=True, slots=True)
class PixelFormat:
    """A planar pixel format with one array a component.

    Attributes:
        name: FFmpeg's name (`yuv420p10le`), which is also what the user types.
        family: "yuv", "rgb" (planes in the order R, G, B) or "gray".
        bits: significant bits a sample, 8..16; samples are uint8 for 8 and uint16 (low bits) above.
        log2_w: log2 of the horizontal chroma subsampling, 0..2.
        log2_h: log2 of the vertical chroma subsampling, 0..2.
        alpha: whether a last plane of full size carries alpha (always full range).
    """

    name: str
    family: str
    bits: int
    log2_w: int = 0
    log2_h: int = 0
    alpha: bool = False

    @property
    def planes(self) -> int:
        """Number of planes, alpha included."""
        return (1 if self.family == "gray" else 3) + self.alpha

    @property
    def dtype(self) -> np.dtype[Any]:
        """The sample type: uint8 or uint16."""
        return np.dtype(np.uint8 if self.bits == 8 else np.uint16)

    def plane_shape(self, plane: int, height: int, width: int) -> tuple[int, int]:
        """The (rows, columns) of a plane of a picture of `height` x `width` luma samples; odd sizes round up."""
        if self.family == "yuv" and plane in (1, 2):
            return -(-height >> self.log2_h), -(-width >> self.log2_w)
        return height, width

    @staticmethod
    def parse(name: str) -> PixelFormat:
        """The format of that FFmpeg name.

        Raises:
            InputError: videosr has no planar form of it (see `FORMATS` for those it has).
        """
        try:
            return FORMATS[name]
        except KeyError:
            raise InputError(f"pixel format {name!r} is not one that videosr works in: {', '.join(FORMATS)}") from None

    @property
    def subsampled(self) -> bool:
        """Whether chroma has fewer samples than luma."""
        return self.family == "yuv" and (self.log2_w > 0 or self.log2_h > 0)

    @staticmethod
    def of(family: str, bits: int, log2_w: int = 0, log2_h: int = 0, alpha: bool = False) -> PixelFormat:
        """The format with these properties.

        Raises:
            InputError: there is none.
        """
        for fmt in FORMATS.values():
            if (fmt.family, fmt.bits, fmt.log2_w, fmt.log2_h, fmt.alpha) == (family, bits, log2_w, log2_h, alpha):
                return fmt
        raise InputError(f"no pixel format is {family}, {bits} bits, chroma shifts {log2_w},{log2_h}, alpha {alpha}")


def _formats() -> dict[str, PixelFormat]:
    """Every planar format of FFmpeg that frames may have, by name."""
    found: dict[str, PixelFormat] = {}
    shifts = {"420": (1, 1), "422": (1, 0), "444": (0, 0), "440": (0, 1), "411": (2, 0), "410": (2, 2)}
    for bits in (8, 9, 10, 12, 14, 16):
        tail = "" if bits == 8 else f"{bits}le"
        for digits, (w, h) in shifts.items():
            has_alpha = digits in ("420", "422", "444")
            if (digits in ("411", "410") and bits > 8) or (digits == "440" and bits not in (8, 10, 12)):
                continue
            found[f"yuv{digits}p{tail}"] = PixelFormat(f"yuv{digits}p{tail}", "yuv", bits, w, h)
            if has_alpha and bits in (8, 9, 10, 12, 16) and not (bits == 12 and digits == "420"):
                found[f"yuva{digits}p{tail}"] = PixelFormat(f"yuva{digits}p{tail}", "yuv", bits, w, h, True)
        found[f"gbrp{tail}"] = PixelFormat(f"gbrp{tail}", "rgb", bits)
        if bits != 9:
            found[f"gbrap{tail}"] = PixelFormat(f"gbrap{tail}", "rgb", bits, alpha=True)
        found[f"gray{tail}"] = PixelFormat(f"gray{tail}", "gray", bits)
    return found


FORMATS: dict[str, PixelFormat] = _formats()


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Frame:
    """One picture, immutable. Whoever makes a Frame hands over its planes: nobody writes to them afterwards.

    Planes on the GPU are complete when the frame is handed over: nothing that writes them is still queued, so that any
    stream may read them. Who queues such reading holds the frame until that is done.

    Attributes:
        planes: one 2-D array a component, C-contiguous rows, `format.dtype`; RGB as R, G, B; alpha last. All on the
            host, or all on one GPU.
        format: the pixel format.
        pts: presentation time in units of `time_base`.
        duration: in units of `time_base`; 0 where the stream does not say.
        time_base: seconds a tick.
        color: as resolved (`colorinfo.resolve_color` does it for files), so that nothing downstream has to guess.
        sar: sample aspect ratio, 1 where the stream does not say.
        interlaced: the decoder marked the frame as interlaced.
        key: a keyframe of the input.
        scene_start: a scene begins here; set by the upscaler on what it puts out.
        side_data: (FFmpeg side-data name, payload) pairs that travel with the frame.
    """

    planes: tuple[Array, ...]
    format: PixelFormat
    pts: int
    time_base: Fraction
    duration: int = 0
    color: ColorSpec = ColorSpec()
    sar: Fraction = Fraction(1)
    interlaced: bool = False
    key: bool = False
    scene_start: bool = False
    side_data: tuple[tuple[str, bytes], ...] = ()

    @property
    def on_gpu(self) -> bool:
        """Whether the planes lie in a GPU's memory."""
        return is_on_gpu(self.planes[0])

    @property
    def height(self) -> int:
        """Rows of the first plane."""
        return int(self.planes[0].shape[0])

    @property
    def width(self) -> int:
        """Columns of the first plane."""
        return int(self.planes[0].shape[1])

    @property
    def time(self) -> Fraction:
        """Presentation time in seconds, exact."""
        return self.pts * self.time_base

    def check(self) -> None:
        """Refuse planes that are not what the format says: they would be read as something else.

        Raises:
            UsageError: another number of them, another shape or type.
        """
        given: list[tuple[Any, Any]] = [
            (getattr(p, "shape", ()), getattr(p, "dtype", type(p).__name__)) for p in self.planes
        ]
        rows, columns = given[0][0] if given and len(given[0][0]) == 2 else (0, 0)
        shapes = [self.format.plane_shape(i, rows, columns) for i in range(self.format.planes)]
        if not rows * columns or given != [(shape, self.format.dtype) for shape in shapes]:
            wanted = ", ".join(map(str, shapes)) if rows * columns else f"{len(shapes)} times (rows, columns)"
            got = ", ".join(f"{shape} {dtype}" for shape, dtype in given) or "none"
            raise UsageError(
                f"a frame in {self.format.name} takes planes of {np.dtype(self.format.dtype)} {wanted}, not {got}"
            )

    def with_planes(self, planes: tuple[Array, ...], format: PixelFormat | None = None) -> Self:
        """The same moment with another picture."""
        return replace(self, planes=planes, format=format or self.format)

    def same_picture(self, other: Frame) -> bool:
        """Whether the two carry the same samples, bit for bit, in the same format and colour."""
        if self.format != other.format or self.color != other.color:
            return False
        pairs = list(zip(self.planes, other.planes, strict=True))
        if any(a.shape != b.shape for a, b in pairs):
            return False
        if self.on_gpu != other.on_gpu:  # cupy compares no arrays of the host
            return all(bool((on_host(a) == on_host(b)).all()) for a, b in pairs)
        # A row from the middle tells most pairs apart before whole planes are read.
        middle = self.height // 2
        return bool((self.planes[0][middle] == other.planes[0][middle]).all()) and all(
            bool((a == b).all()) for a, b in pairs
        )


def together(frames: Sequence[Frame]) -> tuple[Frame, ...]:
    """Frames in one place: as they are or, where some are on a GPU and some are not, all on the host.

    So they come where a decoder on the GPU has given up in the middle of a film.
    """
    if len({frame.on_gpu for frame in frames}) == 1:
        return tuple(frames)
    return tuple(frame.with_planes(tuple(map(on_host, frame.planes))) for frame in frames)


@dataclass(frozen=True, kw_only=True, slots=True)
class StreamInfo:
    """What a video stream says of itself before its first frame.

    Attributes:
        width: columns of luma samples.
        height: rows of luma samples.
        format: the planar format its frames will have.
        time_base: seconds a tick of its timestamps.
        rate: average frames per second, None where the container does not say.
        frames: number of frames as the container states it, 0 where it does not.
        duration: seconds, None where unknown.
        color: as resolved.
        sar: sample aspect ratio.
        rotation: degrees counter-clockwise to turn the picture for display (FFmpeg's display matrix).
        codec: FFmpeg's name of the codec, or "heif".
        compressed: the codec has left its marks, as in nearly all video and photographs that people have.
    """

    width: int
    height: int
    format: PixelFormat
    time_base: Fraction
    rate: Fraction | None = None
    frames: int = 0
    duration: Fraction | None = None
    color: ColorSpec = ColorSpec()
    sar: Fraction = Fraction(1)
    rotation: int = 0
    codec: str = ""
    compressed: bool = False

"""NVDEC: video decoded by the GPU's own decoder into arrays on the GPU.

Only codecs whose decoding is defined bit for bit are given to it, so that its pictures are those of the CPU decoder and
results do not depend on who decoded. FFmpeg copies each picture out of the decoder into memory of its own (its default;
`AV_HWACCEL_FLAG_UNSAFE_OUTPUT` would not), in NV12 or P010. From there `DeviceReader` takes it into planes that belong
to the frame alone, so nothing that happens to the decoder can change a frame. All is in the device's primary CUDA
context, which cupy, torch and TensorRT use as well.

FFmpeg's own option for the primary context (`primary_ctx`) refuses one that is there already, unless it has the flags
that FFmpeg would give it; the engine's always is there first, with other flags. So the context is made current in the
thread that opens a decoder or encoder, and FFmpeg told to take what is current (`current_ctx`).
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from typing import Any

import av
import av.error
from av.codec import Codec
from av.codec.hwaccel import HWAccel, HWDevice, hwdevices_available
from av.video.plane import VideoPlane
from av.video.stream import VideoStream

from videosr.errors import InputError, MissingExtraError
from videosr.frame import Array, PixelFormat
from videosr.media.cropping import Cropping
from videosr.media.decoders import other_decoder

EXACT = frozenset({"h264", "hevc", "vp8", "vp9", "av1"})
"""Codecs with one right result. MPEG-2, MPEG-4 and VC-1 leave the last bit of the inverse transform to the decoder."""
FORMATS = frozenset({"yuv420p", "yuvj420p", "yuv420p10le"})
"""Formats of coded video that NVDEC gives as NV12 or P010. Others are new to it, have no such form, or, as 12 bits in
FFmpeg's P012, one that PyAV's DLPack does not speak."""
ON_DEVICE = "cuda"
"""FFmpeg's pixel format of a picture in the GPU's memory; what it is there says `VideoFrame.sw_format`."""


def unfit(stream: VideoStream) -> str:
    """Why a stream is not for NVDEC, as far as its header tells; "" if it may be.

    What a certain GPU cannot do (profiles, levels, sizes beyond its limits) FFmpeg finds out when decoding begins.

    Args:
        stream: opened without hardware, so that its context has the format of the coded pictures.
    """
    context = stream.codec_context
    name, size = context.codec.canonical_name, f"{context.width}x{context.height}"
    if name not in EXACT:
        return f"NVDEC's result for {name} may differ in the last bit"
    if _using_nvdec(context.codec) is None:
        return f"FFmpeg decodes {name} with {context.codec.name} here, which does not use NVDEC"
    if context.pix_fmt not in FORMATS:
        return f"NVDEC has no use for {context.pix_fmt}"
    if context.width % 2 or context.height % 2:
        return f"NVDEC's pictures cannot be read at the odd size {size}"
    if any(Cropping(context).edges):
        return "the container crops its pictures"
    return ""


def _using_nvdec(codec: Codec) -> Codec | None:
    """A decoder, or FFmpeg's own one of the same coding, if that uses NVDEC."""
    for found in (codec, Codec(codec.canonical_name, "r")):
        if any(config.format and config.format.name == ON_DEVICE for config in found.hardware_configs or ()):
            return found
    return None


def decoder_of(stream: VideoStream, found: HWAccel | None) -> av.VideoCodecContext:
    """What decodes a stream on the GPU: its own context, or one of FFmpeg's own decoder where PyAV takes another.

    So it is with AV1. FFmpeg's own decoder of that does nothing without hardware but say so, by ENOSYS for a packet.

    Args:
        stream: of a file that was opened with `acceleration`; it is not `unfit`.
        found: that.
    """
    chosen = stream.codec_context
    codec = _using_nvdec(chosen.codec)
    if codec is None or codec.name == chosen.codec.name:
        return chosen
    made = other_decoder(chosen, codec, found)
    # PyAV leaves "cuda" there. FFmpeg's av1 takes that for a sign that all is set up already, and then has nothing to
    # decode with: every packet is an invalid argument.
    made.pix_fmt = chosen.pix_fmt
    return made


def unreadable(picture: av.VideoFrame) -> str:
    """Why a picture on the GPU cannot be read there; "" if it can."""
    try:
        for plane in picture.planes:
            plane.__dlpack__()
    except NotImplementedError as exc:
        return f"PyAV does not give its pictures away on the GPU: {exc}"
    return ""


def acceleration(index: int) -> HWAccel:
    """What opens a file's video for decoding on a GPU.

    Args:
        index: of the GPU, as CUDA counts.

    The file has to be opened next, in the same thread: FFmpeg then takes the context that was made current here.

    Raises:
        InputError: it cannot be used.
    """
    if ON_DEVICE not in hwdevices_available():
        raise InputError("this FFmpeg is built without CUDA; install PyAV from PyPI")
    options = _shared_context(index)
    try:
        HWDevice(ON_DEVICE, str(index), options)
    except av.error.FFmpegError as exc:
        raise InputError(f"FFmpeg cannot use CUDA device {index} ({exc.strerror}); see videosr doctor") from exc
    return HWAccel(ON_DEVICE, device=str(index), is_hw_owned=True, options=options)


def _shared_context(index: int) -> dict[str, object]:
    """The options by which FFmpeg works in a device's primary context, which is this thread's current one after.

    Raises:
        InputError: CUDA cannot make it.
    """
    try:
        import cupy
    except ImportError:  # then nobody else has made it, and FFmpeg may
        return {"primary_ctx": "1"}
    try:
        cupy.cuda.Device(index).use()
        cupy.cuda.runtime.free(0)  # does nothing but what has to be done first
    except cupy.cuda.runtime.CUDARuntimeError as exc:
        raise InputError(f"FFmpeg cannot use CUDA device {index} ({exc}); see videosr doctor") from exc
    return {"primary_ctx": "0", "current_ctx": "1"}


class _Shared:
    """A plane for DLPack's importers, which ask for streams and versions; PyAV's exporter takes neither.

    That is right here: who reads does so on the stream on which FFmpeg has written.
    """

    def __init__(self, plane: VideoPlane) -> None:
        self._plane = plane

    def __dlpack_device__(self) -> tuple[int, int]:
        device: tuple[int, int] = self._plane.__dlpack_device__()
        return device

    def __dlpack__(self, **_: object) -> Any:
        return self._plane.__dlpack__()


class DeviceReader:
    """Takes NV12 and P010 pictures apart into planes of one component each, where they are.

    The planes are C-contiguous, complete when `read` returns, and nobody else's: the picture they came from may be
    dropped, and decoded over, at once. It costs a read and a write of the picture in the GPU's memory (6 bytes a pixel
    of 8-bit 4:2:0, a hundredth of a millisecond at 1920x1080 on a slow card), and then no later reader has to know of
    interleaved chroma, of rows with padding or of samples in the upper bits.

    Args:
        take: makes an array of what has `__dlpack__`, without a copy.
        place: entered around the reading: the device and stream on which the pictures were written.
        complete: waits until what was queued there is done.
    """

    def __init__(
        self,
        take: Callable[[object], Array],
        place: Callable[[], AbstractContextManager[object]],
        complete: Callable[[], None],
    ) -> None:
        self._take, self._place, self._complete = take, place, complete

    def read(self, picture: av.VideoFrame, fmt: PixelFormat) -> tuple[Array, ...]:
        """The planes Y, Cb, Cr.

        Args:
            picture: 4:2:0, of even size.
            fmt: the planar format of the coded video. Samples of more than 8 bits lie in the upper bits of 16.
        """
        with self._place():
            luma, chroma = (self._take(_Shared(plane)) for plane in picture.planes)
            parts = luma, chroma[:, :, 0], chroma[:, :, 1]
            planes = tuple(part.copy() if fmt.bits == 8 else part >> (16 - fmt.bits) for part in parts)
            self._complete()
        return planes


def cuda_reader(index: int) -> DeviceReader:
    """The reader of a CUDA device, giving cupy arrays.

    Raises:
        MissingExtraError: cupy is not installed.
    """
    try:
        import cupy
    except ImportError as exc:
        raise MissingExtraError("decoding on the GPU", "cuda") from exc
    default = cupy.cuda.Stream.null  # on which FFmpeg writes

    def place() -> ExitStack:
        stack = ExitStack()
        stack.enter_context(cupy.cuda.Device(index))
        stack.enter_context(default)
        return stack

    return DeviceReader(cupy.from_dlpack, place, default.synchronize)

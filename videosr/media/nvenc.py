"""NVENC: pictures on the GPU given to the GPU's own encoder, without a copy to the host.

Nothing of the encoding has run yet: it takes a card with an encoder. How pictures are laid out, and that their samples
are right, is tested with arrays of the host, which PyAV takes by the same protocol.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import av
from av.video.frame import CudaContext

from videosr.frame import Array, PixelFormat, StreamInfo, complete, namespace, place_of
from videosr.media.codecs import EncoderSettings, configure
from videosr.media.encoders import NVENC
from videosr.media.nvdec import ON_DEVICE

LAYOUTS = {"yuv420p": "nv12", "yuv420p10le": "p010le"}
"""The semi-planar forms in which NVENC reads the GPU's memory, by the planar format of the same samples."""
_CPU = 1  # DLPack's kDLCPU


def takes_gpu_frames(settings: EncoderSettings, info: StreamInfo) -> bool:
    """Whether frames on the GPU can be encoded where they are: an odd size has no semi-planar form.

    Args:
        settings: resolved.
        info: of the coded stream.
    """
    even = info.width % 2 == 0 and info.height % 2 == 0
    return even and settings.codec in NVENC and settings.pix_fmt in LAYOUTS


def gpu_context(settings: EncoderSettings, info: StreamInfo) -> av.VideoCodecContext:
    """An encoder of pictures on the GPU. It opens with the first one, from which it learns of the device.

    Args:
        settings: for which `takes_gpu_frames` holds.
        info: of the coded stream.
    """
    context = av.CodecContext.create(settings.codec, "w")
    if not isinstance(context, av.VideoCodecContext):
        raise ValueError("is not a video encoder")
    configure(context, settings, info)
    context.pix_fmt = ON_DEVICE
    return context


def gpu_picture(planes: Sequence[Array], fmt: PixelFormat) -> av.VideoFrame:
    """A picture for the encoder, in memory of its own on the device of the planes; released when it is encoded.

    NVENC is given one address a picture: the rows of chroma have to follow those of luma.

    Args:
        planes: Y, Cb, Cr of even size, on a GPU (or, for tests, of the host).
        fmt: of theirs, one of `LAYOUTS`.
    """
    xp, (rows, columns) = namespace(planes[0]), planes[0].shape
    with place_of(planes[0]):  # FFmpeg takes the context that is current
        memory = xp.empty((rows + rows // 2, columns), fmt.dtype)
        luma, chroma = memory[:rows], memory[rows:]
        shift = 0 if fmt.bits == 8 else 16 - fmt.bits  # the samples are the upper bits
        pairs = chroma.reshape(rows // 2, columns // 2, 2)
        for plane, target in zip(planes, (luma, pairs[:, :, 0], pairs[:, :, 1]), strict=True):
            xp.left_shift(plane, shift, out=target)
        complete(memory)
        on_gpu = memory.__dlpack_device__()[0] != _CPU
        context = _cuda(memory.device.id) if on_gpu else None
        return av.VideoFrame.from_dlpack((luma, chroma), format=LAYOUTS[fmt.name], cuda_context=context)


@cache
def _cuda(index: int) -> CudaContext:
    """FFmpeg's hold on a device's primary context (see `nvdec`), one for the life of the process."""
    return CudaContext(index, primary_ctx=False, current_ctx=True)

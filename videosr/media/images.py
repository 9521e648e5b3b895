"""One frame as a still image: png, jpg or webp."""

from __future__ import annotations

import os
from pathlib import Path

import av
import av.error

from videosr.errors import OutputError, UsageError
from videosr.frame import Frame, Matrix, PixelFormat, Range, StreamInfo
from videosr.media.codecs import EncoderSettings
from videosr.media.containers import IMAGES
from videosr.media.planes import to_av_frame

_QUALITY = {"mjpeg": 2.0, "libwebp": 95.0}  # FFmpeg's qscale 2..31 (lower is better); WebP's 0..100


def image_settings(output: Path, wanted: EncoderSettings, info: StreamInfo) -> EncoderSettings:
    """The encoder and pixel format of a still image.

    Args:
        output: its suffix names the format.
        wanted: `pix_fmt` and, for jpg and webp, the quality in `crf` may be given.
        info: of the source.

    Raises:
        UsageError: settings that belong to video.
    """
    codec = IMAGES[output.suffix.lower()]
    if wanted.codec or wanted.preset or wanted.options:
        raise UsageError(f"{output}: --codec, --preset and -x are for video, not for a still image")
    if codec == "mjpeg":
        pix_fmt = "gray" if info.format.family == "gray" else "yuv444p" if info.format.log2_w == 0 else "yuv420p"
    elif codec == "libwebp":
        pix_fmt = "yuva420p" if info.format.alpha else "yuv420p"
    else:
        family = "gray" if info.format.family == "gray" and not info.format.alpha else "rgb"
        pix_fmt = PixelFormat.of(family, 8 if info.format.bits == 8 else 16, alpha=info.format.alpha).name
    return EncoderSettings(codec=codec, crf=wanted.crf, pix_fmt=wanted.pix_fmt or pix_fmt)


def write_image(output: Path, frame: Frame, settings: EncoderSettings) -> None:
    """Encode a frame and write the file; it appears under its name when it is complete.

    Args:
        output: file name.
        frame: in the format of `settings`.
        settings: from `image_settings`.

    Raises:
        OutputError: the encoder failed or the file cannot be written.
    """
    picture = to_av_frame(frame.planes, frame.format)
    # PNG stores packed samples and JPEG wants full range; both are swscale's to repack, not ours.
    packed = {"gbrp": "rgb24", "gbrap": "rgba", "gbrp16le": "rgb48be", "gbrap16le": "rgba64be", "gray16le": "gray16be"}
    picture.color_range = int(frame.color.range)
    picture.colorspace = int(frame.color.matrix)
    name = packed.get(frame.format.name, frame.format.name)
    if settings.codec == "mjpeg":
        name = name.replace("yuv", "yuvj")
        picture = picture.reformat(
            format=name,
            src_colorspace=_colorspace(frame.color.matrix),
            dst_colorspace=5,  # JFIF: BT.601
            src_color_range=int(frame.color.range),
            dst_color_range=int(Range.FULL),
        )
    elif settings.codec == "png":
        picture = picture.reformat(format=name)
    part = output.with_name(f".{output.name}.{os.getpid()}.part")
    try:
        context = av.CodecContext.create(settings.codec, "w")
        context.width, context.height = picture.width, picture.height  # type: ignore[attr-defined]
        context.pix_fmt = picture.format.name  # type: ignore[attr-defined]
        context.time_base = frame.time_base
        if settings.codec == "mjpeg":
            context.options = {"qmin": "1"}
            context.qmin = context.qmax = int(settings.crf or _QUALITY["mjpeg"])  # type: ignore[attr-defined]
        elif settings.codec == "libwebp":
            context.options = {"quality": str(settings.crf or _QUALITY["libwebp"])}
        picture.pts = 0
        data = b"".join(bytes(p) for f in (picture, None) for p in context.encode(f))  # type: ignore[attr-defined]
        part.write_bytes(data)
        part.replace(output)
    except (av.error.FFmpegError, OSError) as exc:
        raise OutputError(f"{output}: cannot be written: {exc.strerror or exc}") from exc
    finally:
        part.unlink(missing_ok=True)


def _colorspace(matrix: Matrix) -> int:
    """swscale's number (SWS_CS_*) of a matrix."""
    return {Matrix.BT709: 1, Matrix.FCC: 4, Matrix.SMPTE240M: 7, Matrix.BT2020_NCL: 9}.get(matrix, 5)

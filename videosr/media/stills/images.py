"""One frame as a still image: png, jpg or webp."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import av
import av.error

from videosr.color import from_rgb, to_rgb
from videosr.errors import OutputError, UsageError
from videosr.files import write_atomically
from videosr.frame import ColorSpec, Frame, Matrix, PixelFormat, Range, Siting, StreamInfo
from videosr.media.codecs import EncoderSettings
from videosr.media.containers import IMAGES
from videosr.media.orientation import UPRIGHT, Orientation
from videosr.media.planes import to_av_frame
from videosr.media.stills import picturedata

_FORMATS = {
    "png": ("gray", "gray16le", "gbrp", "gbrp16le", "gbrap", "gbrap16le"),
    "mjpeg": ("yuv420p", "yuv422p", "yuv444p"),
    "libwebp": ("yuv420p", "yuva420p"),
}
_COLOR = {
    "png": ColorSpec(matrix=Matrix.RGB, range=Range.FULL),
    "mjpeg": ColorSpec(matrix=Matrix.BT470BG, range=Range.FULL, siting=Siting.CENTER),  # JFIF
    "libwebp": ColorSpec(matrix=Matrix.BT470BG, range=Range.LIMITED, siting=Siting.CENTER),  # RFC 6386, section 9.2
}
"""The one colour encoding that each kind of file has."""
_PACKED = {"gbrp": "rgb24", "gbrap": "rgba", "gbrp16le": "rgb48be", "gbrap16le": "rgba64be", "gray16le": "gray16be"}
_QUALITY = {"mjpeg": (1.0, 31.0, 2.0), "libwebp": (0.0, 100.0, 95.0)}
"""(lowest, highest, default): FFmpeg's qscale, lower is better; WebP's quality, higher is better."""

_MAX_SIDE = {"mjpeg": 65500, "libwebp": 16383}
"""What FFmpeg's encoder of JPEG and the format WebP (RFC 9649, 2.5) hold."""


def image_settings(suffix: str, wanted: EncoderSettings, info: StreamInfo) -> EncoderSettings:
    """The encoder and pixel format of a still image.

    Args:
        suffix: of the output, one of `IMAGES`.
        wanted: `pix_fmt` and, for jpg and webp, the quality in `crf` may be given.
        info: of the source.

    Raises:
        UsageError: settings that belong to video, or a value that the format does not have.
    """
    codec = IMAGES[suffix]
    if wanted.codec or wanted.preset or wanted.options:
        raise UsageError(f"--codec, --preset and -x are for video, not for {suffix}")
    if wanted.pix_fmt and wanted.pix_fmt not in _FORMATS[codec]:
        raise UsageError(f"--pix-fmt {wanted.pix_fmt}: {suffix} has {', '.join(_FORMATS[codec])}")
    low, high, quality = _QUALITY.get(codec, (0.0, 0.0, None))
    if wanted.crf is not None and (quality is None or not low <= wanted.crf <= high):
        allowed = f"({low:g} to {high:g})" if quality is not None else "(it is lossless: leave --crf out)"
        raise UsageError(f"--crf {wanted.crf:g}: out of range for {suffix} {allowed}")
    source = info.format
    if codec == "mjpeg":
        pix_fmt = "yuv420p" if source.log2_w and source.log2_h else "yuv422p" if source.log2_w else "yuv444p"
    elif codec == "libwebp":
        pix_fmt = "yuva420p" if source.alpha else "yuv420p"
    else:
        family = "gray" if source.family == "gray" and not source.alpha else "rgb"
        pix_fmt = PixelFormat.of(family, 8 if source.bits == 8 else 16, alpha=source.alpha).name
    return EncoderSettings(
        codec=codec, crf=quality if wanted.crf is None else wanted.crf, pix_fmt=wanted.pix_fmt or pix_fmt
    )


def image_losses(suffix: str, settings: EncoderSettings, info: StreamInfo) -> list[str]:
    """What the file cannot keep of the picture, one line each."""
    lines = []
    if info.format.alpha and not settings.format.alpha:
        keep = ".png keeps" if suffix == ".png" else ".png and .webp keep"
        lines.append(f"the alpha plane is lost: {settings.pix_fmt} has none ({keep} it)")
    if info.format.bits > settings.format.bits:
        lines.append(f"{info.format.bits} bits become {settings.format.bits} bits (.png keeps up to 16)")
    if info.sar != 1 and settings.codec == "libwebp":
        lines.append(
            f"the pixels' shape of {info.sar.numerator}:{info.sar.denominator} is lost (.png and .jpg keep it)"
        )
    return lines


def picture_data_kept(settings: EncoderSettings, side_data: Iterable[tuple[str, bytes]]) -> frozenset[str]:
    """The side data of a frame that is written into the file (see `picturedata`)."""
    return picturedata.kept(settings.codec, settings.format.family == "gray", dict(side_data))


def check_image_size(output: Path, settings: EncoderSettings, width: int, height: int) -> None:
    """Refuse, before it is made, a picture that the file could not hold.

    Raises:
        UsageError: it has more columns or rows than that.
    """
    most = _MAX_SIDE.get(settings.codec or "", max(width, height))
    if max(width, height) > most:
        raise UsageError(
            f"{output}: would be {width}x{height}, and {output.suffix} holds {most} a side at most: choose .png, or a "
            "smaller --height"
        )


def without_idle_alpha(frame: Frame) -> Frame:
    """The frame without its alpha plane if nothing in it is transparent, as in most palette images."""
    fmt = frame.format
    if not fmt.alpha or frame.planes[-1].min() < (1 << fmt.bits) - 1:
        return frame
    return frame.with_planes(frame.planes[:-1], PixelFormat.of(fmt.family, fmt.bits, fmt.log2_w, fmt.log2_h))


def working_format(settings: EncoderSettings) -> PixelFormat:
    """The format in which a picture should be made for `write_image`: what the file holds before it is subsampled."""
    fmt = settings.format
    return fmt if fmt.family == "gray" else PixelFormat.of("rgb", fmt.bits, alpha=fmt.alpha)


def write_image(
    output: Path, frame: Frame, settings: EncoderSettings, display_matrix: Sequence[int] | None = None
) -> Frame:
    """Encode a frame and write the file; it appears under its name when it is complete.

    Args:
        output: file name.
        frame: see `encode_image`, as for all others.
        settings: from `image_settings`.
        display_matrix: how the picture is to be turned.

    Returns:
        The frame as it was written: upright.

    Raises:
        OutputError: the encoder failed or the file cannot be written.
    """
    data, frame = encode_image(frame, settings, display_matrix)
    write_atomically(output, data)
    return frame


def encode_image(
    frame: Frame, settings: EncoderSettings, display_matrix: Sequence[int] | None = None
) -> tuple[bytes, Frame]:
    """A frame as the file of a picture.

    Args:
        frame: in `working_format`.
        settings: from `image_settings`.
        display_matrix: how the picture is to be turned for display (see `Decoder.display_matrix`).

    Returns:
        The file, and the frame as it is in it: upright.

    Raises:
        OutputError: the encoder failed.
    """
    frame = (Orientation.of(display_matrix) or UPRIGHT).frame(frame)
    fmt, color = settings.format, _COLOR[settings.codec]
    opaque = PixelFormat.of(fmt.family, fmt.bits, fmt.log2_w, fmt.log2_h)
    planes = from_rgb(to_rgb(frame.planes, frame.format, frame.color), opaque, color, dither=False)
    if fmt.alpha:
        planes = (*planes, frame.planes[-1])
    if settings.codec == "mjpeg":
        fmt = replace(fmt, name=fmt.name.replace("yuv", "yuvj"))  # FFmpeg's names of full-range formats
    picture = to_av_frame(planes, fmt)
    if settings.codec == "png":
        picture = picture.reformat(format=_PACKED.get(fmt.name, fmt.name))  # only moves samples
    keep = picture_data_kept(settings, frame.side_data)
    data = {kind: payload for kind, payload in frame.side_data if kind in keep}
    picture.colorspace, picture.color_range = int(color.matrix), int(color.range)
    picture.color_primaries, picture.color_trc = frame.color.primaries, frame.color.transfer
    picture.pts = 0
    try:
        context = av.CodecContext.create(settings.codec, "w")
        assert isinstance(context, av.VideoCodecContext)
        context.width, context.height, context.pix_fmt = picture.width, picture.height, picture.format.name
        context.sample_aspect_ratio = frame.sar
        context.time_base = frame.time_base
        if settings.codec == "mjpeg" and settings.crf is not None:
            context.options = {"qmin": "1"}
            context.qmin = context.qmax = round(settings.crf)
        elif settings.codec == "libwebp":
            context.options = {"quality": f"{settings.crf:g}"}
        coded = b"".join(bytes(packet) for f in (picture, None) for packet in context.encode(f))
    except av.error.FFmpegError as exc:
        raise OutputError(f"{settings.codec}: encoding failed: {exc.strerror}") from exc
    return picturedata.attach(coded, settings.codec, data, picture.width, picture.height), frame

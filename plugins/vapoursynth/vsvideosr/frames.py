"""Between VapourSynth's frames and those of videosr: samples and frame properties.

Properties: https://www.vapoursynth.com/doc/apireference.html#reserved-frame-properties
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
import vapoursynth as vs

from videosr.color import levels, resize_plane
from videosr.errors import InputError
from videosr.frame import UNSPECIFIED_CODE, Array, ColorSpec, Frame, PixelFormat, Range, Siting
from videosr.media.colorinfo import resolve_color, tagged_color

_FAMILIES = {vs.GRAY: "gray", vs.RGB: "rgb", vs.YUV: "yuv"}


def core_format(format: vs.VideoFormat) -> PixelFormat:
    """The pixel format in which videosr works on a clip: its own, 16 bits for floats.

    Raises:
        InputError: there is none.
    """
    family = _FAMILIES[format.color_family]
    bits = 16 if format.sample_type == vs.FLOAT else format.bits_per_sample
    try:
        return PixelFormat.of(family, bits, format.subsampling_w, format.subsampling_h)
    except InputError as exc:
        better = {"gray": "GRAY16", "rgb": "RGB48", "yuv": "YUV444P16"}[family]
        raise InputError(
            f"no network runs on {format.name}; use clip.resize.Bicubic(format=vs.{better}) first"
        ) from exc


def read(source: vs.VideoFrame, n: int, format: PixelFormat) -> Frame:
    """Copy a frame.

    Args:
        source: a frame of the clip.
        n: its number.
        format: `core_format` of its format.
    """
    color = _color(source, format)
    if source.format.sample_type == vs.FLOAT:
        color = replace(color, range=Range.LIMITED)  # leaves room for values outside 0..1
    return Frame(
        planes=tuple(_codes(source, i, format, color.range) for i in range(format.planes)),
        format=format,
        pts=n,
        time_base=Fraction(1),  # time is VapourSynth's own affair
        color=color,
    )


def write(result: Frame, source: vs.VideoFrame, format: vs.VideoFormat) -> vs.VideoFrame:
    """A new VapourSynth frame.

    Args:
        result: the picture.
        source: the frame it was made of, whose properties it takes.
        format: of the clip that it belongs to.
    """
    target = vs.core.create_video_frame(format, result.width, result.height)
    target.props.update(source.props)
    for i, plane in enumerate(result.planes):
        _put(plane, target, i, result.format, result.color.range)
    _tag(target.props, result.color, _color(source, core_format(source.format)).range)
    target.props["_SceneChangePrev"] = int(result.scene_start)
    alpha = source.props.get("_Alpha")
    if isinstance(alpha, vs.VideoFrame):  # anything else under that name is a property like others
        target.props["_Alpha"] = _enlarged_alpha(alpha, result.width // source.width, format)
    return target


def scene_change(props: Mapping[str, Any]) -> bool | None:
    """Whether a scene begins with the frame, None where nobody has said so."""
    said = _number(props, "_SceneChangePrev", -1)
    return None if said < 0 else bool(said)


def _color(frame: vs.VideoFrame, format: PixelFormat) -> ColorSpec:
    """What the properties say, the rest by the rule for files (`colorinfo`), whose numbers are FFmpeg's."""
    props = frame.props
    range_ = {0: Range.LIMITED, 1: Range.FULL}.get(_number(props, "_Range", -1), Range.UNSPECIFIED)  # or _ColorRange
    tagged = tagged_color(
        _number(props, "_Matrix", UNSPECIFIED_CODE),
        range_,
        _number(props, "_Primaries", UNSPECIFIED_CODE),
        _number(props, "_Transfer", UNSPECIFIED_CODE),
        _number(props, "_ChromaLocation", -1) + 1,
    )
    return resolve_color(tagged, format, frame.height, frame.width)[0]


def _number(props: Mapping[str, Any], name: str, otherwise: int) -> int:
    """A property, where it is one number."""
    value = props.get(name, otherwise)
    return value if isinstance(value, int) else otherwise


def _tag(props: Any, color: ColorSpec, said: Range) -> None:
    """Say what the colour is. `said` is the range of the source, which floats keep whatever they went through."""
    props["_Matrix"] = int(color.matrix)
    props["_Range"] = int(said == Range.FULL)
    if color.siting != Siting.UNSPECIFIED:
        props["_ChromaLocation"] = color.siting - 1
    else:
        props.pop("_ChromaLocation", None)


def _codes(frame: vs.VideoFrame, plane: int, format: PixelFormat, range_: Range) -> Array:
    """A copy of a plane; of a float plane the nearest codes of the format."""
    samples = np.asarray(frame[plane])
    if frame.format.sample_type != vs.FLOAT:
        return samples.copy()
    offset, scale = levels(format, range_, plane)
    codes = np.rint(samples.astype(np.float32) * np.float32(scale) + np.float32(offset))
    return np.fmin(np.fmax(codes, 0), (1 << format.bits) - 1).astype(format.dtype)  # fmax makes NaN 0


def _put(codes: Array, frame: vs.VideoFrame, plane: int, format: PixelFormat, range_: Range) -> None:
    """The reverse of `_codes`."""
    target = np.asarray(frame[plane])
    if frame.format.sample_type != vs.FLOAT:
        target[...] = codes
        return
    offset, scale = levels(format, range_, plane)
    target[...] = (codes.astype(np.float32) - np.float32(offset)) * np.float32(1 / scale)


def _enlarged_alpha(alpha: vs.VideoFrame, scale: int, format: vs.VideoFormat) -> vs.VideoFrame:
    """An alpha plane of the output's size and sample type, by interpolation as everywhere in videosr."""
    kind = vs.core.query_video_format(vs.GRAY, format.sample_type, format.bits_per_sample)
    target = vs.core.create_video_frame(kind, alpha.width * scale, alpha.height * scale)
    source = core_format(alpha.format)
    plane = resize_plane(_codes(alpha, 0, source, Range.FULL), source, scale, core_format(kind))
    _put(plane, target, 0, core_format(kind), Range.FULL)
    target.props.update(alpha.props)
    return target

"""VapourSynth filter for videosr: `vsvideosr.upscale(clip)`."""

from __future__ import annotations

import os
from typing import NoReturn

import vapoursynth as vs

from videosr.engines import DEFAULT
from videosr.engines.choice import AUTO
from videosr.errors import InputError, VideosrError
from videosr.frame import PixelFormat
from videosr.models import registry
from videosr.options import UpscaleOptions
from videosr.temporal import HISTORY, Mode
from videosr.upscaler import Upscaler
from vsvideosr.frames import core_format
from vsvideosr.session import Session, in_script

__all__ = ["upscale"]

_TYPES: dict[str, tuple[type | tuple[type, ...], str]] = {
    "model": ((str, os.PathLike), "a shipped model's name or a path"),
    "denoise": ((int, float), "a number from 0 to 1"),
    "sharpen": ((int, float), "a number from 0 to 1"),
    "tta": ((bool, int), "True or False"),
    "bits": ((int, type(None)), "a whole number"),
    "engine": (str, "an engine's name"),
    "device": (str, "a device's name"),
    "precision": (str, "a precision's name"),
    "threads": ((int, type(None)), "a whole number"),
}
"""What arguments of `upscale` are to be, and how that is said."""


def upscale(
    clip: vs.VideoNode,
    model: str | os.PathLike[str] = registry.DEFAULT,
    *,
    temporal: str = "adaptive",
    denoise: float = 0.0,
    sharpen: float = 0.0,
    tta: bool = False,
    bits: int | None = None,
    engine: str = AUTO,
    device: str = AUTO,
    precision: str = "auto",
    threads: int | None = None,
    on_nan: str = "fail",
) -> vs.VideoNode:
    """The clip, enlarged by a network: the frames that `videosr upscale` makes, in whatever order they are asked for.

    Args:
        clip: of constant format and size: YUV, RGB or GRAY; 8, 9, 10, 12, 14 or 16 bits, half or single float. Floats
            go through 16 bits of limited range, so what is beyond [-0.07, 1.09] is clipped.
        model: a shipped model's name or the path of a network file.
        temporal: what the detail path sees besides the frame: "off", "ema" or "adaptive".
        denoise: how far the base path too follows the temporal average, 0..1. It removes grain with the noise.
        sharpen: how much of the finest detail's contrast is added to the result, 0..1.
        tta: take the mean of what the network makes of a frame and its reflections: truer and several times slower.
        bits: per sample of the result, for integer clips; None keeps the clip's.
        engine: an inference engine of videosr, or "auto".
        device: "cpu", "cuda", "cuda:N", or "auto": a GPU where one is there and can, else the CPU.
        precision: "auto", "f32", "bf16" or "f16".
        threads: CPU threads of the engine; None takes all.
        on_nan: what becomes of a frame for which the network gives NaN or infinity in f32 too: "fail", or "bicubic",
            which replaces it.

    Returns:
        A clip with the frame properties of the input; colour is filled in where it was not tagged, by the rule of
        videosr, and `_SceneChangePrev` is set. Where the input has `_SceneChangePrev`, scenes begin where that says.

    Raises:
        vapoursynth.Error: the clip or an option cannot be used. What goes wrong later is the error of its frame.
    """
    _check_clip(clip)
    _check_types(
        model=model,
        denoise=denoise,
        sharpen=sharpen,
        tta=tta,
        bits=bits,
        engine=engine,
        device=device,
        precision=precision,
        threads=threads,
    )
    try:
        source = core_format(clip.format)
        format, target = _output_format(clip.format, source, bits)
        options = UpscaleOptions(
            model=os.fspath(model),
            engine=engine,
            device=device,
            precision=precision,
            threads=threads,
            temporal=temporal,
            on_nan=on_nan,
            denoise=denoise,
            sharpen=sharpen,
            tta=tta,
            pix_fmt=None if target == source else target.name,
        )
        upscaler = Upscaler(options)
    except VideosrError as exc:
        _refuse(in_script(str(exc)), exc)
    except ImportError as exc:  # a plugin may have loaded an OpenVINO of the same name and another build
        why = " ".join(str(exc).split())
        _refuse(
            f"the {DEFAULT if engine == AUTO else engine} engine cannot be loaded: {why} If a plugin such as "
            "vapoursynth-mlrt-ov has brought another build of OpenVINO into the process, uninstall that plugin or use "
            "engine='onnxruntime'",
            exc,
        )
    if upscaler.sequential:
        _refuse(
            f"{model}: a network with its state inside takes frames in order only; export it with "
            "'videosr export --form deploy', or use 'videosr upscale'"
        )
    return _upscaled(clip, upscaler, source, format)


def _check_clip(clip: vs.VideoNode) -> None:
    if not isinstance(clip, vs.VideoNode):
        _refuse(f"clip is {type(clip).__name__}, not a video clip")
    if clip.format.color_family == vs.UNDEFINED or not clip.width or not clip.height:
        _refuse("the clip changes its format or size; make it constant first, with clip.resize.Bicubic(...)")


def _check_types(**given: object) -> None:
    """Refuse arguments of other types than `_TYPES` says: of vspipe's -a all is text."""
    for name, value in given.items():
        types, wanted = _TYPES[name]
        if not isinstance(value, types):
            _refuse(f"{name} {value!r} is {type(value).__name__}, not {wanted}")


def _output_format(given: vs.VideoFormat, source: PixelFormat, bits: int | None) -> tuple[vs.VideoFormat, PixelFormat]:
    """The output's format, VapourSynth's and the core's."""
    if bits is None:
        return given, source
    if given.sample_type == vs.FLOAT:
        _refuse(f"bits={bits}: a float clip stays float; leave bits out and convert the result with resize")
    try:
        target = PixelFormat.of(source.family, bits, source.log2_w, source.log2_h)
    except InputError as exc:
        _refuse(f"bits={bits}: pictures like {given.name} do not come in so many; 8, 10, 12 and 16 are usual", exc)
    return given.replace(bits_per_sample=bits), target


def _upscaled(clip: vs.VideoNode, upscaler: Upscaler, source: PixelFormat, format: vs.VideoFormat) -> vs.VideoNode:
    """The graph of filters that gives the upscaled frames.

    Args:
        clip: of constant format and size.
        upscaler: with a network that takes frames in any order.
        source: `core_format` of the clip.
        format: of the result.
    """
    depth = HISTORY if upscaler.mode is not Mode.OFF else 2  # the frame before tells of scene changes and repeats
    template = clip.std.BlankClip(
        width=clip.width * upscaler.scale, height=clip.height * upscaler.scale, format=format.id, keep=True
    )
    # A frame function may not fetch frames: the earlier ones come as copies of the clip, k frames late. The session
    # knows that the frames put in at the beginning do not exist.
    shifted = [clip, *(clip.std.DuplicateFrames(frames=[0] * k) for k in range(1, depth))]
    # VapourSynth runs one call of a frame function at a time: for frames in parallel there are as many functions.
    lanes = min(vs.core.num_threads, clip.num_frames)
    session = Session(upscaler, source, template, depth, lanes)
    parts = [template.std.ModifyFrame(shifted, session.frame) for _ in range(lanes)]
    if lanes == 1:
        return parts[0]
    parts = [part.std.SelectEvery(lanes, [i], modify_duration=False) for i, part in enumerate(parts)]
    return vs.core.std.Interleave(parts, modify_duration=False)


def _refuse(why: str, cause: Exception | None = None) -> NoReturn:
    raise vs.Error(f"vsvideosr.upscale: {why}") from cause

"""The options that `upscale` and `batch` share, declared once."""

from __future__ import annotations

import difflib
import inspect
import os
from collections.abc import Callable, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import click

from videosr import presets
from videosr.engines import ENGINES, on_cuda
from videosr.engines.choice import AUTO
from videosr.errors import UsageError
from videosr.media.codecs import EncoderSettings
from videosr.media.deinterlace import Deinterlace
from videosr.media.limits import DEFAULT_MAX_PIXELS
from videosr.media.resize import SIDES
from videosr.media.source import parse_clock
from videosr.media.stills.numbered import RATE
from videosr.models import registry
from videosr.options import OnNan, UpscaleOptions
from videosr.temporal import Mode
from videosr.tiling import PLAIN_EDGE, WINDOWED_EDGE
from videosr.transcode import TranscodeOptions

_LONGEST = 10**9
"""Seconds, some thirty years; FFmpeg takes no times far beyond that."""


class FileName(click.ParamType[Path]):
    """The name of a file or folder, there or not.

    An empty one, as of a shell variable that is not set, is none, nor is an address, whose slashes `Path` would change.
    """

    name = "path"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """Check it."""
        if not os.fspath(value):
            self.fail("the name is empty", param, ctx)
        if "://" in os.fspath(value) and not Path(value).exists():
            self.fail(f"{value} is an address, not a file: download it first, or see videosr serve", param, ctx)
        return Path(value)


class Clock(click.ParamType[Fraction]):
    """Seconds, or [HH:]MM:SS.fraction."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Fraction:
        """Parse; exact, never through a float."""
        if isinstance(value, Fraction):
            return value
        found: Fraction | None
        try:
            found = Fraction(value)
        except (ValueError, ZeroDivisionError):
            found = parse_clock(value if value.count(":") == 2 else f"0:{value}")
            if found is None or any(float(part) >= 60 for part in value.split(":")[1:]):
                self.fail(f"{value!r} is neither seconds nor [HH:]MM:SS", param, ctx)
        if abs(found) > _LONGEST:
            self.fail(f"{value!r} is more than any video has", param, ctx)
        return found


class Rate(click.ParamType[Fraction]):
    """Frames a second."""

    name = "rate"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Fraction:
        """Parse; exact, never through a float."""
        try:
            return Fraction(value)
        except (ValueError, ZeroDivisionError):
            self.fail(f"{value!r} is not of the form 24, 23.976 or 24000/1001", param, ctx)


class Size(click.ParamType[tuple[int, int]]):
    """WxH."""

    name = "WxH"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        """Parse."""
        if isinstance(value, tuple):
            return value
        try:
            width, height = value.lower().split("x")
            return int(width), int(height)
        except ValueError:
            self.fail(f"{value!r} is not of the form 1920x1080", param, ctx)


class Device(click.ParamType[str]):
    """auto, cpu, cuda or cuda:N."""

    name = "device"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Check it."""
        try:
            if value != AUTO:
                on_cuda(value)
        except UsageError as exc:
            self.fail(str(exc), param, ctx)
        return str(value)


def key_values(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    """Option values of the form KEY=VALUE as pairs; anything else is wrong usage."""
    pairs = [value.partition("=") for value in values]
    for (key, equals, _), value in zip(pairs, values, strict=True):
        if not key or not equals:
            raise click.BadParameter(f"{value!r} is not of the form KEY=VALUE", ctx, param)
    return tuple((key, value) for key, _, value in pairs)


DEFAULT_FOR = {
    name: f" (default for what is {kind})"
    for names in registry.DEFAULTS.values()
    for name, kind in zip(names, ("lossless", "compressed"), strict=True)
} | {names[0]: " (what --model anime is)" for names in registry.CHOICES[registry.ANIME].values()}


def _list_models(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if not value or ctx.resilient_parsing:
        return
    for model in registry.shipped():
        mark = DEFAULT_FOR.get(model.name, "")
        click.echo(f"{model.name:18} {model.scale}x  {model.about}{mark}")
    ctx.exit()


def _use_preset(ctx: click.Context, param: click.Parameter, value: str | None) -> None:
    """Take a preset's values for options that are not on the command line."""
    if value is None:
        return
    values = presets.read(value)
    known = list(inspect.signature(wanted).parameters)
    for key in values:
        if key not in known:
            close = difflib.get_close_matches(key, known, 1)
            hint = f"did you mean {close[0]}?" if close else f"it may set {', '.join(known)}"
            raise UsageError(f"preset {value}: sets {key!r}, which is no option: {hint}")
    if "options" in values:
        if not isinstance(values["options"], Mapping):
            raise UsageError(f"preset {value}: options is not a table of the encoder's options")
        values["options"] = [f"{k}={v}" for k, v in values["options"].items()]
    for option in ctx.command.params:
        if option.name in values:
            try:
                option.process_value(ctx, values[option.name])
            except click.BadParameter as exc:  # whose message would name an option that nobody typed
                raise UsageError(f"preset {value}: {option.name}: {exc.message.rstrip('.')}") from exc
    ctx.default_map = {**(ctx.default_map or {}), **values}


_OPTIONS = [
    click.option(
        "--as",
        metavar="NAME|FILE",
        is_eager=True,
        expose_value=False,
        callback=_use_preset,
        help=f"A preset ({', '.join(presets.shipped())}) or a TOML file of these options; options given beside it win.",
    ),
    click.option(
        "-m",
        "--model",
        metavar="NAME|FILE",
        default=registry.AUTO,
        help=f"A shipped network (see --list-models), or an ONNX file; auto is {registry.DEFAULT_COMPRESSED} for "
        f"compressed video and pictures, {registry.DEFAULT} for lossless ones; anime is the one for drawings.",
    ),
    click.option(
        "--scale",
        type=click.Choice(list(registry.DEFAULTS)),
        show_default="2, or 4 where --height or --size ask for three times and more",
        help="How many times larger: among which networks auto and anime choose.",
    ),
    click.option(
        "--list-models",
        is_flag=True,
        expose_value=False,
        is_eager=True,
        callback=_list_models,
        help="List the shipped networks and stop.",
    ),
    click.option(
        "--temporal",
        type=click.Choice([m.value for m in Mode]),
        default="adaptive",
        help="How earlier frames calm noise and flicker: adaptive weighs them by likeness, ema is the published blend.",
    ),
    click.option(
        "--denoise",
        type=click.FloatRange(0, 1),
        default=0.0,
        help="How far the whole picture, grain too, is averaged over time: 0, not at all, to 1.",
    ),
    click.option(
        "--sharpen",
        type=click.FloatRange(0, 1),
        default=0.0,
        help="How much crisper than the network makes it: 0, not at all, to 1; 0.3 to 0.6 look natural.",
    ),
    click.option(
        "--tta",
        is_flag=True,
        help="Average the results for each frame and its reflections: a little more faithful, some seven times slower.",
    ),
    click.option(
        "--deinterlace",
        type=click.Choice([d.value for d in Deinterlace]),
        default="auto",
        help="Interlaced video: auto looks at its pictures, and matches the fields of telecined film; film does that "
        "whatever they show.",
    ),
    click.option("--field-rate", is_flag=True, help="Of interlaced video, make a frame of each field."),
    click.option(
        "--height",
        type=click.IntRange(*SIDES),
        help="Resample the result to this many rows as it is shown, such as 1080.",
    ),
    click.option(
        "--size", type=Size(), metavar="WxH", help="Resample the result to this size; its shape on the screen stays."
    ),
    click.option("--start", type=Clock(), help="Begin at this time: seconds or [HH:]MM:SS."),
    click.option("--duration", type=Clock(), help="Take this much: seconds or [HH:]MM:SS."),
    click.option("--frames", type=click.IntRange(min=1), help="Take this many frames."),
    click.option(
        "--codec",
        default="",
        show_default="libx264 for 8 bits, libx265 above; webm: libsvtav1",
        help="Encoder: libx264, libx265, libsvtav1, libvpx-vp9, ffv1, prores_ks or another of FFmpeg's.",
    ),
    click.option(
        "--crf",
        type=float,
        show_default="17 to 24 by encoder; jpg: 2, webp: 95",
        help="Constant quality on the encoder's own scale; lower is better but for webp.",
    ),
    click.option("--preset", default="", show_default="medium; libsvtav1: 6", help="The encoder's speed against size."),
    click.option("--pix-fmt", default="", show_default="the source's", help="Pixel format by FFmpeg's name."),
    click.option(
        "-x",
        "options",
        multiple=True,
        callback=key_values,
        metavar="KEY=VALUE",
        help="Any other option of the encoder; may be repeated.",
    ),
    click.option(
        "--device",
        type=Device(),
        default=AUTO,
        help="Where to compute: cpu, cuda, cuda:N, or auto, which takes a GPU that is there and can.",
    ),
    click.option(
        "--engine",
        type=click.Choice([AUTO, *ENGINES]),
        default=AUTO,
        metavar="NAME",
        help=f"What computes: {', '.join(ENGINES)}, or auto, the best that works here (see videosr doctor).",
    ),
    click.option(
        "--precision",
        type=click.Choice(["auto", "f32", "bf16", "f16"]),
        default="auto",
        metavar="TYPE",
        help="Arithmetic of the detail path: f32, bf16, f16, or auto: f16 on GPUs, f32 on x86 CPUs.",
    ),
    click.option(
        "--tile",
        type=click.IntRange(min=0),
        metavar="PIXELS",
        show_default=f"{WINDOWED_EDGE} with window attention, else {PLAIN_EDGE}",
        help="Edge of the tiles in which large pictures go through a network; 0: always whole.",
    ),
    click.option(
        "--on-nan",
        type=click.Choice([o.value for o in OnNan]),
        default="fail",
        help="A frame for which the network gives NaN or infinity, in f32 too: end the run, or interpolate it.",
    ),
    click.option("--threads", type=click.IntRange(min=1), show_default="all", help="CPU threads of the network."),
    click.option(
        "--max-pixels",
        type=click.IntRange(min=1),
        default=DEFAULT_MAX_PIXELS,
        metavar="N",
        help="Refuse sources of larger pictures, before memory is asked for.",
    ),
    click.option("--overwrite", is_flag=True, help="Replace an existing output."),
    click.option("--strict", is_flag=True, help="Refuse rather than lose or convert anything."),
]


def transcode_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that make a `TranscodeOptions`; the command hands what it gets of them to `wanted`."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


framerate_option = click.option(
    "--framerate",
    type=Rate(),
    show_default=str(RATE),
    help="Of numbered pictures, as scan/%05d.png: frames a second, also as 24000/1001.",
)
"""Of commands that take them."""

ray_option = click.option(
    "--ray",
    metavar="ADDRESS",
    help="Have the nodes of a Ray cluster work: its address, auto, or local for one of this machine alone.",
)
"""Where else the work may be done."""


def wanted(
    *,
    model: str,
    scale: int | None,
    temporal: str,
    denoise: float,
    sharpen: float,
    tta: bool,
    deinterlace: str,
    field_rate: bool,
    height: int | None,
    size: tuple[int, int] | None,
    start: Fraction | None,
    duration: Fraction | None,
    frames: int | None,
    codec: str,
    crf: float | None,
    preset: str,
    pix_fmt: str,
    options: tuple[tuple[str, str], ...],
    device: str,
    engine: str,
    precision: str,
    tile: int | None,
    threads: int | None,
    on_nan: str,
    max_pixels: int,
    overwrite: bool,
    strict: bool,
) -> TranscodeOptions:
    """The options' values as the transcoder takes them.

    Raises:
        UsageError: values out of range or against each other.
    """
    if size and height:
        raise UsageError("--size already says the height; leave --height out")
    return TranscodeOptions(
        upscale=UpscaleOptions(
            model=model,
            scale=scale,
            engine=engine,
            device=device,
            precision=precision,
            tile=tile,
            threads=threads,
            temporal=Mode(temporal),
            denoise=denoise,
            sharpen=sharpen,
            tta=tta,
            on_nan=OnNan(on_nan),
        ),
        encoder=EncoderSettings(codec=codec, crf=crf, preset=preset, pix_fmt=pix_fmt, options=options),
        width=size[0] if size else None,
        height=size[1] if size else height,
        start=start,
        duration=duration,
        frames=frames,
        deinterlace=Deinterlace(deinterlace),
        field_rate=field_rate,
        max_pixels=max_pixels,
        overwrite=overwrite,
        strict=strict,
    )

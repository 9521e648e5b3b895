"""The command line: parse, call, print."""

from __future__ import annotations

import json
import signal
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from fractions import Fraction
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import click

from videosr import __version__
from videosr.cli_evaluate import evaluate
from videosr.cli_serve import serve
from videosr.engines import DEVICES, ENGINES
from videosr.errors import InputError, MissingExtraError, UsageError, VideosrError
from videosr.media.codecs import EncoderSettings
from videosr.media.containers import container_format
from videosr.media.probe import plan_streams
from videosr.media.probe import probe as probe_file
from videosr.media.source import parse_clock
from videosr.models import registry
from videosr.progress import Progress
from videosr.temporal import Mode
from videosr.transcode import TranscodeOptions, transcode
from videosr.upscaler import UpscaleOptions

INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells use it."""
CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 110, "show_default": True}


class Clock(click.ParamType[Fraction]):
    """Seconds, or [HH:]MM:SS.fraction."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Fraction:
        """Parse; exact, never through a float."""
        if isinstance(value, Fraction):
            return value
        try:
            return Fraction(value)
        except (ValueError, ZeroDivisionError):
            found = parse_clock(value if value.count(":") == 2 else f"0:{value}")
            if found is None:
                self.fail(f"{value!r} is neither seconds nor [HH:]MM:SS", param, ctx)
            return found


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


def _key_values(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    pairs = [value.partition("=") for value in values]
    for (key, equals, _), value in zip(pairs, values, strict=True):
        if not key or not equals:
            raise click.BadParameter(f"{value!r} is not of the form KEY=VALUE", ctx, param)
    return tuple((key, value) for key, _, value in pairs)


def _list_models(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if not value or ctx.resilient_parsing:
        return
    for model in registry.shipped():
        mark = " (default)" if model.name == registry.DEFAULT else ""
        click.echo(f"{model.name:16} {model.scale}x  {model.about}{mark}")
    ctx.exit()


class _Commands(click.Group):
    """Lists the commands in the order in which people come to need them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names in the order of definition."""
        return list(self.commands)


@click.group(cls=_Commands, context_settings=CONTEXT)
@click.version_option(__version__, prog_name="videosr", message="%(prog)s %(version)s")
@click.option("--debug", is_flag=True, help="Show where in the code an error arose; may stand anywhere.")
def cli(debug: bool) -> None:
    """Upscale video; everything else in the file stays as it was."""


@cli.command()
@click.argument("source", type=click.Path(path_type=Path))
@click.argument("output", type=click.Path(path_type=Path))
@click.option(
    "-m",
    "--model",
    metavar="NAME|FILE",
    default=registry.DEFAULT,
    help="A shipped network (see --list-models), or an ONNX file.",
)
@click.option(
    "--list-models",
    is_flag=True,
    expose_value=False,
    is_eager=True,
    callback=_list_models,
    help="List the shipped networks and stop.",
)
@click.option(
    "--temporal",
    type=click.Choice([m.value for m in Mode]),
    default="adaptive",
    help="How earlier frames calm noise and flicker: adaptive weighs them by likeness, ema is the published blend.",
)
@click.option(
    "--denoise", type=float, default=0.0, help="From 0, keep all grain, to 1, remove what earlier frames allow."
)
@click.option("--height", type=int, help="Resample the result to this many rows, such as 1080.")
@click.option("--size", type=Size(), help="Resample the result to this size; its shape on the screen stays.")
@click.option("--start", type=Clock(), help="Begin at this time: seconds or [HH:]MM:SS.")
@click.option("--duration", type=Clock(), help="Take this much: seconds or [HH:]MM:SS.")
@click.option("--frames", type=int, help="Take this many frames.")
@click.option(
    "--codec",
    default="",
    show_default="libx264 for 8 bits, libx265 above; webm: libsvtav1",
    help="Encoder: libx264, libx265, libsvtav1, libvpx-vp9, ffv1, prores_ks or another of FFmpeg's.",
)
@click.option(
    "--crf",
    type=float,
    show_default="17 to 24 by encoder; jpg: 2, webp: 95",
    help="Constant quality on the encoder's own scale; lower is better but for webp.",
)
@click.option("--preset", default="", show_default="medium; libsvtav1: 6", help="The encoder's speed against size.")
@click.option("--pix-fmt", default="", show_default="the source's", help="Pixel format by FFmpeg's name.")
@click.option(
    "-x",
    "options",
    multiple=True,
    callback=_key_values,
    metavar="KEY=VALUE",
    help="Any other option of the encoder; may be repeated.",
)
@click.option("--device", type=click.Choice(DEVICES), default="cpu", help="Where to compute.")
@click.option(
    "--engine",
    type=click.Choice(ENGINES),
    default="openvino",
    metavar="NAME",
    help=f"What computes: {', '.join(ENGINES)}.",
)
@click.option(
    "--precision",
    type=click.Choice(["auto", "f32", "bf16", "f16"]),
    default="auto",
    metavar="TYPE",
    help="Arithmetic of the detail path: f32, bf16, f16, or what the machine does fast.",
)
@click.option("--threads", type=int, show_default="all", help="CPU threads of the network.")
@click.option("--overwrite", is_flag=True, help="Replace an existing output.")
@click.option("--strict", is_flag=True, help="Refuse rather than lose or convert anything.")
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="Tell of progress as JSON lines on stdout: begin, progress, warning, done, error.",
)
@click.option("-q", "--quiet", is_flag=True, help="Say nothing but errors.")
def upscale(
    source: Path,
    output: Path,
    model: str,
    temporal: str,
    denoise: float,
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
    threads: int | None,
    overwrite: bool,
    strict: bool,
    as_json: bool,
    quiet: bool,
) -> None:
    """Upscale a video, or an image.

    SOURCE is any file that FFmpeg reads. OUTPUT ends in .mkv .mp4 .mov .webm, or .png .jpg .webp for an image.

    Audio, subtitles, chapters, attachments, tags, timestamps and colour arrive as they were; what the output cannot
    hold is named before work starts. The output appears when it is complete.
    """
    if size and height:
        raise UsageError("--size already says the height; leave --height out")
    wanted = TranscodeOptions(
        upscale=UpscaleOptions(
            model=model,
            engine=engine,
            device=device,
            precision=precision,
            threads=threads,
            temporal=Mode(temporal),
            denoise=denoise,
        ),
        encoder=EncoderSettings(codec=codec, crf=crf, preset=preset, pix_fmt=pix_fmt, options=options),
        width=size[0] if size else None,
        height=size[1] if size else height,
        start=start,
        duration=duration,
        frames=frames,
        overwrite=overwrite,
        strict=strict,
    )
    progress = Progress(source.name, as_json=as_json, quiet=quiet)
    try:
        result = transcode(source, output, wanted, progress)
        progress.done(output, f"{result.width}x{result.height}", result.frames, result.reused)
    except VideosrError as exc:
        progress.error(str(exc), exc.exit_code)
        raise
    except KeyboardInterrupt:
        progress.error("interrupted", INTERRUPTED)
        raise
    finally:
        progress.close()


@cli.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--to", metavar="SUFFIX", default="mkv", help="The output's kind: mkv, mp4, mov or webm.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def probe(file: Path, to: str, as_json: bool) -> None:
    """Show what a file holds, and what would be kept of it."""
    container = container_format(to)
    info = probe_file(file)
    plan = None if info.video is None else plan_streams(file, container)
    if as_json:
        data = {"file": asdict(info), "plan": asdict(plan) if plan else None}
        click.echo(json.dumps(data, indent=2, default=_jsonable))
        return
    length = f"{float(info.duration):.3f} s" if info.duration is not None else "unknown length"
    click.echo(f"{file}: {info.container.split(',')[0]}, {length}, {len(info.chapters) or 'no'} chapters")
    for stream in info.streams:
        about = ", ".join(filter(None, (stream.detail, stream.language, stream.title, *stream.disposition)))
        entry = plan.streams[stream.index] if plan else None
        click.echo(f"  {entry or f'stream {stream.index} ({stream.type}, {stream.codec})'}  [{about}]")
    if plan is None:
        raise InputError(f"{file}: has no video stream to upscale")
    for line in plan.losses:
        if line not in map(str, plan.streams):
            click.echo(f"  {line}")
    click.echo(f"As .{to.removeprefix('.')}: {'not all is kept, see above' if plan.losses else 'everything is kept'}")


@cli.command()
@click.argument("source", type=click.Path(path_type=Path))
@click.argument("output", type=click.Path(path_type=Path))
@click.option("--scale", type=int, help="The picture must be exactly this many times as large.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def verify(source: Path, output: Path, scale: int | None, as_json: bool) -> None:
    """Check that an output holds all that its source does.

    Compares frames and their times, colour, streams, chapters and tags, and decodes OUTPUT to its end. Exit code 1 if
    something is missing or different.
    """
    from videosr.media.verify import verify as compare

    report = compare(source, output, scale=scale)
    facts = report.facts
    if as_json:
        click.echo(json.dumps(report.as_json(), indent=2, default=_jsonable))
    else:
        if facts["input_errors"] or facts["input_damaged"]:
            click.echo(f"{source}: damaged: {facts['input_errors']} errors, {facts['input_damaged']} damaged frames")
        for line in facts["losses"]:
            click.echo(f"as announced: {line}")
        for line in report.problems:
            click.echo(f"PROBLEM: {line}")
        size = "x".join(map(str, facts["size"]))
        verdict = "ok" if report.ok else f"{len(report.problems)} problems"
        found = f"{facts['frames_out']} frames of {facts['frames_in']}, {size}"
        found += f", {facts['streams']['kept']} other streams, {facts.get('chapters', 0)} chapters"
        click.echo(f"{output}: {verdict}: {found}")
    if not report.ok:
        raise click.exceptions.Exit(1)


cli.add_command(serve)


@cli.command()
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="The ONNX file to write.")
@click.option("--form", type=click.Choice(["deploy", "image", "video"]), default="deploy", help="Interface.")
@click.option("--precision", type=click.Choice(["fp32", "fp16"]), default="fp32", help="Types inside.")
@click.option("--alpha", type=float, help="upsampler_alpha, which published checkpoints do not record.")
@click.option("--window-size", type=int, help="Of the window attention, which checkpoints do not record.")
@click.option(
    "--padding", type=click.Choice(["replicate", "zero"]), show_default="as trained", help="At the picture's rim."
)
@click.option("--blend", type=float, default=0.2, help="Weight of the previous features in the video form.")
@click.option("--name", show_default="the file's", help="Name of the network.")
def export(checkpoint: Path, output: Path, **options: Any) -> None:
    """Make an ONNX network from a checkpoint.

    CHECKPOINT is a ParagonSR2 .safetensors or .pth file. The network made from it is compared with it; a difference
    above the tolerance is an error.
    """
    with _extra("videosr export", "torch"):
        from videosr.export import export as export_network
    for line in export_network(checkpoint, output, **options).lines():
        click.echo(line)


cli.add_command(evaluate)


@cli.command()
@click.argument("config", type=click.Path(path_type=Path))
@click.option("--resume", is_flag=True, help="Go on from the last checkpoint.")
@click.option("--device", show_default="cuda if there", help="Where to compute: cpu, cuda, ...")
def train(config: Path, resume: bool, device: str | None) -> None:
    """Train the network that a TOML file describes."""
    with _extra("videosr train", "train"):
        from videosr.training import run
    run(config, resume=resume, device=device, say=click.echo)


@cli.command()
@click.argument("clip", type=click.Path(path_type=Path))
@click.option("-m", "--model", default=registry.DEFAULT, help="A shipped model's name.")
@click.option("--frames", type=int, default=60, help="Frames a round.")
@click.option("--rounds", type=int, default=3, help="Rounds; the median is told.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def bench(clip: Path, model: str, frames: int, rounds: int, as_json: bool) -> None:
    """Measure speed on a clip.

    CLIP goes through videosr, and through the same network in a plain loop, in turns.
    """
    with _extra("videosr bench", "torch"):
        from videosr.bench import run
    run(clip, model, frames=frames, rounds=rounds, as_json=as_json, say=click.echo)


@contextmanager
def _extra(feature: str, extra: str) -> Iterator[None]:
    """Turn a missing package into an error that names the extra."""
    try:
        yield
    except ModuleNotFoundError as exc:
        if (exc.name or "").startswith("videosr"):
            raise
        raise MissingExtraError(feature, extra) from exc


def _jsonable(value: Any) -> Any:
    if isinstance(value, Fraction):
        return float(value)
    if hasattr(value, "items"):
        return dict(value)
    return str(value)


class _Interrupts:
    """Makes Ctrl-C, `kill` and a closed terminal end the work cleanly."""

    def __init__(self) -> None:
        self.came = False
        known = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
        # nohup means what it says
        self._numbers = [number for number in known if signal.getsignal(number) is not signal.SIG_IGN]
        for number in self._numbers:
            signal.signal(number, self._interrupt)

    def _interrupt(self, signum: int, frame: FrameType | None) -> None:
        # Cleaning up takes a moment, in which an impatient second Ctrl-C must not leave half of it. Ignored rather than
        # handled, because Python gives its own handlers up before the process has ended.
        for number in self._numbers:
            signal.signal(number, signal.SIG_IGN)
        if not self.came:
            self.came = True
            raise KeyboardInterrupt


def main() -> NoReturn:
    """Run the command line; never returns."""
    interrupts = _Interrupts()
    # Anywhere on the line: who meets an error repeats the command with --debug at its end.
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    debug = len(arguments) < len(sys.argv) - 1
    try:
        code = cli.main(arguments, prog_name="videosr", standalone_mode=False) or 0
    except click.exceptions.NoArgsIsHelpError as exc:
        exc.show()
        code = exc.exit_code
    except (Exception, KeyboardInterrupt) as exc:
        if debug:
            traceback.print_exc()
        # A library that was at work when the signal came may have made an error of its own of it.
        message, code = ("interrupted", INTERRUPTED) if interrupts.came else _explain(exc)
        click.echo(f"videosr: {message}", err=True)
    sys.exit(code)


def _explain(exc: BaseException) -> tuple[str, int]:
    """One line and the exit code for what went wrong."""
    if isinstance(exc, click.UsageError):
        command = exc.ctx.command_path if exc.ctx else "videosr"
        return f"{exc.format_message().rstrip('.')} (see {command} --help)", exc.exit_code
    if isinstance(exc, VideosrError):
        return str(exc), exc.exit_code
    if isinstance(exc, (KeyboardInterrupt, click.Abort)):
        return "interrupted", INTERRUPTED
    if isinstance(exc, MemoryError):
        return "not enough memory for pictures of this size", 1
    if isinstance(exc, OSError):
        return str(exc), 1
    # A mistake in videosr: no page of traceback for people who cannot mend it.
    return f"internal error: {type(exc).__name__}: {exc} (--debug shows where; please report it)", 1

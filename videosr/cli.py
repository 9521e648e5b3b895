"""The command line: parse, call, print."""

from __future__ import annotations

import io
import json
import os
import signal
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from fractions import Fraction
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import click

from videosr import __version__
from videosr.cli_batch import batch
from videosr.cli_compare import compare
from videosr.cli_engine import doctor, engine
from videosr.cli_evaluate import evaluate
from videosr.cli_options import Device, FileName, framerate_option, ray_option, transcode_options, wanted
from videosr.cli_serve import serve
from videosr.engines.choice import AUTO, has_gpu
from videosr.errors import MissingExtraError, UsageError, VideosrError, one_line, quoted
from videosr.losses import picture_losses
from videosr.media.containers import IMAGES, container_format
from videosr.media.opening import under_way
from videosr.media.probe import plan_streams
from videosr.media.probe import probe as probe_file
from videosr.media.stills.numbered import RATE, Numbered
from videosr.models import registry
from videosr.progress import Progress
from videosr.transcode import Crew, transcode

RAW = (".y4m", ".yuv", ".raw", ".rgb")
"""Suffixes of video without a container, which `videosr serve` writes."""
INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells use it."""
CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 110, "show_default": True}


_TELLING = ("upscale", "batch")
"""Commands that tell JSON readers of events."""


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
@click.argument("source", type=FileName())
@click.argument("output", type=FileName())
@framerate_option
@transcode_options
@click.option(
    "--jobs",
    type=click.IntRange(min=1),
    default=1,
    help="Processes that work on the film at once; the output is the same.",
)
@ray_option
@click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="Tell of progress as JSON lines on stdout: begin, progress, note, warning, done, error.",
)
@click.option("-q", "--quiet", is_flag=True, help="Say nothing but errors.")
def upscale(
    source: Path,
    output: Path,
    framerate: Fraction | None,
    jobs: int,
    ray: str | None,
    as_json: bool,
    quiet: bool,
    **options: Any,
) -> None:
    """Upscale a video, or an image.

    SOURCE is any file that FFmpeg reads. OUTPUT ends in .mkv .mp4 .mov .webm, or .png .jpg .webp for an image.

    Either may be numbered pictures, as scan/%05d.png: in, from the first number that is there; out, from 1, or with the
    numbers of those that went in.

    Audio, subtitles, chapters, attachments, tags, timestamps and colour arrive as they were; what the output cannot
    hold is named before work starts. The output appears when it is complete, a numbered picture when that one is.
    """
    progress = Progress(source.name, as_json=as_json, quiet=quiet)
    try:
        if output.name == "-" or output.suffix.lower() in RAW:
            serve = f"videosr serve {quoted(str(source))} -o -"
            to = "| ..." if output.name == "-" else f"> {quoted(str(output))}"
            raise UsageError(f"{output}: upscale writes whole files; for raw video (y4m): {serve} {to}")
        numbered = Numbered.of(output) if output.suffix.lower() in IMAGES else None
        request = replace(wanted(**options), framerate=framerate)
        result = transcode(source, numbered or output, request, progress, _crew(jobs, ray))
        size, mended, replaced = f"{result.width}x{result.height}", result.mended, result.replaced
        progress.done(output, size, result.frames, result.reused, mended=mended, replaced=replaced)
    except (Exception, KeyboardInterrupt) as exc:
        progress.error(*_explain(exc))
        raise
    finally:
        progress.close()


def _crew(jobs: int, ray: str | None) -> Crew | None:
    """Who makes the film; None: this process."""
    if ray is not None:
        if jobs != 1:
            raise UsageError("--ray has the cluster's nodes work; leave --jobs out")
        from videosr.distributed.cluster import RayCrew

        return RayCrew(ray)
    if jobs == 1:
        return None
    from videosr.distributed.crew import LocalCrew

    return LocalCrew(jobs)


cli.add_command(batch)


@cli.command()
@click.argument("file", type=FileName())
@click.option("--to", metavar="SUFFIX", default="mkv", help="The output's kind: mkv, mp4, mov, webm, png ...")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def probe(file: Path, to: str, as_json: bool) -> None:
    """Show what a file holds, and what would be kept of it."""
    container = container_format(to)
    info = probe_file(file)
    plan = None if info.video is None else plan_streams(file, container)
    if as_json:
        lost = picture_losses(file, to) if plan else []
        data = {"file": asdict(info), "plan": asdict(plan) if plan else None, "picture_losses": lost}
        click.echo(json.dumps(data, indent=2, default=_jsonable))
        return
    length = f"{float(info.duration):.3f} s" if info.duration is not None else "unknown length"
    _say(f"{file}: {info.container.split(',')[0]}, {length}, {len(info.chapters) or 'no'} chapters")
    for stream in info.streams:
        about = ", ".join(filter(None, (stream.detail, stream.language, stream.title, *stream.disposition)))
        entry = plan.streams[stream.index] if plan else None
        _say(f"  {entry or f'stream {stream.index} ({stream.type}, {stream.codec})'}  [{about}]")
    if plan is None:
        plan = plan_streams(file, container)  # raises what is the matter
    lost = [*plan.losses, *picture_losses(file, to)]
    for line in lost:
        if line not in map(str, plan.streams):
            _say(f"  {line}")
    click.echo(f"As .{to.removeprefix('.')}: {'not all is kept, see above' if lost else 'everything is kept'}")


@cli.command()
@click.argument("source", type=FileName())
@click.argument("output", type=FileName())
@click.option("--scale", type=click.IntRange(min=1), help="The picture must be exactly this many times as large.")
@framerate_option
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def verify(source: Path, output: Path, scale: int | None, framerate: Fraction | None, as_json: bool) -> None:
    """Check that an output holds all that its source does.

    Compares frames and their times, colour, streams, chapters and tags, and decodes OUTPUT to its end. Exit code 1 if
    something is missing or different.
    """
    from videosr.media.checks.verify import verify as compare

    report = compare(source, output, scale=scale, framerate=framerate or RATE)
    facts = report.facts
    if as_json:
        click.echo(json.dumps(report.as_json(), indent=2, default=_jsonable))
    else:
        if facts["input_errors"] or facts["input_damaged"]:
            _say(f"{source}: damaged: {facts['input_errors']} errors, {facts['input_damaged']} damaged frames")
        for line in facts["losses"]:
            _say(f"as announced: {line}")
        for line in report.problems:
            _say(f"PROBLEM: {line}")
        size = "x".join(map(str, facts["size"]))
        verdict = "ok" if report.ok else f"{len(report.problems)} problem{'s' * (len(report.problems) > 1)}"
        found = f"{facts['frames_out']} frames of {facts['frames_in']}, {size}"
        found += f", {facts['streams']['kept']} other streams, {facts.get('chapters', 0)} chapters"
        _say(f"{output}: {verdict}: {found}")
    if not report.ok:
        raise click.exceptions.Exit(1)


cli.add_command(serve)


@cli.command()
@click.argument("checkpoint", type=FileName())
@click.option("-o", "--output", type=FileName(), required=True, help="The ONNX file to write.")
@click.option(
    "--form",
    type=click.Choice(["deploy", "image", "video"]),
    show_default="deploy; NEXUS: image",
    help="Interface.",
)
@click.option(
    "--precision",
    type=click.Choice(["f32", "f16"]),
    default="f32",
    callback=lambda ctx, param, value: f"fp{value[1:]}",  # as network files have it in their metadata
    help="Types inside.",
)
@click.option("--alpha", type=float, help="upsampler_alpha, which published checkpoints do not record.")
@click.option("--window-size", type=int, help="Of the window attention, which checkpoints do not record.")
@click.option(
    "--padding", type=click.Choice(["replicate", "zero"]), show_default="as trained", help="At the picture's rim."
)
@click.option("--blend", type=float, default=0.2, help="Weight of the previous features in the video form.")
@click.option("--name", show_default="the file's", help="Name of the network.")
def export(checkpoint: Path, output: Path, **options: Any) -> None:
    """Make an ONNX network from a checkpoint.

    CHECKPOINT is a .safetensors or .pth file of ParagonSR2 or NEXUS. The network made from it is compared with it; a
    difference above the tolerance is an error.
    """
    with _extra("videosr export", "torch"):
        from videosr.export import export as export_network
    for line in export_network(checkpoint, output, **options).lines():
        click.echo(line)


cli.add_command(compare)
cli.add_command(evaluate)
cli.add_command(engine)
cli.add_command(doctor)


@cli.command()
@click.argument("config", type=FileName())
@click.option("--resume", is_flag=True, help="Go on from the last checkpoint.")
@click.option("--device", show_default="cuda if there", help="Where to compute: cpu, cuda, ...")
def train(config: Path, resume: bool, device: str | None) -> None:
    """Train the network that a TOML file describes."""
    with _extra("videosr train", "train"):
        from videosr.training import run
    best = run(config, resume=resume, device=device, say=click.echo)
    made = quoted(str(best.with_suffix(".onnx")))
    _say(f"the best weights: {best}; to use them: videosr export {quoted(str(best))} -o {made}")


@cli.command()
@click.argument("clip", type=FileName())
@click.option(
    "-m",
    "--model",
    metavar="NAME|FILE",
    default=registry.DEFAULT,
    help="A shipped network (see videosr upscale --list-models), or an ONNX file with its .safetensors beside it.",
)
@click.option("--frames", type=click.IntRange(min=1), default=60, help="Frames a round.")
@click.option("--rounds", type=click.IntRange(min=1), default=3, help="Rounds; the median is told.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@click.option("--device", type=Device(), default=AUTO, help="cpu, cuda, cuda:N, or auto: a GPU that is there.")
def bench(clip: Path, model: str, frames: int, rounds: int, as_json: bool, device: str) -> None:
    """Measure speed on a clip.

    On the CPU, CLIP goes through videosr, and through the same network in a plain loop, in turns. On a GPU the
    published network in torch stands beside every engine that runs there, alone and from file to sink.
    """
    if device == AUTO:
        device = "cuda" if has_gpu() else "cpu"
    with _extra("videosr bench", "torch"):
        from videosr import bench as on_cpu
        from videosr import bench_gpu as on_gpu
    if device == "cpu":
        on_cpu.run(clip, model, frames=frames, rounds=rounds, as_json=as_json, say=click.echo)
    else:
        on_gpu.run(clip, model, device=device, frames=frames, as_json=as_json, say=click.echo)


@contextmanager
def _extra(feature: str, extra: str) -> Iterator[None]:
    """Turn a missing package into an error that names the extra."""
    try:
        yield
    except ModuleNotFoundError as exc:
        if (exc.name or "").startswith("videosr"):
            raise
        raise MissingExtraError(feature, extra) from exc


def _say(text: str, *, err: bool = False) -> None:
    """A line; names and titles in it may hold anything."""
    click.echo(one_line(text), err=err)


def _jsonable(value: Any) -> Any:
    if isinstance(value, Fraction):
        return float(value)
    if hasattr(value, "items"):
        return dict(value)
    return str(value)


class _Interrupts:
    """Makes Ctrl-C, `kill` and a closed terminal end the work cleanly."""

    came = False
    """Whether one has come."""

    def __init__(self) -> None:
        _Interrupts.came = False
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
            _Interrupts.came = True
            raise KeyboardInterrupt


def main() -> NoReturn:
    """Run the command line; never returns."""
    _Interrupts()
    if isinstance(sys.stdout, io.TextIOWrapper):  # what its encoding does not have is escaped, as Python does on stderr
        sys.stdout.reconfigure(errors="backslashreplace")
    # Anywhere on the line: who meets an error repeats the command with --debug at its end.
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    debug = len(arguments) < len(sys.argv) - 1
    try:
        code = cli.main(arguments, prog_name="videosr", standalone_mode=False) or 0
    except SystemExit as exc:
        code = exc.code if isinstance(exc.code, int) else int(exc.code is not None)
    except click.exceptions.NoArgsIsHelpError as exc:
        exc.show()
        code = exc.exit_code
    except (Exception, KeyboardInterrupt) as exc:
        if debug:
            traceback.print_exc()
        message, code = _explain(exc)
        if isinstance(exc, click.UsageError) and arguments[0] in _TELLING and "--json" in arguments:
            Progress("", as_json=True).error(message, code)  # the command itself, which would, was not begun
        _say(f"videosr: {message}", err=True)
    _leave(code)


def _leave(code: int) -> NoReturn:
    """End the process; at once if a source is still being opened."""
    if under_way():
        for stream in filter(None, (sys.stdout, sys.stderr)):
            stream.flush()
        os._exit(code)
    sys.exit(code)


def _explain(exc: BaseException) -> tuple[str, int]:
    """One line and the exit code for what went wrong."""
    if _Interrupts.came:  # a library that was at work when the signal came may have made an error of its own of it
        return "interrupted", INTERRUPTED
    if isinstance(exc, click.UsageError):
        command = exc.ctx.command_path if exc.ctx else "videosr"
        hint = f"see {command} --help"
        if isinstance(exc, click.NoSuchOption):
            hint = next((f"the file is ./{a}" for a in sys.argv if a.startswith("-") and Path(a).exists()), hint)
        return f"{exc.format_message().rstrip('.')} ({hint})", exc.exit_code
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

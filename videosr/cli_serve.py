"""The command `videosr serve`."""

from __future__ import annotations

import re
import signal
import sys
from types import FrameType
from typing import Any

import click

from videosr.cli_options import key_values
from videosr.errors import UsageError, one_line

PRESETS = ("ultrafast", "superfast", "veryfast", "faster", "fast", "medium")
"""x264's presets that a live stream can do with."""


class Seconds(click.ParamType[float]):
    """A short time: 300ms, 0.3s or 0.3."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Parse."""
        if isinstance(value, float):
            return value
        found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(ms|s|)", value)
        if found is None:
            self.fail(f"{value!r} is not of the form 300ms or 0.3s", param, ctx)
        return float(found[1]) / (1000 if found[2] == "ms" else 1)


class BitRate(click.ParamType[int]):
    """Bits a second: 4M, 800k or 4000000."""

    name = "rate"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Parse."""
        if isinstance(value, int):
            return value
        found = re.fullmatch(r"(\d+(?:\.\d+)?)([kM]?)", value)
        if found is None or not float(found[1]):
            self.fail(f"{value!r} is not of the form 4M or 800k", param, ctx)
        return round(float(found[1]) * {"": 1, "k": 1_000, "M": 1_000_000}[found[2]])


@click.command()
@click.argument("source", metavar="INPUT")
@click.option(
    "-o",
    "--output",
    "outputs",
    multiple=True,
    metavar="OUTPUT",
    show_default="http://127.0.0.1:8090/",
    help="Where to; may be repeated.",
)
@click.option(
    "-m",
    "--model",
    metavar="NAME|FILE",
    show_default="as in upscale",
    help="A shipped network (see videosr upscale --list-models), or an ONNX file.",
)
@click.option("--temporal", type=click.Choice(["off", "ema", "adaptive"]), default="adaptive", help="As in upscale.")
@click.option("--sharpen", type=click.FloatRange(0, 1), default=0.0, help="As in upscale.")
@click.option(
    "--latency",
    type=Seconds(),
    default="300ms",
    help="From demuxed to muxed packet; what would come later is dropped. HLS adds its segments of 1 s.",
)
@click.option(
    "--paced/--unpaced",
    default=None,
    show_default="paced unless all outputs are pipes or files",
    help="Read a file at its own speed, or as fast as its readers take it.",
)
@click.option("--steps/--no-steps", default=True, help="Take cheaper forms while the machine cannot keep up.")
@click.option(
    "--format", "format_", metavar="NAME", help="FFmpeg's input device or demuxer, if it has to be told: v4l2, lavfi."
)
@click.option(
    "-i",
    "input_options",
    multiple=True,
    callback=key_values,
    metavar="KEY=VALUE",
    help="An option of that; may be repeated.",
)
@click.option(
    "--preset", type=click.Choice(PRESETS), default="superfast", metavar="NAME", help="x264's speed against size."
)
@click.option("--crf", type=click.FloatRange(0, 51), default=21.0, metavar="N", help="x264's constant quality.")
@click.option("--bitrate", type=BitRate(), show_default="by --crf", help="Bits a second, kept within a second: 4M.")
@click.option(
    "--token", default="", envvar="VIDEOSR_TOKEN", show_default="none", help="What viewers of the page must know."
)
@click.option(
    "--precision",
    type=click.Choice(["auto", "f32", "bf16", "f16"]),
    default="auto",
    metavar="TYPE",
    help="As in upscale.",
)
@click.option("--threads", type=click.IntRange(min=1), show_default="all", help="CPU threads of the network.")
@click.option("-q", "--quiet", is_flag=True, help="Say nothing but errors.")
def serve(
    source: str,
    outputs: tuple[str, ...],
    model: str | None,
    temporal: str,
    sharpen: float,
    latency: float,
    paced: bool | None,
    steps: bool,
    format_: str | None,
    input_options: tuple[tuple[str, str], ...],
    preset: str,
    crf: float,
    bitrate: int | None,
    token: str,
    precision: str,
    threads: int | None,
    quiet: bool,
) -> None:
    """Upscale a stream as it comes.

    INPUT is a file, - for standard input, a device such as /dev/video0, or an rtsp, rtmp, udp, tcp, http or HLS
    address. A lost source is connected to again.

    \b
    OUTPUT is one of
      -, nut:-, a named pipe   raw video: y4m, or NUT with times and sound
      udp://HOST:PORT          MPEG-TS
      tcp://HOST:PORT          MPEG-TS to whoever connects here
      rtmp://... rtsp://...    pushed there
      FOLDER/NAME.m3u8         HLS
      http://HOST:PORT/        a page with player and figures; beside it
                               upscaled.m3u8, live.ts, metrics, healthz

    A file into pipes or HLS files waits for its readers and loses nothing. Everything else runs in real time: frames
    that would be late are dropped, and counted.
    """
    from videosr.live.options import ServeOptions, parse_target
    from videosr.live.serve import Server
    from videosr.media.live.codec import VideoSettings
    from videosr.media.live.source import SourceSpec
    from videosr.models.registry import AUTO
    from videosr.options import UpscaleOptions
    from videosr.temporal import Mode

    _check_standard_output(outputs)
    targets = {"targets": tuple(parse_target(text) for text in outputs)} if outputs else {}
    options = ServeOptions(
        source=SourceSpec(url=source, format=format_ or "", options=input_options),
        upscale=UpscaleOptions(
            model=model or AUTO, precision=precision, threads=threads, temporal=Mode(temporal), sharpen=sharpen
        ),
        video=VideoSettings(preset=preset, crf=crf, bitrate=bitrate),
        latency=latency,
        paced=paced,
        steps=steps,
        token=token,
        **targets,
    )

    def say(line: str) -> None:
        if not quiet:
            click.echo(one_line(f"videosr: {line}"), err=True)

    server: Server | None = None

    def terminate(signum: int, frame: FrameType | None) -> None:
        """SIGTERM is how a service is ended: exit code 0, unlike Ctrl-C."""
        if server is None:
            raise SystemExit(0)  # it may wait for its source for ever
        server.stop()

    before = signal.signal(signal.SIGTERM, terminate)
    try:
        server = Server(options, say)
        server.run()
    finally:
        signal.signal(signal.SIGTERM, before)


def _check_standard_output(outputs: tuple[str, ...]) -> None:
    """Refuse to write video to a standard output that cannot take it."""
    if not any(text in ("-", "y4m:-", "nut:-") for text in outputs):
        return
    if sys.stdout is None:
        raise UsageError("-o -: standard output is closed; give a named pipe or an address")
    if sys.stdout.isatty():
        raise UsageError("-o -: standard output is a terminal; give the stream to a player: videosr serve ... | mpv -")

"""Speed, both sides of each ratio in one run: this pipeline beside plain loops over the unfolded network.

The plain loops are what a script does that follows the published way: decode, R'G'B' as float32, infer, back to 8-bit
4:2:0, one frame after the other. Sides take turns, so that a busy machine slows both; medians are told.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np
import openvino as ov
import torch
from numpy.typing import NDArray

from videosr.archs.checkpoint import load
from videosr.engines import DEFAULT
from videosr.errors import NetworkError
from videosr.export import export
from videosr.graph import Graph, NullSink, Timing
from videosr.media.codecs import EncoderSettings
from videosr.media.decoder import Decoder
from videosr.models import registry
from videosr.options import UpscaleOptions
from videosr.progress import Progress
from videosr.temporal import Mode
from videosr.transcode import TranscodeOptions, transcode
from videosr.upscaler import Upscaler

type Picture = NDArray[np.float32]  # (1, 3, H, W), R'G'B' in [0, 1]

_EAGER_FRAMES = 5  # torch eager takes a second and more a frame


@dataclass(frozen=True, slots=True)
class Side:
    """One way of doing it.

    Attributes:
        name: of the side.
        form: of the network, and the precision it ran in.
        fps: frames per second, median of the rounds.
        rounds: of every round.
    """

    name: str
    form: str
    fps: float
    rounds: tuple[float, ...]


def run(
    clip: Path, model: str, *, frames: int, rounds: int, as_json: bool = False, say: Callable[[str], None] = print
) -> list[Side]:
    """Measure and print.

    Args:
        clip: an 8-bit 4:2:0 video; it is decoded in every side.
        model: a shipped model's name; its weights lie beside its network.
        frames: of the clip, a round.
        rounds: the sides take turns this often.
        as_json: print JSON in place of text.
        say: prints a line.

    Raises:
        InputError: the clip cannot be decoded.
        NetworkError: the model has no weights to compare with.
    """
    with Decoder(clip, frames=1):  # before the networks are compiled
        pass
    weights = registry.find(model).with_suffix(".safetensors")
    if not weights.is_file():
        raise NetworkError(f"{weights}: the comparison needs the network's weights beside it")
    threads = torch.get_num_threads()
    with tempfile.TemporaryDirectory() as folder:
        default = Upscaler(UpscaleOptions(model=model, device="cpu"))
        ways = list(_ways(clip, model, weights, default, Path(folder)))
        for way in ways:
            way.go(2)  # compile, allocate, fill caches
        measured: list[list[float]] = [[] for _ in ways]
        for _ in range(rounds):
            for results, way in zip(measured, ways, strict=True):
                start = time.perf_counter()
                done = way.go(min(way.most, frames))
                results.append(done / (time.perf_counter() - start))
    timings = _upscale(clip, default, frames)
    table = [
        Side(way.name, way.form, statistics.median(fps), tuple(fps)) for way, fps in zip(ways, measured, strict=True)
    ]
    _report(table, timings, threads, frames, as_json, say)
    return table


class _Way(NamedTuple):
    """One way of making frames; `go` makes so many, `most` at the most, and says how many it made."""

    name: str
    form: str
    go: Callable[[int], int]
    most: int = sys.maxsize


def _ways(clip: Path, model: str, weights: Path, default: Upscaler, folder: Path) -> Iterator[_Way]:
    """The sides, in the order of the table; files go into `folder`."""

    def ours(**options: Any) -> Callable[[int], int]:
        upscaler = Upscaler(UpscaleOptions(model=model, device="cpu", **options))
        return lambda count: _upscale(clip, upscaler, count)[-1].frames

    infer, hint = _openvino_loop(weights, folder)
    form = f"folded tail, planes in and out, {default.engine.precision}"
    deployed = f"{default.options.engine}: {form}"
    yield _Way("plain loop, OpenVINO", f"published (unfolded), {hint}", lambda n: _plain(clip, infer, n))
    yield _Way("videosr, temporal off", deployed, ours(temporal=Mode.OFF))
    yield _Way("videosr, default", deployed, lambda n: _upscale(clip, default, n)[-1].frames)
    yield _Way("videosr, default, x264 veryfast", deployed, lambda n: _transcode(clip, model, folder, n))
    eager = _eager_loop(weights)
    yield _Way("plain loop, torch eager", "published (unfolded), f32", lambda n: _plain(clip, eager, n), _EAGER_FRAMES)
    if default.options.engine != DEFAULT:
        yield _Way(f"videosr, {DEFAULT}", form, ours(engine=DEFAULT))


def _openvino_loop(weights: Path, folder: Path) -> tuple[Callable[[Picture], Picture], str]:
    """The network as published, in OpenVINO, and the precision that it takes."""
    published = folder / "published.onnx"
    export(weights, published, form="image", alpha=0.0)
    compiled = ov.Core().compile_model(published, "CPU")
    request = compiled.create_infer_request()

    def infer(x: Picture) -> Picture:
        out: Picture = request.infer({0: x})[0]
        return out

    return infer, compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()


def _eager_loop(weights: Path) -> Callable[[Picture], Picture]:
    """The network in torch."""
    network, _ = load(weights, alpha=0.0)

    def infer(x: Picture) -> Picture:
        with torch.inference_mode():
            out: Picture = network(torch.from_numpy(x)).numpy()
        return out

    return infer


def _upscale(clip: Path, upscaler: Upscaler, count: int) -> list[Timing]:
    """Decode and upscale so many frames, and throw them away."""
    with Decoder(clip, frames=count) as decoder:
        graph = Graph(decoder, [("upscale", upscaler)], NullSink())
        graph.run()
    return graph.timings


def _transcode(clip: Path, model: str, folder: Path, count: int) -> int:
    """Make a file of so many frames."""
    options = TranscodeOptions(
        upscale=UpscaleOptions(model=model, device="cpu"),
        encoder=EncoderSettings(codec="libx264", preset="veryfast"),
        frames=count,
        overwrite=True,
    )
    return transcode(clip, folder / "out.mkv", options, Progress(clip.name, quiet=True)).frames


def _plain(clip: Path, infer: Callable[[Picture], Picture], count: int) -> int:
    """The plain loop: no overlap, whole pictures converted each way."""
    done = 0
    for picture in islice(_pictures(clip), count):
        rgb = picture.to_ndarray(format="rgb24").astype(np.float32).transpose(2, 0, 1)[None] / 255
        out = infer(np.ascontiguousarray(rgb))
        codes = (out[0].transpose(1, 2, 0).clip(0, 1) * 255 + 0.5).astype(np.uint8)
        av.VideoFrame.from_ndarray(np.ascontiguousarray(codes), format="rgb24").reformat(format="yuv420p")
        done += 1
    return done


def _pictures(clip: Path) -> Iterator[av.VideoFrame]:
    with av.open(clip) as container:
        yield from container.decode(video=0)


def _report(
    table: list[Side], timings: list[Timing], threads: int, frames: int, as_json: bool, say: Callable[[str], None]
) -> None:
    plain, off, default, _, eager, *other = (side.fps for side in table)
    ratios = {
        "temporal off : plain OpenVINO loop": off / plain,
        "default : plain OpenVINO loop": default / plain,
        "temporal off : torch eager loop": off / eager,
        "default : torch eager loop": default / eager,
    }
    ratios |= {f"default : {DEFAULT}": default / fps for fps in other}
    if as_json:
        stages = [asdict(t) for t in timings]
        say(json.dumps({"sides": [asdict(s) for s in table], "ratios": ratios, "stages": stages}, indent=2))
        return
    say(f"{frames} frames a round, medians, {threads} threads, OpenVINO {ov.__version__}, torch {torch.__version__}")
    for side in table:
        spread = " ".join(f"{fps:.2f}" for fps in side.rounds)
        say(f"  {side.name:32} {side.fps:8.2f} fps   {side.form}   [{spread}]")
    for name, ratio in ratios.items():
        say(f"  {name:38} {ratio:6.2f}")
    whole = max(t.busy + t.starved + t.blocked for t in timings)
    say("stages of the default run (share of its time at work, waiting for input, waiting for room):")
    for t in timings:
        say(f"  {t.name:10} {t.busy / whole:6.1%} {t.starved / whole:6.1%} {t.blocked / whole:6.1%}")

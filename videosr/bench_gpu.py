"""Speed on a GPU: the published network in torch beside every engine that runs here, alone and from file to sink.

Alone means: the network on tensors that lie on the GPU, nothing copied. From file to sink means: decoded by NVDEC where
it can, upscaled, and forgotten. Rows are measured one after the other in one run; figures are medians of rounds, those
of latency percentiles over single frames, each waited for.

As a whole it has not run on a GPU yet; its parts have, by `scripts/gpu_bars.py`.
"""

from __future__ import annotations

import gc
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import torch

from videosr.bench_alone import Speed, alone, measure
from videosr.bench_film import Whole, whole
from videosr.bench_torch import published
from videosr.engines import CUDA_ENGINES, Engine, load, on_cuda
from videosr.engines.nvidia import NoDriverError, gpus
from videosr.errors import EngineError, NetworkError, VideosrError, remedy
from videosr.media.decoder import Decoder
from videosr.models import registry
from videosr.options import UpscaleOptions
from videosr.upscaler import Upscaler


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table.

    Attributes:
        name: of the way.
        speed: of the network alone; None where it could not be measured.
        memory: MiB of the GPU's memory that it took at the most, above what was in use before it.
        whole: from file to sink; None for the networks alone.
        problem: why something is missing.
    """

    name: str
    speed: Speed | None = None
    memory: float = 0.0
    whole: Whole | None = None
    problem: str = ""


def rows(
    clip: Path,
    model: str,
    *,
    device: str = "cuda",
    frames: int | None = None,
    count: int = 200,
    make: Callable[[Path, str], Engine] | None = None,
) -> Iterator[Row]:
    """The table, line by line; what cannot be measured says why.

    Args:
        clip: a video; its size is that of the networks alone too.
        model: a shipped model's name.
        device: "cuda" or "cuda:N".
        frames: of the clip; None takes all.
        count: frames a round of the networks alone.
        make: loads a network file into an engine of that name.

    Raises:
        NetworkError: the model has no weights to compare with.
    """
    path = registry.find(model)
    weights = path.with_suffix(".safetensors")
    if not weights.is_file():
        raise NetworkError(f"{weights}: the comparison needs the network's weights beside it")
    with Decoder(clip, frames=1) as decoder:
        size = decoder.info.height, decoder.info.width
    for name, half, compiled in (
        ("published, torch f32", False, False),
        ("published, torch f16", True, False),
        ("published, torch f16, compiled", True, True),
    ):
        yield _torch_row(name, weights, size, device, half=half, compiled=compiled, count=count)
    for name in CUDA_ENGINES:
        file = weights if name == "torch" else path
        loaded = partial(make, file, name) if make else partial(load, file, name, device=device)
        yield engine_row(name, loaded, size, clip, frames=frames, count=count)
        gc.collect()


def _torch_row(
    name: str, weights: Path, size: tuple[int, int], device: str, *, half: bool, compiled: bool, count: int
) -> Row:
    cuda = device.startswith("cuda")
    try:
        if cuda:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(device)
        start, wait = published(weights, size, device, half=half, compiled=compiled)
        speed = measure(start, wait, max(count // 5, 2))
        memory = torch.cuda.max_memory_reserved(device) / 2**20 if cuda else 0.0
    except RuntimeError as exc:  # out of memory is one, and so is a compiler that is missing
        return Row(name, problem=str(exc).strip().splitlines()[0])
    return Row(name, speed, memory)


def engine_row(
    name: str, make: Callable[[], Engine], size: tuple[int, int], clip: Path | None, *, frames: int | None, count: int
) -> Row:
    """An engine alone and from file to sink; memory is what the driver says is taken, by all libraries together.

    Args:
        name: of the engine.
        make: loads it.
        size: (rows, columns).
        clip: None: alone.
        frames: of the clip.
        count: frames a round.
    """
    try:
        engine = make()
        if engine.device is None:
            raise EngineError(f"it has no arrays of the GPU here; {remedy('cuda')}")
        before = engine.device.used_memory()
        ready = getattr(engine, "ready", None)
        speed = alone(ready(size), count) if ready else None
        memory = engine.device.used_memory() - before
        whole_way = None
        if clip is not None:
            whole_way = whole(Upscaler(UpscaleOptions(), engine), clip, frames)
            memory = max(memory, engine.device.used_memory() - before)
    except VideosrError as exc:
        return Row(name, problem=str(exc))
    return Row(f"{name} {engine.precision}", speed, memory / 2**20, whole_way)


def run(
    clip: Path, model: str, *, device: str, frames: int, as_json: bool = False, say: Callable[[str], None] = print
) -> list[Row]:
    """Measure and print; see `rows`.

    Raises:
        EngineError: there is no such GPU.
    """
    try:
        here = gpus()
    except NoDriverError as exc:
        raise EngineError(f"--device {device}: {exc}") from exc
    index = on_cuda(device) or 0
    if index >= len(here):
        raise EngineError(f"--device {device}: CUDA shows {len(here)} GPUs; see videosr doctor")
    table = []
    if not as_json:
        say(f"{here[index]}, torch {torch.__version__}")
    for row in rows(clip, model, device=device, frames=frames):
        table.append(row)
        if not as_json:
            for line in lines(row):
                say(line)
    if as_json:
        say(json.dumps({"gpu": str(here[index]), "rows": [asdict(row) for row in table]}, indent=2))
    else:
        for line in ratios(table):
            say(line)
    return table


def lines(row: Row) -> list[str]:
    """A row for people."""
    if row.problem:
        return [f"  {row.name:32} not measured: {row.problem}"]
    made = []
    if row.speed:
        p50, p95, p99 = row.speed.latency
        latency = f"latency {p50:.2f} {p95:.2f} {p99:.2f} ms (p50 p95 p99)"
        made.append(f"  {row.name:32} {row.speed.fps:9.1f} fps alone, {latency}, {row.memory:.0f} MiB")
    if row.whole:
        way = "on the GPU all the way" if row.whole.on_gpu else "decoded on the CPU"
        bus = f"{row.whole.uploaded:,.0f} bytes up and {row.whole.downloaded:,.0f} down a frame"
        made.append(f"  {row.name:32} {row.whole.fps:9.1f} fps from file to sink, {way}: {bus}, {row.memory:.0f} MiB")
        made += [f"  {'':32} {row.whole.shares}", *(f"  {'':32} {line}" for line in row.whole.warnings)]
    return made


def ratios(table: Sequence[Row]) -> list[str]:
    """Every engine against the compiled network."""
    base = next((row.speed for row in table if row.speed and row.name.endswith("compiled")), None)
    if base is None:
        return []
    others = [row for row in table if row.speed and not row.name.startswith("published")]
    return [f"  {row.name} : torch.compile {row.speed.fps / base.fps:.2f}" for row in others if row.speed]

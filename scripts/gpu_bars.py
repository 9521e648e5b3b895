"""Every bar of the GPU path, measured in one call where there is a GPU.

    python scripts/gpu_bars.py --clip film-1080p.mp4 [--json FILE]

Needs `videosr[torch]` and `videosr[cuda]`. What cannot run here is named with the reason, and so is every bar that
cannot be measured. Ratios are of one run, figures are medians of rounds. Exit code 1 if a bar that was measured is
missed.

NOT YET RUN ON A GPU.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch

from videosr.archs import checkpoint
from videosr.archs.paragonsr2 import ParagonSR2
from videosr.doctor import examine
from videosr.engines import load
from videosr.engines.network import Network
from videosr.engines.openvino import OpenVINOEngine
from videosr.engines.tensorrt import TensorRTEngine
from videosr.errors import VideosrError
from videosr.export import export
from videosr.graph import Graph, NullSink
from videosr.media.decoder import Decoder
from videosr.models import registry
from videosr.upscaler import UpscaleOptions, Upscaler

KFLOP = {"realtime": 23, "stream": 177}
"""Multiply-adds counted twice, in thousands, a pixel of the input: of the folded network at scale 2."""
PEAK_FLOPS, PEAK_BYTES = 67e12, 4.8e12
"""Of an H200 SXM outside its tensor cores in float32, and of its memory, a second (NVIDIA's data sheet)."""
BYTES = 8
"""A pixel of the input at the least: 4:2:0 planes in, four times as many out."""


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar.

    Attributes:
        name: what is measured.
        aim: lowest value, or the highest where `below`.
        unit: of the values.
        value: as measured, None where it was not.
        note: how, or why not.
        below: whether smaller is better.
    """

    name: str
    aim: float
    unit: str
    value: float | None
    note: str
    below: bool = False

    @property
    def met(self) -> bool | None:
        """Whether it is met; None: not measured."""
        if self.value is None:
            return None
        return self.value <= self.aim if self.below else self.value >= self.aim

    def __str__(self) -> str:
        sign, verdict = ("<=" if self.below else ">="), {True: "met", False: "MISSED", None: "not measured"}[self.met]
        value = "-" if self.value is None else f"{self.value:,.4g} {self.unit}"
        return f"{verdict:<13}{self.name}: {value} (aim {sign} {self.aim:,.5g}): {self.note}"


def median(work: Callable[[], None], rounds: int = 5) -> float:
    """Seconds that `work` takes."""
    work()
    taken = []
    for _ in range(rounds):
        start = time.perf_counter()
        work()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)


def compiled(model: torch.nn.Module, device: str, size: tuple[int, int], count: int) -> float:
    """Frames a second of the published graph in torch.compile, half precision on a GPU."""
    half = torch.float16 if device == "cuda" else torch.float32
    network = torch.compile(model.eval().to(device, half).to(memory_format=torch.channels_last))
    x = torch.rand(1, 3, *size, device=device, dtype=half).to(memory_format=torch.channels_last)

    def work() -> None:
        with torch.inference_mode():
            for _ in range(count):
                network(x)
        if device == "cuda":
            torch.cuda.synchronize()

    return count / median(work)


def alone(engine: TensorRTEngine, size: tuple[int, int], count: int) -> float:
    """Frames a second of the network alone."""
    execution = engine.ready(size)
    return count / median(lambda: execution.spin(count))


def roofline(variant: str, size: tuple[int, int], fps: float) -> str:
    """What share of an H200's arithmetic and memory that is."""
    pixels = size[0] * size[1] * fps
    arithmetic, memory = pixels * KFLOP[variant] * 1e3 / PEAK_FLOPS, pixels * BYTES / PEAK_BYTES
    return f"{arithmetic:.0%} of an H200's float32 peak, {memory:.1%} of its bandwidth"


def measure(
    make: Callable[[Path], TensorRTEngine],
    size: tuple[int, int],
    clip: Path | None,
    device: str,
    folder: Path,
    count: int,
) -> list[Bar]:
    """All bars, of the engine that `make` loads for a network file."""
    shape = f"{size[1]}x{size[0]}"
    realtime = registry.find("realtime-2x")
    engine = make(realtime)
    before = engine.device.used_memory()
    fps = alone(engine, size, count)
    memory = (engine.device.used_memory() - before) / 2**20
    name, precision = engine.identity.split()[0], engine.precision
    bars = [
        Bar(
            f"realtime, {shape}, engine only",
            2000,
            "frames/s",
            fps,
            f"{name} {precision}: {roofline('realtime', size, fps)}",
        )
    ]
    model, _ = checkpoint.load(realtime.with_suffix(".safetensors"), alpha=0.0)
    plain = compiled(model, device, size, max(count // 5, 2))
    bars.append(Bar("realtime, against torch.compile", 5, "x", fps / plain, f"published graph: {plain:.0f} frames/s"))
    stream = folder / "stream.safetensors"
    checkpoint.save(stream, ParagonSR2("stream", 2), name="stream", training="none: random weights", license="MIT")
    export(stream, folder / "stream.onnx")
    fps = alone(make(folder / "stream.onnx"), size, count)
    bars.append(Bar(f"stream, {shape}, engine only", 400, "frames/s", fps, f"{name}: {roofline('stream', size, fps)}"))
    bars.append(Bar(f"realtime, {shape}, memory", 600, "MiB", memory, "above the context, as tensors", below=True))
    bars += accuracy(engine, OpenVINOEngine(Network.open(realtime), precision="f32"), size)
    bars.append(whole(engine, clip))
    return bars


def accuracy(engine: TensorRTEngine, reference: OpenVINOEngine, size: tuple[int, int]) -> list[Bar]:
    """Pictures beside float32 on the CPU."""
    rng = np.random.default_rng(0)
    rows, columns = min(size[0], 360), min(size[1], 640)
    y, x = np.mgrid[:rows, :columns].astype(np.float32)
    base = 0.5 + 0.35 * np.sin(x / 23) * np.cos(y / 17)
    frame = np.clip(np.stack([base, base[::-1], 1 - base]) + rng.normal(0, 0.02, (3, rows, columns)), 0, 1)
    frame = frame[None].astype(np.float32)
    out, wanted = engine.run(frame), reference.run(frame)
    error = float(np.mean((out.astype(np.float64) - wanted) ** 2))
    codes = [np.rint(np.clip(p, 0, 1) * 255) for p in (out, wanted)]
    share = 100 * float((np.abs(codes[0] - codes[1]) <= 1).mean())
    psnr = float(-10 * np.log10(error)) if error else 999.0
    note = f"{columns}x{rows}, against float32"
    return [Bar("within one 8-bit code", 99.9, "%", share, note), Bar("PSNR", 55, "dB", psnr, note)]


def whole(engine: TensorRTEngine, clip: Path | None) -> Bar:
    """File to null sink. Frames are decoded on the CPU: NVDEC without a copy is not there yet."""
    if clip is None:
        return Bar("file to null sink", 240, "frames/s", None, "give --clip, a 1080p H.264 file")
    upscaler = Upscaler(UpscaleOptions(), engine)
    taken = []
    for _ in range(2):  # the first compiles
        start = time.perf_counter()
        with Decoder(clip) as decoder:
            graph = Graph(decoder, [("upscale", upscaler)], NullSink())
            graph.run()
        taken.append(time.perf_counter() - start)
    table = ", ".join(f"{t.name} {t.busy:.1f} s busy {t.starved:.1f} s starved" for t in graph.timings)
    return Bar(
        "file to null sink", 240, "frames/s", graph.timings[-1].frames / taken[-1], f"{table}; decoded on the CPU"
    )


def main(
    arguments: list[str] | None = None,
    make: Callable[[Path], TensorRTEngine] | None = None,
    size: tuple[int, int] = (1080, 1920),
    device: str = "cuda",
) -> int:
    """Run; 1 if a bar is missed or nothing could be measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clip", type=Path, help="an H.264 film of 1920x1080")
    parser.add_argument("--engine", choices=["tensorrt_rtx", "tensorrt"], help="default: the first that is ready")
    parser.add_argument("--count", type=int, default=300, help="frames of a round")
    parser.add_argument("--json", type=Path, help="write the figures there too")
    options = parser.parse_args(arguments)
    report = examine()
    print("\n".join(report.lines()))
    name = options.engine or next((e.name for e in report.engines if e.name.startswith("tensorrt") and e.ready), None)
    if make is None and name is None:
        print("no engine that could be measured is ready here: see above")
        return 1

    def real(path: Path) -> TensorRTEngine:
        engine = load(path, str(name), device="cuda")
        if not isinstance(engine, TensorRTEngine):
            raise TypeError(f"{engine!r} is not a TensorRT engine")
        return engine

    try:
        with tempfile.TemporaryDirectory() as folder:
            bars = measure(make or real, size, options.clip, device, Path(folder), options.count)
    except VideosrError as exc:
        print(f"failed: {exc}")
        return 1
    for bar in bars:
        print(bar)
    if options.json:
        values = {"machine": report.as_json(), "bars": [asdict(bar) | {"met": bar.met} for bar in bars]}
        options.json.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
    return 1 if any(bar.met is False for bar in bars) else 0


if __name__ == "__main__":
    sys.exit(main())

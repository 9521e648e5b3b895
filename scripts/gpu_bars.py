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
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np

from videosr.archs import checkpoint
from videosr.archs.paragonsr2 import ParagonSR2
from videosr.bench_gpu import alone, published, whole
from videosr.bench_gpu import measure as speed
from videosr.doctor import examine
from videosr.engines import Engine, load
from videosr.engines.cuda import CudaEngine
from videosr.engines.network import Network
from videosr.engines.openvino import OpenVINOEngine
from videosr.engines.tensorrt import TensorRTEngine
from videosr.errors import VideosrError
from videosr.export import export
from videosr.models import registry
from videosr.upscaler import UpscaleOptions, Upscaler

ABLE = ("tensorrt_rtx", "tensorrt", "cuda")
type Measured = TensorRTEngine | CudaEngine
"""An engine whose network can be run alone, on what lies in its tensors."""

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


def roofline(variant: str, size: tuple[int, int], fps: float) -> str:
    """What share of an H200's arithmetic and memory that is."""
    pixels = size[0] * size[1] * fps
    arithmetic, memory = pixels * KFLOP[variant] * 1e3 / PEAK_FLOPS, pixels * BYTES / PEAK_BYTES
    return f"{arithmetic:.0%} of an H200's float32 peak, {memory:.1%} of its bandwidth"


def measure(
    make: Callable[[Path], Measured],
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
    fps = alone(engine.ready(size), count).fps
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
    half = device == "cuda"
    start, wait = published(realtime.with_suffix(".safetensors"), size, device, half=half, compiled=True)
    plain = speed(start, wait, max(count // 5, 2)).fps
    bars.append(Bar("realtime, against torch.compile", 5, "x", fps / plain, f"published graph: {plain:.0f} frames/s"))
    bars.append(stream_bar(make, size, folder, count))
    bars.append(Bar(f"realtime, {shape}, memory", 600, "MiB", memory, "above the context, as tensors", below=True))
    bars += accuracy(engine, OpenVINOEngine(Network.open(realtime), precision="f32"), size)
    bars += whole_way(engine, clip)
    return bars


def stream_bar(make: Callable[[Path], Measured], size: tuple[int, int], folder: Path, count: int) -> Bar:
    """The stream network, with random weights: its speed does not depend on them."""
    weights = folder / "stream.safetensors"
    checkpoint.save(weights, ParagonSR2("stream", 2), name="stream", training="none: random weights", license="MIT")
    export(weights, folder / "stream.onnx")
    bar = partial(Bar, f"stream, {size[1]}x{size[0]}, engine only", 400, "frames/s")
    try:
        engine = make(folder / "stream.onnx")
    except VideosrError as exc:  # the cuda engine has no kernel for it
        return bar(None, str(exc))
    fps = alone(engine.ready(size), count).fps
    return bar(fps, f"{engine.identity.split()[0]}: {roofline('stream', size, fps)}")


def accuracy(engine: Engine, reference: OpenVINOEngine, size: tuple[int, int]) -> list[Bar]:
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


def whole_way(engine: Engine, clip: Path | None) -> list[Bar]:
    """From file to null sink, and what crosses the bus on the way: of each frame a byte, which says "finite"."""
    fast, copies = "file to null sink", "file to null sink, copied between host and GPU"
    if clip is None:
        reason = "give --clip, a 1080p H.264 file"
        return [Bar(fast, 240, "frames/s", None, reason), Bar(copies, 1, "bytes/frame", None, reason, below=True)]
    way = whole(Upscaler(UpscaleOptions(), engine), clip)
    decoded = "decoded by NVDEC" if way.on_gpu else "; ".join(("decoded on the CPU", *way.warnings))
    note = f"{way.uploaded:,.0f} bytes up, {way.downloaded:,.0f} down a frame; {decoded}"
    return [
        Bar(fast, 240, "frames/s", way.fps, f"{way.shares}; {decoded}"),
        Bar(copies, 1, "bytes/frame", way.uploaded + way.downloaded, note, below=True),
    ]


def main(
    arguments: list[str] | None = None,
    make: Callable[[Path], Measured] | None = None,
    size: tuple[int, int] = (1080, 1920),
    device: str = "cuda",
) -> int:
    """Run; 1 if a bar is missed or nothing could be measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clip", type=Path, help="an H.264 film of 1920x1080")
    parser.add_argument("--engine", choices=ABLE, help="default: the first that is ready")
    parser.add_argument("--count", type=int, default=300, help="frames of a round")
    parser.add_argument("--json", type=Path, help="write the figures there too")
    options = parser.parse_args(arguments)
    report = examine()
    print("\n".join(report.lines()))
    name = options.engine or next((e.name for e in report.engines if e.name in ABLE and e.ready), None)
    if make is None and name is None:
        print("no engine that could be measured is ready here: see above")
        return 1

    def real(path: Path) -> Measured:
        engine = load(path, str(name), device="cuda")
        if not isinstance(engine, TensorRTEngine | CudaEngine):
            raise TypeError(f"{engine!r} has no network that runs alone")
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

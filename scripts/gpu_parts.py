"""Imported by `gpu_bars.py`; not a command.

What that measures, part by part; each gives figures as they come.

Libraries that may be missing on a machine that was lent are imported by the part that needs them.
"""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from videosr.engines import Engine
from videosr.engines.gpu_device import Device
from videosr.models import registry

TENSOR_KFLOP = {"realtime": 21.9, "fine": 105.5, "stream": 138.3}
"""A pixel of the input, of the folded network at scale 2: multiply-adds of dense convolutions, counted twice."""
OTHER_KFLOP = {"realtime": 3.6, "fine": 19.5, "stream": 21.5}
"""Of depthwise convolutions, counted twice, of GELU (20 each) and of products."""
PEAK_TENSOR, PEAK_OTHER = 989e12, 134e12
"""Of an H100 or H200 SXM in float16, a second, in its tensor cores and outside of them (NVIDIA's data sheets)."""
PEAK_BYTES = {"H200": 4.8e12, "H100": 3.35e12}
"""Of their memory, a second."""
BYTES = 8
"""A pixel of the input at the least: 4:2:0 planes in, four times as many out."""
REALTIME, FINE, STREAM, MEMORY, CODES, PSNR = (
    "realtime with ",
    "fine with ",
    "stream with ",
    "memory with ",
    "within a code with ",
    "PSNR of ",
)
FILM, COPIES, COMPILED, WRONG = (
    "film with ",
    "copies with ",
    "published network, torch.compile",
    "kernels: samples wrong",
)


@dataclass(frozen=True, slots=True)
class Figure:
    """Something measured, or why it was not.

    Attributes:
        name: of it.
        value: None: it could not be measured.
        unit: of the value.
        note: how it was measured, or what was in the way.
    """

    name: str
    value: float | None
    unit: str
    note: str = ""

    def __str__(self) -> str:
        value = "-" if self.value is None else f"{self.value:,.5g} {self.unit}"
        return f"| {self.name} | {value} | {self.note.replace('|', '/')} |"


@dataclass(frozen=True, slots=True)
class Case:
    """What all parts are measured on.

    Attributes:
        size: rows and columns of the input.
        count: frames of a round.
        folder: where what is made for it lies.
        clip: a film; None makes one.
        device: torch's name of the GPU.
        make: loads a network file into an engine of a name.
    """

    size: tuple[int, int]
    count: int
    folder: Path
    clip: Path | None
    device: str
    make: Callable[[Path, str], Engine]


type Measured = Iterator[Figure]


def the_gpu() -> Device:
    """The first GPU."""
    from videosr.engines.gpu_cupy import CupyDevice

    return CupyDevice()


def kernels(case: Case) -> Measured:
    """Our kernels around the network: whether they are right, and how fast."""
    import gpu_checks
    import plane_bars

    device = the_gpu()
    total = 0
    for name, tensors in gpu_checks.CASES:
        found = gpu_checks.compare(device, name, tensors)
        wrong = found.tensors + found.planes + found.statistics + (found.average > 1e-6)
        total += wrong
        yield Figure(f"{WRONG}, {name} {tensors}", wrong, "samples", str(found))
    yield Figure(WRONG, total, "samples", ", ".join(" ".join(case) for case in gpu_checks.CASES))
    peak = next((value for key, value in PEAK_BYTES.items() if key in device.gpu.name), None)
    for name, tensors in plane_bars.FORMATS:
        for what, taken, moved in plane_bars.measure(device, name, tensors, case.size, case.count):
            share = f", {moved / taken / peak:.0%} of the memory's bandwidth" if peak else ""
            yield Figure(f"{what}, {name} {tensors}", 1e6 * taken, "us", f"{moved / taken / 1e9:,.0f} GB/s{share}")


def roofline(variant: str, size: tuple[int, int], fps: float) -> str:
    """What share that is of what an H200's tensor cores, other units or memory allow, whichever allows least."""
    pixels = size[0] * size[1]
    floors = {
        "tensor cores": pixels * TENSOR_KFLOP[variant] * 1e3 / PEAK_TENSOR,
        "arithmetic outside of tensor cores": pixels * OTHER_KFLOP[variant] * 1e3 / PEAK_OTHER,
        "memory": pixels * BYTES / PEAK_BYTES["H200"],
    }
    name, floor = max(floors.items(), key=lambda item: item[1])
    return f"{floor * fps:.0%} of an H200's roofline ({1e3 * floor:.3f} ms: {name})"


def engine_alone(case: Case, name: str) -> Measured:
    """An engine: its network alone, its memory, its pictures, a film."""
    engine = case.make(shipped("realtime-2x", name), name)
    yield from attempt(MEMORY + name, "MiB", lambda: memory(engine, case, name))
    yield from attempt(REALTIME + name, "frames/s", lambda: alone(engine, case, REALTIME + name, "realtime"))
    yield from attempt(PSNR + name, "dB", lambda: accuracy(engine, case.size, name))
    yield from attempt(FILM + name, "frames/s", lambda: film(engine, case, name))


def fine(case: Case, name: str) -> Measured:
    """The fine network."""
    yield from alone(case.make(shipped("fine-2x", name), name), case, FINE + name, "fine")


def stream(case: Case, name: str) -> Measured:
    """The stream network."""
    yield from alone(case.make(shipped("stream-2x", name), name), case, STREAM + name, "stream")


def compiled(case: Case) -> Measured:
    """What the engines are compared with: the published network in torch."""
    from videosr.bench_alone import measure
    from videosr.bench_torch import published

    weights, half = registry.find("realtime-2x").with_suffix(".safetensors"), case.device == "cuda"
    for name, how in (("published network, torch", False), (COMPILED, True)):
        start, wait = published(weights, case.size, case.device, half=half, compiled=how)
        speed = measure(start, wait, max(case.count // 5, 2))
        yield Figure(name, speed.fps, "frames/s", f"float{16 if half else 32}; {latency(speed.latency)}")


def attempt(name: str, unit: str, work: Callable[[], Measured]) -> Measured:
    """Whatever it gives, and what ended it: what follows may yet be measured."""
    given = False
    try:
        for figure in work():
            given |= figure.name == name
            yield figure
    except Exception as exc:  # of any library: here it is a finding
        yield Figure(f"{name}, after that" if given else name, None, unit, reason_of(exc))


def reason_of(exc: BaseException) -> str:
    """One line."""
    return f"{type(exc).__name__}: {' '.join(str(exc).split())[:300]}"


def latency(percentiles: tuple[float, float, float]) -> str:
    p50, p95, p99 = percentiles
    return f"latency {p50:.3f} {p95:.3f} {p99:.3f} ms (p50 p95 p99)"


def shipped(network: str, name: str) -> Path:
    """A shipped network, as an engine takes it."""
    path = registry.find(network)
    return path.with_suffix(".safetensors") if name == "torch" else path


def alone(engine: Any, case: Case, name: str, variant: str) -> Measured:
    """The network alone, on what lies in its tensors."""
    from videosr.bench_alone import alone as measured

    speed = measured(engine.ready(case.size), case.count)
    yield Figure(
        name,
        speed.fps,
        "frames/s",
        f"{engine.precision}; {latency(speed.latency)}; {roofline(variant, case.size, speed.fps)}",
    )


def memory(engine: Engine, case: Case, name: str) -> Measured:
    """What an engine takes for a film in 8-bit 4:2:0 with temporal reuse, and how fast it is from planes to planes."""
    from videosr.engines import Picture
    from videosr.frame import ColorSpec, Matrix, PixelFormat, Range, Siting
    from videosr.temporal import DEPTH

    device, (rows, columns) = engine.device, case.size
    if device is None:
        raise RuntimeError("no arrays of the GPU: cupy is not installed")
    gc.collect()
    if "cupy" in sys.modules:  # what the self-test has given back is not free for others yet
        sys.modules["cupy"].get_default_memory_pool().free_all_blocks()
    fmt = PixelFormat.parse("yuv420p")
    spec = ColorSpec(matrix=Matrix.BT709, range=Range.LIMITED, siting=Siting.LEFT)
    source = Picture(height=rows, width=columns, format=fmt, color=spec)
    target = Picture(height=engine.scale * rows, width=engine.scale * columns, format=fmt, color=spec)
    before = device.used_memory()
    runner = engine.planar(source, target, DEPTH)
    if runner is None:
        raise RuntimeError("it takes no planes")
    taken = (device.used_memory() - before) / 2**20
    yield Figure(MEMORY + name, taken, "MiB", "tensors, buffers and planes, above the context")
    frames = [[device.empty(fmt.plane_shape(i, rows, columns), "uint8") for i in range(3)] for _ in range(DEPTH)]
    for title, window, threshold in (("alone", frames[:1], 0.0), (f"windows of {DEPTH}", frames, 9.0)):
        pending = [runner.submit(window, threshold) for _ in range(runner.in_flight)]
        start = time.perf_counter()
        for _ in range(case.count):
            pending.append(runner.submit(window, threshold))
            runner.result(pending.pop(0))
        seconds = time.perf_counter() - start
        for ticket in pending:
            runner.result(ticket)
        yield Figure(
            f"planes to planes with {name}, {title}", case.count / seconds, "frames/s", "on the GPU all the way"
        )


def accuracy(engine: Engine, size: tuple[int, int], name: str) -> Measured:
    """Pictures beside float32 on the CPU."""
    from videosr.engines.network import Network
    from videosr.engines.tensorrt_check import reference_of

    rng, rows, columns = np.random.default_rng(0), min(size[0], 360), min(size[1], 640)
    y, x = np.mgrid[:rows, :columns].astype(np.float32)
    base = 0.5 + 0.35 * np.sin(x / 23) * np.cos(y / 17)
    frame = np.clip(np.stack([base, base[::-1], 1 - base]) + rng.normal(0, 0.02, (3, rows, columns)), 0, 1)
    frame = frame[None].astype(np.float32)
    reference = reference_of(Network.open(shipped("realtime-2x", "")))
    out, wanted = np.asarray(engine.run(frame)), reference.run(frame)
    error = float(np.mean((out.astype(np.float64) - wanted) ** 2))
    codes = [np.rint(np.clip(p, 0, 1) * 255) for p in (out, wanted)]
    note = f"{columns}x{rows}, against float32: {reference.identity.split()[0]}"
    yield Figure(CODES + name, 100 * float((np.abs(codes[0] - codes[1]) <= 1).mean()), "%", note)
    yield Figure(PSNR + name, float(-10 * np.log10(error)) if error else 999.0, "dB", note)


def film(engine: Engine, case: Case, name: str) -> Measured:
    """From file to null sink, and what crosses the bus on the way: of each frame a byte, which says "finite"."""
    from videosr.bench_film import whole
    from videosr.options import UpscaleOptions
    from videosr.upscaler import Upscaler

    clip = case.clip or made_clip(case.folder / "clip.mp4", case.size, max(2 * case.count, 20))
    way = whole(Upscaler(UpscaleOptions(), engine), clip)
    decoded = "decoded by NVDEC" if way.on_gpu else "; ".join(("decoded on the CPU", *way.warnings))
    yield Figure(FILM + name, way.fps, "frames/s", f"{way.shares}; {decoded}")
    note = f"{way.uploaded:,.0f} bytes up, {way.downloaded:,.0f} down a frame; {decoded}"
    yield Figure(COPIES + name, way.uploaded + way.downloaded, "bytes/frame", note)


def made_clip(path: Path, size: tuple[int, int], count: int) -> Path:
    """A film in H.264: texture that drifts, with still grain."""
    import av

    if path.exists():
        return path
    rows, columns = size
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:rows, :columns]
    luma = 120 + 60 * np.sin(x / 29) * np.cos(y / 23) + rng.normal(0, 3, size)
    picture = np.full((rows * 3 // 2, columns), 128, np.uint8)
    with av.open(str(path), "w") as out:
        made = out.add_stream("libx264", rate=24, options={"preset": "veryfast", "crf": "20"})
        made.width, made.height, made.pix_fmt = columns, rows, "yuv420p"
        for i in range(count):
            picture[:rows] = np.roll(luma, 2 * i, axis=1).clip(16, 235)
            out.mux(made.encode(av.VideoFrame.from_ndarray(picture, "yuv420p")))
        out.mux(made.encode(None))
    return path


PARTS: dict[str, Callable[..., Measured]] = {
    "kernels": kernels,
    "engine": engine_alone,
    "fine": fine,
    "stream": stream,
    "compiled": compiled,
}


def main_figure(part: str, engine: str) -> tuple[str, str]:
    """Name and unit of the figure of a part without which it is nothing."""
    return {
        "engine": (REALTIME + engine, "frames/s"),
        "fine": (FINE + engine, "frames/s"),
        "stream": (STREAM + engine, "frames/s"),
        "compiled": (COMPILED, "frames/s"),
        "kernels": (WRONG, "samples"),
    }[part]


def run_part(case: Case, part: str, engine: str) -> Measured:
    """The figures of a part, in this process."""
    yield from attempt(*main_figure(part, engine), lambda: PARTS[part](case, *([engine] if engine else [])))

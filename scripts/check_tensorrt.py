"""Does TensorRT work here, and how fast? One command for a person with an NVIDIA card.

    python scripts/check_tensorrt.py                      # TensorRT-RTX: GeForce and RTX cards from the 20 series on
    python scripts/check_tensorrt.py --engine tensorrt    # TensorRT: other cards, as the A100 or H100

Builds engines of both forms of network, ours and the published recurrent one, tests them, compares their pictures with
the network in float32 on the CPU, and prints speeds and memory; exit code 1 if anything is wrong. Nothing is left
behind: engines go to a folder that is deleted. The published form needs the extra `torch`, or --published FILE.

NOT YET RUN ON A GPU. If something fails, the whole output is what we would like to see.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from common import count, existing, run, size

from videosr.doctor import examine
from videosr.engines import Interface, Picture
from videosr.engines.cache import Cache
from videosr.engines.network import Network
from videosr.engines.openvino import OpenVINOEngine
from videosr.engines.tensorrt import TensorRTEngine
from videosr.errors import VideosrError, remedy
from videosr.frame import ColorSpec, Matrix, PixelFormat, Range, Siting
from videosr.models import registry

SIZES = ((360, 640), (720, 1280), (1080, 1920))
LEAST_PSNR, LEAST_SHARE = {"f16": 55.0, "f32": 80.0}, 0.999
BLEND = 0.2
"""Of the published form that is made here."""

type Make = Callable[[Network, str], TensorRTEngine]


def texture(rows: int, columns: int, count: int) -> list[np.ndarray]:
    """Frames (1, 3, rows, columns) in [0, 1]: smooth shapes with noise and edges, drifting."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:rows, :columns].astype(np.float32)
    frames = []
    for t in range(count):
        base = 0.5 + 0.3 * np.sin((x + 2 * t) / 23) * np.cos(y / 17) + 0.15 * (((x + 2 * t) // 40 + y // 40) % 2)
        picture = np.stack([base, base[::-1], 1 - base]) + rng.normal(0, 0.02, (3, rows, columns))
        frames.append(np.clip(picture, 0, 1)[None].astype(np.float32))
    return frames


def compare(out: np.ndarray, wanted: np.ndarray) -> tuple[float, float]:
    """(PSNR in dB, share of samples within one 8-bit code)."""
    error = float(np.mean((out.astype(np.float64) - wanted) ** 2))
    codes = [np.rint(np.clip(p, 0, 1) * 255) for p in (out, wanted)]
    return (-10 * np.log10(error) if error else float("inf")), float((np.abs(codes[0] - codes[1]) <= 1).mean())


def pictures(engine: TensorRTEngine, reference: OpenVINOEngine, size: tuple[int, int]) -> bool:
    """Compare pictures at one size; whether they are as they should be."""
    frames = texture(*size, 4)
    average, worst, least = frames[0], float("inf"), 1.0
    for i, frame in enumerate(frames):
        reset = i in (0, 2)  # a scene begins in the middle too
        average = frame if reset else ((1 - BLEND) * frame + BLEND * average).astype(np.float32)
        if engine.interface is Interface.RECURRENT:
            out = engine.step(frame, reset=reset)
            recurs = reference.interface is Interface.RECURRENT
            wanted = reference.step(frame, reset=reset) if recurs else reference.run(frame, average)
        else:
            out, wanted = engine.run(frame, average), reference.run(frame, average)
        psnr, share = compare(out, wanted)
        worst, least = min(worst, psnr), min(least, share)
    good = worst >= LEAST_PSNR[engine.precision] and least >= LEAST_SHARE
    print(f"    {'ok ' if good else 'BAD'} {size[1]}x{size[0]}: {worst:.1f} dB, {least:.4%} within one code")
    return good


def speeds(engine: TensorRTEngine, size: tuple[int, int], count: int) -> None:
    """Print what the network alone, tensors and planes from and to the host take."""
    execution = engine.ready(size)
    execution.spin(10)
    rounds = []
    for _ in range(5):
        start = time.perf_counter()
        execution.spin(count)
        rounds.append((time.perf_counter() - start) / count)
    alone = statistics.median(rounds)
    line = f"        {size[1]}x{size[0]}: network alone {1e3 * alone:.3f} ms, {1 / alone:.0f} frames/s"
    if engine.interface is not Interface.RECURRENT:
        line += f"; planes from and to the host {planes(engine, size, count):.0f} frames/s"
    print(f"{line}; {engine.device.used_memory() / 2**20:.0f} MiB in use on the GPU", flush=True)


def planes(engine: TensorRTEngine, size: tuple[int, int], count: int) -> float:
    """Frames a second of 8-bit 4:2:0 planes, several under way."""
    fmt = PixelFormat.parse("yuv420p")
    color = ColorSpec(matrix=Matrix.BT709, range=Range.LIMITED, siting=Siting.LEFT)
    source = Picture(height=size[0], width=size[1], format=fmt, color=color)
    target = Picture(height=size[0] * engine.scale, width=size[1] * engine.scale, format=fmt, color=color)
    runner = engine.planar(source, target, 1)
    if runner is None:
        raise TypeError("an engine without planes")
    rng = np.random.default_rng(0)
    frame = tuple(rng.integers(16, 235, fmt.plane_shape(i, *size), np.uint8) for i in range(3))
    pending = [runner.submit([frame], 0.0) for _ in range(runner.in_flight)]
    start = time.perf_counter()
    for _ in range(count):
        pending.append(runner.submit([frame], 0.0))
        runner.result(pending.pop(0))
    seconds = time.perf_counter() - start
    for ticket in pending:
        runner.result(ticket)
    return count / seconds


def published(folder: Path, given: Path | None) -> Path | None:
    """A network in the published form."""
    if given is not None:
        return given
    try:
        from videosr.export import export
    except ImportError as exc:
        print(f"the published form is left out ({exc}): give --published FILE, or, {remedy('torch')}")
        return None
    path = folder / "published.onnx"
    weights = registry.find(registry.DEFAULT).with_suffix(".safetensors")
    export(weights, path, form="video", padding="zero", blend=BLEND)
    return path


def check(paths: list[Path], make: Make, sizes: tuple[tuple[int, int], ...], count: int) -> bool:
    """Everything, of these networks; whether all is well."""
    good = True
    for path in paths:
        network = Network.open(path)
        reference = OpenVINOEngine(network, precision="f32")
        for precision in ("f16", "f32"):
            print(f"{network.name}, {precision}:", flush=True)
            try:
                start = time.perf_counter()
                engine = make(network, precision)
                engine.ready(sizes[0])
                print(
                    f"    {engine.interface} form; first engine built and tested in {time.perf_counter() - start:.1f} s"
                )
                good &= all([pictures(engine, reference, size) for size in (sizes[0], (97, 131))])
                for size in sizes:
                    speeds(engine, size, count)
            except VideosrError as exc:
                print(f"    BAD {exc}")
                good = False
    return good


def main(arguments: list[str] | None = None, make: Make | None = None) -> int:
    """Run; 0 if all is well."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engine", choices=["tensorrt_rtx", "tensorrt"], default="tensorrt_rtx")
    parser.add_argument("--model", default=registry.DEFAULT, help="a shipped model's name or a network file")
    parser.add_argument("--published", type=existing, help="a network with prev_feat and feature_map")
    parser.add_argument("--size", type=size, action="append", help="as 1280x720; may be repeated")
    parser.add_argument("--count", type=count, default=300, help="frames of a measurement")
    options = parser.parse_args(arguments)
    sizes = tuple((rows, columns) for columns, rows in options.size or ()) or SIZES
    print("\n".join(examine().lines()))
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        folder = Path(name)
        cache = Cache(folder / "engines")

        def real(network: Network, precision: str) -> TensorRTEngine:
            return TensorRTEngine(network, library=options.engine, precision=precision, cache=cache)

        try:
            paths = [registry.find(options.model), published(folder, options.published)]
            good = check([path for path in paths if path is not None], make or real, sizes, options.count)
        except VideosrError as exc:
            print(f"BAD {exc}")
            good = False
    print("all is well" if good else "something is wrong, see BAD above")
    return 0 if good else 1


if __name__ == "__main__":
    run(main)

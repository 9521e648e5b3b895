"""How close the frame path's kernels come to the memory's bandwidth, on a GPU.

    python scripts/plane_bars.py [--size 1920x1080] [--bandwidth 4800]

For each kernel: the time of a launch, the bytes that it has to move, and these over that, in GB/s and as a share of the
memory's bandwidth. Needs the extra `cuda`.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence

import numpy as np
from common import count, positive, run, size

from videosr.engines.base import Picture
from videosr.engines.cuda_planes import PlaneKernels
from videosr.engines.cuda_statistics import FrameStatistics
from videosr.engines.gpu_device import Device
from videosr.errors import VideosrError
from videosr.frame import Array, ColorSpec, Matrix, PixelFormat, Range, Siting
from videosr.temporal import DEPTH

FORMATS = (("yuv420p", "float32"), ("yuv420p", "float16"), ("yuv420p10le", "float32"), ("yuv444p10le", "float32"))


def seconds(device: Device, work: Callable[[], None], count: int) -> float:
    """That one of `count` pieces of work takes on the device; the median of five rounds.

    They are recorded into a CUDA graph: a launch from Python takes longer than most of these kernels.
    """
    stream, done, rounds = device.stream(), device.event(), []
    device.queue(work, stream)  # what is compiled and loaded by the first launch cannot be recorded

    def many() -> None:
        for _ in range(count):
            device.queue(work, stream)

    graph = device.capture(many, stream)
    for _ in range(6):  # the first warms up
        start = time.perf_counter()
        graph.launch(stream)
        device.record(done, stream)
        device.synchronize(done)
        rounds.append((time.perf_counter() - start) / count)
    return statistics.median(rounds[1:])


def filled(device: Device, shapes: Sequence[tuple[int, ...]], dtype: str, peak: float) -> list[Array]:
    """Arrays of noise on the device."""
    return [device.put((np.random.default_rng(0).random(shape) * peak).astype(dtype)) for shape in shapes]


def size_of(*groups: Sequence[Array]) -> int:
    """Bytes of some arrays."""
    return sum(array.nbytes for arrays in groups for array in arrays)


def measure(device: Device, name: str, tensors: str, size: tuple[int, int], count: int) -> list[tuple[str, float, int]]:
    """(kernel, seconds a launch, bytes that it has to move), for pictures of (rows, columns)."""
    fmt, (rows, columns) = PixelFormat.parse(name), size
    color = ColorSpec(matrix=Matrix.BT709, range=Range.LIMITED, siting=Siting.LEFT)
    source = Picture(height=rows, width=columns, format=fmt, color=color)
    target = Picture(height=2 * rows, width=2 * columns, format=fmt, color=color)
    apart = fmt.subsampled
    kernels = PlaneKernels(device, source, target, tensors=(tensors, tensors), apart=apart)
    small, large = ([fmt.plane_shape(i, p.height, p.width) for i in range(3)] for p in (source, target))
    frames = [filled(device, small, fmt.dtype.name, (1 << fmt.bits) - 1) for _ in range(DEPTH)]
    average = filled(device, small, "float32", 255)
    inputs = filled(device, [(1, 3, rows, columns)] * 2, tensors, 1)
    (output,) = filled(device, [(1, 3, 2 * rows, 2 * columns)], tensors, 1)
    planes, (finite,) = filled(device, large, fmt.dtype.name, 0), filled(device, [(1,)], "uint8", 1)
    before = frames[0][1:] if apart else []
    looks = FrameStatistics(device, fmt, rows, columns)
    work: list[tuple[str, Callable[[], None], int]] = [
        ("planes to a tensor", lambda: kernels.to_tensors(frames[0], inputs[:1]), size_of(frames[0], inputs[:1])),
        ("planes to two tensors", lambda: kernels.to_tensors(frames[0], inputs), size_of(frames[0], inputs)),
        (f"average of {DEPTH}", lambda: kernels.average(frames, 9.0, average), size_of(*frames, average)),
        (
            "and it to two tensors",
            lambda: kernels.to_tensors(frames[0], inputs, average),
            size_of(frames[0], average, inputs),
        ),
        (
            "tensor to planes",
            lambda: kernels.to_planes(output, planes, finite, frames[0]),
            size_of([output], planes, before),
        ),
    ]
    made = [(what, seconds(device, launch, count), moved) for what, launch, moved in work]
    start = time.perf_counter()
    for _ in range(count):
        looks.look(frames[0], frames[1])
    waited = (time.perf_counter() - start) / count
    return [*made, ("cuts, noise, repeats, waited for", waited, size_of(frames[0], frames[1]))]


def main(arguments: list[str] | None = None, device: Device | None = None) -> int:
    """Run; 1 if there is no GPU."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=size, default="1920x1080", help="of the source")
    parser.add_argument(
        "--bandwidth", type=positive, default=4800, help="of the memory, GB/s; the default is an H200's"
    )
    parser.add_argument("--count", type=count, default=300, help="launches of a round")
    options = parser.parse_args(arguments)
    columns, rows = options.size
    try:
        if device is None:
            from videosr.engines.gpu_cupy import CupyDevice

            device = CupyDevice()
        print(device.gpu)
        for name, tensors in FORMATS:
            print(f"{name}, tensors in {tensors}, {columns}x{rows} to {2 * columns}x{2 * rows}:")
            for what, taken, moved in measure(device, name, tensors, (rows, columns), options.count):
                speed = moved / taken / 1e9
                print(
                    f"    {what:<34}{1e6 * taken:9.1f} us {moved / 1e6:8.1f} MB {speed:8.0f} GB/s "
                    f"{speed / options.bandwidth:6.1%} of the bandwidth"
                )
    except (ModuleNotFoundError, VideosrError) as exc:
        print(f"not measured: {exc}")
        return 1
    return 0


if __name__ == "__main__":
    run(main)

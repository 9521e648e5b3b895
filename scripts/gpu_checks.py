"""Whether our kernels do on a GPU what color.py, temporal.py and scenes.py do on the host.

    python scripts/gpu_checks.py

The same is in the tests that are marked `gpu`, for more formats; this needs no packages but numpy and cupy (the extra
`cuda`), so that it runs on a machine that was lent for minutes. Exit code 1 if a sample is wrong, or nothing could be
checked.
"""

from __future__ import annotations

import argparse
import sys
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # nothing has to be installed

from videosr import color, scenes, temporal
from videosr.engines.base import Picture
from videosr.engines.cuda_planes import PlaneKernels
from videosr.engines.cuda_statistics import FrameStatistics
from videosr.engines.gpu_device import Device
from videosr.errors import VideosrError
from videosr.frame import Array, ColorSpec, Frame, Matrix, PixelFormat, Range, Siting

CASES = (("yuv420p", "float32"), ("yuv420p", "float16"), ("yuv420p10le", "float32"), ("yuv444p10le", "float32"))
SIZE = (370, 754)


class Differences(NamedTuple):
    """Between the device and the host.

    Attributes:
        tensors: samples of a network's inputs that are not the same.
        average: largest difference of a window's average, as a share of full scale.
        planes: samples of the result's planes that are not the same.
        statistics: answers about a frame and the one before it that are not the same, of three.
    """

    tensors: int
    average: float
    planes: int
    statistics: int


def to_host(device: Device, array: Array) -> Array:
    """A complete array of the device, copied to the host."""
    host, stream, done = device.pinned(array.shape, array.dtype.name), device.stream(), device.event()
    device.download(array, host, stream)
    device.record(done, stream)
    device.synchronize(done)
    return np.array(host)


def compare(device: Device, name: str, tensors: str, size: tuple[int, int] = SIZE) -> Differences:
    """What the device makes of a window of frames, beside what the host makes of it."""
    fmt, (rows, columns) = PixelFormat.parse(name), size
    spec = ColorSpec(matrix=Matrix.BT709, range=Range.LIMITED, siting=Siting.LEFT)
    source = Picture(height=rows, width=columns, format=fmt, color=spec)
    target = Picture(height=2 * rows, width=2 * columns, format=fmt, color=spec)
    rng, peak = np.random.default_rng(0), (1 << fmt.bits) - 1
    shapes = [fmt.plane_shape(i, rows, columns) for i in range(3)]
    first = [rng.integers(0, peak + 1, shape).astype(fmt.dtype) for shape in shapes]
    noise = 3 << (fmt.bits - 8)
    frames = [
        tuple(np.clip(p + rng.integers(-noise, noise + 1, p.shape), 0, peak).astype(fmt.dtype) for p in first)
        for _ in range(temporal.DEPTH)
    ]
    held = [Frame(planes=planes, format=fmt, pts=0, time_base=Fraction(1)) for planes in frames]
    threshold, apart = 7.5 * 2 ** (fmt.bits - 8), fmt.subsampled
    kernels = PlaneKernels(device, source, target, tensors=(tensors, tensors), apart=apart)
    there = [[device.put(plane) for plane in planes] for planes in frames]
    inputs = [device.empty((1, 3, rows, columns), tensors) for _ in range(2)]
    average = [device.empty(shape, "float32") for shape in shapes]
    output = rng.normal(0.5, 0.3, (1, 3, 2 * rows, 2 * columns)).astype(tensors)
    tensor, finite = device.put(output), device.put(np.ones(1, np.uint8))
    made = [device.empty(fmt.plane_shape(i, 2 * rows, 2 * columns), fmt.dtype.name) for i in range(3)]

    def work() -> None:
        kernels.average(there, threshold, average)
        kernels.to_tensors(there[0], inputs, average)
        kernels.to_planes(tensor, made, finite, there[0])

    stream, done = device.stream(), device.event()
    device.queue(work, stream)
    device.record(done, stream)
    device.synchronize(done)
    averaged = tuple(to_host(device, plane) for plane in average)
    wanted = [color.to_rgb(planes, fmt, spec).astype(tensors) for planes in (frames[0], averaged)]
    wrong = sum(int((to_host(device, i)[0] != w).sum()) for i, w in zip(inputs, wanted, strict=True))
    expected = temporal.average(held, temporal.Mode.ADAPTIVE, threshold)
    apart_by = max(float(np.abs(a - b).max()) for a, b in zip(averaged, expected, strict=True)) / peak
    chroma = (frames[0], fmt, spec) if apart else None
    planes = color.from_rgb(output[0].astype(np.float32), fmt, spec, dither=False, chroma=chroma)
    bad = sum(int((to_host(device, m) != p).sum()) for m, p in zip(made, planes, strict=True))
    seen = FrameStatistics(device, fmt, rows, columns).look(there[0], there[1])
    answers = (
        np.array_equal(seen.thumbnail, scenes.thumbnail(frames[0][0], fmt.bits)),
        seen.noise == temporal.noise_of(held[0], held[1]),
        not seen.same,
    )
    return Differences(wrong, apart_by, bad + int(to_host(device, finite)[0] != 1), answers.count(False))


def main(arguments: list[str] | None = None, device: Device | None = None) -> int:
    """Run; 1 if anything is wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.parse_args(arguments)
    wrong = False
    try:
        if device is None:
            from videosr.engines.gpu_cupy import CupyDevice

            device = CupyDevice()
        print(device.gpu)
        for name, tensors in CASES:
            found = compare(device, name, tensors)
            bad = found.tensors or found.planes or found.statistics or found.average > 1e-6
            wrong |= bool(bad)
            print(f"{'BAD' if bad else 'ok '} {name} {tensors}: {found}")
    except (ModuleNotFoundError, VideosrError) as exc:
        print(f"not checked: {exc}")
        return 1
    return int(wrong)


if __name__ == "__main__":
    sys.exit(main())

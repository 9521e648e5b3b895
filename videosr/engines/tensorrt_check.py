"""The self-test of an engine: its pictures beside those of the same network in float32 on the CPU.

A library may build an engine without complaint that gives NaN, black or garbage, by a bug in a kernel or because a
value left float16's range. So no engine is used before it has shown the same pictures as the reference.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from videosr.engines.base import Engine, Interface
from videosr.engines.network import Network
from videosr.engines.tensorrt_builder import Size
from videosr.frame import Array

LEAST_PSNR = {"f16": 50.0, "f32": 70.0}
"""dB against the float32 reference, peak 1. Half precision of our networks gives 60 to 85 dB, float32 over 110."""
_FRAMES = 3
_CROP = 256

type Step = Callable[[Array, Array | None, bool], Array]
"""(frame, average, reset) -> output, all (1, 3, rows, columns) float32."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a self-test found.

    Attributes:
        psnr: of the worst frame, dB; infinite where nothing differs.
        problem: "" if the engine may be used, else what is wrong with it.
    """

    psnr: float
    problem: str = ""


def reference_of(network: Network) -> Engine:
    """The network in float32 on the CPU: in OpenVINO or, on a machine that was lent without it, in ONNX Runtime."""
    try:
        from videosr.engines.openvino import OpenVINOEngine
    except ModuleNotFoundError:
        from videosr.engines.onnxruntime import OnnxRuntimeEngine

        return OnnxRuntimeEngine(network)
    return OpenVINOEngine(network, precision="f32")


def pictures(size: Size) -> list[Array]:
    """Test frames (1, 3, rows, columns) float32, always the same: ramps, flat fields, hard edges and noise, moving."""
    rows, columns = size
    y, x = np.mgrid[:rows, :columns].astype(np.float32)
    rng = np.random.default_rng(1)
    frames = []
    for t in range(_FRAMES):
        ramp = x / max(columns - 1, 1)
        flat = np.full_like(x, 0.8)
        edges = (((x + 3 * t) // 8 + y // 8) % 2) * 0.9 + 0.05
        noise = rng.random(x.shape, np.float32)
        band = y * 4 // rows
        picture = np.select([band == 0, band == 1, band == 2], [ramp, flat, edges], noise)
        frames.append(np.stack([picture, picture[:, ::-1], 0.5 * picture + 0.25])[None].astype(np.float32))
    return frames


def self_test(step: Step, interface: Interface, reference: Engine, size: Size, precision: str, blend: float) -> Verdict:
    """Compare an engine with the reference.

    Args:
        step: runs the engine.
        interface: of the engine.
        reference: the same network in float32; it may have the recurrence hoisted out.
        size: rows and columns to test at.
        precision: of the engine: how close it has to be.
        blend: of a recurrent engine.
    """
    frames = pictures(size)
    averages: list[Array | None] = [None] * len(frames)
    if interface is Interface.AVERAGE:
        averages = [0.5 * (frame + other) for frame, other in zip(frames, [frames[0], *frames], strict=False)]
    outputs = [step(f, a, i == 0) for i, (f, a) in enumerate(zip(frames, averages, strict=True))]
    for output in outputs:
        if not np.isfinite(output).all():
            return Verdict(float("-inf"), "values that are not finite")
    crop, expected = _references(frames, averages, interface, reference, blend)
    worst = float("inf")
    for output, wanted in zip(outputs, expected, strict=True):
        seen = output[:, :, : crop[0] * reference.scale, : crop[1] * reference.scale]
        wanted = wanted[:, :, : crop[0] * reference.scale, : crop[1] * reference.scale]
        if np.ptp(seen) < 1e-3 < np.ptp(wanted):
            return Verdict(float("-inf"), "a picture of one colour, as a black one")
        error = float(np.mean((seen.astype(np.float64) - wanted) ** 2))
        worst = min(worst, -10 * np.log10(error) if error else float("inf"))
    least = LEAST_PSNR[precision]
    return Verdict(worst, "" if worst >= least else f"{worst:.1f} dB to the reference, less than {least:.0f}")


def _references(
    frames: Sequence[Array], averages: Sequence[Array | None], interface: Interface, reference: Engine, blend: float
) -> tuple[Size, list[Array]]:
    """(rows and columns that can be compared, the reference's outputs).

    Where the network says how far its pixels see, a corner of the picture is enough; the CPU then takes no time.
    """
    rows, columns = frames[0].shape[2:]
    reach = reference.network.number("reach", -1)
    cut = (rows, columns)
    if 0 <= reach < _CROP // 4:
        cut = (min(rows, _CROP), min(columns, _CROP))
    valid = (cut[0] - (reach if cut[0] < rows else 0), cut[1] - (reach if cut[1] < columns else 0))
    outputs, history = [], frames[0][:, :, : cut[0], : cut[1]]
    for i, (frame, average) in enumerate(zip(frames, averages, strict=True)):
        small = np.ascontiguousarray(frame[:, :, : cut[0], : cut[1]])
        seen = None if average is None else np.ascontiguousarray(average[:, :, : cut[0], : cut[1]])
        if interface is Interface.RECURRENT:
            if reference.interface is Interface.RECURRENT:
                outputs.append(reference.step(small, reset=i == 0))
                continue
            history = ((1 - blend) * small + blend * history).astype(np.float32)
            seen = history
        outputs.append(reference.run(small, seen))
    return valid, outputs

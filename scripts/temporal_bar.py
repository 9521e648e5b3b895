"""Measure temporal reuse: luma PSNR, flicker and grain of `off`, `ema` and `adaptive` on clean, noisy and grainy video.

    python scripts/temporal_bar.py NETWORK SOURCE... [--frames N] [--denoise STRENGTH] [--modes off,adaptive]

NETWORK: a shipped name or a network file with the inputs frame and average. SOURCE: a folder of frames (PNG), or a
clip, whose frames are the truth. Each frame is halved plane by plane by antialiased bicubic and upscaled as users would
have it done. Noise: Gaussian, sigma 4 on every plane. Grain: film-like, on the luma alone, blurred by a Gaussian of 0.6
pixels, standard deviation 4 in mid-tones and less towards black and white. Coded: the grainy video by x264 at CRF 20.

PSNR is of the luma, in dB, mean of the frames; flicker as in `videosr.evaluate.temporal`. Grain is the mean square of
what grain on the input changes in the output, as a share of that of `off`. The noise that adaptive reuse sees is
printed beside them.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from common import among, count, existing, run

from videosr import metrics, temporal
from videosr.engines import Engine, load
from videosr.evaluate.temporal import flicker
from videosr.evaluate.video import Reference, recoded, shrink
from videosr.frame import Frame
from videosr.models import registry
from videosr.options import UpscaleOptions
from videosr.temporal import Mode
from videosr.upscaler import Upscaler

Plane = np.ndarray[Any, np.dtype[Any]]
KINDS = ("clean", "noise", "grain", "coded")


@dataclass(frozen=True)
class Cell:
    """Means over the frames: dB, code values, and the share of the grain that `off` shows (None but for grain)."""

    psnr: float
    flicker: float
    grain: float | None = None

    def __str__(self) -> str:
        kept = "" if self.grain is None else f" / {self.grain:.0%}"
        return f"{self.psnr:.2f} dB / {self.flicker:.2f}{kept}"


def noisy(video: Sequence[Frame], rng: np.random.Generator) -> list[Frame]:
    return [f.with_planes(tuple(rounded(p + rng.normal(0, 4, p.shape)) for p in f.planes)) for f in video]


def grainy(video: Sequence[Frame], rng: np.random.Generator) -> list[Frame]:
    taps = np.exp(-(np.arange(-2, 3) ** 2) / (2 * 0.6**2))
    out = []
    for frame in video:
        y, *chroma = frame.planes
        grain = rng.normal(0, 1, y.shape)
        for axis in (0, 1):
            grain = np.apply_along_axis(np.convolve, axis, grain, taps / np.sqrt((taps**2).sum()), mode="same")
        tone = np.clip((y.astype(np.float64) - 16) / 219, 0, 1)
        out.append(frame.with_planes((rounded(y + 4 * np.sqrt(4 * tone * (1 - tone)) * grain), *chroma)))
    return out


def rounded(values: Plane) -> Plane:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def luma(frames: Sequence[Frame]) -> list[Plane]:
    return [f.planes[0].astype(np.float32) for f in frames]


def upscaled(engine: Engine, options: UpscaleOptions, video: Sequence[Frame]) -> list[Plane]:
    upscaler = Upscaler(options, engine)
    shown = [f for frame in video for f in upscaler.process(frame)]
    return luma([*shown, *upscaler.flush()])


def measure(shown: Sequence[Plane], truth: Sequence[Plane]) -> tuple[float, float]:
    """Mean PSNR and flicker of upscaled luma."""
    quality = [metrics.psnr(a, b) for a, b in zip(shown, truth, strict=True)]
    pairs = zip(itertools.pairwise(shown), itertools.pairwise(truth), strict=True)
    restless = [value for a, b in pairs if (value := flicker(a, b)) is not None]
    return float(np.mean(quality)), float(np.mean(restless))


def of_source(
    engine: Engine, source: Path, frames: int, modes: Sequence[Mode], denoise: float = 0.0
) -> dict[str, dict[Mode, Cell]]:
    """Every kind of input in every mode; `off` comes first where grain is to be compared."""
    reference = Reference(source, engine.scale, frames)
    truth = luma(list(reference.frames()))
    clean = [shrink(frame, engine.scale) for frame in reference.frames()]
    rng = np.random.default_rng(0)
    inputs = {"clean": clean, "noise": noisy(clean, rng), "grain": grainy(clean, rng)}
    with tempfile.TemporaryDirectory() as folder:
        inputs["coded"] = list(recoded(inputs["grain"], 20, Path(folder) / "coded.mkv")())
    table: dict[str, dict[Mode, Cell]] = {}
    without: dict[Mode, list[Plane]] = {}
    energy: dict[Mode, float] = {}
    for kind, video in inputs.items():
        for mode in modes:
            options = UpscaleOptions(temporal=mode, denoise=0.0 if mode is Mode.OFF else denoise)
            shown = upscaled(engine, options, video)
            kept = None
            if kind == "clean":
                without[mode] = shown
            elif kind == "grain":
                energy[mode] = float(
                    np.mean([np.square(a - b).mean() for a, b in zip(shown, without[mode], strict=True)])
                )
                kept = energy[mode] / energy[Mode.OFF] if Mode.OFF in energy else None
            table.setdefault(kind, {})[mode] = Cell(*measure(shown, truth), kept)
        sees = np.median([temporal.noise_of(b, a).sigma for a, b in itertools.pairwise(video)])
        cells = "   ".join(f"{mode} {cell}" for mode, cell in table[kind].items())
        print(f"{source.name:24} {kind:6} sees {sees:4.1f}  {cells}", flush=True)
    return table


def means(tables: Sequence[dict[str, dict[Mode, Cell]]]) -> dict[str, dict[Mode, Cell]]:
    """The means over the sources."""

    def mean(cells: Sequence[Cell]) -> Cell:
        grain = [c.grain for c in cells if c.grain is not None]
        share = float(np.mean(grain)) if grain else None
        return Cell(float(np.mean([c.psnr for c in cells])), float(np.mean([c.flicker for c in cells])), share)

    return {kind: {mode: mean([t[kind][mode] for t in tables]) for mode in tables[0][kind]} for kind in tables[0]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network")
    parser.add_argument("sources", nargs="+", type=existing)
    parser.add_argument("--frames", type=count, default=24)
    parser.add_argument("--denoise", type=float, default=0.0)
    parser.add_argument("--modes", type=among(list(Mode)), default="off,ema,adaptive")
    args = parser.parse_args()
    engine = load(registry.find(args.network), "openvino", device="cpu", precision="f32", threads=1)
    modes = [Mode(name) for name in args.modes]
    tables = [of_source(engine, source, args.frames, modes, args.denoise) for source in args.sources]
    for kind, cells in means(tables).items():
        print(f"{'mean':24} {kind:6}            " + "   ".join(f"{mode} {cell}" for mode, cell in cells.items()))


if __name__ == "__main__":
    run(main)

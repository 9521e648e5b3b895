"""Measure what the default CPU path costs in precision: the rewritten network against float32 throughout.

    python scripts/precision_bar.py [--model NAME_OR_FILE] [--engine auto] [--precision auto] [--clip CLIP]

The reference goes the long way round: `color.to_rgb`, `temporal.average`, the network as it is in its file in float32,
`color.from_rgb`. Pictures: ramps, flat fields, a synthetic photograph and frames of a clip (by default the sample), in
8 and 10 bits, alone and with a window of noisy frames. Printed are the worst difference in output codes and the share
of samples that differ, away from the border; beside them the worst in the border, where the two repeat different things
beyond the edge (see `engines.openvino_planes`). The bar: one code. Exit 1 above it.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from common import existing, run

from videosr import color, temporal
from videosr.engines import CPU_ENGINES, Engine, Picture, load
from videosr.engines.choice import AUTO, Wish, choose
from videosr.errors import InputError
from videosr.frame import FORMATS, ColorSpec, Frame, Matrix, Range, Siting
from videosr.media.decoder import Decoder
from videosr.models import registry
from videosr.temporal import Mode

type Planes = tuple[np.ndarray[Any, Any], ...]

HEIGHT, WIDTH = 180, 320
LIMITED = ColorSpec(matrix=Matrix.BT709, range=Range.LIMITED, siting=Siting.LEFT)
FULL = replace(LIMITED, range=Range.FULL)
BAR = 1


def frame(values: list[np.ndarray[Any, Any]], name: str, spec: ColorSpec = LIMITED) -> Frame:
    """A frame from planes of values in [0, 1] of the whole code range."""
    fmt = FORMATS[name]
    top = (1 << fmt.bits) - 1
    planes = tuple(np.clip(np.rint(v * top), 0, top).astype(fmt.dtype) for v in values)
    return Frame(planes=planes, format=fmt, pts=0, time_base=Fraction(1, 24), color=color.converted(spec, fmt, fmt))


def synthetic(name: str) -> Iterator[tuple[str, Frame]]:
    """Ramps, flat fields and a photograph-like picture."""
    shapes = [FORMATS[name].plane_shape(i, HEIGHT, WIDTH) for i in range(3)]
    grids = [np.mgrid[:rows, :columns] / np.array([rows, columns]).reshape(2, 1, 1) for rows, columns in shapes]
    for spec, levels in ((LIMITED, "limited"), (FULL, "full range")):
        yield (
            f"ramp in luma, {levels}",
            frame([x if i == 0 else x * 0 + 0.5 for i, (_, x) in enumerate(grids)], name, spec),
        )
    yield "ramps in all planes", frame([(0.2 + 0.6 * (x, y, 1 - x)[i]) for i, (y, x) in enumerate(grids)], name)
    for level in (0.07, 0.25, 0.5, 0.75, 0.92):
        yield f"flat {level:.2f}", frame([x * 0 + (level, 0.45, 0.55)[i] for i, (_, x) in enumerate(grids)], name)
    rng = np.random.default_rng(1)
    planes = []
    for i, (rows, columns) in enumerate(shapes):
        fy, fx = np.fft.fftfreq(rows)[:, None], np.fft.rfftfreq(columns)[None]
        falloff = 1 / np.maximum(np.sqrt(fy**2 + fx**2), 1 / columns)
        clouds = np.fft.irfft2(np.fft.rfft2(rng.normal(size=(rows, columns))) * falloff, s=(rows, columns))
        clouds = 0.5 + (0.2 if i == 0 else 0.08) * clouds / clouds.std()
        clouds[rows // 4 : rows // 2, columns // 8 : columns // 4] = 0.9 if i == 0 else 0.5
        planes.append(clouds)
    yield "1/f noise and edges", frame(planes, name)
    yield "white noise", frame([rng.random(shape) for shape in shapes], name)


def natural(clip: Path, name: str) -> list[Frame]:
    """Three frames of a clip; above 8 bits each is the mean of two neighbours, so that all bits are in use."""
    with Decoder(clip) as decoder:
        frames = list(itertools.islice(decoder, 62))
    if len(frames) < 62 or frames[0].format.name != "yuv420p":
        raise InputError(f"{clip}: at least 62 frames in 8-bit 4:2:0 are needed")
    fmt = FORMATS[name]
    found = []
    for i in (0, 30, 60):
        a, b = frames[i], frames[i + 1]
        step = 1 << (fmt.bits - a.format.bits)
        planes = tuple(
            (p.astype(np.uint32) * step if step == 1 else (p.astype(np.uint32) + q) * step // 2).astype(fmt.dtype)
            for p, q in zip(a.planes, b.planes, strict=True)
        )
        found.append(a.with_planes(planes, fmt))
    return found


def noisy(clean: Frame, count: int = temporal.DEPTH) -> list[Frame]:
    """A window, newest first: the frame under fresh grain of sigma 4 (in 8-bit codes), moving a little."""
    rng, fmt = np.random.default_rng(2), clean.format
    top = (1 << fmt.bits) - 1
    return [
        clean.with_planes(
            tuple(
                np.clip(np.rint(np.roll(p, t, axis=1) + rng.normal(0, 4 / 255 * top, p.shape)), 0, top).astype(p.dtype)
                for p in clean.planes
            )
        )
        for t in range(count)
    ]


def compare(engine: Engine, exact: Engine, window: list[Frame]) -> tuple[int, float, int]:
    """(worst inside, share of samples inside that differ, worst in the border), in output codes."""
    newest, scale = window[0], engine.scale
    source = Picture(height=newest.height, width=newest.width, format=newest.format, color=newest.color)
    target = replace(source, height=source.height * scale, width=source.width * scale)
    threshold = temporal.threshold(window)
    runner = engine.planar(source, target, len(window))
    if runner is None:
        sys.exit(f"{engine.network.path}: has no planar form to measure")
    got = runner.result(runner.submit([f.planes for f in window], threshold))

    rgb = color.to_rgb(newest.planes, newest.format, newest.color)[None]
    average = None
    if len(window) > 1:
        planes = temporal.average(window, Mode.ADAPTIVE, threshold)
        average = color.to_rgb(planes, newest.format, newest.color)[None]
    apart = exact.network.chroma_apart(source.format, target.format)
    chroma = (newest.planes, source.format, source.color) if apart else None
    out = exact.run(rgb, average)[0]
    wanted = color.from_rgb(out, target.format, target.color, dither=False, chroma=chroma)

    reach = engine.network.number("reach", 0) + 1  # and a chroma sample's width
    inside, differing, samples, border = 0, 0, 0, 0
    for a, b in zip(got, wanted, strict=True):
        d = np.abs(a.astype(np.int32) - b.astype(np.int32))
        rows, columns = reach * scale * d.shape[0] // target.height, reach * scale * d.shape[1] // target.width
        inner = d[rows:-rows, columns:-columns]
        inside, differing, samples = (
            max(inside, int(inner.max())),
            differing + int((inner > 0).sum()),
            samples + inner.size,
        )
        ring = d.copy()
        ring[rows:-rows, columns:-columns] = 0
        border = max(border, int(ring.max()))
    return inside, differing / samples, border


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=registry.DEFAULT)
    parser.add_argument("--engine", choices=(AUTO, *CPU_ENGINES), default=AUTO)
    parser.add_argument("--precision", choices=("auto", "f32", "bf16", "f16"), default="auto")
    parser.add_argument("--clip", type=existing, default=Path(__file__).parent.parent / "samples" / "bunny.mp4")
    options = parser.parse_args()
    path = registry.find(options.model)
    engine, wish, _ = choose(path, Wish(engine=options.engine, device="cpu", precision=options.precision))
    exact = load(path, precision="f32")
    form = f"{engine.network.name} by {wish.engine}: {engine.precision} in planes"
    print(f"{form} against f32 in tensors; differences in output codes")
    print(f"{'format':<13}{'picture':<30}{'worst':>6}{'differing':>11}{'border':>8}")
    worst = 0
    for name in ("yuv420p", "yuv420p10le"):
        pictures = [(label, [picture]) for label, picture in synthetic(name)]
        frames = natural(options.clip, name)
        pictures += [(f"{options.clip.name}, frame {i}", [f]) for i, f in zip((0, 30, 60), frames, strict=True)]
        pictures += [(f"{options.clip.name}, noisy window", noisy(f)) for f in frames[:1]]
        for label, window in pictures:
            inside, share, border = compare(engine, exact, window)
            worst = max(worst, inside)
            print(f"{name:<13}{label:<30}{inside:>6}{share:>11.4%}{border:>8}", flush=True)
    print(f"worst difference away from the border: {worst} (allowed {BAR})")
    return worst > BAR


if __name__ == "__main__":
    run(main)

"""Pictures for tests of planar forms, and the long way round: to R'G'B', the network, back."""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from videosr import color
from videosr.engines import Picture
from videosr.frame import FORMATS, ColorSpec, Frame, Matrix, Range, Siting

LEFT = ColorSpec(matrix=Matrix.BT709, range=Range.LIMITED, siting=Siting.LEFT)
RGB = ColorSpec(matrix=Matrix.RGB, range=Range.FULL)


def picture(height, width, format="yuv420p", spec=LEFT):
    fmt = FORMATS[format]
    return Picture(height=height, width=width, format=fmt, color=color.converted(spec, fmt, fmt))


def planes_of(source: Picture, seed: int = 0) -> tuple[np.ndarray, ...]:
    """Waves, a hard edge, noise, a flat part: codes from near 0 to near the top."""
    fmt, rng = source.format, np.random.default_rng(seed)
    planes = []
    for i in range(fmt.planes - fmt.alpha):
        rows, columns = fmt.plane_shape(i, source.height, source.width)
        y, x = np.mgrid[:rows, :columns].astype(np.float64)
        value = 0.5 + 0.25 * np.sin(x / 3 + i + seed) * np.cos(y / 4) + rng.normal(0, 0.05, x.shape)
        value = np.where(x + 2 * y > columns, value * 0.6 + 0.1, value)
        value[: rows // 4, : columns // 3] = 0.8 - 0.2 * i
        planes.append(np.clip(np.rint(value * ((1 << fmt.bits) - 1)), 0, (1 << fmt.bits) - 1).astype(fmt.dtype))
    return tuple(planes)


def target_of(source: Picture, scale: int, format: str | None = None) -> Picture:
    fmt = FORMATS[format] if format else source.format
    spec = color.converted(source.color, source.format, fmt)
    return Picture(height=source.height * scale, width=source.width * scale, format=fmt, color=spec)


def long_way(engine, source, target, planes, average=None, denoise=0.0):
    """By `color` and `Engine.run`; `average` in float codes."""
    rgb = color.to_rgb(planes, source.format, source.color)
    mean = None
    if average is not None:
        mean = color.to_rgb(average, source.format, source.color)
        rgb = rgb + np.float32(denoise) * (mean - rgb)
        mean = mean[None]
    chroma = None
    if engine.network.chroma_apart(source.format, target.format):
        if average is not None:
            planes = tuple(p + np.float32(denoise) * (a - p) for p, a in zip(planes, average, strict=True))
        chroma = planes, source.format, source.color
    out = engine.run(rgb[None], mean)[0]
    return color.from_rgb(out, target.format, target.color, dither=False, chroma=chroma)


def differences(got, wanted):
    assert len(got) == len(wanted)
    for a, b in zip(got, wanted, strict=True):
        assert a.shape == b.shape
        assert a.dtype == b.dtype
    return [np.abs(a.astype(int) - b.astype(int)) for a, b in zip(got, wanted, strict=True)]


def assert_one_code(got, wanted, scale=2):
    """Equal to one code where the network sees nothing beyond the picture's edge, and close everywhere in luma."""
    reach = 8  # the network's 7, and a chroma sample's width; beyond the edge the two repeat different things
    height, width = wanted[0].shape
    top = 255 if wanted[0].dtype == np.uint8 else 1023
    for i, d in enumerate(differences(got, wanted)):
        down, across = round(scale * reach * d.shape[0] / height), round(scale * reach * d.shape[1] / width)
        inside = d[down:-down, across:-across]
        assert inside.size > d.size / 5
        assert inside.max() <= 1
        assert np.mean(inside > 0) < 0.01  # rounding at a half, not a systematic shift
        if i == 0:
            assert d.max() <= 0.04 * top


def window_frames(count, source):
    base, rng = planes_of(source), np.random.default_rng(9)
    top = (1 << source.format.bits) - 1
    frames = []
    for t in range(count):
        planes = tuple(
            np.clip(np.roll(p.astype(int), t, axis=1) + rng.normal(0, top / 100, p.shape), 0, top).astype(p.dtype)
            for p in base
        )
        frames.append(Frame(planes=planes, format=source.format, pts=-t, time_base=Fraction(1), color=source.color))
    return frames

"""Measure temporal reuse: PSNR and flicker of `off`, `ema` and `adaptive` on clean, noisy and grainy video.

    python scripts/temporal_bar.py NETWORK SOURCE... [--frames N] [--denoise STRENGTH] [--modes off,adaptive]

NETWORK: a network file with the inputs frame and average. SOURCE: a folder of frames (PNG), or a clip, whose frames are
the truth. Each frame is halved by antialiased bicubic, made 8-bit 4:2:0, and upscaled as users would have it done.
Noise: Gaussian, sigma 4 on every plane. Grain: film-like, on the luma alone, blurred by a Gaussian of 0.6 pixels,
standard deviation 4 in mid-tones and less towards black and white. Coded: the grainy video through x264 at CRF 20.

PSNR is of the luma, in dB. Flicker is the mean absolute difference between the luma's change from frame to frame and
the truth's, where the truth stands still (changes by at most 2 code values). The noise that adaptive reuse sees is
printed beside them.
"""

from __future__ import annotations

import argparse
import io
import itertools
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from videosr import color, metrics, temporal
from videosr.engines import Engine, load
from videosr.evaluate import list_images, read_image
from videosr.frame import ColorSpec, Frame, Matrix, PixelFormat, Range, Siting
from videosr.temporal import Mode
from videosr.upscaler import UpscaleOptions, Upscaler

Plane = np.ndarray[Any, np.dtype[Any]]
SPEC = ColorSpec(matrix=Matrix.BT709, range=Range.LIMITED, siting=Siting.LEFT)
FORMAT = PixelFormat.parse("yuv420p")
STILL = 2.0


def pictures(source: Path, count: int) -> Iterator[Plane]:
    """The first frames of a folder or clip as 8-bit R'G'B', sizes made multiples of 4."""
    if source.is_dir():
        found: Iterator[Plane] = (read_image(path) for path in list_images(source)[:count])
    else:
        found = decoded(source, count)
    for rgb in found:
        yield rgb[: rgb.shape[0] // 4 * 4, : rgb.shape[1] // 4 * 4]


def decoded(source: Path, count: int) -> Iterator[Plane]:
    with av.open(str(source)) as container:
        for n, frame in enumerate(container.decode(video=0)):
            if n == count:
                return
            yield frame.to_ndarray(format="rgb24")


def planes(rgb: Plane) -> tuple[Plane, ...]:
    values = rgb.astype(np.float32).transpose(2, 0, 1) / 255
    return color.from_rgb(values, FORMAT, SPEC, dither=False)


def noisy(video: list[tuple[Plane, ...]], rng: np.random.Generator) -> list[tuple[Plane, ...]]:
    return [tuple(rounded(p + rng.normal(0, 4, p.shape)) for p in frame) for frame in video]


def grainy(video: list[tuple[Plane, ...]], rng: np.random.Generator) -> list[tuple[Plane, ...]]:
    taps = np.exp(-(np.arange(-2, 3) ** 2) / (2 * 0.6**2))
    out = []
    for y, *chroma in video:
        grain = rng.normal(0, 1, y.shape)
        for axis in (0, 1):
            grain = np.apply_along_axis(np.convolve, axis, grain, taps / np.sqrt((taps**2).sum()), mode="same")
        tone = np.clip((y.astype(np.float64) - 16) / 219, 0, 1)
        out.append((rounded(y + 4 * np.sqrt(4 * tone * (1 - tone)) * grain), *chroma))
    return out


def rounded(values: Plane) -> Plane:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def coded(video: list[tuple[Plane, ...]]) -> list[tuple[Plane, ...]]:
    """The video after x264 at CRF 20, preset veryfast."""
    height, width = video[0][0].shape
    file = io.BytesIO()
    with av.open(file, "w", format="matroska") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "20", "preset": "veryfast"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for frame in video:
            stacked = np.concatenate([p.reshape(-1) for p in frame]).reshape(height * 3 // 2, width)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(stacked, format="yuv420p")))
        container.mux(stream.encode())
    file.seek(0)
    out = []
    with av.open(file) as container:
        for picture in container.decode(video=0):
            flat = picture.to_ndarray(format="yuv420p").reshape(-1)
            out.append(
                tuple(p.reshape(q.shape) for p, q in zip(np.split(flat, splits(video[0])), video[0], strict=True))
            )
    return out


def splits(frame: tuple[Plane, ...]) -> list[int]:
    return [int(n) for n in np.cumsum([p.size for p in frame])[:-1]]


def measure(
    engine: Engine, options: UpscaleOptions, video: list[tuple[Plane, ...]], truth: list[Plane]
) -> tuple[float, float]:
    """Mean PSNR and flicker of the upscaled luma."""
    upscaler = Upscaler(options, engine)
    frames = (
        Frame(planes=frame, format=FORMAT, pts=n, time_base=Fraction(1, 25), color=SPEC)
        for n, frame in enumerate(video)
    )
    shown = [f.planes[0].astype(np.float32) for frame in frames for f in upscaler.process(frame)]
    shown += [f.planes[0].astype(np.float32) for f in upscaler.flush()]
    quality = [metrics.psnr(a, b) for a, b in zip(shown, truth, strict=True)]
    restless = []
    for n in range(1, len(shown)):
        change = truth[n] - truth[n - 1]
        still = np.abs(change) <= STILL
        restless.append(np.abs(shown[n] - shown[n - 1] - change)[still].mean())
    return float(np.mean(quality)), float(np.mean(restless))


def seen_noise(video: list[tuple[Plane, ...]]) -> float:
    frames = [Frame(planes=f, format=FORMAT, pts=0, time_base=Fraction(1)) for f in video]
    return float(np.median([temporal.noise_sigma(b, a) for a, b in itertools.pairwise(frames)]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network", type=Path)
    parser.add_argument("sources", nargs="+", type=Path)
    parser.add_argument("--frames", type=int, default=24)
    parser.add_argument("--denoise", type=float, default=0.0)
    parser.add_argument("--modes", default="off,ema,adaptive")
    args = parser.parse_args()
    engine = load(args.network, "openvino", device="cpu", precision="f32", threads=1)
    modes = [Mode(name) for name in args.modes.split(",")]
    table: dict[str, list[list[tuple[float, float]]]] = {}
    for source in args.sources:
        hr = list(pictures(source, args.frames))
        truth = [planes(rgb)[0].astype(np.float32) for rgb in hr]
        clean = [planes(metrics.imresize(rgb, 0.5)) for rgb in hr]
        rng = np.random.default_rng(0)
        inputs = {"clean": clean, "noise": noisy(clean, rng), "grain": grainy(clean, rng)}
        inputs["coded"] = coded(inputs["grain"])
        for kind, video in inputs.items():
            row = []
            for mode in modes:
                denoise = 0.0 if mode is Mode.OFF else args.denoise
                row.append(measure(engine, UpscaleOptions(temporal=mode, denoise=denoise), video, truth))
            table.setdefault(kind, []).append(row)
            print(f"{source.name:24} {kind:6} sees {seen_noise(video):4.1f}  " + cells(modes, row), flush=True)
    for kind, rows in table.items():
        mean = [tuple(float(x) for x in np.mean([row[i] for row in rows], axis=0)) for i in range(len(modes))]
        print(f"{'mean':24} {kind:6}            " + cells(modes, mean))


def cells(modes: list[Mode], row: list[Any]) -> str:
    return "   ".join(
        f"{mode} {quality:.2f} dB / {restless:.2f}" for mode, (quality, restless) in zip(modes, row, strict=True)
    )


if __name__ == "__main__":
    main()

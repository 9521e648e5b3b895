"""What real LR pictures have suffered besides shrinking: blur, noise, grain, JPEG, subsampled chroma, video codecs.

The order is that of Real-ESRGAN (Wang et al. 2021): blur, shrink, noise, coding. Everything is drawn from the generator
that a batch is made with, so a batch stays a function of (seed, iteration).
"""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from videosr.color import from_rgb, rgb_from_ycc, to_rgb
from videosr.frame import ColorSpec, Frame, Matrix, PixelFormat, Range, Siting
from videosr.training.codec import Planes, compress, compress_jpeg
from videosr.training.config import DegradationConfig

type Clip = NDArray[np.uint8]
"""(T, H, W, 3) RGB."""

VIDEO = ColorSpec(matrix=Matrix.BT709, range=Range.LIMITED, siting=Siting.LEFT)
"""The colour of nearly all video."""
JFIF = ColorSpec(matrix=Matrix.BT470BG, range=Range.FULL, siting=Siting.CENTER)

SUBSAMPLED, FULL = PixelFormat.parse("yuv420p"), PixelFormat.parse("yuv444p")
GRAY = PixelFormat.parse("gray")
_LUMA = np.linalg.inv(rgb_from_ycc(Matrix.BT709))[0].astype(np.float32)


def blur(clip: Clip, sigma: tuple[float, float], angle: float) -> Clip:
    """Anisotropic Gaussian blur, by its transfer function exp(-2 pi^2 f' S f) on the spectrum; edges are repeated.

    Args:
        clip: (T, H, W, 3).
        sigma: standard deviations along the two axes, pixels.
        angle: of the first axis, radians.
    """
    rim = int(np.ceil(3 * max(sigma)))
    padded = np.pad(clip.astype(np.float32), ((0, 0), (rim, rim), (rim, rim), (0, 0)), mode="edge")
    response = _gaussian(padded.shape[1:3], sigma, angle)[..., None]
    spectrum = np.fft.rfft2(padded, axes=(1, 2)) * response
    blurred = np.fft.irfft2(spectrum, s=padded.shape[1:3], axes=(1, 2))
    return _rounded(blurred[:, rim : rim + clip.shape[1], rim : rim + clip.shape[2]])


def blur_some(clip: Clip, config: DegradationConfig, rng: np.random.Generator) -> Clip:
    """`blur` by its share, at a random angle; the clip itself where it is left as it is."""
    if rng.random() >= config.blur:
        return clip
    sigma = rng.uniform(*config.blur_sigma), rng.uniform(*config.blur_sigma)
    return blur(clip, sigma, rng.uniform(0, np.pi))


def soften_chroma(clip: Clip, sigma: float) -> Clip:
    """Gaussian blur of how R', G' and B' differ from luma (BT.709), as of what cameras and tape record.

    Args:
        clip: (T, H, W, 3).
        sigma: standard deviation, pixels; 0 leaves the clip as it is.
    """
    if not sigma:
        return clip
    soft = blur(clip, (sigma, sigma), 0.0)
    return _rounded(soft + (clip.astype(np.float32) - soft) @ _LUMA[:, None])


def _gaussian(shape: tuple[int, ...], sigma: tuple[float, float], angle: float = 0.0) -> NDArray[np.float32]:
    """The transfer function of a Gaussian blur on a picture's `rfft2`."""
    down, across = np.fft.fftfreq(shape[0])[:, None], np.fft.rfftfreq(shape[1])
    first, second = across * np.cos(angle) + down * np.sin(angle), down * np.cos(angle) - across * np.sin(angle)
    exponent = (sigma[0] * first) ** 2 + (sigma[1] * second) ** 2
    return np.asarray(np.exp(-2 * np.pi**2 * exponent), np.float32)


def add_noise(clip: Clip, sigma: float, gray: bool, rng: np.random.Generator) -> Clip:
    """White Gaussian noise of `sigma` code values, fresh in every frame; `gray`: the same in all channels."""
    shape = (*clip.shape[:3], 1 if gray else 3)
    return _rounded(clip + rng.standard_normal(shape, np.float32) * np.float32(sigma))


def add_grain(clip: Clip, sigma: float, size: float, rng: np.random.Generator) -> Clip:
    """Film grain: noise of luma, blurred by `size` pixels, fresh in every frame.

    Its strength follows 4 y (1 - y) of the luma y, so it is `sigma` code values in the mid-tones and nothing in black
    and white, where film has none to show.
    """
    noise = rng.standard_normal(clip.shape[:3], np.float32)
    response = _gaussian(clip.shape[1:3], (size, size))
    noise = np.fft.irfft2(np.fft.rfft2(noise) * response, s=clip.shape[1:3])
    noise *= np.float32(sigma) / np.linalg.norm(np.fft.irfft2(response, s=clip.shape[1:3]))
    y = clip @ np.array([0.2126, 0.7152, 0.0722], np.float32) / 255
    return _rounded(clip + (noise * 4 * y * (1 - y))[..., None])


def jpeg(clip: Clip, quantiser: float) -> Clip:
    """Every frame through JPEG with 4:2:0 chroma; `quantiser` is FFmpeg's qscale."""
    coded = [compress_jpeg(_planes(picture, SUBSAMPLED, JFIF), quantiser) for picture in clip]
    return _rounded(np.stack([_pixels(planes, SUBSAMPLED, JFIF) for planes in coded]) * 255)


def cutblur(height: int, width: int, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Where CutBlur (Yoo et al. 2020) puts undegraded pixels into an LR picture: (H, W, 1), a rectangle or all else.

    The paper mixes HR with LR enlarged to its size, as input of networks that work at that size. Where the network
    takes LR, the HR content at its size is the undegraded LR: what is learned stays how much to restore, and where. The
    rectangle has 0.1 to 0.9 of the picture's height and width.
    """
    rows, columns = (max(1, round(size * rng.uniform(0.1, 0.9))) for size in (height, width))
    top, left = rng.integers(height - rows + 1), rng.integers(width - columns + 1)
    mask = np.zeros((height, width, 1), np.bool_)
    mask[top : top + rows, left : left + columns] = True
    return mask if rng.integers(2) else ~mask


def degrade_pixels(clip: Clip, config: DegradationConfig, rng: np.random.Generator) -> Clip:
    """Noise, grain and JPEG, each by its share."""
    if rng.random() < config.noise:
        clip = add_noise(clip, rng.uniform(*config.noise_sigma), bool(rng.integers(2)), rng)
    if rng.random() < config.grain:
        clip = add_grain(clip, rng.uniform(*config.grain_sigma), rng.uniform(0.3, 1.0), rng)
    if rng.random() < config.jpeg:
        clip = jpeg(clip, rng.uniform(*config.jpeg_quantiser))
    return clip


def as_video(clips: list[Clip], config: DegradationConfig, rng: np.random.Generator) -> list[list[Frame] | None]:
    """The clips that become video, as the frames that a decoder would give; None for those that stay as they are.

    All that are compressed are so as tiles of one larger picture, with one setting: one encoder a batch is fast, and
    encoders spread bits over a picture. Tiles begin at whole macroblocks.
    """
    frames: list[list[Frame] | None] = []
    coded: list[int] = []
    for i, clip in enumerate(clips):
        compressed, subsampled = rng.random() < config.video, rng.random() < config.chroma
        if compressed:
            coded.append(i)
        frames.append(to_frames(clip, SUBSAMPLED) if compressed or subsampled else None)
    if coded:
        codec, preset = (names[rng.integers(len(names))] for names in (config.codecs, config.presets))
        chosen = [[_yuv(frame) for frame in frames[i] or []] for i in coded]
        for i, planes in zip(coded, _compress_tiles(chosen, codec, rng.uniform(*config.crf), preset), strict=True):
            frames[i] = [_frame(p, SUBSAMPLED) for p in planes]
    return frames


def to_frames(clip: Clip, fmt: PixelFormat = FULL) -> list[Frame]:
    """A clip as video frames of 8 bits."""
    return [_frame(_planes(picture, fmt, VIDEO), fmt) for picture in clip]


def residual(frames: list[Frame], clean: Clip) -> list[Frame]:
    """What degradations did to the luma of some frames, as gray frames of that about mid-gray.

    Args:
        frames: degraded.
        clean: the same frames undegraded, (T, H, W, 3).
    """
    lumas = [
        (frame.planes[0], undegraded.planes[0]) for frame, undegraded in zip(frames, to_frames(clean), strict=True)
    ]
    differences = [np.clip(128 + a.astype(np.int16) - b, 0, 255).astype(np.uint8) for a, b in lumas]
    return [replace(frame, planes=(d,), format=GRAY) for frame, d in zip(frames, differences, strict=True)]


def to_pixels(planes: tuple[Any, ...], fmt: PixelFormat) -> NDArray[np.float32]:
    """Video planes, or an average of some, as the network is given them: (H, W, 3) RGB, nominally 0..1."""
    return _pixels(planes, fmt, VIDEO)


def _compress_tiles(clips: list[list[Planes]], codec: Any, crf: float, preset: str) -> list[list[Planes]]:
    """Clips of one size and length, side by side in one picture."""
    height, width = clips[0][0][0].shape
    tall, wide = -(-height // 16) * 16, -(-width // 16) * 16  # whole macroblocks each
    across = int(np.ceil(np.sqrt(len(clips))))
    spots = [(i // across * tall, i % across * wide) for i in range(len(clips))]
    rows, columns = (spots[-1][0] + tall), across * wide
    sheets: list[Planes] = []
    for t in range(len(clips[0])):
        sheet = tuple(np.full((rows // s, columns // s), 128, np.uint8) for s in (1, 2, 2))
        for clip, (y, x) in zip(clips, spots, strict=True):
            for plane, part, s in zip(sheet, clip[t], (1, 2, 2), strict=True):
                room = ((0, tall // s - part.shape[0]), (0, wide // s - part.shape[1]))
                plane[y // s : (y + tall) // s, x // s : (x + wide) // s] = np.pad(part, room, mode="edge")
        sheets.append((sheet[0], sheet[1], sheet[2]))
    results: list[list[Planes]] = [[] for _ in clips]
    for sheet in compress(sheets, codec, crf, preset):
        for result, (y, x) in zip(results, spots, strict=True):
            parts = [
                plane[y // s : y // s + -(-height // s), x // s : x // s + -(-width // s)]
                for plane, s in zip(sheet, (1, 2, 2), strict=True)
            ]
            result.append((parts[0], parts[1], parts[2]))
    return results


def _planes(picture: NDArray[np.uint8], fmt: PixelFormat, color: ColorSpec) -> Planes:
    rgb = np.divide(picture, 255, dtype=np.float32).transpose(2, 0, 1)
    y, blue, red = from_rgb(rgb, fmt, color, dither=False)
    return y, blue, red


def _pixels(planes: tuple[Any, ...], fmt: PixelFormat, color: ColorSpec) -> NDArray[np.float32]:
    return np.asarray(to_rgb(planes, fmt, color).transpose(1, 2, 0), np.float32)


def _frame(planes: Planes, fmt: PixelFormat) -> Frame:
    return Frame(planes=planes, format=fmt, pts=0, time_base=Fraction(1, 25), color=VIDEO)


def _yuv(frame: Frame) -> Planes:
    y, blue, red = frame.planes
    return y, blue, red


def _rounded(clip: NDArray[Any]) -> Clip:
    return np.clip(np.floor(clip + 0.5), 0, 255).astype(np.uint8)

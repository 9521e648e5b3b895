"""Measuring an upscaler against images whose high-resolution original is known."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from videosr.errors import EngineError, InputError
from videosr.evaluate.perceptual import Perceptual
from videosr.media.stills import jpegs
from videosr.metrics import imresize, psnr, ssim, to_y

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")

type Upscale = Callable[[NDArray[np.float32]], NDArray[Any]]
"""(H, W, 3) float32 RGB in 0..1 to (scale * H, scale * W, 3), clipped or not."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Scores:
    """How close one image, or a set on average, came to its original.

    Attributes:
        name: of the image file or the folder.
        psnr_rgb: dB, over the whole image and all three channels.
        psnr_y: dB, BT.601 luma, `scale` pixels left out at each edge.
        ssim_y: SSIM of the same luma, the same border left out.
        perceptual: what `perceptual.Perceptual` says, by its names; empty unless asked for.
    """

    name: str
    psnr_rgb: float
    psnr_y: float
    ssim_y: float
    perceptual: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class SetScores:
    """A set of images.

    Attributes:
        mean: averages over the images, dB averaged as dB (the field's way).
        images: each image's own scores.
        model: what was measured, as the caller calls it.
    """

    mean: Scores
    images: tuple[Scores, ...]
    model: str = ""


def evaluate(
    hr_folder: str | Path,
    upscale: Upscale,
    scale: int = 2,
    *,
    lr_folder: str | Path | None = None,
    model: str = "",
    perceptual: Perceptual | None = None,
) -> SetScores:
    """Upscale every image of a set and compare with the originals.

    Args:
        hr_folder: the originals; bottom and right are cropped to a multiple of `scale`.
        upscale: what is measured; its output is clipped and rounded to 8 bits first.
        scale: output pixels an input pixel.
        lr_folder: the inputs, named as the originals or with `x<scale>` appended; None makes them from the originals by
            MATLAB's bicubic `imresize`.
        model: what the result is called.
        perceptual: further measures.

    Raises:
        InputError: a folder or image cannot be used, or the two folders do not pair.
        EngineError: `upscale` returned another size.
    """
    images = []
    for path, given, hr in _pairs(Path(hr_folder), None if lr_folder is None else Path(lr_folder), scale):
        lr = imresize(hr, 1 / scale) if given is None else given
        output = upscale(np.divide(lr, 255, dtype=np.float32))
        if output.shape != hr.shape:
            raise EngineError(f"{path}: upscaled to {output.shape} instead of {hr.shape}: is the scale {scale}?")
        shown = np.clip(np.rint(output * 255.0), 0, 255).astype(np.uint8)
        scores = score(shown, hr, scale, path.name)
        images.append(replace(scores, perceptual=perceptual(shown, hr)) if perceptual else scores)
    count = len(images)
    mean = Scores(
        name=Path(hr_folder).resolve().name,
        psnr_rgb=sum(s.psnr_rgb for s in images) / count,
        psnr_y=sum(s.psnr_y for s in images) / count,
        ssim_y=sum(s.ssim_y for s in images) / count,
        perceptual={name: sum(s.perceptual[name] for s in images) / count for name in images[0].perceptual},
    )
    return SetScores(mean=mean, images=tuple(images), model=model)


def score(image: NDArray[Any], hr: NDArray[Any], scale: int, name: str) -> Scores:
    """One image in code values against its original, both (H, W, 3)."""
    y, hr_y = to_y(image), to_y(hr)
    return Scores(
        name=name,
        psnr_rgb=psnr(image, hr),
        psnr_y=psnr(y, hr_y, border=scale),
        ssim_y=ssim(y, hr_y, border=scale),
    )


def bicubic(scale: int) -> Upscale:
    """The baseline of every table: MATLAB's bicubic `imresize` of the 8-bit image."""
    return lambda image: imresize(np.rint(image * 255).astype(np.uint8), scale).astype(np.float32) / 255


def list_images(folder: str | Path) -> list[Path]:
    """The images under a folder, recursively, in the order of their names.

    Raises:
        InputError: the folder does not exist or holds no image.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder}: not a folder of images")
    found = sorted(p for p in folder.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file())
    if not found:
        raise InputError(f"{folder}: no image ({', '.join(IMAGE_SUFFIXES)}) in it")
    return found


def read_image(path: str | Path) -> NDArray[np.uint8]:
    """One image file as (H, W, 3) RGB, uint8.

    Raises:
        InputError: the file cannot be read as an image, or is damaged.
    """
    try:
        with av.open(f"file:{path}") as container:
            context = container.streams.video[0].codec_context
            if context.codec.name in jpegs.CODECS:
                context.options = jpegs.STRICT  # grey where a download broke off is no original
            frame = next(container.decode(video=0))
            return np.asarray(frame.to_ndarray(format="rgb24"), np.uint8)
    except (av.FFmpegError, OSError, ValueError, IndexError, StopIteration) as exc:
        reason = getattr(exc, "strerror", None) or str(exc) or "no picture in it"
        raise InputError(f"{path}: cannot be read as an image: {reason}") from exc


def crop_to_multiple(image: NDArray[np.uint8], scale: int) -> NDArray[np.uint8]:
    """Without the rows at the bottom and columns at the right that make no whole LR pixel."""
    return image[: image.shape[0] // scale * scale, : image.shape[1] // scale * scale]


def check_images(hr_folder: str | Path, scale: int, lr_folder: Path | None = None) -> None:
    """Raises InputError: `evaluate` would raise it, of these folders or an image in them."""
    for _ in _pairs(Path(hr_folder), lr_folder, scale):
        pass


def _original(path: Path, scale: int) -> NDArray[np.uint8]:
    """An image, cropped. Raises InputError: it cannot be read, or is too small."""
    whole = read_image(path)
    hr = crop_to_multiple(whole, scale)
    if min(hr.shape[:2]) < 2 * scale + 11:
        size = f"{whole.shape[1]}x{whole.shape[0]}"
        raise InputError(f"{path}: {size} pixels are too few to measure at a scale of {scale}: remove it")
    return hr


def _pairs(
    hr_folder: Path, lr_folder: Path | None, scale: int
) -> Iterator[tuple[Path, NDArray[np.uint8] | None, NDArray[np.uint8]]]:
    """(path of the original, LR if there is a folder of them, HR), both uint8."""
    originals = list_images(hr_folder)
    placed: defaultdict[Path, list[Path]] = defaultdict(list)
    named: defaultdict[str, list[Path]] = defaultdict(list)
    for path in [] if lr_folder is None else list_images(lr_folder):
        placed[path.relative_to(lr_folder or path).with_suffix("")].append(path)
        named[path.stem].append(path)
    for path in originals:
        hr = _original(path, scale)
        if lr_folder is None:
            yield path, None, hr
            continue
        name = path.relative_to(hr_folder).with_suffix("")
        names = name, name.with_name(f"{name.name}x{scale}")
        found = [p for n in names for p in placed[n]]  # in folders alike; else by the name alone
        found = found or [p for n in names for p in named[n.name]]
        if not found:
            raise InputError(f"{path}: has no partner {names[0]} or {names[1]} in {lr_folder}")
        partner, *others = found
        if others:
            raise InputError(f"{path}: {partner} and {others[0]} may be made of it: put them into folders like its own")
        lr = read_image(partner)
        if (lr.shape[0] * scale, lr.shape[1] * scale) != hr.shape[:2]:
            raise InputError(f"{partner}: is {lr.shape[:2]}, not 1/{scale} of {path.name}'s {hr.shape[:2]}")
        yield path, lr, hr

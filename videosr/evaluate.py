"""Measuring an upscaler against images whose high-resolution original is known."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from videosr.errors import InputError

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")


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
        InputError: the file cannot be read as an image.
    """
    try:
        with av.open(str(path)) as container:
            frame = next(container.decode(video=0))
            return np.asarray(frame.to_ndarray(format="rgb24"))
    except (OSError, ValueError, IndexError, StopIteration) as exc:
        raise InputError(f"{path}: cannot be read as an image: {exc}") from exc

"""Degraded copies of whole packed pictures, made once: real compression at the price of a look-up.

A codec that is given patches spends its time on starting up, and sees pictures of one macroblock. Given whole pictures
it is many times faster for each pixel, spreads its bits as it does over a film, and what it made serves every patch.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from videosr.files import write_atomically, written
from videosr.metrics import imresize
from videosr.training import degradations
from videosr.training.config import TrainingConfig
from videosr.training.packing import Entry, Pixels, read_entries
from videosr.training.packing import pixels as as_rgb
from videosr.training.panning import pan

_AHEAD = 8  # pictures under way for each thread


class Copies:
    """What `build_copies` made.

    Args:
        folder: where it is.
        entries: of the pack.
        scale: from LR to HR.
    """

    def __init__(self, folder: Path, entries: list[Entry], scale: int) -> None:
        self._frames: list[list[int]] = json.loads((folder / "copies.json").read_text())["frames"]
        self._pixels = np.memmap(folder / "copies.npy", np.uint8, "r")
        self._sizes = [(e.height // scale, e.width // scale) for e in entries]
        each = [len(frames) * h * w * 3 for frames, (h, w) in zip(self._frames, self._sizes, strict=True)]
        self._offsets = np.cumsum([0, *each])

    def copy(self, entry: int, number: int) -> tuple[Pixels, int]:
        """A degraded LR picture (rows, columns, 3), and which frame of the packed clip it is of.

        Args:
            entry: of the pack.
            number: of the copy; any integer from 0, they repeat.
        """
        frames, (height, width) = self._frames[entry], self._sizes[entry]
        number %= len(frames)
        size = height * width * 3
        start = self._offsets[entry] + number * size
        return self._pixels[start : start + size].reshape(height, width, 3), frames[number]


def build_copies(folder: Path, config: TrainingConfig, say: Callable[[str], None]) -> None:
    """Degrade every picture of the pack in `folder` `degradation.copies` times: `copies.npy` and `copies.json` there.

    Each copy is the LR picture of one frame of a clip of `data.frames` that went through the degradations as a whole:
    blur, shrinking, noise, coding. Rows and columns that make no whole LR pixel are left out. Copies made from the same
    pack and settings are kept.

    Args:
        folder: of the pack.
        config: the run.
        say: called with lines for the user.

    Raises:
        InputError: FFmpeg lacks a codec.
    """
    pack, entries = read_entries(folder)
    settings = (pack, config.network.scale, config.data.frames, config.degradation, config.schedule.seed)
    key = hashlib.sha256(repr(settings).encode()).hexdigest()
    index_path, data_path = folder / "copies.json", folder / "copies.npy"
    if index_path.exists() and data_path.exists() and json.loads(index_path.read_text())["key"] == key:
        return
    count = config.degradation.copies
    say(f"degrading {len(entries)} pictures {count} times")
    pixels = np.memmap(folder / "pack.npy", np.uint8, "r")
    jobs = [(i, number) for i in range(len(entries)) for number in range(count)]

    def degrade(job: tuple[int, int]) -> tuple[Pixels, int]:
        return _degraded(pixels, entries[job[0]], np.random.default_rng((config.schedule.seed, *job)), config)

    made: list[int] = []
    index_path.unlink(missing_ok=True)  # a run that is killed must leave no index of other data
    partial = data_path.with_suffix(".partial")
    with written(data_path, partial) as file, ThreadPoolExecutor(max(config.data.workers, 1)) as pool:
        step = _AHEAD * max(config.data.workers, 1)
        for first in range(0, len(jobs), step):  # no more of them in memory than are under way
            for picture, frame in pool.map(degrade, jobs[first : first + step]):
                file.write(picture.tobytes())
                made.append(frame)
    frames = [made[i : i + count] for i in range(0, len(made), count)]
    write_atomically(index_path, json.dumps({"key": key, "frames": frames}).encode())


def _degraded(pixels: Pixels, entry: Entry, rng: np.random.Generator, config: TrainingConfig) -> tuple[Pixels, int]:
    """One copy, and the frame of the packed clip that it is of."""
    scale, length, settings = config.network.scale, config.data.frames, config.degradation
    frames = entry.pictures(pixels)
    height, width = (size // scale * scale for size in frames.shape[1:3])
    frames = frames[:, :height, :width]
    shown = int(rng.integers(length))
    clip = frames[:length] if entry.frames > 1 else pan(frames[0], length, shown, rng)
    clip = degradations.blur_some(clip, settings, rng)
    lr = degradations.degrade_pixels(np.stack([imresize(f, 1 / scale) for f in clip]), settings, rng)
    (video,) = degradations.as_video([lr], settings, rng)
    picture = lr[shown] if video is None else as_rgb(video[shown])
    return picture, shown if entry.frames > 1 else 0

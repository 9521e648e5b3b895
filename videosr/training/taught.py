"""Regions of the pictures with what the teacher makes of them, made once: a lesson at the price of a look-up.

A teacher worth listening to takes many times as long as who learns from it. Shown each region once, it has said all it
knows of it; patches are then cut from those regions, turned and mirrored, as often as the run needs them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from videosr.files import write_atomically, written
from videosr.training.config import RIM, TrainingConfig
from videosr.training.data import Batch, PatchSampler, texture
from videosr.training.packing import read_entries
from videosr.training.teacher import Teacher

_STEPS, _ZERO = 32768, 0.25  # values from -0.25 to 1.75 as 16 bits, a hundred times as fine as 8-bit codes
_AT_ONCE = 4


def coded(values: NDArray[Any]) -> NDArray[np.uint16]:
    """Nominal 0..1 as it is stored, to 1/65536."""
    codes: NDArray[np.uint16] = np.rint((values + _ZERO) * _STEPS).clip(0, 65535).astype(np.uint16)
    return codes


def values(codes: NDArray[np.uint16]) -> NDArray[np.float32]:
    """Back again, float32."""
    return codes.astype(np.float32) / np.float32(_STEPS) - np.float32(_ZERO)


class TaughtSampler(PatchSampler):
    """Draws patches from what `build_taught` made; patterns stay what they are.

    A batch is a pure function of (seed, iteration) here too.

    Args:
        folder: of the run.
        config: the run.
    """

    def __init__(self, folder: Path, config: TrainingConfig) -> None:
        super().__init__(folder, config)
        assert config.teacher is not None
        edge = config.teacher.edge
        self._lr, self._target = (
            np.memmap(folder / f"taught_{name}.npy", np.uint16, "r").reshape(-1, size, size, 3)
            for name, size in (("lr", edge), ("target", edge * self.scale))
        )

    def batch(self, iteration: int) -> Batch:
        """What one iteration learns from: both float32, nominally in 0..1."""
        rng, data = np.random.default_rng((self.config.schedule.seed, iteration)), self.data
        plan = self.plan(iteration, rng)
        regions = rng.integers(len(self._lr), size=(data.batch, data.candidates))
        corners = rng.integers(RIM, self._lr.shape[1] - RIM - data.patch + 1, size=(*regions.shape, 2))
        lr, hr = [], []
        for i, made in enumerate(plan.made):
            small, target = self._pattern(made) if made >= 0 else self._patch(regions[i], corners[i])
            step = -1 if plan.mirrored[i] else 1
            lr.append(np.rot90(small, plan.turned[i])[:, ::step])
            hr.append(np.rot90(target, plan.turned[i])[:, ::step])
        return Batch(np.stack(lr), np.stack(hr))

    def _pattern(self, number: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        region = _nominal(self.made(number))
        inside = slice(self.margin, self.hr_size - self.margin)
        return region[self.cells, self.cells], region[inside, inside]

    def _patch(
        self, regions: NDArray[np.int64], corners: NDArray[np.int64]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """The candidate with the most gradient energy, and what is to be learned of it."""
        size, scale = self.data.patch, self.scale
        found = [(n, y, x) for n, (y, x) in zip(regions, corners, strict=True)]
        if len(found) > 1:
            n, y, x = max(found, key=lambda at: texture(self._lr[at[0], at[1] : at[1] + size, at[2] : at[2] + size]))
        else:
            n, y, x = found[0]
        target = self._target[n, scale * y : scale * (y + size), scale * x : scale * (x + size)]
        return values(self._lr[n, y : y + size, x : x + size]), values(target)


def build_taught(folder: Path, config: TrainingConfig, teacher: Teacher, say: Callable[[str], None]) -> None:
    """Have the teacher look at `teacher.regions` regions: `taught_lr.npy`, `taught_target.npy` (flat), `taught.json`.

    The regions are drawn as patches are, each the most textured of its candidates, with the degradations of the run.
    What was made from the same pack, teacher and settings is kept.

    Args:
        folder: of the run, with the pack.
        config: the run; its `teacher` names the number of regions and their edge.
        teacher: that one.
        say: called with lines for the user.
    """
    lessons = config.teacher
    assert lessons is not None
    weights = hashlib.sha256(lessons.weights.read_bytes()).hexdigest()
    drawn = (config.network.scale, config.data.frames, config.data.candidates, config.schedule.seed)
    settings = (read_entries(folder)[0], weights, lessons.share, lessons.regions, lessons.edge, drawn)
    key = hashlib.sha256(repr((settings, config.degradation)).encode()).hexdigest()
    index_path, names = folder / "taught.json", (folder / "taught_lr.npy", folder / "taught_target.npy")
    if all(path.exists() for path in (index_path, *names)) and json.loads(index_path.read_text())["key"] == key:
        return
    index_path.unlink(missing_ok=True)
    data = replace(config.data, patch=lessons.edge, batch=_AT_ONCE, patterns=0.0)
    sampler = PatchSampler(folder, replace(config, data=data))
    edge, count = lessons.edge, lessons.regions
    say(f"having {lessons.weights.stem} look at {count} regions of {edge}x{edge}")
    with ExitStack() as stack:
        inputs, targets = (stack.enter_context(written(name, name.with_suffix(".partial"))) for name in names)
        for first in range(0, count, _AT_ONCE):
            batch, part = sampler.batch(first // _AT_ONCE), slice(min(_AT_ONCE, count - first))
            lr, hr = _nominal(batch.lr[part]), _nominal(batch.hr[part])
            pair = (torch.from_numpy(x).to(teacher.device).permute(0, 3, 1, 2) for x in (lr, hr))
            target = teacher.target(*pair).permute(0, 2, 3, 1).cpu().numpy()
            inputs.write(coded(lr).tobytes())
            targets.write(coded(target).tobytes())
            done = first + len(lr)
            if done * 10 // count > first * 10 // count:
                say(f"{done} of {count} regions")
    write_atomically(index_path, json.dumps({"key": key}).encode())


def _nominal(pictures: NDArray[Any]) -> NDArray[np.float32]:
    """In 0..1."""
    return np.divide(pictures, 255, dtype=np.float32) if pictures.dtype == np.uint8 else pictures

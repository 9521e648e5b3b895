"""Sampling pairs of LR and HR patches, or of clips of them, from packed pictures.

A batch is a pure function of (seed, iteration), so a resumed run sees exactly what an uninterrupted one would.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from videosr import temporal
from videosr.frame import Frame
from videosr.metrics import resize_taps
from videosr.training import degradations
from videosr.training.config import TrainingConfig
from videosr.training.copies import Copies
from videosr.training.packing import Pixels, read_entries
from videosr.training.panning import speed
from videosr.training.patterns import pattern

PATTERNS = 4096
"""How many patterns a run has."""


class Batch(NamedTuple):
    """What a step learns from.

    Attributes:
        lr: (N, patch, patch, 3) RGB, uint8, or float32 nominally in 0..1 where the patches have been video.
        hr: (N, patch * scale, patch * scale, 3), uint8, or float32 from a teacher (see `taught`).
        average: what the detail path sees instead of `lr`, float32; None without a temporal window.
    """

    lr: NDArray[Any]
    hr: NDArray[Any]
    average: NDArray[np.float32] | None = None


class Plan(NamedTuple):
    """Where the patches of a batch are, N of them with C candidates each: integers.

    Attributes:
        entry: (N, C) numbers in `PatchSampler.entries`.
        top: (N, C) first row there.
        left: (N, C) first column there.
        turned: (N,) quarter turns.
        mirrored: (N,) 1 where the turned patch is mirrored too.
        made: (N,) number of the pattern that stands in for the patch; -1: none does.
    """

    entry: NDArray[np.int64]
    top: NDArray[np.int64]
    left: NDArray[np.int64]
    turned: NDArray[np.int64]
    mirrored: NDArray[np.int64]
    made: NDArray[np.int64]


class PatchSampler:
    """Draws batches of aligned LR and HR patches from a pack.

    A patch is one frame of a clip of `data.frames`: codecs and the temporal average see the clip. With a consistency
    loss each clip gives two patches; the second half of the batch then holds the frames before those of the first half.

    Args:
        folder: where `build_pack` put the pack.
        config: the run; its patches, clips, degradations and temporal window.
    """

    def __init__(self, folder: Path, config: TrainingConfig) -> None:
        _, self.entries = read_entries(folder)
        self.sizes = np.array([(e.height, e.width) for e in self.entries])
        cumulative = np.cumsum([0.0, *(e.weight for e in self.entries)])
        # Where each group of entries begins, and the last one ends: its number, and the sum of the weights before it.
        self.starts = np.flatnonzero(np.diff([e.group for e in self.entries], prepend=-1, append=-1))
        self.bounds, self.cumulative = cumulative[self.starts], cumulative[1:]
        self.pixels = np.memmap(folder / "pack.npy", np.uint8, "r")
        self.config, self.data, self.scale = config, config.data, config.network.scale
        # The taps of one LR pixel, the same all over the interior, and how far they reach beyond its own HR pixels.
        _, weights = resize_taps(64 * self.scale, 64, 1 / self.scale)
        self.taps = [float(weight) for weight in weights[:, 32].astype(np.float32)]
        self.margin = (len(self.taps) - self.scale) // 2
        self.copies = Copies(folder, self.entries, self.scale) if config.degradation.copies else None

    @property
    def hr_size(self) -> int:
        """Edge of the HR region that one pair is made from."""
        return self.data.patch * self.scale + 2 * self.margin

    @property
    def still(self) -> bool:
        """Whether patches are cut and shrunk, and nothing else befalls them."""
        return self.data.frames == 1 and not self.config.degradation.any and not self.data.chroma_softness

    def plan(self, iteration: int, rng: np.random.Generator | None = None) -> Plan:
        """Where one iteration's patches are.

        Args:
            iteration: the number of the batch.
            rng: what else is to be random in the batch goes on with it.
        """
        rng = rng or self._random(iteration)
        paired = self.config.loss_weights.consistency > 0
        count, candidates = -(-self.data.batch // 2) if paired else self.data.batch, self.data.candidates
        group = np.searchsorted(self.bounds[1:-1], rng.random((count, 1)) * self.bounds[-1], side="right")
        low, high = self.bounds[group], self.bounds[group + 1]
        entry = np.searchsorted(self.cumulative, low + rng.random((count, candidates)) * (high - low), side="right")
        entry = np.minimum(entry, self.starts[group + 1] - 1)
        room = self.sizes[entry] - self.hr_size + 1
        corner = (rng.random(room.shape) * room).astype(np.int64)
        if self.copies:  # patches begin where an LR pixel of the whole picture does
            corner += -(corner + self.margin) % self.scale
            corner -= self.scale * (corner >= room)
        made = np.where(rng.random(count) < self.data.patterns, rng.integers(PATTERNS, size=count), -1)
        return Plan(
            entry, corner[..., 0], corner[..., 1], rng.integers(4, size=count), rng.integers(2, size=count), made
        )

    def _random(self, iteration: int) -> np.random.Generator:
        return np.random.default_rng((self.config.schedule.seed, iteration))

    def batch(self, iteration: int) -> Batch:
        """What one iteration learns from."""
        rng = self._random(iteration)
        plan = self.plan(iteration, rng)
        count, paired = len(plan.made), self.config.loss_weights.consistency > 0
        if self.copies:
            return self._copied(plan, self.copies, rng)
        clips, made = np.stack([self._clip(plan, i, rng) for i in range(count)]), plan.made >= 0
        inside = slice(self.margin, clips.shape[2] - self.margin)
        hr = clips[:, :, inside, inside]
        if self.still:
            return Batch(self._small(clips, made)[:, 0], hr[:, 0])
        # A whole window comes before the frame wherever the clip is long enough for one.
        earliest = 0 if self.config.schedule.window == "off" else min(self.data.frames, temporal.DEPTH) - 1
        newest = rng.integers(max(earliest, int(paired)), self.data.frames, count)
        times = np.concatenate([newest, newest - 1]) if paired else newest
        lr, average = self._inputs(clips, made, times, rng)
        return Batch(lr, hr[np.arange(len(times)) % count, times], average)

    def _inputs(
        self, clips: Pixels, made: NDArray[np.bool_], times: NDArray[Any], rng: np.random.Generator
    ) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
        """What the network is given for clips (N, T, hr_size, hr_size, 3) at `times`, N or 2 N frame numbers.

        `made`: (N,), which of them are patterns.
        """
        config, count, size = self.config.degradation, len(clips), self.data.patch
        clean = self._small(clips, made)
        lr = clean.copy()
        for i, clip in enumerate(clips):
            blurred = degradations.blur_some(clip, config, rng)
            if blurred is not clip:
                lr[i] = self._shrunk(blurred)
            lr[i] = degradations.degrade_pixels(lr[i], config, rng)
        videos = degradations.as_video(list(lr), config, rng)
        windowed = self.config.schedule.window != "off"
        inputs, averages = [], []
        for k, t in enumerate(times):
            i = k % count
            frames = videos[i] or (degradations.to_frames(lr[i]) if windowed else None)
            if frames is None:
                inputs.append(np.divide(lr[i, t], 255, dtype=np.float32))
                continue
            inputs.append(degradations.to_pixels(frames[t].planes, frames[t].format))
            if windowed:
                last = slice(t - 1, t + 1)
                noises = [
                    degradations.residual(recent, clean[i, last])
                    for recent in (frames[last], degradations.to_frames(lr[i, last]))
                ]
                averages.append(degradations.to_pixels(self._average(frames[: t + 1], noises), frames[t].format))
        result, average = np.stack(inputs), np.stack(averages) if averages else None
        for i in range(count):
            if rng.random() < self.config.regularisation.cutblur:
                mask = degradations.cutblur(size, size, rng)
                for k in range(i, len(times), count):
                    undegraded = np.divide(clean[i, times[k]], 255, dtype=np.float32)
                    result[k] = np.where(mask, undegraded, result[k])
                    if average is not None:
                        average[k] = np.where(mask, undegraded, average[k])
        return result, average

    def _copied(self, plan: Plan, copies: Copies, rng: np.random.Generator) -> Batch:
        """Patches of pictures that were degraded as a whole; patterns stay as they are."""
        size, scale, margin = self.data.patch, self.scale, self.margin
        number = rng.integers(self.config.degradation.copies, size=len(plan.made))
        regions, inputs = [], []
        for i, made in enumerate(plan.made):
            if made >= 0:
                region = self.made(made)
                small = region[self.cells, self.cells]
            else:
                found = []
                for entry, y, x in zip(plan.entry[i], plan.top[i], plan.left[i], strict=True):
                    degraded, frame = copies.copy(entry, number[i])
                    area = slice(y, y + self.hr_size), slice(x, x + self.hr_size)
                    top, left = (y + margin) // scale, (x + margin) // scale
                    picture = self.entries[entry].pictures(self.pixels)[frame]
                    found.append((picture[area], degraded[top : top + size, left : left + size]))
                region, small = max(found, key=lambda pair: texture(pair[0])) if len(found) > 1 else found[0]
                sigma = self._softness(rng)
                soft = (region, sigma), (small, sigma / scale)
                region, small = (degradations.soften_chroma(picture[None], by)[0] for picture, by in soft)
            step = -1 if plan.mirrored[i] else 1
            regions.append(np.rot90(region, plan.turned[i])[:, ::step])
            inputs.append(np.rot90(small, plan.turned[i])[:, ::step])
        hr, lr = np.stack(regions), np.stack(inputs)
        if cutblur := self.config.regularisation.cutblur:
            clean = self._small(hr[:, None], plan.made >= 0)[:, 0]
            for i in range(len(lr)):
                if rng.random() < cutblur:
                    lr[i] = np.where(degradations.cutblur(size, size, rng), clean[i], lr[i])
        inside = slice(margin, self.hr_size - margin)
        return Batch(lr, hr[:, inside, inside])

    def _softness(self, rng: np.random.Generator) -> float:
        """By how many HR pixels the chroma of the next patch is blurred: 0 for every other, at random."""
        softness = self.data.chroma_softness
        return rng.uniform(0, softness) if softness and rng.random() < 0.5 else 0.0

    def _average(self, history: list[Frame], noises: list[list[Frame]]) -> tuple[Any, ...]:
        """The temporal average of the last frame of a clip, which is of one scene throughout.

        In use the noise is measured on whole pictures, which have some smooth part; patches chosen for their texture
        have none. So it is measured, in the same way, on what was done to the last two frames, before video coding and
        after it, and the smaller counts: coding takes noise away from smooth parts and errs elsewhere.
        """
        mode = temporal.Mode(self.config.schedule.window)
        window = temporal.window(history, mode, lambda older, newer: False)
        return temporal.average(window, mode, min(temporal.threshold(noise[::-1]) for noise in noises))

    def _small(self, clips: Pixels, made: NDArray[np.bool_]) -> Pixels:
        """(N, T, hr_size, hr_size, 3) to (N, T, patch, patch, 3): shrunk, but of patterns the cells they are made of.

        A filter would leave a third of the contrast of a checkerboard of single pixels.
        """
        size = self.data.patch
        small = self._shrunk(clips.reshape(-1, *clips.shape[2:])).reshape(*clips.shape[:2], size, size, 3)
        small[made] = clips[made][:, :, self.cells, self.cells]
        return small

    @property
    def cells(self) -> slice:
        """The first HR row, or column, of each LR one, in the region that a pair is made from."""
        return slice(self.margin, self.margin + self.data.patch * self.scale, self.scale)

    def made(self, number: int) -> Pixels:
        """One of the run's patterns, (hr_size, hr_size, 3)."""
        rng = np.random.default_rng((self.config.schedule.seed, PATTERNS, number))
        offset = -self.margin % self.scale  # LR pixels begin where the margin ends
        still: Pixels = pattern(self.hr_size + offset, self.scale, rng)[offset:, offset:]
        return still.transpose(1, 0, 2) if rng.integers(2) else still

    def _clip(self, plan: Plan, i: int, rng: np.random.Generator) -> Pixels:
        """The candidate with the most gradient energy, turned and mirrored, (T, hr_size, hr_size, 3).

        Or the pattern that stands in for it, which stands still.
        """
        if plan.made[i] >= 0:
            return np.broadcast_to(self.made(plan.made[i]), (self.data.frames, self.hr_size, self.hr_size, 3))
        places = zip(plan.entry[i], plan.top[i], plan.left[i], strict=True)
        clips = [self._cut(*place, rng) for place in places]
        clip = max(clips, key=lambda clip: texture(clip[-1])) if len(clips) > 1 else clips[0]
        clip = np.rot90(clip, plan.turned[i], (1, 2))
        return degradations.soften_chroma(clip[:, :, ::-1] if plan.mirrored[i] else clip, self._softness(rng))

    def _cut(self, entry: int, y: int, x: int, rng: np.random.Generator) -> Pixels:
        """The same region of all frames of a packed clip, or one that moves over a packed picture."""
        e, size, length = self.entries[entry], self.hr_size, self.data.frames
        pictures = e.pictures(self.pixels)
        if e.frames > 1 or length == 1:
            return np.asarray(pictures[:length, y : y + size, x : x + size])
        path = np.rint(np.array([y, x]) + np.arange(length)[:, None] * speed(rng)).astype(int)
        path = np.clip(path, 0, (e.height - size, e.width - size))
        return np.stack([pictures[0, a : a + size, b : b + size] for a, b in path])

    def _shrunk(self, hr: Pixels) -> Pixels:
        small: Pixels = self.shrink(hr.astype(np.float32), np.floor).astype(np.uint8)
        return small

    def shrink(self, hr: Any, floor: Callable[[Any], Any]) -> Any:
        """`metrics.imresize` by 1 / scale without its borders: (N, hr_size, hr_size, 3) to (N, patch, patch, 3).

        Bit for bit where the scale is a power of two; at 3 a tie may round the other way.

        Args:
            hr: codes as float32, of numpy or torch; so is the result.
            floor: that library's.
        """
        for axis in (1, 2):
            size = self.data.patch
            total: Any = 0.0
            for tap, weight in enumerate(self.taps):
                part: list[Any] = [slice(None)] * 4
                part[axis] = slice(tap, tap + self.scale * (size - 1) + 1, self.scale)
                total = total + hr[tuple(part)] * weight
            hr = floor(total + 0.5).clip(0, 255)
        return hr

    def batches(self, start: int, stop: int) -> Iterator[Batch]:
        """The batches of iterations start..stop - 1, prepared ahead by `workers` threads."""
        workers = self.data.workers
        if workers == 0:
            yield from map(self.batch, range(start, stop))
            return
        with ThreadPoolExecutor(workers) as pool:
            ahead: list[Future[Batch]] = []
            for iteration in range(start, stop):
                while len(ahead) < 2 * workers and iteration + len(ahead) < stop:
                    ahead.append(pool.submit(self.batch, iteration + len(ahead)))
                yield ahead.pop(0).result()


def texture(patch: NDArray[Any]) -> int:
    """Gradient energy of the green channel, on every third row: it only ranks candidates."""
    green = patch[::3, :, 1].astype(np.int64)
    return int(np.square(np.diff(green, axis=1)).sum() + np.square(np.diff(green, axis=0)).sum())

"""Training images: packed once into one memory-mapped file, then sampled as pairs of LR and HR patches.

A batch is a pure function of (seed, iteration), so a resumed run sees exactly what an uninterrupted one would.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from videosr.errors import InputError
from videosr.evaluate import list_images, read_image
from videosr.metrics import imresize, resize_taps
from videosr.training.config import DataConfig

type Pixels = NDArray[np.uint8]

SAME_PICTURE = 6.0
"""Two thumbnails that differ by less than this, in code values RMS, are taken for one picture."""


def thumbnail(image: Pixels) -> NDArray[np.float32]:
    """Exact means of 16 x 16 equal parts of an image, (16, 16, 3) in 0..255: resizing and coding hardly change them."""
    means = image.astype(np.float64)
    for _ in range(2):  # rows, then columns: each turn swaps the axes
        edges = np.linspace(0, len(means), 17)
        whole = np.minimum(edges.astype(int), len(means) - 1)
        sums = np.concatenate((np.zeros_like(means[:1]), np.cumsum(means, axis=0)))
        at_edges = sums[whole] + (edges - whole)[:, None, None] * means[whole]
        means = (np.diff(at_edges, axis=0) * 16 / len(means)).swapaxes(0, 1)
    return means.astype(np.float32)


class Forbidden:
    """Images that must not be trained on, recognised by content: exactly, or resized or recompressed."""

    def __init__(self, folders: Sequence[Path]) -> None:
        self._digests: dict[bytes, Path] = {}
        self._thumbnails: list[NDArray[np.float32]] = []
        self.paths: list[Path] = []
        for path in (p for folder in folders for p in list_images(folder)):
            image = read_image(path)
            self._digests[_digest(image)] = path
            self._thumbnails.append(thumbnail(image))
            self.paths.append(path)

    def match(self, image: Pixels) -> Path | None:
        """The forbidden image that this one is, or None."""
        if exact := self._digests.get(_digest(image)):
            return exact
        if not self.paths:
            return None
        distance = np.sqrt(np.square(np.stack(self._thumbnails) - thumbnail(image)).mean(axis=(1, 2, 3)))
        nearest = int(distance.argmin())
        return self.paths[nearest] if distance[nearest] < SAME_PICTURE else None


def _digest(image: Pixels) -> bytes:
    return hashlib.sha256(repr(image.shape).encode() + image.tobytes()).digest()


@dataclass(frozen=True, slots=True)
class Entry:
    """One packed picture: where it starts in the pack, its size, and how likely a patch comes from it."""

    offset: int
    height: int
    width: int
    weight: float


def build_pack(folder: Path, config: DataConfig, min_size: int, say: Callable[[str], None]) -> None:
    """Decode and shrink the training images once: `pack.npy` (flat uint8) and `pack.json` in `folder`.

    Every (training folder, factor) is sampled equally often, within it every pixel. Pictures smaller than `min_size`
    are left out. A pack made from the same files and settings is kept.

    Raises:
        InputError: a training image is one of the forbidden ones, or none is large enough.
    """
    files = [(index, path) for index, source in enumerate(config.train) for path in list_images(source)]
    listing = [(str(p), p.stat().st_size, p.stat().st_mtime_ns) for _, p in files]
    forbidden_files = [str(f) for f in config.never_train]
    key = hashlib.sha256(repr((listing, forbidden_files, config.factors, min_size)).encode()).hexdigest()
    index_path, data_path = folder / "pack.json", folder / "pack.npy"
    if index_path.exists() and data_path.exists() and json.loads(index_path.read_text())["key"] == key:
        return
    forbidden = Forbidden(config.never_train)
    say(f"packing {len(files)} images; {len(forbidden.paths)} images must not be among them")
    cells: dict[tuple[int, float], list[tuple[int, int, int]]] = {}
    offset = 0
    temporary = data_path.with_suffix(".partial")
    with temporary.open("wb") as pack:
        for source, path in files:
            image = read_image(path)
            if twin := forbidden.match(image):
                raise InputError(f"{path}: is the image {twin}, which must not be trained on: remove it")
            for factor in config.factors:
                small = image if factor == 1 else imresize(image, 1 / factor, "lanczos3")
                if min(small.shape[:2]) < min_size:
                    continue
                pack.write(small.tobytes())
                cells.setdefault((source, factor), []).append((offset, small.shape[0], small.shape[1]))
                offset += small.size
    if not cells:
        raise InputError(f"{', '.join(map(str, config.train))}: no image of at least {min_size} pixels a side")
    entries = []
    for cell in cells.values():
        area = sum(h * w for _, h, w in cell)
        entries += [(start, h, w, h * w / area / len(cells)) for start, h, w in cell]
    temporary.replace(data_path)
    partial = index_path.with_suffix(".partial")
    partial.write_text(json.dumps({"key": key, "entries": entries}))
    partial.replace(index_path)
    say(f"packed {len(entries)} pictures, {offset / 3e6:.0f} megapixels; none of them is forbidden")


class PatchSampler:
    """Draws batches of aligned LR and HR patches from a pack.

    Args:
        folder: where `build_pack` put the pack.
        config: patch size, batch, candidates.
        scale: HR pixels a LR pixel.
        seed: of every batch.
    """

    def __init__(self, folder: Path, config: DataConfig, scale: int, seed: int) -> None:
        index = json.loads((folder / "pack.json").read_text())
        self.entries = [Entry(*row) for row in index["entries"]]
        self.cumulative = np.cumsum([e.weight for e in self.entries])
        self.pixels = np.memmap(folder / "pack.npy", np.uint8, "r")
        self.config, self.scale, self.seed = config, scale, seed
        # The taps of one LR pixel, the same all over the interior, and how far they reach beyond its own HR pixels.
        _, weights = resize_taps(64 * scale, 64, 1 / scale)
        self.taps = weights[:, 32].astype(np.float32)
        self.margin = (len(self.taps) - scale) // 2

    @property
    def hr_size(self) -> int:
        """Edge of the HR region that one pair is made from."""
        return self.config.patch * self.scale + 2 * self.margin

    def batch(self, iteration: int) -> tuple[Pixels, Pixels]:
        """LR (N, patch, patch, 3) and HR (N, patch * scale, patch * scale, 3), RGB uint8, of one iteration."""
        rng = np.random.default_rng((self.seed, iteration))
        hr = np.stack([self._most_textured(rng) for _ in range(self.config.batch)])
        lr = self.shrink(hr)
        m = self.margin
        return lr, hr[:, m:-m, m:-m] if m else hr

    def _most_textured(self, rng: np.random.Generator) -> Pixels:
        """The candidate with the most gradient energy, turned and mirrored at random."""
        candidates = [self._crop(rng) for _ in range(self.config.candidates)]
        patch = max(candidates, key=_texture) if len(candidates) > 1 else candidates[0]
        patch = np.rot90(patch, rng.integers(4))
        return patch[:, ::-1] if rng.integers(2) else patch

    def _crop(self, rng: np.random.Generator) -> Pixels:
        chosen = int(np.searchsorted(self.cumulative, rng.random() * self.cumulative[-1], side="right"))
        entry = self.entries[min(chosen, len(self.entries) - 1)]
        size = self.hr_size
        y, x = rng.integers(entry.height - size + 1), rng.integers(entry.width - size + 1)
        end = entry.offset + entry.height * entry.width * 3
        picture = self.pixels[entry.offset : end].reshape(entry.height, entry.width, 3)
        return np.asarray(picture[y : y + size, x : x + size])

    def shrink(self, hr: Pixels) -> Pixels:
        """`metrics.imresize` by 1 / scale without its borders: (N, hr_size, hr_size, 3) to (N, patch, patch, 3).

        Bit for bit where the scale is a power of two; at 3 a tie may round the other way.
        """
        for axis in (1, 2):
            size = self.config.patch
            total: NDArray[np.float32] | float = 0.0
            for tap, weight in enumerate(self.taps):
                part: list[Any] = [slice(None)] * 4
                part[axis] = slice(tap, tap + self.scale * (size - 1) + 1, self.scale)
                total = total + hr[tuple(part)] * weight
            hr = np.clip(np.floor(total + np.float32(0.5)), 0, 255).astype(np.uint8)
        return hr

    def batches(self, start: int, stop: int) -> Iterator[tuple[Pixels, Pixels]]:
        """The batches of iterations start..stop - 1, prepared ahead by `workers` threads."""
        workers = self.config.workers
        if workers == 0:
            yield from map(self.batch, range(start, stop))
            return
        with ThreadPoolExecutor(workers) as pool:
            ahead: list[Future[tuple[Pixels, Pixels]]] = []
            for iteration in range(start, stop):
                while len(ahead) < 2 * workers and iteration + len(ahead) < stop:
                    ahead.append(pool.submit(self.batch, iteration + len(ahead)))
                yield ahead.pop(0).result()


def _texture(patch: Pixels) -> float:
    """Gradient energy of the green channel, on every third row: it only ranks candidates."""
    green = patch[::3, :, 1].astype(np.float32)
    across, down = np.diff(green, axis=1).ravel(), np.diff(green, axis=0).ravel()
    return float(across @ across + down @ down)

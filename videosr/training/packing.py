"""Training pictures, packed once into one memory-mapped file, and the proof that none of a test set is among them."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from videosr import scenes
from videosr.color import to_rgb
from videosr.errors import InputError
from videosr.evaluate import IMAGE_SUFFIXES, read_image
from videosr.files import write_atomically, written
from videosr.frame import Frame
from videosr.media.decoder import Decoder
from videosr.metrics import imresize
from videosr.training.config import DataConfig
from videosr.training.degradations import blur

type Pixels = NDArray[np.uint8]

VIDEO_SUFFIXES = (".mp4", ".mkv", ".webm", ".mov", ".avi", ".ts", ".m2ts", ".y4m")

SAME_PICTURE = 6.0
"""Two thumbnails that differ by less than this, in code values RMS, are taken for one picture."""

EVEN = 8.0
"""Frames whose thumbnails deviate less than this from their mean are nearly black or nearly even: any two are alike."""


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


def list_files(folders: Sequence[Path]) -> tuple[list[tuple[int, Path]], list[tuple[int, Path]]]:
    """Images and videos under folders, recursively, each with the number of its folder, in the order of their names.

    Raises:
        InputError: a folder does not exist or holds neither.
    """
    found: tuple[list[tuple[int, Path]], list[tuple[int, Path]]] = [], []
    for index, folder in enumerate(folders):
        if not folder.is_dir():
            raise InputError(f"{folder}: not a folder of images or videos")
        before = sum(map(len, found))
        for kind, suffixes in zip(found, (IMAGE_SUFFIXES, VIDEO_SUFFIXES), strict=True):
            kind.extend((index, p) for p in sorted(folder.rglob("*")) if p.suffix.lower() in suffixes and p.is_file())
        if sum(map(len, found)) == before:
            raise InputError(f"{folder}: no image or video ({', '.join(IMAGE_SUFFIXES + VIDEO_SUFFIXES)}) in it")
    return found


def pixels(frame: Frame) -> Pixels:
    """A video frame as (H, W, 3) RGB, uint8."""
    rgb = to_rgb(frame.planes, frame.format, frame.color).transpose(1, 2, 0)
    return np.asarray(np.clip(np.floor(rgb * 255 + 0.5), 0, 255), np.uint8)


def clips(path: Path, length: int, interval: float) -> Iterator[tuple[float, list[Pixels]]]:
    """Runs of consecutive frames of one scene, with the second at which each begins.

    Args:
        path: a video; interlaced frames in it are passed over.
        length: frames of a run.
        interval: seconds from the beginning of a run to the earliest beginning of the next.

    Raises:
        InputError: it cannot be decoded.
    """
    run: list[Frame] = []
    due = 0.0
    with Decoder(path, threads=1) as decoder:
        for frame in decoder:
            if frame.interlaced or float(frame.time) < due:
                run.clear()  # frames around it are not consecutive
                continue
            if run and scenes.is_cut(*(scenes.thumbnail(f.planes[0], f.format.bits) for f in (run[-1], frame))):
                run.clear()
            run.append(frame)
            if len(run) == length:
                yield float(run[0].time), [pixels(f) for f in run]
                due = float(run[0].time) + interval
                run.clear()


class Forbidden:
    """Pictures that must not be trained on, recognised by content: exactly, or resized or recompressed.

    Every image and every frame of every video is one, but for frames too even to be told from others.
    """

    def __init__(self, folders: Sequence[Path]) -> None:
        self._digests: dict[bytes, str] = {}
        self.names: list[str] = []
        thumbnails: list[NDArray[np.float32]] = []
        images, videos = list_files(folders)
        for name, image in self._pictures([p for _, p in images], [p for _, p in videos]):
            self._digests.setdefault(_digest(image), name)
            thumbnails.append(thumbnail(image))
            self.names.append(name)
        self._thumbnails = np.array(thumbnails)

    @staticmethod
    def _pictures(images: Sequence[Path], videos: Sequence[Path]) -> Iterator[tuple[str, Pixels]]:
        yield from ((str(path), read_image(path)) for path in images)
        for path in videos:
            with Decoder(path, threads=1) as decoder:
                for frame in decoder:
                    picture = pixels(frame)
                    if not even(picture):
                        yield f"{path} at {float(frame.time):.3f} s", picture

    def match(self, image: Pixels) -> str | None:
        """The name of the forbidden picture that this one is, or None."""
        if exact := self._digests.get(_digest(image)):
            return exact
        if not self.names:
            return None
        distance = np.sqrt(np.square(self._thumbnails - thumbnail(image)).mean(axis=(1, 2, 3)))
        nearest = int(distance.argmin())
        return self.names[nearest] if distance[nearest] < SAME_PICTURE else None


def even(image: Pixels) -> bool:
    """Whether there is next to nothing to see."""
    small = thumbnail(image)
    return bool(np.sqrt(np.square(small - small.mean(axis=(0, 1))).mean()) < EVEN)


def _digest(image: Pixels) -> bytes:
    return hashlib.sha256(repr(image.shape).encode() + image.tobytes()).digest()


@dataclass(frozen=True, slots=True)
class Entry:
    """One packed picture or clip.

    Attributes:
        offset: of its first byte in the pack.
        height, width: of its frames.
        weight: how likely a patch comes from it.
        frames: how many there are.
        group: number of those that compete for a patch: one folder's, softened or not. Groups follow one another.
    """

    offset: int
    height: int
    width: int
    weight: float
    frames: int = 1
    group: int = 0

    def pictures(self, pixels: Pixels) -> Pixels:
        """Its frames in the pack's pixels, (frames, height, width, 3)."""
        end = self.offset + self.frames * self.height * self.width * 3
        return pixels[self.offset : end].reshape(self.frames, self.height, self.width, 3)


def read_entries(folder: Path) -> tuple[str, list[Entry]]:
    """What `build_pack` put into `folder`: a key of all that it depends on, and the entries."""
    index = json.loads((folder / "pack.json").read_text())
    return index["key"], [Entry(*row) for row in index["entries"]]


def build_pack(folder: Path, config: DataConfig, min_size: int, say: Callable[[str], None]) -> None:
    """Decode and shrink the training pictures once: `pack.npy` (flat uint8) and `pack.json` in `folder`.

    Folders are sampled as often as their shares say, half of it softened where the run wants that, and of a folder all
    factors equally often, within those every pixel. Pictures smaller than `min_size` are left out. A pack made from the
    same files and settings is kept.

    Raises:
        InputError: a training picture is one of the forbidden ones, or of a folder none is large enough.
        OutputError: the pack cannot be written.
    """
    images, videos = list_files(config.train)
    files = [images, videos, *list_files(config.never_train)]
    listing = [[(str(p), p.stat().st_size, p.stat().st_mtime_ns) for _, p in found] for found in files]
    settings = [listing, config.factors, min_size, config.shares, config.softness]
    if videos:
        settings += [config.frames, config.video_interval]
    key = hashlib.sha256(repr(tuple(settings)).encode()).hexdigest()
    index_path, data_path = folder / "pack.json", folder / "pack.npy"
    if index_path.exists() and data_path.exists() and json.loads(index_path.read_text())["key"] == key:
        return
    forbidden = Forbidden(config.never_train)
    also = f" and {len(videos)} videos" if videos else ""
    say(f"packing {len(images)} images{also}; {len(forbidden.names)} images must not be among them")
    groups: dict[tuple[int, bool], dict[float, list[tuple[int, int, int, int]]]] = {}
    rng = np.random.default_rng(0)  # the same pack however often it is made
    offset = 0
    index_path.unlink(missing_ok=True)  # a run that is killed must leave no index of other data
    with written(data_path, data_path.with_suffix(".partial")) as pack:
        for source, name, clip in _sources(images, videos, config):
            if twin := next(filter(None, map(forbidden.match, clip)), None):
                raise InputError(f"{name}: is the image {twin}, which must not be trained on: remove it")
            for factor in config.factors:
                small = clip if factor == 1 else [imresize(picture, 1 / factor, "lanczos3") for picture in clip]
                height, width, _ = small[0].shape
                if min(height, width) < min_size:
                    continue
                for soft in (False, True) if config.softness else (False,):
                    sigma = rng.uniform(0, config.softness) if soft else 0.0
                    for picture in small:
                        pack.write((blur(picture[None], (sigma, sigma), 0.0) if soft else picture).tobytes())
                    group = groups.setdefault((source, soft), {})
                    group.setdefault(factor, []).append((offset, height, width, len(small)))
                    offset += len(small) * small[0].size
        given = {source for source, _ in groups}
        if without := [str(folder) for number, folder in enumerate(config.train) if number not in given]:
            least = math.ceil(min_size * min(config.factors))
            raise InputError(
                f"{', '.join(without)}: no image of at least {least} pixels a side: leave that out of train, or give a "
                "smaller patch"
            )
    entries = []
    for number, ((source, _), group) in enumerate(groups.items()):
        share = config.shares[source] if config.shares else 1.0
        for cell in group.values():
            area = sum(h * w for _, h, w, _ in cell) * len(group)
            entries += [(start, h, w, share * h * w / area, count, number) for start, h, w, count in cell]
    write_atomically(index_path, json.dumps({"key": key, "entries": entries}).encode())
    say(f"packed {len(entries)} pictures, {offset / 3e6:.0f} megapixels; none of them is forbidden")


def _sources(
    images: Sequence[tuple[int, Path]], videos: Sequence[tuple[int, Path]], config: DataConfig
) -> Iterator[tuple[int, str, list[Pixels]]]:
    """(number of the folder, name, pictures) of every image and every clip that shows something."""
    for index, path in images:
        yield index, str(path), [read_image(path)]
    for index, path in videos:
        for start, clip in clips(path, config.frames, config.video_interval):
            if not any(map(even, clip)):
                yield index, f"{path} at {start:.3f} s", clip

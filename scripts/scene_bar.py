"""Measure the scene-cut detector: recall on cuts, false cuts per 1,000 frames of motion, pans and flashes.

    python scripts/scene_bar.py CLIP... [--images FOLDER...] [--cuts NAME=FRAME,FRAME,...] [--seed 0]

CLIP: at least four video files, no two of them of the same shots. Cuts inside a clip are named with `--cuts` (the
number of the first frame of each new scene, from 0); a clip without is one continuous take. From the clips' takes the
script splices pairs of frames of different clips, half of them scaled to equal mean luma, and makes flashes,
dissolves and fades; from the images it makes pans and zooms. Clips and images are split into two halves, so that what
was tuned on one can be read off the other. The bar: recall >= 0.99, false cuts <= 1 per 1,000 frames, on both; exit
code 1 if it is missed. A jump of mean luma by more than 30, which is what ParagonSR2's own tool goes by, is measured
beside it.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import av
import numpy as np
from common import existing, run

from videosr import scenes

Luma = np.ndarray[Any, np.dtype[Any]]
WIDTH, HEIGHT = 256, 144  # what frames are reduced to before they are spliced
LEAST_RECALL, MOST_FALSE = 0.99, 1.0
"""Of cuts; calls of a cut in 1,000 pairs without one."""
SPLICES, FLASHES, DISSOLVES, MOVES = 2000, 300, 60, 150


@dataclass
class Take:
    """A continuous shot: its clip, the thumbnails of all its frames, and reduced luma of some of them."""

    clip: str
    thumbnails: list[scenes.Thumbnail] = field(default_factory=list)
    frames: list[Luma] = field(default_factory=list)


@dataclass
class Tally:
    """Pairs of frames seen, those called a cut, and those whose mean luma jumps, by half and kind."""

    counts: dict[tuple[int, str], list[int]] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)

    def add(self, half: int, kind: str, prev: scenes.Thumbnail, cur: scenes.Thumbnail, name: str, cut: bool) -> None:
        """Judge a pair; `cut` is the truth."""
        found = scenes.is_cut(prev, cur)
        seen = self.counts.setdefault((half, kind), [0, 0, 0])
        seen[0] += 1
        seen[1] += found
        seen[2] += abs(float(prev.mean()) - float(cur.mean())) > 30
        if found != cut and kind in ("cut", "motion"):
            self.wrong.append(f"{'missed' if cut else 'false '} {name} score {scenes.score(prev, cur):.2f}")

    def total(self, half: int, kinds: tuple[str, ...]) -> list[int]:
        """The three counts over several kinds."""
        return np.sum([self.counts.get((half, kind), [0, 0, 0]) for kind in kinds], axis=0).tolist()


def luma(frame: av.VideoFrame) -> tuple[Luma, int]:
    """The first plane as it is, and its bits."""
    bits = frame.format.components[0].bits
    plane = frame.planes[0]
    rows = np.frombuffer(plane, np.uint8 if bits == 8 else np.dtype("<u2"))
    return rows.reshape(plane.height, -1)[:, : plane.width], bits


def read(path: Path, cuts: list[int]) -> list[Take]:
    takes = [Take(path.name)]
    with av.open(str(path)) as container:
        for n, frame in enumerate(container.decode(video=0)):
            if n in cuts:
                takes.append(Take(path.name))
            takes[-1].thumbnails.append(scenes.thumbnail(*luma(frame)))
            if n % 8 == 0:
                small = frame.reformat(WIDTH, HEIGHT, "gray", interpolation="AREA")
                takes[-1].frames.append(luma(small)[0].copy())
    return takes


def thumb(picture: Luma) -> scenes.Thumbnail:
    return scenes.thumbnail(np.clip(np.rint(picture), 0, 255).astype(np.uint8), 8)


def real(tally: Tally, half: int, takes: list[Take]) -> None:
    for take, following in zip(takes, [*takes[1:], None], strict=True):
        for n, (a, b) in enumerate(zip(take.thumbnails, take.thumbnails[1:], strict=False)):
            tally.add(half, "motion", a, b, f"{take.clip} frame {n + 1} of a take of {len(take.thumbnails)}", False)
        if following and following.clip == take.clip:
            tally.add(half, "cut", take.thumbnails[-1], following.thumbnails[0], take.clip, True)


def splices(tally: Tally, half: int, takes: list[Take], rng: np.random.Generator) -> None:
    frames = [(take.clip, frame) for take in takes for frame in take.frames if frame.std() > 8]
    for n in range(SPLICES if frames else 0):
        (clip, a), (other, b) = (frames[i] for i in rng.integers(len(frames), size=2))
        if clip == other:
            continue
        equal = n % 2 == 1
        picture = np.clip(b * (a.mean() / b.mean()), 0, 255) if equal else b
        if picture.std() > 8:
            tally.add(half, "splice, equal luma" if equal else "splice", thumb(a), thumb(picture), clip, True)


def flashes(tally: Tally, half: int, takes: list[Take], rng: np.random.Generator) -> None:
    frames = [frame for take in takes for frame in take.frames]
    for _ in range(FLASHES):
        calm = frames[rng.integers(len(frames))].astype(np.float32)
        white = rng.random() < 0.2
        lit = np.full_like(calm, 235) if white else np.minimum(calm * rng.uniform(1, 3) + rng.uniform(0, 140), 235)
        for a, b in ((calm, lit), (lit, calm)):
            tally.add(half, "white frame" if white else "flash", thumb(a), thumb(b), "", False)


def dissolves(tally: Tally, half: int, takes: list[Take], rng: np.random.Generator) -> None:
    frames = [frame.astype(np.float32) for take in takes for frame in take.frames]
    for n in range(DISSOLVES):
        a, b = (frames[i] for i in rng.integers(len(frames), size=2))
        kind, b = ("fade", np.full_like(a, 16)) if n % 2 else ("dissolve", b)
        steps = np.linspace(0, 1, int(rng.integers(8, 30)))
        shown = [thumb(a + (b - a) * t) for t in steps]
        for prev, cur in itertools.pairwise(shown):
            tally.add(half, kind, prev, cur, "", False)


def views(path: Path, rng: np.random.Generator) -> Iterator[tuple[str, list[scenes.Thumbnail]]]:
    """Pans (up to 6 % of the width a frame) and zooms (up to 4 %) over a picture, eight frames each."""
    with av.open(str(path)) as container:
        frame = next(container.decode(video=0))
    picture = frame.reformat(format="gray").to_ndarray().astype(np.float32)
    height, width = picture.shape
    if min(height, width) < 256:
        return
    kind = "pan" if rng.random() < 0.6 else "zoom"
    size = min(width * 0.5, height * 0.8 * 16 / 9)
    speed = rng.uniform(0.005, 0.06 if kind == "pan" else 0.04)
    angle = rng.uniform(0, 2 * np.pi)
    x, y = rng.uniform(0, width - size), rng.uniform(0, height - size * 9 / 16)
    shown = []
    for _ in range(8):
        if not (0 <= x <= width - size and 0 <= y <= height - size * 9 / 16):
            break
        xs = np.clip(x + (np.arange(WIDTH * 2) + 0.5) * size / (WIDTH * 2), 0, width - 1).astype(int)
        ys = np.clip(y + (np.arange(HEIGHT * 2) + 0.5) * size * 9 / 16 / (HEIGHT * 2), 0, height - 1).astype(int)
        shown.append(thumb(picture[np.ix_(ys, xs)]))
        if kind == "pan":
            x, y = x + np.cos(angle) * speed * size, y + np.sin(angle) * speed * size * 9 / 16
        else:
            x, y, size = x + size * speed / 2, y + size * speed / 2 * 9 / 16, size * (1 - speed)
    yield kind, shown


def moves(tally: Tally, half: int, images: list[Path], rng: np.random.Generator) -> None:
    for _ in range(MOVES if images else 0):
        path = images[rng.integers(len(images))]
        for kind, shown in views(path, rng):
            for prev, cur in itertools.pairwise(shown):
                tally.add(half, kind, prev, cur, path.name, False)


def cuts_of(text: str) -> tuple[str, list[int]]:
    """NAME=FRAME,FRAME,...: where scenes of a clip begin."""
    name, _, frames = text.rpartition("=")
    if not name or not all(part.isdecimal() for part in frames.split(",")):
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form NAME=FRAME,FRAME,...")
    return name, [int(part) for part in frames.split(",")]


def main() -> bool:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", nargs="+", type=existing)
    parser.add_argument("--images", nargs="*", type=existing, default=[])
    parser.add_argument("--cuts", nargs="*", type=cuts_of, default=[], metavar="NAME=FRAMES")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    if len(args.clips) < 4:
        parser.error("four clips are needed at least: two in each half, for splices are of frames of different clips")
    cuts = dict(args.cuts)
    images = sorted(p for folder in args.images for p in folder.iterdir() if p.suffix in (".png", ".jpg", ".webp"))
    rng = np.random.default_rng(args.seed)
    tally = Tally()
    for half in (0, 1):
        takes = [take for path in sorted(args.clips)[half::2] for take in read(path, cuts.get(path.name, []))]
        real(tally, half, takes)
        splices(tally, half, takes, rng)
        flashes(tally, half, takes, rng)
        dissolves(tally, half, takes, rng)
        moves(tally, half, images[half::2], rng)
    for half, kind in sorted(tally.counts):
        seen, found, jumps = tally.counts[half, kind]
        print(f"half {half}  {kind:18} {seen:6} pairs, called a cut {found / seen:.4f}, luma jump {jumps / seen:.4f}")
    missed = False
    for half in (0, 1):
        seen, found, jumps = tally.total(half, ("cut", "splice", "splice, equal luma"))
        if not seen:
            parser.error(f"half {half}: the clips have no two pictures to splice")
        recall, verdict = found / seen, "met" if found / seen >= LEAST_RECALL else "MISSED"
        print(f"half {half}  recall {recall:.4f} of {seen} (luma jump {jumps / seen:.4f}): {verdict}")
        seen, found, jumps = tally.total(half, ("motion", "pan", "zoom", "flash", "white frame"))
        false, verdict = 1e3 * found / seen, "met" if 1e3 * found / seen <= MOST_FALSE else "MISSED"
        print(
            f"half {half}  false cuts per 1,000 of {seen}: {false:.2f} (luma jump {1e3 * jumps / seen:.2f}): {verdict}"
        )
        missed |= recall < LEAST_RECALL or false > MOST_FALSE
    print("\n".join(tally.wrong))
    return missed


if __name__ == "__main__":
    run(main)

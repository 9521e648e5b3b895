"""Prove that no test picture is among the training pictures.

    python scripts/leak_check.py TRAINING... --test TEST...

Both are folders of images or clips (a clip gives a frame a second). Pictures are compared by SHA-256 of their pixels,
which finds copies under other names and formats, and by thumbnails of 16 x 16 means, which finds resized and
recompressed ones. `videosr train` checks `never_train` by the same rule before it packs its images. Crops are not
recognised.
Prints the counts, and every pair found; exit code 1 if there is one.
"""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from common import existing, run

from videosr.evaluate import list_images, read_image
from videosr.media.decoder import Decoder
from videosr.training.packing import SAME_PICTURE, Pixels, even, pixels, thumbnail


class Seen(NamedTuple):
    """A picture as it is compared."""

    name: str
    digest: bytes
    thumbnail: np.ndarray


def pictures(source: Path) -> Iterator[tuple[str, Pixels]]:
    """Every image of a folder, or a frame of each second of a clip, as (H, W, 3) R'G'B'."""
    if source.is_dir():
        for path in list_images(source):
            yield str(path.relative_to(source.parent)), read_image(path)
        return
    with Decoder(source) as decoder:
        due = None
        for frame in decoder:
            if due is None or frame.time >= due:
                due = frame.time + 1
                picture = pixels(frame)
                if not even(picture):  # black, a fade: like every other such frame
                    yield f"{source.name} at {float(frame.time):.0f} s", picture


def seen(sources: list[Path]) -> list[Seen]:
    found = []
    for source in sources:
        for name, image in pictures(source):
            digest = hashlib.sha256(repr(image.shape).encode() + image.tobytes()).digest()
            found.append(Seen(name, digest, thumbnail(image)))
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("training", nargs="+", type=existing)
    parser.add_argument("--test", nargs="+", type=existing, required=True)
    args = parser.parse_args()
    training, test = seen(args.training), seen(args.test)
    if not training or not test:
        parser.error(f"there is no picture in {', '.join(map(str, args.test if training else args.training))}")
    digests = {s.digest: s.name for s in test}
    exact = [(s.name, digests[s.digest]) for s in training if s.digest in digests]
    stack = np.stack([s.thumbnail for s in test])
    distances = [np.sqrt(np.square(stack - s.thumbnail).mean(axis=(1, 2, 3))) for s in training]
    near = [(s, int(d.argmin()), float(d.min())) for s, d in zip(training, distances, strict=True)]
    alike = [(s.name, test[i].name, distance) for s, i, distance in near if distance < SAME_PICTURE]
    alike = [pair for pair in alike if pair[:2] not in exact]
    for name, other in exact:
        print(f"SAME: {name} is {other}")
    for name, other, distance in alike:
        print(f"ALIKE: {name} and {other}: {distance:.1f}")
    nearest = min(near, key=lambda pair: pair[2])
    print(f"{len(training)} training pictures, {len(test)} test pictures: {len(exact)} the same by hash, ", end="")
    print(f"{len(alike)} more alike (thumbnails nearer than {SAME_PICTURE:g} code values RMS)")
    print(f"nearest pair: {nearest[0].name} and {test[nearest[1]].name}, {nearest[2]:.1f}")
    return 1 if exact or alike else 0


if __name__ == "__main__":
    run(main)

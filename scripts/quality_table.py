"""Measure the shipped networks and write the tables of docs/quality.md.

    python scripts/quality_table.py --images Set5 Set14 B100 Urban100 --clips a.mp4 b.mp4 --sequences city walk

--images: folders of original images. --clips: originals that no training saw; --sequences: folders of frames, taken as
clips, and for the temporal figures. Clips are measured uncompressed and by x264 at CRF 28 and 35, --frames each.

What was measured is kept in docs/quality.json by network (SHA-256), source (name, sizes of its files) and settings, so
that only what is new is measured the next time. After a change of a measure itself, remove that file. Nothing given:
the page is written again from what is kept.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import quality_page
import temporal_bar
from common import count, existing, run

from videosr import evaluate as ev
from videosr.cli_evaluate import BICUBIC, Candidate, candidates
from videosr.engines import load
from videosr.engines.base import Interface
from videosr.evaluate.video import Reference, evaluate_video
from videosr.models import registry
from videosr.temporal import Mode

DOCS = Path(__file__).resolve().parent.parent / "docs"
CRFS = (None, 28.0, 35.0)


class Kept:
    """Measurements by what they depend on, in a JSON file that is written after each."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}

    def get(self, key: Sequence[object], measure: Callable[[], Any]) -> Any:
        """The measurement of that key, made now if it is not there."""
        name = " | ".join(map(str, key))
        if name not in self.rows:
            print(name, flush=True)
            self.rows[name] = measure()
            self.path.write_text(json.dumps(dict(sorted(self.rows.items())), indent=1) + "\n")
        return self.rows[name]


def source_key(path: Path) -> str:
    """Name and content of a source, by its files' names and sizes: no path of this machine."""
    files = ev.list_images(path) if path.is_dir() else [path]
    listing = "\n".join(f"{p.name} {p.stat().st_size}" for p in files)
    return f"{path.resolve().name} {hashlib.sha256(listing.encode()).hexdigest()[:12]}"


def network_key(name: str) -> str:
    """A network by its bits; bicubic by its name."""
    if name == BICUBIC:
        return name
    return f"{name} {hashlib.sha256(registry.find(name).read_bytes()).hexdigest()[:12]}"


def of_images(folder: Path, scale: int, candidate: Candidate) -> dict[str, Any]:
    result = ev.evaluate(folder, candidate.upscale, scale)
    return {**asdict(result.mean), "images": len(result.images)}


def of_clip(path: Path, scale: int, candidate: Candidate, crf: float | None, frames: int) -> dict[str, Any]:
    reference = Reference(path, scale, frames)
    return asdict(next(evaluate_video(reference, {candidate.name: candidate.enlarge}, (crf,))))


def of_time(path: Path, model: str, frames: int) -> dict[str, Any]:
    engine = load(registry.find(model), precision="f32")
    if engine.interface is Interface.IMAGE:
        return {}  # has no detail path of its own to look back in time
    table = temporal_bar.of_source(engine, path, frames, (Mode.OFF, Mode.ADAPTIVE))
    return {kind: {mode.value: asdict(cell) for mode, cell in cells.items()} for kind, cells in table.items()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", nargs="*", type=existing, default=[])
    parser.add_argument("--clips", nargs="*", type=existing, default=[])
    parser.add_argument("--sequences", nargs="*", type=existing, default=[])
    parser.add_argument("--models", nargs="*", help="default: all that are shipped; nothing: bicubic alone")
    parser.add_argument("--frames", type=count, default=24, help="of each clip")
    parser.add_argument("--output", type=Path, default=DOCS / "quality.md")
    args = parser.parse_args()
    kept = Kept(args.output.with_suffix(".json"))
    shipped = [m for m in registry.shipped() if args.models is None or m.name in args.models]
    for scale in sorted({m.scale for m in shipped} or {2}):
        names = [m.name for m in shipped if m.scale == scale]
        _, found = candidates(names)
        for folder in args.images:
            for c in found:
                key = "images", f"{scale}x", source_key(folder), network_key(c.name)
                kept.get(key, lambda c=c, f=folder, s=scale: of_images(f, s, c))
        for path in [*args.sequences, *args.clips]:
            for crf in CRFS:
                for c in found:
                    key = (
                        "clip",
                        f"{scale}x",
                        source_key(path),
                        network_key(c.name),
                        f"CRF {crf}",
                        f"{args.frames} frames",
                    )
                    kept.get(key, lambda c=c, p=path, s=scale, q=crf: of_clip(p, s, c, q, args.frames))
        for path in args.sequences:
            for name in names:
                key = "time", f"{scale}x", source_key(path), network_key(name), f"{args.frames} frames"
                kept.get(key, lambda n=name, p=path: of_time(p, n, args.frames))
    current = {network_key(name) for name in (BICUBIC, *(m.name for m in registry.shipped()))}
    quality_page.write(args.output, quality_page.Measured(kept.rows, current))
    print(f"{args.output}: written")
    return 0


if __name__ == "__main__":
    run(main)

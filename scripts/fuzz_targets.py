"""Imported by `fuzz.py`; not a command.

What that does with a spoiled file in a child process: the very calls that the commands make.

Each target returns what became of the file in a word. An exception that is no `VideosrError` is a finding, and so is
one of more than a line.
"""

from __future__ import annotations

import contextlib
import functools
import io
import json
import os
import random
import shutil
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import av.error
import fuzz_seeds as seeds
import numpy as np

from videosr import upscaler
from videosr.errors import VideosrError
from videosr.frame import ColorSpec, Frame, Matrix, PixelFormat, Range, Siting
from videosr.media.checks.verify import verify
from videosr.media.codecs import EncoderSettings
from videosr.media.probe import probe
from videosr.models import registry
from videosr.options import UpscaleOptions
from videosr.progress import Progress
from videosr.transcode import TranscodeOptions, transcode
from videosr.upscaler import Upscaler


class FindingError(Exception):
    """A spoiled file had an outcome that it must not have."""


def run(kind: str, seed: int, index: int, files: list[Path], folder: Path) -> str:
    """Spoil one of the files by these numbers, give it to videosr, and say in a word what became of it.

    Raises:
        FindingError: what must not be.
    """
    rng = random.Random(f"{seed}/{kind}/{index}")
    source = files[rng.randrange(len(files))]
    spoiled = folder / f"spoiled{source.suffix}"
    work = folder / "work"
    work.mkdir()
    try:
        if kind in ("payload", "subtitle"):
            try:
                seeds.spoil_packets(rng, source, spoiled, "video" if kind == "payload" else "subtitle")
            except (av.error.FFmpegError, ValueError):
                return "not made"  # FFmpeg's own muxer does not store such a thing
        else:
            spoiled.write_bytes(seeds.spoil(rng, source.read_bytes(), kind))
        target = TARGETS.get(kind, film)
        try:
            return target(rng, spoiled, work, source)
        except VideosrError as exc:
            if "\n" in str(exc).strip():
                raise FindingError(f"message of several lines: {exc!r}") from exc
            return "refused"
    finally:
        spoiled.unlink(missing_ok=True)
        shutil.rmtree(work)


def film(rng: random.Random, spoiled: Path, work: Path, source: Path) -> str:
    """`probe`, `upscale` and `verify`; what is made has to be sound."""
    suffix = rng.choice(("mkv", "mkv", "mp4", "webm")) if source.suffix == ".mkv" else "mkv"
    output = work / f"out.{suffix}"
    codec = {"mkv": "ffv1", "mp4": "libx264", "webm": "libvpx-vp9"}[suffix]
    preset = {"mp4": "ultrafast", "webm": "8"}.get(suffix, "")
    # The default network is compiled anew for every size and format; one that is not leaves time for more films.
    model = registry.DEFAULT if rng.random() < 0.1 else str(source.parent.parent / seeds.NEAREST)
    options = TranscodeOptions(
        upscale=UpscaleOptions(model=model, threads=1),
        encoder=EncoderSettings(codec=codec, preset=preset),
        frames=_limit(rng),
    )
    try:
        probe(spoiled)
        result = transcode(spoiled, output, options, Progress("", quiet=True))
    except VideosrError as exc:
        if left := [p.name for p in work.iterdir()]:
            raise FindingError(f"{left} left behind by: {exc}") from exc
        raise
    frames = _sound(output)
    if frames != result.frames:
        raise FindingError(f"{frames} frames in the output, {result.frames} said")
    if options.frames is None and rng.random() < 0.25:
        verify(spoiled, output)  # may find differences, for the source is damaged
    return "done"


def _limit(rng: random.Random) -> int | None:
    """Mostly the whole file."""
    return 3 if rng.random() < 0.1 else None


def _sound(output: Path) -> int:
    """The number of frames of an output, read by FFmpeg alone: nothing damaged, no time going back."""
    last = None
    frames = 0
    with av.open(str(output)) as made:
        for frame in made.decode(made.streams.video[0]):
            if frame.is_corrupt or frame.pts is None or (last is not None and frame.pts < last):
                raise FindingError(f"frame {frames} of the output: damaged, or its time {frame.pts} after {last}")
            last = frame.pts
            frames += 1
    return frames


def image(rng: random.Random, spoiled: Path, work: Path, source: Path) -> str:
    """`upscale` of a still image."""
    output = work / rng.choice(("out.png", "out.jpg", "out.webp"))
    try:
        made = transcode(spoiled, output, TranscodeOptions(upscale=UpscaleOptions(threads=1)), Progress("", quiet=True))
    except VideosrError as exc:
        if left := [p.name for p in work.iterdir()]:
            raise FindingError(f"{left} left behind by: {exc}") from exc
        raise
    with av.open(str(output)) as container:
        frame = next(container.decode(video=0))
        if (frame.width, frame.height) != (made.width, made.height):
            raise FindingError(f"{frame.width}x{frame.height} made, {made.width}x{made.height} said")
    return "done"


def network(rng: random.Random, spoiled: Path, work: Path, source: Path) -> str:
    """An ONNX file as `--model`."""
    made = Upscaler(UpscaleOptions(model=str(spoiled), threads=1))
    fmt = PixelFormat.parse("yuv420p")
    spec = ColorSpec(matrix=Matrix.BT709, range=Range.LIMITED, siting=Siting.LEFT)
    planes = tuple(np.full(fmt.plane_shape(i, 24, 32), 100, np.uint8) for i in range(3))
    for pts in range(2):
        for frame in [*made.process(Frame(planes=planes, format=fmt, pts=pts, time_base=_TICK, color=spec))]:
            _whole(frame, made.scale)
    for frame in made.flush():
        _whole(frame, made.scale)
    return "done"


_TICK = Fraction(1, 25)


def _whole(frame: Frame, scale: int) -> None:
    if [p.shape for p in frame.planes] != [frame.format.plane_shape(i, 24 * scale, 32 * scale) for i in range(3)]:
        raise FindingError(f"planes of shapes {[p.shape for p in frame.planes]}")


def cache(rng: random.Random, spoiled: Path, work: Path, source: Path) -> str:
    """A spoiled cache of compiled networks under a sound network."""
    spoiled.write_bytes(source.read_bytes())
    folder = Path(os.environ["XDG_CACHE_HOME"]) / "videosr" / "openvino"
    if not any(folder.glob("*.blob")):
        network(rng, spoiled, work, source)
    blobs = sorted((*folder.glob("*.blob"), *folder.glob("*.sum")))
    before = {blob: blob.read_bytes() for blob in blobs}
    for blob in blobs:
        if rng.random() < 0.7:
            blob.write_bytes(seeds.spoil(rng, before[blob]))
    try:
        return network(rng, spoiled, work, source)
    finally:
        for blob, data in before.items():
            blob.write_bytes(data)


def checkpoint(rng: random.Random, spoiled: Path, work: Path, source: Path) -> str:
    """A `.safetensors` or `.pth` file as `videosr export` loads it."""
    from videosr.archs.checkpoint import load

    try:
        load(spoiled, alpha=None if rng.random() < 0.5 else 0.0)
    finally:
        mark = source.parent / seeds.MARK
        if mark.exists():
            mark.unlink()
            raise FindingError("code of the checkpoint was run")
    return "done"


def journal(rng: random.Random, spoiled: Path, work: Path, source: Path) -> str:
    """The journal of an interrupted run; what it says is finished has to be what was."""
    from videosr.journal import Journal

    output = work / "out.mkv"
    folder = work / ".out.mkv.videosr"
    folder.mkdir()
    home = source.parent.parent if source.suffix == ".seg" else source.parent
    whole = {p.name: p.read_bytes() for p in (home / "job.json", *(home / "segments").glob("*.seg"))}
    for name, data in whole.items():
        (folder / name).write_bytes(spoiled.read_bytes() if name == source.name else data)
    job = json.loads(whole["job.json"])
    with Journal(output, job, replace=rng.random() < 0.5) as made:
        taken = [segment.path for segment in made.segments()]
        for path in taken:
            if path.read_bytes() != whole[path.name]:
                raise FindingError(f"{path.name} is damaged and was taken")
        left = {p.name for p in folder.iterdir()} - {"lock", "job.json", *(p.name for p in taken)}
        if left:
            raise FindingError(f"left in the journal: {left}")
    return "done"


def ledger(rng: random.Random, spoiled: Path, work: Path, source: Path) -> str:
    """The record of a batch: reading, judging and adding to it."""
    from videosr.batch.ledger import FOLDER, Entry, Known, Ledger, judge

    home = work / FOLDER
    home.mkdir()
    (home / "batch.jsonl").write_bytes(spoiled.read_bytes())
    entry = Entry(state="done", output="new.mkv", input="1", settings={}, file="2", source="s")
    with Ledger(work) as book:
        for name, known in {**book.known, "other": Known()}.items():
            for file in (None, "10 bytes, 11"):
                verdict = judge(known, "9 bytes, 00", {"codec": "libx264", "crf": None}, file)
                if verdict.action == "done" and (known.done is None and known.begun is None):
                    raise FindingError(f"{name} counts as done")
        book.add(entry)
    with Ledger(work) as book:
        if book.known.get("new.mkv", Known()).done != entry:
            raise FindingError("a line that was added is not there")
    return "done"


def preset(rng: random.Random, spoiled: Path, work: Path, source: Path) -> str:
    """A preset file at the command line; the input is not there, so that nothing begins."""
    from videosr.cli import main

    said = io.StringIO()
    arguments = ["videosr", "upscale", str(work / "missing.mkv"), str(work / "out.mkv"), "--as", str(spoiled)]
    before, sys.argv = sys.argv, arguments
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
            main()
    except SystemExit as exc:
        lines = said.getvalue().splitlines()
        if exc.code not in (1, 2) or len(lines) != 1 or "internal error" in lines[0]:
            raise FindingError(f"exit code {exc.code}: {' / '.join(lines)}") from None
    finally:
        sys.argv = before
    return "refused"


def training(rng: random.Random, spoiled: Path, work: Path, source: Path) -> str:
    """A training configuration."""
    from videosr.training.configfile import load_config

    load_config(spoiled)
    return "done"


TARGETS: dict[str, Callable[[random.Random, Path, Path, Path], str]] = {
    "image": image, "onnx": network, "cache": cache, "safetensors": checkpoint, "pth": checkpoint,
    "journal": journal, "ledger": ledger, "preset": preset, "training": training,
}  # fmt: skip

# The same sound network serves all films of a process; loading it anew would be most of the time.
_choose = upscaler.choose
_once = functools.cache(_choose)


def share_networks() -> None:
    """Load every network that is not spoiled once a process."""
    upscaler.choose = lambda path, wish: (_choose if path.stem == "spoiled" else _once)(path, wish)

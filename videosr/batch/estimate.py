"""How much space and time a batch will take, before it begins."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from heapq import nlargest
from pathlib import Path

from videosr.batch.jobs import Facts, Measured
from videosr.errors import OutputError
from videosr.media.codecs import EncoderSettings
from videosr.media.containers import IMAGES
from videosr.media.encoders import ALIASES

BITS_PER_PIXEL = {
    "libx264": 0.25,
    "libx265": 0.2,
    "libsvtav1": 0.15,
    "libvpx-vp9": 0.15,
    "ffv1": 12.0,
    "prores_ks": 6.0,
    "png": 18.0,
    "mjpeg": 4.0,
    "libwebp": 4.0,
}
"""What video takes at the default quality, rather too much than too little; grain takes more."""
OTHER_BITS = 1.0
HALVING = 6.0
"""Steps of `crf` by which the sizes of x264 and x265 halve."""
COPIED = 2_000_000 / 8
"""Bytes a second for sound and all that is copied, at most the source's own size."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """What is expected.

    Attributes:
        bytes: of each output, 0 where its length is unknown.
        seconds: until all is made, None where nothing was measured.
        unknown: outputs whose length is unknown and which are not in the figures.
        how: what the figures come from.
    """

    bytes: tuple[int, ...]
    seconds: float | None
    unknown: int
    how: str

    @property
    def total(self) -> int:
        """Bytes of all outputs."""
        return sum(self.bytes)


def estimate(
    files: Sequence[Facts], encoder: EncoderSettings, measured: Sequence[Measured], jobs: int, to: str = "mkv"
) -> Estimate:
    """Space and time for some files.

    Args:
        files: that are to be made.
        encoder: as asked for.
        measured: what samples of them took, made `jobs` at a time.
        jobs: files under way at once.
        to: suffix of the outputs.
    """
    pixels = [(f.frames or 0) * f.output_size[0] * f.output_size[1] for f in files]
    seconds = None
    if measured:
        per_pixel = sum(m.bits_per_pixel for m in measured) / len(measured)
        video = [n * per_pixel / 8 for n in pixels]
        # Samples differ in size, so their times count and not their speeds. The first one of a worker loads libraries.
        mean = len(measured) / sum(1 / m.pixels_per_second for m in measured)
        begins = len(files) * min(m.begins for m in measured)
        seconds = (sum(pixels) / mean + begins) / max(1, min(jobs, len(files)))
        how = f"from {len(measured)} sample{'s' * (len(measured) > 1)} made here"
    else:
        video = [n * _typical(encoder, f, to) / 8 for n, f in zip(pixels, files, strict=True)]
        how = "from what the encoder usually takes"
    copied = [min(f.bytes, float(f.seconds or 0) * COPIED) for f in files]
    sizes = tuple(round(v + c) if v else 0 for v, c in zip(video, copied, strict=True))
    return Estimate(sizes, seconds, sum(not n for n in pixels), how)


def _typical(encoder: EncoderSettings, file: Facts, to: str) -> float:
    still = IMAGES.get(f".{to.removeprefix('.').lower()}")
    if still is not None:
        return BITS_PER_PIXEL[still] * (2 if still == "png" and file.bits > 8 else 1)
    codec = ALIASES.get(encoder.codec, encoder.codec) or ("libx264" if file.bits == 8 else "libx265")
    bits = BITS_PER_PIXEL.get(codec, OTHER_BITS)
    if encoder.crf is not None and codec in ("libx264", "libx265"):
        bits *= 2 ** ((17 - encoder.crf) / HALVING)
    return bits


def space(folder: Path) -> int:
    """Bytes that are free where a folder is, or will be.

    Raises:
        OutputError: the system does not say.
    """
    place = folder.absolute()
    while not place.exists() and place != place.parent:
        place = place.parent
    try:
        return shutil.disk_usage(place).free
    except OSError as exc:
        raise OutputError(f"{place}: free space is unknown: {exc.strerror}") from exc


def need(files: Iterable[Facts], sizes: Iterable[int], jobs: int) -> int:
    """Bytes that are still taken while outputs are made: those under way are there twice, as segments and as a whole.

    Args:
        files: that are to be made; segments that an earlier run has left of them are there already.
        sizes: of their outputs.
        jobs: files under way at once.
    """
    sizes = list(sizes)
    there = sum(min(file.stored, size) for file, size in zip(files, sizes, strict=True))
    return sum(sizes) + sum(nlargest(jobs, sizes)) - there


def human(size: float) -> str:
    """Bytes as people read them."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "bytes" or size >= 100 else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"

"""What was measured, as Markdown tables and as JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

from videosr.errors import one_line
from videosr.evaluate.images import SetScores
from videosr.evaluate.video import VideoScores


def markdown(results: Iterable[SetScores], clips: Iterable[VideoScores] = ()) -> str:
    """A table of the sets' means and one of the clips, a row for each model; an empty table is left out."""
    sets, videos = list(results), list(clips)
    parts = []
    if sets:
        further = sorted({name for s in sets for name in s.mean.perceptual})
        rows = []
        for s in sets:
            m = s.mean
            row = [
                _name(m.name),
                str(len(s.images)),
                _name(s.model),
                f"{m.psnr_rgb:.2f}",
                f"{m.psnr_y:.2f}",
                f"{m.ssim_y:.4f}",
            ]
            rows.append(row + [number(m.perceptual.get(name), 4) for name in further])
        heads = [name.upper() for name in further]
        parts.append(table(["set", "images", "model", "PSNR RGB", "PSNR Y", "SSIM Y", *heads], rows))
    if videos:
        head = ["clip", "frames", "input", "model", "PSNR", "Y", "Cb", "Cr", "SSIM Y", "VMAF", "VMAF NEG"]
        parts.append(table([*head, "flicker", "motion"], [_video_row(v) for v in videos]))
    return "\n\n".join(parts)


def _video_row(v: VideoScores) -> list[str]:
    source = "uncompressed" if v.crf is None else f"x264 CRF {v.crf:g}"
    row = [_name(v.clip), str(v.frames), source, _name(v.model)]
    row += [number(value, 2) for value in (v.psnr, v.psnr_y, v.psnr_cb, v.psnr_cr)]
    row += [number(v.ssim_y, 4), number(v.vmaf, 2), number(v.vmaf_neg, 2)]
    return [*row, number(v.flicker, 2), number(v.motion, 3)]


def _name(text: str) -> str:
    """The name of a file, which may hold anything, as a cell."""
    return one_line(text).replace("|", r"\|")


def number(value: float | None, digits: int) -> str:
    """A figure for a table, a dash where there is none."""
    return "-" if value is None else f"{value:.{digits}f}"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" if line[0] != "---" else f"|{'|'.join(line)}|" for line in lines)


def to_json(results: Iterable[SetScores], clips: Iterable[VideoScores] = ()) -> str:
    """{"images": sets with every image, "clips": ...}; an infinite PSNR, which JSON cannot say, is null."""
    data = {"images": [asdict(r) for r in results], "clips": [asdict(c) for c in clips]}
    return json.dumps(_finite(data), indent=2)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(v) for key, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and math.isinf(value) else value

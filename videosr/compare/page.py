"""A comparison as one file of HTML that needs nothing else, or as one picture."""

from __future__ import annotations

import base64
from html import escape
from pathlib import Path
from string import Template

import numpy as np

from videosr.compare.png import png
from videosr.compare.samples import RUN, Comparison, Picture, Sample
from videosr.evaluate.video import VideoScores

AMPLIFIED = 8
"""What differences are multiplied by where they are shown."""
_TEMPLATE = Path(__file__).with_name("page.html")
_COLUMNS = (
    ("PSNR", "psnr", "{:.2f} dB"),
    ("PSNR Y", "psnr_y", "{:.2f} dB"),
    ("SSIM Y", "ssim_y", "{:.4f}"),
    ("VMAF", "vmaf", "{:.1f}"),
    ("VMAF NEG", "vmaf_neg", "{:.1f}"),
    ("flicker", "flicker", "{:.3f}"),
    ("motion", "motion", "{:.3f} px"),
)


def table(comparison: Comparison) -> list[list[str]]:
    """What was measured, as rows of text, the first one with the names of the columns."""
    columns = [c for c in _COLUMNS if any(getattr(s, c[1]) is not None for s in comparison.scores)]
    rows = [["", *(name for name, _, _ in columns)]]
    for scores in comparison.scores:
        rows.append([scores.model, *(_cell(scores, key, form) for _, key, form in columns)])
    return rows


def against(comparison: Comparison) -> str:
    """What the figures are, in a sentence."""
    other = comparison.names[2] if len(comparison.names) > 2 else comparison.names[0]
    number = comparison.scores[0].frames
    frames = f"{number} frame{'s' * (number != 1)}, {min(RUN, number)} of each"
    scenes = f"{len(comparison.samples)} scene{'s' * (len(comparison.samples) != 1)}"
    return (
        f"measured against {Path(other).name} on {frames} of {scenes}; flicker: how much "
        "more or less the picture changes than there, where that stands still, in code values of 8 bits"
    )


def page(comparison: Comparison) -> str:
    """The page."""
    names = [Path(name).name for name in comparison.names]
    title = f"{names[0]} | {names[1]}"
    facts = [
        f"{name}: {info.width}x{info.height}, {info.format.name}, {info.codec or 'raw'}"
        for name, info in zip(names, comparison.infos, strict=True)
    ]
    facts += comparison.notes
    figures = ""
    if comparison.scores:
        head, *rows = table(comparison)
        facts.append(against(comparison))
        lines = ["".join(f"<th>{escape(cell)}</th>" for cell in head)]
        lines += ["".join(f"<td>{escape(cell)}</td>" for cell in row) for row in rows]
        figures = f"<table>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>"
    reference = f'<button data-set="r">{escape(names[2])} (r)</button>' if len(names) > 2 else ""
    return Template(_TEMPLATE.read_text(encoding="utf-8")).substitute(
        title=escape(title),
        facts="".join(f"<li>{escape(fact)}</li>" for fact in facts),
        table=figures,
        a=escape(names[0]),
        b=escape(names[1]),
        reference=reference,
        scenes="\n".join(_figure(sample, names, comparison.size) for sample in comparison.samples),
    )


def _figure(sample: Sample, names: list[str], size: tuple[int, int]) -> str:
    height, width, _ = sample.pictures[0].shape
    images = "".join(
        f'<img class="{kind}" alt="{escape(name)}" width="{width}" height="{height}" '
        f'src="data:image/png;base64,{base64.b64encode(png(picture)).decode()}">'
        for kind, name, picture in zip("abr", names, sample.pictures, strict=False)
    )
    where = f"{float(sample.time):.3f} s"
    if (width, height) != size:
        row, column = sample.corner
        where += f": {width}x{height} of {size[0]}x{size[1]}, from column {column} and row {row} on"
    return (
        f'<figure><div class="frame"><div class="stage" style="--cut: 50%">{images}'
        f'<span class="label">{escape(names[0])}</span><span class="label of-b">{escape(names[1])}</span></div></div>'
        '<input type="range" min="0" max="100" step="0.1" value="50" aria-label="where the one gives way to the other">'
        f"<figcaption>{where}; mean difference {sample.difference:.2f} of 255</figcaption></figure>"
    )


def _cell(scores: VideoScores, key: str, form: str) -> str:
    value = getattr(scores, key)
    return "" if value is None else form.format(value)


def picture(comparison: Comparison) -> bytes:
    """The scene in which the films differ most, as a PNG file: the first, the second, their difference times eight."""
    sample = max(comparison.samples, key=lambda s: s.difference)
    a, b = sample.pictures[:2]
    difference = np.abs(a.astype(np.int16) - b.astype(np.int16)) * AMPLIFIED
    parts: list[Picture] = [a, b, np.minimum(difference, 255).astype(np.uint8)]
    gap = np.full((a.shape[0], 4, 3), 255, np.uint8)
    return png(np.concatenate([parts[0], gap, parts[1], gap, parts[2]], axis=1))

"""The log of a run: JSON lines, and a picture of them."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from videosr.errors import OutputError
from videosr.files import write_atomically

type Curve = list[tuple[float, float]]

_WIDTH, _HEIGHT, _LEFT, _GAP = 760, 220, 70, 50
_COLOURS = ("#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e", "#17becf", "#8c564b", "#7f7f7f")


class Journal:
    """Writes `log.jsonl` and draws `log.svg`.

    Args:
        folder: of the run.
    """

    def __init__(self, folder: Path) -> None:
        self.lines, self.picture = folder / "log.jsonl", folder / "log.svg"

    def write(self, **values: Any) -> str:
        """Append one line and return it. Raises OutputError: it cannot be written."""
        record = json.dumps(values)
        try:
            with self.lines.open("a", encoding="utf-8") as file:
                file.write(record + "\n")
        except OSError as exc:
            raise OutputError.writing(self.lines, exc) from exc
        return record

    def rewind(self, iteration: int) -> None:
        """Forget what lies beyond an iteration from which the run goes on: after a kill, the log is ahead of it.

        Raises:
            OutputError: it cannot be written.
        """
        if not self.lines.exists():
            return
        known = self.lines.read_text(encoding="utf-8")
        kept = "".join(json.dumps(record) + "\n" for record in _records(known) if record["iteration"] <= iteration)
        if kept != known:
            write_atomically(self.lines, kept.encode())

    def draw(self) -> None:
        """Draw the log anew: losses above (logarithmic), below what PSNR of luma has gained since it was first taken.

        Sets are decibels apart, and a run's gain is tenths: the values themselves stand beside the curves.
        """
        losses: dict[str, Curve] = {}
        scores: dict[str, Curve] = {}
        for record in _records(self.lines.read_text(encoding="utf-8")):
            for name, value in record.items():
                curves = losses if name == "loss" or name.endswith("_loss") else scores
                points = value.items() if name == "psnr_y" else [(name, value)] if curves is losses else []
                for key, number in points:
                    curves.setdefault(key, []).append((record["iteration"], number))
        plots = [_plot("loss", losses, logarithmic=True, top=_GAP)]
        if scores:
            gains = {
                f"{name}: {points[-1][1]:.2f}": [(x, y - points[0][1]) for x, y in points]
                for name, points in scores.items()
            }
            plots.append(_plot("PSNR Y, gain in dB", gains, logarithmic=False, top=_HEIGHT + 2 * _GAP))
        height = len(plots) * (_HEIGHT + _GAP) + _GAP
        drawn = (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH + _LEFT + 190}" height="{height}" '
            f'font-family="sans-serif" font-size="12"><rect width="100%" height="100%" fill="white"/>'
            + "".join(plots)
            + "</svg>\n"
        )
        write_atomically(self.picture, drawn.encode())


def _records(log: str) -> Iterator[dict[str, Any]]:
    """What its lines say."""
    for line in log.splitlines():
        try:
            yield json.loads(line)
        except json.JSONDecodeError:  # cut off where a run was killed
            continue


def _plot(title: str, curves: dict[str, Curve], *, logarithmic: bool, top: int) -> str:
    """One diagram: axes with round numbers, a line for each curve, their names beside it."""

    def height(value: float) -> float:
        return math.log10(value) if logarithmic else value

    curves = {
        name: [(x, height(y)) for x, y in points if math.isfinite(y) and (y > 0 or not logarithmic)]
        for name, points in curves.items()
    }
    everything = [point for points in curves.values() for point in points]
    if not everything:
        return ""
    end = max(x for x, _ in everything) or 1
    low, high = min(y for _, y in everything), max(y for _, y in everything)
    low, high = (low, high) if high - low > 1e-6 else (low - 0.5, high + 0.5)

    def place(x: float, y: float) -> tuple[float, float]:
        return _LEFT + x / end * _WIDTH, top + _HEIGHT - (y - low) / (high - low) * _HEIGHT

    parts = [f'<text x="{_LEFT}" y="{top - 12}" font-weight="bold">{title}</text>']
    for y in _ticks(low, high):
        _, at = place(0, y)
        label = f"{10**y:.3g}" if logarithmic else f"{y:g}"
        parts.append(f'<path d="M{_LEFT} {at:.1f}h{_WIDTH}" stroke="#ddd"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{at + 4:.1f}" text-anchor="end">{label}</text>')
    for x in _ticks(0, end):
        at, _ = place(x, low)
        parts.append(f'<text x="{at:.1f}" y="{top + _HEIGHT + 16}" text-anchor="middle">{x:g}</text>')
    for i, (name, points) in enumerate(curves.items()):
        colour = _COLOURS[i % len(_COLOURS)]
        line = " ".join("{:.1f},{:.1f}".format(*place(*point)) for point in points)
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
        name = name.replace("&", "&amp;").replace("<", "&lt;")
        parts.append(f'<text x="{_LEFT + _WIDTH + 10}" y="{top + 12 + 16 * i}" fill="{colour}">{name}</text>')
    return "".join(parts)


def _ticks(low: float, high: float) -> Sequence[float]:
    """Some five round numbers from `low` to `high`."""
    raw = (high - low) / 5
    power = 10 ** math.floor(math.log10(raw))
    step = next(power * m for m in (1, 2, 5, 10) if power * m >= raw)
    first = math.ceil(low / step - 1e-9)
    return [round(i * step, 10) for i in range(first, math.floor(high / step + 1e-9) + 1)]

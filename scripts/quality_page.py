"""Imported by `quality_table.py`; not a command.

The page docs/quality.md from what `quality_table.py` measured: its tables, and which bars are met.

Figures of others are as they were published: ParagonSR2's in its README (github.com/Phhofm/ParagonSR2, 2x), the field's
in the papers named beside them.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from videosr.evaluate.report import number, table

BEGIN, END = "<!-- measured: begin (scripts/quality_table.py) -->", "<!-- measured: end -->"
SETS = ("Set5", "Set14", "B100", "Urban100")
PUBLISHED = {  # PSNR RGB, PSNR-Y as they define it, SSIM, SSIM-C, LPIPS, DISTS, TOPIQ-FR: realtime, stream, photo
    "Urban100": ("27.38 28.02 29.88", "27.56 28.23 30.15", "0.8777 0.8914 0.9163", "0.1280 0.1159 0.0654"),
    "liu4k": ("35.00 35.68 36.23", "35.32 36.04 36.54", "0.9500 0.9544 0.9587", "0.0801 0.0780 0.0571"),
    "BHI100": ("25.51 25.96 27.03", "25.70 26.16 27.22", "0.8532 0.8679 0.8901", "0.1752 0.1644 0.0897"),
    "psisrd_val125": ("27.84 27.37 27.62", "27.86 27.39 27.64", "0.8674 0.8672 0.8724", "0.1426 0.1395 0.0935"),
}
FIELD = [  # luma PSNR at 2x on SETS
    ("FSRCNN (Dong et al., ECCV 2016)", "12 k", (37.00, 32.63, 31.53, 29.88)),
    ("IMDN (Hui et al., ACM MM 2019)", "694 k", (38.00, 33.63, 32.19, 32.17)),
    ("CARN (Ahn et al., ECCV 2018)", "1,592 k", (37.76, 33.52, 32.09, 31.92)),
]
IMAGE_BARS = {
    "realtime-2x": {"Urban100 RGB": 28.2, "Set5 Y": 37.0, "B100 Y": 31.5},
    "stream-2x": {"Urban100 RGB": 29.4, "Set5 Y": 37.7, "B100 Y": 31.9},
}
TIME_BARS = ("realtime-2x", "realtime-2x-video", "stream-2x", "stream-2x-video")
"""Networks whose temporal reuse has to meet bars."""
SEQUENCES = 4
"""Of Vid4: what fewer of them say of temporal reuse is no verdict."""
PARAMETERS = {
    "light-2x": "5 k",
    "realtime-2x": "17 k",
    "realtime-4x": "45 k",
    "fine-4x": "198 k",
    "fine-2x": "87 k",
    "photo-2x": "477 k",
    "stream-2x": "110 k",
    "stream-4x": "221 k",
}
BENCHMARK = {"Urban100": 100, "B100": 100, "Set14": 14, "Set5": 5}
"""How many images the field's sets have: a figure on fewer is not comparable."""

type Row = dict[str, Any]


class Measured:
    """The rows of quality.json that belong to the networks as they are shipped now."""

    def __init__(self, rows: dict[str, Row], current: set[str]) -> None:
        self.images: dict[tuple[int, str, str], Row] = {}
        self.clips: list[tuple[int, Row]] = []
        self.time: dict[tuple[int, str], list[Row]] = {}
        self.models: list[str] = []
        for key, row in rows.items():
            kind, scale, source, network, *_ = key.split(" | ")
            if network not in current:
                continue
            factor, name = int(scale[:-1]), network.split()[0]
            if name not in self.models:
                self.models.append(name)
            if kind == "images":
                self.images[factor, canonical(source.rsplit(" ", 1)[0]), name] = row
            elif kind == "clip":
                self.clips.append((factor, row))
            elif row:
                self.time.setdefault((factor, name), []).append(row)

    def figure(self, scale: int, which: str, model: str) -> float | None:
        """ "Set5 Y" or "Urban100 RGB" of a model, None where it was not measured on the whole set."""
        name, kind = which.split()
        row = self.images.get((scale, name, model))
        if row is None or row["images"] != BENCHMARK[name]:
            return None
        return float(row["psnr_y" if kind == "Y" else "psnr_rgb"])


def canonical(name: str) -> str:
    """The set that a folder holds, by its name: "CUrban100" is Urban100."""
    return next((s for s in SETS if s.lower() in name.lower()), name)


def write(path: Path, measured: Measured) -> None:
    """Replace what stands between the markers, or begin a page."""
    text = path.read_text() if path.exists() else f"# Quality\n\n{BEGIN}\n{END}\n"
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    parts = [bars(measured), image_tables(measured), published(), clip_tables(measured), time_tables(measured)]
    body = "\n\n".join(part for part in parts if part)
    path.write_text(f"{before}{BEGIN}\n\n{body}\n\n{END}{after}")


def scales(measured: Measured) -> list[int]:
    return sorted({key[0] for key in measured.images})


def models_of(measured: Measured, scale: int) -> list[str]:
    """Bicubic first, then the networks by name."""
    found = {model for s, _, model in measured.images if s == scale} | {
        r["model"] for s, r in measured.clips if s == scale
    }
    return sorted(found, key=lambda name: (name != "bicubic", name))


def image_tables(measured: Measured) -> str:
    parts = []
    for scale in scales(measured):
        columns = [*(f"{s} Y" for s in SETS), "Urban100 RGB"]
        rows = [
            [
                f"**{m}**" if m != "bicubic" else m,
                parameters(m),
                *(number(measured.figure(scale, c, m), 2) for c in columns),
            ]
            for m in models_of(measured, scale)
        ]
        if scale == 2:
            for i, (name, size) in enumerate((("realtime", "17 k"), ("stream", "110 k"), ("photo", "745 k"))):
                rows.append(
                    [
                        f"ParagonSR2 {name}, published",
                        size,
                        *("-" * len(SETS)),
                        PUBLISHED["Urban100"][0].split()[i],
                    ]
                )
            rows += [[name, size, *(f"{v:.2f}" for v in values), "-"] for name, size, values in FIELD]
        parts.append(f"## Image sets, {scale}x\n\nPSNR in dB.\n\n" + table(["", "parameters", *columns], rows))
        rows = []
        for (s, name, model), r in sorted(
            measured.images.items(), key=lambda x: (order(x[0][1]), x[0][2] != "bicubic")
        ):
            if s == scale:
                rows.append(
                    [
                        name,
                        str(r["images"]),
                        model,
                        *(f"{r[k]:.2f}" for k in ("psnr_rgb", "psnr_y")),
                        f"{r['ssim_y']:.4f}",
                    ]
                )
        parts.append(table(["set", "images", "", "PSNR RGB", "PSNR Y", "SSIM Y"], rows))
    return "\n\n".join(parts)


def parameters(model: str) -> str:
    """Of a variant: `stream-2x-video` has those of `stream-2x`."""
    return next((n for name, n in PARAMETERS.items() if model.startswith(name)), "")


def order(name: str) -> int:
    return SETS.index(name) if name in SETS else len(SETS)


def published() -> str:
    rows = []
    for name, figures in PUBLISHED.items():
        for i, variant in enumerate(("realtime", "stream", "photo")):
            rows.append([name, variant, *(f.split()[i] for f in figures)])
    rows = [[*row, "above" if row[0] == "Urban100" else "not obtained"] for row in rows]
    head = ["set", "ParagonSR2", "PSNR", "PSNR-Y", "SSIM", "LPIPS", "ours"]
    return (
        "## As published by ParagonSR2, 2x\n\nTheir PSNR-Y is 0.2 dB above their PSNR, where BT.601 luma in 16..235 is "
        "1.3 dB and more above it: another definition, not to be compared with the Y columns here.\n\n"
        + table(head, rows)
    )


def clip_tables(measured: Measured) -> str:
    parts = []
    head = ["clip", "input", "", "PSNR", "Y", "Cb", "Cr", "SSIM Y", "VMAF", "VMAF NEG", "flicker", "motion"]
    for scale in sorted({s for s, _ in measured.clips}):
        clips = [r for s, r in measured.clips if s == scale]
        names = sorted({r["clip"] for r in clips})
        found = models_of(measured, scale)
        rows = []
        for crf in crfs(clips):
            for model in found:
                rows += [
                    clip_row("**mean**", mean(group)) for group in [of(clips, crf, model)] if len(group) == len(names)
                ]
        for name in names:
            for crf in crfs(clips):
                for model in found:
                    rows += [clip_row(name, r) for r in of(clips, crf, model) if r["clip"] == name]
        frames = ", ".join(sorted({str(r["frames"]) for r in clips}, key=int))
        parts.append(f"## Video, {scale}x\n\n{frames} frames of each of {len(names)} clips.\n\n" + table(head, rows))
    return "\n\n".join(parts)


def crfs(clips: Iterable[Row]) -> list[float | None]:
    return sorted({r["crf"] for r in clips}, key=lambda crf: -1 if crf is None else crf)


def of(clips: Iterable[Row], crf: float | None, model: str) -> list[Row]:
    return [r for r in clips if r["crf"] == crf and r["model"] == model]


def mean(rows: list[Row]) -> Row:
    """Means of what is a figure in every row, or in those that have one."""
    out = dict(rows[0])
    for key in ("psnr", "psnr_y", "psnr_cb", "psnr_cr", "ssim_y", "vmaf", "vmaf_neg", "flicker", "motion"):
        values = [r[key] for r in rows if r[key] is not None]
        out[key] = sum(values) / len(values) if values else None
    return out


def clip_row(name: str, r: Row) -> list[str]:
    source = "uncompressed" if r["crf"] is None else f"CRF {r['crf']:g}"
    row = [name, source, r["model"], *(number(r[k], 2) for k in ("psnr", "psnr_y", "psnr_cb", "psnr_cr"))]
    row += [number(r["ssim_y"], 4), number(r["vmaf"], 2), number(r["vmaf_neg"], 2)]
    return [*row, number(r["flicker"], 2), number(r["motion"], 3)]


def time_tables(measured: Measured) -> str:
    rows = []
    for (scale, model), clips in sorted(measured.time.items()):
        for kind in clips[0]:
            cells = [time_mean(clips, kind, mode) for mode in ("off", "adaptive")]
            rows.append([f"{model} ({scale}x)" if scale != 2 else model, kind, *map(time_cell, cells)])
    if not rows:
        return ""
    text = "## Temporal reuse\n\nLuma PSNR, dB / flicker, code values / grain kept; means of "
    count = max(len(clips) for clips in measured.time.values())
    return f"{text}{count} sequences.\n\n" + table(["", "input", "off", "adaptive"], rows)


def time_mean(clips: list[Row], kind: str, mode: str) -> dict[str, float | None]:
    cells = [clip[kind][mode] for clip in clips]
    return {k: None if cells[0][k] is None else sum(c[k] for c in cells) / len(cells) for k in cells[0]}


def time_cell(cell: dict[str, float | None]) -> str:
    kept = "" if cell["grain"] is None else f" / {cell['grain']:.1%}"
    return f"{number(cell['psnr'], 2)} / {number(cell['flicker'], 2)}{kept}"


def bars(measured: Measured) -> str:
    """What is aimed at, and whether it is reached."""
    rows = []
    for model, wanted in IMAGE_BARS.items():
        for which, least in wanted.items():
            got = measured.figure(2, which, model)
            rows.append([f"{model}: {which}", f">= {least:.1f} dB", f"{number(got, 2)}", verdict(got, least)])
    rows += video_bars(measured) + time_bars(measured)
    return "## Bars\n\n" + table(["", "wanted", "measured", ""], rows)


def verdict(got: float | None, least: float) -> str:
    if got is None:
        return "**open**: not obtained"
    return "met" if got >= least else f"**open**: {least - got:.2f} short"


def video_bars(measured: Measured) -> list[list[str]]:
    rows = []
    clips = [r for s, r in measured.clips if s == 2]
    for crf in (28.0, 35.0):
        ours = of(clips, crf, "stream-2x-video")
        for other in ("bicubic", "stream-2x"):
            theirs = of(clips, crf, other)
            name = f"stream-2x-video over {other}, CRF {crf:g}: PSNR, VMAF"
            if not ours or len(ours) != len(theirs):
                rows.append([name, "> 0, > 0", "-", "**open**: not obtained"])
                continue
            a, b = mean(ours), mean(theirs)
            gains = a["psnr"] - b["psnr"], a["vmaf"] - b["vmaf"]
            pairs = [(x, next(y for y in theirs if y["clip"] == x["clip"])) for x in ours]
            better = sum(x["psnr"] > y["psnr"] and x["vmaf"] > y["vmaf"] for x, y in pairs)
            shown = f"{gains[0]:+.2f} dB, {gains[1]:+.1f}; both on {better} of {len(pairs)} clips"
            rows.append([name, "> 0, > 0", shown, "met" if min(gains) > 0 else "**open**"])
    return rows


def time_bars(measured: Measured) -> list[list[str]]:
    rows = []
    for (scale, model), clips in sorted(measured.time.items()):
        if scale != 2 or model not in TIME_BARS or len(clips) < SEQUENCES:
            continue
        off, on = ({k: time_mean(clips, k, mode) for k in clips[0]} for mode in ("off", "adaptive"))
        clean = on["clean"]["psnr"] - off["clean"]["psnr"]
        noise = on["noise"]["psnr"] - off["noise"]["psnr"]
        calmed = 1 - on["noise"]["flicker"] / off["noise"]["flicker"]
        grain = on["grain"]["grain"]
        checks = [
            ("clean, adaptive against off", ">= -0.02 dB", f"{clean:+.3f} dB", clean >= -0.02),
            ("noise of sigma 4, adaptive against off", ">= +0.35 dB", f"{noise:+.2f} dB", noise >= 0.35),
            ("noise of sigma 4, flicker", ">= 40 % less", f"{calmed:.0%} less", calmed >= 0.4),
            ("grain kept", "95 to 105 %", f"{grain:.1%}", abs(grain - 1) <= 0.05),
        ]
        rows += [[f"{model}: {name}", want, got, "met" if ok else "**open**"] for name, want, got, ok in checks]
    return rows

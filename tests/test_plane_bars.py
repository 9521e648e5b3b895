"""The plane kernels' bars, on the stand-in for a GPU."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from hostdevice import HostDevice

SCRIPT = Path(__file__).parents[1] / "scripts" / "plane_bars.py"


def test_every_kernel_is_measured(capsys, monkeypatch):
    spec = importlib.util.spec_from_file_location("plane_bars", SCRIPT)
    plane_bars = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(plane_bars)
    monkeypatch.setattr(plane_bars, "FORMATS", [("yuv420p", "float32")])
    assert plane_bars.main(["--size", "50x40", "--count", "2"], HostDevice()) == 0
    lines = capsys.readouterr().out.splitlines()[2:]
    assert len(lines) == 6
    assert all("GB/s" in line for line in lines)
    moved = [float(line.split("us")[1].split("MB")[0]) for line in lines]
    assert moved[1] == round((1.5 + 24) * 50 * 40 / 1e6, 1)

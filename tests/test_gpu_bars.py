"""The bars' script runs on the stand-in, so that it will not fail on a GPU for its own sake."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import pytest

pytest.importorskip("tensorrt_rtx")
pytest.importorskip("onnxruntime")
pytest.importorskip("torch")

import hostnvdec
from clips import make_clip
from hostdevice import HostDevice, OnnxLoader

from videosr.engines.cache import Cache
from videosr.engines.network import Network
from videosr.engines.openvino import OpenVINOEngine
from videosr.engines.tensorrt import TensorRTEngine
from videosr.models import registry

SCRIPT = Path(__file__).parent.parent / "scripts" / "gpu_bars.py"


@pytest.fixture
def script(monkeypatch):
    spec = importlib.util.spec_from_file_location("gpu_bars", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "gpu_bars", module)
    spec.loader.exec_module(module)
    monkeypatch.setattr("torch.compile", lambda network: network)  # a compiler is not what is tested
    return module


def test_every_bar_has_a_figure_or_a_reason(script, tmp_path, capsys, monkeypatch):
    cache = Cache(tmp_path / "engines")
    clip = make_clip(tmp_path / "clip.mkv", frames=20, width=64, height=48)
    hostnvdec.install(monkeypatch)

    def make(path):
        options = {"library": "tensorrt_rtx", "cache": cache}
        return TensorRTEngine(Network.open(path), device=HostDevice(), loader=OnnxLoader(), **options)

    figures = tmp_path / "figures.json"
    arguments = ["--count", "1", "--clip", clip, "--json", figures]
    code = script.main(list(map(str, arguments)), make, (48, 64), "cpu")
    bars = {bar["name"]: bar for bar in json.loads(figures.read_text())["bars"]}
    out = capsys.readouterr().out
    assert code == 1, out  # a CPU is no GPU
    assert len(bars) == 8
    assert all(bar["value"] is not None for bar in bars.values())
    assert bars["PSNR"]["met"]
    assert bars["within one 8-bit code"]["met"]
    assert bars["realtime, 64x48, memory"]["met"]
    assert not bars["realtime, 64x48, engine only"]["met"]
    assert "MISSED" in out
    copies = bars["file to null sink, copied between host and GPU"]
    assert copies["met"]
    assert copies["value"] == 1
    assert "0 bytes up, 1 down a frame; decoded by NVDEC" in copies["note"]
    assert "busy" in bars["file to null sink"]["note"]


def test_a_clip_that_nvdec_does_not_take_is_told(script, tmp_path):
    clip = make_clip(tmp_path / "clip.mkv", frames=3, width=64, height=48, codec="ffv1")
    engine = OpenVINOEngine(Network.open(registry.find(registry.DEFAULT)))
    fast, copies = script.whole_way(engine, clip)
    assert fast.value > 0
    assert "decoded on the CPU" in fast.note
    assert copies.value == 0  # of a GPU that is not there


def test_what_cannot_be_measured_says_why(script):
    for bar in script.whole_way(None, None):
        assert bar.met is None
        assert str(bar).startswith("not measured")
        assert "--clip" in str(bar)


def test_without_a_gpu_nothing_is_measured(script, capsys, monkeypatch):
    monkeypatch.setattr("videosr.doctor.gpus", lambda: ())
    assert script.main([]) == 1
    assert "no engine that could be measured is ready here" in capsys.readouterr().out

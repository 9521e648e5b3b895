"""The bars' script runs on the stand-in, so that it will not fail on a GPU for its own sake."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
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
from videosr.engines.tensorrt import TensorRTEngine
from videosr.errors import EngineError

SCRIPT = Path(__file__).parent.parent / "scripts" / "gpu_bars.py"


@pytest.fixture
def script(monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    spec = importlib.util.spec_from_file_location("gpu_bars", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "gpu_bars", module)
    spec.loader.exec_module(module)
    monkeypatch.setattr("torch.compile", lambda network: network)  # a compiler is not what is tested
    return module


def test_every_bar_has_a_figure_or_a_reason(script, tmp_path, capsys, monkeypatch):
    import gpu_checks
    import gpu_parts
    import plane_bars

    cache = Cache(tmp_path / "engines")
    hostnvdec.install(monkeypatch)
    monkeypatch.setattr(gpu_parts, "the_gpu", HostDevice)
    monkeypatch.setattr(gpu_checks, "CASES", gpu_checks.CASES[:1])
    monkeypatch.setattr(gpu_checks.compare, "__defaults__", ((38, 52),))
    monkeypatch.setattr(plane_bars, "FORMATS", plane_bars.FORMATS[:1])

    def make(path, name):
        if name == "cuda":
            raise EngineError("no such kernel here")
        options = {"library": name, "cache": cache}
        return TensorRTEngine(Network.open(path), device=HostDevice(), loader=OnnxLoader(), **options)

    figures = tmp_path / "figures.json"
    arguments = ["--count", "1", "--size", "64x48", "--json", figures]
    arguments += ["--engine", "tensorrt_rtx", "--engine", "cuda"]
    code = script.main(list(map(str, arguments)), make, "cpu")
    out = capsys.readouterr().out
    written = json.loads(figures.read_text())
    bars = {bar["name"]: bar for bar in written["bars"]}
    assert code == 1, out  # a CPU is no GPU
    assert len(bars) == 9
    measured = {bar["name"]: bar["value"] for bar in written["bars"]}
    assert None not in measured.values(), out
    assert bars["kernels as color.py, temporal.py, scenes.py"]["met"], out
    assert bars["PSNR"]["met"]
    assert bars["within one 8-bit code"]["met"]
    assert bars["memory"]["met"]
    assert not bars["realtime, engine only"]["met"]
    assert "MISSED" in out
    copies = bars["file to null sink, copied between host and GPU"]
    assert copies["value"] == 1
    assert "0 bytes up, 1 down a frame; decoded by NVDEC" in copies["note"]
    assert "busy" in bars["file to null sink"]["note"]
    given = {figure["name"]: figure for figure in written["figures"]}
    assert given["realtime with cuda"]["value"] is None
    assert "no such kernel here" in given["realtime with cuda"]["note"]
    tables = [line for line in out.splitlines() if line.startswith("|")]
    assert {line.count("|") for line in tables} == {4, 6}
    assert "GB/s" in out


def test_a_film_that_nvdec_does_not_take_is_told(script, tmp_path):
    import gpu_parts

    from videosr.engines.openvino import OpenVINOEngine

    clip = make_clip(tmp_path / "clip.mkv", frames=3, width=64, height=48, codec="ffv1")
    engine = OpenVINOEngine(Network.open(gpu_parts.shipped("realtime-2x", "openvino")))
    case = gpu_parts.Case((48, 64), 1, tmp_path, clip, "cpu", lambda path, name: engine)
    fast, copies = gpu_parts.film(engine, case, "openvino")
    assert fast.value > 0
    assert "decoded on the CPU" in fast.note
    assert copies.value == 0  # of a GPU that is not there
    (lost,) = gpu_parts.attempt("memory", "MiB", lambda: gpu_parts.memory(engine, case, "openvino"))
    assert (lost.name, lost.value) == ("memory", None)
    assert "cupy" in lost.note


PART = """
import sys
print("noise of a library")
print('FIGURE {"name": "realtime with cuda", "value": 5.0, "unit": "frames/s", "note": ""}', flush=True)
"""


@pytest.mark.parametrize(
    ("end", "limit", "said"),
    [
        ("sys.exit('cudaErrorIllegalAddress')", 60, "ended with 1 .*: cudaErrorIllegalAddress"),
        ("import os; os.kill(os.getpid(), 11)", 60, "ended with -11"),
        ("import time; time.sleep(600)", 5, r"ended with -9 \(5 s were given\)"),
    ],
    ids=["error", "crash", "hang"],
)
def test_a_part_that_dies_takes_no_figure_with_it(script, end, limit, said):
    first, last = script.apart([sys.executable, "-u", "-c", PART + end], "engine", "cuda", limit)
    assert (first.name, first.value) == ("realtime with cuda", 5.0)
    assert (last.name, last.value) == ("realtime with cuda, after that", None)
    assert re.match(said, last.note), last.note
    bars = {bar.name: bar for bar in script.bars_of({f.name: f for f in (first, last)})}
    assert bars["realtime, engine only"].met is False
    assert bars["memory"].met is None


def test_parts_for_which_no_time_is_left_say_so(script):
    (figure,) = script.apart([sys.executable, "-c", ""], "kernels", "", 1)
    assert figure.note == "no time left"


def test_without_a_gpu_nothing_is_measured(script, capsys, monkeypatch):
    def none():
        raise script.NoDriverError("the NVIDIA driver shows no GPU: see nvidia-smi")

    monkeypatch.setattr(script, "gpus", none)
    assert script.main([]) == 1
    assert "nothing can be measured: the NVIDIA driver shows no GPU" in capsys.readouterr().out


def test_a_part_begins_where_neither_pyav_nor_openvino_is_installed(tmp_path):
    """As on a machine that was lent: what is then missing is the GPU alone."""
    code = f"""
import sys
sys.modules["av"] = sys.modules["openvino"] = None
sys.argv = ["gpu_bars.py", "--part", "engine", "--engine", "cuda", "--size", "64x48", "--folder", {str(tmp_path)!r}]
import runpy
runpy.run_path({str(SCRIPT)!r}, run_name="__main__")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    (line,) = (line for line in done.stdout.splitlines() if line.startswith("FIGURE"))
    assert "cuda" in json.loads(line.removeprefix("FIGURE "))["note"]

"""The GPU's table of speeds, on the stand-ins: that every line is measured as it says, not how fast they are."""

from __future__ import annotations

import json

import pytest

pytest.importorskip("torch")

import hostnvdec
from clips import make_clip
from hostdevice import GPU, HostDevice

from videosr import bench_alone, bench_gpu
from videosr.engines import CUDA_ENGINES
from videosr.engines import torch as torch_engine
from videosr.engines.nvidia import NoDriverError
from videosr.engines.torch import TorchEngine
from videosr.errors import EngineError
from videosr.models import registry


class Eager:
    """Stands in for a CUDA graph of torch's."""

    def __init__(self, net, inputs, output):
        self.replay = lambda: output.copy_(net(*inputs))


@pytest.fixture
def machine(monkeypatch):
    """torch's engine on the stand-in; the others are not there."""

    def make(path, name):
        if name != "torch":
            raise EngineError(f"{name} is not here")
        device = HostDevice()
        monkeypatch.setattr(torch_engine, "_on_stream", lambda place: device.launched)
        return TorchEngine(path, precision="f32", threads=1, gpu=device)

    hostnvdec.install(monkeypatch)
    monkeypatch.setattr(torch_engine, "_Recorded", Eager)
    monkeypatch.setattr("torch.compile", lambda network: network)  # a compiler is not what is tested
    monkeypatch.setattr(bench_gpu, "gpus", lambda: (GPU,))
    rows = bench_gpu.rows
    monkeypatch.setattr(bench_gpu, "rows", lambda *a, **o: rows(*a, **o | {"device": "cpu", "count": 1}, make=make))


@pytest.fixture
def clip(tmp_path):
    return make_clip(tmp_path / "clip.mkv", frames=20, width=64, height=48)


def test_every_way_has_its_line(machine, clip):
    said = []
    table = bench_gpu.run(clip, registry.DEFAULT, device="cuda", frames=4, say=said.append)
    names = ["published, torch f32", "published, torch f16", "published, torch f16, compiled"]
    assert [row.name.removesuffix(" f32") for row in table[3:]] == list(CUDA_ENGINES)
    assert [row.name for row in table[:3]] == names
    text = "\n".join(said)
    for row in table[:3]:
        assert row.speed.fps > 0
        assert list(row.speed.latency) == sorted(row.speed.latency)
    for row in table[3:-1]:
        assert row.problem == f"{row.name} is not here"
        assert f"not measured: {row.problem}" in text
    whole = table[-1].whole
    assert whole.on_gpu
    assert (whole.uploaded, whole.downloaded) == (0, 1)
    assert [stage.name for stage in whole.stages] == ["decode", "upscale", "encode"]
    assert whole.stages[-1].frames == 4
    assert "on the GPU all the way: 0 bytes up and 1 down a frame" in text
    assert "busy" in text


def test_as_json(monkeypatch, clip):
    table = [
        bench_gpu.Row("cuda f16", bench_gpu.Speed(2000.0, (0.5, 0.6, 0.7)), 99.0),
        bench_gpu.Row("torch", problem="no"),
    ]
    monkeypatch.setattr(bench_gpu, "gpus", lambda: (GPU,))
    monkeypatch.setattr(bench_gpu, "rows", lambda *a, **o: iter(table))
    said = []
    assert bench_gpu.run(clip, registry.DEFAULT, device="cuda", frames=2, as_json=True, say=said.append) == table
    (text,) = said
    told = json.loads(text)
    assert told["gpu"].startswith("Stand-in 3000")
    assert [row["name"] for row in told["rows"]] == ["cuda f16", "torch"]
    assert told["rows"][0]["speed"]["latency"] == [0.5, 0.6, 0.7]


def test_a_gpu_that_is_not_there_is_an_error_before_anything_is_measured(monkeypatch, clip):
    monkeypatch.setattr(bench_gpu, "gpus", lambda: (GPU,))
    with pytest.raises(EngineError, match="--device cuda:3: CUDA shows 1 GPUs"):
        bench_gpu.run(clip, registry.DEFAULT, device="cuda:3", frames=2)

    def none():
        raise NoDriverError("no NVIDIA driver")

    monkeypatch.setattr(bench_gpu, "gpus", none)
    with pytest.raises(EngineError, match="--device cuda: no NVIDIA driver"):
        bench_gpu.run(clip, registry.DEFAULT, device="cuda", frames=2)


def test_throughput_and_latency_are_not_the_same_thing():
    """Frames queued one behind the other are waited for once a round, frames alone each for itself."""
    calls = []
    speed = bench_gpu.measure(lambda: calls.append("start"), lambda: calls.append("wait"), 10, rounds=2)
    assert speed.fps > 0
    warm, queued = 2 * bench_alone._WARM, 2 * (10 + 1)
    assert calls[warm : warm + 11] == ["start"] * 10 + ["wait"]
    assert calls[warm + queued :] == ["start", "wait"] * 20


def test_ratios_are_those_of_one_run():
    def row(name, fps):
        return bench_gpu.Row(name, bench_gpu.Speed(fps, (1, 1, 1)))

    table = [row("published, torch f16, compiled", 100), row("cuda f16", 520), bench_gpu.Row("torch", problem="no")]
    assert bench_gpu.ratios(table) == ["  cuda f16 : torch.compile 5.20"]
    assert bench_gpu.ratios(table[1:]) == []

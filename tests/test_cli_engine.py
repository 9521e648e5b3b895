"""`videosr engine`: building ahead, and looking at the cache."""

from __future__ import annotations

import json
import os
import time

import pytest

from videosr import cli_engine
from videosr.engines import nvidia
from videosr.engines.cache import Cache
from videosr.engines.gpu_device import Gpu

GPU = Gpu("Stand-in 3000", (8, 6), "580.65.06, CUDA 13.2", 12 << 30)
KEY = {
    "kind": "engine",
    "network": "ab" * 32,
    "shapes": "1280x720",
    "precision": "f16",
    "library": "tensorrt_rtx",
    "version": "1.7",
    "gpu": GPU.name,
    "driver": GPU.driver,
}


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("videosr.doctor.installed", lambda name: {"tensorrt_rtx": "1.7"}.get(name, ""))
    monkeypatch.setattr(nvidia, "gpus", lambda: (GPU,))
    return Cache()


def test_an_empty_cache(cache, videosr):
    assert videosr("engine", "list") == (0, f"no engines in {cache.folder}\n", "")
    assert json.loads(videosr("engine", "list", "--json").out) == []
    assert videosr("engine", "prune").out == "0 deleted, 0.0 MiB\n"


def test_entries_are_shown(cache, videosr):
    cache.write(KEY, b"x" * 3 * 2**20, {"name": "realtime-2x", "psnr": "71.30"})
    cache.write({**KEY, "shapes": "640x360"}, b"x", {"name": "realtime-2x", "problem": "values that are not finite"})
    cache.path({**KEY, "driver": "broken"}).write_bytes(b"nothing")
    out = videosr("engine", "list").out
    assert "engine realtime-2x 1280x720 f16, tensorrt_rtx 1.7, Stand-in 3000, driver 580.65.06" in out
    assert "3.0 MiB, 71.30 dB" in out
    assert "not finite" in out
    assert "not an entry of this cache" in out
    listed = json.loads(videosr("engine", "list", "--json").out)
    assert len(listed) == 3
    assert {**KEY} in [entry["key"] for entry in listed]


OTHERS = [("version", "1.6"), ("driver", "575.00.00, CUDA 12.9"), ("gpu", "Another"), ("library", "tensorrt")]


def test_prune_takes_what_this_machine_cannot_use_any_more(cache, videosr):
    cache.write(KEY, b"x")
    for name, value in OTHERS:
        cache.write({**KEY, name: value}, b"x")
    cache.path({**KEY, "driver": "broken"}).write_bytes(b"nothing")
    outcome = videosr("engine", "prune")
    kept = [dict(entry.key) for entry in cache.entries()]
    assert KEY in kept
    # An engine of a library that is not installed may be waiting for it.
    assert len(kept) == 2
    assert {**KEY, "library": "tensorrt"} in kept
    assert "4 deleted" in outcome.out


def test_prune_keeps_other_gpus_engines_where_no_gpu_can_be_seen(cache, videosr, monkeypatch):
    def none():
        raise nvidia.NoDriverError("no driver")

    monkeypatch.setattr(nvidia, "gpus", none)
    cache.write(KEY, b"x")
    cache.write({**KEY, "gpu": "Another"}, b"x")
    assert "0 deleted" in videosr("engine", "prune").out


def test_prune_by_age_and_altogether(cache, videosr):
    for shapes, days in (("1x1", 40), ("2x2", 5)):
        key = {**KEY, "shapes": shapes}
        cache.write(key, b"x")
        os.utime(cache.path(key), (time.time() - days * 86400,) * 2)
    assert "1 deleted" in videosr("engine", "prune", "--unused", 30).out
    assert [entry.key["shapes"] for entry in cache.entries()] == ["2x2"]
    assert "1 deleted" in videosr("engine", "prune", "--all").out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "--size"),
        (["--size", "640"], "640"),
        (["--size", "64x64", "-o", "x"], "--for"),
        (["--size", "64x64", "--for", "8.6"], "-o FILE"),
        (["--size", "64x64", "--size", "32x32", "--for", "8.6", "-o", "x"], "one size"),
        (["--size", "64x64", "--for", "ada", "-o", "x"], "ada"),
        (["--sizes", "64x64..32x32..128x128", "--for", "8.6", "-o", "x"], "order"),
    ],
)
def test_wrong_usage(cache, videosr, arguments, said):
    outcome = videosr("engine", "build", *arguments)
    assert outcome.code == 2
    assert said in outcome.err


def test_an_engine_for_a_gpu_that_is_not_here(cache, videosr, tmp_path):
    pytest.importorskip("tensorrt_rtx")
    pytest.importorskip("onnx")
    file = tmp_path / "ada.engine"
    outcome = videosr("engine", "build", "realtime-2x", "--size", "128x96", "--for", "8.9", "-o", file)
    assert (outcome.code, outcome.err) == (0, "")
    assert f"{file.stat().st_size} bytes" in outcome.out
    assert cache.entries() == []
    outcome = videosr("engine", "build", "--size", "128x96", "--for", "9.0", "-o", file)
    assert outcome.code == 2
    assert "9.0" in outcome.err


def test_building_for_this_machine_tells_the_result_of_the_self_test(cache, videosr, monkeypatch):
    pytest.importorskip("tensorrt_rtx")
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    from functools import partial

    from hostdevice import HostDevice, OnnxLoader

    from videosr.engines import tensorrt

    made = partial(tensorrt.TensorRTEngine, device=HostDevice(), loader=OnnxLoader())
    monkeypatch.setattr(tensorrt, "TensorRTEngine", made)
    outcome = videosr("engine", "build", "--size", "128x96", "--sizes", "16x16..64x64..128x128")
    assert (outcome.code, outcome.err) == (0, "")
    first, second = outcome.out.splitlines()
    assert first.startswith("realtime-2x-video 128x96 f16: ")
    assert second.startswith("realtime-2x-video 16x16..64x64..128x128 f16: ")
    assert "dB" in first
    assert cli_engine.LIBRARIES[0] in videosr("engine", "list").out

"""Batches cut by torch are those that the host cuts. On the CPU here: the same operations run on a GPU."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from test_data import packed, run_of

from videosr.training.config import DataConfig, DegradationConfig
from videosr.training.data import PatchSampler
from videosr.training.resident import ResidentSampler

CPU = torch.device("cpu")


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("candidates", [1, 4])
@pytest.mark.parametrize("patterns", [0.0, 0.4, 1.0])
def test_both_cut_the_same_pixels(
    tmp_path: Path, photos: Path, monkeypatch: pytest.MonkeyPatch, scale: int, candidates: int, patterns: float
) -> None:
    for module in ("data", "resident"):
        monkeypatch.setattr(f"videosr.training.{module}.PATTERNS", 32)
    data = DataConfig(train=(photos,), factors=(1.0, 1.5), patch=8, batch=24, candidates=candidates, patterns=patterns)
    packed(tmp_path, data, 12 * scale)
    sampler = PatchSampler(tmp_path / "run", run_of(data, scale))
    resident = ResidentSampler(sampler, CPU)
    for iteration, (lr, hr) in zip(range(3), resident.batches(0, 3), strict=True):
        expected = sampler.batch(iteration)
        assert lr.is_contiguous(memory_format=torch.channels_last)
        for tensor, pixels in ((lr, expected.lr), (hr, expected.hr)):
            codes = tensor.permute(0, 2, 3, 1).numpy() * 255
            assert np.array_equal(np.rint(codes), pixels)
            assert np.abs(codes - pixels).max() < 1e-4
    assert len({patch.numpy().tobytes() for patch in hr}) > 10  # not the same patch again and again


def test_what_it_cannot_cut_and_what_does_not_fit_is_left_to_the_host(
    tmp_path: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = DataConfig(train=(photos,), factors=(1.0,), patch=8)
    packed(tmp_path, data)
    sampler = PatchSampler(tmp_path / "run", run_of(data))
    free = 2 * len(sampler.pixels)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (free, 10**10))
    assert not ResidentSampler.fits(sampler, torch.device("cuda"))
    free += 1
    assert ResidentSampler.fits(sampler, torch.device("cuda"))
    for other in (
        run_of(replace(data, frames=3)),
        run_of(data, degradation=DegradationConfig(noise=0.1)),
    ):
        assert not ResidentSampler.fits(PatchSampler(tmp_path / "run", other), torch.device("cuda"))

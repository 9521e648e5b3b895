"""Nothing is left on the CPU that a run needs on its device."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal, cast

import numpy as np
import pytest
import torch
from apart import Apart, without_autocast
from test_data import run_of
from torch import Tensor, nn

from videosr.archs.families import PARAGON, Start, family_of
from videosr.errors import InputError
from videosr.training.config import (
    DataConfig,
    DiscriminatorConfig,
    LossWeights,
    NetworkConfig,
    OutputConfig,
    RegularisationConfig,
)
from videosr.training.data import PatchSampler
from videosr.training.recorded import Recorded
from videosr.training.trainer import Trainer


@pytest.mark.parametrize("variant", [*PARAGON.variants, "nexus_tiny"])
def test_a_network_is_deployed_where_it_lies(monkeypatch: pytest.MonkeyPatch, variant: str) -> None:
    without_autocast(monkeypatch)
    family = family_of(variant)
    network = family.new(variant, 2, Start(upsampler_alpha=0.3)).to("meta")
    with Apart():
        deployed = family.deployed(network, family.halo, False)
        output = deployed(torch.rand(1, 3, 64, 64, device="meta"))
    assert {x.device.type for x in (*deployed.parameters(), *deployed.buffers())} == {"meta"}
    assert output.shape == (1, 3, 128, 128)


@pytest.fixture
def on_meta(monkeypatch: pytest.MonkeyPatch) -> None:
    """Training on "meta", for which torch has no autocast and no optimiser in one kernel."""
    without_autocast(monkeypatch)
    adamw = torch.optim.AdamW

    def plain(parameters: Any, *, fused: bool = False, **options: Any) -> torch.optim.Optimizer:
        return adamw(parameters, **options)

    monkeypatch.setattr(torch.optim, "AdamW", plain)


EVERY = LossWeights(pixel=0.5, luma=1.0, ssim=0.1, fft=0.1, gan=0.1)


def config_of(
    folder: Path, network: NetworkConfig, optimizer: Literal["adamw", "muon"] = "muon", **tables: object
) -> Any:
    config = run_of(DataConfig(train=(), patch=16, batch=2), **tables)
    schedule = replace(config.schedule, optimizer=optimizer)
    return replace(config, network=network, schedule=schedule, output=OutputConfig(folder=folder))


@pytest.mark.usefixtures("on_meta")
@pytest.mark.filterwarnings("ignore:cov")
@pytest.mark.parametrize("variant", ["realtime", "stream", "photo"])
def test_a_run_computes_on_its_device_alone(tmp_path: Path, variant: str) -> None:
    network = NetworkConfig(variant=variant, expansion=2)
    discriminator = DiscriminatorConfig(num_feat=8, ch_mult=(1, 2))
    dropout = RegularisationConfig(frequency_dropout=0.3)
    config = config_of(tmp_path, network, loss_weights=EVERY, discriminator=discriminator, regularisation=dropout)
    lr, hr = (torch.rand(2, 3, size, size, device="meta") for size in (16, 32))
    batch = SimpleNamespace(lr=np.zeros((2, 16, 16, 3), np.uint8))
    with Apart():
        trainer = Trainer(config, "meta", lambda line: None)
        trainer._look(cast(PatchSampler, SimpleNamespace(batch=lambda iteration: batch)))
        report = [trainer.step(lr, hr, average) for average in (None, lr)][-1]
    assert report.keys() > {"loss", "gan_loss", "discriminator_loss"}
    everything = (*trainer.network.parameters(), *trainer.average.parameters(), *report.values())
    assert {x.device.type for x in everything} == {"meta"}


def test_what_the_host_draws_in_every_step_is_not_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Tensor, "to", lambda self, *_, **__: self)  # "cuda" is the CPU
    monkeypatch.setattr(nn.Module, "to", lambda self, *_, **__: self)
    zeros = torch.zeros
    monkeypatch.setattr(torch, "zeros", lambda *size, device=None, **options: zeros(*size, **options))
    wholly, drawing = RegularisationConfig(), RegularisationConfig(frequency_dropout=0.3)
    runs = [
        Trainer(config_of(tmp_path, NetworkConfig(variant=variant), regularisation=r), "cuda", lambda line: None)
        for variant, r in (("realtime", wholly), ("realtime", drawing), ("nexus_tiny", wholly))
    ]
    assert [isinstance(run._update, Recorded) for run in runs] == [True, False, False]


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_run_goes_on_on_another_device(tmp_path: Path, optimizer: Literal["adamw", "muon"]) -> None:
    """A checkpoint of CUDA says of its optimisers what only CUDA can do."""
    trainer = Trainer(config_of(tmp_path, NetworkConfig(), optimizer), "cpu", lambda line: None)
    lr, hr = torch.rand(2, 3, 16, 16), torch.rand(2, 3, 32, 32)
    trainer.step(lr, hr, None)
    trainer.save_checkpoint()
    state = torch.load(trainer.checkpoint_path, weights_only=True)
    for group in (group for saved in state["optimizers"] for group in saved["param_groups"]):
        group["lr"] = torch.tensor(group["lr"])
        if "fused" in group:
            group["fused"], group["capturable"] = False, True
    torch.save(state, trainer.checkpoint_path)
    trainer.step(lr, hr, None)
    resumed = Trainer(trainer.config, "cpu", lambda line: None)
    resumed.load_checkpoint()
    resumed.step(lr, hr, None)
    for ours, wanted in zip(resumed.network.parameters(), trainer.network.parameters(), strict=True):
        assert torch.equal(ours, wanted)
    state["optimizers"][0]["param_groups"] = []
    torch.save(state, trainer.checkpoint_path)
    with pytest.raises(InputError, match="not a checkpoint of this run"):
        resumed.load_checkpoint()

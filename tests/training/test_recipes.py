"""The training configurations among the samples load, and each runs; NEXUS trains as others do."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from test_data import scene, write_image

from videosr.archs import checkpoint, nexus, paragonsr2
from videosr.archs.families import Start, family_of
from videosr.archs.fold import HALO
from videosr.errors import UsageError
from videosr.export import padded_forward
from videosr.training.config import TrainingConfig
from videosr.training.configfile import load_config
from videosr.training.networks import upscaler
from videosr.training.packing import build_pack
from videosr.training.trainer import Trainer

ROOT = Path(__file__).parent.parent.parent
RECIPES = sorted((ROOT / "samples").glob("*.toml"))


@pytest.fixture(autouse=True)
def shallow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shallow networks under the same names."""
    monkeypatch.setitem(nexus.VARIANTS, "nexus_tiny", nexus.VariantSpec(16, (1, 2), 4))
    monkeypatch.setitem(paragonsr2.VARIANTS, "photo", replace(paragonsr2.VARIANTS["photo"], groups=1, blocks=1))


def quiet(_: str) -> None:
    pass


def vgg19(path: Path) -> Path:
    """A VGG19 of two channels."""
    tensors = {}
    for number in (0, 2, 5, 7, 10, 12, 14, 16, 19, 21, 23, 25, 28, 30, 32, 34):
        tensors[f"features.{number}.weight"] = torch.randn(2, 2 if number else 3, 3, 3)
        tensors[f"features.{number}.bias"] = torch.randn(2)
    save_file(tensors, path)
    return path


def small(config: TrainingConfig, folder: Path, iterations: int = 1) -> TrainingConfig:
    """The same run on one little picture, for some iterations."""
    (folder / "photos").mkdir()
    write_image(folder / "photos" / "0.png", scene(0, 80, 90))
    network = config.network
    if network.weights:
        start = folder / "start.safetensors"
        fresh = family_of(network.variant).new(network.variant, network.scale, Start())
        checkpoint.save(start, fresh, name="start", training="before", license="MIT")
        network = replace(network, weights=start)
    return replace(
        config,
        network=network,
        data=replace(
            config.data, train=(folder / "photos",), validation=(), patch=16, batch=1, factors=(1.0,), workers=0
        ),
        schedule=replace(config.schedule, iterations=iterations, warmup=0),
        perceptual=config.perceptual and replace(config.perceptual, weights=vgg19(folder / "vgg.safetensors")),
        discriminator=replace(config.discriminator, num_feat=2),
        output=replace(config.output, folder=folder / "run", checkpoint_every=2),
    )


def trained(config: TrainingConfig) -> Trainer:
    trainer = Trainer(config, "cpu", quiet)
    build_pack(trainer.folder, config.data, (config.data.patch + 4) * config.network.scale, quiet)
    trainer.run()
    return trainer


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.stem)
def test_every_recipe_loads_and_runs(path: Path, tmp_path: Path) -> None:
    config = load_config(path)
    trainer = trained(small(config, tmp_path))
    network, info = checkpoint.load(trainer.folder / "best.safetensors")
    assert (network.variant, network.scale) == (config.network.variant, 2)
    assert info.metadata["architecture"] == family_of(network.variant).name
    assert info.metadata["training"].startswith("before; then " if config.network.weights else "photos; ")


def test_the_recipes_of_nexus_are_the_published_one() -> None:
    first, second = (load_config(path) for path in RECIPES if path.stem.startswith("nexus"))
    for config in (first, second):
        s = config.schedule
        assert (s.learning_rate, s.least_rate, s.cycle, s.loss) == (2e-4, 1e-7, 250_000, "l1")
        assert config.data.patch % nexus.WINDOW == 0
    assert second.network.weights == first.output.folder / "best.safetensors"
    w = second.loss_weights
    assert (first.loss_weights.perceptual, first.loss_weights.gan) == (0, 0)
    assert (w.pixel, w.perceptual, w.gan, second.regularisation.cutblur) == (1, 1, 0.1, 0.5)


def test_a_nexus_run_ends_the_same_when_interrupted(tmp_path: Path) -> None:
    """Drop path and frequency dropout draw from what a checkpoint keeps."""
    config = small(load_config(RECIPES[0]), tmp_path, iterations=4)
    straight = trained(config)
    assert config.network.checkpointing
    half = replace(config, output=replace(config.output, folder=tmp_path / "half"))
    first = Trainer(half, "cpu", quiet)
    build_pack(first.folder, half.data, (half.data.patch + 4) * 2, quiet)
    cut = replace(half, schedule=replace(half.schedule, iterations=2, cycle=250_000))
    first.config = cut
    first.run()
    second = Trainer(half, "cpu", quiet)
    second.load_checkpoint()
    assert second.iteration == 2
    second.run()
    for a, b in zip(straight.average.parameters(), second.average.parameters(), strict=True):
        assert torch.equal(a, b)


def test_validation_sees_the_network_as_it_is_used() -> None:
    torch.manual_seed(0)
    network = nexus.Nexus("nexus_tiny", 3).eval()
    image = np.random.default_rng(0).random((9, 14, 3), np.float32)
    with torch.no_grad():
        expected = padded_forward(network, HALO, torch.from_numpy(image).permute(2, 0, 1)[None])
    expected = expected[0].permute(1, 2, 0).numpy()
    assert np.array_equal(upscaler(network.train())(image), expected)
    half = family_of("nexus_tiny").deployed(network, 4, True)(torch.from_numpy(image).permute(2, 0, 1)[None])
    assert half.shape == (1, 3, 27, 42)
    assert half.dtype == torch.float32


def test_nexus_takes_no_average_of_frames(tmp_path: Path) -> None:
    config = load_config(RECIPES[0])
    config = replace(config, schedule=replace(config.schedule, window="adaptive"))
    config = replace(config, output=replace(config.output, folder=tmp_path / "run"))
    with pytest.raises(UsageError, match="nexus_tiny takes no average of frames"):
        Trainer(config, "cpu", quiet)
    with pytest.raises(UsageError, match=r"network: variant .huge. is not one of light, realtime, .*, nexus_extreme"):
        Trainer(replace(config, network=replace(config.network, variant="huge")), "cpu", quiet)

"""The shipped networks, each by its weights: they are what their cards say, and no picture makes them run away."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import av
import numpy as np
import pytest

pytest.importorskip("torch", reason="the patterns are those of training")

import torch

from videosr.archs import checkpoint
from videosr.engines import load
from videosr.engines.network import Network
from videosr.export import natural_picture
from videosr.metrics import imresize, psnr
from videosr.models import registry
from videosr.training.configfile import load_config
from videosr.training.networks import upscaler
from videosr.training.patterns import KINDS, pattern

MODELS = {model.name: model for model in registry.shipped()}
ROOT = Path(__file__).parent.parent
SAMPLES, RECIPES = ROOT / "samples", sorted((ROOT / "scripts" / "recipes").glob("*.toml"))


@pytest.fixture(params=MODELS)
def path(request: pytest.FixtureRequest) -> Path:
    return MODELS[request.param].path


def test_the_deployed_network_is_made_of_the_weights_beside_it(path):
    weights = path.with_suffix(".safetensors")
    network, info = checkpoint.load(weights)
    deployed = Network.open(path).metadata
    assert (deployed["variant"], int(deployed["scale"])) == (network.variant, network.scale)
    assert deployed["training"] == info.metadata["training"]
    assert deployed["license"] == info.metadata["license"] == "MIT"
    card = path.with_suffix(".md").read_text(encoding="utf-8")
    assert card.startswith(f"# {path.stem}\n")
    count = sum(parameter.numel() for parameter in network.parameters())
    assert f"{count:,} parameters" in card


def test_patterns_that_no_camera_takes_stay_pictures(path):
    """A network that multiplies features is a polynomial, which answers with hundreds where it was not trained."""
    engine, rng = load(path, "openvino", device="cpu", precision="f32", threads=1), np.random.default_rng(11)
    scale, size = engine.scale, 40
    for _ in range(12 * len(KINDS)):
        wanted = pattern(size * scale, scale, rng).transpose(2, 0, 1)[None].astype(np.float32) / 255
        given = np.ascontiguousarray(wanted[:, :, ::scale, ::scale])
        assert np.abs(engine.run(given) - wanted).max() < 2


def test_dithered_pictures_stay_pictures(path):
    """Each colour by itself in black and white: all the contrast there is, in every combination of neighbours.

    What had been trained on the patterns answered some of these with 226, where 1 is full scale.
    """
    engine, rng = load(path, "openvino", device="cpu", precision="f32", threads=1), np.random.default_rng(11)
    generator = torch.Generator().manual_seed(11)
    for _ in range(8):
        picture = natural_picture(96, 96, generator).numpy()
        dithered = (picture > rng.random(picture.shape)).astype(np.float32)
        enlarged = dithered.repeat(engine.scale, 2).repeat(engine.scale, 3)
        assert np.abs(engine.run(dithered) - enlarged).max() < 3


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_how_the_shipped_networks_were_trained_still_loads(path):
    """And what begins as a shipped network, or learns from one, finds it."""
    config = load_config(path)
    for weights in (config.network.weights, config.teacher and config.teacher.weights):
        if weights is not None and weights.parent.name == "models":
            assert checkpoint.load(weights)


def test_the_nexus_among_the_samples_restores_what_shrinking_lost():
    network, info = checkpoint.load(SAMPLES / "nexus_tiny-2x.safetensors")
    assert (network.variant, network.scale) == ("nexus_tiny", 2)
    assert info.metadata["license"] == "MIT"
    card = (SAMPLES / "nexus_tiny-2x.md").read_text(encoding="utf-8")
    assert f"{sum(parameter.numel() for parameter in network.parameters()):,} parameters" in card
    with av.open(str(SAMPLES / "bunny.mp4")) as clip:
        frame = next(islice(clip.decode(video=0), 40, None)).to_ndarray(format="rgb24")
    original = imresize(frame, 0.5)[40:120, 100:180]  # sharp, and free of what compression did
    small = imresize(original, 0.5)
    upscale = upscaler(network)
    made = upscale(small.astype(np.float32) / 255)
    assert psnr(np.rint(made.clip(0, 1) * 255).astype(np.uint8), original) > psnr(imresize(small, 2), original) + 1
    rng = np.random.default_rng(11)
    for _ in KINDS:
        wanted = pattern(32, 2, rng).astype(np.float32) / 255
        assert np.abs(upscale(np.ascontiguousarray(wanted[::2, ::2])) - wanted).max() < 2

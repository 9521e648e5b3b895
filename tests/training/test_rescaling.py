from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="training needs torch")

from test_data import scene, write_image  # noqa: E402

from videosr.archs import checkpoint  # noqa: E402
from videosr.archs.paragonsr2 import ParagonSR2  # noqa: E402
from videosr.errors import NetworkError  # noqa: E402
from videosr.evaluate import evaluate  # noqa: E402
from videosr.metrics import imresize  # noqa: E402
from videosr.models import registry  # noqa: E402
from videosr.training.config import NetworkConfig  # noqa: E402
from videosr.training.configfile import load_config  # noqa: E402
from videosr.training.data import PatchSampler  # noqa: E402
from videosr.training.networks import new_network, upscaler  # noqa: E402
from videosr.training.packing import build_pack  # noqa: E402
from videosr.training.rescaling import fit_tail, is_fitted, rescaled  # noqa: E402
from videosr.training.trainer import Trainer  # noqa: E402


def weights(name: str) -> Path:
    return registry.find(name).with_suffix(".safetensors")


def pair(seeds: range, scale: int) -> tuple[torch.Tensor, torch.Tensor]:
    """LR and HR, (N, 3, 48, 48) and (N, 3, scale * 48, scale * 48)."""
    pictures = [scene(seed, 48 * scale, 48 * scale) for seed in seeds]
    shrunk = [imresize(picture, 1 / scale) for picture in pictures]
    lr, hr = (torch.stack([torch.from_numpy(p).permute(2, 0, 1) / 255 for p in of]) for of in (shrunk, pictures))
    return lr, hr


@pytest.mark.parametrize(
    ("name", "scale", "share"),
    [("realtime-2x", 4, 0.85), ("realtime-4x", 2, 0.65), ("stream-2x", 3, 0.75), ("photo-2x", 4, 0.95)],
)
def test_the_body_stays_and_the_tail_makes_pictures(name: str, scale: int, share: float) -> None:
    known, _ = checkpoint.load(weights(name))
    assert isinstance(known, ParagonSR2)
    before = {key: value.clone() for key, value in known.state_dict().items()}
    torch.manual_seed(0)
    network = rescaled(known, scale)
    assert (network.variant, network.scale, network.product_limit) == (known.variant, scale, known.product_limit)
    for part in ("conv_in", "body", "conv_mid"):
        assert all(
            torch.equal(value, before[f"{part}.{key}"]) for key, value in getattr(network, part).state_dict().items()
        )
    inner = (..., slice(8 * scale, -8 * scale), slice(8 * scale, -8 * scale))
    lr, hr = pair(range(100, 104), scale)

    def error() -> float:
        with torch.no_grad():
            return float((network(lr) - hr)[inner].square().mean())

    assert not is_fitted(network)
    unfitted = error()
    fit_tail(network, *pair(range(12), scale))
    assert is_fitted(network)
    assert error() < share * unfitted
    assert all(torch.equal(value, before[key]) for key, value in known.state_dict().items())


@pytest.mark.parametrize("expansion", [0, 2])
def test_a_run_begins_with_a_fitted_tail_and_all_of_it_learns(tmp_path: Path, expansion: int) -> None:
    (tmp_path / "photos").mkdir()
    for seed in range(3):
        write_image(tmp_path / "photos" / f"{seed}.png", scene(seed, 160, 160))
    path = tmp_path / "config.toml"
    path.write_text(
        f'[network]\nscale = 4\nexpansion = {expansion}\nweights = "{weights("realtime-2x")}"\n'
        '[data]\ntrain = ["photos"]\npatch = 24\nbatch = 2\nfactors = [1]\n'
        '[schedule]\niterations = 6\nwarmup = 1\nloss_border = 4\n[output]\nfolder = "run"\n'
    )
    config = load_config(path)
    trainer = Trainer(config, "cpu", lambda line: None)
    build_pack(trainer.folder, config.data, (config.data.patch + 4) * 4, lambda line: None)
    trainer._look(PatchSampler(trainer.folder, config))
    begun = evaluate(tmp_path / "photos", upscaler(trainer.average), 4).mean.psnr_y
    plain, _ = new_network(replace(config.network, expansion=0))
    assert begun > evaluate(tmp_path / "photos", upscaler(plain), 4).mean.psnr_y + 0.5
    lr, hr = pair(range(2), 4)
    for _ in range(3):
        trainer.step(lr, hr, None)
    trainer.export(tmp_path / "end.safetensors")
    told = checkpoint.load(tmp_path / "end.safetensors")[1].metadata["training"]
    assert "; then a tail for 4x fitted to the body; then photos" in told
    assert [name for name, p in trainer.network.named_parameters() if p.requires_grad and not p.grad.any()] == []


def test_another_network_of_another_scale_is_refused() -> None:
    with pytest.raises(NetworkError, match="is realtime 2x and not fine 4x"):
        new_network(NetworkConfig(variant="fine", scale=4, weights=weights("realtime-2x")))

"""Terms of the objective, against what they are defined by."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from test_data import run_of, scene

from videosr import metrics
from videosr.errors import NetworkError, UsageError
from videosr.training.config import DataConfig, LossWeights, PerceptualConfig
from videosr.training.losses import (
    Objective,
    charbonnier,
    consistency_loss,
    fft_loss,
    of_chroma,
    of_luma,
    psnr_loss,
    ssim_loss,
)
from videosr.training.perceptual import Perceptual


def pictures(count: int = 2, size: int = 40) -> tuple[torch.Tensor, torch.Tensor]:
    target = torch.from_numpy(np.stack([scene(s, size, size) for s in range(count)])).permute(0, 3, 1, 2) / 255
    torch.manual_seed(0)
    return (target + torch.randn_like(target) * 0.05).clamp(0, 1).requires_grad_(), target


def test_ssim_is_that_of_the_metrics() -> None:
    output, target = pictures()
    expected = np.mean(
        [
            metrics.ssim(a * 255.0, b * 255.0)
            for a, b in zip(output.detach().flatten(0, 1).numpy(), target.flatten(0, 1).numpy(), strict=True)
        ]
    )
    assert 1 - ssim_loss(output, target).item() == pytest.approx(expected, abs=1e-4)


def test_the_spectral_loss_of_one_wave_is_its_amplitude_in_one_place() -> None:
    x = torch.arange(32)
    wave = 0.3 * torch.cos(2 * torch.pi * 5 * x / 32).expand(1, 3, 32, 32)
    # Orthonormal: one peak of 0.3 / 2 * 32 among 32 * 17 complex numbers.
    assert fft_loss(wave, torch.zeros_like(wave)).item() == pytest.approx(0.3 / 2 * 32 / (32 * 17 * 2), rel=1e-3)


def test_consistency_asks_for_the_targets_change_only() -> None:
    older, newer = torch.rand(2, 2, 3, 8, 8)
    target = torch.cat([newer, older])
    assert consistency_loss(target + 0.2, target).item() == pytest.approx(0, abs=1e-6)
    flickering = torch.cat([newer + 0.1, older])
    assert consistency_loss(flickering, target).item() == pytest.approx(0.1, rel=1e-4)


def test_the_psnr_loss_is_the_squared_error_where_it_is_small_and_counts_decibels_where_not() -> None:
    target = torch.zeros(2, 3, 8, 8)
    assert psnr_loss(target + 1e-3, target).item() == pytest.approx(1e-6, rel=1e-2)
    # Ten decibels more of one patch of two are as much, at whatever error they begin.
    twice = [psnr_loss(torch.stack([target[0], target[0] + e]), target).item() for e in (0.1, 0.1 * 10**0.5, 1.0)]
    assert twice[1] - twice[0] == pytest.approx(1e-4 * np.log(10), rel=2e-2)
    assert twice[2] - twice[1] == pytest.approx(1e-4 * np.log(10), rel=2e-2)


@pytest.mark.parametrize("term", ["psnr", "luma"])
def test_the_knee_says_from_where_decibels_count(term: str) -> None:
    """Against squared errors, a grey one pulls half as much at the knee and an eleventh ten decibels below it."""
    run = run_of(DataConfig(train=()), loss_weights=LossWeights(pixel=1, luma=1))
    objective = Objective(replace(run, schedule=replace(run.schedule, loss="psnr", loss_knee=30.0)))
    target = torch.zeros(1, 3, 8, 8)
    for decibels, share in ((60, 1 / 1.001), (30, 1 / 2), (20, 1 / 11)):
        output = torch.full_like(target, 10 ** (-decibels / 20)).requires_grad_()
        (gradient,) = torch.autograd.grad(objective(output, target)[term], output)
        (plain,) = torch.autograd.grad((output - target).square().mean(), output)
        assert gradient.sum().item() == pytest.approx(plain.sum().item() * share, rel=1e-3)


def test_luma_loss_sees_what_changes_brightness_alone() -> None:
    target = torch.rand(1, 3, 8, 8)
    brighter = torch.nn.functional.mse_loss
    grey = torch.full((1, 3, 1, 1), 0.1)
    assert of_luma(brighter)(target + grey, target).item() == pytest.approx(0.01, rel=1e-4)
    weights = torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)
    tint = torch.tensor([1.0, -1.0, 0.0]).view(1, 3, 1, 1)
    unseen = tint - weights * (tint * weights).sum() / (weights * weights).sum()
    assert of_luma(brighter)(target + unseen, target).item() == pytest.approx(0, abs=1e-10)


def test_chroma_loss_is_that_of_the_planes_of_420_video() -> None:
    """BT.601, full range: what is grey, or gone in the mean of 2x2 pixels, is not seen."""
    squared = of_chroma(torch.nn.functional.mse_loss)
    target = torch.rand(1, 3, 8, 8)
    assert squared(target + 0.1, target).item() == pytest.approx(0, abs=1e-10)
    checks = torch.tensor([[1.0, -1.0], [-1.0, 1.0]]).repeat(4, 4)
    assert squared(target + checks * torch.tensor([1.0, 0.0, 0.0]).view(1, 3, 1, 1), target).item() < 1e-10
    red = torch.tensor([1.0, 0.0, 0.0]).view(1, 3, 1, 1).expand(1, 3, 8, 8)
    cb, cr = -0.299 / 1.772, 0.5
    assert squared(red, torch.zeros(1, 3, 8, 8)).item() == pytest.approx((cb**2 + cr**2) / 2, rel=1e-4)


def test_decibels_of_chroma_count_to_a_higher_knee() -> None:
    run = run_of(DataConfig(train=()), loss_weights=LossWeights(pixel=1, luma=1, chroma=2))
    terms = Objective(replace(run, schedule=replace(run.schedule, loss="psnr", loss_knee=30.0)))
    output, target = pictures()
    expected = 2 * of_chroma(partial(psnr_loss, knee=40.0))(output, target).item()
    assert terms(output, target)["chroma"].item() == pytest.approx(expected, rel=1e-5)


def test_every_term_is_zero_or_least_at_the_target_and_has_gradients() -> None:
    output, target = pictures()
    for term in (
        charbonnier,
        psnr_loss,
        of_luma(psnr_loss),
        of_chroma(psnr_loss),
        ssim_loss,
        fft_loss,
        consistency_loss,
    ):
        assert term(target, target).item() < 2e-3
        (gradient,) = torch.autograd.grad(term(output, target), output)
        assert gradient.isfinite().all()
        assert gradient.any()


def test_the_objective_is_its_weighted_terms() -> None:
    output, target = pictures()
    run = run_of(DataConfig(train=(), frames=2), loss_weights=LossWeights(pixel=2, ssim=0.5, fft=0.1))
    terms = Objective(run)(output, target)
    assert set(terms) == {"l2", "ssim", "fft"}
    assert terms["l2"].item() == pytest.approx(2 * (output - target).square().mean().item(), rel=1e-4)
    assert terms["ssim"].item() == pytest.approx(0.5 * ssim_loss(output, target).item(), rel=1e-4)


def vgg(path: Path, channels: int = 4) -> Path:
    """The first two blocks of a narrow VGG19."""
    torch.manual_seed(1)
    shapes = {0: (channels, 3), 2: (channels, channels), 5: (channels, channels), 7: (channels, channels)}
    tensors = {f"features.{n}.weight": torch.randn(o, i, 3, 3) for n, (o, i) in shapes.items()}
    tensors |= {f"features.{n}.bias": torch.randn(channels) for n in shapes}
    save_file(tensors, path)
    return path


def test_the_perceptual_loss_compares_what_vgg_answers_before_relu(tmp_path: Path) -> None:
    output, target = pictures()
    weights = vgg(tmp_path / "vgg.safetensors")
    loss = Perceptual(PerceptualConfig(weights=weights, layers={"conv1_2": 0.5, "conv2_1": 2.0}))
    features = loss.features(target)
    assert {name: tuple(f.shape) for name, f in features.items()} == {
        "conv1_2": (2, 4, 40, 40),
        "conv2_1": (2, 4, 20, 20),
    }
    assert all((f < 0).any() for f in features.values())
    found = loss.features(output)
    expected = 0.5 * (found["conv1_2"] - features["conv1_2"]).abs().mean()
    expected += 2 * (found["conv2_1"] - features["conv2_1"]).abs().mean()
    result = loss(output, target)
    assert result.item() == pytest.approx(expected.item(), rel=1e-5)
    result.backward()
    assert output.grad is not None
    assert output.grad.any()
    assert not any(p.requires_grad for p in loss.parameters())


def test_weights_that_are_no_vgg19_are_named(tmp_path: Path) -> None:
    config = PerceptualConfig(weights=vgg(tmp_path / "vgg.safetensors"))
    with pytest.raises(NetworkError, match=r"vgg\.safetensors: features\.10 is no conv3_1 of a VGG19"):
        Perceptual(config)
    with pytest.raises(UsageError, match="layer conv9_9 is none of VGG19's: conv1_1, conv1_2"):
        Perceptual(replace(config, layers={"conv9_9": 1.0}))
    (tmp_path / "text").write_text("no tensors")
    with pytest.raises(NetworkError, match=r"text: cannot be read as \.safetensors"):
        Perceptual(replace(config, weights=tmp_path / "text"))

import json
import math
import shlex
import signal
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_data import scene, write_image

from videosr.archs import checkpoint
from videosr.archs.fold import tail
from videosr.archs.paragon_blocks import WindowAttention
from videosr.archs.paragonsr2 import ParagonSR2
from videosr.errors import InputError, NetworkError, OutputError, UsageError, VideosrError
from videosr.evaluate import evaluate
from videosr.training import run
from videosr.training.config import NetworkConfig, TrainingConfig
from videosr.training.configfile import load_config
from videosr.training.folding import fold_tail, forward_folded
from videosr.training.networks import new_network, upscaler
from videosr.training.trainer import Trainer, learning_rate


@pytest.fixture
def config_path(tmp_path: Path) -> Path:
    for name, seeds in (("photos", (0, 1)), ("held-out", (2,))):
        (tmp_path / name).mkdir()
        for seed in seeds:
            write_image(tmp_path / name / f"{seed}.png", scene(seed, 80, 90))
    path = tmp_path / "config.toml"
    path.write_text(
        '[data]\ntrain = ["photos"]\nvalidation = ["held-out"]\nnever_train = ["held-out"]\npatch = 12\nbatch = 4\n'
        "factors = [1]\n[schedule]\niterations = 12\nwarmup = 2\nloss_border = 2\n"
        '[output]\nfolder = "run"\nlog_every = 4\nvalidate_every = 6\ncheckpoint_every = 5\n'
    )
    return path


def quiet(_: str) -> None:
    pass


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


@pytest.mark.parametrize("scale", [2, 3])
def test_the_folded_tail_is_the_network_and_so_are_its_gradients(scale: int) -> None:
    torch.manual_seed(0)
    network = ParagonSR2("realtime", scale, upsampler_alpha=0, detail_gain=0.7, layer_scale=0.1).double()
    x = torch.rand(2, 3, 12, 14, dtype=torch.float64)
    kernel, bias = fold_tail(network)
    probed = tail(network)
    assert torch.allclose(kernel, probed.weight, atol=1e-12)
    assert torch.allclose(bias, probed.bias, atol=1e-12)

    def gradients(forward: object) -> list[torch.Tensor]:
        inside = slice(scale, -scale)
        loss = forward(x)[:, :, inside, inside].square().sum()  # type: ignore[operator]
        return list(torch.autograd.grad(loss, [p for p in network.parameters() if p.requires_grad]))

    for plain, folded in zip(gradients(network), gradients(lambda x: forward_folded(network, x)), strict=True):
        assert torch.allclose(plain, folded, rtol=1e-9, atol=1e-9)


def test_learning_rate_rises_and_falls_to_zero(config_path: Path) -> None:
    config = load_config(config_path)
    config = replace(config, schedule=replace(config.schedule, iterations=1000, warmup=100))
    rates = [learning_rate(i, config) for i in range(1001)]
    assert rates[0] == pytest.approx(2.5e-5)
    assert rates[99] == rates[100] == 2.5e-3
    assert rates[550] == pytest.approx(1.25e-3)
    assert rates[1000] == pytest.approx(0)
    assert all(a >= b for a, b in pairwise(rates[100:]))
    restarting = replace(config, schedule=replace(config.schedule, cycle=400, least_rate=1e-4))
    rates = [learning_rate(i, restarting) for i in range(1000)]
    assert rates[99] == rates[100] == rates[400] == rates[800] == 2.5e-3
    assert rates[250] == rates[600] == pytest.approx(1.3e-3)
    assert rates[399] == pytest.approx(1e-4, rel=1e-2)
    assert min(rates[100:]) >= 1e-4


def test_a_run_learns_and_leaves_weights_that_load_and_deploy(config_path: Path) -> None:
    config_path.write_text(
        config_path.read_text().replace("iterations = 12", "iterations = 60").replace("every = 6", "every = 20")
    )
    best = run(config_path, device="cpu", say=quiet)
    lines = [json.loads(line) for line in (best.parent / "log.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in lines if "loss" in line]
    assert losses[-1] < 0.85 * losses[0]
    scores = [line["psnr_y"]["held-out"] for line in lines if "psnr_y" in line]
    assert len(scores) == 3
    assert scores[-1] > scores[0] + 0.3
    network, info = checkpoint.load(best)
    assert info.metadata["iterations"] == str(20 * (1 + scores.index(max(scores))))
    assert info.metadata["padding"] == "replicate"
    assert info.metadata["license"] == "MIT"
    assert "l2 loss" in info.metadata["training"]
    measured = evaluate(config_path.parent / "held-out", upscaler(network))
    assert measured.mean.psnr_y == pytest.approx(max(scores), abs=1e-3)


def run_until(iteration: int, config_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that Ctrl-C ends after so many iterations."""
    original = Trainer.step

    def step(self: Trainer, *tensors: torch.Tensor) -> dict[str, torch.Tensor]:
        if self.iteration == iteration:
            raise KeyboardInterrupt
        return original(self, *tensors)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "step", step)
        with pytest.raises(KeyboardInterrupt):
            run(config_path, device="cpu", say=quiet)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_an_interrupted_run_ends_as_an_uninterrupted_one(
    config_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, optimizer: str
) -> None:
    config_path.write_text(config_path.read_text().replace("[schedule]", f'[schedule]\noptimizer = "{optimizer}"'))
    run(config_path, device="cpu", say=quiet)
    straight = torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)
    (tmp_path / "run").rename(tmp_path / "straight")
    run_until(7, config_path, monkeypatch)
    with pytest.raises(InputError, match="holds a run already"):
        run(config_path, device="cpu", say=quiet)
    said: list[str] = []
    run(config_path, resume=True, device="cpu", say=said.append)
    assert said[0] == "resuming at iteration 7"
    resumed = torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)
    assert resumed["iteration"] == straight["iteration"] == 12
    assert resumed["best"] == straight["best"]
    for part in ("network", "average"):
        assert same(resumed[part], straight[part])
    assert len(resumed["optimizers"]) == {"adamw": 1, "muon": 2}[optimizer]
    for state, expected in zip(resumed["optimizers"], straight["optimizers"], strict=True):
        assert state["state"].keys() == expected["state"].keys() != set()
        assert all(same(moments, expected["state"][k]) for k, moments in state["state"].items())
    # A finished run has nothing left to do.
    before = (tmp_path / "run" / "checkpoint.pt").read_bytes()
    run(config_path, resume=True, device="cpu", say=quiet)
    assert (tmp_path / "run" / "checkpoint.pt").read_bytes() == before


@pytest.mark.parametrize("iteration", [6, 12])
def test_a_validation_that_was_interrupted_is_made_up_for(
    config_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, iteration: int
) -> None:
    run(config_path, device="cpu", say=quiet)
    (tmp_path / "run").rename(tmp_path / "straight")
    validate = Trainer.validate

    def interrupted(self: Trainer) -> dict[str, dict[str, float]]:
        if self.iteration == iteration:
            raise KeyboardInterrupt
        return validate(self)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "validate", interrupted)
        with pytest.raises(KeyboardInterrupt):
            run(config_path, device="cpu", say=quiet)
    best = run(config_path, resume=True, device="cpu", say=quiet)

    def scores(folder: Path) -> list[tuple[int, object]]:
        lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
        return [(line["iteration"], line["psnr_y"]) for line in lines if "psnr_y" in line]

    run(config_path, resume=True, device="cpu", say=quiet)  # nothing is left to do
    assert scores(best.parent) == scores(tmp_path / "straight")
    for name in ("last", "best"):
        (ours, _), (straight, _) = (
            checkpoint.load(folder / f"{name}.safetensors") for folder in (best.parent, tmp_path / "straight")
        )
        assert same(ours.state_dict(), straight.state_dict())


KILLED = """
import os, signal, sys
from videosr.training import run
from videosr.training.trainer import Trainer

step = Trainer.step

def killed(self, *tensors):
    if self.iteration == int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)
    return step(self, *tensors)

Trainer.step = killed
run(sys.argv[1], device="cpu", say=lambda line: None)
"""


@pytest.mark.parametrize("iteration", [4, 9])  # before there is a checkpoint, and after the one of iteration 5
def test_after_a_kill_no_iteration_is_logged_twice(config_path: Path, tmp_path: Path, iteration: int) -> None:
    command = [sys.executable, "-c", KILLED, str(config_path), str(iteration)]
    assert subprocess.run(command).returncode == -signal.SIGKILL
    log = tmp_path / "run" / "log.jsonl"
    assert json.loads(log.read_text().splitlines()[-1])["iteration"] == iteration // 4 * 4
    with log.open("a") as file:
        file.write('{"iteration": 9, "sec')  # cut off in the middle of a line
    run(config_path, resume=True, device="cpu", say=quiet)
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [(line["iteration"], "loss" in line) for line in lines] == [
        (4, True),
        (6, False),
        (8, True),
        (12, True),
        (12, False),
    ]


@pytest.mark.parametrize(("earlier", "told"), [("500", "505"), ("10k", "5")])
def test_the_header_of_foreign_weights_may_say_anything_of_their_iterations(
    config_path: Path, tmp_path: Path, earlier: str, told: str
) -> None:
    weights = tmp_path / "before.safetensors"
    checkpoint.save(
        weights, ParagonSR2("light", 2), name="before", training="elsewhere", license="MIT", iterations=earlier
    )
    config = load_config(config_path)
    trainer = Trainer(
        replace(config, network=replace(config.network, variant="light", weights=weights)), "cpu", say=quiet
    )
    trainer.iteration = 5
    trainer.export(tmp_path / "after.safetensors")
    assert checkpoint.load(tmp_path / "after.safetensors")[1].metadata["iterations"] == told


INTERRUPTED = """
import os, signal, sys
from videosr.training import run
from videosr.training.trainer import Trainer

signal.signal(signal.SIGINT, signal.default_int_handler)  # it may have been ignored
learn = Trainer._learn

def interrupted(self, *tensors):
    report = learn(self, *tensors)  # the weights have moved, and the step is not counted yet
    if self.iteration == 7:
        os.kill(os.getpid(), signal.SIGINT)
    return report

Trainer._learn = interrupted
try:
    run(sys.argv[1], device="cpu", say=lambda line: None)
except KeyboardInterrupt:
    print("interrupted")
"""


def test_ctrl_c_waits_for_the_step_to_be_whole(config_path: Path, tmp_path: Path) -> None:
    config_path.write_text(config_path.read_text() + "[regularisation]\nfrequency_dropout = 0.1\n")
    run(config_path, device="cpu", say=quiet)
    (tmp_path / "run").rename(tmp_path / "straight")
    command = [sys.executable, "-c", INTERRUPTED, str(config_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "interrupted\n"), done.stderr
    said: list[str] = []
    run(config_path, resume=True, device="cpu", say=said.append)
    assert said[0] == "resuming at iteration 8"
    states = [torch.load(tmp_path / name / "checkpoint.pt", weights_only=True) for name in ("run", "straight")]
    for part in ("network", "average"):
        assert states[0][part].keys() == states[1][part].keys()
        # Other processes may sum in another order: their numbers of threads are not the same.
        assert all(torch.allclose(states[0][part][k], states[1][part][k], atol=1e-5) for k in states[0][part])


def test_validation_folders_of_one_name_are_told_apart(config_path: Path, tmp_path: Path) -> None:
    for name, seed in (("one", 2), ("other", 3)):
        (tmp_path / name / "HR").mkdir(parents=True)
        write_image(tmp_path / name / "HR" / "a.png", scene(seed, 80, 90))
    config_path.write_text(config_path.read_text().replace('= ["held-out"]\nn', '= ["one/HR", "other/HR"]\nn'))
    best = run(config_path, device="cpu", say=quiet)
    lines = [json.loads(line) for line in (best.parent / "log.jsonl").read_text().splitlines()]
    scores = [line["psnr_y"] for line in lines if "psnr_y" in line]
    assert [list(score) for score in scores] == [["one/HR", "other/HR"]] * 2
    state = torch.load(best.parent / "checkpoint.pt", weights_only=True)
    assert state["best"] == pytest.approx(max(score["one/HR"] for score in scores), abs=1e-6)


def test_what_cannot_validate_is_named_before_anything_is_made(config_path: Path, tmp_path: Path) -> None:
    write_image(tmp_path / "held-out" / "tiny.png", scene(1, 80, 90)[:12, :40])
    with pytest.raises(InputError, match=r"tiny\.png: 40x12 pixels are too few"):
        run(config_path, device="cpu", say=quiet)
    config_path.write_text(config_path.read_text().replace('validation = ["held-out"]', 'validation = ["nowhere"]'))
    with pytest.raises(InputError, match="nowhere: not a folder of images"):
        run(config_path, device="cpu", say=quiet)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("device", ["foo", "meta", "cuda:99"])
def test_a_device_that_torch_cannot_use_is_named(config_path: Path, device: str) -> None:
    with pytest.raises(UsageError, match=f"--device {device}: torch cannot use it: "):
        run(config_path, device=device, say=quiet)


def test_an_output_that_is_no_folder_is_named(config_path: Path, tmp_path: Path) -> None:
    (tmp_path / "run").write_text("")
    with pytest.raises(OutputError, match="run: cannot be written"):
        run(config_path, device="cpu", say=quiet)


def loaded(config_path: Path, **network: object) -> TrainingConfig:
    config = load_config(config_path)
    return replace(config, network=replace(config.network, **network))  # type: ignore[arg-type]


def test_training_can_start_from_weights_of_the_same_network_only(config_path: Path, tmp_path: Path) -> None:
    first = Trainer(load_config(config_path), "cpu", quiet)
    first.iteration = 5
    first.export(tmp_path / "start.safetensors")
    second = Trainer(loaded(config_path, weights=tmp_path / "start.safetensors"), "cpu", quiet)
    assert same(dict(second.network.state_dict()), dict(first.network.state_dict()))
    assert all(p.requires_grad for p in (second.network.conv_in.weight, second.network.detail_gain))
    second.iteration = 3
    second.export(tmp_path / "end.safetensors")
    metadata = checkpoint.load(tmp_path / "end.safetensors")[1].metadata
    assert metadata["iterations"] == "8"
    assert metadata["training"].startswith("photos; 5 of 12 iterations")
    assert "; then photos; 3 of 12 iterations" in metadata["training"]
    with pytest.raises(NetworkError, match="is realtime 2x and not light 2x"):
        Trainer(loaded(config_path, weights=tmp_path / "start.safetensors", variant="light"), "cpu", quiet)


@pytest.mark.parametrize("damage", ["truncated", "text", "other network"])
def test_a_broken_checkpoint_is_named(config_path: Path, damage: str) -> None:
    trainer = Trainer(load_config(config_path), "cpu", quiet)
    if damage == "other network":
        other = Trainer(loaded(config_path, variant="stream"), "cpu", quiet)
        other.save_checkpoint()
    else:
        trainer.save_checkpoint()
        data = trainer.checkpoint_path.read_bytes()
        trainer.checkpoint_path.write_bytes(data[: len(data) // 2] if damage == "truncated" else b"not a checkpoint")
    with pytest.raises(InputError, match=r"checkpoint\.pt: not a checkpoint of this run") as caught:
        trainer.load_checkpoint()
    assert "\n" not in str(caught.value)
    # Hours of training are not to be removed because of a slip in the configuration.
    remedy = "it is of another network: undo what was changed in its" if damage == "other network" else ": remove it"
    assert remedy in str(caught.value)


def test_divergence_is_an_error(config_path: Path) -> None:
    text = config_path.read_text().replace("warmup = 2", "warmup = 0\nlearning_rate = 1e30")
    config_path.write_text(text)
    with pytest.raises(VideosrError, match="diverged before iteration 4: lower the learning rate"):
        run(config_path, device="cpu", say=quiet)


def test_weights_that_are_not_finite_replace_no_sound_ones(config_path: Path) -> None:
    trainer = Trainer(load_config(config_path), "cpu", quiet)
    trainer.save_checkpoint()
    sound = trainer.checkpoint_path.read_bytes()
    with torch.no_grad():
        next(iter(trainer.network.parameters())).fill_(math.nan)
    for write in (trainer.save_checkpoint, trainer._validate_and_export):
        with pytest.raises(VideosrError, match="diverged before iteration 0: lower the learning rate"):
            write()
    assert trainer.checkpoint_path.read_bytes() == sound
    assert not (trainer.folder / "best.safetensors").exists()


def test_decibels_of_another_validation_folder_are_no_measure(config_path: Path, tmp_path: Path) -> None:
    best = run(config_path, device="cpu", say=quiet)
    (tmp_path / "harder").mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (80, 90, 3)).astype(np.uint8)
    write_image(tmp_path / "harder" / "noise.png", noise)
    text = config_path.read_text().replace('validation = ["held-out"]', 'validation = ["harder"]')
    config_path.write_text(text.replace("iterations = 12", "iterations = 18"))
    run(config_path, resume=True, device="cpu", say=quiet)
    assert checkpoint.load(best)[1].metadata["iterations"] == "18"


def test_the_command_ends_with_what_to_do_with_the_weights(config_path: Path, tmp_path: Path, videosr: Any) -> None:
    done = videosr("train", config_path, "--device", "cpu")
    told = shlex.split(done.out.splitlines()[-1].partition("videosr ")[2])
    assert (done.code, told[0]) == (0, "export")
    assert videosr(*told).code == 0
    assert (tmp_path / "run" / "best.onnx").exists()


def test_whole_images_have_no_dark_rim() -> None:
    torch.manual_seed(0)
    network = ParagonSR2("realtime", 2, upsampler_alpha=0, layer_scale=0.1)
    flat = upscaler(network)(np.full((20, 24, 3), 0.6, np.float32))
    assert flat.shape == (40, 48, 3)
    # Each of the 2 x 2 phases has its own constant; over the picture it does not change.
    assert np.abs(flat - np.tile(flat[20:22, 24:26], (20, 24, 1))).max() < 1e-5
    assert math.isfinite(float(flat.sum()))


EVERYTHING = """
[degradation]
noise = 0.5
chroma = 0.5
[regularisation]
frequency_dropout = 0.3
cutblur = 0.5
[loss_weights]
pixel = 1
fft = 0.1
consistency = 0.1
gan = 0.01
[discriminator]
num_feat = 4
ch_mult = [1, 2]
"""


def test_a_run_with_everything_ends_the_same_when_interrupted(
    config_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = config_path.read_text().replace("factors = [1]", "factors = [1]\nframes = 4")
    text = text.replace("iterations = 12", 'iterations = 6\nwindow = "adaptive"').replace("every = 6", "every = 3")
    config_path.write_text(
        text.replace("warmup = 2", "warmup = 1").replace("log_every = 4", "log_every = 2") + EVERYTHING
    )
    best = run(config_path, device="cpu", say=quiet)
    straight = torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)
    lines = [json.loads(line) for line in (best.parent / "log.jsonl").read_text().splitlines()]
    first = next(line for line in lines if "loss" in line)
    parts = [first[f"{name}_loss"] for name in ("l2", "fft", "consistency", "gan")]
    assert first["loss"] == pytest.approx(sum(parts), rel=1e-4)
    assert first["discriminator_loss"] > 0
    assert (best.parent / "log.svg").read_text().count("<polyline") == 7
    metadata = checkpoint.load(best)[1].metadata
    assert "noise 50%, 4:2:0 chroma 50%, CutBlur 50%, frequency dropout 30%, adaptive temporal" in metadata["training"]
    assert "; l2 + 0.1 FFT + 0.1 temporal consistency + 0.01 GAN loss; " in metadata["training"]
    assert metadata["chroma"] == "network"
    (tmp_path / "run").rename(tmp_path / "straight")
    run_until(3, config_path, monkeypatch)
    run(config_path, resume=True, device="cpu", say=quiet)
    resumed = torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)
    assert same(resumed["network"], straight["network"])
    assert same(resumed["adversary"]["network"], straight["adversary"]["network"])


def test_a_checkpoint_without_a_discriminator_does_not_do_for_a_run_with_one(config_path: Path) -> None:
    Trainer(load_config(config_path), "cpu", quiet).save_checkpoint()
    config_path.write_text(config_path.read_text() + EVERYTHING.replace("consistency = 0.1\n", ""))
    with pytest.raises(InputError, match="not a checkpoint of this run: 'adversary'"):
        Trainer(load_config(config_path), "cpu", quiet).load_checkpoint()


@pytest.mark.parametrize("variant", ["realtime", "photo"])
def test_recomputed_blocks_have_the_same_gradients(config_path: Path, variant: str) -> None:
    torch.manual_seed(1)
    lr, hr = torch.rand(1, 3, 8, 8), torch.rand(1, 3, 16, 16)
    results = []
    for checkpointing in (False, True):
        trainer = Trainer(loaded(config_path, variant=variant, checkpointing=checkpointing), "cpu", quiet)
        assert all(group.use_checkpointing == checkpointing for group in trainer.network.body)
        trainer.step(lr, hr, None)
        results.append({name: p.grad for name, p in trainer.network.named_parameters() if p.grad is not None})
    assert results[0]
    assert same(*results)


def test_flex_attention_is_for_cuda(config_path: Path) -> None:
    with pytest.raises(UsageError, match='attention_mode "flex" trains on CUDA only'):
        Trainer(loaded(config_path, variant="photo", attention_mode="flex"), "cpu", quiet)
    network, _ = new_network(NetworkConfig(variant="photo", attention_mode="flex"))
    assert {m.mode for m in network.modules() if isinstance(m, WindowAttention)} == {"flex"}


def test_window_attention_can_be_left_out(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = NetworkConfig(variant="photo", attention_mode="off")
    network, _ = new_network(config)
    assert not network.has_windows
    whole = tmp_path / "whole.safetensors"
    checkpoint.save(whole, ParagonSR2("photo", 2, upsampler_alpha=0), name="whole", training="", license="MIT")
    with pytest.raises(UsageError, match=r'attention_mode "off": .*whole.safetensors has window attention'):
        new_network(replace(config, weights=whole))
    with pytest.raises(UsageError, match='attention_mode "off": nexus_tiny has window attention'):
        new_network(replace(config, variant="nexus_tiny"))


def test_the_average_is_for_the_detail_path(config_path: Path) -> None:
    torch.manual_seed(0)
    network = ParagonSR2("realtime", 2, upsampler_alpha=0, detail_gain=0.7, layer_scale=0.1).double()
    x, average = torch.rand(2, 1, 3, 12, 14, dtype=torch.float64)
    inside = (..., slice(8, -8), slice(8, -8))
    assert torch.allclose(forward_folded(network, x, average)[inside], network(x, average)[inside], atol=1e-12)


def test_photo_networks_are_trained_validated_and_exported(config_path: Path) -> None:
    text = config_path.read_text().replace("iterations = 12", "iterations = 3").replace("batch = 4", "batch = 1")
    config_path.write_text(text + '[network]\nvariant = "photo"\ncheckpointing = true\nexpansion = 0\n')
    best = run(config_path, device="cpu", say=quiet)
    record = json.loads((best.parent / "log.jsonl").read_text().splitlines()[-1])
    network, _ = checkpoint.load(best)
    measured = evaluate(config_path.parent / "held-out", upscaler(network)).mean
    for measure in ("psnr_y", "psnr_rgb", "ssim_y"):
        assert record[measure]["held-out"] == pytest.approx(getattr(measured, measure), abs=1e-3)

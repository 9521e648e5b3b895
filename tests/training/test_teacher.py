from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs torch")

from videosr.archs import checkpoint  # noqa: E402
from videosr.errors import NetworkError  # noqa: E402
from videosr.export import natural_picture  # noqa: E402
from videosr.models import registry  # noqa: E402
from videosr.training.config import (  # noqa: E402
    DataConfig,
    NetworkConfig,
    OutputConfig,
    ScheduleConfig,
    TeacherConfig,
    TrainingConfig,
)
from videosr.training.data import PatchSampler  # noqa: E402
from videosr.training.history import history  # noqa: E402
from videosr.training.networks import upscaler  # noqa: E402
from videosr.training.packing import build_pack  # noqa: E402
from videosr.training.taught import TaughtSampler, build_taught, values  # noqa: E402
from videosr.training.teacher import Teacher  # noqa: E402
from videosr.training.trainer import Trainer, run  # noqa: E402

LIGHT, REALTIME = (registry.find(f"{name}-2x").with_suffix(".safetensors") for name in ("light", "realtime"))
CPU = torch.device("cpu")


def pair() -> tuple[torch.Tensor, torch.Tensor]:
    hr = natural_picture(40, 48, torch.Generator().manual_seed(3))
    return torch.nn.functional.avg_pool2d(hr, 2), hr


def test_the_target_is_the_mean_over_reflections_and_so_much_of_the_original() -> None:
    lr, hr = pair()
    alone = Teacher(TeacherConfig(weights=REALTIME, share=1.0), 2, CPU).target(lr, hr)
    network, _ = checkpoint.load(REALTIME)
    upscale, expected = upscaler(network), torch.zeros_like(hr)
    for axes in ([], [2], [3], [2, 3]):
        picture = lr.flip(axes)[0].permute(1, 2, 0).numpy()
        expected += torch.from_numpy(upscale(picture)).permute(2, 0, 1)[None].flip(axes) / 4
    assert torch.allclose(alone, expected, atol=1e-5)
    mixed = Teacher(TeacherConfig(weights=REALTIME, share=0.25), 2, CPU).target(lr, hr)
    assert torch.allclose(mixed, 0.75 * hr + 0.25 * alone, atol=1e-6)


def test_a_teacher_of_another_scale_is_refused() -> None:
    config = TeacherConfig(weights=registry.find("realtime-4x").with_suffix(".safetensors"))
    with pytest.raises(NetworkError, match="is realtime 4x: no teacher of 2x"):
        Teacher(config, 2, CPU)


def test_the_network_comes_nearer_to_its_teacher(tmp_path: Path) -> None:
    config = TrainingConfig(
        data=DataConfig(train=(tmp_path,)),
        schedule=ScheduleConfig(iterations=40, learning_rate=1e-3, warmup=5),
        output=OutputConfig(folder=tmp_path),
        network=NetworkConfig(variant="light", weights=LIGHT, expansion=0),
        teacher=TeacherConfig(weights=REALTIME, share=1.0),
    )
    lr, hr = pair()
    losses = []
    trainer = Trainer(config, "cpu", lambda _: None)
    for _ in range(40):
        # What the original is does not matter to whom it says nothing.
        losses.append(trainer.step(lr, torch.rand_like(hr), None)["loss"].item())
    assert losses[0] < 0.01
    assert losses[-1] < 0.7 * losses[0]
    assert "100% of what realtime-2x makes of it" in history(config, 40)
    assert "makes of it" not in history(replace(config, teacher=None), 40)


def taught(folder: Path, photos: Path, **changes: object) -> TrainingConfig:
    config = TrainingConfig(
        data=DataConfig(train=(photos,), factors=(1.0,), patch=12, batch=6, candidates=2),
        schedule=ScheduleConfig(iterations=6, warmup=2, loss_border=2),
        output=OutputConfig(folder=folder),
        network=NetworkConfig(variant="light", weights=LIGHT, expansion=0),
        teacher=TeacherConfig(weights=REALTIME, share=0.75, regions=6, edge=32),
    )
    return replace(config, **changes)


def test_regions_are_shown_to_the_teacher_once_and_patches_cut_from_those(tmp_path: Path, photos: Path) -> None:
    config, said = taught(tmp_path, photos), []
    assert config.teacher
    build_pack(tmp_path, config.data, 36 * 2, lambda _: None)
    teacher = Teacher(config.teacher, 2, CPU)
    build_taught(tmp_path, config, teacher, said.append)
    assert said[0] == "having realtime-2x look at 6 regions of 32x32"
    assert said[-1] == "6 of 6 regions"
    sampler = TaughtSampler(tmp_path, config)
    for iteration in range(4):
        batch, again = sampler.batch(iteration), sampler.batch(iteration)
        assert (batch.lr.shape, batch.hr.shape) == ((6, 12, 12, 3), (6, 24, 24, 3))
        assert batch.lr.dtype == batch.hr.dtype == np.float32
        assert (batch.lr == again.lr).all()
        # The same place, turned alike.
        shrunk = batch.hr.reshape(6, 12, 2, 12, 2, 3).mean((2, 4))
        assert np.abs(shrunk - batch.lr).mean() < 0.25 * np.abs(shrunk[:, ::-1] - batch.lr).mean()
    assert not np.array_equal(sampler.batch(0).lr, sampler.batch(1).lr)

    said.clear()
    build_taught(tmp_path, config, teacher, said.append)
    assert said == []
    (tmp_path / "taught_target.npy").unlink()
    build_taught(tmp_path, config, teacher, said.append)
    assert said
    said.clear()
    other = replace(config, teacher=replace(config.teacher, share=0.5))
    build_taught(tmp_path, other, Teacher(other.teacher, 2, CPU), said.append)
    assert said


def test_what_was_taught_is_the_original_and_the_teacher_and_patterns_are_themselves(
    tmp_path: Path, photos: Path
) -> None:
    config = taught(tmp_path, photos)
    assert config.teacher
    build_pack(tmp_path, config.data, 36 * 2, lambda _: None)
    teacher = Teacher(config.teacher, 2, CPU)
    build_taught(tmp_path, config, teacher, lambda _: None)
    lr, target = (values(np.fromfile(tmp_path / f"taught_{name}.npy", np.uint16)) for name in ("lr", "target"))
    lr, target = lr.reshape(6, 32, 32, 3), target.reshape(6, 64, 64, 3)
    whole = replace(config.data, patch=32, batch=4)
    drawn = PatchSampler(tmp_path, replace(config, data=whole)).batch(0)
    assert np.abs(lr[:4] - drawn.lr / 255).max() < 1 / 65000
    pair = (torch.from_numpy(x.astype(np.float32) / 255).permute(0, 3, 1, 2) for x in (drawn.lr, drawn.hr))
    expected = teacher.target(*pair).permute(0, 2, 3, 1).numpy()
    assert np.abs(target[:4] - expected).max() < 1 / 65000

    patterned = replace(config, data=replace(config.data, patterns=1.0))
    batch = TaughtSampler(tmp_path, patterned).batch(0)
    blocks = batch.hr.reshape(6, 12, 2, 12, 2, 3)
    assert (blocks == batch.lr[:, :, None, :, None]).all()


def test_a_run_with_regions_learns_from_the_command_line_and_goes_on(
    tmp_path: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = f"""
[network]
variant = "light"
expansion = 0
weights = "{LIGHT}"

[data]
train = ["{photos}"]
factors = [1]
patch = 12
batch = 4
candidates = 1

[teacher]
weights = "{REALTIME}"
regions = 3
edge = 32

[schedule]
iterations = 4
warmup = 1
loss_border = 2

[output]
folder = "run"
"""
    recipe = tmp_path / "run.toml"
    recipe.write_text(text)
    said: list[str] = []
    best = run(recipe, device="cpu", say=said.append)
    assert best.exists()
    assert "having realtime-2x look at 3 regions of 32x32" in said
    recipe.write_text(text.replace("iterations = 4", "iterations = 6"))
    monkeypatch.setattr(Teacher, "target", lambda *_: pytest.fail("the teacher has said what it had to"))
    run(recipe, resume=True, device="cpu", say=said.append)
    assert checkpoint.load(best)[1].metadata["training"].endswith("weights averaged at 0.999")

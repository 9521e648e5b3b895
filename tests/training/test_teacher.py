from __future__ import annotations

from dataclasses import replace
from pathlib import Path

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
from videosr.training.history import history  # noqa: E402
from videosr.training.teacher import Teacher  # noqa: E402
from videosr.training.trainer import Trainer, upscaler  # noqa: E402

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

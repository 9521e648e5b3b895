"""What a run says, keeps and leaves behind where the disk is full: a limit on the size of files stands for one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="training needs torch")
resource = pytest.importorskip("resource", reason="this system limits no file's size")

from videosr.errors import OutputError  # noqa: E402
from videosr.training.config import DataConfig, NetworkConfig, OutputConfig, ScheduleConfig, TrainingConfig  # noqa: E402
from videosr.training.copies import build_copies  # noqa: E402
from videosr.training.journal import Journal  # noqa: E402
from videosr.training.packing import build_pack  # noqa: E402
from videosr.training.trainer import Trainer  # noqa: E402


@contextmanager
def room_for(size: int) -> Iterator[None]:
    """Files may have so many bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def quiet(_: str) -> None:
    pass


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def config(tmp_path: Path, photos: Path) -> TrainingConfig:
    return TrainingConfig(
        network=NetworkConfig(variant="light"),
        data=DataConfig(train=(photos,), factors=(1.0,), patch=12),
        schedule=ScheduleConfig(iterations=9, warmup=1),
        output=OutputConfig(folder=tmp_path / "run"),
    )


def test_a_pack_that_does_not_fit_is_named_and_takes_no_room(tmp_path: Path, config: TrainingConfig) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "pack.partial").write_bytes(b"of a run that was killed")
    with room_for(10_000), pytest.raises(OutputError, match=r"pack\.npy: cannot be written: File too large"):
        build_pack(folder, config.data, 32, quiet)
    assert names(folder) == []
    build_pack(folder, config.data, 32, quiet)
    degraded = replace(config, degradation=replace(config.degradation, noise=1.0, copies=4))
    with room_for(1000), pytest.raises(OutputError, match=r"copies\.npy: cannot be written: File too large"):
        build_copies(folder, degraded, quiet)
    assert names(folder) == ["pack.json", "pack.npy"]


def test_a_checkpoint_that_does_not_fit_is_named_and_the_one_before_stays(config: TrainingConfig) -> None:
    trainer = Trainer(config, "cpu", quiet)
    trainer.iteration = 3
    trainer.save_checkpoint()
    trainer.iteration = 4
    with room_for(10_000), pytest.raises(OutputError, match=r"checkpoint\.pt: cannot be written: File too large"):
        trainer.save_checkpoint()
    assert names(trainer.folder) == ["checkpoint.pt"]
    trainer.load_checkpoint()
    assert trainer.iteration == 3


def test_a_log_that_does_not_fit_is_named(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.write(iteration=1, loss=0.5)
    with room_for(8):
        with pytest.raises(OutputError, match=r"log\.jsonl: cannot be written: File too large"):
            journal.write(iteration=2, loss=0.4)
        with pytest.raises(OutputError, match=r"log\.svg: cannot be written: File too large"):
            journal.draw()
    assert names(tmp_path) == ["log.jsonl"]

"""`scripts/leak_check.py` finds test pictures among training pictures."""

import importlib
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from test_evaluate import picture, write_png

from videosr.metrics import imresize

SCRIPTS = Path(__file__).parent.parent / "scripts"


@pytest.fixture
def check(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[[Path, Path], tuple[int, str]]:
    """Runs the script: its exit code, and what it printed."""
    pytest.importorskip("torch")
    monkeypatch.syspath_prepend(str(SCRIPTS))
    script = importlib.import_module("leak_check")

    def run(training: Path, test: Path) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["leak_check.py", str(training), "--test", str(test)])
        return script.main(), capsys.readouterr().out

    return run


def test_copies_are_found_under_other_names_and_sizes(
    check: Callable[[Path, Path], tuple[int, str]], tmp_path: Path
) -> None:
    training, test = tmp_path / "training", tmp_path / "test"
    for folder in (training, test):
        folder.mkdir()
    for seed in (1, 2):
        write_png(training / f"own{seed}.png", picture(seed, 90, 120))
    write_png(test / "a.png", picture(5, 96, 128))
    code, out = check(training, test)
    assert code == 0
    assert "2 training pictures, 1 test pictures: 0 the same by hash, 0 more alike" in out
    write_png(training / "renamed.png", picture(5, 96, 128))
    noisy = imresize(picture(5, 96, 128), 0.5) + np.random.default_rng(0).normal(0, 3, (48, 64, 3))
    write_png(training / "smaller.png", np.clip(noisy, 0, 255).astype(np.uint8))
    code, out = check(training, test)
    assert code == 1
    assert "SAME: training/renamed.png is test/a.png" in out
    assert "ALIKE: training/smaller.png and test/a.png" in out
    assert "4 training pictures, 1 test pictures: 1 the same by hash, 1 more alike" in out

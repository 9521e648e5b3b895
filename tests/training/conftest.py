"""Pictures to train on."""

from pathlib import Path

import numpy as np
import pytest
from test_data import moving, scene, write_image, write_video


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for seed in range(3):
        write_image(folder / f"{seed}.png", scene(seed))
    return folder


@pytest.fixture
def film(tmp_path: Path) -> Path:
    """Two scenes, cut after frame 7, then black."""
    folder = tmp_path / "film"
    folder.mkdir()
    write_video(folder / "film.mkv", [*moving(1, 7), *moving(2, 13), *[np.zeros((96, 96, 3), np.uint8)] * 6])
    return folder

"""Pictures to train on."""

from pathlib import Path

import pytest
from test_data import scene, write_image


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for seed in range(3):
        write_image(folder / f"{seed}.png", scene(seed))
    return folder

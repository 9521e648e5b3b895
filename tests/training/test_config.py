from pathlib import Path

import pytest

from videosr.errors import InputError, UsageError
from videosr.training.configfile import load_config

MINIMAL = '[data]\ntrain = ["photos"]\n[schedule]\niterations = 500\n[output]\nfolder = "run"\n'


def written(folder: Path, text: str) -> Path:
    path = folder / "config.toml"
    path.write_text(text)
    return path


def test_paths_are_relative_to_the_file_and_the_rest_has_defaults(tmp_path: Path) -> None:
    config = load_config(written(tmp_path, MINIMAL + '[network]\nvariant = "stream"\ndetail_gain = 1\n'))
    assert config.data.train == (tmp_path / "photos",)
    assert config.output.folder == tmp_path / "run"
    assert config.network.variant == "stream"
    assert config.network.detail_gain == 1.0
    assert config.network.weights is None
    assert config.schedule.loss == "l2"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "iterations = 500",
            "iteration = 500",
            "schedule: unknown key iteration; allowed are iterations, learning_rate",
        ),
        ("iterations = 500", "", "schedule: missing key iterations"),
        ("[data]", "[dada]", "unknown key dada; allowed are data, schedule, output, network"),
        ("iterations = 500", "iterations = 500.5", "iterations: 500.5 is not int"),
        ("iterations = 500", "iterations = true", "iterations: True is not int"),
        ("iterations = 500", "iterations = 0", "iterations 0 must be positive"),
        ("iterations = 500", "iterations = 100", "warmup 200 must be below iterations"),
        ("iterations = 500", 'iterations = 500\nloss = "l3"', "loss: 'l3' is not 'l1' or 'charbonnier' or 'l2'"),
        ("iterations = 500", "iterations = 500\nema = 1.0", "ema 1.0 must be in"),
        ("iterations = 500", "iterations = 500\nloss_border = 48", "patch 48 leaves nothing"),
        ("[output]", "[network]\nexpansion = -1\n[output]", "expansion -1 must not be negative"),
        ('["photos"]', '"photos"', "train: 'photos' is not tuple"),
        ('["photos"]', "[3]", "train: 3 is not Path"),
        ('["photos"]', "[]", "train names no folder"),
        ('["photos"]', '["photos"]\nfactors = [0.5]', "factors must be 1 or more"),
        ("[data]", "output = 3\n[data]", "Cannot overwrite"),
        ("[data]", "data = 3\n[dat]", "unknown key dat"),
        ('[output]\nfolder = "run"', "", "missing key output"),
        ('folder = "run"', 'folder = "run"\nlog_every = 0', "must be positive"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, old: str, new: str, message: str) -> None:
    path = written(tmp_path, MINIMAL.replace(old, new))
    with pytest.raises((UsageError, InputError)) as caught:
        load_config(path)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_no_toml_or_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not a TOML file"):
        load_config(written(tmp_path, "{"))
    with pytest.raises(InputError, match="cannot be read"):
        load_config(tmp_path / "nowhere.toml")

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
        ("[data]", "[dada]", "unknown key dada; allowed are data, schedule, output, network, degr"),
        ("iterations = 500", "iterations = 500.5", "iterations: 500.5 is not a whole number"),
        ("iterations = 500", "iterations = true", "iterations: True is not a whole number"),
        ("iterations = 500", "iterations = 0", "iterations 0 must be positive"),
        ("iterations = 500", "iterations = 100", "warmup 200 must be below iterations"),
        ("iterations = 500", "iterations = 500\ncycle = 200", "cycle 200 must be above warmup, or 0"),
        ("iterations = 500", "iterations = 500\nleast_rate = 1", "least_rate 1.0 must be below learning_rate"),
        ("iterations = 500", 'iterations = 500\nloss = "l3"', "loss: 'l3' is not 'l1' or 'charbonnier' or 'l2'"),
        ("iterations = 500", "iterations = 500\nema = 1.0", "ema 1.0 must be in"),
        ("iterations = 500", "iterations = 500\nloss_border = 48", "patch 48 leaves nothing"),
        ("[output]", "[network]\nexpansion = -1\n[output]", "expansion -1 must not be negative"),
        ('["photos"]', '"photos"', "train: 'photos' is not a list"),
        ('["photos"]', "[3]", "train: 3 is not a path"),
        ('["photos"]', "[]", "train names no folder"),
        ('["photos"]', '["photos"]\nfactors = [0.5]', "factors must be 1 or more"),
        ('["photos"]', '["photos"]\nfactors = [inf]', "factors must be 1 or more"),
        ("[output]", "[network]\nupsampler_alpha = 2.0\n[output]", "upsampler_alpha 2 must be within 0..1"),
        ("[output]", "[network]\nlayer_scale = nan\n[output]", "layer_scale nan must be finite"),
        ("[data]", "output = 3\n[data]", "Cannot overwrite"),
        ("[data]", "data = 3\n[dat]", "unknown key dat"),
        ('[output]\nfolder = "run"', "", "missing key output"),
        ("[output]", "[degradation]\nvideo = 1.5\n[output]", "degradation: video 1.5 is no share from 0 to 1"),
        ("[output]", "[degradation]\ncopies = 2\n[output]", "degradation: copies does nothing without a degradation"),
        ("[output]", "[degradation]\nvideo = 1\ncopies = -1\n[output]", "degradation: copies -1 must not be negative"),
        ("[output]", "[degradation]\ncrf = [30, 20]\n[output]", "degradation: crf must rise within 0..51"),
        ("[output]", "[degradation]\ncrf = [30]\n[output]", "crf: [30] has not 2 values"),
        ("[output]", "[degradation]\ncrf = 30\n[output]", "crf: 30 is not a list"),
        ("[output]", '[degradation]\ncodecs = ["av1"]\n[output]', "codecs: 'av1' is not 'h264' or 'hevc'"),
        ("[output]", '[degradation]\npresets = ["hasty"]\n[output]', "presets are ultrafast, superfast"),
        ("[output]", "[regularisation]\ncutblur = 0.5\n[output]", "cutblur does nothing without a degradation"),
        ("[output]", "[loss_weights]\npixel = 0\n[output]", "loss_weights: must not be negative, nor all be 0"),
        ("[output]", "[loss_weights]\nperceptual = 1\n[output]", "perceptual needs the table perceptual"),
        ("[output]", "[loss_weights]\nconsistency = 1\n[output]", "consistency needs data.frames above 1"),
        ("[output]", "[perceptual]\nlayers = {}\n[output]", "perceptual: missing key weights"),
        ("[output]", '[network]\ncheckpointing = "yes"\n[output]', "checkpointing: 'yes' is not true or false"),
        ("iterations = 500", 'iterations = 500\nwindow = "adaptive"', "window needs data.frames above 1"),
        ('["photos"]', '["photos"]\nframes = 0', "frames 0 must be positive"),
        ('["photos"]', '["photos"]\nshares = [1, 2]', "one positive number for each of the 1 folders"),
        ('["photos"]', '["photos"]\nshares = [nan]', "one positive number for each of the 1 folders"),
        ('["photos"]', '["photos"]\nsoftness = 5', "softness 5 must be within 0..4"),
        ('["photos"]', '["photos"]\nchroma_softness = 5', "chroma_softness 5 must be within 0..4"),
        (
            '["photos"]',
            '["photos"]\npatch = 10\n[loss_weights]\nssim = 1',
            "leaves 8 output pixels to losses that need 11",
        ),
        ("[output]", "[discriminator]\nch_mult = []\n[output]", "ch_mult must be positive"),
        ("[output]", '[teacher]\nweights = "a"\nshare = 0\n[output]', "teacher: share 0.0 must be above 0"),
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


def test_every_table_is_read(tmp_path: Path) -> None:
    text = MINIMAL.replace("[schedule]", "frames = 6\n[schedule]") + (
        "[degradation]\nvideo = 1\ncrf = [20, 30]\n[loss_weights]\npixel = 0.5\nperceptual = 1\n"
        '[perceptual]\nweights = "vgg.safetensors"\nlayers = { conv1_2 = 1 }\n[network]\ncheckpointing = true\n'
    )
    config = load_config(written(tmp_path, text))
    assert config.degradation.crf == (20.0, 30.0)
    assert config.degradation.subsampled == 1
    assert config.perceptual is not None
    assert config.perceptual.weights == tmp_path / "vgg.safetensors"
    assert config.perceptual.layers == {"conv1_2": 1.0}
    assert config.network.checkpointing


def test_a_file_that_is_no_toml_or_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not a TOML file"):
        load_config(written(tmp_path, "{"))
    with pytest.raises(InputError, match="cannot be read"):
        load_config(tmp_path / "nowhere.toml")

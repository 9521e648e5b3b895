"""`videosr evaluate`, and what further measures ask for."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from clips import make_clip
from test_evaluate import picture, write_png

from videosr.errors import InputError, MissingExtraError, UsageError
from videosr.evaluate.perceptual import Perceptual
from videosr.models import registry


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "frames"
    made.mkdir()
    for number in range(3):
        write_png(made / f"{number}.png", picture(3, 140, 132))
    return made


def test_images_and_clips_side_by_side(videosr, tmp_path: Path, folder: Path) -> None:
    clip = make_clip(tmp_path / "clip.mkv", frames=3, width=160, height=128)
    done = videosr("evaluate", folder, clip, "--crf", "35", "--json")
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert [row["model"] for row in found["images"]] == ["bicubic", *registry.DEFAULTS[2]]
    assert [(row["model"], row["crf"]) for row in found["clips"]] == [
        (model, crf) for crf in (None, 35) for model in ("bicubic", *registry.DEFAULTS[2])
    ]
    lines = videosr("evaluate", folder, clip, "-m", "bicubic").out.splitlines()
    assert lines[2].startswith("| frames | 3 | bicubic |")
    assert lines[-1].startswith("| clip.mkv | 3 | uncompressed | bicubic |")


def test_a_folder_of_frames_is_a_clip_where_that_is_asked_for(videosr, folder: Path) -> None:
    done = videosr("evaluate", folder, "--sequence", "--frames", "2", "--scale", "2", "--json")
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert found["images"] == []
    assert [(row["clip"], row["frames"], row["model"]) for row in found["clips"]] == [("frames", 2, "bicubic")]


@pytest.mark.parametrize("crf", ["x", "60", "28,"])
def test_a_senseless_crf_is_wrong_usage(videosr, folder: Path, crf: str) -> None:
    done = videosr("evaluate", folder, "--crf", crf)
    assert done.code == 2
    assert crf in done.err


@pytest.mark.parametrize("scale", ["-2", "0", "1"])
def test_a_senseless_scale_is_wrong_usage(videosr, folder: Path, scale: str) -> None:
    done = videosr("evaluate", folder, "--scale", scale)
    assert done.code == 2
    assert f"{scale} is not in the range x>=2" in done.err


@pytest.mark.parametrize(
    ("options", "what"),
    [
        (("--crf", "28"), "--crf and --frames are for clips"),
        (("--frames", "2"), "--crf and --frames are for clips"),
        (("--sequence", "--perceptual", "lpips"), "--lr and --perceptual are for folders"),
        (("--sequence", "--lr", "."), "--lr and --perceptual are for folders"),
    ],
)
def test_options_for_sources_that_are_not_there_are_wrong_usage(videosr, folder: Path, options, what: str) -> None:
    done = videosr("evaluate", folder, *options)
    assert (done.code, done.out) == (2, "")
    assert what in done.err


def test_an_image_that_is_too_small_for_the_scale_is_named_with_its_size(videosr, folder: Path) -> None:
    done = videosr("evaluate", folder, "--scale", "1000")
    assert done.code == 1
    assert "0.png: 132x140 pixels are too few to measure at a scale of 1000" in done.err


def test_a_row_is_a_row_whatever_a_name_holds(videosr, tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "clip.mkv", frames=2, width=160, height=128)
    odd = clip.rename(tmp_path / "a|b\n\udcff.mkv")
    done = videosr("evaluate", odd, "--scale", "2")
    assert done.code == 0, done.err
    assert done.out.splitlines()[-1].startswith(r"| a\|b\n\udcff.mkv | 2 | uncompressed | bicubic |")


def test_scales_that_differ_are_named(videosr, folder: Path) -> None:
    done = videosr("evaluate", folder, "-m", "realtime-2x", "--scale", "4")
    assert done.code == 2
    assert "2, 4" in done.err


def test_perceptual_measures_are_named_and_say_what_they_need(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="'vmaf' is not one of lpips, dists, topiq, ssim-c"):
        Perceptual(["lpips", "vmaf"])
    monkeypatch.setitem(sys.modules, "pyiqa", None)
    with pytest.raises(MissingExtraError, match=r"lpips needs .*--extra iqa "):
        Perceptual(["lpips"])


def test_perceptual_measures_see_both_pictures_in_the_right_form(monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")

    def create_metric(name: str, device: object) -> object:
        assert name in ("lpips", "topiq_fr")
        if name == "topiq_fr":
            raise OSError("no route to host")

        def metric(image: object, reference: object) -> object:
            assert image.shape == reference.shape == (1, 3, 20, 30)
            assert image.dtype == torch.float32
            return (reference - image).mean()[None]

        return metric

    monkeypatch.setitem(sys.modules, "pyiqa", SimpleNamespace(create_metric=create_metric))
    image = np.zeros((20, 30, 3), np.uint8)
    assert Perceptual(["lpips"])(image, image + np.uint8(51)) == {"lpips": pytest.approx(0.2)}
    with pytest.raises(InputError, match="topiq: pyiqa has no weights for it and could not fetch them: no route"):
        Perceptual(["topiq"])


@pytest.mark.parametrize("last", ["nothing.mkv", "empty", "rgb.png"])
def test_a_source_that_cannot_be_measured_is_named_before_the_others_are_measured(
    videosr, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, folder: Path, last: str
) -> None:
    def measured(*arguments: object, **options: object) -> None:
        pytest.fail("measured what would not be shown")

    (tmp_path / "empty").mkdir()
    write_png(tmp_path / "rgb.png", picture(3, 140, 132))
    monkeypatch.setattr("videosr.evaluate.evaluate", measured)
    done = videosr("evaluate", folder, tmp_path / last, "-m", "bicubic")
    assert done.code == 1
    assert last in done.err
    assert "folder is named" in done.err or last != "rgb.png"


def test_a_small_image_that_has_no_partner_is_named_before_measuring(
    videosr, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, folder: Path
) -> None:
    def measured(*arguments: object, **options: object) -> None:
        pytest.fail("measured what would not be shown")

    small = tmp_path / "small"
    small.mkdir()
    write_png(small / "0.png", picture(3, 70, 66))
    monkeypatch.setattr("videosr.evaluate.evaluate", measured)
    done = videosr("evaluate", folder, "--lr", small, "-m", "bicubic")
    assert done.code == 1
    assert "1.png: has no partner" in done.err

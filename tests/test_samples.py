"""The sample scripts, run as a user would."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest
from clips import make_clip
from test_picturedata import exif

SAMPLES = Path(__file__).parent.parent / "samples"
SCRIPTS = sorted(SAMPLES.glob("*.py"))


def run(name: str, *arguments: Path) -> str:
    command = [sys.executable, str(SAMPLES / name), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=True, cwd=SAMPLES.parent).stdout


def fails(name: str, *arguments: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SAMPLES / name), *map(str, arguments)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, cwd=SAMPLES.parent)
    assert ended.returncode == 1
    assert "Traceback" not in ended.stderr
    return ended


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return make_clip(tmp_path_factory.mktemp("samples") / "small.mkv", frames=6, audio=[("aac", "eng")])


def test_a_file(clip, tmp_path):
    output = tmp_path / "larger.mkv"
    said = run("upscale_file.py", clip, output)
    assert "6 frames of 128x96" in said
    with av.open(output) as container:
        assert len(container.streams.audio) == 1
        pictures = list(container.decode(video=0))
    assert [(p.width, p.height) for p in pictures] == [(128, 96)] * 6


def test_arrays(tmp_path):
    output = tmp_path / "frames.npy"
    run("upscale_arrays.py", output)
    frames = np.load(output)
    assert frames.shape == (12, 180, 320, 3)
    assert frames.dtype == np.uint8
    # The gradients are those of the source, and the disc moves.
    assert np.all(np.diff(frames[0, :, :, 0].reshape(180, 8, 40).mean(axis=(0, 2))) > 20)
    centres = [np.argwhere(f[:, :, 2] > 150)[:, 1].mean() for f in frames]
    assert np.allclose(np.diff(centres), 8, atol=1)


@pytest.mark.parametrize(("name", "suffix"), [("upscale_tensors.py", ".pt"), ("upscale_cupy.py", ".npy")])
def test_arrays_of_other_libraries(tmp_path, name, suffix):
    """On the GPU where there is one; else with arrays of the host, through the same protocol."""
    torch = pytest.importorskip("torch")
    output = tmp_path / f"frames{suffix}"
    said = run(name, output)
    assert "computes on" in said
    frames = torch.load(output).cpu().numpy() if suffix == ".pt" else np.load(output)
    assert frames.shape == (6, 3, 180, 320)
    assert frames.dtype == np.uint8
    assert np.all(np.diff(frames[0, 0].mean(axis=0).reshape(8, 40).mean(axis=1)) > 20)
    centres = [np.argwhere(frame[2] > 150)[:, 1].mean() for frame in frames]
    assert np.all(np.diff(centres) > 6)


@pytest.mark.gpu
def test_pycuda():
    pytest.importorskip("pycuda")
    assert "(3, 180, 320) uint8" in run("upscale_pycuda.py")


def test_the_pycuda_sample_is_sound_as_far_as_can_be_told_without_pycuda():
    compile((SAMPLES / "upscale_pycuda.py").read_text(encoding="utf-8"), "upscale_pycuda.py", "exec")


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_a_still_image(clip, tmp_path, suffix):
    source, output = tmp_path / "small.png", tmp_path / f"larger{suffix}"
    y, x = np.mgrid[:30, :41]
    rgb = np.stack([4 * x + 40, 5 * y + 40, 0 * x + 128], axis=2).astype(np.uint8)
    av.VideoFrame.from_ndarray(rgb, format="rgb24").save(source)
    assert "82x60" in run("upscale_image.py", source, output)
    with av.open(output) as container:
        large = next(container.decode(video=0)).to_ndarray(format="rgb24")
    small = large.reshape(30, 2, 41, 2, 3).mean(axis=(1, 3))
    assert np.abs(small - rgb)[2:-2, 2:-2].mean() < 3


def test_a_picture_of_a_telephone_held_upright(tmp_path):
    """It is stored on its side, with a note how it was held."""
    source, output = tmp_path / "held.jpg", tmp_path / "larger.png"
    picture = np.full((48, 64, 3), 60, np.uint8)
    picture[:, :32] = 200  # left of what is stored: above, a quarter turn clockwise
    av.VideoFrame.from_ndarray(picture, format="rgb24").save(source)
    jpeg, note = source.read_bytes(), b"Exif\0\0" + exif(6)
    source.write_bytes(jpeg[:2] + b"\xff\xe1" + (len(note) + 2).to_bytes(2, "big") + note + jpeg[2:])
    assert "96x128" in run("upscale_image.py", source, output)
    with av.open(output) as container:
        large = next(container.decode(video=0)).to_ndarray(format="rgb24")
    assert large[:56].mean() > 190
    assert large[72:].mean() < 70


@pytest.mark.parametrize("name", ["no/larger.png", "larger.xyz"], ids=["no such folder", "no such format"])
def test_a_picture_that_cannot_be_written_is_one_line(clip, tmp_path, name):
    ended = fails("upscale_image.py", clip, tmp_path / name)
    assert ended.stderr.startswith(f"{tmp_path / name}: cannot be written: ")
    assert ended.stderr.count("\n") == 1


@pytest.mark.parametrize("script", [script for script in SCRIPTS if "pycuda" not in script.name], ids=lambda p: p.name)
def test_without_arguments_a_sample_says_how_it_is_called(script):
    if "torch" in script.read_text(encoding="utf-8"):
        pytest.importorskip("torch")
    assert f"python samples/{script.name} " in fails(script.name).stderr


def test_a_failure_is_one_line(tmp_path):
    empty = tmp_path / "empty.mkv"
    empty.touch()
    for script in ("upscale_file.py", "upscale_image.py"):
        ended = fails(script, empty, tmp_path / "out.mkv")
        assert ended.stderr.count("\n") == 1
        assert str(empty) in ended.stderr


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda p: p.name)
def test_samples_are_short_and_all_tested(script):
    assert len(script.read_text(encoding="utf-8").splitlines()) < 60
    assert script.name in Path(__file__).read_text(encoding="utf-8")

"""The filter in a script that vspipe runs, with BestSource before it: the frames of `videosr upscale`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import av
import pytest

vs = pytest.importorskip("vapoursynth", reason="vapoursynth is not installed")
if not hasattr(vs.core, "bs"):
    pytest.skip("vapoursynth-bestsource is not installed", allow_module_level=True)

import vsvideosr  # noqa: E402
from clips import make_clip  # noqa: E402

import videosr  # noqa: E402

SAMPLES = Path(__file__).parents[2] / "samples"
SCRIPTS = sorted(SAMPLES.glob("*.vpy"))


@pytest.fixture(scope="module")
def vspipe(tmp_path_factory):
    """Runs vspipe; what it has to know of this Python is written to a folder of the test's own."""
    config = tmp_path_factory.mktemp("config")
    path = [str(Path(module.__file__).parents[1]) for module in (videosr, vsvideosr)]
    environment = os.environ | {"XDG_CONFIG_HOME": str(config), "PYTHONPATH": os.pathsep.join(path)}
    (config / "vapoursynth").mkdir()
    subprocess.run([sys.executable, "-m", "vapoursynth", "config"], env=environment, check=True, capture_output=True)
    program = Path(vs.__file__).parent / "vspipe"

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        command = [str(program), *map(str, arguments)]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    started = run("--version")
    if started.returncode:
        pytest.skip(f"vspipe does not start with this Python: {started.stderr.strip()}")
    return run


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """H.264 with B-frames: the decoder's order is not that of display."""
    return make_clip(tmp_path_factory.mktemp("clip") / "small.mkv", frames=12, width=128, height=72)


def pictures(path, format):
    with av.open(path) as container:
        return [frame.to_ndarray(format=format).tobytes() for frame in container.decode(video=0)]


def test_y4m_holds_the_frames_of_the_command(vspipe, videosr, clip, tmp_path):
    ended = vspipe("-c", "y4m", "-a", f"source={clip}", SAMPLES / "upscale.vpy", tmp_path / "a.y4m")
    assert ended.returncode == 0, ended.stderr
    assert videosr("upscale", clip, tmp_path / "b.mkv", "--codec", "ffv1", "-q").code == 0
    a, b = pictures(tmp_path / "a.y4m", "yuv420p"), pictures(tmp_path / "b.mkv", "yuv420p")
    assert len(a) == 12
    assert len(a[0]) == 256 * 144 * 3 // 2
    assert a == b
    assert len(set(a)) == 12


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_samples_run_as_the_readme_says(vspipe, script, monkeypatch):
    monkeypatch.chdir(SAMPLES.parent)
    ended = vspipe("--info", script.relative_to(SAMPLES.parent))
    assert ended.returncode == 0, ended.stderr
    assert "Width: 1280" in ended.stdout


def test_part_of_a_file_and_a_comparison(vspipe, clip, tmp_path):
    given = ["-c", "y4m", "-a", f"source={clip}", "-a", "first=3", "-a", "last=7", SAMPLES / "denoise_compare.vpy"]
    for output, width in enumerate((256, 512)):
        ended = vspipe("-o", output, *given, tmp_path / f"{output}.y4m")
        assert ended.returncode == 0, ended.stderr
        with av.open(tmp_path / f"{output}.y4m") as container:
            frames = list(container.decode(video=0))
        assert [(f.width, f.height, f.format.name) for f in frames] == [(width, 144, "yuv420p10le")] * 5


def test_a_wrong_option_is_said_by_the_script(vspipe, tmp_path):
    script = tmp_path / "wrong.vpy"
    script.write_text(
        "import vapoursynth as vs, vsvideosr\n"
        "vsvideosr.upscale(vs.core.std.BlankClip(format=vs.YUV420P8), temporal='often').set_output()\n"
    )
    ended = vspipe(script, "--")
    assert ended.returncode != 0
    assert "vsvideosr.upscale: temporal 'often' is not one of off, ema, adaptive" in ended.stderr


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda p: p.name)
def test_samples_are_short_and_all_tested(script):
    assert len(script.read_text(encoding="utf-8").splitlines()) < 60
    assert script.name in Path(__file__).read_text(encoding="utf-8")

"""The scripts' command lines: mistakes are a line, and nothing passes that has checked nothing."""

from __future__ import annotations

import importlib.util
import io
import sys
from pathlib import Path

import common
import pytest
from clips import make_clip

from videosr.errors import InputError
from videosr.evaluate import read_image

SCRIPTS = Path(__file__).parent.parent / "scripts"


@pytest.fixture
def script(monkeypatch):
    """Loads a script by its name, with a command line."""
    monkeypatch.setattr(sys, "path", list(sys.path))

    def load(name, *arguments):
        monkeypatch.setattr(sys, "argv", [f"{name}.py", *map(str, arguments)])
        spec = importlib.util.spec_from_file_location(f"the_script_{name}", SCRIPTS / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, spec.name, module)
        spec.loader.exec_module(module)
        return module

    return load


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return make_clip(tmp_path_factory.mktemp("arguments") / "clip.mp4", frames=12)


NOT_THERE = "there is no such file or folder"
MISTAKES = {
    "clips_bar": [(["nothing.mkv"], NOT_THERE), (["EMPTY"], "there is no file in")],
    "corpus": [(["--group", "nosuch"], "the groups are"), (["--case", "zzz"], "no case is chosen")],
    "fuzz": [(["--count", "0"], "at least 1"), (["--only", "zzz"], "is not KIND:INDEX")],
    "batch_bar": [
        (["kills", "--kills", "0"], "at least 1"),
        (["many", "--files", "3"], "--bad: 50 of 3 files"),
        (["many", "nothing.mkv"], NOT_THERE),
    ],
    "memory_bar": [
        (["--frames", "100"], "more than 100"),
        (["--size", "161x90"], "is odd"),
        (["--size", "foo"], "form"),
    ],
    "scene_bar": [(["CLIP"], "four clips are needed"), (["CLIP", "--cuts", "a"], "NAME=FRAME")],
    "before_after": [
        (["nothing.mkv", "out.png"], NOT_THERE),
        (["CLIP", "out.png", "--crop", "1,2"], "X,Y,W,H"),
        (["CLIP", "out.png", "--crop", "0,0,65,48"], "goes beyond the 64x48"),
        (["CLIP", "out.xyz"], "a picture's name ends in"),
        (["CLIP", "out.png", "--at", "1/0"], "'1/0' is not a number of seconds"),
        (["CLIP", "out.png", "--at=-1/2"], "'-1/2' is not a number of seconds"),
    ],
    "precision_bar": [(["--engine", "foo"], "invalid choice"), (["--clip", "nothing.mkv"], NOT_THERE)],
    "temporal_bar": [(["realtime-2x", "CLIP", "--modes", "off,foo"], "'foo' is not one of off")],
    "tiling_bar": [(["nothing.onnx", "--images", "EMPTY"], NOT_THERE)],
    "live_bar": [
        (["CLIP", "--only", "foo"], "is not one of delivery"),
        (["CLIP", "--size", "foo"], "form"),
        (["CLIP", "--hours", "inf"], "'inf' is not a number above 0"),
    ],
    "long_run": [(["nothing.mkv"], NOT_THERE), (["CLIP", "--size", "33x24"], "is odd")],
    "ray_bar": [(["nothing.mkv"], NOT_THERE), (["CLIP", "--seconds", "nan"], "'nan' is not a number above 0")],
    "vapoursynth_bar": [(["nothing.mkv"], NOT_THERE)],
    "check_tensorrt": [(["--size", "foo"], "form")],
    "gpu_bars": [(["--size", "foo"], "form"), (["--clip", "nothing.mkv"], NOT_THERE)],
    "plane_bars": [(["--size", "foo"], "form")],
}


@pytest.mark.parametrize(
    ("name", "arguments", "said"), [(name, *mistake) for name, found in MISTAKES.items() for mistake in found]
)
def test_a_mistake_is_wrong_usage_and_named(script, clip, tmp_path, capsys, name, arguments, said):
    given = [{"CLIP": clip, "EMPTY": tmp_path}.get(word, word) for word in arguments]
    with pytest.raises(SystemExit) as ended:
        script(name, *given).main()
    assert ended.value.code == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("path", sorted(SCRIPTS.glob("*.py")), ids=lambda path: path.stem)
def test_what_is_no_command_says_so(path):
    text = path.read_text(encoding="utf-8")
    assert ('if __name__ == "__main__":' in text) is not ("not a command.\n" in text.partition("\n\n")[0] + "\n")


def test_a_model_that_is_not_there_is_one_line(script, clip, capsys):
    with pytest.raises(SystemExit) as ended:
        common.run(script("temporal_bar", "nosuch", clip).main)
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("temporal_bar.py: model 'nosuch' is neither")
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    ("error", "said", "code"),
    [
        (InputError("in.mkv: is\nbroken"), "in.mkv: is\\nbroken", 1),
        (FileNotFoundError(2, "No such file", "a.mkv"), "[Errno 2] No such file: 'a.mkv'", 1),
        (ModuleNotFoundError("No module named 'ray'", name="ray"), "the package ray is not installed", 1),
    ],
)
def test_a_failure_of_a_script_is_one_line(monkeypatch, capsys, error, said, code):
    monkeypatch.setattr(sys, "argv", ["/scripts/x_bar.py"])

    def main():
        raise error

    with pytest.raises(SystemExit) as ended:
        common.run(main)
    assert ended.value.code == code
    assert capsys.readouterr().err == f"x_bar.py: {said}\n"


@pytest.mark.parametrize(("finds", "verdicts"), [(False, ["MISSED", "met"]), (True, ["met", "MISSED"])])
def test_the_bar_of_scene_cuts_is_compared(script, tmp_path, monkeypatch, capsys, finds, verdicts):
    clips = [make_clip(tmp_path / f"{n}.mp4", frames=9, noise=4.0) for n in range(4)]
    scene_bar = script("scene_bar", *clips)
    for name in ("SPLICES", "FLASHES", "DISSOLVES"):
        monkeypatch.setattr(scene_bar, name, 8)
    monkeypatch.setattr(scene_bar.scenes, "is_cut", lambda a, b: finds)
    assert scene_bar.main()
    lines = [line for line in capsys.readouterr().out.splitlines() if "recall" in line or "false cuts" in line]
    assert [line.rpartition(": ")[2] for line in lines] == 2 * verdicts


def test_each_turn_of_the_vapoursynth_bar_takes_frames_that_were_not_asked_for(script, clip, monkeypatch, capsys):
    vs = pytest.importorskip("vapoursynth")
    vsvideosr = pytest.importorskip("vsvideosr")
    if not hasattr(vs.core, "bs"):
        pytest.skip("vapoursynth-bestsource is not installed")
    asked = set()

    def upscale(source, *rest, **options):
        return source.std.FrameEval(lambda n: asked.add(n) or source)

    monkeypatch.setattr(vsvideosr, "upscale", upscale)
    bar = script("vapoursynth_bar")
    for turns, frames in ((1, 5), (3, 15)):  # the third goes beyond the clip's end
        asked.clear()
        monkeypatch.setattr(sys, "stdin", io.StringIO("5\n" * turns))
        bar.serve("videosr", "off", 0, str(clip))
        assert asked == set(range(frames))
    assert len(capsys.readouterr().out.splitlines()) == 4


def test_before_and_after_stand_side_by_side(script, clip, tmp_path):
    output = tmp_path / "both.PNG"
    script("before_after", clip, output, "--crop", "4,2,32,24").main()
    assert read_image(output).shape == (48, 2 * 64 + 4, 3)

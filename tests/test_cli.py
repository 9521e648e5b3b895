"""The command line: exit codes, one line for every mistake, signals, and the three forms of progress."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from clips import make_clip

from videosr import cli

FAST = ("--codec", "libx264", "--preset", "ultrafast")
UPSCALE = (sys.executable, "-m", "videosr", "upscale")


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return make_clip(tmp_path_factory.mktemp("clip") / "clip.mkv")


@pytest.fixture(scope="module")
def long_clip(tmp_path_factory):
    """One of which nothing is finished when the tests interrupt its making by `start`, on any machine."""
    return make_clip(tmp_path_factory.mktemp("long") / "long.mkv", frames=400, width=128, height=96)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--codec", "nosuch"), "--codec nosuch"),
        (("--codec", "libx266"), "did you mean libx26"),
        (("--codec", "aac"), "not a video encoder"),
        (("--crf", "900"), "0 to 51"),
        (("--crf", "low"), "'low' is not a valid float"),
        (("--preset", "foo"), "medium"),
        (("-x", "nonsense"), "KEY=VALUE"),
        (("-x", "=3"), "KEY=VALUE"),
        (("-x", "foo=bar"), "-x foo"),
        (("-x", "bf=many"), "many"),
        (("-x", "tune=banana"), "banana"),
        (("--codec", "libsvtav1", "-x", "svtav1-params=tune=99"), "99"),
        (("-x", "x264-params=foo=bar"), "foo = bar"),
        (("-x", "crf=3"), "--crf"),
        (("--codec", "libx265", "-x", "x265-params=bframes=abc"), "abc"),
        (("--pix-fmt", "nosuch"), "yuv420p10le"),
        (("--frames", "0"), "'--frames': 0"),
        (("--start", "-1"), "--start -1"),
        (("--start", "noon"), "'noon'"),
        (("--start", "1e17"), "'1e17' is more than any video has"),
        (("--duration", "1e400"), "'1e400' is more than any video has"),
        (("--start", "0:1/2"), "'0:1/2' is neither seconds nor [HH:]MM:SS"),
        (("--start", "0:1/0"), "'0:1/0' is neither seconds nor [HH:]MM:SS"),
        (("--start", f"0:{'1' * 5000}"), "is neither seconds nor [HH:]MM:SS"),
        (("--duration", "0"), "--duration 0"),
        (("--height", "0"), "'--height': 0"),
        (("--height", "9"), "16<=x<=16384"),
        (("--size", "16x9"), "not between 16 and 16384"),
        (("--size", "0x10"), "--size 0x10"),
        (("--size", "big"), "'big'"),
        (("--size", "32x32", "--height", "32"), "--height"),
        (("--denoise", "7"), "'--denoise': 7.0 is not in the range 0<=x<=1"),
        (("--threads", "0"), "'--threads': 0"),
        (("--jobs", "0"), "'--jobs': 0"),
        (("--max-pixels", "0"), "'--max-pixels': 0"),
        (("--tile", "-1"), "'--tile': -1"),
        (("--device", "gpu"), "auto, cpu, cuda, cuda:N"),
        (("--temporal", "yes"), "adaptive"),
        (("--framse", "3"), "--frames"),
    ],
)
def test_wrong_options(clip, tmp_path, options, words, videosr):
    done = videosr("upscale", clip, tmp_path / "out.mkv", *options)
    assert done.code == 2
    (line,) = done.err.splitlines()
    assert line.startswith("videosr: ")
    assert words in line
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("upscale",), "'SOURCE' (see videosr upscale --help)"),
        (("upscale", "in.mkv"), "'OUTPUT'"),
        (("upscale", "in.mkv", "out.avi"), "mkv, mp4"),
        (("upscale", "in.mkv", "out"), "mkv, mp4"),
        (("nosuch",), "'nosuch'"),
        (("probe", "in.mkv", "--to", "avi"), "mkv, mp4"),
        (("upscale", "in.mkv", ""), "'OUTPUT': the name is empty"),
        (("batch", ".", "-o", ""), "'-o' / '--output': the name is empty"),
    ],
)
def test_wrong_arguments(arguments, words, videosr):
    done = videosr(*arguments)
    assert done.code in (1, 2)
    (line,) = done.err.splitlines()
    assert words in line


def test_wrong_inputs(clip, tmp_path, videosr):
    data = clip.read_bytes()
    inputs = tmp_path / "inputs"
    inputs.mkdir()
    cases = {
        "missing.mkv": "No such file",
        "empty.mkv": "is empty",
        "text.mkv": "text",
        "noise.mkv": "not a media file",
        "head.mkv": "",
        "folder.mkv": "is a folder",
        "pipe.mkv": "pipe",
        "sound.mkv": "has no video stream",
    }
    (inputs / "empty.mkv").touch()
    (inputs / "text.mkv").write_text("This is no film.\n" * 40)
    (inputs / "noise.mkv").write_bytes(np.random.default_rng(1).bytes(50_000))
    (inputs / "head.mkv").write_bytes(data[:700])
    (inputs / "folder.mkv").mkdir()
    os.mkfifo(inputs / "pipe.mkv")
    make_clip(inputs / "sound.mkv", video=False, audio=[("aac", "eng")])
    for name, words in cases.items():
        done = videosr("upscale", inputs / name, tmp_path / "out.mkv")
        assert done.code == 1, name
        (line,) = done.err.splitlines()
        assert line.startswith(f"videosr: {inputs / name}: "), line
        assert words in line
    assert list(tmp_path.iterdir()) == [inputs]


def test_wrong_outputs(clip, tmp_path, videosr):
    (tmp_path / "file").touch()
    (tmp_path / "folder.mkv").mkdir()
    for name, code, words in (
        ("nowhere/out.mkv", 1, "no such folder"),
        ("file/out.mkv", 1, "no such folder"),
        ("folder.mkv", 2, "is not a file"),
    ):
        done = videosr("upscale", clip, tmp_path / name)
        assert done.code == code
        (line,) = done.err.splitlines()
        assert words in line
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["file", "folder.mkv"]


@pytest.mark.parametrize("content", [b"", b"no network", b"\x08\x07\x12\x00"])
def test_wrong_networks(clip, tmp_path, content, videosr):
    network = tmp_path / "net.onnx"
    network.write_bytes(content)
    for model, code in ((network, 1), ("nosuch", 2)):
        done = videosr("upscale", clip, tmp_path / "out.mkv", "-m", model)
        assert done.code == code
        (line,) = done.err.splitlines()
        assert str(model) in line


def test_a_start_beyond_the_end(clip, tmp_path, videosr):
    done = videosr("upscale", clip, tmp_path / "out.mkv", "--start", "1:00")
    assert done.code == 1
    assert "60 s" in done.err
    done = videosr("upscale", clip, tmp_path / "out.mkv", "--start", "0.001", "--duration", "0.001")
    assert done.code == 1
    assert list(tmp_path.iterdir()) == []


def test_a_mistake_in_videosr_is_one_line_too(clip, tmp_path, videosr, monkeypatch):
    monkeypatch.setattr("videosr.transcode.plan_streams", lambda *a, **k: 1 // 0)
    done = videosr("upscale", clip, tmp_path / "out.mkv")
    assert done.code == 1
    (line,) = done.err.splitlines()
    assert "ZeroDivisionError" in line
    assert "--debug" in line
    done = videosr("upscale", clip, tmp_path / "out.mkv", "--debug")
    assert "Traceback" in done.err
    assert list(tmp_path.iterdir()) == []


# -- progress ---------------------------------------------------------------------------------------------------------


def test_json_lines(clip, tmp_path, videosr):
    done = videosr("upscale", clip, tmp_path / "out.mkv", *FAST, "--json")
    events = [json.loads(line) for line in done.out.splitlines()]
    kinds = [event["event"] for event in events]
    assert done.err == ""
    assert kinds[-1] == "done"
    assert set(kinds) <= {"note", "warning", "begin", "progress", "done"}
    assert kinds.count("begin") == 1
    assert events[kinds.index("warning")]["message"].startswith("colour not fully tagged")
    assert (events[-1]["frames"], events[-1]["size"]) == (16, "128x96")
    done = videosr("upscale", clip, tmp_path / "out.mkv", "--json")
    (event,) = [json.loads(line) for line in done.out.splitlines()]
    assert (event["event"], event["exit_code"]) == ("error", 2)
    assert event["message"] in done.err


@pytest.mark.parametrize(
    "wrong", [("--denoise", 2), ("--frames", 0), ("--bogus",), ("--start", "nan"), ("one too many",)]
)
def test_wrong_options_are_an_event_too(clip, tmp_path, videosr, wrong):
    done = videosr("upscale", clip, tmp_path / "out.mkv", *wrong, "--json")
    (event,) = [json.loads(line) for line in done.out.splitlines()]
    assert (done.code, event["event"], event["exit_code"]) == (2, "error", 2)
    assert event["message"] in done.err


@pytest.mark.parametrize("wrong", ["0:99", "1:60:00", "0:00:60.5", "1:2:3:4", "x"])
def test_clocks_go_to_sixty(clip, tmp_path, videosr, wrong):
    done = videosr("upscale", clip, tmp_path / "out.mkv", "--start", wrong)
    assert done.code == 2
    assert f"'{wrong}' is neither seconds nor [HH:]MM:SS" in done.err


def test_quiet_says_nothing(clip, tmp_path, videosr):
    done = videosr("upscale", clip, tmp_path / "out.mkv", *FAST, "-q")
    assert done == (0, "", "")


@pytest.mark.parametrize("codec", ["libx264", "libx265", "libsvtav1", "libvpx-vp9"])
def test_no_chatter_of_encoders(clip, tmp_path, codec):
    """Seen from outside, because the libraries write to the terminal themselves."""
    command = (*UPSCALE, clip, tmp_path / "out.mkv", "--codec", codec, "-q")
    done = subprocess.run(command, capture_output=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


# -- signals and broken pipes ------------------------------------------------------------------------------------------


def start(clip, folder, *options):
    slow = ("--model", "stream-2x", "--threads", "1")
    command = (*UPSCALE, clip, folder / "out.mkv", *FAST, *slow, "--json", *options)
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize("signals", [("SIGTERM",), ("SIGHUP",), ("SIGINT", "SIGINT", "SIGINT")])
def test_interrupted_at_work(long_clip, tmp_path, signals):
    (tmp_path / "out.mkv").write_text("precious")
    with start(long_clip, tmp_path, "--overwrite") as process:
        assert any('"progress"' in line for line in process.stdout)
        for name in signals:
            process.send_signal(getattr(signal, name))
            time.sleep(0.01)
        out, err = process.communicate()
    assert process.returncode == 130
    assert err.split() == ["videosr:", "interrupted"]
    assert json.loads(out.splitlines()[-1])["event"] == "error"
    assert [p.name for p in tmp_path.iterdir()] == ["out.mkv"]
    assert (tmp_path / "out.mkv").read_text() == "precious"


@pytest.mark.parametrize(("came", "code"), [(True, 130), (False, 1)])
def test_every_error_is_an_event_for_readers_of_json(clip, tmp_path, videosr, monkeypatch, came, code):
    """Also one that is no error of ours, as a library may make of an interruption."""

    def failing(*_):
        monkeypatch.setattr(cli._Interrupts, "came", came)
        raise SystemError("returned a result with an exception set")

    monkeypatch.setattr(cli, "transcode", failing)
    done = videosr("upscale", clip, tmp_path / "out.mkv", "--json")
    assert done.code == code
    event = json.loads(done.out.splitlines()[-1])
    assert (event["event"], event["exit_code"]) == ("error", code)
    assert event["message"] in done.err


@pytest.mark.parametrize("moment", [0.05, 0.3, 0.6, 1.0])
def test_interrupted_while_starting(long_clip, tmp_path, moment):
    with start(long_clip, tmp_path) as process:
        time.sleep(moment)
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate()
    # Before Python has come to our first line the signal kills it the plain way.
    assert process.returncode in (130, -signal.SIGTERM)
    assert "Traceback" not in err
    assert list(tmp_path.iterdir()) == []


def test_nohup_is_honoured(clip, tmp_path):
    def ignore():
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    command = (*UPSCALE, clip, tmp_path / "out.mkv", *FAST, "--json")
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, preexec_fn=ignore) as process:
        for _ in process.stdout:
            process.send_signal(signal.SIGHUP)
    assert process.returncode == 0
    assert (tmp_path / "out.mkv").exists()


def test_the_reader_of_stdout_goes_away(long_clip, tmp_path):
    with start(long_clip, tmp_path) as process:
        process.stdout.readline()
        process.stdout.close()
        err = process.stderr.read()
    assert process.returncode == 1
    assert err == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("limit", [5_000, 60_000, 200_000])
def test_a_disk_that_fills_up(clip, tmp_path, limit):
    """The limit on file sizes stands in for it: writing fails in the same places."""
    resource = pytest.importorskip("resource")

    def limited():
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    source = make_clip(tmp_path / "in.mkv", frames=40, codec="ffv1", audio=[("flac", "eng")])
    output = tmp_path / "out.mkv"
    output.write_text("precious")
    command = (*UPSCALE, source, output, "--codec", "ffv1", "--overwrite", "-q")
    done = subprocess.run(command, capture_output=True, text=True, preexec_fn=limited)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "cannot be written" in line
    assert output.read_text() == "precious"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.mkv", "out.mkv"]


# -- other commands ---------------------------------------------------------------------------------------------------


def test_probe_and_verify(clip, tmp_path, videosr):
    output = tmp_path / "out.mp4"
    assert videosr("upscale", clip, output, *FAST, "-q").code == 0
    probed = videosr("probe", clip)
    assert probed.code == 0
    assert "everything is kept" in probed.out
    assert json.loads(videosr("probe", clip, "--json").out)["plan"]["streams"][0]["action"] == "upscale"
    checked = videosr("verify", clip, output, "--scale", "2")
    assert checked.code == 0
    assert checked.out.startswith(f"{output}: ok: 16 frames of 16, 128x96")
    other = make_clip(tmp_path / "other.mkv", frames=9)
    checked = videosr("verify", other, output, "--json")
    assert checked.code == 1
    assert any("16 frames, expected 9" in line for line in json.loads(checked.out)["problems"])


def test_probe_says_what_the_encoder_loses_of_the_picture(tmp_path, videosr):
    source = make_clip(tmp_path / "in.mkv", frames=2, codec="ffv1", pix_fmt="yuva444p")
    for suffix, line in (("mkv", "the alpha plane is lost"), ("jpg", "the alpha plane is lost"), ("png", None)):
        probed = videosr("probe", source, "--to", suffix).out
        assert line is None or line in probed
        assert probed.endswith("everything is kept\n" if line is None else "not all is kept, see above\n")
        told = json.loads(videosr("probe", source, "--to", suffix, "--json").out)["picture_losses"]
        assert [line] == [x[: len(line)] for x in told] if line else told == []


def test_a_line_is_a_line_whatever_names_and_titles_hold(tmp_path, videosr):
    odd = make_clip(tmp_path / "in.mkv", frames=2, metadata={"title": "\x1b]0;x\x07"}, audio=[("aac", "e\x1b[31mn")])
    odd = odd.rename(tmp_path / "two\nlines \udcff.mkv")
    assert videosr("upscale", odd, tmp_path / "out\n.mkv", *FAST, "-q").code == 0
    for done in (videosr("probe", odd), videosr("verify", odd, tmp_path / "out\n.mkv")):
        assert done.code == 0, done.err
        assert "\\n" in done.out
        assert all(line.isprintable() for line in done.out.splitlines())
    wrong = videosr("probe", odd, "two\nlines")
    assert (wrong.code, len(wrong.err.splitlines())) == (2, 1)


def test_help_fits_eighty_columns(videosr, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    commands = ("upscale", "probe", "verify", "export", "evaluate", "train", "bench")
    top = videosr("--help").out
    for command in commands:
        assert f"  {command}" in top
        text = videosr(command, "--help").out
        assert max(map(len, text.splitlines())) <= 80
    assert "..." not in top.replace("[ARGS]...", "")


def test_models_are_listed(videosr):
    done = videosr("upscale", "--list-models")
    assert done.code == 0
    assert "realtime-2x" in done.out
    assert "(default for what is lossless)" in done.out
    assert "(default for what is compressed)" in done.out
    assert "(what --model anime is)" in done.out


def test_upscaling_sends_nothing_home():
    """`import openvino` starts a process that reports to its makers, unless their package seems to be missing."""
    code = "import videosr.engines.openvino, openvino.tools.ovc as o; print(o.telemetry.__class__.__module__)"
    done = subprocess.run((sys.executable, "-c", code), capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "openvino.tools.ovc.telemetry_stub"


def test_a_name_that_begins_with_a_dash_is_explained(tmp_path, videosr, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_clip(tmp_path / "-in.mkv", frames=2)
    done = videosr("upscale", "-in.mkv", "out.mkv")
    assert done.code == 2
    assert "the file is ./-in.mkv" in done.err
    assert videosr("upscale", "./-in.mkv", "out.mkv").code == 0


def test_bench_refuses_at_once_what_it_could_not_measure(videosr, clip, tmp_path) -> None:
    for name in ("--frames", "--rounds"):
        done = videosr("bench", clip, name, "0", "--device", "cpu")
        assert done.code == 2
        assert name in done.err
    done = videosr("bench", tmp_path / "no.mp4", "--device", "cpu")
    assert (done.code, done.out) == (1, "")
    assert done.err == f"videosr: {tmp_path / 'no.mp4'}: No such file or directory; check the path\n"

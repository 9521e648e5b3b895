from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from clips import make_clip

from videosr import errors, files
from videosr.batch.inputs import find
from videosr.batch.jobs import Try
from videosr.files import move
from videosr.film import TranscodeOptions
from videosr.journal import Journal
from videosr.media.opening import heeding_signals

HERE = Path(__file__).parent
FAST = ("--preset", "ultrafast", "--model", "light-2x", "-q")
linux = pytest.mark.skipif(sys.platform != "linux", reason="it is Linux that is made to look like Windows")


def like_windows(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run Python there; workers that it starts are like it."""
    command = [sys.executable, "-c", f"import likewindows, sys; {code}", *map(str, arguments)]
    paths = os.pathsep.join((str(HERE), str(HERE.parent)))
    return subprocess.run(command, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": paths})


def videosr_there(*arguments: object) -> subprocess.CompletedProcess[str]:
    return like_windows("from videosr.__main__ import main; main()", *arguments)


@linux
def test_a_finished_run_leaves_its_output_and_nothing_else(tmp_path):
    clip = make_clip(tmp_path / "clip.mkv", frames=4)
    for extra in ((), ("--jobs", "2")):
        done = videosr_there("upscale", clip, tmp_path / f"out{len(extra)}.mkv", *FAST, *extra)
        assert (done.returncode, done.stderr) == (0, "")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["clip.mkv", "out0.mkv", "out2.mkv"]
    assert (tmp_path / "out0.mkv").read_bytes() == (tmp_path / "out2.mkv").read_bytes()


@linux
def test_a_batch_and_its_repetition(tmp_path):
    (tmp_path / "in").mkdir()
    make_clip(tmp_path / "in" / "clip.mkv", frames=3)
    arguments = ("batch", tmp_path / "in", "-o", tmp_path / "out", "--preset", "ultrafast", "--model", "light-2x")
    for line in ("1 file made", "0 files made"):
        done = videosr_there(*arguments)
        assert done.returncode == 0, done.stderr
        assert line in done.stderr
        assert "1 were done before" in done.stderr or line == "1 file made"
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [".videosr", "clip.mkv"]


@linux
def test_two_runs_do_not_make_one_file_there(tmp_path):
    with Journal(tmp_path / "out.mkv", {}):
        code = "import pathlib; from videosr.journal import Journal\nwith Journal(pathlib.Path(sys.argv[1]), {}): pass"
        second = like_windows(code, tmp_path / "out.mkv")
        assert "another run is making this file" in second.stderr
        assert (tmp_path / ".out.mkv.videosr" / "job.json").exists()


@linux
def test_old_segments_of_a_live_stream_may_be_open(tmp_path):
    code = """
from pathlib import Path
from videosr.live.outputs import HlsFolder
from videosr.live.segments import KEPT, Chunk, Segmenter
from videosr.live.timeline import TICKS

here = Path(sys.argv[1])
folder = HlsFolder(here / "live.m3u8", Segmenter())
for n in range(KEPT + 3):
    folder.take(Chunk((here / "clip.ts").read_bytes(), True, n * TICKS))
    if n == 1:
        player = open(here / "live-0.ts", "rb")
"""
    make_clip(tmp_path / "clip.ts", frames=24)
    done = like_windows(f"exec({code!r})", tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    names = {path.name for path in tmp_path.iterdir()}
    assert "live-0.ts" in names
    assert "live-1.ts" not in names


def refusing(monkeypatch, times: int, winerror: int | None) -> list[float]:
    """Have files refused to be renamed so often; returns the list of the waits."""
    waits: list[float] = []
    replace = Path.replace

    def refuse(path, to):
        if len(waits) < times:
            exc = PermissionError(13, "Permission denied")
            if winerror is not None:
                exc.winerror = winerror
            raise exc
        return replace(path, to)

    monkeypatch.setattr(Path, "replace", refuse)
    monkeypatch.setattr(files.time, "sleep", waits.append)
    return waits


def test_a_file_that_another_program_has_open_for_an_instant_gets_its_name(tmp_path, monkeypatch):
    (tmp_path / "part").write_bytes(b"whole")
    waits = refusing(monkeypatch, 3, 32)
    move(tmp_path / "part", tmp_path / "film.mkv")
    assert (len(waits), (tmp_path / "film.mkv").read_bytes()) == (3, b"whole")


@pytest.mark.parametrize("winerror", [None, 19])
def test_what_will_not_pass_is_not_waited_for(tmp_path, monkeypatch, winerror):
    (tmp_path / "part").write_bytes(b"whole")
    waits = refusing(monkeypatch, 1000, winerror)
    with pytest.raises(PermissionError):
        move(tmp_path / "part", tmp_path / "film.mkv")
    assert waits == []


def test_a_file_that_stays_open_is_an_error(tmp_path, monkeypatch):
    (tmp_path / "part").write_bytes(b"whole")
    waits = refusing(monkeypatch, sys.maxsize, 5)
    clock = iter(range(100))
    monkeypatch.setattr(files.time, "monotonic", lambda: next(clock))
    with pytest.raises(PermissionError):
        move(tmp_path / "part", tmp_path / "film.mkv")
    assert len(waits) == 2


def test_opening_is_waited_for_in_slices(monkeypatch):
    """On Windows a lock that is waited for without end is deaf to Ctrl-C."""
    acquire, endless = threading.Condition.wait, []

    def wait(self, timeout=None):
        if threading.current_thread() is threading.main_thread() and timeout is None:
            endless.append(sys._getframe(1).f_code.co_name)  # that of a thread's start is short
        return acquire(self, timeout)

    go = threading.Event()
    threading.Timer(0.05, go.set).start()
    monkeypatch.setattr(threading.Condition, "wait", wait)
    assert heeding_signals(lambda: go.wait(60)) is True
    assert "result" not in endless


def test_what_a_few_frames_take_is_measured_by_a_clock_that_moves(tmp_path, monkeypatch):
    """That of `time.monotonic` moves 64 times a second on Windows, up to Python 3.12."""
    clip = make_clip(tmp_path / "clip.mkv", frames=3)
    monkeypatch.setattr("time.monotonic", lambda: 1.0)
    for suffix in (".mkv", ".png"):
        made = Try(clip, suffix, TranscodeOptions(), 1 if suffix == ".png" else 3)(lambda value: None)
        assert made is not None
        assert made.pixels_per_second > 0


def test_the_folders_that_windows_keeps_on_each_disk_are_left_alone(tmp_path):
    for name in ("films", "$RECYCLE.BIN", "System Volume Information"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.mkv").write_bytes(b"film")
    found = find([str(tmp_path)], tmp_path / "out", "mkv")
    assert [str(item.output) for item in found.items] == [str(Path("films", "a.mkv"))]


def test_commands_are_told_as_the_shell_takes_them(monkeypatch):
    assert errors.quoted("a b.mkv") == "'a b.mkv'"
    monkeypatch.setattr(errors.sys, "platform", "win32")
    assert errors.quoted(r"C:\My films\a.mkv") == r'"C:\My films\a.mkv"'
    assert errors.remedy("serve") == (
        r"in videosr" + "'" + r's folder: .uv\Scripts\uv run --extra serve videosr ..., or pip install ".[serve]"'
    )

"""Progress in its three forms, on a clock that the test turns."""

import io
import json
from fractions import Fraction
from pathlib import Path

import pytest

from videosr import progress as module
from videosr.progress import Progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def clock(monkeypatch):
    """Sets the time: `clock(3)`."""
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])

    def turn(seconds):
        now[0] = 100.0 + seconds

    return turn


def work(progress, clock, frames=40, seconds=19.5, wait=10.0):
    """The first frame comes after `wait`, the last one `seconds` later."""
    progress.begin(frames, Fraction(4))
    for done in range(1, frames + 1):
        clock(wait + seconds * (done - 1) / (frames - 1))
        progress.frames(done)
    progress.done(Path("out.mkv"), "64x48", frames, 3)


def test_plain_lines_leave_the_start_out_of_the_speed(clock):
    stream = io.StringIO()
    progress = Progress("in.mkv", stream=stream)
    progress.warning("the sky is green")
    work(progress, clock)
    first, *between, last = stream.getvalue().splitlines()
    assert first == "in.mkv: the sky is green"
    assert len(between) == 3
    assert between[0].startswith("in.mkv: 11/40 frames, 2.0 fps, 0.50x real time, 00:14 left")
    assert last == "out.mkv: 64x48, 40 frames (3 of them repeats) in 29.5 s: 1.4 fps, 0.34x real time"


def test_json_lines(clock, capsys):
    progress = Progress("in.mkv", as_json=True)
    progress.warning("the sky is green")
    work(progress, clock, frames=3, seconds=0.8)
    progress.error("too late", 1)
    out, err = capsys.readouterr()
    events = [json.loads(line) for line in out.splitlines()]
    assert err == ""
    assert [e["event"] for e in events] == ["warning", "begin", "progress", "progress", "done", "error"]
    assert events[1] == {"event": "begin", "name": "in.mkv", "total": 3, "rate": 4.0, "resumed": 0}
    assert events[2] == {"event": "progress", "frames": 1, "total": 3, "fps": None, "eta": None}
    assert events[3] == {"event": "progress", "frames": 3, "total": 3, "fps": 2.5, "eta": 0.0}
    assert (events[4]["frames"], events[4]["reused"], events[4]["seconds"]) == (3, 3, 10.8)
    assert events[5]["exit_code"] == 1


def test_a_bar_on_a_terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("LINES", "24")
    stream = Terminal()
    progress = Progress("a very long name of a film that would leave no room.mkv", stream=stream)
    progress.begin(4, Fraction(24))
    for done in (1, 2, 3):
        progress.frames(done)
    progress.warning("the sky is green")
    progress.done(Path("out.mkv"), "64x48", 3, 0)
    lines = stream.getvalue().replace("\r", "\n").splitlines()
    assert any(line.startswith("a very long name of a film that…:   0%|") for line in lines)
    assert "a very long name of a film that would leave no room.mkv: the sky is green" in lines
    assert any("| 3/3 [" in line and "100%" in line for line in lines)
    assert lines[-1].startswith("out.mkv: 64x48, 3 frames in ")


@pytest.mark.parametrize(("total", "rate"), [(None, None), (None, Fraction(25)), (7, None)])
def test_what_is_unknown_is_left_out(clock, total, rate):
    stream = io.StringIO()
    progress = Progress("in.mkv", stream=stream)
    progress.begin(total, rate)
    for done, now in ((1, 1), (2, 20)):
        clock(now)
        progress.frames(done)
    (line,) = stream.getvalue().splitlines()
    assert ("2/7 frames" in line) == (total is not None)
    assert ("real time" in line) == (rate is not None)
    assert ("left" in line) == (total is not None)
    assert "None" not in line


def test_an_image_has_no_speed():
    stream = io.StringIO()
    Progress("in.png", stream=stream).done(Path("out.png"), "64x48", 1, 0)
    assert stream.getvalue() == "out.png: 64x48\n"


def test_quiet_and_without_stderr(clock, capsys, monkeypatch):
    work(Progress("in.mkv", quiet=True), clock)
    monkeypatch.setattr("sys.stderr", None)
    work(Progress("in.mkv"), clock)
    assert capsys.readouterr() == ("", "")


def test_what_an_earlier_run_did_is_no_speed_of_this_one(clock, capsys):
    progress = Progress("in.mkv", as_json=True)
    progress.begin(100, Fraction(4), before=90)
    for done in range(82, 101):  # eight frames only get it into stride
        clock(float(done))
        progress.frames(done)
    progress.done(Path("out.mkv"), "64x48", 100, 0)
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert events[0]["resumed"] == 90
    shown = [e for e in events if e["event"] == "progress"]
    assert [e["frames"] for e in shown] == list(range(91, 101))
    assert shown[-1]["fps"] == pytest.approx(1.0)
    assert shown[-1]["eta"] == 0

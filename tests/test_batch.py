"""videosr batch: what it takes, what it leaves, what it makes again, and what ends it."""

import errno
import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from clips import make_clip
from hostdevice import HostDevice
from test_stills import encode

from videosr import presets
from videosr.batch import jobs, run
from videosr.batch.estimate import estimate, need
from videosr.batch.jobs import Facts, Measured
from videosr.batch.ledger import Entry, Known, Ledger, Verdict, judge, read
from videosr.distributed.pool import Done, Failed, Pool
from videosr.engines import CPU_ENGINES
from videosr.errors import OutputError
from videosr.media.codecs import EncoderSettings
from videosr.transcode import TranscodeOptions

FAST = ("--codec", "libx264", "--preset", "ultrafast", "--temporal", "off")
BATCH = (sys.executable, "-m", "videosr", "batch")


def events(out, *kinds):
    """The JSON lines of these kinds."""
    return [event for event in map(json.loads, out.splitlines()) if event["event"] in kinds]


def outputs(folder):
    """All files in it but the record, by name and content."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and ".videosr" not in path.parts
    }


# -- the record -------------------------------------------------------------------------------------------------------

SETTINGS = {"crf": 20, "codec": "libx264"}


def entry(state="done", file="F", **fields):
    given = {"output": "a.mkv", "input": "I", "settings": SETTINGS, "source": "a.mp4", **fields}
    return Entry(state=state, file=file, **given)


UNCOMPARED = Verdict("check", "the run that made it ended before it was compared with its source")


@pytest.mark.parametrize(
    ("known", "file", "verdict"),
    [
        (Known(), None, Verdict("make")),
        (Known(done=entry()), "F", Verdict("done")),
        (Known(done=entry()), None, Verdict("make", "its output was deleted")),
        (Known(done=entry()), "G", Verdict("make", "its output was changed")),
        (Known(done=entry(input="J")), "F", Verdict("make", "the input was changed")),
        (
            Known(done=entry(settings={"crf": 18, "codec": "libx264"})),
            "F",
            Verdict("make", "other settings: crf: 18 then, 20 now"),
        ),
        # Killed before the output came, after it, and after it while another one was there.
        (Known(begun=entry("begun", None)), None, Verdict("make")),
        (Known(begun=entry("begun", None)), "F", UNCOMPARED),
        (Known(entry("begun", "E"), entry(file="E", input="J")), "F", UNCOMPARED),
        (Known(begun=entry("begun", None, input="J")), "F", Verdict("make", "the input was changed")),
        (Known(entry("begun", "E"), entry(file="E", input="J")), "E", Verdict("make", "the input was changed")),
    ],
)
def test_verdicts(known, file, verdict):
    assert judge(known, "I", SETTINGS, file) == verdict


@pytest.mark.parametrize("known", [Known(), Known(begun=entry("begun", "F"))])
def test_files_that_no_batch_made_are_left(known):
    assert judge(known, "I", SETTINGS, "F").action == "refuse"
    assert judge(known, "I", SETTINGS, "F", overwrite=True).action == "make"


def test_a_line_cut_short_costs_itself_alone(tmp_path):
    with Ledger(tmp_path) as ledger:
        assert ledger.known == {}
        ledger.add(entry("begun", None))
        ledger.add(entry())
        ledger.add(entry("begun", None, output="b.mkv"))
    path = tmp_path / ".videosr" / "batch.jsonl"
    path.write_bytes(path.read_bytes()[:-20])
    with Ledger(tmp_path) as ledger:
        assert ledger.known == {"a.mkv": Known(done=entry())}
        ledger.add(entry(output="c.mkv"))
    assert read(tmp_path).keys() == {"a.mkv", "c.mkv"}


def test_one_batch_at_a_time_in_a_folder(tmp_path):
    pytest.importorskip("fcntl")
    with Ledger(tmp_path), pytest.raises(OutputError, match="another batch is at work here"):
        Ledger(tmp_path)
    with Ledger(tmp_path):
        pass


# -- workers ----------------------------------------------------------------------------------------------------------


@dataclass
class Unpickled:
    """A job that calls a function as soon as the worker has it."""

    function: object
    arguments: tuple

    def __reduce__(self):
        return self.function, self.arguments


def test_a_worker_that_dies_costs_its_job_alone():
    jobs = [
        Unpickled(os.abort, ()),
        Unpickled(os._exit, (3,)),
        Unpickled(eval, ("lambda tell: print('noise') or 7",)),
        Unpickled(signal.raise_signal, (signal.SIGKILL,)),
    ]
    with Pool(1) as pool:
        found = dict(pool.run(iter(enumerate(jobs))))
    assert found[0] == Failed("the process that worked on it crashed (SIGABRT)", lost=True)
    assert found[3] == Failed("the process that worked on it was killed, perhaps because memory ran out", lost=True)
    assert found[1] == Failed("the process that worked on it ended with exit code 3", lost=True)
    assert found[2] == Done(7)


def test_a_worker_that_says_what_nobody_here_can_read_costs_its_job_alone():
    """As one does that was started after videosr had been exchanged."""
    unreadable = "type('Odd', (), {'__reduce__': lambda self: (__import__('operator').attrgetter('gone'), (0,))})()"
    jobs = [Unpickled(eval, (f"lambda tell: {unreadable}",)), Unpickled(eval, ("lambda tell: 7",))]
    with Pool(1) as pool:
        found = dict(pool.run(iter(enumerate(jobs))))
    assert found[0].lost
    assert found[1] == Done(7)


# -- estimates --------------------------------------------------------------------------------------------------------


def facts(frames, width=100, height=100):
    return Facts(
        input="", file=None, verdict=Verdict("make"), bytes=10**9, frames=frames, seconds=Fraction(8), size=(50, 50),
        output_size=(width, height),
    )  # fmt: skip


def test_estimates():
    files = [facts(100), facts(None), facts(300)]
    typical = estimate(files, EncoderSettings(codec="ffv1"), [], 1)
    assert typical.seconds is None
    assert typical.unknown == 1
    assert typical.bytes == (1_500_000 + 2_000_000, 0, 4_500_000 + 2_000_000)
    finer = estimate(files, EncoderSettings(crf=11), [], 1).bytes[0] - 2_000_000
    assert finer == 2 * (estimate(files, EncoderSettings(), [], 1).bytes[0] - 2_000_000)
    measured = [Measured(1e5, 2.0, 9.0), Measured(1e5 / 3, 4.0, 1.5)]
    sampled = estimate(files, EncoderSettings(), measured, 2)
    assert sampled.bytes == (375_000 + 2_000_000, 0, 1_125_000 + 2_000_000)
    assert sampled.seconds == pytest.approx((4e6 / 5e4 + 3 * 1.5) / 2)
    assert need(files, sampled.bytes, 1) == sum(sampled.bytes) + 3_125_000
    begun = [replace(files[0], stored=300_000), replace(files[1], stored=9), replace(files[2], stored=10**9)]
    assert need(begun, sampled.bytes, 1) == sum(sampled.bytes) + 3_125_000 - 300_000 - 3_125_000
    still = replace(facts(1), bytes=100, seconds=None)
    assert estimate([still, replace(still, bits=16)], EncoderSettings(), [], 1, "png").bytes == (22_500, 45_000)
    assert estimate([still], EncoderSettings(), [], 1, ".JPG").bytes == (5_000,)


def test_space_and_time_of_pictures_are_what_they_come_to(videosr, tmp_path):
    scans, out = tmp_path / "scans", tmp_path / "out"
    scans.mkdir()
    noise = np.random.default_rng(1)
    for n in range(3):
        codes = noise.integers(0, 256, (96, 128, 3), dtype=np.uint8)
        encode(scans / f"{n}.png", codes, "png", "rgb24")
    command = ("batch", scans, "-o", out, "--to", "png", "--model", "light-2x", "--json")
    (sampled,) = events(videosr(*command, "--dry-run").out, "plan")
    assert sampled["eta"] > 0
    (typical,) = events(videosr(*command).out, "plan")
    made = sum(path.stat().st_size for path in out.glob("*.png"))
    assert 0.8 * made < sampled["bytes"] < 1.25 * made
    assert 0.5 * made < typical["bytes"] < 2 * made


# -- the whole --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    """Three films on two shelves, a broken one, and something else."""
    folder = tmp_path_factory.mktemp("films")
    (folder / "b").mkdir()
    make_clip(folder / "one.mkv", frames=6, audio=[("aac", "eng")])
    make_clip(folder / "b" / "two.mp4", frames=7)
    make_clip(folder / "b" / "three.mov", frames=8, codec="mpeg4")
    (folder / "b" / "broken.mkv").write_bytes(b"no film" * 100)
    (folder / "b" / "notes.txt").write_text("not a list here")
    return folder


@pytest.fixture(scope="module")
def once(films, tmp_path_factory):
    """A batch that was left in peace."""
    out = tmp_path_factory.mktemp("once") / "new" / "out"
    done = subprocess.run((*BATCH, films, "-o", out, *FAST), capture_output=True, text=True)
    return out, done


def test_a_batch(films, once, videosr, tmp_path):
    out, done = once
    assert done.returncode == 1
    assert outputs(out).keys() == {"one.mkv", "b/two.mkv", "b/three.mkv"}
    last = done.stderr.splitlines()[-3:]
    assert last[0] == "1 file could not be made:"
    assert last[1].split()[0] == str(films / "b" / "broken.mkv")
    assert "is not a media file" in last[1]
    assert last[2].startswith("3 files made, 21 frames in ")
    assert "1 file left aside by name (.txt 1)" in done.stderr
    assert videosr("upscale", films / "one.mkv", tmp_path / "one.mkv", *FAST).code == 0
    assert (tmp_path / "one.mkv").read_bytes() == (out / "one.mkv").read_bytes()


def test_only_what_is_not_done_is_made(films, once, videosr, tmp_path):
    out = tmp_path / "out"
    first = outputs(once[0])
    for name, data in first.items():
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_bytes(data)
    foreign = videosr("batch", films, "-o", out, *FAST, "--json")
    assert [event["action"] for event in events(foreign.out, "file")] == ["refuse"] * 3
    assert foreign.code == 1
    assert outputs(out) == first

    (out / ".videosr" / "batch.jsonl").write_bytes((once[0] / ".videosr" / "batch.jsonl").read_bytes())
    (out / "one.mkv").unlink()
    (out / "b" / "two.mkv").write_bytes(b"changed")
    again = videosr("batch", films, "-o", out, *FAST, "--json", "--jobs", 2)
    found = {Path(event["file"]).name: (event["action"], event["reason"]) for event in events(again.out, "file")}
    assert found == {
        "one.mkv": ("make", "its output was deleted"),
        "two.mp4": ("make", "its output was changed"),
        "three.mov": ("done", ""),
    }
    assert (again.code, again.err) == (1, "")
    assert {event["frames"] for event in events(again.out, "done")} == {6, 7}
    (end,) = events(again.out, "end")
    assert (end["made"], end["known"], end["failed"]) == (2, 1, 1)
    assert outputs(out) == first

    other = videosr("batch", films / "one.mkv", "-o", out, *FAST, "--dry-run", "--denoise", 0, "--crf", 30)
    assert other.code == 0
    assert "other settings: crf: None then, 30.0 now" in other.out
    assert "time: unknown" not in other.out
    assert outputs(out) == first


def test_what_appears_after_a_failure_is_somebody_elses(films, tmp_path, videosr):
    out = tmp_path / "out"
    wrong = videosr("batch", films / "one.mkv", "-o", out, "-x", "nothing=1")
    assert (wrong.code, "libx264 has no such option" in wrong.err) == (1, True)
    (out / "one.mkv").write_bytes(b"precious")
    again = videosr("batch", films / "one.mkv", "-o", out, *FAST)
    assert again.code == 1
    assert "no batch has made it" in again.err
    assert outputs(out) == {"one.mkv": b"precious"}
    (out / "one.mkv").unlink()
    assert videosr("batch", films / "one.mkv", "-o", out, *FAST, "-q").code == 0


def test_an_output_that_does_not_hold_its_source_is_not_passed_off(tmp_path, monkeypatch):
    """Made from another film: as long, but with other pictures."""
    source, other, output = tmp_path / "in.mkv", tmp_path / "other.mkv", tmp_path / "out.mkv"
    make_clip(source, frames=6)
    make_clip(other, frames=6, width=128, height=96, noise=90)
    monkeypatch.setattr(jobs, "transcode", lambda source, output, *_: other.replace(output))
    with pytest.raises(
        OutputError, match=r"out\.failed\.mkv: does not hold what .*in\.mkv does: video: pictures differ"
    ):
        jobs.Make(source, output, TranscodeOptions(), None)(lambda _: None)
    assert not output.exists()
    assert (tmp_path / "out.failed.mkv").exists()


@pytest.mark.parametrize("damage", ["none", "frames", "header"])
def test_what_was_made_and_not_compared_is_compared_by_the_next_run(films, tmp_path, videosr, damage):
    """As a run leaves it that was killed between the output's appearance and its own last word on it."""
    out, source = tmp_path / "out", films / "one.mkv"
    command = ("batch", source, "-o", out, *FAST)
    assert videosr(*command).code == 0
    record, made = out / ".videosr" / "batch.jsonl", (out / "one.mkv").read_bytes()
    record.write_text(record.read_text().splitlines()[0] + "\n")
    if damage == "frames":
        make_clip(out / "one.mkv", frames=5, width=128, height=96, audio=[("aac", "eng")])
    elif damage == "header":
        (out / "one.mkv").write_bytes(b"no film" * 100)
    dry = videosr(*command, "--dry-run", "--json")
    assert [event["action"] for event in events(dry.out, "file")] == ["check"]
    assert not (out / "one.failed.mkv").exists()
    again = videosr(*command)
    if damage == "none":
        assert (again.code, outputs(out)) == (0, {"one.mkv": made})
        assert "made before, and now compared with its source" in again.err
        third = videosr(*command, "--json")
        assert [event["action"] for event in events(third.out, "file")] == ["done"]
        return
    assert again.code == 1
    assert "one.failed.mkv: does not hold what" in again.err
    assert outputs(out).keys() == {"one.failed.mkv"}
    assert videosr(*command).code == 0
    assert outputs(out)["one.mkv"] == made


def test_a_dry_run_leaves_nothing(films, tmp_path, videosr):
    done = videosr("batch", films, "-o", tmp_path / "out", *FAST, "--dry-run", "--height", 200)
    assert done.code == 1
    assert "266x200, 6 frames" in done.out
    assert "3 files to make, 21 frames; 0 done before" in done.out
    assert "from 2 samples made here" in done.out
    assert done.out.splitlines()[-1] == "computed on the CPU: no engine to build, no memory of a GPU taken"
    assert "broken.mkv" in done.err
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_tells_what_will_fail(films, tmp_path, videosr):
    done = videosr("batch", films / "one.mkv", "-o", tmp_path / "out", "--dry-run", "-x", "nothing=1")
    assert done.code == 1
    assert f"FAILED: {films}/one.mkv: -x nothing: libx264 has no such option" in done.err
    assert done.out.startswith("0 files to make")


def test_a_dry_run_on_a_gpu(films, tmp_path, videosr, monkeypatch):
    """What samples take of its memory, and what has to be built: as the engine and the device say."""
    device, used = HostDevice(), iter([3 << 20, *[7 << 20] * 3, *[5 << 20] * 1000])
    monkeypatch.setattr(device, "used_memory", lambda: next(used))

    def on_gpu(options, made=run.Upscaler):
        upscaler = made(options)
        upscaler.engine.device, upscaler.engine.to_build = device, lambda size: size == (48, 64)
        return upscaler

    monkeypatch.setattr(run, "Upscaler", on_gpu)
    done = videosr("batch", films / "one.mkv", films / "b" / "two.mp4", "-o", tmp_path / "out", *FAST, "--dry-run")
    assert done.out.splitlines()[-1] == "Stand-in 3000: 4.2 MB of 12.9 GB taken; engines to build: 64x48"
    plan = videosr("batch", films / "one.mkv", "-o", tmp_path / "out", *FAST, "--dry-run", "--json")
    (event,) = events(plan.out, "plan")
    assert (event["builds"], event["vram"]) == (["64x48"], 0)
    assert event["engine"] in CPU_ENGINES


def test_names_that_are_hard_to_print_and_things_that_are_no_files(films, tmp_path, videosr):
    """A line is a line, whatever a name holds; nothing waits for a pipe that nobody writes to."""
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    names = ["two\nlines \x1b[31m.mkv", "日本 🎬.mkv", "-q.mkv", "[1] %d.mkv", os.fsdecode(b"\xff.mkv")]
    for name in names:
        (folder / name).write_bytes((films / "one.mkv").read_bytes())
    os.mkfifo(folder / "pipe\n.mkv")
    done = videosr("batch", folder, "-o", out, *FAST, "--frames", 2)
    assert done.code == 1
    assert outputs(out).keys() == set(names)
    assert f"{out}/two\\nlines \\x1b[31m.mkv: " in done.err
    assert f"{out}/\\udcff.mkv: " in done.err
    assert all(line.isprintable() for line in done.err.splitlines())
    (failed,) = (line for line in done.err.splitlines() if line.startswith("FAILED"))
    assert failed.startswith(f"FAILED: {folder}/pipe\\n.mkv: is a pipe or device")
    plan = videosr("batch", folder, "-o", out, *FAST, "--frames", 3, "--dry-run")
    assert sum(" -> " in line for line in plan.out.splitlines()) == len(names)


def test_a_disk_that_is_too_small(films, tmp_path, videosr, monkeypatch):
    monkeypatch.setattr(run, "space", lambda folder: 1000)
    done = videosr("batch", films / "one.mkv", "-o", tmp_path / "out", *FAST)
    assert done.code == 1
    assert "1.0 kB are free" in done.err
    assert outputs(tmp_path / "out") == {}
    assert videosr("batch", films / "one.mkv", "-o", tmp_path / "out", *FAST, "--no-space-check", "-q").code == 0
    assert outputs(tmp_path / "out").keys() == {"one.mkv"}


def test_a_disk_that_fills_up_ends_the_batch(films, tmp_path, videosr, monkeypatch):
    """No later file is begun: it would fail as well."""
    begun = []

    def full(self, jobs, work=Pool.run):
        for n, job in jobs:
            if isinstance(job, run.Look):
                yield n, Done(job(lambda value: None))
            else:
                begun.append(n)
                yield n, Failed("no space left", 1, errno.ENOSPC)

    monkeypatch.setattr(Pool, "run", full)
    done = videosr("batch", films / "one.mkv", films / "b" / "two.mp4", "-o", tmp_path / "out", *FAST)
    assert done.code == 1
    assert "the disk is full" in done.err
    assert begun == [0]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("nowhere",), "nowhere: there is no such file"),
        ((".", "--jobs", "0"), "'--jobs': 0"),
        ((".", "--to", "avi"), "mkv, mp4"),
        ((".", "--codec", "nosuch"), "--codec nosuch"),
        ((".", "--codec", "libx265", "-x", "x265-params=bframes=abc"), "abc"),
        ((".", "-m", "nosuch"), "nosuch"),
        ((".", "--as", "nosuch"), "anime, archive, film"),
        ((".", "--as", "wrong.toml"), "did you mean denoise?"),
        ((".", "--as", "broken.toml"), "is not TOML"),
    ],
)
def test_wrong_requests(tmp_path, monkeypatch, videosr, arguments, words):
    """Said once, before any file is looked at."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "wrong.toml").write_text("denoisé = 1\n".replace("é", "e_by"))
    (tmp_path / "broken.toml").write_text("denoise = \n")
    done = videosr("batch", *arguments, "-o", tmp_path / "out")
    assert done.code in (1, 2)
    (line,) = done.err.splitlines()
    assert words in line
    assert not (tmp_path / "out").exists()


def test_help_fits_eighty_columns(videosr, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    text = videosr("batch", "--help").out
    assert "--dry-run" in text
    assert max(map(len, text.splitlines())) <= 80


@pytest.mark.parametrize("preset", presets.shipped())
def test_presets(films, tmp_path, videosr, preset):
    done = videosr("upscale", films / "one.mkv", tmp_path / "out.mkv", "--as", preset, "--frames", 3, "--overwrite")
    if preset == "archive":  # that clip does not say its colour, which is no loss
        assert videosr("probe", tmp_path / "out.mkv").out.count("ffv1") == 1
    assert done.code == 0


def test_what_is_given_beside_a_preset_wins(films, tmp_path, videosr):
    (tmp_path / "mine.toml").write_text(
        'codec = "libx264"\npreset = "ultrafast"\nframes = 3\n[options]\ntune = "grain"\n'
    )
    done = videosr("upscale", films / "one.mkv", tmp_path / "a.mkv", "--as", tmp_path / "mine.toml", "--json")
    assert events(done.out, "done")[0]["frames"] == 3
    frames = ("--frames", "2", "--as", tmp_path / "mine.toml")
    done = videosr("upscale", films / "one.mkv", tmp_path / "b.mkv", *frames, "--json")
    assert events(done.out, "done")[0]["frames"] == 2


# -- what ends it -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def long_films(tmp_path_factory):
    """Two films, the first of several segments, and a batch of them that was left in peace."""
    folder = tmp_path_factory.mktemp("long")
    (folder / "in").mkdir()
    make_clip(folder / "in" / "a.mkv", frames=900)  # a fast machine must not be done before the signal comes
    make_clip(folder / "in" / "b.mkv", frames=20)
    subprocess.run((*BATCH, folder / "in", "-o", folder / "out", *FAST, "-q"), check=True)
    return folder / "in", outputs(folder / "out")


@pytest.mark.parametrize("end", ["kill the first process", "kill all", "Ctrl-C"])
def test_a_batch_that_was_ended_goes_on(long_films, tmp_path, end):
    source, expected = long_films
    out = tmp_path / "out"
    command = (*BATCH, source, "-o", out, *FAST, "--json")
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
        for line in process.stdout:
            event = json.loads(line)
            if event["event"] == "progress" and event["frames"] > 240:
                break
        if end == "kill the first process":
            process.kill()
        else:  # as a terminal does: to every process
            os.killpg(process.pid, signal.SIGINT if end == "Ctrl-C" else signal.SIGKILL)
        process.communicate()
    assert process.returncode == (130 if end == "Ctrl-C" else -signal.SIGKILL)
    for name, data in outputs(out).items():
        assert name.startswith(".") or data == expected[name], "nothing under a final name is unfinished"
    again = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    made = [event["action"] for event in events(again.stdout, "file")]
    resumed = [event["resumed"] for event in events(again.stdout, "begin")]
    assert made[0] != "done"
    assert resumed[0] >= 240
    assert resumed[0] % 240 == 0
    assert outputs(out) == expected

"""Runs that were interrupted and go on: the same bytes, whatever ended them and wherever."""

import contextlib
import json
import os
import platform
import signal
import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest
from clips import make_clip, use_rule

from videosr import journal, machine
from videosr.errors import InputError, OutputError, StrictError
from videosr.journal import Journal
from videosr.media.encoder import SegmentEncoder

FAST = ("--codec", "libx264", "--preset", "ultrafast")
UPSCALE = (sys.executable, "-m", "videosr", "upscale")


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """Noise over movement and two cuts, so that the temporal window and the segments have something to do."""
    return make_clip(
        tmp_path_factory.mktemp("clip") / "clip.mkv", frames=40, audio=[("aac", "eng")], codec="ffv1", noise=4.0
    )


@pytest.fixture
def short_segments(monkeypatch):
    use_rule(monkeypatch, shortest=3, longest=7)


def fail_at(monkeypatch, frames, error):
    """Let the encoder fail at that frame, once."""
    encode, count = SegmentEncoder.encode, iter(range(10_000))

    def failing(self, frame):
        if next(count) == frames:
            raise error
        encode(self, frame)

    monkeypatch.setattr(SegmentEncoder, "encode", failing)


def events(out, *kinds):
    """The JSON lines of these kinds."""
    return [event for event in map(json.loads, out.splitlines()) if event["event"] in kinds]


def left_in(folder):
    return sorted(p.name for p in folder.iterdir())


PART = ("--start", "0.2", "--height", "72", "--denoise", "0.5")
FULL, CTRL_C = OutputError("the disk is full"), KeyboardInterrupt()
AWAY, REFUSED = InputError("the share is away"), StrictError("captions would be lost")


@pytest.mark.parametrize(
    ("at", "error", "options"),
    [(1, FULL, ()), (8, CTRL_C, ()), (20, FULL, PART), (33, CTRL_C, ()), (20, AWAY, ()), (20, REFUSED, ())],
    ids=str,
)
def test_a_run_that_goes_on_ends_in_the_same_bytes(
    clip, tmp_path, videosr, monkeypatch, short_segments, at, error, options
):
    straight, output = tmp_path / "straight.mkv", tmp_path / "out.mkv"
    assert videosr("upscale", clip, straight, *FAST, *options).code == 0
    with monkeypatch.context() as patch:
        fail_at(patch, at, error)
        broken = videosr("upscale", clip, output, *FAST, *options)
    assert broken.code == (130 if isinstance(error, KeyboardInterrupt) else 1)
    kept = at >= 7
    assert left_in(tmp_path) == ([".out.mkv.videosr", "straight.mkv"] if kept else ["straight.mkv"])
    assert ("the same command goes on from there" in broken.err) == kept
    again = videosr("upscale", clip, output, *FAST, *options, "--json")
    assert again.code == 0
    begin, done = events(again.out, "begin", "done")
    assert 0 <= at - begin["resumed"] <= 7  # no more than a segment is made twice
    assert (begin["resumed"] > 0) == kept
    assert done["frames"] == (35 if options else 40)
    assert output.read_bytes() == straight.read_bytes()
    assert left_in(tmp_path) == ["out.mkv", "straight.mkv"]


def test_a_killed_run_goes_on(tmp_path):
    """kill -9 at work, several times over one output."""
    clip = make_clip(tmp_path / "clip.mkv", frames=240, width=96, height=64, codec="libx264")
    straight, output = tmp_path / "straight.mkv", tmp_path / "out.mkv"
    subprocess.run((*UPSCALE, clip, straight, *FAST, "-q"), check=True)
    resumed = []
    for _ in range(3):
        with subprocess.Popen((*UPSCALE, clip, output, *FAST, "--json"), stdout=subprocess.PIPE, text=True) as process:
            for line in process.stdout:
                event = json.loads(line)
                if event["event"] == "begin":
                    resumed.append(event["resumed"])
                if event["event"] == "progress" and event["frames"] >= resumed[-1] + 60:
                    process.send_signal(signal.SIGKILL)
                    break
        if process.returncode == 0:
            break
        assert not output.exists()
    subprocess.run((*UPSCALE, clip, output, *FAST, "-q"), check=True)
    assert resumed == sorted(resumed)
    assert output.read_bytes() == straight.read_bytes()
    assert left_in(tmp_path) == ["clip.mkv", "out.mkv", "straight.mkv"]


@pytest.fixture
def unfinished(clip, tmp_path, videosr, monkeypatch, short_segments):
    """An output with three finished segments."""
    with monkeypatch.context() as patch:
        fail_at(patch, 24, KeyboardInterrupt())
        assert videosr("upscale", clip, tmp_path / "out.mkv", *FAST, "--crf", "20").code == 130
    return tmp_path / "out.mkv"


def test_other_settings_are_refused_by_name(clip, unfinished, videosr):
    before = left_in(unfinished.parent / ".out.mkv.videosr")
    for options, words in (
        (("--crf", "21"), "crf: 20.0 then, 21.0 now"),
        (("--crf", "20", "--temporal", "off"), "upscaler: "),
        (("--crf", "20", "--frames", "30"), "frames: None then, '30' now"),
    ):
        done = videosr("upscale", clip, unfinished, *FAST, *options)
        assert done.code == 2
        assert words in done.err
        assert ".out.mkv.videosr" in done.err
        assert "--overwrite" in done.err
    assert left_in(unfinished.parent / ".out.mkv.videosr") == before
    anew = videosr("upscale", clip, unfinished, *FAST, "--crf", "21", "--frames", "9", "--overwrite", "--json")
    assert anew.code == 0
    assert events(anew.out, "begin")[0]["resumed"] == 0
    assert events(anew.out, "done")[0]["frames"] == 9


def test_another_machine_is_refused_by_what_it_lacks(clip, unfinished, videosr, monkeypatch):
    sets = machine.instruction_sets()
    monkeypatch.setattr(machine, "instruction_sets", lambda: f"{sets} avx1024")
    done = videosr("upscale", clip, unfinished, *FAST, "--crf", "20")
    assert done.code == 2
    assert "cpu: '' then, 'avx1024' now" in done.err
    assert "where it was begun" in done.err


def test_instruction_sets_are_those_that_sums_depend_on(tmp_path):
    x86, arm = tmp_path / "x86", tmp_path / "arm"
    x86.write_text(
        "processor : 0\nflags\t\t: fpu sse4_2 smep avx2 avx512_bf16 amx_tile sse4a fma\nflags : never read\n"
    )
    arm.write_text("Features\t: fp asimd evtstrm sve2 i8mm\n")
    own = platform.machine()
    assert machine.instruction_sets(x86) == f"{own} amx_tile avx2 avx512_bf16 fma sse4_2"
    assert machine.instruction_sets(arm) == f"{own} asimd i8mm sve2"
    assert machine.instruction_sets(tmp_path / "none") == own


def test_numpy_tells_what_it_uses_here():
    """What is switched off in a process is not told of: its sums may differ."""
    features = machine.numpy_build().split()[2:]
    if not features:
        pytest.skip("numpy has only its baseline here")
    command = (sys.executable, "-c", "from videosr import machine; print(machine.numpy_build())")
    environment = {**os.environ, "NPY_DISABLE_CPU_FEATURES": features[-1]}
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert features[-1] not in run.stdout.split()


def test_cores_are_those_it_may_use_or_all_where_the_system_does_not_tell(monkeypatch):
    assert machine.cores() == len(os.sched_getaffinity(0))
    monkeypatch.delattr(os, "sched_getaffinity")
    assert machine.cores() == os.cpu_count()


def test_another_input_is_refused_whatever_its_name(clip, unfinished, videosr, tmp_path):
    other = tmp_path / "other.mkv"
    data = bytearray(clip.read_bytes())
    data[len(data) // 2] ^= 1
    other.write_bytes(data)
    done = videosr("upscale", other, unfinished, *FAST, "--crf", "20")
    assert done.code == 2
    assert "input: " in done.err
    other.write_bytes(clip.read_bytes())
    assert videosr("upscale", other, unfinished, *FAST, "--crf", "20").code == 0


@pytest.mark.parametrize("damage", ["flipped", "cut", "missing"])
def test_what_is_damaged_is_made_again(clip, unfinished, videosr, damage, tmp_path):
    straight = tmp_path / "straight.mkv"
    assert videosr("upscale", clip, straight, *FAST, "--crf", "20").code == 0
    second = unfinished.parent / ".out.mkv.videosr" / "000000007.seg"
    data = bytearray(second.read_bytes())
    data[len(data) * 3 // 4] ^= 0x40
    if damage == "missing":
        second.unlink()
    else:
        second.write_bytes(data if damage == "flipped" else data[: len(data) // 2])
    again = videosr("upscale", clip, unfinished, *FAST, "--crf", "20", "--json")
    assert again.code == 0
    assert events(again.out, "begin")[0]["resumed"] == 14  # the segments before it and behind it
    assert unfinished.read_bytes() == straight.read_bytes()


def test_nothing_is_kept_of_an_input_that_changed_meanwhile(clip, tmp_path, videosr, monkeypatch, short_segments):
    source, output = tmp_path / "source.mkv", tmp_path / "out.mkv"
    source.write_bytes(clip.read_bytes())
    encode, count = SegmentEncoder.encode, iter(range(10_000))

    def replacing(self, frame):
        if next(count) == 20:
            source.write_bytes(clip.read_bytes() + b"more")
            raise AWAY
        encode(self, frame)

    with monkeypatch.context() as patch:
        patch.setattr(SegmentEncoder, "encode", replacing)
        broken = videosr("upscale", source, output, *FAST)
    assert broken.code == 1
    assert "goes on from there" not in broken.err
    assert left_in(tmp_path) == ["source.mkv"]


def test_two_runs_do_not_make_one_file(tmp_path):
    pytest.importorskip("fcntl")
    with Journal(tmp_path / "out.mkv", {"a": 1}):
        other = Journal(tmp_path / "out.mkv", {"a": 1})
        with pytest.raises(OutputError, match=r"out\.mkv: another run is making this file"), other:
            pass
        assert (tmp_path / ".out.mkv.videosr").exists()
    assert left_in(tmp_path) == []
    with Journal(tmp_path / "out.mkv", {"a": 2}):
        pass


def test_a_journal_interrupted_at_its_birth_leaves_nothing(tmp_path, monkeypatch):
    def interrupted(path, data):
        raise KeyboardInterrupt

    monkeypatch.setattr("videosr.journal.write_atomically", interrupted)
    with pytest.raises(KeyboardInterrupt), Journal(tmp_path / "out.mkv", {}):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("moment", ["opened", "locked"])
@pytest.mark.parametrize("there", ["nothing", "finished", "another run"])
def test_a_journal_interrupted_while_it_is_locked_leaves_what_is_not_its_own(tmp_path, monkeypatch, there, moment):
    output = tmp_path / "out.mkv"
    folder = tmp_path / ".out.mkv.videosr"
    held = journal.hold
    other = contextlib.ExitStack()
    if there == "finished":
        folder.mkdir()
        (folder / "000000000.seg").write_bytes(b"a segment")
    elif there == "another run":
        pytest.importorskip("fcntl")
        other.enter_context(Journal(output, {"a": 1}))

    def interrupted(path, until):
        monkeypatch.setattr(journal, "hold", held)
        if moment == "locked":
            held(path, until)
        else:
            path.touch()
        raise KeyboardInterrupt

    monkeypatch.setattr(journal, "hold", interrupted)
    interruption = OutputError if (there, moment) == ("another run", "locked") else KeyboardInterrupt
    with pytest.raises(interruption), Journal(output, {"a": 1}):
        pass
    left = {path.name for path in folder.iterdir()} if folder.exists() else set()
    assert left - {"lock"} == {"nothing": set(), "finished": {"000000000.seg"}, "another run": {"job.json"}}[there]
    assert folder.exists() == (there != "nothing")
    other.close()


def test_a_journal_killed_at_its_birth_is_begun_again(tmp_path):
    folder = tmp_path / ".out.mkv.videosr"
    for content in (None, "", '{"a": ', "[1]"):
        folder.mkdir()
        (folder / ".000000000.seg.part").write_bytes(b"half")
        if content is not None:
            (folder / "job.json").write_text(content)
        with Journal(tmp_path / "out.mkv", {"a": (1, 2)}) as journal:
            assert (journal.segments(), list(journal.gaps())) == ([], [(0, None)])
            assert left_in(folder)[0] == "job.json"
            assert set(left_in(folder)) <= {"job.json", "lock"}
        assert left_in(tmp_path) == []


@pytest.mark.parametrize("name", ["x" * 251 + ".mkv", "\N{SNOWMAN}" * 80 + ".mkv"])
def test_long_names(clip, tmp_path, videosr, name):
    try:
        (tmp_path / name).write_text("")
    except OSError:
        pytest.skip("the file system has no names of this length")
    assert videosr("upscale", clip, tmp_path / name, *FAST, "--frames", "3", "--overwrite").code == 0
    assert left_in(tmp_path) == [name]


def test_a_folder_nobody_may_write_to(clip, tmp_path, videosr):
    if os.geteuid() == 0:
        pytest.skip("root may write everywhere")
    (tmp_path / "shut").mkdir(mode=0o555)
    done = videosr("upscale", clip, tmp_path / "shut" / "out.mkv")
    assert done.code == 1
    assert "choose a folder you may write to" in done.err


def test_noise_is_noise(clip):
    """What the tests above lean on: consecutive frames differ."""
    from videosr.media.decoder import Decoder

    with Decoder(clip) as decoder:
        frames = [frame.planes[0] for frame in decoder]
    assert len(frames) == 40
    assert not any(np.array_equal(a, b) for a, b in pairwise(frames))


def test_links_that_others_have_put_there_are_not_followed(tmp_path):
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "photo.jpg").write_bytes(b"irreplaceable")
    folder = tmp_path / ".out.mkv.videosr"
    folder.symlink_to(precious, target_is_directory=True)
    with pytest.raises(OutputError, match=r"\.out\.mkv\.videosr: is a link"), Journal(tmp_path / "out.mkv", {"a": 1}):
        pass
    folder.unlink()
    folder.mkdir()
    (folder / "lock").symlink_to(precious / "photo.jpg")
    with pytest.raises(OutputError), Journal(tmp_path / "out.mkv", {"a": 1}):
        pass
    assert left_in(precious) == ["photo.jpg"]
    assert (precious / "photo.jpg").read_bytes() == b"irreplaceable"

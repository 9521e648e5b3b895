"""videosr batch and what is not its own: files that appear, names that others have, what an earlier run has left."""

from __future__ import annotations

import json
import threading
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from clips import make_clip
from test_stills import encode

from videosr import transcode, upscaler
from videosr.batch import run
from videosr.batch.jobs import Begun, Make
from videosr.batch.ledger import Entry, Known, Verdict, judge
from videosr.batch.settings import settings
from videosr.distributed.pool import Pool, Told, outcome
from videosr.errors import UsageError
from videosr.journal import Journal, folder_of, segment_name
from videosr.media.codecs import EncoderSettings
from videosr.models import registry
from videosr.options import UpscaleOptions
from videosr.transcode import TranscodeOptions

FAST = ("--codec", "libx264", "--preset", "ultrafast", "--temporal", "off", "--model", "light-2x")


@pytest.fixture
def here(monkeypatch):
    """The jobs of a batch are done in this process; `here(job, value)` is called with all that they tell."""
    heard = []

    def work(self, jobs):
        for n, job in jobs:
            told = []

            def tell(value, job=job, told=told):
                told.append(Told(value))
                for hear in heard:
                    hear(job, value)

            done = outcome(job, tell)
            yield from ((n, word) for word in [*told, done])

    monkeypatch.setattr(Pool, "run", work)
    return heard.append


def actions(out):
    return [event["action"] for event in map(json.loads, out.splitlines()) if event["event"] == "file"]


@pytest.mark.parametrize("during", ["a", "b"])
def test_a_film_that_appears_while_the_batch_runs_is_left(tmp_path, videosr, here, during):
    """Somebody puts the second one's output there, while the first one or the second one itself is made."""
    out = tmp_path / "out"
    (tmp_path / "in").mkdir()
    for name in "ab":
        make_clip(tmp_path / "in" / f"{name}.mp4", frames=3)

    def appear(job, value):
        if isinstance(value, Begun) and job.source.stem == during:
            (out / "b.mkv").write_bytes(b"precious")

    here(appear)
    command = ("batch", tmp_path / "in", "-o", out, *FAST, "--json")
    done = videosr(*command)
    assert done.code == 1
    assert "b.mkv: appeared or was changed while the batch ran; move it away or give --overwrite" in done.out
    assert (out / "a.mkv").stat().st_size > 100
    assert actions(videosr(*command).out) == ["done", "refuse"]
    assert (out / "b.mkv").read_bytes() == b"precious"
    assert actions(videosr(*command, "--overwrite").out) == ["done", "make"]
    assert (out / "b.mkv").read_bytes()[:4] == b"\x1a\x45\xdf\xa3"


def test_a_picture_that_appeared_is_left(tmp_path):
    encode(tmp_path / "a.png", np.zeros((24, 32, 3), np.uint8), "png", "rgb24")
    (tmp_path / "b.png").write_bytes(b"precious")
    options = TranscodeOptions(upscale=UpscaleOptions(model="light-2x"))
    with pytest.raises(UsageError, match=r"b\.png: appeared or was changed while the batch ran"):
        Make(tmp_path / "a.png", tmp_path / "b.png", options, None, False)(lambda value: None)
    assert (tmp_path / "b.png").read_bytes() == b"precious"


THEN = {
    "width": None, "height": None, "start": None, "duration": None, "frames": None, "deinterlace": "auto",
    "field_rate": False, "model": "", "engine": "auto", "device": "auto", "precision": "auto", "temporal": "adaptive",
    "denoise": 0.0, "tta": False, "pix_fmt": "", "tile": None, "codec": "", "crf": 20.0, "preset": "", "options": {},
}  # fmt: skip
"""What version 0.1.0 wrote of `--crf 20`. Whoever changes an option sees to it that this still means the same."""
CRF_20 = TranscodeOptions(encoder=EncoderSettings(crf=20.0))


def judged(then, options=CRF_20):
    done = Entry(state="done", output="a.mkv", input="I", settings=then, file="F", source="a.mp4")
    return judge(Known(done=done), "I", {**settings(options), "model": ""}, "F")


def test_an_update_does_not_make_an_archive_again():
    assert judged(THEN) == Verdict("done")
    before_tiles = {key: value for key, value in THEN.items() if key != "tile"}
    assert judged(before_tiles) == Verdict("done"), "an option that came since, and was left at its default"
    assert judged({**THEN, "gone": None, "left": "auto", "off": False}) == Verdict("done"), "options that went since"


def test_an_option_that_came_or_went_counts_where_it_is_used():
    before_tiles = {key: value for key, value in THEN.items() if key != "tile"}
    tiled = replace(CRF_20, upscale=UpscaleOptions(tile=64))
    assert judged(before_tiles, tiled) == Verdict("make", "other settings: tile: None then, 64 now")
    assert judged({**THEN, "gone": 0.5}) == Verdict("make", "other settings: gone: 0.5 then, None now")


def test_other_weights_beside_a_network_are_another_network(tmp_path):
    """An ONNX file may have its weights in a file of their own: trained anew, that one alone changes."""
    onnx = pytest.importorskip("onnx")
    path, weights = tmp_path / "parted.onnx", tmp_path / "parted.data"
    model = onnx.load(registry.find("light-2x"))
    onnx.save(model, path, save_as_external_data=True, location=weights.name, size_threshold=0)
    options = replace(CRF_20, upscale=UpscaleOptions(model=str(path)))
    before = settings(options)
    weights.write_bytes(bytes(weights.stat().st_size))
    assert settings(options)["model"] != before["model"]


def left_behind(output):
    """What a run leaves that was killed: whole segments, and the lock that nobody holds."""
    with suppress(KeyboardInterrupt), Journal(output, {"made": "otherwise"}) as journal:
        (journal.folder / segment_name(0)).write_bytes(b"x" * 10_000)
        raise KeyboardInterrupt
    return folder_of(output)


def test_segments_that_are_there_take_no_more_space(tmp_path, videosr, monkeypatch):
    """A disk that is full of an interrupted run's segments is not too small to end it."""
    clip, out = make_clip(tmp_path / "a.mp4", frames=3), tmp_path / "out"
    out.mkdir()
    command = ("batch", clip, "-o", out, *FAST, "--json")
    (needed,) = [e["space"] for e in map(json.loads, videosr(*command, "--dry-run").out.splitlines()) if "space" in e]
    left_behind(out / "a.mkv")
    monkeypatch.setattr(run, "space", lambda folder: needed // 2)
    done = videosr(*command)
    assert (done.code, "are needed" in done.out) == (0, False)


def test_what_is_left_of_an_abandoned_run_is_named(tmp_path, videosr):
    clip, out = make_clip(tmp_path / "a.mp4", frames=3), tmp_path / "out"
    command = ("batch", clip, "-o", out, *FAST)
    assert videosr(*command).code == 0
    folder = left_behind(out / "a.mkv")
    done = videosr(*command)
    assert done.code == 0
    assert f"is done, and {folder} has 10.0 kB of an unfinished run of another kind: remove it" in done.err
    assert folder.is_dir()
    record = out / ".videosr" / "batch.jsonl"
    record.write_text(record.read_text().splitlines()[0] + "\n")
    assert "now compared with its source" in videosr(*command).err
    assert not folder.exists(), "the run that made the output was killed before it could clear up"


def test_one_frame_is_one_frame(tmp_path, videosr):
    clip = make_clip(tmp_path / "a.mp4", frames=1)
    done = videosr("batch", clip, "-o", tmp_path / "out", *FAST)
    assert "1 file to make, 0 done before; 1 frame;" in done.err
    assert "1 file made, 1 frame in" in done.err
    assert "1 frames" not in done.err


def test_a_name_that_the_suffix_makes_too_long(tmp_path, videosr):
    make_clip(tmp_path / "a.ts", frames=1).rename(tmp_path / f"{'a' * 252}.ts")
    done = videosr("batch", tmp_path, "-o", tmp_path / "out", *FAST)
    assert done.code == 1
    assert "a.mkv: cannot be written: File name too long" in done.err


def test_pictures_of_one_process_share_an_engine(tmp_path, monkeypatch):
    """As long as it is the same; what they become does not depend on what was made before them."""
    noise, loaded = np.random.default_rng(1), []
    monkeypatch.setattr(upscaler, "choose", lambda *a, made=upscaler.choose: loaded.append(a) or made(*a))
    monkeypatch.setattr(transcode, "_last", threading.local())
    for n, (fmt, channels) in enumerate((("rgb24", 3), ("gray", 1), ("rgb24", 3))):
        shape = (24 + n, 32, channels) if channels > 1 else (24 + n, 32)
        encode(tmp_path / f"{n}.png", noise.integers(0, 256, shape, np.uint8), "png", fmt)
    network = tmp_path / "network.onnx"
    network.write_bytes(Path(registry.find("light-2x")).read_bytes())
    options = TranscodeOptions(upscale=UpscaleOptions(model=str(network)))

    def made(n):
        output = tmp_path / f"{n}-2x.png"
        Make(tmp_path / f"{n}.png", output, replace(options, overwrite=True), None, False)(lambda value: None)
        return output.read_bytes()

    pictures = [made(n) for n in range(3)]
    assert len(loaded) == 1
    for n in range(3):
        transcode._last.key = None
        assert made(n) == pictures[n]
    count = len(loaded)
    network.write_bytes(Path(registry.find("realtime-2x")).read_bytes())
    assert made(0) != pictures[0], "the network is another one now"
    assert len(loaded) == count + 1

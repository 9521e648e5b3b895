"""videosr batch and what is not its own: files that appear, names that others have, what an earlier run has left."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from clips import make_clip
from test_stills import encode

from videosr.batch.jobs import Begun, Make
from videosr.batch.ledger import Entry, Known, Verdict, judge
from videosr.batch.settings import settings
from videosr.distributed.pool import Pool, Told, outcome
from videosr.errors import UsageError
from videosr.media.codecs import EncoderSettings
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

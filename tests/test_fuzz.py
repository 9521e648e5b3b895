"""Spoiled files: a short seeded run of `scripts/fuzz.py`, and what longer ones have found."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import av
import pytest
from clips import make_clip

from videosr import presets
from videosr.batch import ledger
from videosr.errors import UsageError
from videosr.media.codecs import EncoderSettings
from videosr.media.probe import plan_streams
from videosr.progress import Progress
from videosr.transcode import TranscodeOptions, transcode

SCRIPT = Path(__file__).parent.parent / "scripts" / "fuzz.py"
KINDS = ("mkv", "journal", "ledger", "preset")


def test_a_short_run_finds_nothing():
    for library in ("onnx", "torch"):
        pytest.importorskip(library)
    kinds = [word for kind in KINDS for word in ("--kind", kind)]
    # Generous, for the machine may be busy: what hangs, hangs longer.
    command = [sys.executable, str(SCRIPT), "--seed", "7", "--count", str(6 * len(KINDS)), "--seconds", "300", *kinds]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout
    assert run.stdout.splitlines()[-1] == f"{6 * len(KINDS)} inputs, seed 7: 0 findings"


@pytest.mark.parametrize(
    "text",
    ["height = [[1]]", "start = 1979-05-27", "codec = {a = 1}", "crf = " + "[" * 5000, 'x = "'],
    ids=["array", "date", "table", "deep", "cut"],
)
def test_presets_of_other_types_are_refused(tmp_path, text):
    path = tmp_path / "p.toml"
    path.write_text(text)
    with pytest.raises(UsageError, match=r"p\.toml"):
        presets.read(str(path))


def test_numbers_of_presets_are_read_as_on_the_command_line(tmp_path, videosr):
    path = tmp_path / "p.toml"
    path.write_text("overwrite = -1")
    run = videosr("upscale", tmp_path / "in.mkv", tmp_path / "out.mkv", "--as", path)
    assert run.code == 2
    assert "not a valid boolean" in run.err


@pytest.mark.parametrize(
    "change", [{"output": [1]}, {"settings": True}, {"file": {}}, {"state": 3}, {"source": None}], ids=str
)
def test_a_record_with_other_types_does_not_count(tmp_path, change):
    entry = {"state": "done", "output": "a.mkv", "input": "1", "settings": {}, "file": "2", "source": "s"}
    (tmp_path / ledger.FOLDER).mkdir()
    lines = [entry | change, entry | {"output": "b.mkv"}]
    deep = "[" * 100_000
    text = "".join(json.dumps(line) + "\n" for line in lines) + deep + "\n"
    (tmp_path / ledger.FOLDER / "batch.jsonl").write_text(text)
    assert list(ledger.read(tmp_path)) == ["b.mkv"]


def test_a_track_that_its_container_refuses_does_not_cost_the_film(tmp_path):
    """AAC without the description of itself, which Matroska takes in its header and refuses packet by packet."""
    whole = make_clip(tmp_path / "whole.mp4", audio=[("aac", "eng"), ("aac", "deu")])
    data = bytearray(whole.read_bytes())
    at = data.rindex(b"esds")
    data[at : at + 4] = b"free"
    source = tmp_path / "in.mp4"
    source.write_bytes(data)
    plan = plan_streams(source, "matroska")
    first, second = (s.action for s in plan.streams if s.type == "audio")
    assert first == "copy"
    assert second in ("convert", "drop")
    options = TranscodeOptions(encoder=EncoderSettings(preset="ultrafast"))
    made = transcode(source, tmp_path / "out.mkv", options, Progress("", quiet=True))
    with av.open(str(tmp_path / "out.mkv")) as out:
        assert sum(1 for _ in out.decode(video=0)) == made.frames == 16

"""A disk that fails in the middle of a file: FFmpeg's demuxers take that for the end, videosr does not."""

from __future__ import annotations

import os
import subprocess
import sys
from fractions import Fraction
from itertools import batched, count
from pathlib import Path

import av
import badsector
import pytest
from clips import make_clip
from doubling import double

from videosr.errors import InputError
from videosr.media import source
from videosr.media.decoder import Decoder
from videosr.media.source import Disk, check_readable

X264 = {"options": {"preset": "ultrafast", "x264-params": "keyint=8:bframes=1"}, "audio": [("aac", "eng")]}
CLIPS = {
    "mkv": {"codec": "ffv1", "options": {"level": "3"}},
    "mp4": X264,
    "ts": {**X264, "audio": [("mp2", "eng")]},
    "avi": {"codec": "mpeg4", "time_base": Fraction(1, 24)},
}
DECODE = """
import sys
from videosr.errors import InputError
from videosr.media.decoder import Decoder
try:
    with Decoder(sys.argv[1], threads=int(sys.argv[2])) as decoder:
        print(sum(1 for _ in decoder))
except InputError as exc:
    print(exc)
"""


@pytest.fixture(scope="module")
def shim(tmp_path_factory):
    library = badsector.build(tmp_path_factory.mktemp("shim"))
    if library is None:
        pytest.skip("needs Linux and a C compiler")
    return library


@pytest.mark.parametrize(("suffix", "part", "threads"), [("mkv", 2, 2), ("mp4", 2, 2), ("ts", 3, 1), ("avi", 2, 1)])
def test_a_sector_that_cannot_be_read_is_no_end_of_file(shim, tmp_path, suffix, part, threads):
    clip = make_clip(tmp_path / f"in.{suffix}", frames=60, noise=9.0, **CLIPS[suffix])
    first = clip.stat().st_size // part
    environment = {**os.environ, **badsector.environment(shim, clip, first, first + 512)}
    command = [sys.executable, "-c", DECODE, str(clip), str(threads)]
    said = subprocess.run(command, capture_output=True, text=True, env=environment, check=True).stdout
    assert said.startswith(f"{clip}: cannot be read at byte {first}: Input/output error"), said


def test_a_file_cut_short_is_still_one(tmp_path):
    clip = make_clip(tmp_path / "in.mkv", frames=60, noise=9.0, **CLIPS["mkv"])
    os.truncate(clip, clip.stat().st_size // 2)
    with Decoder(clip) as decoder:
        assert 20 < sum(1 for _ in decoder) < 40
        assert any("may be truncated" in line for line in decoder.warnings)


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="needs a file whose first page cannot be read")
def test_the_error_names_the_file_the_byte_and_the_reason():
    with pytest.raises(InputError, match=r"/proc/self/mem: cannot be read at byte 0: Input/output error"):
        check_readable("/proc/self/mem")


def test_what_lies_ahead_of_the_first_byte_is_not_read(shim, tmp_path):
    path = tmp_path / "file"
    path.write_bytes(bytes(5000))
    environment = {**os.environ, **badsector.environment(shim, path, 100, 200)}
    script = "import sys; from videosr.media.source import check_readable as c; c(sys.argv[1], int(sys.argv[2]))"
    run = [subprocess.run([sys.executable, "-c", script, str(path), at], env=environment, capture_output=True)
           for at in ("200", "150")]  # fmt: skip
    assert [done.returncode for done in run] == [0, 1]


def test_no_byte_is_read_twice_to_see_whether_the_disk_can(tmp_path, monkeypatch):
    read = []
    monkeypatch.setattr(source, "check_readable", lambda path, first, end: read.append((first, end)))
    disk = Disk(tmp_path / "file")
    for first in (300, 100, 200, 0, 0):
        disk.check(first)
    assert read == [(300, sys.maxsize), (100, 300), (0, 100)]


def test_damage_in_a_copied_stream_lets_the_source_be_read_once_more_not_for_every_packet(tmp_path, monkeypatch):
    whole = make_clip(tmp_path / "whole.ts", frames=60, **CLIPS["ts"])
    packets = [data for data in batched(whole.read_bytes(), 188) if len(data) == 188]
    with av.open(str(whole)) as container:
        identifier = container.streams.audio[0].id
    seen = count()
    # Of the sound every fifth piece is lost, after the first ones.
    kept = [data for data in packets if (data[1] & 31) << 8 | data[2] != identifier or (n := next(seen)) < 5 or n % 5]
    damaged = tmp_path / "in.ts"
    damaged.write_bytes(b"".join(map(bytes, kept)))
    with av.open(str(damaged)) as container:
        assert sum(packet.is_corrupt for packet in container.demux(audio=0)) > 3
    read = []
    monkeypatch.setattr(source, "check_readable", lambda path, first, end: read.append((first, end)))
    double(damaged, tmp_path / "out.mkv")
    assert read.count((0, sys.maxsize)) == 1

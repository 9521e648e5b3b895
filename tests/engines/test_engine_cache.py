"""The cache of built engines: whole entries for exactly this key, or none."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
import time

import pytest

from videosr.engines.cache import Cache
from videosr.errors import OutputError

KEY = {"kind": "engine", "network": "ab" * 32, "version": "1.7", "gpu": "Stand-in 3000", "driver": "13.2"}


@pytest.fixture
def cache(tmp_path):
    return Cache(tmp_path / "engines")


def test_what_is_written_is_read(cache):
    assert cache.read(KEY) is None
    cache.write(KEY, b"engine", {"psnr": "60.1"})
    entry = cache.read(dict(reversed(KEY.items())))  # whatever the order
    assert (entry.payload, dict(entry.facts), dict(entry.key)) == (b"engine", {"psnr": "60.1"}, KEY)
    cache.write(KEY, b"another")
    assert cache.read(KEY).payload == b"another"
    assert [path.suffix for path in cache.folder.iterdir()] == [".entry"]


@pytest.mark.parametrize("name", KEY)
def test_any_other_value_is_another_entry(cache, name):
    cache.write(KEY, b"engine")
    assert cache.read({**KEY, name: "other"}) is None
    assert cache.read({k: v for k, v in KEY.items() if k != name}) is None
    cache.write({**KEY, name: "other"}, b"its own")
    assert cache.read(KEY).payload == b"engine"


def damaged(data: bytes) -> dict[str, bytes]:
    middle = len(data) // 2
    return {
        "empty": b"",
        "cut": data[:-1],
        "longer": data + b"x",
        "flipped": data[:-1] + bytes([data[-1] ^ 1]),
        "header": data[:20] + b"\xff" + data[21:],
        "no header": data[:16],
        "header is a list": data[:16] + b"[]\n" + data[-7:],
        "text": b"not an entry\n" * 30,
        "zeros": bytes(len(data)),
        "halved": data[:middle],
    }


@pytest.mark.parametrize("kind", damaged(bytes(100)))
def test_damaged_entries_are_not_there(cache, kind):
    cache.write(KEY, b"engine" * 20)
    path = cache.path(KEY)
    path.write_bytes(damaged(path.read_bytes())[kind])
    assert cache.read(KEY) is None
    (entry,) = cache.entries()
    assert entry.problem
    cache.write(KEY, b"made again")
    assert cache.read(KEY).payload == b"made again"


def test_an_entry_under_another_name_is_not_taken(cache):
    """A file copied from one key to another, as by a person who knows better."""
    other = {**KEY, "gpu": "Another"}
    cache.write(KEY, b"engine")
    cache.path(KEY).rename(cache.path(other))
    assert cache.read(other) is None
    assert cache.entries()[0].problem


def test_entries_are_listed_by_last_use(cache):
    keys = [{**KEY, "shapes": str(n)} for n in range(3)]
    for age, key in enumerate(keys):
        cache.write(key, b"x" * 1000)
        os.utime(cache.path(key), (time.time() - 1000 * (3 - age),) * 2)
    cache.read(keys[0])
    listed = cache.entries()
    assert [entry.key["shapes"] for entry in listed] == ["0", "2", "1"]
    assert all(entry.size > 1000 and entry.payload == b"" for entry in listed)


def test_prune_takes_what_is_broken_or_not_to_keep(cache):
    assert cache.prune(lambda entry: True) == []  # where there is no folder yet
    keys = [{**KEY, "version": str(n)} for n in range(3)]
    for key in keys:
        cache.write(key, b"x")
    cache.path(keys[0]).write_bytes(b"broken")
    gone = cache.prune(lambda entry: entry.key["version"] == "1")
    assert len(gone) == 2
    assert [entry.key["version"] for entry in cache.entries()] == ["1"]


def test_a_folder_that_cannot_be_written_is_said(tmp_path):
    (tmp_path / "file").write_text("in the way")
    cache = Cache(tmp_path / "file" / "engines")
    with pytest.raises(OutputError, match="engines"):
        cache.write(KEY, b"x")
    assert cache.read(KEY) is None
    assert cache.entries() == []
    with cache.alone(KEY):
        pass


HOLDER = """
import sys, time
from pathlib import Path
from videosr.engines.cache import Cache
cache, key = Cache(Path(sys.argv[1])), {"kind": "engine"}
with cache.alone(key):
    print("held", flush=True)
    sys.stdin.readline()
    cache.write(key, b"made by the other")
"""


def test_one_process_builds_and_the_others_wait_for_it(cache):
    pytest.importorskip("fcntl")
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(cache.folder)], **pipes) as other:
        assert other.stdout.readline() == "held\n"
        said = []

        def waiting():
            said.append("waiting")
            other.stdin.write("go on\n")
            other.stdin.flush()

        with cache.alone({"kind": "engine"}, waiting):
            assert said == ["waiting"]
            assert cache.read({"kind": "engine"}).payload == b"made by the other"


def test_a_disk_without_locks_is_built_on_without(cache, monkeypatch):
    fcntl = pytest.importorskip("fcntl")

    def flock(file, how):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    with cache.alone(KEY):
        cache.write(KEY, b"made")
    assert cache.read(KEY).payload == b"made"


def test_a_killed_builder_leaves_no_lock(cache):
    pytest.importorskip("fcntl")
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(cache.folder)], **pipes) as other:
        other.stdout.readline()
        other.kill()
        other.wait()
    said = []
    with cache.alone({"kind": "engine"}, lambda: said.append("waiting")):
        assert said == []


def test_writers_at_once_leave_one_whole_entry(cache):
    def write_many(size):
        for n in range(10):
            cache.write(KEY, bytes([n]) * size)

    writers = [threading.Thread(target=write_many, args=(size,)) for size in (10, 5000)]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        entry = cache.read(KEY)
        assert entry is None or len(set(entry.payload)) == 1
        time.sleep(0.001)
    for writer in writers:
        writer.join()
    assert len(cache.read(KEY).payload) in (10, 5000)
    assert [path.suffix for path in cache.folder.iterdir()] == [".entry"]

from __future__ import annotations

import os
import stat
from contextlib import ExitStack

import pytest

from videosr.errors import OutputError
from videosr.files import hold, write_atomically


def test_writing_where_one_cannot_leaves_nothing(tmp_path):
    with pytest.raises(OutputError, match="cannot be written"):
        write_atomically(tmp_path / "nowhere" / "file", b"data")
    (tmp_path / "folder").mkdir()
    with pytest.raises(OutputError, match="cannot be written"):
        write_atomically(tmp_path / "folder", b"data")
    assert [p.name for p in tmp_path.iterdir()] == ["folder"]


def test_what_was_there_is_replaced_whole(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    write_atomically(path, b"new")
    assert path.read_bytes() == b"new"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_the_longest_name_there_may_be(tmp_path):
    path = tmp_path / ("n" * 251 + ".png")
    write_atomically(path, b"data")
    assert path.read_bytes() == b"data"


@pytest.mark.skipif(os.name != "posix", reason="other systems have no such permissions")
@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o077, 0o600)])
def test_who_may_read_it_is_up_to_the_user(tmp_path, mask, mode):
    before = os.umask(mask)
    try:
        write_atomically(tmp_path / "file", b"data")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == mode


def test_a_file_is_held_by_one_and_keeps_what_is_in_it(tmp_path):
    pytest.importorskip("fcntl")
    path = tmp_path / "lock"
    path.write_bytes(b"content")
    with ExitStack() as first:
        hold(path, first)
        with pytest.raises(BlockingIOError), ExitStack() as second:
            hold(path, second)
    with ExitStack() as third:
        hold(path, third)
        assert path.read_bytes() == b"content"

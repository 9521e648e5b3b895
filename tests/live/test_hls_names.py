"""Segments of playlists whose names hold what means something in a URL, or to Python, or is no text at all."""

from __future__ import annotations

import os
from contextlib import closing
from pathlib import Path
from urllib.parse import unquote, urljoin, urlsplit

import av
import pytest
from clips import make_clip

from videosr.errors import OutputError
from videosr.live.outputs import HlsFolder
from videosr.live.segments import KEPT, Chunk, Segmenter
from videosr.live.timeline import TICKS

STEMS = [
    "plain",
    "Show #1",
    "a{b}",
    "{}",
    "{0}",
    "50%41",
    "q?x=1&y",
    "a:b",
    "a=3Ab",
    "50%",
    "~x",
    "日本 é",
    os.fsdecode(b"\xe9t\xe9"),
]


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> bytes:
    return make_clip(tmp_path_factory.mktemp("clips") / "clip.ts", frames=24).read_bytes()


def written(path: Path, data: bytes, count: int) -> list[str]:
    """The segments that are listed once so many have been made and the stream has ended."""
    folder = HlsFolder(path, Segmenter())
    for n in range(count):
        folder.take(Chunk(data, True, n * TICKS))
    folder.end()
    return [line for line in path.read_text().splitlines() if not line.startswith("#")]


@pytest.mark.parametrize("stem", STEMS, ids=ascii)
def test_players_find_the_segments_as_files_and_by_url(tmp_path, data, stem):
    path = tmp_path / f"{stem}.m3u8"
    names = written(path, data, 2)
    assert len(names) == 2
    for name in names:
        assert (tmp_path / name).read_bytes() == data
        url = urlsplit(urljoin("http://host/folder/live.m3u8", name))
        assert (url.netloc, url.query, url.fragment) == ("host", "", "")
        assert unquote(url.path) == f"/folder/{name}"
    (tmp_path / "live.m3u8").write_bytes(path.read_bytes())  # FFmpeg takes a colon in what it opens for a protocol
    with closing(av.open(str(tmp_path / "live.m3u8"))) as back:
        assert len(list(back.decode(video=0))) >= 24


def test_no_two_playlists_of_a_folder_share_segments_and_none_are_left_behind(tmp_path, data):
    listed = [name for stem in STEMS for name in written(tmp_path / f"{stem}.m3u8", data, KEPT + 5)]
    assert len(set(listed)) == len(listed)
    assert len(list(tmp_path.glob("*.ts"))) == KEPT * len(STEMS)


def full_at(tmp_path, data, number):
    """A folder of which that segment could not be written."""
    (tmp_path / f"live-{number}.ts").mkdir()
    folder = HlsFolder(tmp_path / "live.m3u8", Segmenter())
    for n in range(number + 1):
        folder.take(Chunk(data, True, n * TICKS))
    with pytest.raises(OutputError, match=rf"live-{number}\.ts: cannot be written"):
        folder.take(Chunk(data, True, (number + 1) * TICKS))
    return folder


def test_what_cannot_be_written_leaves_nothing_half_written(tmp_path, data):
    full_at(tmp_path, data, 1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["live-0.ts", "live-1.ts", "live.m3u8"]


def test_the_playlist_ends_before_a_segment_that_could_not_be_written(tmp_path, data):
    full_at(tmp_path, data, 2).end()
    lines = (tmp_path / "live.m3u8").read_text().splitlines()
    assert [line for line in lines if line.endswith(".ts")] == ["live-0.ts", "live-1.ts"]
    assert lines[-1] == "#EXT-X-ENDLIST"
    assert not (tmp_path / "live-3.ts").exists()


def test_segments_of_an_earlier_run_into_the_same_playlist_are_removed_and_nothing_else(tmp_path, data):
    written(tmp_path / "live.m3u8", data, 9)
    others = {"live-x.ts", "live-1.mkv", "other-1.ts", "xlive-1.ts"}
    for name in others:
        (tmp_path / name).touch()
    HlsFolder(tmp_path / "live.m3u8", Segmenter())
    assert {path.name for path in tmp_path.iterdir()} == others
    (tmp_path / "new-1.ts").touch()
    HlsFolder(tmp_path / "new.m3u8", Segmenter())
    assert (tmp_path / "new-1.ts").exists(), "no playlist says that it was ours"


def test_all_segments_of_a_whole_film_stay_and_are_listed(tmp_path, data):
    folder = HlsFolder(tmp_path / "film.m3u8", Segmenter(whole=True))
    for n in range(KEPT + 6):
        folder.take(Chunk(data, True, n * TICKS))
    assert "#EXT-X-PLAYLIST-TYPE:EVENT" in (tmp_path / "film.m3u8").read_text()
    folder.end(KEPT * TICKS + 6 * TICKS)
    lines = (tmp_path / "film.m3u8").read_text().splitlines()
    names = [line for line in lines if line.endswith(".ts")]
    assert names == [f"film-{n}.ts" for n in range(KEPT + 6)]
    assert all((tmp_path / name).read_bytes() == data for name in names)
    assert lines[-3:] == ["#EXTINF:1.000000,", f"film-{KEPT + 5}.ts", "#EXT-X-ENDLIST"]


def test_a_segment_outlasts_its_playlists(tmp_path, data):
    """Off the list it stays for its length and that of the longest playlist that had it (RFC 8216, 6.2.2)."""
    folder = HlsFolder(tmp_path / "live.m3u8", Segmenter())
    left: dict[str, int] = {}
    for n in range(3 * KEPT):
        folder.take(Chunk(data, True, n * TICKS))
        if n:
            listed = (tmp_path / "live.m3u8").read_text().splitlines()
            for name in {f"live-{k}.ts" for k in range(n)} - set(listed):
                left.setdefault(name, n)
            assert all((tmp_path / name).exists() for name, since in left.items() if n - since <= 6 + 1)

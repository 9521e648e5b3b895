"""The end of a source, as players of the page see it."""

from __future__ import annotations

import io
import re
import threading
import urllib.error
import urllib.request
from contextlib import suppress

import av
import pytest
from clips import make_clip

from videosr.live.options import ServeOptions, parse_target
from videosr.live.serve import Server
from videosr.media.live.source import SourceSpec

pytest.importorskip("aiohttp")


def test_players_come_to_the_end(tmp_path):
    """They are behind by segments, the last of which is complete only when nothing more comes."""
    clip = make_clip(tmp_path / "clip.mkv", frames=60, audio=[("aac", "eng")], options={"bf": "0"})
    wanted = ServeOptions(
        source=SourceSpec(url=str(clip)), targets=(parse_target("http://127.0.0.1:0/"),), latency=60, steps=False
    )
    said: list[str] = []
    server = Server(wanted, said.append)
    page = said[0].split()[1]
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        playlist = ""
        while "ENDLIST" not in playlist:
            with suppress(urllib.error.HTTPError):  # no segment yet
                playlist = urllib.request.urlopen(f"{page}upscaled.m3u8").read().decode()
        names = re.findall(r"upscaled/\d+\.ts", playlist)
        film = b"".join(urllib.request.urlopen(page + name).read() for name in names)
    finally:
        server.stop()
        thread.join()
    with av.open(io.BytesIO(film)) as back:
        assert len(list(back.decode(video=0))) == 60
    assert sum(map(float, re.findall(r"#EXTINF:([\d.]+)", playlist))) == pytest.approx(2.5, abs=0.1)
    assert "players to come to the end" in said[-2]
    assert said[-1].startswith("60 frames in, 60 out")

"""Sources whose sender begins anew in mid-stream: other identifiers (PIDs), another coding."""

from __future__ import annotations

import os
import re
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import av
import pytest
from clips import make_clip

from videosr.live import intake, serve
from videosr.live.options import ServeOptions, parse_target
from videosr.live.segments import Segmenter
from videosr.live.serve import Server
from videosr.media.live import input as live_input
from videosr.media.live import source as live_source
from videosr.media.live.input import LiveInput, Picture, Sound
from videosr.media.live.source import InputLost, SourceSpec
from videosr.options import UpscaleOptions


def transport(path: Path, codec: str = "libx264", **muxer: str) -> bytes:
    """Two seconds of MPEG-TS with sound."""
    whole = make_clip(
        path.with_suffix(".mkv"), frames=48, codec=codec, audio=[("aac", "eng")], options={"g": "12", "bf": "0"}
    )
    with av.open(str(whole)) as source, av.open(str(path), "w", format="mpegts", container_options=muxer) as out:
        streams = {s.index: out.add_stream_from_template(s, opaque=True) for s in source.streams}
        for packet in source.demux():
            if packet.dts is not None:
                packet.stream = streams[packet.stream_index]
                out.mux(packet)
    return path.read_bytes()


@contextmanager
def sender(first: bytes, then: bytes | None, pause: float = 0) -> Iterator[str]:
    """The address of one who sends the first once, and the other again and again, seconds apart.

    Without another, they hang up, send the first again to who comes next, and then nothing.
    """
    clients: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def send() -> None:
            with suppress(OSError):
                client, _ = server.accept()
                clients.append(client)
                with client:
                    client.sendall(first)
                    while then is not None:
                        time.sleep(pause)
                        client.sendall(then)
                client, _ = server.accept()
                clients.append(client)
                client.sendall(first)

        thread = threading.Thread(target=send, daemon=True)
        thread.start()
        yield f"tcp://127.0.0.1:{server.getsockname()[1]}"
        with suppress(OSError):
            server.shutdown(socket.SHUT_RDWR)  # nobody else is waited for
        for client in clients:
            with suppress(OSError), client:  # it has been closed
                client.shutdown(socket.SHUT_RDWR)
    thread.join()


def test_a_stream_goes_on_under_other_identifiers(tmp_path):
    both = transport(tmp_path / "a.ts") + transport(tmp_path / "b.ts", mpegts_start_pid="512")
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    threading.Thread(target=lambda: pipe.write_bytes(both), daemon=True).start()
    with closing(LiveInput(SourceSpec(url=str(pipe)))) as source:
        events = list(source)
    assert sum(isinstance(event, Picture) for event in events) >= 94  # of 96, some cut where the parts join
    assert sum(isinstance(event, Sound) for event in events) > 180


def to_playlist(url: str, playlist: Path) -> Server:
    """What serves that source there, and drops no frame."""
    wanted = ServeOptions(
        source=SourceSpec(url=url),
        targets=(parse_target(str(playlist)),),
        upscale=UpscaleOptions(model="light-2x"),
        latency=60,
        steps=False,
    )
    return Server(wanted, lambda _: None)


def test_dates_in_playlists_leap_over_the_time_that_a_source_was_away(tmp_path, monkeypatch):
    """The times of the output go on without a gap: dates by them alone would fall behind with each."""
    clock = SimpleNamespace(time=lambda: time.time() + 100, monotonic=time.monotonic)
    monkeypatch.setattr(intake, "time", clock)  # as if it had been away that long
    monkeypatch.setattr(live_source, "READ_TIMEOUT", 1.0)
    playlist = tmp_path / "live.m3u8"
    data = transport(tmp_path / "a.ts")
    with sender(data, None) as url:
        server = to_playlist(url, playlist)
        with ThreadPoolExecutor(1) as pool:
            running = pool.submit(server.run)
            while server.intake.losses < 2 and not running.done():
                time.sleep(0.01)
            server.stop()
            running.result()
    listed = re.findall("DATE-TIME:(.*)", playlist.read_text())
    dates = [datetime.fromisoformat(date).timestamp() for date in listed]
    leaps = [after - before for before, after in pairwise(dates)]
    assert sum(leap > 90 for leap in leaps) == 1, "once, though it is away again at the end"
    assert max(leap for leap in leaps if leap < 90) < 1.5


def pictures_until_lost(source: LiveInput, why: str) -> int:
    """How many come before a source is lost for that reason."""
    pictures: list[Picture] = []
    with pytest.raises(InputLost, match=why):
        pictures.extend(event for event in source if isinstance(event, Picture))
    return len(pictures)


def test_a_source_is_lost_if_all_that_comes_is_of_other_streams(tmp_path, monkeypatch):
    """The programme's table has moved too, so that nothing says which stream has become which."""
    monkeypatch.setattr(live_source, "READ_TIMEOUT", 1.0)
    first = transport(tmp_path / "a.ts")
    then = transport(tmp_path / "b.ts", mpegts_start_pid="512", mpegts_pmt_start_pid="4112")
    with sender(first, then) as url, closing(LiveInput(SourceSpec(url=url))) as source:
        assert pictures_until_lost(source, "nothing of its streams for 1 s") >= 45


def test_a_source_is_lost_if_another_coding_takes_the_place_of_the_first(tmp_path, monkeypatch):
    monkeypatch.setattr(live_input, "READ_TIMEOUT", 0.5)
    first, then = transport(tmp_path / "a.ts"), transport(tmp_path / "b.ts", "libx265")
    with sender(first, then) as url, closing(LiveInput(SourceSpec(url=url))) as source:
        assert pictures_until_lost(source, "no picture for 0 s") >= 45
        assert source.damaged > 0


def test_of_a_file_damage_of_any_length_is_passed(tmp_path, monkeypatch):
    monkeypatch.setattr(live_input, "READ_TIMEOUT", 0.0)
    path = tmp_path / "whole.ts"
    first = transport(tmp_path / "a.ts")
    path.write_bytes(first + transport(tmp_path / "b.ts", "libx265") + first)
    with closing(LiveInput(SourceSpec(url=str(path)))) as source:
        assert sum(isinstance(event, Picture) for event in source) >= 95
        assert source.damaged > 0


def test_dates_in_playlists_are_those_at_which_pictures_came(tmp_path, monkeypatch):
    measured: list[float] = []
    epochs: list[float] = []

    def segmenter(epoch, *arguments, **options):
        epochs.append(epoch)
        return Segmenter(epoch, *arguments, **options)

    monkeypatch.setattr(serve, "Segmenter", segmenter)

    def warm_up(*arguments):
        measured.append(time.time())
        return real(*arguments)

    real = serve.warm_up
    monkeypatch.setattr(serve, "warm_up", warm_up)
    playlist = tmp_path / "live.m3u8"
    data = transport(tmp_path / "a.ts")
    with sender(data, data, 1.0) as url:  # or there would be much to enlarge before it has stopped
        server = to_playlist(url, playlist)
        with ThreadPoolExecutor(1) as pool:
            running = pool.submit(server.run)
            while not playlist.exists():
                time.sleep(0.01)
            found = re.search("#EXT-X-PROGRAM-DATE-TIME:(.*)", playlist.read_text())
            server.stop()
            running.result()
    assert found is not None
    assert epochs[0] <= measured[0]
    assert datetime.fromisoformat(found[1]).timestamp() >= epochs[0] - 0.001  # of the first segment that is listed

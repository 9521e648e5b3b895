"""Sources from the network: connections that break, senders that are waited for, cameras that give no times."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import av
import av.error
import pytest
from clips import make_clip

from videosr.errors import InputError
from videosr.live.options import ServeOptions, parse_target
from videosr.live.serve import Server
from videosr.media.live import source as live_source
from videosr.media.live.input import LiveInput, Picture
from videosr.media.live.source import InputLost, SourceSpec
from videosr.options import UpscaleOptions


@contextmanager
def breaking(data: bytes, *, ranges: bool) -> Iterator[str]:
    """The address of a file whose connection breaks in the middle of the file, and what asks for the rest may have it.

    Args:
        data: of the file.
        ranges: the rest is given, and whole; otherwise all begins anew, and breaks again.
    """

    class Breaking(BaseHTTPRequestHandler):
        def do_GET(self):
            begin = int(self.headers.get("Range", "bytes=0-")[6:].split("-")[0]) if ranges else 0
            self.send_response(206 if begin else 200)
            self.send_header("Content-Length", str(len(data) - begin))
            if ranges:
                self.send_header("Accept-Ranges", "bytes")
            if begin:
                self.send_header("Content-Range", f"bytes {begin}-{len(data) - 1}/{len(data)}")
            self.end_headers()
            self.wfile.write(data[begin:] if begin else data[: len(data) // 2])

        def log_message(self, *args):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Breaking) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/film.ts"
        server.shutdown()


def test_a_file_whose_connection_breaks_is_asked_for_from_there_on(tmp_path):
    data = make_clip(tmp_path / "in.ts", frames=96, options={"crf": "1"}).read_bytes()
    with breaking(data, ranges=True) as url, closing(LiveInput(SourceSpec(url=url))) as source:
        assert not source.live
        assert sum(isinstance(event, Picture) for event in source) == 96


def test_a_file_that_cannot_be_read_to_its_end_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(live_source, "READ_TIMEOUT", 1.0)
    data = make_clip(tmp_path / "in.ts", frames=96, options={"crf": "1"}).read_bytes()
    playlist = tmp_path / "out.m3u8"
    with breaking(data, ranges=False) as url:
        wanted = ServeOptions(
            source=SourceSpec(url=url),
            targets=(parse_target(str(playlist)),),
            upscale=UpscaleOptions(model="light-2x"),
        )
        server = Server(wanted, lambda _: None)
        with pytest.raises(InputError, match=r"film\.ts: .*, before its end; get the file first, and serve that"):
            server.run()
    assert "#EXT-X-ENDLIST" in playlist.read_text()
    assert server.ledger.account.delivered == server.ledger.account.taken > 0


def test_pictures_of_a_camera_that_says_no_times_have_those_of_their_coming(tmp_path):
    """FFmpeg gives them times of 25 a second, whatever the camera sends: of ten a second players would run dry."""
    clip = make_clip(tmp_path / "in.mkv", frames=40, codec="mjpeg", options={"strict": "unofficial"})
    with av.open(str(clip)) as container:
        pictures = [bytes(packet) for packet in container.demux(video=0) if packet.size]
    sent: list[float] = []

    class Camera(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
            self.end_headers()
            for picture in pictures:
                sent.append(time.monotonic())
                head = b"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n" % len(picture)
                self.wfile.write(head + picture + b"\r\n")

        def log_message(self, *args):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Camera) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        times: list[float] = []
        source = LiveInput(SourceSpec(url=f"http://127.0.0.1:{server.server_port}/"))
        with closing(source), pytest.raises(InputLost):
            times.extend(float(event.frame.time) for event in source if isinstance(event, Picture))
        server.shutdown()
    assert len(times) >= 39
    assert times == sorted(times)
    assert all(begun <= came <= time.monotonic() for begun, came in zip(sent, times, strict=False))


def test_who_sends_by_rtsp_is_waited_for(tmp_path):
    clip = make_clip(tmp_path / "in.mkv", frames=48, options={"bf": "0"})
    with socket.create_server(("127.0.0.1", 0)) as free:
        url = f"rtsp://127.0.0.1:{free.getsockname()[1]}/live"
    spec = SourceSpec(url=url, options=(("rtsp_flags", "listen"),))

    def push() -> None:
        with av.open(str(clip)) as source, connected(url) as out:
            stream = out.add_stream_from_template(source.streams.video[0], opaque=True)
            for packet in source.demux(video=0):
                if packet.size:
                    packet.stream = stream
                    out.mux(packet)

    with ThreadPoolExecutor(1) as pool:
        listening = pool.submit(LiveInput, spec)
        while not listening.done():
            try:
                push()
                break
            except (av.error.FFmpegError, OSError):  # it does not listen yet
                time.sleep(0.05)
        with closing(listening.result()) as source:
            assert (source.live, source.info.width) == (True, 64)


def connected(url: str) -> av.container.OutputContainer:
    """What is sent there by RTSP."""
    return av.open(url, "w", format="rtsp", container_options={"rtsp_transport": "tcp"})


def test_a_source_from_which_nothing_comes_is_said_to(monkeypatch):
    monkeypatch.setattr(live_source, "OPEN_TIMEOUT", 1.0)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", 0))
        url = f"udp://127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(InputLost, match="nothing came for 1 s"):
        LiveInput(SourceSpec(url=url))


def pictures_of(path: Path) -> int:
    """How many a file holds."""
    with av.open(str(path)) as container:
        return sum(1 for packet in container.demux(video=0) if packet.size)


def test_a_playlist_that_stands_still_is_not_shown_again(tmp_path, monkeypatch):
    """Who connects is given its last segments anew, each time."""
    monkeypatch.setattr(live_source, "SEGMENT_TIMEOUT", 1.0)
    clip = make_clip(tmp_path / "in.mkv", frames=144, options={"g": "24", "bf": "0"})
    folder = tmp_path / "sender"
    folder.mkdir()
    with (
        av.open(str(clip)) as whole,
        av.open(
            str(folder / "all.m3u8"), "w", format="hls", container_options={"hls_time": "1", "hls_list_size": "0"}
        ) as out,
    ):
        stream = out.add_stream_from_template(whole.streams.video[0], opaque=True)
        for packet in whole.demux(video=0):
            if packet.size:
                packet.stream = stream
                out.mux(packet)
    assert sorted(path.name for path in folder.glob("*.ts")) == [f"all{n}.ts" for n in range(6)]

    def publish(first: int) -> None:
        lines = ["#EXTM3U", "#EXT-X-VERSION:3", "#EXT-X-TARGETDURATION:1", f"#EXT-X-MEDIA-SEQUENCE:{first}"]
        for number in range(first, first + 3):
            lines += ["#EXTINF:1.0,", f"all{number}.ts"]
        (folder / "new").write_text("\n".join(lines) + "\n")
        (folder / "new").replace(folder / "live.m3u8")

    asked: list[str] = []

    class Files(SimpleHTTPRequestHandler):
        def log_request(self, *args):
            asked.append(self.path)

    said: list[str] = []
    publish(0)
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Files, directory=str(folder))) as http:
        threading.Thread(target=http.serve_forever, daemon=True).start()
        wanted = ServeOptions(
            source=SourceSpec(url=f"http://127.0.0.1:{http.server_port}/live.m3u8"),
            targets=(parse_target(str(tmp_path / "out.m3u8")),),
            upscale=UpscaleOptions(model="light-2x"),
            latency=60,
            steps=False,
        )
        server = Server(wanted, said.append)
        with ThreadPoolExecutor(1) as pool:
            running = pool.submit(server.run)
            while asked.count("/all0.ts") < 4 and not running.done():
                time.sleep(0.05)
            before = server.ledger.account.taken
            publish(3)
            while server.ledger.account.taken < before + 48 and not running.done():
                time.sleep(0.05)
            server.stop()
            account = running.result()
        http.shutdown()
    shown = sum(pictures_of(folder / f"all{number}.ts") for number in range(3))
    assert (before, account.taken <= 144) == (shown, True)
    assert sum("source is back" in line for line in said) == 1

"""videosr serve as a command: what it refuses, its standard output, and signals before anything has begun."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import av
import numpy as np
import pytest
from clips import make_clip
from corpus.hdr import barred, dolby, hdr10_plus, with_units, x265
from television import television

from videosr.errors import OutputError, UsageError
from videosr.live.options import ServeOptions, parse_target
from videosr.live.outputs import PATIENCE
from videosr.live.serve import Server
from videosr.media.live.demuxer_options import others_option
from videosr.media.live.input import LiveInput, Picture
from videosr.media.live.source import SourceSpec


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    return make_clip(tmp_path_factory.mktemp("clips") / "clip.mkv", frames=12)


@pytest.mark.parametrize("pix_fmt", ["yuv440p", "yuva420p"])
def test_pictures_that_y4m_has_no_form_for_are_refused_at_once(tmp_path, videosr, pix_fmt):
    path = make_clip(tmp_path / "in.mkv", frames=3, pix_fmt=pix_fmt, codec="ffv1")
    os.mkfifo(tmp_path / "pipe")
    for before in ((), ("-o", f"nut:{tmp_path}/pipe")):
        refused = videosr("serve", path, *before, "-o", "y4m:-")
        assert (refused.code, refused.out) == (2, "")
        assert refused.err.splitlines()[-1] == (
            f"videosr: -o: y4m has no form for pictures in {pix_fmt}; give nut: before the pipe's name, as in nut:-"
        )


@pytest.mark.skipif(sys.platform == "win32", reason="there all names pass")
def test_options_of_the_source_that_nobody_knows_are_refused(clip, tmp_path, videosr):
    refused = videosr("serve", clip, "-i", "probsize=1000000", "-o", tmp_path / "out.m3u8")
    assert (refused.code, list(tmp_path.iterdir())) == (2, [])
    assert refused.err == ("videosr: -i probsize: FFmpeg has no such option for reading; `ffmpeg -h full` lists them\n")
    with pytest.raises(UsageError, match=r"-i fps: .*`ffmpeg -h demuxer=v4l2`"):
        ServeOptions(source=SourceSpec(url="/dev/video0", format="v4l2", options=(("fps", "25"),)))
    of_all = {"probesize", "fflags", "protocol_whitelist"}
    of_protocols = {"user_agent", "headers", "rw_timeout", "listen", "reorder_queue_size"}
    of_demuxers = {"rtsp_transport", "live_start_index", "framerate", "input_format", "graph"}
    ServeOptions(source=SourceSpec(url="in.mkv", options=tuple((n, "1") for n in of_all | of_protocols | of_demuxers)))


@pytest.mark.skipif(sys.platform == "win32", reason="there all names pass")
def test_options_of_other_demuxers_are_refused_and_those_of_protocols_are_not(clip, tmp_path, videosr):
    refused = videosr("serve", clip, "-i", "fflags=genpts", "-i", "rtsp_transport=udp", "-o", tmp_path / "out.m3u8")
    assert (refused.code, list(tmp_path.iterdir())) == (2, [])
    assert refused.err.splitlines() == [
        f"videosr: -i rtsp_transport: {clip} is read by the demuxer matroska,webm, which has no such option (it is one "
        "of: RTSP demuxer); `ffmpeg -h demuxer=matroska` lists them"
    ]
    for name, demuxer in {
        "user_agent": "hls",  # of HTTP
        "live_start_index": "hls",
        "timeout": "mpegts",  # of several protocols
        "rtsp_flags": "rtsp",
        "probesize": "mov,mp4,m4a,3gp,3g2,mj2",  # of all
        "ignore_editlist": "mov,mp4,m4a,3gp,3g2,mj2",
        "graph": "lavfi",
    }.items():
        assert others_option(name, demuxer) == []
    assert "rawvideo demuxer" in others_option("framerate", "flv")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no /dev/full")
@pytest.mark.parametrize("form", ["y4m", "nut"])
def test_a_full_disk_is_told_from_a_reader_that_has_gone(clip, form):
    with Path("/dev/full").open("wb") as full:
        command = [sys.executable, "-m", "videosr", "serve", str(clip), "-o", f"{form}:-"]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1
    assert f"{form}:-: cannot be written: No space left on device; free some space" in done.stderr


@pytest.mark.parametrize("frames", [1, 3])
def test_a_short_film_waits_for_the_reader_of_a_pipe(tmp_path, frames):
    """All of it fits into the queues, so the work is done long before somebody reads."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    source = make_clip(tmp_path / "in.mkv", frames=frames)
    server = Server(ServeOptions(source=SourceSpec(url=str(source)), targets=(parse_target(f"y4m:{pipe}"),)), print)
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(server.run)
        assert server.pipeline.ended.wait(60)
        time.sleep(0.5)
        assert not running.done()
        data = pipe.read_bytes()
        running.result()
    assert data.count(b"FRAME\n") == frames
    assert len(data) > frames * 128 * 96 * 3 // 2


def test_the_last_frames_wait_for_a_reader_that_stalls(tmp_path):
    source = make_clip(tmp_path / "in.mkv", frames=12, width=128, height=96)
    command = [sys.executable, "-m", "videosr", "serve", str(source), "-o", "-"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    head = process.stdout.read(8 * 256 * 192 * 3 // 2)
    time.sleep(PATIENCE + 2)  # what is left fits into the queue, and not into a pipe
    rest, errors = process.communicate()
    assert process.returncode == 0, errors
    assert (head + rest).count(b"FRAME\n") == 12


def test_a_pipe_that_nobody_has_read_is_a_failure_only_at_the_end(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    source = make_clip(tmp_path / "in.mkv", frames=3)
    wanted = ServeOptions(
        source=SourceSpec(url=str(source)), targets=(parse_target(f"y4m:{tmp_path}/pipe"),), paced=True, latency=5
    )
    with pytest.raises(OutputError, match="could not be reached until the end, nothing was sent there"):
        Server(wanted, print).run()


@pytest.mark.parametrize("data", [b"", b"no film" * 100])
def test_standard_input_without_a_stream_is_refused(data):
    command = [sys.executable, "-m", "videosr", "serve", "-", "-o", "nut:-"]
    done = subprocess.run(command, input=data, capture_output=True)
    assert (done.returncode, done.stdout) == (1, b"")
    assert b"videosr: -: is empty, or not a stream that FFmpeg can read; --format names one" in done.stderr


def test_standard_output_that_is_closed_is_named(clip, videosr, monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    closed = videosr("serve", clip, "-o", "-")
    assert (closed.code, "standard output is closed" in closed.err) == (2, True)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 0)])
def test_signals_end_it_while_it_waits_for_its_source(tmp_path, number, code):
    with socket.socket() as nobody:  # bound and not listening: the port stays free of others
        nobody.bind(("127.0.0.1", 0))
        source = f"tcp://127.0.0.1:{nobody.getsockname()[1]}"
        command = [sys.executable, "-m", "videosr", "serve", source, "-o", str(tmp_path / "a.m3u8")]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        assert "waiting for it" in process.stderr.readline()
        process.send_signal(number)
        _, errors = process.communicate()
    assert process.returncode == code, errors
    assert "Traceback" not in errors


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 0)])
@pytest.mark.parametrize("source", ["udp://127.0.0.1:{}", "tcp://127.0.0.1:{}?listen=1"])
def test_signals_end_it_though_ffmpeg_takes_them_for_an_error(source, number, code):
    """In the middle of opening a source that says nothing."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", 0))
        source = source.format(free.getsockname()[1])
    command = [sys.executable, "-m", "videosr", "serve", source, "-o", "tcp://127.0.0.1:0"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert "MPEG-TS: tcp://" in process.stderr.readline()
    time.sleep(1)
    process.send_signal(number)
    _, errors = process.communicate()
    assert process.returncode == code, errors
    assert "Traceback" not in errors


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 0)])
@pytest.mark.parametrize("begun", [b"", b"YUV4MPEG2 W64 H48 F24:1 C420jpeg\nFRAME\n"])
def test_signals_end_it_while_its_pipe_is_silent(begun, number, code):
    """Before anything has come, and in the middle of the first frame."""
    command = [sys.executable, "-m", "videosr", "serve", "-", "-o", "tcp://127.0.0.1:0"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        process.stdin.write(begun)
        process.stdin.flush()
        assert b"MPEG-TS: tcp://" in process.stderr.readline()
        time.sleep(1)
        process.send_signal(number)
        assert process.wait(120) == code  # else it waits for ever
        assert b"Traceback" not in process.stderr.read()
    finally:
        process.kill()
        process.communicate()


class Silent(BaseHTTPRequestHandler):
    """A file as servers give it that know nothing of byte ranges."""

    path_of_file: ClassVar[Path]

    def do_GET(self):
        data = self.path_of_file.read_bytes()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args):
        pass


def test_a_whole_file_over_http_ends(tmp_path):
    Silent.path_of_file = make_clip(tmp_path / "in.ts", frames=12)
    with ThreadingHTTPServer(("127.0.0.1", 0), Silent) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        source = LiveInput(SourceSpec(url=f"http://127.0.0.1:{server.server_port}/in.ts"))
        assert not source.live
        assert sum(isinstance(event, Picture) for event in source) == 12
        source.close()
        server.shutdown()


def test_what_players_will_miss_is_named(tmp_path):
    (folder := tmp_path / "a").mkdir()
    source = LiveInput(SourceSpec(url=str(with_units(folder, x265, hdr10_plus))))
    assert source.losses == ["HDR10+ dynamic metadata"]
    source.close()
    source = LiveInput(SourceSpec(url=str(dolby(tmp_path, 5, 0, barred))))
    assert source.losses == ["Dolby Vision metadata, without which its colours are wrong,"]
    source.close()


@pytest.mark.parametrize(
    ("source", "target"), [("udp://127.0.0.1:99999", "-"), ("clip.mkv", "udp://127.0.0.1:0"), ("tcp://h:x", "-")]
)
def test_ports_that_are_none_are_refused(source, target):
    with pytest.raises(UsageError, match=r"[Pp]ort|is no address"):
        ServeOptions(source=SourceSpec(url=source), targets=(parse_target(target),))


def test_a_film_is_served_to_its_end_though_its_sound_changes(tmp_path):
    source, frames = television(tmp_path / "in.ts", [("stereo", 48000, 30), ("5.1", 48000, 30), ("mono", 44100, 30)])
    playlist = tmp_path / "live.m3u8"
    account = Server(
        ServeOptions(source=SourceSpec(url=str(source)), targets=(parse_target(str(playlist)),), steps=False), print
    ).run()
    assert account.delivered == frames
    with av.open(str(playlist)) as back:
        sound = list(back.decode(audio=0))
    seconds = sum(frame.samples for frame in sound) / sound[0].sample_rate
    assert seconds == pytest.approx(frames / 25, abs=0.06)
    assert np.diff([float(frame.pts * frame.time_base) for frame in sound]).max() < 0.03


def test_sound_that_rtmp_has_no_room_for_is_converted(tmp_path):
    source, _ = television(tmp_path / "in.ts", [("stereo", 48000, 120)], codec="mp2")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"rtmp://127.0.0.1:{free.getsockname()[1]}/live/key"

    def receive() -> list[str]:
        with av.open(url, format="flv", container_options={"listen": "1"}, timeout=60) as back:
            return [stream.codec_context.name for stream in back.streams]

    with ThreadPoolExecutor(1) as pool:
        received = pool.submit(receive)
        Server(
            ServeOptions(source=SourceSpec(url=str(source)), targets=(parse_target(url),), latency=60, steps=False),
            print,
        ).run()
        assert received.result() == ["h264", "aac"]

"""What fails while a stream is served: it ends what it must end, with an error, and nothing else."""

from __future__ import annotations

import os
import re
import socket
import threading
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from urllib.parse import urlsplit

import av
import numpy as np
import pytest
from clips import make_clip

from videosr.errors import EngineError, OutputError
from videosr.frame import PixelFormat, StreamInfo
from videosr.live.options import ServeOptions, parse_target
from videosr.live.outputs import Push
from videosr.live.serve import Server
from videosr.live.timeline import TIME_BASE
from videosr.media.decoder import Decoder
from videosr.media.live import output as live_output
from videosr.media.live.codec import Coded, LiveEncoder, Template, VideoSettings
from videosr.media.live.source import SourceSpec
from videosr.options import UpscaleOptions


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    """Two seconds with sound."""
    path = tmp_path_factory.mktemp("clips") / "clip.mkv"
    return make_clip(path, frames=48, audio=[("aac", "eng")])


def serve(source: Path, *targets: str, **more) -> tuple[Server, list[str]]:
    """A server that is yet to run, and what it says."""
    said: list[str] = []
    wanted = tuple(parse_target(target) for target in targets)
    options = ServeOptions(source=SourceSpec(url=str(source)), targets=wanted, latency=60, steps=False, **more)
    return Server(options, said.append), said


def brightening(path: Path) -> Path:
    """Half a second of dark pictures, then bright ones."""
    with av.open(str(path), "w") as out:
        stream = out.add_stream("ffv1", rate=24)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for n in range(48):
            planes = np.full((72, 64), 40 if n < 12 else 230, np.uint8)
            planes[48:] = 128
            frame = av.VideoFrame.from_ndarray(planes, format="yuv420p")
            frame.pts, frame.time_base = n, Fraction(1, 24)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path


def test_a_network_that_fails_with_several_frames_under_way_ends_the_stream(tmp_path, paragon):
    """Each bright picture fails, and is tried once more before, so that others wait behind the first."""
    from test_nan import doctored

    network = doctored(paragon.deploy, tmp_path / "nan.onnx", "nan")
    source = brightening(tmp_path / "in.mkv")
    server, said = serve(source, str(tmp_path / "live.m3u8"), upscale=UpscaleOptions(model=str(network)))
    with pytest.raises(EngineError, match="gives NaN"):
        server.run()
    account = server.ledger.account
    assert account.delivered == 12
    assert account.under_way <= 1, "the one that failed"
    assert "12 out" in said[-1]
    with av.open(str(tmp_path / "live.m3u8")) as back:
        assert len(list(back.decode(video=0))) == 12


def test_whatever_fails_in_the_thread_that_reads_is_raised(tmp_path, clip):
    server, _ = serve(clip, str(tmp_path / "live.m3u8"))

    def fail(coded):
        raise ValueError("no such layout")

    server.intake._sound = fail
    with pytest.raises(ValueError, match="no such layout"):
        server.run()
    assert not server.intake.connected


def test_what_fails_at_the_end_is_an_error(tmp_path, clip):
    """The last segment is written when nothing more comes."""
    (tmp_path / "live-1.ts").mkdir()
    server, said = serve(clip, str(tmp_path / "live.m3u8"))
    with pytest.raises(OutputError, match="no output is left"):
        server.run()
    assert [line for line in said if "cannot be written" in line and "live-1.ts" in line] == said[-2:-1]


def test_what_outputs_have_lost_is_in_the_last_line(tmp_path, clip):
    with socket.create_server(("127.0.0.1", 0)) as away:
        address = f"rtmp://127.0.0.1:{away.getsockname()[1]}"
    server, said = serve(clip, f"{address}/live/x", str(tmp_path / "live.m3u8"))
    server.run()
    (last,) = [line for line in said if "frames in" in line]
    assert re.search(rf"; {address} lost 48 pictures and \d+ packets of sound; latency", last)


def test_a_peer_that_takes_nothing_is_said_to(tmp_path, clip, monkeypatch):
    monkeypatch.setattr(live_output, "TIMEOUT", 1.0)
    template = Template()
    info = StreamInfo(width=64, height=48, format=PixelFormat.parse("yuv420p"), time_base=TIME_BASE, rate=Fraction(24))
    LiveEncoder(info, VideoSettings(), template)
    template.settle()
    with socket.create_server(("127.0.0.1", 0)) as peer:
        url = f"tcp://127.0.0.1:{peer.getsockname()[1]}"
        container = av.open(url, "w", format="mpegts", timeout=(1.0, 1.0))
        muxer = live_output.Muxer(container, template)
        picture = b"\0\0\0\1\x65" + bytes(100_000)
        with pytest.raises(OutputError, match=r"^took nothing for 1 s$"):
            deque((muxer.write(Coded(True, picture, 3750 * n, 3750, True, 0.0)) for n in range(1000)), maxlen=0)


# -- the page's process ---------------------------------------------------------------------------------------


@pytest.fixture
def halting(tmp_path) -> Iterator[tuple[Path, threading.Event]]:
    """A source of 60 pictures that stops in the middle until it is told to go on."""
    pipe, going_on = tmp_path / "source", threading.Event()
    os.mkfifo(pipe)
    clip = make_clip(tmp_path / "in.y4m", frames=60, codec="wrapped_avframe", time_base=Fraction(1, 24))
    data = clip.read_bytes()
    parts = [data[: len(data) // 2], data[len(data) // 2 :]]

    def write() -> None:
        with pipe.open("wb") as writer:
            writer.write(parts.pop(0))
            writer.flush()
            going_on.wait()
            writer.write(parts.pop(0) if parts else b"")

    threading.Thread(target=write, daemon=True).start()
    yield pipe, going_on
    parts.clear()  # nobody may read them any more
    going_on.set()


@contextmanager
def compared(server: Server, said: list[str]) -> Iterator[None]:
    """Somebody compares the source with the upscaled stream."""
    page = urlsplit(said[0].split()[1])
    with socket.create_connection((page.hostname, page.port)) as viewer:
        viewer.sendall(b"GET /source.m3u8 HTTP/1.1\r\nHost: x\r\n\r\n")
        while not server._front.wanted:
            time.sleep(0.01)
        yield


def test_the_end_of_the_pages_process_costs_the_other_outputs_nothing(tmp_path, halting):
    source, going_on = halting
    server, said = serve(source, "http://127.0.0.1:0", "tcp://127.0.0.1:0", str(tmp_path / "live.m3u8"), paced=False)
    with ThreadPoolExecutor(1) as pool, compared(server, said):
        running = pool.submit(server.run)
        while server.ledger.account.delivered < 10:
            time.sleep(0.01)
        server._front._process.kill()
        server._front._process.join()
        going_on.set()
        account = running.result()
    assert (account.taken, account.delivered, account.under_way) == (60, 60, 0)
    lost = "http://127.0.0.1:0, tcp://127.0.0.1:0: the server process has ended; start videosr again"
    assert [line for line in said if "ended" in line or "shown" in line] == [lost]
    with av.open(str(tmp_path / "live.m3u8")) as back:
        assert len(list(back.decode(video=0))) == 60


def test_a_stream_that_has_nothing_but_the_page_ends_with_its_process_though_nothing_comes(halting):
    source, _ = halting
    server, said = serve(source, "http://127.0.0.1:0", paced=False)
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(server.run)
        while server._outputs[0].written < 29:  # all that comes
            time.sleep(0.01)
        server._front._process.kill()
        with pytest.raises(OutputError, match="no output is left"):
            running.result()
    assert sum("the server process has ended" in line for line in said) == 1


def test_the_source_beside_the_stream_ends_nothing_but_itself(clip):
    """Its queue is closed, as after an error of its encoder."""
    server, said = serve(clip, "http://127.0.0.1:0", paced=False)
    server._side._queue.close()
    with compared(server, said):
        account = server.run()
    assert (account.taken, account.delivered) == (48, 48)
    assert "48 out" in said[-1]


# -- pushes that can never be taken ---------------------------------------------------------------------------


@pytest.mark.parametrize(("codec", "rate"), [("mp2", 48000), ("libmp3lame", 32000)])
def test_sound_that_rtmp_has_no_form_for_ends_that_push_and_says_so_once(tmp_path, clip, codec, rate):
    """The one is refused when its stream is added, the other when the header is written."""
    template = Template()
    info = StreamInfo(width=64, height=48, format=PixelFormat.parse("yuv420p"), time_base=TIME_BASE, rate=Fraction(24))
    encoder = LiveEncoder(info, VideoSettings(), template)
    sound(tmp_path / "sound.mkv", codec, rate)
    with av.open(str(tmp_path / "sound.mkv")) as source, Decoder(clip) as decoder:
        template.audio = template.add_copy(source.streams.audio[0])
        template.settle()
        said: list[str] = []
        url = "rtmp://127.0.0.1:9/live/SECRET"
        push = Push("rtmp://127.0.0.1:9", url, template, wait=False, say=said.append, stop=threading.Event())
        push.start()
        for number, frame in enumerate(decoder):
            for coded in encoder.encode(replace(frame, pts=3750 * number), time.monotonic()):
                push.put(coded)
        push.gone.wait()
        push.finish()
    assert said == []
    assert re.fullmatch(
        r"rtmp://127\.0\.0\.1:9: RTMP has no form for this sound: .*; give another output", str(push.error)
    )
    assert (push.taken, push.written, push.dropped) == (48, 0, 48)


def sound(path: Path, codec: str, rate: int) -> None:
    """A tenth of a second of silence."""
    with av.open(str(path), "w") as out:
        stream = out.add_stream(codec, rate=rate)
        stream.codec_context.layout = "mono"
        for n in range(10):
            frame = av.AudioFrame(format=stream.codec_context.format.name, layout="mono", samples=1152)
            for plane in frame.planes:
                plane.update(bytes(plane.buffer_size))
            frame.sample_rate, frame.pts, frame.time_base = rate, n * 1152, Fraction(1, rate)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))


def test_pictures_that_are_lost_to_damage_are_told_at_the_end(tmp_path):
    whole = make_clip(tmp_path / "whole.mkv", frames=24, codec="mjpeg", color=(5, 2, 2, 2, 0))
    with av.open(str(whole)) as source, av.open(str(tmp_path / "damaged.mkv"), "w") as out:
        stream = out.add_stream_from_template(source.streams.video[0])
        for n, packet in enumerate(p for p in source.demux(video=0) if p.size):
            written = av.Packet(bytes(200)) if n in (7, 8, 15) else packet
            written.pts, written.dts, written.time_base = packet.pts, packet.dts, packet.time_base
            written.stream = stream
            out.mux(written)
    server, said = serve(tmp_path / "damaged.mkv", str(tmp_path / "live.m3u8"))
    assert server.run().delivered == 21
    assert "21 frames in, 21 out, 0 dropped; 3 damaged packets of the source gave no frame" in said[-1]

"""Streams served for real: files, pipes and sockets in, every kind of output read back with PyAV."""

from __future__ import annotations

import io
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from clips import make_clip

from videosr.errors import InputError, OutputError, UsageError
from videosr.frame import PixelFormat
from videosr.live.ladder import Rung
from videosr.live.options import ServeOptions, parse_target
from videosr.live.serve import Server
from videosr.media.decoder import Decoder
from videosr.media.live.input import LiveInput
from videosr.media.live.source import SourceSpec
from videosr.media.planes import PlaneReader
from videosr.options import UpscaleOptions
from videosr.upscaler import Upscaler

KEYS = {"g": "12", "bf": "2"}


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    """Two seconds with sound."""
    path = tmp_path_factory.mktemp("clips") / "clip.mkv"
    return make_clip(path, frames=48, audio=[("aac", "eng")], options=KEYS)


def options(source: Path | str, *targets: str, **more) -> ServeOptions:
    more.setdefault("latency", 60.0)  # the machine that runs the tests may be busy
    more.setdefault("steps", False)
    return ServeOptions(
        source=SourceSpec(url=str(source)), targets=tuple(parse_target(text) for text in targets), **more
    )


@contextmanager
def serving(wanted: ServeOptions) -> Iterator[Server]:
    """A server that runs in a thread; its error, if any, is raised at the end."""
    said: list[str] = []
    server = Server(wanted, said.append)
    server.said = said
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(server.run)
        try:
            yield server
        finally:
            server.stop()
            running.result()


def balanced(server: Server) -> bool:
    account = server.ledger.account
    return account.under_way == 0 and account.taken == account.delivered + sum(account.dropped.values())


def until(condition, seconds: float = 60) -> None:
    """Wait for something that happens in another thread."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)


def core_frames(path: Path, pix_fmt: str | None = None):
    with Decoder(path) as decoder:
        upscaler = Upscaler(UpscaleOptions(pix_fmt=pix_fmt).of(decoder.info))
        for frame in decoder:
            yield from upscaler.process(frame)
    yield from upscaler.flush()


# -- pipes: nothing dropped, the core's frames ------------------------------------------------------------------


def through_pipe(tmp_path: Path, source: Path, form: str) -> bytes:
    """What a named pipe gets of a whole file."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    got: list[bytes] = []
    reader = threading.Thread(target=lambda: got.append(pipe.read_bytes()))
    reader.start()
    account = Server(options(source, f"{form}:{pipe}"), lambda _: None).run()
    reader.join()
    assert account.taken == account.delivered
    return got[0]


@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv422p10le", "yuv444p", "gray"])
def test_y4m_has_the_frames_of_the_core_bit_for_bit(tmp_path, pix_fmt):
    codec = {"codec": "ffv1"} if pix_fmt != "yuv420p" else {}
    path = make_clip(tmp_path / "in.mkv", frames=10, pix_fmt=pix_fmt, **codec)
    with av.open(io.BytesIO(through_pipe(tmp_path, path, "y4m")), format="yuv4mpegpipe") as back:
        stream = back.streams.video[0]
        assert stream.average_rate == 24
        got = [PlaneReader().read(frame, PixelFormat.parse(pix_fmt)) for frame in back.decode(stream)]
    expected = [frame.planes for frame in core_frames(path)]
    assert len(got) == len(expected) == 10
    for one, other in zip(got, expected, strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def test_y4m_on_standard_input_and_nut_on_standard_output(tmp_path):
    path = make_clip(tmp_path / "in.y4m", frames=30, codec="wrapped_avframe", time_base=Fraction(1, 24))
    command = [sys.executable, "-m", "videosr", "serve", "-", "-o", "nut:-"]
    run = subprocess.run(command, input=path.read_bytes(), capture_output=True)
    assert run.returncode == 0, run.stderr
    assert b"30 frames in, 30 out, 0 dropped" in run.stderr
    with av.open(io.BytesIO(run.stdout), format="nut") as back:
        frames = list(back.decode(video=0))
    assert [(f.width, f.height) for f in frames] == [(128, 96)] * 30
    times = [f.time for f in frames]
    assert times == pytest.approx([n / 24 for n in range(30)], abs=1e-4)


def first_times(container: av.container.InputContainer) -> list[float]:
    """Of the first picture and the first sound."""
    first: dict[str, float] = {}
    for packet in container.demux():
        if packet.pts is not None:
            first.setdefault(packet.stream.type, float(packet.pts * packet.time_base))
    return [first["video"], first["audio"]]


def test_nut_carries_the_sound_in_sync(tmp_path, clip):
    data = through_pipe(tmp_path, clip, "nut")
    with av.open(str(clip)) as source, av.open(io.BytesIO(data), format="nut") as back:
        assert [s.codec_context.name for s in back.streams] == ["rawvideo", "aac"]
        assert [bytes(p) for p in back.demux(audio=0) if p.size] == [bytes(p) for p in source.demux(audio=0) if p.size]
    with av.open(str(clip)) as source, av.open(io.BytesIO(data), format="nut") as back:
        (video, audio), (video_out, audio_out) = first_times(source), first_times(back)
    assert audio_out - video_out == pytest.approx(audio - video, abs=0.002)


def test_a_named_pipe_gets_another_reader_after_one_has_gone(tmp_path, clip):
    pipe = tmp_path / "out.y4m"
    os.mkfifo(pipe)
    with serving(options(clip, str(pipe), paced=True)) as server:
        for times in (1, 2):
            with pipe.open("rb") as reader:
                assert reader.read(10) == b"YUV4MPEG2 "
                assert len(reader.read(50_000)) == 50_000
            until(lambda times=times: sum("waiting for another" in line for line in server.said) == times)
    assert balanced(server)


def test_a_reader_that_leaves_is_an_error_on_standard_output(clip):
    command = [sys.executable, "-m", "videosr", "serve", str(clip), "-o", "-"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.read(1000)
    process.stdout.close()
    _, errors = process.communicate()
    assert process.returncode == 1
    assert b"its reader has gone" in errors
    assert b"Traceback" not in errors


def test_a_slow_reader_holds_the_source_back(clip):
    command = [sys.executable, "-m", "videosr", "serve", str(clip), "-o", "-"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    time.sleep(1)
    size = 0
    while data := process.stdout.read(50_000):
        size += len(data)
        time.sleep(0.005)
    assert process.wait() == 0
    assert process.stderr is not None
    assert b"48 frames in, 48 out, 0 dropped" in process.stderr.read()
    assert size > 48 * 128 * 96 * 3 // 2


# -- coded outputs ------------------------------------------------------------------------------------------------


def test_hls_files_hold_every_frame_and_the_sound(tmp_path, clip):
    playlist = tmp_path / "live.m3u8"
    with serving(options(clip, str(playlist))) as server:
        until(server.pipeline.ended.is_set)
    account = server.ledger.account
    assert (account.taken, account.delivered) == (48, 48)
    text = playlist.read_text()
    assert text.endswith("#EXT-X-ENDLIST\n")
    for name in [line for line in text.splitlines() if line.endswith(".ts")]:
        with av.open(str(tmp_path / name), format="mpegts") as segment:
            assert next(p for p in segment.demux(video=0) if p.size).is_keyframe
    with av.open(str(playlist)) as back:
        pictures = list(back.decode(video=0))
    assert len(pictures) == 48
    assert {(p.width, p.height) for p in pictures} == {(128, 96)}
    gaps = np.diff([p.pts * float(p.time_base) for p in pictures])
    assert gaps == pytest.approx(1 / 24, abs=1e-3)
    with av.open(str(playlist)) as back:
        assert sum(frame.samples for frame in back.decode(audio=0)) > 1.7 * 48000
    assert not [path for path in tmp_path.iterdir() if path.suffix == ".part"]


@pytest.mark.parametrize(("audio", "expected"), [("libopus", "aac"), ("libmp3lame", "mp3"), ("aac", "aac")])
def test_sound_is_copied_or_converted_for_the_container(tmp_path, audio, expected):
    path = make_clip(tmp_path / "in.mkv", frames=36, audio=[(audio, "eng")], options=KEYS)
    playlist = tmp_path / "live.m3u8"
    with serving(options(path, str(playlist))) as server:
        until(server.pipeline.ended.is_set)
    with av.open(str(playlist)) as back:
        assert back.streams.audio[0].codec_context.name.startswith(expected)
        sound = list(back.decode(audio=0))
    assert sum(frame.samples for frame in sound) / sound[0].sample_rate == pytest.approx(1.5, abs=0.25)
    loud = np.concatenate([frame.to_ndarray().astype(np.float32).ravel() for frame in sound])
    assert np.abs(loud).max() > 0.1
    times = np.array([float(frame.pts * frame.time_base) for frame in sound])
    assert np.diff(times).max() < 0.06


def listener(server: Server) -> str:
    """The address at which it serves MPEG-TS, with the port it got."""
    (address,) = [line.removeprefix("MPEG-TS: ") for line in server.said if line.startswith("MPEG-TS: ")]
    return address


def test_ipv6_addresses_are_said_as_they_can_be_connected_to(clip):
    with (
        serving(options(clip, "tcp://[::1]:0", paced=True)) as server,
        av.open(listener(server), format="mpegts", timeout=30) as stream,
    ):
        assert stream.streams.video


def test_a_listener_serves_many_clients_each_from_a_keyframe(clip):
    with serving(options(clip, "tcp://127.0.0.1:0", paced=True)) as server:
        address = listener(server)
        got: list[list[bool]] = []

        def client() -> None:
            with av.open(address, format="mpegts", timeout=30) as stream:
                packets = [p for p, _ in zip(stream.demux(video=0), range(20), strict=False)]
                got.append([p.is_keyframe for p in packets])

        threads = [threading.Thread(target=client) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(got) == 3
        assert all(keys[0] for keys in got)


def test_udp(clip):
    receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    receiver.bind(("127.0.0.1", 0))
    receiver.settimeout(30)
    port = receiver.getsockname()[1]
    with serving(options(clip, f"udp://127.0.0.1:{port}", paced=True)):
        datagrams = [receiver.recv(65536) for _ in range(100)]
    receiver.close()
    assert all(len(d) <= 1316 and len(d) % 188 == 0 and d[0] == 0x47 for d in datagrams)
    with av.open(io.BytesIO(b"".join(datagrams)), format="mpegts") as back:
        assert back.streams.video[0].codec_context.width == 128


def test_an_output_that_is_away_costs_the_others_nothing(tmp_path, clip):
    playlist = tmp_path / "live.m3u8"
    closed = socket.create_server(("127.0.0.1", 0))
    port = closed.getsockname()[1]
    closed.close()
    with serving(options(clip, f"rtmp://127.0.0.1:{port}/live/x", str(playlist))) as server:
        until(server.pipeline.ended.is_set)
    assert server.ledger.account.delivered == 48
    away, files = server.status()["outputs"]
    assert (away["taken"], away["written"], away["dropped"]) == (48, 0, 48)
    assert (files["taken"], files["written"], files["dropped"]) == (48, 48, 0)
    assert sum("trying again" in line for line in server.said) == 1
    assert any("could not be reached until the end" in line for line in server.said)


# -- real time --------------------------------------------------------------------------------------------------


def slowed(server: Server, seconds: float) -> None:
    """Make the network take longer."""
    form = server.ladder._forms[0]

    def start(frame):
        time.sleep(seconds)
        return form.start(frame)

    server.ladder._forms[0] = Rung(form.name, start, form.reset)


def test_overload_drops_whole_frames_in_order_and_counts_each(tmp_path, clip):
    playlist = tmp_path / "live.m3u8"
    wanted = options(clip, str(playlist), paced=True, latency=0.4)
    server = Server(wanted, lambda _: None)
    slowed(server, 2 / 24)  # twice what there is time for
    account = server.run()
    assert account.taken == 48
    assert account.under_way == 0
    assert account.taken == account.delivered + sum(account.dropped.values())
    assert 0 < account.delivered < 35  # how many depends on what else the machine does
    assert account.dropped["late"] + account.dropped["queue full"] > 10
    with av.open(str(playlist)) as back:
        times = [p.pts for p in back.decode(video=0)]
    assert len(times) == account.delivered
    assert times == sorted(times)
    median = server.ledger.latency.percentile(0.5)
    assert median is not None
    assert median < 0.4


def test_overload_steps_down_at_constant_size(tmp_path):
    path = make_clip(tmp_path / "in.mkv", frames=120, options=KEYS)
    playlist = tmp_path / "live.m3u8"
    said: list[str] = []
    server = Server(options(path, str(playlist), paced=True, latency=0.4, steps=True), said.append)
    slowed(server, 0.15)
    server.ladder.level = 0  # whatever this machine can do
    server.ladder._forms.pop(1)  # the same network without its window is no quicker here
    server.run()
    assert any(f"going on with {server.ladder._forms[1].name}" in line for line in said)
    with av.open(str(playlist)) as back:
        assert {(p.width, p.height) for p in back.decode(video=0)} == {(128, 96)}


# -- a source that goes and comes back ------------------------------------------------------------------------


class Source:
    """Sends a stream to each client that connects, and can hang up."""

    def __init__(self, path: Path) -> None:
        with av.open(str(path)) as clip:
            self.packets = self._transport(clip)
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self.client: socket.socket | None = None
        self.connections = 0
        self._open = True
        threading.Thread(target=self._serve, daemon=True).start()

    @staticmethod
    def _transport(clip) -> list[bytes]:
        """MPEG-TS, a piece a picture."""
        pieces: list[bytes] = []

        class File:
            def write(self, data: bytes) -> int:
                pieces.append(bytes(data))
                return len(data)

        muxer = {"flush_packets": "1", "max_interleave_delta": "1"}
        with av.open(File(), "w", format="mpegts", container_options=muxer) as out:
            streams = {s.index: out.add_stream_from_template(s, opaque=True) for s in clip.streams}
            for packet in clip.demux():
                if packet.dts is not None:
                    packet.stream = streams[packet.stream_index]
                    out.mux(packet)
        return pieces

    def _serve(self) -> None:
        while self._open:
            try:
                self.client, _ = self._socket.accept()
                self.connections += 1
                for piece in self.packets:
                    self.client.sendall(piece)
                    time.sleep(0.02)
                self.client.close()
            except OSError:
                continue

    def hang_up(self) -> None:
        """Cut the connection in mid-stream."""
        with suppress(OSError):  # it may have come to its end by itself
            if self.client is not None:
                self.client.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._open = False
        self._socket.close()


def test_a_lost_source_is_connected_to_again_and_the_timeline_goes_on(tmp_path, clip):
    source = Source(clip)
    playlist = tmp_path / "live.m3u8"
    with serving(options(f"tcp://127.0.0.1:{source.port}", str(playlist))) as server:
        for losses in (1, 2, 3):
            before = server.ledger.account.delivered
            until(lambda before=before: server.ledger.account.delivered > before + 15)
            source.hang_up()
            until(lambda losses=losses: server.intake.losses >= losses and server.intake.connected)
        before = server.ledger.account.delivered
        until(lambda: server.ledger.account.delivered > before + 15)
        source.close()
    assert balanced(server)
    assert server.intake.losses >= 3
    assert sum("source is back" in line for line in server.said) >= 3
    with av.open(str(playlist)) as back:
        times = [float(p.pts * p.time_base) for p in back.demux(video=0) if p.size]
    gaps = np.diff(times)
    assert gaps.min() > 0
    assert gaps[15:].max() < 1, "the timeline goes on without a hole"


def test_a_source_that_changes_its_size_keeps_the_output_size(tmp_path, clip):
    other = make_clip(tmp_path / "other.mkv", frames=48, width=96, height=64, options=KEYS)
    source, second = Source(clip), Source(other)
    with serving(options(f"tcp://127.0.0.1:{source.port}", str(tmp_path / "live.m3u8"))) as server:
        until(lambda: server.ledger.account.delivered > 15)
        source.packets = second.packets
        source.hang_up()
        until(lambda: server.intake.losses >= 1 and server.intake.connected)
        before = server.ledger.account.delivered
        until(lambda: server.ledger.account.delivered > before + 25)
        source.close()
    with av.open(str(tmp_path / "live.m3u8")) as back:
        assert {(p.width, p.height) for p in back.decode(video=0)} == {(128, 96)}


# -- the end, and what is refused ---------------------------------------------------------------------------


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 0)])
def test_signals_end_it_cleanly(tmp_path, clip, number, code):
    playlist = tmp_path / "live.m3u8"
    command = [sys.executable, "-m", "videosr", "serve", str(clip), "-o", str(playlist), "-o", "tcp://127.0.0.1:0"]
    command += ["-o", "http://127.0.0.1:0/"]
    process = subprocess.Popen([*command, "--latency", "60s"], stderr=subprocess.PIPE, text=True)
    until(playlist.exists)
    process.send_signal(number)
    _, errors = process.communicate()
    assert process.returncode == code, errors
    assert "Traceback" not in errors
    assert playlist.read_text().endswith("#EXT-X-ENDLIST\n")
    assert " 0 dropped" in errors or "shutdown" in errors


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("ftp://x/y", "unknown scheme"),
        ("http://127.0.0.1:x/", "Port"),
        ("http://127.0.0.1:1/folder", "only host and port"),
        ("udp://", "give udp://HOST:PORT"),
        ("udp://127.0.0.1", "give udp://HOST:PORT"),
        ("rtmp:///live/key", "give rtmp://HOST:PORT"),
        ("rtsp://127.0.0.1:x/live", "Port"),
        ("/nowhere/at/all", "named pipe"),
        (__file__, "not a pipe"),
        ("/nowhere/at/all.m3u8", "no such folder"),
    ],
)
def test_outputs_that_are_none_are_refused(target, words):
    with pytest.raises(UsageError, match=words):
        parse_target(target)


def test_contradictions_are_refused(clip):
    with pytest.raises(UsageError, match="latency"):
        options(clip, "-", latency=0.001)
    with pytest.raises(UsageError, match="twice"):
        options(clip, "-", "-")
    with pytest.raises(UsageError, match="once"):
        options(clip, "http://127.0.0.1:1/", "http://127.0.0.1:2/")


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("rtsp://me:p@ss@camera.local:554/live?x=a@b", "rtsp://camera.local:554/live?x=a@b"),
        ("http://key@host/a.m3u8", "http://host/a.m3u8"),
        ("udp://239.0.0.1:5000", "udp://239.0.0.1:5000"),
        ("me@home.mkv", "me@home.mkv"),
    ],
)
def test_names_and_passwords_of_sources_are_not_shown(url, shown):
    assert SourceSpec(url=url).shown == shown


def test_an_absent_source_is_named_without_its_password():
    url = "tcp://me:secret@127.0.0.1:1"
    with pytest.raises(InputError) as refused:
        LiveInput(SourceSpec(url=url))
    assert "127.0.0.1" in str(refused.value)
    assert "secret" not in str(refused.value)


def test_inputs_that_are_none_are_refused(tmp_path):
    for url, words in (
        (str(tmp_path / "missing.mkv"), "check the path"),
        (str(tmp_path), "folder"),
        ("nonsense://x", "built without this protocol; give it on from a program that has it: ffmpeg -i nonsense"),
    ):
        with pytest.raises(InputError, match=words):
            Server(options(url, "-"), print)
    wanted = options("x", "-")
    with pytest.raises(UsageError, match="--format"):
        Server(replace(wanted, source=SourceSpec(url="x", format="nosuch")), print)


def test_an_address_in_use_is_refused(clip):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(
            OutputError,
            match=f"tcp://127.0.0.1:{port}: cannot listen there: Address already in use; give another port$",
        ):
            Server(options(clip, f"tcp://127.0.0.1:{port}"), print)


def test_an_address_in_use_is_refused_though_the_source_is_away():
    with socket.create_server(("127.0.0.1", 0)) as taken, socket.create_server(("127.0.0.1", 0)) as away:
        url = f"tcp://127.0.0.1:{away.getsockname()[1]}"
        away.close()
        with pytest.raises(OutputError, match="cannot listen there"):
            Server(options(url, f"http://127.0.0.1:{taken.getsockname()[1]}"), print)


def test_the_case_of_a_scheme_or_suffix_means_nothing(tmp_path, clip):
    kinds = {
        "HTTP://127.0.0.1:0/": "http",
        "Tcp://127.0.0.1:0": "tcp",
        "RTMP://host/live/Key": "push",
        str(tmp_path / "LIVE.M3U8"): "hls",
    }
    targets = {text: parse_target(text) for text in kinds}
    assert {text: target.kind for text, target in targets.items()} == kinds
    assert targets["RTMP://host/live/Key"].text == "rtmp://host/live/Key"
    with pytest.raises(UsageError, match="given twice"):
        options(clip, "UDP://127.0.0.1:9", "udp://127.0.0.1:9")
    with serving(options(clip, "tcp://127.0.0.1:0", paced=True)) as server:
        source = LiveInput(SourceSpec(url=listener(server).replace("tcp", "TCP")))
        assert (source.live, source.info.width) == (True, 128)
        source.close()


def test_a_generated_source_needs_no_file(tmp_path):
    wanted = options("testsrc2=size=64x48:rate=24:duration=2", str(tmp_path / "live.m3u8"))
    wanted = replace(wanted, source=replace(wanted.source, format="lavfi"))
    account = Server(wanted, lambda _: None).run()
    assert (account.taken, account.delivered) == (48, 48)
    assert Fraction(account.taken, 24) == 2


def test_keys_in_addresses_are_not_shown(clip):
    closed = socket.create_server(("127.0.0.1", 0))
    port = closed.getsockname()[1]
    closed.close()
    urls = [f"rtmp://me:pass@127.0.0.1:{port}/live/SECRET{n}" for n in range(2)]
    with pytest.raises(OutputError, match="could not be reached") as failure, serving(options(clip, *urls)) as server:
        until(server.pipeline.ended.is_set)
    server.said.append(str(failure.value))
    names = [output["name"] for output in server.status()["outputs"]]
    assert names == [f"rtmp://127.0.0.1:{port}", f"rtmp://127.0.0.1:{port} #2"]
    assert "trying again" in " ".join(server.said)
    assert not any("SECRET" in line or "pass" in line for line in server.said)


def test_the_command_explains_itself_and_its_mistakes(videosr, monkeypatch, clip):
    monkeypatch.setenv("COLUMNS", "80")
    text = videosr("serve", "--help").out
    assert max(map(len, text.splitlines())) <= 80
    for arguments, words in (
        ((clip, "--latency", "soon"), "'soon' is not of the form 300ms"),
        ((clip, "--bitrate", "0"), "not of the form 4M"),
        ((clip, "-i", "novalue"), "KEY=VALUE"),
        ((clip, "-o", "ftp://x"), "unknown scheme"),
    ):
        done = videosr("serve", *arguments)
        assert (done.code, done.out) == (2, "")
        assert words in done.err
        assert len(done.err.splitlines()) == 1


def test_a_source_whose_33_bit_clock_wraps_is_one_line(tmp_path):
    start = 2**33 - 90_000
    path = make_clip(
        tmp_path / "in.ts", pts=[start + n * 3750 for n in range(48)], time_base=Fraction(1, 90_000), options=KEYS
    )
    playlist = tmp_path / "live.m3u8"
    with serving(options(path, str(playlist))) as server:
        until(server.pipeline.ended.is_set)
    assert server.ledger.account.delivered == 48
    with av.open(str(playlist)) as back:
        times = [p.pts for p in back.decode(video=0)]
    assert set(np.diff(times)) == {3750}

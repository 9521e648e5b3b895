"""Sound that brings its own headers (AAC in ADTS, as MPEG-TS has it): copied, converted later, and pushed."""

from __future__ import annotations

import io
import socket
import threading
from contextlib import closing
from fractions import Fraction

import av
import numpy as np
import pytest
from test_live_sound import film

from videosr.frame import PixelFormat, StreamInfo
from videosr.media.live.codec import TIME_BASE, Coded, LiveAudio, LiveEncoder, Template, VideoSettings
from videosr.media.live.input import LiveInput, Sound
from videosr.media.live.output import Muxer, TransportStream, open_push
from videosr.media.live.source import SourceSpec


def sounds(source: LiveInput, audio: LiveAudio, start: int) -> list[Coded]:
    made: list[Coded] = []
    first: int | None = None
    for event in source:
        if isinstance(event, Sound):
            first = event.packet.pts if first is None else first
            made += audio.feed(event.packet, start + event.packet.pts - first, 0.0)
    return made


def heard(data: bytes, form: str) -> tuple[float, float]:
    """Seconds of sound, and its loudest sample."""
    with av.open(io.BytesIO(data), format=form) as back:
        frames = list(back.decode(audio=0))
    assert {frame.sample_rate for frame in frames} == {48000}
    return sum(frame.samples for frame in frames) / 48000, max(np.abs(frame.to_ndarray()).max() for frame in frames)


@pytest.mark.parametrize("form", ["mpegts", "flv"])
def test_sound_that_is_converted_after_a_reconnection_can_be_decoded(tmp_path, form):
    template = Template()
    with closing(LiveInput(SourceSpec(url=str(film(tmp_path / "a.ts", "aac", "stereo", 48000))))) as source:
        info = StreamInfo(
            width=64, height=48, format=PixelFormat.parse("yuv420p"), time_base=TIME_BASE, rate=Fraction(25)
        )
        LiveEncoder(info, VideoSettings(), template)
        audio = LiveAudio(source.audio, template, {"flv"})
        template.settle()
        packets = sounds(source, audio, 0)
        assert audio.copied
    with closing(LiveInput(SourceSpec(url=str(film(tmp_path / "b.ts", "aac", "mono", 44100))))) as source:
        audio.attach(source.audio)
        assert not audio.copied
        packets += sounds(source, audio, 10 * 90_000)
    if form == "mpegts":
        stream = TransportStream(template)
        pieces = [piece for packet in packets for piece in stream.mux(packet)] + stream.finish()
        data = b"".join(data for data, _ in pieces)
    else:
        file = io.BytesIO()
        muxer = Muxer(av.open(file, "w", format="flv"), template)
        for packet in packets:
            muxer.write(packet)
        muxer.close()
        data = file.getvalue()
    seconds, loudest = heard(data, form)
    assert seconds == pytest.approx(4, abs=0.15)
    assert loudest == pytest.approx(0.25, abs=0.1)


class Recorder:
    """An RTSP server that says yes to all that FFmpeg asks, and keeps what is announced."""

    def __init__(self) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"rtsp://127.0.0.1:{self._socket.getsockname()[1]}/live"
        self.announced = b""
        self.taken = 0
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def _serve(self) -> None:
        client, _ = self._socket.accept()
        with client, client.makefile("rwb") as file:
            while line := file.readline():
                headers = {}
                while (header := file.readline().strip()) != b"":
                    name, _, value = header.partition(b":")
                    headers[name.lower()] = value.strip()
                body = file.read(int(headers.get(b"content-length", 0)))
                if line.startswith(b"ANNOUNCE"):
                    self.announced = body
                answer = [b"RTSP/1.0 200 OK", b"CSeq: " + headers[b"cseq"], b"Session: 1"]
                if b"transport" in headers:
                    answer.append(b"Transport: " + headers[b"transport"])
                file.write(b"\r\n".join(answer) + b"\r\n\r\n")
                file.flush()
                if line.startswith(b"RECORD"):
                    break
            while data := client.recv(65536):
                self.taken += len(data)

    def close(self) -> None:
        self.thread.join()
        self._socket.close()


def test_sound_with_headers_of_its_own_can_be_pushed_by_rtsp(tmp_path):
    template = Template()
    with closing(LiveInput(SourceSpec(url=str(film(tmp_path / "a.ts", "aac", "stereo", 48000))))) as source:
        audio = LiveAudio(source.audio, template, {"rtsp"})
        info = StreamInfo(
            width=64, height=48, format=PixelFormat.parse("yuv420p"), time_base=TIME_BASE, rate=Fraction(25)
        )
        LiveEncoder(info, VideoSettings(), template)
        template.settle()
        packets = sounds(source, audio, 0)
    with closing(Recorder()) as recorder:
        muxer = open_push(recorder.url, template)
        for packet in packets:
            muxer.write(packet)
        muxer.close()
    assert b"config=" in recorder.announced.partition(b"m=audio")[2]
    assert recorder.taken > sum(len(packet.data) for packet in packets)

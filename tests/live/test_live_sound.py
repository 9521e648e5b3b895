"""The sound of what is served: whatever form it has, and whenever it begins."""

from __future__ import annotations

import os
import threading
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.stream import Disposition

from videosr.live.options import ServeOptions, parse_target
from videosr.live.outputs import Output, Raw
from videosr.live.serve import Server
from videosr.media.live.codec import Coded
from videosr.media.live.source import SourceSpec
from videosr.options import UpscaleOptions

RATE = 24


def film(path: Path, codec: str, layout: str, rate: int, begin: float = 0.0, seconds: float = 2.0) -> Path:
    """Pictures, and from `begin` on a tone in every channel."""
    with av.open(str(path), "w") as out:
        video = out.add_stream("libx264", rate=RATE, options={"bf": "0", "g": "12"})
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        audio = out.add_stream(codec, rate=rate, layout=layout)
        out.start_encoding()
        packets = []
        for n in range(round(seconds * RATE)):
            packets += video.encode(av.VideoFrame.from_ndarray(np.full((48, 64, 3), n % 256, np.uint8), format="rgb24"))
        packets += video.encode(None)
        to_format = av.AudioResampler(audio.codec_context.format, layout, rate)
        size = audio.codec_context.frame_size or 1024
        for start in range(round(begin * rate), round(seconds * rate), size):
            tone = 0.25 * np.sin(2 * np.pi * 440 * np.arange(start, start + size) / rate, dtype=np.float32)
            channels = np.tile(tone, (av.AudioLayout(layout).nb_channels, 1))
            frame = av.AudioFrame.from_ndarray(channels, format="fltp", layout=layout)
            frame.sample_rate, frame.pts, frame.time_base = rate, start, Fraction(1, rate)
            for converted in to_format.resample(frame):
                packets += audio.encode(converted)
        packets += audio.encode(None)
        for packet in sorted((p for p in packets if p.size), key=lambda p: p.dts * p.time_base):
            out.mux(packet)
    return path


def served(path: Path, tmp_path: Path) -> tuple[int, list[av.AudioFrame], list[str]]:
    """Pictures out, the sound of the HLS files, and what was said."""
    said: list[str] = []
    playlist = tmp_path / "live.m3u8"
    wanted = ServeOptions(
        source=SourceSpec(url=str(path)),
        targets=(parse_target(str(playlist)),),
        upscale=UpscaleOptions(model="light-2x"),
        steps=False,
    )
    delivered = Server(wanted, said.append).run().delivered
    with av.open(str(playlist)) as back:
        return delivered, list(back.decode(audio=0)) if back.streams.audio else [], said


@pytest.mark.parametrize(
    ("name", "codec", "layout", "rate", "expected"),
    [
        ("camcorder.avi", "pcm_s16le", "stereo", 44100, (44100, "stereo")),  # only the number of channels is stated
        ("capture.mkv", "pcm_s24le", "5.1", 48000, (48000, "5.1")),
        ("studio.mkv", "pcm_s24le", "stereo", 192000, (96000, "stereo")),
        ("old.mov", "pcm_s16be", "mono", 22254, (24000, "mono")),
    ],
)
def test_sound_in_a_form_that_aac_has_not_is_brought_to_the_nearest(tmp_path, name, codec, layout, rate, expected):
    delivered, sound, _ = served(film(tmp_path / name, codec, layout, rate), tmp_path)
    assert delivered == 2 * RATE
    assert (sound[0].sample_rate, sound[0].layout.name) == expected
    assert sum(frame.samples for frame in sound) / sound[0].sample_rate == pytest.approx(2, abs=0.1)
    assert np.abs(sound[len(sound) // 2].to_ndarray()).max() == pytest.approx(0.25, abs=0.05)


class Unread(Output):
    """A pipe from which nobody reads yet."""

    raw = True

    def _write(self, entry):
        return True

    def _close(self):
        pass


def test_a_burst_of_sound_costs_no_picture_and_pictures_no_sound():
    output = Unread("pipe", wait=False, say=print, stop=threading.Event())
    picture, sound = Raw(None, 0.0), Coded(False, b"", 0, 1, True, 0.0)
    for entry in (*[sound] * 40, *[picture] * 4, *[sound] * 60):
        output.put(entry)
    assert (len(output.queue), output.dropped, output.silenced) == (104, 0, 0)
    for entry in (*[picture] * 3, *[sound] * 200):
        output.put(entry)
    assert (len(output.queue), output.dropped, output.silenced) == (260, 3, 44)


@pytest.mark.parametrize(("codec", "piped"), [("aac", False), ("ac3", False), ("ac3", True)])
def test_sound_that_begins_late_is_served(tmp_path, codec, piped):
    """FFmpeg looks at the first seconds of a transport stream, and knows nothing of sound that comes after them."""
    path = film(tmp_path / "late.ts", codec, "mono", 44100, begin=14, seconds=16)
    source = tmp_path / "pipe"
    if piped:
        os.mkfifo(source)
        threading.Thread(target=lambda: source.write_bytes(path.read_bytes()), daemon=True).start()
    delivered, sound, _ = served(source if piped else path, tmp_path)
    assert delivered == 16 * RATE
    assert (sound[0].sample_rate, sound[0].layout.name) == ((48000, "stereo") if piped else (44100, "mono"))
    assert sum(frame.samples for frame in sound) / sound[0].sample_rate == pytest.approx(2, abs=0.1)
    assert np.abs(sound[len(sound) // 2].to_ndarray()).max() == pytest.approx(0.25, abs=0.08)


def test_of_several_tracks_the_default_one_is_served(tmp_path):
    first, second = (film(tmp_path / f"{layout}.mkv", "aac", layout, 48000, seconds=1) for layout in ("mono", "stereo"))
    with av.open(str(first)) as one, av.open(str(second)) as two, av.open(str(tmp_path / "both.mkv"), "w") as out:
        sources = [one.streams.video[0], one.streams.audio[0], two.streams.audio[0]]
        streams = [out.add_stream_from_template(source) for source in sources]
        streams[1].disposition, streams[2].disposition = Disposition(0), Disposition.default
        packets = [(packet, streams[packet.stream_index]) for packet in one.demux()]
        packets += [(packet, streams[2]) for packet in two.demux(audio=0)]
        for packet, stream in sorted((p for p in packets if p[0].size), key=lambda p: p[0].dts * p[0].time_base):
            packet.stream = stream
            out.mux(packet)
    _, sound, said = served(tmp_path / "both.mkv", tmp_path)
    assert sound[0].layout.name == "stereo"
    assert f"{tmp_path / 'both.mkv'}: one video and one audio stream are served; left out: 1 audio" in said


def test_sound_without_pictures_is_in_time_and_in_segments_of_its_own(tmp_path):
    """The pictures stay away for 5 s; what is heard meanwhile must not come after the picture that ends it."""
    whole = film(tmp_path / "whole.mkv", "aac", "stereo", 48000, seconds=7)
    with av.open(str(whole)) as source, av.open(str(tmp_path / "in.mkv"), "w") as out:
        streams = {stream.index: out.add_stream_from_template(stream) for stream in source.streams}
        for packet in source.demux():
            if packet.size and not (packet.stream.type == "video" and 1 <= packet.pts * packet.time_base < 6):
                packet.stream = streams[packet.stream_index]
                out.mux(packet)
    delivered, sound, _ = served(tmp_path / "in.mkv", tmp_path)
    assert delivered == 2 * RATE
    assert sum(frame.samples for frame in sound) > 6.8 * 48000
    lines = (tmp_path / "live.m3u8").read_text().splitlines()
    assert "#EXT-X-TARGETDURATION:1" in lines
    assert "#EXT-X-DISCONTINUITY" not in lines
    seconds = [float(line[8:-1]) for line in lines if line.startswith("#EXTINF:")]
    assert max(seconds) < 1.5
    assert sum(seconds) == pytest.approx(7, abs=0.1)
    end = 0.0
    for name, length in zip([line for line in lines if line.endswith(".ts")], seconds, strict=True):
        with av.open(str(tmp_path / name), format="mpegts") as segment:  # tables are in each
            times = [float(packet.pts * packet.time_base) for packet in segment.demux(audio=0) if packet.size]
        assert end - 0.1 < min(times) < max(times) < end + length + 0.05
        end += length

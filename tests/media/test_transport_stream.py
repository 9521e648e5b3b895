"""Streams of an MPEG-TS that FFmpeg does not find by itself."""

from fractions import Fraction

import av
import numpy as np
import pytest
from doubling import double
from test_adts import joined

from videosr.media import transport_stream
from videosr.media.adts import changing
from videosr.media.checks.verify import verify
from videosr.media.codecs import EncoderSettings
from videosr.media.probe import plan_streams
from videosr.media.source import open_input

SECOND = 0x102
"""The second sound, by its packet identifier."""
STUFFING = bytes([0x47, 0x1F, 0xFF, 0x10]) + bytes(184)
"""A packet without content."""


def part(path, begin, sounds):
    """A second of a broadcast with so many sounds."""
    options = {"mpegts_flags": "+resend_headers"}
    with av.open(str(path), "w", format="mpegts", options=options) as out:
        video = out.add_stream("mpeg2video", rate=25)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        tracks = [out.add_stream("mp2", rate=48_000, layout="mono") for _ in range(sounds)]
        for i in range(25):
            frame = av.VideoFrame.from_ndarray(np.full((72, 64), 60 + 4 * i, np.uint8), "yuv420p")
            frame.pts, frame.time_base = i + 25 * begin, Fraction(1, 25)
            out.mux(video.encode(frame))
            for track in tracks:
                sound = av.AudioFrame.from_ndarray(np.zeros((1, 1920), np.int16), format="s16", layout="mono")
                sound.sample_rate, sound.pts, sound.time_base = 48_000, (i + 25 * begin) * 1920, Fraction(1, 48_000)
                out.mux(track.encode(sound))
        for stream in (video, *tracks):
            out.mux(stream.encode(None))
    return path.read_bytes()


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    """A film with two sounds, and a bit of what came before and after it, with one."""
    folder = tmp_path_factory.mktemp("ts")
    path = folder / "a.ts"
    before, film, after = (part(folder / f"{n}.ts", n, sounds) for n, sounds in enumerate((1, 2, 1)))
    path.write_bytes(before + film + 2000 * STUFFING + after)  # FFmpeg looks at the end, too
    with av.open(str(path)) as container:
        assert [s.id for s in container.streams] == [0x100, 0x101]  # or the tests show nothing
    return path


def test_sound_that_begins_and_ends_on_the_way_is_kept(recording, tmp_path):
    output = tmp_path / "b.mkv"
    assert plan_streams(recording, "matroska").losses == ()
    double(recording, output, settings=EncoderSettings(preset="ultrafast"))
    assert verify(recording, output).problems == []
    with av.open(str(output)) as made:
        assert len(made.streams.audio) == 2
        times = [p.pts * p.time_base for p in made.demux(made.streams.audio[1]) if p.size]
    assert 40 < len(times) < 50
    assert times[0] == pytest.approx(1, abs=0.1)


def test_what_begins_too_late_is_named_with_the_remedy(recording, monkeypatch):
    monkeypatch.setattr(transport_stream, "DEEPEST", 1)
    (loss,) = plan_streams(recording, "matroska").losses
    assert f"stream 0x{SECOND:x} (audio): begins too late" in loss
    assert "ffmpeg" in loss


def test_behind_what_ffmpeg_looks_at_a_part_shows_what_there_is(recording, monkeypatch):
    """A recording of hours is not read as a whole for that."""
    monkeypatch.setattr(transport_stream, "DEEPEST", 1)
    monkeypatch.setattr(transport_stream, "BLOCK", 20 * 188)
    transport_stream._scan.cache_clear()
    size = recording.stat().st_size
    packets = np.concatenate([at for at, _ in transport_stream._blocks(str(recording), size, 4)]) // 188
    assert set(packets.tolist()) == {n for n in range(size // 188) if n % 80 < 20}
    with open_input(recording) as container:
        (loss,) = transport_stream.unseen(str(recording), container.streams)
    assert f"stream 0x{SECOND:x} (audio)" in loss


def test_packets_are_found_in_other_forms_and_behind_damage(recording, tmp_path):
    data = recording.read_bytes()
    packets = [data[i : i + 188] for i in range(0, len(data), 188)]
    timed, damaged, short = tmp_path / "b.m2ts", tmp_path / "c.ts", tmp_path / "d.ts"
    timed.write_bytes(b"".join(b"\0\0\0\0" + packet for packet in packets))
    damaged.write_bytes(b"junk" + data[:188] + b"lost" + data[188:])
    short.write_bytes(data[:100])
    for path in (timed, damaged):
        with open_input(path) as container:
            assert [s.id for s in container.streams] == [0x100, 0x101, SECOND]
    assert list(transport_stream._blocks(str(short), 100)) == []


def test_a_stream_that_nothing_announces_is_none(recording, tmp_path):
    data = bytearray(part(tmp_path / "a.ts", 0, 2))
    for at in range(0, len(data), 188):
        if (data[at + 1] & 0x1F) << 8 | data[at + 2] == SECOND:
            data[at + 2] += 1
    path = tmp_path / "b.ts"
    path.write_bytes(data)
    assert SECOND + 1 in transport_stream._starts(str(path))
    assert not any(f"{SECOND + 1:x}" in loss for loss in plan_streams(path, "matroska").losses)


def test_sound_whose_frames_do_not_begin_with_its_units_is_read_by_ffmpeg(tmp_path, monkeypatch):
    source = joined(tmp_path, "stereo", "5.1")
    assert changing(source) == {1}
    monkeypatch.setattr(transport_stream, "FRAMED", 2)
    assert transport_stream.changing(str(source)) == (set(), {0x101})
    assert changing(source) == {1}

"""The end of a damaged film is the same for any number of decoder threads."""

import hashlib

import av
import numpy as np
import pytest
from av.video.stream import VideoStream

from videosr.media import tail
from videosr.media.checks.readback import read_file
from videosr.media.decoder import Decoder
from videosr.media.tail import CHECKED, Tail

BUNNY = "samples/bunny.mp4"
THREADS = (1, 2, 3, 8, 16)


def packets_of(path):
    with av.open(str(path)) as container:
        return [packet for packet in container.demux(video=0) if packet.size]


def damaged(path, *last):
    """The sample's video, of which some packets, counted from the end, are cut short."""
    with av.open(BUNNY) as source, av.open(str(path), "w") as out:
        video = out.add_stream_from_template(source.streams.video[0])
        packets = [packet for packet in source.demux(video=0) if packet.size]
        for left, packet in zip(range(len(packets), 0, -1), packets, strict=True):
            data = bytes(packet)
            made = av.Packet(data[: len(data) // 2] if left in last else data)
            made.pts, made.dts, made.time_base = packet.pts, packet.dts, packet.time_base
            made.is_keyframe, made.stream = packet.is_keyframe, video
            out.mux(made)
    return path


def decoded(path, threads):
    decoder = Decoder(path, threads=threads)
    frames = [(frame.pts, hashlib.md5(b"".join(map(bytes, frame.planes))).hexdigest()) for frame in decoder]
    return frames, decoder.warnings


@pytest.mark.parametrize("last", [(1,), (2,), (1, 2, 3), (5,)], ids=str)
def test_a_packet_that_fails_at_the_end_costs_its_own_frame_alone(tmp_path, last):
    """With more threads than packets behind it, FFmpeg drops others with it and says nothing."""
    clip = damaged(tmp_path / "clip.mkv", *last)
    expected, warnings = decoded(clip, 1)
    assert len(packets_of(clip)) - len(last) <= len(expected) < len(packets_of(clip))
    assert any("could not be decoded" in line for line in warnings)
    for threads in THREADS[1:]:
        assert decoded(clip, threads) == (expected, warnings), threads


def test_a_recording_that_breaks_off_is_read_alike(tmp_path):
    """Its last packet is short: what `upscale` makes of it on one machine, `verify` expects on another."""
    whole = tmp_path / "whole.ts"
    with av.open(BUNNY) as source, av.open(str(whole), "w") as out:
        video = out.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = video
                out.mux(packet)
    data = whole.read_bytes()
    clip = tmp_path / "clip.ts"
    rng = np.random.default_rng(4)
    for size in rng.integers(len(data) // 3, len(data), 4):
        clip.write_bytes(data[:size])
        expected = decoded(clip, 1)[0]
        for threads in THREADS[1:]:
            assert decoded(clip, threads)[0] == expected, (size, threads)
        assert read_file(clip, 0).pts == [pts for pts, _ in expected]


def test_verify_reads_as_upscale_does(tmp_path, monkeypatch):
    """However many threads FFmpeg takes here."""
    clip = damaged(tmp_path / "clip.mkv", 5)
    expected = [pts for pts, _ in decoded(clip, 1)[0]]
    monkeypatch.setattr("videosr.media.checks.readback.THREADS", 8)
    reading = read_file(clip, 0)
    assert reading.pts == expected
    assert reading.errors == 1


def torn(path, threads, frames=None):
    """Whether the end of a file counts as torn, of whose frames some are kept back at the end."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert isinstance(stream, VideoStream)
        context, end = stream.codec_context, Tail()
        context.thread_type, context.thread_count = "AUTO", threads
        given = []
        for packet in container.demux(stream):
            if packet.size:
                end.put(packet)
            given += context.decode(packet if packet.size else None)
        end.gave(given[:frames])
        return end.is_torn(context)


def test_a_sound_film_is_whole():
    assert not torn(BUNNY, 8)


@pytest.mark.parametrize("kept", [-1, -2, -6])
def test_frames_that_are_missing_at_the_end_are_missed(kept):
    assert torn(BUNNY, 1, kept)


def test_packets_without_a_frame_are_no_damage(tmp_path):
    """As where a recording begins between keyframes: there are fewer frames than packets, and all is well."""
    packets = packets_of(BUNNY)
    clip = tmp_path / "clip.mkv"
    keys = [n for n, packet in enumerate(packets) if packet.is_keyframe]
    with av.open(BUNNY) as source, av.open(str(clip), "w") as out:
        video = out.add_stream_from_template(source.streams.video[0])
        for packet in [packet for packet in source.demux(video=0) if packet.size][5:]:
            packet.stream = video
            out.mux(packet)
    assert len(keys) > 1
    frames = decoded(clip, 1)[0]
    assert len(frames) < len(packets) - 5
    assert decoded(clip, 8)[0] == frames
    assert not torn(clip, 8)


def test_what_is_kept_is_bounded(monkeypatch):
    """By packets and by bytes; where the beginning of a group is gone, frames that are missing count as torn."""
    end = Tail()
    for n in range(1000):
        packet = av.Packet(bytes(100))
        packet.is_keyframe = n % 10 == 0
        end.put(packet)
    kept = [packet for group in end._packets for packet in group]
    assert CHECKED < len(kept) < 100
    assert kept[0].is_keyframe
    monkeypatch.setattr(tail, "_ROOM", 5000)
    for _ in range(1000):
        end.put(av.Packet(bytes(100)))
    assert sum(len(group) for group in end._packets) <= 50
    with av.open(BUNNY) as container:
        assert end.is_torn(container.streams.video[0].codec_context)

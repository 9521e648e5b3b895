"""Packets hold the same in every framing, and something else where a byte of it differs."""

from __future__ import annotations

import av
import pytest
from av.bitstream import BitStreamFilterContext
from clips import make_clip
from hypothesis import example, given
from hypothesis import strategies as st

from videosr.media.checks.payload import content
from videosr.media.checks.verify import verify

FAST = ("--codec", "libx264", "--preset", "ultrafast", "--temporal", "off", "--model", "light-2x")


def packets(path, kind):
    """The packets of a file's first stream of a kind, and the stream's header."""
    with av.open(path) as file:
        stream = next(s for s in file.streams if s.type == kind)
        return [bytes(p) for p in file.demux(stream) if p.size], bytes(stream.codec_context.extradata or b"")


@pytest.mark.parametrize(
    ("encoder", "codec", "filters"),
    [
        ("libx264", "h264", "h264_mp4toannexb,h264_metadata=aud=insert"),
        ("libx265", "hevc", "hevc_mp4toannexb,hevc_metadata=aud=insert"),
        ("libsvtav1", "av1", "av1_metadata=td=insert"),
    ],
)
def test_pictures_in_two_framings(tmp_path, encoder, codec, filters):
    options = {"x265-params": "info=0"} if encoder == "libx265" else {}  # else the filter puts that among the pictures
    path = make_clip(tmp_path / "a.mp4", frames=12, codec=encoder, options=options)
    plain, header = packets(path, "video")
    with av.open(path) as file:
        stream = file.streams.video[0]
        framing = BitStreamFilterContext(filters, stream)
        framed = [bytes(p) for packet in file.demux(stream) for p in framing.filter(packet if packet.size else None)]
    assert len(plain) == len(framed) == 12
    assert plain != framed
    same = [content(data, codec, header) for data in plain]
    assert same == [content(data, codec, b"") for data in framed]
    assert all(same)
    for data, was in zip(plain, same, strict=True):
        assert content(data[:-2] + bytes([data[-2] ^ 1]) + data[-1:], codec, header) != was


def test_sound_with_and_without_headers(tmp_path):
    path = make_clip(tmp_path / "a.mp4", frames=24, audio=[("aac", "eng")])
    plain, header = packets(path, "audio")
    with av.open(path) as file, av.open(tmp_path / "a.aac", "w", format="adts") as out:
        stream = file.streams.audio[0]
        made = out.add_stream_from_template(stream)
        for packet in file.demux(stream):
            if packet.size:
                packet.stream = made
                out.mux(packet)
    framed, _ = packets(tmp_path / "a.aac", "audio")
    assert len(framed[0]) == len(plain[0]) + 7
    assert [content(data, "aac", b"") for data in framed] == [content(data, "aac", header) for data in plain] == plain


@given(
    st.binary(max_size=60) | st.lists(st.sampled_from([0, 1, 2, 0x12, 0xFF])).map(bytes),
    st.sampled_from(["h264", "hevc", "vvc", "av1", "aac", "ac3"]),
    st.binary(max_size=30),
)
@example(b"\x04", "av1", b"")  # an extension that is not there
@example(b"\x02\x7f", "av1", b"")  # a unit longer than the packet
def test_whatever_packets_hold_they_are_read(data, codec, header):
    assert isinstance(content(data, codec, header), bytes)


def test_sound_that_is_not_the_source_s_is_found(tmp_path, videosr):
    """A bit of it; it decodes all the same."""
    source = make_clip(tmp_path / "a.mkv", frames=24, audio=[("aac", "eng")])
    assert videosr("upscale", source, tmp_path / "out.mkv", *FAST).code == 0
    assert verify(source, tmp_path / "out.mkv").ok
    with av.open(tmp_path / "out.mkv") as good, av.open(tmp_path / "bad.mkv", "w") as bad:
        made = [bad.add_stream_from_template(stream) for stream in good.streams]
        for stream, copy in zip(good.streams, made, strict=True):
            copy.metadata.update(stream.metadata)
            copy.disposition = stream.disposition
        for n, packet in enumerate(good.demux()):
            if packet.size:
                index = packet.stream_index
                if index == 1 and n > 20:
                    data = bytearray(bytes(packet))
                    data[-3] ^= 0x10
                    changed = av.Packet(bytes(data))
                    changed.pts, changed.dts, changed.time_base = packet.pts, packet.dts, packet.time_base
                    changed.duration, changed.is_keyframe = packet.duration, packet.is_keyframe
                    packet = changed
                packet.stream = made[index]
                bad.mux(packet)
    problems = verify(source, tmp_path / "bad.mkv").problems
    assert any("has other content" in problem for problem in problems)

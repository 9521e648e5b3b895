import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from clips import VFR_PTS, make_clip
from doubling import FAST, LOSSLESS, double, encode

from videosr.errors import StrictError
from videosr.media import part
from videosr.media.muxer import mux
from videosr.media.probe import plan_streams


def labels(path):
    """Every timecode in a file."""
    with av.open(str(path)) as container:
        tags = [container.metadata, *(s.metadata for s in container.streams)]
    return {value for each in tags for key, value in each.items() if key.lower() == "timecode"}


@pytest.mark.parametrize("suffix", [".mov", ".mp4", ".mkv"])
@pytest.mark.parametrize(
    ("rate", "label", "start", "expected"),
    [
        (Fraction(24), "01:00:00:00", Fraction(1), "01:00:01:00"),
        (Fraction(24), "01:02:03:20", Fraction(1, 4), "01:02:04:02"),
        (Fraction(30000, 1001), "10:00:59;28", Fraction(1001, 10000), "10:01:00;03"),
        (Fraction(24), "01:00:00:00", Fraction(0), "01:00:00:00"),
    ],
)
def test_timecode_is_that_of_the_first_frame_of_the_part(tmp_path, suffix, rate, label, start, expected):
    ticks = Fraction(1, rate.numerator)
    clip = make_clip(tmp_path / "a.mov", frames=40, time_base=ticks, rate=rate, metadata={"timecode": label})
    assert labels(clip) == {label}
    output = tmp_path / f"out{suffix}"
    assert double(clip, output, start=start, frames=6, settings=LOSSLESS if suffix == ".mkv" else FAST) == []
    assert labels(output) == {expected}


def test_a_timecode_that_cannot_be_counted_is_left_out_and_said(tmp_path):
    clip = make_clip(tmp_path / "a.mkv", pts=VFR_PTS, metadata={"TIMECODE": "01:00:00:00"})
    assert labels(clip) == {"01:00:00:00"}
    output = tmp_path / "out.mkv"
    (warning,) = double(clip, output, start=Fraction(3, 10), frames=4)
    assert "timecode 01:00:00:00 is left out" in warning
    assert labels(output) == set()
    whole = tmp_path / "whole.mkv"
    assert double(clip, whole) == []
    assert labels(whole) == {"01:00:00:00"}


def test_what_a_part_loses_can_be_refused(tmp_path):
    clip = make_clip(tmp_path / "a.mkv", pts=VFR_PTS, metadata={"TIMECODE": "01:00:00:00"})
    segments = encode(clip, tmp_path / "segments", "matroska", start=Fraction(3, 10))
    output = tmp_path / "out.mkv"

    def refuse(losses):
        raise StrictError("; ".join(losses))

    with pytest.raises(StrictError, match="timecode"):
        mux(segments, clip, output, plan_streams(clip, "matroska"), trimmed=True, accept=refuse)
    assert {p.name for p in tmp_path.iterdir()} == {"a.mkv", "segments"}


def films(path, suffix, options):
    """A file of two alike videos at 24 frames/s, a keyframe every 24 frames; each picture says its number."""
    with av.open(str(path), "w") as out:
        streams = [out.add_stream("libx264", rate=24, options=dict(options)) for _ in range(2)]
        for stream in streams:
            stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        for i in range(96):
            picture = np.full((48, 32), 128, np.uint8)
            picture[:32] = 16 + 2 * i
            for stream in streams:
                out.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "yuv420p")))
        for stream in streams:
            out.mux(stream.encode(None))
    return path


def numbers(path, index):
    """(seconds, number) of the pictures that a player shows of a video."""
    with av.open(str(path)) as container:
        stream = container.streams.video[index]
        shown = [(f.pts * stream.time_base, f.to_ndarray()[8, 8]) for f in container.decode(stream)]
    return [(round(float(t), 3), round((int(luma) - 16) / 2)) for t, luma in shown]


GOP = {"g": "24", "keyint_min": "24", "sc_threshold": "0", "crf": "1", "threads": "1", "preset": "fast"}


@pytest.fixture(params=[(bf, open_gop) for bf in "03" for open_gop in "01"], ids="bf={0[0]} open-gop={0[1]}".format)
def groups(request):
    """How the second video is coded."""
    bf, open_gop = request.param
    return GOP | {"bf": bf, "x264-params": f"open-gop={open_gop}"}


def test_a_second_video_is_whole_where_an_edit_list_hides_what_comes_before(tmp_path, groups):
    source = films(tmp_path / "in.mp4", ".mp4", groups)
    output = tmp_path / "out.mp4"
    (warning,) = double(source, output, start=Fraction(30, 24), frames=36)
    assert warning.startswith("stream 1: 6 pictures before the start are kept, hidden")
    shown = numbers(output, 1)
    assert shown[:36] == [(round(i / 24, 3), 30 + i) for i in range(36)]
    assert len(shown) <= 36 + 3  # pictures beyond the end that earlier ones need
    with av.open(str(output)) as container:
        stream = container.streams.video[1]
        stream.codec_context.thread_count = 1
        assert not any(f.is_corrupt for f in container.decode(stream))


def test_a_second_video_begins_at_a_keyframe_where_nothing_can_be_hidden(tmp_path, groups):
    source = films(tmp_path / "in.mkv", ".mkv", groups)
    output = tmp_path / "out.mkv"
    (warning,) = double(source, output, start=Fraction(30, 24), frames=36)
    assert warning.startswith("stream 1: begins 0.750 s late, at its first keyframe in the part")
    shown = numbers(output, 1)
    assert [n for _, n in shown][:18] == list(range(48, 66))
    assert abs(shown[0][0] - 18 / 24) < 0.002
    assert len(shown) <= 18 + 3
    assert double(source, tmp_path / "b.mkv", start=Fraction(1), frames=36) == []
    assert [n for _, n in numbers(tmp_path / "b.mkv", 1)][:36] == list(range(24, 60))


def test_a_second_video_without_a_keyframe_in_the_part(tmp_path):
    source = films(tmp_path / "in.mkv", ".mkv", GOP | {"g": "1000", "keyint_min": "1000"})
    (warning,) = double(source, tmp_path / "out.mkv", start=Fraction(1), frames=24)
    assert warning == "stream 1: is left out: it has no keyframe in the part"
    assert numbers(tmp_path / "out.mkv", 1) == []


def graphics(number, state, count):
    """A display set of presentation graphics: a composition of so many objects, of which only that counts here."""

    def segment(kind, payload):
        return struct.pack(">BH", kind, len(payload)) + payload

    objects = struct.pack(">HBBHH", 0, 0, 0, 8, 8) * count
    composition = struct.pack(">HHBHBBBB", 64, 48, 0x10, number, state, 0, 0, count) + objects
    return segment(0x16, composition) + segment(0x80, b"")


SHOWN = {"epoch": (0x80, 1), "acquired": (0x40, 1), "changed": (0x00, 1), "gone": (0x00, 0)}


@pytest.mark.parametrize(
    ("sets", "expected"),
    [
        ([(100, "epoch"), (3000, "gone")], [(0, 0), (2000, 1)]),
        ([(100, "epoch"), (500, "gone"), (1500, "epoch")], [(500, 2)]),
        ([(100, "epoch"), (500, "gone"), (700, "epoch"), (800, "changed"), (1500, "gone")], [(0, 2), (0, 3), (500, 4)]),
        ([(100, "epoch"), (500, "acquired"), (1000, "changed")], [(0, 1), (0, 2)]),
        ([(100, "epoch"), (3500, "gone")], [(0, 0)]),
    ],
)
def test_graphics_that_are_on_the_screen_at_the_start_stay(tmp_path, sets, expected):
    plain = make_clip(tmp_path / "plain.mkv", pts=range(0, 4000, 100), width=32, height=32, codec="ffv1")
    source = tmp_path / "in.mkv"
    payloads = [graphics(i, *SHOWN[kind]) for i, (_, kind) in enumerate(sets)]
    with av.open(str(plain)) as a, av.open(str(source), "w") as out:
        video = out.add_stream_from_template(a.streams[0])
        stream = out.add_mux_stream("hdmv_pgs_subtitle")
        stream.time_base = Fraction(1, 1000)
        for (time, _), payload in zip(sets, payloads, strict=True):
            packet = av.Packet(payload)
            packet.stream, packet.pts, packet.dts, packet.time_base = stream, time, time, Fraction(1, 1000)
            out.mux(packet)
        for packet in a.demux():
            if packet.size:
                packet.stream = video
                out.mux(packet)
    output = tmp_path / "out.mkv"
    assert double(source, output, start=Fraction(1), frames=25) == []
    with av.open(str(output)) as container:
        found = [(p.pts, payloads.index(bytes(p))) for p in container.demux(container.streams.subtitles[0]) if p.size]
    assert found == expected


def test_a_part_has_no_statistics_of_the_whole(tmp_path):
    plain = make_clip(tmp_path / "plain.mkv", frames=48, audio=[("flac", "eng")])
    source = tmp_path / "in.mkv"
    numbers = {"BPS-eng": "128000", "NUMBER_OF_FRAMES": "188", "NUMBER_OF_BYTES": "64000", "_STATISTICS_TAGS": "BPS"}
    with av.open(str(plain)) as a, av.open(str(source), "w") as out:
        streams = [out.add_stream_from_template(s) for s in a.streams]
        streams[1].metadata.update(numbers | {"title": "kept"})
        for packet in a.demux():
            if packet.size:
                packet.stream = streams[packet.stream_index]
                out.mux(packet)
    whole, part = tmp_path / "whole.mkv", tmp_path / "part.mkv"
    double(source, whole)
    double(source, part, start=Fraction(1), frames=12)
    for path, kept in ((whole, set(numbers)), (part, set())):
        with av.open(str(path)) as container:
            tags = dict(container.streams[1].metadata)
        assert tags["title"] == "kept"
        assert set(tags) & set(numbers) == kept


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_a_part_has_the_cover(tmp_path, suffix):
    film = make_clip(tmp_path / "film.mp4", frames=48)
    cover = tmp_path / "cover.png"
    av.VideoFrame.from_ndarray(np.full((8, 8, 3), 77, np.uint8), format="rgb24").save(cover)
    source = tmp_path / "in.mp4"
    with av.open(str(film)) as a, av.open(str(cover)) as b, av.open(str(source), "w") as out:
        streams = [out.add_stream_from_template(c.streams[0]) for c in (a, b)]
        streams[1].disposition = av.stream.Disposition.attached_pic
        for container, stream in zip((a, b), streams, strict=True):
            for packet in container.demux():
                if packet.size:
                    packet.stream = stream
                    out.mux(packet)
    output: Path = tmp_path / f"out{suffix}"
    assert double(source, output, start=Fraction(1), frames=6) == []
    with av.open(str(output)) as container:
        assert [s.codec_context.name for s in container.streams.video] == ["h264", "png"]
        assert [next(container.decode(container.streams.video[1])).width] == [8]


@pytest.mark.parametrize(("tags", "times"), [({}, 0), ({"timecode": "01:00:00:00"}, 1)])
def test_frames_before_the_part_are_looked_at_for_a_timecode_alone_and_once(tmp_path, monkeypatch, tags, times):
    clip = make_clip(tmp_path / "a.mov", frames=12, metadata=tags, audio=[("aac", "eng")] * 2)
    looked = []
    nominal = part._Frames.nominal
    monkeypatch.setattr(part._Frames, "nominal", lambda self, start: looked.append(start) or nominal(self, start))
    double(clip, tmp_path / "b.mov", start=Fraction(1, 4))
    assert len(looked) == times


@pytest.mark.parametrize("suffix", [".mkv", ".mp4"])
def test_subtitles_end_with_the_part(tmp_path, suffix):
    """Four frames, 167 ms; a subtitle is shown from 100 to 300 ms."""
    clip, output = make_clip(tmp_path / "a.mkv", frames=12, subtitles=["eng"]), tmp_path / f"out{suffix}"
    double(clip, output, frames=4)
    with av.open(str(output)) as container:
        packets = [p for p in container.demux() if p.size and p.duration]
        ends = {p.stream.type: float((p.pts + p.duration) * p.time_base) for p in packets}
        length = container.duration / 1_000_000
    assert [*ends.values(), length] == pytest.approx([0.167] * 3, abs=0.002)

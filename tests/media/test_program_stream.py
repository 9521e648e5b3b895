"""Streams of a program stream that begin behind what FFmpeg looks at by itself."""

from fractions import Fraction

import av
import numpy as np
import pytest
from doubling import double

from videosr.media import program_stream
from videosr.media.probe import plan_streams
from videosr.media.source import open_input

LATE = 130


@pytest.fixture(scope="module")
def vob(tmp_path_factory):
    """A DVD's VOB of noise, whose one subtitle comes after more than 5 MB."""
    path = tmp_path_factory.mktemp("vob") / "a.vob"
    noise = np.random.default_rng(1).integers(0, 255, (288, 352, 3), dtype=np.uint8)
    rate = {"b": "8M", "minrate": "8M", "maxrate": "8M", "bufsize": "2M"}
    with av.open(str(path), "w", format="vob") as out:
        video = out.add_stream("mpeg2video", rate=25, options=rate)
        video.width, video.height, video.pix_fmt = 352, 288, "yuv420p"
        text = out.add_mux_stream("dvd_subtitle", width=352, height=288)
        for i in range(LATE + 10):
            frame = av.VideoFrame.from_ndarray(np.roll(noise, 31 * i, 1), format="rgb24").reformat(format="yuv420p")
            frame.pts = i
            out.mux(video.encode(frame))
            if i == LATE:
                packet = av.Packet(bytes([0, 40]) + bytes(38))
                packet.stream, packet.time_base = text, Fraction(1, 90_000)
                packet.pts = packet.dts = LATE * 3600
                packet.duration = 90_000
                out.mux(packet)
        out.mux(video.encode(None))
    with av.open(str(path)) as container:
        assert [s.type for s in container.streams] == ["video"]  # or the tests show nothing
    return path


def test_a_subtitle_that_begins_late_is_kept(vob, tmp_path):
    with open_input(vob) as container:
        assert [s.type for s in container.streams] == ["video", "subtitle"]
    assert plan_streams(vob, "matroska").losses == ()
    output = tmp_path / "b.mkv"
    assert double(vob, output) == []
    with av.open(str(output)) as made:
        (packet,) = [p for p in made.demux(made.streams.subtitles[0]) if p.size]
    assert packet.size == 40


def test_one_that_begins_too_late_is_named_with_the_remedy(vob, monkeypatch):
    monkeypatch.setattr(program_stream, "DEEPEST", 5_000_000)
    (loss,) = plan_streams(vob, "matroska").losses
    assert "stream 0x20 (subtitle)" in loss
    assert "ffmpeg" in loss


def test_a_file_that_is_cut_anywhere_or_has_rubbish_in_it_is_read_to_its_end(vob, tmp_path):
    data = vob.read_bytes()
    spoiled = tmp_path / "a.vob"
    spoiled.write_bytes(data[:5000] + b"\xff" * 100_000 + data[5000:])
    known = program_stream._known(str(spoiled))
    assert known.keys() == {0x20, 0x1E0}
    assert known[0x20] == program_stream._known(str(vob))[0x20] + 100_000
    for end in (3, 13, 14, 20, 43, 44):
        cut = tmp_path / f"{end}.vob"
        cut.write_bytes(data[:end])
        assert program_stream._known(str(cut)).keys() <= {0x1E0}

"""Tags of odd names: those that an output holds arrive, the others are named, and `verify` knows both."""

from __future__ import annotations

from fractions import Fraction

import av
import numpy as np
import pytest
from clips import make_clip
from doubling import double

from videosr.media.checks.verify import verify
from videosr.media.decoder import Decoder
from videosr.media.probe import plan_streams, probe
from videosr.media.source import parse_clock


def spaced(path, *, track=None, file=None):
    """A Matroska file with tags whose names FFmpeg's muxer would write with underscores."""
    plain = make_clip(path.with_name("plain.mkv"), frames=5)
    with av.open(str(plain)) as source, av.open(str(path), "w", container_options={"fflags": "+bitexact"}) as out:
        out.metadata.update(file or {})
        streams = [out.add_stream_from_template(stream) for stream in source.streams]
        streams[0].metadata.update(track or {})
        for packet in source.demux():
            if packet.size:
                packet.stream = streams[packet.stream_index]
                out.mux(packet)
    for name in (b"MY_TAG", b"MY_OTHER:_TAG"):
        assert path.read_bytes().count(name) == 1
        path.write_bytes(path.read_bytes().replace(name, name.replace(b"_", b" ")))
    return path


@pytest.mark.parametrize("suffix", [".mkv", ".mp4", ".mov"])
def test_tags_of_a_track_with_a_space_in_their_names(tmp_path, suffix):
    source, output = tmp_path / "in.mkv", tmp_path / f"out{suffix}"
    spaced(source, track={"MY TAG": "hello", "My Other: tag": "x"})
    losses = plan_streams(source, {".mkv": "matroska"}.get(suffix, suffix[1:])).losses
    lost = {line.split(" has no place")[0] for line in losses if " tag " in line}
    assert lost == (set() if suffix == ".mkv" else {"stream 0: tag MY TAG", "stream 0: tag MY OTHER: TAG"})
    double(source, output)
    assert verify(source, output).problems == []


@pytest.mark.parametrize("suffix", [".mkv", ".mp4", ".mov"])
def test_tags_of_a_file_with_a_space_in_their_names(tmp_path, suffix):
    source = spaced(tmp_path / "in.mkv", file={"MY TAG": "hello", "My Other: tag": "x"})
    output = tmp_path / f"out{suffix}"
    double(source, output)
    assert verify(source, output).problems == []


@pytest.mark.parametrize("suffix", [".mkv", ".mp4", ".mov"])
def test_a_title_in_several_languages(tmp_path, suffix):
    titles = {"TITLE": "English", "TITLE-jpn": "Nihongo", "odd name": "x"}
    source, output = make_clip(tmp_path / "in.mkv", frames=5, metadata=titles), tmp_path / f"out{suffix}"
    had = {key.lower(): value for key, value in probe(source).metadata.items()}
    assert "Nihongo" in had.values()
    double(source, output)
    has = {key.lower(): value for key, value in probe(output).metadata.items()}
    assert {key: has.get(key) for key in had if key != "encoder"} == {k: v for k, v in had.items() if k != "encoder"}
    assert verify(source, output).problems == []


def test_a_title_that_has_no_place_beside_cover_art(tmp_path):
    cover, source, output = tmp_path / "cover.png", tmp_path / "in.mkv", tmp_path / "out.mp4"
    av.VideoFrame.from_ndarray(np.full((8, 8, 3), 77, np.uint8), format="rgb24").save(cover)
    titles = {"TITLE": "English", "TITLE-jpn": "Nihongo", "odd name": "x"}
    art = [("cover.png", "image/png", cover.read_bytes())]
    make_clip(source, frames=5, metadata=titles, attachments=art)
    losses = [line.lower() for line in plan_streams(source, "mp4").losses]
    assert "tag title-jpn has no place in the container beside cover art" in losses
    assert "tag odd_name has no place in the container beside cover art" in losses
    double(source, output)
    assert verify(source, output).problems == []


@pytest.mark.parametrize("length", ["00:00:1/0", "00:00:1/2", "a:b:c", "00:00:" + "9" * 5000])
def test_a_stated_duration_that_is_none(tmp_path, length):
    source = make_clip(tmp_path / "in.mkv", frames=3)
    data = source.read_bytes()
    at = data.rindex(b"DURATION") + 8
    at = data.index(b"00:", at)
    source.write_bytes(data[:at] + length[:18].encode().ljust(18, b"\0") + data[at + 18 :])
    with Decoder(source) as decoder:
        assert len(list(decoder)) == 3
    assert parse_clock(length) is None


def test_durations_as_containers_state_them():
    assert parse_clock("01:02:03.500000000") == Fraction(7447, 2)
    assert parse_clock(" 0:0:7. ") == 7


@pytest.mark.parametrize("suffix", [".mkv", ".mp4"])
def test_a_creation_time_that_a_quicktime_file_states_twice(tmp_path, suffix):
    """In its header and among its tags, where FFmpeg's muxer and telephones write it beside tags of their own."""
    tags = {"creation_time": "2020-02-02T02:02:02.000000Z", "com.apple.quicktime.make": "Some"}
    source, output = make_clip(tmp_path / "plain.mov", frames=5), tmp_path / f"out{suffix}"
    twice = tmp_path / "twice.mov"
    with av.open(source) as plain, av.open(twice, "w", options={"movflags": "use_metadata_tags"}) as out:
        out.metadata.update(tags)
        stream = out.add_stream_from_template(plain.streams[0])
        for packet in plain.demux():
            if packet.size:
                packet.stream = stream
                out.mux(packet)
    with av.open(twice) as file:
        assert file.metadata["creation_time"] == f"{tags['creation_time']};{tags['creation_time']}"
    assert probe(twice).metadata["creation_time"] == tags["creation_time"]
    double(twice, output)
    assert verify(twice, output).problems == []
    with av.open(output) as file:  # once, so that other readers take it for a time
        made = {key.lower(): value for key, value in file.metadata.items()}
        assert {key: made[key] for key in tags} == tags
        if suffix == ".mp4":
            assert [stream.metadata["creation_time"] for stream in file.streams] == [tags["creation_time"]]

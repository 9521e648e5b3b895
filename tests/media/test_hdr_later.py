"""Static metadata of high dynamic range that begins or changes in mid-film: encoders write one for the whole film."""

from __future__ import annotations

import struct

import pytest
from clips import make_clip
from corpus.hdr import HEVC_SEI, sei, with_units

from videosr.media.checks.verify import verify
from videosr.media.decoder import Decoder

FAST = ("--preset", "ultrafast")


def light(most, average):
    """A unit with the content light level (H.265, D.2.35)."""
    return sei(HEVC_SEI, struct.pack(">2H", most, average), 144)


def film(folder, unit, begin=0):
    """Twenty frames, a keyframe every fifth, with a unit before each from a number on."""

    def make(folder):
        options = {"preset": "ultrafast", "x265-params": "log-level=none:keyint=5:bframes=0"}
        return make_clip(folder / "a.mkv", frames=20, codec="libx265", pix_fmt="yuv420p10le", options=options)

    folder.mkdir()
    return with_units(folder, make, unit, begin=begin)


@pytest.mark.parametrize(
    ("unit", "begin"), [(light(1000, 400), 10), (lambda number: light(1000 if number < 10 else 4000, 400), 0)]
)
def test_it_is_named_and_refused_by_strict(tmp_path, videosr, unit, begin):
    source, output = film(tmp_path / "in", unit, begin), tmp_path / "out.mkv"
    lost = "content light level that begins or changes in mid-film cannot be kept"
    refused = videosr("upscale", source, output, "--strict", *FAST)
    assert refused.code == 1
    assert lost in refused.err
    done = videosr("upscale", source, output, *FAST)
    assert done.code == 0
    assert done.err.count(lost) == 1
    with Decoder(source) as a, Decoder(output) as b:
        assert a.hdr == b.hdr
    report = verify(source, output)
    assert report.problems == []
    assert lost in report.facts["losses"]


def test_what_stays_the_same_is_no_loss(tmp_path, videosr):
    source, output = film(tmp_path / "in", light(1000, 400)), tmp_path / "out.mkv"
    assert videosr("upscale", source, output, "--strict", *FAST).code == 0
    report = verify(source, output)
    assert report.problems == []
    assert report.facts["losses"] == []


def test_verify_finds_what_begins_in_the_output_alone(tmp_path):
    one, other = film(tmp_path / "one", b"\x4e\x01\x80"), film(tmp_path / "other", light(1000, 400), 10)
    assert verify(one, other).problems == ["video: content light level begins or changes in mid-film"]

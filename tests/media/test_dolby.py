"""Dolby Vision: its metadata for a larger picture, and the files that carry it."""

from __future__ import annotations

from fractions import Fraction
from functools import partial

import av
import pytest
from clips import remux
from corpus.hdr import barred, crc32, dolby, escaped, rpu, rpu_unit, with_units, x265
from hypothesis import given
from hypothesis import strategies as st

from videosr.media.checks.verify import verify
from videosr.media.decoder import Decoder
from videosr.media.dolby import (
    CONFIGURATION,
    RPU,
    Fit,
    can_be_carried,
    carried,
    fitted,
    mapping,
    said,
    said_of_fitted,
    same_kind,
)
from videosr.media.matroska.elements import element, elements
from videosr.media.template import saying

FAST = ("--preset", "ultrafast")
PROFILE_5, PROFILE_8 = bytes([1, 0, 5, 3, 1, 0, 1, 0, 0]), bytes([1, 0, 8, 3, 1, 0, 1, 1, 0])
TWICE = Fit(Fraction(2), Fraction(2))


@given(st.tuples(*[st.integers(0, 8191)] * 4), st.integers(0, 4095), st.sampled_from([1, 2, Fraction(3, 2), 4]))
def test_bars_are_those_of_the_larger_picture(bars, brightness, down):
    fit = Fit(Fraction(2), Fraction(down), (3, 10, 0, 7))
    made = fitted(escaped(rpu(bars, brightness)), fit)
    cropped = [max(0, bar - out) for bar, out in zip(bars, (0, 7, 3, 10), strict=True)]
    wanted = tuple(min(round(bar * by), 8191) for bar, by in zip(cropped, (2, 2, down, down), strict=True))
    assert made == escaped(rpu(wanted, brightness))
    before = said(escaped(rpu(bars, brightness)))
    assert said(made) == said_of_fitted(before, fit)
    assert said(escaped(rpu(bars, brightness ^ 1)))[:16] != before[:16]
    assert said(escaped(rpu((*bars[:3], bars[3] ^ 1), brightness))) != before


@given(st.binary(max_size=80), st.integers(0, 983), st.integers(0, 122))
def test_what_cannot_be_read_stays_as_it_is(data, bit, length):
    assert fitted(data, TWICE) == data
    good = rpu((1, 2, 3, 4))
    assert fitted(escaped(good), TWICE) == escaped(rpu((2, 4, 6, 8)))
    assert fitted(escaped(good[:length]), TWICE) == escaped(good[:length])
    spoiled = bytearray(good)
    spoiled[bit // 8] ^= 128 >> bit % 8
    assert fitted(escaped(bytes(spoiled)), TWICE) == escaped(bytes(spoiled))
    assert fitted(escaped(rpu()), TWICE) == escaped(rpu())


@given(st.binary(min_size=5, max_size=120))
def test_whatever_a_sum_is_right_of_is_read(content):
    made = b"\x19" + content + crc32(content) + b"\x80"
    assert isinstance(fitted(escaped(made), TWICE), bytes)


def test_which_streams_can_be_carried():
    assert can_be_carried(PROFILE_5)
    assert can_be_carried(PROFILE_8)
    assert not can_be_carried(bytes([1, 0, 7, 3, 1, 1, 1, 6, 0]))  # two layers
    assert not can_be_carried(bytes([1, 0, 8, 3, 1, 0, 1, 1, 1]))  # compressed metadata
    assert not can_be_carried(bytes([1, 0, 10, 3, 1, 0, 1, 1, 0]))  # AV1, whose units FFmpeg does not give
    assert not can_be_carried(b"")
    assert carried(PROFILE_8, "matroska", "hevc", 10)
    assert not carried(PROFILE_8, "mov", "hevc", 10)
    assert not carried(PROFILE_8, "mp4", "av1", 10)
    assert not carried(PROFILE_8, "mp4", "hevc", 8)
    assert same_kind(PROFILE_8, bytes([1, 0, 8, 9, 1, 0, 1, 1]))
    assert not same_kind(PROFILE_8, PROFILE_5)
    assert not same_kind(PROFILE_8, b"")


@pytest.mark.parametrize(
    ("size", "rate", "level"),
    [
        ((640, 360), None, 1),
        ((1280, 720), Fraction(30), 2),
        ((1920, 1080), Fraction(24000, 1001), 3),
        ((1920, 804), Fraction(25), 3),
        ((3840, 1600), Fraction(24), 6),
        ((3840, 2160), Fraction(60), 9),
        ((7680, 4320), Fraction(24), 11),
        ((7680, 4320), Fraction(120), 13),
        ((15360, 8640), Fraction(60), 13),
    ],
)
def test_levels(size, rate, level):
    made = mapping(PROFILE_8, *size, rate)
    (outer,) = elements(bytearray(made), 0, len(made))
    fields = {child.id: made[child.data : child.end] for child in elements(bytearray(made), outer.data, outer.end)}
    assert fields[0x41E7] == b"dvvC"
    record = fields[0x41ED]
    assert (record[2] >> 1, (record[2] & 1) << 5 | record[3] >> 3, record[3] & 7, record[4] >> 4) == (8, level, 5, 1)
    assert b"dvcC" in mapping(PROFILE_5, *size, rate)


@pytest.mark.parametrize("profile", [(8, 1), (8, 4), (5, 0)])
@pytest.mark.parametrize("suffix", [".mkv", ".mp4"])
def test_it_is_carried(tmp_path, videosr, profile, suffix):
    film = dolby(tmp_path, *profile, unit=barred)
    output = tmp_path / f"b{suffix}"
    done = videosr("upscale", film, output, "--strict", *FAST)
    assert done.code == 0, done.err
    assert "Dolby" not in done.err
    assert verify(film, output).problems == []
    with Decoder(film) as a, Decoder(output) as b:
        was, now = ([dict(frame.side_data)[RPU] for frame in decoder] for decoder in (a, b))
        assert now == [fitted(data, TWICE) for data in was]
        assert len(set(now)) == 3
        assert same_kind(a.dolby, b.dolby)
        assert b.dolby[2] == profile[0]
    with av.open(output) as file:  # FFmpeg reads what is in the units
        assert all("DOVI_METADATA" in {kind.name for kind in frame.side_data} for frame in file.decode(video=0))


def test_bars_that_the_container_crops_are_gone(tmp_path, videosr):
    film = remux(dolby(tmp_path, unit=lambda n: rpu_unit(rpu((0, 0, 12, 20)))), tmp_path / "whole.mkv")
    cropped = element(0x54BB, b"\x0a") + element(0x54AA, b"\x14")  # PixelCropTop, PixelCropBottom
    (tmp_path / "cropped.mkv").write_bytes(saying(film.read_bytes(), video=cropped))
    assert videosr("upscale", tmp_path / "cropped.mkv", tmp_path / "b.mkv", "--strict", *FAST).code == 0
    assert verify(tmp_path / "cropped.mkv", tmp_path / "b.mkv").problems == []
    with Decoder(tmp_path / "b.mkv") as decoder:
        assert (decoder.info.width, decoder.info.height) == (256, 132)
        assert [dict(frame.side_data)[RPU] for frame in decoder] == [escaped(rpu((0, 0, 4, 0)))] * 3


def test_parts_made_by_several_processes_are_the_same(tmp_path, videosr):
    film = dolby(tmp_path, unit=barred)
    for name, options in (("a.mkv", ()), ("b.mkv", ("--jobs", "2"))):
        assert videosr("upscale", film, tmp_path / name, *FAST, *options).code == 0
    assert (tmp_path / "a.mkv").read_bytes() == (tmp_path / "b.mkv").read_bytes()


@pytest.mark.parametrize(
    ("make", "output", "options", "says"),
    [
        (partial(dolby, unit=barred), "b.mov", FAST, "Dolby Vision metadata cannot be kept"),
        (partial(dolby, unit=barred), "b.mkv", ("--codec", "libsvtav1", "--preset", "12"), "Dolby Vision metadata c"),
        (partial(dolby, profile=7, compatible=6, unit=barred), "b.mkv", FAST, "Dolby Vision metadata cannot be kept"),
        (
            partial(dolby, profile=5, compatible=0, unit=barred),
            "b.mkv",
            ("--codec", "libsvtav1", "--preset", "12"),
            "Dolby Vision metadata, without which its colours are wrong, cannot be kept",
        ),
        (partial(with_units, source=x265, unit=barred, behind=True), "b.mkv", FAST, "Dolby Vision metadata cannot"),
    ],
)
def test_what_cannot_be_carried_is_named(tmp_path, videosr, make, output, options, says):
    film = make(tmp_path)
    refused = videosr("upscale", film, tmp_path / output, "--strict", *options)
    assert refused.code == 1
    assert "Dolby Vision" in refused.err
    done = videosr("upscale", film, tmp_path / output, *options)
    assert done.code == 0
    assert says in done.err
    with av.open(tmp_path / output) as file:
        assert CONFIGURATION not in file.streams.video[0].codec_context.coded_side_data
        assert all(RPU not in {kind.name for kind in frame.side_data} for frame in file.decode(video=0))
    report = verify(film, tmp_path / output)
    assert report.problems == []


def test_verify_misses_it(tmp_path, videosr):
    (folder := tmp_path / "a").mkdir()
    film = dolby(folder, unit=barred)
    assert videosr("upscale", x265(tmp_path), tmp_path / "b.mkv", *FAST).code == 0
    assert verify(film, tmp_path / "b.mkv").problems[:2] == [
        "video: the stream does not say that it is Dolby Vision as its source is",
        "video: Dolby Vision metadata of frame 0 is missing (and 2 more)",
    ]


def test_verify_finds_other_metadata(tmp_path, videosr):
    (folder := tmp_path / "a").mkdir()
    film, other = dolby(tmp_path, unit=barred), dolby(folder, unit=lambda n: rpu_unit(rpu((0, 0, 10, 12), 100)))
    assert videosr("upscale", other, tmp_path / "b.mkv", *FAST).code == 0
    assert verify(film, tmp_path / "b.mkv").problems == ["video: Dolby Vision metadata of frame 0 differs (and 2 more)"]

"""Closed captions: what FFmpeg's decoders find in coded pictures after they were put there."""

from __future__ import annotations

import numpy as np
import pytest
from clips import make_clip
from coded import ENCODERS, coded, found
from corpus.hdr import captions, with_units
from hypothesis import example, given, settings
from hypothesis import strategies as st

from videosr.media.captions import CAPTIONS, as_read, caption_messages
from videosr.media.checks.verify import verify
from videosr.media.decoder import Decoder
from videosr.media.riders import Riders
from videosr.media.user_data import embed

FAST = ("--preset", "ultrafast")


@pytest.mark.parametrize("encoder", ENCODERS)
@given(texts=st.lists(st.binary(max_size=3 * 90), min_size=24, max_size=24))
@example(texts=[b"\xfc\x94\x2c" * 31, b"\xfc\0\0" * 60] * 12)
@settings(max_examples=20)
def test_a_decoder_finds_the_captions_of_every_picture(encoder, texts):
    codec, packets, extradata = coded(encoder)
    assert CAPTIONS in Riders(codec).kinds
    texts = [text[: len(text) // 3 * 3] for text in texts]
    captioned = [(pts, embed(data, caption_messages(texts[pts]), codec)) for pts, data in packets]
    read, pictures = found(CAPTIONS, codec, captioned, extradata)
    assert read == {number: as_read(text, codec) for number, text in enumerate(texts)}
    for now, was in zip(pictures, found(CAPTIONS, codec, packets, extradata)[1], strict=True):
        assert np.array_equal(now, was)


@pytest.mark.parametrize("encoder", ENCODERS)
def test_the_packets_are_not_in_the_order_of_the_pictures(encoder):
    order = [pts for pts, _ in coded(encoder)[1]]
    assert encoder == "libsvtav1" or order != sorted(order)  # of AV1 a packet shows one picture, and holds more


@pytest.mark.parametrize("codec", ["h264", "hevc", "av1"])
@given(data=st.binary(max_size=60))
def test_what_is_no_picture_stays_whole(codec, data):
    made = embed(data, caption_messages(b"\xfc\x94\x2c"), codec)
    assert made == data or len(made) > len(data)
    assert embed(data, caption_messages(b""), codec) == data


@pytest.mark.parametrize(
    ("suffix", "options"), [(".mkv", FAST), (".mp4", FAST), (".mp4", ("--codec", "libx265", *FAST))]
)
def test_captions_are_carried(tmp_path, videosr, suffix, options):
    film = with_units(tmp_path, lambda folder: make_clip(folder / "a.mkv", frames=70, options={"g": "25"}), captions)
    done = videosr("upscale", film, tmp_path / f"b{suffix}", "--strict", *options)
    assert done.code == 0
    assert "cannot be kept" not in done.err
    with Decoder(film) as a, Decoder(tmp_path / f"b{suffix}") as b:
        was, now = ([dict(frame.side_data)["A53_CC"] for frame in decoder] for decoder in (a, b))
    assert was == now
    assert len(set(now)) == 70
    report = verify(film, tmp_path / f"b{suffix}")
    assert report.problems == []
    assert report.facts["captions"] == 70


def test_captions_come_with_the_first_of_two_fields(tmp_path, videosr):
    film = with_units(tmp_path, lambda folder: make_clip(folder / "a.mkv", frames=12), captions)
    fields = ("--deinterlace", "bwdif", "--field-rate", *FAST)
    assert videosr("upscale", film, tmp_path / "b.mkv", *fields).code == 0
    with Decoder(film) as a, Decoder(tmp_path / "b.mkv") as b:
        was, now = ([dict(frame.side_data).get("A53_CC") for frame in decoder] for decoder in (a, b))
    assert now[::2] == was
    assert now[1::2] == [None] * 12


def test_verify_misses_captions(tmp_path, videosr):
    plain = make_clip(tmp_path / "a.mkv", frames=12)
    assert videosr("upscale", plain, tmp_path / "b.mkv", *FAST).code == 0
    film = with_units(tmp_path, lambda folder: plain, captions, begin=3)
    with Decoder(film) as decoder:
        first = min(i for i, frame in enumerate(decoder) if frame.side_data)
    assert verify(film, tmp_path / "b.mkv").problems == [
        f"video: embedded captions (A53) of frame {first} is missing (and 8 more)"
    ]

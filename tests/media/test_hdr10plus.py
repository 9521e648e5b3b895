"""Metadata of high dynamic range that rides on frames: what FFmpeg's decoders find again in coded pictures."""

from __future__ import annotations

import struct
from functools import partial
from itertools import chain

import pytest
from coded import coded, found
from corpus.hdr import HDR10_PLUS, bits, hdr10_plus, with_units, x265
from hypothesis import example, given, settings
from hypothesis import strategies as st

from videosr.media.checks.verify import verify
from videosr.media.decoder import Decoder
from videosr.media.hdr import AMBIENT, ambient_message
from videosr.media.hdr10plus import DYNAMIC, dynamic_message
from videosr.media.riders import Riders
from videosr.media.user_data import Message, embed

FAST = ("--preset", "ultrafast")
PROVIDER = b"\xb5\x00\x3c\x00\x01\x04"
WINDOW = [(9, 16)] * 6 + [(9, 8), (9, 16), (9, 16), (9, 16), (1, 1)]


def number(width, most=None):
    return st.integers(0, 2**width - 1 if most is None else most).map(lambda value: [(value, width)])


def several(least, most, item, width):
    """A list behind its length."""
    return st.lists(item, min_size=least, max_size=most).map(lambda items: [(len(items), width), *chain(*items)])


def optional(fields):
    return st.just([(0, 1)]) | fields.map(lambda found: [(1, 1), *found])


def table():
    """Luminances of a display at up to 25 by 25 places."""
    rows, columns = st.integers(2, 25), st.integers(2, 25)
    return st.tuples(rows, columns, st.integers(0, 15)).map(
        lambda t: [(t[0], 5), (t[1], 5), *(((t[2] + n) % 16, 4) for n in range(t[0] * t[1]))]
    )


def joined(*parts):
    return st.tuples(*parts).map(lambda found: [*chain(*found)])


code = partial(number, 17, 100000)
metadata = joined(
    st.just([(1, 2)]),
    number(27, 10000),
    optional(table()),
    *[code() for _ in range(4)],
    several(0, 15, joined(number(7, 100), code()), 4),
    number(10, 1000),
    optional(table()),
    optional(joined(number(12), number(12), several(0, 15, number(10), 4))),
    optional(number(6)),
)


@pytest.mark.parametrize("encoder", ["libx265", "libsvtav1"])
@given(texts=st.lists(metadata.map(lambda fields: PROVIDER + b"\1" + bits(*fields)), min_size=24, max_size=24))
@example(texts=[HDR10_PLUS] * 24)
@settings(max_examples=12)
def test_a_decoder_finds_what_was_written_and_it_is_written_alike(encoder, texts):
    codec, packets, extradata = coded(encoder)
    with_metadata = [(pts, embed(data, [Message(texts[pts])], codec)) for pts, data in packets]
    read, _ = found(DYNAMIC, codec, with_metadata, extradata)
    assert [dynamic_message(read[number]) for number in range(24)] == [[Message(text)] for text in texts]


def read_again(payload, kind, name):
    codec, packets, extradata = coded("libx265")
    with_message = [(pts, embed(data, [Message(payload, kind)], codec)) for pts, data in packets]
    return found(name, codec, with_message, extradata)[0][5]


def test_metadata_of_parts_of_the_picture_is_not_written():
    """Their places are those of the small picture."""
    one = [(400, 27), (0, 1), *[(5, 17)] * 4, (0, 4), (0, 10), (0, 1), (0, 1), (0, 1)]
    two = [(2, 2), *WINDOW, (400, 27), (0, 1), *([(5, 17)] * 4 + [(0, 4), (0, 10)]) * 2, (0, 1), *[(0, 1), (0, 1)] * 2]
    for fields, expected in (([(1, 2), *one], 1), (two, 0)):
        read = read_again(PROVIDER + b"\1" + bits(*fields), 4, DYNAMIC)
        assert read
        assert len(dynamic_message(read)) == expected
        assert dynamic_message(read[:-1]) == []  # a struct of another FFmpeg


def test_ambient_light():
    payload = struct.pack(">I2H", 3140000, 15635, 16450)
    read = read_again(payload, 148, AMBIENT)
    assert ambient_message(read) == [Message(payload, 148)]
    assert ambient_message(read[:-1]) == []
    assert ambient_message(struct.pack("=6i", 1, 0, 1, 2, 1, 2)) == []
    rides = ((AMBIENT, read), ("ICC_PROFILE", b"x"))
    assert [Riders(codec).of(rides) for codec in ("hevc", "h264", "av1", "ffv1")] == [rides[:1], rides[:1], (), ()]


@pytest.mark.parametrize(
    ("suffix", "options"),
    [(".mkv", FAST), (".mp4", FAST), (".webm", ("--codec", "libsvtav1", "--preset", "12"))],
)
def test_dynamic_metadata_is_carried(tmp_path, videosr, suffix, options):
    film = with_units(tmp_path, x265, hdr10_plus)
    done = videosr("upscale", film, tmp_path / f"b{suffix}", "--strict", *options)
    assert done.code == 0, done.err
    assert "cannot be kept" not in done.err
    with Decoder(film) as a, Decoder(tmp_path / f"b{suffix}") as b:
        was, now = ([dict(frame.side_data)[DYNAMIC] for frame in decoder] for decoder in (a, b))
    assert was == now
    assert len(set(now)) == 3
    report = verify(film, tmp_path / f"b{suffix}")
    assert report.problems == []
    assert report.facts["hdr10plus"] == 3


def test_verify_misses_dynamic_metadata(tmp_path, videosr):
    (folder := tmp_path / "a").mkdir()
    film = with_units(folder, x265, hdr10_plus)
    assert videosr("upscale", x265(tmp_path), tmp_path / "b.mkv", *FAST).code == 0
    assert verify(film, tmp_path / "b.mkv").problems == [
        "video: HDR10+ dynamic metadata of frame 0 is missing (and 2 more)"
    ]

import base64
import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from videosr.errors import InputError
from videosr.media.segments import EncodedPacket, Segment, SegmentHeader, SegmentRule, SegmentWriter, decode_times

HEADER = SegmentHeader(
    codec="libx264",
    width=64,
    height=48,
    pix_fmt="yuv420p",
    time_base=(1, 1000),
    rate=(24, 1),
    sar=(1, 1),
    color=(1, 1, 1, 1, 1),
    extradata=base64.b64encode(b"head").decode(),
    template="",
)
PACKETS = [
    EncodedPacket(0, 40, True, b"first"),
    EncodedPacket(80, 40, False, b""),
    EncodedPacket(40, 40, False, b"x" * 99),
]


def write(path, packets=PACKETS):
    writer = SegmentWriter(path, HEADER)
    for packet in packets:
        writer.add(packet)
    writer.finish()
    return path


def test_what_is_written_is_read(tmp_path):
    segment = Segment(write(tmp_path / "a.seg"))
    assert segment.header == HEADER
    assert segment.header.extradata_bytes == b"head"
    assert segment.frames == 3
    assert list(segment.packets()) == PACKETS
    assert list(segment.times()) == [(p.pts, p.duration) for p in PACKETS]


def test_a_segment_appears_only_when_it_is_finished(tmp_path):
    writer = SegmentWriter(tmp_path / "a.seg", HEADER)
    writer.add(PACKETS[0])
    assert not (tmp_path / "a.seg").exists()
    writer.abort()
    assert list(tmp_path.iterdir()) == []


def test_every_truncation_is_refused(tmp_path):
    data = write(tmp_path / "a.seg").read_bytes()
    for length in range(len(data)):
        path = tmp_path / "cut.seg"
        path.write_bytes(data[:length])
        with pytest.raises(InputError, match=r"cut\.seg"):
            list(Segment(path).packets())


def test_every_flipped_byte_is_noticed(tmp_path):
    data = write(tmp_path / "a.seg").read_bytes()
    for position in range(len(data)):
        path = tmp_path / "bad.seg"
        path.write_bytes(data[:position] + bytes([data[position] ^ 0x10]) + data[position + 1 :])
        with pytest.raises(InputError, match=r"bad\.seg"):
            list(Segment(path).packets())


@st.composite
def decode_orders(draw):
    """Distinct times in a decoding order that moves pictures forwards by up to a few places."""
    shown = list(itertools.accumulate(draw(st.lists(st.integers(1, 50), min_size=1, max_size=60))))
    early = draw(st.lists(st.integers(0, 6), min_size=len(shown), max_size=len(shown)))
    return [pts for _, pts in sorted((i - e, pts) for i, (pts, e) in enumerate(zip(shown, early, strict=True)))]


@given(decode_orders(), st.integers(1, 1000))
@settings(max_examples=300)
def test_decode_times_rise_strictly_and_never_pass_the_presentation(order, tick):
    times = decode_times(order, tick)
    assert len(times) == len(order)
    assert all(a < b for a, b in itertools.pairwise(times))
    assert all(dts <= pts for dts, pts in zip(times, order, strict=True))
    # No smaller delay would do: with one place less, some picture would be decoded after it is shown.
    shown = sorted(order)
    depth = sum(dts < shown[0] for dts in times)
    assert depth == 0 or any(shown[i - depth + 1] > pts for i, pts in enumerate(order) if i >= depth - 1)


def test_a_time_that_occurs_twice_is_refused():
    with pytest.raises(InputError, match="same presentation time"):
        decode_times([0, 2, 1, 2])


def test_segments_close_at_cuts_and_at_their_greatest_length():
    rule = SegmentRule(shortest=48, longest=240)
    assert not rule.closes(47, cut=True)
    assert rule.closes(48, cut=True)
    assert not rule.closes(239, cut=False)
    assert rule.closes(240, cut=False)

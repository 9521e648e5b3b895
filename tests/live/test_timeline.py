"""The output timeline: monotonic, continuous, in sync, whatever the source's clock does."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from videosr.live.timeline import TICKS, WRAP, Timeline

FRAME = TICKS // 25


def test_times_are_moved_to_zero_and_gaps_are_kept():
    timeline = Timeline()
    times = [timeline.place("video", 5_000_000 + t, FRAME) for t in (0, FRAME, 2 * FRAME, 5 * FRAME)]
    assert times == [0, FRAME, 2 * FRAME, 5 * FRAME]
    assert timeline.leaps == 0


def test_days_of_33_bit_clocks_are_one_line():
    timeline = Timeline()
    step = 9 * TICKS
    for n in range(0, 3 * WRAP // step):  # three days
        assert timeline.place("video", (WRAP - 20 * TICKS + n * step) % WRAP, FRAME) == n * step
        assert timeline.place("audio", (WRAP - 20 * TICKS + n * step + 7) % WRAP, 100) == n * step + 7
    assert timeline.leaps == 6  # each stream each time


def test_streams_stay_in_sync_across_a_wrap_that_comes_to_one_first():
    timeline = Timeline()
    start = WRAP - 4 * FRAME
    video = [timeline.place("video", (start + n * FRAME) % WRAP, FRAME) for n in range(8)]
    audio = [timeline.place("audio", (start + n * FRAME) % WRAP, FRAME) for n in range(8)]
    assert video == audio == [n * FRAME for n in range(8)]


def test_streams_stay_in_sync_across_a_leap():
    timeline = Timeline()
    for n in range(50):
        timeline.place("video", n * FRAME, FRAME)
        timeline.place("audio", n * FRAME, FRAME)
    far = 1_000 * TICKS
    video = [timeline.place("video", far + n * FRAME, FRAME) for n in range(5)]
    late_audio = timeline.place("audio", 50 * FRAME, FRAME)  # the old clock's last one
    audio = [timeline.place("audio", far + n * FRAME, FRAME) for n in range(1, 5)]
    assert video[0] == late_audio == 50 * FRAME
    assert audio == video[1:]


@pytest.mark.parametrize("seconds", [2, 6, 9, 11])
def test_a_short_piece_that_begins_anew_goes_on_at_its_own_rate(seconds):
    """As where short pieces come one after another through a pipe: the clock leaps back by no more than they last."""
    timeline = Timeline()
    count = seconds * 25
    video, audio = [], []
    for n in range(3 * count):
        video.append(timeline.place("video", TICKS + n % count * FRAME, FRAME))
        audio.append(timeline.place("audio", TICKS + n % count * FRAME, FRAME))
    assert video == audio == [n * FRAME for n in range(3 * count)]


def test_a_new_connection_goes_on_where_the_line_ends():
    timeline = Timeline()
    for n in range(10):
        timeline.place("video", n * FRAME, FRAME)
        timeline.place("audio", n * FRAME, FRAME)
    timeline.restart()
    audio = timeline.place("audio", 777_777, FRAME)
    video = timeline.place("video", 777_777 + 5, FRAME)
    assert (audio, video) == (10 * FRAME, 10 * FRAME + 5)


def test_a_stream_that_pauses_comes_back_in_sync():
    """Sound of MPEG-TS lies behind the pictures of its time; here it is silent for 12 s, and the pictures go on."""
    timeline = Timeline()
    sound = [(n * FRAME + TICKS // 2, "audio", n * FRAME) for n in range(40 * 25) if not 10 <= n / 25 < 22]
    pictures = [(n * FRAME, "video", n * FRAME) for n in range(40 * 25)]
    for _, stream, ticks in sorted(sound + pictures):
        assert timeline.place(stream, 5 * TICKS + ticks, FRAME) == ticks
    assert timeline.leaps == 0


@given(st.lists(st.tuples(st.sampled_from("va"), st.integers(-WRAP, WRAP), st.integers(0, TICKS), st.booleans())))
def test_time_never_goes_back_and_never_runs_away(packets):
    timeline = Timeline()
    last = {"v": -1, "a": -1}
    for stream, ticks, duration, again in packets:
        if again:
            timeline.restart()
        before = max(last.values())
        out = timeline.place(stream, ticks, duration)
        assert out > last[stream]
        assert out <= max(before, 0) + 12 * TICKS
        last[stream] = out


@given(st.integers(-9 * TICKS, 9 * TICKS), st.booleans())
def test_streams_that_lie_far_apart_in_the_file_stay_in_sync(behind, again):
    """Files are interleaved in blocks of seconds: sound may come that much before or after its pictures."""
    timeline = Timeline()
    timeline.place("video", 0, FRAME)
    if again:
        timeline.place("audio", 0, FRAME)
        timeline.restart()
        assert timeline.place("video", 50 * TICKS, FRAME) == FRAME
    origin = timeline.place("video", 51 * TICKS, FRAME) - 51 * TICKS if again else 0
    first = (51 * TICKS if again else 0) + behind
    placed = [timeline.place("audio", first + n * FRAME, FRAME) for n in range(300)]
    assert placed[-1] == first + 299 * FRAME + origin
    assert timeline.leaps == 0

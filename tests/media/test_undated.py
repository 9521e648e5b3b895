"""Pictures at the beginning that have no time."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise
from types import SimpleNamespace

import av
import pytest
from clips import make_clip, remux

from videosr.media.checks.verify import verify
from videosr.media.undated import LEADING, dated

FAST = ("--codec", "libx264", "--preset", "ultrafast", "--temporal", "off", "--model", "light-2x")


def pictures(times):
    for time in times:
        yield SimpleNamespace(pts=time, dts=time, duration=40)


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ([], []),
        ([0, 40], [0, 40]),
        ([None, None, 3, 43, None], [-77, -37, 3, 43, None]),
        ([None] * LEADING + [0], [-40 * n for n in range(LEADING, -1, -1)]),
        ([None] * (LEADING + 1) + [0], [None] * (LEADING + 1) + [0]),
        ([None, None], [None, None]),
    ],
)
def test_the_first_ones_are_dated_back_from_the_first_that_has_a_time(given, found):
    assert [picture.pts for picture in dated(pictures(given))] == found


def test_no_more_are_held_than_that():
    ahead = []

    def source():
        for n in range(100):
            ahead.append(n)
            yield SimpleNamespace(pts=None, dts=None, duration=40)

    for n, _ in enumerate(dated(source())):
        assert len(ahead) <= n + LEADING + 1


@pytest.mark.parametrize("options", [{"bf": "0"}, {"bf": "3", "b_strategy": "0"}])
def test_matroska_that_begins_before_0(tmp_path, videosr, options):
    whole = make_clip(tmp_path / "a.mp4", frames=30, rate=Fraction(25), options=options, audio=[("flac", "eng")])
    early = dict.fromkeys(("video", "audio"), Fraction(2, 5))
    source = remux(whole, tmp_path / "early.mkv", early, avoid_negative_ts="disabled")
    assert videosr("upscale", source, tmp_path / "out.mkv", *FAST).code == 0
    with av.open(tmp_path / "out.mkv") as file:
        times = [frame.pts for frame in file.decode(video=0)]
    assert times[0] == 0
    assert {b - a for a, b in pairwise(times)} == {40}
    assert verify(source, tmp_path / "out.mkv").problems == []

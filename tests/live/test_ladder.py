"""Steps down when frames are lost for seconds, and back up with hysteresis."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from clips import picture

from videosr.frame import ColorSpec, Frame, PixelFormat, StreamInfo
from videosr.live.ladder import (
    BAD_SECONDS,
    FIRST_HOLD,
    LONGEST_HOLD,
    MEASURED_HOLD,
    Ladder,
    Prompt,
    Rung,
    first_level,
    rungs,
    warm_up,
)
from videosr.live.timeline import TIME_BASE
from videosr.media.colorinfo import resolve_color
from videosr.options import UpscaleOptions
from videosr.temporal import Mode
from videosr.upscaler import Upscaler

RATE = 25
FORMAT = PixelFormat.parse("yuv420p")


class Run:
    """A ladder of three and a clock."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.said: list[str] = []
        names = ("best", "middle", "last")
        self.resets = 0

        def reset() -> None:
            self.resets += 1

        forms = [Rung(name, lambda frame: lambda: frame, reset) for name in names]
        self.ladder = Ladder(forms, self.said.append, lambda: self.seconds)

    def play(self, seconds: float, lost: float) -> None:
        """So many seconds in which that share of frames is lost."""
        debt = 0.0
        for _ in range(round(seconds * RATE)):
            self.ladder.decide()
            debt += lost
            self.ladder.frame(lost=debt >= 1)
            debt -= debt >= 1
            self.seconds += 1 / RATE


def test_a_few_drops_change_nothing():
    run = Run()
    run.play(60, 0.03)
    assert run.ladder.level == 0
    assert run.said == []


def test_a_second_of_drops_changes_nothing():
    run = Run()
    for _ in range(5):
        run.play(1, 1.0)
        run.play(5, 0)
    assert run.ladder.level == 0


def test_seconds_of_drops_step_down_and_quiet_steps_up():
    run = Run()
    run.play(BAD_SECONDS + 1.1, 0.5)
    assert run.ladder.level == 1
    assert "middle" in run.said[-1]
    run.play(BAD_SECONDS + 1.1, 0.5)
    assert run.ladder.level == 2
    run.play(30, 0.5)
    assert run.ladder.level == 2, "there is nothing below the last"
    run.play(FIRST_HOLD + 2, 0)
    assert run.ladder.level == 1
    run.play(FIRST_HOLD + 2, 0)
    assert run.ladder.level == 0
    assert "best" in run.said[-1]
    assert run.resets >= 4, "each form begins a new sequence"


def test_failing_to_climb_makes_it_wait_longer_each_time():
    run = Run()
    climbs = []
    for _ in range(40_000):
        before = run.ladder.level
        run.play(0.2, 0 if run.ladder.level else 0.5)
        if run.ladder.level < before:
            climbs.append(run.seconds)
    waits = np.diff(climbs)
    assert waits[1] > 1.5 * waits[0]
    assert max(waits) < LONGEST_HOLD + 20
    assert waits[-1] > LONGEST_HOLD - 20


def test_a_pause_of_the_source_is_no_reason_to_step():
    run = Run()
    run.play(BAD_SECONDS - 0.5, 1.0)
    run.ladder.rest()
    run.play(BAD_SECONDS - 0.5, 1.0)
    assert run.ladder.level == 0


def test_what_was_measured_and_found_too_slow_is_tried_later():
    assert first_level([100, 200, 900], Fraction(24)) == 0
    assert first_level([25, 200, 900], Fraction(24)) == 1, "with nothing to spare it is too slow"
    assert first_level([1, 2, 3], Fraction(24)) == 2
    run = Run()
    run.ladder.begin_at(2)
    assert "last" in run.said[-1]
    run.play(MEASURED_HOLD - 2, 0)
    assert run.ladder.level == 2
    run.play(5, 0)
    assert run.ladder.level == 1
    run.play(2.2, 0.5)
    assert run.ladder.level == 2, "a failed trial is short"


def info(width: int = 64, height: int = 48, pix_fmt: str = "yuv420p") -> StreamInfo:
    fmt = PixelFormat.parse(pix_fmt)
    return StreamInfo(width=width, height=height, format=fmt, time_base=TIME_BASE, color=color(fmt))


def color(fmt: PixelFormat) -> ColorSpec:
    return resolve_color(ColorSpec(), fmt, 48, 64)[0]


def frames(count: int, fmt: PixelFormat = FORMAT) -> list[Frame]:
    return [
        Frame(planes=picture(i, fmt, 48, 64), format=fmt, pts=i * 3600, time_base=TIME_BASE, color=color(fmt))
        for i in range(count)
    ]


@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv422p10le", "gbrp"])
def test_every_form_gives_the_same_kind_of_picture(pix_fmt):
    fmt = PixelFormat.parse(pix_fmt)
    target, forms = rungs(UpscaleOptions(pix_fmt="yuv420p"), info(pix_fmt=pix_fmt))
    assert [form.name for form in forms] == [
        "realtime-2x",
        "realtime-2x without temporal reuse",
        "light-2x",
        "bicubic resampling",
    ]
    frame = frames(1, fmt)[0]
    assert warm_up(forms, frame) == [0, 0, 0, 0]
    assert min(warm_up(forms, frame, 2, 0.05)) > 0
    made = [form.start(frame)() for form in forms]
    for result in made:
        assert (result.width, result.height, result.format) == (128, 96, target.format)
    luma = [result.planes[0].astype(float) for result in made]
    assert abs(luma[0] - luma[-1]).mean() < 4, "bicubic shows the same picture"


def test_frames_are_those_of_the_core_bit_for_bit():
    clip = frames(12)
    core = Upscaler(UpscaleOptions(temporal=Mode.ADAPTIVE))
    expected = [frame for given in clip for frame in core.process(given)] + list(core.flush())
    prompt = Prompt(Upscaler(UpscaleOptions(temporal=Mode.ADAPTIVE), core.engine))
    under_way = [prompt.start(frame) for frame in clip]
    for one, other in zip(expected, (finish() for finish in under_way), strict=True):
        assert one.same_picture(other)
        assert one.pts == other.pts

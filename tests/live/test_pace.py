"""Files read at the speed of a player, whatever the order of their packets: on a clock that only waiting moves."""

from __future__ import annotations

import threading
from fractions import Fraction
from itertools import pairwise
from math import floor
from pathlib import Path

import av
import numpy as np
import pytest
from clips import make_clip

from videosr.live.intake import LARGEST_LAG, LONGEST_PAUSE, SOUND_AHEAD, Pace
from videosr.media.live.input import LiveInput, Picture, Sound
from videosr.media.live.source import SourceSpec

SECONDS = 6
START = 1e8
"""Where the clock begins: far from that of what was read before pacing."""


class Clock(threading.Event):
    """Time passes only by waiting."""

    time = START

    def wait(self, timeout=None):
        self.time += timeout
        return False

    def now(self):
        return self.time


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("clips") / "clip.ts"
    return make_clip(path, frames=24 * SECONDS, audio=[("mp2", "eng")], options={"g": "24", "bf": "0"})


def reordered(source: Path, path: Path, place, shift: float = 0.0) -> Path:
    """The packets of a clip in the order of `place(seconds, is video)`, all times moved by `shift`."""
    muxer = {"max_interleave_delta": "1", "max_delay": "0"}
    with av.open(str(source)) as clip, av.open(str(path), "w", format="mpegts", container_options=muxer) as out:
        streams = {s.index: out.add_stream_from_template(s) for s in clip.streams}
        packets = [packet for packet in clip.demux() if packet.dts is not None]
        begin = min(float(p.dts * p.time_base) for p in packets)
        packets.sort(key=lambda p: place(float(p.dts * p.time_base) - begin, p.stream.type == "video"))
        for packet in packets:
            ticks = round(shift / packet.time_base)
            packet.pts, packet.dts = packet.pts + ticks, packet.dts + ticks
            packet.stream = streams[packet.stream_index]
            out.mux_one(packet)
    return path


def read(path: Path) -> tuple[list[Picture], list[Sound], Clock]:
    """What is read of a file under a pace."""
    clock = Clock()
    source = LiveInput(SourceSpec(url=str(path)))
    source.wait = Pace(clock, clock.now).wait
    events = [event for event in source if event.arrival >= START]
    source.close()
    pictures = [event for event in events if isinstance(event, Picture)]
    return pictures, [event for event in events if isinstance(event, Sound)], clock


def seconds(event: Picture | Sound) -> float:
    if isinstance(event, Picture):
        return float(event.frame.pts * event.frame.time_base)
    return float(event.packet.pts * event.packet.time_base)


def delays(events) -> list[float]:
    """By how much each came after its time."""
    return [event.arrival - seconds(event) for event in events]


@pytest.mark.parametrize("skew", [-4.0, -1.3, -0.5, -0.3, 0.0, 0.3, 0.5, 1.3, 4.0])
def test_pictures_come_at_their_time_wherever_their_sound_lies(tmp_path, clip, skew):
    path = reordered(clip, tmp_path / "skew.ts", lambda time, video: time + (0 if video else skew))
    pictures, sounds, clock = read(path)
    assert len(pictures) > 24 * SECONDS - 5
    assert np.ptp(delays(pictures)) < 0.05
    assert clock.time - START < SECONDS + 0.1
    if skew < 0:  # it counts as come when it is due, not when it was read
        assert delays(sounds[2:]) == pytest.approx([delays(pictures)[0]] * (len(sounds) - 2), abs=0.05)


@pytest.mark.parametrize("chunk", [0.5, 1, 3])
@pytest.mark.parametrize("first", [True, False])
def test_pictures_come_evenly_where_sound_lies_in_chunks(tmp_path, clip, chunk, first):
    path = reordered(clip, tmp_path / "chunks.ts", lambda time, video: (floor(time / chunk), video is not first))
    pictures, _, clock = read(path)
    gaps = np.diff([picture.arrival for picture in pictures])
    assert gaps[1:].max() < 0.1
    assert gaps[1:].min() > 0.01
    assert clock.time - START < SECONDS + chunk + 0.1


@pytest.mark.parametrize("shift", [-4.0, 5.0, 100.0, 2**33 / 90_000 - 3])
def test_each_of_two_clocks_is_kept(tmp_path, clip, shift):
    """The same clip again, its times earlier, after a gap, and across the wrap of MPEG-TS."""

    def place(time, video):
        return time + (0 if video else -0.5)

    path = reordered(clip, tmp_path / "twice.ts", place, 5.0)
    again = reordered(clip, tmp_path / "again.ts", place, 5.0 + shift)
    with path.open("ab") as file:
        file.write(again.read_bytes())
    pictures, _, clock = read(path)
    assert len(pictures) > 2 * 24 * SECONDS - 10
    pause = max(0, shift - SECONDS) if shift - SECONDS <= LONGEST_PAUSE else 0
    assert clock.time - START == pytest.approx(2 * SECONDS + pause, abs=1.2)
    gaps = [b.arrival - a.arrival for a, b in pairwise(pictures)]
    assert sum(gap < 0.01 for gap in gaps) < 16, "no more than half a second comes in a burst"


def test_pictures_that_stand_for_seconds_are_waited_for(tmp_path):
    path = make_clip(
        tmp_path / "slides.mkv", pts=[0, 2000, 4500, 5000, 9500], audio=[("mp2", "eng")], options={"bf": "0"}
    )
    pictures, _, clock = read(path)
    assert np.ptp(delays(pictures)) < 0.05
    assert clock.time - START > 9


def test_sound_that_goes_on_alone_is_held_back(tmp_path):
    with av.open(str(tmp_path / "alone.mkv"), "w") as out:
        video = out.add_stream("libx264", rate=24, options={"bf": "0"})
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        audio = out.add_stream("mp2", rate=48000)
        audio.codec_context.layout = "mono"
        for n in range(24):
            out.mux(video.encode(av.VideoFrame.from_ndarray(np.full((48, 64, 3), 9 * n, np.uint8), format="rgb24")))
        out.mux(video.encode(None))
        for n in range(20 * 48000 // 1152):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1152), np.int16), format="s16", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = 48000, n * 1152, Fraction(1, 48000)
            out.mux(audio.encode(frame))
        out.mux(audio.encode(None))
    _, sounds, clock = read(tmp_path / "alone.mkv")
    assert clock.time - START == pytest.approx(20 - SOUND_AHEAD, abs=0.2)
    assert np.ptp(delays(sounds[48:])) < 1e-3


def test_what_held_the_source_up_is_not_made_up_for():
    clock = Clock()
    pace = Pace(clock, clock.now)
    came = []
    for n in range(100):
        if n == 50:
            clock.time += 3  # the network, or a debugger
        came.append(pace.wait(n / 25, True))
    assert np.diff(came)[49] == pytest.approx(3, abs=1e-6)
    assert np.delete(np.diff(came), 49) == pytest.approx(1 / 25, abs=1e-6)
    clock.time += LARGEST_LAG - 0.01
    assert pace.wait(4.0, True) == pytest.approx(came[-1] + LARGEST_LAG - 0.01, abs=1e-6), "a little is"
    assert pace.wait(4.2, True) == pytest.approx(came[-1] + 0.24, abs=1e-6)

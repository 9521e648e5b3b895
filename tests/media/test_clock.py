"""Files joined of parts with a clock each are read on one line of time, whoever reads them, and from wherever on."""

from fractions import Fraction
from itertools import pairwise

import av
import numpy as np
import pytest
from clips import make_clip, picture
from doubling import double

from videosr.frame import PixelFormat
from videosr.media import clock
from videosr.media.checks.verify import verify
from videosr.media.clock import clock_of
from videosr.media.decoder import Decoder
from videosr.media.planes import to_av_frame
from videosr.media.source import open_input

RATE, SAMPLES = 25, 1152


def part(path, start, seconds=2, seed=0, pause=None, codec="mpeg2video", **options):
    """A recording with picture and sound whose clock begins at `start` seconds.

    Args:
        pause: (first, last) frame that is not there.
    """
    with av.open(str(path), "w") as out:
        video = out.add_stream(codec, rate=RATE, options={"g": "10", "qmin": "2", "qmax": "4", **options})
        # Pictures larger than a pack of a program stream, as they are on DVDs: each has its time then.
        video.width, video.height, video.pix_fmt = 128, 96, "yuv420p"
        audio = out.add_stream("mp2", rate=48000)
        audio.codec_context.layout = "mono"
        at = 0
        fmt = PixelFormat.parse("yuv420p")
        for i in range(round(seconds * RATE)):
            frame = to_av_frame(picture(i + 100 * seed, fmt, 96, 128, noise=24), fmt)
            frame.pts, frame.time_base = i + round(start * RATE), Fraction(1, RATE)
            if pause is None or not pause[0] <= i <= pause[1]:
                out.mux(video.encode(frame))
            while at < (i + 1) * 48000 // RATE:
                sound = av.AudioFrame.from_ndarray(np.full((1, SAMPLES), at % 999, np.int16), "s16", "mono")
                sound.sample_rate, sound.pts, sound.time_base = 48000, at + round(start * 48000), Fraction(1, 48000)
                out.mux(audio.encode(sound))
                at += SAMPLES
        out.mux(video.encode(None))
        out.mux(audio.encode(None))
    return path.read_bytes()


def joined(folder, *parts, suffix=".ts"):
    path = folder / f"joined{suffix}"
    path.write_bytes(b"".join(part(folder / f"{n}{suffix}", seed=n, **p) for n, p in enumerate(parts)))
    return path


def frames_of(path, **options):
    with Decoder(path, threads=1, **options) as decoder:
        frames = [(f.time - decoder.origin, hash(f.planes[0].tobytes())) for f in decoder]
        return frames, decoder.warnings


def tracks(path):
    """(dts, duration) of every stream's packets as readers get them, in ticks."""
    found = {}
    with open_input(path) as container:
        times = clock_of(container)
        for packet in times.demux(container, *container.streams):
            if packet.size:
                found.setdefault(packet.stream.type, []).append((packet.dts, packet.duration))
        return found, times.leaps


JOINS = {
    "again": [{"start": 0}, {"start": 0}],
    "lower": [{"start": 100}, {"start": 5}],
    "higher": [{"start": 5}, {"start": 1000}],
    "inserted": [{"start": 3}, {"start": 50}, {"start": 5}],
    "many": [{"start": 0, "seconds": 1}] * 5,
    "B-frames": [{"start": 0, "bf": "2"}, {"start": 0}, {"start": 1, "bf": "2"}],
    "H.264": [{"start": 0, "codec": "libx264", "bf": "2"}, {"start": 0, "codec": "libx264", "bf": "2"}],
    "H.264 ahead": [{"start": 0, "codec": "libx264", "bf": "2"}, {"start": 1, "codec": "libx264", "bf": "0"}],
}


@pytest.mark.parametrize(
    ("name", "suffix"), [(name, suffix) for name in JOINS for suffix in (".ts", ".vob")[: 1 if "264" in name else 2]]
)
@pytest.mark.parametrize("ahead", [clock.AHEAD, 64 << 10])
def test_parts_with_clocks_of_their_own_are_shown_one_behind_the_other(tmp_path, monkeypatch, name, suffix, ahead):
    monkeypatch.setattr(clock, "AHEAD", ahead)
    parts = JOINS[name]
    source = joined(tmp_path, *parts, suffix=suffix)
    frames, warnings = frames_of(source)
    count = sum(round(p.get("seconds", 2) * RATE) for p in parts)
    assert len(frames) == count
    steps = [b - a for (a, _), (b, _) in pairwise(frames)]
    sound = Fraction(SAMPLES, 48000)  # by which one track may be longer than the other
    assert all(Fraction(1, RATE) <= step <= Fraction(1, RATE) + sound for step in steps)
    assert sum(step > Fraction(1, RATE) for step in steps) < len(parts)
    assert any("the file's clock leaps by" in line for line in warnings)
    assert not any("increase" in line or "truncated" in line for line in warnings)
    found, leaps = tracks(source)
    assert len(leaps) == len(parts) - 1
    for packets in found.values():
        for (a, length), (b, _) in pairwise(packets):
            assert (
                -2 <= b - a - length <= 90_000 * (sound + Fraction(3, RATE))
            )  # ticks are rounded; decoders' delays differ


@pytest.mark.parametrize("suffix", [".ts", ".vob"])
@pytest.mark.parametrize("name", ["again", "lower", "inserted", "B-frames"])
def test_any_start_gives_the_frames_of_the_whole(tmp_path, name, suffix):
    source = joined(tmp_path, *JOINS[name], suffix=suffix)
    whole, _ = frames_of(source)
    begin = whole[0][0]
    for first in (1, 25, 48, 50, 51, 63, len(whole) - 1):
        part, _ = frames_of(source, start=whole[first][0])
        assert part == whole[first:]
    part, _ = frames_of(source, start=begin + Fraction(3, 2), duration=Fraction(1))
    assert part == [f for f in whole if begin + Fraction(3, 2) <= f[0] < begin + Fraction(5, 2)]


@pytest.mark.parametrize("suffix", [".ts", ".vob"])
@pytest.mark.parametrize("output", ["out.mkv", "out.webm"])  # sound that is copied, and that is converted
def test_all_streams_of_joined_recordings_arrive_in_step(tmp_path, videosr, suffix, output):
    source = joined(tmp_path, {"start": 100, "seconds": 1}, {"start": 5, "seconds": 1}, suffix=suffix)
    options = ("--preset", "ultrafast") if output.endswith("mkv") else ("--codec", "libvpx-vp9")
    done = videosr("upscale", source, tmp_path / output, *options)
    assert done.code == 0, done.err
    assert "the file's clock leaps by" in done.err
    assert verify(source, tmp_path / output).problems == []
    with av.open(tmp_path / output) as made:
        ends = {}
        for packet in made.demux():
            if packet.size:
                time = packet.pts * packet.time_base
                assert time - ends.get(packet.stream_index, time) < Fraction(1, 10)
                ends[packet.stream_index] = time
        assert max(ends.values()) - min(ends.values()) < Fraction(1, 5)


@pytest.mark.parametrize("suffix", [".mkv", ".mp4"])
def test_times_that_go_back_a_little_are_moved_and_said(tmp_path, suffix):
    source = joined(tmp_path, {"start": 0, "seconds": 0.4}, {"start": 0.36, "seconds": 0.4})
    output = tmp_path / f"out{suffix}"
    warnings = double(source, output)
    with Decoder(source) as before, Decoder(output) as after:
        assert len(list(before)) == len(list(after)) == 20
    assert any("do not increase" in line for line in before.warnings)
    assert not any("leaps" in line for line in before.warnings)
    assert any("times go back" in line for line in warnings)
    report = verify(source, output)
    assert report.problems == []
    assert report.facts["frames_out"] == 20


def test_a_clock_that_goes_on_is_left_alone(tmp_path):
    """Parts that follow each other, a gap of some seconds, and a long pause of the picture alone."""
    source = joined(tmp_path, {"start": 1}, {"start": 3}, {"start": 9, "seconds": 15, "pause": (20, 340)})
    found, leaps = tracks(source)
    assert leaps == []
    with av.open(source) as plain:
        for stream in plain.streams:
            plain.seek(0)
            times = [(p.dts, p.duration) for p in plain.demux(stream) if p.size]
            assert found[stream.type] == times


def test_other_containers_are_not_looked_at(tmp_path):
    with open_input(make_clip(tmp_path / "a.mkv", frames=3)) as container:
        times = clock_of(container)
        assert [p.pts for p in times.demux(container, *container.streams) if p.size] == [0, 83, 42]
        assert times.leaps == []

"""Sound that is not of one piece: it changes in mid-stream, or has another clock than it says."""

from fractions import Fraction

import av
import numpy as np
import pytest
from doubling import FAST, double
from television import television

from videosr.media.codecs import EncoderSettings

SETTINGS = EncoderSettings(codec="libvpx-vp9", preset="8")
LAYOUTS = [("stereo", 48000, 30), ("5.1", 48000, 30), ("mono", 44100, 30)]


def heard(path):
    """Samples of the first channel, and the seconds at which decoded frames begin and end."""
    with av.open(str(path)) as container:
        frames = list(container.decode(container.streams.audio[0]))
    begins = np.array([float(frame.pts * frame.time_base) for frame in frames])
    ends = begins + [frame.samples / frame.sample_rate for frame in frames]
    return np.concatenate([frame.to_ndarray()[0] for frame in frames]), begins, ends


def test_converted_sound_goes_on_where_its_layout_and_rate_change(tmp_path):
    source, _ = television(tmp_path / "a.ts", LAYOUTS)
    output = tmp_path / "b.webm"
    assert double(source, output, settings=SETTINGS) == []
    samples, begins, ends = heard(output)
    seconds = sum(Fraction(1536 * count, rate) for _, rate, count in LAYOUTS)
    assert begins[0] == pytest.approx(0, abs=0.03)
    assert ends[-1] == pytest.approx(float(seconds), abs=0.03)
    assert begins[1:] == pytest.approx(ends[:-1], abs=2e-3)  # no gap
    loudness = [np.sqrt(np.mean(samples[at : at + 1200] ** 2)) for at in range(2400, len(samples) - 4800, 1200)]
    assert min(loudness) > 0.1


@pytest.mark.parametrize("pace", [Fraction(98, 100), Fraction(102, 100)])
def test_converted_sound_follows_the_times_of_its_source(tmp_path, pace):
    source, frames = television(tmp_path / "a.ts", [("stereo", 48000, 200)], pace=pace)
    output = tmp_path / "b.webm"
    double(source, output, settings=SETTINGS)
    _, _, ends = heard(output)
    assert ends[-1] == pytest.approx(frames / 25, abs=0.09)


@pytest.mark.parametrize("suffix", [".mkv", ".mp4", ".webm"])
def test_sound_that_begins_late_arrives(tmp_path, suffix):
    """So late that FFmpeg knows neither its rate nor its layout on opening the file."""
    source, _ = television(tmp_path / "a.ts", [("stereo", 48000, 20)], codec="mp2", silence=12)
    with av.open(str(source)) as container:
        assert container.streams.audio[0].sample_rate == 0  # or the test shows nothing
    output = tmp_path / f"b{suffix}"
    assert double(source, output, settings=SETTINGS if suffix == ".webm" else FAST) == []
    _, begins, ends = heard(output)
    assert begins[0] == pytest.approx(12, abs=0.03)
    assert ends[-1] - begins[0] == pytest.approx(20 * 1152 / 48000, abs=0.03)

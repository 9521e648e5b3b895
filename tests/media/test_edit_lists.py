"""What MP4 files say of when things begin and end, and what becomes of it elsewhere."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise

import av
import pytest
from clips import make_clip, remux

from videosr.media.checks.verify import verify

FAST = ("--codec", "libx264", "--preset", "ultrafast", "--temporal", "off", "--model", "light-2x")
B_FRAMES = {"bf": "3", "b_strategy": "0"}


def heard(path):
    """Seconds of sound, and when it begins."""
    with av.open(path) as file:
        frames = list(file.decode(audio=0))
        return sum(frame.samples for frame in frames) / frames[0].rate, float(frames[0].time)


@pytest.fixture(scope="module")
def cut(tmp_path_factory):
    """As from `ffmpeg -ss 1.3 -c copy`: half a second of sound before the first picture, which is not shown."""
    folder = tmp_path_factory.mktemp("cut")
    whole = make_clip(folder / "whole.mp4", frames=48, audio=[("aac", "eng")])
    return remux(whole, folder / "cut.mp4", {"audio": Fraction(1, 2)})


@pytest.mark.parametrize("suffix", ["mkv", "webm", "mp4"])
def test_sound_that_an_edit_list_hides_stays_hidden(cut, tmp_path, videosr, suffix):
    length, begin = heard(cut)
    assert (begin, length < 1.6) == (0, True)
    done = videosr("upscale", cut, tmp_path / f"out.{suffix}", *(FAST if suffix != "webm" else FAST[4:]))
    assert done.code == 0
    assert ("the source has an edit list to hide" in done.err) == (suffix == "mkv")
    got, start = heard(tmp_path / f"out.{suffix}")
    assert -0.05 < start <= 0  # what decoders need goes along where nothing hides it
    assert got + start == pytest.approx(length, abs=0.03)
    assert verify(cut, tmp_path / f"out.{suffix}").ok


@pytest.mark.parametrize("suffix", ["mkv", "mp4"])
def test_a_part_of_such_a_file_has_its_own_sound_alone(cut, tmp_path, videosr, suffix):
    out = tmp_path / f"out.{suffix}"
    assert videosr("upscale", cut, out, *FAST, "--start", "0.5", "--duration", "0.5").code == 0
    got, start = heard(out)
    assert -0.03 < start < 0.03
    assert got == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize("rate", [Fraction(24000, 1001), Fraction(24), Fraction(30), Fraction(60)])
@pytest.mark.parametrize("suffix", ["mp4", "mov"])
def test_the_last_picture_lasts_as_long_as_in_matroska(tmp_path, videosr, rate, suffix):
    """Whose steps of whole milliseconds are not all the same."""
    source = make_clip(tmp_path / "a.mkv", frames=25, rate=rate, options=B_FRAMES)
    for clip in (source, remux(source, tmp_path / "a.mp4")):
        assert videosr("upscale", clip, tmp_path / f"out.{suffix}", *FAST, "--overwrite").code == 0
        assert verify(clip, tmp_path / f"out.{suffix}").problems == []


@pytest.mark.parametrize("suffix", ["mp4", "mov"])
def test_sound_begins_to_the_sample(tmp_path, videosr, suffix):
    whole = make_clip(tmp_path / "a.mkv", frames=24, audio=[("flac", "eng")])
    late = remux(whole, tmp_path / "late.mkv", {"audio": Fraction(-13, 1000)})
    assert videosr("upscale", late, tmp_path / f"out.{suffix}", *FAST).code == 0
    assert verify(late, tmp_path / f"out.{suffix}").problems == []


def test_pictures_of_asf_are_shown_in_even_steps(tmp_path, videosr):
    """It has no times of presentation, and FFmpeg takes those of coding for them."""
    source = remux(make_clip(tmp_path / "a.mkv", frames=24, options=B_FRAMES), tmp_path / "a.wmv")
    assert videosr("upscale", source, tmp_path / "out.mkv", *FAST).code == 0
    with av.open(tmp_path / "out.mkv") as file:
        times = [frame.pts for frame in file.decode(video=0)]
    assert {b - a for a, b in pairwise(times)} <= {41, 42}

"""AVI says when pictures are decoded, and not when they are shown."""

from fractions import Fraction
from itertools import pairwise

import av
import pytest
from clips import make_clip

from videosr.media.checks.verify import verify
from videosr.media.decoder import Decoder


def frames_of(path, **options):
    with Decoder(path, threads=1, **options) as decoder:
        return [(f.time - decoder.origin, hash(f.planes[0].tobytes())) for f in decoder]


@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("codec", ["libx264", "mpeg4"])
def test_frames_of_avi_come_one_tick_after_the_other(tmp_path, codec, depth):
    options = {"bf": str(min(depth, 2) if codec == "mpeg4" else depth), "g": "40", "b_strategy": "0"}
    source = make_clip(
        tmp_path / "a.avi", frames=100, rate=Fraction(25), time_base=Fraction(1, 25), codec=codec, options=options
    )
    with Decoder(source) as decoder:
        assert decoder.info.time_base == Fraction(1, 25)
        times = [frame.pts for frame in decoder]
        assert not any("increase" in line for line in decoder.warnings)
    assert times == list(range(times[0], times[0] + 100))
    whole = frames_of(source)
    for first in (1, 39, 40, 41, 57, 80, 97, 98, 99):
        part = frames_of(source, start=whole[first][0])
        assert part == whole[first:]


def test_avi_with_b_frames_keeps_its_times(tmp_path, videosr):
    source = make_clip(
        tmp_path / "a.avi", rate=Fraction(25), time_base=Fraction(1, 25), options={"bf": "3"}, audio=[("mp2", "eng")]
    )
    output = tmp_path / "out.mkv"
    done = videosr("upscale", source, output, "--preset", "ultrafast")
    assert done.code == 0, done.err
    assert verify(source, output).problems == []
    with av.open(output) as made:
        times = sorted(float(p.pts * p.time_base) for p in made.demux(video=0) if p.size)
    assert [round(b - a, 3) for a, b in pairwise(times)] == [0.04] * 15

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from itertools import islice
from pathlib import Path

import networks
import numpy as np
import pytest

from videosr import color, metrics
from videosr.engines import load
from videosr.errors import UsageError
from videosr.evaluate.video import Reference, shrink
from videosr.frame import Frame, PixelFormat
from videosr.models import registry
from videosr.options import UpscaleOptions
from videosr.reflections import RUNS, over_reflections
from videosr.temporal import Mode
from videosr.upscaler import Upscaler

SAMPLE = Path(__file__).parent.parent / "samples" / "bunny.mp4"


def test_the_mean_is_that_of_all_four_turned_back():
    rng = np.random.default_rng(0)
    picture, other = rng.random((2, 1, 3, 5, 7)).astype(np.float32)
    seen = []

    def lopsided(x, y):
        """A picture twice as large, of which each half of a pixel is another."""
        assert x.flags.c_contiguous
        seen.append(x.copy())
        return (x - 0.5 * y).repeat(2, axis=2).repeat(2, axis=3) * np.linspace(1, 2, 14, dtype=np.float32)

    made = over_reflections(lopsided)(picture, other)
    assert made.dtype == np.float32
    plain = (picture - 0.5 * other).repeat(2, axis=2).repeat(2, axis=3)
    np.testing.assert_allclose(made, plain * 1.5, rtol=1e-6)  # 1..2 and 2..1 are 1.5 in the mean
    assert len(seen) == RUNS
    assert {x.tobytes() for x in seen} == {
        np.ascontiguousarray(picture[:, :, ::v, ::h]).tobytes() for v in (1, -1) for h in (1, -1)
    }


def test_one_picture_is_enough():
    picture = np.random.default_rng(0).random((1, 3, 4, 4)).astype(np.float32)
    result = over_reflections(lambda x, y: x if y is None else x * 0)(picture, None)
    np.testing.assert_allclose(result, picture, rtol=1e-6)


def without_chroma(frame):
    """Its samples lie to the left of the luma's, and would to the right in a mirror."""
    y, *chroma = frame.planes
    return frame.with_planes((y, *(np.full_like(plane, 128) for plane in chroma)))


@pytest.fixture(scope="module")
def engine():
    return load(registry.find(registry.DEFAULT), precision="f32", threads=1)


@pytest.fixture(scope="module")
def originals():
    return list(islice(Reference(SAMPLE, 2, 4).frames(), 4))


@pytest.mark.parametrize("temporal", [Mode.OFF, Mode.EMA])
def test_frames_are_the_mean_of_what_the_network_makes(engine, originals, temporal):
    small = [without_chroma(shrink(frame, 2)) for frame in originals]
    options = UpscaleOptions(temporal=temporal, tta=True)
    upscaler = Upscaler(options, engine)
    *_, made = [*(f for frame in small for f in upscaler.process(frame)), *upscaler.flush()]
    plain = Upscaler(replace(options, tta=False), engine)
    assert upscaler.identity != plain.identity
    last = []
    for v, h in ((1, 1), (1, -1), (-1, 1), (-1, -1)):
        turned = [f.with_planes(tuple(p[::v, ::h].copy() for p in f.planes)) for f in small]
        *_, result = [*(f for frame in turned for f in plain.process(frame)), *plain.flush()]
        last.append(result.planes[0][::v, ::h].astype(np.float64))
    assert np.abs(np.mean(last, axis=0) - made.planes[0]).max() <= 1.0  # each of them was rounded


def test_it_comes_nearer_to_the_original(engine, originals):
    small = shrink(originals[0], 2)
    scores = []
    for tta in (False, True):
        upscaler = Upscaler(UpscaleOptions(tta=tta), engine)
        (made,) = [*upscaler.process(small), *upscaler.flush()]
        scores.append(metrics.psnr(made.planes[0], originals[0].planes[0]))
    assert scores[1] > scores[0] + 0.05


def test_networks_with_a_state_are_refused(tmp_path):
    path = networks.video(tmp_path / "video.onnx", scaled_input=True)
    with pytest.raises(UsageError, match=r"video\.onnx: keeps a state .* --tta"):
        Upscaler(UpscaleOptions(model=str(path), tta=True))


def test_tiles_are_reflected_too(engine):
    rng = np.random.default_rng(1)
    fmt = PixelFormat.parse("gbrp")
    planes = tuple(rng.integers(60, 200, (40, 150)).astype(np.uint8) for _ in range(3))
    spec = color.converted(color.ColorSpec(), PixelFormat.parse("yuv420p"), fmt)
    frame = Frame(planes=planes, format=fmt, pts=0, time_base=Fraction(1, 25), color=spec)
    made = []
    for tile in (0, 64):
        upscaler = Upscaler(UpscaleOptions(tta=True, tile=tile), engine)
        (result,) = [*upscaler.process(frame), *upscaler.flush()]
        made.append(np.stack(result.planes).astype(int))
    assert np.abs(made[0] - made[1]).max() <= 1

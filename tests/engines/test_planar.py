"""The planar forms of the engines on a CPU against the long way round."""

from __future__ import annotations

import native
import numpy as np
import pytest
from pictures import (
    LEFT,
    RGB,
    assert_one_code,
    differences,
    long_way,
    picture,
    planes_of,
    target_of,
    window_frames,
)

pytest.importorskip("torch")

import networks

from videosr import temporal
from videosr.engines import load, native_strips, openvino_strips
from videosr.frame import ColorSpec, Matrix, Range, Siting


@pytest.fixture(scope="module", params=["openvino", "native"])
def name(request):
    if request.param == "native":
        native.needed()
    return request.param


@pytest.fixture(scope="module")
def engine(paragon, name):
    return load(paragon.deploy, name, precision="f32", threads=1)


@pytest.fixture(scope="module")
def luma_engine(paragon, name):
    return load(paragon.luma, name, precision="f32", threads=1)


CASES = [
    *(("yuv420p", None, s) for s in Siting if s is not Siting.UNSPECIFIED),
    ("yuv420p10le", None, Siting.LEFT),
    ("yuv420p10le", None, Siting.TOPLEFT),
    ("yuv422p", None, Siting.LEFT),
    ("yuv422p10le", None, Siting.CENTER),
    ("yuv440p", None, Siting.CENTER),
    ("yuv444p", None, Siting.UNSPECIFIED),
    ("yuv444p10le", None, Siting.UNSPECIFIED),
    ("gray", None, Siting.UNSPECIFIED),
    ("gray10le", None, Siting.UNSPECIFIED),
    ("gbrp", None, Siting.UNSPECIFIED),
    ("gbrp10le", None, Siting.UNSPECIFIED),
    ("yuv420p", "yuv420p10le", Siting.LEFT),
    ("yuv420p", "yuv444p", Siting.LEFT),
    ("yuv411p", "yuv420p", Siting.LEFT),
    ("yuv410p", "yuv420p", Siting.CENTER),
    ("yuv420p", "gbrp", Siting.LEFT),
    ("gbrp", "yuv420p", Siting.UNSPECIFIED),
]


@pytest.mark.parametrize(("format", "to", "siting"), CASES)
def test_planes_through_the_rewritten_network_are_those_of_the_long_way(engine, format, to, siting):
    height, width = (44, 46) if siting is Siting.TOP else (41, 45)
    spec = RGB if format.startswith("gbr") else ColorSpec(matrix=Matrix.BT709, range=Range.LIMITED, siting=siting)
    source = picture(height, width, format, spec)
    target = target_of(source, 2, to)
    planes = planes_of(source)
    runner = engine.planar(source, target, 1)
    got = runner.result(runner.submit([planes], 0.0))
    assert_one_code(got, long_way(engine, source, target, planes))


@pytest.mark.parametrize(
    ("matrix", "levels"),
    [(Matrix.SMPTE170M, Range.LIMITED), (Matrix.BT2020_NCL, Range.FULL), (Matrix.YCGCO, Range.FULL)],
)
def test_matrix_and_range_are_folded_in(engine, matrix, levels):
    source = picture(40, 44, "yuv420p", ColorSpec(matrix=matrix, range=levels, siting=Siting.LEFT))
    target = target_of(source, 2)
    planes = planes_of(source)
    runner = engine.planar(source, target, 1)
    assert_one_code(runner.result(runner.submit([planes], 0.0)), long_way(engine, source, target, planes))


@pytest.mark.parametrize("size", [(1, 1), (2, 2), (1, 9), (7, 2), (3, 5)])
def test_the_smallest_pictures(engine, size):
    source = picture(*size)
    target = target_of(source, 2)
    planes = planes_of(source)
    runner = engine.planar(source, target, 1)
    got = runner.result(runner.submit([planes], 0.0))
    luma = differences(got, long_way(engine, source, target, planes))[0]
    assert luma.max() <= 8  # all of it is rim


def test_scale_four_owns_larger_blocks(tmp_path, name):
    four = load(networks.Paragon(tmp_path, scale=4).deploy, name, precision="f32", threads=1)
    assert four.scale == 4
    for format, to in (("yuv420p", None), ("yuv420p10le", None), ("yuv410p", None)):
        source = picture(41, 45, format)
        target = target_of(source, 4, to)
        planes = planes_of(source)
        runner = four.planar(source, target, 1)
        got = runner.result(runner.submit([planes], 0.0))
        assert_one_code(got, long_way(four, source, target, planes), 4)


def test_a_flat_picture_comes_out_flat_to_its_rim(engine):
    """Alternate output samples lie at the same place of the network's 2x2 pattern."""
    source = picture(12, 16)
    runner = engine.planar(source, target_of(source, 2), 1)
    planes = tuple(np.full(p.shape, v, np.uint8) for p, v in zip(planes_of(source), (120, 90, 160), strict=True))
    luma, cb, cr = runner.result(runner.submit([planes], 0.0))
    for row in (0, 1):
        for column in (0, 1):
            assert np.ptp(luma[row::2, column::2]) <= 1
    assert np.ptp(cb) <= 1
    assert np.ptp(cr) <= 1


# Chroma beside the network


@pytest.mark.parametrize(("format", "to", "siting"), CASES)
def test_chroma_beside_the_network_is_interpolated(luma_engine, engine, format, to, siting):
    spec = RGB if format.startswith("gbr") else ColorSpec(matrix=Matrix.BT709, range=Range.LIMITED, siting=siting)
    source = picture(42, 46, format, spec)
    target = target_of(source, 2, to)
    planes = planes_of(source)
    runner = luma_engine.planar(source, target, 1)
    got = runner.result(runner.submit([planes], 0.0))
    wanted = long_way(luma_engine, source, target, planes)
    assert_one_code(got, wanted)
    of_network = long_way(engine, source, target, planes)
    luma, *chroma = differences(wanted, of_network)
    assert luma.max() == 0
    apart = source.format.subsampled and target.format.family == "yuv"
    assert [d.max() > 2 for d in chroma] == [apart] * len(chroma)
    if apart:  # nothing but chroma went into it, so the edge is exact too
        assert max(d.max() for d in differences(got, wanted)[1:]) <= 1


@pytest.mark.parametrize("denoise", [0.0, 0.7])
def test_chroma_beside_the_network_is_denoised_with_the_base_path(luma_engine, denoise):
    source = picture(41, 45)
    target = target_of(source, 2)
    frames = window_frames(3, source)
    runner = luma_engine.planar(source, target, 4, denoise)
    got = runner.result(runner.submit([f.planes for f in frames], 15.0))
    average = temporal.average(frames, temporal.Mode.ADAPTIVE, 15.0)
    assert_one_code(got, long_way(luma_engine, source, target, frames[0].planes, average, denoise))


@pytest.mark.parametrize("size", [(1, 1), (2, 2), (1, 9), (7, 2), (3, 5), (40, 41)])
def test_odd_sizes_with_chroma_beside_the_network(luma_engine, size):
    source = picture(*size)
    target = target_of(source, 2)
    planes = planes_of(source)
    runner = luma_engine.planar(source, target, 1)
    got = runner.result(runner.submit([planes], 0.0))
    luma, *chroma = differences(got, long_way(luma_engine, source, target, planes))
    assert luma.max() <= 8  # most of it is rim
    assert max(d.max() for d in chroma) <= 1


def test_a_scale_that_chroma_cannot_divide_works_beside_the_network(tmp_path, name):
    three = networks.Paragon(tmp_path, scale=3)
    engine = load(three.luma, name, precision="f32", threads=1)
    source = picture(41, 45)
    target = target_of(source, 3)
    planes = planes_of(source)
    runner = engine.planar(source, target, 1)
    got = runner.result(runner.submit([planes], 0.0))
    assert_one_code(got, long_way(engine, source, target, planes), 3)
    assert load(three.deploy, name, precision="f32", threads=1).planar(source, target, 1) is None


@pytest.mark.parametrize("form", ["deploy", "luma"])
def test_pictures_in_flight_do_not_mix(paragon, name, form, monkeypatch):
    monkeypatch.setattr(openvino_strips, "_STRIP_PIXELS", 400)
    monkeypatch.setattr(native_strips, "_WIDEST", 32)
    engine = load(getattr(paragon, form), name, precision="f32", threads=2)
    source = picture(48, 32)
    runner = engine.planar(source, target_of(source, 2), 1)
    frames = [planes_of(source, seed) for seed in range(6)]
    alone = [runner.result(runner.submit([f], 0.0)) for f in frames]
    tickets = [runner.submit([f], 0.0) for f in frames]
    for ticket, wanted in reversed(list(zip(tickets, alone, strict=True))):
        assert all(np.array_equal(a, b) for a, b in zip(runner.result(ticket), wanted, strict=True))


# The temporal window


@pytest.mark.parametrize(
    ("format", "count"),
    [("yuv420p", 1), ("yuv420p", 2), ("yuv420p", 4), ("yuv422p10le", 4), ("yuv444p", 3), ("gray", 4), ("gbrp", 4)],
)
def test_the_average_inside_is_that_of_temporal(engine, format, count):
    source = picture(41, 45, format, RGB if format == "gbrp" else LEFT)
    target = target_of(source, 2)
    frames = window_frames(count, source)
    threshold = 12.0 * 2 ** (source.format.bits - 8)
    runner = engine.planar(source, target, temporal.DEPTH)
    got = runner.result(runner.submit([f.planes for f in frames], threshold))
    average = temporal.average(frames, temporal.Mode.ADAPTIVE, threshold)
    wanted = long_way(engine, source, target, frames[0].planes, average)
    assert_one_code(got, wanted)
    if count > 1:  # and the average counts
        alone = long_way(engine, source, target, frames[0].planes)
        assert differences(got, alone)[0].max() > 2


def test_no_threshold_is_no_average(engine):
    source = picture(40, 44)
    target = target_of(source, 2)
    frames = window_frames(4, source)
    runner = engine.planar(source, target, 4)
    got = runner.result(runner.submit([f.planes for f in frames], 0.0))
    assert_one_code(got, long_way(engine, source, target, frames[0].planes))


@pytest.mark.parametrize("strength", [0.4, 1.0])
def test_denoising_moves_the_base_path_too(engine, strength):
    source = picture(41, 45)
    target = target_of(source, 2)
    frames = window_frames(3, source)
    runner = engine.planar(source, target, 4, strength)
    got = runner.result(runner.submit([f.planes for f in frames], 15.0))
    average = temporal.average(frames, temporal.Mode.ADAPTIVE, 15.0)
    assert_one_code(got, long_way(engine, source, target, frames[0].planes, average, strength))
    kept = long_way(engine, source, target, frames[0].planes, average)
    assert differences(got, kept)[0].max() > 2

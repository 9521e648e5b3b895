"""The kernels that look at frames, compiled for the host, against scenes.py and temporal.py; and for GPUs, by NVRTC."""

from __future__ import annotations

from fractions import Fraction

import cuda_host
import numpy as np
import pytest
from hostdevice import HostDevice, on_device
from nvrtc import ARCHITECTURES, compiled

from videosr import scenes, temporal
from videosr.engines.cuda_statistics import SOURCE, FrameStatistics
from videosr.frame import Frame, PixelFormat
from videosr.look import look_at

on_host = pytest.mark.skipif(not cuda_host.COMPILER, reason="g++ is not installed: kernels cannot run on the host")
SIZES = [(1080, 1920), (90, 160), (37, 75), (8, 8), (7, 30), (1, 1)]


def frame_of(planes, fmt):
    return Frame(planes=planes, format=fmt, pts=0, time_base=Fraction(1))


def film(fmt, height, width, sigma, seed=0):
    """Two frames of one smooth picture with an edge, each with its own noise (8-bit code values)."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    picture = 110 + 60 * np.sin(x / 90) * np.cos(y / 70) + 25 * (x > width // 3)
    frames = []
    for _ in range(2):
        luma = (picture + rng.normal(0, sigma, picture.shape)) * 2 ** (fmt.bits - 8)
        luma = np.clip(np.rint(luma), 0, (1 << fmt.bits) - 1).astype(fmt.dtype)
        chroma = [np.full(fmt.plane_shape(i, height, width), 1 << (fmt.bits - 1), fmt.dtype) for i in (1, 2)]
        frames.append((luma, *chroma))
    return frames


@on_host
@pytest.mark.parametrize("name", ["yuv420p", "yuv420p10le", "yuv444p16le"])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_frames_are_seen_as_the_host_sees_them(name, size):
    fmt = PixelFormat.parse(name)
    newer, older = film(fmt, *size, 3.0)
    made = FrameStatistics(HostDevice(), fmt, *size)
    seen = made.look(newer, older)
    assert np.array_equal(seen.thumbnail, scenes.thumbnail(newer[0], fmt.bits))
    assert seen.thumbnail.dtype == np.float32
    assert seen.noise == temporal.noise_of(frame_of(newer, fmt), frame_of(older, fmt))
    assert size != (1080, 1920) or seen.noise.sigma == pytest.approx(3, abs=0.5)
    assert seen.same == frame_of(newer, fmt).same_picture(frame_of(older, fmt))
    assert size == (1, 1) or not seen.same
    alone = made.look(older, None)
    assert np.array_equal(alone.thumbnail, scenes.thumbnail(older[0], fmt.bits))
    assert (alone.noise, alone.same) == (temporal.Noise(0.0), False)


@on_host
def test_a_repeat_is_one_unless_a_single_sample_differs():
    fmt = PixelFormat.parse("yuv420p")
    newer, _ = film(fmt, 37, 75, 2.0)
    made = FrameStatistics(HostDevice(), fmt, 37, 75)
    assert made.look(newer, tuple(plane.copy() for plane in newer)).same
    for plane, y, x in ((0, 0, 0), (0, 36, 74), (1, 18, 37), (2, 0, 37), (2, 18, 0)):
        other = tuple(p.copy() for p in newer)
        other[plane][y, x] ^= 1
        assert not made.look(newer, other).same
    assert made.look(newer, newer).same  # nothing is left of what was seen before


@on_host
def test_planes_whose_samples_lie_apart_are_looked_at_in_place():
    """Cb and Cr in turn, rows longer than the picture."""
    fmt = PixelFormat.parse("yuv420p10le")
    frames = film(fmt, 54, 90, 2.5)
    surfaces = []
    for seed, planes in enumerate(frames):
        whole = np.random.default_rng(seed).integers(0, 1 << 16, (81, 128)).astype(np.uint16)
        surface = whole[:54, :90], whole[54:, 0:90:2], whole[54:, 1:90:2]
        for view, plane in zip(surface, planes, strict=True):
            view[...] = plane
        surfaces.append(surface)
    statistics = FrameStatistics(HostDevice(), fmt, 54, 90)
    plain, seen = statistics.look(*frames), statistics.look(*surfaces)
    assert np.array_equal(seen.thumbnail, plain.thumbnail)
    assert seen[1:] == plain[1:]
    again = tuple(surface.copy() for surface in surfaces[0])
    assert statistics.look(surfaces[0], again).same


@on_host
def test_the_host_waits_once_a_frame():
    fmt, device = PixelFormat.parse("yuv420p"), HostDevice()
    made = FrameStatistics(device, fmt, 37, 75)
    made.look(*film(fmt, 37, 75, 1.0))
    assert device.host_waits == 1


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_kernels_compile_for_every_gpu(architecture):
    log = compiled(SOURCE, {"SAMPLE": "unsigned short" if architecture % 20 else "unsigned char"}, architecture)
    assert set(log) == {"thumbnail", "noise", "compare"}
    assert all(facts.stack == 0 and facts.spilled == 0 for facts in log.values()), log


@on_host
def test_the_upscaler_sees_frames_on_the_gpu_as_those_on_the_host():
    fmt, device = PixelFormat.parse("yuv420p"), HostDevice()
    one, two = film(fmt, 54, 96, 2.5)
    other = tuple(255 - plane[::-1] for plane in film(fmt, 54, 96, 2.5, seed=3)[0])
    wide = film(fmt, 54, 98, 2.5)[0]
    here = there = None
    for planes in (one, two, tuple(plane.copy() for plane in two), other, wide, wide):
        here = look_at(frame_of(planes, fmt), here)
        waits = device.host_waits
        there = look_at(frame_of(tuple(map(on_device, planes)), fmt), there, device=device)
        assert device.host_waits == waits + 1
        assert there[2:4] == here[2:4]
        assert np.array_equal(there.thumbnail, here.thumbnail)
        if not (here.cut or here.repeat):
            assert there.noise == temporal.noise_of(frame_of(two, fmt), frame_of(one, fmt))
    assert here.repeat


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["yuv420p", "yuv420p10le"])
def test_on_the_gpu(name):
    import cupy

    from videosr.engines.gpu_cupy import CupyDevice

    fmt, device = PixelFormat.parse(name), CupyDevice()
    newer, older = film(fmt, 1080, 1920, 3.0)
    there = [tuple(map(cupy.asarray, planes)) for planes in (newer, older, newer)]
    cupy.cuda.get_current_stream().synchronize()
    made = FrameStatistics(device, fmt, 1080, 1920)
    seen = made.look(*there[:2])
    assert np.array_equal(seen.thumbnail, scenes.thumbnail(newer[0], fmt.bits))
    assert seen.noise == temporal.noise_of(frame_of(newer, fmt), frame_of(older, fmt))
    assert (seen.same, made.look(there[0], there[2]).same) == (False, True)

"""Formats against FFmpeg's own table, and the frame's few operations."""

from __future__ import annotations

import dataclasses
from fractions import Fraction

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from videosr.errors import InputError
from videosr.frame import FORMATS, ColorSpec, Frame, Matrix, PixelFormat, Range, Siting, together


@pytest.mark.parametrize("fmt", FORMATS.values(), ids=FORMATS)
def test_formats_are_ffmpegs(fmt):
    theirs = av.VideoFormat(fmt.name, 64, 48)
    assert len(theirs.components) == fmt.planes
    assert {c.bits for c in theirs.components} == {fmt.bits}
    assert [c.is_alpha for c in theirs.components] == [False] * (fmt.planes - fmt.alpha) + [True] * fmt.alpha
    assert theirs.is_planar or fmt.planes == 1
    assert theirs.is_rgb == (fmt.family == "rgb")
    assert not theirs.is_big_endian
    for i, component in enumerate(theirs.components):
        if fmt.family == "yuv":
            assert (component.height, component.width) == fmt.plane_shape(i, 48, 64)
    frame = av.VideoFrame(64, 48, fmt.name)
    assert len(frame.planes) == fmt.planes
    assert all(plane.line_size >= plane.width * fmt.dtype.itemsize for plane in frame.planes)


@given(fmt=st.sampled_from(list(FORMATS.values())), height=st.integers(1, 40), width=st.integers(1, 40))
def test_plane_shapes_of_odd_sizes_are_ffmpegs(fmt, height, width):
    frame = av.VideoFrame(width, height, fmt.name)
    ours = [fmt.plane_shape(i, height, width) for i in range(fmt.planes)]
    theirs = [(plane.height, plane.width) for plane in frame.planes]
    assert ours == theirs


@pytest.mark.parametrize("fmt", FORMATS.values(), ids=FORMATS)
def test_a_format_is_found_by_name_and_by_properties(fmt):
    assert PixelFormat.parse(fmt.name) is fmt
    assert PixelFormat.of(fmt.family, fmt.bits, fmt.log2_w, fmt.log2_h, fmt.alpha) is fmt


def test_unknown_formats_are_refused_by_name():
    with pytest.raises(InputError, match=r"nv12.*yuv420p"):
        PixelFormat.parse("nv12")
    with pytest.raises(InputError, match="11 bits"):
        PixelFormat.of("yuv", 11)


def frame(value: int = 0, name: str = "yuv420p", **changes) -> Frame:
    fmt = FORMATS[name]
    planes = tuple(np.full(fmt.plane_shape(i, 6, 7), value, fmt.dtype) for i in range(fmt.planes))
    return dataclasses.replace(Frame(planes=planes, format=fmt, pts=0, time_base=Fraction(1, 25)), **changes)


def test_same_picture_is_about_samples_format_and_colour_alone():
    a = frame(5)
    assert a.same_picture(frame(5, pts=9, duration=1, key=True, sar=Fraction(4, 3), scene_start=True))
    assert not a.same_picture(frame(6))
    assert not a.same_picture(frame(5, "yuv422p"))
    assert not a.same_picture(frame(5, color=ColorSpec(matrix=Matrix.BT709, range=Range.FULL, siting=Siting.LEFT)))
    assert not a.same_picture(a.with_planes(tuple(p[:4] for p in a.planes)))


@pytest.mark.parametrize("plane", range(4))
@pytest.mark.parametrize("place", [(0, 0), (2, 3), (-1, -1)])
def test_one_different_sample_is_another_picture(plane, place):
    a = frame(5, "yuva420p")
    planes = [p.copy() for p in a.planes]
    planes[plane][place] += 1
    assert not a.same_picture(a.with_planes(tuple(planes)))


def test_time_is_exact():
    a = frame(pts=3003, time_base=Fraction(1, 90000))
    assert a.time == Fraction(1001, 30000)
    assert (a.height, a.width) == (6, 7)
    with pytest.raises(dataclasses.FrozenInstanceError):
        a.pts = 4  # type: ignore[misc]


def test_with_planes_keeps_the_moment():
    a = frame(5, pts=7, duration=2, sar=Fraction(8, 9), side_data=(("x", b"y"),))
    b = a.with_planes((np.zeros((3, 3), np.uint16),), FORMATS["gray10le"])
    assert (b.pts, b.duration, b.sar, b.side_data) == (7, 2, Fraction(8, 9), (("x", b"y"),))
    assert b.format.name == "gray10le"
    assert a.with_planes(a.planes).format is a.format


class OnGpu(np.ndarray):
    """An array of the GPU, with which those of the host cannot be compared."""

    def get(self):
        return np.array(self)

    def __eq__(self, other):
        if type(other) is not OnGpu:
            raise TypeError("Unsupported type <class 'numpy.ndarray'>")
        return np.asarray(self) == np.asarray(other)

    __hash__ = None


def test_frames_in_different_places_are_compared_and_brought_together():
    fmt = FORMATS["gray"]
    plane = np.arange(48, dtype=np.uint8).reshape(6, 8)
    here = Frame(planes=(plane,), format=fmt, pts=0, time_base=Fraction(1))
    there = here.with_planes((plane.copy().view(OnGpu),))
    other = here.with_planes((plane + 1,))
    assert here.same_picture(there)
    assert there.same_picture(here)
    assert there.same_picture(there)
    assert not there.same_picture(other)
    assert not other.same_picture(there)
    assert together([there, there]) == (there, there)
    assert [frame.on_gpu for frame in together([here, there])] == [False, False]

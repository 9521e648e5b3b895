"""Frames brought from the GPU to the host, on the stand-in that takes work by lot."""

from __future__ import annotations

import gc
import weakref
from fractions import Fraction

import numpy as np
import pytest
from clips import picture
from hostdevice import DeviceArray, HostDevice, on_device

from videosr.download import UNDER_WAY, Download
from videosr.frame import Frame, PixelFormat

FORMAT = PixelFormat.parse("yuv420p10le")


def frames(count, place=on_device):
    return [
        Frame(
            planes=tuple(place(plane) for plane in picture(i, FORMAT, 12, 20)),
            format=FORMAT,
            pts=i,
            time_base=Fraction(1, 24),
        )
        for i in range(count)
    ]


@pytest.mark.parametrize("seed", range(5))
def test_every_frame_arrives_in_order_while_the_next_is_under_way(seed):
    device = HostDevice(seed)
    stage, made = Download(device), []
    for i, frame in enumerate(frames(7)):
        assert frame.on_gpu
        made += stage.process(frame)
        assert len(made) == max(0, i + 1 - UNDER_WAY)
    made += stage.flush()
    assert [frame.pts for frame in made] == list(range(7))
    for frame, wanted in zip(made, frames(7, np.array), strict=True):
        assert not frame.on_gpu
        assert all(type(plane) is np.ndarray for plane in frame.planes)
        assert frame.same_picture(wanted)
    assert device.downloaded == 7 * 12 * 20 * 3


def test_frames_of_the_host_pass_behind_those_under_way():
    stage = Download(HostDevice())
    first, second = frames(1)[0], frames(2, np.array)[1]
    made = [*stage.process(first), *stage.process(second)]
    assert [frame.pts for frame in made] == [0, 1]
    assert made[1] is second
    assert list(stage.flush()) == []


def test_a_frame_is_held_while_it_is_copied_and_no_longer():
    device = HostDevice()
    stage = Download(device)
    (frame,) = frames(1)
    held = weakref.ref(frame.planes[0])
    assert isinstance(held(), DeviceArray)
    assert list(stage.process(frame)) == []
    del frame
    gc.collect()
    assert held() is not None
    made = list(stage.flush())
    device.streams.clear()
    gc.collect()
    assert held() is None
    assert len(made) == 1

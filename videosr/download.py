"""Bringing frames from a GPU to the host while others are worked on."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import NamedTuple

from videosr.engines.gpu_device import Device, Event
from videosr.frame import Array, Frame

UNDER_WAY = 1
"""Frames being copied while the one before them is encoded."""


class _Copy(NamedTuple):
    """A frame being copied, held until that is done."""

    frame: Frame
    planes: tuple[Array, ...]
    done: Event


class Download:
    """A stage that copies frames into page-locked memory of the host, asynchronously; frames of the host pass.

    The memory goes back to the device's pool with the frame that has it, so two or three sets go round.

    Args:
        device: where the frames are.
    """

    def __init__(self, device: Device) -> None:
        self._device, self._stream = device, device.stream()
        self._copies: deque[_Copy] = deque()

    def process(self, frame: Frame) -> Iterator[Frame]:
        """Start to copy a frame; gives the one before it."""
        if not frame.on_gpu:
            yield from self.flush()
            yield frame
            return
        device = self._device
        planes = tuple(device.pinned(plane.shape, plane.dtype.name) for plane in frame.planes)
        for plane, target in zip(frame.planes, planes, strict=True):
            device.download(plane, target, self._stream)
            device.downloaded += target.nbytes
        done = device.event()
        device.record(done, self._stream)
        self._copies.append(_Copy(frame, planes, done))
        while len(self._copies) > UNDER_WAY:
            yield self._finish()

    def flush(self) -> Iterator[Frame]:
        """The frames still being copied."""
        while self._copies:
            yield self._finish()

    def _finish(self) -> Frame:
        frame, planes, done = self._copies.popleft()
        self._device.synchronize(done)
        return frame.with_planes(planes)

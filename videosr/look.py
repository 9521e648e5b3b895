"""How a frame compares with the one before it: a repeat, the next picture, or the beginning of a scene."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from videosr import scenes
from videosr.engines.cuda_statistics import statistics_on
from videosr.engines.gpu_device import Device
from videosr.frame import Frame
from videosr.temporal import Noise


class Seen(NamedTuple):
    """A frame and what was found out about it and the one before it.

    Attributes:
        frame: the frame.
        thumbnail: of its first plane.
        cut: a scene begins with it.
        repeat: its picture is that of the frame before it.
        noise: between it and the last frame that it does not repeat; None: not measured yet.
    """

    frame: Frame
    thumbnail: scenes.Thumbnail
    cut: bool
    repeat: bool
    noise: Noise | None = None


def look_at(frame: Frame, before: Seen | None, cut: bool | None = None, device: Device | None = None) -> Seen:
    """Compare a frame with the one before it.

    Args:
        frame: the frame.
        before: what this said of the frame before it; None: nothing is before it, so a scene begins.
        cut: whether a scene begins, where that is known already. A change of size, format or colour begins one
            whatever this says.
        device: that frames on the GPU are on, which then answers all questions at once.

    Raises:
        UsageError: the frame's planes are not what its format says.
    """
    frame.check()
    if before is not None and _kind(before.frame) != _kind(frame):
        before = None
    noise: Noise | None = None
    if device is not None and frame.on_gpu and (before is None or before.frame.on_gpu):
        statistics = statistics_on(device, frame.format, frame.height, frame.width)
        thumbnail, noise, same = statistics.look(frame.planes, before.frame.planes if before else None)
    else:
        same = before is not None and not cut and before.frame.same_picture(frame)
        thumbnail = before.thumbnail if before and same else scenes.thumbnail(frame.planes[0], frame.format.bits)
    if before is None:
        return Seen(frame, thumbnail, True, False, noise)
    if same and not cut:
        return Seen(frame, thumbnail, False, True, before.noise)
    return Seen(frame, thumbnail, scenes.is_cut(before.thumbnail, thumbnail) if cut is None else cut, False, noise)


class Looker:
    """Looks at the frames of a sequence, each after the one before it.

    On a GPU what is asked about a frame waits there behind frames that are being enlarged. So it is asked in a thread
    of its own, for a frame ahead, while those are under way.

    Args:
        device: that the engine is on; None: the CPU, where looking takes no time worth a thread.
    """

    def __init__(self, device: Device | None) -> None:
        self._device = device
        self._thread = None if device is None else ThreadPoolExecutor(1, "videosr-look")
        self.ahead = 0 if device is None else 1
        """Frames to begin looking at before the first of them is asked for."""
        self._last: Seen | None = None

    def begin(self, frame: Frame) -> Callable[[], Seen]:
        """Begin looking at the next frame; what is returned waits for what was found.

        That raises an `EngineError` if something failed on the device.
        """
        if self._thread is None:
            seen = self._next(frame)
            return lambda: seen
        return self._thread.submit(self._next, frame).result

    def forget(self) -> None:
        """The next frame begins a new sequence. Nothing may be under way."""
        self._last = None

    def _next(self, frame: Frame) -> Seen:
        self._last = look_at(frame, self._last, device=self._device)
        return self._last


def _kind(frame: Frame) -> tuple[object, ...]:
    """What two frames must share for their codes to mean the same."""
    return frame.planes[0].shape, frame.format, frame.color

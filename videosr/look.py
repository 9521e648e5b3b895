"""What a frame is to the one before it: the same picture, the next one, or the beginning of a scene."""

from __future__ import annotations

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
    """
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


def _kind(frame: Frame) -> tuple[object, ...]:
    """What two frames must share for their codes to mean the same."""
    return frame.planes[0].shape, frame.format, frame.color

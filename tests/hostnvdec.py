"""A stand-in for NVDEC: decodes on the CPU and gives pictures as NVDEC does.

They are in NV12 or P010 and of format "cuda", and their planes speak PyAV's own DLPack.
"""

from __future__ import annotations

from contextlib import nullcontext
from types import SimpleNamespace

import av
import numpy as np
from hostdevice import DeviceArray

from videosr.media import nvdec, pictures

SEMIPLANAR = {"yuv420p": "nv12", "yuvj420p": "nv12", "yuv420p10le": "p010le"}


class Surface:
    """A decoded picture as it lies on the GPU: FFmpeg's frame, of format "cuda", with semi-planar planes."""

    def __init__(self, frame: av.VideoFrame, crop: int = 0) -> None:
        self._frame = frame
        full = {"src_color_range": "JPEG", "dst_color_range": "JPEG"}  # both alike: samples only move
        self._surface = frame.reformat(format=SEMIPLANAR[frame.format.name], **full)
        self.format = SimpleNamespace(name="cuda", padded_bits_per_pixel=0)
        self.width = frame.width + crop

    def __getattr__(self, name: str):
        return getattr(self._frame, name)

    @property
    def planes(self):
        return self._surface.planes


def host_reader() -> nvdec.DeviceReader:
    return nvdec.DeviceReader(lambda shared: np.from_dlpack(shared).view(DeviceArray), nullcontext, lambda: None)


def install(monkeypatch, give=lambda number, surface, frame: surface) -> None:
    """Make `Decoder(..., device=0)` decode on the stand-in; `give` may turn one of its pictures into another."""
    decoded = pictures.Pictures._decoded
    count = 0

    def surfaces(self, packet):
        nonlocal count
        for frame in decoded(self, packet):
            if not self.on_device:
                yield frame
                continue
            count += 1
            yield give(count - 1, Surface(frame), frame)

    monkeypatch.setattr(pictures, "acceleration", lambda index: None)
    monkeypatch.setattr(pictures, "decoder_of", lambda stream, found: stream.codec_context)
    monkeypatch.setattr(pictures, "cuda_reader", lambda index: host_reader())
    monkeypatch.setattr(pictures.Pictures, "_decoded", surfaces)

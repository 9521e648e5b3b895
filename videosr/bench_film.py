"""The speed of a film from its file to a null sink, and what crosses the bus on the way."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from videosr.graph import Graph, NullSink, Timing
from videosr.media.decoder import Decoder
from videosr.upscaler import Upscaler

_AHEAD = 16
"""Frames of a clip after which all that is built once has been built."""


@dataclass(frozen=True, slots=True)
class Whole:
    """From a file to a null sink.

    Attributes:
        fps: frames per second.
        on_gpu: whether frames were decoded on the GPU and stayed there.
        uploaded: bytes a frame that were copied to the GPU.
        downloaded: bytes a frame that were copied from it.
        stages: where each thread's time went.
        warnings: of the decoder.
    """

    fps: float
    on_gpu: bool
    uploaded: float
    downloaded: float
    stages: tuple[Timing, ...]
    warnings: tuple[str, ...]

    @property
    def shares(self) -> str:
        """The stages in words: the share of its time that each was at work, and what it waited for."""
        spent = max(sum((t.busy, t.starved, t.blocked)) for t in self.stages)
        return ", ".join(
            f"{t.name} {t.busy / spent:.0%} busy {t.starved / spent:.0%} starved {t.blocked / spent:.0%} blocked"
            for t in self.stages
        )


def whole(upscaler: Upscaler, clip: Path, frames: int | None = None) -> Whole:
    """A clip through an upscaler to a null sink. What has to be built or compiled for its size is, before time counts.

    Raises:
        InputError: the clip cannot be used.
    """
    device = upscaler.engine.device
    index = device.index if device else None
    with Decoder(clip, device=index, frames=_AHEAD) as decoder:
        Graph(decoder, [("upscale", upscaler)], NullSink()).run()
    before = (device.uploaded, device.downloaded) if device else (0, 0)
    begun = time.perf_counter()
    with Decoder(clip, device=index, frames=frames) as decoder:
        on_gpu = decoder.on_device
        graph = Graph(decoder, [("upscale", upscaler)], NullSink())
        graph.run()
        taken, on_gpu = time.perf_counter() - begun, on_gpu and decoder.on_device
        warnings = tuple(decoder.warnings)
    count = max(graph.timings[-1].frames, 1)
    after = (device.uploaded, device.downloaded) if device else (0, 0)
    up, down = ((b - a) / count for a, b in zip(before, after, strict=True))
    return Whole(count / taken, on_gpu, up, down, tuple(graph.timings), warnings)

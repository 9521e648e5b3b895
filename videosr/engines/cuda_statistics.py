"""What is asked of a frame on an NVIDIA GPU before it is upscaled: the kernels of `kernels/statistics.cu`.

`scenes.thumbnail`, `temporal.noise_of` and `Frame.same_picture` ask the device one thing after the other, and wait
for each answer. Here all of it is queued at once, and some 41 KB come back: one wait a frame.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from videosr import scenes, temporal
from videosr.engines.cuda_planes import C_TYPES, facts_of
from videosr.engines.gpu_device import Device
from videosr.frame import Array, PixelFormat

SOURCE = "statistics.cu"

_THREADS = (32, 8)  # a warp for each cell, block or row
_PLANE = np.dtype([("data", "u8"), ("pitch", "i4"), ("step", "i4"), ("rows", "i4"), ("columns", "i4")], align=True)
_THUMBNAIL = np.dtype(
    [("plane", _PLANE), *((name, "i4") for name in ("cell", "step", "rows", "columns")), ("sums", "u8")],
    align=True,
)
_NOISE = np.dtype(
    [
        ("newer", _PLANE),
        ("older", _PLANE),
        ("rows", "i4"),
        ("columns", "i4"),
        ("sums", "u8"),
    ],
    align=True,
)
_APART = np.dtype([("newer", _PLANE), ("older", _PLANE), ("apart", "u8")], align=True)


class Statistics(NamedTuple):
    """Of a frame, and of it and the one before it.

    Attributes:
        thumbnail: `scenes.thumbnail` of the first plane, the same to the bit.
        noise: `temporal.noise_of`, the same to the bit; none where there is no frame before it.
        same: `Frame.same_picture`, where format and colour are.
    """

    thumbnail: scenes.Thumbnail
    noise: temporal.Noise
    same: bool


@lru_cache(maxsize=4)
def statistics_on(device: Device, format: PixelFormat, height: int, width: int) -> FrameStatistics:
    """The statistics of frames of a format and size on a device; made once, with their kernels and buffers."""
    return FrameStatistics(device, format, height, width)


class FrameStatistics:
    """The statistics of frames of one format and size.

    Args:
        device: where the frames are.
        format: of them.
        height: rows of luma.
        width: columns of luma.
    """

    def __init__(self, device: Device, format: PixelFormat, height: int, width: int) -> None:
        self._device, self._format = device, format
        self._lock = threading.Lock()
        self._stream, self._done = device.stream(), device.event()
        self._kernels = device.kernels(SOURCE, {"SAMPLE": C_TYPES[format.dtype.name]})
        self._cell, self._step = scenes.cells((height, width))
        self._cells = height // self._cell, width // self._cell
        self._grid = temporal.noise_grid((height, width))
        # One buffer: sums of blocks, sums of cells, whether frames differ.
        counts = {"noise": (*self._grid, 7), "cells": self._cells, "apart": (1,)}
        self._layout = np.dtype([(n, "i8" if n == "noise" else "u4", shape) for n, shape in counts.items()])
        self._made = device.empty((self._layout.itemsize,), "uint8")
        self._host = device.pinned((self._layout.itemsize,), "uint8")

    def look(self, newer: Sequence[Array], older: Sequence[Array] | None) -> Statistics:
        """Look at a frame and the one before it, and wait for the answers.

        Args:
            newer: planes of the frame, complete, with any strides.
            older: of the frame before it, if there is one.

        Raises:
            EngineError: something failed on the device.
        """
        with self._lock:  # one buffer for all who ask
            self._device.queue(lambda: self._launch(newer, older), self._stream)
            self._device.download(self._made, self._host, self._stream)
            self._device.record(self._done, self._stream)
            self._device.synchronize(self._done)
            made = self._host.copy().view(self._layout)[0]
        rows = len(range(0, self._cell, self._step))
        scale = rows * self._cell * 2.0 ** (self._format.bits - 8)
        thumbnail = np.asarray(made["cells"] / scale, np.float32)
        if older is None:
            return Statistics(thumbnail, temporal.Noise(0.0), False)
        noise = temporal.Noise(0.0)
        if 0 not in self._grid:
            noise = temporal.noise_of_sums(made["noise"].astype(np.float64), self._format.bits)
        return Statistics(thumbnail, noise, not made["apart"][0])

    def _launch(self, newer: Sequence[Array], older: Sequence[Array] | None) -> None:
        base = int(facts_of(self._made)["data"][0])
        fields: Mapping[str, Any] = self._layout.fields or {}
        places = {name: base + fields[name][1] for name in fields}
        self._made.fill(0)
        job = np.zeros((), _THUMBNAIL)
        job["plane"], job["cell"], job["step"] = _plane(newer[0]), self._cell, self._step
        (job["rows"], job["columns"]), job["sums"] = self._cells, places["cells"]
        self._warps("thumbnail", self._cells[0] * self._cells[1], job)
        if older is None:
            return
        job = np.zeros((), _NOISE)
        job["newer"], job["older"] = _plane(newer[0]), _plane(older[0])
        (job["rows"], job["columns"]), job["sums"] = self._grid, places["noise"]
        if 0 not in self._grid:
            self._warps("noise", self._grid[0] * self._grid[1], job)
        for one, other in zip(newer, older, strict=True):
            job = np.zeros((), _APART)
            job["newer"], job["older"], job["apart"] = _plane(one), _plane(other), places["apart"]
            self._warps("compare", one.shape[0], job)

    def _warps(self, name: str, count: int, job: NDArray[Any]) -> None:
        self._kernels.launch(name, (-(-count // _THREADS[1]),), _THREADS, [job])


def _plane(array: Array) -> NDArray[Any]:
    facts = facts_of(array)
    rows, columns = array.shape
    size = np.dtype(facts["typestr"]).itemsize
    pitch, step = facts.get("strides") or (columns * size, size)
    return np.array((facts["data"][0], pitch, step // size, rows, columns), _PLANE)

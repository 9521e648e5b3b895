"""The stream and fine networks by our own CUDA kernels: a launch for each block of theirs (`kernels/blocks.cu`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from videosr.engines.cuda_planes import C_TYPES
from videosr.engines.cuda_weights import RIM, Packed, Resident
from videosr.engines.gpu_device import Device
from videosr.engines.gpu_execution import Layout
from videosr.frame import Array

SOURCE = "blocks.cu"
LEAST = (8, 0)
"""Compute capability: Turing has too little shared memory."""
HOPPER = (9, 0)
_CHANNELS = 32
_WARP = 32


class Shape(NamedTuple):
    """How the kernels are laid out for a GPU: the region of the picture that a block of threads has.

    Attributes:
        across: warps side by side, each with 16 columns.
        down: warps one above the other.
        rows: of each warp, an even number.
        blocks: on a multiprocessor at once.
        last_down: `down` of the last kernel.
    """

    across: int
    down: int
    rows: int
    blocks: int
    last_down: int

    def size(self, kernel: str) -> tuple[int, int]:
        """Rows and columns of the region; of "first", "block" or "last"."""
        return self.rows * self._down(kernel), 16 * self.across

    def threads(self, kernel: str) -> int:
        """Of a block."""
        return _WARP * self.across * self._down(kernel)

    def _down(self, kernel: str) -> int:
        return self.last_down if kernel == "last" else self.down

    def shared(self, kernel: str, variant: str, weights: int) -> int:
        """Bytes of shared memory a block.

        Args:
            kernel: "first", "block" or "last".
            variant: of the network.
            weights: bytes of the kernel's own.
        """
        if kernel == "first":
            return 0
        rows, columns = self.size(kernel)
        if kernel == "last":
            return rows * _planes(columns) + (rows + 2) * _planes(columns + 2) + weights
        return 2 * rows * _line(columns) + weights + ((rows + 6) * _line(columns + 6) if variant == "stream" else 0)


def _line(columns: int) -> int:
    """Bytes of a row of pixels in shared memory, as the kernels have it (`row_size`)."""
    return -(-columns // 2) * 2 * 2 * _CHANNELS


def _planes(columns: int) -> int:
    """The same where ldmatrix reads it (`planes_size`)."""
    return 8 * ((columns * 8 + 95) // 128 * 128 + 32) + 32


def shape_for(capability: tuple[int, int]) -> Shape:
    """As large a region as shared memory holds: 163 KiB on A100, 227 on H100 and B200, else 99."""
    if capability == HOPPER:
        return Shape(2, 3, 4, 2, 6)  # two blocks, so that one computes while the other loads or waits at a barrier
    if capability in ((8, 0), (8, 7)) or capability[0] == 10:
        return Shape(2, 4, 4, 1, 4)
    return Shape(2, 2, 4, 1, 2)


def trial(capability: tuple[int, int], packed: Packed) -> tuple[int, int]:
    """Rows and columns of a picture that takes more than one region, either way."""
    rows, columns = shape_for(capability).size("last")
    return rows + 2, columns + 2


def macros(packed: Packed, output: str, shape: Shape) -> dict[str, object]:
    """What the kernels' source is compiled with."""
    numbers = {"STREAM": int(packed.variant == "stream"), "LIMIT": packed.limit, "SCALE": packed.scale}
    return numbers | {"OUTPUT": C_TYPES[output]} | {name.upper(): value for name, value in shape._asdict().items()}


class Context:
    """See `gpu_execution.Context`: the kernels for pictures of one size, and the two maps that lie between them.

    Args:
        device: where.
        packed: the network.
        weights: its parts, on the device.
        layouts: of `input`, `average` and `output`.

    Raises:
        EngineError: out of memory.
    """

    def __init__(
        self, device: Device, packed: Packed, weights: tuple[Resident, ...], layouts: Mapping[str, Layout]
    ) -> None:
        self._device, self._packed, self._weights, self._layouts = device, packed, weights, layouts
        self._shape = shape = shape_for(device.gpu.capability)
        self._kernels = device.kernels(SOURCE, macros(packed, layouts["output"].dtype, shape))
        self._bound: dict[str, int] = {}
        height, width = layouts["input"].shape[2:]
        self._picture, self._map = (height, width), (height + 2 * RIM, width + 2 * RIM)
        self._maps = [device.empty((*self._map, _CHANNELS), "float16") for _ in range(2)]

    def bind(self, name: str, address: int) -> None:
        """See `Context.bind`."""
        self._bound[name] = address

    def enqueue(self, stream: int) -> None:
        """See `Context.enqueue`."""
        self._device.queue(self._launch, self._device.stream_of(stream))

    def _launch(self) -> None:
        frame, average, output = (
            self._device.view(self._bound[name], layout.shape, layout.dtype) for name, layout in self._layouts.items()
        )
        first, *blocks, last = self._weights
        here, there = self._maps
        self._run("first", self._map, 0, 0, [average, here, *first], self._picture)
        for part, weights in zip(self._packed.parts[1:-1], blocks, strict=True):
            self._run("block", self._map, 2, part.products.nbytes, [here, there, weights[0]], self._map)
            here, there = there, here
        weight = self._packed.parts[-1].products.nbytes
        self._run("last", self._picture, 4, weight, [here, frame, output, *last], self._picture)

    def _run(
        self, kernel: str, made: tuple[int, int], rim: int, weights: int, arrays: list[Array], size: tuple[int, int]
    ) -> None:
        """Launch a kernel that makes `made` rows and columns, in regions of `rim` less than they have."""
        shape = self._shape
        rows, columns = (side - rim for side in shape.size(kernel))
        grid = (-(-made[1] // columns), -(-made[0] // rows), 1)
        shared = shape.shared(kernel, self._packed.variant, weights)
        numbers = [np.int32(value) for value in size]
        self._kernels.launch(kernel, grid, (shape.threads(kernel), 1, 1), [*arrays, *numbers], shared)

    def capturable(self, stream: int) -> bool:
        """See `Context.capturable`."""
        return True

"""The realtime network by our own CUDA kernel: one launch from picture to enlarged picture (`kernels/realtime.cu`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from videosr.engines.cuda_planes import C_TYPES
from videosr.engines.cuda_weights import Packed, Resident
from videosr.engines.gpu_device import Device
from videosr.engines.gpu_execution import Layout

SOURCE = "realtime.cu"
LEAST = (7, 5)
"""Compute capability: the first whose tensor cores the kernel knows."""
_HALO = 6  # as in the kernel's source
_ROWS = 12 * 64 + 10 * 32
"""Bytes of shared memory that a column takes: 3 x 4 rows of 32 channels and 10 of 16, float16."""
_PADDING = 10 * 256
"""Bytes between the parts of rows of 16 channels."""
_WARP = 32


class Shape(NamedTuple):
    """How the kernel is laid out for a GPU.

    Attributes:
        tiles: warps a block, each with 16 columns.
        blocks: on a multiprocessor at once.
        staged: bytes of weights and biases that a block keeps in shared memory; 0: they are read through the L1 cache.
    """

    tiles: int
    blocks: int
    staged: int = 0

    @property
    def shared(self) -> int:
        """Bytes of shared memory a block."""
        return 16 * self.tiles * _ROWS + _PADDING + self.staged

    @property
    def columns(self) -> int:
        """Of the picture that a block makes."""
        return 16 * self.tiles - 2 * _HALO

    def strip(self, height: int, width: int, multiprocessors: int) -> int:
        """Rows that a block makes, an even number: such that all blocks run at once, if that leaves them worth it.

        A block begins 12 rows above its strip, so few long strips are better than many short ones.
        """
        across = -(-width // self.columns)
        down = max(1, multiprocessors * self.blocks // across)
        rows = max(-(-height // down), 4 * _HALO)
        return rows + rows % 2


def shape_for(capability: tuple[int, int], weights: int) -> Shape:
    """As many columns a block as shared memory holds: 64 KiB on Turing, 163 on A100, 227 on H100 and B200, else 99.

    Where there is much of it the weights lie there too: L1 has what shared memory leaves, 28 KiB of H100's 256, and
    weights that are read through it in turn drive each other out.

    Args:
        capability: compute capability.
        weights: bytes of them and of biases.
    """
    if capability < (8, 0):
        return Shape(3, 1)
    if capability in ((8, 0), (8, 7)):
        return Shape(9, 1)
    if capability[0] in (9, 10):
        return Shape(((227 << 10) - _PADDING - weights) // (16 * _ROWS), 1, weights)
    return Shape(5, 1)


def trial(capability: tuple[int, int], packed: Packed) -> tuple[int, int]:
    """Rows and columns of a picture that takes more than one strip, either way."""
    return 4 * _HALO + 2, shape_for(capability, packed.parts[0].size).columns + 16


def macros(scale: int, output: str, shape: Shape) -> dict[str, object]:
    """What the kernel's source is compiled with."""
    facts = {"TILES": shape.tiles, "BLOCKS": shape.blocks, "STAGED": int(shape.staged > 0)}
    return {"SCALE": scale, "OUTPUT": C_TYPES[output], **facts}


class Context:
    """See `gpu_execution.Context`: the kernel for pictures of one size.

    Args:
        device: where.
        packed: the network.
        weights: its one part, on the device.
        layouts: of `input`, `average` and `output`.
    """

    def __init__(
        self, device: Device, packed: Packed, weights: tuple[Resident, ...], layouts: Mapping[str, Layout]
    ) -> None:
        self._device, self._layouts = device, layouts
        (self._weights,) = weights
        self._shape = shape = shape_for(device.gpu.capability, packed.parts[0].size)
        self._kernels = device.kernels(SOURCE, macros(packed.scale, layouts["output"].dtype, shape))
        self._bound: dict[str, int] = {}
        height, width = layouts["input"].shape[2:]
        strip = shape.strip(height, width, device.multiprocessors)
        self._grid = (-(-width // shape.columns), -(-height // strip), 1)
        self._numbers = [np.int32(value) for value in (height, width, strip)]

    def bind(self, name: str, address: int) -> None:
        """See `Context.bind`."""
        self._bound[name] = address

    def enqueue(self, stream: int) -> None:
        """See `Context.enqueue`."""
        arrays = [
            self._device.view(self._bound[name], layout.shape, layout.dtype) for name, layout in self._layouts.items()
        ]
        arguments = [*arrays, *self._weights, *self._numbers]
        block = (_WARP * self._shape.tiles, 1, 1)

        def work() -> None:
            self._kernels.launch("realtime", self._grid, block, arguments, self._shape.shared)

        self._device.queue(work, self._device.stream_of(stream))

    def capturable(self, stream: int) -> bool:
        """See `Context.capturable`."""
        return True

"""Patches cut on a GPU from a pack that lies in its memory, as `data.PatchSampler` cuts them on the host.

A small network learns a batch in less time than a CPU core takes to cut one. What has to be drawn at random are a few
integers a patch; those come from the host, so that a batch is the same function of (seed, iteration) on either.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from videosr.training.data import PATTERNS, PatchSampler, Plan

_CHUNK = 1 << 26  # bytes of the pack copied at once


class ResidentSampler:
    """The batches of a sampler of still patches.

    Args:
        sampler: whose `still` is true.
        device: torch device that holds the pack, and a few thousand patterns where the run has some.
    """

    def __init__(self, sampler: PatchSampler, device: torch.device) -> None:
        self._sampler, self._device, size = sampler, device, sampler.hr_size
        self._pixels = torch.empty(len(sampler.pixels), dtype=torch.uint8, device=device)
        for start in range(0, len(sampler.pixels), _CHUNK):
            self._pixels[start : start + _CHUNK] = self._put(np.array(sampler.pixels[start : start + _CHUNK]))
        count = PATTERNS if sampler.data.patterns else 0
        self._patterns = torch.empty((count, size, size, 3), dtype=torch.uint8, device=device)
        for number in range(count):
            self._patterns[number] = self._put(np.ascontiguousarray(sampler.made(number)))
        self._offsets = np.array([e.offset for e in sampler.entries])
        # Where in a patch each pixel of it comes from, for eight ways to turn and mirror it.
        ways = [np.rot90(np.arange(size * size).reshape(size, size), turns) for turns in range(4)]
        ways = [way[:, ::step] for way in ways for step in (1, -1)]
        self._ways = self._put(np.ascontiguousarray(np.stack(ways)))

    @staticmethod
    def fits(sampler: PatchSampler, device: torch.device) -> bool:
        """Whether the sampler's batches can be had here, and the pack takes less than half of the memory that is free.

        Args:
            sampler: any.
            device: a CUDA device.
        """
        return sampler.still and 2 * len(sampler.pixels) < torch.cuda.mem_get_info(device)[0]

    def batches(self, start: int, stop: int) -> Iterator[tuple[Tensor, Tensor]]:
        """LR and HR patches of iterations start..stop - 1: see `batch`."""
        return (self.batch(self._sampler.plan(iteration)) for iteration in range(start, stop))

    def batch(self, plan: Plan) -> tuple[Tensor, Tensor]:
        """LR and HR patches, (N, 3, patch, patch) and `scale` times that, float32 in 0..1, channels last.

        Args:
            plan: where they are.
        """
        sampler, margin = self._sampler, self._sampler.margin
        strides = 3 * sampler.sizes[plan.entry, 1]
        corners = self._put(self._offsets[plan.entry] + plan.top * strides + 3 * plan.left)
        lines = self._put(strides)
        if corners.shape[1] > 1:
            chosen = self._texture(corners, lines).argmax(dim=1, keepdim=True)
            corners, lines = corners.gather(1, chosen), lines.gather(1, chosen)
        way = self._ways[self._put(2 * plan.turned + plan.mirrored)]
        size = sampler.hr_size
        places = corners[:, :, None] + (way // size) * lines[:, :, None] + (way % size) * 3
        hr = self._pixels[places[..., None] + torch.arange(3, device=self._device)]
        patterns = self._put(np.flatnonzero(plan.made >= 0))
        hr[patterns] = self._patterns[self._put(plan.made[plan.made >= 0])]
        hr = hr.float()
        lr = sampler.shrink(hr, torch.floor)
        lr[patterns] = hr[patterns][:, sampler.cells, sampler.cells]
        inside = slice(margin, size - margin)
        small, large = (x.permute(0, 3, 1, 2) / 255 for x in (lr, hr[:, inside, inside]))
        return small, large

    def _texture(self, corners: Tensor, lines: Tensor) -> Tensor:
        """Gradient energy of the candidates, (N, C), as the host's sampler ranks them."""
        size = self._sampler.hr_size
        rows, columns = (torch.arange(0, size, step, device=self._device) for step in (3, 1))
        places = corners[..., None, None] + rows[:, None] * lines[..., None, None] + 3 * columns + 1
        green = self._pixels[places].long()
        down, across = (green.diff(dim=dim).square().sum(dim=(2, 3)) for dim in (2, 3))
        return down + across

    def _put(self, values: NDArray[np.int64] | NDArray[np.uint8]) -> Tensor:
        return torch.from_numpy(values).to(self._device, non_blocking=True)

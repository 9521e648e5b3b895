"""Perceptual measures by `pyiqa` (Chen and Mo, IQA-PyTorch), for those who have it and its weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from videosr.errors import InputError, MissingExtraError, UsageError

NAMES = {"lpips": "lpips", "dists": "dists", "topiq": "topiq_fr", "ssim-c": "ssimc"}
"""Our names and pyiqa's: LPIPS (Zhang et al. 2018, AlexNet) and DISTS (Ding et al. 2020), of which less is better;
TOPIQ with reference (Chen et al. 2023) and SSIM of the colour channels, of which more is better."""


class Perceptual:
    """Some of pyiqa's measures with reference, loaded once.

    Args:
        names: of `NAMES`.

    Raises:
        UsageError: an unknown name.
        MissingExtraError: pyiqa is not installed.
        InputError: weights are neither on this machine nor can they be had.
    """

    def __init__(self, names: Sequence[str]) -> None:
        for name in names:
            if name not in NAMES:
                raise UsageError(f"perceptual measure {name!r} is not one of {', '.join(NAMES)}")
        try:
            import pyiqa
            import torch
        except ModuleNotFoundError as exc:
            raise MissingExtraError(f"the measure {', '.join(names)}", "iqa") from exc
        self._torch = torch
        self._metrics: dict[str, Any] = {}
        for name in names:
            try:
                self._metrics[name] = pyiqa.create_metric(NAMES[name], device=torch.device("cpu"))
            except OSError as exc:
                raise InputError(f"{name}: pyiqa has no weights for it and could not fetch them: {exc}") from exc

    def __call__(self, image: NDArray[np.uint8], reference: NDArray[np.uint8]) -> dict[str, float]:
        """Each measure of an image against its original, both (H, W, 3) R'G'B'."""
        tensors = [
            self._torch.from_numpy(x.transpose(2, 0, 1)[None].astype(np.float32) / 255) for x in (image, reference)
        ]
        with self._torch.no_grad():
            return {name: float(metric(*tensors)) for name, metric in self._metrics.items()}

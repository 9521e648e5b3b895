"""The geometric self-ensemble of super-resolution (Lim et al. 2017, "Enhanced Deep Residual Networks", EDSR+).

A network treats a picture and its mirror image differently, and errs differently; the mean errs less. Of the paper's
eight turns and reflections these are the four that keep the picture's height and width, for which engines are built.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from videosr.frame import Array, complete, namespace

RUNS = 4
"""Runs of the network for each picture."""

type Run = Callable[..., Array]
"""(N, 3, H, W) pictures, one or two of them, to one (N, 3, scale * H, scale * W), as `Engine.run`."""


def over_reflections(run: Run) -> Run:
    """A function like `run` that gives the mean of its results for a picture and its reflections, each reflected back.

    Args:
        run: to be called. A second picture that may be None there may be None here.
    """

    def mean(*pictures: Array | None) -> Array:
        total: Any = None
        for rows in (slice(None), slice(None, None, -1)):
            for columns in (slice(None), slice(None, None, -1)):
                made = run(*(_reflected(picture, rows, columns) for picture in pictures))[:, :, rows, columns]
                total = made if total is None else total + made
        total = total * total.dtype.type(1 / RUNS)
        complete(total)
        return total

    return mean


def _reflected(picture: Array | None, rows: slice, columns: slice) -> Array | None:
    if picture is None:
        return None
    reflected = namespace(picture).ascontiguousarray(picture[:, :, rows, columns])
    complete(reflected)
    return reflected

"""The speed of networks alone on a GPU, on tensors that lie there; no video is needed for it."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from videosr.engines.gpu_execution import Execution

_WARM = 3


@dataclass(frozen=True, slots=True)
class Speed:
    """How fast one way of computing is.

    Attributes:
        fps: frames per second with frames queued one behind the other, median of rounds.
        latency: milliseconds from start to end of a frame alone: percentiles 50, 95 and 99.
    """

    fps: float
    latency: tuple[float, float, float]


def measure(start: Callable[[], object], wait: Callable[[], object], count: int, rounds: int = 5) -> Speed:
    """The speed of work that is queued by `start` and done when `wait` returns.

    Args:
        start: queues one frame.
        wait: for all that is queued.
        count: of frames a round.
        rounds: the median counts.
    """
    for _ in range(_WARM):
        start()
        wait()
    rates, single = [], []
    for _ in range(rounds):
        begun = time.perf_counter()
        for _ in range(count):
            start()
        wait()
        rates.append(count / (time.perf_counter() - begun))
    for _ in range(max(count, 20)):
        begun = time.perf_counter()
        start()
        wait()
        single.append(1000 * (time.perf_counter() - begun))
    p50, p95, p99 = (float(p) for p in np.percentile(single, (50, 95, 99)))
    return Speed(statistics.median(rates), (p50, p95, p99))


def alone(execution: Execution, count: int, rounds: int = 5) -> Speed:
    """An engine's network alone, on what lies in its tensors."""
    for _ in range(_WARM):
        execution.spin(1)
    rates = []
    for _ in range(rounds):
        begun = time.perf_counter()
        execution.spin(count)
        rates.append(count / (time.perf_counter() - begun))
    single = measure(lambda: execution.spin(1), lambda: None, max(count // 4, 1), rounds=1)
    return Speed(statistics.median(rates), single.latency)

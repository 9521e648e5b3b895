"""The account of every frame: what came in went out, was dropped for a stated reason, or is still under way."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum


class Reason(StrEnum):
    """Why a frame was dropped."""

    FULL = "queue full"
    """The queue before the network was full."""
    LATE = "late"
    """It could not, or could no longer, be out within the latency budget."""
    CLOSED = "shutdown"
    """It was still under way when the server was told to stop."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Account:
    """The figures at one moment; `taken == delivered + dropped + under_way`, always.

    Attributes:
        taken: frames decoded from the source.
        delivered: frames encoded and handed to the outputs.
        dropped: by reason.
        under_way: in a queue or being computed.
    """

    taken: int
    delivered: int
    dropped: dict[str, int]
    under_way: int


class Ledger:
    """Counts frames and times them; safe to use from all threads.

    Args:
        budget: seconds from demuxed to muxed packet; None where frames wait instead of being dropped.
        now: a clock in seconds.
    """

    def __init__(self, budget: float | None, now: Callable[[], float] = time.monotonic) -> None:
        self.budget = budget
        self.now = now
        self._lock = threading.Lock()
        self._arrivals: dict[int, float] = {}
        self._taken = 0
        self._delivered = 0
        self._dropped: Counter[str] = Counter()
        self.latency = Latency()

    def take(self, pts: int, arrival: float) -> None:
        """A frame came: its output time, unique, and when its packet was demuxed."""
        with self._lock:
            self._taken += 1
            self._arrivals[pts] = arrival

    def late(self, pts: int, ahead: float = 0.0) -> bool:
        """Whether a frame that still takes `ahead` seconds would miss the budget."""
        if self.budget is None:
            return False
        with self._lock:
            return self.now() + ahead > self._arrivals[pts] + self.budget

    def drop(self, pts: int, reason: Reason) -> None:
        """A frame goes no further."""
        with self._lock:
            del self._arrivals[pts]
            self._dropped[reason.value] += 1

    def deliver(self, pts: int) -> float:
        """A frame is handed to the outputs; returns when it came."""
        with self._lock:
            self._delivered += 1
            return self._arrivals.pop(pts)

    @property
    def account(self) -> Account:
        """The figures now."""
        with self._lock:
            return Account(
                taken=self._taken,
                delivered=self._delivered,
                dropped={reason.value: self._dropped[reason.value] for reason in Reason},
                under_way=len(self._arrivals),
            )


BUCKETS = (0.01, 0.02, 0.035, 0.05, 0.075, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.75, 1.0, 2.0, 5.0)
"""Upper bounds of the latency histogram, in seconds."""


@dataclass(slots=True)
class Latency:
    """Latencies: the last ones for percentiles, all of them in a histogram."""

    recent: deque[float] = field(default_factory=lambda: deque(maxlen=2048))
    counts: list[int] = field(default_factory=lambda: [0] * (len(BUCKETS) + 1))
    total: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, seconds: float) -> None:
        """One more."""
        with self._lock:
            self.recent.append(seconds)
            self.total += seconds
            self.counts[sum(bound < seconds for bound in BUCKETS)] += 1

    def percentile(self, share: float) -> float | None:
        """The latency that this share, 0..1, of the last 2048 stays within; None before the first."""
        with self._lock:
            ordered = sorted(self.recent)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else None

"""The pattern of 3:2 pulldown in a row of pictures: what tells film in 30 frames per second from video of 60 fields.

Of five frames of telecined film, one holds its first field again and one its second (two frames later, or one, where
it is the cadence 2:3:3:2). How much else comes again is the film's affair: drawings stand for two or three of its
frames, and often hardly anything moves. So not the number of repeats is judged but where pictures change: film can do
so only between certain fields, video between any.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import av
import numpy as np

CLEARLY = 3
"""How much more one field of a frame has to change than the other for the other to count as repeated."""
FLOOR = 4
"""Codes of 8 bits of a block's mean that are a change, and no noise."""
BLOCK = 4, 16
"""Rows of a field and columns of a block, as small as a mouth. The first few of all blocks are left out as chance."""
CHANCE = 4
CYCLE = 5
"""Frames after which the pattern begins anew."""
PLACE_HITS, HITS = 6, 12
"""Changes of one field alone that fit the pattern, which a place has to show, and all such places together."""
STRETCH = 40
"""Frames after which a place ends: the longer, the likelier there is an edit in it, where the phase leaps."""
SPOILED = 8
"""A place may show one change that film cannot make to this many hits: phases change at edits."""


@dataclass(slots=True)
class _Place:
    """How much the fields of consecutive frames change from frame to frame: (top, bottom) each."""

    changes: list[tuple[float, float]] = field(default_factory=list)
    last: np.ndarray | None = None

    def add(self, frame: av.VideoFrame) -> None:
        luma = _luma(frame)
        if self.last is not None:
            top, bottom = (_change(luma[parity::2], self.last[parity::2]) for parity in (0, 1))
            self.changes.append((top, bottom))
        self.last = luma

    def fits(self, order: str) -> tuple[int, int]:
        """Hits and misses of the pattern at the phase that fits best, for an order of fields.

        Counted from the frame whose first field comes again, the second does so in the frame `apart` behind it. A new
        picture that begins in a second field leaves the first one as it was, and in the next frame the second.
        """
        if not self.changes:
            return 0, 0
        first, second = np.array(self.changes).T[:: 1 if order == "tff" else -1]
        first_again = (second > CLEARLY * first) & (second > FLOOR)
        second_again = (first > CLEARLY * second) & (first > FLOOR)
        both = (np.maximum(first, second) > FLOOR) & ~first_again & ~second_again
        found = []
        for begin in range(CYCLE):
            at = (np.arange(len(first)) - begin) % CYCLE
            for apart in (2, 1):
                hit = (first_again & (at < apart)) | (second_again & (at >= 1) & (at <= apart))
                miss = (first_again | second_again) & ~hit | both & ((at == 0) | (at == apart))
                balance = min((hit & first_again).sum(), (hit & second_again).sum())
                hits = min(int(hit.sum()), 3 * int(balance))  # a cursor that blinks lies in one field only
                found.append((hits, int(miss.sum())))
        return max(found, key=lambda fit: fit[0] - 2 * fit[1])


class Repeats:
    """Takes frames of some places of a video, and says whether they are telecined film."""

    def __init__(self) -> None:
        self._places: list[_Place] = []

    def begin(self) -> None:
        """What comes next does not follow what came before."""
        self._places.append(_Place())

    def add(self, frame: av.VideoFrame) -> None:
        """Take the next frame: planar, its luma first, all of one size and format in a place."""
        if len(self._places[-1].changes) == STRETCH:
            self.begin()
        self._places[-1].add(frame)

    def film(self, order: str) -> bool:
        """Whether it is telecined film with this order of fields ("tff" or "bff"), in most places that tell."""
        fits = [place.fits(order) for place in self._places]
        film = [hits for hits, misses in fits if hits >= PLACE_HITS and SPOILED * misses <= hits]
        video = [misses for hits, misses in fits if misses > hits]
        return sum(film) >= HITS and len(film) > len(video)


def _luma(frame: av.VideoFrame) -> np.ndarray:
    """Rows of luma in codes of 8 bits; a copy."""
    plane, bits = frame.planes[0], frame.format.components[0].bits
    rows = np.frombuffer(plane, np.uint16 if bits > 8 else np.uint8).reshape(plane.height, -1)[:, : plane.width]
    return np.right_shift(rows, bits - 8).astype(np.uint8) if bits > 8 else rows.copy()


def _change(now: np.ndarray, before: np.ndarray) -> float:
    """Mean difference of the block that changed most, but for a few."""
    height, width = BLOCK
    rows, columns = min(len(now), len(before)) // height * height, now.shape[1] // width * width
    now, before = now[:rows, :columns], before[:rows, :columns]
    apart = np.maximum(now, before) - np.minimum(now, before)
    sums = apart.reshape(rows // height, height, columns).sum(1, dtype=np.uint16)
    means = sums.reshape(len(sums), -1, width).sum(2, dtype=np.uint32).ravel() / (height * width)
    return float(np.partition(means, -CHANCE)[-CHANCE]) if means.size >= CHANCE else 0.0

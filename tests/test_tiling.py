"""Tiles: any picture is covered, neighbours share what they must, and joining them gives the whole."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from videosr.errors import UsageError
from videosr.tiling import GRID, OVERLAP, PLAIN_EDGE, WINDOWED_EDGE, Tiling


@st.composite
def axes(draw):
    """A tiling, and the length of a picture's side."""
    window, reach = draw(st.integers(0, 32)), draw(st.none() | st.integers(0, 40))
    least = 2 * ((OVERLAP if reach is None else 2 * reach) + (window or GRID))
    tiling = Tiling.of(least + draw(st.integers(0, 200)), window=window, reach=reach)
    return tiling, draw(st.integers(1, 2000))


@given(axes())
@settings(max_examples=100)
def test_tiles_cover_a_side_and_share_what_they_must(case):
    tiling, length = case
    axis = tiling.axis(length)
    assert tiling.cuts(length, 1) == tiling.cuts(1, length) == (len(axis.starts) > 1) == (length > tiling.edge)
    assert axis.size <= tiling.edge
    assert axis.starts[0] == 0
    assert axis.starts[-1] + axis.size == length
    strides = np.diff(axis.starts)
    assert np.all(strides > 0)
    assert np.all(strides % tiling.grid == 0)
    assert np.all(axis.size - strides >= tiling.overlap)
    if len(axis.starts) > 1:  # not one tile too many
        stride = (tiling.edge - tiling.overlap) // tiling.grid * tiling.grid
        assert len(axis.starts) <= 2 + -(-(length - tiling.edge) // max(stride - tiling.grid, tiling.grid))


@given(axes(), st.integers(1, 4))
@settings(max_examples=50)
def test_shares_add_up_to_one_and_leave_the_rims_out(case, scale):
    tiling, length = case
    axis = tiling.axis(length)
    total = np.zeros(scale * length, np.float32)
    for i, (start, share) in enumerate(zip(axis.starts, axis.shares(scale, tiling.blend), strict=True)):
        assert np.all(share >= 0)
        assert np.all(share <= 1)
        total[scale * start : scale * (start + axis.size)] += share
        # What is near a tile's own rim inside the picture is not used.
        margin = scale * (tiling.overlap // 4 if tiling.blend else tiling.overlap // 2)
        if i > 0:
            assert not share[:margin].any()
        if i + 1 < len(axis.starts):
            assert not share[len(share) - margin :].any()
        if not tiling.blend:
            assert set(np.unique(share)) <= {0, 1}
    assert np.abs(total - 1).max() < 1e-6


def smoothed(x, reach):
    """A network of a known reach: the mean of the (2 reach + 1)^2 pixels around, doubled; zeros outside."""
    padded = np.pad(x, ((0, 0), (0, 0), (reach, reach), (reach, reach)))
    width = 2 * reach + 1
    seen = np.lib.stride_tricks.sliding_window_view(padded, (width, width), (2, 3)).mean((4, 5))
    return seen.repeat(2, 2).repeat(2, 3).astype(np.float32)


@pytest.mark.parametrize("shape", [(2, 3, 50, 41), (1, 3, 97, 20), (1, 3, 31, 130)])
def test_of_a_known_reach_nothing_is_lost(shape):
    x = np.random.default_rng(0).random(shape, np.float32)
    tiling, sizes = Tiling.of(48, window=0, reach=3), set()

    def upscale(tile):
        sizes.add(tile.shape[2:])
        return smoothed(tile, 3)

    assert np.array_equal(tiling.run(upscale, 2, x), smoothed(x, 3))
    assert len(sizes) == 1
    assert max(sizes.pop()) <= 48


def test_every_input_is_cut_alike_and_a_small_picture_not_at_all():
    x, y = np.random.default_rng(1).random((2, 1, 3, 200, 30), np.float32)
    tiling = Tiling.of(160, window=8, reach=None)
    assert np.allclose(tiling.run(lambda a, b: 2 * a - b, 1, x, y), 2 * x - y, atol=1e-6)
    assert tiling.run(lambda a, b: a if b is None else b, 1, x, None).shape == x.shape
    small = x[:, :, :160]
    assert tiling.run(lambda a: a, 1, small) is small
    assert Tiling.of(0, window=8, reach=None).run(lambda a: a, 1, x) is x


def test_the_default_goes_by_the_network():
    assert Tiling.of(None, window=16, reach=None) == Tiling(edge=WINDOWED_EDGE, overlap=OVERLAP, grid=16, blend=True)
    assert Tiling.of(None, window=0, reach=7) == Tiling(edge=PLAIN_EDGE, overlap=14, grid=GRID, blend=False)
    named = {str(Tiling.of(e, window=w, reach=r)) for e in (None, 400, 0) for w in (0, 16, 8) for r in (None, 7)}
    assert len(named) == 11  # all of them but those without tiles differ


def test_tiles_too_small_to_share_are_refused():
    with pytest.raises(UsageError, match="give --tile 160 or more"):
        Tiling.of(159, window=16, reach=None)
    assert Tiling.of(160, window=16, reach=None).edge == 160

import functools
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from videosr import scenes

HEIGHT, WIDTH = 180, 320


@functools.lru_cache(maxsize=32)
def picture(seed, height=2 * HEIGHT, width=2 * WIDTH):
    """A generated scene: 1/f texture, as natural pictures have, with flat-sided things of other brightness on it."""
    rng = np.random.default_rng(seed)
    fy, fx = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)
    spectrum = rng.normal(size=(height, width // 2 + 1)) + 1j * rng.normal(size=(height, width // 2 + 1))
    texture = np.fft.irfft2(spectrum / np.maximum(np.hypot(fy, fx), 1 / width) ** 1.3, s=(height, width))
    out = rng.uniform(80, 150) + rng.uniform(20, 40) * texture / texture.std()
    for _ in range(12):
        y, x = rng.integers(height), rng.integers(width)
        out[y : y + rng.integers(20, 120), x : x + rng.integers(20, 160)] += rng.uniform(-70, 70)
    return np.clip(out, 16, 235)


def view(scene, y=90.0, x=160.0, zoom=1.0):
    """What a camera at (y, x) sees of a scene, HEIGHT x WIDTH, point-sampled."""
    rows = np.clip(y + np.arange(HEIGHT) * zoom, 0, scene.shape[0] - 1).astype(int)
    columns = np.clip(x + np.arange(WIDTH) * zoom, 0, scene.shape[1] - 1).astype(int)
    return scene[np.ix_(rows, columns)]


def thumb(luma):
    return scenes.thumbnail(np.clip(np.rint(luma), 0, 255).astype(np.uint8), 8)


def called_cuts(shots):
    """How many of the pairs of consecutive pictures are called a cut, and how many pairs there are."""
    found = [scenes.is_cut(a, b) for shot in shots for a, b in itertools.pairwise([thumb(p) for p in shot])]
    return sum(found), len(found)


def test_cuts_are_found_also_at_equal_brightness():
    missed = []
    for n in range(200):
        a, b = picture(n, HEIGHT, WIDTH), picture(n + 1000, HEIGHT, WIDTH)
        if n % 2:
            b = b * (a.mean() / b.mean())
        if not scenes.is_cut(thumb(a), thumb(b)):
            missed.append(n)
    assert len(missed) <= 2, missed


def test_a_cut_that_mean_luma_does_not_show():
    a, b = view(picture(1)), view(picture(2))
    a, b = thumb(a), thumb(b * (a.mean() / b.mean()))
    assert abs(float(a.mean()) - float(b.mean())) < 1
    assert scenes.is_cut(a, b)


def pans(rng):
    for n in range(20):
        speed, angle = rng.uniform(2, 20), rng.uniform(0, 2 * np.pi)
        steps = (np.arange(7) - 3) * speed
        scene = picture(n)
        yield [view(scene, 90 + s * np.sin(angle), 160 + s * np.cos(angle)) for s in steps]


def zooms(rng):
    for n in range(20):
        scene, speed = picture(n), rng.uniform(0.98, 1.04)
        yield [view(scene, 90 + 90 * (1 - z), 160 + 160 * (1 - z), z) for z in speed ** np.arange(7.0)]


def flashes(rng):
    for n in range(40):
        calm = picture(n, HEIGHT, WIDTH)
        lit = np.minimum(calm * rng.uniform(1, 3) + rng.uniform(0, 120), 235)
        yield [calm, lit, calm, np.full_like(calm, 235), calm]


def dissolves(rng):
    for n in range(12):
        a, b = picture(n, HEIGHT, WIDTH), picture(n + 500, HEIGHT, WIDTH)
        yield [a + (b - a) * t for t in np.linspace(0, 1, rng.integers(9, 25))]


def fades(rng):
    for n in range(12):
        a = picture(n, HEIGHT, WIDTH)
        yield [16 + (a - 16) * t for t in np.linspace(0, 1, rng.integers(9, 25))]


def noise(rng):
    for n in range(20):
        calm = picture(n, HEIGHT, WIDTH)
        yield [calm + rng.normal(0, sigma, calm.shape) for sigma in (8, 8, 16, 16)]


def fast_motion(rng):
    """Things half as large as the picture that run across it."""
    for n in range(20):
        back, thing = picture(n, HEIGHT, WIDTH), picture(n + 700, HEIGHT, WIDTH)
        shot = []
        for k in range(7):
            at = 20 + k * int(rng.integers(15, 30))
            frame = back.copy()
            frame[40:150, at : at + 100] = thing[40:150, :100]
            shot.append(frame)
        yield shot


@pytest.mark.parametrize("kind", [pans, zooms, flashes, dissolves, fades, noise, fast_motion])
def test_what_is_no_cut(kind):
    found, pairs = called_cuts(kind(np.random.default_rng(3)))
    assert pairs >= 60
    assert found == 0


def test_black_begins_and_ends_scenes_but_white_does_not():
    shown, black, white = thumb(view(picture(1))), np.full((36, 64), 16, np.float32), np.full((36, 64), 235, np.float32)
    assert scenes.is_cut(shown, black)
    assert scenes.is_cut(black, shown)
    assert not scenes.is_cut(shown, white)
    assert not scenes.is_cut(white, shown)
    assert not scenes.is_cut(black, black)


def test_letterbox_bars_hide_no_cut():
    a, b = view(picture(1)), view(picture(2))
    for shown in (a, b):
        shown[:28] = shown[-28:] = 16
    assert scenes.is_cut(thumb(a), thumb(b))
    assert not scenes.is_cut(thumb(a), thumb(a))


def test_another_size_is_another_scene():
    a = thumb(view(picture(1)))
    assert scenes.is_cut(a, a[:, :-1])


def test_the_decision_is_the_same_every_time():
    a, b = thumb(view(picture(1))), thumb(view(picture(1), y=95))
    assert scenes.score(a, b) == scenes.score(a.copy(), b.copy())
    assert scenes.score(a, a) < 0.01


@settings(max_examples=40)
@given(st.integers(16, 700), st.integers(16, 700), st.sampled_from([8, 9, 10, 12, 16]))
def test_thumbnail_of_any_size_and_depth(height, width, bits):
    dtype = np.uint8 if bits == 8 else np.uint16
    plane = np.broadcast_to(np.linspace(16, 235, width) * 2 ** (bits - 8), (height, width)).astype(dtype)
    small = scenes.thumbnail(plane, bits)
    assert small.dtype == np.float32
    assert min(small.shape) >= 8
    assert small.size <= 4 * 64 * 36
    assert np.isclose(small[0, 0], 16, atol=16)
    assert np.all(np.diff(small, axis=1) >= 0)
    assert not scenes.is_cut(small, small)


def test_thumbnail_is_the_mean_of_cells():
    plane = np.random.default_rng(0).integers(0, 1024, (149, 259), np.uint16)
    small = scenes.thumbnail(plane, 10)
    assert small.shape == (37, 64)
    expected = plane[:148, :256].reshape(37, 4, 64, 4).mean(axis=(1, 3)) / 4
    np.testing.assert_allclose(small, expected, rtol=1e-6)


def test_thumbnails_of_tiny_pictures():
    for size in (1, 3, 8):
        small = scenes.thumbnail(np.full((size, size), 100, np.uint8), 8)
        assert small.shape == (size, size)
        assert not scenes.is_cut(small, small * 0)

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from videosr.frame import Frame, PixelFormat
from videosr.temporal import (
    BLEND,
    CLEAN,
    DEPTH,
    GRAIN_LIKENESS,
    HISTORY,
    LIKENESS,
    NOISY,
    Mode,
    Noise,
    average,
    ema_weights,
    noise_of,
    same_window,
    threshold,
    window,
)


def frame(*planes, fmt="gray", pts=0):
    return Frame(planes=planes, format=PixelFormat.parse(fmt), pts=pts, time_base=Fraction(1, 25))


def random_frame(fmt, height, width, rng):
    pixel_format = PixelFormat.parse(fmt)
    shapes = [pixel_format.plane_shape(i, height, width) for i in range(pixel_format.planes)]
    return frame(*(rng.integers(0, 1 << pixel_format.bits, s).astype(pixel_format.dtype) for s in shapes), fmt=fmt)


def rounded(values):
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def waves(height=180, width=320, at=0.0):
    y, x = np.mgrid[:height, :width]
    return 120 + 50 * np.sin((x + at) / 17) + 30 * np.cos((y - at) / 11)


def texture(seed, height=260, width=420):
    """1/f texture without a smooth spot."""
    rng = np.random.default_rng(seed)
    fy, fx = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)
    spectrum = rng.normal(size=(height, width // 2 + 1)) + 1j * rng.normal(size=(height, width // 2 + 1))
    out = np.fft.irfft2(spectrum / np.maximum(np.hypot(fy, fx), 1 / width) ** 1.7, s=(height, width))
    return 120 + 30 * out / out.std()


def noisy(picture, sigma, rng):
    return frame(rounded(picture + rng.normal(0, sigma, picture.shape)))


def no_cut(older, newer):
    return False


# ema


def conv_in(picture, weight, bias):
    """A 3x3 convolution, zero padded: (3, H, W) and (C, 3, 3, 3) to (C, H, W), all float32."""
    _, height, width = picture.shape
    padded = np.pad(picture, ((0, 0), (1, 1), (1, 1)))
    out = np.zeros((len(weight), height, width), np.float32) + bias[:, None, None]
    for dy in range(3):
        for dx in range(3):
            out += np.tensordot(weight[:, :, dy, dx], padded[:, dy : dy + height, dx : dx + width], 1)
    return out


def test_ema_is_the_published_recursion_on_features_and_on_frames():
    rng = np.random.default_rng(0)
    weight = rng.normal(0, 0.3, (16, 3, 3, 3)).astype(np.float32)
    bias = rng.normal(0, 0.1, 16).astype(np.float32)
    frames = [random_frame("gbrp", 12, 16, rng) for _ in range(20)]
    features = recursion = None
    for n, current in enumerate(frames):
        x = np.stack(current.planes).astype(np.float32) / 255
        feature = conv_in(x, weight, bias)
        features = feature if features is None else (1 - BLEND) * feature + BLEND * features
        recursion = x if recursion is None else (1 - BLEND) * x + BLEND * recursion
        e = np.stack(average(window(frames[: n + 1], Mode.EMA, no_cut), Mode.EMA)) / np.float32(255)
        assert e.dtype == np.float32
        np.testing.assert_allclose(e, recursion, atol=1e-5, rtol=0)
        np.testing.assert_allclose(conv_in(e, weight, bias), features, atol=1e-5, rtol=0)


@pytest.mark.parametrize("count", range(1, HISTORY + 1))
def test_ema_weights_sum_to_one_and_start_exactly(count):
    weights = ema_weights(count)
    assert len(weights) == count
    assert sum(weights) == pytest.approx(1, abs=1e-12)
    for age in range(count):  # what the recursion, begun at the oldest frame, makes of an impulse
        impulse = [float(k == age) for k in range(count)]
        e = impulse[-1]
        for x in impulse[-2::-1]:
            e = (1 - BLEND) * x + BLEND * e
        assert weights[age] == pytest.approx(e, abs=1e-12)


# the window


def ids(frames):
    return [f.pts for f in frames]


def sequence(pictures):
    """Frames of one-valued pictures, so that equal numbers are repeats."""
    return [frame(np.full((4, 4), value, np.uint8), pts=n) for n, value in enumerate(pictures)]


def test_window_off_is_the_frame():
    assert ids(window(sequence(range(9)), Mode.OFF, no_cut)) == [8]


def test_window_lengths():
    frames = sequence(range(12))
    assert ids(window(frames, Mode.EMA, no_cut)) == [11, 10, 9, 8, 7, 6, 5, 4]
    assert ids(window(frames, Mode.ADAPTIVE, no_cut)) == [11, 10, 9, 8]
    assert ids(window(frames[:2], Mode.EMA, no_cut)) == [1, 0]


@pytest.mark.parametrize("mode", [Mode.EMA, Mode.ADAPTIVE])
def test_first_frame_and_frame_after_a_cut_stand_alone(mode):
    rng = np.random.default_rng(0)
    frames = [random_frame("yuv420p", 16, 16, rng) for _ in range(6)]
    for history, cut in ((frames[:1], no_cut), (frames, lambda _, newer: newer is frames[-1])):
        used = window(history, mode, cut)
        assert len(used) == 1
        for plane, e in zip(history[-1].planes, average(used, mode, 8.0), strict=True):
            np.testing.assert_array_equal(e, plane.astype(np.float32))


def test_the_walk_ends_at_the_cut():
    frames = sequence(range(8))
    assert ids(window(frames, Mode.EMA, lambda _, newer: newer.pts == 6)) == [7, 6]
    assert ids(window(frames, Mode.ADAPTIVE, lambda older, _: older.pts == 4)) == [7, 6, 5]


def test_another_size_or_format_ends_the_walk():
    small, other = frame(np.zeros((4, 4), np.uint8)), frame(np.zeros((4, 6), np.uint8))
    deep = frame(np.zeros((4, 4), np.uint16), fmt="gray10le")
    assert window([other, small], Mode.EMA, no_cut) == (small,)
    assert window([deep, small], Mode.EMA, no_cut) == (small,)


def test_animation_on_twos_has_the_same_window_for_a_drawing_and_its_repeat():
    frames = sequence(n // 2 for n in range(20))
    for n in range(HISTORY, 20, 2):
        drawing, repeat = (window(frames[: k + 1], Mode.ADAPTIVE, no_cut) for k in (n, n + 1))
        assert same_window(drawing, repeat)
        assert [int(f.planes[0][0, 0]) for f in drawing] == [n // 2 - k for k in range(DEPTH)]
        assert not same_window(drawing, window(frames[:n], Mode.ADAPTIVE, no_cut))


def test_animation_on_threes():
    frames = sequence(n // 3 for n in range(24))
    for n in range(9, 24):
        drawings = [int(f.planes[0][0, 0]) for f in window(frames[: n + 1], Mode.ADAPTIVE, no_cut)]
        assert drawings == [n // 3 - k for k in range(4 if n % 3 == 0 else 3)]  # eight frames reach no further
        assert n % 3 != 2 or same_window(*(window(frames[:k], Mode.ADAPTIVE, no_cut) for k in (n, n + 1)))


@settings(max_examples=50)
@given(
    st.lists(st.integers(0, 3), min_size=1, max_size=24),
    st.sets(st.integers(1, 23)),
    st.sampled_from([Mode.EMA, Mode.ADAPTIVE]),
)
def test_a_window_needs_no_more_than_its_history(pictures, cuts, mode):
    frames = sequence(pictures)
    for n in range(len(frames)):
        whole, part = (
            window(frames[start : n + 1], mode, lambda _, newer: newer.pts in cuts)
            for start in (0, max(0, n + 1 - HISTORY))
        )
        assert ids(whole) == ids(part)
        assert whole[0] is frames[n]
        assert not cuts & set(range(whole[-1].pts + 1, n + 1))


# the adaptive average


def reference(frames, t):
    """The definition, sample by sample."""
    fmt = frames[0].format
    guide = [f.planes[0].astype(float) for f in frames]
    height, width = guide[0].shape
    weights = []
    for other in guide:
        w = np.empty((height, width))
        for y in range(height):
            for x in range(width):
                near = [
                    abs(other[v, u] - guide[0][v, u])
                    for v in np.clip([y - 1, y, y + 1], 0, height - 1)
                    for u in np.clip([x - 1, x, x + 1], 0, width - 1)
                ]
                w[y, x] = np.exp(-((np.mean(near) / t) ** 2))
        weights.append(w)
    out = []
    for i in range(fmt.planes - fmt.alpha):
        fh, fw = (1 << fmt.log2_h, 1 << fmt.log2_w) if fmt.family == "yuv" and i else (1, 1)
        e = np.empty(frames[0].planes[i].shape)
        for y in range(e.shape[0]):
            for x in range(e.shape[1]):
                v = np.clip(np.arange(y * fh, y * fh + fh), 0, height - 1)
                u = np.clip(np.arange(x * fw, x * fw + fw), 0, width - 1)
                w = [a[np.ix_(v, u)].mean() for a in weights]
                e[y, x] = sum(a * f.planes[i][y, x] for a, f in zip(w, frames, strict=True)) / sum(w)
        out.append(e)
    return out


FORMATS = (
    "yuv420p yuv422p yuv444p yuv440p yuv411p yuv410p yuva420p10le yuv420p10le yuv422p12le gbrp gbrap16le gray gray16le"
)


@pytest.mark.parametrize("size", [(9, 13), (8, 8), (1, 1)])
@pytest.mark.parametrize("fmt", FORMATS.split())
def test_average_is_as_defined(fmt, size):
    rng = np.random.default_rng(1)
    pixel_format = PixelFormat.parse(fmt)
    frames = [random_frame(fmt, *size, rng) for _ in range(3)]
    t = 0.4 * 2**pixel_format.bits
    before = [p.copy() for f in frames for p in f.planes]
    got = average(frames, Mode.ADAPTIVE, t)
    assert len(got) == pixel_format.planes - pixel_format.alpha
    for plane, expected in zip(got, reference(frames, t), strict=True):
        assert plane.dtype == np.float32
        assert plane.shape == expected.shape
        np.testing.assert_allclose(plane, expected, rtol=2e-5, atol=2**pixel_format.bits * 1e-6)
    for plane, copy in zip((p for f in frames for p in f.planes), before, strict=True):
        np.testing.assert_array_equal(plane, copy)


def test_noise_on_what_stands_still_is_averaged():
    rng = np.random.default_rng(0)
    clean = waves()
    frames = [noisy(clean, 4, rng) for _ in range(12)]
    used = window(frames, Mode.ADAPTIVE, no_cut)
    (e,) = average(used, Mode.ADAPTIVE, threshold(used))
    before, after = (np.std(p - clean) for p in (frames[-1].planes[0], e))
    assert len(used) == DEPTH
    assert 1 / np.sqrt(DEPTH) <= after / before < 1.15 / np.sqrt(DEPTH)


def test_what_moves_leaves_no_ghost():
    rng = np.random.default_rng(0)
    clean = []
    for n in range(8):
        picture = waves()
        picture[40:120, 20 + 24 * n : 80 + 24 * n] = 30 if n % 2 else 200
        clean.append(picture)
    frames = [noisy(p, 3, rng) for p in clean]
    used = window(frames, Mode.ADAPTIVE, no_cut)
    (e,) = average(used, Mode.ADAPTIVE, threshold(used))
    moved = np.any([np.abs(p - clean[-1]) > 30 for p in clean[-DEPTH:]], axis=0)
    assert moved.sum() > 5000
    still = ~moved & np.all([np.abs(p - clean[-1]) == 0 for p in clean[-DEPTH:]], axis=0)
    assert np.abs(e - clean[-1])[moved].mean() < 1.05 * np.abs(frames[-1].planes[0] - clean[-1])[moved].mean()
    assert np.abs(e - frames[-1].planes[0])[moved].max() < 12
    assert np.std((e - clean[-1])[still]) < 0.62 * 3
    (ghost,) = average(window(frames, Mode.EMA, no_cut), Mode.EMA)
    assert np.abs(ghost - clean[-1])[moved].mean() > 10


def test_nothing_to_average_gives_the_frame():
    rng = np.random.default_rng(0)
    frames = [random_frame("yuv420p", 9, 9, rng) for _ in range(3)]
    for mode, t in ((Mode.OFF, 5.0), (Mode.ADAPTIVE, 0.0)):
        for plane, e in zip(frames[0].planes, average(frames, mode, t), strict=True):
            np.testing.assert_array_equal(plane, e)
            assert e.dtype == np.float32


# the noise


def noise_sigma(newer, older):
    return noise_of(newer, older).sigma


@pytest.mark.parametrize("sigma", [1, 2, 4, 8, 16])
@pytest.mark.parametrize("motion", [0, 3])
def test_sigma_of_gaussian_noise(sigma, motion):
    rng = np.random.default_rng(sigma)
    for size in ((180, 320), (241, 433)):
        seen = noise_sigma(noisy(waves(*size), sigma, rng), noisy(waves(*size, at=motion), sigma, rng))
        assert seen == pytest.approx(sigma, rel=0.2)
    scene = texture(sigma)
    seen = noise_sigma(noisy(scene[:180, :320], sigma, rng), noisy(scene[:180, motion : 320 + motion], sigma, rng))
    assert 0.8 * sigma < seen < 1.2 * sigma + (motion > 0)  # texture without a smooth spot, moving, adds a little


@pytest.mark.parametrize("motion", [0, 1, 4, 30])
def test_clean_video_has_no_noise(motion):
    scene = texture(5)
    scene[100:, 150:] = 90
    a, b = frame(rounded(scene[:180, :320])), frame(rounded(scene[:180, motion : 320 + motion]))
    assert noise_sigma(a, b) < CLEAN
    assert threshold((a, b)) == 0


def test_noise_that_stands_still_is_none():
    still = noisy(waves(), 6, np.random.default_rng(0))
    assert noise_sigma(still, still) == 0


def test_black_bars_do_not_hide_noise_and_black_has_none():
    rng = np.random.default_rng(0)
    a, b = (noisy(waves(), 4, rng) for _ in range(2))
    for f in (a, b):
        f.planes[0][:50] = f.planes[0][-50:] = 16
    assert noise_sigma(a, b) == pytest.approx(4, rel=0.2)
    assert noise_sigma(frame(np.full((64, 64), 16, np.uint8)), frame(np.full((64, 64), 17, np.uint8))) == 0


@pytest.mark.parametrize("size", [(1, 1), (7, 40), (8, 8), (16, 17), (1, 300)])
def test_sigma_of_small_pictures(size):
    rng = np.random.default_rng(0)
    a, b = (frame(rng.integers(60, 200, size).astype(np.uint8)) for _ in range(2))
    assert np.isfinite(noise_sigma(a, b))


def test_threshold_follows_the_noise_and_the_bits():
    rng = np.random.default_rng(0)
    seen = []
    for sigma in np.linspace(0, 4, 17):
        a, b = (waves() + rng.normal(0, sigma, (180, 320)) for _ in range(2))
        eight = threshold((frame(rounded(a)), frame(rounded(b))))
        deep = [frame(rounded(p).astype(np.uint16) * np.uint16(4), fmt="gray10le") for p in (a, b)]
        assert threshold(deep) == pytest.approx(4 * eight, rel=1e-3)
        seen.append(eight)
        measured = noise_sigma(frame(rounded(a)), frame(rounded(b)))
        if measured <= CLEAN:
            assert eight == 0
        if measured >= NOISY:
            assert eight == pytest.approx(LIKENESS * measured)
    assert seen[0] == 0
    assert seen[-1] == pytest.approx(4 * LIKENESS, rel=0.2)
    assert np.all(
        np.diff(seen) > -0.25 * LIKENESS
    )  # no switching: it grows steadily but for the measurement's own scatter
    assert threshold((frame(rounded(a)),)) == 0


def soft(sigma, rng, size=(180, 320)):
    """White noise blurred like grain, to the same strength."""
    noise = rng.normal(0, 1, size)
    for axis in (0, 1):
        noise = 0.27 * np.roll(noise, 1, axis) + noise + 0.27 * np.roll(noise, -1, axis)
    return sigma * noise / noise.std()


def test_white_noise_is_told_from_grain():
    rng = np.random.default_rng(3)
    white = [noisy(waves(), 4, rng) for _ in range(2)]
    grain = [frame(rounded(waves() + soft(4, rng))) for _ in range(2)]
    assert abs(noise_of(*white).correlation) < 0.05
    assert noise_of(*grain).correlation > 0.3
    assert threshold(white) == pytest.approx(LIKENESS * noise_of(*white).sigma)
    assert threshold(grain) == pytest.approx(GRAIN_LIKENESS * noise_of(*grain).sigma)
    assert threshold(grain, keep_grain=False) == pytest.approx(LIKENESS * noise_of(*grain).sigma)


def test_correlation_is_that_of_the_samples():
    """Against numpy's, over all pairs of neighbours of two frames without anything in them but noise."""
    rng = np.random.default_rng(4)
    for mix in (0.0, 0.1, 0.3):
        a, b = (110 + (1 - mix) * rng.normal(0, 5, (240, 240)) + mix * soft(5, rng, (240, 240)) for _ in range(2))
        one, other = frame(rounded(a)), frame(rounded(b))
        d = one.planes[0].astype(float) - other.planes[0]
        expected = np.mean(
            [np.corrcoef(d[1:].ravel(), d[:-1].ravel())[0, 1], np.corrcoef(d.T[1:].ravel(), d.T[:-1].ravel())[0, 1]]
        )
        assert noise_of(one, other).correlation == pytest.approx(expected, abs=0.04)


def test_the_likeness_scale_changes_steadily_with_the_correlation():
    frames = (frame(waves()), frame(waves()))
    scales = [threshold(frames, Noise(4.0, c)) for c in np.linspace(-0.1, 0.4, 51)]
    assert scales[0] == pytest.approx(4 * LIKENESS)
    assert scales[-1] == pytest.approx(4 * GRAIN_LIKENESS)
    steps = np.diff(scales)
    assert np.all(steps <= 0)
    assert steps.min() > -0.2 * 4 * (LIKENESS - GRAIN_LIKENESS)

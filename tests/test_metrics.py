import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from videosr.metrics import imresize, psnr, resize_taps, ssim, to_y


def keys(x: float) -> float:
    """Keys' kernel with a = -0.5, written out as in the paper."""
    x = abs(x)
    if x <= 1:
        return 1.5 * x**3 - 2.5 * x**2 + 1
    return -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2 if x < 2 else 0.0


def direct(line: list[int], scale: float) -> list[float]:
    """One line resized by the definition: every output sample is a normalised sum over all integers."""
    shrink = min(scale, 1.0)
    out = []
    for i in range(math.ceil(len(line) * scale - 1e-9)):
        centre = (i + 0.5) / scale - 0.5
        taps = [(k, keys(shrink * (centre - k))) for k in range(-40, len(line) + 40)]
        total = sum(w for _, w in taps)
        out.append(sum(w * line[min(max(k, 0), len(line) - 1)] for k, w in taps) / total)
    return out


@given(
    line=st.lists(st.integers(0, 255), min_size=12, max_size=30),
    scale=st.sampled_from([1 / 2, 1 / 3, 1 / 4, 2.0, 3.0, 4.0, 0.7]),
)
def test_imresize_is_the_definition(line: list[int], scale: float) -> None:
    # A line repeated to a picture: the vertical pass changes nothing, so float and rounded results can be told exactly.
    expected = np.array(direct(line, scale))
    image = np.tile(np.array(line, np.float64), (12, 1))
    assert np.abs(imresize(image, scale) - expected).max() < 1e-9
    assert np.abs(imresize(image.T, scale) - expected[:, None]).max() < 1e-9
    away_from_ties = np.abs(expected % 1 - 0.5) > 1e-6
    rounded = imresize(image.astype(np.uint8), scale)
    assert rounded.dtype == np.uint8
    assert (rounded[:, away_from_ties] == np.clip(np.rint(expected), 0, 255)[away_from_ties]).all()


def test_imresize_halves_by_its_eight_taps_and_rounds_after_each_pass() -> None:
    taps = np.array([-3, -9, 29, 111, 111, 29, -9, -3]) / 256
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (24, 20), np.uint8)
    padded = np.pad(image, 3, mode="edge").astype(np.float64)

    def to_8_bit(x: np.ndarray) -> np.ndarray:
        return np.clip(np.floor(x + 0.5), 0, 255)

    down = to_8_bit(sum(t * padded[k : k + 23 : 2] for k, t in enumerate(taps)))
    expected = to_8_bit(sum(t * down[:, k : k + 19 : 2] for k, t in enumerate(taps)))
    assert (imresize(image, 0.5) == expected).all()
    # Rounding once, at the end, would be another image.
    assert (np.rint(np.clip(imresize(image.astype(np.float64), 0.5), 0, 255)) != expected).any()


@pytest.mark.parametrize("kernel", ["bicubic", "lanczos3"])
@pytest.mark.parametrize("scale", [0.5, 1 / 3, 0.4, 2.0])
def test_imresize_keeps_flat_images_and_channels(kernel: str, scale: float) -> None:
    image = np.empty((30, 24, 3), np.uint8)
    image[:] = (0, 255, 77)
    small = imresize(image, scale, kernel)
    assert small.shape == (math.ceil(30 * scale), math.ceil(24 * scale), 3)
    assert (small == (0, 255, 77)).all()


def test_thirds_do_not_gain_a_row() -> None:
    assert imresize(np.zeros((300, 291)), 1 / 3).shape == (100, 97)


def test_taps_sum_to_one_and_stay_inside() -> None:
    indices, weights = resize_taps(17, 9, 0.5)
    assert indices.min() == 0
    assert indices.max() == 16
    assert np.abs(weights.sum(axis=0) - 1).max() < 1e-12


def test_psnr_of_known_differences() -> None:
    image = np.full((20, 20, 3), 100, np.uint8)
    assert psnr(image + np.uint8(1), image) == pytest.approx(20 * math.log10(255))
    assert psnr(image, image) == math.inf
    spoiled = image.copy()
    spoiled[0] = 0
    assert psnr(spoiled, image, border=1) == math.inf
    assert psnr(spoiled, image) < 30
    # uint8 differences must not wrap around: 5 - 250 is not 11.
    assert psnr(np.full((9, 9), 5, np.uint8), np.full((9, 9), 250, np.uint8)) == pytest.approx(
        20 * math.log10(255 / 245)
    )


def test_luma_is_bt601_studio_range() -> None:
    assert to_y(np.array([[0, 0, 0], [255, 255, 255], [255, 0, 0]])) == pytest.approx([16, 235, 81.481])


def test_ssim_of_flat_images_is_its_luminance_term() -> None:
    a, b, c1 = 100.0, 120.0, 2.55**2
    expected = (2 * a * b + c1) / (a * a + b * b + c1)
    assert ssim(np.full((20, 20), a), np.full((20, 20), b)) == pytest.approx(expected)


def test_ssim_of_contrast_is_its_structure_term() -> None:
    # Same mean, twice the deviation: far from borders 2 * 2 / (1 + 4), the constants being small against the variance.
    rng = np.random.default_rng(1)
    noise = rng.choice([-20.0, 20.0], (300, 300))
    value = ssim(128 + 2 * noise, 128 + noise)
    assert value == pytest.approx(0.8, abs=0.02)
    assert value == pytest.approx(ssim(128 + noise, 128 + 2 * noise))
    assert ssim(128 - noise, 128 + noise) < -0.8
    assert ssim(128 + noise, 128 + noise) == pytest.approx(1)


@pytest.mark.parametrize("shape", [(10, 40), (40, 40, 3)])
def test_ssim_refuses_what_it_cannot_measure(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="one channel"):
        ssim(np.zeros(shape), np.zeros(shape))


def test_comparisons_refuse_other_shapes_and_borders_that_leave_nothing() -> None:
    with pytest.raises(ValueError, match="cannot be compared"):
        psnr(np.zeros((4, 4)), np.zeros((4, 5)))
    with pytest.raises(ValueError, match="leaves nothing"):
        psnr(np.zeros((4, 4)), np.zeros((4, 4)), border=2)

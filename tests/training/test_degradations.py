"""What LR pictures suffer: each does what it says, and the same again."""

import numpy as np
import pytest
from test_data import scene

from videosr.errors import InputError
from videosr.training import degradations
from videosr.training.codec import Planes, compress, compress_jpeg
from videosr.training.config import DegradationConfig
from videosr.training.degradations import SUBSAMPLED


def clip_of(frames: int = 4, height: int = 48, width: int = 52) -> np.ndarray:
    """A picture that moves by two pixels a frame."""
    whole = scene(3, height, width + 2 * frames)
    return np.stack([whole[:, 2 * t : 2 * t + width] for t in range(frames)])


def planes_of(clip: np.ndarray) -> list[Planes]:
    return [frame.planes for frame in degradations.to_frames(clip, SUBSAMPLED)]  # type: ignore[misc]


def rms(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(a.astype(float) - b))))


def test_a_blurred_point_has_the_moments_of_its_gaussian() -> None:
    point = np.zeros((1, 41, 41, 3), np.uint8)
    point[0, 18:23, 18:23] = 255
    angle = 0.6
    blurred = degradations.blur(point, (3.0, 1.5), angle)[0, :, :, 0].astype(float)
    y, x = np.mgrid[-20:21, -20:21]
    box = (5**2 - 1) / 12  # variance of the square itself
    along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
    assert np.average(along**2, weights=blurred) - box == pytest.approx(9, rel=0.1)
    assert np.average(across**2, weights=blurred) - box == pytest.approx(2.25, rel=0.1)
    assert abs(np.average(along * across, weights=blurred)) < 0.2


def test_blur_leaves_flat_pictures_alone_at_the_rim_too() -> None:
    flat = np.full((2, 20, 30, 3), 77, np.uint8)
    assert (degradations.blur(flat, (2.0, 0.0), 1.0) == 77).all()


def test_softened_chroma_is_blurred_and_luma_is_what_it_was() -> None:
    rng = np.random.default_rng(0)
    clip = rng.integers(90, 166, (2, 40, 50, 3), dtype=np.uint8)
    weights = [0.2126, 0.7152, 0.0722]
    soft = degradations.soften_chroma(clip, 1.5)
    assert np.abs((soft.astype(float) - clip) @ weights).max() <= 1.1
    before, after = (np.std(c - (c @ weights)[..., None]) for c in (clip.astype(float), soft.astype(float)))
    assert after < before / 3
    assert degradations.soften_chroma(clip, 0.0) is clip


@pytest.mark.parametrize("gray", [False, True])
def test_noise_has_its_strength_and_is_fresh_in_every_frame(gray: bool) -> None:
    flat = np.full((3, 64, 64, 3), 128, np.uint8)
    noisy = degradations.add_noise(flat, 5.0, gray, np.random.default_rng(0)).astype(float) - 128
    assert noisy.std() == pytest.approx(5, rel=0.05)
    assert abs(np.corrcoef(noisy[0].ravel(), noisy[1].ravel())[0, 1]) < 0.05
    assert (noisy[..., 0] == noisy[..., 1]).all() == gray


def test_grain_is_soft_gray_and_strongest_in_the_mid_tones() -> None:
    levels = np.broadcast_to(np.array([10, 60, 128], np.uint8)[:, None, None, None], (3, 96, 80, 3))
    grain = degradations.add_grain(levels, 6.0, 0.8, np.random.default_rng(0)).astype(float) - levels
    strength = grain.std(axis=(1, 2, 3))
    assert strength[2] == pytest.approx(6, rel=0.05)
    assert strength[0] < strength[1] < strength[2]
    assert (grain[..., 0] == grain[..., 2]).all()
    assert np.corrcoef(grain[2, :, 1:, 0].ravel(), grain[2, :, :-1, 0].ravel())[0, 1] > 0.3


def test_jpeg_loses_more_the_coarser_it_is() -> None:
    clip = clip_of(2, 33, 47)
    errors = [rms(degradations.jpeg(clip, q), clip) for q in (2, 8, 25)]
    assert errors[0] < errors[1] < errors[2]
    assert errors[0] > 0
    assert degradations.jpeg(clip, 5).shape == clip.shape


@pytest.mark.parametrize("codec", ["h264", "hevc"])
def test_real_codecs_lose_more_at_a_higher_crf_and_always_the_same(codec: str) -> None:
    clip = planes_of(clip_of(5, 33, 47))
    results = [compress(clip, codec, crf, "ultrafast") for crf in (20, 20, 38)]  # type: ignore[arg-type]
    for planes, first, second in zip(clip, *results[:2], strict=True):
        assert all(a.shape == b.shape for a, b in zip(planes, first, strict=True))
        assert all((a == b).all() for a, b in zip(first, second, strict=True))
    low, high = (np.mean([rms(a[0], b[0]) for a, b in zip(clip, r, strict=True)]) for r in results[1:])
    assert 0 < low < high
    assert low < 6


def test_frames_come_back_in_their_order_through_reordering() -> None:
    ramp = [scene(2, 64, 64) // 2 + 20 * t for t in range(6)]
    back = compress(planes_of(np.stack(ramp)), "h264", 12, "medium")  # B-frames
    assert np.diff([planes[0].mean() for planes in back]).min() > 10


def test_what_an_encoder_refuses_is_named() -> None:
    with pytest.raises(InputError, match=r"libx264 with .*nonsense.*does not compress pictures of 128 x 128"):
        compress(planes_of(clip_of(1)), "h264", 20, "nonsense")
    assert compress_jpeg(planes_of(clip_of(1))[0], 31.0)[0].shape == (48, 52)


def test_clips_of_a_batch_are_compressed_together_and_keep_their_places() -> None:
    clips = [np.stack([scene(seed, 46, 46)] * 3) for seed in range(5)]
    config = DegradationConfig(video=1, crf=(18, 18), presets=("veryfast",))
    videos = degradations.as_video(clips, config, np.random.default_rng(1))
    for clip, frames in zip(clips, videos, strict=True):
        assert frames is not None
        assert all(frame.format == SUBSAMPLED for frame in frames)
        found = np.stack([degradations.to_pixels(frame.planes, frame.format) for frame in frames]) * 255
        only_subsampled = np.stack([degradations.to_pixels(p, SUBSAMPLED) for p in planes_of(clip)]) * 255
        assert found.shape == clip.shape
        assert 0 < rms(found[:, 4:-4, 4:-4], only_subsampled[:, 4:-4, 4:-4]) < 10


def test_shares_decide_what_becomes_video() -> None:
    clips = [clip_of(1)] * 40
    kinds = degradations.as_video(clips, DegradationConfig(chroma=0.5), np.random.default_rng(0))
    assert 10 < sum(kind is None for kind in kinds) < 30
    assert all(kind is None for kind in degradations.as_video(clips, DegradationConfig(), np.random.default_rng(0)))


def test_cutblur_is_a_rectangle_or_all_but_one() -> None:
    rng = np.random.default_rng(0)
    masks = [degradations.cutblur(24, 30, rng)[..., 0] for _ in range(30)]
    inverted = 0
    for mask in masks:
        corners = mask[[0, 0, -1, -1], [0, -1, 0, -1]]
        rectangle = ~mask if corners.sum() > 2 else mask
        inverted += corners.sum() > 2
        assert rectangle.any()
        assert (rectangle == np.outer(rectangle.any(axis=1), rectangle.any(axis=0))).all()
    assert 5 < inverted < 25

import math
from collections.abc import Iterable, Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from clips import make_clip

from videosr import color
from videosr.errors import EngineError, InputError
from videosr.evaluate.temporal import flicker, motion_error
from videosr.evaluate.video import (
    Reference,
    bicubic_video,
    compare,
    evaluate_video,
    recoded,
    shrink,
)
from videosr.evaluate.vmaf import Vmaf, available
from videosr.frame import ColorSpec, Frame, Matrix, PixelFormat, Range, Siting

SPEC = ColorSpec(matrix=Matrix.BT709, range=Range.LIMITED, siting=Siting.LEFT)


def texture(height: int, width: int, down: float = 0.0, across: float = 0.0) -> np.ndarray:
    """Soft noise, moved by any part of a pixel, mostly in 30..220; what moves in was outside before."""
    noise = np.fft.rfft2(np.random.default_rng(7).normal(size=(256, 320)))
    fy, fx = np.fft.fftfreq(256)[:, None], np.fft.rfftfreq(320)[None]
    noise *= np.exp(-20 * (fy**2 + fx**2)) * np.exp(-2j * math.pi * (fy * down + fx * across))
    moved = np.fft.irfft2(noise, s=(256, 320))
    return (125 + 40 * moved / moved.std())[32 : 32 + height, 32 : 32 + width]


def frame(luma: np.ndarray, number: int = 0, chroma: int = 128) -> Frame:
    """8-bit 4:2:0 with flat chroma."""
    planes = [np.clip(np.rint(luma), 0, 250).astype(np.uint8)]
    planes += [np.full((luma.shape[0] // 2, luma.shape[1] // 2), chroma, np.uint8) for _ in range(2)]
    fmt = PixelFormat.parse("yuv420p")
    return Frame(planes=tuple(planes), format=fmt, pts=number, time_base=Fraction(1, 25), color=SPEC)


def film(count: int, height: int = 96, width: int = 128) -> list[Frame]:
    return [frame(texture(height, width, 0.5 * n, n), n) for n in range(count)]


def ramp(fmt: PixelFormat, siting: Siting, height: int, width: int) -> Frame:
    """Every plane rises linearly over the picture, sampled where its samples sit."""
    factors = 1 << fmt.log2_w, 1 << fmt.log2_h
    across, down = color.siting_offsets(siting, *factors)
    planes = []
    for i in range(3):
        rows, columns = fmt.plane_shape(i, height, width)
        y, x = np.arange(rows)[:, None] * 1.0, np.arange(columns)[None] * 1.0
        if i:
            y, x = y * factors[1] + down, x * factors[0] + across
        planes.append(np.rint(100 + 3 * y + 5 * x).astype(fmt.dtype))
    spec = replace(SPEC, siting=siting)
    return Frame(planes=tuple(planes), format=fmt, pts=0, time_base=Fraction(1, 25), color=spec)


@pytest.mark.parametrize("scale", [2, 4])
@pytest.mark.parametrize("siting", [Siting.LEFT, Siting.CENTER, Siting.TOPLEFT, Siting.BOTTOM])
@pytest.mark.parametrize("name", ["yuv420p10le", "yuv422p10le", "yuv444p10le"])
def test_the_small_picture_has_its_chroma_where_its_siting_says(name: str, siting: Siting, scale: int) -> None:
    fmt = PixelFormat.parse(name)
    small = shrink(ramp(fmt, siting, 96, 112), scale)
    across, down = color.siting_offsets(siting, 1 << fmt.log2_w, 1 << fmt.log2_h)
    for i, plane in enumerate(small.planes):
        rows, columns = fmt.plane_shape(i, 96 // scale, 112 // scale)
        assert plane.shape == (rows, columns)
        y, x = np.arange(rows)[:, None] * 1.0, np.arange(columns)[None] * 1.0
        if i:
            y, x = y * (1 << fmt.log2_h) + down, x * (1 << fmt.log2_w) + across
        y, x = scale * (y + 0.5) - 0.5, scale * (x + 0.5) - 0.5  # the same place in the large picture
        inside = np.s_[4:-4, 4:-4] if min(rows, columns) > 12 else np.s_[3:-3, 3:-3]
        assert np.abs(plane - (100 + 3 * y + 5 * x))[inside].max() <= 1.01
    back = next(bicubic_video(scale)([small]))
    for shown, original in zip(back.planes, ramp(fmt, siting, 96, 112).planes, strict=True):
        margin = np.s_[4 * scale : -4 * scale, 4 * scale : -4 * scale]
        assert np.abs(shown.astype(int) - original)[margin].max() <= 2


def test_scores_are_those_of_the_definitions() -> None:
    originals = film(3)
    same = compare(originals, originals, clip="film", model="copy")
    assert (same.frames, same.psnr, same.psnr_y, same.ssim_y) == (3, 100, 100, pytest.approx(1))
    assert same.flicker in (0, None)
    assert same.motion == 0
    shown = [f.with_planes((f.planes[0] + np.uint8(1), f.planes[1], f.planes[2] + np.uint8(2))) for f in originals]
    scores = compare(shown, originals)
    y, cr = 20 * math.log10(255), 20 * math.log10(255 / 2)
    assert (scores.psnr_y, scores.psnr_cb, scores.psnr_cr) == pytest.approx((y, 100, cr))
    assert scores.psnr == pytest.approx((6 * y + 100 + cr) / 8)


def test_ten_bits_are_measured_on_their_own_scale() -> None:
    fmt = PixelFormat.parse("yuv420p10le")

    def deep(f: Frame, add: int) -> Frame:
        luma = f.planes[0].astype(np.uint16) * 4 + np.uint16(add * (f.pts % 2))
        return f.with_planes((luma, *(p.astype(np.uint16) * 4 for p in f.planes[1:])), fmt)

    originals = [frame(texture(96, 128), n) for n in range(4)]
    scores = compare([deep(f, 4) for f in originals], [deep(f, 0) for f in originals])
    assert scores.psnr_y == pytest.approx((100 + 20 * math.log10(1023 / 4)) / 2)
    assert scores.flicker == pytest.approx(1)  # 4 codes of 10 bits are one of 8


@pytest.mark.skipif(not available(), reason="this FFmpeg has no libvmaf")
def test_vmaf_falls_with_quality_and_neg_does_not_pay_for_contrast() -> None:
    originals = film(3, 192, 256)
    soft = [frame((f.planes[0].astype(float) + np.roll(f.planes[0], 2, 1)) / 2, f.pts) for f in originals]
    strong = [frame(125 + 1.2 * (f.planes[0].astype(float) - 125), f.pts) for f in originals]

    def vmaf(shown: list[Frame]) -> tuple[float, float]:
        with Vmaf(256, 192, originals[0].format) as measure:
            for pair in zip(shown, originals, strict=True):
                measure.add(*pair)
            return measure.result()

    same, worse, boosted = vmaf(originals), vmaf(soft), vmaf(strong)
    assert min(same) > 90
    assert worse[0] < same[0] - 20
    assert boosted[1] <= boosted[0]
    assert vmaf(originals) == same
    scores = compare(soft, originals)
    assert (scores.vmaf, scores.vmaf_neg) == worse


def test_flicker_looks_where_the_original_stands_still() -> None:
    still = np.full((40, 60), 100, np.float32)
    moving = still.copy()
    moving[:, 30:] += 50
    shown = still.copy()
    shown[:, :30] += 3
    shown[:, 30:] -= 90
    assert flicker((still, shown), (still, moving)) == pytest.approx(3)
    assert flicker((still, still), (still, still)) == 0
    assert flicker((still, still), (still, still + 5)) is None


@pytest.mark.parametrize("step", [(0.0, 0.0), (3.0, -5.0), (0.4, 0.3), (-12.3, 9.8)])
def test_motion_that_is_the_originals_is_no_error(step: tuple[float, float]) -> None:
    pair = texture(128, 160).astype(np.float32), texture(128, 160, *step).astype(np.float32)
    assert motion_error(pair, pair) == 0
    soft = tuple((p + np.roll(p, 1, 1) + np.roll(p, -1, 1)) / 3 for p in pair)
    assert motion_error((soft[0], soft[1]), pair) < 0.05


@pytest.mark.parametrize("jitter", [0.1, 0.25, 0.5])
@pytest.mark.parametrize("step", [(0.0, 0.0), (4.0, -7.0)])
def test_jitter_is_found_in_pixels(step: tuple[float, float], jitter: float) -> None:
    first = texture(128, 160).astype(np.float32)
    original = first, texture(128, 160, *step).astype(np.float32)
    shown = first, texture(128, 160, step[0], step[1] + jitter).astype(np.float32)
    assert motion_error(shown, original) == pytest.approx(jitter, rel=0.25)


def test_motion_needs_texture_and_room() -> None:
    flat = np.full((128, 128), 90, np.float32)
    assert motion_error((flat, flat), (flat, flat)) is None
    small = texture(40, 128).astype(np.float32)
    assert motion_error((small, small), (small, small)) is None
    stripes = np.tile(np.float32(128 + 60 * np.sin(np.arange(128))), (128, 1))  # nobody can tell how far they moved
    assert motion_error((stripes, stripes), (stripes, stripes)) is None


def test_compression_keeps_frames_and_costs_quality(tmp_path: Path) -> None:
    frames = film(5)
    quality = []
    for crf in (20, 40):
        read = recoded(iter(frames), crf, tmp_path / f"{crf}.mkv")
        once, again = list(read()), list(read())
        assert [f.pts for f in once] == [0, 1, 2, 3, 4]
        assert all(f.color == SPEC for f in once)
        assert all(a.same_picture(b) for a, b in zip(once, again, strict=True))
        quality.append(compare(once, frames).psnr_y)
    assert quality[1] + 3 < quality[0] < 60


def test_a_clip_is_measured_in_every_model_and_quality(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "clip.mkv", frames=6, width=262, height=138)
    reference = Reference(clip, 2, 4)
    sizes = {(f.width, f.height, f.format.name) for f in reference.frames()}
    assert sizes == {(260, 136, "yuv420p")}
    assert [f.pts for f in reference.frames()] == [f.pts for f in reference.frames()] == [0, 1, 2, 3]

    def nearest(frames: Iterable[Frame]) -> Iterator[Frame]:
        for f in frames:
            yield f.with_planes(tuple(p.repeat(2, 0).repeat(2, 1) for p in f.planes))

    rows = list(evaluate_video(reference, {"bicubic": bicubic_video(2), "nearest": nearest}, (None, 40)))
    assert [(r.clip, r.model, r.crf, r.frames) for r in rows] == [
        ("clip.mkv", "bicubic", None, 4),
        ("clip.mkv", "nearest", None, 4),
        ("clip.mkv", "bicubic", 40, 4),
        ("clip.mkv", "nearest", 40, 4),
    ]
    assert rows[0].psnr_y > rows[1].psnr_y
    assert rows[0].psnr_y > rows[2].psnr_y


def test_a_model_that_returns_other_frames_or_sizes_is_named() -> None:
    originals = film(3)
    with pytest.raises(EngineError, match="lossy returned only 2 frames"):
        compare(originals[:2], originals, model="lossy")
    with pytest.raises(EngineError, match="doubling returned more than the 2 frames there are"):
        compare(originals, originals[:2], model="doubling")
    with pytest.raises(EngineError, match=r"returned size \(64, 48\) instead of \(128, 96\)"):
        compare([shrink(f, 2) for f in originals], originals)
    with pytest.raises(EngineError, match="returned frame 1 instead of 0"):
        compare(originals[1:], originals)


def test_what_cannot_be_measured_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="too small to measure: 128 pixels"):
        Reference(make_clip(tmp_path / "small.mkv", frames=2), 2)
    gray = make_clip(tmp_path / "gray.mkv", frames=2, width=256, height=256, pix_fmt="gray", codec="ffv1")
    with pytest.raises(InputError, match=r"gray\.mkv: gray is not measured"):
        Reference(gray, 2)
    with pytest.raises(InputError, match="check the path"):
        Reference(tmp_path / "none.mkv", 2)

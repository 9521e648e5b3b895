"""Sharpening: what it computes, what it leaves alone, and that it is part of a result however that is made."""

from dataclasses import replace
from fractions import Fraction

import av
import numpy as np
import pytest

from videosr import sharpness
from videosr.errors import UsageError
from videosr.frame import FORMATS, ColorSpec, Frame, Matrix, Range, Siting
from videosr.options import UpscaleOptions
from videosr.sharpness import OVERSHOOT, sharpen
from videosr.upscaler import Upscaler

KERNELS = {1: [1, 2, 1], 2: [1, 4, 6, 4, 1], 3: [1, 2, 3, 4, 3, 2, 1], 4: [1, 2, 3, 4, 3, 2, 1]}
AMOUNT = 0.375
SPEC = ColorSpec(matrix=Matrix.BT709, range=Range.LIMITED, siting=Siting.LEFT)


def noise(name, height, width, seed=1):
    fmt = FORMATS[name]
    rng = np.random.default_rng(seed)
    shapes = [fmt.plane_shape(i, height, width) for i in range(fmt.planes)]
    return tuple(rng.integers(0, 1 << fmt.bits, shape).astype(fmt.dtype) for shape in shapes)


def by_definition(plane, bits, amount, scale):
    """Pixel by pixel, in float64."""
    weights = np.outer(KERNELS[scale], KERNELS[scale]) / sum(KERNELS[scale]) ** 2
    r = len(weights) // 2
    wide, near = np.pad(plane.astype(float), r, mode="edge"), np.pad(plane.astype(float), 1, mode="edge")
    over = OVERSHOOT * 2 ** (bits - 8)
    made = np.empty(plane.shape)
    for y, x in np.ndindex(plane.shape):
        blurred = (wide[y : y + 2 * r + 1, x : x + 2 * r + 1] * weights).sum()
        around = near[y : y + 3, x : x + 3]
        value = plane[y, x] + amount * (plane[y, x] - blurred)
        made[y, x] = min(max(value, around.min() - over), around.max() + over)
    return np.rint(np.clip(made, 0, 2**bits - 1))


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (2, 3), (23, 31)])
@pytest.mark.parametrize(("name", "scale"), [("yuv420p", 1), ("gray", 2), ("yuv420p", 3), ("yuv444p10le", 4)])
def test_luma_is_what_the_definition_says(monkeypatch, name, scale, size):
    monkeypatch.setattr(sharpness, "_BAND", 4 * size[1])  # several bands
    fmt, planes = FORMATS[name], noise(name, *size)
    made = sharpen(planes, fmt, AMOUNT, scale)
    assert np.array_equal(made[0], by_definition(planes[0], fmt.bits, AMOUNT, scale))
    assert made[0].dtype == fmt.dtype
    assert all(new is old for new, old in zip(made[1:], planes[1:], strict=True)), "chroma"


@pytest.mark.parametrize("name", ["gray16le", "yuva444p16le"])
def test_of_sixteen_bits_the_last_may_differ(name):
    """Where the exact value lies half-way: a float32 has no room for as many digits behind the point."""
    planes = noise(name, 40, 30)
    made = sharpen(planes, FORMATS[name], 0.5, 2)
    off = np.abs(made[0] - by_definition(planes[0], 16, 0.5, 2))
    assert off.max() <= 1
    assert off.mean() < 0.01
    assert all(new is old for new, old in zip(made[1:], planes[1:], strict=True))


def test_bands_leave_no_seam():
    planes = noise("yuv420p", 700, 500)
    whole = sharpen(planes, FORMATS["yuv420p"], 1.0, 2)
    assert whole[0].size > 2 * sharpness._BAND
    for top in (0, 130, 260, 400):
        part = sharpen((planes[0][top : top + 200],), FORMATS["gray"], 1.0, 2)[0]
        assert np.array_equal(part[2:-2], whole[0][top + 2 : top + 198])


@pytest.mark.parametrize("name", ["gbrp", "gbrap10le"])
def test_a_grey_picture_in_colours_is_sharpened_as_grey(name):
    fmt = FORMATS[name]
    grey, *_, alpha = noise(name, 20, 30)
    planes = (grey,) * 3 + ((alpha,) if fmt.alpha else ())
    made = sharpen(planes, fmt, AMOUNT, 2)
    for plane in made[:3]:
        assert np.array_equal(plane, by_definition(grey, fmt.bits, AMOUNT, 2))
    assert not fmt.alpha or made[3] is alpha


def test_the_colours_of_an_edge_stay():
    """The three channels move together, unless one of them is at its end."""
    planes = tuple(p // 4 + 90 for p in noise("gbrp", 20, 30))
    made = sharpen(planes, FORMATS["gbrp"], AMOUNT, 2)
    changes = [new.astype(int) - old for new, old in zip(made, planes, strict=True)]
    assert np.array_equal(changes[0], changes[1])
    assert np.array_equal(changes[0], changes[2])
    assert np.abs(changes[0]).max() > 4


@pytest.mark.parametrize("bits", [8, 12])
def test_an_edge_grows_no_halo(bits):
    fmt = FORMATS["gray" if bits == 8 else "gray12le"]
    unit = 1 << (bits - 8)
    plane = np.full((20, 40), 60 * unit, fmt.dtype)
    plane[:, 20:] = 180 * unit
    made = sharpen((plane,), fmt, 1.0, 2)[0].astype(int)
    assert (made.min(), made.max()) == ((60 - OVERSHOOT) * unit, (180 + OVERSHOOT) * unit)
    assert np.array_equal(made[:, :17], plane[:, :17]), "what is flat stays"
    assert np.array_equal(made[:, 23:], plane[:, 23:])
    white = np.where(plane > 60 * unit, (1 << bits) - 1, 0).astype(fmt.dtype)
    assert np.array_equal(sharpen((white,), fmt, 1.0, 2)[0], white), "nothing is beyond black and white"


def test_faint_noise_stays():
    """A code or two of difference is not worth raising: it would be noise, or the steps of a gradient."""
    ramp = np.repeat(np.arange(40, dtype=np.uint8), 4)[None].repeat(20, 0)
    assert np.array_equal(sharpen((ramp,), FORMATS["gray"], 0.4, 2)[0], ramp)


def frames(name="yuv420p", count=6):
    """A picture that moves with some noise, and one that is repeated."""
    rng = np.random.default_rng(3)
    fmt = FORMATS[name]
    base = np.kron(rng.integers(40, 200, (12, 20)), np.ones((6, 6)))
    made = []
    for t in range(count):
        planes = []
        for i in range(fmt.planes):
            rows, columns = fmt.plane_shape(i, 48, 64)
            step = 72 // rows
            value = base[::step, ::step][:rows, t : t + columns] if i == 0 else np.full((rows, columns), 128.0)
            planes.append(np.clip(value + rng.normal(0, 2, (rows, columns)), 0, 255).astype(np.uint8))
        made.append(Frame(planes=tuple(planes), format=fmt, pts=t, time_base=Fraction(1, 25), color=SPEC))
    return [*made, replace(made[-1], pts=count)]


def run(upscaler, given):
    return [made for frame in given for made in upscaler.process(frame)] + list(upscaler.flush())


@pytest.mark.parametrize("how", [{}, {"tta": True}, {"pix_fmt": "yuv420p10le"}, {"engine": "openvino"}], ids=str)
def test_every_way_of_making_a_frame_ends_with_it(how):
    """By planes and by tensors; a repeated picture once; in any order."""
    given = frames()
    plain = run(Upscaler(UpscaleOptions(model="light-2x", **how)), given)
    upscaler = Upscaler(UpscaleOptions(model="light-2x", sharpen=0.4, **how))
    sharp = run(upscaler, given)
    for before, after in zip(plain, sharp, strict=True):
        assert after.format == before.format
        expected = sharpen(before.planes, before.format, 0.4, 2)
        assert not np.array_equal(expected[0], before.planes[0])
        assert all(map(np.array_equal, after.planes, expected))
    assert upscaler.reused == 1
    assert sharp[-1].planes[0] is sharp[-2].planes[0]
    again = upscaler.picture(given[:4])
    assert all(map(np.array_equal, again.planes, sharp[3].planes))


def test_it_is_part_of_what_the_bits_depend_on():
    upscalers = [Upscaler(UpscaleOptions(model="light-2x", sharpen=amount)) for amount in (0.0, 0.4, 0.5)]
    assert len({upscaler.identity for upscaler in upscalers}) == 3


@pytest.mark.parametrize("amount", [-0.1, 1.1, float("nan")])
def test_amounts_out_of_range_are_refused(amount):
    with pytest.raises(UsageError, match=r"sharpen .* is not between 0 and 1"):
        UpscaleOptions(sharpen=amount)


def test_a_file_is_sharpened(tmp_path, videosr):
    """Its luma; the rest is as without."""
    pictures = {}
    for amount in ("0", "0.5"):
        out = tmp_path / f"{amount}.mkv"
        given = ("--frames", 3, "--codec", "ffv1", "--model", "light-2x-video", "--sharpen", amount)
        done = videosr("upscale", "samples/bunny.mp4", out, *given)
        assert done.code == 0, done.err
        with av.open(str(out)) as container:
            pictures[amount] = [f.to_ndarray() for f in container.decode(video=0)]
    for plain, sharp in zip(*pictures.values(), strict=True):
        rows = 2 * plain.shape[0] // 3
        assert np.array_equal(plain[rows:], sharp[rows:])
        expected = sharpen((plain[:rows],), FORMATS["gray"], 0.5, 2)[0]
        assert np.array_equal(sharp[:rows], expected)


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["yuv420p", "yuv420p10le", "gbrp"])
def test_a_gpu_gives_the_same_bits(name):
    import cupy

    planes = noise(name, 90, 70)
    made = sharpen(tuple(map(cupy.asarray, planes)), FORMATS[name], 0.4, 2)
    assert all(isinstance(plane, cupy.ndarray) for plane in made)
    expected = sharpen(planes, FORMATS[name], 0.4, 2)
    assert all(np.array_equal(got.get(), want) for got, want in zip(made, expected, strict=True))

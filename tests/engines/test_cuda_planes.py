"""The kernels of the frame path, compiled for the host, against color.py and temporal.py; and for GPUs, by NVRTC.

A plane lies in a larger array whose other samples are there to be seen if they are read, or missed if they are written.
"""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from itertools import product

import cuda_host
import numpy as np
import pytest
from hostdevice import HostDevice
from nvrtc import ARCHITECTURES, compiled

from videosr import color, temporal
from videosr.engines.base import Picture
from videosr.engines.cuda_planes import OPTIONS, SOURCE, PlaneKernels
from videosr.engines.gpu_device import Kernels
from videosr.errors import EngineError
from videosr.frame import ColorSpec, Frame, Matrix, PixelFormat, Range, Siting

on_host = pytest.mark.skipif(not cuda_host.COMPILER, reason="g++ is not installed: kernels cannot run on the host")

# (source, result, types of tensors, chroma apart): each is compiled once; what else differs is told at run time.
KINDS = [
    ("yuv420p", "yuv420p", ("float32", "float32"), True),
    ("yuv420p", "yuv420p", ("float16", "float16"), False),
    ("yuv420p10le", "yuv420p10le", ("float16", "float32"), True),
    ("yuv422p12le", "yuv420p", ("float32", "float16"), False),
    ("yuv444p16le", "yuv422p16le", ("float32", "float32"), False),
    ("yuv440p", "yuv444p10le", ("float32", "float32"), True),
    ("yuv411p", "yuv410p", ("float32", "float32"), False),
    ("gbrp10le", "yuv444p", ("float32", "float32"), False),
    ("gray", "gray16le", ("float32", "float32"), False),
    ("yuva420p", "gbrp", ("float32", "float32"), False),
]
SIZES = [(37, 75), (1, 1), (2, 66), (34, 3)]
DENOISE = np.float32(0.25)


def name_of(kind):
    source, target, tensors, apart = kind
    return f"{source}-{target}-{'-'.join(tensors)}{'-apart' * apart}"


def spec(fmt, matrix, range, siting):
    return ColorSpec(matrix=Matrix.RGB if fmt.family == "rgb" else matrix, range=range, siting=siting)


def framed(shape, dtype, step=1, seed=0):
    """A plane in an array of noise: ((rows, columns) of it, the array, a copy of that)."""
    rows, columns = shape
    rng = np.random.default_rng(seed)
    whole = rng.integers(0, np.iinfo(dtype).max, (rows + 4, 8 + columns * step + 5)).astype(dtype)
    return whole[2 : 2 + rows, 8 : 8 + columns * step : step], whole, whole.copy()


def random_frame(fmt, height, width, seed):
    """Random planes with the extreme codes in them, in arrays with wider rows."""
    rng = np.random.default_rng(seed)
    planes = []
    for i in range(fmt.planes):
        plane, *_ = framed(fmt.plane_shape(i, height, width), fmt.dtype, seed=seed + i)
        plane[...] = rng.choice([0, (1 << fmt.bits) - 1, -1, -1, -1, -1], plane.shape)
        plane[...] = np.where(plane == fmt.dtype.type(-1 % (1 << 8 * fmt.dtype.itemsize)), 0, plane)
        noise = rng.integers(0, 1 << fmt.bits, plane.shape)
        plane[...] = np.where(rng.random(plane.shape) < 0.9, noise, plane)
        planes.append(plane)
    return tuple(planes)


def window_of(fmt, height, width, count, seed=0):
    """A frame and others that are like it here and there, newest first."""
    rng = np.random.default_rng(seed)
    frames = [random_frame(fmt, height, width, seed)]
    colors = fmt.planes - fmt.alpha
    for _ in range(count - 1):
        planes = []
        for plane in frames[0][:colors]:
            change = rng.integers(-9, 10, plane.shape) << (fmt.bits - 8)
            change[rng.random(plane.shape) < 0.02] *= 30
            planes.append(np.clip(plane.astype(int) + change, 0, (1 << fmt.bits) - 1).astype(fmt.dtype))
        frames.append(tuple(planes))
    return frames


def pictures(kind, size, *colours):
    source, target = (PixelFormat.parse(name) for name in kind[:2])
    one, other = (spec(fmt, *c) for fmt, c in zip((source, target), colours, strict=True))
    height, width = size
    return (
        Picture(height=height, width=width, format=source, color=one),
        Picture(height=2 * height, width=2 * width, format=target, color=other),
    )


LEFT = (Matrix.BT709, Range.LIMITED, Siting.LEFT)
COLOURS = [
    LEFT,
    (Matrix.SMPTE170M, Range.FULL, Siting.CENTER),
    (Matrix.BT2020_NCL, Range.LIMITED, Siting.TOPLEFT),
    (Matrix.YCGCO, Range.FULL, Siting.BOTTOM),
    (Matrix.FCC, Range.LIMITED, Siting.TOP),
    (Matrix.SMPTE240M, Range.FULL, Siting.BOTTOMLEFT),
]


def kernels(kind, source, target, order=0, **options):
    """`order` is that of the threads: as they are numbered, backwards, or by lot."""
    return PlaneKernels(HostDevice(order), source, target, tensors=kind[2], apart=kind[3], denoise=DENOISE, **options)


def moved(frame, average):
    return tuple(f + DENOISE * (a - f) for f, a in zip(frame, average, strict=False))


@on_host
@pytest.mark.parametrize("kind", KINDS, ids=name_of)
def test_planes_become_the_tensors_of_color(kind):
    """To the bit, in float32; and rounded once to float16. The tensors are larger: the last row and column go on."""
    dtype = np.dtype(kind[2][0])
    for seed, (size, colour) in enumerate(product(SIZES, COLOURS)):
        source, target = pictures(kind, size, colour, LEFT)
        frame = random_frame(source.format, *size, seed)
        rgb = color.to_rgb(frame, source.format, source.color)
        for extra, count in (((0, 0), 1), ((5, 3), 2)):
            tensors = [np.full((1, 3, size[0] + extra[0], size[1] + extra[1]), 7, dtype) for _ in range(count)]
            kernels(kind, source, target, seed % 3).to_tensors(frame, tensors)
            wanted = np.pad(rgb, ((0, 0), (0, extra[0]), (0, extra[1])), mode="edge").astype(dtype)
            for tensor in tensors:
                assert np.array_equal(tensor[0], wanted)


@on_host
@pytest.mark.parametrize("kind", KINDS, ids=name_of)
@pytest.mark.parametrize("count", [2, temporal.DEPTH])
def test_windows_are_averaged_as_temporal_does(kind, count):
    """To 1e-6 of full scale: the exponential is another one. Then both tensors have the bits of color."""
    dtype = np.dtype(kind[2][0])
    for seed, size in enumerate(SIZES):
        source, target = pictures(kind, size, COLOURS[seed], LEFT)
        fmt = source.format
        frames = window_of(fmt, *size, count, seed)
        average = [np.full(plane.shape, 7, np.float32) for plane in frames[1]]
        made, threshold = kernels(kind, source, target, seed), 7.5 * 2 ** (fmt.bits - 8)
        made.average(frames, threshold, average)
        held = [Frame(planes=planes, format=fmt, pts=0, time_base=Fraction(1)) for planes in frames]
        wanted = temporal.average(held, temporal.Mode.ADAPTIVE, threshold)
        for got, plane in zip(average, wanted, strict=True):
            assert np.abs(got - plane).max() <= 1e-6 * 2**fmt.bits
        assert size == (1, 1) or any(np.abs(a - p).max() > 1 for a, p in zip(average, frames[0], strict=False))
        tensors = [np.full((1, 3, size[0] + 1, size[1] + 2), 7, dtype) for _ in range(2)]
        made.to_tensors(frames[0], tensors, average)
        for tensor, planes in zip(tensors, (moved(frames[0], average), average), strict=True):
            rgb = color.to_rgb(tuple(planes), fmt, source.color)
            assert np.array_equal(tensor[0], np.pad(rgb, ((0, 0), (0, 1), (0, 2)), mode="edge").astype(dtype))
        alone = np.full_like(tensors[0], 7)
        made.to_tensors(frames[0], [alone], average)  # a network without a detail path
        assert np.array_equal(alone, tensors[0])


def picture_of(size, dtype, seed):
    """What a network may give: values inside and outside [0, 1], and all there is between."""
    rng = np.random.default_rng(seed)
    smooth = np.linspace(-0.1, 1.1, 3 * size[0] * size[1]).reshape(1, 3, *size)
    return np.where(rng.random((1, 3, *size)) < 0.5, smooth, rng.normal(0.5, 0.6, (1, 3, *size))).astype(dtype)


@on_host
@pytest.mark.parametrize("kind", KINDS, ids=name_of)
@pytest.mark.parametrize("dither", [False, True])
def test_tensors_become_the_planes_of_color(kind, dither):
    """Every code, for every siting, and nothing beside them."""
    for seed, (size, colour) in enumerate(product(SIZES, COLOURS)):
        source, target = pictures(kind, size, COLOURS[seed % 2], colour)
        fmt, rows, columns = target.format, target.height, target.width
        tensor = picture_of((rows + 3, columns + seed % 3), kind[2][1], seed)
        frame = random_frame(source.format, *size, seed)
        average = [plane + np.float32(0.375) for plane in frame]
        rgb = tensor[0, :, :rows, :columns].astype(np.float32)
        for window in (None, average) if kind[3] else (None,):
            chroma = (moved(frame, window) if window else frame, source.format, source.color) if kind[3] else None
            wanted = color.from_rgb(rgb, fmt, target.color, dither=dither, chroma=chroma)
            places = [framed(plane.shape, fmt.dtype, seed=seed) for plane in wanted]
            finite = np.full(1, 1, np.uint8)
            planes = [plane for plane, *_ in places]
            kernels(kind, source, target, dither=dither).to_planes(tensor, planes, finite, frame, window)
            assert finite[0] == 1
            for (got, whole, before), plane in zip(places, wanted, strict=True):
                assert np.array_equal(got, plane)
                got[...] = before[2 : 2 + plane.shape[0], 8 : 8 + plane.shape[1]]
                assert np.array_equal(whole, before)


@on_host
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_value_that_is_not_finite_is_told_wherever_it_is(value):
    kind = KINDS[1]
    source, target = pictures(kind, (9, 7), LEFT, LEFT)
    fmt = target.format
    for y, x in ((0, 0), (17, 13), (9, 4), (18, 0), (0, 14)):
        tensor = np.zeros((1, 3, 20, 16), np.float16)
        tensor[0, y % 3, y, x] = value
        planes = [np.zeros(fmt.plane_shape(i, 18, 14), fmt.dtype) for i in range(3)]
        finite = np.full(1, 1, np.uint8)
        kernels(kind, source, target).to_planes(tensor, planes, finite)
        assert finite[0] == (y >= 18 or x >= 14)  # outside the picture nothing counts


@on_host
@pytest.mark.parametrize("kind", [KINDS[0], KINDS[2], KINDS[4]], ids=["8 bit", "10 bit", "16 bit"])
def test_planes_whose_samples_lie_apart_are_read_and_written_in_place(kind):
    size = (22, 31)
    source, target = pictures(kind, size, LEFT, COLOURS[2])
    fmt = source.format

    def surface(picture, planes=None):
        """One array of rows that are longer than the picture, luma above chroma with Cb and Cr in turn."""
        form = picture.format
        (rows, columns), (chroma_rows, chroma_columns) = (
            form.plane_shape(i, picture.height, picture.width) for i in (0, 1)
        )
        whole = np.full((rows + chroma_rows + 2, -(-2 * chroma_columns // 64) * 64), 0xA5, form.dtype)
        chroma = whole[rows + 2 :, : 2 * chroma_columns]
        views = whole[:rows, :columns], chroma[:, 0::2], chroma[:, 1::2]
        for view, plane in zip(views, planes or (), strict=False):
            view[...] = plane
        return views, whole

    frames = window_of(fmt, *size, 3)
    surfaces = [surface(source, frame)[0] for frame in frames]
    made = kernels(kind, source, target)
    results = []
    for window in (frames, surfaces):
        average = [np.zeros(plane.shape, np.float32) for plane in frames[0]]
        tensors = [np.zeros((1, 3, *size), kind[2][0]) for _ in range(3)]
        made.average(window, 8.0, average)
        made.to_tensors(window[0], tensors[:1])
        made.to_tensors(window[0], tensors[1:], average)
        results.append([*average, *tensors])
    assert all(np.array_equal(a, b) for a, b in zip(*results, strict=True))

    tensor = picture_of((target.height, target.width), kind[2][1], 1)
    form, finite = target.format, np.full(1, 1, np.uint8)
    planes = [np.zeros(form.plane_shape(i, target.height, target.width), form.dtype) for i in range(3)]
    made.to_planes(tensor, planes, finite, frames[0])
    views, whole = surface(target)
    made.to_planes(tensor, views, finite, surfaces[0])
    for view, plane in zip(views, planes, strict=True):
        assert np.array_equal(view, plane)
        view[...] = 0xA5
    assert (whole == form.dtype.type(0xA5)).all()


@on_host
@pytest.mark.parametrize("scale", [3, 4])
def test_chroma_apart_follows_any_scale(scale):
    kind = KINDS[0]
    for colour, other in ((LEFT, COLOURS[2]), (COLOURS[1], LEFT)):
        source, target = pictures(kind, (13, 18), colour, other)
        target = replace(target, height=13 * scale, width=18 * scale)
        frame = random_frame(source.format, 13, 18, scale)
        tensor = picture_of((target.height, target.width), "float32", scale)
        chroma = (frame, source.format, source.color)
        wanted = color.from_rgb(tensor[0], target.format, target.color, dither=False, chroma=chroma)
        planes = [np.zeros(plane.shape, plane.dtype) for plane in wanted]
        kernels(kind, source, target).to_planes(tensor, planes, np.ones(1, np.uint8), frame)
        for got, plane in zip(planes, wanted, strict=True):
            assert np.abs(got.astype(int) - plane).max() <= 1
            assert (got == plane).mean() > 0.999


class Recorded(Kernels):
    """Keeps what is launched."""

    def __init__(self):
        self.launches = []

    def launch(self, name, grid, block, args, shared=0):
        self.launches.append((name, grid, block))


def test_more_phases_than_there_is_room_for_are_refused():
    device = HostDevice()
    device.kernels = lambda *_: Recorded()
    source, target = pictures(KINDS[6], (8, 8), LEFT, LEFT)
    target = replace(target, height=72, width=72, format=PixelFormat.parse("yuv444p"))
    with pytest.raises(EngineError, match="phases"):
        PlaneKernels(device, source, target, apart=True)


def macros(kind):
    """With which a kind is compiled."""
    device, seen = HostDevice(), []
    device.kernels = lambda source, defines, options: seen.append((source, defines, options)) or Recorded()
    PlaneKernels(device, *pictures(kind, (8, 8), LEFT, LEFT), tensors=kind[2], apart=kind[3])
    ((source, defines, options),) = seen
    assert (source, options) == (SOURCE, OPTIONS)
    return defines


@pytest.mark.parametrize(
    ("kind", "architecture"),
    [
        *((KINDS[1], a) for a in ARCHITECTURES),
        *((KINDS[i], ARCHITECTURES[i % 7]) for i in (0, 4, 5, 9)),
    ],
    ids=lambda x: name_of(x) if isinstance(x, tuple) else f"sm{x}",
)
def test_kernels_compile_for_gpus_and_spill_nothing(kind, architecture):
    log = compiled(SOURCE, macros(kind), architecture, OPTIONS)
    assert set(log) == {"to_tensors", "window_to_tensors", "average_window", "to_planes", "window_to_planes"}
    assert all(facts.stack == 0 and facts.spilled == 0 and facts.registers <= 128 for facts in log.values()), log


@pytest.mark.gpu
@pytest.mark.parametrize("kind", KINDS, ids=name_of)
def test_on_the_gpu(kind):
    """What runs on the host above, in rows that are longer than the picture."""
    import cupy

    from videosr.engines.gpu_cupy import CupyDevice

    def there(plane):
        whole = cupy.full((plane.shape[0], plane.shape[1] + 13), 99, plane.dtype)
        whole[:, : plane.shape[1]] = cupy.asarray(np.ascontiguousarray(plane))
        return whole[:, : plane.shape[1]]

    size = (370, 755)
    source, target = pictures(kind, size, LEFT, COLOURS[2])
    fmt, made = source.format, PlaneKernels(CupyDevice(), source, target, tensors=kind[2], apart=kind[3])
    frames = window_of(fmt, *size, temporal.DEPTH)
    planes, threshold = [tuple(map(there, frame)) for frame in frames], 7.5 * 2 ** (fmt.bits - 8)
    tensors = [cupy.full((1, 3, size[0] + 2, size[1] + 1), 7, kind[2][0]) for _ in range(2)]
    rgb = color.to_rgb(frames[0], fmt, source.color)
    made.to_tensors(planes[0], tensors)
    for tensor in tensors:
        wanted = np.pad(rgb, ((0, 0), (0, 2), (0, 1)), mode="edge").astype(kind[2][0])
        assert np.array_equal(tensor[0].get(), wanted)
    average = [cupy.empty(plane.shape, "float32") for plane in frames[1]]
    made.average(planes, threshold, average)
    held = [Frame(planes=frame, format=fmt, pts=0, time_base=Fraction(1)) for frame in frames]
    for got, plane in zip(average, temporal.average(held, temporal.Mode.ADAPTIVE, threshold), strict=True):
        assert np.abs(got.get() - plane).max() <= 1e-6 * 2**fmt.bits
    made.to_tensors(planes[0], tensors, average)
    rgb = color.to_rgb(tuple(plane.get() for plane in average), fmt, source.color)
    assert np.array_equal(tensors[1][0, :, : size[0], : size[1]].get(), rgb.astype(kind[2][0]))
    tensor, finite = picture_of((target.height, target.width), kind[2][1], 1), cupy.ones(1, "uint8")
    chroma = (frames[0], fmt, source.color) if kind[3] else None
    wanted = color.from_rgb(tensor[0].astype(np.float32), target.format, target.color, dither=False, chroma=chroma)
    results = [there(np.zeros_like(plane)) for plane in wanted]
    made.to_planes(cupy.asarray(tensor), results, finite, planes[0])
    assert finite.get()[0] == 1
    for got, plane in zip(results, wanted, strict=True):
        assert np.array_equal(got.get(), plane)

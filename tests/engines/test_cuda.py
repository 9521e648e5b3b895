"""The kernel of the realtime network: compiled by NVRTC for GPUs that need not be there, and run on the host.

What it makes is compared with float32 in OpenVINO, as the project's aims have it: 55 dB, and one code of 8 bits for
99.9 % of the samples. Pictures are noise, which is harder than any film.
"""

from __future__ import annotations

import shutil
import sys
from fractions import Fraction
from functools import cache
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import networks  # noqa: E402
from clips import picture  # noqa: E402
from cuda_host import COMPILER, HostModule  # noqa: E402
from hostdevice import HostDevice, on_device  # noqa: E402
from nvrtc import ARCHITECTURES, compiled  # noqa: E402

from videosr import color, temporal  # noqa: E402
from videosr.archs import checkpoint  # noqa: E402
from videosr.archs.paragonsr2 import ParagonSR2  # noqa: E402
from videosr.engines import Interface, Picture, cuda, load  # noqa: E402
from videosr.engines.cuda import CudaEngine  # noqa: E402
from videosr.engines.cuda_realtime import SOURCE, Shape, macros, shape_for  # noqa: E402
from videosr.engines.cuda_weights import _constants, pack, read  # noqa: E402
from videosr.engines.gpu_device import Gpu  # noqa: E402
from videosr.engines.gpu_execution import Execution  # noqa: E402
from videosr.engines.network import Network  # noqa: E402
from videosr.errors import EngineError, MissingExtraError, NetworkError, UsageError  # noqa: E402
from videosr.export import export  # noqa: E402
from videosr.frame import ColorSpec, Frame, Matrix, PixelFormat, Range, Siting  # noqa: E402
from videosr.models import registry  # noqa: E402
from videosr.options import UpscaleOptions  # noqa: E402
from videosr.upscaler import Upscaler  # noqa: E402

on_host = pytest.mark.skipif(not COMPILER, reason="g++ is not installed")
FOLDER = Path(cuda.__file__).parent / "kernels"
WEIGHTS = {scale: read(Network.open(registry.find(f"realtime-{scale}x"))).parts[0].size for scale in (2, 4)}
VIDEO = ColorSpec(matrix=Matrix.BT709, range=Range.LIMITED, siting=Siting.LEFT)
TURING = Gpu("Stand-in 2000", (7, 5), "580", 6 << 30)  # strips of 36 columns, the smallest


def stand_in(multiprocessors=12, **options):
    device = HostDevice(gpu=TURING, **options)
    device.multiprocessors = multiprocessors
    return device


@cache
def engine_of(path):
    return CudaEngine(Network.open(path), device=stand_in())


@cache
def reference_of(path):
    return load(path, "openvino", precision="f32", threads=1)


def noise(*shape, seed=0):
    return np.random.default_rng(seed).random(shape).astype(np.float32)


def assert_close(made, wanted, least=55.0):
    assert made.shape == wanted.shape
    assert made.dtype == np.float32
    psnr = -10 * np.log10(np.mean((made.astype(np.float64) - wanted) ** 2))
    codes = [np.rint(255 * np.clip(picture, 0, 1)) for picture in (made, wanted)]
    assert psnr >= least
    assert (np.abs(codes[0] - codes[1]) <= 1).mean() >= 0.999


@pytest.fixture(scope="module")
def random_4x(tmp_path_factory):
    return networks.Paragon(tmp_path_factory.mktemp("networks"), scale=4).deploy


# For GPUs


@pytest.mark.parametrize(
    ("architecture", "scale", "output"),
    [*((architecture, 2, "float32") for architecture in ARCHITECTURES), (86, 4, "float32"), (90, 4, "float16")],
)
def test_it_compiles_for_every_gpu_and_keeps_all_in_registers(architecture, scale, output, record_property):
    shape = shape_for(divmod(architecture, 10), WEIGHTS[scale])
    facts = compiled(SOURCE, macros(scale, output, shape), architecture, [f"-I{FOLDER}"])["realtime"]
    record_property("registers", facts.registers)
    record_property("shared", shape.shared)
    print(f"sm_{architecture} {scale}x: {facts.registers} registers, {shape.shared} bytes of shared memory, {shape}")
    assert (facts.stack, facts.spilled) == (0, 0)
    # Registers are given to warps by 8 a thread, 16384 to each quarter of a multiprocessor.
    warps = -(-shape.tiles * shape.blocks // 4)
    assert warps * 32 * -(-facts.registers // 8) * 8 <= 16384


MOST = {(7, 5): (64, 64), (8, 0): (163, 164), (8, 6): (99, 100), (8, 7): (163, 164), (8, 9): (99, 100)}
MOST |= {(9, 0): (227, 228), (10, 0): (227, 228), (10, 3): (227, 228), (12, 0): (99, 100), (12, 1): (99, 100)}
"""KiB of shared memory that a block can have, and of a multiprocessor (CUDA C++ Programming Guide)."""


@pytest.mark.parametrize(("capability", "most"), MOST.items())
@pytest.mark.parametrize("scale", [2, 4])
def test_blocks_fit_a_multiprocessor(capability, most, scale):
    shape = shape_for(capability, WEIGHTS[scale])
    assert shape.shared <= most[0] << 10
    assert shape.blocks * (shape.shared + (1024 if capability >= (8, 0) else 0)) <= most[1] << 10
    assert shape.columns >= 36


@pytest.mark.parametrize("multiprocessors", [1, 16, 132])
@pytest.mark.parametrize("size", [(1, 1), (49, 73), (1080, 1920), (2160, 3840)])
def test_strips_cover_the_picture_in_one_go(size, multiprocessors):
    shape = shape_for((9, 0), WEIGHTS[2])
    strip = shape.strip(*size, multiprocessors)
    assert strip % 2 == 0
    across, down = -(-size[1] // shape.columns), -(-size[0] // strip)
    assert down == 1 or across * down <= multiprocessors * shape.blocks
    assert strip >= 24  # what lies above a strip is computed for it: 12 rows


# What it computes


@on_host
@pytest.mark.parametrize("size", [(1, 1), (2, 37), (24, 36), (49, 73), (25, 35)])
def test_odd_sizes_and_the_borders_of_strips(paragon, size):
    """73 columns are two strips and one column; 49 rows are two strips and one row."""
    frame, average = noise(1, 3, *size), noise(1, 3, *size, seed=1)
    assert_close(engine_of(paragon.deploy).run(frame, average), reference_of(paragon.deploy).run(frame, average))


@on_host
@pytest.mark.parametrize("name", ["realtime-2x", "realtime-2x-video", "realtime-4x"])
def test_shipped_networks(name):
    path = registry.find(name)
    frame = noise(1, 3, 21, 40)
    average = np.clip(frame + 0.05 * noise(1, 3, 21, 40, seed=1), 0, 1)
    assert_close(engine_of(path).run(frame, average), reference_of(path).run(frame, average), 64)
    y, x = np.mgrid[:21, :40]
    smooth = (0.5 + 0.4 * np.sin(x / 9) * np.cos(y / 7)).astype(np.float32)[None, None].repeat(3, axis=1)
    assert_close(engine_of(path).run(smooth), reference_of(path).run(smooth), 72)


@on_host
def test_four_times_with_random_weights(random_4x):
    frame = noise(1, 3, 9, 38)
    assert_close(engine_of(random_4x).run(frame), reference_of(random_4x).run(frame))


@pytest.fixture
def untested(paragon, monkeypatch):
    """Engines made from now on skip the self-test and the runs before the first picture, which take their time here."""
    engine_of(paragon.deploy)
    monkeypatch.setattr(CudaEngine, "_test", lambda self: None)
    monkeypatch.setattr(Execution, "_warm_up", lambda self: None)


@on_host
def test_half_precision_files_run(paragon, untested):
    frame = noise(1, 3, 12, 17)
    assert_close(
        CudaEngine(Network.open(paragon.half), device=stand_in()).run(frame), reference_of(paragon.deploy).run(frame)
    )


@on_host
def test_the_picture_itself_does_not_go_through_half_precision():
    """Two pictures that are one in float16 come out as different as they are, the detail path held."""
    engine = engine_of(registry.find("realtime-2x"))
    frame, average = np.full((1, 3, 9, 12), 0.7, np.float32), noise(1, 3, 9, 12)
    moved = frame + np.float32(1e-5)
    assert np.array_equal(frame.astype(np.float16), moved.astype(np.float16))
    difference = engine.run(moved, average) - engine.run(frame, average)
    assert np.abs(difference - 1e-5).max() < 5e-7


@on_host
def test_how_the_picture_is_cut_changes_no_bit(paragon, untested):
    frame = noise(1, 3, 49, 73)
    whole = CudaEngine(Network.open(paragon.deploy), device=stand_in(1)).run(frame)
    assert np.array_equal(engine_of(paragon.deploy).run(frame), whole)


@on_host
def test_weights_in_shared_memory_change_no_bit(paragon, untested):
    frame, hopper = noise(1, 3, 26, 166), HostDevice(gpu=Gpu("Stand-in 100", (9, 0), "580", 80 << 30))
    there = CudaEngine(Network.open(paragon.deploy), device=hopper).run(frame)
    assert np.array_equal(engine_of(paragon.deploy).run(frame), there)


@on_host
def test_a_batch_is_its_pictures_one_by_one_whatever_the_device_does_first(paragon, untested):
    frames, averages = noise(5, 3, 6, 9), noise(5, 3, 6, 9, seed=1)
    together = engine_of(paragon.deploy).run(frames, averages)
    for seed in range(3):
        engine = CudaEngine(Network.open(paragon.deploy), device=stand_in(seed=seed))
        assert np.array_equal(engine.run(frames, averages), together)
    on_gpu = engine_of(paragon.deploy).run(on_device(frames), on_device(averages))
    assert np.array_equal(np.array(on_gpu), together)


@on_host
def test_every_barrier_is_needed(paragon, tmp_path):
    """In whatever order threads run the result is the same, and without any one of the barriers it is not."""
    source = (FOLDER / SOURCE).read_text()
    parts = source.split("__syncthreads();")
    assert len(parts) == 5
    # The strip's length tells which barrier is left out; any of these lengths covers the picture.
    for i in range(4):
        parts[i] += f"if (strip != {20 + 2 * i}) __syncthreads();"
    path = tmp_path / "realtime.cu"
    path.write_text("".join(parts))
    shutil.copy(FOLDER / "features.cuh", tmp_path)
    shape = Shape(3, 1, WEIGHTS[2])
    module = HostModule(path, macros(2, "float32", shape))
    packed, frame = read(Network.open(paragon.deploy)), noise(3, 8, 36)

    def run(strip, order):
        made = np.zeros((3, 16, 72), np.float32)
        arguments = [frame, frame, made, *packed.parts[0], 8, 36, strip]
        module.launch("realtime", 1, 32 * shape.tiles, arguments, shape.shared, order)
        return made

    wanted = run(18, 0)
    assert all(np.array_equal(run(18, order), wanted) for order in (1, 2, 3))
    for strip in (20, 22, 24, 26):
        assert any(not np.array_equal(run(strip, order), wanted) for order in (1, 2, 3))


# Video planes


@on_host
@pytest.mark.parametrize(("format", "net"), [("yuv420p", "luma"), ("yuv420p10le", "deploy")])
def test_planes_are_those_of_the_long_way(paragon, format, net):
    """As `color.to_rgb`, `temporal.average`, `Engine.run` and `color.from_rgb` one after the other, to one code."""
    fmt = PixelFormat.parse(format)
    source = Picture(height=22, width=30, format=fmt, color=VIDEO)
    target = Picture(height=44, width=60, format=fmt, color=VIDEO)
    rng = np.random.default_rng(0)
    shapes = [fmt.plane_shape(i, 22, 30) for i in range(3)]
    frames = [tuple(rng.integers(0, 1 << fmt.bits, s).astype(fmt.dtype) for s in shapes) for _ in range(3)]
    engine = engine_of(getattr(paragon, net))
    runner = engine.planar(source, target, 3)
    apart = net == "luma"
    windows = [([frames[0]], 0.0), (frames[1::-1], 6.0), (frames[::-1], 9.0)]
    tickets = [runner.submit(window, threshold) for window, threshold in windows]
    for (window, threshold), ticket in zip(windows, tickets, strict=True):
        rgb, average = color.to_rgb(window[0], fmt, VIDEO)[None], None
        if threshold:
            held = [Frame(planes=w, format=fmt, pts=0, time_base=Fraction(1)) for w in window]
            average = color.to_rgb(temporal.average(held, temporal.Mode.ADAPTIVE, threshold), fmt, VIDEO)[None]
        out = engine.run(rgb, average)[0]
        wanted = color.from_rgb(out, fmt, VIDEO, dither=False, chroma=(window[0], fmt, VIDEO) if apart else None)
        for got, plane in zip(runner.result(ticket), wanted, strict=True):
            assert got.dtype == plane.dtype
            assert np.abs(got.astype(int) - plane.astype(int)).max() <= 1


@on_host
def test_films_go_through_it():
    """Sent through the upscaler, temporal window and all: the frames of the CPU, to one code."""
    fmt, path, films = PixelFormat.parse("yuv420p"), registry.find("realtime-2x-video"), []
    for engine in (engine_of(path), reference_of(path)):
        upscaler, made = Upscaler(UpscaleOptions(), engine), []
        for i in range(4):
            luma, *chroma = picture(i, fmt, 24, 32, noise=2)
            planes = luma, *(plane // 8 + 112 for plane in chroma)  # colours there are: what is beyond is clamped
            made += upscaler.process(Frame(planes=planes, format=fmt, color=VIDEO, pts=i, time_base=Fraction(1, 25)))
        films.append([*made, *upscaler.flush()])
    assert [frame.pts for frame in films[0]] == [0, 1, 2, 3]
    for got, wanted in zip(*films, strict=True):
        for plane, other in zip(got.planes, wanted.planes, strict=True):
            assert np.abs(plane.astype(int) - other.astype(int)).max() <= 1


# What it refuses


def test_what_it_is(paragon):
    if not COMPILER:
        pytest.skip("g++ is not installed")
    engine = engine_of(paragon.deploy)
    assert (engine.scale, engine.interface, engine.precision) == (2, Interface.AVERAGE, "f16")
    assert engine.identity.startswith("cuda ")
    assert engine.network.sha256 in engine.identity
    assert "Stand-in 2000" in engine.identity
    with pytest.raises(EngineError, match="no steps"):
        engine.step(noise(1, 3, 8, 8), reset=True)


def variant(folder, name, scale=2, **options):
    model = ParagonSR2(name, scale, **options)
    weights = folder / "weights.safetensors"
    checkpoint.save(weights, model, name=name, training="none: random weights", license="MIT")
    export(weights, folder / "net.onnx", **({"alpha": options["upsampler_alpha"]} if options else {}))
    return folder / "net.onnx"


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda paragon, folder: paragon.image, "not in the deployment form"),
        (lambda paragon, folder: paragon.video, "not in the deployment form"),
        (lambda paragon, folder: paragon.zero_padded, "pads with zeros"),
        (lambda paragon, folder: variant(folder, "light"), "is the light network"),
        (lambda paragon, folder: variant(folder, "stream", 4), "enlarges 4 times"),
        (lambda paragon, folder: variant(folder, "realtime", 3), "enlarges 3 times"),
        (lambda paragon, folder: variant(folder, "realtime", upsampler_alpha=0.3), r"pre-filter \(alpha 0.3\)"),
        (lambda paragon, folder: networks.nearest(folder / "other.onnx"), "not in the deployment form"),
    ],
    ids=["image", "video", "zero", "light", "stream 4x", "3x", "alpha", "other"],
)
def test_other_networks_are_refused_with_who_can(paragon, tmp_path, make, said):
    path = make(paragon, tmp_path)
    with pytest.raises(NetworkError, match=f"{said}.*use --engine tensorrt_rtx, tensorrt or openvino") as caught:
        CudaEngine(Network.open(path), device=stand_in())
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_what_it_says_is_refused(paragon, tmp_path):
    import onnx

    model = onnx.load(paragon.deploy)
    for tensor in model.graph.initializer:
        if tensor.name == "conv_mid.bias":
            tensor.name = "other"
    for node in model.graph.node:
        node.input[:] = ["other" if name == "conv_mid.bias" else name for name in node.input]
    onnx.save(model, tmp_path / "renamed.onnx")
    with pytest.raises(NetworkError, match=r"renamed\.onnx.*no 'conv_mid.bias'"):
        CudaEngine(Network.open(tmp_path / "renamed.onnx"), device=stand_in())


def test_what_it_cannot_do_is_said(paragon, monkeypatch):
    network = Network.open(paragon.deploy)
    with pytest.raises(UsageError, match=r"'f32' of the cuda engine.*tensorrt"):
        CudaEngine(network, precision="f32", device=stand_in())
    with pytest.raises(EngineError, match=r"compute capability 7\.5.*6\.1.*--engine torch"):
        CudaEngine(network, device=HostDevice(gpu=Gpu("Old", (6, 1), "580", 4 << 30)))
    with pytest.raises(UsageError, match="the cuda engine runs on cuda"):
        load(paragon.deploy, "cuda", device="cpu")
    monkeypatch.setitem(sys.modules, "cupy", None)
    monkeypatch.delitem(sys.modules, "videosr.engines.gpu_cupy", raising=False)
    with pytest.raises(MissingExtraError, match=r"the cuda engine.*--extra cuda "):
        load(paragon.deploy, "cuda", device="cuda")


@on_host
@pytest.mark.filterwarnings("ignore:overflow")
@pytest.mark.parametrize(
    ("name", "block", "capability"),
    [("realtime-2x", "body.0.blocks.2", TURING.capability), ("fine-2x", "body.1.blocks.3", (8, 9))],
)
def test_what_overflows_is_not_finite(monkeypatch, untested, name, block, capability):
    """NaN stays NaN on its way through GELU, so that it is seen."""

    network = Network.open(registry.find(name))
    variant, scale = network.metadata["variant"], 2
    weights = dict(_constants(network, variant, scale))
    weights[f"{block}.conv1.weight"] = 1e6 * weights[f"{block}.conv1.weight"]
    monkeypatch.setattr(cuda, "read", lambda network: pack(weights, variant, scale))
    capable = HostDevice(gpu=Gpu("Stand-in 4000", capability, "580", 16 << 30))
    made = CudaEngine(network, device=capable).run(noise(1, 3, 9, 20))
    assert not np.isfinite(made).any()


@on_host
@pytest.mark.parametrize("factor", [1.2, np.nan])
def test_wrong_pictures_are_seen_before_the_engine_is_used(paragon, monkeypatch, factor):
    def spoiled(network):
        packed = read(network)
        biases = packed.parts[0].biases
        biases[-3:] = biases[-3:] * factor + 0.1
        return packed

    monkeypatch.setattr(cuda, "read", spoiled)
    with pytest.raises(EngineError, match=r"the cuda engine gives .*(dB|finite).*another --engine"):
        CudaEngine(Network.open(paragon.deploy), device=stand_in())


# The real thing


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["realtime-2x", "realtime-2x-video", "realtime-4x"])
@pytest.mark.parametrize("size", [(1, 1), (49, 73), (361, 643)])
def test_on_a_gpu(name, size):
    path = registry.find(name)
    engine = load(path, "cuda", device="cuda")
    frame, average = noise(2, 3, *size), noise(2, 3, *size, seed=1)
    made = engine.run(frame, average)
    assert_close(made, reference_of(path).run(frame, average))
    if size == (49, 73) and COMPILER:
        host = engine_of(path).run(frame, average)
        assert np.abs(made - host).max() < 4e-3  # sums in another order

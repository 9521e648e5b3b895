"""TensorRT engines: real ones are built, for GPUs that need not be there; what they do is done by a stand-in.

Tests marked `gpu` run the real thing.
"""

from __future__ import annotations

import gc
import logging
import sys

import numpy as np
import pytest

pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed")
pytest.importorskip("onnxruntime")
pytest.importorskip("torch")

import networks
from hostdevice import GPU, HostDevice, OnnxLoader

from videosr.engines import Interface, NotFinite, Picture, load
from videosr.engines.cache import Cache
from videosr.engines.network import Network
from videosr.engines.onnxruntime import OnnxRuntimeEngine
from videosr.engines.tensorrt import TensorRTEngine
from videosr.engines.tensorrt_builder import Definition, Shapes
from videosr.engines.tensorrt_half import to_half
from videosr.engines.tensorrt_library import Library
from videosr.errors import EngineError, MissingExtraError, NetworkError, UsageError
from videosr.frame import ColorSpec, Matrix, PixelFormat, Range, Siting
from videosr.upscaler import Upscaler


@pytest.fixture(scope="session")
def library():
    return Library("tensorrt_rtx")


@pytest.fixture(scope="session")
def built(tmp_path_factory):
    """Where the tests' engines are kept: each is built once."""
    return Cache(tmp_path_factory.mktemp("engines"))


def engine_of(path, cache, *, seed=0, gpu=GPU, precision="auto", loader=None):
    options = {"library": "tensorrt_rtx", "precision": precision, "cache": cache}
    return TensorRTEngine(
        Network.open(path), device=HostDevice(seed, gpu=gpu), loader=loader or OnnxLoader(), **options
    )


def pictures(*shape, seed=0):
    return np.random.default_rng(seed).random(shape).astype(np.float32)


# Builds


@pytest.mark.parametrize("capability", [(7, 5), (8, 6), (8, 9), (12, 0)], ids=lambda c: f"sm{c[0]}{c[1]}")
@pytest.mark.parametrize("precision", ["f16", "f32"])
def test_engines_are_built_for_gpus_that_are_not_here(library, paragon, capability, precision):
    data = paragon.deploy.read_bytes()
    definition = Definition(library, to_half(data, "x") if precision == "f16" else data, "x")
    assert (definition.interface, definition.scale, definition.multiple) == (Interface.AVERAGE, 2, 1)
    plan, timing = definition.build(Shapes.fixed(360, 640), capability=capability)
    assert plan[:4] != b"\0\0\0\0"
    assert len(plan) > 100_000
    assert timing == b""


def test_nothing_is_collected_while_the_library_may_log(library, paragon, monkeypatch):
    """It would wait for itself if an earlier builder were freed by its own logger."""
    seen = []

    class Errors(list):
        def append(self, message):
            seen.append(gc.isenabled())
            super().append(message)

    monkeypatch.setattr(library.logger, "errors", Errors())
    assert gc.isenabled()
    with pytest.raises(NetworkError):
        Definition(library, b"no network", "x")
    definition = Definition(library, paragon.deploy.read_bytes(), "x")
    with pytest.raises(EngineError):
        definition.build(Shapes.fixed(10**6, 10**6))
    assert len(seen) >= 2
    assert not any(seen)
    assert gc.isenabled()


@pytest.mark.parametrize("form", ["image", "video"])
def test_every_form_and_sizes_that_vary(library, paragon, form):
    definition = Definition(library, to_half(getattr(paragon, form).read_bytes(), "x"), "x")
    shapes = Shapes((64, 64), (720, 1280), (1080, 1920))
    seen = []
    plan, _ = definition.build(shapes, capability=(8, 6), progress=lambda phase, share: seen.append((phase, share)))
    assert len(plan) > 100_000
    shares = [share for _, share in seen]
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    assert all(phase for phase, _ in seen)
    if form == "video":
        assert definition.interface is Interface.RECURRENT
        assert [(port.name, port.channels) for port in definition.inputs] == [("input", 3), ("prev_feat", 16)]
        assert [(port.name, port.channels) for port in definition.outputs] == [("output", 3), ("feature_map", 16)]


def test_a_build_can_be_interrupted(library, paragon):
    definition = Definition(library, paragon.deploy.read_bytes(), "x")

    def stop(phase, share):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        definition.build(Shapes.fixed(64, 64), capability=(8, 6), progress=stop)
    assert definition.build(Shapes.fixed(64, 64), capability=(8, 6))[0]


def test_hopper_is_refused_with_what_to_do(library, paragon):
    definition = Definition(library, paragon.deploy.read_bytes(), "x")
    with pytest.raises(UsageError, match=r"9\.0.*8\.9.*tensorrt engine"):
        definition.build(Shapes.fixed(64, 64), capability=(9, 0))


@pytest.mark.parametrize("multiple", [2, 8])
def test_the_multiple_a_network_needs_is_found(library, tmp_path, multiple):
    path = networks.unshuffled(tmp_path / "net.onnx", multiple)
    definition = Definition(library, path.read_bytes(), str(path))
    assert (definition.scale, definition.multiple) == (2, multiple)
    assert definition.padded((1, 8 * multiple + 1)) == (multiple, 9 * multiple)


@pytest.mark.parametrize("kind", ["classifier", "one channel", "smaller", "1.5x", "two nameless inputs", "no picture"])
def test_other_networks_are_refused_by_name(library, tmp_path, kind):
    path = networks.not_upscalers(tmp_path)[kind]
    with pytest.raises(NetworkError) as caught:
        Definition(library, path.read_bytes(), str(path))
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_broken_networks_are_refused_by_name(library, paragon):
    for data in (b"no network", paragon.deploy.read_bytes()[:3000]):
        with pytest.raises(NetworkError, match="bad name"):
            Definition(library, data, "bad name")


@pytest.mark.parametrize("text", ["640x360", "64x48..1280x720..1920x1080"])
def test_sizes_as_text(text):
    assert str(Shapes.parse(text)) == text


def test_sizes_cover_and_are_checked():
    shapes = Shapes.parse("64x48..1280x720..1920x1080")
    assert shapes.covers((48, 64))
    assert shapes.covers((1080, 1920))
    assert not shapes.covers((1081, 64))
    assert not shapes.covers((1920, 1080))
    for text in ("", "640", "640x", "axb", "1x1..2x2", "64x64..32x32..128x128", "0x5", "1x2x3"):
        with pytest.raises(UsageError):
            Shapes.parse(text)


# The engine, on the stand-in


@pytest.mark.parametrize("shape", [(1, 3, 24, 32), (3, 3, 17, 23)])
def test_our_form_gives_the_pictures_of_the_network(paragon, built, shape):
    engine = engine_of(paragon.deploy, built)
    assert (engine.scale, engine.interface, engine.precision) == (2, Interface.AVERAGE, "f16")
    frame, average = pictures(*shape), pictures(*shape, seed=1)
    reference = OnnxRuntimeEngine(Network.open(paragon.deploy), threads=1)
    for arguments in ((frame,), (frame, average)):
        out, wanted = engine.run(*arguments), reference.run(*arguments)
        assert (out.dtype, out.shape) == (np.float32, wanted.shape)
        assert np.abs(out - wanted).max() < 2e-3


def test_the_published_form_recurs_from_an_exact_start(paragon, built):
    engine = engine_of(paragon.video, built, precision="f32")
    reference = OnnxRuntimeEngine(Network.open(paragon.video), threads=1)
    assert engine.interface is Interface.RECURRENT
    for i, frame in enumerate(pictures(6, 1, 3, 20, 28)):
        out, wanted = (e.step(frame, reset=i in (0, 3)) for e in (engine, reference))
        assert np.abs(out - wanted).max() < 1e-4
    small = pictures(1, 3, 9, 13)
    assert np.abs(engine.step(small, reset=False) - reference.step(small, reset=True)).max() < 1e-4
    with pytest.raises(EngineError, match="in order"):
        engine.run(small)


def test_sizes_are_padded_to_the_multiple(tmp_path, built):
    engine = engine_of(networks.unshuffled(tmp_path / "net.onnx", 4), built)
    frame = pictures(1, 3, 5, 10)
    assert np.array_equal(engine.run(frame), frame.repeat(2, axis=2).repeat(2, axis=3))


def test_sizes_built_ahead_are_rounded_up_too(tmp_path, built):
    engine = engine_of(networks.unshuffled(tmp_path / "net.onnx", 4), built)
    assert str(engine.prepare(Shapes.parse("17x18")).shapes) == "20x20"
    assert str(engine.prepare(Shapes.parse("9x9..30x17..33x33")).shapes) == "12x12..32x20..36x36"


def planar_case(format):
    fmt = PixelFormat.parse(format)
    matrix = Matrix.RGB if fmt.family == "rgb" else Matrix.BT709
    color = ColorSpec(matrix=matrix, range=Range.LIMITED, siting=Siting.LEFT if fmt.subsampled else Siting.UNSPECIFIED)
    rng = np.random.default_rng(0)
    frames = [
        tuple(
            rng.integers(0, 1 << fmt.bits, fmt.plane_shape(i, 22, 30)).astype(fmt.dtype)
            for i in range(fmt.planes - fmt.alpha)
        )
        for _ in range(5)
    ]
    source = Picture(height=22, width=30, format=fmt, color=color)
    return frames, source, Picture(height=44, width=60, format=fmt, color=color)


@pytest.mark.parametrize(
    ("net", "format", "seed"),
    [
        ("luma", "yuv420p", 0),
        ("luma", "yuv420p10le", 1),
        ("deploy", "yuv420p", 2),
        ("deploy", "yuv444p", 3),
        ("deploy", "gbrp", 4),
        ("deploy", "gray", 5),
    ],
)
def test_planes_are_those_of_the_long_way(paragon, built, net, format, seed):
    """As `color.to_rgb`, `temporal.average`, `Engine.run` and `color.from_rgb` one after the other, to one code."""
    from videosr import color, temporal
    from videosr.frame import Frame

    frames, source, target = planar_case(format)
    engine = engine_of(getattr(paragon, net), built, seed=seed)
    runner = engine.planar(source, target, 3, 0.25)
    assert runner.in_flight >= 2
    tickets = [(0, 0.0), (1, 0.0), (2, 6.0), (3, 9.0), (4, 3.0)]
    windows = [frames[max(0, i - 2) : i + 1][::-1] if threshold else frames[i : i + 1] for i, threshold in tickets]
    results = [runner.submit(w, t) for w, (_, t) in zip(windows, tickets, strict=True)]
    apart = engine.network.chroma_apart(source.format, target.format)
    for window, (_, threshold), ticket in zip(windows, tickets, results, strict=True):
        planes = window[0]
        rgb, average = color.to_rgb(planes, source.format, source.color), None
        if len(window) > 1:
            held = [Frame(planes=w, format=source.format, pts=0, time_base=1) for w in window]
            mean = temporal.average(held, temporal.Mode.ADAPTIVE, threshold)
            average = color.to_rgb(mean, source.format, source.color)[None]
            rgb = rgb + np.float32(0.25) * (average[0] - rgb)
            planes = tuple(p + np.float32(0.25) * (m - p) for p, m in zip(planes, mean, strict=True))
        out = engine.run(rgb[None], average)[0]
        chroma = (planes, source.format, source.color) if apart else None
        wanted = color.from_rgb(out, target.format, target.color, dither=False, chroma=chroma)
        for got, plane in zip(runner.result(ticket), wanted, strict=True):
            assert got.dtype == plane.dtype
            assert np.abs(got.astype(int) - plane.astype(int)).max() <= 1


def test_fewer_bits_are_dithered(paragon, built):
    """By the runner as by the long way, to one code."""
    from fractions import Fraction

    from videosr.frame import Frame
    from videosr.options import UpscaleOptions

    frames, source, _ = planar_case("yuv420p10le")
    film = [
        Frame(planes=planes, format=source.format, pts=i, time_base=Fraction(1, 25), color=source.color)
        for i, planes in enumerate(frames[:2])
    ]
    options = UpscaleOptions(pix_fmt="yuv420p")
    made, wanted = engine_of(paragon.luma, built), OnnxRuntimeEngine(Network.open(paragon.luma), threads=1)
    for frame in film:
        a, b = (Upscaler(options, engine).picture([frame]) for engine in (made, wanted))
        for got, plane, source_plane in zip(a.planes, b.planes, frame.planes, strict=True):
            apart = np.abs(got.astype(int) - plane)
            assert apart.max() <= 1
            assert (apart == 0).mean() > 0.95  # rounded, a quarter of the codes would differ
            assert got.shape[0] == 2 * source_plane.shape[0]


def test_values_that_are_not_finite_are_an_error(paragon, built):
    frames, source, target = planar_case("yuv420p")
    loader = OnnxLoader()
    runner = engine_of(paragon.deploy, built, loader=loader).planar(source, target, 1)
    runner.result(runner.submit(frames[:1], 0.0))
    loader.spoil = lambda precision, picture: picture * np.float32(np.nan)
    with pytest.raises(NotFinite, match=r"NaN.*f32"):
        runner.result(runner.submit(frames[1:2], 0.0))


def test_the_upscaler_runs_on_it(paragon, built):
    from fractions import Fraction

    from videosr.frame import Frame

    frames, source, _ = planar_case("yuv420p")
    film = [
        Frame(planes=planes, format=source.format, pts=i, time_base=Fraction(1, 25), color=source.color)
        for i, planes in enumerate(frames)
    ]
    upscaler = Upscaler(engine=engine_of(paragon.luma, built))
    wanted = Upscaler(engine=OnnxRuntimeEngine(Network.open(paragon.luma), threads=1))
    made, exact = ([*(f for x in film for f in u.process(x)), *u.flush()] for u in (upscaler, wanted))
    assert [f.pts for f in made] == [f.pts for f in exact] == [0, 1, 2, 3, 4]
    for a, b in zip(made, exact, strict=True):
        assert all(np.abs(p.astype(int) - q).max() <= 1 for p, q in zip(a.planes, b.planes, strict=True))


# The cache, the self-test, and what follows from it


def test_an_engine_is_built_once_and_found_again(paragon, tmp_path, caplog):
    cache = Cache(tmp_path)
    frame = pictures(1, 3, 24, 32)
    first = engine_of(paragon.deploy, cache)
    assert first.to_build((24, 32))
    out = first.run(frame)
    assert not first.to_build((24, 32))
    assert first.to_build((24, 36))
    entries = {entry.path: entry for entry in cache.entries()}
    kinds = [(e.key["kind"], e.key["shapes"], e.key["precision"]) for e in entries.values()]
    assert sorted(kinds) == [("engine", "128x96", "f16"), ("engine", "32x24", "f16"), ("kernels", "32x24", "f16")]
    for entry in entries.values():
        assert entry.key["gpu"] == GPU.name
        assert entry.key["driver"] == GPU.driver
        assert entry.key["network"] == first.network.sha256
    stamps = {path: path.stat().st_ino for path in entries}
    loader = OnnxLoader()
    assert np.array_equal(engine_of(paragon.deploy, cache, loader=loader).run(frame), out)
    assert {path: path.stat().st_ino for path in entries} == stamps  # nothing written anew
    assert [kernels for _, kernels in loader.loaded] == [b"kernels"]  # and what was compiled is there from the start


@pytest.mark.parametrize("what", ["name", "driver", "capability"])
def test_another_gpu_or_driver_gets_its_own_engine(paragon, built, what):
    from dataclasses import replace

    other = replace(
        GPU, **{"name": {"name": "Another"}, "driver": {"driver": "13.3"}, "capability": {"capability": (8, 9)}}[what]
    )
    engine_of(paragon.deploy, built, precision="f16").run(pictures(1, 3, 24, 32))
    before = len(built.entries())
    engine_of(paragon.deploy, built, gpu=other, precision="f16").run(pictures(1, 3, 24, 32))
    assert len(built.entries()) > before


def test_an_engine_for_many_sizes_serves_those_it_covers(paragon, tmp_path):
    cache = Cache(tmp_path)
    engine = engine_of(paragon.deploy, cache, precision="f16")
    engine.prepare(Shapes.parse("16x16..32x24..64x64"))
    loader = OnnxLoader()
    engine = engine_of(paragon.deploy, cache, precision="f16", loader=loader)
    for size in ((24, 32), (64, 17)):
        engine.run(pictures(1, 3, *size))
    assert sum(entry.key["kind"] == "engine" for entry in cache.entries()) == 1
    engine.run(pictures(1, 3, 8, 8))
    assert sum(entry.key["kind"] == "engine" for entry in cache.entries()) == 2


def nan_in_half(precision, picture):
    return picture * np.float32(np.nan) if precision == "f16" else picture


def black_in_half(precision, picture):
    return picture * 0 if precision == "f16" else picture


def noisy_in_half(precision, picture):
    return picture + np.float32(0.02) * (-1) ** np.arange(picture.shape[3]) if precision == "f16" else picture


def shifted_in_half(precision, picture):
    return np.roll(picture, 1, axis=3) if precision == "f16" else picture


@pytest.mark.parametrize(
    ("form", "spoil", "said"),
    [
        ("deploy", nan_in_half, "not finite"),
        ("deploy", black_in_half, "black"),
        ("deploy", noisy_in_half, "dB"),
        ("video", shifted_in_half, "dB"),
    ],
)
def test_half_precision_that_fails_its_test_gives_way_aloud(paragon, tmp_path, caplog, form, spoil, said):
    path, cache = getattr(paragon, form), Cache(tmp_path)
    with caplog.at_level(logging.WARNING):
        engine = engine_of(path, cache, loader=OnnxLoader(lambda p, x: spoil(p, x).astype(np.float32)))
    assert engine.precision == "f32"
    assert "f32" in engine.identity
    assert any(said in message and "f32" in message for message in caplog.messages)
    if form == "deploy":  # the verdict is kept with the engine; the test is not run again
        loader = OnnxLoader()
        assert engine_of(path, cache, loader=loader).precision == "f32"
        assert loader.loaded == []


def test_a_precision_that_was_asked_for_is_refused_instead(paragon, tmp_path):
    engine = engine_of(paragon.deploy, Cache(tmp_path), precision="f16", loader=OnnxLoader(nan_in_half))
    for _ in range(2):  # found in the cache the second time
        with pytest.raises(EngineError, match=r"24.*f16.*not finite.*--precision f32"):
            engine.run(pictures(1, 3, 24, 32))


def test_a_network_that_fails_in_every_precision_is_refused(paragon, tmp_path):
    loader = OnnxLoader(lambda precision, picture: picture * 0)
    with pytest.raises(EngineError, match="another --engine"):
        engine_of(paragon.deploy, Cache(tmp_path), loader=loader)


def test_files_in_half_precision_have_no_other(paragon, built):
    engine = engine_of(paragon.half, built)
    assert engine.precision == "f16"
    with pytest.raises(UsageError, match="half precision"):
        engine_of(paragon.half, built, precision="f32")
    with pytest.raises(UsageError, match="bf16"):
        engine_of(paragon.deploy, built, precision="bf16")


def test_a_cache_that_cannot_be_written_costs_nothing_but_time(paragon, tmp_path):
    (tmp_path / "file").write_text("in the way")
    engine = engine_of(paragon.deploy, Cache(tmp_path / "file" / "engines"), precision="f16")
    assert engine.run(pictures(1, 3, 24, 32)).shape == (1, 3, 48, 64)


def test_the_identity_names_what_the_bits_depend_on(paragon, built):
    engine = engine_of(paragon.deploy, built)
    for part in ("tensorrt_rtx 1.", GPU.name, "8.6", GPU.driver, "f16", engine.network.sha256):
        assert part in engine.identity


def test_without_a_gpu_the_engine_says_so(paragon):
    cupy = pytest.importorskip("cupy")
    try:
        here = cupy.cuda.runtime.getDeviceCount()
    except cupy.cuda.runtime.CUDARuntimeError:
        here = 0
    if here:
        pytest.skip("there is a GPU here")
    with pytest.raises(EngineError, match="CUDA device"):
        load(paragon.deploy, "tensorrt_rtx", device="cuda")


@pytest.mark.parametrize(("name", "extra"), [("tensorrt_rtx", "cuda"), ("tensorrt", "tensorrt")])
def test_missing_libraries_name_the_extra(paragon, monkeypatch, name, extra):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingExtraError, match=rf"{name} .*--extra {extra} "):
        load(paragon.deploy, name, device="cuda")


def test_the_cpu_is_refused_with_what_to_give(paragon):
    with pytest.raises(UsageError, match=r"--device cuda"):
        load(paragon.deploy, "tensorrt_rtx")


def test_without_onnx_half_precision_names_the_extra(paragon, built, monkeypatch):
    monkeypatch.setitem(sys.modules, "videosr.engines.tensorrt_half", None)
    with pytest.raises(MissingExtraError, match="cuda"):
        engine_of(paragon.deploy, built, precision="f16")


# The real thing


@pytest.mark.gpu
@pytest.mark.parametrize("form", ["deploy", "video"])
@pytest.mark.parametrize("precision", ["f16", "f32"])
def test_on_the_gpu(paragon, tmp_path, form, precision):
    path = getattr(paragon, form)
    engine = TensorRTEngine(Network.open(path), library="tensorrt_rtx", precision=precision, cache=Cache(tmp_path))
    reference = OnnxRuntimeEngine(Network.open(path), threads=1)
    for i, frame in enumerate(pictures(5, 1, 3, 90, 160)):
        if form == "video":
            out, wanted = (e.step(frame, reset=i in (0, 3)) for e in (engine, reference))
        else:
            out, wanted = (e.run(frame, frame[..., ::-1]) for e in (engine, reference))
        assert np.abs(out - wanted).max() < (4e-3 if precision == "f16" else 1e-4)


@pytest.mark.gpu
def test_planes_on_the_gpu(paragon, tmp_path):
    frames, source, target = planar_case("yuv420p")
    engine = TensorRTEngine(Network.open(paragon.luma), library="tensorrt_rtx", cache=Cache(tmp_path))
    runner = engine.planar(source, target, 1)
    stand_in = engine_of(paragon.luma, Cache(tmp_path)).planar(source, target, 1)
    tickets = [runner.submit([planes], 0.0) for planes in frames]
    for ticket, planes in zip(tickets, frames, strict=True):
        for got, wanted in zip(runner.result(ticket), stand_in.result(stand_in.submit([planes], 0.0)), strict=True):
            assert np.abs(got.astype(int) - wanted.astype(int)).max() <= 1

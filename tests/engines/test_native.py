"""Our own CPU kernels: how they are compiled, cut, packed and refused. What they give: `test_planar`."""

from __future__ import annotations

import importlib.util
import math
import shutil
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import native
import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pictures import LEFT, differences, picture, planes_of, target_of

pytest.importorskip("torch")

import networks

from videosr import temporal
from videosr.engines import NotFinite, load, native_library, native_strips
from videosr.engines.native_library import Kernels
from videosr.engines.native_strips import NativeRunner, strips
from videosr.engines.native_weights import read, winograd
from videosr.engines.openvino_strips import StripRunner
from videosr.errors import EngineError, NetworkError, UsageError
from videosr.frame import Frame, Siting
from videosr.models import registry

ROOT = Path(__file__).parents[2]
NETWORKS = [model.name for model in registry.shipped() if not model.name.startswith("photo")]


@pytest.fixture(scope="module")
def kernels():
    native.needed()
    return native_library.kernels()


@pytest.fixture(scope="module")
def engine(kernels, paragon):
    return load(paragon.luma, "native", threads=1)


@pytest.fixture(scope="module")
def stream(kernels, tmp_path_factory):
    return load(networks.Paragon(tmp_path_factory.mktemp("stream"), variant="stream").luma, "native", threads=1)


def run(runner, frames, threshold=0.0):
    return runner.result(runner.submit(frames, threshold))


def equal(a, b):
    return all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


# What they give


@pytest.mark.parametrize("name", NETWORKS)
def test_every_shipped_network_but_photo_runs(kernels, name):
    path = Path(registry.find(name))
    source = picture(40, 52)
    planes = planes_of(source)
    # Ours repeats the rim without end, a file only as far as most networks see: OpenVINO is given a wider one.
    far = 28  # what stream sees
    wide = picture(40 + 2 * far, 52 + 2 * far)
    wide_planes = [np.pad(p, far * len(p) // source.height, mode="edge") for p in planes]
    ours, other = (load(path, engine, precision="f32", threads=1) for engine in ("native", "openvino"))
    runner = ours.planar(source, target_of(source, ours.scale), 1)
    reference = other.planar(wide, target_of(wide, ours.scale), 1)
    assert isinstance(runner, NativeRunner)
    assert isinstance(reference, StripRunner)
    got = run(runner, [planes])
    wanted = []
    for plane in run(reference, [wide_planes]):
        rim = far * len(plane) // wide.height
        wanted.append(plane[rim:-rim, rim:-rim])
    for d in differences(got, wanted):
        assert d.max() <= 1
        assert np.mean(d > 0) < 0.01


@pytest.mark.parametrize("limit", [math.inf, 8.0, 0.01])
@pytest.mark.parametrize("size", [(1, 1), (29, 70), (66, 131)])
def test_products_of_gated_blocks_are_clamped_where_the_network_says(stream, tmp_path, limit, size):
    path = with_products(stream.network.path, tmp_path / "limited.onnx", limit)
    source = picture(*size)
    planes = planes_of(source)
    runners = [
        load(path, engine, precision="f32", threads=1).planar(source, target_of(source, 2), 1)
        for engine in ("native", "openvino")
    ]
    assert isinstance(runners[0], NativeRunner)
    for d in differences(*(run(r, [planes]) for r in runners)):
        assert d.max() <= 1
        assert np.mean(d > 0) < 0.02


def with_products(path, target, limit):
    """A copy of a stream network whose products count more, so that limits show; clamped there."""
    model = onnx.load(path)
    for node in model.graph.node:
        if node.op_type == "Mul" and node.name.endswith(".product") and math.isfinite(limit):
            inner = f"{node.name}.unlimited"
            clip = onnx.helper.make_node("Clip", [inner, "product.min", "product.max"], list(node.output))
            node.output[0] = inner
            model.graph.node.insert(list(model.graph.node).index(node) + 1, clip)
    for constant in model.graph.initializer:
        if constant.name.endswith((".gate.weight", ".gate.bias")):
            values = onnx.numpy_helper.to_array(constant)
            constant.CopyFrom(onnx.numpy_helper.from_array((4 * values).astype(np.float32), constant.name))
    if math.isfinite(limit):
        for name, value in (("product.min", -limit), ("product.max", limit)):
            model.graph.initializer.append(onnx.numpy_helper.from_array(np.float32([value]), name))
    onnx.save(model, target)
    return target


@settings(max_examples=25)
@given(
    height=st.integers(1, 40),
    width=st.integers(1, 90),
    widest=st.sampled_from([32, 48, 64, 400]),
    count=st.integers(1, 4),
    format=st.sampled_from(["yuv420p", "yuv444p10le", "yuv411p", "gray"]),
    siting=st.sampled_from([Siting.LEFT, Siting.TOPLEFT]),
)
def test_strips_are_the_same_bits_wherever_they_begin(engine, height, width, widest, count, format, siting):
    same_bits(engine, height, width, widest, count, format, siting)


@settings(max_examples=15)
@given(height=st.integers(1, 60), width=st.integers(1, 150), widest=st.sampled_from([80, 96, 400]))
def test_strips_of_gated_blocks_are_too(stream, height, width, widest):
    same_bits(stream, height, width, widest, 2, "yuv420p")


def same_bits(engine, height, width, widest, count, format, siting=Siting.LEFT):
    source = picture(height, width, format, replace(LEFT, siting=siting))
    frames = [planes_of(source, seed) for seed in range(count)]
    results = []
    for columns in (4096, widest):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(native_strips, "_WIDEST", columns)
            patch.setattr(native_strips, "_BAND", 3)
            results.append(run(engine.planar(source, target_of(source, 2), count), frames, 30.0))
    assert equal(*results)


@pytest.fixture(scope="module")
def compiled_again(kernels, build, tmp_path_factory):
    """The kernels compiled elsewhere. Where the CPU has no AVX-512, wide vectors are two narrow ones."""
    folder = tmp_path_factory.mktemp("again") / "kernels"
    shutil.copytree(native_library.FOLDER, folder, ignore=shutil.ignore_patterns("*.so"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "FLAGS", ["-O1" if flag == "-O3" else flag for flag in build.FLAGS])  # a quarter the time
        if len(kernels) == 1:
            patch.setattr(build, "LEVELS", dict.fromkeys(build.LEVELS, build.LEVELS[8]))
        assert build.compiled(folder) == ""
    return folder


@pytest.fixture(scope="module")
def both_widths(kernels, request):
    """Kernels for 16 and 8 lanes: ours where the CPU has both."""
    if len(kernels) == 2:
        return kernels
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(native_library, "FOLDER", request.getfixturevalue("compiled_again"))
        library = native_library._library.__wrapped__()[0]
    return tuple(Kernels(lanes, "", library) for lanes in native_library.LANES)


@pytest.mark.parametrize("size", [(30, 100), (3, 5), (9, 400)])
@pytest.mark.parametrize("blocks", ["engine", "stream"])
def test_vectors_of_either_width_give_the_same_picture(both_widths, request, blocks, size):
    engine = request.getfixturevalue(blocks)
    source = picture(*size)
    frames = [planes_of(source, seed) for seed in range(3)]
    with ThreadPoolExecutor(1) as worker:
        layers = read(engine.network)
        both = [
            NativeRunner(k, worker, layers, source, target_of(source, 2), apart=True, threads=1) for k in both_widths
        ]
        for d in differences(*(run(runner, frames, 30.0) for runner in both)):
            assert d.max() <= 1


def test_kernels_that_disagree_are_not_used(kernels, paragon, monkeypatch):
    class Wrong(Kernels):
        def strip(self, *arguments):
            finite = super().strip(*arguments)
            plane = arguments[4].plane[0]
            np.ctypeslib.as_array((native_library.ctypes.c_uint8 * 8).from_address(plane.data))[:] ^= 128
            return finite

    wide = Wrong(16, kernels[0].source, kernels[-1].library)
    wide = wide._replace(lanes=kernels[-1].lanes)
    monkeypatch.setattr("videosr.engines.native.kernels", lambda: (wide, kernels[-1]))
    with pytest.raises(EngineError, match="one picture with AVX-512 and another with AVX2: use --engine openvino"):
        load(paragon.luma, "native")


def test_planes_may_be_padded_or_apart(engine):
    source = picture(30, 41)
    planes = planes_of(source)
    runner = engine.planar(source, target_of(source, 2), 1)
    wanted = run(runner, [planes])
    padded = [np.pad(p, ((0, 0), (0, 23)))[:, : p.shape[1]] for p in planes]
    apart = [np.repeat(p, 2, axis=1)[:, ::2] for p in planes]
    upside_down = [p[::-1].copy()[::-1] for p in planes]
    for other in (padded, apart, upside_down):
        assert equal(run(runner, [other]), wanted)


@pytest.mark.parametrize("format", ["yuv420p", "yuv422p", "yuv440p", "yuv411p", "yuv410p", "yuv444p"])
@pytest.mark.parametrize("size", [(33, 41), (35, 43), (1, 1), (32, 40)])
def test_the_average_is_that_of_temporal_up_to_odd_edges(kernels, format, size):
    source, threshold = picture(*size, format), 20.0
    frames = [
        Frame(planes=planes_of(source, seed), format=source.format, pts=seed, time_base=Fraction(1, 25))
        for seed in (0, 0, 1)
    ]
    wanted = temporal.average(frames, temporal.Mode.ADAPTIVE, threshold)
    block = 1 << source.format.log2_h, 1 << source.format.log2_w
    for widest in kernels:
        got = tuple(np.empty(plane.shape, np.float32) for plane in wanted)
        pictures = [as_picture(frame.planes) for frame in frames]
        widest.average(pictures, block, 1 / threshold**2, as_picture(got), (0, len(got[-1])))
        for a, b in zip(got, wanted, strict=True):
            np.testing.assert_allclose(a, b, atol=1e-3)


def as_picture(planes):
    given = native_library.Picture(colours=len(planes))
    for i, plane in enumerate(planes):
        given.planes[i], given.gain[i] = native_library.Plane.of(plane), 1
    return given


def test_values_that_are_not_finite_are_found(engine, monkeypatch):
    huge = {
        f"body.0.blocks.{i}.conv2.bias": np.full(engine._layers.channels, 3e38) for i in (0, 1)
    }  # their sum overflows
    monkeypatch.setattr(engine, "_layers", replace(engine._layers, constants={**engine._layers.constants, **huge}))
    source = picture(16, 20)
    runner = engine.planar(source, target_of(source, 2), 1)
    with pytest.raises(NotFinite):
        run(runner, [planes_of(source)])


@pytest.mark.parametrize("value", [3e38, np.inf])
def test_weights_beyond_float32_are_found_without_warnings(engine, monkeypatch, value):
    constants = {**engine._layers.constants, "tail.bias": np.full(12, value)}
    monkeypatch.setattr(engine, "_layers", replace(engine._layers, constants=constants))
    source = picture(16, 20)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        runner = engine.planar(source, target_of(source, 2), 1)
    with pytest.raises(NotFinite):
        run(runner, [planes_of(source)])


@pytest.mark.parametrize("error", [RuntimeError("a bug"), MemoryError()], ids=repr)
def test_a_failure_in_a_thread_is_raised_by_result(engine, monkeypatch, error):
    source = picture(30, 32)
    runner = engine.planar(source, target_of(source, 2), 2)
    frames = [planes_of(source, seed) for seed in range(2)]
    good = run(runner, frames, 20.0)

    def fail(*_):
        raise error

    for name in ("strip", "average", "enlarge"):
        with monkeypatch.context() as patch:
            patch.setattr(Kernels, name, fail)
            ticket = runner.submit(frames, 20.0)
            with pytest.raises(EngineError) as caught:
                runner.result(ticket)
        assert caught.value.__cause__ is error
    assert equal(run(runner, frames, 20.0), good)  # and the runner lives on


def test_threads_that_cannot_be_had_leave_no_ticket_open(engine, monkeypatch):
    source = picture(30, 32)
    runner = engine.planar(source, target_of(source, 2), 2)
    frames = [planes_of(source, seed) for seed in range(2)]
    start = type(runner)._start

    def ending(*arguments):
        with monkeypatch.context() as patch:
            patch.setattr(runner._workers, "submit", lambda *_: (_ for _ in ()).throw(RuntimeError("shutdown")))
            start(*arguments)

    monkeypatch.setattr(type(runner), "_start", ending)
    ticket = runner.submit(frames, 20.0)  # strips are posted when the average is there
    with pytest.raises(EngineError, match="no thread for our own CPU kernels: shutdown"):
        runner.result(ticket)


def test_planes_of_one_column_and_of_another_size(engine):
    source = picture(4, 1)
    planes = planes_of(source)
    runner = engine.planar(source, target_of(source, 2), 1)
    lying = [np.ascontiguousarray(p.T).T for p in planes]
    assert equal(run(runner, [lying]), run(runner, [planes]))
    with pytest.raises(EngineError, match="were to come"):
        runner.submit([planes_of(picture(6, 1))], 0.0)


# How pictures are cut


@given(width=st.integers(1, 20_000), blocks=st.integers(1, 16), parts=st.integers(0, 1))
def test_the_plan_covers_every_column_once(width, blocks, parts):
    rim = blocks + 4 + parts
    columns, starts = strips(width, rim)
    assert columns % 16 == 0
    assert columns <= native_strips._WIDEST
    valid = columns - 2 * rim
    assert valid > 0
    assert starts == list(range(0, len(starts) * valid, valid))
    assert starts[-1] < width <= starts[-1] + valid


def test_eight_results_of_a_filter_are_made_with_fourteen_products():
    rng = np.random.default_rng(3)
    taps, samples = rng.normal(size=7), rng.normal(size=14)
    factors, transform, gather = winograd()
    made = gather @ ((factors @ taps) * (transform @ samples))
    np.testing.assert_allclose(made, [taps @ samples[r : r + 7] for r in range(8)], atol=1e-11)


# What is refused, and by whom it is made instead


def test_what_the_kernels_do_not_make_openvino_makes(kernels, paragon):
    engine = load(paragon.deploy, "native", threads=1)
    sitings = {Siting.LEFT: NativeRunner, Siting.TOPLEFT: NativeRunner, Siting.BOTTOMLEFT: StripRunner}
    for siting, runner in sitings.items():
        source = picture(30, 41, "yuv420p", replace(LEFT, siting=siting))
        assert isinstance(engine.planar(source, target_of(source, 2), 4), runner)


def test_other_networks_are_refused_by_name(kernels, paragon):
    photo = Path(registry.find("photo-2x"))
    for path, said in ((paragon.image, "deployment form"), (photo, "not photo")):
        with pytest.raises(NetworkError, match=said + r".*use --engine openvino"):
            load(path, "native")
    for precision in ("bf16", "f16"):
        with pytest.raises(UsageError, match="use --engine openvino"):
            load(paragon.deploy, "native", precision=precision)


@pytest.mark.parametrize("scale", [-2, 0, 4])
def test_a_network_whose_scale_is_not_that_of_its_weights_is_refused(kernels, paragon, tmp_path, scale):
    model = onnx.load(paragon.deploy)
    for entry in model.metadata_props:
        if entry.key == "videosr.scale":
            entry.value = str(scale)
    onnx.save(model, tmp_path / "other.onnx")
    with pytest.raises(
        NetworkError, match=rf"not realtime with these weights, .* scale {scale}: use --engine openvino"
    ):
        load(tmp_path / "other.onnx", "native")


def test_the_identity_names_what_the_bits_depend_on(kernels, engine, paragon):
    other = load(paragon.luma, "openvino", precision="f32").identity
    assert native_library.source_hash() in engine.identity
    ours = engine.identity.partition(", ")[2].split()
    assert other.split()[1].startswith(ours[1])  # the version, without OpenVINO's number of the build
    assert [ours[0], *ours[2:]] == [word for i, word in enumerate(other.split()) if i != 1]


def test_openvino_is_loaded_only_for_what_the_kernels_do_not_make(kernels, paragon):
    script = f"""
import sys
from pathlib import Path

import numpy as np

from videosr.engines import load
from videosr.media.decoder import Decoder
from videosr.options import UpscaleOptions
from videosr.upscaler import Upscaler

upscaler = Upscaler(UpscaleOptions(model={str(paragon.luma)!r}), load(Path({str(paragon.luma)!r}), "native", threads=1))
with Decoder({str(ROOT / "samples" / "bunny.mp4")!r}, frames=2) as decoder:
    frames = [made for frame in decoder for made in upscaler.process(frame)] + list(upscaler.flush())
upscaler.identity
assert len(frames) == 2 and not any(name.partition(".")[0] == "openvino" for name in sys.modules)
assert upscaler.enlarge(np.zeros((1, 3, 20, 30), np.float32)).shape == (1, 3, 40, 60)
assert "openvino" in sys.modules
"""
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr


@pytest.mark.parametrize("machine", ["aarch64", "riscv64"])
def test_other_cpus_are_refused(monkeypatch, machine):
    monkeypatch.setattr("platform.machine", lambda: machine)
    with pytest.raises(UsageError, match="64-bit x86 CPUs on Linux: use --engine openvino"):
        native_library.kernels()


# How they are compiled


@pytest.fixture
def elsewhere(monkeypatch, tmp_path):
    """A copy of the sources, to be compiled and loaded."""
    shutil.copytree(native_library.FOLDER, tmp_path / "kernels", ignore=shutil.ignore_patterns("*.so"))
    monkeypatch.setattr(native_library, "FOLDER", tmp_path / "kernels")
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    native_library._library.cache_clear()
    yield tmp_path / "kernels"
    native_library._library.cache_clear()


@pytest.fixture
def little(elsewhere):
    """That copy, in which there is next to nothing to compile."""
    (elsewhere / "strips.c").write_text("")
    return elsewhere


@pytest.fixture(scope="module")
def build():
    spec = importlib.util.spec_from_file_location("build_native", ROOT / "scripts" / "build_native.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["build_native"] = module
    spec.loader.exec_module(module)
    return module


def test_what_was_not_compiled_is_said(elsewhere):
    with pytest.raises(EngineError, match=r"were not compiled: install a C compiler .*or use --engine openvino"):
        native_library.kernels()


def test_a_library_that_is_none_is_refused(elsewhere):
    (elsewhere / "native.so").write_bytes(b"not a library")
    with pytest.raises(EngineError, match=r"native\.so: cannot be loaded"):
        native_library.kernels()


def test_a_library_that_was_cut_short_is_refused(kernels, elsewhere, compiled_again):
    whole = (compiled_again / "native.so").read_bytes()
    for size in (0, 40, len(whole) // 3, len(whole) - 1):
        (elsewhere / "native.so").write_bytes(whole[:size])
        with pytest.raises(EngineError, match=r"native\.so: cannot be loaded: "):
            native_library.kernels()


def test_compiled_kernels_know_their_sources(kernels, elsewhere, compiled_again):
    shutil.copy(compiled_again / "native.so", elsewhere)
    assert [k.lanes for k in native_library.kernels()] == [k.lanes for k in kernels]
    native_library._library.cache_clear()
    with (elsewhere / "strips.c").open("a") as file:
        file.write("/* changed */")
    with pytest.raises(EngineError, match="other sources than those here"):
        native_library.kernels()


@pytest.mark.parametrize(("compiler", "said"), [("no-such-compiler", "no C compiler"), ("false", "false: exit code 1")])
def test_without_a_compiler_there_are_no_kernels_and_no_error(elsewhere, build, monkeypatch, compiler, said):
    monkeypatch.setenv("CC", compiler)
    assert said in build.compiled(elsewhere)
    assert not (elsewhere / "native.so").exists()


def test_sources_that_do_not_compile_are_reported_by_their_error(kernels, little, build):
    (little / "dispatch.c").write_text("int nonsense(")
    assert "error" in build.compiled(little)


@pytest.mark.parametrize("compiler", ["'", "/etc/passwd"])
def test_a_compiler_that_is_none_is_no_error(elsewhere, build, monkeypatch, compiler):
    monkeypatch.setenv("CC", compiler)
    assert build.compiled(elsewhere)


def test_a_folder_that_cannot_be_written_to_is_no_error(kernels, little, build, monkeypatch):
    def fail(*_):
        raise PermissionError("read-only file system")

    monkeypatch.setattr(build.shutil, "copyfile", fail)
    assert build.compiled(little) == "read-only file system"
    assert sorted(p.name for p in little.iterdir() if p.name.startswith("native.so")) == []

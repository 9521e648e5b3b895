"""OpenVINO: strips, precision, what is rewritten. What its planar form gives: `test_planar`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import openvino as ov
import pytest
from pictures import LEFT, RGB, assert_one_code, differences, long_way, picture, planes_of, target_of, window_frames

pytest.importorskip("torch")

import networks

from videosr.engines import Interface, load, openvino_strips
from videosr.engines.network import PREFIX
from videosr.engines.openvino import OpenVINOEngine, fast_precisions
from videosr.engines.openvino_strips import StripPlan, StripRunner
from videosr.errors import EngineError, NetworkError
from videosr.frame import ColorSpec, Matrix, Range, Siting


@pytest.fixture(scope="module")
def engine(paragon):
    return load(paragon.deploy, precision="f32", threads=1)


@pytest.fixture(scope="module")
def luma_engine(paragon):
    return load(paragon.luma, precision="f32", threads=1)


# Strips


def many_strips(monkeypatch, pixels=400):
    monkeypatch.setattr(openvino_strips, "_STRIP_PIXELS", pixels)


@pytest.mark.parametrize(("format", "siting"), [("yuv420p", Siting.LEFT), ("yuv420p", Siting.BOTTOM), ("gbrp", None)])
@pytest.mark.parametrize("size", [(61, 33)])
@pytest.mark.parametrize("form", ["engine", "luma_engine"])
def test_strips_leave_no_seams(request, monkeypatch, format, siting, size, form):
    engine = request.getfixturevalue(form)
    spec = RGB if siting is None else ColorSpec(matrix=Matrix.BT709, range=Range.LIMITED, siting=siting)
    source = picture(*size, format, spec)
    target = target_of(source, 2)
    planes = planes_of(source)
    whole = engine.planar(source, target, 1)
    in_one = whole.result(whole.submit([planes], 0.0))
    many_strips(monkeypatch)
    plan = StripPlan.of(source, engine.network.number("halo", 0), engine.network.number("reach", 0))
    assert len(plan.tops) >= 5
    strips = engine.planar(source, target, 1)
    for d in differences(strips.result(strips.submit([planes], 0.0)), in_one):
        assert d.max() <= 1
        assert np.mean(d > 0) < 0.01


def test_strips_with_a_window_leave_no_seams(engine, monkeypatch):
    source = picture(61, 33)
    target = target_of(source, 2)
    frames = [planes_of(source, seed) for seed in range(4)]
    whole = engine.planar(source, target, 4)
    in_one = whole.result(whole.submit(frames, 40.0))
    many_strips(monkeypatch)
    strips = engine.planar(source, target, 4)
    for d in differences(strips.result(strips.submit(frames, 40.0)), in_one):
        assert d.max() <= 1
        assert np.mean(d > 0) < 0.01


def test_the_strip_plan_covers_every_row_once_and_holds_the_memory():
    for height in (1, 2, 17, 360, 1079, 1080, 2160):
        for width in (1, 640, 1920, 3840):
            source = picture(height, width)
            plan = StripPlan.of(source, 8, 7)
            assert plan.tops[0] == 0
            assert [b - a for a, b in zip(plan.tops, plan.tops[1:], strict=False)] == [plan.rows] * (len(plan.tops) - 1)
            assert plan.tops[-1] < height <= plan.tops[-1] + plan.rows
            assert plan.rows % 2 == 0
            assert plan.halo_y % 2 == plan.halo_x % 2 == 0
            if len(plan.tops) > 1:
                assert plan.halo_y >= 7
            if width > 1:
                assert plan.rows * width <= 2.1 * openvino_strips._STRIP_PIXELS


@pytest.mark.parametrize("error", [RuntimeError("no memory"), KeyError("a bug"), MemoryError()], ids=repr)
def test_a_failure_in_openvinos_threads_is_raised_by_result(engine, monkeypatch, error):
    source = picture(30, 32)
    runner = engine.planar(source, target_of(source, 2), 1)
    planes = planes_of(source)
    good = runner.result(runner.submit([planes], 0.0))
    with monkeypatch.context() as patch:

        def fail(*_):
            raise error

        patch.setattr(openvino_strips._Assembler, "_paste", fail)
        ticket = runner.submit([planes], 0.0)
        with pytest.raises(EngineError) as caught:
            runner.result(ticket)
    assert caught.value.__cause__ is error
    again = runner.result(runner.submit([planes], 0.0))  # and the runner lives on
    assert all(np.array_equal(a, b) for a, b in zip(again, good, strict=True))


# Precision


class InFloat32:
    """OpenVINO's core, compiling everything in float32: what is left of a half-precision form is its shape."""

    def __init__(self) -> None:
        self._core, self.compiled = ov.Core(), 0

    def read_model(self, path: Path) -> ov.Model:
        return self._core.read_model(path)

    def compile_model(self, model: ov.Model, device: str, options: dict[str, object]) -> ov.CompiledModel:
        self.compiled += 1
        return self._core.compile_model(model, device, options | {"INFERENCE_PRECISION_HINT": "f32"})


@pytest.mark.parametrize(("format", "window"), [("yuv420p", 1), ("yuv420p10le", 4), ("gbrp", 1)])
@pytest.mark.parametrize("form", ["engine", "luma_engine"])
def test_the_form_in_two_pieces_is_the_form_in_one(request, monkeypatch, format, window, form):
    engine = request.getfixturevalue(form)
    many_strips(monkeypatch)
    source = picture(37, 33, format, RGB if format == "gbrp" else LEFT)
    target = target_of(source, 2)
    frames = [f.planes for f in window_frames(window, source)]
    results = []
    for precision in ("f32", "bf16"):
        core = InFloat32()
        runner = StripRunner(core, engine.network, source, target, 2, window=window, precision=precision)
        assert core.compiled == (1 if precision == "f32" else 2)
        results.append(runner.result(runner.submit(frames, 20.0 * 2 ** (source.format.bits - 8))))
    for d in differences(*results):
        assert d.max() <= 1
        assert np.mean(d > 0) < 0.05


def test_auto_precision_is_one_that_keeps_the_codes(paragon):
    engine = load(paragon.deploy, threads=1)
    assert engine.precision in ("f32", *fast_precisions())
    source = picture(44, 48)
    target = target_of(source, 2)
    planes = planes_of(source)
    runner = engine.planar(source, target, 1)
    exact = long_way(engine, source, target, planes)
    assert_one_code(runner.result(runner.submit([planes], 0.0)), exact)


class HalfCpu:
    """OpenVINO's core on a CPU that says it computes in both half precisions; it refuses some, and computes in f32."""

    def __init__(self, *refused: str) -> None:
        self._core, self._refused = ov.Core(), refused
        self.hints: list[str] = []

    def get_property(self, device: str, name: str) -> list[str]:
        assert (device, name) == ("CPU", "OPTIMIZATION_CAPABILITIES")
        return ["FP32", "INT8", "BIN", "FP16", "BF16", "EXPORT_IMPORT"]

    def read_model(self, path: Path) -> ov.Model:
        return self._core.read_model(path)

    def compile_model(self, model: ov.Model, device: str, options: dict[str, object]) -> ov.CompiledModel:
        self.hints.append(str(options["INFERENCE_PRECISION_HINT"]))
        if self.hints[-1] in self._refused:
            raise RuntimeError("primitive descriptor was not found")
        return self._core.compile_model(model, device, options | {"INFERENCE_PRECISION_HINT": "f32"})


FORMS = ["deploy", "image"]


@pytest.fixture
def arm(monkeypatch):
    monkeypatch.setattr("platform.machine", lambda: "aarch64")


def test_on_x86_half_precision_is_for_those_who_ask(paragon, monkeypatch):
    """f16 is slower there than f32, bf16 not exact."""
    monkeypatch.setattr("videosr.engines.openvino.core", HalfCpu)
    monkeypatch.setattr("platform.machine", lambda: "AMD64")
    assert load(paragon.deploy, threads=1).precision == "f32"
    assert load(paragon.deploy, precision="bf16", threads=1).precision == "bf16"


@pytest.mark.usefixtures("arm")
@pytest.mark.parametrize("form", FORMS)
def test_what_a_cpu_can_do_is_asked_for_by_names_that_openvino_knows(paragon, monkeypatch, form):
    cpu = HalfCpu()
    monkeypatch.setattr("videosr.engines.openvino.core", lambda: cpu)
    assert fast_precisions() == ("f16", "bf16")
    engine = load(getattr(paragon, form), threads=1)
    assert engine.precision == "f16"
    assert set(cpu.hints) == {"f32", "f16"}
    exact = load(getattr(paragon, form), precision="f32", threads=1)
    x = np.random.default_rng(0).random((1, 3, 20, 24), np.float32)
    assert np.abs(engine.run(x) - exact.run(x)).max() < 0.01
    source = picture(20, 24)
    assert (engine.planar(source, target_of(source, 2), 1) is not None) == (form == "deploy")


@pytest.mark.usefixtures("arm")
@pytest.mark.parametrize("form", FORMS)
def test_a_precision_that_openvino_refuses_is_passed_over(paragon, monkeypatch, form):
    cpu = HalfCpu("f16")
    monkeypatch.setattr("videosr.engines.openvino.core", lambda: cpu)
    engine = load(getattr(paragon, form), threads=1)
    assert engine.precision == "f32"
    exact = load(getattr(paragon, form), precision="f32", threads=1)
    x = np.random.default_rng(0).random((1, 3, 20, 24), np.float32)
    assert np.array_equal(engine.run(x), exact.run(x))
    if form == "image":  # what is asked for by name is that or nothing
        with pytest.raises(NetworkError, match="primitive descriptor"):
            load(paragon.image, precision="f16", threads=1)


@pytest.mark.usefixtures("arm")
def test_a_precision_that_overflows_is_passed_over(paragon, monkeypatch):
    cpu, compiled, plain = HalfCpu(), OpenVINOEngine._compile, OpenVINOEngine.run
    monkeypatch.setattr("videosr.engines.openvino.core", lambda: cpu)
    in_half = []

    def compile_(self, precision):
        compiled(self, precision)
        in_half.extend([self._request] * (precision == "f16"))

    def run(self, frame, average=None):
        return plain(self, frame, average) * np.float32(np.nan if self._request in in_half else 1)

    monkeypatch.setattr(OpenVINOEngine, "_compile", compile_)
    monkeypatch.setattr(OpenVINOEngine, "run", run)
    assert load(paragon.image, threads=1).precision == "f32"


@pytest.mark.parametrize(("format", "hint"), [("yuv420p12le", "f16"), ("yuv420p16le", "f32")])
def test_deep_samples_are_not_averaged_in_half_precision(paragon, format, hint):
    source, cpu = picture(20, 24, format), HalfCpu()
    network = load(paragon.deploy, precision="f32", threads=1).network
    StripRunner(cpu, network, source, target_of(source, 2), 2, window=4, precision="f16")
    assert cpu.hints[0] == hint


@pytest.mark.parametrize("precision", ["bf16", "f16"])
def test_half_precision_asked_for_is_close(paragon, precision):
    """Where the CPU does not compute in it, OpenVINO takes float32 and nothing is lost."""
    engine = load(paragon.deploy, precision=precision, threads=1)
    assert engine.precision == precision
    assert precision in engine.identity
    source = picture(40, 42)
    target = target_of(source, 2)
    planes = planes_of(source)
    runner = engine.planar(source, target, 1)
    for d in differences(runner.result(runner.submit([planes], 0.0)), long_way(engine, source, target, planes)):
        assert d[2:-2, 2:-2].max() <= 8


# What has no planar form


def test_only_what_can_be_rewritten_is(paragon, engine, tmp_path):
    source = picture(16, 16)
    target = target_of(source, 2)
    assert engine.planar(source, target, 1) is not None
    gray = target_of(source, 2, "gray")
    assert engine.planar(source, gray, 1) is None
    assert engine.planar(picture(16, 16, "gray"), target, 1) is None
    quarter = picture(16, 16, "yuv411p")  # at 2x a pixel owns half a chroma sample
    assert engine.planar(quarter, target_of(quarter, 2), 1) is None
    for path in (paragon.image, paragon.video, paragon.zero_padded):
        assert load(path, precision="f32", threads=1).planar(source, target, 1) is None


def test_networks_that_see_the_whole_picture_have_no_strips(paragon, tmp_path):
    """Those with window or channel attention; their files state no `reach`."""
    import onnx

    model = onnx.load(paragon.deploy)
    kept = [entry for entry in model.metadata_props if entry.key != PREFIX + "reach"]
    del model.metadata_props[:]
    model.metadata_props.extend(kept)
    onnx.save(model, tmp_path / "photo.onnx")
    engine = load(tmp_path / "photo.onnx", precision="f32", threads=1)
    assert engine.interface is Interface.AVERAGE
    source = picture(16, 16)
    assert engine.planar(source, target_of(source, 2), 1) is None


def test_a_file_that_lies_about_its_form_is_refused(tmp_path):
    import onnx

    path = networks.nearest(tmp_path / "liar.onnx")
    model = onnx.load(path)
    for key, value in {"form": "deploy", "halo": "8", "reach": "7", "scale": "2"}.items():
        model.metadata_props.add(key=PREFIX + key, value=value)
    onnx.save(model, path)
    engine = load(path, precision="f32", threads=1)
    source = picture(16, 16)
    with pytest.raises(NetworkError, match=r"liar\.onnx.*deployment form"):
        engine.planar(source, target_of(source, 2), 1)

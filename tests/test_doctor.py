"""`videosr doctor`: useful on any machine, each gap with its remedy."""

from __future__ import annotations

import json
import sys
import tomllib
from pathlib import Path
from types import SimpleNamespace

import av
import openvino
import pytest

from videosr import doctor
from videosr.engines import ENGINES, native_library
from videosr.engines.gpu_device import Gpu
from videosr.engines.nvidia import NoDriverError
from videosr.errors import remedy

RTX = Gpu("Stand-in 3000", (8, 6), "580.65.06, CUDA 13.2", 12 << 30)
HOPPER = Gpu("Stand-in H", (9, 0), "580.65.06, CUDA 13.2", 80 << 30)


def findings(report):
    return {finding.name: finding for finding in (*report.engines, *report.gpus)}


@pytest.fixture
def machine(monkeypatch):
    """A machine with these GPUs, or none."""

    def make(*gpus):
        def ask():
            if not gpus:
                raise NoDriverError("no NVIDIA driver (libcuda.so.1 is not there): install one from nvidia.com/drivers")
            return gpus

        monkeypatch.setattr(doctor, "gpus", ask)

    return make


def test_a_machine_without_a_gpu(machine, videosr):
    machine()
    outcome = videosr("doctor")
    assert (outcome.code, outcome.err) == (0, "")
    for said in (
        av.__version__,
        "libx264",
        "openvino",
        openvino.__version__.split("-")[0],
        "-> install one from nvidia",
    ):
        assert said in outcome.out
    report = json.loads(videosr("doctor", "--json").out)
    found = {finding["name"]: finding for finding in report["engines"]}
    assert set(ENGINES) < set(found)
    assert found["openvino"]["ready"]
    assert not found["tensorrt_rtx"]["ready"]
    assert report["gpus"][0]["remedy"].startswith("install")
    assert report["system"]["instructions"]


def test_precisions_are_called_as_the_option_calls_them(machine, monkeypatch):
    machine()
    able = SimpleNamespace(get_property=lambda device, name: ["FP32", "BF16", "FP16"])
    monkeypatch.setattr("videosr.engines.openvino.core", lambda: able)
    about = findings(doctor.examine())["openvino"].about
    assert "the CPU computes f32 and f16, bf16 (--precision bf16: faster with AMX" in about


@pytest.mark.parametrize(("gpu", "larger"), [(Gpu("Stand-in 2000", (7, 5), "580", 6 << 30), False), (HOPPER, True)])
def test_our_kernels_name_the_networks_that_they_run_there(machine, monkeypatch, gpu, larger):
    machine(gpu)
    monkeypatch.setattr(doctor.importlib.util, "find_spec", lambda name: SimpleNamespace())
    about = doctor._own((gpu,), "").about
    assert "realtime" in about
    assert ("stream, fine" in about) is larger


def test_what_is_not_installed_names_its_extra(machine, monkeypatch):
    machine(RTX)
    find = doctor.importlib.util.find_spec
    monkeypatch.setattr(
        doctor.importlib.util, "find_spec", lambda name: None if name in ("torch", "cupy") else find(name)
    )
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    found = findings(doctor.examine())
    remedies = {"torch": "torch", "cupy": "cuda", "tensorrt": "tensorrt", "tensorrt_rtx": "cuda"}
    for name, extra in remedies.items():
        assert not found[name].ready
        assert found[name].remedy == remedy(extra)
    assert found["cuda"].ready
    assert RTX.name in found["cuda"].about


def test_gpus_that_tensorrt_rtx_serves_and_does_not(machine, monkeypatch):
    pytest.importorskip("tensorrt_rtx")
    find = doctor.importlib.util.find_spec
    monkeypatch.setattr(doctor.importlib.util, "find_spec", lambda name: find("sys") if name == "cupy" else find(name))
    machine(RTX)
    finding = findings(doctor.examine())["tensorrt_rtx"]
    assert finding.ready
    assert "--engine tensorrt_rtx --device cuda" in finding.about
    machine(HOPPER)
    finding = findings(doctor.examine())["tensorrt_rtx"]
    assert not finding.ready
    assert "9.0" in finding.about
    assert "--engine tensorrt" in finding.remedy
    monkeypatch.setattr(doctor.importlib.util, "find_spec", lambda name: None if name == "onnx" else find("sys"))
    machine(RTX)
    finding = findings(doctor.examine())["tensorrt_rtx"]
    assert not finding.ready
    assert "onnx is not installed" in finding.about
    assert finding.remedy == remedy("cuda")


def test_a_library_that_does_not_load_is_told_apart_from_one_that_is_missing(machine, monkeypatch, tmp_path):
    (tmp_path / "tensorrt.py").write_text("raise OSError('libnvinfer.so.11: cannot open shared object file')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "tensorrt", raising=False)
    machine(RTX)
    finding = findings(doctor.examine())["tensorrt"]
    assert not finding.ready
    assert "libnvinfer.so.11" in finding.about
    assert finding.remedy


def test_what_auto_would_take(machine, monkeypatch):
    pytest.importorskip("tensorrt_rtx")
    find = doctor.importlib.util.find_spec
    there = {"cupy", "onnx"}
    monkeypatch.setattr(doctor.importlib.util, "find_spec", lambda name: find("sys") if name in there else find(name))
    machine()
    report = doctor.examine()
    cpu = "native" if findings(report)["native"].ready else "openvino"
    assert report.auto == f"the CPU ({cpu}): no NVIDIA driver (libcuda.so.1 is not there)"
    assert report.lines()[-1] == f"--device auto takes {report.auto}"
    machine(RTX)
    assert doctor.examine().auto == f"{RTX.name} with tensorrt_rtx, else the CPU ({cpu})"
    machine(HOPPER)
    report = doctor.examine()
    assert report.auto == f"{HOPPER.name} with cuda, else the CPU ({cpu})"
    assert next(e for e in report.engines if e.name == "cuda").ready
    assert "--engine cuda" in findings(report)["tensorrt_rtx"].remedy


def test_what_decodes_and_encodes_on_the_gpu(machine, monkeypatch):
    machine()
    media = doctor.examine().media
    assert media["NVDEC"] == media["NVENC"] == "none without a GPU"
    machine(HOPPER)

    def refuse(settings, picture, container):
        raise doctor.UsageError(f"--codec {settings.codec}: NVENC cannot be used here")

    monkeypatch.setattr(doctor, "acceleration", lambda index: None)
    monkeypatch.setattr(doctor, "resolve", refuse)
    media = doctor.examine().media
    assert media["NVDEC"].startswith("decodes av1, h264, hevc, vp8, vp9 on Stand-in H")
    assert media["NVENC"].startswith("none: --codec")
    monkeypatch.setattr(doctor, "resolve", lambda settings, picture, container: settings)
    assert doctor.examine().media["NVENC"] == "av1_nvenc h264_nvenc hevc_nvenc"


def test_kernels_that_were_not_compiled_have_a_remedy(machine, monkeypatch, tmp_path):
    machine()
    monkeypatch.setattr("videosr.engines.native_library.FOLDER", tmp_path)
    native_library._library.cache_clear()
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    report = doctor.examine()
    native_library._library.cache_clear()
    finding = findings(report)["native"]
    assert not finding.ready
    assert finding.about == "the native engine's kernels were not compiled"
    assert "C compiler" in finding.remedy
    assert report.auto.startswith("the CPU (openvino)")


def test_no_text_sends_people_to_a_package_index():
    """videosr is on none, and anyone could take its name there."""
    root = Path(doctor.__file__).parent.parent
    texts = [
        root / "README.md",
        *(p for room in ("videosr", "docs", "scripts", "samples") for p in (root / room).rglob("*")),
    ]
    for path in texts:
        if path.suffix in (".py", ".md", ".vpy", ".toml"):
            assert "videosr[" not in path.read_text(encoding="utf-8"), path
    extras = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    assert {"cuda", "iqa", "ray", "serve", "tensorrt", "torch", "train"} <= set(extras)

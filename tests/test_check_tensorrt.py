"""The script for people with a card: it runs here on the stand-in, so that it will not fail there for its own sake."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("tensorrt_rtx")
pytest.importorskip("onnxruntime")
pytest.importorskip("torch")

from hostdevice import HostDevice, OnnxLoader

from videosr.engines.cache import Cache
from videosr.engines.tensorrt import TensorRTEngine

SCRIPT = Path(__file__).parent.parent / "scripts" / "check_tensorrt.py"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("check_tensorrt", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def maker(cache, spoil=lambda precision, picture: picture):
    def make(network, precision):
        options = {"library": "tensorrt_rtx", "precision": precision, "cache": cache}
        return TensorRTEngine(network, device=HostDevice(), loader=OnnxLoader(spoil), **options)

    return make


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return Cache(tmp_path_factory.mktemp("engines"))


def test_both_forms_and_precisions_are_checked(script, cache, capsys):
    code = script.main(["--size", "64x48", "--count", "2"], maker(cache))
    out = capsys.readouterr().out
    assert code == 0, out
    for said in (
        "average form",
        "recurrent form",
        "f16:",
        "f32:",
        "ok  64x48",
        "ok  131x97",
        "all is well",
        "frames/s",
    ):
        assert said in out


def test_what_is_wrong_is_said(script, cache, capsys):
    """A few wrong samples in a corner that the self-test of the engine has let pass."""

    def spoil(precision, picture):
        return np.concatenate([picture[..., :-2], picture[..., -2:] + np.float32(0.03)], axis=3)

    assert script.main(["--size", "64x48", "--count", "1"], maker(cache, spoil)) == 1
    out = capsys.readouterr().out
    assert "BAD" in out
    assert "something is wrong" in out


def test_without_a_gpu_it_says_so(script, capsys):
    cupy = pytest.importorskip("cupy")
    try:
        if cupy.cuda.runtime.getDeviceCount():
            pytest.skip("there is a GPU here")
    except cupy.cuda.runtime.CUDARuntimeError:
        pass
    assert script.main(["--size", "64x48", "--published", "none.onnx"]) == 1
    assert "BAD no CUDA device" in capsys.readouterr().out

"""The self-test: what it compares, what it sees, and how little the CPU has to do for it."""

from __future__ import annotations

import sys

import numpy as np
import pytest

pytest.importorskip("onnxruntime")
pytest.importorskip("torch")

from videosr.engines.base import Interface
from videosr.engines.network import Network
from videosr.engines.onnxruntime import OnnxRuntimeEngine
from videosr.engines.openvino import OpenVINOEngine
from videosr.engines.tensorrt_check import pictures, reference_of, self_test


class Counted(OpenVINOEngine):
    """Counts the pixels it is given."""

    pixels = 0

    def run(self, frame, average=None):
        self.pixels += frame.shape[2] * frame.shape[3]
        return super().run(frame, average)


def verdict(path, size, spoil=lambda out, i: out, precision="f32", blend=0.2):
    engine = OnnxRuntimeEngine(Network.open(path), threads=1)
    reference = Counted(Network.open(path), precision="f32", threads=1)
    reference.pixels = 0
    seen = []

    def step(frame, average, reset):
        seen.append(reset)
        recurs = engine.interface is Interface.RECURRENT
        out = engine.step(frame, reset=reset) if recurs else engine.run(frame, average)
        return spoil(out.copy(), len(seen) - 1)

    result = self_test(step, engine.interface, reference, size, precision, blend)
    assert seen == [True, False, False]
    return result, reference.pixels


@pytest.mark.parametrize("form", ["deploy", "image", "video"])
def test_engines_that_are_right_pass(paragon, form):
    result, _ = verdict(getattr(paragon, form), (40, 52))
    assert result.problem == ""
    assert result.psnr > 100


def test_where_openvino_is_missing_onnx_runtime_is_the_reference(paragon, monkeypatch):
    assert isinstance(reference_of(Network.open(paragon.deploy)), OpenVINOEngine)
    monkeypatch.setitem(sys.modules, "videosr.engines.openvino", None)
    reference = reference_of(Network.open(paragon.deploy))
    assert isinstance(reference, OnnxRuntimeEngine)
    assert reference.precision == "f32"


def test_a_corner_is_enough_where_pixels_see_only_so_far(paragon):
    result, pixels = verdict(paragon.deploy, (300, 290))
    assert result.problem == ""
    assert pixels == 3 * 256 * 256


def test_errors_are_seen_in_any_frame_and_form(paragon):
    def noise(out, i):
        return out + (i == 2) * np.float32(0.01) * (-1) ** np.arange(out.shape[3])

    for form in ("deploy", "video"):
        result, _ = verdict(getattr(paragon, form), (40, 52), noise)
        assert "dB to the reference" in result.problem
        assert result.psnr == pytest.approx(40, abs=0.1)  # 0.01 off everywhere


def test_a_wrong_recurrence_is_seen(paragon):
    result, _ = verdict(paragon.video, (40, 52), blend=0.5)
    assert "dB" in result.problem


def test_what_is_not_finite_is_seen_beyond_the_corner_too(paragon):
    def spoil(out, i):
        out[..., -1, -1] = np.inf
        return out

    assert "not finite" in verdict(paragon.deploy, (300, 290), spoil)[0].problem


def test_black_is_called_by_its_name(paragon):
    assert "black" in verdict(paragon.deploy, (40, 52), lambda out, i: out * 0)[0].problem


@pytest.mark.parametrize("size", [(1, 1), (7, 3), (96, 128)])
def test_pictures_have_something_of_everything(size):
    frames = pictures(size)
    assert len(frames) == 3
    for frame in frames:
        assert (frame.shape, frame.dtype) == ((1, 3, *size), np.float32)
        assert 0 <= frame.min() <= frame.max() <= 1
    if size == (96, 128):
        assert np.abs(frames[0] - frames[1]).max() > 0.5
        assert frames[0].std() > 0.2
    assert all(np.array_equal(a, b) for a, b in zip(frames, pictures(size), strict=True))

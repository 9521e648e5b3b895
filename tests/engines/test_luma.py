"""Networks of luma alone."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from pictures import LEFT, picture, planes_of

pytest.importorskip("onnx")

import networks

from videosr import color
from videosr.engines import Interface, load
from videosr.frame import Frame, Matrix
from videosr.options import UpscaleOptions
from videosr.upscaler import Upscaler


@pytest.fixture(params=["openvino", "onnxruntime"])
def engine(request, tmp_path):
    pytest.importorskip(request.param)
    return load(networks.luma(tmp_path / "luma.onnx"), request.param)


def luma_of(rgb):
    return np.einsum("nchw,c->nhw", rgb, [0.2126, 0.7152, 0.0722])[:, None]


def test_luma_is_the_networks_and_colour_is_interpolated(engine):
    assert (engine.scale, engine.interface) == (2, Interface.IMAGE)
    frame = np.random.default_rng(3).random((2, 3, 9, 14), np.float32)
    made = engine.run(frame)
    big = luma_of(frame).repeat(2, axis=2).repeat(2, axis=3)
    rest = np.stack([color.enlarge(picture, 2) for picture in frame - luma_of(frame)])
    assert np.allclose(luma_of(made), big, atol=1e-5)
    assert np.allclose(made - luma_of(made), rest, atol=1e-5)


def test_grey_stays_grey(engine):
    grey = np.random.default_rng(4).random((1, 1, 9, 14), np.float32).repeat(3, axis=1)
    assert np.allclose(engine.run(grey), grey.repeat(2, axis=2).repeat(2, axis=3), atol=1e-6)


@pytest.mark.parametrize("matrix", [Matrix.BT709, Matrix.SMPTE170M])
def test_video_gets_its_luma_from_the_network_and_chroma_from_its_own_planes(engine, matrix):
    """What the network enlarges is BT.709's luma; of other video's luma the difference from it is interpolated."""
    source = picture(32, 48, spec=replace(LEFT, matrix=matrix))
    planes = planes_of(source)
    frame = Frame(planes=planes, format=source.format, pts=0, time_base=Fraction(1), color=source.color)
    made = Upscaler(UpscaleOptions(), engine).picture([frame])
    off = made.planes[0].astype(int) - planes[0].repeat(2, axis=0).repeat(2, axis=1)
    if matrix == Matrix.BT709:
        assert np.abs(off).max() <= 1
    else:
        assert np.abs(off).mean() < 2
    for plane, small in zip(made.planes[1:], planes[1:], strict=True):
        assert plane.shape == (32, 48)
        assert abs(float(plane.mean()) - float(small.mean())) < 1

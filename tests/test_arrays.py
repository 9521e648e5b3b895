"""Arrays of other libraries in and out."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import numpy as np
import pytest

from videosr.arrays import frame_of, native, picture_of
from videosr.errors import MissingExtraError, UsageError
from videosr.frame import ColorSpec, Frame, Matrix, PixelFormat, namespace


def rgb(dtype=np.uint8, shape=(3, 6, 10)):
    return np.random.default_rng(0).integers(0, np.iinfo(dtype).max, shape, dtype, endpoint=True)


class OnCpu:
    """An array that speaks DLPack and nothing else."""

    def __init__(self, array):
        self._array = array

    def __dlpack__(self, **options):
        return self._array.__dlpack__(**options)

    def __dlpack_device__(self):
        return self._array.__dlpack_device__()


class OnGpu:
    """An array that says it is on a GPU."""

    @property
    def __cuda_array_interface__(self):
        return {"shape": (3, 2, 2), "typestr": "|u1", "data": (4096, False), "version": 3}

    def __dlpack__(self, **options):
        raise AssertionError("not asked for without cupy")

    def __dlpack_device__(self):
        return (2, 0)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("wrap", [np.asarray, OnCpu])
def test_a_picture_comes_back_as_it_went(dtype, wrap):
    source = rgb(dtype)
    frame = frame_of(wrap(source), pts=7)
    assert (frame.height, frame.width, frame.pts) == (6, 10, 7)
    assert frame.format.bits == 8 * source.itemsize
    assert all(plane.flags.c_contiguous for plane in frame.planes)
    assert np.array_equal(picture_of(frame), source)


def test_a_frame_owns_its_planes():
    source = rgb()
    frame = frame_of(OnCpu(source))
    before = picture_of(frame)
    source[...] = 0
    assert np.array_equal(picture_of(frame), before)


def test_any_strides_are_taken():
    source = rgb(shape=(6, 10, 3))
    assert np.array_equal(picture_of(frame_of(np.moveaxis(source, 2, 0)))[1], source[:, :, 1])


def test_any_byte_order_is_taken():
    array = rgb(np.uint16)
    frame = frame_of(array.astype(">u2"))
    assert [plane.dtype for plane in frame.planes] == [np.dtype(np.uint16)] * 3  # what reads the bytes asks no more
    assert np.array_equal(picture_of(frame), array)


def test_torch_tensors_go_in_and_out():
    torch = pytest.importorskip("torch")
    source = torch.from_numpy(rgb())
    assert native(source).ctypes.data == source.data_ptr()
    frame = frame_of(source.flip(1))
    assert torch.equal(torch.from_dlpack(picture_of(frame)), source.flip(1))


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (rgb(shape=(6, 10, 3)), r"\(6, 10, 3\)"),
        (rgb(shape=(3, 0, 4)), r"\(3, 0, 4\)"),
        (np.zeros((3, 4, 4), np.float32), "float32"),
        ([[1, 2]], "list is no array"),
    ],
)
def test_what_is_no_picture_is_refused(array, words):
    with pytest.raises(UsageError, match=words):
        frame_of(array)


def test_tensors_that_no_array_can_be_are_refused():
    torch = pytest.importorskip("torch")
    for tensor in (torch.zeros(3, 4, 4, requires_grad=True), torch.zeros(3, 4, 4, dtype=torch.bfloat16)):
        with pytest.raises(UsageError, match="Tensor cannot be taken as it is: "):
            frame_of(tensor)


def test_colours_that_do_not_fit_are_refused():
    with pytest.raises(UsageError, match="BT709"):
        frame_of(rgb(), color=ColorSpec(matrix=Matrix.BT709))
    gray = Frame(planes=(rgb()[0],), format=PixelFormat.parse("gray"), pts=0, time_base=frame_of(rgb()).time_base)
    with pytest.raises(UsageError, match="gray is no R'G'B'"):
        picture_of(gray)


class OnTheGpu:
    """A tensor as torch's: both protocols, of which one alone knows of streams."""

    __cuda_array_interface__ = {"data": (0, False)}  # noqa: RUF012

    def __dlpack__(self, **options):
        raise AssertionError("for the likeness of cupy to ask")

    def __dlpack_device__(self):
        return 2, 0


def test_dlpack_is_asked_before_the_interface_that_names_no_stream(monkeypatch):
    cupy = SimpleNamespace(from_dlpack=lambda array: "dlpack", asarray=lambda array: "interface")
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    assert native(OnTheGpu()) == "dlpack"
    assert native(SimpleNamespace(__cuda_array_interface__={})) == "interface"


def test_a_missing_cupy_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)
    with pytest.raises(MissingExtraError, match=r"--extra cuda "):
        native(OnGpu())


def test_the_namespace_is_that_of_the_library_that_made_the_array():
    assert namespace(rgb()) is np
    cupy = pytest.importorskip("cupy")
    assert cupy.ndarray.__module__.partition(".")[0] == "cupy"  # as `namespace` finds it
    assert hasattr(cupy.ndarray, "get")  # as frames on the GPU are known by


@pytest.mark.gpu
def test_arrays_of_the_gpu_stay_there():
    import cupy

    source = rgb()
    frame = frame_of(cupy.asarray(source))
    assert frame.on_gpu
    made = picture_of(frame)
    assert isinstance(made, cupy.ndarray)
    assert np.array_equal(made.get(), source)
    torch = pytest.importorskip("torch")
    tensor = torch.from_dlpack(made)
    assert tensor.is_cuda
    assert tensor.data_ptr() == made.data.ptr
    assert isinstance(native(tensor), cupy.ndarray)

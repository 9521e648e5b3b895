"""The calls into cupy, beside a likeness of it that knows of devices, threads and errors."""

from __future__ import annotations

import importlib
import importlib.abc
import sys
import threading
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import videosr.engines
from videosr.engines.cuda_realtime import SOURCE
from videosr.engines.gpu_device import cuda_device
from videosr.errors import EngineError, MissingExtraError

KERNELS = Path(videosr.engines.__file__).parent / "kernels"


class CudaError(RuntimeError):
    """As cupy's: CUDA's name of it, and a number."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class OutOfMemoryError(MemoryError):
    pass


class Kernel:
    """Counts what it is told."""

    def __init__(self, name: str) -> None:
        self.name, self.launches = name, []
        self.told: list[tuple[str, int]] = []

    def __setattr__(self, name, value):
        if name in ("max_dynamic_shared_size_bytes", "preferred_shared_memory_carveout"):
            self.told.append((name, value))
        else:
            super().__setattr__(name, value)

    def __call__(self, grid, block, args, *, shared_mem):
        self.launches.append((grid, block, args, shared_mem))


class Cupy:
    """What of cupy is called; `made` says on which device it was, and `fails` makes a call fail."""

    def __init__(self) -> None:
        self.current, self.made, self.fails = threading.local(), [], {}
        self.modules: list[SimpleNamespace] = []
        runtime = SimpleNamespace(
            CUDARuntimeError=CudaError,
            getDeviceProperties=lambda index: {
                "name": b"Fake",
                "major": 9,
                "minor": 0,
                "multiProcessorCount": 132,
                "totalGlobalMem": 1 << 37,
            },
            driverGetVersion=lambda: 13000,
            memGetInfo=lambda: (100 - self.device, 200),
        )
        self.cuda = SimpleNamespace(
            runtime=runtime,
            driver=SimpleNamespace(CUDADriverError=type("CUDADriverError", (RuntimeError,), {"status": 700})),
            memory=SimpleNamespace(OutOfMemoryError=OutOfMemoryError),
            compiler=SimpleNamespace(CompileException=type("CompileException", (Exception,), {})),
            Device=lambda index: SimpleNamespace(id=index, use=lambda: setattr(self.current, "index", index)),
            Stream=lambda non_blocking: self.make("stream"),
            Event=lambda block, disable_timing: self.make("event"),
        )

    @property
    def device(self) -> int:
        return getattr(self.current, "index", 0)

    def make(self, what):
        if what in self.fails:
            raise self.fails[what]
        self.made.append((what, self.device))

        @contextmanager
        def entered():
            yield

        made = entered()
        made.wait_event = lambda event: self.make("wait")
        made.record = lambda stream: self.make("record")
        made.begin_capture = lambda: self.make("begin")
        made.end_capture = lambda: SimpleNamespace(launch=lambda stream: self.make("launch"), end=self.make("end"))
        return made

    def empty(self, shape, dtype):
        self.make("memory")
        return np.empty(shape, dtype)

    def RawModule(self, *, code, options):  # noqa: N802 - as it is called there
        module = SimpleNamespace(code=code, options=options, compile=lambda: self.make("module"), get_function=Kernel)
        self.modules.append(module)
        return module


@pytest.fixture
def cupy(monkeypatch):
    fake = Cupy()
    pinned = SimpleNamespace(empty_pinned=lambda shape, dtype: fake.empty(shape, dtype))
    monkeypatch.setitem(sys.modules, "cupy", fake)
    monkeypatch.setitem(sys.modules, "cupyx", pinned)
    monkeypatch.delitem(sys.modules, "videosr.engines.gpu_cupy", raising=False)
    yield fake
    sys.modules.pop("videosr.engines.gpu_cupy", None)


@pytest.fixture
def device(cupy):
    return importlib.import_module("videosr.engines.gpu_cupy").CupyDevice(1)


def test_whatever_is_made_is_on_the_device_in_every_thread(cupy, device):
    def work():
        stream, event = device.stream(), device.event()
        device.record(event, stream)
        device.wait(stream, event)
        device.empty((2,), "uint8")
        device.pinned((2,), "uint8")
        device.kernels("statistics.cu", {})
        device.capture(lambda: None, stream).launch(stream)
        assert device.used_memory() == 101  # of this device

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert {what for what, _ in cupy.made} == {
        *("stream", "event", "record", "wait", "memory", "module", "begin", "end", "launch")
    }
    assert {index for _, index in cupy.made} == {1}


def test_errors_of_cuda_are_one_line_with_a_remedy(cupy, device):
    cupy.fails["event"] = CudaError(700, "cudaErrorIllegalAddress: an illegal memory access was encountered")
    with pytest.raises(
        EngineError, match=r"^Fake: cudaErrorIllegalAddress.*; see videosr doctor, or give --device cpu"
    ):
        device.event()
    for failure in (OutOfMemoryError("5 bytes"), CudaError(2, "cudaErrorMemoryAllocation")):
        cupy.fails["memory"] = failure
        for call in (device.empty, device.pinned):
            with pytest.raises(EngineError, match=r"^Fake: out of memory; close other programs or give --tile"):
                call((1,), "uint8")


def test_a_cupy_that_does_not_load_is_told_in_one_line(monkeypatch):
    """It says what libraries it misses over many lines; `--device auto` then goes on with the next engine."""

    class Broken(importlib.abc.MetaPathFinder):
        def find_spec(self, name, path, target=None):
            if name == "cupy":
                raise ImportError("\n====\nFailed to import CuPy.\n\nlibcudart.so.13: cannot open\n====")

    monkeypatch.delitem(sys.modules, "cupy", raising=False)
    monkeypatch.delitem(sys.modules, "videosr.engines.gpu_cupy", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Broken(), *sys.meta_path])
    with pytest.raises(
        EngineError, match=r"^cupy is installed but does not load: Failed to import CuPy\.; install it anew"
    ):
        cuda_device(0, "the cuda engine")
    monkeypatch.setitem(sys.modules, "cupy", None)
    with pytest.raises(MissingExtraError, match=r"the cuda engine .*--extra cuda videosr"):
        cuda_device(0, "the cuda engine")


def test_a_graph_that_cannot_be_recorded_ends_its_recording(cupy, device):
    stream = device.stream()

    def work():
        raise EngineError("the library refused")

    with pytest.raises(EngineError, match=r"no CUDA graph of this engine: the library refused"):
        device.capture(work, stream)
    assert cupy.made[-1][0] == "end"


@pytest.mark.parametrize(
    ("failure", "reason"),
    [
        (RuntimeError("Failed to find CUDA headers. Please install CUDA toolkit"), "Failed to find CUDA headers"),
        (
            "kern.cu(3): warning: odd\nkern.cu(9): error: no such thing\n1 error detected",
            r"kern.cu\(9\): error: no such",
        ),
    ],
)
def test_kernels_that_cannot_be_compiled_say_why_in_one_line(cupy, device, failure, reason):
    cupy.fails["module"] = cupy.cuda.compiler.CompileException(failure) if isinstance(failure, str) else failure
    with pytest.raises(EngineError, match=rf"^Fake: statistics.cu cannot be compiled: {reason}") as caught:
        device.kernels("statistics.cu", {})
    assert "\n" not in str(caught.value)


def test_what_a_source_includes_is_part_of_what_cupy_knows_it_by(cupy, device, monkeypatch):
    """cupy keeps compiled kernels by their source: a header that has changed would go unseen."""
    device.kernels(SOURCE, {"SCALE": 2})
    read = Path.read_bytes
    monkeypatch.setattr(Path, "read_bytes", lambda self: read(self) + b"//" * (self.name == "tensor.cuh"))
    device.kernels(SOURCE, {"SCALE": 2})
    first, second = cupy.modules
    assert first.code != second.code
    assert first.code.startswith((KERNELS / SOURCE).read_text(encoding="utf-8"))
    assert f"-I{KERNELS}" in first.options
    assert "-DSCALE=2" in first.options


def test_shared_memory_beyond_48_kb_is_asked_for_once(device):
    kernels = device.kernels(SOURCE, {})
    for _ in range(2):
        kernels.launch("realtime", (3, 2, 1), (192, 1, 1), [np.int32(5)], 110592)
    kernels.launch("small", (1,), (32,), [], 1024)
    large, small = kernels._functions["realtime"], kernels._functions["small"]
    assert large.told == [("max_dynamic_shared_size_bytes", 110592), ("preferred_shared_memory_carveout", 100)]
    assert large.launches == [((3, 2, 1), (192, 1, 1), (np.int32(5),), 110592)] * 2
    assert small.told == []

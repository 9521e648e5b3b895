"""What the driver says of its GPUs: asked of a driver made in Python, with what real ones do."""

from __future__ import annotations

import ctypes

import pytest

from videosr.engines import nvidia


class Driver:
    """`libcuda` and `libnvidia-ml` as far as they are asked."""

    def __init__(self, *, devices=1, fails: dict[str, int] | None = None) -> None:
        self.devices, self.fails = devices, fails or {}

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)

        def call(*arguments):
            if name in self.fails:
                return self.fails[name]
            first = getattr(arguments[0], "_obj", None) if arguments else None
            if name == "cuDriverGetVersion":
                first.value = 13020
            elif name == "cuDeviceGetCount":
                first.value = self.devices
            elif name == "cuDeviceGet":
                first.value = 10 + arguments[1]
            elif name == "cuDeviceGetName":
                arguments[0].value = f"GPU {arguments[2].value}".encode()
            elif name == "cuDeviceGetAttribute":
                first.value = {75: 8, 76: 6}[arguments[1]]
            elif name == "cuDeviceTotalMem_v2":
                first.value = 12 << 30
            elif name == "cuGetErrorName":
                names = {100: b"CUDA_ERROR_NO_DEVICE", 803: b"CUDA_ERROR_SYSTEM_DRIVER_MISMATCH"}
                if arguments[0] not in names:
                    return 1
                arguments[1]._obj.value = names[arguments[0]]
            elif name == "nvmlSystemGetDriverVersion":
                arguments[0].value = b"580.65.06"
            return 0

        return call


@pytest.fixture
def driver(monkeypatch):
    def install(cuda, nvml=None):
        libraries = {nvidia._CUDA: cuda, nvidia._NVML: nvml}

        def find(name):
            if libraries.get(name) is None:
                raise OSError(f"{name}: cannot open shared object file")
            return libraries[name]

        monkeypatch.setattr(ctypes, "CDLL", find)
        nvidia.gpus.cache_clear()

    yield install
    nvidia.gpus.cache_clear()


def test_gpus_by_what_engines_depend_on(driver):
    driver(Driver(devices=2), Driver())
    first, second = nvidia.gpus()
    assert (first.name, second.name) == ("GPU 10", "GPU 11")
    assert first.capability == (8, 6)
    assert first.driver == "580.65.06, CUDA 13.2"
    assert first.memory == 12 << 30
    assert str(first) == "GPU 10 (compute capability 8.6, driver 580.65.06, CUDA 13.2)"


@pytest.mark.parametrize(
    "nvml", [None, Driver(fails={"nvmlInit_v2": 1}), Driver(fails={"nvmlSystemGetDriverVersion": 1})]
)
def test_the_release_is_left_out_where_it_is_not_known(driver, nvml):
    driver(Driver(), nvml)
    assert nvidia.gpus()[0].driver == "CUDA 13.2"


@pytest.mark.parametrize(
    ("cuda", "said"),
    [
        (None, "no NVIDIA driver.*install"),
        (Driver(fails={"cuInit": 100}), "no GPU.*nvidia-smi"),
        (Driver(fails={"cuInit": 803}), "does not work.*CUDA_ERROR_SYSTEM_DRIVER_MISMATCH"),
        (Driver(fails={"cuDeviceTotalMem_v2": 999}), "cuDeviceTotalMem_v2: error 999"),
    ],
)
def test_drivers_that_do_not_work_say_why(driver, cuda, said):
    driver(cuda)
    with pytest.raises(nvidia.NoDriverError, match=said):
        nvidia.gpus()


@pytest.mark.gpu
def test_the_driver_and_cupy_agree():
    from videosr.engines.gpu_cupy import CupyDevice

    assert nvidia.gpus()[0] == CupyDevice().gpu

"""Which NVIDIA GPUs and driver this machine has, asked of the driver itself: nothing has to be installed for it."""

from __future__ import annotations

import ctypes
import sys
from ctypes import byref, c_char_p, c_int, c_size_t, create_string_buffer
from functools import cache

from videosr.engines.gpu_device import Gpu

_MAJOR, _MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, _MINOR (cuda.h)
_CUDA = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
_NVML = "nvml.dll" if sys.platform == "win32" else "libnvidia-ml.so.1"


class NoDriverError(Exception):
    """There is no working CUDA driver; the message says why, and what to do."""


@cache
def gpus() -> tuple[Gpu, ...]:
    """The GPUs that CUDA shows (`CUDA_VISIBLE_DEVICES` applies).

    Raises:
        NoDriverError: no driver, or it does not work.
    """
    try:
        cuda = ctypes.CDLL(_CUDA)
    except OSError as exc:
        raise NoDriverError(f"no NVIDIA driver ({_CUDA} is not there): install one from nvidia.com/drivers") from exc

    def call(name: str, *arguments: object) -> None:
        code = getattr(cuda, name)(*arguments)
        if code:
            text = c_char_p()
            known = cuda.cuGetErrorName(code, byref(text)) == 0 and text.value
            said = text.value.decode() if known and text.value else f"error {code}"
            if said == "CUDA_ERROR_NO_DEVICE":
                raise NoDriverError("the NVIDIA driver shows no GPU: see nvidia-smi, and CUDA_VISIBLE_DEVICES")
            raise NoDriverError(f"the NVIDIA driver does not work ({name}: {said}): install it anew, or restart")

    call("cuInit", 0)
    count, version = c_int(), c_int()
    call("cuDriverGetVersion", byref(version))
    call("cuDeviceGetCount", byref(count))
    driver = driver_text(version.value)
    found = []
    for index in range(count.value):
        device, major, minor, total = c_int(), c_int(), c_int(), c_size_t()
        name = create_string_buffer(256)
        call("cuDeviceGet", byref(device), index)
        call("cuDeviceGetName", name, len(name), device)
        call("cuDeviceGetAttribute", byref(major), _MAJOR, device)
        call("cuDeviceGetAttribute", byref(minor), _MINOR, device)
        call("cuDeviceTotalMem_v2", byref(total), device)
        found.append(Gpu(name.value.decode(), (major.value, minor.value), driver, total.value))
    return tuple(found)


def driver_text(version: int) -> str:
    """The driver's release and the CUDA version it speaks, as "580.65.06, CUDA 13.2"; the latter alone if need be.

    Args:
        version: as CUDA encodes it, 13020 for 13.2.
    """
    cuda = f"CUDA {version // 1000}.{version % 1000 // 10}"
    try:
        nvml = ctypes.CDLL(_NVML)
        release = create_string_buffer(96)
        if nvml.nvmlInit_v2() == 0:
            known = nvml.nvmlSystemGetDriverVersion(release, len(release)) == 0
            nvml.nvmlShutdown()
            if known:
                return f"{release.value.decode()}, {cuda}"
    except (OSError, AttributeError):
        pass
    return cuda

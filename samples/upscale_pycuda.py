"""Upscale a picture that pycuda has on the GPU, and run a kernel of one's own on the result: nothing is copied back.

python samples/upscale_pycuda.py

Needs an NVIDIA GPU, the extra `cuda`, and pycuda, which compiles against a CUDA toolkit.
"""

from __future__ import annotations

import numpy as np
import pycuda.autoprimaryctx  # the context that videosr, cupy and torch use as well
import pycuda.driver as cuda
from pycuda import gpuarray
from pycuda.compiler import SourceModule

from videosr.arrays import frame_of, picture_of
from videosr.options import UpscaleOptions
from videosr.upscaler import Upscaler

NEGATIVE = """
__global__ void negative(unsigned char *codes, int count) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < count) codes[i] = 255 - codes[i];
}
"""


def main() -> None:
    y, x = np.mgrid[:90, :160]
    rgb = np.stack([x * 255 // 160, y * 255 // 90, 0 * x + 60]).astype(np.uint8)
    picture = gpuarray.to_gpu(rgb)  # (3, height, width)
    cuda.Context.synchronize()
    upscaler = Upscaler(UpscaleOptions(device="cuda"))
    (frame,) = [*upscaler.process(frame_of(picture)), *upscaler.flush()]
    large = picture_of(frame)  # on the GPU, with __cuda_array_interface__
    address = large.__cuda_array_interface__["data"][0]
    same = gpuarray.GPUArray(large.shape, np.uint8, gpudata=address, base=large)  # the same memory
    negative = SourceModule(NEGATIVE).get_function("negative")
    negative(same, np.int32(same.size), block=(256, 1, 1), grid=((same.size + 255) // 256, 1))
    host = same.get()
    assert pycuda.autoprimaryctx.context is not None
    assert np.abs(255 - host[:, ::2, ::2].astype(int) - rgb).mean() < 4
    print(f"{host.shape} {host.dtype} from memory at {address:#x} ({upscaler.chosen})")


if __name__ == "__main__":
    main()

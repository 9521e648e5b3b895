"""Pictures of other libraries in and out: numpy, cupy, torch, pycuda and all that speaks DLPack or CUDA's interface.

    upscaler.process(frame_of(tensor, pts=t))  ...  torch.from_dlpack(picture_of(frame))

A picture on the GPU stays there, in its device's primary CUDA context (pycuda: `import pycuda.autoprimaryctx`).
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np

from videosr.errors import MissingExtraError, UsageError
from videosr.frame import FORMATS, Array, ColorSpec, Frame, Matrix, Range, complete, namespace, place_of

COLOR = ColorSpec(matrix=Matrix.RGB, range=Range.FULL)
_BITS = {"uint8": "gbrp", "uint16": "gbrp16le"}
_ON_HOST = (1, 3)  # DLPack's kDLCPU and kDLCUDAHost


def native(array: Any) -> Array:
    """Any array as numpy's or cupy's, without a copy: on the host or on the GPU, as it lies.

    Args:
        array: has `__cuda_array_interface__`, `__dlpack__` or what numpy takes. What is still queued on the stream that
            either names is waited for.

    Raises:
        UsageError: it is none of these.
        MissingExtraError: it is on the GPU, and cupy is not installed.
    """
    if isinstance(array, np.ndarray) or type(array).__module__.partition(".")[0] == "cupy":
        return array
    exported = hasattr(array, "__dlpack_device__")
    on_host = exported and array.__dlpack_device__()[0] in _ON_HOST
    if not exported and not hasattr(array, "__cuda_array_interface__"):
        raise UsageError(f"{type(array).__name__} is no array: it has neither __dlpack__ nor __cuda_array_interface__")
    try:
        if on_host:
            return np.from_dlpack(array)
        import cupy

        # DLPack first: torch's `__cuda_array_interface__` does not say on which stream a tensor is being written.
        return cupy.from_dlpack(array) if exported else cupy.asarray(array)
    except ModuleNotFoundError as exc:
        raise MissingExtraError("arrays on the GPU", "cuda") from exc
    except (BufferError, RuntimeError, ValueError) as exc:  # a tensor that needs gradients, of bfloat16, sparse, ...
        raise UsageError(f"{type(array).__name__} cannot be taken as it is: {exc}") from exc


def frame_of(picture: Any, *, pts: int = 0, time_base: Fraction = Fraction(1, 25), color: ColorSpec = COLOR) -> Frame:
    """A frame of a picture's R'G'B', where the picture lies.

    Args:
        picture: (3, H, W), uint8 or uint16 over the full range, of any strides and byte order: (H, W, 3) turned round
            is one. It is copied, and may be changed when this returns.
        pts: presentation time in units of `time_base`, rising from frame to frame.
        time_base: seconds a tick.
        color: the matrix has to be that of R'G'B'.

    Raises:
        UsageError: another shape, type or colour.
        MissingExtraError: see `native`.
    """
    array = native(picture)
    if array.ndim != 3 or array.shape[0] != 3 or 0 in array.shape or array.dtype.name not in _BITS:
        raise UsageError(
            f"a picture of shape {tuple(array.shape)} and type {array.dtype} is not (3, H, W) of uint8 or uint16; "
            "scale floats to codes, and move the colours to the front"
        )
    if color.matrix != Matrix.RGB:
        raise UsageError(f"a picture's colour has the matrix {color.matrix.name}, not RGB")
    with place_of(array):
        planes = tuple(array[i].astype(array.dtype.newbyteorder("=")) for i in range(3))  # files often hold >u2
        complete(planes[-1])
    return Frame(planes=planes, format=FORMATS[_BITS[array.dtype.name]], pts=pts, time_base=time_base, color=color)


def picture_of(frame: Frame) -> Array:
    """The R'G'B' of a frame as one array, (3, H, W) of uint8 or uint16, where the frame lies; owned by the caller.

    It is numpy's or cupy's, and complete: other libraries take it without a copy (`torch.from_dlpack`, or through
    `__cuda_array_interface__`).

    Raises:
        UsageError: the frame is not R'G'B'.
    """
    if frame.format.family != "rgb":
        raise UsageError(f"a frame in {frame.format.name} is no R'G'B' picture: give the upscaler pix_fmt='gbrp'")
    with place_of(frame.planes[0]):
        made = namespace(frame.planes[0]).stack(frame.planes[:3])
        complete(made)
    return made

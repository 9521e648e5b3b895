"""Inference engines: one loaded network each, chosen by name."""

from __future__ import annotations

from pathlib import Path

from videosr.engines.base import Engine, Interface, NotFinite, Picture, PlanarRunner
from videosr.engines.network import Network
from videosr.errors import MissingExtraError, UsageError

ENGINES = ("native", "openvino", "onnxruntime", "torch", "tensorrt", "tensorrt_rtx", "cuda")
CPU_ENGINES = ("native", "openvino")
"""Those to be tried on a CPU, the one to be tried first in front; the last takes every network."""
DEFAULT = CPU_ENGINES[-1]
CUDA_ENGINES = ("tensorrt_rtx", "tensorrt", "cuda", "torch")
"""Those that run on a GPU, the one to be tried first in front."""
_ON_THE_CPU_TOO = frozenset({"torch"})
__all__ = ["CPU_ENGINES", "CUDA_ENGINES", "DEFAULT", "ENGINES", "Engine", "Interface", "Network", "NotFinite"]
__all__ += ["Picture", "PlanarRunner", "able", "load", "on_cuda"]


def able(engine: str) -> tuple[str, ...]:
    """Where an engine runs: "cpu", "cuda" or both.

    Raises:
        UsageError: there is no such engine.
    """
    if engine not in ENGINES:
        raise UsageError(f"engine {engine!r} is not one of {', '.join(ENGINES)}")
    if engine not in CUDA_ENGINES:
        return ("cpu",)
    return ("cpu", "cuda") if engine in _ON_THE_CPU_TOO else ("cuda",)


def on_cuda(device: str) -> int | None:
    """The index of a CUDA device given as "cuda" or "cuda:N"; None for "cpu".

    Raises:
        UsageError: it is neither.
    """
    kind, colon, index = device.partition(":")
    if device == "cpu":
        return None
    if kind != "cuda" or (colon and not index.isdecimal()):
        raise UsageError(f"device {device!r} is not one of auto, cpu, cuda, cuda:N")
    return int(index or 0)


def load(
    path: Path,
    engine: str = DEFAULT,
    *,
    device: str = "cpu",
    precision: str = "auto",
    threads: int | None = None,
) -> Engine:
    """Load a network file into an engine.

    Args:
        path: an ONNX file; for "torch" a checkpoint.
        engine: one of `ENGINES`.
        device: "cpu", "cuda" or "cuda:N".
        precision: see the engine.
        threads: CPU threads; None takes all this process may use.

    Raises:
        UsageError: unknown engine, device or precision, or an engine that does not run on that device.
        MissingExtraError: the engine's library is not installed.
        NetworkError: the file cannot be used.
    """
    index, places = on_cuda(device), able(engine)
    if (kind := "cpu" if index is None else "cuda") not in places:
        others = ", ".join(name for name in ENGINES if kind in able(name))
        raise UsageError(
            f"the {engine} engine runs on {' and '.join(places)}, not on {device}: give --device {places[0]}, "
            f"or for {device} one of --engine {others}"
        )
    try:
        if engine == "native":
            from videosr.engines.native import NativeEngine

            return NativeEngine(Network.open(path), precision=precision, threads=threads)
        if engine == "openvino":
            from videosr.engines.openvino import OpenVINOEngine

            return _of_pictures(OpenVINOEngine(Network.open(path), precision=precision, threads=threads))
        if engine == "onnxruntime":
            from videosr.engines.onnxruntime import OnnxRuntimeEngine

            return _of_pictures(OnnxRuntimeEngine(Network.open(path), precision=precision, threads=threads))
        if engine.startswith("tensorrt"):
            from videosr.engines.tensorrt import TensorRTEngine

            return TensorRTEngine(Network.open(path), library=engine, precision=precision, index=index or 0)
        if engine == "cuda":
            from videosr.engines.cuda import CudaEngine

            return CudaEngine(Network.open(path), precision=precision, index=index or 0)
        from videosr.engines.torch import TorchEngine

        return TorchEngine(path, device=device, precision=precision, threads=threads)
    except ModuleNotFoundError as exc:
        extra = "cuda" if engine == "tensorrt_rtx" else engine
        raise MissingExtraError(f"the {engine} engine", extra) from exc


def _of_pictures(engine: Engine) -> Engine:
    """The engine, or for a network of luma alone one that takes pictures."""
    if engine.channels == 3:
        return engine
    from videosr.engines.luma import LumaEngine

    return LumaEngine(engine)

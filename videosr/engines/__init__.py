"""Inference engines: one loaded network each, chosen by name."""

from __future__ import annotations

from pathlib import Path

from videosr.engines.base import Engine, Interface, NotFinite, Picture, PlanarRunner
from videosr.engines.network import Network
from videosr.errors import MissingExtraError, UsageError

ENGINES = ("openvino", "onnxruntime", "torch", "tensorrt", "tensorrt_rtx")
_DEVICES_OF = {"torch": ("cpu", "cuda"), "tensorrt": ("cuda",), "tensorrt_rtx": ("cuda",)}  # others: the CPU alone
DEVICES = ("cpu", "cuda")
__all__ = ["DEVICES", "ENGINES", "Engine", "Interface", "Network", "NotFinite", "Picture", "PlanarRunner", "load"]


def load(
    path: Path,
    engine: str = "openvino",
    *,
    device: str = "cpu",
    precision: str = "auto",
    threads: int | None = None,
) -> Engine:
    """Load a network file into an engine.

    Args:
        path: an ONNX file; for "torch" a checkpoint.
        engine: one of `ENGINES`.
        device: one of `DEVICES`.
        precision: see the engine.
        threads: CPU threads; None takes all this process may use.

    Raises:
        UsageError: unknown engine, device or precision, or an engine that does not run on that device.
        MissingExtraError: the engine's library is not installed.
        NetworkError: the file cannot be used.
    """
    if engine not in ENGINES:
        raise UsageError(f"engine {engine!r} is not one of {', '.join(ENGINES)}")
    if device not in DEVICES:
        raise UsageError(f"device {device!r} is not one of {', '.join(DEVICES)}")
    able = _DEVICES_OF.get(engine, ("cpu",))
    if device not in able:
        others = ", ".join(name for name in ENGINES if device in _DEVICES_OF.get(name, ("cpu",)))
        raise UsageError(
            f"the {engine} engine runs on {' and '.join(able)}, not on {device}: give --device {able[0]}, "
            f"or for {device} one of --engine {others}"
        )
    try:
        if engine == "openvino":
            from videosr.engines.openvino import OpenVINOEngine

            return OpenVINOEngine(Network.open(path), precision=precision, threads=threads)
        if engine == "onnxruntime":
            from videosr.engines.onnxruntime import OnnxRuntimeEngine

            return OnnxRuntimeEngine(Network.open(path), precision=precision, threads=threads)
        if engine.startswith("tensorrt"):
            from videosr.engines.tensorrt import TensorRTEngine

            return TensorRTEngine(Network.open(path), library=engine, precision=precision)
        from videosr.engines.torch import TorchEngine

        return TorchEngine(path, device=device, precision=precision, threads=threads)
    except ModuleNotFoundError as exc:
        extra = "cuda" if engine == "tensorrt_rtx" else engine
        raise MissingExtraError(f"the {engine} engine", extra) from exc

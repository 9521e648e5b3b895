"""Inference engines: one loaded network each, chosen by name."""

from __future__ import annotations

from pathlib import Path

from videosr.engines.base import Engine, Interface, NotFinite, Picture, PlanarRunner
from videosr.engines.network import Network
from videosr.errors import MissingExtraError, UsageError

ENGINES = ("openvino", "onnxruntime", "torch")
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
    if device != "cpu" and engine != "torch":
        raise UsageError(f"the {engine} engine runs on the cpu; --device {device} needs --engine torch")
    try:
        if engine == "openvino":
            from videosr.engines.openvino import OpenVINOEngine

            return OpenVINOEngine(Network.open(path), precision=precision, threads=threads)
        if engine == "onnxruntime":
            from videosr.engines.onnxruntime import OnnxRuntimeEngine

            return OnnxRuntimeEngine(Network.open(path), precision=precision, threads=threads)
        from videosr.engines.torch import TorchEngine

        return TorchEngine(path, device=device, precision=precision, threads=threads)
    except ModuleNotFoundError as exc:
        raise MissingExtraError(f"the {engine} engine", engine) from exc

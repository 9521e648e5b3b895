"""Inference engines: one loaded network each, chosen by name."""

from __future__ import annotations

from pathlib import Path

from videosr.engines.base import Engine, Interface, Picture, PlanarRunner
from videosr.engines.network import Network
from videosr.errors import MissingExtraError, UsageError

ENGINES = ("openvino", "onnxruntime", "torch")
__all__ = ["ENGINES", "Engine", "Interface", "Network", "Picture", "PlanarRunner", "load"]


def load(path: Path, engine: str = "openvino", *, precision: str = "auto", threads: int | None = None) -> Engine:
    """Load a network file into an engine.

    Args:
        path: an ONNX file; for "torch" a checkpoint.
        engine: one of `ENGINES`.
        precision: see the engine.
        threads: CPU threads; None takes all this process may use.

    Raises:
        UsageError: unknown engine or precision.
        MissingExtraError: the engine's library is not installed.
        NetworkError: the file cannot be used.
    """
    if engine not in ENGINES:
        raise UsageError(f"engine {engine!r} is not one of {', '.join(ENGINES)}")
    try:
        if engine == "openvino":
            from videosr.engines.openvino import OpenVINOEngine

            return OpenVINOEngine(Network.open(path), precision=precision, threads=threads)
        if engine == "onnxruntime":
            from videosr.engines.onnxruntime import OnnxRuntimeEngine

            return OnnxRuntimeEngine(Network.open(path), precision=precision, threads=threads)
        from videosr.engines.torch import TorchEngine

        return TorchEngine(path, precision=precision, threads=threads)
    except ModuleNotFoundError as exc:
        raise MissingExtraError(f"the {engine} engine", engine) from exc

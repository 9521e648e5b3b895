"""Our own kernels on a CPU: realtime, light, fine and stream networks, planes in and planes out.

`kernels/strips.c` says how they work, `native_strips` how pictures go through them. Everything else (R'G'B' tensors,
and formats that the kernels do not make) is the OpenVINO engine's work, which is loaded only where there is some.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version

import numpy as np

from videosr.engines.base import Engine, Interface, Picture, PlanarRunner
from videosr.engines.emission import supported
from videosr.engines.native_library import Kernels, kernels
from videosr.engines.native_strips import NativeRunner, able
from videosr.engines.native_weights import Layers, read
from videosr.engines.network import Network
from videosr.errors import EngineError, UsageError
from videosr.frame import Array, ColorSpec, Matrix, PixelFormat, Range, Siting
from videosr.machine import cores

_PROBE = (20, 90)
"""Rows and columns of the picture that kernels are compared on."""


class NativeEngine(Engine):
    """A network on a CPU of x86 with AVX2 or AVX-512.

    Args:
        network: realtime, light, fine or stream, in float32 deployment form.
        precision: "f32", or "auto", which is the same.
        threads: CPU threads; None takes all this process may use.

    Raises:
        NetworkError: another network.
        UsageError: another precision.
        EngineError: the kernels were not compiled, or those for AVX-512 give other pictures than those for AVX2.
    """

    def __init__(self, network: Network, *, precision: str = "auto", threads: int | None = None) -> None:
        if precision not in ("auto", "f32"):
            raise UsageError(f"precision {precision!r} of the native engine is not f32: use --engine openvino")
        self.network, self.precision, self.interface = network, "f32", Interface.AVERAGE
        self.threads = threads or cores()
        self._layers = read(network)
        self.scale = self._layers.scale
        self._kernels = _alike(kernels(), self._layers, network)
        self._workers = ThreadPoolExecutor(self.threads, thread_name_prefix="strip")
        self._other: Engine | None = None
        self._loading = threading.Lock()

    @property
    def identity(self) -> str:
        """See `Engine.identity`."""
        ours = f"native {self._kernels.source} {self._kernels.lanes} lanes"
        return f"{ours}, openvino {version('openvino')} CPU f32 {self.network.sha256}"

    def run(self, frame: Array, average: Array | None = None) -> Array:
        """See `Engine.run`."""
        return self._openvino().run(frame, average)

    def planar(self, source: Picture, target: Picture, window: int, denoise: float = 0.0) -> PlanarRunner | None:
        """See `Engine.planar`."""
        apart = self.network.chroma_apart(source.format, target.format)
        formats = supported(self.network, source.format, target.format, self.scale)
        if not formats or not able(source, target, self.scale, apart=apart):
            return self._openvino().planar(source, target, window, denoise)
        return NativeRunner(
            self._kernels,
            self._workers,
            self._layers,
            source,
            target,
            apart=apart,
            threads=self.threads,
            denoise=denoise if window > 1 else 0.0,
        )

    def _openvino(self) -> Engine:
        """The network in OpenVINO, which takes longer to load than all else, and most runs never need it."""
        with self._loading:
            if self._other is None:
                from videosr.engines.openvino import OpenVINOEngine

                self._other = OpenVINOEngine(self.network, precision="f32", threads=self.threads)
            return self._other


def _alike(able: Sequence[Kernels], layers: Layers, network: Network) -> Kernels:
    """The kernels for the widest vectors, once they have given the same picture as the others.

    Raises:
        EngineError: they do not.
    """
    fmt = PixelFormat.parse("yuv444p")
    color = ColorSpec(matrix=Matrix.BT709, range=Range.FULL, siting=Siting.LEFT)
    source = Picture(height=_PROBE[0], width=_PROBE[1], format=fmt, color=color)
    target = Picture(height=layers.scale * _PROBE[0], width=layers.scale * _PROBE[1], format=fmt, color=color)
    if len(able) == 1:
        return able[0]
    rng = np.random.default_rng(1)
    frames = [rng.integers(0, 256, (3, *_PROBE)).astype(fmt.dtype) for _ in range(2)]
    made = []
    with ThreadPoolExecutor(1) as worker:
        for kernels in able:
            runner = NativeRunner(kernels, worker, layers, source, target, apart=False, threads=1)
            made.append(np.stack(runner.result(runner.submit([list(f) for f in frames], 64.0))).astype(np.int16))
    if any(np.abs(other - made[0]).max() > 1 for other in made[1:]):
        raise EngineError(
            f"{network.path}: the native engine gives one picture with AVX-512 and another with AVX2: use --engine "
            "openvino"
        )
    return able[0]

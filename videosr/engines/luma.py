"""Networks that enlarge luma alone, as ArtCNN, FSRCNNX and others for players do."""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType

import numpy as np

from videosr import color
from videosr.engines.base import Engine, Interface
from videosr.frame import Array, Matrix, namespace

_WEIGHTS = np.linalg.inv(color.rgb_from_ycc(Matrix.BT709))[0]


class LumaEngine(Engine):
    """An engine whose network maps (N, 1, H, W) to (N, 1, s*H, s*W), made one of pictures.

    The network enlarges the picture's BT.709 luma; how R', G' and B' differ from that is interpolated. Subsampled
    chroma is always interpolated from its own planes (`Network.chroma_apart`).

    Args:
        inner: loaded, with one channel; on the CPU.
    """

    interface = Interface.IMAGE

    def __init__(self, inner: Engine) -> None:
        self._inner = inner
        network = inner.network
        self.network = replace(network, metadata=MappingProxyType({**network.metadata, "chroma": "interpolated"}))
        self.scale, self.precision = inner.scale, inner.precision

    @property
    def identity(self) -> str:
        """See `Engine.identity`."""
        return f"{self._inner.identity} luma"

    def run(self, frame: Array, average: Array | None = None) -> Array:
        """See `Engine.run`; there is no detail path for an average."""
        xp = namespace(frame)
        weights = xp.asarray(_WEIGHTS, np.float32).reshape(1, 3, 1, 1)
        luma = (frame * weights).sum(axis=1, keepdims=True)
        rest = xp.stack([color.enlarge(picture, self.scale) for picture in frame - luma])
        return rest + self._inner.run(luma)

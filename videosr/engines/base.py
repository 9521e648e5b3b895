"""What an inference engine is: one loaded network that turns RGB tensors into larger RGB tensors.

An engine is made by `videosr.engines.load(path, engine, device, ...)`; the library behind it is imported only then.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import numpy as np

from videosr.engines.gpu_device import Device
from videosr.engines.network import Network
from videosr.errors import EngineError, NetworkError
from videosr.frame import Array, ColorSpec, PixelFormat

_FAR = 8.0
"""A result of mid grey beyond which it is no picture in 0..1 (that may overshoot), but one in 0..255."""


class NotFinite(EngineError):  # noqa: N818 - what it is called where floats are defined, IEEE 754
    """A network's result holds NaN or infinity."""


class Interface(StrEnum):
    """How a network takes part in temporal reuse."""

    IMAGE = "image"
    """One frame in, one out; there is no detail path to feed an average to."""
    AVERAGE = "average"
    """Two image inputs: the frame, and the temporal average of its window for the detail path."""
    RECURRENT = "recurrent"
    """The state (`prev_feat`) is inside: frames have to come in order, from the start of each scene."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Picture:
    """The geometry, format and colour of the video planes on one side of an engine.

    Attributes:
        height: rows of luma.
        width: columns of luma.
        format: planar pixel format.
        color: resolved colour; matrix, range and siting are used.
    """

    height: int
    width: int
    format: PixelFormat
    color: ColorSpec


class PlanarRunner(ABC):
    """A network compiled together with the colour conversions around it: video planes in, video planes out.

    It agrees with `color.to_rgb`, `temporal.average`, `Engine.run` and `color.from_rgb` to one code value. Not
    within the network's reach of the edges, where chroma is subsampled: there it may repeat chroma samples, not pixels,
    and use those that an odd size leaves beyond the picture (8 codes were seen on a real one).

    Attributes:
        in_flight: frames to keep under way so that no core waits.
    """

    in_flight: int

    @abstractmethod
    def submit(self, frames: Sequence[Sequence[Array]], threshold: float) -> object:
        """Start on a frame and return a ticket for `result`.

        Args:
            frames: the colour planes of the frame and of the earlier frames of its window, newest first; one entry
                where there is no temporal reuse. They must stay unchanged until `result` has returned. On the GPU, they
                stay there, and so does the result.
            threshold: of `temporal.average`, in code values.
        """

    @abstractmethod
    def result(self, ticket: object) -> tuple[Array, ...]:
        """Wait for a ticket: the output's colour planes, owned by the caller.

        Raises:
            NotFinite: the network gave values that are not finite (after rounding they would look like any others).
            EngineError: the library failed.
        """


class Engine(ABC):
    """A loaded network.

    Attributes:
        network: the file it was made from and what that says of itself.
        scale: output pixels per input pixel and axis.
        interface: how the network takes part in temporal reuse.
        channels: of its pictures: 3, or 1 of luma alone before `luma.LumaEngine` has made it a network of pictures.
        precision: of the arithmetic inside: "f32", "bf16" or "f16".
        device: the GPU whose arrays the engine takes, and then gives; None: it takes those of the host alone.
        dithers: whether its runners dither results with fewer bits than their sources have; if not, they round.
    """

    network: Network
    scale: int
    interface: Interface
    channels: int = 3
    precision: str
    device: Device | None = None
    dithers: bool = False

    @property
    @abstractmethod
    def identity(self) -> str:
        """Everything the output's bits depend on besides the input: library, version, device, precision, network."""

    @abstractmethod
    def run(self, frame: Array, average: Array | None = None) -> Array:
        """Upscale a batch.

        Args:
            frame: (N, 3, H, W) float32 R'G'B', nominal range [0, 1]; on the host, or complete on the engine's GPU.
            average: same shape; what the detail path of an AVERAGE network sees. None: the frame itself.

        Returns:
            (N, 3, scale*H, scale*W) float32, not clamped, complete, owned by the caller, where the frame is.

        Raises:
            EngineError: the library failed on this input.
        """

    def step(self, frame: Array, *, reset: bool) -> Array:
        """Upscale the next frame of a sequence with a RECURRENT network; shapes as in `run`.

        Args:
            frame: (1, 3, H, W).
            reset: this frame begins a scene: it comes out as if it stood alone.
        """
        raise EngineError(f"{self.network.path}: a network without recurrent state has no steps; call run()")

    def to_build(self, size: tuple[int, int]) -> bool:
        """Whether something has to be built, and kept, before pictures of (rows, columns) can be taken."""
        return False

    def planar(self, source: Picture, target: Picture, window: int, denoise: float = 0.0) -> PlanarRunner | None:
        """The network compiled for these planes, or None where the engine has no such form.

        Args:
            source: what goes in.
            target: what comes out; its size is `scale` times the source's.
            window: frames given to each `submit` at most, 1 without temporal reuse.
            denoise: how far the base path too is moved from the frame towards the window's average, 0..1.
        """
        return None


def baked_blend(once: Array, twice: Array) -> float | None:
    """The blend factor a inside a recurrent network, whose state is feat = (1 - a) c + a prev_feat.

    Args:
        once: features of a picture after a state of zeros, (1 - a) c.
        twice: features of the same picture after that, (1 - a) c + a (1 - a) c.

    Returns:
        a, 0 <= a < 1; None where the features are not of that kind.
    """
    x, y = once.astype(np.float64).ravel(), (twice - once).astype(np.float64).ravel()
    power = float(x @ x)
    blend = float(x @ y) / power if power else -1.0
    if not 0 <= blend < 1 or np.abs(y - blend * x).max() > 1e-2 * np.abs(x).max():
        return None
    return blend


def check_range(path: Path, grey: Array) -> None:
    """Refuse a network that works on samples of 0..255.

    Args:
        path: the network, for the message.
        grey: what it made of pictures of mid grey, 0.5.

    Raises:
        NetworkError: the result is far beyond 0..1, so that all of a picture would be white.
    """
    if (mean := float(grey.mean())) > _FAR:
        told = "export it with the division and multiplication by 255 inside"
        raise NetworkError(f"{path}: makes {mean:.4g} of mid grey, 0.5; its samples seem to be 0..255: {told}")

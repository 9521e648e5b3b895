"""How to upscale: the options of the core, whoever asks."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

from videosr.engines.choice import AUTO
from videosr.errors import UsageError
from videosr.frame import StreamInfo
from videosr.models import registry
from videosr.temporal import Mode


class OnNan(StrEnum):
    """What to do about a frame for which the network gives NaN or infinity, in float32 too."""

    FAIL = "fail"
    BICUBIC = "bicubic"
    """The frame is interpolated instead."""


@dataclass(frozen=True, kw_only=True, slots=True)
class UpscaleOptions:
    """How to upscale.

    Attributes:
        model: a shipped model's name or the path of a network file; "auto" is one network for what is compressed
            and another for everything else (see `of`).
        engine: one of `engines.ENGINES`, or "auto" (see `engines.choice`).
        device: "cpu", "cuda", "cuda:N" or "auto".
        precision: "auto", "f32", "bf16" or "f16".
        threads: CPU threads of the engine; None takes all.
        temporal: what the detail path sees besides the frame.
        denoise: how far the base path too follows the temporal average, 0..1. It removes grain with the noise.
        tta: take the mean of what the network makes of a picture and its reflections (see `reflections`).
        pix_fmt: output pixel format by FFmpeg's name; None keeps the input's.
        on_nan: what to do about frames that the network cannot make.
        tile: edge of the tiles that pictures are cut into where a network takes R'G'B' tensors (see `tiling`); 0 never
            cuts, None goes by the network. Planar runners on the CPU cut pictures into strips by themselves. Those on a
            GPU take pictures whole: if tiles are asked for there, frames go through R'G'B' tensors instead.
    """

    model: str = registry.AUTO
    engine: str = AUTO
    device: str = AUTO
    precision: str = "auto"
    threads: int | None = None
    temporal: Mode = Mode.ADAPTIVE
    denoise: float = 0.0
    tta: bool = False
    pix_fmt: str | None = None
    on_nan: OnNan = OnNan.FAIL
    tile: int | None = None

    def __post_init__(self) -> None:
        """Check the ranges; a mode may be given by its name.

        Raises:
            UsageError: a value is out of its range, or denoising is asked for without temporal reuse.
        """
        for name, kinds in (("temporal", Mode), ("on_nan", OnNan)):
            value = getattr(self, name)
            if value not in list(kinds):
                raise UsageError(f"{name} {value!r} is not one of {', '.join(kinds)}")
            object.__setattr__(self, name, kinds(value))
        if not 0 <= self.denoise <= 1:
            raise UsageError(f"denoise {self.denoise:g} is not between 0 and 1")
        if self.denoise and self.temporal is Mode.OFF:
            raise UsageError("denoising averages over time: it needs --temporal adaptive or ema")
        if self.threads is not None and self.threads < 1:
            raise UsageError(f"threads {self.threads} is not positive")
        if self.tile is not None and self.tile < 0:
            raise UsageError(f"tiles of {self.tile} pixels are none: give their edge, or 0 to take pictures whole")

    def of(self, info: StreamInfo) -> UpscaleOptions:
        """These options for a certain source: "auto" replaced by the network for it."""
        return replace(self, model=registry.suited(self.model, info.compressed))

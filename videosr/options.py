"""How to upscale: the options of the core, whoever asks."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from fractions import Fraction

from videosr.engines.choice import AUTO
from videosr.errors import UsageError
from videosr.frame import StreamInfo
from videosr.models import registry
from videosr.temporal import Mode

LARGE = 3
"""From this size on "auto" takes a network of scale 4. That takes longer; on photographs realtime-4x and back gains
0.04 dB over realtime-2x and on at 2.25 times the size, 0.07 at 2.5 and 0.09 at 3."""


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
        scale: how many times "auto" enlarges, 2 or 4; None goes by the size that is wanted.
        engine: one of `engines.ENGINES`, or "auto" (see `engines.choice`).
        device: "cpu", "cuda", "cuda:N" or "auto".
        precision: "auto", "f32", "bf16" or "f16".
        threads: CPU threads of the engine; None takes all.
        temporal: what the detail path sees besides the frame.
        denoise: how far the base path too follows the temporal average, 0..1. It removes grain with the noise.
        sharpen: how much of the finest detail's contrast is added to the result, 0..1 (see `sharpness`).
        tta: take the mean of what the network makes of a picture and its reflections (see `reflections`).
        pix_fmt: output pixel format by FFmpeg's name; None keeps the input's.
        on_nan: what to do about frames that the network cannot make.
        tile: edge of the tiles that pictures are cut into where a network takes R'G'B' tensors (see `tiling`); 0 never
            cuts, None goes by the network. Planar runners on the CPU cut pictures into strips by themselves. Those on a
            GPU take pictures whole: if tiles are asked for there, frames go through R'G'B' tensors instead.
    """

    model: str = registry.AUTO
    scale: int | None = None
    engine: str = AUTO
    device: str = AUTO
    precision: str = "auto"
    threads: int | None = None
    temporal: Mode = Mode.ADAPTIVE
    denoise: float = 0.0
    sharpen: float = 0.0
    tta: bool = False
    pix_fmt: str | None = None
    on_nan: OnNan = OnNan.FAIL
    tile: int | None = None

    def __post_init__(self) -> None:
        """Check the ranges; a mode may be given by its name.

        Raises:
            UsageError: a value is out of its range, a scale is asked for of a certain network, or denoising without
                temporal reuse.
        """
        for name, kinds in (("temporal", Mode), ("on_nan", OnNan)):
            value = getattr(self, name)
            if value not in list(kinds):
                raise UsageError(f"{name} {value!r} is not one of {', '.join(kinds)}")
            object.__setattr__(self, name, kinds(value))
        if self.scale is not None and self.scale not in registry.DEFAULTS:
            raise UsageError(f"scale {self.scale} is not one of {', '.join(map(str, registry.DEFAULTS))}")
        if self.scale and self.model not in registry.CHOICES:
            raise UsageError(f"the network {self.model} has a scale of its own; leave --scale out, or --model")
        if not 0 <= self.denoise <= 1:
            raise UsageError(f"denoise {self.denoise:g} is not between 0 and 1")
        if not 0 <= self.sharpen <= 1:
            raise UsageError(f"sharpen {self.sharpen:g} is not between 0 and 1")
        if self.denoise and self.temporal is Mode.OFF:
            raise UsageError("denoising averages over time: it needs --temporal adaptive or ema")
        if self.threads is not None and self.threads < 1:
            raise UsageError(f"threads {self.threads} is not positive")
        if self.tile is not None and self.tile < 0:
            raise UsageError(f"tiles of {self.tile} pixels are none: give their edge, or 0 to take pictures whole")

    def of(self, info: StreamInfo, size: tuple[int, int] | None = None) -> UpscaleOptions:
        """These options for a certain source: "auto" and "anime" replaced by the network for it.

        Args:
            info: of the source.
            size: columns and rows to which the result will be resampled, if it will be. Where that is `LARGE` times
                the source or more, four times and back is finer than twice and on.
        """
        large = size is not None and max(Fraction(size[0], info.width), Fraction(size[1], info.height)) >= LARGE
        return self.named(info.compressed, 4 if large else 2)

    def named(self, compressed: bool, scale: int = 2) -> UpscaleOptions:
        """These options with a network's name: for "auto" and "anime" that for such sources, by default of `scale`."""
        return replace(self, model=registry.suited(self.model, compressed, self.scale or scale), scale=None)

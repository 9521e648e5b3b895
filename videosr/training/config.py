"""What a training run is: a TOML file read into frozen dataclasses, every field checked before work starts."""

from __future__ import annotations

import dataclasses
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from types import UnionType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from videosr.errors import InputError, UsageError


@dataclass(frozen=True, kw_only=True, slots=True)
class NetworkConfig:
    """The network and how it starts (see `archs.paragonsr2.ParagonSR2`).

    Attributes:
        variant: "realtime", "stream", "photo" or "pro".
        scale: 2, 3, 4 or 8.
        upsampler_alpha: of the base path; 0 is what our own networks use.
        detail_gain: start value of the learned gain.
        layer_scale: start value of every LayerScale.
        expansion: how far convolutions are over-parameterised in training (see `reparam`); 0 trains plain kernels.
        weights: a .safetensors file to start from instead of random weights.
    """

    variant: str = "realtime"
    scale: int = 2
    upsampler_alpha: float = 0.0
    detail_gain: float = 1.0
    layer_scale: float = 0.1
    expansion: int = 4
    weights: Path | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class DataConfig:
    """What it learns from.

    Attributes:
        train: folders of HR images (read recursively).
        validation: folders of HR images measured during training; the first one decides which weights are the best.
        never_train: folders whose images must not be among the training images, under whatever name or size.
        factors: every image is packed once for each factor, shrunk by it (Lanczos): shrunk photographs are pixel-sharp.
        patch: edge of a training patch in LR pixels.
        batch: patches an iteration.
        candidates: patches drawn for each one used; the most textured is taken.
        workers: threads that prepare batches ahead; 0 prepares them in line.
    """

    train: tuple[Path, ...]
    validation: tuple[Path, ...] = ()
    never_train: tuple[Path, ...] = ()
    factors: tuple[float, ...] = (1.0, 1.5, 2.0, 3.0)
    patch: int = 48
    batch: int = 16
    candidates: int = 4
    workers: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class ScheduleConfig:
    """How it learns.

    Attributes:
        iterations: length of the run.
        learning_rate: at its peak; linear warm-up to it, then half a cosine to zero.
        warmup: iterations of the warm-up.
        gradient_clip: longer gradients are shortened to it. Those of squared errors are some 0.003 long in a sound run
            (of absolute ones ten times that); over-parameterised networks diverge at one bad batch without it.
        ema: decay of the exponential average of the weights that is validated and exported.
        loss: "l1", "charbonnier" (epsilon 1e-3) or "l2".
        loss_border: output pixels ignored at each edge of a patch, where zero padding inside the network shows.
        seed: of the initial weights and of every batch.
    """

    iterations: int
    learning_rate: float = 2.5e-3
    warmup: int = 200
    gradient_clip: float = 0.005
    ema: float = 0.999
    loss: Literal["l1", "charbonnier", "l2"] = "l2"
    loss_border: int = 6
    seed: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class OutputConfig:
    """Where the run goes and how often it writes.

    Attributes:
        folder: of the pack, the checkpoint, the log and the weights; a run is resumed from what is there.
        log_every: iterations between lines of the log.
        validate_every: iterations between validations (each exports the weights if they are the best so far).
        checkpoint_every: iterations between checkpoints.
        licence: of the weights, written into the exported file.
    """

    folder: Path
    log_every: int = 100
    validate_every: int = 2000
    checkpoint_every: int = 1000
    licence: str = "MIT"


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingConfig:
    """A whole run: the tables of the TOML file."""

    data: DataConfig
    schedule: ScheduleConfig
    output: OutputConfig
    network: NetworkConfig = field(default_factory=NetworkConfig)


def load_config(path: str | Path) -> TrainingConfig:
    """Read and check a training configuration; relative paths in it are relative to the file.

    Raises:
        InputError: the file cannot be read or is not TOML.
        UsageError: an unknown, missing or impossible value; the message names the key.
    """
    path = Path(path)
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as exc:
        raise InputError(f"{path}: cannot be read: {exc.strerror}") from exc
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as exc:
        raise InputError(f"{path}: not a TOML file: {exc}") from exc
    config = _build(TrainingConfig, values, str(path), path.parent)
    _check(config, str(path))
    return config


def _build[T](cls: type[T], values: Any, where: str, base: Path) -> T:
    """A dataclass from a TOML table, by its annotations."""
    if not isinstance(values, dict):
        raise UsageError(f"{where}: must be a table, not {values!r}")
    fields = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    if unknown := sorted(set(values) - set(fields)):
        raise UsageError(f"{where}: unknown key {', '.join(unknown)}; allowed are {', '.join(fields)}")
    required = {n for n, f in fields.items() if f.default is f.default_factory is dataclasses.MISSING}
    if missing := sorted(required - set(values)):
        raise UsageError(f"{where}: missing key {', '.join(missing)}")
    hints = get_type_hints(cls)
    return cls(**{name: _convert(hints[name], value, f"{where}: {name}", base) for name, value in values.items()})


def _convert(hint: Any, value: Any, where: str, base: Path) -> Any:
    """A TOML value as the annotated type; paths are resolved against `base`."""
    if dataclasses.is_dataclass(hint):
        return _build(hint, value, where, base)  # type: ignore[arg-type]
    if isinstance(hint, UnionType):
        return _convert(get_args(hint)[0], value, where, base)
    if get_origin(hint) is tuple and isinstance(value, list):
        return tuple(_convert(get_args(hint)[0], item, where, base) for item in value)
    if get_origin(hint) is Literal and value in get_args(hint):
        return value
    if hint is Path and isinstance(value, str):
        return base / Path(value).expanduser()
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if hint in (int, str) and type(value) is hint:
        return value
    allowed = " or ".join(map(repr, get_args(hint))) if get_origin(hint) is Literal else getattr(hint, "__name__", hint)
    raise UsageError(f"{where}: {value!r} is not {allowed}")


def _check(config: TrainingConfig, where: str) -> None:
    """Ranges; the network's own checks are left to the network."""
    data, schedule, output = config.data, config.schedule, config.output
    lr_border = -(-schedule.loss_border // config.network.scale)
    rules = [
        (bool(data.train), "data: train names no folder"),
        (all(f >= 1 for f in data.factors) and bool(data.factors), "data: factors must be 1 or more"),
        (data.patch > 2 * lr_border, f"data: patch {data.patch} leaves nothing inside schedule.loss_border"),
        (data.batch > 0, f"data: batch {data.batch} must be positive"),
        (data.candidates > 0, f"data: candidates {data.candidates} must be positive"),
        (data.workers >= 0, f"data: workers {data.workers} must not be negative"),
        (config.network.expansion >= 0, f"network: expansion {config.network.expansion} must not be negative"),
        (schedule.iterations > 0, f"schedule: iterations {schedule.iterations} must be positive"),
        (schedule.learning_rate > 0, f"schedule: learning_rate {schedule.learning_rate} must be positive"),
        (0 <= schedule.warmup < schedule.iterations, f"schedule: warmup {schedule.warmup} must be below iterations"),
        (schedule.gradient_clip > 0, f"schedule: gradient_clip {schedule.gradient_clip} must be positive"),
        (0 <= schedule.ema < 1, f"schedule: ema {schedule.ema} must be in [0, 1)"),
        (schedule.loss_border >= 0, f"schedule: loss_border {schedule.loss_border} must not be negative"),
        (schedule.seed >= 0, f"schedule: seed {schedule.seed} must not be negative"),
        (
            min(output.log_every, output.validate_every, output.checkpoint_every) > 0,
            "output: log_every, validate_every and checkpoint_every must be positive",
        ),
    ]
    for holds, message in rules:
        if not holds:
            raise UsageError(f"{where}: {message}")

"""Reading the TOML file of a training run: every field is checked before work starts."""

from __future__ import annotations

import dataclasses
import math
import tomllib
from pathlib import Path
from types import UnionType
from typing import Any, Literal, get_args, get_origin, get_type_hints

from videosr.errors import InputError, UsageError
from videosr.training.config import RIM, NetworkConfig, ScheduleConfig, TrainingConfig

PRESETS = ("ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow")
"""What libx264 and libx265 both have."""
_KINDS = {
    tuple: "a list",
    dict: "a table",
    Path: "a path",
    str: "text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
}
"""Types of fields, as who writes a TOML file knows them."""


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
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as exc:
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
        if Ellipsis not in get_args(hint) and len(value) != len(get_args(hint)):
            raise UsageError(f"{where}: {value!r} has not {len(get_args(hint))} values")
        return tuple(_convert(get_args(hint)[0], item, where, base) for item in value)
    if get_origin(hint) is dict and isinstance(value, dict):
        return {key: _convert(get_args(hint)[1], item, f"{where}.{key}", base) for key, item in value.items()}
    if get_origin(hint) is Literal and value in get_args(hint):
        return value
    if hint is Path and isinstance(value, str):
        return base / Path(value).expanduser()
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if hint in (int, str, bool) and type(value) is hint:
        return value
    kind = get_origin(hint) or hint
    allowed = " or ".join(map(repr, get_args(hint))) if kind is Literal else _KINDS[kind]
    raise UsageError(f"{where}: {value!r} is not {allowed}")


type Rule = tuple[bool, str]
"""What must hold, and what to say if it does not."""


def _check(config: TrainingConfig, where: str) -> None:
    """Ranges; the network's own checks are left to the network."""
    output, weights = config.output, config.loss_weights
    if config.network.scale < 1:
        raise UsageError(f"{where}: network: scale {config.network.scale} must be 2, 3, 4 or 8")
    rules = [
        *_data_rules(config),
        *_network_rules(config.network),
        *_schedule_rules(config.schedule),
        (
            min(output.log_every, output.validate_every, output.checkpoint_every) > 0,
            "output: log_every, validate_every and checkpoint_every must be positive",
        ),
        *_degradation_rules(config),
        (config.schedule.window == "off" or config.data.frames > 1, "schedule: window needs data.frames above 1"),
        (not weights.consistency or config.data.frames > 1, "loss_weights: consistency needs data.frames above 1"),
        (
            not weights.perceptual or config.perceptual is not None,
            "loss_weights: perceptual needs the table perceptual with the weights of a VGG19",
        ),
        (
            min(dataclasses.astuple(weights)) >= 0 < max(dataclasses.astuple(weights)),
            "loss_weights: must not be negative, nor all be 0",
        ),
        *_teacher_rules(config),
        (config.discriminator.num_feat > 0, "discriminator: num_feat must be positive"),
        (min(config.discriminator.ch_mult, default=0) > 0, "discriminator: ch_mult must be positive"),
        (config.discriminator.learning_rate > 0, "discriminator: learning_rate must be positive"),
    ]
    for holds, message in rules:
        if not holds:
            raise UsageError(f"{where}: {message}")


def _data_rules(config: TrainingConfig) -> list[Rule]:
    """Of the pictures, and what is cut from them."""
    data, border, scale = config.data, config.schedule.loss_border, config.network.scale
    lr_border = -(-border // scale)
    inside, needed = data.patch * scale - 2 * border, _least_size(config)
    return [
        (bool(data.train), "data: train names no folder"),
        (
            not data.shares or (len(data.shares) == len(data.train) and all(0 < s < math.inf for s in data.shares)),
            f"data: shares must be one positive number for each of the {len(data.train)} folders of train",
        ),
        (all(1 <= f < math.inf for f in data.factors) and bool(data.factors), "data: factors must be 1 or more"),
        (0 <= data.softness <= 4, f"data: softness {data.softness:g} must be within 0..4"),
        (0 <= data.chroma_softness <= 4, f"data: chroma_softness {data.chroma_softness:g} must be within 0..4"),
        (data.patch > 2 * lr_border, f"data: patch {data.patch} leaves nothing inside schedule.loss_border"),
        (inside >= needed, f"data: patch {data.patch} leaves {inside} output pixels to losses that need {needed}"),
        (data.batch > 0, f"data: batch {data.batch} must be positive"),
        (data.frames > 0, f"data: frames {data.frames} must be positive"),
        (data.video_interval > 0, f"data: video_interval {data.video_interval} must be positive"),
        (data.candidates > 0, f"data: candidates {data.candidates} must be positive"),
        (data.workers >= 0, f"data: workers {data.workers} must not be negative"),
    ]


def _network_rules(network: NetworkConfig) -> list[Rule]:
    """Of how the network begins."""
    return [
        (
            0 <= network.upsampler_alpha <= 1,
            f"network: upsampler_alpha {network.upsampler_alpha:g} must be within 0..1",
        ),
        (math.isfinite(network.layer_scale), f"network: layer_scale {network.layer_scale} must be finite"),
        (math.isfinite(network.detail_gain), f"network: detail_gain {network.detail_gain} must be finite"),
        (network.expansion >= 0, f"network: expansion {network.expansion} must not be negative"),
    ]


def _schedule_rules(schedule: ScheduleConfig) -> list[Rule]:
    """Of how long and how fast it learns."""
    return [
        (schedule.iterations > 0, f"schedule: iterations {schedule.iterations} must be positive"),
        (schedule.learning_rate > 0, f"schedule: learning_rate {schedule.learning_rate} must be positive"),
        (
            0 <= schedule.least_rate < schedule.learning_rate,
            f"schedule: least_rate {schedule.least_rate} must be below learning_rate",
        ),
        (0 <= schedule.warmup < schedule.iterations, f"schedule: warmup {schedule.warmup} must be below iterations"),
        (
            schedule.cycle == 0 or schedule.cycle > schedule.warmup,
            f"schedule: cycle {schedule.cycle} must be above warmup, or 0",
        ),
        (schedule.gradient_clip > 0, f"schedule: gradient_clip {schedule.gradient_clip} must be positive"),
        (0 <= schedule.ema < 1, f"schedule: ema {schedule.ema} must be in [0, 1)"),
        (schedule.loss_border >= 0, f"schedule: loss_border {schedule.loss_border} must not be negative"),
        (0 < schedule.loss_knee <= 100, f"schedule: loss_knee {schedule.loss_knee:g} must be above 0 and at most 100"),
        (schedule.seed >= 0, f"schedule: seed {schedule.seed} must not be negative"),
    ]


def _least_size(config: TrainingConfig) -> int:
    """The edge, in output pixels, that the losses need: SSIM's window, VGG19's poolings, the discriminator's."""
    w = config.loss_weights
    return max(11 * (w.ssim > 0), 16 * (w.perceptual > 0), (w.gan > 0) << len(config.discriminator.ch_mult))


def _teacher_rules(config: TrainingConfig) -> list[Rule]:
    """Of whom it learns from."""
    teacher = config.teacher
    if teacher is None:
        return []
    needed = config.data.patch + 2 * RIM
    return [
        (0 < teacher.share <= 1, f"teacher: share {teacher.share} must be above 0 and at most 1"),
        (teacher.regions >= 0, f"teacher: regions {teacher.regions} must not be negative"),
        (
            not teacher.regions or teacher.edge >= needed,
            f"teacher: edge {teacher.edge} must be at least {needed}, data.patch and {RIM} more on either side",
        ),
        (
            not teacher.regions or (config.schedule.window == "off" and not config.loss_weights.consistency),
            "teacher: regions are single pictures: schedule.window and loss_weights.consistency need regions = 0",
        ),
        (not teacher.regions or not config.regularisation.cutblur, "teacher: regularisation.cutblur needs regions = 0"),
        (not teacher.regions or not config.data.chroma_softness, "teacher: data.chroma_softness needs regions = 0"),
    ]


def _degradation_rules(config: TrainingConfig) -> list[Rule]:
    """Of what befalls pictures and features."""
    d, r = config.degradation, config.regularisation
    shares = {f"degradation: {n}": getattr(d, n) for n in ("blur", "noise", "grain", "jpeg", "chroma", "video")}
    shares |= {"data: patterns": config.data.patterns}
    shares |= {f"regularisation: {n}": getattr(r, n) for n in ("cutblur", "frequency_dropout")}
    limits = {
        "blur_sigma": (0.0, 4.0),
        "noise_sigma": (0.0, 255.0),
        "grain_sigma": (0.0, 255.0),
        "jpeg_quantiser": (2.0, 31.0),
        "crf": (0.0, 51.0),
    }
    return [
        *((0 <= share <= 1, f"{name} {share} is no share from 0 to 1") for name, share in shares.items()),
        *(
            (
                low <= getattr(d, n)[0] <= getattr(d, n)[1] <= high,
                f"degradation: {n} must rise within {low:g}..{high:g}",
            )
            for n, (low, high) in limits.items()
        ),
        (bool(d.codecs), "degradation: codecs names none"),
        (d.copies >= 0, f"degradation: copies {d.copies} must not be negative"),
        (not d.copies or d.any, "degradation: copies does nothing without a degradation"),
        (
            not d.copies or (config.schedule.window == "off" and not config.loss_weights.consistency),
            "degradation: copies are single pictures: schedule.window and loss_weights.consistency need copies = 0",
        ),
        (bool(d.presets) and set(d.presets) <= set(PRESETS), f"degradation: presets are {', '.join(PRESETS)}"),
        (not r.cutblur or d.any, "regularisation: cutblur does nothing without a degradation"),
    ]

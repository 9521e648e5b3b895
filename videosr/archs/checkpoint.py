"""Weight files: published ParagonSR2 checkpoints (`.safetensors`, `.pth`) and our own (`.safetensors` with a header).

Variant, scale and whether window attention was left out are read off the tensors. Generations 9, 10 and 11 of the
published code compute the same functions (9 and 10 lack LayerScale in Nano and Stream blocks; factors of one are
exact), so they load, strictly. Up to generation 8 these were other networks; they are refused by name.
`upsampler_alpha` and `window_size` leave no trace in the tensors: they come from our own header or from the caller.

A `.pth` is unpickled with `weights_only=True`: no code in it is run.
"""

from __future__ import annotations

import hashlib
import io
import json
import pickle
import re
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import safetensors
import torch
from safetensors.torch import load as tensors_of
from safetensors.torch import save as bytes_of
from torch import Tensor

from videosr.archs.paragonsr2 import BLUR_TAPS, SHARP_TAPS, VARIANTS, ParagonSR2
from videosr.errors import NetworkError, UsageError
from videosr.files import write_atomically

ARCHITECTURE = "ParagonSR2"
"""What the header of our own files names as `architecture`."""

_MAX_BYTES = 1 << 30  # the largest published file is under 10 MB

# What safetensors and torch.load answer to files that are damaged or something else.
_BROKEN = (
    safetensors.SafetensorError,
    pickle.UnpicklingError,
    struct.error,
    RuntimeError,
    EOFError,
    LookupError,
    ValueError,
    TypeError,
    AttributeError,
    OSError,
)

# Old names of the same parameters; every rule is tried on every key, in this order.
_RENAMED = (
    (r"^(module\.)+", ""),
    (r"^base_upsampler\.resample_conv\.", "base.blur."),
    (r"^base_upsampler\.sharpen\.", "base.sharp."),
    (r"^(base\.\w+)\.conv_([hv])\.", r"\1.\2."),
    (r"^global_detail_gain$", "detail_gain"),
    (r"^detail_upsampler\.up_conv\.", "up.0."),
    (r"^conv_fuse\.", "conv_mid."),
    (r"(\.blocks\.\d+)\.net\.0\.", r"\1.conv1."),
    (r"(\.blocks\.\d+)\.net\.2\.", r"\1.dw."),
    (r"(\.blocks\.\d+)\.net\.4\.", r"\1.conv2."),
)

# Keys that only the files of an older generation have; the first match names it.
_REFUSED = (
    (r"\.source_kernel$", "8", "groups end in a multi-scale fusion, blocks use Hardswish"),
    (r"\.(mscf|mid_conv)\.", "7", "groups end in a multi-scale fusion, blocks use Hardswish"),
    (r"^upsampler_net\.|\.content_analyzer\.", "5", "large-kernel blocks, content-aware gating"),
    (
        r"\.transformer\.(kernel_generator|cheap_dynamic|identity_kernel)",
        "0 to 3",
        "kernels generated from the picture",
    ),
    (r"\.transformer\.dw_mixer\.|^hr_(conv_in|head)\.", "4", "large-kernel blocks, a second stage at output size"),
    (
        r"\.(context|dw_gate|proj_in|project_in)\.|^content_processor\.|^detail_upsampler\.stages\.",
        "6",
        "other blocks, content-aware gating",
    ),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckpointInfo:
    """What a weight file is.

    Attributes:
        path: the file.
        sha256: hex digest of its bytes.
        generation: of the published code: "9 or 10", "11", or "9 to 11" where they do not differ.
        metadata: the header of our own files (see `save`); empty for published ones.
    """

    path: Path
    sha256: str
    generation: str
    metadata: Mapping[str, str]


def load(
    path: Path, *, alpha: float | None = None, window_size: int | None = None
) -> tuple[ParagonSR2, CheckpointInfo]:
    """Load a weight file into a network in evaluation mode, float32, on the CPU.

    Args:
        path: `.safetensors` or `.pth`.
        alpha: `upsampler_alpha` the network was trained with, 0..1; None: the header says.
        window_size: of the window attention (photo and pro); None: the header says.

    Raises:
        NetworkError: unreadable, not a ParagonSR2, of generation 8 or older, or with keys missing or unexpected.
        UsageError: `alpha` or `window_size` is needed and was not given, out of range, or contradicts the header.
    """
    data = _read(path)
    raw, header = _parse(path, data)
    _refuse_old(path, raw)
    state, generation = _normalise(path, raw)
    variant, scale = _infer(path, state)
    has_windows = any(re.search(r"\.(attn|window_attn)\.", key) for key in state)
    windowed = variant in ("photo", "pro") and has_windows
    alpha = _setting(path, header, "upsampler_alpha", "alpha", alpha, "published fidelity networks were trained with 0")
    if not 0 <= alpha <= 1:
        raise UsageError(f"alpha {alpha} is out of range: 0 to 1")
    if windowed:
        hint = "published networks were trained with 16"
        window_size = int(_setting(path, header, "window_size", "window-size", window_size, hint))
        if not 1 <= window_size <= 64:
            raise UsageError(f"window size {window_size} is out of range: 1 to 64")
    model = ParagonSR2(
        variant, scale, upsampler_alpha=alpha, export_safe=not windowed, window_size=window_size or 16
    ).eval()
    _fill(path, model, state)
    info = CheckpointInfo(
        path=path,
        sha256=hashlib.sha256(data).hexdigest(),
        generation=generation if variant in ("realtime", "stream") else ("11" if variant == "pro" else "9 to 11"),
        metadata=MappingProxyType(header),
    )
    return model, info


def save(path: Path, model: ParagonSR2, *, name: str, training: str, license: str, **extra: str) -> None:
    """Write a network's weights as `.safetensors`, with all in the header that the tensors do not say.

    Args:
        path: where to; an existing file is replaced, atomically.
        model: the network.
        name: of the network, e.g. "realtime-2x".
        training: one line: data, loss, iterations.
        license: of the weights, an SPDX expression.
        extra: further header entries, e.g. measured figures.

    Raises:
        OutputError: it cannot be written.
    """
    header = {
        "architecture": ARCHITECTURE,
        "name": name,
        "variant": model.variant,
        "scale": str(model.scale),
        "upsampler_alpha": repr(float(model.base.alpha)),
        "window_size": str(model.window_size),
        "padding": "replicate",
        "training": training,
        "license": license,
        **extra,
    }
    state = {key: value.detach().float().cpu().contiguous() for key, value in model.state_dict().items()}
    write_atomically(path, bytes_of(state, metadata=header))


def _read(path: Path) -> bytes:
    try:
        size = path.stat().st_size
        if size > _MAX_BYTES:
            raise NetworkError(f"{path}: {size} bytes is more than a ParagonSR2 checkpoint can have")
        return path.read_bytes()
    except OSError as exc:
        raise NetworkError(f"{path}: cannot read the checkpoint: {exc.strerror}") from exc


def _parse(path: Path, data: bytes) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The file's float32 tensors and our entries of its header."""
    header: dict[str, str] = {}
    try:
        if path.suffix == ".safetensors":
            content: Any = tensors_of(data)
            entries = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")]).get("__metadata__", {})
            header = entries if entries.get("architecture") == ARCHITECTURE else {}
        elif path.suffix in (".pth", ".pt"):
            content = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
        else:
            raise NetworkError(f"{path}: a checkpoint is a .safetensors or a .pth file, not {path.suffix or 'this'!r}")
    except NetworkError:
        raise
    except _BROKEN as exc:
        raise NetworkError(f"{path}: not a checkpoint that can be loaded: {_first_line(exc)}") from exc
    for wrapper in ("params_ema", "params"):
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
            break
    if not isinstance(content, dict) or not content:
        raise NetworkError(f"{path}: not a checkpoint: no named tensors in it")
    return {str(key): _tensor(path, str(key), value) for key, value in content.items()}, header


def _tensor(path: Path, key: str, value: Any) -> Tensor:
    if not isinstance(value, Tensor):
        raise NetworkError(f"{path}: {key} is a {type(value).__name__} and not a tensor: not a checkpoint of a network")
    if value.layout != torch.strided or value.is_meta or value.is_quantized or value.is_complex():
        raise NetworkError(f"{path}: {key} is not an ordinary dense tensor of real numbers")
    dense: Tensor = value.detach().float()
    if not bool(dense.isfinite().all()):
        raise NetworkError(f"{path}: {key} has values that are not finite: a diverged or damaged checkpoint")
    return dense


def _refuse_old(path: Path, raw: Mapping[str, Tensor]) -> None:
    found = next(((v, why) for pattern, v, why in _REFUSED if any(re.search(pattern, key) for key in raw)), None)
    # Realtime 2x of version 6 has the very tensors of versions 9 and 10, but activates twice a block, by Hardswish, and
    # skips around `conv_fuse`. Only its names give it away: later files with these names have LayerScale.
    if found is None and any(".net.0." in key for key in raw) and not any(key.endswith(".gamma") for key in raw):
        found = ("6", "two Hardswish a block, a skip around conv_fuse")
    if found is not None:
        version, why = found
        raise NetworkError(
            f"{path}: a checkpoint of ParagonSR2 version {version}, which is another network ({why}); "
            "versions 9, 10 and 11 can be loaded"
        )


def _normalise(path: Path, raw: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], str]:
    """Tensors under the names of generation 11, LayerScale filled in; and the generation."""
    state: dict[str, Tensor] = {}
    for old, value in raw.items():
        key = old
        for pattern, new in _RENAMED:
            key = re.sub(pattern, new, key)
        if key in state:
            raise NetworkError(f"{path}: {key} is there twice, once as {old}")
        state[key] = value
    if any("base_upsampler." in key for key in raw):  # these files carry the filters without the copy of their taps
        state.setdefault("base.blur.kernel", torch.tensor(BLUR_TAPS))
        state.setdefault("base.sharp.kernel", torch.tensor(SHARP_TAPS))
    if any(key.endswith("gamma") for key in state):
        return state, "11"
    for key in list(state):
        if last := re.fullmatch(r"(body\.\d+\.blocks\.\d+)\.(conv2|out)\.bias", key):
            state[f"{last[1]}.scale.gamma"] = torch.ones(1, state[key].numel(), 1, 1)
    return state, "9 or 10"


def _infer(path: Path, state: Mapping[str, Tensor]) -> tuple[str, int]:
    """Variant and scale."""
    first, up = state.get("conv_in.weight"), state.get("up.0.weight")
    if first is None or up is None or first.ndim != 4 or up.ndim != 4:
        raise NetworkError(f"{path}: not a ParagonSR2 checkpoint: conv_in.weight and up.0.weight are not both there")
    channels = first.shape[0]
    names = [name for name, spec in VARIANTS.items() if spec.channels == channels]
    if len(names) > 1:
        names = ["pro" if "body.0.blocks.0.norm1.scale" in state else "photo"]
    scale = next((s for s in (2, 3, 4, 8) if up.shape[0] == channels * s * s), 0)
    if not names or not scale:
        raise NetworkError(
            f"{path}: {channels} feature channels enlarged through {up.shape[0]} fit none of the variants "
            f"{', '.join(VARIANTS)} at scale 2, 3, 4 or 8"
        )
    return names[0], scale


def _setting(path: Path, header: Mapping[str, str], key: str, option: str, given: float | None, hint: str) -> float:
    """A number that the tensors do not tell: the header's or the caller's, who may not contradict each other."""
    try:
        recorded = float(header[key]) if key in header else None
    except ValueError as exc:
        raise NetworkError(f"{path}: its header has {key}={header[key]!r}, which is not a number") from exc
    if given is None and recorded is None:
        raise UsageError(f"{path}: the checkpoint does not record its {option}: give --{option} ({hint})")
    if given is not None and recorded is not None and given != recorded:
        raise UsageError(f"{path}: --{option} {given} contradicts the {recorded} that it was trained with")
    return given if given is not None else float(recorded or 0)


def _fill(path: Path, model: ParagonSR2, state: Mapping[str, Tensor]) -> None:
    """Load strictly."""
    wanted = model.state_dict()
    problems = [
        f"{word}: {_listing(keys)}"
        for word, keys in (("missing", wanted.keys() - state.keys()), ("unexpected", state.keys() - wanted.keys()))
        if keys
    ]
    wrong = {key for key in wanted.keys() & state.keys() if wanted[key].shape != state[key].shape}
    if wrong:
        problems.append(f"of another shape: {_listing(wrong)}")
    if problems:
        kind = f"{model.variant} {model.scale}x"
        raise NetworkError(f"{path}: does not fit ParagonSR2 {kind}; {'; '.join(problems)}")
    for key, value in wanted.items():
        if key.startswith("base.") and not torch.equal(value, state[key]):
            raise NetworkError(f"{path}: {key} is not the fixed filter of ParagonSR2")
    model.load_state_dict(dict(state))


def _listing(keys: Iterable[str], limit: int = 20) -> str:
    ordered = sorted(keys)
    rest = len(ordered) - limit
    return ", ".join(ordered[:limit]) + (f" and {rest} more" if rest > 0 else "")


def _first_line(exc: BaseException) -> str:
    return (str(exc).strip() or type(exc).__name__).splitlines()[0]

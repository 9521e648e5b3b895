"""ParagonSR2's weight files: published checkpoints and our own.

Variant, scale and whether window attention was left out are read off the tensors. Generations 9, 10 and 11 of the
published code compute the same functions (9 and 10 lack LayerScale in Nano and Stream blocks; factors of one are
exact), so they load, strictly. Up to generation 8 these were other networks; they are refused by name.
`upsampler_alpha` and `window_size` leave no trace in the tensors: they come from our own header or from the caller.
Nor does the limit of stream's products, which our own header has where it is not that of published networks.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from videosr.archs.paragon_blocks import BLUR_TAPS, HALF_MAX, SHARP_TAPS
from videosr.archs.paragonsr2 import VARIANTS, ParagonSR2
from videosr.archs.weights import Weights
from videosr.errors import NetworkError, UsageError

# Old names of the same parameters; every rule is tried on every key, in this order.
_RENAMED = (
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


def read(weights: Weights, alpha: float | None, window_size: int | None) -> tuple[ParagonSR2, str]:
    """The network and the generation of the published code: "9 or 10", "11", or "9 to 11" where they do not differ.

    Args:
        weights: the file.
        alpha: `upsampler_alpha` the network was trained with, 0..1; None: the header says.
        window_size: of the window attention (photo and pro); None: the header says.

    Raises:
        NetworkError: not a ParagonSR2, of generation 8 or older, or with keys missing or unexpected.
        UsageError: `alpha` or `window_size` is needed and was not given, out of range, or contradicts the header.
    """
    path = weights.path
    _refuse_old(path, weights.tensors)
    state, generation = _normalise(path, weights.tensors)
    variant, scale = _infer(path, state)
    has_windows = any(re.search(r"\.(attn|window_attn)\.", key) for key in state)
    windowed = variant in ("photo", "pro") and has_windows
    alpha = weights.setting("upsampler_alpha", "alpha", alpha, "published fidelity networks were trained with 0")
    if not 0 <= alpha <= 1:
        raise UsageError(f"alpha {alpha} is out of range: 0 to 1")
    if windowed:
        hint = "published networks were trained with 16"
        window_size = int(weights.setting("window_size", "window-size", window_size, hint))
        if not 1 <= window_size <= 64:
            raise UsageError(f"window size {window_size} is out of range: 1 to 64")
    model = ParagonSR2(
        variant,
        scale,
        upsampler_alpha=alpha,
        export_safe=not windowed,
        window_size=window_size or 16,
        product_limit=_product_limit(weights),
    ).eval()
    filters = {key: value.clone() for key, value in model.state_dict().items() if key.startswith("base.")}
    weights.fill(model, state, f"ParagonSR2 {variant} {scale}x")
    for key, value in filters.items():
        if not torch.equal(value, state[key]):
            raise NetworkError(f"{path}: {key} is not the fixed filter of ParagonSR2")
    if variant not in ("photo", "pro"):
        return model, generation
    return model, "11" if variant == "pro" else "9 to 11"


def _product_limit(weights: Weights) -> float:
    """Of stream's blocks; of all others it means nothing."""
    if "product_limit" not in weights.header:
        return HALF_MAX
    limit = weights.setting("product_limit", "product-limit", None, "")
    if not 0 < limit <= HALF_MAX:
        raise NetworkError(f"{weights.path}: its header has product_limit={limit}, which is not in 0 to {HALF_MAX:g}")
    return limit


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
    if "photo" in names:
        names = ["pro" if "body.0.blocks.0.norm1.scale" in state else "photo"]
    elif "stream" in names:
        names = ["fine" if "body.0.blocks.0.conv1.weight" in state else "stream"]
    scale = next((s for s in (2, 3, 4, 8) if up.shape[0] == channels * s * s), 0)
    if not names or not scale:
        raise NetworkError(
            f"{path}: {channels} feature channels enlarged through {up.shape[0]} fit none of the variants "
            f"{', '.join(VARIANTS)} at scale 2, 3, 4 or 8"
        )
    return names[0], scale

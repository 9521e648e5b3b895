"""NEXUS's weight files. All but the size of the windows is read off the tensors."""

from __future__ import annotations

from collections.abc import Sequence

from videosr.archs.nexus import FEATURES, SCALES, VARIANTS, WINDOW, Nexus, steps
from videosr.archs.weights import Weights
from videosr.errors import NetworkError, UsageError


def recognises(weights: Weights) -> bool:
    """Whether a file holds a NEXUS."""
    return {"shares", "conv_body.weight", "conv_in.weight"} <= weights.tensors.keys()


def read(weights: Weights, window_size: int | None) -> Nexus:
    """The network in a file.

    Args:
        weights: what `recognises` took for one.
        window_size: of the attention; None: the header says.

    Raises:
        NetworkError: no variant of these widths and depths, or keys missing or unexpected.
        UsageError: `window_size` is needed and was not given, out of range, or contradicts the header.
    """
    state, path = dict(weights.tensors), weights.path
    channels, groups = state["conv_in.weight"].shape[:1], state["shares"].shape
    fitting = (name for name, v in VARIANTS.items() if ((v.channels,), (len(v.depths),)) == (channels, groups))
    variant = next(fitting, None)
    enlarging = [tuple(state[key].shape[:2]) for key in ("up.0.weight", "up.2.weight") if key in state]
    scale = next((s for s in SCALES if _enlarging(s) == enlarging), None)
    if variant is None or scale is None:
        raise NetworkError(
            f"{path}: {_told(channels)} features in {_told(groups)} groups, enlarged by {enlarging}, fit none "
            f"of the variants {', '.join(VARIANTS)} at scale {', '.join(map(str, SCALES))}"
        )
    window_size = int(weights.setting("window_size", "window-size", window_size, f"{WINDOW} is the usual one"))
    if not 1 <= window_size <= 64:
        raise UsageError(f"window size {window_size} is out of range: 1 to 64")
    frequency = any(key.endswith(".alpha") for key in state)
    network = Nexus(variant, scale, frequency=frequency, window_size=window_size)
    weights.fill(network, state, f"NEXUS {variant} {scale}x")
    return network


def _enlarging(scale: int) -> list[tuple[int, ...]]:
    """Channels out and in of the layers before PixelShuffle."""
    return [(FEATURES * factor * factor, FEATURES) for factor in steps(scale)]


def _told(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape)) or "no"

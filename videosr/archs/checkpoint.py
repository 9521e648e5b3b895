"""Weight files as networks: published checkpoints (`.safetensors`, `.pth`), our own (`.safetensors` with a header)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from safetensors.torch import save as bytes_of

from videosr.archs.families import Network, family_in, family_of
from videosr.archs.weights import Weights
from videosr.files import write_atomically


@dataclass(frozen=True, kw_only=True, slots=True)
class CheckpointInfo:
    """What a weight file is.

    Attributes:
        path: the file.
        sha256: hex digest of its bytes.
        generation: of the published ParagonSR2 code: "9 or 10", "11", or "9 to 11" where they do not differ; else "".
        metadata: the header of our own files (see `save`); empty for published ones.
    """

    path: Path
    sha256: str
    generation: str
    metadata: Mapping[str, str]


def load(path: Path, *, alpha: float | None = None, window_size: int | None = None) -> tuple[Network, CheckpointInfo]:
    """Load a weight file into a network in evaluation mode, float32, on the CPU.

    Args:
        path: `.safetensors` or `.pth`.
        alpha: `upsampler_alpha` a ParagonSR2 was trained with, 0..1; None: the header says.
        window_size: of the window attention (photo, pro and NEXUS); None: the header says.

    Raises:
        NetworkError: unreadable, of no known architecture or generation, or with keys missing or unexpected.
        UsageError: `alpha` or `window_size` is needed and was not given, out of range, or contradicts the header.
    """
    weights = Weights.open(path)
    network, generation = family_in(weights).read(weights, alpha, window_size)
    info = CheckpointInfo(
        path=path, sha256=weights.sha256, generation=generation, metadata=MappingProxyType(dict(weights.header))
    )
    return network.eval(), info


def save(path: Path, network: Network, *, name: str, training: str, license: str, **extra: str) -> None:
    """Write a network's weights as `.safetensors`, with all in the header that the tensors do not say.

    Args:
        path: where to; an existing file is replaced, atomically.
        network: the network.
        name: of the network, e.g. "realtime-2x".
        training: one line: data, loss, iterations.
        license: of the weights, an SPDX expression.
        extra: further header entries, e.g. measured figures.

    Raises:
        OutputError: it cannot be written.
    """
    family = family_of(network.variant)
    header = {
        "architecture": family.name,
        "name": name,
        "variant": network.variant,
        "scale": str(network.scale),
        **family.header(network),
        "window_size": str(network.window_size),
        "padding": "replicate" if family.halo else "zero",
        "training": training,
        "license": license,
        **extra,
    }
    state = {key: value.detach().float().cpu().contiguous() for key, value in network.state_dict().items()}
    write_atomically(path, bytes_of(state, metadata=header))

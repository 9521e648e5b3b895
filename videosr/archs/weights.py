"""What a weight file holds, before anything is known of its network: named tensors and, in our own files, a header.

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
from typing import Any

import safetensors
import torch
from safetensors.torch import load as tensors_of
from torch import Tensor, nn

from videosr.errors import NetworkError, UsageError, first_line

ARCHITECTURES = ("ParagonSR2", "NEXUS")
"""What the header of our own files may name as `architecture`."""

_MAX_BYTES = 1 << 30  # the largest published file is under 10 MB, the largest network that can be made under 600
_LISTED = 20  # tensors named in a message
_WRAPPED = re.compile(r"^(module\.|_orig_mod\.)+")  # what DataParallel and torch.compile put before names

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
    AssertionError,  # the old format's storages, asked for by a wrong name
    OSError,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Weights:
    """A weight file's content.

    Attributes:
        path: the file.
        sha256: hex digest of its bytes.
        tensors: float32, finite, by the names they have in the file.
        header: of our own files, else empty.
    """

    path: Path
    sha256: str
    tensors: Mapping[str, Tensor]
    header: Mapping[str, str]

    @staticmethod
    def open(path: Path) -> Weights:
        """Read a `.safetensors` or `.pth` file.

        Raises:
            NetworkError: unreadable, or not named tensors of finite real numbers.
        """
        data = _read(path)
        tensors, header = _parse(path, data)
        return Weights(path=path, sha256=hashlib.sha256(data).hexdigest(), tensors=tensors, header=header)

    def setting(self, key: str, option: str, given: float | None, hint: str) -> float:
        """A number that the tensors do not tell: the header's or the caller's, who may not contradict each other.

        Raises:
            NetworkError: the header's is no number.
            UsageError: both are there and differ, or neither is.
        """
        try:
            recorded = float(self.header[key]) if key in self.header else None
        except ValueError as exc:
            raise NetworkError(
                f"{self.path}: its header has {key}={self.header[key]!r}, which is not a number"
            ) from exc
        if given is None and recorded is None:
            told = f"give --{option} ({hint}) to `videosr export`"
            raise UsageError(f"{self.path}: the checkpoint does not record its {option}: {told}")
        if given is not None and recorded is not None and given != recorded:
            raise UsageError(f"{self.path}: --{option} {given} contradicts the {recorded} that it was trained with")
        return given if given is not None else float(recorded or 0)

    def fill(self, network: nn.Module, state: Mapping[str, Tensor], kind: str) -> None:
        """Load tensors into a network, strictly.

        Args:
            network: is changed.
            state: tensors by the network's names.
            kind: of the network, for the message.

        Raises:
            NetworkError: a tensor is missing, unexpected or of another shape.
        """
        wanted = network.state_dict()
        problems = [
            f"{word}: {_listing(keys)}"
            for word, keys in (("missing", wanted.keys() - state.keys()), ("unexpected", state.keys() - wanted.keys()))
            if keys
        ]
        wrong = {key for key in wanted.keys() & state.keys() if wanted[key].shape != state[key].shape}
        if wrong:
            problems.append(f"of another shape: {_listing(wrong)}")
        if problems:
            raise NetworkError(f"{self.path}: does not fit {kind}; {'; '.join(problems)}")
        network.load_state_dict(dict(state))


def _read(path: Path) -> bytes:
    try:
        size = path.stat().st_size
        if size > _MAX_BYTES:
            raise NetworkError(f"{path}: {size} bytes is more than a checkpoint can have")
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
            header = entries if entries.get("architecture") in ARCHITECTURES else {}
        elif path.suffix in (".pth", ".pt"):
            content = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
        else:
            raise NetworkError(f"{path}: a checkpoint is a .safetensors or a .pth file, not {path.suffix or 'this'!r}")
    except NetworkError:
        raise
    except _BROKEN as exc:
        raise NetworkError(f"{path}: not a checkpoint that can be loaded: {_reason(exc)}") from exc
    for wrapper in ("params_ema", "params"):
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict) and content[wrapper]:
            content = content[wrapper]
            break
    if not isinstance(content, dict) or not content:
        raise NetworkError(f"{path}: not a checkpoint: no named tensors in it")
    return {_WRAPPED.sub("", str(key)): _tensor(path, str(key), value) for key, value in content.items()}, header


def _tensor(path: Path, key: str, value: Any) -> Tensor:
    if not isinstance(value, Tensor):
        raise NetworkError(f"{path}: {key} is a {type(value).__name__} and not a tensor: not a checkpoint of a network")
    if value.layout != torch.strided or value.is_meta or value.is_quantized or value.is_complex():
        raise NetworkError(f"{path}: {key} is not an ordinary dense tensor of real numbers")
    dense: Tensor = value.detach().float()
    if not bool(dense.isfinite().all()):
        raise NetworkError(f"{path}: {key} has values that are not finite: a diverged or damaged checkpoint")
    return dense


def _listing(keys: Iterable[str]) -> str:
    ordered = sorted(keys)
    rest = len(ordered) - _LISTED
    return ", ".join(ordered[:_LISTED]) + (f" and {rest} more" if rest > 0 else "")


def _reason(exc: BaseException) -> str:
    if "weights_only" in str(exc):  # torch says how to run the code in the file, which is none of our advice
        return "it holds more than tensors, such as a whole model; save its state_dict() alone"
    return first_line(exc)

"""The options that an output depends on, as the record of a batch has them; also those of other versions of videosr."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

from videosr.engines.network import Network
from videosr.film import TranscodeOptions
from videosr.models import registry


def settings(options: TranscodeOptions) -> dict[str, Any]:
    """The options that the output depends on, as flat JSON values, and the networks' hashes.

    What the machine or a library's version decides is not among them: an update does not make files again.

    Raises:
        UsageError: there is no such network.
        NetworkError: it cannot be read.
    """
    flat = _flat(options)
    flat["model"] = ""
    wanted = options.upscale
    scales = [wanted.scale] if wanted.scale else list(registry.DEFAULTS) if options.resized else [2]
    for model in dict.fromkeys(registry.suited(wanted.model, lossy, s) for s in scales for lossy in (False, True)):
        flat["model"] += _hash(registry.find(model))[:32]
    return flat


def _hash(path: Path) -> str:
    """Of a network, or of the weights that the torch engine takes."""
    if path.suffix == ".onnx":
        return Network.open(path).sha256
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def as_known_now(then: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of another version of videosr, as this one would have written them: an update makes no difference.

    What there was no option for then was done as it is by default. An option that is gone counts only where it was set
    to something.

    Args:
        then: settings as recorded.
        now: settings as asked for now, with all options that there are.
    """
    known = {key: then.get(key, _defaults().get(key)) for key in now}
    return known | {key: value for key, value in then.items() if key not in now and value and value != "auto"}


def _flat(options: TranscodeOptions) -> dict[str, Any]:
    values = asdict(options)
    upscale, encoder = values.pop("upscale"), values.pop("encoder")
    del (
        values["overwrite"],
        values["strict"],
        values["segments"],
        values["max_pixels"],
        upscale["threads"],
        upscale["on_nan"],
        upscale["scale"],  # of which the networks tell
    )
    encoder["options"] = dict(encoder["options"])
    flat = {**values, **upscale, **encoder}  # both have `pix_fmt`: the encoder's is the output's
    return {key: str(value) if isinstance(value, Fraction) else value for key, value in flat.items()}


@cache
def _defaults() -> Mapping[str, Any]:
    return _flat(TranscodeOptions())

"""Presets: named sets of options in TOML.

A key is the name of an option of `videosr upscale`, with `_` for `-`; the encoder's own options (`-x`) stand in a table
`[options]`.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from videosr.errors import UsageError

_FOLDER = Path(__file__).parent


def shipped() -> list[str]:
    """Names of the presets that come with the package."""
    return sorted(path.stem for path in _FOLDER.glob("*.toml"))


def read(preset: str) -> dict[str, Any]:
    """The values a preset sets, numbers as they would stand on a command line.

    Args:
        preset: a shipped preset's name, or the path of a TOML file.

    Raises:
        UsageError: there is none of that name, it is not TOML, or it sets something to what no option can be.
    """
    path = Path(preset)
    if preset in shipped():
        path = _FOLDER / f"{preset}.toml"
    elif not path.is_file():
        raise UsageError(f"preset {preset!r} is neither a shipped one ({', '.join(shipped())}) nor a file")
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8-sig"))  # editors on Windows put a mark before it
    except OSError as exc:
        raise UsageError(f"preset {preset}: cannot be read: {exc.strerror}") from exc
    except (ValueError, RecursionError) as exc:  # not TOML, or not text; brackets in brackets in brackets
        raise UsageError(f"preset {preset}: is not TOML: {exc}") from exc
    for key, value in values.items():
        if key != "options" and not isinstance(value, str | int | float):
            raise UsageError(f"preset {preset}: {key} is {value!r}, which is no text, number, true or false")
    return {key: str(value) if type(value) in (int, float) else value for key, value in values.items()}

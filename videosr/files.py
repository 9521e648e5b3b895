"""Files that are either there completely, under their names, or not at all."""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress
from pathlib import Path

from videosr.errors import OutputError


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file beside its name, let the disk have it, and rename it.

    Raises:
        OutputError: it cannot be written; what was under the name is still there.
    """
    temporary = None
    try:
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
            temporary = Path(file.name)
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    except OSError as exc:
        if temporary is not None:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
        raise OutputError.writing(path, exc) from exc

"""Networks that many tests run, made once a session."""

from __future__ import annotations

import os
import tempfile

import pytest

# The engines' caches of compiled models go where nobody's own are.
_CACHE = tempfile.TemporaryDirectory(prefix="videosr-tests-", ignore_cleanup_errors=True)
os.environ["XDG_CACHE_HOME"] = _CACHE.name


@pytest.fixture(scope="session")
def paragon(tmp_path_factory):
    """A realtime 2x network with random weights, as a checkpoint and in every exported form."""
    pytest.importorskip("torch")
    from networks import Paragon

    return Paragon(tmp_path_factory.mktemp("networks"))

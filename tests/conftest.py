"""What many tests run: networks, made once a session, and the command line."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from functools import cache
from typing import NamedTuple

import hypothesis
import pytest

# Examples have no limit of time. Where `CI` is set they are the same each time: the change decides, not the dice.
hypothesis.settings.register_profile("videosr", deadline=None, derandomize="CI" in os.environ)
hypothesis.settings.load_profile("videosr")
# The engines' caches of compiled models go where nobody's own are.
_CACHE = tempfile.TemporaryDirectory(prefix="videosr-tests-", ignore_cleanup_errors=True)
os.environ["XDG_CACHE_HOME"] = _CACHE.name
# Where Python writes no bytecode, as in many containers, each process would compile torch's sources for itself.
if sys.dont_write_bytecode:
    sys.dont_write_bytecode = False
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    sys.pycache_prefix = os.environ["PYTHONPYCACHEPREFIX"] = os.path.join(_CACHE.name, "bytecode")  # noqa: PTH118
# Threads of torch spin while they wait for each other: with networks as small as here that is most of what they do.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Whoever runs the tests in the background may have had signals ignored; tests send them, to this process and to others.
signal.signal(signal.SIGINT, signal.default_int_handler)
for _name in ("SIGTERM", "SIGHUP"):
    if hasattr(signal, _name):
        signal.signal(getattr(signal, _name), signal.SIG_DFL)
# Tests that import openvino themselves need what `import videosr` does for it.
sys.modules.setdefault("openvino_telemetry", None)


def pytest_xdist_auto_num_workers():
    """For `-n auto` one more than there are cores: many tests wait, for other processes or streams in real time."""
    return (os.cpu_count() or 1) + 1


@cache
def no_gpu() -> str | None:
    """Why tests marked `gpu` cannot run here; None where they can."""
    try:
        import cupy
    except ImportError as exc:
        return f"cupy cannot be imported: {exc}"
    try:
        return None if cupy.cuda.runtime.getDeviceCount() else "no CUDA device"
    except cupy.cuda.runtime.CUDARuntimeError as exc:
        return f"no CUDA device: {exc}"


def pytest_runtest_setup(item):
    """Tests marked `gpu` skip without one, unless a GPU is required here: then a skip would hide that it is gone."""
    if item.get_closest_marker("gpu") and (reason := no_gpu()):
        if os.environ.get("VIDEOSR_REQUIRE_GPU") == "1":
            pytest.fail(f"VIDEOSR_REQUIRE_GPU=1, but {reason}", pytrace=False)
        pytest.skip(reason)


@pytest.fixture(scope="session")
def paragon(tmp_path_factory):
    """A realtime 2x network with random weights, as a checkpoint and in every exported form."""
    pytest.importorskip("torch")
    from networks import Paragon

    return Paragon(tmp_path_factory.mktemp("networks"))


class Outcome(NamedTuple):
    """How a run of the command ended."""

    code: int
    out: str
    err: str


@pytest.fixture
def videosr(monkeypatch, capfd):
    """Runs the command line in this process: `videosr("upscale", source, output)` gives an `Outcome`."""
    from videosr.cli import main

    def run(*arguments: object) -> Outcome:
        kinds = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
        handlers = {kind: signal.getsignal(kind) for kind in kinds}
        monkeypatch.setattr("sys.argv", ["videosr", *map(str, arguments)])
        try:
            with pytest.raises(SystemExit) as exit:
                main()
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)
        return Outcome(exit.value.code, *capfd.readouterr())  # what libraries print by themselves as well

    return run

"""Which engine computes, and where, if that is left open: on the GPU where one is there and can, else on the CPU."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from videosr.engines import CPU_ENGINES, CUDA_ENGINES, Engine, able, load, on_cuda
from videosr.engines.nvidia import NoDriverError, gpus
from videosr.errors import EngineError, MissingExtraError, NetworkError, UsageError

AUTO = "auto"
REASON = 160
"""Characters that say why no GPU was taken, at most."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Wish:
    """How a network is to be run.

    Attributes:
        engine: one of `engines.ENGINES`, or "auto".
        device: "cpu", "cuda", "cuda:N", or "auto".
        precision: see the engine.
        threads: CPU threads; None takes all this process may use.
    """

    engine: str = AUTO
    device: str = AUTO
    precision: str = "auto"
    threads: int | None = None


def has_gpu() -> bool:
    """Whether CUDA shows a GPU, whatever may run on it."""
    try:
        return bool(gpus())
    except NoDriverError:
        return False


def choose(path: Path, wish: Wish) -> tuple[Engine, Wish, str]:
    """Load a network into the engine that was asked for, or the best that works here.

    On a GPU the engines are tried in the order of `CUDA_ENGINES`; one that is not installed, does not know the GPU, or
    does not take the network or fails its self-test, is passed over. So are those of `CPU_ENGINES` on the CPU. Where
    everything was said, this is `engines.load`.

    Args:
        path: of the network.
        wish: how to run it.

    Returns:
        The engine, the wish with nothing left open, and a line about what was found; "" where nothing was left open.

    Raises:
        VideosrError: see `engines.load` and `engines.on_cuda`; with a GPU asked for and no engine named, why none of
            them works.
    """
    if wish.device == AUTO and wish.engine != AUTO:
        wish = replace(wish, device=_only_device(wish.engine))
    if AUTO not in (wish.engine, wish.device):
        return _load(path, wish), wish, ""
    asked = wish.device if wish.device != AUTO else "cuda"
    index = on_cuda(asked) or 0  # what is no device is refused before anything is looked for
    reason = ""
    if wish.device != "cpu":
        try:
            found = gpus()
        except NoDriverError as exc:
            found, reason = (), str(exc)
            if wish.device != AUTO:
                raise EngineError(f"--device {wish.device}: {exc}") from exc
            reason = reason.partition(": ")[0]  # who has no such card needs no remedy
        names = [wish.engine] if wish.engine != AUTO else list(CUDA_ENGINES)
        for name in names if found else ():
            tried = replace(wish, engine=name, device=asked)
            try:
                engine = _load(path, tried)
            except (EngineError, MissingExtraError, NetworkError, UsageError) as exc:
                reason = f"{reason}; {name}: {exc}" if reason else f"{name}: {exc}"
                continue
            return engine, tried, f"computes on {found[index].name} with {name} in {engine.precision}"
        if wish.device != AUTO:
            raise EngineError(f"--device {wish.device}: no engine works there: {reason}")
    engine, wish, more = _on_the_cpu(path, replace(wish, device="cpu"))
    reason = "; ".join(filter(None, (_cut(reason), more)))  # the latter whole, as what to do stands at its end
    why = f": {reason}" if reason else ""
    return engine, wish, f"computes on the CPU with {wish.engine} in {engine.precision}{why}"


def _on_the_cpu(path: Path, wish: Wish) -> tuple[Engine, Wish, str]:
    """As `choose`; says what could be put right about an engine that was passed over."""
    reason = ""
    if wish.engine == AUTO:
        *others, last = CPU_ENGINES
        for name in others:
            tried = replace(wish, engine=name)
            try:
                return _load(path, tried), tried, ""
            except (NetworkError, UsageError):  # not for this network, precision or CPU
                continue
            except EngineError as exc:
                reason = f"{name}: {exc}"
        wish = replace(wish, engine=last)
    return _load(path, wish), wish, reason


def _load(path: Path, wish: Wish) -> Engine:
    return load(
        _form(path, wish.engine), wish.engine, device=wish.device, precision=wish.precision, threads=wish.threads
    )


def _only_device(engine: str) -> str:
    """Where an engine runs, if that is one place alone; else it stays open."""
    places = able(engine)
    return places[0] if len(places) == 1 else AUTO


def _form(path: Path, engine: str) -> Path:
    """The file of a network that an engine takes: torch runs the weights that lie beside a shipped network."""
    weights = path.with_suffix(".safetensors")
    return weights if engine == "torch" and path.suffix == ".onnx" and weights.is_file() else path


def _cut(text: str) -> str:
    return text if len(text) <= REASON else f"{text[: REASON - 3]}..."

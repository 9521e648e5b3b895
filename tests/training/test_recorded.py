"""A training step as a CUDA graph, against a stand-in of one: what was recorded runs again on the memory it saw."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from test_data import run_of
from torch.utils._python_dispatch import TorchDispatchMode

from videosr.training.config import DataConfig, LossWeights, NetworkConfig, OutputConfig
from videosr.training.recorded import Recorded
from videosr.training.trainer import Trainer


class Graph:
    """Holds what is called while it records, and undoes it."""

    def __init__(self) -> None:
        self.again = lambda: None

    def replay(self) -> None:
        self.again()


class Stream:
    def wait_stream(self, other: object) -> None:
        """The CPU has one order alone."""


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """torch.cuda in as far as `Recorded` uses it; what happens, in order."""
    told: list[str] = []

    @contextmanager
    def recording(graph: Graph) -> Iterator[None]:
        told.append("recording")
        yield

    @contextmanager
    def on(stream: Stream) -> Iterator[None]:
        told.append("aside")
        yield

    monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "current_stream", Stream)
    monkeypatch.setattr(torch.cuda, "stream", on)
    monkeypatch.setattr(torch.cuda, "graph", recording)
    return told


def test_inputs_are_copied_to_where_they_were_and_results_are_the_callers(recorder: list[str]) -> None:
    total = torch.zeros(())

    def function(x: torch.Tensor) -> dict[str, torch.Tensor]:
        if recorder[-1] == "recording":  # nothing is computed while a graph is recorded
            recorded._seen = x
            return {"total": total}
        total.add_(x.sum())
        return {"total": total.clone()}

    recorded = Recorded(function, recorder.append)

    def again() -> None:
        recorder.append("replayed")
        function(recorded._seen)

    results = [recorded(torch.full((2,), 1.0)) for _ in range(3)]
    assert recorder == ["aside"] * 3
    original = Graph.__init__

    def prepared(graph: Graph) -> None:
        original(graph)
        graph.again = again

    Graph.__init__ = prepared
    try:
        results += [recorded(torch.full((2,), value)) for value in (2.0, 3.0)]
    finally:
        Graph.__init__ = original
    assert recorder[3:] == ["recording", "replayed", "replayed"]
    assert [float(r["total"]) for r in results] == [2, 4, 6, 10, 16]  # each its own, and none lost


def test_what_cannot_be_recorded_is_said_and_computed_all_the_same(
    recorder: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextmanager
    def refused(graph: Graph) -> Iterator[None]:
        raise RuntimeError("CUDA error: operation not permitted when stream is capturing\nmore")
        yield

    monkeypatch.setattr(torch.cuda, "graph", refused)
    recorded = Recorded(lambda x: {"loss": x + 1}, recorder.append)
    results = [recorded(torch.tensor(float(n)))["loss"].item() for n in range(6)]
    assert results == [1, 2, 3, 4, 5, 6]
    said = [line for line in recorder if line != "aside"]
    assert said == [
        "training goes on without a CUDA graph: CUDA error: operation not permitted when stream is capturing"
    ]


EVERY = LossWeights(pixel=0.5, luma=1.0, ssim=0.1, fft=0.1)


@pytest.mark.parametrize("variant", ["realtime", "stream", "photo"])
@pytest.mark.parametrize(("loss", "weights"), [("l2", LossWeights()), ("psnr", EVERY), ("charbonnier", EVERY)])
def test_a_step_takes_nothing_from_the_host_and_gives_it_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, variant: str, loss: Literal["l2"], weights: LossWeights
) -> None:
    """Either would fail while a graph is recorded."""
    config = run_of(DataConfig(train=(), patch=16, batch=2), loss_weights=weights)
    config = replace(
        config,
        network=NetworkConfig(variant=variant),
        schedule=replace(config.schedule, loss=loss, optimizer="muon"),
        output=OutputConfig(folder=tmp_path),
    )
    trainer = Trainer(config, "cpu", lambda line: None)
    lr, hr = torch.rand(2, 3, 16, 16), torch.rand(2, 3, 32, 32)
    trainer.step(lr, hr, None)
    # Of torch's optimisers the form for CUDA alone keeps its count on the device.
    monkeypatch.setattr(trainer.optimizers[0], "step", lambda: None)
    before = [p.data_ptr() for p in trainer.average.parameters()]
    with OnTheDeviceAlone():
        trainer._learn(lr, hr)
    assert before == [p.data_ptr() for p in trainer.average.parameters()]


class OnTheDeviceAlone(TorchDispatchMode):
    """Refuses the operations by which values cross between host and device, and those whose size values decide."""

    def __torch_dispatch__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = function.overloadpacket._qualified_op_name
        assert name not in ("aten::_local_scalar_dense", "aten::lift_fresh", "aten::nonzero"), name
        return function(*args, **(kwargs or {}))

"""A step of training as a CUDA graph: small networks spend most of their time launching kernels one by one."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

type Report = dict[str, Tensor]

_WARM = 3
"""Calls before it is recorded: libraries choose their algorithms, optimisers make their state."""


class Recorded:
    """A function of tensors on CUDA that is recorded once and then replayed.

    Args:
        function: takes tensors, of the same shapes at every call, and gives scalars by name. Whatever else it reads or
            changes must stay where it is in memory, and nothing may depend on a value that the host has to know.
        say: told in a line if it cannot be recorded; it is called as it is then.
    """

    def __init__(self, function: Callable[..., Report], say: Callable[[str], None]) -> None:
        self._function, self._say = function, say
        self._calls = 0
        self._graph: torch.cuda.CUDAGraph | None = None
        self._inputs: tuple[Tensor, ...] = ()
        self._outputs: Report = {}

    def __call__(self, *inputs: Tensor) -> Report:
        """Call the function; what is returned is the caller's."""
        self._calls += 1
        if self._calls <= _WARM:
            return self._aside(inputs)
        if self._calls == _WARM + 1:
            self._record(inputs)
        if self._graph is None:
            return self._function(*inputs)
        for own, given in zip(self._inputs, inputs, strict=True):
            own.copy_(given)
        self._graph.replay()
        return {name: value.clone() for name, value in self._outputs.items()}

    def _aside(self, inputs: tuple[Tensor, ...]) -> Report:
        """On a stream of its own, as recording will be: autograd remembers the streams that gradients came from."""
        side, current = torch.cuda.Stream(), torch.cuda.current_stream()  # type: ignore[no-untyped-call]
        side.wait_stream(current)
        with torch.cuda.stream(side):
            report = self._function(*inputs)
        current.wait_stream(side)
        return report

    def _record(self, inputs: tuple[Tensor, ...]) -> None:
        """Record the function, without its taking effect."""
        self._inputs = tuple(x.clone() for x in inputs)
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.cuda.graph(graph):
                self._outputs = self._function(*self._inputs)
        except RuntimeError as exc:
            self._say(f"training goes on without a CUDA graph: {str(exc).splitlines()[0]}")
        else:
            self._graph = graph

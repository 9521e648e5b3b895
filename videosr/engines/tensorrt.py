"""TensorRT and TensorRT-RTX: networks on NVIDIA GPUs.

An engine is built for each picture size when it is first met (or ahead, by `videosr engine build`), tested against the
network in float32 on the CPU, and kept in a cache. Both forms of network run: ours (`input`, `average`), whose frames
are independent and several at a time under way, and the published one (`prev_feat`), whose frames run in order.

What has run and what has not is in docs/gpu.md.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Protocol

import numpy as np

from videosr.engines.base import Engine, Interface, Picture, PlanarRunner
from videosr.engines.cache import Cache
from videosr.engines.gpu_device import Device, cuda_device
from videosr.engines.gpu_execution import Context, Conversion, Execution, Layout
from videosr.engines.gpu_planes import Planes, PlanesRunner
from videosr.engines.network import Network
from videosr.engines.tensorrt_builder import Definition, Progress, Shapes, Size
from videosr.engines.tensorrt_check import Verdict, reference_of, self_test
from videosr.engines.tensorrt_context import LoadedEngine
from videosr.engines.tensorrt_library import Library
from videosr.engines.tensorrt_plans import PRECISIONS, Plan, Plans, log
from videosr.errors import EngineError, NetworkError, UsageError
from videosr.frame import Array, complete, namespace

_TRIAL: Size = (96, 128)
"""Where the precision is chosen: an engine this small is built and tested in no time."""
_SMALL = 1 << 20
"""Input pixels below which one frame does not fill a GPU, so that two networks run side by side."""
_SIZES = 2
"""Picture sizes kept ready at a time; a film that changes its size does not come back often."""


class Loaded(Protocol):
    """See `tensorrt_context.LoadedEngine`."""

    def learned(self) -> bytes: ...  # noqa: D102
    def context(self, device: Device, size: Size) -> Context: ...  # noqa: D102


class TensorRTEngine(Engine):
    """A network run by TensorRT.

    Args:
        network: the file.
        library: "tensorrt" or "tensorrt_rtx".
        precision: "f16", "f32", or "auto": f16 if that passes the self-test, else f32.
        index: of the GPU, as CUDA counts.
        device: the GPU, made already.
        cache: of built engines; None: the user's.
        loader: makes a serialised engine runnable: (its network, the engine, compiled kernels) -> loaded engine.

    Raises:
        MissingExtraError: the library, cupy or onnx is not installed.
        EngineError: no GPU, or the library cannot work on it.
        NetworkError: not a network, or not one that maps (N, 3, H, W) to (N, 3, s*H, s*W).
        UsageError: unknown precision, or another one than the file's.
    """

    dithers = True

    def __init__(
        self,
        network: Network,
        *,
        library: str,
        precision: str = "auto",
        index: int = 0,
        device: Device | None = None,
        cache: Cache | None = None,
        loader: Callable[[Definition, bytes, bytes], Loaded] = LoadedEngine,
    ) -> None:
        if precision not in ("auto", *PRECISIONS):
            raise UsageError(f"precision {precision!r} of the {library} engine is not one of auto, f16, f32")
        ladder = PRECISIONS if precision == "auto" else (precision,)
        if network.metadata.get("precision") == "fp16":
            if precision == "f32":
                raise UsageError(
                    f"precision 'f32': {network.path} is in half precision; export it with --precision f32"
                )
            ladder = ("f16",)
        self.network = network
        self._library = Library(library)
        device = device or cuda_device(index, f"the {library} engine")
        self.device: Device = device
        device.use()
        self._loader = loader
        self._plans = Plans(self._library, network, device.gpu, cache or Cache())
        self._reference: Engine | None = None
        self._ready: dict[Size, Execution] = {}
        definition = self._plans.definition(ladder[-1])
        self.scale, self.interface, self._multiple = definition.scale, definition.interface, definition.multiple
        self._padded = definition.padded
        self.precision = self._choose(ladder) if len(ladder) > 1 else ladder[0]

    @property
    def identity(self) -> str:
        """See `Engine.identity`. `tensorrt` chooses kernels by their speed while it builds: an engine built anew may
        differ in its last bits.
        """
        library, gpu = self._library, self.device.gpu
        return f"{library.name} {library.version} {gpu} {self.precision} {self.network.sha256}"

    def run(self, frame: Array, average: Array | None = None) -> Array:
        """See `Engine.run`."""
        if self.interface is Interface.RECURRENT:
            raise EngineError(f"{self.network.path}: a recurrent network runs in steps, in order")
        execution = self.ready(frame.shape[2:])
        pictures = [frame]
        if self.interface is Interface.AVERAGE:
            pictures.append(frame if average is None else average)
        tickets = []
        for i in range(frame.shape[0]):
            fitted = [self._fitted(picture[i : i + 1]) for picture in pictures]
            complete(fitted[0])
            tickets.append(execution.submit(fitted))
        made = [self._cropped(execution.result(ticket), frame) for ticket in tickets]
        together = namespace(frame).concatenate(made)
        complete(together)
        return together

    def step(self, frame: Array, *, reset: bool) -> Array:
        """See `Engine.step`."""
        if self.interface is not Interface.RECURRENT:
            return super().step(frame, reset=reset)
        fresh = self._padded(frame.shape[2:]) not in self._ready
        execution = self.ready(frame.shape[2:])
        fitted = self._fitted(frame)
        complete(fitted)
        cropped = self._cropped(execution.run([fitted], reset=reset or fresh), frame)
        complete(cropped)
        return cropped

    def planar(self, source: Picture, target: Picture, window: int, denoise: float = 0.0) -> PlanarRunner | None:
        """See `Engine.planar`."""
        if self.interface is Interface.RECURRENT:
            return None
        definition = self._plans.definition(self.precision)
        tensors = definition.inputs[0].dtype, definition.outputs[0].dtype
        planes = Planes(self.device, self.network, tensors, source, target, window, denoise)
        execution = self._open(self._padded((source.height, source.width)), planes.conversion())
        return PlanesRunner(execution, planes, str(self.network.path))

    def to_build(self, size: Size) -> bool:
        """See `Engine.to_build`."""
        return self._plans.find(self._padded(size), self.precision) is None

    def prepare(self, shapes: Shapes, progress: Progress | None = None) -> Plan:
        """Build the engine for these sizes ahead of its use, or find it built.

        Args:
            shapes: rounded up to what the network takes.
            progress: told how far the build is.

        Raises:
            EngineError: the library failed, or the engine did not pass its self-test.
        """
        self.device.use()  # where the library builds and loads
        shapes = Shapes(*map(self._padded, (shapes.smallest, shapes.tuned, shapes.largest)))
        test = partial(self._test, shapes=shapes, precision=self.precision)
        return self._passed(self._plans.build(shapes, self.precision, test, progress))

    def _passed(self, plan: Plan) -> Plan:
        """An engine that has passed its self-test.

        Raises:
            EngineError: it has not.
        """
        if plan.facts.get("problem"):
            raise EngineError(
                f"{self.network.path}: the {self._library.name} engine for {plan.shapes} in {self.precision} gives "
                f"{plan.facts['problem']}; use --precision f32 or another --engine"
            )
        return plan

    def ready(self, size: Size) -> Execution:
        """The engine ready for pictures of (rows, columns), as tensors; built if it is not in the cache.

        Raises:
            EngineError: see `prepare`.
        """
        size = self._padded(size)
        if size not in self._ready:
            while len(self._ready) >= _SIZES:
                del self._ready[next(iter(self._ready))]
            self._ready[size] = self._open(size)
        return self._ready[size]

    def _choose(self, ladder: Sequence[str]) -> str:
        """The first precision whose engine passes the self-test."""
        shapes = Shapes.fixed(*self._padded(_TRIAL))
        problem = ""
        for precision in ladder:
            if problem:
                log.warning("%s; going on in %s, which is slower", problem, precision)
            try:
                test = partial(self._test, shapes=shapes, precision=precision)
                plan = self._plans.build(shapes, precision, test)
            except NetworkError as exc:  # control flow has no half-precision form
                problem = str(exc)
                continue
            if not plan.facts.get("problem"):
                return precision
            problem = f"{self.network.name} with {self._library.name} in {precision} gives {plan.facts['problem']}"
        raise EngineError(f"{self.network.path}: {problem}; use another --engine")

    def _test(self, data: bytes, shapes: Shapes, precision: str) -> Mapping[str, str]:
        """The self-test's facts about an engine."""
        size = shapes.tuned
        execution = self._assembled(self._loader(self._plans.definition(precision), data, b""), size, precision)

        def step(frame: Array, average: Array | None, reset: bool) -> Array:
            arrays = [frame] if average is None else [frame, average]
            return np.asarray(execution.run(arrays, reset=reset)[0], np.float32)

        if self._reference is None:
            self._reference = reference_of(self.network)
        verdict: Verdict = self_test(step, self.interface, self._reference, size, precision, execution.blend)
        return {"name": self.network.name, "psnr": f"{verdict.psnr:.2f}", "problem": verdict.problem}

    def _open(self, size: Size, conversion: Conversion | None = None) -> Execution:
        """An engine from the cache, or built, and made ready."""
        self.device.use()
        plan = self._plans.find(size, self.precision)
        plan = self._passed(plan) if plan else self.prepare(Shapes.fixed(*size))
        known = self._plans.kernels(plan.key)
        loaded = self._loader(self._plans.definition(self.precision), plan.data, known)
        execution = self._assembled(loaded, size, self.precision, conversion)
        learned = loaded.learned()
        if learned and learned != known:
            self._plans.keep(self._plans.kernels_key(plan.key), learned)
        return execution

    def _assembled(self, loaded: Loaded, size: Size, precision: str, conversion: Conversion | None = None) -> Execution:
        """Contexts and buffers for a size."""
        definition, scale = self._plans.definition(precision), self.scale
        small = size[0] * size[1] < _SMALL and self.interface is not Interface.RECURRENT
        lanes = 2 if small else 1
        inputs = {port.name: Layout((1, port.channels, *size), port.dtype) for port in definition.inputs}
        picture, *states = definition.outputs
        outputs = {picture.name: Layout((1, 3, scale * size[0], scale * size[1]), picture.dtype)}
        outputs |= {state.name: Layout((1, state.channels, *size), state.dtype) for state in states}
        contexts = [loaded.context(self.device, size) for _ in range(lanes)]
        return Execution(self.device, contexts, inputs, outputs, conversion, slots=2 + lanes)

    def _fitted(self, picture: Array) -> Array:
        """Padded to a size the network takes, by repeating the last row and column."""
        rows, columns = self._padded(picture.shape[2:])
        height, width = picture.shape[2:]
        if (rows, columns) == (height, width):
            return picture
        return namespace(picture).pad(picture, ((0, 0), (0, 0), (0, rows - height), (0, columns - width)), mode="edge")

    def _cropped(self, results: Sequence[Array], frame: Array) -> Array:
        height, width = frame.shape[2:]
        cropped = results[0][:, :, : self.scale * height, : self.scale * width]
        return namespace(cropped).ascontiguousarray(cropped, np.float32)

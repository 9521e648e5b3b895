"""From an ONNX network to a serialised TensorRT engine. With TensorRT-RTX no GPU is needed for that."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from videosr.engines.base import Interface
from videosr.engines.tensorrt_library import RTX_CAPABILITIES, Library, uncollected
from videosr.errors import EngineError, NetworkError, UsageError

type Size = tuple[int, int]
"""(rows, columns) of a picture."""
type Progress = Callable[[str, float], None]
"""Told the phase a build is in and the share of the whole that is done, 0..1; may be called from any thread."""

_MULTIPLES = (1, 2, 4, 8, 16, 32, 64)


@dataclass(frozen=True, slots=True)
class Shapes:
    """The picture sizes an engine takes.

    Attributes:
        smallest: rows and columns.
        tuned: the size it is fastest at.
        largest: rows and columns.
    """

    smallest: Size
    tuned: Size
    largest: Size

    def __post_init__(self) -> None:
        """Check the order.

        Raises:
            UsageError: the sizes are not in order.
        """
        for low, mid, high in zip(self.smallest, self.tuned, self.largest, strict=True):
            if not 1 <= low <= mid <= high:
                raise UsageError(f"sizes {self} are not in the order smallest, tuned, largest")

    @staticmethod
    def fixed(rows: int, columns: int) -> Shapes:
        """For one size alone: the fastest form."""
        return Shapes((rows, columns), (rows, columns), (rows, columns))

    @property
    def static(self) -> bool:
        """Whether there is one size alone."""
        return self.smallest == self.largest

    def covers(self, size: Size) -> bool:
        """Whether pictures of this size fit."""
        return all(low <= n <= high for low, n, high in zip(self.smallest, size, self.largest, strict=True))

    def __str__(self) -> str:
        sizes = (self.tuned,) if self.static else (self.smallest, self.tuned, self.largest)
        return "..".join(f"{columns}x{rows}" for rows, columns in sizes)

    @staticmethod
    def parse(text: str) -> Shapes:
        """The reverse of `str`.

        Raises:
            UsageError: it is not of that form.
        """
        try:
            sizes = [tuple(int(n) for n in reversed(part.split("x"))) for part in text.split("..")]
        except ValueError:
            sizes = []
        if len(sizes) not in (1, 3) or any(len(size) != 2 for size in sizes):
            raise UsageError(f"sizes {text!r} are not of the form 1920x1080 or 64x64..1280x720..1920x1080")
        return Shapes(sizes[0], sizes[len(sizes) // 2], sizes[-1])  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True)
class Port:
    """An input or output of a network: (1, channels, rows, columns) of numpy's `dtype`."""

    name: str
    channels: int
    dtype: str


class Definition:
    """A network as TensorRT has read it.

    Args:
        library: what reads it.
        data: the ONNX model.
        name: of the file, for errors.

    Attributes:
        library, data, name: as given.
        interface: how it takes part in temporal reuse.
        inputs: the picture first.
        outputs: the picture first.
        scale: output pixels per input pixel and axis.
        multiple: rows and columns must be multiples of this.

    Raises:
        NetworkError: TensorRT cannot read it, or it is no upscaler.
        EngineError: the library cannot work here (`tensorrt` without a GPU).
    """

    @uncollected()
    def __init__(self, library: Library, data: bytes, name: str) -> None:
        self.library, self.data, self.name = library, data, name
        trt = library.trt
        library.problem()
        try:
            self.builder = trt.Builder(library.logger)
        except (TypeError, RuntimeError) as exc:  # pybind: the constructor returned nothing
            said = library.problem() or str(exc)
            raise EngineError(f"{library.name} cannot build here: {said} (see videosr doctor)") from exc
        flags = 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
        self.network = self.builder.create_network(flags)
        self._parser = trt.OnnxParser(self.network, library.logger)  # owns what the network refers to
        if not self._parser.parse(data):
            errors = [self._parser.get_error(i).desc() for i in range(self._parser.num_errors)]
            reason = (errors or [library.problem()])[0].splitlines()[0]
            raise NetworkError(f"{name}: {library.name} cannot read it: {reason}")
        inputs = [self.network.get_input(i) for i in range(self.network.num_inputs)]
        outputs = [self.network.get_output(i) for i in range(self.network.num_outputs)]
        self.interface = self._find_interface([t.name for t in inputs], [t.name for t in outputs])
        self._tensors = sorted(inputs, key=lambda t: t.name in ("average", "prev_feat"))
        self.inputs = tuple(self._port(tensor) for tensor in self._tensors)
        self.scale, self.multiple = self._probe(outputs)
        picture = [Port(t.name, 3, self._type(t)) for t in outputs if t.name != "feature_map"]
        state = [Port(t.name, self.inputs[1].channels, self._type(t)) for t in outputs if t.name == "feature_map"]
        self.outputs = (*picture, *state)

    def _find_interface(self, inputs: list[str], outputs: list[str]) -> Interface:
        if len(inputs) == 1 and len(outputs) == 1:
            return Interface.IMAGE
        if set(inputs) == {"input", "average"} and len(outputs) == 1:
            return Interface.AVERAGE
        if set(inputs) == {"input", "prev_feat"} and set(outputs) == {"output", "feature_map"}:
            return Interface.RECURRENT
        raise NetworkError(
            f"{self.name}: inputs {', '.join(inputs)} and outputs {', '.join(outputs)} are not an upscaler's: "
            "one picture in and out, or input and average, or input and prev_feat to output and feature_map"
        )

    def _port(self, tensor: Any) -> Port:
        shape = tuple(tensor.shape)
        state = tensor.name == "prev_feat"
        if len(shape) == 4 and shape[1] == 1 and not state:
            raise NetworkError(
                f"{self.name}: takes luma alone, as the openvino and onnxruntime engines can: give --device cpu"
            )
        if len(shape) != 4 or (shape[1] < 1 if state else shape[1] not in (3, -1)):
            raise NetworkError(f"{self.name}: its {tensor.name} has shape {shape}, not (N, 3, H, W)")
        if shape[2] > 0 or shape[3] > 0:
            raise NetworkError(
                f"{self.name}: made for {shape[3]}x{shape[2]} only; export it with dynamic height and width"
            )
        return Port(tensor.name, shape[1] if state else 3, self._type(tensor))

    def _type(self, tensor: Any) -> str:
        trt = self.library.trt
        names = {trt.DataType.FLOAT: "float32", trt.DataType.HALF: "float16"}
        if tensor.dtype not in names:
            raise NetworkError(f"{self.name}: its {tensor.name} is of type {tensor.dtype}, not float32 or float16")
        return names[tensor.dtype]

    def _probe(self, outputs: list[Any]) -> tuple[int, int]:
        """(scale, the multiple that sizes must have), as TensorRT infers them for awkward sizes."""
        picture = next(t for t in outputs if t.name != "feature_map")
        seen = ""
        for multiple in _MULTIPLES:
            rows, columns = 64 + multiple, 64 + 3 * multiple
            self._set_size(rows, columns)
            try:
                shape = tuple(picture.shape)
            except (ValueError, RuntimeError):  # a shape that cannot be
                shape = ()
            scale = shape[2] // rows if len(shape) == 4 else 0
            if scale > 0 and shape == (1, 3, scale * rows, scale * columns):
                self._set_size(-1, -1)
                return scale, multiple
            seen = seen or self.library.problem() or f"{columns}x{rows} becomes {shape}"
        raise NetworkError(f"{self.name}: not an upscaler by a whole factor: {seen}")

    def _set_size(self, rows: int, columns: int) -> None:
        for tensor, port in zip(self._tensors, self.inputs, strict=True):
            tensor.shape = (1, port.channels, rows, columns)

    def padded(self, size: Size) -> Size:
        """The next size that is a multiple of what the network needs."""
        rows, columns = size
        return -(-rows // self.multiple) * self.multiple, -(-columns // self.multiple) * self.multiple

    @uncollected()
    def build(
        self,
        shapes: Shapes,
        *,
        capability: tuple[int, int] | None = None,
        progress: Progress | None = None,
        timing: bytes = b"",
    ) -> tuple[bytes, bytes]:
        """Build an engine.

        Args:
            shapes: the sizes it takes, multiples of `multiple`.
            capability: of the GPU it is for; None: the GPU of this machine. Another one only with TensorRT-RTX.
            progress: told how far the build is.
            timing: measurements of earlier builds on this GPU (`tensorrt` alone).

        Returns:
            (engine, timing): serialised; the measurements now known, b"" with TensorRT-RTX.

        Raises:
            EngineError: the library failed.
            UsageError: it cannot build for that GPU.
        """
        library = self.library
        library.problem()
        config = self.builder.create_builder_config()
        self._target(config, capability)
        for flag, on in builder_flags(library).items():
            (config.set_flag if on else config.clear_flag)(getattr(library.trt.BuilderFlag, flag))
        if shapes.static:
            self._set_size(*shapes.tuned)
        else:
            self._set_size(-1, -1)
            profile = self.builder.create_optimization_profile()
            for port in self.inputs:
                sizes = ((1, port.channels, *size) for size in (shapes.smallest, shapes.tuned, shapes.largest))
                profile.set_shape(port.name, *sizes)
            config.add_optimization_profile(profile)
        cache = None
        if not library.rtx:
            cache = config.create_timing_cache(timing)
            config.set_timing_cache(cache, False)
        monitor = _monitor(library.trt, progress) if progress else None
        if monitor is not None:
            config.progress_monitor = monitor
        plan = self.builder.build_serialized_network(self.network, config)
        if monitor is not None and monitor.failure is not None:
            raise monitor.failure
        if plan is None:
            raise EngineError(f"{self.name}: {library.name} cannot build it for {shapes}: {library.problem()}")
        return bytes(plan), bytes(cache.serialize()) if cache is not None else b""

    def _target(self, config: Any, capability: tuple[int, int] | None) -> None:
        library = self.library
        if not library.rtx:
            if capability is not None:
                raise UsageError(f"{library.name} builds for the GPU of this machine only; tensorrt_rtx for others too")
            return
        known = library.trt.ComputeCapability
        if capability is None:
            wanted = known.CURRENT
        else:
            wanted = getattr(known, f"SM{capability[0]}{capability[1]}", None)
            if wanted is None:
                able = ", ".join(f"{major}.{minor}" for major, minor in RTX_CAPABILITIES)
                raise UsageError(
                    f"{library.name} {library.version} does not build for compute capability "
                    f"{capability[0]}.{capability[1]} (it does for {able}); use the tensorrt engine on such a GPU"
                )
        config.num_compute_capabilities = 1
        if not config.set_compute_capability(wanted, 0):
            raise EngineError(f"{library.name} does not take compute capability {wanted}: {library.problem()}")


def builder_flags(library: Library) -> Mapping[str, bool]:
    """The builder's flags that are not left as they come, by name.

    TF32 keeps ten bits of what is called float32: then f32 would be no safer than f16. CUDA graphs need an engine that
    allocates nothing while it runs, which TensorRT-RTX calls REQUIRE_USER_ALLOCATION.
    """
    return {"TF32": False} | ({"REQUIRE_USER_ALLOCATION": True} if library.rtx else {})


def _monitor(trt: Any, progress: Progress) -> Any:
    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        """Follows the outermost phase; keeps what the callback raises, which must not pass through the library."""

        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.failure: BaseException | None = None
            self.outer: dict[str, int] = {}
            self.done = 0.0

        def phase_start(self, phase: str, parent: str | None, steps: int) -> None:
            """See `IProgressMonitor`."""
            if parent is None:
                self.outer[phase] = steps
            self.tell(phase)

        def step_complete(self, phase: str, step: int) -> bool:
            """See `IProgressMonitor`; False stops the build."""
            if phase in self.outer:
                self.done = max(self.done, (step + 1) / max(self.outer[phase], step + 1))
            self.tell(phase)
            return self.failure is None

        def phase_finish(self, phase: str) -> None:
            """See `IProgressMonitor`."""
            if phase in self.outer:
                self.done = 1.0
                self.tell(phase)

        def tell(self, phase: str) -> None:
            if self.failure is None:
                try:
                    progress(phase, self.done)
                except BaseException as exc:  # Ctrl-C too; raised again when the library has returned
                    self.failure = exc

    return Monitor()

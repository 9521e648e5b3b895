"""OpenVINO, the engine for any ONNX network on any CPU.

A network file is read, its interface is found from the graph's inputs and outputs, and its scale and the multiple that
sizes have to be padded to by running it on small pictures. Every network runs on R'G'B' tensors (`run`, `step`); those
in deployment form also run planes to planes (`planar`, by `openvino_strips`).
"""

from __future__ import annotations

import platform
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import openvino as ov
import openvino.opset13 as ops

from videosr.engines.base import Engine, Interface, NotFinite, Picture, PlanarRunner, baked_blend, check_range
from videosr.engines.emission import supported
from videosr.engines.network import Network
from videosr.engines.openvino_core import core
from videosr.engines.openvino_strips import StripRunner
from videosr.errors import EngineError, NetworkError, UsageError
from videosr.frame import Array, ColorSpec, Matrix, PixelFormat, Range, Siting
from videosr.machine import cores

PRECISIONS = ("auto", "f32", "bf16", "f16")
_MULTIPLES = (1, 2, 4, 8, 16, 32, 64)
_ARM = frozenset({"aarch64", "arm64"})
"""Arm CPUs, as `platform.machine` names them."""
_HALF = {"FP16": "f16", "BF16": "bf16"}
"""Half precisions: their names among OpenVINO's device capabilities, and as its precision hint."""


def fast_precisions() -> tuple[str, ...]:
    """The half precisions that this CPU computes natively: of "f16" and "bf16"."""
    able = core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return tuple(hint for name, hint in _HALF.items() if name in able)


def _automatic() -> tuple[str, ...]:
    """The half precisions that "auto" may take: f16 on Arm.

    On x86 neither. On a Xeon with AMX f16 took 1.1 to 1.5 times as long as f32. bf16 took 0.45 to 0.7 of its time, but
    is two or three 8-bit codes off at up to 80 samples in a million: features are rounded to 8 bits between layers.
    """
    return tuple(p for p in fast_precisions() if p == "f16" and platform.machine().lower() in _ARM)


class OpenVINOEngine(Engine):
    """A network compiled by OpenVINO.

    Args:
        network: the file.
        precision: "f32", "bf16", "f16", or "auto": on an Arm CPU that computes f16 natively that, if it gives the same
            8-bit codes as f32, give or take one, on a probe picture; else f32.
        threads: CPU threads; None takes all this process may use.

    Raises:
        NetworkError: not a network, or not one that maps (N, C, H, W) to (N, C, s*H, s*W) with C 3, or 1.
        UsageError: unknown precision, or a process forked from one that has used OpenVINO.
    """

    def __init__(self, network: Network, *, precision: str = "auto", threads: int | None = None) -> None:
        if precision not in PRECISIONS:
            raise UsageError(f"precision {precision!r} is not one of {', '.join(PRECISIONS)}")
        self.network = network
        self.threads = threads or cores()
        try:
            model = core().read_model(network.path)
            for op in model.get_ordered_ops():
                op.get_friendly_name()  # raises UnicodeDecodeError in a damaged file whose names are not UTF-8
        except (RuntimeError, UnicodeDecodeError) as exc:
            raise NetworkError(f"{network.path}: OpenVINO cannot read it: {_first_line(exc)}") from exc
        self.interface = self._shape_interface(model)
        self._model = model
        self._lock = threading.Lock()
        self.precision = "f32"
        self._compile(self.precision)
        self.scale, self._multiple = self._probe()
        self._state: Array | None = None
        if precision == "auto":
            self.precision = next((p for p in _automatic() if self._close_to_f32(p)), "f32")
        else:
            self.precision = precision
        if self.precision != "f32" and not self.deployed:
            self._compile(self.precision)

    @property
    def deployed(self) -> bool:
        """Whether the network is in our deployment form, whose graph may be rewritten to run over strips of planes.

        Strips need a network that was made for edges that are repeated outwards (`halo`) and whose pixels see only so
        far (`reach`); rewriting needs float32 weights.
        """
        net = self.network
        plain = net.metadata.get("form") == "deploy" and net.metadata.get("precision", "fp32") == "fp32"
        return plain and "reach" in net.metadata and net.number("halo", 0) > 0

    @property
    def identity(self) -> str:
        """See `Engine.identity`."""
        return f"openvino {ov.__version__} CPU {self.precision} {self.network.sha256}"

    def run(self, frame: Array, average: Array | None = None) -> Array:
        """See `Engine.run`. A network in deployment form computes in float32 here, whatever its precision elsewhere."""
        if self.interface is Interface.RECURRENT:
            raise EngineError(f"{self.network.path}: a recurrent network runs in steps, in order")
        inputs = {"input": frame}
        if self.interface is Interface.AVERAGE:
            inputs["average"] = frame if average is None else average
        return self._infer(inputs)[0]

    def step(self, frame: Array, *, reset: bool) -> Array:
        """See `Engine.step`. At a reset the network runs twice, first with a state of zeros, which scales its features
        by (1 - blend). Divided by that, they are the state with which the frame comes out as if it stood alone.
        """
        if self.interface is not Interface.RECURRENT:
            return super().step(frame, reset=reset)
        if reset or self._state is None:
            shape = (frame.shape[0], self._channels, *_padded(frame.shape[2:], self._multiple))
            _, features = self._infer({"input": frame, "prev_feat": np.zeros(shape, np.float32)})
            self._state = features / np.float32(1 - self._blend)
        output, self._state = self._infer({"input": frame, "prev_feat": self._state})
        return output

    def planar(self, source: Picture, target: Picture, window: int, denoise: float = 0.0) -> PlanarRunner | None:
        """See `Engine.planar`."""
        if not self.deployed or not supported(self.network, source.format, target.format, self.scale):
            return None
        return StripRunner(
            core(),
            self.network,
            source,
            target,
            self.scale,
            window=window,
            denoise=denoise,
            precision=self.precision,
            threads=self.threads,
        )

    def _shape_interface(self, model: ov.Model) -> Interface:
        """The interface, by the graph's inputs and outputs; a published recurrence is taken out first (`_hoist`)."""
        path = self.network.path
        names = {name for port in model.inputs for name in port.get_names()}
        if len(model.inputs) == 1 and len(model.outputs) == 1:
            interface = Interface.IMAGE
        elif names >= {"input", "average"} and len(model.inputs) == 2:
            return Interface.AVERAGE
        elif names >= {"input", "prev_feat"} and len(model.outputs) == 2:
            channels = model.input("prev_feat").get_partial_shape()[1]
            if _hoist(model):
                return Interface.AVERAGE
            self._channels = channels.get_length()
            return Interface.RECURRENT
        else:
            ports = [port.get_any_name() for port in (*model.inputs, *model.outputs)]
            raise NetworkError(
                f"{path}: inputs and outputs {', '.join(ports)} are not those of an upscaler"
                " (one image in, one out; or input + average; or input + prev_feat -> output + feature_map)"
            )
        shape = model.inputs[0].get_partial_shape()
        if not shape.rank.is_dynamic and len(shape) == 4 and shape[1] == ov.Dimension(1):
            self.channels = 1
        elif shape.rank.is_dynamic or len(shape) != 4 or not shape[1].compatible(ov.Dimension(3)):
            raise NetworkError(f"{path}: its input has shape {shape}, not (N, 3, H, W), nor (N, 1, H, W) of luma")
        if shape[2].is_static or shape[3].is_static:
            only = f"{path}: made for {shape[3]}x{shape[2]} pictures only; export it with dynamic height and width"
            try:
                model.reshape([1 if shape[0].is_static else -1, self.channels, -1, -1])
            except RuntimeError as exc:
                raise NetworkError(only) from exc
            if _ties_size(model):
                raise NetworkError(only)
        return interface

    def _compile(self, precision: str) -> None:
        try:
            compiled = core().compile_model(
                self._model,
                "CPU",
                {"INFERENCE_PRECISION_HINT": precision, "INFERENCE_NUM_THREADS": self.threads, "NUM_STREAMS": 1},
            )
            self._request = compiled.create_infer_request()
        except RuntimeError as exc:
            raise NetworkError(f"{self.network.path}: OpenVINO cannot compile it: {_first_line(exc)}") from exc

    def _infer(self, inputs: dict[str, Array]) -> list[Array]:
        """Run on a batch padded to the network's size multiple, one picture at a time if it takes only one."""
        batch, _, height, width = inputs["input"].shape
        if batch > 1 and self._model.inputs[0].get_partial_shape()[0].is_static:
            singles = [self._infer({k: v[i : i + 1] for k, v in inputs.items()}) for i in range(batch)]
            return [np.concatenate(parts) for parts in zip(*singles, strict=True)]
        rows, columns = _padded((height, width), self._multiple)
        feeds = []
        for port in self._model.inputs:
            name = port.get_any_name() if len(inputs) > 1 else "input"
            array = np.ascontiguousarray(inputs[name], np.float32)
            if array.shape[2:] != (rows, columns):
                border = ((0, 0), (0, 0), (0, rows - height), (0, columns - width))
                array = np.pad(array, border, mode="edge")
            feeds.append(array.astype(_NUMPY_TYPES.get(port.get_element_type().get_type_name(), np.float32)))
        try:
            with self._lock:
                outputs = self._request.infer(dict(enumerate(feeds)))
                results = [np.array(outputs[port], np.float32) for port in self._request.model_outputs]
        except RuntimeError as exc:
            raise EngineError(f"{self.network.path}: OpenVINO failed on {width}x{height}: {_first_line(exc)}") from exc
        output = results[0]
        if output.size == 0:  # OpenVINO's way to say that the graph does not work out at this size
            _failed.append(self._request)
            raise EngineError(f"{self.network.path}: OpenVINO gives an empty picture for {width}x{height}")
        if (rows, columns) != (height, width):
            s = output.shape[2] // rows
            results[0] = np.ascontiguousarray(output[:, :, : s * height, : s * width])
        return results

    def _probe(self) -> tuple[int, int]:
        """(scale, size multiple), found by running on small pictures of awkward sizes."""
        seen = "nothing"
        for multiple in _MULTIPLES:
            self._multiple = multiple
            height, width = 64 + multiple, 64 + 3 * multiple
            inputs = {"input": np.full((1, self.channels, height, width), 0.5, np.float32)}
            if self.interface is Interface.AVERAGE:
                inputs["average"] = inputs["input"]
            elif self.interface is Interface.RECURRENT:
                inputs["prev_feat"] = np.zeros((1, self._channels, height, width), np.float32)
            try:
                out = self._infer(inputs)[0]
            except EngineError as exc:
                seen = str(exc)
                continue
            seen = f"{width}x{height} became {out.shape}"
            if out.ndim == 4 and out.shape[1] == self.channels:
                s = out.shape[2] // height
                if s >= 1 and out.shape[2:] == (s * height, s * width):
                    check_range(self.network.path, out)
                    if self.interface is Interface.RECURRENT:
                        self._blend = self._measure_blend(inputs)
                    return s, multiple
        raise NetworkError(f"{self.network.path}: not an upscaler by a whole factor: {seen}")

    def _measure_blend(self, inputs: dict[str, Array]) -> float:
        """The blend a baked into a recurrent network, from a picture seen after a state of zeros."""
        once = self._infer(inputs)[1]
        twice = self._infer(inputs | {"prev_feat": once})[1]
        blend = baked_blend(once, twice)
        if blend is None:
            raise NetworkError(f"{self.network.path}: its state is not a running average of features")
        return blend

    def _close_to_f32(self, precision: str) -> bool:
        """Whether a half precision gives f32's 8-bit codes, give or take one, on the probe picture.

        No if OpenVINO refuses the precision, fails with it, or gives values that are not finite.
        """
        if self.interface is Interface.RECURRENT and not self.deployed:
            return False  # errors would add up over the frames
        try:
            exact, half = (self._codes(p) for p in ("f32", precision))
        except (EngineError, NetworkError):
            return False
        return bool(np.abs(exact - half).max() <= 1)

    def _codes(self, precision: str) -> Array:
        """The probe picture's 8-bit codes in a precision, (3, rows, columns) int16.

        Raises:
            EngineError, NetworkError: OpenVINO cannot do that, or the result is not finite.
        """
        probe = _probe_picture()
        if self.deployed:
            fmt = PixelFormat.parse("yuv444p")
            color = ColorSpec(matrix=Matrix.BT709, range=Range.FULL, siting=Siting.LEFT)
            planes = [np.rint(plane * 255).astype(np.uint8) for plane in probe[0]]
            source = Picture(height=planes[0].shape[0], width=planes[0].shape[1], format=fmt, color=color)
            target = Picture(height=0, width=0, format=fmt, color=color)
            runner = StripRunner(core(), self.network, source, target, self.scale, precision=precision, threads=1)
            return np.stack(runner.result(runner.submit([planes], 0.0))).astype(np.int16)
        before = self._request
        try:
            if precision != self.precision:
                self._compile(precision)
            values = self.run(probe[:, : self.channels], probe)[0]
        finally:
            self._request = before
        if not np.isfinite(values).all():
            raise NotFinite(f"{self.network.path}: gives values in {precision} that are not finite")
        return np.asarray(np.rint(np.clip(values, 0, 1) * 255), np.int16)


_failed: list[ov.InferRequest] = []
"""Requests that gave an empty picture. Once one is released, OpenVINO 2026.4 crashes in the next network."""
_NUMPY_TYPES: dict[str, Any] = {"f16": np.float16, "f32": np.float32, "f64": np.float64}


def _probe_picture() -> Array:
    """(1, 3, 96, 128) float32: ramps, flat fields, hard edges and noise, always the same."""
    y, x = np.mgrid[:96, :128].astype(np.float32)
    rng = np.random.default_rng(1)
    ramp, flat = x / 127, np.full_like(x, 0.8)
    edges = ((x // 8 + y // 8) % 2) * 0.9 + 0.05
    noise = rng.random(x.shape, np.float32)
    picture = np.where(y < 24, ramp, np.where(y < 48, flat, np.where(y < 72, edges, noise)))
    return np.stack([picture, picture[:, ::-1], 0.5 * picture + 0.25])[None].astype(np.float32)


def _padded(size: Sequence[int], multiple: int) -> tuple[int, int]:
    return -(-size[0] // multiple) * multiple, -(-size[1] // multiple) * multiple


def _first_line(exc: BaseException) -> str:
    """The last line of an OpenVINO message, which says what; those before say where in its sources."""
    lines = [line.strip() for line in str(exc).splitlines() if line.strip()]
    return lines[-1] if lines else type(exc).__name__


def _ties_size(model: ov.Model) -> bool:
    """Whether a reshape inside the graph forgets the picture's size. OpenVINO runs such a graph at other sizes too,
    without a word, and reads past the picture's end where that is smaller.
    """

    def forgets(op: Any) -> bool:
        shape = op.get_input_partial_shape(0)
        sized = shape.rank.is_dynamic or any(dimension.is_dynamic for dimension in list(shape)[1:])
        return bool(sized and op.get_output_partial_shape(0).is_static)

    return any(forgets(op) for op in model.get_ordered_ops() if op.get_type_name() == "Reshape")


def _hoist(model: ov.Model) -> bool:
    """Move a published recurrence out of the graph, in place, if its blend is where the published networks have it.

    feat = (1 - a) conv_in(input) + a prev_feat, with conv_in affine, equals conv_in of the same blend of the input
    frames: so `prev_feat` is replaced by a second image input `average` that conv_in reads instead of `input`.
    """
    state, image = model.input("prev_feat").get_node(), model.input("input").get_node()
    scaled = _reader(state, "Multiply")
    blend = _reader(scaled, "Add") if scaled else None
    if scaled is None or blend is None:
        return False
    current = next((node for node in _operands(blend) if node != scaled), scaled)
    past, new = _factor(scaled), _factor(current)
    if past is None or new is None or abs(past[1] + new[1] - 1) > 1e-3:
        return False
    features = new[0]
    conv = features.get_node()
    if conv.get_type_name() == "Add":
        conv, bias = sorted(_operands(conv), key=lambda node: node.get_type_name() != "Convolution")
        bias = _operands(bias)[0] if bias.get_type_name() == "Reshape" else bias
        if bias.get_type_name() != "Constant":
            return False
    if conv.get_type_name() != "Convolution" or conv.input_value(0).get_node() != image:
        return False
    results = [r for r in model.get_results() if blend in _chain(r)]
    if len(results) != 1:
        return False
    average = ops.parameter(image.get_partial_shape(), image.get_element_type(), name="average")
    average.output(0).set_names({"average"})
    conv.input(0).replace_source_output(average.output(0))
    model.add_parameters([average])
    blend.output(0).replace(features)
    model.remove_result(results[0])
    model.remove_parameter(state)
    model.validate_nodes_and_infer_types()
    return True


def _reader(node: Any, kind: str) -> Any:
    """The one node that reads a node's output, if it is of this type; else None."""
    readers = [port.get_node() for port in node.output(0).get_target_inputs()]
    readers = [r for r in readers if r.get_type_name() != "Result"]
    return readers[0] if len(readers) == 1 and readers[0].get_type_name() == kind else None


def _chain(result: Any) -> tuple[Any, Any]:
    """The node that makes a result, and the one before it where that only passes on."""
    node = result.input_value(0).get_node()
    return node, node.input_value(0).get_node() if node.get_type_name() == "Identity" else node


def _operands(node: Any) -> list[Any]:
    return [node.input_value(i).get_node() for i in range(2)]


def _factor(node: Any) -> tuple[Any, float] | None:
    """(x, factor) of a node that multiplies x by a constant scalar; else None."""
    if node.get_type_name() != "Multiply":
        return None
    kinds = [operand.get_type_name() for operand in _operands(node)]
    if kinds.count("Constant") != 1:
        return None
    at = kinds.index("Constant")
    values = np.unique(_operands(node)[at].get_data())
    return (node.input_value(1 - at), float(values[0])) if values.size == 1 else None

"""ONNX Runtime on the CPU: a second opinion on any network file, and an engine where OpenVINO does not run.

Published video networks keep their recurrence here (`Interface.RECURRENT`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as _state

from videosr.engines.base import Engine, Interface, baked_blend, check_range
from videosr.engines.network import Network
from videosr.errors import EngineError, NetworkError, UsageError, first_line
from videosr.frame import Array
from videosr.machine import cores

ERRORS: tuple[type[Exception], ...] = (
    *(kind for kind in vars(_state).values() if isinstance(kind, type) and issubclass(kind, Exception)),
    RuntimeError,
    ValueError,
)
"""What ONNX Runtime raises; its own exceptions share no base class."""

_TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16}
_MULTIPLES = (1, 2, 4, 8, 16, 32, 64)


class OnnxRuntimeEngine(Engine):
    """A network run by ONNX Runtime's CPU provider.

    Args:
        network: the file.
        precision: "auto"; the file alone decides, so naming another one is an error.
        threads: CPU threads; None takes all this process may use.

    Raises:
        NetworkError: not a network, or not one that maps (N, C, H, W) to (N, C, s*H, s*W) with C 3, or 1.
        UsageError: another precision than the file's.
    """

    def __init__(self, network: Network, *, precision: str = "auto", threads: int | None = None) -> None:
        self.network = network
        self.precision = "f16" if network.metadata.get("precision") == "fp16" else "f32"
        if precision not in ("auto", self.precision):
            raise UsageError(
                f"precision {precision!r}: ONNX Runtime computes as the file says, and {network.path} says "
                f"{self.precision}; export a network with another precision"
            )
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or cores()
        options.log_severity_level = 4  # errors arrive as exceptions; nothing is said on stderr
        try:
            self._session = onnxruntime.InferenceSession(network.path, options, providers=["CPUExecutionProvider"])
        except ERRORS as exc:
            raise NetworkError(f"{network.path}: ONNX Runtime cannot load it: {first_line(exc)}") from exc
        self._inputs = {port.name: port for port in self._session.get_inputs()}
        self._outputs = [port.name for port in self._session.get_outputs()]
        self.interface = self._find_interface()
        self._features: Array | None = None
        self.scale, self._multiple = self._probe()

    @property
    def identity(self) -> str:
        """See `Engine.identity`."""
        return f"onnxruntime {onnxruntime.__version__} CPU {self.precision} {self.network.sha256}"

    def run(self, frame: Array, average: Array | None = None) -> Array:
        """See `Engine.run`."""
        if self.interface is Interface.RECURRENT:
            raise EngineError(f"{self.network.path}: a recurrent network runs in steps, in order")
        (picture, *rest) = self._inputs
        inputs = {picture: frame} | {name: frame if average is None else average for name in rest}
        return self._infer(inputs, self._multiple)[0]

    def step(self, frame: Array, *, reset: bool) -> Array:
        """See `Engine.step`.

        From a state of zeros a network with the blend a inside makes features (1 - a) times too small, and a wrong
        first frame; divided by 1 - a they are the state from which the frame comes out as if it stood alone.
        """
        if self.interface is not Interface.RECURRENT:
            return super().step(frame, reset=reset)
        if reset or self._features is None or self._features.shape[2:] != frame.shape[2:]:
            zeros = np.zeros((frame.shape[0], self._channels, *frame.shape[2:]), np.float32)
            features = self._infer({"input": frame, "prev_feat": zeros}, 1)[1]
            self._features = features / np.float32(1 - self._blend)
        output, self._features = self._infer({"input": frame, "prev_feat": self._features}, 1)
        return output

    @property
    def _channels(self) -> int:
        return int(self._inputs["prev_feat"].shape[1])

    def _find_interface(self) -> Interface:
        path, names = self.network.path, set(self._inputs)
        if len(names) == 1 and len(self._outputs) == 1:
            interface = Interface.IMAGE
        elif names == {"input", "average"} and len(self._outputs) == 1:
            interface = Interface.AVERAGE
        elif names == {"input", "prev_feat"} and self._outputs == ["output", "feature_map"]:
            interface = Interface.RECURRENT
        else:
            raise NetworkError(
                f"{path}: inputs {', '.join(names)} and outputs {', '.join(self._outputs)} are not an upscaler's: "
                "one picture in and out, or input and average, or input and prev_feat to output and feature_map"
            )
        for port in self._inputs.values():
            shape = list(port.shape)
            counts = (3, None, 1) if interface is Interface.IMAGE else (3, None)
            if port.type not in _TYPES or len(shape) != 4 or (port.name != "prev_feat" and shape[1] not in counts):
                kind = f"{port.type} {shape}"
                raise NetworkError(
                    f"{path}: its {port.name} is {kind}, not a float (N, 3, H, W) tensor, nor (N, 1, H, W) of luma"
                )
            if shape[1] == 1 and interface is Interface.IMAGE:
                self.channels = 1
            if isinstance(shape[2], int) or isinstance(shape[3], int):
                raise NetworkError(
                    f"{path}: made for {shape[3]}x{shape[2]} only; export it with dynamic height and width"
                )
        return interface

    def _infer(self, inputs: Mapping[str, Array], multiple: int) -> list[Array]:
        """All outputs as float32, for a picture that is padded to a size multiple and cropped after."""
        height, width = next(iter(inputs.values())).shape[2:]
        more = ((0, 0), (0, 0), (0, -height % multiple), (0, -width % multiple))
        feeds = {
            name: np.ascontiguousarray(np.pad(value, more, mode="edge"), _TYPES[self._inputs[name].type])
            for name, value in inputs.items()
        }
        try:
            # A network made for a batch of one gets its pictures one by one.
            if all(self._inputs[name].shape[0] == 1 for name in feeds):
                batch = range(next(iter(feeds.values())).shape[0])
                runs = [self._session.run(None, {k: v[i : i + 1] for k, v in feeds.items()}) for i in batch]
                results: Sequence[Array] = [np.concatenate(parts) for parts in zip(*runs, strict=True)]
            else:
                results = self._session.run(None, feeds)
        except ERRORS as exc:
            reason = first_line(exc)
            raise EngineError(f"{self.network.path}: ONNX Runtime failed on {width}x{height}: {reason}") from exc
        results = [np.asarray(result, np.float32) for result in results]
        if multiple > 1 and results[0].ndim == 4:
            s = results[0].shape[2] // (height + -height % multiple)
            results[0] = np.ascontiguousarray(results[0][:, :, : s * height, : s * width])
        return list(results)

    def _probe(self) -> tuple[int, int]:
        """(scale, the multiple that sizes must have), from runs on small pictures of awkward sizes."""
        failure: Exception | None = None
        for multiple in _MULTIPLES if self.interface is not Interface.RECURRENT else (1,):
            height, width = 33 * multiple, 35 * multiple
            channels = {name: self._channels if name == "prev_feat" else self.channels for name in self._inputs}
            picture = {
                name: np.full((1, count, height, width), 0 if name == "prev_feat" else 0.5, np.float32)
                for name, count in channels.items()
            }
            try:
                grey = self._infer(picture, 1)[0]
            except EngineError as exc:
                failure = failure or exc
                continue
            scale = grey.shape[2] // height if grey.ndim == 4 else 0
            if scale and grey.shape == (1, self.channels, scale * height, scale * width):
                check_range(self.network.path, grey)
                if self.interface is Interface.RECURRENT:
                    self._blend = self._measure_blend(height, width)
                return scale, multiple
            failure = failure or EngineError(f"{width}x{height} became {grey.shape}")
        raise NetworkError(f"{self.network.path}: not an upscaler by a whole factor: {failure}") from failure

    def _measure_blend(self, height: int, width: int) -> float:
        """The blend a baked into a recurrent network, from a picture seen after a state of zeros."""
        inputs = {"input": np.full((1, 3, height, width), 0.5, np.float32)}
        state = np.zeros((1, self._channels, height, width), np.float32)
        once = self._infer(inputs | {"prev_feat": state}, 1)[1]
        twice = self._infer(inputs | {"prev_feat": once}, 1)[1]
        blend = baked_blend(once, twice)
        if blend is None:
            raise NetworkError(f"{self.network.path}: its state is not a running average of features")
        return blend

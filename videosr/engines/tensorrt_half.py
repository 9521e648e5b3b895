"""A float32 ONNX network with its heavy part in float16, for runtimes that take types from the file alone.

TensorRT 11 and TensorRT-RTX are strongly typed: there is no builder flag for half precision any more. So the types are
set in the graph, by three rules that need no knowledge of the network:

* Convolutions and matrix products compute in float16.
* Layers that only move, join or bend values (activations, sums, shuffles, ...) follow what they are given: float16 if
  all their inputs are float16, else float32.
* Everything else, and every product of two activations, computes in float32: reductions, roots, divisions and gates
  leave float16's range or lose its 11 bits.

In networks with a second input (`average`, `prev_feat`) only what depends on that is touched: the base path keeps the
picture in float32, as it does in a network exported in half precision. Inputs and outputs stay float32. Where a network
adds its result to the enlarged picture, the sum is float32 by the second rule.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import TensorProto, helper, numpy_helper, shape_inference

from videosr.errors import NetworkError

_HEAVY = {"Conv", "ConvTranspose", "MatMul", "Gemm"}
_JOINING = {"Add", "Sub", "Mul", "Sum", "Concat", "Min", "Max", "PRelu", "Clip"}
_FOLLOWING = _JOINING | {
    "Relu", "LeakyRelu", "Elu", "Gelu", "Sigmoid", "Tanh", "HardSigmoid", "HardSwish", "Mish", "Softplus", "Neg", "Abs",
    "DepthToSpace", "SpaceToDepth", "Reshape", "Transpose", "Slice", "Split", "Pad", "Resize", "Identity", "Squeeze",
    "Unsqueeze", "Flatten", "Expand", "Gather", "MaxPool", "Tile",
}  # fmt: skip

_FLOAT, _HALF = TensorProto.FLOAT, TensorProto.FLOAT16
_LARGEST = float(np.finfo(np.float16).max)


def to_half(data: bytes, name: str) -> bytes:
    """The network with its heavy part in float16.

    Args:
        data: a serialised ONNX model, float32.
        name: of the file, for errors.

    Returns:
        a serialised model with the same inputs and outputs; `data` where nothing in it is float32 and heavy, or where
        it has half-precision parts already: whoever made those has decided.

    Raises:
        NetworkError: it is no ONNX model, or has control flow inside, whose parts see each other's values.
    """
    try:
        model = shape_inference.infer_shapes(onnx.load_model_from_string(data))
    except (DecodeError, onnx.shape_inference.InferenceError, ValueError) as exc:
        raise NetworkError(f"{name}: ONNX cannot read it: {str(exc).splitlines()[0]}") from exc
    inner = (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS)
    if any(attribute.type in inner for node in model.graph.node for attribute in node.attribute):
        raise NetworkError(f"{name}: a network with control flow has no half-precision form; use precision f32")
    decided = any(c.data_type in (_HALF, TensorProto.BFLOAT16) for c in model.graph.initializer)
    if decided or not _Converter(model.graph).convert():
        return data
    result: bytes = model.SerializeToString()
    return result


class _Converter:
    """Rewrites one graph in place."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self.graph = graph
        self.constants = {c.name: c for c in graph.initializer}
        ports = [*graph.value_info, *graph.input, *graph.output]
        self.types = {port.name: port.type.tensor_type.elem_type for port in ports}
        self.types |= {name: constant.data_type for name, constant in self.constants.items()}
        for node in graph.node:
            if node.op_type == "Constant" and node.attribute[0].name == "value":
                tensor = node.attribute[0].t
                self.constants[node.output[0]] = tensor
                self.types[node.output[0]] = tensor.data_type
        self.half: set[str] = set()
        """Values that are float16 now; the name stands for that from here on."""
        self.made: dict[tuple[str, int], str] = {}
        """Values by original name and the type they were brought to."""
        self.nodes: list[onnx.NodeProto] = []

    def convert(self) -> bool:
        """Rewrite; returns whether anything became half."""
        touched, changed = self._touched(), False
        for node in self.graph.node:
            if self._becomes_half(node, touched):
                self._set_type(node, _HALF)
                self.half.update(node.output)
                changed = True
            else:
                self._set_type(node, _FLOAT)
            self.nodes.append(node)
        self._restore_outputs()
        del self.graph.node[:]
        self.graph.node.extend(self.nodes)
        del self.graph.value_info[:]  # its types are no longer true
        used = {name for node in self.nodes for name in node.input}
        kept = [constant for constant in self.graph.initializer if constant.name in used]
        del self.graph.initializer[:]
        self.graph.initializer.extend(kept)
        return changed

    def _touched(self) -> set[str]:
        """Values that may be made half: all that depend on the second input; on any, where there is only one."""
        inputs = [port.name for port in self.graph.input if port.name not in self.constants]
        reached = {name for name in inputs if name in ("average", "prev_feat")} or set(inputs)
        for node in self.graph.node:
            if any(name in reached for name in node.input):
                reached.update(node.output)
        return reached

    def _becomes_half(self, node: onnx.NodeProto, touched: set[str]) -> bool:
        values = [node.input[place] for place in self._values(node)]
        if node.output[0] not in touched or self.types.get(node.output[0], _FLOAT) != _FLOAT:
            return False
        if any(self._too_large(value) for value in values):
            return False
        if node.op_type in _HEAVY:
            return True
        flowing = [value for value in values if value not in self.constants]
        if node.op_type not in _FOLLOWING or (node.op_type == "Mul" and len(flowing) > 1):
            return False
        return bool(flowing) and all(value in self.half for value in flowing)

    def _values(self, node: onnx.NodeProto) -> Iterator[int]:
        """The places of a layer's inputs that share its own type; the others are sizes, axes and the like."""
        places: tuple[int, ...] = tuple(range(len(node.input)))
        if node.op_type in _FOLLOWING - _JOINING:
            places = (0, 2) if node.op_type == "Pad" else (0,)  # Pad's third is the value to fill with
        yield from (place for place in places if place < len(node.input) and node.input[place])

    def _too_large(self, name: str) -> bool:
        constant = self.constants.get(name)
        if constant is None or constant.data_type != _FLOAT:
            return False
        value = numpy_helper.to_array(constant)
        return bool(value.size and np.abs(value).max() > _LARGEST)

    def _set_type(self, node: onnx.NodeProto, kind: int) -> None:
        """Bring a layer's float inputs to one type."""
        for place in self._values(node):
            name = node.input[place]
            # What is float16 in the file itself, or no float at all, stays as it is.
            now = _HALF if name in self.half else self.types.get(name, _FLOAT)
            if now != kind and (name in self.half or now == _FLOAT):
                node.input[place] = self._cast(name, kind)

    def _cast(self, name: str, kind: int) -> str:
        """The name of a value brought to a type; each is made once."""
        if (name, kind) not in self.made:
            new = f"{name}/{'half' if kind == _HALF else 'full'}"
            if name in self.constants:
                value = numpy_helper.to_array(self.constants[name]).astype(np.float16)
                self.graph.initializer.append(numpy_helper.from_array(value, new))
            else:
                self.nodes.append(helper.make_node("Cast", [name], [new], to=kind, name=new))
            self.made[name, kind] = new
        return self.made[name, kind]

    def _restore_outputs(self) -> None:
        """Give the graph's outputs their names and float32 back."""
        for port in self.graph.output:
            if port.name not in self.half:
                continue
            inner = f"{port.name}/inner"
            for node in self.nodes:
                for names in (node.input, node.output):
                    for i, name in enumerate(names):
                        if name == port.name:
                            names[i] = inner
            self.nodes.append(helper.make_node("Cast", [inner], [port.name], to=_FLOAT, name=f"{port.name}/full"))

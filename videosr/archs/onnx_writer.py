"""Writing an ONNX graph node by node: what the writers of all architectures share."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Any, cast

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from videosr.archs.paragon_blocks import ChannelAttention

OPSET = 20  # the first with Gelu, which engines fuse; read by OpenVINO 2025+, ONNX Runtime 1.17+, TensorRT 10+
IR_VERSION = 9  # the oldest that carries opset 20


class Form(StrEnum):
    """The interface of an exported network."""

    DEPLOY = "deploy"
    IMAGE = "image"
    VIDEO = "video"


class GraphWriter:
    """Builds one graph; every method that adds nodes returns the name of the resulting tensor.

    Args:
        title: of the graph.
        half: the working type is float16 and not float32.
        halo: input pixels of replicated rim.
    """

    def __init__(self, title: str, half: bool, halo: int) -> None:
        self.title, self.half, self.halo = title, half, halo
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, onnx.TensorProto] = {}

    def add(self, op: str, name: str, inputs: Sequence[str], **attributes: Any) -> str:
        """A node with one output, which bears its name."""
        self.nodes.append(helper.make_node(op, list(inputs), [name], name, **attributes))
        return name

    def constant(self, name: str, value: NDArray[Any]) -> str:
        """An initializer; asking twice for the same name gives the same one."""
        if name not in self.constants:
            self.constants[name] = numpy_helper.from_array(np.ascontiguousarray(value), name)
        return name

    def weight(self, name: str, value: Tensor | float, *, full: bool = False) -> str:
        """An initializer in the working type, or in float32."""
        array = value.detach().double().numpy() if isinstance(value, Tensor) else np.array(value, np.float64)
        return self.constant(name, array.astype(np.float16 if self.half and not full else np.float32))

    def layer(self, name: str, x: str, conv: nn.Conv2d) -> str:
        """A convolution as the module has it."""
        return self.conv(name, x, conv.weight, conv.bias, groups=conv.groups, dilation=int(conv.dilation[0]))

    def conv(
        self,
        name: str,
        x: str,
        weight: Tensor,
        bias: Tensor | None,
        *,
        groups: int = 1,
        dilation: int = 1,
        full: bool = False,
    ) -> str:
        """A zero-padded "same" convolution."""
        high, wide = weight.shape[2:]
        margins = [high // 2 * dilation, wide // 2 * dilation]
        inputs = [x, self.weight(f"{name}.weight", weight, full=full)]
        if bias is not None:
            inputs.append(self.weight(f"{name}.bias", bias, full=full))
        return self.add(
            "Conv",
            name,
            inputs,
            kernel_shape=[high, wide],
            pads=margins * 2,
            group=groups,
            dilations=[dilation, dilation],
        )

    def linear(self, name: str, x: str, weight: Tensor, bias: Tensor) -> str:
        """`torch.nn.Linear` on the last axis."""
        product = self.add("MatMul", f"{name}.product", [x, self.weight(f"{name}.weight", weight.T)])
        return self.add("Add", name, [product, self.weight(f"{name}.bias", bias)])

    def reshape(self, name: str, x: str, shape: list[int]) -> str:
        """To a shape known now, but for one -1."""
        return self.add("Reshape", name, [x, self.constant(f"{name}.shape", np.array(shape, np.int64))])

    def slice(self, name: str, x: str, ranges: dict[int, tuple[int, int]]) -> str:
        """A constant slice: axis to (start, end)."""
        starts, ends = zip(*ranges.values(), strict=True)
        values = {"starts": starts, "ends": ends, "axes": tuple(ranges)}
        return self.add("Slice", name, [x, *(self.constant(f"{name}.{k}", np.array(v)) for k, v in values.items())])

    def pad(self, name: str, x: str) -> str:
        """The picture with `halo` pixels of replicated rim; itself without halo."""
        if not self.halo:
            return x
        pads = self.constant("halo.pads", np.array([0, 0, self.halo, self.halo] * 2))
        return self.add("Pad", name, [x, pads], mode="edge")

    def to_full(self, x: str) -> str:
        """As float32."""
        return self.add("Cast", f"{x}.full", [x], to=TensorProto.FLOAT) if self.half else x

    def to_working(self, x: str) -> str:
        """A float32 tensor in the type of the detail path."""
        return self.add("Cast", f"{x}.half", [x], to=TensorProto.FLOAT16) if self.half else x

    def finish(self, inputs: dict[str, list[Any]], outputs: dict[str, list[Any]]) -> onnx.ModelProto:
        """The model of the nodes so far, checked, with tensor shapes inferred."""

        def values(shapes: dict[str, list[Any]]) -> list[onnx.ValueInfoProto]:
            return [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()]

        graph = helper.make_graph(
            self.nodes, self.title, values(inputs), values(outputs), list(self.constants.values())
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="videosr")
        model.ir_version = IR_VERSION
        onnx.checker.check_model(model, full_check=True)
        return model

    def squeeze(self, name: str, x: str, attention: ChannelAttention, gamma: Tensor) -> str:
        """gamma * x * gate, the gate (from the mean over the picture) in float32."""
        axes = self.constant("axis.picture", np.array([2, 3]))
        y = self.add("ReduceMean", f"{name}.mean", [self.to_full(x), axes], keepdims=1)
        for index, activation in ((0, "Gelu"), (2, "Sigmoid")):
            linear = cast(nn.Linear, attention.fc[index])
            y = self.conv(f"{name}.fc.{index}", y, linear.weight[:, :, None, None], None, full=True)
            y = self.add(activation, f"{name}.fc.{index + 1}", [y])
        y = self.to_working(self.add("Mul", f"{name}.gate", [y, self.weight(f"{name}.gamma", gamma, full=True)]))
        return self.add("Mul", name, [x, y])

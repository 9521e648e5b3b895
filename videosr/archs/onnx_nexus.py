"""NEXUS as an ONNX graph, written node by node: `input` -> `output`, float32, any height and width.

LayerScale and the shares of the two attentions are folded into the layers before them, exactly. Windows that reach
over the rim are made by padding inside the graph, as in `nexus.SpatialAttention`.

Half precision is strongly typed: weights and activations are float16, but normalisations, attention across channels
(but for its last product), the squeeze and the mean colour are float32, and so are input and output.
"""

from __future__ import annotations

from typing import cast

import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper
from torch import Tensor, nn

from videosr.archs import fold
from videosr.archs.nexus import (
    HIDDEN,
    AcrossChannels,
    Block,
    DualDimensionAttention,
    EfficientChannelAttention,
    GatedFeedForward,
    Group,
    LayerNorm,
    Nexus,
    SpatialAttention,
)
from videosr.archs.onnx_writer import GraphWriter

_NORM_EPS = 1e-12  # of torch's F.normalize


def build(model: Nexus, *, half: bool, halo: int) -> onnx.ModelProto:
    """The network as an ONNX model without metadata.

    Args:
        model: the network; its values are read, not changed.
        half: float16 weights and activations, as this module's docstring says.
        halo: input pixels of replicated rim, 0 for zero padding.
    """
    return _Writer(model, half, halo).network()


class _Writer(GraphWriter):
    """Builds the graph; every method that adds nodes returns the name of the resulting tensor."""

    def __init__(self, model: Nexus, half: bool, halo: int) -> None:
        super().__init__("NEXUS", half, halo)
        self.model = model
        self.grids: dict[int, dict[str, str]] = {}

    def network(self) -> onnx.ModelProto:
        """All of it."""
        model, s = self.model, self.model.scale
        mean = self.weight("mean", model.mean, full=True)
        x = self.add("Sub", "centred", [self.pad("pad_input", "input"), mean])
        shallow = features = self.layer("conv_in", self.to_working(x), model.conv_in)
        deep = ""
        for index, share in enumerate(model.shares.detach().double().softmax(0)):
            features = self.group(f"body.{index}", features, cast(Group, model.body[index]))
            part = self.add("Mul", f"share.{index}", [features, self.weight(f"share.{index}.factor", share)])
            deep = self.add("Add", f"sum.{index}", [deep, part]) if deep else part
        deep = self.add("Add", "deep", [shallow, self.layer("conv_body", deep, model.conv_body)])
        x = self.add("LeakyRelu", "active", [self.layer("conv_up", deep, model.conv_up)], alpha=0.01)
        for index, stage in enumerate(model.up):
            if isinstance(stage, nn.Conv2d):
                x = self.layer(f"up.{index}", x, stage)
            else:
                factor = cast(nn.PixelShuffle, stage).upscale_factor
                x = self.add("DepthToSpace", f"up.{index}", [x], blocksize=factor, mode="CRD")
        x = self.add("Add", "coloured", [self.to_full(self.layer("conv_out", x, model.conv_out)), mean])
        if self.halo:
            edge = self.halo * s
            self.slice("crop", x, {2: (edge, -edge), 3: (edge, -edge)})
        self.nodes[-1].output[0] = "output"
        return self.finish({"input": ["N", 3, "H", "W"]}, {"output": ["N", 3, f"{s}*H", f"{s}*W"]})

    def group(self, name: str, x: str, group: Group) -> str:
        """Blocks, convolution, residual."""
        features = x
        for index, block in enumerate(group.blocks):
            features = self.block(f"{name}.blocks.{index}", features, cast(Block, block))
        return self.add("Add", f"{name}.add", [x, self.layer(f"{name}.conv", features, group.conv)])

    def block(self, name: str, x: str, block: Block) -> str:
        """Its stages, each with norm, LayerScale and residual."""
        for index, (norm, stage, scale) in enumerate(zip(block.norms, block.stages, block.scales, strict=True)):
            gamma = cast(Tensor, scale.gamma).detach().double()
            normed = self.norm(f"{name}.norms.{index}", x, cast(LayerNorm, norm))
            inner = f"{name}.stages.{index}"
            match stage:
                case EfficientChannelAttention():
                    x = self.channel_attention(inner, x, normed, stage, gamma)
                case DualDimensionAttention():
                    x = self.dual(inner, x, normed, stage, gamma)
                case GatedFeedForward():
                    x = self.feed_forward(inner, x, normed, stage, gamma)
        return x

    def norm(self, name: str, x: str, norm: LayerNorm) -> str:
        """LayerNorm over channels; float32 but for its result."""
        channel = self.constant("axis.channel", np.array([1]))
        x = self.to_full(x)
        x = self.add("Sub", f"{name}.centred", [x, self.add("ReduceMean", f"{name}.mean", [x, channel], keepdims=1)])
        square = self.add("Mul", f"{name}.square", [x, x])
        variance = self.add("ReduceMean", f"{name}.variance", [square, channel], keepdims=1)
        variance = self.add("Add", f"{name}.stable", [variance, self.weight("norm.eps", norm.EPS, full=True)])
        x = self.add("Div", f"{name}.normed", [x, self.add("Sqrt", f"{name}.deviation", [variance])])
        x = self.add("Mul", f"{name}.scaled", [x, self.weight(f"{name}.weight", norm.weight.view(-1, 1, 1), full=True)])
        return self.to_working(
            self.add("Add", name, [x, self.weight(f"{name}.bias", norm.bias.view(-1, 1, 1), full=True)])
        )

    def channel_attention(self, name: str, x: str, normed: str, stage: EfficientChannelAttention, gamma: Tensor) -> str:
        """x + gamma * channel attention."""
        y = normed
        for index, layer in enumerate(stage.conv):
            inner = f"{name}.conv.{index}"
            y = self.layer(inner, y, layer) if isinstance(layer, nn.Conv2d) else self.add("Gelu", inner, [y])
        return self.add("Add", f"{name}.add", [x, self.squeeze(f"{name}.squeeze", y, stage.squeeze, gamma)])

    def feed_forward(self, name: str, x: str, normed: str, stage: GatedFeedForward, gamma: Tensor) -> str:
        """x + gamma * gated feed-forward."""
        hidden = self.add("Gelu", f"{name}.gelu", [self.layer(f"{name}.conv1", normed, stage.conv1)])
        halves = [f"{name}.a", f"{name}.b"]
        self.nodes.append(helper.make_node("Split", [hidden], halves, f"{name}.split", axis=1, num_outputs=2))
        gate = self.layer(f"{name}.dw", self.norm(f"{name}.norm", halves[1], stage.norm), stage.dw)
        product = self.add("Mul", f"{name}.product", [halves[0], gate])
        return self.add("Add", f"{name}.add", [x, self.scaled_layer(f"{name}.conv2", product, stage.conv2, gamma)])

    def dual(self, name: str, x: str, normed: str, stage: DualDimensionAttention, gamma: Tensor) -> str:
        """x + gamma * both attentions in their shares."""
        spatial, channel = stage.mix.detach().double().softmax(0)
        x = self.add(
            "Add", f"{name}.half", [x, self.spatial(f"{name}.spatial", normed, stage.spatial, gamma * spatial)]
        )
        return self.add(
            "Add", f"{name}.add", [x, self.across(f"{name}.channel", normed, stage.channel, gamma * channel)]
        )

    def across(self, name: str, normed: str, attention: AcrossChannels, gamma: Tensor) -> str:
        """gamma * attention across channels."""
        heads, channels = attention.heads, attention.proj.out_channels
        q, k, v = self.thirds(name, self.layer(f"{name}.qkv", normed, attention.qkv))
        shape = [0, heads, channels // heads, -1]
        last = self.constant("axis.last", np.array([3]))
        least = self.weight("normalise.least", _NORM_EPS, full=True)
        units = []
        for part in (q, k):
            y = self.to_full(self.reshape(f"{part}.heads", part, shape))
            length = self.add("ReduceL2", f"{part}.length", [y, last], keepdims=1)
            units.append(self.add("Div", f"{part}.unit", [y, self.add("Max", f"{part}.divisor", [length, least])]))
        turned = self.add("Transpose", f"{name}.turned", [units[1]], perm=[0, 1, 3, 2])
        scores = self.add("MatMul", f"{name}.scores", [units[0], turned])
        temperature = self.weight(f"{name}.temperature", attention.temperature, full=True)
        scores = self.add("Mul", f"{name}.warmed", [scores, temperature])
        likeness = self.to_working(self.add("Softmax", f"{name}.softmax", [scores], axis=-1))
        mixed = self.add("MatMul", f"{name}.mix", [likeness, self.reshape(f"{v}.heads", v, shape)])
        size = self.add("Shape", f"{name}.size", [normed])
        mixed = self.add("Reshape", f"{name}.plane", [mixed, size])
        return self.scaled_layer(f"{name}.proj", mixed, attention.proj, gamma)

    def spatial(self, name: str, normed: str, attention: SpatialAttention, gamma: Tensor) -> str:
        """gamma * attention inside windows."""
        w, heads, channels = attention.window, attention.heads, attention.proj.out_channels
        grid = self.grid(w, attention.shift, channels)
        # Softmax's scale goes into the queries.
        factor = torch.tensor([(channels // heads) ** -0.5, 1, 1]).repeat_interleave(channels)
        qkv = self.scaled_layer(f"{name}.qkv", normed, attention.qkv, factor)
        if attention.alpha is not None:
            qkv = self.sharpened(name, qkv, normed, attention.alpha)
        y = self.add("Pad", f"{name}.pad", [qkv, grid["pads"]], mode="constant")
        y = self.add("Reshape", f"{name}.tiles", [y, grid["tiled"]])
        y = self.add("Transpose", f"{name}.windows", [y], perm=[0, 2, 4, 3, 5, 1])
        y = self.reshape(f"{name}.tokens", y, [-1, w * w, 3, heads, channels // heads])
        y = self.add("Transpose", f"{name}.turned", [y], perm=[2, 0, 3, 1, 4])
        parts = [f"{name}.{part}" for part in "qkv"]
        self.nodes.append(helper.make_node("Split", [y], parts, f"{name}.split", axis=0, num_outputs=3))
        first = self.constant("axis.first", np.array([0]))
        q, k, v = (self.add("Squeeze", f"{part}.heads", [part, first]) for part in parts)
        k = self.add("Transpose", f"{k}.turned", [k], perm=[0, 1, 3, 2])
        scores = self.add("MatMul", f"{name}.scores", [q, k])
        scores = self.add("Add", f"{name}.nearby", [scores, self.weight(f"alibi.{w}", attention.bias)])
        scores = self.add("Add", f"{name}.inside", [scores, grid["outside"]])
        y = self.add("MatMul", f"{name}.mix", [self.add("Softmax", f"{name}.softmax", [scores], axis=-1), v])
        y = self.add("Transpose", f"{name}.joined", [y], perm=[0, 2, 1, 3])
        y = self.add("Reshape", f"{name}.grid", [y, grid["windows"]])
        y = self.add("Transpose", f"{name}.untiled", [y], perm=[0, 5, 1, 3, 2, 4])
        y = self.add("Reshape", f"{name}.plane", [y, grid["plane"]])
        y = self.add("Slice", f"{name}.crop", [y, grid["start"], grid["end"], grid["axes"]])
        return self.scaled_layer(f"{name}.proj", y, attention.proj, gamma)

    def sharpened(self, name: str, qkv: str, normed: str, alpha: Tensor) -> str:
        """Queries and keys times 1 + alpha * high frequencies."""
        low = self.add(
            "AveragePool",
            f"{name}.low",
            [normed],
            kernel_shape=[3, 3],
            strides=[1, 1],
            pads=[1, 1, 1, 1],
            count_include_pad=0,
        )
        high = self.add("Sub", f"{name}.high", [normed, low])
        high = self.add("Mul", f"{name}.change", [high, self.weight(f"{name}.alpha", alpha)])
        factor = self.add("Add", f"{name}.factor", [high, self.weight("one", 1.0)])
        q, k, v = self.thirds(f"{name}.plain", qkv)
        q, k = (self.add("Mul", f"{part}.sharpened", [part, factor]) for part in (q, k))
        return self.add("Concat", f"{name}.sharpened", [q, k, v], axis=1)

    def grid(self, w: int, shift: int, channels: int) -> dict[str, str]:
        """The shapes that a grid of windows needs at run time, and what hides the keys outside the picture."""
        if shift in self.grids:
            return self.grids[shift]
        prefix = f"grid.{shift}"

        def ints(name: str, *values: int) -> str:
            return self.constant(f"{prefix}.{name}", np.array(values, np.int64))

        def join(name: str, *parts: str) -> str:
            return self.add("Concat", f"{prefix}.{name}", list(parts), axis=0)

        edge = ints("edge", w)
        size = self.add("Shape", f"{prefix}.size", ["conv_in"], start=2, end=4)
        needed = self.add("Add", f"{prefix}.needed", [size, ints("before", shift + w - 1)])
        count = self.add("Div", f"{prefix}.count", [needed, edge])
        whole = self.add("Mul", f"{prefix}.whole", [count, edge])
        end = self.add("Add", f"{prefix}.end", [size, ints("shift", shift)])
        missing = self.add("Sub", f"{prefix}.missing", [whole, end])
        rows = self.slice(f"{prefix}.rows", count, {0: (0, 1)})
        columns = self.slice(f"{prefix}.columns", count, {0: (1, 2)})
        keep = ints("keep", 0, 0)  # Reshape: this axis as it is
        pads = join("pads", ints("none", 0, 0), ints("corner", shift, shift, 0, 0), missing)
        tiled = join("tiled", keep, rows, edge, columns, edge)
        batch = self.add("Shape", f"{prefix}.batch", ["conv_in"], start=0, end=1)
        shape = join("mask", batch, ints("one", 1), size)
        kind = np.float16 if self.half else np.float32
        inside = self.add(
            "ConstantOfShape", f"{prefix}.picture", [shape], value=numpy_helper.from_array(np.zeros(1, kind))
        )
        hidden = self.add("Pad", f"{prefix}.rim", [inside, pads, self.weight("hidden", HIDDEN)], mode="constant")
        hidden = self.add("Reshape", f"{prefix}.tiles", [hidden, tiled])
        hidden = self.add("Transpose", f"{prefix}.ordered", [hidden], perm=[0, 2, 4, 3, 5, 1])
        self.grids[shift] = {
            "pads": pads,
            "tiled": tiled,
            "outside": self.reshape(f"{prefix}.outside", hidden, [-1, 1, 1, w * w]),
            "windows": join("windows", ints("any", -1), rows, columns, edge, edge, ints("features", channels)),
            "plane": join("plane", keep, whole),
            "start": ints("start", shift, shift),
            "end": end,
            "axes": ints("axes", 2, 3),
        }
        return self.grids[shift]

    def thirds(self, name: str, x: str) -> list[str]:
        """Queries, keys and values."""
        parts = [f"{name}.{part}" for part in "qkv"]
        self.nodes.append(helper.make_node("Split", [x], parts, f"{name}.split", axis=1, num_outputs=3))
        return parts

    def scaled_layer(self, name: str, x: str, conv: nn.Conv2d, factor: Tensor) -> str:
        """A convolution followed by a factor per channel."""
        return self.conv(name, x, *fold.scaled(conv, factor))

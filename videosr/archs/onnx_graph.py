"""ParagonSR2 as an ONNX graph, written node by node.

Three forms share one body. LayerScale is folded into the layer before it, the token dictionary's projections into two
1x1 convolutions; both are exact. Every tensor is named after the node that makes it (but the last, `output`), and every
node after the module it stands for.

**deploy** is what videosr runs. Inputs `input` and `average` (the temporal average of the frame's window, or the same
frame), output `output`, all float32. Linear parts are folded (`fold`):

    input   -> [pad_input]   -> base (Conv 3 -> 3s^2) -------------------------> sum -> shuffle -> [crop]
    average -> [pad_average] -> conv_in -> body.* -> conv_mid -> tail (Conv 5x5) ^

With a halo, both inputs are padded by replication and the output is cropped, so that the picture's rim is as good as
its middle; with halo 0 the convolutions' own zero padding meets the rim, as in the published networks.

**image** (`input` -> `output`) and **video** (`input`, `prev_feat` -> `output`, `feature_map`) are the published
interfaces, with base path and tail layer by layer, so equal to the published network everywhere.

Half precision is strongly typed: weights and activations of the detail path are float16, but the base path, the last
sum, RMSNorm's mean square, the gated product and the squeeze of channel attention are float32, and so are inputs and
outputs: the picture itself never goes through half precision.
"""

from __future__ import annotations

from typing import cast

import numpy as np
import onnx
import torch
from onnx import helper
from torch import Tensor, nn

from videosr.archs import fold
from videosr.archs.onnx_writer import Form, GraphWriter
from videosr.archs.paragon_blocks import (
    HALF_MAX,
    NanoBlock,
    PhotoBlock,
    ProBlock,
    RMSNorm,
    SeparableFilter,
    StreamBlock,
    TokenDictionaryAttention,
    WindowAttention,
)
from videosr.archs.paragonsr2 import ParagonSR2


def build(model: ParagonSR2, *, form: Form, half: bool, halo: int, blend: float) -> onnx.ModelProto:
    """The network as an ONNX model without metadata.

    Args:
        model: the network; its values are read, not changed.
        form: the interface.
        half: float16 weights and activations, as this module's docstring says.
        halo: input pixels of replicated rim, 0 for zero padding; 0 for the video form.
        blend: weight of `prev_feat` in the video form.
    """
    return _Writer(model, half, halo).network(form, blend)


class _Writer(GraphWriter):
    """Builds the graph; every method that adds nodes returns the name of the resulting tensor."""

    def __init__(self, model: ParagonSR2, half: bool, halo: int) -> None:
        super().__init__("ParagonSR2", half, halo)
        self.model, self.scale = model, model.scale
        self.windows: dict[str, str] = {}

    # The network

    def network(self, form: Form, blend: float) -> onnx.ModelProto:
        """All of it."""
        s = self.scale
        channels = self.model.conv_in.out_channels
        small, large = ["N", 3, "H", "W"], ["N", 3, f"{s}*H", f"{s}*W"]
        inputs, outputs = {"input": small}, {"output": large}
        frame = self.pad("pad_input", "input")
        if form is Form.DEPLOY:
            inputs["average"] = small
            features = self.conv_in(self.pad("pad_average", "average"))
            folded = fold.tail(self.model)
            detail = self.conv("tail", self.detail(features), folded.weight, folded.bias)
            base = self.conv("base", frame, fold.base(self.model).weight, None, full=True)
            total = self.add("Add", "sum", [self.to_full(detail), base])
            result = self.add("DepthToSpace", "shuffle", [total], blocksize=s, mode="CRD")
        else:
            features = self.conv_in(frame)
            if form is Form.VIDEO:
                inputs["prev_feat"] = outputs["feature_map"] = ["N", channels, "H", "W"]
                features = self.blend(features, blend)
            up = self.layer("up.0", self.detail(features), cast(nn.Conv2d, self.model.up[0]))
            detail = self.add("DepthToSpace", "up.1", [up], blocksize=s, mode="CRD")
            detail = self.layer("conv_out", detail, self.model.conv_out)
            detail = self.add("Mul", "detail", [detail, self.weight("detail_gain", self.model.detail_gain)])
            result = self.add("Add", "sum", [self.to_full(detail), self.base(frame)])
        if self.halo:
            edge = self.halo * s
            result = self.slice("crop", result, {2: (edge, -edge), 3: (edge, -edge)})
        self.nodes[-1].output[0] = "output"
        return self.finish(inputs, outputs)

    def conv_in(self, picture: str) -> str:
        """The features of a padded float32 picture."""
        return self.layer("conv_in", self.to_working(picture), self.model.conv_in)

    def blend(self, features: str, blend: float) -> str:
        """The published recursion in feature space; `feature_map` is what it yields, as float32."""
        kept = self.add("Mul", "blend.current", [features, self.weight("blend.current.factor", 1 - blend)])
        past = self.to_working("prev_feat")
        past = self.add("Mul", "blend.previous", [past, self.weight("blend.previous.factor", blend)])
        mixed = self.add("Add", "blend", [kept, past])
        self.add("Cast" if self.half else "Identity", "feature_map", [mixed], **({"to": 1} if self.half else {}))
        return mixed

    def detail(self, x: str) -> str:
        """Body and `conv_mid`."""
        for name, block in self.model.body.named_modules(prefix="body"):
            match block:
                case NanoBlock():
                    x = self.mixer(name, x, x, block, block.scale.gamma)
                case StreamBlock():
                    x = self.stream(name, x, block)
                case PhotoBlock():
                    x = self.mixer(name, x, self.norm(f"{name}.norm", x, block.norm), block, block.scale.gamma)
                    if not block.export_safe:
                        normed = self.norm(f"{name}.attn_norm", x, block.attn_norm)
                        x = self.attention(f"{name}.attn", x, normed, block.attn, block.scale.gamma)
                case ProBlock():
                    x = self.pro(name, x, block)
        return self.layer("conv_mid", x, self.model.conv_mid)

    def base(self, x: str) -> str:
        """The base path as published: pre-filter, nearest neighbour, blur."""
        base = self.model.base
        if base.alpha > 0:
            difference = self.add("Sub", "base.difference", [self.separable("base.sharp", x, base.sharp), x])
            alpha = self.weight("base.alpha", base.alpha, full=True)
            x = self.add("Add", "base.filtered", [x, self.add("Mul", "base.change", [difference, alpha])])
        factors = self.constant("base.scales", np.array([1, 1, self.scale, self.scale], np.float32))
        x = self.add(
            "Resize",
            "base.enlarged",
            [x, "", factors],
            mode="nearest",
            nearest_mode="floor",
            coordinate_transformation_mode="asymmetric",
        )
        return self.separable("base.blur", x, base.blur)

    def separable(self, name: str, x: str, taps: SeparableFilter) -> str:
        """A fixed depthwise filter, row then column, in float32."""
        for part, layer in (("h", taps.h), ("v", taps.v)):
            x = self.conv(f"{name}.{part}", x, layer.weight, None, groups=3, full=True)
        return x

    # Blocks

    def mixer(self, name: str, x: str, inner: str, block: NanoBlock | PhotoBlock | ProBlock, gamma: Tensor) -> str:
        """x + gamma * conv2(gelu(dw(conv1(inner))))."""
        wide = self.layer(f"{name}.dw", self.layer(f"{name}.conv1", inner, block.conv1), block.dw)
        wide = self.add("Gelu", f"{name}.gelu", [wide])
        return self.add("Add", f"{name}.add", [x, self.conv(f"{name}.conv2", wide, *fold.scaled(block.conv2, gamma))])

    def stream(self, name: str, x: str, block: StreamBlock) -> str:
        """The gated block; the product is taken in float32, and clamped where that can be seen."""
        pair = [self.layer(f"{name}.dw1", x, block.dw1), self.layer(f"{name}.dw3", x, block.dw3)]
        y = self.layer(f"{name}.fuse", self.add("Concat", f"{name}.concat", pair, axis=1), block.fuse)
        z = self.layer(f"{name}.gate", self.layer(f"{name}.proj", y, block.proj), block.gate)
        halves = [f"{name}.a", f"{name}.b"]
        self.nodes.append(helper.make_node("Split", [z], halves, f"{name}.split", axis=1, num_outputs=2))
        product = self.add("Mul", f"{name}.product", [self.to_full(half) for half in halves])
        if self.half or block.limit < HALF_MAX:
            ends = (("min", -block.limit), ("max", block.limit))
            bounds = [self.weight(f"product.{end}", value, full=True) for end, value in ends]
            product = self.to_working(self.add("Clip", f"{name}.clamp", [product, *bounds]))
        out = self.conv(f"{name}.out", product, *fold.scaled(block.out, block.scale.gamma))
        return self.add("Add", f"{name}.add", [x, out])

    def pro(self, name: str, x: str, block: ProBlock) -> str:
        """Four residual stages."""
        x = self.mixer(name, x, self.norm(f"{name}.norm1", x, block.norm1), block, block.scale1.gamma)
        change = self.squeeze(f"{name}.channel_attn", x, block.channel_attn, block.scale2.gamma)
        x = self.add("Add", f"{name}.channel_attn.add", [x, change])
        if not block.export_safe:
            normed = self.norm(f"{name}.norm3", x, block.norm3)
            x = self.attention(f"{name}.window_attn", x, normed, block.window_attn, block.scale3.gamma)
        normed = self.norm(f"{name}.norm4", x, block.norm4)
        return self.dictionary(f"{name}.token_ca", x, normed, block.token_ca, block.scale4.gamma)

    def norm(self, name: str, x: str, norm: RMSNorm) -> str:
        """RMSNorm; mean square and root in float32."""
        full = self.to_full(x)
        square = self.add("Mul", f"{name}.square", [full, full])
        mean = self.add(
            "ReduceMean", f"{name}.mean", [square, self.constant("axis.channel", np.array([1]))], keepdims=1
        )
        root = self.add("Add", f"{name}.variance", [mean, self.weight(f"{name}.eps", norm.EPS, full=True)])
        root = self.to_working(self.add("Sqrt", f"{name}.rms", [root]))
        x = self.add("Mul", f"{name}.scaled", [x, self.weight(f"{name}.scale", norm.scale)])
        x = self.add("Div", f"{name}.normed", [x, root])
        return self.add("Add", name, [x, self.weight(f"{name}.bias", norm.bias)])

    def dictionary(self, name: str, x: str, normed: str, attention: TokenDictionaryAttention, gamma: Tensor) -> str:
        """x + gamma * token attention. Tokens are constants, so keys and values fold into the two projections."""
        tokens = attention.token_dict.detach().double()[0]
        q, k, v = (_affine(layer) for layer in (attention.q_proj, attention.k_proj, attention.v_proj))
        keys, values = (tokens @ k[0].T + k[1]) * attention.factor, tokens @ v[0].T + v[1]
        score = self.conv(f"{name}.scores", normed, (keys @ q[0])[:, :, None, None], keys @ q[1])
        likeness = self.add("Softmax", f"{name}.softmax", [score], axis=1)
        out_weight, out_bias = fold.scaled(attention.out_proj, gamma)
        mixed = self.conv(f"{name}.values", likeness, (out_weight @ values.T)[:, :, None, None], out_bias)
        return self.add("Add", f"{name}.add", [x, mixed])

    # Window attention

    def attention(self, name: str, x: str, normed: str, attention: WindowAttention, gamma: Tensor) -> str:
        """x + gamma * attention inside windows of the normed features, any height and width."""
        w, heads, shift = attention.window_size, attention.HEADS, attention.shift
        channels = attention.proj.out_features
        dims = self.window_shapes(w, channels)
        y = self.add("Pad", f"{name}.pad", [normed, dims["pads"]], mode="constant")
        if shift:
            y = self.roll(f"{name}.shift", y, shift)
        y = self.add("Reshape", f"{name}.tiles", [y, dims["tiled"]])
        y = self.add("Transpose", f"{name}.windows", [y], perm=[0, 2, 4, 3, 5, 1])
        y = self.reshape(f"{name}.tokens", y, [-1, w * w, channels])
        weight, bias = _affine(attention.qkv)
        # Softmax's scale goes into the queries.
        factor = torch.tensor([(channels // heads) ** -0.5, 1, 1], dtype=torch.float64).repeat_interleave(channels)
        y = self.linear(f"{name}.qkv", y, weight * factor[:, None], bias * factor)
        parts = [f"{name}.{part}" for part in "qkv"]
        self.nodes.append(helper.make_node("Split", [y], parts, f"{name}.split", axis=2, num_outputs=3))
        turns = {"q": [0, 2, 1, 3], "k": [0, 2, 3, 1], "v": [0, 2, 1, 3]}
        q, k, v = (
            self.add(
                "Transpose",
                f"{part}.turned",
                [self.reshape(f"{part}.heads", part, [-1, w * w, heads, channels // heads])],
                perm=turns[part[-1]],
            )
            for part in parts
        )
        y = self.add("Softmax", f"{name}.softmax", [self.add("MatMul", f"{name}.scores", [q, k])], axis=-1)
        y = self.add("Transpose", f"{name}.joined", [self.add("MatMul", f"{name}.mix", [y, v])], perm=[0, 2, 1, 3])
        y = self.reshape(f"{name}.mixed", y, [-1, w * w, channels])
        y = self.linear(f"{name}.proj", y, *fold.scaled(attention.proj, gamma))
        y = self.add("Reshape", f"{name}.grid", [y, dims["windows"]])
        y = self.add("Transpose", f"{name}.untiled", [y], perm=[0, 5, 1, 3, 2, 4])
        y = self.add("Reshape", f"{name}.plane", [y, dims["plane"]])
        if shift:
            y = self.roll(f"{name}.unshift", y, -shift)
        y = self.add("Slice", f"{name}.crop", [y, dims["zero"], dims["size"], dims["axes"]])
        return self.add("Add", f"{name}.add", [x, y])

    def window_shapes(self, w: int, channels: int) -> dict[str, str]:
        """The shapes that window attention needs at run time; they are the same in every block."""
        if self.windows:
            return self.windows

        def ints(name: str, *values: int) -> str:
            return self.constant(f"window.{name}", np.array(values, np.int64))

        def join(name: str, *parts: str) -> str:
            return self.add("Concat", f"window.{name}", list(parts), axis=0)

        edge, wide = ints("edge", w), ints("width", w - 1)
        size = self.add("Shape", "window.size", ["conv_in"], start=2, end=4)
        count = self.add("Div", "window.count", [self.add("Add", "window.rounded", [size, wide]), edge])
        whole = self.add("Mul", "window.whole", [count, edge])
        missing = self.add("Sub", "window.missing", [whole, size])
        rows, columns = self.slice("window.rows", count, {0: (0, 1)}), self.slice("window.columns", count, {0: (1, 2)})
        keep = ints("keep", 0, 0)  # Reshape: this axis as it is
        self.windows = {
            "pads": join("pads", ints("none", *[0] * 6), missing),
            "tiled": join("tiled", keep, rows, edge, columns, edge),
            "windows": join("windows", ints("any", -1), rows, columns, edge, edge, ints("features", channels)),
            "plane": join("plane", keep, whole),
            "zero": keep,
            "size": size,
            "axes": ints("axes", 2, 3),
        }
        return self.windows

    def roll(self, name: str, x: str, by: int) -> str:
        """Rows and columns rotated towards the start by `by` (away from it if negative)."""
        end = int(np.iinfo(np.int64).max)
        for axis in (2, 3):
            tail = self.slice(f"{name}.{axis}.first", x, {axis: (by, end)})
            head = self.slice(f"{name}.{axis}.last", x, {axis: (0, by)})
            x = self.add("Concat", f"{name}.{axis}", [tail, head], axis=axis)
        return x


def _affine(linear: nn.Linear) -> tuple[Tensor, Tensor]:
    """(weight, bias) in float64."""
    return linear.weight.detach().double(), linear.bias.detach().double()

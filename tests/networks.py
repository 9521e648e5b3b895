"""Small networks for tests: ParagonSR2 with random weights, and hand-made ONNX graphs with one property each."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

from videosr.archs import checkpoint
from videosr.archs.paragonsr2 import ParagonSR2
from videosr.export import export


class Paragon:
    """ParagonSR2 with random weights that leave their mark: the detail path moves the picture by several codes.

    Args:
        folder: where its files go.
        scale: of the network.
        variant: of the network.
    """

    def __init__(self, folder: Path, scale: int = 2, variant: str = "realtime") -> None:
        torch.manual_seed(7)
        self.folder = folder
        self.model = ParagonSR2(
            variant, scale, upsampler_alpha=0.0, detail_gain=0.5, layer_scale=0.1, window_size=4
        ).eval()
        with torch.no_grad():
            # Untrained networks hardly look at the picture; these do.
            self.model.conv_in.weight *= 4
            self.model.conv_out.weight *= 2
        self.weights = folder / "random.safetensors"
        checkpoint.save(self.weights, self.model, name="random", training="none: random weights", license="MIT")

    def _export(self, file: str, **options) -> Path:
        path = self.folder / file
        export(self.weights, path, **options)
        return path

    @cached_property
    def deploy(self) -> Path:
        """Our own form: `input` and `average`, the rim replicated."""
        return self._export("random-deploy.onnx")

    @cached_property
    def luma(self) -> Path:
        """Our own form; subsampled chroma is interpolated beside it."""
        weights = self.folder / "random-luma.safetensors"
        extra = {"training": "none: random weights", "license": "MIT", "chroma": "interpolated"}
        checkpoint.save(weights, self.model, name="random-luma", **extra)
        path = self.folder / "random-luma.onnx"
        export(weights, path)
        return path

    @cached_property
    def half(self) -> Path:
        """Our own form in half precision."""
        return self._export("random-deploy-fp16.onnx", precision="fp16")

    @cached_property
    def zero_padded(self) -> Path:
        """Our own form with the published zero padding."""
        return self._export("random-deploy-zero.onnx", padding="zero")

    @cached_property
    def image(self) -> Path:
        """The published image interface."""
        return self._export("random-image.onnx", form="image", padding="zero")

    @cached_property
    def video(self) -> Path:
        """The published video interface, the recurrence inside."""
        return self._export("random-video.onnx", form="video", padding="zero")


class Graph:
    """Writes a small ONNX graph: `g.node("Relu", g.input(...))`, then `g.save(path, ...)`."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.inputs: list[onnx.ValueInfoProto] = []

    def input(self, name: str, *shape: int | str) -> str:
        self.inputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, list(shape)))
        return name

    def constant(self, value: np.ndarray) -> str:
        name = f"constant_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def node(self, kind: str, *inputs: str, output: str = "", **attributes) -> str:
        output = output or f"{kind}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [output], **attributes))
        return output

    def enlarged(self, x: str, scale: int = 2, output: str = "") -> str:
        """Nearest-neighbour upsampling."""
        factors = self.constant(np.array([1, 1, scale, scale], np.float32))
        mode = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
        return self.node("Resize", x, "", factors, output=output, **mode)

    def save(self, path: Path, *outputs: str) -> Path:
        ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs]
        graph = helper.make_graph(self.nodes, "test", self.inputs, ports, self.constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
        onnx.save(model, path)
        return path


def nearest(path: Path, scale: int = 2, batch: int | str = "N", size: tuple[int | str, int | str] = ("H", "W")) -> Path:
    """An image network: nearest neighbour."""
    g = Graph()
    g.enlarged(g.input("lr", batch, 3, *size), scale, "hr")
    return g.save(path, "hr")


def luma(path: Path, scale: int = 2) -> Path:
    """A network of luma alone: nearest neighbour."""
    g = Graph()
    g.enlarged(g.input("lr", "N", 1, "H", "W"), scale, "hr")
    return g.save(path, "hr")


def unshuffled(path: Path, multiple: int = 2) -> Path:
    """A 2x image network that needs sizes that are multiples: it packs blocks of pixels into channels and back."""
    g = Graph()
    packed = g.node("SpaceToDepth", g.input("lr", "N", 3, "H", "W"), blocksize=multiple)
    g.enlarged(g.node("DepthToSpace", packed, blocksize=multiple), 2, "hr")
    return g.save(path, "hr")


def fixed_reshape(path: Path, height: int = 24, width: int = 32) -> Path:
    """A 2x image network whose graph itself works at one size only."""
    g = Graph()
    shape = g.constant(np.array([1, 3, height, width], np.int64))
    g.enlarged(g.node("Reshape", g.input("lr", 1, 3, height, width), shape), 2, "hr")
    return g.save(path, "hr")


def video(
    path: Path,
    *,
    scaled_input: bool = False,
    state_used_twice: bool = False,
    rectified_state: bool = False,
    heavy: bool = False,
    blend: float = 0.2,
) -> Path:
    """A published kind of video network, in which the recurrence can, or cannot, be cut out.

    feat = (1 - a) conv_in(x) + a prev_feat; output = enlarged(x + 0.1 * relu(feat)[:3]). With `scaled_input` conv_in
    sees 2x - 1, with `state_used_twice` the blend is written as prev + (1 - a)(conv_in(x) - prev). With
    `rectified_state` it is relu(prev)^2 that is blended in, and with `heavy` the weights add up to more than one: no
    average of features either.
    """
    rng = np.random.default_rng(3)
    g = Graph()
    x, state = g.input("input", "N", 3, "H", "W"), g.input("prev_feat", "N", 8, "H", "W")
    seen = x
    if scaled_input:
        seen = g.node(
            "Sub", g.node("Mul", x, g.constant(np.float32(2).reshape(1))), g.constant(np.float32(1).reshape(1))
        )
    weight = g.constant(rng.normal(0, 0.5, (8, 3, 3, 3)).astype(np.float32))
    bias = g.constant(rng.normal(0, 0.1, 8).astype(np.float32))
    features = g.node("Conv", seen, weight, bias, pads=[1, 1, 1, 1])
    if rectified_state:
        rectified = g.node("Relu", state)
        state = g.node("Mul", rectified, rectified)
    new, old = g.constant(np.array([1 - blend + 0.1 * heavy], np.float32)), g.constant(np.array([blend], np.float32))
    if state_used_twice:
        mixed = g.node("Add", state, g.node("Mul", g.node("Sub", features, state), new), output="feature_map")
    else:
        mixed = g.node("Add", g.node("Mul", features, new), g.node("Mul", state, old), output="feature_map")
    mix = g.constant(rng.normal(0, 0.2, (3, 8, 1, 1)).astype(np.float32))
    detail = g.node("Conv", g.node("Relu", mixed), mix)
    g.enlarged(g.node("Add", x, detail), 2, "output")
    return g.save(path, "output", "feature_map")


def not_upscalers(folder: Path) -> dict[str, Path]:
    """Valid ONNX networks that are no upscalers, by what is wrong with them."""
    found: dict[str, Path] = {}
    g = Graph()
    g.node("GlobalAveragePool", g.input("x", "N", 3, "H", "W"), output="y")
    found["classifier"] = g.save(folder / "classifier.onnx", "y")
    found["one channel"] = luma(folder / "one-channel.onnx")  # of TensorRT alone; see `luma`
    g = Graph()
    big = g.enlarged(g.input("x", "N", 1, "H", "W"))
    g.node("Concat", big, big, big, axis=1, output="y")
    found["one channel in"] = g.save(folder / "one-in.onnx", "y")
    g = Graph()
    wide = g.constant(np.ones((4, 3, 1, 1), np.float32))
    g.enlarged(g.node("Conv", g.input("x", "N", 3, "H", "W"), wide), 2, "y")
    found["four channels out"] = g.save(folder / "four-out.onnx", "y")
    g = Graph()
    g.node("AveragePool", g.input("x", "N", 3, "H", "W"), kernel_shape=[2, 2], strides=[2, 2], output="y")
    found["smaller"] = g.save(folder / "smaller.onnx", "y")
    g = Graph()
    factors = g.constant(np.array([1, 1, 1.5, 1.5], np.float32))
    g.node("Resize", g.input("x", "N", 3, "H", "W"), "", factors, mode="nearest", output="y")
    found["1.5x"] = g.save(folder / "one-and-a-half.onnx", "y")
    g = Graph()
    g.node("Add", g.input("a", "N", 3, "H", "W"), g.input("b", "N", 3, "H", "W"), output="y")
    found["two nameless inputs"] = g.save(folder / "two-inputs.onnx", "y")
    g = Graph()
    g.node("Relu", g.input("x", "N", 3), output="y")
    found["no picture"] = g.save(folder / "rank-two.onnx", "y")
    return found

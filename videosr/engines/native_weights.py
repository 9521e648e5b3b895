"""A network's weights in the order in which our CPU kernels use them (`kernels/native.h`), for a format of video."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.polynomial import polynomial as poly
from numpy.typing import NDArray

from videosr.engines.base import Picture
from videosr.engines.deployment import LIMIT, block_layers, shapes
from videosr.engines.emission import Emission, colour_planes, emission, joined, rgb_from_values
from videosr.engines.native_library import MAX_BLOCKS
from videosr.engines.network import Network
from videosr.errors import NetworkError

type Constants = Mapping[str, NDArray[np.float64]]

_BLOCK = re.compile(r"body\.(\d+)\.blocks\.(\d+)\.(?:conv1|proj)\.weight")
_TAIL = 7
"""Edge of the kernel that conv_mid and the tail are together."""
_ROWS = 8
"""Rows of its results that are made at a time."""
_POINTS = (0.0, 0.25, -0.25, 0.5, -0.5, 0.75, -0.75, 1.0, -1.0, 2.0, -2.0, 3.0, -3.0)
"""And infinity."""


@dataclass(frozen=True, slots=True)
class Layers:
    """A network as the kernels run it: its constants in their shapes.

    Attributes:
        constants: by name; (outputs, inputs, rows, columns), biases flat.
        blocks: their names, in order.
        channels: of its features.
        scale: of it.
        limit: of the products in gated blocks; 0: they are Nano blocks.
    """

    constants: Constants
    blocks: tuple[str, ...]
    channels: int
    scale: int
    limit: float

    @property
    def reach(self) -> int:
        """How many pixels away from its own an output pixel sees, other outputs apart."""
        return (4 if self.limit else 1) * len(self.blocks) + 4


def read(network: Network) -> Layers:
    """The weights of a network file.

    Raises:
        NetworkError: it is not realtime, light, fine or stream in deployment form with a replicated rim.
    """
    facts, path = network.metadata, network.path
    if facts.get("form") != "deploy" or facts.get("precision", "fp32") != "fp32" or network.number("halo", 0) <= 0:
        raise NetworkError(
            f"{path}: the native engine runs networks in the float32 deployment form of `videosr export`, with a "
            "repeated rim: use --engine openvino"
        )
    found = dict(network.constants())
    names = sorted((int(m[1]), int(m[2])) for name in found if (m := _BLOCK.fullmatch(name)))
    blocks = tuple(f"body.{group}.blocks.{block}" for group, block in names)
    gated = any(f"{name}.proj.weight" in found for name in blocks)
    found.pop("product.min", None)  # the same with the other sign
    limits = found.pop(LIMIT, np.array([np.inf])) if gated else np.zeros(1)
    c, scale = len(found.get("conv_in.bias", ())), network.number("scale", 0)
    wanted = shapes(c, scale, blocks, gated=gated)
    same = found.keys() == wanted.keys() and all(found[n].size == np.prod(shape) for n, shape in wanted.items())
    if gated and not (limits.size == 1 and limits.item() > 0):
        raise NetworkError(f"{path}: {LIMIT} is not one positive number: use --engine openvino")
    if not same or scale < 1 or c % 4 or not 0 < len(blocks) <= MAX_BLOCKS:
        variant = facts.get("variant", "a network")
        raise NetworkError(
            f"{path}: the native engine runs realtime, light, fine and stream networks, not {variant} with these "
            f"weights, {c} channels, {len(blocks)} blocks and scale {scale}: use --engine openvino"
        )
    constants = {name: found[name].astype(np.float64).reshape(shape) for name, shape in wanted.items()}
    return Layers(constants, blocks, c, scale, float(limits.item()))


@dataclass(frozen=True, slots=True)
class Packed:
    """Weights for one kind of source and target.

    Attributes:
        values: float32, as `native.h` says.
        plan: what the last convolutions emit.
        outputs: that are computed: those of the plan, filled up to a multiple of four.
        colours: components that `conv_in` reads.
        base_colours: components that the base path reads.
    """

    values: NDArray[np.float32]
    plan: Emission
    outputs: int
    colours: int
    base_colours: int


@np.errstate(over="ignore", invalid="ignore")
def pack(layers: Layers, source: Picture, target: Picture, *, apart: bool) -> Packed:
    """Colour matrices and codes folded into the first and the last convolutions.

    What is beyond float32 becomes infinite without a warning: the kernels tell by their results.

    Args:
        layers: the network.
        source: format and colour of the planes that come in.
        target: of those that go out.
        apart: the network makes luma alone.
    """
    w, planes = layers.constants, colour_planes(source.format)
    plan = emission(target, layers.scale, 1 if apart else colour_planes(target.format))
    to_rgb = rgb_from_values(source)
    first = np.einsum("oryx,rc->ocyx", w["conv_in.weight"], to_rgb)
    base = np.einsum("eo,oryx,rc->ecyx", plan.weights, w["base.weight"], to_rgb)
    if planes == 1:  # gray: all three components are the one plane
        first, base = (kernel.sum(axis=1, keepdims=True) for kernel in (first, base))
    elif apart and not base[:, 1:].round(9).any():
        base = base[:, :1]  # what the base path makes of luma depends on luma alone
    kernel, bias = joined(*((w[f"{layer}.weight"], w[f"{layer}.bias"]) for layer in ("conv_mid", "tail")))
    fill = -len(plan.offset) % 4
    kernel = np.pad(np.einsum("eo,ocyx->ecyx", plan.weights, kernel), ((0, fill), (0, 0), (0, 0), (0, 0)))
    parts = [w["conv_in.bias"], _fours(first)]
    for name in layers.blocks:
        for layer in block_layers(layers.channels, gated=layers.limit > 0):
            weight, bias_of = w[f"{name}.{layer}.weight"], w[f"{name}.{layer}.bias"]
            if weight.shape[1] == 1:
                parts += [np.concatenate([weight.reshape(-1, 9), bias_of[:, None]], axis=1)]
            else:  # the kernels give conv2 twice GELU
                parts += [bias_of, _fours(weight / 2 if layer == "conv2" else weight)]
    parts += [np.pad(plan.weights @ bias + plan.offset, (0, fill))]
    parts += [_fours(row[:, :, None]) for row in np.moveaxis(_transformed(kernel), 2, 0)]
    parts += [_fours(np.pad(base, ((0, fill), (0, 0), (0, 0), (0, 0))))]
    values = np.concatenate([part.ravel() for part in parts]).astype(np.float32)
    return Packed(values, plan, len(kernel), first.shape[1], base.shape[1])


def _fours(kernel: NDArray[np.float64]) -> NDArray[np.float64]:
    """(outputs, inputs, rows, columns) as (outputs / 4, rows, inputs, columns, 4)."""
    return kernel.reshape(-1, 4, *kernel.shape[1:]).transpose(0, 3, 2, 4, 1)


def _transformed(kernel: NDArray[np.float64]) -> NDArray[np.float64]:
    """A kernel's seven rows as the fourteen that go with `transform` and POWERS of `layers.h`: G g."""
    transformed: NDArray[np.float64] = np.einsum("iy,ocyx->ocix", winograd()[0], kernel)
    return transformed


def winograd() -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """G (14, 7), B^T (14, 14), A^T (8, 14): A^T [(G g) * (B^T d)] are eight results of a filter g on fourteen samples
    d.

    The rows of B^T are the coefficients of the products of all (x - p) but one, p the points, A^T their powers; both
    are in `kernels/layers.h` too. G is what fits them.
    """
    count = len(_POINTS) + 1
    rows = [[q for q in _POINTS if q != p] for p in _POINTS]
    transform = np.array(
        [[*poly.polyfromroots(roots), *[0.0] * (count - 1 - len(roots))] for roots in [*rows, _POINTS]]
    )
    gather = np.array([[p**r for p in _POINTS] + [float(r == _ROWS - 1)] for r in range(_ROWS)])
    known = np.array([[float(r + y == j) for y in range(_TAIL)] for r in range(_ROWS) for j in range(count)])
    unknown = np.einsum("ri,ij->rji", gather, transform).reshape(-1, count)
    fit: NDArray[np.float64] = np.linalg.lstsq(unknown, known, rcond=None)[0]
    return fit, transform, gather

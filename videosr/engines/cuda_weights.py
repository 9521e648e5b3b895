"""The realtime network's weights, from its deployment file to the order in which `kernels/realtime.cu` reads them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from videosr.engines.network import Network
from videosr.errors import NetworkError

_BLOCKS = 3
_SCALES = (2, 4)
_REACH = 7
"""Input pixels that an output pixel sees on each side; less padding than that would show."""

type Weights = Mapping[str, NDArray[np.float64]]


@dataclass(frozen=True, slots=True)
class Packed:
    """What the kernel is given.

    Attributes:
        scale: of the network.
        products: (n, 4) uint32: float16 in pairs, in the order of tensor core fragments; the kernel's `weights`.
        biases: (m, 4) float32; the kernel's `biases`.
    """

    scale: int
    products: NDArray[np.uint32]
    biases: NDArray[np.float32]


def read(network: Network) -> Packed:
    """The weights of a network file.

    Raises:
        NetworkError: it is not realtime in deployment form, at scale 2 or 4, alpha 0, with a replicated rim.
    """
    facts = network.metadata
    scale, halo = network.number("scale", 0), network.number("halo", 0)
    problem = ""
    if facts.get("form") != "deploy":
        problem = "is not in the deployment form of `videosr export`"
    elif facts.get("variant") != "realtime":
        problem = f"is the {facts.get('variant', 'unknown')} network"
    elif scale not in _SCALES:
        problem = f"enlarges {scale} times"
    elif halo < _REACH:
        problem = "pads with zeros"
    elif facts.get("alpha", "0.0") not in ("0", "0.0"):
        problem = f"has a pre-filter (alpha {facts['alpha']})"
    if problem:
        raise NetworkError(
            f"{network.path}: the cuda engine runs the realtime network, 2x and 4x, in deployment form; this file "
            f"{problem}: use --engine tensorrt_rtx, tensorrt or openvino"
        )
    return pack(_constants(network), scale)


def pack(weights: Weights, scale: int) -> Packed:
    """Weights by their names in the network file, float64, in the kernel's order.

    Args:
        weights: `conv_in.weight` (16, 3, 3, 3) and so on.
        scale: of the network.
    """
    products = [_picture(weights["conv_in.weight"])]
    biases = [weights["conv_in.bias"]]
    for i in range(_BLOCKS):
        block = f"body.0.blocks.{i}"
        products += [_columns(weights[f"{block}.conv1.weight"])]
        products += [_fragment(rows.T) for rows in np.split(weights[f"{block}.conv2.weight"][:, :, 0, 0], 2, axis=1)]
        products += [_depthwise(weights[f"{block}.dw.weight"], weights[f"{block}.dw.bias"])]
        biases += [weights[f"{block}.{layer}.bias"] for layer in ("conv1", "conv2")]
    products += [_columns(weights[f"{layer}.weight"]) for layer in ("conv_mid", "tail")]
    products += [_picture(weights["base.weight"])]
    outputs = weights["tail.bias"]
    biases += [weights["conv_mid.bias"], np.pad(outputs, (0, -len(outputs) % 16))]
    pairs = np.concatenate(biases).astype(np.float32).reshape(-1, 2)  # a lane has two channels, of two pixels
    return Packed(scale, np.concatenate(products), np.concatenate([pairs, pairs], axis=1))


def _fragment(matrix: NDArray[np.float64]) -> NDArray[np.uint32]:
    """(16 in, 16 out) as the lanes of a warp hold it: (32, 4), each two float16 (see `kernels/tensor.cuh`)."""
    half = matrix.astype(np.float16).view(np.uint16).astype(np.uint32)
    lane = np.arange(32)
    column, row = lane // 4, lane % 4 * 2
    words = [half[row + k, column + n] | half[row + k + 1, column + n] << 16 for n in (0, 8) for k in (0, 8)]
    return np.stack(words, axis=1)


def _columns(weight: NDArray[np.float64]) -> NDArray[np.uint32]:
    """A convolution of 16 channels, (out, 16, k, k): for each tap, 16 outputs at a time."""
    out, _, rows, columns = weight.shape
    padded = np.pad(weight, ((0, -out % 16), (0, 0), (0, 0), (0, 0)))
    taps = [padded[:, :, dy, dx].T for dy in range(rows) for dx in range(columns)]
    return np.concatenate([_fragment(part) for tap in taps for part in np.split(tap, len(padded) // 16, axis=1)])


def _picture(weight: NDArray[np.float64]) -> NDArray[np.uint32]:
    """A 3x3 convolution of a picture, (out, 3, 3, 3): for each row of taps, 16 outputs at a time.

    The inputs of a product are R and G of four columns, then B and nothing of four columns; the fourth has no weight.
    """
    out = len(weight)
    padded = np.pad(weight, ((0, -out % 16), (0, 1), (0, 0), (0, 1)))
    parts = []
    for dy in range(3):
        taps = padded[:, :, dy].transpose(2, 1, 0)  # column, colour, out
        rows = np.concatenate([taps[:, :2].reshape(8, -1), taps[:, 2:].reshape(8, -1)])
        parts += [_fragment(part) for part in np.split(rows, rows.shape[1] // 16, axis=1)]
    return np.concatenate(parts)


def _depthwise(weight: NDArray[np.float64], bias: NDArray[np.float64]) -> NDArray[np.uint32]:
    """A depthwise 3x3 convolution of 32 channels, (32, 1, 3, 3): for each tap, and the bias, lanes' 8 j + 2 t + i."""
    taps = np.concatenate([weight.reshape(32, 9), bias[:, None]], axis=1)
    half = taps.reshape(4, 4, 2, 10).transpose(3, 1, 0, 2).astype(np.float16)  # tap, t, j, i
    return np.ascontiguousarray(half).view(np.uint32).reshape(40, 4)


def _constants(network: Network) -> Weights:
    """The weights in a deployment file.

    Raises:
        NetworkError: it does not hold what it says.
    """
    path, scale = network.path, network.number("scale", 0)
    found = network.constants()
    outputs = 3 * scale * scale
    wanted: dict[str, tuple[int, ...]] = {"conv_in.weight": (16, 3, 3, 3), "conv_in.bias": (16,)}
    for i in range(_BLOCKS):
        for layer, form in (("conv1", (32, 16, 1, 1)), ("dw", (32, 1, 3, 3)), ("conv2", (16, 32, 1, 1))):
            wanted |= {f"body.0.blocks.{i}.{layer}.weight": form, f"body.0.blocks.{i}.{layer}.bias": form[:1]}
    wanted |= {"conv_mid.weight": (16, 16, 3, 3), "conv_mid.bias": (16,)}
    wanted |= {"tail.weight": (outputs, 16, 5, 5), "tail.bias": (outputs,), "base.weight": (outputs, 3, 3, 3)}
    weights = {}
    for name, shape in wanted.items():
        if name not in found:
            raise NetworkError(f"{path}: says it is in deployment form but has no {name!r}; export it again")
        values = found[name].astype(np.float64)
        if values.size != int(np.prod(shape)):
            raise NetworkError(f"{path}: {name} is of {values.shape}, not {shape}; export it again")
        weights[name] = values.reshape(shape)
    return weights

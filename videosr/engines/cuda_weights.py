"""The weights of networks that our CUDA kernels run, from deployment files to the order in which kernels read them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from videosr.engines.deployment import LIMIT, shapes
from videosr.engines.gpu_device import Device
from videosr.engines.network import Network
from videosr.errors import NetworkError
from videosr.frame import Array

SCALES = {"realtime": (2, 4), "stream": (2,), "fine": (2,)}
"""The networks, and the scales at which kernels run them."""
_CHANNELS = {"realtime": 16, "stream": 32, "fine": 32}
_BLOCKS = {"realtime": (1, 3), "stream": (2, 3), "fine": (2, 4)}  # groups, blocks of each
HALF_MAX = 65504.0
"""The largest float16."""
_REACH = 7
"""Input pixels that realtime sees on each side; less padding than that would show."""
RIM = 8
"""The padding that kernels of other networks have."""

type Weights = Mapping[str, NDArray[np.float64]]
type Resident = tuple[Array, Array]
"""Products and biases of a part, on the device."""


class Part(NamedTuple):
    """What a kernel is given.

    Attributes:
        products: (n, 4) uint32: float16 in pairs, in the order of tensor core fragments; the kernel's `weights`.
        biases: (m, 4) float32; the kernel's `biases`.
    """

    products: NDArray[np.uint32]
    biases: NDArray[np.float32]

    @property
    def size(self) -> int:
        """Bytes of both."""
        return self.products.nbytes + self.biases.nbytes

    def upload(self, device: Device) -> Resident:
        """Bring it to a device."""
        return device.put(self.products), device.put(self.biases)


@dataclass(frozen=True, slots=True)
class Packed:
    """A network.

    Attributes:
        variant: of it.
        scale: of it.
        parts: of realtime, the whole; of others what comes before the blocks, each block, and what comes after them.
        limit: of stream's products.
    """

    variant: str
    scale: int
    parts: tuple[Part, ...]
    limit: float = HALF_MAX


def read(network: Network) -> Packed:
    """The weights of a network file.

    Raises:
        NetworkError: it is not one of `SCALES` in deployment form, alpha 0, with a replicated rim.
    """
    facts = network.metadata
    variant, scale, halo = facts.get("variant", "unknown"), network.number("scale", 0), network.number("halo", 0)
    problem = ""
    if facts.get("form") != "deploy":
        problem = "is not in the deployment form of `videosr export`"
    elif variant not in SCALES:
        problem = f"is the {variant} network"
    elif scale not in SCALES[variant]:
        problem = f"enlarges {scale} times"
    elif halo < _REACH:
        problem = f"repeats {halo} pixels of the border, fewer than {_REACH}" if halo else "pads with zeros"
    elif variant != "realtime" and halo != RIM:
        problem = f"repeats {halo} pixels of the border, not {RIM}"
    elif facts.get("alpha", "0.0") not in ("0", "0.0"):
        problem = f"has a pre-filter (alpha {facts['alpha']})"
    if problem:
        able = ", ".join(f"{name} {' and '.join(f'{s}x' for s in scales)}" for name, scales in SCALES.items())
        raise NetworkError(
            f"{network.path}: the cuda engine runs {able}, in deployment form; this file {problem}: use --engine "
            "tensorrt_rtx, tensorrt or openvino"
        )
    return pack(_constants(network, variant, scale), variant, scale)


def pack(weights: Weights, variant: str, scale: int) -> Packed:
    """Weights by their names in the network file, float64, in the kernels' order.

    Args:
        weights: `conv_in.weight` (C, 3, 3, 3) and so on; `product.max` where stream's products have a limit.
        variant: of the network.
        scale: of the network.
    """
    before = _part([_picture(weights["conv_in.weight"])], [weights["conv_in.bias"]])
    blocks = [_BLOCK[variant](weights, name) for name in _block_names(variant)]
    layers = [_columns(weights[f"{layer}.weight"], stored=True) for layer in ("conv_mid", "tail")]
    outputs = weights["tail.bias"]
    biases = [weights["conv_mid.bias"], np.pad(outputs, (0, -len(outputs) % 16))]
    parts = [before, *blocks, _part([*layers, _picture(weights["base.weight"])], biases)]
    if variant == "realtime":
        parts = [Part(*map(np.concatenate, zip(*parts, strict=True)))]
    limit = weights.get(LIMIT)
    return Packed(variant, scale, tuple(parts), HALF_MAX if limit is None else limit.item())


def _part(products: list[NDArray[np.uint32]], biases: list[NDArray[np.float64]]) -> Part:
    pairs = np.concatenate([*biases, np.zeros(0)]).astype(np.float32).reshape(-1, 2)  # a lane has two channels
    return Part(np.concatenate(products), np.concatenate([pairs, pairs], axis=1))  # of two pixels


def _realtime_block(weights: Weights, name: str) -> Part:
    products = [_columns(weights[f"{name}.conv1.weight"]), _halves(weights[f"{name}.conv1.bias"][:, None])]
    products += [_columns(weights[f"{name}.conv2.weight"])]
    products += [_depthwise(weights[f"{name}.dw.weight"], weights[f"{name}.dw.bias"])]
    return _part(products, [weights[f"{name}.conv2.bias"]])


def _stream_block(weights: Weights, name: str) -> Part:
    near, far = ("dw1", "dw3")
    products = [_depthwise(weights[f"{name}.{dw}.weight"], weights[f"{name}.{dw}.bias"]) for dw in (near, far)]
    products += [_columns(weights[f"{name}.fuse.weight"]), _halves(weights[f"{name}.fuse.bias"][:, None])]
    wide = len(weights[f"{name}.proj.bias"])
    order = np.arange(wide).reshape(2, -1, 16).swapaxes(0, 1).ravel()  # 16 of either factor, by turns
    return _part([*products, *_wide(weights, name, ("proj", "gate", "out"), order)], [])


def _fine_block(weights: Weights, name: str) -> Part:
    order = np.arange(len(weights[f"{name}.conv1.bias"]))
    return _part(_wide(weights, name, ("conv1", "dw", "conv2"), order), [])


def _wide(
    weights: Weights, name: str, layers: tuple[str, str, str], order: NDArray[np.int64]
) -> list[NDArray[np.uint32]]:
    """What widens, spreads and narrows, 32 wide channels at a time, in an order."""
    widen, spread, narrow = layers
    groups = order.reshape(-1, 32)
    products = [_columns(weights[f"{name}.{widen}.weight"][group]) for group in groups]
    products += [_halves(weights[f"{name}.{widen}.bias"][group][:, None]) for group in groups]
    products += [_depthwise(weights[f"{name}.{spread}.weight"][g], weights[f"{name}.{spread}.bias"][g]) for g in groups]
    return [*products, _columns(weights[f"{name}.{narrow}.weight"]), _halves(weights[f"{name}.{narrow}.bias"][:, None])]


_BLOCK = {"realtime": _realtime_block, "stream": _stream_block, "fine": _fine_block}


def _block_names(variant: str) -> list[str]:
    groups, blocks = _BLOCKS[variant]
    return [f"body.{group}.blocks.{block}" for group in range(groups) for block in range(blocks)]


def _fragment(matrix: NDArray[np.float64]) -> NDArray[np.uint32]:
    """(16 in, 16 out) as the lanes of a warp hold it: (32, 4), each two float16 (see `kernels/tensor.cuh`)."""
    half = matrix.astype(np.float16).view(np.uint16).astype(np.uint32)
    lane = np.arange(32)
    column, row = lane // 4, lane % 4 * 2
    words = [half[row + k, column + n] | half[row + k + 1, column + n] << 16 for n in (0, 8) for k in (0, 8)]
    return np.stack(words, axis=1)


def _columns(weight: NDArray[np.float64], *, stored: bool = False) -> NDArray[np.uint32]:
    """A convolution, (out, in, k, k): for each tap, 16 inputs at a time, 16 outputs at a time.

    Args:
        weight: of it.
        stored: its input comes from memory, where the channels 8j + 2t + i of lane t lie side by side.
    """
    out, inputs, rows, columns = weight.shape
    padded = np.pad(weight, ((0, -out % 16), (0, 0), (0, 0), (0, 0)))
    if stored:
        padded = padded[:, np.arange(inputs).reshape(-1, 4, 2).swapaxes(0, 1).ravel()]
    parts = [
        _fragment(padded[j : j + 16, i : i + 16, dy, dx].T)
        for dy in range(rows)
        for dx in range(columns)
        for i in range(0, inputs, 16)
        for j in range(0, len(padded), 16)
    ]
    return np.concatenate(parts)


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
    """A depthwise 3x3 convolution of 32 channels, (32, 1, 3, 3): for each tap, and the bias, `_halves`."""
    return _halves(np.concatenate([weight.reshape(32, 9), bias[:, None]], axis=1))


def _halves(values: NDArray[np.float64]) -> NDArray[np.uint32]:
    """(32 channels, n): for each of n, and each lane t, its channels 8 j + 2 t + i."""
    half = values.reshape(4, 4, 2, -1).transpose(3, 1, 0, 2).astype(np.float16)  # n, t, j, i
    return np.ascontiguousarray(half).view(np.uint32).reshape(-1, 4)


def _constants(network: Network, variant: str, scale: int) -> Weights:
    """The weights in a deployment file.

    Raises:
        NetworkError: it does not hold what it says.
    """
    path, found = network.path, network.constants()
    weights = {LIMIT: found[LIMIT].astype(np.float64)} if LIMIT in found else {}
    if LIMIT in found and not (found[LIMIT].size == 1 and found[LIMIT].item() > 0):
        raise NetworkError(
            f"{path}: {LIMIT} is not one positive number: use --engine tensorrt_rtx, tensorrt or openvino"
        )
    wanted = shapes(_CHANNELS[variant], scale, _block_names(variant), gated=variant == "stream")
    for name, shape in wanted.items():
        if name not in found:
            raise NetworkError(f"{path}: says it is in deployment form but has no {name!r}; export it again")
        values = found[name].astype(np.float64)
        if values.size != int(np.prod(shape)):
            raise NetworkError(f"{path}: {name} is of {values.shape}, not {shape}; export it again")
        weights[name] = values.reshape(shape)
    return weights

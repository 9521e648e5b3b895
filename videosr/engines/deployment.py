"""What a network file in deployment form holds: the names and shapes of its constants (see `archs.onnx_graph`)."""

from __future__ import annotations

from collections.abc import Iterable

type Shape = tuple[int, ...]

LIMIT = "product.max"
"""What the products of stream's gated blocks are clamped to, where they are."""


def block_layers(channels: int, *, gated: bool) -> dict[str, Shape]:
    """Kernels of a block in the order in which they are used: (outputs, inputs of a group, rows, columns).

    Args:
        channels: of the features between blocks.
        gated: it is one of stream's blocks and not a Nano block.
    """
    c = channels
    if not gated:
        return {"conv1": (2 * c, c, 1, 1), "dw": (2 * c, 1, 3, 3), "conv2": (c, 2 * c, 1, 1)}
    return {
        "dw1": (c, 1, 3, 3),
        "dw3": (c, 1, 3, 3),
        "fuse": (c, 2 * c, 1, 1),
        "proj": (4 * c, c, 1, 1),
        "gate": (4 * c, 1, 3, 3),
        "out": (c, 2 * c, 1, 1),
    }


def shapes(channels: int, scale: int, blocks: Iterable[str], *, gated: bool) -> dict[str, Shape]:
    """All weights and biases of a network by their names; `LIMIT` apart.

    Args:
        channels: of its features.
        scale: of it.
        blocks: their names.
        gated: see `block_layers`.
    """
    outputs = 3 * scale * scale
    layers: dict[str, Shape] = {"conv_in": (channels, 3, 3, 3)}
    for name in blocks:
        layers |= {f"{name}.{layer}": shape for layer, shape in block_layers(channels, gated=gated).items()}
    layers |= {"conv_mid": (channels, channels, 3, 3), "tail": (outputs, channels, 5, 5)}
    found: dict[str, Shape] = {"base.weight": (outputs, 3, 3, 3)}
    for layer, shape in layers.items():
        found |= {f"{layer}.weight": shape, f"{layer}.bias": shape[:1]}
    return found

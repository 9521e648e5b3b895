"""A network whose results can be calculated: it mixes R'G'B' by a matrix and enlarges by linear interpolation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper


def mixer(path: Path, mix: NDArray[np.float64], scale: int = 2) -> Path:
    """Write the network: (N, 3, H, W) -> (N, 3, scale H, scale W), samples centred."""
    kernel = numpy_helper.from_array(mix.astype(np.float32)[:, :, None, None], "mix")
    factors = numpy_helper.from_array(np.array([1, 1, scale, scale], np.float32), "factors")
    nodes = [
        helper.make_node("Conv", ["lr", "mix"], ["mixed"]),
        helper.make_node(
            "Resize", ["mixed", "", "factors"], ["hr"], mode="linear", coordinate_transformation_mode="half_pixel"
        ),
    ]
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 3, None, None]) for name in ("lr", "hr")]
    graph = helper.make_graph(nodes, "mixer", ends[:1], ends[1:], [kernel, factors])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path

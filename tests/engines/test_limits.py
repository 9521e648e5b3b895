"""A network whose limit of products is no limit is refused where our kernels would have used it; others run it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from videosr.engines import cuda_weights, native_weights
from videosr.engines.deployment import LIMIT
from videosr.engines.network import Network
from videosr.errors import NetworkError
from videosr.models import registry

onnx = pytest.importorskip("onnx")


@pytest.mark.parametrize("limit", [[0.0], [-1.0], [np.nan], [8.0] * 64, []])
def test_a_limit_that_is_none_is_refused(tmp_path, limit):
    model = onnx.load(Path(registry.find("stream-2x")))
    (tensor,) = [tensor for tensor in model.graph.initializer if tensor.name == LIMIT]
    tensor.CopyFrom(onnx.numpy_helper.from_array(np.array(limit, np.float32), LIMIT))
    onnx.save(model, tmp_path / "net.onnx")
    for weights, other in ((native_weights, "openvino"), (cuda_weights, "tensorrt_rtx")):
        with pytest.raises(NetworkError, match=rf"net\.onnx: {LIMIT} is not one positive number: use --engine {other}"):
            weights.read(Network.open(tmp_path / "net.onnx"))

"""The torch engine: checkpoints as they are."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from safetensors.torch import save_file  # noqa: E402

from videosr.archs import checkpoint  # noqa: E402
from videosr.archs.paragonsr2 import ParagonSR2  # noqa: E402
from videosr.engines.base import Interface  # noqa: E402
from videosr.engines.torch import TorchEngine  # noqa: E402
from videosr.errors import EngineError, NetworkError, UsageError  # noqa: E402
from videosr.export import export, padded_forward  # noqa: E402


@pytest.fixture
def ours(tmp_path):
    torch.manual_seed(0)
    model, path = (
        ParagonSR2("realtime", 2, upsampler_alpha=0.0, layer_scale=0.1, detail_gain=1.0),
        tmp_path / "a.safetensors",
    )
    checkpoint.save(path, model.eval(), name="a", training="none", license="MIT")
    return model, path


def pictures(seed=0):
    rng = np.random.default_rng(seed)
    return rng.random((2, 3, 21, 34), np.float32), rng.random((2, 3, 21, 34), np.float32)


def test_it_is_the_network_with_a_replicated_rim(ours):
    model, path = ours
    engine = TorchEngine(path, threads=1)
    assert (engine.scale, engine.interface, engine.precision) == (2, Interface.AVERAGE, "f32")
    frame, average = pictures()
    for inputs in ((frame,), (frame, average)):
        output = engine.run(*inputs)
        assert output.dtype == np.float32
        assert output.flags.c_contiguous
        assert output.flags.owndata or output.base is not None
        expected = padded_forward(model, 8, *map(torch.from_numpy, inputs)).numpy()
        assert np.abs(output - expected).max() < 1e-5


def test_published_weights_keep_their_zero_padding(tmp_path):
    torch.manual_seed(0)
    model = ParagonSR2("realtime", 2, upsampler_alpha=0.0, layer_scale=0.1, detail_gain=1.0).eval()
    save_file(model.state_dict(), tmp_path / "net.safetensors")
    with pytest.raises(UsageError, match="does not record its alpha"):
        TorchEngine(tmp_path / "net.safetensors")
    engine = TorchEngine(tmp_path / "net.safetensors", alpha=0.0)
    frame, _ = pictures()
    expected = padded_forward(model, 0, torch.from_numpy(frame)).numpy()
    difference = np.abs(engine.run(frame) - expected)
    assert difference[:, :, 1:-1, 1:-1].max() < 1e-5 < difference.max()  # folded: the outermost ring differs


def test_it_agrees_with_the_exported_network(ours, tmp_path):
    onnxruntime = pytest.importorskip("videosr.engines.onnxruntime")
    from videosr.engines.network import Network

    export(ours[1], tmp_path / "net.onnx")
    exported = onnxruntime.OnnxRuntimeEngine(Network.open(tmp_path / "net.onnx"), threads=1)
    frame, average = pictures()
    assert np.abs(TorchEngine(ours[1]).run(frame, average) - exported.run(frame, average)).max() < 1e-5


def test_half_precision_stays_close(ours):
    frame, average = pictures()
    half = TorchEngine(ours[1], precision="f16")
    difference = np.abs(half.run(frame, average) - TorchEngine(ours[1]).run(frame, average)).max()
    assert 0 < difference < 2e-3
    assert half.identity != TorchEngine(ours[1]).identity


def test_what_it_cannot_do_is_said(ours, tmp_path):
    with pytest.raises(UsageError, match="precision 'bf16' of the torch engine is not one of"):
        TorchEngine(ours[1], precision="bf16")
    with pytest.raises(EngineError, match="cannot use the device 'cuda:99'"):
        TorchEngine(ours[1], device="cuda:99")
    (tmp_path / "net.pth").write_bytes(b"text")
    with pytest.raises(NetworkError, match="not a checkpoint"):
        TorchEngine(tmp_path / "net.pth")
    with pytest.raises(EngineError, match="torch failed on a batch"):
        TorchEngine(ours[1]).run(np.zeros((1, 4, 8, 8), np.float32))
    with pytest.raises(EngineError, match="has no steps"):
        TorchEngine(ours[1]).step(np.zeros((1, 3, 8, 8), np.float32), reset=True)

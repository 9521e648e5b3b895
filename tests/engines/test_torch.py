"""The torch engine: checkpoints as they are."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from clips import picture  # noqa: E402
from hostdevice import DeviceArray, HostDevice, on_device  # noqa: E402
from safetensors.torch import save_file  # noqa: E402

from videosr.archs import checkpoint  # noqa: E402
from videosr.archs.exact import exact_float32  # noqa: E402
from videosr.archs.paragonsr2 import ParagonSR2  # noqa: E402
from videosr.color import from_rgb, to_rgb  # noqa: E402
from videosr.engines import torch as torch_engine  # noqa: E402
from videosr.engines.base import Interface, Picture  # noqa: E402
from videosr.engines.torch import TorchEngine  # noqa: E402
from videosr.errors import EngineError, NetworkError, UsageError  # noqa: E402
from videosr.export import export, padded_forward  # noqa: E402
from videosr.frame import ColorSpec, Matrix, PixelFormat, Range, Siting  # noqa: E402


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


class Eager:
    """Stands in for a CUDA graph: replayed, it runs the network on the buffers it was recorded with."""

    made = 0

    def __init__(self, net, inputs, output=None):
        type(self).made += 1
        self.net, self.inputs, self.output = net, inputs, output

    def replay(self):
        made = self.net(*self.inputs)
        return made if self.output is None else self.output.copy_(made)


@pytest.fixture
def graphs(monkeypatch):
    monkeypatch.setattr(torch_engine, "_Recorded", Eager)
    monkeypatch.setattr(Eager, "made", 0)
    return Eager


def test_each_size_is_recorded_once_and_read_from_its_own_buffers(ours, graphs):
    engine, plain = TorchEngine(ours[1], threads=1), TorchEngine(ours[1], threads=1)
    engine._graphs = True
    rng = np.random.default_rng(0)
    shapes = [(1, 3, 12, 16), (2, 3, 12, 16), (1, 3, 9, 11)]
    for shape in shapes * 2:
        frame = rng.random(shape).astype(np.float32)
        assert np.abs(engine.run(frame) - plain.run(frame)).max() < 1e-5
    assert graphs.made == 3
    frame, average = rng.random((2, *shapes[0])).astype(np.float32)
    assert np.abs(engine.run(frame, average) - plain.run(frame, average)).max() < 1e-5
    assert graphs.made == 4
    assert len(engine._recorded) == torch_engine._SIZES


def test_arrays_of_the_gpu_come_back_as_such(ours):
    frame, _ = pictures()
    engine = TorchEngine(ours[1], threads=1)
    assert np.array_equal(engine.run(on_device(frame)), engine.run(frame))


@pytest.mark.parametrize("seed", range(3))
def test_planes_go_through_the_gpu_s_buffers(ours, graphs, monkeypatch, seed):
    """The same buffers, streams and kernels as with TensorRT; the result agrees with the host's to one code."""
    device = HostDevice(seed)
    monkeypatch.setattr(torch_engine, "_on_stream", lambda place: device.launched)
    engine = TorchEngine(ours[1], threads=1, gpu=device)
    fmt = PixelFormat.parse("yuv420p")
    color = ColorSpec(matrix=Matrix.BT709, range=Range.LIMITED, siting=Siting.LEFT)
    source = Picture(height=24, width=32, format=fmt, color=color)
    target = Picture(height=48, width=64, format=fmt, color=color)
    runner = engine.planar(source, target, 1)
    frames = [picture(i, fmt, 24, 32) for i in range(5)]
    tickets = [runner.submit([tuple(map(on_device, planes))], 0.0) for planes in frames]
    for ticket, planes in zip(tickets, frames, strict=True):
        made = runner.result(ticket)
        assert all(isinstance(plane, DeviceArray) for plane in made)
        rgb = engine.run(to_rgb(planes, fmt, color)[None])[0]
        chroma = (planes, fmt, color) if engine.network.chroma_apart(fmt, fmt) else None
        for a, b in zip(made, from_rgb(rgb, fmt, color, dither=False, chroma=chroma), strict=True):
            assert np.abs(a.astype(int) - b).max() <= 1
    assert (device.uploaded, device.downloaded) == (0, len(frames))
    assert graphs.made <= 2  # one for each set of tensors


def test_float32_is_float32_while_a_network_is_recorded():
    """TF32 keeps ten bits of it, and is what torch comes with."""
    before = torch.backends.cudnn.allow_tf32
    with exact_float32():
        assert not torch.backends.cudnn.allow_tf32
    assert torch.backends.cudnn.allow_tf32 is before


def test_on_the_cpu_there_are_no_buffers_of_a_gpu(ours):
    engine = TorchEngine(ours[1], threads=1)
    assert engine.device is None
    fmt = PixelFormat.parse("yuv420p")
    source = Picture(height=24, width=32, format=fmt, color=ColorSpec())
    assert engine.planar(source, source, 1) is None


@pytest.mark.gpu
def test_cuda_agrees_with_the_cpu(ours):
    import cupy

    engine, plain = TorchEngine(ours[1], device="cuda", precision="f32"), TorchEngine(ours[1])
    for seed in range(3):
        frame, average = pictures(seed)
        wanted = plain.run(frame, average)
        assert np.abs(engine.run(frame, average) - wanted).max() < 1e-3
        made = engine.run(cupy.asarray(frame), cupy.asarray(average))
        assert isinstance(made, cupy.ndarray)
        assert np.abs(made.get() - wanted).max() < 1e-3

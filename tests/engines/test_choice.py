"""Which engine and device are taken where that is left open."""

from __future__ import annotations

import pytest

from videosr.engines import CUDA_ENGINES, able, choice, on_cuda
from videosr.engines.choice import Wish, choose
from videosr.engines.gpu_device import Gpu
from videosr.engines.nvidia import NoDriverError
from videosr.errors import EngineError, MissingExtraError, NetworkError, UsageError

GPUS = (Gpu("Card A", (8, 9), "580", 12 << 30), Gpu("Card B", (8, 6), "580", 8 << 30))


class Loaded:
    def __init__(self, path, engine, device, precision) -> None:
        self.path, self.engine, self.device, self.precision = path, engine, device, "f16" if "cuda" in device else "f32"


@pytest.fixture
def machine(monkeypatch):
    """A machine with these GPUs, on which these engines fail as told."""

    def make(gpus=GPUS, failing=None):
        def load(path, engine, *, device, precision, threads):
            tried.append((engine, device, path.name))
            if exc := (failing or {}).get(engine):
                raise exc
            return Loaded(path, engine, device, precision)

        def found():
            if gpus is None:
                raise NoDriverError("no NVIDIA driver (libcuda.so.1 is not there): install one from nvidia.com/drivers")
            return gpus

        tried = []
        monkeypatch.setattr(choice, "load", load)
        monkeypatch.setattr(choice, "gpus", found)
        return tried

    return make


@pytest.fixture
def network(tmp_path):
    path = tmp_path / "net.onnx"
    path.touch()
    return path


def test_auto_takes_the_gpu_that_is_there(machine, network):
    machine()
    engine, wish, line = choose(network, Wish())
    assert (engine.engine, engine.device) == (wish.engine, wish.device) == ("tensorrt_rtx", "cuda")
    assert line == "computes on Card A with tensorrt_rtx in f16"


def test_auto_without_a_driver_takes_the_cpu_and_says_so(machine, network):
    tried = machine(gpus=None)
    _, wish, line = choose(network, Wish())
    assert (wish.engine, wish.device) == ("native", "cpu")
    assert line == "computes on the CPU with native in f32: no NVIDIA driver (libcuda.so.1 is not there)"
    assert tried == [("native", "cpu", "net.onnx")]


@pytest.mark.parametrize("failure", [UsageError("not on this CPU"), NetworkError("not for photo")])
def test_other_cpus_and_networks_take_openvino_without_a_word(machine, network, failure):
    tried = machine(failing={"native": failure})
    _, wish, line = choose(network, Wish(device="cpu"))
    assert wish.engine == "openvino"
    assert line == "computes on the CPU with openvino in f32"
    assert [name for name, _, _ in tried] == ["native", "openvino"]


def test_kernels_that_were_not_compiled_are_told_of(machine, network):
    remedy = f"install a C compiler {'and then videosr again ' * 10}and go on"
    machine(gpus=None, failing={"native": EngineError(f"were not compiled: {remedy}")})
    _, wish, line = choose(network, Wish())
    assert wish.engine == "openvino"
    assert line.endswith(f"is not there); native: were not compiled: {remedy}")


@pytest.mark.parametrize(
    "failure",
    [
        MissingExtraError("the tensorrt_rtx engine", "cuda"),
        EngineError("the engine does not pass its self-test"),
        UsageError("builds no engines for 9.0"),
        NetworkError("not for half precision"),
    ],
)
def test_auto_passes_over_what_does_not_work_here(machine, network, failure):
    machine(failing={"tensorrt_rtx": failure})
    _, wish, line = choose(network, Wish())
    assert (wish.engine, wish.device) == ("tensorrt", "cuda")
    assert line == "computes on Card A with tensorrt in f16"
    machine(failing=dict.fromkeys(CUDA_ENGINES, failure))
    _, wish, line = choose(network, Wish())
    assert (wish.engine, wish.device) == ("native", "cpu")
    assert line.startswith(f"computes on the CPU with native in f32: tensorrt_rtx: {failure}"[:100])
    assert len(line) < 250
    assert "\n" not in line


def test_torch_takes_the_weights_beside_a_network(machine, network):
    network.with_suffix(".safetensors").touch()
    tried = machine(failing=dict.fromkeys(set(CUDA_ENGINES) - {"torch"}, EngineError("no")))
    _, wish, _ = choose(network, Wish())
    assert wish.engine == "torch"
    assert tried[-1] == ("torch", "cuda", "net.safetensors")


@pytest.mark.parametrize("wish", [Wish(engine="torch"), Wish(engine="torch", device="cpu")])
def test_torch_by_name_takes_them_too(machine, network, wish):
    network.with_suffix(".safetensors").touch()
    tried = machine(gpus=None)
    choose(network, wish)
    assert tried == [("torch", "cpu", "net.safetensors")]


def test_a_gpu_that_was_asked_for_is_taken_or_an_error(machine, network):
    machine()
    _, wish, line = choose(network, Wish(device="cuda:1"))
    assert wish.device == "cuda:1"
    assert line.startswith("computes on Card B")
    machine(failing=dict.fromkeys(CUDA_ENGINES, EngineError("broken")))
    with pytest.raises(
        EngineError, match="--device cuda: no engine works there: tensorrt_rtx: broken; tensorrt: broken"
    ):
        choose(network, Wish(device="cuda"))
    machine(gpus=None)
    with pytest.raises(EngineError, match=r"--device cuda: no NVIDIA driver.*nvidia.com/drivers"):
        choose(network, Wish(device="cuda"))


@pytest.mark.parametrize(("engine", "device"), [("tensorrt_rtx", "cuda"), ("tensorrt", "cuda"), ("openvino", "cpu")])
def test_an_engine_alone_says_where(machine, network, engine, device):
    tried = machine(gpus=None)
    _, wish, line = choose(network, Wish(engine=engine))
    assert (wish.engine, wish.device, line) == (engine, device, "")
    assert tried == [(engine, device, "net.onnx")]


def test_torch_alone_takes_the_gpu_if_it_can(machine, network):
    machine()
    assert choose(network, Wish(engine="torch"))[1].device == "cuda"
    machine(failing={})
    machine(gpus=None)
    _, wish, line = choose(network, Wish(engine="torch"))
    assert wish.device == "cpu"
    assert "on the CPU with torch" in line


def test_what_was_said_is_done_and_nothing_is_told(machine, network):
    tried = machine(failing={"tensorrt": EngineError("the reason itself")})
    assert choose(network, Wish(engine="openvino", device="cpu"))[2] == ""
    assert choose(network, Wish(device="cpu"))[1].engine == "native"
    with pytest.raises(EngineError, match="the reason itself"):
        choose(network, Wish(engine="tensorrt", device="cuda"))
    assert [name for name, _, _ in tried] == ["openvino", "native", "tensorrt"]


def test_devices():
    assert [on_cuda(text) for text in ("cpu", "cuda", "cuda:0", "cuda:3")] == [None, 0, 0, 3]
    for text in ("", "gpu", "cuda:", "cuda:x", "cuda:-1", "cpu:0", "auto"):
        with pytest.raises(UsageError, match="is not one of auto, cpu, cuda, cuda:N"):
            on_cuda(text)
    assert able("torch") == ("cpu", "cuda")
    with pytest.raises(UsageError, match="'nosuch' is not one of native, openvino"):
        able("nosuch")

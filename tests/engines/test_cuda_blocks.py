"""The kernels of stream and fine: compiled by NVRTC for GPUs that need not be there, and run on the host.

What they make is compared with float32 in OpenVINO, as that of the realtime network's kernel (`test_cuda`).
"""

from __future__ import annotations

import shutil
from functools import cache

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from cuda_host import COMPILER, HostModule  # noqa: E402
from hostdevice import HostDevice  # noqa: E402
from nvrtc import ARCHITECTURES, compiled  # noqa: E402
from test_cuda import FOLDER, MOST, assert_close, noise, reference_of  # noqa: E402

from videosr.archs import checkpoint  # noqa: E402
from videosr.archs.paragonsr2 import ParagonSR2  # noqa: E402
from videosr.engines import load  # noqa: E402
from videosr.engines.cuda import CudaEngine  # noqa: E402
from videosr.engines.cuda_blocks import LEAST, SOURCE, Shape, macros, shape_for  # noqa: E402
from videosr.engines.cuda_weights import RIM, Packed, read  # noqa: E402
from videosr.engines.gpu_device import Gpu  # noqa: E402
from videosr.engines.gpu_execution import Execution  # noqa: E402
from videosr.engines.network import Network  # noqa: E402
from videosr.errors import EngineError  # noqa: E402
from videosr.export import export  # noqa: E402
from videosr.models import registry  # noqa: E402

on_host = pytest.mark.skipif(not COMPILER, reason="g++ is not installed")
ADA, HOPPER = (8, 9), (9, 0)
SMALL = Shape(1, 2, 4, 1, 2)
"""The smallest that has an inside, where every pixel is near a border."""


def device(capability=ADA, **options):
    return HostDevice(gpu=Gpu("Stand-in 4000", capability, "580", 16 << 30), **options)


@pytest.fixture(scope="session")
def stream(tmp_path_factory):
    """A stream network that does something, on every one of its layers."""
    folder, model = (
        tmp_path_factory.mktemp("stream"),
        ParagonSR2("stream", 2, layer_scale=0.3, detail_gain=1.0, product_limit=0.05),
    )
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, values in model.named_parameters():
            if name.endswith("bias"):
                values.uniform_(-0.2, 0.2, generator=generator)
    weights = folder / "stream.safetensors"
    checkpoint.save(weights, model, name="stream", training="none: random weights", license="MIT")
    export(weights, folder / "stream.onnx")
    return folder / "stream.onnx"


@pytest.fixture(params=["stream", "fine"])
def path(request, stream):
    return stream if request.param == "stream" else registry.find("fine-2x")


@pytest.fixture
def untested(monkeypatch):
    """Engines skip the self-test and the runs before the first picture, which take their time on the host."""
    monkeypatch.setattr(CudaEngine, "_test", lambda self: None)
    monkeypatch.setattr(Execution, "_warm_up", lambda self: None)


@cache
def packed_of(path):
    return read(Network.open(path))


# For GPUs


@pytest.mark.parametrize("architecture", [a for a in ARCHITECTURES if divmod(a, 10) >= LEAST])
@pytest.mark.parametrize("variant", ["stream", "fine"])
def test_they_compile_for_every_gpu_and_keep_all_in_registers(architecture, variant, record_property):
    shape = shape_for(divmod(architecture, 10))
    log = compiled(SOURCE, macros(Packed(variant, 2, ()), "float32", shape), architecture, [f"-I{FOLDER}"])
    assert set(log) == {"first", "block", "last"}
    for kernel, facts in log.items():
        record_property(f"registers of {kernel}", facts.registers)
        assert (facts.stack, facts.spilled) == (0, 0)
    warps = -(-shape.threads("block") // 32 * shape.blocks // 4)
    assert warps * 32 * -(-log["block"].registers // 8) * 8 <= 16384


@pytest.mark.parametrize(("capability", "most"), [(c, most) for c, most in MOST.items() if c >= LEAST])
def test_blocks_fit_a_multiprocessor(capability, most, path):
    shape, packed = shape_for(capability), packed_of(path)
    for kernel, part in (("block", packed.parts[1]), ("last", packed.parts[-1])):
        shared = shape.shared(kernel, packed.variant, part.products.nbytes)
        assert shared <= most[0] << 10
        assert (shape.blocks if kernel == "block" else 1) * (shared + 1024) <= most[1] << 10


def test_turing_is_told_who_can(path):
    with pytest.raises(
        EngineError, match=r"compute capability 8\.0 for the .* network.*7\.5.*--engine tensorrt_rtx, tensorrt or torch"
    ):
        CudaEngine(Network.open(path), device=device((7, 5)))


# What they compute


@on_host
@pytest.mark.parametrize("size", [(1, 1), (5, 47), (30, 33)])
def test_odd_sizes_and_the_borders_of_regions(path, size, untested):
    """With the rim, 33 columns are two regions and 30 rows several; realtime's aims, on noise."""
    frame, average = noise(1, 3, *size), noise(1, 3, *size, seed=1)
    made = CudaEngine(Network.open(path), device=device()).run(frame, average)
    assert_close(made, reference_of(path).run(frame, average), 66)


@on_host
def test_the_engine_tests_itself_and_half_precision_files_run(stream, tmp_path):
    export(stream.with_suffix(".safetensors"), tmp_path / "half.onnx", precision="fp16")
    engine = CudaEngine(Network.open(tmp_path / "half.onnx"), device=device())
    frame = noise(1, 3, 12, 17)
    assert_close(engine.run(frame), reference_of(stream).run(frame))
    assert engine.identity.startswith("cuda ")


@on_host
def test_how_the_picture_is_cut_changes_no_bit(path, untested, monkeypatch):
    frame = noise(1, 3, 21, 37)
    whole = CudaEngine(Network.open(path), device=device()).run(frame)
    for shape in (shape_for(HOPPER), SMALL):
        monkeypatch.setattr("videosr.engines.cuda_blocks.shape_for", lambda capability, shape=shape: shape)
        assert np.array_equal(CudaEngine(Network.open(path), device=device()).run(frame), whole), shape


@pytest.fixture(scope="module")
def without_barriers(tmp_path_factory):
    """The kernels' source, in which the height tells which barrier is left out, if any."""
    parts = (FOLDER / SOURCE).read_text().split("__syncthreads();")
    assert len(parts) == 5
    for i in range(4):
        parts[i] += f"if (height != {40 + i}) __syncthreads();"
    folder = tmp_path_factory.mktemp("barriers")
    (folder / "blocks.cu").write_text("".join(parts))
    shutil.copy(FOLDER / "features.cuh", folder)
    return folder / "blocks.cu"


@on_host
@pytest.mark.parametrize(("kernel", "own"), [("block", (0, 1)), ("last", (2, 3))])
def test_every_barrier_is_needed(path, without_barriers, kernel, own):
    """In whatever order threads run the result is the same, and without any one of the barriers it is not."""
    packed = packed_of(path)
    module = HostModule(without_barriers, macros(packed, "float32", SMALL))
    part = packed.parts[1 if kernel == "block" else -1]
    rows, columns = (side - (2 if kernel == "block" else 4) for side in SMALL.size(kernel))

    given_weights = part[:1] if kernel == "block" else part

    def run(height, order):
        size = (height, columns) if kernel == "block" else (height + 2 * RIM, columns + 2 * RIM)
        given = np.random.default_rng(3).normal(0, 1, (*size, 32)).astype(np.float16)
        arrays = [given, np.zeros_like(given)]
        if kernel == "last":
            arrays = [given, noise(3, height, columns), np.zeros((3, 2 * height, 2 * columns), np.float32)]
        shared = SMALL.shared(kernel, packed.variant, part.products.nbytes)
        module.launch(kernel, (1, 1), SMALL.threads(kernel), [*arrays, *given_weights, height, columns], shared, order)
        made = arrays[-1]
        return made[:rows, :columns] if kernel == "block" else made[:, : 2 * rows, : 2 * columns]

    wanted = run(60, 0)
    assert all(np.array_equal(run(60, order), wanted) for order in (1, 2, 3))
    for i in own:
        assert any(not np.array_equal(run(40 + i, order), wanted) for order in (0, 1, 2, 3)), i


# The real thing


@pytest.mark.gpu
@pytest.mark.parametrize("size", [(1, 1), (49, 73), (361, 643)])
def test_on_a_gpu(path, size):
    frame, average = noise(2, 3, *size), noise(2, 3, *size, seed=1)
    made = load(path, "cuda", device="cuda").run(frame, average)
    assert_close(made, reference_of(path).run(frame, average))

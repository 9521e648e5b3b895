"""The host's stand-in for CUDA C++: that it computes what a GPU does, and that it sees what a GPU would not say."""

from __future__ import annotations

import numpy as np
import pytest
from cuda_host import COMPILER, HEADERS, HostModule, KernelError

pytestmark = pytest.mark.skipif(not COMPILER, reason="g++ is not installed")
SOURCE = HEADERS / "samples.cu"
ORDERS = [0, 1, 2, 3]


@pytest.fixture(scope="module")
def module():
    return HostModule(SOURCE, {"SIDE": 1})


@pytest.fixture(scope="module")
def careless():
    """The same kernels without their barriers."""
    return HostModule(SOURCE, {"SIDE": 1, "BARRIER": "(void)0"})


def floats(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("order", ORDERS)
def test_shared_memory_and_barriers(module, order):
    x, out = floats(512), np.zeros(512, np.float32)
    module.launch("reversed", 2, 256, [x, out, 512], order=order)
    assert np.array_equal(out, x.reshape(2, 256)[:, ::-1].ravel())
    module.launch("neighbour", 1, 200, [x[:200], out[:200]], shared=800, order=order)
    assert np.array_equal(out[:200], np.roll(x[:200], -1))
    module.launch("shared_between_lanes", 1, 32, [x[:32], out[:32]], order=order)
    assert np.array_equal(out[:32], x[:32].reshape(16, 2)[::-1].ravel())


def test_a_missing_barrier_shows(careless):
    x, out = floats(512), np.zeros(512, np.float32)
    for order in ORDERS:
        careless.launch("reversed", 2, 256, [x, out, 512], order=order)
        assert np.isnan(out).any()  # read before it was written


def test_a_missing_barrier_that_one_order_hides_shows_in_another():
    module = HostModule(SOURCE, {"SIDE": -1, "BARRIER": "(void)0"})
    x, seen = floats(64), []
    for order in ORDERS:
        out = np.zeros(64, np.float32)
        module.launch("neighbour", 1, 64, [x, out], shared=256, order=order)
        seen.append(int((out != np.roll(x, 1)).sum()))
    assert seen[0] == 1  # thread 0 alone reads what comes later
    assert min(seen[1:]) > 10


@pytest.mark.parametrize("order", ORDERS)
def test_every_thread_of_every_block_runs_once(module, order):
    out = np.full((2 * 3 * 2, 4 * 3 * 2, 4), -1, np.int32)
    module.launch("indices", (2, 3, 2), (4, 3, 2), [out], order=order)
    z, y, x = np.unravel_index(np.arange(24), (2, 3, 4))
    assert np.array_equal(out[..., :3], np.broadcast_to(np.stack([x, y, z], 1), (12, 24, 3)))
    z, y, x = np.unravel_index(np.arange(12), (2, 3, 2))
    assert np.array_equal(out[:, 0, 3], x + 10 * y + 100 * z)


@pytest.mark.parametrize("order", ORDERS)
def test_warp_collectives(module, order):
    x = np.random.default_rng(1).integers(0, 30, 32).astype(np.int32)
    x[3] = 7
    lane, out = np.arange(32), np.zeros((9, 32), np.int32)
    module.launch("shuffles", 1, 32, [x, out], order=order)
    wanted = [
        x[lane // 2],
        x[lane ^ 5],
        np.concatenate([x[:3], x[:-3]]),
        np.concatenate([x[3:], x[-3:]]),
        x[lane // 8 * 8 + 1],
        np.full(32, (x & 1) @ (1 << lane), np.int64).astype(np.int32),
        np.full(32, x.sum()),
        x.reshape(2, 16).max(axis=1).repeat(16),
        ((x == 7).reshape(2, 16).any(axis=1) + 2 * (x < 16).reshape(2, 16).all(axis=1)).repeat(16),
    ]
    for row, (got, right) in enumerate(zip(out, wanted, strict=True)):
        assert np.array_equal(got, right), row


@pytest.mark.parametrize("order", ORDERS)
def test_atomics_and_votes(module, order):
    x = np.random.default_rng(2).integers(0, 255, 300).astype(np.uint8)
    total, most, votes = np.zeros(1, np.int32), np.zeros(1, np.uint32), np.zeros(3, np.int32)
    module.launch("counts", 1, 300, [x, total, most, votes], order=order)
    assert (total[0], most[0]) == (x.sum(), x.max())
    assert list(votes) == [(x > 100).sum(), 0, 1]


def test_conversions_to_half_round_to_nearest_even(module):
    every = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    fine = every[np.isfinite(every)].astype(np.float32)
    fine.sort()
    between = ((fine[1:].astype(np.float64) + fine[:-1]) / 2).astype(np.float32)  # exact: ties
    edges = np.array([65519.996, 65520, 1e30, -1e-30, np.inf, -np.inf, np.nan, 2**-25, 2**-24, 0.0, -0.0], np.float32)
    beside = [np.nextafter(between, np.float32(side)) for side in (-np.inf, np.inf)]
    values = np.concatenate([fine, between, *beside, edges, floats(5000) * 10.0 ** floats(5000, seed=1)])
    values = values.astype(np.float32)
    out, slow = np.zeros(values.size, np.float16), np.zeros(values.size, np.uint16)
    module.launch("halves", -(-values.size // 256), 256, [values, out, slow, values.size])
    with np.errstate(over="ignore"):
        wanted = values.astype(np.float16)
    for got in (out, slow.view(np.float16)):
        assert np.array_equal(got, wanted, equal_nan=True)
        assert np.array_equal(np.signbit(got[~np.isnan(got)]), np.signbit(wanted[~np.isnan(got)]))


def test_conversions_from_half_are_exact(module):
    every = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    out, slow = np.zeros(1 << 16, np.float32), np.zeros(1 << 16, np.float32)
    module.launch("floats", 256, 256, [every, out, slow])
    for got in (out, slow):
        assert np.array_equal(got, every.astype(np.float32), equal_nan=True)


def test_half_arithmetic_rounds_once(module):
    a, b, c = (floats(400, seed=s).astype(np.float16) for s in range(3))
    out = np.zeros((4, 400), np.float16)
    module.launch("half_arithmetic", 1, 200, [a, b, c, out, 200])
    x, y, z = (v.astype(np.float64) for v in (a, b, c))
    wanted = [x + y, x * y, x * y + z, np.maximum(x, (y - z).astype(np.float16))]
    assert np.array_equal(out, np.stack(wanted).astype(np.float16))


@pytest.mark.parametrize("order", ORDERS)
def test_tensor_cores(module, order):
    a, b, d = floats(16, 16).astype(np.float16), floats(16, 8, seed=1).astype(np.float16), np.zeros((16, 8), np.float32)
    module.launch("product", 1, 32, [a, b, d], order=order)
    assert np.abs(d - (1 + a.astype(np.float64) @ b.astype(np.float64))).max() < 1e-5


def test_parameters_of_every_kind(module):
    out = np.zeros(6, np.float32)
    pair = np.array([(3, 0.5)], [("first", np.int32), ("second", np.float32)]).tobytes()
    four = np.array([1, 2, 3, 4], np.int32).tobytes()
    module.launch("parameters", 1, 1, [pair, four, 1.5, 5 << 32, True, None, out])
    assert list(out) == [3.5, 5, 1.5, 5, 1, 1]


@pytest.mark.parametrize(
    ("name", "block", "arguments", "shared", "said"),
    [
        ("copies", 1, [floats(10), np.zeros(12, np.float32), 0, 11], 0, ""),  # reads up to 15 bytes behind show as NaN
        ("copies", 1, [floats(8), np.zeros(12, np.float32), 0, 9], 0, r"thread \(0, 0, 0\).*byte 32 of argument 0"),
        ("copies", 1, [floats(64), np.zeros(8, np.float32), 0, 9], 0, "byte 32 of argument 1, which has 32"),
        ("pads", 1, [np.zeros(7, np.float32), 7], 0, "writes beside argument 0"),
        ("pads", 1, [np.zeros(7, np.float32), -1], 0, "writes beside argument 0"),
        ("pads", 1, [np.zeros(7, np.float32), -(1 << 17)], 0, "byte -524288 of argument 0"),
        ("unaligned", 2, [floats(32), np.zeros(4, np.float32)], 0, "not aligned"),
        ("index_out_of_bounds", 8, [9, np.zeros(1, np.float32)], 0, "index is out of bounds"),
        ("dynamic_out_of_bounds", 8, [np.zeros(1, np.float32), 8], 32, "cannot be read"),
        ("some_wait", 32, [np.zeros(32, np.float32)], 0, "barrier that other threads never reach"),
        ("lanes_part", 32, [np.zeros(32, np.float32)], 0, "other lanes never enter"),
        ("lanes_disagree", 32, [np.zeros(32, np.float32)], 0, "different collectives"),
        ("pads", 1025, [np.zeros(7, np.float32), 0], 0, "1 to 1024 threads"),
        ("pads", 1, [np.zeros(7, np.float16), 0], 0, r"argument 0 \(pf4\): an array of float16"),
        ("pads", 1, [np.zeros(7, np.float32), 0.5], 0, "0.5 is not whole"),
        ("pads", 1, [np.zeros(7, np.float32)], 0, "takes 2 arguments"),
        ("pads", 1, [np.zeros((7, 2), np.float32)[:, 0], 0], 0, "not contiguous"),
        ("missing", 1, [], 0, "no kernel missing"),
    ],
)
def test_what_a_kernel_may_not_do_is_said(module, name, block, arguments, shared, said):
    if not said:
        module.launch(name, 1, block, arguments, shared)
        assert np.isnan(arguments[1][10])
        return
    with pytest.raises(KernelError, match=said):
        module.launch(name, 1, block, arguments, shared)
    out = np.zeros(512, np.float32)  # and the next launch is none the worse for it
    module.launch("reversed", 2, 256, [floats(512), out, 512])
    assert np.array_equal(out, floats(512).reshape(2, 256)[:, ::-1].ravel())


def test_read_only_arrays_stay_as_they_are(module):
    array = np.zeros(7, np.float32)
    array.flags.writeable = False
    with pytest.raises(KernelError, match="read-only"):
        module.launch("pads", 1, 1, [array, 3])
    assert not array.any()


def test_a_source_that_does_not_compile_says_where(tmp_path):
    path = tmp_path / "wrong.cu"
    path.write_text('extern "C" __global__ void wrong(float* out) {\n    out = nothing;\n}\n')
    with pytest.raises(KernelError, match=r"wrong\.cu:2.*nothing"):
        HostModule(path)

"""NEXUS: its sizes, its attentions against their definitions, any scale and size, weight files, training."""

from __future__ import annotations

import math

import pytest

torch = pytest.importorskip("torch")

from safetensors.torch import save_file  # noqa: E402

from videosr.archs import checkpoint, nexus  # noqa: E402
from videosr.archs.nexus import (  # noqa: E402
    SCALES,
    VARIANTS,
    AcrossChannels,
    DropPath,
    Nexus,
    SpatialAttention,
    VariantSpec,
    alibi,
)
from videosr.errors import NetworkError, UsageError  # noqa: E402

COUNTS = {
    "nexus_tiny": (6_903_087, 8e6),
    "nexus_small": (19_751_657, 15e6),
    "nexus_medium": (39_501_973, 25e6),
    "nexus_large": (78_109_735, 45e6),
    "nexus_extreme": (141_610_773, 70e6),
}
"""Parameters at scale 2, and what the design note estimates."""


@pytest.fixture
def small(monkeypatch):
    """A tiny variant of a few thousand parameters, under the same name."""
    monkeypatch.setitem(VARIANTS, "nexus_tiny", VariantSpec(16, (2, 2), 4))


def lively(scale=2, **options):
    """A network whose every parameter leaves its mark."""
    torch.manual_seed(0)
    network = Nexus("nexus_tiny", scale, layer_scale=0.5, **{"window_size": 4} | options)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim < 2:
                parameter += 0.3 * torch.randn_like(parameter)
    return network.eval()


@pytest.mark.parametrize("variant", VARIANTS)
def test_parameter_counts_are_those_documented(variant):
    with torch.device("meta"):
        network = Nexus(variant, 2)
    count, estimate = COUNTS[variant]
    assert sum(p.numel() for p in network.parameters()) == count
    if variant == "nexus_tiny":
        assert abs(count / estimate - 1) < 0.15
    assert [len(group.blocks) for group in network.body] == [6] * {128: 4, 180: 6, 320: 14}.get(
        VARIANTS[variant].channels, 12 if variant == "nexus_large" else 6
    )


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.usefixtures("small")
def test_any_size_forward_and_backward(scale):
    network = lively(scale).train()
    for size in ((9, 7), (8, 8), (1, 1)):
        x = torch.rand(2, 3, *size)
        output = network(x)
        assert output.shape == (2, 3, size[0] * scale, size[1] * scale)
        network.zero_grad()
        output.square().mean().backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())
    assert network.reach is None


@pytest.mark.usefixtures("small")
def test_a_batch_is_its_pictures():
    network = lively()
    x = torch.rand(3, 3, 10, 6)
    with torch.no_grad():
        together, alone = network(x), torch.cat([network(picture[None]) for picture in x])
    assert torch.allclose(together, alone, atol=1e-5)


def test_alibi_is_a_slope_times_the_distance():
    bias = alibi(4, 3)
    assert bias.shape == (4, 9, 9)
    for head in range(4):
        assert bias[head, 0, 8].item() == pytest.approx(-(2 ** (-2 * (head + 1))) * math.sqrt(8))
        assert torch.equal(bias[head], bias[head].T)
        assert not bias[head].diagonal().any()


@pytest.mark.parametrize("shift", [0, 2])
def test_windows_are_those_of_swin_with_its_mask(shift):
    """Every query attends to the keys of its window that are its neighbours in the picture, and to no others."""
    torch.manual_seed(1)
    attention = SpatialAttention(8, 2, 4, shift, frequency=False).eval()
    height, width = 7, 10
    x = torch.randn(1, 8, height, width)
    with torch.no_grad():
        output = attention(x)
        q, k, v = attention.qkv(x)[0].flatten(1).T.reshape(height * width, 3, 2, 4).unbind(1)
        place = torch.stack(torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij"), -1).reshape(-1, 2)
        window = (place + shift) // 4
        together = (window[:, None] == window[None]).all(-1)
        distance = (place[:, None] - place[None]).double().norm(dim=-1)
        mixed = []
        for head, slope in enumerate((2**-4, 2**-8)):
            scores = q[:, head] @ k[:, head].T / 2 - slope * distance
            mixed.append(torch.softmax(scores.masked_fill(~together, -math.inf), -1) @ v[:, head].double())
        expected = attention.proj(torch.cat(mixed, 1).float().T.reshape(1, 8, height, width))
    assert torch.allclose(output, expected, atol=1e-5)


def test_frequency_enhancement_begins_as_nothing_and_leaves_flat_fields_alone():
    torch.manual_seed(2)
    attention = SpatialAttention(8, 2, 4, 2, frequency=True)
    plain = SpatialAttention(8, 2, 4, 2, frequency=False)
    plain.load_state_dict({k: v for k, v in attention.state_dict().items() if k != "alpha"})
    x, flat = torch.randn(1, 8, 6, 9), torch.randn(1, 8, 1, 1).expand(1, 8, 6, 9)
    assert torch.allclose(attention(x), plain(x), atol=1e-6)
    with torch.no_grad():
        attention.alpha.fill_(0.7)
    assert not torch.allclose(attention(x), plain(x), atol=1e-3)
    assert torch.allclose(attention(flat), plain(flat), atol=1e-5)


def test_attention_across_channels_is_its_definition():
    torch.manual_seed(3)
    attention = AcrossChannels(8, 2)
    x = torch.randn(1, 8, 5, 6)
    with torch.no_grad():
        attention.temperature += torch.rand(2, 1, 1)
        q, k, v = attention.qkv(x)[0].flatten(1).reshape(3, 2, 4, 30)
        mixed = []
        for head in range(2):
            likeness = torch.nn.functional.cosine_similarity(q[head][:, None], k[head][None], dim=-1)
            mixed.append(torch.softmax(likeness * attention.temperature[head], -1) @ v[head])
        expected = attention.proj(torch.cat(mixed).reshape(1, 8, 5, 6))
        assert torch.allclose(attention(x), expected, atol=1e-5)


@pytest.mark.usefixtures("small")
def test_drop_path_leaves_out_whole_residuals_and_keeps_the_mean():
    torch.manual_seed(4)
    drop, x = DropPath(0.25), torch.ones(4000, 2, 1, 1)
    kept = drop.train()(x)
    assert kept.unique().tolist() == [0, pytest.approx(4 / 3)]
    assert torch.equal(kept[:, 0], kept[:, 1])
    assert kept.mean().item() == pytest.approx(1, abs=0.05)
    assert drop.eval()(x) is x
    rates = [block.drop.rate for group in lively().body for block in group.blocks]
    assert rates[0] == 0
    assert rates[-1] == pytest.approx(nexus.DROP_PATH)
    assert rates == sorted(rates)


@pytest.mark.usefixtures("small")
def test_checkpointing_changes_nothing_but_memory():
    plain, frugal = lively().train(), lively().train()
    for group in frugal.body:
        group.use_checkpointing = True
    x, gradients = torch.rand(1, 3, 8, 8), []
    for network in (plain, frugal):
        torch.manual_seed(5)  # what drop path draws from
        network(x).sum().backward()
        gradients.append(torch.cat([p.grad.flatten() for p in network.parameters()]))
    assert torch.allclose(*gradients, atol=1e-6)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("frequency", [True, False])
@pytest.mark.usefixtures("small")
def test_weight_files_say_which_network_they_hold(tmp_path, scale, frequency):
    network, path = lively(scale, frequency=frequency), tmp_path / "net.safetensors"
    checkpoint.save(path, network, name="n", training="none", license="MIT")
    loaded, info = checkpoint.load(path)
    assert (loaded.variant, loaded.scale, loaded.window_size) == ("nexus_tiny", scale, 4)
    assert loaded.state_dict().keys() == network.state_dict().keys()
    assert (info.metadata["architecture"], info.metadata["padding"], info.generation) == ("NEXUS", "replicate", "")
    x = torch.rand(1, 3, 9, 6)
    with torch.no_grad():
        assert torch.equal(loaded(x), network(x))


@pytest.mark.usefixtures("small")
def test_weight_files_of_other_networks_are_refused(tmp_path):
    path, state = tmp_path / "net.safetensors", lively().state_dict()
    save_file(state, path)
    with pytest.raises(UsageError, match="does not record its window-size"):
        checkpoint.load(path)
    assert checkpoint.load(path, window_size=4)[0].window_size == 4
    for key, value in {
        "shares": torch.zeros(3),
        "conv_in.weight": torch.zeros(()),
        "up.0.weight": torch.zeros(()),
    }.items():
        save_file(state | {key: value}, path)
        with pytest.raises(NetworkError, match="fit none of the variants nexus_tiny"):
            checkpoint.load(path, window_size=4)
    save_file({key: value for key, value in state.items() if not key.endswith("mix")}, path)
    with pytest.raises(NetworkError, match=r"does not fit NEXUS nexus_tiny 2x; missing: body\.0\.blocks\.0"):
        checkpoint.load(path, window_size=4)


def test_unknown_arguments_are_refused():
    for arguments in ({"variant": "tiny"}, {"scale": 8}):
        with pytest.raises(ValueError, match="is not one of"):
            Nexus(**arguments)

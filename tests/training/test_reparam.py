"""Over-parameterised convolutions: the same function, and one plain kernel in the end."""

import copy

import pytest
import torch

from videosr.archs.paragonsr2 import ParagonSR2
from videosr.training.reparam import expand, folded_parameters


def expanded(variant: str, disturb: bool) -> tuple[ParagonSR2, ParagonSR2]:
    torch.manual_seed(0)
    plain = ParagonSR2(variant, 2, upsampler_alpha=0, detail_gain=1, layer_scale=0.1).double()
    network = copy.deepcopy(plain)
    expand(network, 3)
    if disturb:
        with torch.no_grad():
            for p in network.parameters():
                if p.requires_grad:
                    p.add_(torch.randn_like(p) * 0.02)
    return plain, network


@pytest.mark.parametrize("variant", ["realtime", "stream"])
def test_expansion_changes_nothing_at_first(variant: str) -> None:
    plain, network = expanded(variant, disturb=False)
    x = torch.rand(1, 3, 12, 14, dtype=torch.float64)
    assert torch.equal(network(x), plain(x))
    assert sum(p.numel() for p in network.parameters()) > 3 * sum(p.numel() for p in plain.parameters())


@pytest.mark.parametrize("variant", ["realtime", "stream", "photo"])
def test_whatever_the_branches_learn_folds_into_the_plain_network(variant: str) -> None:
    plain, network = expanded(variant, disturb=True)
    x = torch.rand(1, 3, 12, 14, dtype=torch.float64)
    before = plain(x)
    with torch.no_grad():
        for p, value in zip(plain.parameters(), folded_parameters(network, plain), strict=True):
            assert p.shape == value.shape
            p.copy_(value)
    assert torch.allclose(plain(x), network(x), atol=1e-12)
    assert not torch.allclose(plain(x), before, atol=1e-3)


def test_every_branch_of_every_trained_convolution_is_trained() -> None:
    _, network = expanded("realtime", disturb=True)
    network(torch.rand(1, 3, 12, 12, dtype=torch.float64)).square().sum().backward()
    trained = {name for name, p in network.named_parameters() if p.requires_grad}
    assert {name for name, p in network.named_parameters() if p.grad is not None and p.grad.any()} == trained
    assert not any(name.startswith("base.") for name in trained)
    assert all("original" in name for name in trained if name.endswith(".weight"))

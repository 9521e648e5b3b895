from __future__ import annotations

from itertools import chain

import pytest

torch = pytest.importorskip("torch", reason="training needs torch")

from torch import nn  # noqa: E402

from videosr.archs.families import Start, family_of  # noqa: E402
from videosr.training.optimizers import Muon, optimizers, orthogonal  # noqa: E402


@pytest.mark.parametrize("shape", [(3, 16, 64), (2, 64, 16), (1, 32, 32)])
def test_singular_values_become_about_one_and_directions_stay(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    given = torch.randn(shape) * 1e-4
    u, _, v = torch.linalg.svd(given, full_matrices=False)
    values = u.mT @ orthogonal(given) @ v.mT
    on = values.diagonal(dim1=1, dim2=2)
    assert 0.6 < on.min() <= on.max() < 1.3
    assert (values - torch.diag_embed(on)).abs().max() < 1e-3


@pytest.mark.parametrize("variant", ["realtime", "stream", "photo", "pro", "nexus_tiny"])
def test_everything_trained_has_one_optimizer(variant: str) -> None:
    """Muon what maps features to features, AdamW the rest."""
    network = family_of(variant).new(variant, 2, Start())
    trained = {name: p for name, p in network.named_parameters() if p.requires_grad}
    adamw, muon = optimizers(list(trained.values()), "muon", 1e-3)
    assert isinstance(muon, Muon)
    held = [[id(p) for group in o.param_groups for p in group["params"]] for o in (adamw, muon)]
    assert sorted(chain(*held)) == sorted(id(p) for p in trained.values())
    moved = {name for name, p in trained.items() if id(p) in held[1]}
    assert all(name.endswith("weight") for name in moved)
    dense = {
        f"{name}.weight"
        for name, module in network.named_modules()
        if (isinstance(module, nn.Conv2d) and module.groups == 1) or isinstance(module, nn.Linear)
    }
    assert dense - moved == {"conv_in.weight", "conv_out.weight"}
    assert moved <= dense
    (alone,) = optimizers(list(trained.values()), "adamw", 1e-3)
    assert sum(len(group["params"]) for group in alone.param_groups) == len(trained)


@pytest.mark.parametrize("shape", [(8, 16), (8, 4, 3, 3), (64, 4, 3, 3)])
def test_a_step_is_as_long_whatever_the_gradient(shape: tuple[int, ...]) -> None:
    """And goes downhill; kernels in channels_last as well as plain ones."""
    torch.manual_seed(0)
    lengths = []
    for scale in (1e-6, 1.0):
        parameter = nn.Parameter(torch.zeros(shape))
        if len(shape) == 4:
            parameter.data = parameter.data.to(memory_format=torch.channels_last)
        parameter.grad = torch.randn(shape) * scale
        Muon([parameter], 1e-3).step()
        assert (parameter * parameter.grad).sum() < 0
        lengths.append(parameter.square().mean().sqrt().item())
    for length in lengths:
        assert 0.4e-3 < length < 0.8e-3  # 3 x 0.2 x the rate


def test_it_finds_what_few_gradients_speak_of() -> None:
    """A badly conditioned linear regression, which AdamW at the same rate has not solved by then."""
    torch.manual_seed(0)
    wanted = torch.randn(24, 24)
    scales = torch.logspace(0, -2, 24)
    mixing = torch.linalg.qr(torch.randn(24, 24))[0]
    errors = {}
    for kind in ("adamw", "muon"):
        layer = nn.Linear(24, 24)
        nn.init.zeros_(layer.weight)
        moved_by = optimizers(list(layer.parameters()), kind, 3e-2)  # type: ignore[arg-type]
        for _ in range(200):
            x = (torch.randn(64, 24) * scales) @ mixing
            layer.zero_grad()
            (layer(x) - x @ wanted.T).square().mean().backward()
            for optimizer in moved_by:
                optimizer.step()
        errors[kind] = (layer.weight - wanted).square().mean().item()
    assert errors["muon"] < 0.5 * errors["adamw"]

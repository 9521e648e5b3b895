import copy

import pytest
import torch

from videosr.training.config import DiscriminatorConfig
from videosr.training.discriminator import Adversary, MUNet


@pytest.mark.parametrize(("ch_mult", "size"), [((1, 2), (16, 20)), ((1, 2, 2), (18, 23)), ((1,), (8, 8))])
def test_every_pixel_is_judged_and_everything_is_trained(ch_mult: tuple[int, ...], size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    network = MUNet(4, ch_mult)
    network.middle.gain.data.fill_(0.5)
    x = torch.rand(2, 3, *size, requires_grad=True)
    verdict = network(x)
    assert verdict.shape == (2, 1, *size)
    verdict.square().sum().backward()
    assert x.grad is not None
    assert x.grad.any()

    assert all(p.grad is not None and p.grad.any() for n, p in network.named_parameters() if "weight" in n)


def adversary(seed: int) -> Adversary:
    torch.manual_seed(seed)
    return Adversary(DiscriminatorConfig(num_feat=4, ch_mult=(1, 2), learning_rate=3e-3), torch.device("cpu"))


def batch(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Blurred and sharp noise."""
    generator = torch.Generator().manual_seed(seed)
    sharp = torch.rand(4, 3, 16, 16, generator=generator)
    return torch.nn.functional.avg_pool2d(sharp, 3, 1, 1), sharp


def test_it_learns_to_tell_and_the_network_is_told() -> None:
    opponent = adversary(0)
    losses = [opponent.update(*batch(seed)).item() for seed in range(15)]
    assert losses[0] == pytest.approx(0.69, abs=0.2)
    assert losses[-1] < 0.8 * losses[0]
    blurred, sharp = batch(99)
    blurred.requires_grad_()
    assert opponent.loss(blurred).item() > 1.5 * opponent.loss(sharp).item()
    before = [p.grad for p in opponent.network.parameters()]
    opponent.loss(blurred).backward()
    assert blurred.grad is not None
    assert blurred.grad.any()
    assert [p.grad for p in opponent.network.parameters()] == before
    assert all(p.requires_grad for p in opponent.network.parameters())


def test_it_continues_exactly_where_it_was_saved() -> None:
    straight, resumed = adversary(1), adversary(2)
    for seed in range(3):
        straight.update(*batch(seed))
    resumed.load_state_dict(copy.deepcopy(straight.state_dict()))
    for seed in range(3, 6):
        assert straight.update(*batch(seed)).item() == resumed.update(*batch(seed)).item()
    for a, b in zip(straight.network.state_dict().values(), resumed.network.state_dict().values(), strict=True):
        assert torch.equal(a, b)

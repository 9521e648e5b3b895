import torch

from videosr.archs.paragonsr2 import ParagonSR2
from videosr.training.regularisers import BANDS, add_frequency_dropout, drop_bands


def test_bands_are_rings_of_the_spectrum() -> None:
    features = torch.randn(2, 3, 24, 30)
    everything = torch.ones(2, BANDS)
    assert torch.allclose(drop_bands(features, everything), features, atol=1e-5)
    parts = sum(drop_bands(features, torch.eye(BANDS)[i].expand(2, -1)) for i in range(BANDS))
    assert torch.allclose(parts, features, atol=1e-4)  # type: ignore[arg-type]
    wave = torch.cos(2 * torch.pi * 12 * torch.arange(30) / 30).expand(1, 1, 24, 30)  # 0.4 cycles a pixel
    band = int(0.4 / 0.5**0.5 * BANDS)
    without = torch.ones(1, BANDS)
    without[0, band] = 0
    assert drop_bands(wave, without).abs().max() < 1e-5
    assert torch.allclose(drop_bands(wave, 1 - without), wave, atol=1e-5)
    assert torch.allclose(drop_bands(wave + 3, without).mean(), torch.tensor(3.0))


def test_it_acts_in_training_only_and_repeats_with_the_generator() -> None:
    torch.manual_seed(0)
    network = ParagonSR2("stream", 2, layer_scale=0.1)
    x = torch.rand(2, 3, 16, 16)
    plain = network(x)
    add_frequency_dropout(network, 0.5)
    torch.manual_seed(3)
    one, other = network(x), network(x)
    torch.manual_seed(3)
    assert torch.equal(one, network(x))
    assert not torch.equal(one, other)
    assert not torch.equal(one, plain)
    assert torch.equal(network.eval()(x), plain)

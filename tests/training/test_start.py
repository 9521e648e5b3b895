from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="training needs torch")

from torch.nn import functional as F  # noqa: E402

from videosr.archs.paragonsr2 import ParagonSR2  # noqa: E402
from videosr.training.start import open_gates, whitening  # noqa: E402


@pytest.mark.parametrize("channels", [5, 27, 40])
def test_features_have_no_mean_and_are_equally_strong(channels: int) -> None:
    torch.manual_seed(0)
    noise = torch.randn(8, 3, 40, 40)
    pictures = (0.5 + 0.2 * F.avg_pool2d(noise, 5, 1) + 0.05 * noise[:, :, 2:-2, 2:-2]).mean(1, keepdim=True)
    pictures = pictures + 0.05 * torch.randn(8, 3, 36, 36)
    weight, bias = whitening(pictures, channels)
    assert weight.shape == (channels, 3, 3, 3)
    features = F.conv2d(pictures, weight, bias).transpose(0, 1).flatten(1)
    assert features.mean(1).abs().max() < 1e-3
    own = torch.cov(features[:27])
    own = own.reshape(len(own), -1) if own.ndim else own.reshape(1, 1)
    assert torch.allclose(own, torch.eye(len(own)), atol=0.05)
    assert features.std(1).sub(1).abs().max() < 0.6


def test_what_is_flat_is_not_blown_up() -> None:
    pictures = torch.full((2, 3, 12, 12), 0.25)
    weight, bias = whitening(pictures, 16)
    assert weight.abs().max() <= 100
    assert F.conv2d(pictures, weight, bias).abs().max() < 1e-3


def test_gates_of_the_stream_network_are_open() -> None:
    torch.manual_seed(0)
    network = ParagonSR2("stream", 2, upsampler_alpha=0.0, detail_gain=1.0, layer_scale=0.1)
    features = torch.randn(1, 32, 32, 32)
    before = (network.body(features) - features).std()
    open_gates(network)
    after = (network.body(features) - features).std()
    assert before < 0.03 < 0.1 < after < 1
    picture = torch.rand(1, 3, 32, 32)
    assert (network(picture) - network.base(picture)).std() < 0.2

"""The network itself: its published parameter counts, its base path, its constructor."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from videosr.archs.paragon_blocks import DilatedDepthwise, StreamBlock  # noqa: E402
from videosr.archs.paragonsr2 import SCALES, VARIANTS, ParagonSR2  # noqa: E402
from videosr.export import padded_forward  # noqa: E402

COUNTS = {
    ("realtime", 4): 44_620,
    ("stream", 4): 221_068,
    ("photo", 4): 1_188_428,
    ("pro", 4): 2_436_556,
    ("light", 2): 4_780,
    ("realtime", 2): 16_780,
    ("fine", 2): 86_988,
    ("stream", 2): 110_092,
}


@pytest.mark.parametrize(("variant", "scale"), COUNTS)
def test_parameter_counts_are_the_published_ones(variant, scale):
    assert sum(p.numel() for p in ParagonSR2(variant, scale).parameters()) == COUNTS[variant, scale]


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("scale", SCALES)
def test_every_variant_enlarges_any_size(variant, scale):
    model = ParagonSR2(variant, scale, window_size=4).eval()
    with torch.no_grad():
        assert model(torch.rand(2, 3, 9, 7)).shape == (2, 3, 9 * scale, 7 * scale)


def test_flat_field_stays_flat_to_the_rim_with_replicated_padding():
    flat = torch.full((1, 3, 12, 10), 0.7)
    model = ParagonSR2("realtime", 2, upsampler_alpha=0.0, detail_gain=0.0)
    assert torch.allclose(padded_forward(model, 8, flat), torch.tensor(0.7), atol=1e-6)
    with torch.no_grad():
        published = model(flat)
    assert torch.allclose(published[:, :, 0, 5:-5], torch.tensor(0.7 * 11 / 16), atol=1e-6)  # why we pad


def test_reach_is_how_far_gradients_go():
    for variant, reach in (("realtime", 7), ("fine", 12), ("stream", 28)):
        model = ParagonSR2(variant, 2, layer_scale=1.0, detail_gain=1.0).double().eval()
        assert model.reach == reach
        middle = reach + 2
        x = torch.rand(1, 3, 1, 2 * middle + 1, dtype=torch.float64, requires_grad=True)
        model(x)[..., 2 * middle : 2 * middle + 2].sum().backward()
        seen = (x.grad != 0).any(dim=(0, 1, 2)).tolist()
        assert seen == [False] * 2 + [True] * (2 * reach + 1) + [False] * 2
    assert ParagonSR2("photo", 2).reach is None
    assert ParagonSR2("photo", 2, export_safe=True).reach == 20


@pytest.mark.parametrize("training", [False, True])
def test_products_of_our_own_stream_networks_are_bounded(training):
    torch.manual_seed(0)
    block = StreamBlock(8, 1.0, limit=2.0).train(training)
    published = StreamBlock(8, 1.0).train(training)
    published.load_state_dict(block.state_dict())
    x = torch.rand(1, 8, 9, 9)
    with torch.no_grad():
        assert 0 < block.products(x).abs().max() < 2
        assert torch.equal(block(x), published(x))  # what is usual is as it was
        assert published.products(1000 * x).abs().max() > 1000
        assert block.products(1000 * x).abs().max() == 2


def test_unknown_arguments_are_refused():
    for arguments in ({"variant": "tiny"}, {"scale": 5}):
        with pytest.raises(ValueError, match="is n"):
            ParagonSR2(**arguments)


def test_checkpointing_changes_nothing_but_memory():
    torch.manual_seed(0)
    plain = ParagonSR2("photo", 2, window_size=4, layer_scale=0.1)
    frugal = ParagonSR2("photo", 2, window_size=4)
    for group in frugal.body:
        group.use_checkpointing = True
    frugal.load_state_dict(plain.state_dict())
    x = torch.rand(1, 3, 8, 8)
    gradients = []
    for model in (plain, frugal):
        model(x).sum().backward()
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.requires_grad]))
    assert torch.allclose(*gradients, atol=1e-6)


@pytest.mark.parametrize("size", [(9, 9), (7, 12), (2, 3)])
def test_gradients_of_the_dilated_convolution_are_those_of_torch(size: tuple[int, int]) -> None:
    torch.manual_seed(3)
    ours = DilatedDepthwise(4, 4, 3, padding=3, dilation=3, groups=4).double()
    plain = nn.Conv2d(4, 4, 3, padding=3, dilation=3, groups=4).double()
    plain.load_state_dict(ours.state_dict())
    picture, weights = torch.randn(2, 4, *size).double().requires_grad_(), torch.randn(2, 4, *size).double()
    found, wanted = (
        torch.autograd.grad((layer(picture) * weights).sum(), (picture, layer.weight, layer.bias))
        for layer in (ours, plain)
    )
    assert torch.equal(ours(picture), plain(picture))
    for gradient, expected in zip(found, wanted, strict=True):
        torch.testing.assert_close(gradient, expected)

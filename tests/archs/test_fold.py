"""The folded linear parts against the layers they replace, in float64."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from torch.nn import functional as F  # noqa: E402

from videosr.archs import fold  # noqa: E402
from videosr.archs.paragonsr2 import SCALES, ParagonSR2  # noqa: E402
from videosr.export import padded_forward  # noqa: E402

EXACT = 1e-12


def network(variant="realtime", scale=2, alpha=0.0):
    torch.manual_seed(scale)
    return ParagonSR2(variant, scale, upsampler_alpha=alpha, detail_gain=0.7, layer_scale=0.1).double().eval()


def rings(a, b, ring):
    """The largest difference inside, and in the `ring` outermost rings."""
    d = (a - b).abs()
    inside = d[:, :, ring:-ring, ring:-ring].max().item() if ring else d.max().item()
    return inside, d.max().item()


@pytest.mark.parametrize("scale", SCALES)
@torch.no_grad()
def test_the_tail_equals_the_original_inside_and_differs_on_a_known_rim(scale):
    model = network(scale=scale)
    features = torch.randn(2, 16, 9, 11, dtype=torch.float64)
    original = model.detail_gain * model.conv_out(model.up(features))
    five = fold.tail(model)
    assert five.weight.shape == (3 * scale**2, 16, 5, 5)
    inside, rim = rings(F.pixel_shuffle(five(features), scale), original, 1)
    assert inside < EXACT < 1e-3 < rim


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("alpha", [0.0, 0.3])
@torch.no_grad()
def test_base_path_is_one_convolution(scale, alpha):
    model = network(scale=scale, alpha=alpha)
    x = torch.rand(2, 3, 12, 13, dtype=torch.float64)
    folded = fold.base(model)
    assert folded.weight.shape == (3 * scale**2, 3, *([9, 9] if alpha else [3, 3]))
    assert folded.bias.abs().max() == 0
    inside, rim = rings(F.pixel_shuffle(folded(x), scale), model.base(x), 2)
    assert inside < EXACT
    assert (rim > 1e-3) == (alpha > 0)


@pytest.mark.parametrize(("variant", "scale", "halo"), [("realtime", 2, 2), ("realtime", 3, 8), ("stream", 4, 2)])
@torch.no_grad()
def test_with_a_replicated_rim_the_folded_network_is_equal_everywhere(variant, scale, halo):
    model = network(variant, scale, alpha=0.3)
    x = torch.rand(1, 3, 7, 10, dtype=torch.float64)
    deployed = fold.Deployed(model, halo).double()
    deployed.working = torch.float64
    deployed.tail.load_state_dict({"weight": fold.tail(model).weight, "bias": fold.tail(model).bias})
    average = torch.rand_like(x)
    difference = deployed(x, average) - padded_forward(model, halo, x, average)
    assert difference.abs().max() < 1e-6  # `Deployed` is a float32 network; the algebra itself is tested above

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest

torch = pytest.importorskip("torch", reason="training needs torch")

from videosr.archs import checkpoint, nexus  # noqa: E402
from videosr.archs.paragonsr2 import ParagonSR2  # noqa: E402
from videosr.errors import NetworkError, UsageError  # noqa: E402
from videosr.export import natural_picture  # noqa: E402
from videosr.models import registry  # noqa: E402
from videosr.training.config import NetworkConfig  # noqa: E402
from videosr.training.growing import grown  # noqa: E402
from videosr.training.networks import new_network  # noqa: E402

SMALL = registry.find("realtime-2x").with_suffix(".safetensors")
FINE = registry.find("fine-2x").with_suffix(".safetensors")
PHOTO = NetworkConfig(variant="photo", scale=2, weights=SMALL)


def silent(network: torch.nn.Module, steps: int, rate: float, size: int) -> list[str]:
    """What of it that is to learn has no gradient after so many steps."""
    trained = {name: value for name, value in network.named_parameters() if value.requires_grad}
    optimizer = torch.optim.SGD(trained.values(), lr=rate)
    picture = natural_picture(size, size, torch.Generator().manual_seed(0))
    for _ in range(steps):
        optimizer.zero_grad()
        network(picture).square().mean().backward()
        optimizer.step()
    return [name for name, value in trained.items() if not value.grad.any()]


@pytest.mark.parametrize(
    ("variant", "windows", "share"),
    [("fine", False, 1e-9), ("photo", True, 1e-3), ("photo", False, 1e-3), ("stream", False, 0.1)],
)
def test_the_large_network_begins_as_the_small_one(variant: str, windows: bool, share: float) -> None:
    """Photo all but exactly; stream as near as parabolas come to GELU, on a picture they were not fitted to."""
    small, _ = checkpoint.load(FINE if variant == "stream" else SMALL)
    assert isinstance(small, ParagonSR2)
    before = {name: value.clone() for name, value in small.state_dict().items()}
    torch.manual_seed(1)
    large = grown(small, variant, 0.1, windows=windows)
    picture = natural_picture(96, 80, torch.Generator().manual_seed(99))
    with torch.no_grad():
        error = (large(picture) - small(picture)).square().mean()
        change = (small(picture) - small.base(picture)).square().mean()
    assert error < share * change
    assert all(torch.equal(value, before[name]) for name, value in small.state_dict().items())


@pytest.mark.parametrize(
    ("variant", "mode"), [("fine", "sdpa"), ("photo", "sdpa"), ("photo", "off"), ("stream", "sdpa")]
)
def test_all_of_it_learns(variant: str, mode: Literal["sdpa", "off"]) -> None:
    """Nothing that is new is cut off from the loss for good: after one step every parameter has a gradient."""
    torch.manual_seed(1)
    weights = FINE if variant == "stream" else SMALL
    network, header = new_network(replace(PHOTO, variant=variant, attention_mode=mode, weights=weights))
    assert network.has_windows == ((variant, mode) == ("photo", "sdpa"))
    assert header["name"] == weights.stem
    assert silent(network, steps=2, rate=1e-3, size=48) == []


@pytest.fixture
def shallow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two blocks a group instead of six."""
    monkeypatch.setitem(nexus.VARIANTS, "nexus_tiny", replace(nexus.VARIANTS["nexus_tiny"], depths=(2,) * 4))


@pytest.mark.usefixtures("shallow")
def test_nexus_begins_as_a_fine_network_but_at_the_borders() -> None:
    small, _ = checkpoint.load(FINE)
    assert isinstance(small, ParagonSR2)
    torch.manual_seed(1)
    large, header = new_network(NetworkConfig(variant="nexus_tiny", scale=2, weights=FINE))
    assert header["name"] == "fine-2x"
    picture = natural_picture(96, 96, torch.Generator().manual_seed(99))  # of a few pixels the mean says little
    with torch.no_grad():
        difference = large(picture) - small(picture)
    border = 2 * small.reach
    assert difference[:, :, border:-border, border:-border].square().mean() < 3e-5  # 45 dB


@pytest.mark.usefixtures("shallow")
def test_of_a_grown_nexus_what_is_new_in_the_blocks_learns_and_what_carries_the_picture_stays() -> None:
    torch.manual_seed(1)
    network, _ = new_network(NetworkConfig(variant="nexus_tiny", scale=2, weights=FINE))
    learning = {name for name, value in network.named_parameters() if value.requires_grad}
    # Each block's channel attention is one of the fine network's eight blocks.
    new = re.compile(r"body\.\d\.blocks\.\d\.(norms|stages|scales)\.[12]\.")
    assert learning == {name for name, _ in network.named_parameters() if new.match(name)}
    assert silent(network, steps=5, rate=1e-2, size=16) == []


def test_a_grown_stream_network_stays_within_bounds() -> None:
    """Six products one after the other are a polynomial of degree 64, which nothing held back outside of pictures."""
    torch.manual_seed(1)
    network, _ = new_network(NetworkConfig(variant="stream", scale=2, weights=FINE))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        wild = network.eval()((torch.rand(8, 3, 40, 40, generator=generator) > 0.5).float())
    assert wild.abs().max() < 6


@pytest.mark.parametrize("change", [{"variant": "light"}, {"variant": "pro"}, {"scale": 4}])
def test_what_cannot_grow_from_it_is_refused(change: dict[str, object]) -> None:
    config = replace(PHOTO, **change)
    with pytest.raises(NetworkError, match=rf"{Path(SMALL).name}: is realtime 2x and not {config.variant}"):
        new_network(config)


def test_a_nexus_that_enlarges_in_two_steps_cannot_grow() -> None:
    weights = registry.find("fine-4x").with_suffix(".safetensors")
    with pytest.raises(UsageError, match="scale 4 cannot begin as a fine network"):
        new_network(NetworkConfig(variant="nexus_tiny", scale=4, weights=weights))

"""The published recursion in feature space, its feature-window form and the hoisted form are one and the same."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from videosr.archs.paragonsr2 import FEATURE_BLEND, ParagonSR2  # noqa: E402

FRAMES = 12


@pytest.fixture(scope="module")
def sequence():
    """A noisy picture that drifts, (FRAMES, 1, 3, H, W)."""
    generator = torch.Generator().manual_seed(1)
    wide = torch.rand(1, 3, 24, 30 + FRAMES, generator=generator)
    return torch.stack(
        [wide[..., t : t + 30] + 0.02 * torch.randn(1, 3, 24, 30, generator=generator) for t in range(FRAMES)]
    )


@pytest.mark.parametrize("variant", ["realtime", "stream"])
@torch.no_grad()
def test_three_forms_of_the_temporal_blend_agree(variant, sequence):
    torch.manual_seed(0)
    model = ParagonSR2(variant, 2, upsampler_alpha=0.0, detail_gain=1.0, layer_scale=0.1).eval()
    a = FEATURE_BLEND
    features = average = None
    for t, frame in enumerate(sequence):
        published, features = model.forward_video(frame, features)
        average = frame if average is None else (1 - a) * frame + a * average
        hoisted = model(frame, average)
        # Written out over the scene: weights (1 - a) a^k, the rest on the first frame.
        weights = [(1 - a) * a**k for k in range(t)] + [a**t]
        window = sum(w * model.conv_in(sequence[t - k]) for k, w in enumerate(weights))
        in_features = model.base(frame) + model.detail(window)
        assert (published - hoisted).abs().max() < 1e-5
        assert (published - in_features).abs().max() < 1e-5
    assert (published - model(frame)).abs().max() > 1e-3  # the blend does something


@torch.no_grad()
def test_history_forgets(sequence):
    """Eight frames of history decide the output to 1e-5."""
    torch.manual_seed(0)
    model = ParagonSR2("realtime", 2, upsampler_alpha=0.0, detail_gain=1.0, layer_scale=0.1).eval()

    def last_output(frames):
        features = None
        for frame in frames:
            output, features = model.forward_video(frame, features)
        return output

    assert (last_output(sequence) - last_output(sequence[-8:])).abs().max() < 1e-5
    assert (last_output(sequence) - last_output(sequence[-2:])).abs().max() > 1e-4


@torch.no_grad()
def test_two_runs_start_a_network_with_a_baked_blend_exactly(sequence):
    torch.manual_seed(0)
    model = ParagonSR2("realtime", 2, detail_gain=1.0, layer_scale=0.1).eval()
    frame, a = sequence[0], FEATURE_BLEND
    zeros = torch.zeros(1, 16, *frame.shape[2:])
    naive, features = model.forward_video(frame, zeros)
    started, _ = model.forward_video(frame, features / (1 - a))
    assert (started - model(frame)).abs().max() < 1e-5
    assert (naive - model(frame)).abs().max() > 1e-3  # what feeding zeros gets wrong

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from test_data import packed, run_of

from videosr.metrics import imresize
from videosr.training import copies
from videosr.training.config import DataConfig, DegradationConfig, RegularisationConfig, TrainingConfig
from videosr.training.copies import Copies, build_copies
from videosr.training.data import PatchSampler
from videosr.training.packing import read_entries

NOTHING = DegradationConfig(noise=1, noise_sigma=(0, 0), copies=1)
"""A degradation that leaves everything as it is."""


def run(tmp_path: Path, photos: Path, degradation: DegradationConfig, scale: int = 2, **data: object) -> TrainingConfig:
    made = DataConfig(train=(photos,), factors=(1.0, 1.3), patch=12, batch=6, candidates=2, **data)
    config = run_of(made, scale, degradation=degradation)
    packed(tmp_path, config.data, (config.data.patch + 4) * scale)
    return config


def copied(tmp_path: Path, config: TrainingConfig) -> list[str]:
    said: list[str] = []
    build_copies(tmp_path / "run", config, said.append)
    return said


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("patterns", [0.0, 0.5])
def test_patches_of_copies_fit_those_of_the_originals(
    tmp_path: Path, photos: Path, scale: int, patterns: float
) -> None:
    config = run(tmp_path, photos, NOTHING, scale, patterns=patterns)
    copied(tmp_path, config)
    sampler = PatchSampler(tmp_path / "run", config)
    for iteration in range(4):
        plan, batch = sampler.plan(iteration), sampler.batch(iteration)
        assert batch.lr.shape == (6, 12, 12, 3)
        assert batch.hr.shape == (6, 12 * scale, 12 * scale, 3)
        assert plan.top.min() >= 0
        assert (plan.top + sampler.hr_size <= sampler.sizes[plan.entry, 0]).all()
        for lr, hr, made in zip(batch.lr, batch.hr, plan.made, strict=True):
            if made >= 0:
                assert (lr == hr[::scale, ::scale]).all()
                continue
            # A patch that was turned was shrunk along its columns first, and rounded and clipped between.
            ways = imresize(hr, 1 / scale), imresize(hr.swapaxes(0, 1), 1 / scale).swapaxes(0, 1)
            inside = slice(3, -3)
            assert any((way[inside, inside] == lr[inside, inside]).all() for way in ways)


@pytest.mark.parametrize("as_copies", [True, False])
def test_every_other_patch_has_soft_chroma_before_and_after(tmp_path: Path, photos: Path, as_copies: bool) -> None:
    """Of the pairs made without, half stay; of the others luma does, and LR is still HR shrunk, to some rounding."""
    config = run(tmp_path, photos, replace(NOTHING, copies=int(as_copies)))
    if as_copies:
        copied(tmp_path, config)
    data = replace(config.data, batch=60)
    plain, soft = (
        PatchSampler(tmp_path / "run", replace(config, data=replace(data, chroma_softness=sigma))).batch(3)
        for sigma in (0.0, 2.5)
    )
    changed = [bool((a != b).any()) for a, b in zip(plain.hr, soft.hr, strict=True)]
    assert 0.3 < np.mean(changed) < 0.7
    for a, b, small in zip(plain.hr, soft.hr, soft.lr * (1 if as_copies else 255.0), strict=True):
        assert np.abs((a.astype(float) - b) @ [0.2126, 0.7152, 0.0722]).mean() < 1
        ways = imresize(b, 0.5), imresize(b.swapaxes(0, 1), 0.5).swapaxes(0, 1)
        assert min(np.abs(way - small.astype(float))[4:-4, 4:-4].mean() for way in ways) < 2


def test_copies_are_what_codecs_make_of_whole_pictures(tmp_path: Path, photos: Path) -> None:
    coding = DegradationConfig(video=1, crf=(30, 30), copies=3)
    config = run(tmp_path, photos, coding, frames=3)
    copied(tmp_path, config)
    _, entries = read_entries(tmp_path / "run")
    copies, pixels = Copies(tmp_path / "run", entries, 2), PatchSampler(tmp_path / "run", config).pixels
    for number, entry in enumerate(entries):
        height, width = entry.height // 2, entry.width // 2
        clean = imresize(entry.pictures(pixels)[0, : 2 * height, : 2 * width], 0.5).astype(float)
        three = [copies.copy(number, k) for k in range(3)]
        assert {frame for _, frame in three} == {0}  # a panned picture is shown as it is
        errors = [np.sqrt(np.square(picture - clean).mean()) for picture, _ in three]
        assert all(1 < error < 25 for error in errors)
        assert len(set(errors)) > 1
    batch = PatchSampler(tmp_path / "run", config).batch(0)
    assert (batch.lr == PatchSampler(tmp_path / "run", config).batch(0).lr).all()


def test_copies_whose_index_was_not_written_are_made_again(
    tmp_path: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    config = run(tmp_path, photos, NOTHING)
    copied(tmp_path, config)
    before = (tmp_path / "run" / "copies.npy").read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(copies, "write_atomically", killed)
        with pytest.raises(KeyboardInterrupt):
            copied(tmp_path, replace(config, degradation=replace(NOTHING, copies=2)))
    assert copied(tmp_path, config)
    assert (tmp_path / "run" / "copies.npy").read_bytes() == before


def test_copies_of_a_film_belong_to_their_frames(tmp_path: Path, film: Path) -> None:
    config = run_of(
        DataConfig(train=(film,), factors=(1.0,), frames=4, video_interval=0.7, patch=16, batch=4, candidates=1),
        degradation=replace(NOTHING, copies=4),
    )
    packed(tmp_path, config.data)
    copied(tmp_path, config)
    sampler = PatchSampler(tmp_path / "run", config)
    assert sampler.copies is not None
    shown = set()
    for number, entry in enumerate(sampler.entries):
        for k in range(4):
            picture, frame = sampler.copies.copy(number, k)
            shown.add(frame)
            original = entry.pictures(sampler.pixels)[frame, : 2 * picture.shape[0], : 2 * picture.shape[1]]
            assert (imresize(original, 0.5) == picture).all()
    assert len(shown) > 1


def test_copies_are_kept_until_something_changes(tmp_path: Path, photos: Path) -> None:
    config = run(tmp_path, photos, replace(NOTHING, copies=2))
    assert copied(tmp_path, config) == ["degrading 6 pictures 2 times"]
    assert copied(tmp_path, config) == []
    assert copied(tmp_path, replace(config, degradation=replace(NOTHING, copies=2, noise_sigma=(4, 4)))) != []


def test_cutblur_puts_undegraded_pixels_into_copies(tmp_path: Path, photos: Path) -> None:
    config = run(tmp_path, photos, DegradationConfig(noise=1, noise_sigma=(30, 30), copies=1))
    config = replace(config, regularisation=RegularisationConfig(cutblur=1))
    copied(tmp_path, config)
    batch = PatchSampler(tmp_path / "run", config).batch(3)
    for lr, hr in zip(batch.lr, batch.hr, strict=True):
        same = (imresize(hr, 0.5) == lr).all(axis=2)[3:-3, 3:-3].mean()
        assert 0 <= same < 1
    plain = PatchSampler(tmp_path / "run", replace(config, regularisation=RegularisationConfig())).batch(3)
    assert (plain.hr == batch.hr).all()
    changed = (plain.lr != batch.lr).any(axis=3).mean(axis=(1, 2))
    assert ((changed > 0) & (changed < 1)).all()

from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest

from videosr.errors import InputError
from videosr.metrics import imresize
from videosr.training.config import DataConfig, NetworkConfig, OutputConfig, ScheduleConfig, TrainingConfig
from videosr.training.data import PatchSampler
from videosr.training.packing import Forbidden, build_pack


def write_image(path: Path, image: np.ndarray, codec: str = "png", **options: str) -> None:
    with av.open(str(path), "w", format="image2") as container:
        stream = container.add_stream(codec, rate=1, options=options)
        stream.height, stream.width = image.shape[:2]
        stream.pix_fmt = "rgb24" if codec == "png" else "yuvj444p"
        frame = av.VideoFrame.from_ndarray(image, format="rgb24")
        for packet in [*stream.encode(frame), *stream.encode()]:
            container.mux(packet)


def scene(seed: int, height: int = 120, width: int = 150) -> np.ndarray:
    """Overlapping rectangles of noise-textured colours: no two seeds look alike."""
    rng = np.random.default_rng(seed)
    image = np.full((height, width, 3), rng.integers(0, 256, 3), np.float64)
    for _ in range(25):
        y, x = rng.integers(height), rng.integers(width)
        h, w = rng.integers(10, height // 2), rng.integers(10, width // 2)
        image[y : y + h, x : x + w] = rng.integers(0, 256, 3)
    return np.clip(image + rng.normal(0, 6, image.shape), 0, 255).astype(np.uint8)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for seed in range(3):
        write_image(folder / f"{seed}.png", scene(seed))
    return folder


def run_of(data: DataConfig, scale: int = 2, seed: int = 0, **tables: object) -> TrainingConfig:
    return TrainingConfig(
        data=data,
        network=NetworkConfig(scale=scale),
        schedule=ScheduleConfig(iterations=1, seed=seed),
        output=OutputConfig(folder=Path()),
        **tables,  # type: ignore[arg-type]
    )


def packed(tmp_path: Path, config: DataConfig, min_size: int = 40) -> list[str]:
    said: list[str] = []
    (tmp_path / "run").mkdir(exist_ok=True)
    build_pack(tmp_path / "run", config, min_size, said.append)
    return said


def test_pictures_are_packed_at_every_factor_but_not_smaller_than_a_patch(tmp_path: Path, photos: Path) -> None:
    write_image(photos / "small.png", scene(9, 60, 60))
    config = DataConfig(train=(photos,), factors=(1.0, 2.0), patch=16, batch=4)
    packed(tmp_path, config)
    sampler = PatchSampler(tmp_path / "run", run_of(config))
    sizes = [(e.height, e.width) for e in sampler.entries]
    assert sorted(sizes) == sorted([(120, 150)] * 3 + [(60, 60)] + [(60, 75)] * 3)
    first = sampler.entries[0]
    assert (sampler.pixels[first.offset :][: 120 * 150 * 3] == scene(0).ravel()).all()
    halved = next(e for e in sampler.entries if (e.height, e.width) == (60, 75))
    stored = sampler.pixels[halved.offset :][: 60 * 75 * 3].reshape(60, 75, 3)
    assert (stored == imresize(scene(0), 0.5, "lanczos3")).all()
    assert sum(e.weight for e in sampler.entries) == pytest.approx(1)
    assert sum(e.weight for e in sampler.entries if e.height * e.width == 60 * 75) == pytest.approx(0.5)


def test_a_pack_is_made_again_only_when_something_changed(tmp_path: Path, photos: Path) -> None:
    config = DataConfig(train=(photos,))
    assert packed(tmp_path, config)
    assert packed(tmp_path, config) == []
    assert packed(tmp_path, replace(config, factors=(1.0,)))
    write_image(photos / "more.png", scene(7))
    assert packed(tmp_path, replace(config, factors=(1.0,)))


@pytest.mark.parametrize("scale", [2, 3, 4, 8])
def test_lr_patches_are_the_benchmarks_imresize(tmp_path: Path, photos: Path, scale: int) -> None:
    config = DataConfig(train=(photos,), factors=(1.0,), patch=6, batch=5, candidates=1)
    packed(tmp_path, config, (6 + 4) * scale)
    sampler = PatchSampler(tmp_path / "run", run_of(config, scale))
    lr, hr, average = sampler.batch(3)
    assert average is None
    assert lr.shape == (5, 6, 6, 3)
    assert hr.shape == (5, 6 * scale, 6 * scale, 3)
    inner = 2  # LR pixels at each edge whose taps reach beyond the HR patch
    for small, large in zip(lr, hr, strict=True):
        expected = imresize(large, 1 / scale)
        difference = small.astype(int) - expected
        # The weights of thirds are no binary fractions: the last bit of a sum may turn a tie.
        assert np.abs(difference[inner:-inner, inner:-inner]).max() <= (scale == 3)


def test_batches_depend_on_seed_and_iteration_alone(tmp_path: Path, photos: Path) -> None:
    config = DataConfig(train=(photos,), patch=12, batch=3)
    packed(tmp_path, config)
    sampler = PatchSampler(tmp_path / "run", run_of(config, seed=5))
    straight = list(sampler.batches(0, 7))
    threaded = PatchSampler(tmp_path / "run", run_of(replace(config, workers=2), seed=5))
    resumed = [*threaded.batches(0, 3), *threaded.batches(3, 7)]
    assert len(resumed) == 7
    for one, other in zip(straight, resumed, strict=True):
        assert (one[0] == other[0]).all()
        assert (one[1] == other[1]).all()
    assert (straight[0][1] != straight[1][1]).any()
    assert (PatchSampler(tmp_path / "run", run_of(config, seed=6)).batch(0)[1] != straight[0][1]).any()


def test_textured_patches_are_preferred(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    image = np.full((100, 400, 3), 128, np.uint8)
    image[:, :100] = np.random.default_rng(0).integers(0, 256, (100, 100, 3))
    write_image(tmp_path / "photos" / "half-flat.png", image)

    def textured(candidates: int) -> float:
        config = DataConfig(train=(tmp_path / "photos",), factors=(1.0,), patch=12, batch=200, candidates=candidates)
        packed(tmp_path, config)
        return float((PatchSampler(tmp_path / "run", run_of(config)).batch(0)[1].std(axis=(1, 2, 3)) > 0).mean())

    assert textured(1) < 0.45
    assert textured(4) > 0.65


def test_patches_are_turned_and_mirrored(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    ramp = np.zeros((60, 60, 3), np.uint8)
    ramp[:] = np.arange(60)[:, None, None] * 3
    ramp[..., 2] = np.arange(60) * 2  # blue rises to the right, red and green downwards
    write_image(tmp_path / "photos" / "ramp.png", ramp)
    config = DataConfig(train=(tmp_path / "photos",), factors=(1.0,), patch=12, batch=100)
    packed(tmp_path, config)
    hr = PatchSampler(tmp_path / "run", run_of(config)).batch(0).hr
    ways = set()
    for patch in hr.astype(int):
        red, blue = patch[..., 0], patch[..., 2]
        ways.add(tuple(np.sign([red[-1, 0] - red[0, 0], red[0, -1] - red[0, 0], blue[-1, 0] - blue[0, 0]])))
    # Four turns, each mirrored or not, are eight; blue's sign along the columns tells apart what red's do not.
    turned = {way[:2] for way in ways}
    assert turned == {(1, 0), (-1, 0), (0, 1), (0, -1)}
    assert len(ways) == 6


@pytest.mark.parametrize("disguise", ["copy", "jpeg", "resized"])
def test_forbidden_images_are_recognised(tmp_path: Path, photos: Path, disguise: str) -> None:
    test_set = tmp_path / "test"
    test_set.mkdir()
    write_image(test_set / "benchmark.png", scene(1))
    (photos / "1.png").unlink()
    config = DataConfig(train=(photos,), never_train=(test_set,))
    assert "none of them is forbidden" in packed(tmp_path, config)[-1]
    if disguise == "copy":
        write_image(photos / "innocent.png", scene(1))
    elif disguise == "jpeg":
        write_image(photos / "innocent.jpg", scene(1), "mjpeg", qmin="8", qmax="8")
    else:
        write_image(photos / "innocent.png", imresize(scene(1), 0.6, "lanczos3"))
    with pytest.raises(InputError, match=r"innocent\.\w+: is the image .*benchmark\.png, which must not be trained on"):
        packed(tmp_path, config)


def test_nothing_forbidden_matches_nothing() -> None:
    assert Forbidden(()).match(scene(0)) is None


def test_only_small_images_are_refused(tmp_path: Path, photos: Path) -> None:
    with pytest.raises(InputError, match="no image of at least 500 pixels"):
        packed(tmp_path, DataConfig(train=(photos,)), 500)
    assert not (tmp_path / "run" / "pack.json").exists()

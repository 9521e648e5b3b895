from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest

from videosr.errors import InputError
from videosr.metrics import imresize
from videosr.training import packing
from videosr.training.config import (
    DataConfig,
    DegradationConfig,
    LossWeights,
    NetworkConfig,
    OutputConfig,
    RegularisationConfig,
    ScheduleConfig,
    TrainingConfig,
)
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


@pytest.mark.parametrize("softness", [0.0, 1.0])
def test_folders_are_sampled_by_their_shares_however_textured_they_are(tmp_path: Path, softness: float) -> None:
    for number, (name, contrast) in enumerate((("smooth", 10), ("busy", 200), ("middling", 60))):
        (tmp_path / name).mkdir()
        image = np.random.default_rng(number).integers(0, contrast, (80, 90, 3))
        image[..., 0], image[..., 2] = number * 100, 255 - number * 100  # tells the folders apart
        write_image(tmp_path / name / "a.png", image.clip(0, 255).astype(np.uint8))
    folders = tuple(tmp_path / name for name in ("smooth", "busy", "middling"))
    config = DataConfig(train=folders, shares=(5, 1, 2), factors=(1.0, 1.3), softness=softness, patch=12, batch=800)
    packed(tmp_path, config)
    hr = PatchSampler(tmp_path / "run", run_of(config)).batch(0).hr
    found = np.rint(hr[:, 0, 0, 0] / 100).astype(int)
    assert np.bincount(found) / 800 == pytest.approx([5 / 8, 1 / 8, 2 / 8], abs=0.05)
    assert packed(tmp_path, replace(config, shares=(1, 1, 1)))


def test_softened_pictures_are_half_of_what_is_seen_and_lr_is_made_from_them(tmp_path: Path, photos: Path) -> None:
    config = DataConfig(train=(photos,), factors=(1.0,), softness=1.0, patch=12, batch=400, candidates=4)
    packed(tmp_path, config)
    sampler = PatchSampler(tmp_path / "run", run_of(config))
    assert [e.group for e in sampler.entries] == [0] * 3 + [1] * 3
    sharp, soft = (sampler.entries[i].pictures(sampler.pixels)[0].astype(int) for i in (1, 4))
    assert (sharp == scene(1)).all()
    assert 0 < np.abs(np.diff(soft, axis=1)).mean() < 0.9 * np.abs(np.diff(sharp, axis=1)).mean()
    chosen = sampler.plan(0).entry
    assert ((chosen < 3) == (chosen[:, :1] < 3)).all()  # of the patches that compete all are softened, or none is
    assert (chosen[:, 0] < 3).mean() == pytest.approx(0.5, abs=0.08)
    lr, hr, _ = sampler.batch(0)
    for small, large in zip(lr, hr, strict=True):
        assert (small[2:-2, 2:-2] == imresize(large, 0.5)[2:-2, 2:-2]).all()


def test_a_pack_is_made_again_only_when_something_changed(tmp_path: Path, photos: Path) -> None:
    config = DataConfig(train=(photos,))
    assert packed(tmp_path, config)
    assert packed(tmp_path, config) == []
    assert packed(tmp_path, replace(config, factors=(1.0,)))
    write_image(photos / "more.png", scene(7))
    assert packed(tmp_path, replace(config, factors=(1.0,)))
    (never := tmp_path / "never").mkdir()
    write_image(never / "other.png", scene(11))
    config = replace(config, never_train=(never,))
    assert packed(tmp_path, config)
    write_image(never / "renamed.png", scene(7))
    with pytest.raises(InputError, match=r"more\.png: is the image .*renamed\.png"):
        packed(tmp_path, config)


def test_a_pack_whose_index_was_not_written_is_made_again(
    tmp_path: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    config = DataConfig(train=(photos,), factors=(1.0,))
    packed(tmp_path, config)
    before = (tmp_path / "run" / "pack.npy").read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(packing, "write_atomically", killed)
        with pytest.raises(KeyboardInterrupt):
            packed(tmp_path, replace(config, factors=(1.5,)))
    assert packed(tmp_path, config)
    assert (tmp_path / "run" / "pack.npy").read_bytes() == before


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
    (tmp_path / "icons").mkdir()
    write_image(tmp_path / "icons" / "small.png", scene(3)[:30, :30])
    with pytest.raises(
        InputError, match=r"^\S*icons: no image of at least 64 pixels"
    ):  # else its share would be dropped
        packed(tmp_path, DataConfig(train=(photos, tmp_path / "icons"), factors=(2, 3)), 32)


def write_video(path: Path, pictures: list[np.ndarray], rate: int = 10) -> None:
    """Nearly lossless H.264."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=rate, options={"crf": "10", "preset": "ultrafast"})
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt = "yuv444p"
        for picture in pictures:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())


def moving(seed: int, frames: int, size: int = 96) -> list[np.ndarray]:
    whole = scene(seed, size, size + 2 * frames)
    return [np.ascontiguousarray(whole[:, 2 * t : 2 * t + size]) for t in range(frames)]


def test_videos_are_packed_as_clips_of_one_scene(tmp_path: Path, film: Path) -> None:
    config = DataConfig(train=(film,), factors=(1.0,), frames=5, video_interval=0.7, patch=16, batch=4)
    packed(tmp_path, config)
    sampler = PatchSampler(tmp_path / "run", run_of(config))
    # From frame 0; from 7, the first of the second scene; from 14. Black ones are not worth keeping.
    assert [e.frames for e in sampler.entries] == [5, 5, 5]
    for entry, expected in zip(
        sampler.entries, (moving(1, 7)[:5], moving(2, 13)[:5], moving(2, 13)[7:12]), strict=True
    ):
        stored = sampler.pixels[entry.offset :][: 5 * 96 * 96 * 3].reshape(5, 96, 96, 3)
        assert np.abs(stored.astype(int) - np.stack(expected)).mean() < 4


@pytest.mark.parametrize("kind", ["frame of a video", "video of a picture", "video, recompressed and smaller"])
def test_forbidden_frames_are_recognised(tmp_path: Path, film: Path, kind: str) -> None:
    train, test = tmp_path / "train", tmp_path / "test"
    train.mkdir()
    test.mkdir()
    write_image(train / "other.png", scene(9))
    config = DataConfig(train=(train,), never_train=(test,), frames=4)
    if kind == "frame of a video":
        write_image(train / "frame.png", moving(2, 13)[6])
        (film / "film.mkv").rename(test / "film.mkv")
        message = r"frame\.png: is the image .*film\.mkv at 1\.300 s, which must not"
    elif kind == "video of a picture":
        (film / "film.mkv").rename(train / "film.mkv")
        write_image(test / "still.png", moving(1, 7)[2])
        message = r"film\.mkv at 0\.000 s: is the image .*still\.png, which must not"
    else:
        (film / "film.mkv").rename(train / "film.mkv")
        write_video(test / "copy.mkv", [imresize(p, 2 / 3, "lanczos3") for p in moving(1, 7)])
        message = r"film\.mkv at 0\.000 s: is the image .*copy\.mkv at 0\.\d00 s, which must not"
    with pytest.raises(InputError, match=message):
        packed(tmp_path, config)


def test_black_frames_are_nobodys(tmp_path: Path, film: Path) -> None:
    test = tmp_path / "test"
    test.mkdir()
    write_video(test / "credits.mkv", [np.zeros((96, 96, 3), np.uint8)] * 3 + moving(5, 3))
    said = packed(tmp_path, DataConfig(train=(film,), never_train=(test,), frames=2))
    assert "3 images must not be among them" in said[0]


def test_still_pictures_are_panned_in_whole_hr_pixels(tmp_path: Path, photos: Path) -> None:
    config = DataConfig(train=(photos,), factors=(1.0,), frames=4, patch=12, batch=60, candidates=1)
    packed(tmp_path, config)
    sampler = PatchSampler(tmp_path / "run", run_of(config))
    plan, rng = sampler.plan(0), np.random.default_rng(0)
    clips = [sampler._cut(*place, rng) for place in np.stack([plan.entry, plan.top, plan.left], axis=2)[:, 0]]
    still = [(clip == clip[0]).all() for clip in clips]
    assert 10 < sum(still) < 40
    assert clips[0].shape == (4, sampler.hr_size, sampler.hr_size, 3)
    picture = sampler.pixels[: 120 * 150 * 3].reshape(120, 150, 3)
    places = np.lib.stride_tricks.sliding_window_view(picture[..., 0], (sampler.hr_size,) * 2)
    moved = next(c for c, s in zip(clips, still, strict=True) if not s and (places == c[0, ..., 0]).all((2, 3)).any())
    for frame in moved:
        assert (places == frame[..., 0]).all(axis=(2, 3)).any()


def tables(**schedule: object) -> TrainingConfig:
    """Every degradation, and clips."""
    data = DataConfig(train=(), factors=(1.0,), frames=5, patch=24, batch=3, candidates=1)
    half = dict.fromkeys(("blur", "noise", "grain", "jpeg", "chroma", "video"), 0.5)
    config = run_of(
        data,
        degradation=DegradationConfig(**half, presets=("ultrafast",)),
        regularisation=RegularisationConfig(cutblur=0.5),
    )
    return replace(config, schedule=replace(config.schedule, **schedule))  # type: ignore[arg-type]


@pytest.mark.parametrize("window", ["off", "ema", "adaptive"])
def test_degraded_batches_depend_on_seed_and_iteration_alone(tmp_path: Path, photos: Path, window: str) -> None:
    config = tables(window=window)
    packed(tmp_path, replace(config.data, train=(photos,)), 56)
    one, other = (PatchSampler(tmp_path / "run", config).batch(2) for _ in range(2))
    assert one.lr.dtype == np.float32
    assert one.lr.shape == (3, 24, 24, 3)
    assert one.hr.shape == (3, 48, 48, 3)
    assert (one.lr == other.lr).all()
    assert (one.hr == other.hr).all()
    assert (one.average is None) == (other.average is None) == (window == "off")
    if window != "off":
        assert one.average.shape == one.lr.shape
        assert (one.average == other.average).all()
        assert (one.average != one.lr).any()
    plain = replace(config, degradation=DegradationConfig())
    assert (PatchSampler(tmp_path / "run", plain).batch(2).lr != one.lr).any()


def test_the_window_calms_noise_where_nothing_moves_and_leaves_clean_clips_alone(
    tmp_path: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("videosr.training.panning.STILL", 1.0)
    config = replace(tables(window="adaptive"), regularisation=RegularisationConfig())
    packed(tmp_path, replace(config.data, train=(photos,)), 56)
    clean = PatchSampler(tmp_path / "run", replace(config, degradation=DegradationConfig())).batch(0)
    assert (clean.average == clean.lr).all()
    noisy = DegradationConfig(noise=1, noise_sigma=(6, 6))
    batch = PatchSampler(tmp_path / "run", replace(config, degradation=noisy)).batch(0)
    before, after = ((x - clean.lr).std() for x in (batch.lr, batch.average))
    assert after < 0.75 * before


def test_consistency_takes_two_neighbouring_frames_of_each_clip(tmp_path: Path, film: Path) -> None:
    config = run_of(
        DataConfig(train=(film,), factors=(1.0,), frames=5, video_interval=0.7, patch=16, batch=4, candidates=1),
        loss_weights=LossWeights(consistency=0.1),
    )
    packed(tmp_path, config.data)
    sampler = PatchSampler(tmp_path / "run", config)
    for iteration in range(3):
        _, hr, _ = sampler.batch(iteration)
        assert hr.shape == (4, 32, 32, 3)
        for newer, older in zip(hr[:2].astype(int), hr[2:], strict=True):
            apart = [
                np.abs(np.roll(older, shift, axis)[4:-4, 4:-4] - newer[4:-4, 4:-4]).mean()
                for shift, axis in ((2, 0), (-2, 0), (2, 1), (-2, 1))
            ]
            assert min(apart) < np.abs(older - newer).mean()


def test_cutblur_puts_undegraded_pixels_in(tmp_path: Path, photos: Path) -> None:
    config = replace(tables(), degradation=DegradationConfig(noise=1, noise_sigma=(30, 30)))
    config = replace(config, regularisation=RegularisationConfig(cutblur=1))
    packed(tmp_path, replace(config.data, train=(photos,)), 56)
    batch = PatchSampler(tmp_path / "run", config).batch(1)
    undegraded = replace(config, degradation=DegradationConfig(), regularisation=RegularisationConfig())
    clean = PatchSampler(tmp_path / "run", undegraded).batch(1)
    assert (clean.hr == batch.hr).all()
    kept = (clean.lr == batch.lr).all(axis=3).mean(axis=(1, 2))
    assert ((kept > 0) & (kept < 1)).all()


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_patterns_keep_their_contrast_in_the_input(photos: Path, tmp_path: Path, scale: int) -> None:
    data = DataConfig(train=(photos,), factors=(1.0,), patch=10, batch=40, patterns=1.0)
    config = TrainingConfig(
        network=NetworkConfig(scale=scale),
        data=data,
        schedule=ScheduleConfig(iterations=10),
        output=OutputConfig(folder=tmp_path),
    )
    build_pack(tmp_path, data, 14 * scale, lambda _: None)
    batch = PatchSampler(tmp_path, config).batch(0)
    steps = np.abs(np.diff(batch.lr.astype(int), axis=2)).max((1, 2, 3))
    assert (steps > 200).any()
    assert (np.abs(np.diff(batch.lr.astype(int), axis=1)).max((1, 2, 3)) > 200).any()
    blocks = batch.hr.reshape(40, 10, scale, 10, scale, 3)
    assert (blocks == batch.lr[:, :, None, :, None]).all()  # an LR pixel is one colour, unfiltered
    alternating = (np.abs(np.diff(batch.lr.astype(int), axis=1)) == 255).all((1, 2, 3))
    assert alternating.any()  # single pixels, black and white
    assert (np.ptp(batch.lr, axis=(1, 2)) == 0).all(axis=1).any()  # and flat fields

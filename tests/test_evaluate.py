import json
import math
from pathlib import Path

import av
import numpy as np
import pytest

from videosr.errors import EngineError, InputError
from videosr.evaluate import bicubic, evaluate, list_images, markdown, read_image, to_json
from videosr.metrics import imresize, psnr, ssim, to_y


def write_png(path: Path, image: np.ndarray) -> None:
    with av.open(str(path), "w", format="image2") as container:
        stream = container.add_stream("png", rate=1)
        stream.height, stream.width = image.shape[:2]
        stream.pix_fmt = "rgb24"
        for packet in [*stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")), *stream.encode()]:
            container.mux(packet)


def picture(seed: int, height: int = 44, width: int = 57) -> np.ndarray:
    """Smooth shapes with one hard edge."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    waves = [128 + 90 * np.sin(x * rng.uniform(0.1, 0.6) + y * rng.uniform(0.1, 0.6)) for _ in range(3)]
    image = np.stack(waves, axis=2)
    image[:, width // 2 :] *= 0.5
    return image.astype(np.uint8)


@pytest.fixture
def originals(tmp_path: Path) -> Path:
    folder = tmp_path / "set"
    folder.mkdir()
    for seed in range(3):
        write_png(folder / f"picture{seed}.png", picture(seed))
    return folder


def test_images_come_back_as_written(originals: Path) -> None:
    assert [p.name for p in list_images(originals)] == ["picture0.png", "picture1.png", "picture2.png"]
    assert (read_image(originals / "picture1.png") == picture(1)).all()


@pytest.mark.parametrize("scale", [2, 3])
def test_bicubic_scores_are_those_of_the_definitions(originals: Path, scale: int) -> None:
    result = evaluate(originals, bicubic(scale), scale)
    assert result.mean.name == "set"
    assert [s.name for s in result.images] == ["picture0.png", "picture1.png", "picture2.png"]
    for seed, scores in enumerate(result.images):
        hr = picture(seed)[: 44 // scale * scale, : 57 // scale * scale]
        up = imresize(imresize(hr, 1 / scale), scale)
        assert scores.psnr_rgb == psnr(up, hr)
        assert scores.psnr_y == psnr(to_y(up), to_y(hr), border=scale)
        assert scores.ssim_y == ssim(to_y(up), to_y(hr), border=scale)
    assert result.mean.psnr_y == pytest.approx(np.mean([s.psnr_y for s in result.images]))


def test_output_is_clipped_and_rounded_before_it_is_measured(originals: Path) -> None:
    hr = {imresize(picture(s)[:, :56], 0.5).tobytes(): picture(s)[:, :56] for s in range(3)}

    def oracle(lr: np.ndarray) -> np.ndarray:
        assert lr.dtype == np.float32
        original = hr[np.rint(lr * 255).astype(np.uint8).tobytes()] / 255
        return original + 0.4 / 255 + np.where(original == 0, -3.0, 0)

    result = evaluate(originals, oracle)
    assert result.mean.psnr_rgb == math.inf
    assert result.mean.ssim_y == pytest.approx(1)
    parsed = json.loads(to_json([result]), parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert parsed["images"][0]["mean"]["psnr_rgb"] is None
    assert len(parsed["images"][0]["images"]) == 3


def test_given_inputs_are_used_and_paired_by_name(originals: Path, tmp_path: Path) -> None:
    inputs = tmp_path / "lr"
    inputs.mkdir()
    for seed, suffix in enumerate(("", "x2", "")):
        write_png(inputs / f"picture{seed}{suffix}.png", imresize(picture(seed)[:, :56], 0.5))
    assert evaluate(originals, bicubic(2), lr_folder=inputs) == evaluate(originals, bicubic(2))
    write_png(inputs / "picture2.png", picture(2, 22, 30))
    with pytest.raises(InputError, match=r"picture2\.png.*not 1/2"):
        evaluate(originals, bicubic(2), lr_folder=inputs)
    (inputs / "picture2.png").unlink()
    with pytest.raises(InputError, match="no partner picture2 or picture2x2"):
        evaluate(originals, bicubic(2), lr_folder=inputs)


def test_inputs_of_one_name_belong_to_the_folder_they_are_in(tmp_path: Path) -> None:
    for seed, clip in enumerate(("a", "b")):
        for name, image in (("hr", picture(seed)), ("lr", imresize(picture(seed)[:, :56], 0.5))):
            (tmp_path / name / clip).mkdir(parents=True)
            write_png(tmp_path / name / clip / "0001.png", image)
    hr, lr = tmp_path / "hr", tmp_path / "lr"
    assert evaluate(hr, bicubic(2), lr_folder=lr) == evaluate(hr, bicubic(2))
    (lr / "a").rename(lr / "c")
    with pytest.raises(InputError, match=r"may be made of it"):
        evaluate(hr, bicubic(2), lr_folder=lr)


def test_names_may_look_like_addresses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_png(tmp_path / "12:30.png", picture(0))
    monkeypatch.chdir(tmp_path)
    assert len(evaluate(Path(), bicubic(2)).images) == 1


def test_the_table_has_a_row_a_set(originals: Path) -> None:
    result = evaluate(originals, bicubic(2), model="bicubic")
    lines = markdown([result, result]).splitlines()
    assert len(lines) == 4
    m = result.mean
    assert lines[2] == f"| set | 3 | bicubic | {m.psnr_rgb:.2f} | {m.psnr_y:.2f} | {m.ssim_y:.4f} |"


def test_a_wrong_scale_is_named(originals: Path) -> None:
    with pytest.raises(EngineError, match="is the scale 2"):
        evaluate(originals, bicubic(4))


def test_unusable_files_and_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not a folder"):
        evaluate(tmp_path / "nowhere", bicubic(2))
    with pytest.raises(InputError, match="no image"):
        evaluate(tmp_path, bicubic(2))
    (tmp_path / "text.png").write_text("not a picture")
    with pytest.raises(InputError, match=r"text\.png: cannot be read as an image"):
        evaluate(tmp_path, bicubic(2))
    (tmp_path / "text.png").unlink()
    broken = tmp_path / "broken.jpg"
    av.VideoFrame.from_ndarray(picture(0), format="rgb24").save(broken)
    assert read_image(broken).shape == (44, 57, 3)
    broken.write_bytes(broken.read_bytes()[:-400])
    with pytest.raises(InputError, match=r"broken\.jpg: cannot be read as an image"):  # and not: grey from there on
        evaluate(tmp_path, bicubic(2))
    broken.unlink()
    write_png(tmp_path / "text.png", picture(0, 12, 60))
    with pytest.raises(InputError, match="60x12 pixels are too few"):
        evaluate(tmp_path, bicubic(2))

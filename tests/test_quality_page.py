"""The page that says how good the networks are: `scripts/quality_page.py`."""

import importlib
from pathlib import Path
from types import ModuleType

import pytest

SCRIPTS = Path(__file__).parent.parent / "scripts"


@pytest.fixture
def page(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    return importlib.import_module("quality_page")


def image(model: str, folder: str, images: int, y: float) -> tuple[str, dict[str, object]]:
    key = f"images | 2x | {folder} 0123 | {model if model == 'bicubic' else model + ' abcd'}"
    return key, {"images": images, "psnr_rgb": y - 1, "psnr_y": y, "ssim_y": 0.9}


def clip(model: str, crf: float, psnr: float, vmaf: float) -> tuple[str, dict[str, object]]:
    key = f"clip | 2x | a.mp4 0123 | {model if model == 'bicubic' else model + ' abcd'} | CRF {crf} | 4 frames"
    row = {"clip": "a.mp4", "model": model, "crf": crf, "frames": 4, "psnr": psnr, "psnr_y": psnr}
    return key, row | {"psnr_cb": 40.0, "psnr_cr": 40.0, "ssim_y": 0.9, "vmaf": vmaf, "vmaf_neg": vmaf} | {
        "flicker": None,
        "motion": 0.1,
    }


def timed(clip: str, off: tuple[float, float], on: tuple[float, float], grain: float) -> tuple[str, dict[str, object]]:
    def cell(pair: tuple[float, float], kept: float | None = None) -> dict[str, float | None]:
        return {"psnr": pair[0], "flicker": pair[1], "grain": kept}

    same = {"off": cell((30, 1)), "adaptive": cell((30, 1))}
    noise = {"off": cell(off), "adaptive": cell(on)}
    film = {"off": cell((30, 1), 1.0), "adaptive": cell((30, 1), grain)}
    return f"time | 2x | {clip} 0123 | realtime-2x abcd | 4 frames", {"clean": same, "noise": noise, "grain": film}


def written(page: ModuleType, path: Path, *rows: tuple[str, dict[str, object]]) -> str:
    page.write(path, page.Measured(dict(rows), {"bicubic", "realtime-2x abcd", "stream-2x-video abcd"}))
    return path.read_text()


def line(text: str, beginning: str) -> str:
    return next(x for x in text.splitlines() if x.startswith(beginning))


def test_what_is_written_by_hand_stays(page: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "quality.md"
    path.write_text(f"# Mine\n\nbefore\n\n{page.BEGIN}\nold figures\n{page.END}\n\nafter\n")
    text = written(page, path, image("bicubic", "Set5", 5, 33.67))
    assert text.startswith("# Mine\n\nbefore\n\n")
    assert text.endswith(f"{page.END}\n\nafter\n")
    assert "old figures" not in text
    assert written(page, path, image("bicubic", "Set5", 5, 33.67)) == text


def test_bars_are_met_missed_or_open(page: ModuleType, tmp_path: Path) -> None:
    rows = [
        image("realtime-2x", "Set5", 5, 37.04),
        image("realtime-2x", "B100", 100, 31.4),
        image("realtime-2x", "CUrban100", 8, 35.0),  # eight images of a hundred prove nothing
        clip("bicubic", 28.0, 30, 60),
        clip("stream-2x-video", 28.0, 31, 59),
        *(timed(name, (28, 6), (28.4, 3), 0.97) for name in ("calendar", "city", "foliage", "walk")),
    ]
    text = written(page, tmp_path / "quality.md", *rows)
    assert line(text, "| realtime-2x: Set5 Y").endswith("| 37.04 | met |")
    assert line(text, "| realtime-2x: B100 Y").endswith("| 31.40 | **open**: 0.10 short |")
    assert line(text, "| realtime-2x: Urban100 RGB").endswith("| - | **open**: not obtained |")
    assert line(text, "| stream-2x: Set5 Y").endswith("| - | **open**: not obtained |")
    assert line(text, "| stream-2x-video over bicubic, CRF 28").endswith(
        "| +1.00 dB, -1.0; both on 0 of 1 clips | **open** |"
    )
    assert line(text, "| stream-2x-video over stream-2x, CRF 28").endswith("| - | **open**: not obtained |")
    assert line(text, "| realtime-2x: noise of sigma 4, adaptive").endswith("| +0.40 dB | met |")
    assert line(text, "| realtime-2x: noise of sigma 4, flicker").endswith("| 50% less | met |")
    assert line(text, "| realtime-2x: grain kept").endswith("| 97.0% | met |")
    assert "grain kept |" not in written(page, tmp_path / "quality.md", *rows[:-1])


def test_figures_of_networks_that_are_not_shipped_any_more_are_left_out(page: ModuleType, tmp_path: Path) -> None:
    key, row = image("realtime-2x", "Set5", 5, 36.0)
    old = key.replace("abcd", "old0"), row
    text = written(page, tmp_path / "quality.md", old, image("realtime-2x", "Set5", 5, 37.04))
    assert "36.00" not in text
    assert "| **realtime-2x** | 17 k | 37.04 | - | - | - | - |" in text

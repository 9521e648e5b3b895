from fractions import Fraction

import pytest
from clips import make_clip
from doubling import LOSSLESS, double

from videosr.frame import ColorSpec, Matrix, PixelFormat, Range, Siting
from videosr.media.checks.verify import verify
from videosr.media.colorinfo import resolve_color, tagged_color
from videosr.media.decoder import Decoder

YUV420, YUV444, RGB = (PixelFormat.parse(n) for n in ("yuv420p", "yuv444p", "gbrp"))


@pytest.mark.parametrize(
    ("height", "width", "primaries", "matrix"),
    [
        (480, 720, 2, Matrix.SMPTE170M),
        (576, 720, 2, Matrix.BT470BG),
        (288, 352, 2, Matrix.BT470BG),
        (480, 1024, 2, Matrix.SMPTE170M),
        (576, 1025, 2, Matrix.BT709),
        (577, 720, 2, Matrix.BT709),
        (2160, 3840, 2, Matrix.BT709),
        (2160, 3840, 9, Matrix.BT2020_NCL),
    ],
)
def test_untagged_matrix_follows_the_size(height, width, primaries, matrix):
    color, guesses = resolve_color(ColorSpec(primaries=primaries), YUV420, height, width)
    assert color.matrix == matrix
    assert color.primaries == primaries  # never guessed
    assert any(matrix.name in guess for guess in guesses)


def test_tags_win_over_guesses():
    tagged = ColorSpec(matrix=Matrix.BT709, range=Range.FULL, primaries=1, transfer=13, siting=Siting.TOPLEFT)
    assert resolve_color(tagged, YUV420, 480, 640) == (tagged, [])


def test_untagged_range_is_limited_for_video_and_full_for_rgb():
    assert resolve_color(ColorSpec(), YUV420, 480, 640)[0].range == Range.LIMITED
    color, guesses = resolve_color(ColorSpec(), RGB, 480, 640)
    assert (color.matrix, color.range, color.siting) == (Matrix.RGB, Range.FULL, Siting.UNSPECIFIED)
    assert guesses == []


def test_jpeg_like_video_is_full_range_601_with_centred_chroma():
    color, _ = resolve_color(ColorSpec(), YUV420, 1080, 1920, codec="mjpeg", full_range_format=True)
    assert (color.matrix, color.range, color.siting) == (Matrix.BT470BG, Range.FULL, Siting.CENTER)


def test_full_range_says_nothing_of_the_matrix_of_video():
    color, _ = resolve_color(ColorSpec(), YUV420, 1080, 1920, codec="h264", full_range_format=True)
    assert (color.matrix, color.range) == (Matrix.BT709, Range.FULL)
    assert resolve_color(ColorSpec(), YUV420, 480, 640, codec="h264", full_range_format=True)[0].matrix == 6


@pytest.mark.parametrize("suffix", ["mkv", "avi"])
@pytest.mark.parametrize(("codec", "matrix"), [("libx264", Matrix.BT709), ("mjpeg", Matrix.BT470BG)])
def test_large_video_of_full_range_without_a_matrix(tmp_path, codec, matrix, suffix):
    source = make_clip(
        tmp_path / f"in.{suffix}",
        frames=4,
        width=64,
        height=578,
        time_base=Fraction(1, 24),
        codec=codec,
        color=(2, 2, 2, 2, 0),
    )
    with Decoder(source) as decoder:
        assert (decoder.info.color.matrix, decoder.info.color.range) == (matrix, Range.FULL)
    double(source, tmp_path / "out.mkv", settings=LOSSLESS)
    assert verify(source, tmp_path / "out.mkv").problems == []


@pytest.mark.parametrize("codec", ["webp", "webp_anim"])
def test_chroma_of_webp_is_centred_moving_or_not(codec):
    assert resolve_color(ColorSpec(), YUV420, 480, 640, codec=codec)[0].siting == Siting.CENTER


def test_siting_of_wide_gamut_is_top_left_and_has_no_meaning_without_subsampling():
    assert resolve_color(ColorSpec(matrix=Matrix.BT2020_NCL), YUV420, 2160, 3840)[0].siting == Siting.TOPLEFT
    assert resolve_color(ColorSpec(siting=Siting.LEFT), YUV444, 480, 640)[0].siting == Siting.UNSPECIFIED


def test_reserved_code_points_count_as_untagged():
    assert tagged_color(3, 7, 0, 3, 99) == ColorSpec()

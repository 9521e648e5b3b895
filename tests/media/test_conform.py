"""Video that changes its size or format midway comes out in one size, its shape on the screen kept."""

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from clips import make_clip

from videosr.color import to_rgb
from videosr.errors import InputError
from videosr.frame import ColorSpec, Frame, Matrix, PixelFormat, Range, Siting, StreamInfo
from videosr.media.checks.verify import verify
from videosr.media.conform import Conformer, fitted
from videosr.media.decoder import Decoder

SD = ColorSpec(matrix=Matrix.SMPTE170M, range=Range.LIMITED, siting=Siting.LEFT)
HD = ColorSpec(matrix=Matrix.BT709, range=Range.LIMITED, siting=Siting.LEFT)


def info(width, height, sar=Fraction(1), pix_fmt="yuv420p", color=SD):
    return StreamInfo(
        width=width, height=height, format=PixelFormat.parse(pix_fmt), time_base=Fraction(1, 25), color=color, sar=sar
    )


def flat(width, height, codes, sar=Fraction(1), pix_fmt="yuv420p", color=SD):
    fmt = PixelFormat.parse(pix_fmt)
    planes = tuple(np.full(fmt.plane_shape(i, height, width), code, fmt.dtype) for i, code in enumerate(codes))
    return Frame(planes=planes, format=fmt, pts=7, time_base=Fraction(1, 25), color=color, sar=sar)


@pytest.mark.parametrize(
    ("size", "sar", "into", "fit"),
    [
        ((1280, 720), 1, info(640, 360), (640, 360)),
        ((720, 576), Fraction(16, 15), info(1920, 1080), (1440, 1080)),  # 4:3 in 16:9: beside it
        ((1920, 1080), 1, info(720, 576, Fraction(16, 15)), (720, 432)),  # 16:9 in 4:3: above and below
        ((720, 576), Fraction(64, 45), info(1920, 1080), (1920, 1080)),
        ((1920, 1088), 1, info(1920, 1080), (1920, 1080)),  # rounding is no change of shape
        ((64, 4000), 1, info(64, 48), (2, 48)),
    ],
)
def test_the_shape_on_the_screen_stays(size, sar, into, fit):
    assert fitted(flat(*size, (0, 0, 0), Fraction(sar)), into) == fit


def test_what_is_as_it_should_be_passes_untouched():
    frame = flat(64, 48, (100, 110, 120))
    (made,) = Conformer(info(64, 48)).process(frame)
    assert made is frame


@pytest.mark.parametrize(("width", "height"), [(96, 48), (48, 48), (61, 47)])
@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv422p10le", "yuva420p", "gbrp"])
def test_the_rest_is_black(width, height, pix_fmt):
    color = ColorSpec(matrix=Matrix.RGB, range=Range.FULL) if pix_fmt == "gbrp" else SD
    stream = info(64, 48, pix_fmt=pix_fmt, color=color)
    (made,) = Conformer(stream).process(flat(width, height, (150, 100, 140)))
    assert (made.width, made.height, made.format, made.color, made.pts) == (64, 48, stream.format, color, 7)
    assert made.sar == 1
    step = 1 << stream.format.bits - 8
    fit = fitted(flat(width, height, (0, 0, 0)), stream)
    luma = made.planes[0]
    inside = luma != luma[-1, -1] if fit != (64, 48) else np.ones_like(luma, bool)
    assert abs(inside.sum() - fit[0] * fit[1]) <= 64 + 48
    if pix_fmt != "gbrp":
        black, middle = (16 * step, 150 * step) if fit != (64, 48) else (150 * step, 150 * step)
        assert abs(int(luma[-1, -1]) - black) <= step
        assert abs(int(luma[24, 32]) - middle) <= step
        assert abs(int(made.planes[1][made.planes[1].shape[0] // 2, 16]) - 100 * step) <= step
    if stream.format.alpha:
        assert (made.planes[3] == 255).all()


def test_colour_is_brought_to_the_streams():
    # Pure blue, by BT.709 and by BT.601 (ITU-R BT.709, BT.601: Y = 16 + 219 Kb, Cb = 240).
    blue = flat(64, 48, (round(16 + 219 * 0.0722), 240, round(128 - 224 * 0.0722 / 1.5748)), color=HD)
    (made,) = Conformer(info(64, 48)).process(blue)
    wanted = (16 + 219 * 0.114, 240, 128 - 224 * 0.114 / 1.402)
    assert all(abs(float(p.mean()) - w) < 1.5 for p, w in zip(made.planes, wanted, strict=True))


def joined(folder, *parts):
    """Streams of different pictures in one file, as a recording has them."""
    path = folder / "joined.ts"
    clock = {"time_base": Fraction(1, 25), "rate": Fraction(25)}
    clips = (
        make_clip(folder / f"{n}.ts", pts=range(6 * n, 6 * n + 6), **clock, **part) for n, part in enumerate(parts)
    )
    path.write_bytes(b"".join(clip.read_bytes() for clip in clips))
    return path


@pytest.mark.parametrize(
    "change", [{"width": 96}, {"width": 48, "height": 36}, {"pix_fmt": "yuv422p"}, {"pix_fmt": "yuv420p10le"}]
)
def test_a_recording_that_changes_midway_is_made_whole(tmp_path, change, videosr):
    source = joined(tmp_path, {}, change, {})
    output = tmp_path / "out.mkv"
    done = videosr("upscale", source, output, "--preset", "ultrafast")
    assert done.code == 0, done.err
    assert "the picture changes from 64x48 yuv420p to" in done.err
    with Decoder(output) as decoder:
        frames = list(decoder)
    assert len(frames) == 18
    assert {(f.width, f.height, f.format.name) for f in frames} == {(128, 96, "yuv420p")}
    bars = [int(f.planes[0][:12].max()) < 40 for f in frames]
    assert bars == [change == {"width": 96} and 6 <= n < 12 for n in range(18)]
    means = [float(f.planes[0][24:72, 24:104].mean()) for f in frames]
    assert abs(np.mean(means[6:12]) - np.mean(means[:6])) < 25
    assert verify(source, output).problems == []
    done = videosr("upscale", source, tmp_path / "strict.mkv", "--strict")
    assert done.code == 1
    assert "split the file there" in done.err
    assert not (tmp_path / "strict.mkv").exists()


def test_the_frames_own_shape_is_known(tmp_path):
    source = joined(tmp_path, {"sar": Fraction(4, 3)}, {"width": 96, "sar": Fraction(8, 9)})
    with Decoder(source, follow=True) as decoder:
        frames = list(decoder)
        assert any("fitted into" in line for line in decoder.warnings)
    assert [(f.width, f.sar) for f in frames[::11]] == [(64, Fraction(4, 3)), (96, Fraction(8, 9))]
    whole = replace(info(64, 48), sar=Fraction(4, 3))
    assert {fitted(f, whole) for f in frames} == {(64, 48)}


@pytest.mark.parametrize("codec", ["libx264", "mpeg2video", "libx265"])
@pytest.mark.parametrize("threads", [1, 3])
def test_a_change_of_the_pixels_shape_alone_is_seen_at_its_frame(tmp_path, codec, threads):
    """With B-frames, the decoder has met the new shape before it gives the last frames of the old one."""
    options = {
        "libx264": {"x264-params": "bframes=2"},
        "mpeg2video": {"bf": "2"},
        "libx265": {"x265-params": "bframes=2:log-level=none"},
    }
    wide, square = Fraction(4, 3), Fraction(1)
    parts = [{"codec": codec, "options": options[codec], "sar": sar} for sar in (wide, square, wide)]
    source = joined(tmp_path, *parts)
    with Decoder(source, follow=True, threads=threads) as decoder:
        frames = list(decoder)
        said = [line for line in decoder.warnings if "with pixels of 1:1" in line]
    assert [f.sar for f in frames] == [wide] * 6 + [square] * 6 + [wide] * 6
    assert len(said) == 1
    with pytest.raises(InputError, match=r"with pixels of 1:1 .*split the file there"), Decoder(source) as decoder:
        list(decoder)
    stage = Conformer(replace(info(64, 48), sar=wide))
    made = [out for frame in frames for out in stage.process(frame)]
    bars = [int(f.planes[0][:, :6].max()) == 16 for f in made]
    assert bars == [False] * 6 + [True] * 6 + [False] * 6


def test_verify_knows_of_a_change_of_the_pixels_shape(tmp_path, videosr):
    wide, square = {"sar": Fraction(4, 3)}, {"sar": Fraction(2, 3)}
    source = joined(tmp_path, *(part | {"options": {"x264-params": "bframes=2"}} for part in (wide, square, wide)))
    done = videosr("upscale", source, tmp_path / "out.mkv", "--preset", "ultrafast")
    assert done.code == 0, done.err
    assert "with pixels of 2:3" in done.err
    assert verify(source, tmp_path / "out.mkv").problems == []


BT601, BT709, FULL = (6, 1, 6, 6, 1), (1, 1, 1, 1, 1), (6, 2, 6, 6, 1)
"""Matrix, range, primaries, transfer and siting as code points."""
UNSAID = (2, 0, 2, 2, 0)


@pytest.mark.parametrize(
    ("color", "said"), [(BT709, "matrix smpte170m to bt709, primaries 6 to 1"), (FULL, "range limited to full")]
)
def test_a_change_of_colour_alone_is_seen_and_made_good(tmp_path, color, said, videosr):
    source = joined(tmp_path, {"color": BT601}, {"color": color}, {"color": BT601})
    with Decoder(source, follow=True) as decoder:
        frames, stream = list(decoder), decoder.info
        assert [line for line in decoder.warnings if "colour changes" in line and f"({said})" in line]
    assert [f.color == stream.color for f in frames] == [n // 6 != 1 for n in range(18)]
    stage = Conformer(stream)
    made = [out for frame in frames for out in stage.process(frame)]
    for was, now in zip(frames, made, strict=True):
        assert now.color == stream.color
        rgb, wanted = (to_rgb(f.planes, f.format, f.color) for f in (now, was))
        assert np.abs(rgb - wanted).mean() < 0.02
    output = tmp_path / "out.mkv"
    done = videosr("upscale", source, output, "--preset", "ultrafast")
    assert done.code == 0, done.err
    assert said in done.err
    assert verify(source, output).problems == []
    done = videosr("upscale", source, tmp_path / "strict.mkv", "--strict")
    assert done.code == 1
    assert "split the file there" in done.err
    assert not (tmp_path / "strict.mkv").exists()


@pytest.mark.parametrize(
    "parts",
    [
        (BT709, UNSAID, BT709, UNSAID),  # said now and then
        (BT601, (5, 1, 6, 1, 1), (6, 1, 7, 14, 1)),  # other names of the same (H.273, tables 2 to 4)
        (UNSAID, (6, 1, 6, 6, 1), UNSAID),  # what was assumed is said later
    ],
)
@pytest.mark.parametrize("codec", ["libx264", "mpeg2video"])
def test_what_is_read_alike_is_no_change_of_colour(tmp_path, parts, codec):
    source = joined(tmp_path, *({"color": color, "codec": codec} for color in parts))
    with Decoder(source) as decoder:
        frames = list(decoder)
        assert not [line for line in decoder.warnings if "changes" in line]
    assert len(frames) == 6 * len(parts)
    assert {f.color for f in frames} == {decoder.info.color}


def test_what_cannot_be_converted_stays_as_it_is_coded():
    frame = flat(64, 48, (100, 110, 120), color=replace(SD, primaries=6, transfer=6))
    (made,) = Conformer(info(64, 48, color=replace(SD, primaries=9, transfer=16))).process(frame)
    assert (made.color.primaries, made.color.transfer) == (9, 16)
    assert all(a is b for a, b in zip(made.planes, frame.planes, strict=True))


def test_what_says_nothing_is_as_what_came_before(tmp_path):
    source = joined(tmp_path, *({"color": color} for color in (BT601, BT709, UNSAID)))
    with Decoder(source, follow=True) as decoder:
        assert [f.color.matrix for f in decoder] == [Matrix.SMPTE170M] * 6 + [Matrix.BT709] * 12

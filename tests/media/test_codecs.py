import struct
from dataclasses import replace
from fractions import Fraction

import pytest

from videosr.errors import UsageError
from videosr.frame import ColorSpec, Matrix, PixelFormat, Range, Siting, StreamInfo
from videosr.media.codecs import EncoderSettings, alpha_note, avoptions, notes, output_info, resolve
from videosr.media.containers import container_format
from videosr.media.hdr import MasteringDisplay, encoder_parameters, unwritten

INFO = StreamInfo(
    width=128,
    height=96,
    format=PixelFormat.parse("yuv420p"),
    time_base=Fraction(1, 1000),
    rate=Fraction(24),
    color=ColorSpec(matrix=Matrix.BT709, range=Range.LIMITED, siting=Siting.LEFT),
)
MASTERING = struct.pack(
    "=20i2i",
    *(34000, 50000, 16000, 50000, 13250, 50000, 34500, 50000, 7500, 50000, 3000, 50000, 15635, 50000, 16450, 50000),
    *(50, 10000, 10000000, 10000, 1, 1),
)
HDR = (("CONTENT_LIGHT_LEVEL", struct.pack("=2I", 1000, 400)), ("MASTERING_DISPLAY_METADATA", MASTERING))


def with_format(name, **changes):
    return replace(INFO, format=PixelFormat.parse(name), **changes)


@pytest.mark.parametrize(
    ("fmt", "container", "codec", "pix_fmt"),
    [
        ("yuv420p", "matroska", "libx264", "yuv420p"),
        ("yuv444p", "mp4", "libx264", "yuv444p"),
        ("yuv420p10le", "mp4", "libx265", "yuv420p10le"),
        ("yuv422p12le", "matroska", "libx265", "yuv422p12le"),
        ("yuv420p16le", "matroska", "libx265", "yuv420p12le"),
        ("gbrp", "matroska", "libx264", "yuv444p"),
        ("gray", "matroska", "libx264", "gray"),
        ("yuv420p", "webm", "libsvtav1", "yuv420p"),
        ("yuv420p10le", "webm", "libsvtav1", "yuv420p10le"),
        ("yuv444p", "webm", "libvpx-vp9", "yuv444p"),
    ],
)
def test_default_codec_follows_depth_and_container(fmt, container, codec, pix_fmt):
    settings = resolve(EncoderSettings(), with_format(fmt), container)
    assert (settings.codec, settings.pix_fmt) == (codec, pix_fmt)
    assert settings.segmented
    assert resolve(settings, with_format(fmt), container) == settings


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"codec": "libx246"}, "libx246.*did you mean libx26"),
        ({"codec": "aac"}, "not a video encoder"),
        ({"codec": "libvpx-vp9", "preset": "slow"}, "not a preset of libvpx-vp9"),
        ({"crf": 60.0}, r"--crf 60: out of range for libx264 \(0 to 51\)"),
        ({"codec": "ffv1", "crf": 3.0}, "no such scale"),
        ({"preset": "fats"}, "--preset fats.*fast"),
        ({"pix_fmt": "gbrp"}, "not a format of libx264"),
        ({"pix_fmt": "yuv420q"}, "--pix-fmt yuv420q"),
        ({"options": (("tuen", "film"),)}, "-x tuen.*did you mean tune"),
        ({"options": (("tune", "flim"),)}, "libx264 refuses"),
        ({"options": (("refs", "many"),)}, "libx264 refuses"),
        ({"options": (("x264-params", "reff=3"),)}, "reff"),
        ({"codec": "libx265", "options": (("x265-params", "reff=3"),)}, "reff"),
        ({"codec": "libsvtav1", "options": (("svtav1-params", "tuun=3"),)}, "tuun"),
        ({"codec": "libx265", "options": (("x265-params", "open-gop=1"),)}, "could not be joined"),
        ({"options": (("crf", "3"),)}, "is --crf"),
        ({"options": (("ar", "48000"),)}, "-x ar"),
    ],
)
def test_wrong_settings_are_refused_before_work_starts(asked, message):
    with pytest.raises(UsageError, match=message) as caught:
        resolve(EncoderSettings(**asked), INFO, "matroska")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("codec", "container"), [("libx264", "webm"), ("libsvtav1", "mov"), ("libvpx-vp9", "mov"), ("dnxhd", "matroska")]
)
def test_a_codec_that_the_container_cannot_hold_is_refused(codec, container):
    with pytest.raises(UsageError, match=f"cannot be stored in a {container} file"):
        resolve(EncoderSettings(codec=codec), INFO, container)


def test_colours_are_not_lost_for_want_of_a_format():
    with pytest.raises(UsageError, match="--codec qtrle: has no pixel format for yuv420p"):
        resolve(EncoderSettings(codec="qtrle"), INFO, "mov")
    settings = resolve(EncoderSettings(pix_fmt="gray"), with_format("yuv444p"), "matroska")
    assert notes(settings, with_format("yuv444p")) == ["the colours are lost: gray has none"]


@pytest.mark.parametrize(
    ("fmt", "profile"),
    [("yuv420p", "dnxhr_hq"), ("yuv422p", "dnxhr_hq"), ("yuv420p10le", "dnxhr_hqx"), ("yuv444p10le", "dnxhr_444")],
)
def test_dnxhr_is_chosen_for_every_size_and_depth(fmt, profile):
    settings = resolve(EncoderSettings(codec="dnxhd"), with_format(fmt, width=512, height=256), "mov")
    assert dict(settings.options)["profile"] == profile


@pytest.mark.parametrize(("size", "pix_fmt"), [((129, 96), "yuv444p"), ((128, 97), "yuv422p"), ((128, 96), "yuv420p")])
def test_odd_sizes_get_a_format_that_can_code_them(size, pix_fmt):
    info = with_format("yuv420p", width=size[0], height=size[1])
    assert resolve(EncoderSettings(), info, "matroska").pix_fmt == pix_fmt
    if pix_fmt != "yuv420p":
        with pytest.raises(UsageError, match="odd size"):
            resolve(EncoderSettings(pix_fmt="yuv420p"), info, "matroska")


@pytest.mark.parametrize(
    "options",
    [
        (("b", "1000000"),),
        (("maxrate", "1000000"), ("bufsize", "2000000")),
        (("x264-params", "vbv-maxrate=1000:vbv-bufsize=1000"),),
    ],
)
def test_rate_modes_that_span_the_file_are_not_segmented_and_say_so(options):
    settings = resolve(EncoderSettings(options=options), INFO, "matroska")
    assert not settings.segmented
    assert any("without segments" in line for line in notes(settings, INFO))


def test_what_the_user_asks_for_reaches_the_encoder():
    asked = EncoderSettings(
        codec="hevc", crf=21.5, preset="fast", options=(("x265-params", "aq-mode=3"), ("refs", "2"))
    )
    settings = resolve(asked, INFO, "mp4")
    options = avoptions(settings)
    assert settings.codec == "libx265"
    assert (options["crf"], options["preset"], options["refs"]) == ("21.5", "fast", "2")
    assert "aq-mode=3" in options["x265-params"].split(":")
    assert "open-gop=0" in options["x265-params"].split(":")


def test_hdr_metadata_becomes_encoder_parameters():
    assert encoder_parameters("libx265", HDR) == {
        "master-display": "G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,50)",
        "max-cll": "1000,400",
    }
    assert encoder_parameters("libsvtav1", HDR)["content-light"] == "1000,400"
    assert encoder_parameters("libx264", HDR) == {}
    assert MasteringDisplay.parse(MASTERING[:-8] + bytes(8)) is None
    assert unwritten("libx265", HDR) == []
    assert [what for what, _ in unwritten("libx264", HDR)] == ["content light level", "mastering metadata"]
    partial = (HDR[0], ("MASTERING_DISPLAY_METADATA", MASTERING[:-8] + bytes(8)))
    assert unwritten("libx265", partial) == [("mastering metadata", "it is incomplete")]
    assert unwritten("libx264", (("CONTENT_LIGHT_LEVEL", bytes(8)),)) == []
    settings = resolve(EncoderSettings(codec="libsvtav1"), with_format("yuv420p10le"), "mp4", hdr=HDR)
    assert "content-light=1000,400" in avoptions(settings)["svtav1-params"]


def test_lookahead_is_bounded_by_memory_only_where_pictures_are_large():
    small = avoptions(resolve(EncoderSettings(), INFO, "matroska"))
    large = avoptions(resolve(EncoderSettings(), replace(INFO, width=3840, height=2160), "matroska"))
    assert "rc-lookahead" not in small["x264-params"]
    assert "rc-lookahead=12" in large["x264-params"].split(":")


def test_losses_of_the_pixel_format_are_named():
    info = with_format("yuva444p16le")
    settings = resolve(EncoderSettings(), info, "matroska")
    lines = notes(settings, info)
    assert [line for line in alpha_note(settings, info) if "the alpha plane is lost: yuv444p12le" in line]
    assert alpha_note(replace(settings, pix_fmt="yuva444p16le"), info) == []
    assert any("16 bits become 12 bits" in line for line in lines)
    plain = resolve(EncoderSettings(), INFO, "matroska")
    assert notes(plain, INFO) == []
    assert any("HDR" in line for line in notes(plain, INFO, HDR))
    assert notes(resolve(EncoderSettings(codec="hevc"), INFO, "matroska", hdr=HDR), INFO, HDR) == []


def test_a_change_of_family_is_named():
    for name, wanted in (
        ("gbrp", EncoderSettings()),
        ("yuv444p10le", EncoderSettings(codec="ffv1", pix_fmt="gbrp10le")),
    ):
        info = with_format(name)
        settings = resolve(wanted, info, "matroska")
        (line,) = notes(settings, info)
        assert ("R'G'B' becomes Y'CbCr" if name == "gbrp" else "Y'CbCr becomes R'G'B'") in line
        assert settings.pix_fmt in line
    kept = with_format("gbrp")
    assert notes(resolve(EncoderSettings(codec="ffv1"), kept, "matroska"), kept) == []


def test_colour_changes_only_with_the_family():
    settings = resolve(EncoderSettings(), INFO, "matroska")
    assert output_info(settings, INFO) == INFO
    rgb = with_format("gbrp", color=ColorSpec(matrix=Matrix.RGB, range=Range.FULL, primaries=1, transfer=13))
    made = output_info(resolve(EncoderSettings(), rgb, "matroska"), rgb)
    assert made.color.matrix == Matrix.BT709
    assert (made.color.primaries, made.color.transfer) == (1, 13)


@pytest.mark.parametrize(
    ("name", "container"),
    [("a.mkv", "matroska"), ("a.MP4", "mp4"), ("mov", "mov"), (".webm", "webm"), ("a.JPG", "image")],
)
def test_container_by_suffix(name, container):
    assert container_format(name) == container


def test_unknown_suffix_names_the_known_ones():
    with pytest.raises(UsageError, match=r"a\.wmv.*mkv, mp4"):
        container_format("a.wmv")


@pytest.mark.parametrize(("size", "slices"), [((7680, 4320), "24"), ((15360, 8640), "81"), ((32768, 32), "24")])
def test_ffv1_of_any_size_has_slices_that_its_encoder_takes(size, slices):
    info = with_format("yuva444p12le", width=size[0], height=size[1])
    assert dict(resolve(EncoderSettings(codec="ffv1"), info, "matroska").options)["slices"] == slices


def test_alpha_that_vp9_would_have_beside_its_packets_is_lost_by_name():
    info = with_format("yuva420p")
    settings = resolve(EncoderSettings(codec="libvpx-vp9"), info, "webm")
    assert settings.pix_fmt == "yuv420p"
    assert any("alpha" in line for line in alpha_note(settings, info))


@pytest.mark.parametrize(
    ("codec", "options"),
    [
        ("libx265", (("x265-params", "bitrate=300:pass=1"),)),
        ("libx264", (("x264-params", "bitrate=300:pass=2:stats=a.log"),)),
    ],
)
def test_two_passes_are_refused(codec, options):
    with pytest.raises(UsageError, match="-x pass: videosr encodes once"):
        resolve(EncoderSettings(codec=codec, options=options), INFO, "matroska")


@pytest.mark.parametrize("rate", [None, Fraction(1000), Fraction(24)])
def test_svt_av1_takes_video_of_any_rate(rate):
    fast = replace(INFO, rate=rate)
    assert resolve(EncoderSettings(), fast, "webm").codec == "libsvtav1"

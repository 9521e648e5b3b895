"""NVENC: settings, refusals, and how pictures on the GPU are given to it; arrays of the host stand for the GPU's."""

from __future__ import annotations

import gc
from dataclasses import replace
from fractions import Fraction

import av
import numpy as np
import pytest
from clips import picture

from videosr.errors import OutputError, UsageError
from videosr.frame import ColorSpec, Frame, Matrix, PixelFormat, Range, Siting, StreamInfo
from videosr.media import codecs, encoder, nvenc
from videosr.media.codecs import EncoderSettings, avoptions, configure, resolve
from videosr.media.encoders import NVENC
from videosr.media.nvenc import gpu_picture, takes_gpu_frames
from videosr.media.planes import PlaneReader
from videosr.media.segments import Segment

TICK = Fraction(1, 25)
COLOR = ColorSpec(matrix=Matrix.BT709, range=Range.LIMITED, primaries=1, transfer=1, siting=Siting.LEFT)


def info(name="yuv420p", width=64, height=48):
    return StreamInfo(
        width=width,
        height=height,
        format=PixelFormat.parse(name),
        time_base=Fraction(1, 25),
        rate=Fraction(25),
        color=COLOR,
    )


@pytest.fixture
def opened(monkeypatch):
    """Settings are checked in all but opening the encoder, which takes a card that has one."""
    monkeypatch.setattr(codecs, "_try_open", lambda settings, info: None)


@pytest.mark.parametrize("name", ["yuv420p", "yuv420p10le"])
@pytest.mark.parametrize("size", [(48, 64), (50, 70)])
def test_pictures_are_laid_out_as_nvenc_reads_them(name, size):
    fmt = PixelFormat.parse(name)
    planes = picture(3, fmt, *size)
    made = gpu_picture(planes, fmt)
    assert made.format.name == {"yuv420p": "nv12", "yuv420p10le": "p010le"}[name]
    luma, chroma = made.planes
    assert chroma.buffer_ptr == luma.buffer_ptr + luma.line_size * size[0]  # one address is all it is given
    assert luma.line_size == chroma.line_size
    del luma, chroma
    gc.collect()
    for plane, wanted in zip(PlaneReader().read(made, fmt), planes, strict=True):
        assert np.array_equal(plane, wanted)
    before = [plane.copy() for plane in planes]
    del planes
    gc.collect()
    assert all(np.array_equal(a, b) for a, b in zip(PlaneReader().read(made, fmt), before, strict=True))


@pytest.mark.parametrize("codec", sorted(NVENC))
def test_settings_are_constant_quality_in_closed_groups(opened, codec):
    settings = resolve(EncoderSettings(codec=codec), info(), "matroska")
    assert settings.segmented
    assert settings.pix_fmt == "yuv420p"
    options = avoptions(settings)
    assert {"rc": "vbr", "b": "0", "forced-idr": "1", "g": "250", "preset": "p5"}.items() <= options.items()
    assert float(options["cq"]) > 0
    assert "crf" not in options
    assert resolve(settings, info(), "matroska") == settings
    supported = {option.name for option in av.CodecContext.create(codec, "w").supported_options.private}
    assert set(options) - {"g", "b"} <= supported


def test_ten_bits_are_coded_in_the_encoder_s_own_layout(opened):
    settings = resolve(EncoderSettings(codec="hevc_nvenc"), info("yuv420p10le"), "matroska")
    assert settings.pix_fmt == "yuv420p10le"
    context = av.CodecContext.create("hevc_nvenc", "w")
    configure(context, settings, info("yuv420p10le"))
    assert context.pix_fmt == "p010le"
    eight = resolve(EncoderSettings(codec="h264_nvenc"), info("yuv420p10le"), "matroska")
    assert eight.pix_fmt == "yuv420p"


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (EncoderSettings(crf=60), "out of range for h264_nvenc"),
        (EncoderSettings(preset="veryslow"), "p1, p2"),
        (EncoderSettings(pix_fmt="yuv444p"), "allowed: yuv420p"),
        (EncoderSettings(options=(("cq", "3"),)), "--crf"),
        (EncoderSettings(options=(("temporl-aq", "1"),)), "temporal-aq"),
    ],
)
def test_wrong_settings_are_named(opened, settings, words):
    with pytest.raises(UsageError, match=words):
        resolve(replace(settings, codec="h264_nvenc"), info(), "matroska")


def test_a_rate_mode_is_one_piece(opened):
    wanted = EncoderSettings(codec="h264_nvenc", options=(("b", "8M"), ("rc", "cbr")))
    settings = resolve(wanted, info(), "matroska")
    assert not settings.segmented
    assert settings.crf is None
    assert avoptions(settings)["rc"] == "cbr"


def no_encoder() -> bool:
    try:
        resolve(EncoderSettings(codec="h264_nvenc"), info(width=256, height=256), "matroska")
    except UsageError:
        return True
    return False


@pytest.mark.skipif(not no_encoder(), reason="there is an NVENC")
@pytest.mark.parametrize("codec", sorted(NVENC))
def test_a_machine_without_an_encoder_is_told_what_to_do(codec):
    with pytest.raises(UsageError) as caught:
        resolve(EncoderSettings(codec=codec), info(), "matroska")
    text = str(caught.value)
    assert text.startswith(f"--codec {codec}: NVENC cannot be used here (")
    assert "H200" in text
    assert "--codec libx264" in text
    assert "\n" not in text


class OnGpu(np.ndarray):
    """Stands for an array of the GPU."""

    def get(self):
        return np.array(self)


def frames(count, fmt, place):
    return [
        Frame(
            planes=tuple(place(plane) for plane in picture(i, fmt, 48, 64)),
            format=fmt,
            pts=i,
            duration=1,
            time_base=Fraction(1, 25),
            color=COLOR,
        )
        for i in range(count)
    ]


@pytest.fixture
def stand_in(monkeypatch):
    """x264 in NVENC's place: `gpu_context` gives an encoder of NV12, as the GPU's planes make it."""

    def context(settings, info):
        made = av.CodecContext.create(settings.codec, "w")
        configure(made, settings, info)
        made.pix_fmt = "nv12"
        calls.append(made)
        return made

    calls = []
    monkeypatch.setattr(encoder, "takes_gpu_frames", lambda settings, info: True)
    monkeypatch.setattr(encoder, "gpu_context", context)
    return calls


def segment(path, settings, stream, given):
    with encoder.SegmentEncoder(path, settings, stream) as made:
        for frame in given:
            made.encode(frame)
        made.finish()
    return Segment(path)


@pytest.mark.parametrize("mixed", [0, 4])
def test_frames_on_the_gpu_are_encoded_where_they_are(tmp_path, stand_in, mixed):
    """The packets are those of the same frames from the host, and so is the header."""
    fmt = PixelFormat.parse("yuv420p")
    settings = resolve(EncoderSettings(codec="libx264", crf=10), info(), "matroska")
    wanted = segment(tmp_path / "host", settings, info(), frames(12, fmt, np.array))
    assert stand_in == []
    given = frames(12, fmt, lambda plane: plane.view(OnGpu))
    given[12 - mixed :] = frames(12, fmt, np.array)[12 - mixed :]
    made = segment(tmp_path / "gpu", settings, info(), given)
    assert len(stand_in) == 1
    assert made.header == wanted.header
    assert [p.data for p in made.packets()] == [p.data for p in wanted.packets()]


def test_frames_on_the_gpu_behind_some_of_the_host_follow_them(tmp_path, stand_in):
    fmt = PixelFormat.parse("yuv420p")
    settings = resolve(EncoderSettings(codec="libx264", crf=10), info(), "matroska")
    given = frames(6, fmt, np.array)[:3] + frames(6, fmt, lambda plane: plane.view(OnGpu))[3:]
    made = segment(tmp_path / "mixed", settings, info(), given)
    wanted = segment(tmp_path / "host", settings, info(), frames(6, fmt, np.array))
    assert [p.data for p in made.packets()] == [p.data for p in wanted.packets()]
    assert stand_in == []


def test_ffmpeg_s_hold_is_on_the_context_that_is_there_already():
    hold = nvenc._cuda(0)
    assert (hold.device_id, hold.primary_ctx, hold.current_ctx) == (0, False, True)


def test_the_gpu_s_refusal_is_an_error_of_the_output(tmp_path, stand_in, monkeypatch):
    def refuse(planes, fmt):
        raise av.error.OSError(95, "Operation not supported")

    monkeypatch.setattr(encoder, "gpu_picture", refuse)
    fmt = PixelFormat.parse("yuv420p")
    settings = resolve(EncoderSettings(codec="libx264", crf=10), info(), "matroska")
    with pytest.raises(OutputError, match="libx264: cannot use the GPU's memory: Operation not supported"):
        segment(tmp_path / "gpu", settings, info(), frames(1, fmt, lambda plane: plane.view(OnGpu)))


def test_only_nvenc_and_its_formats_take_frames_on_the_gpu():
    def takes(codec, pix_fmt, width=64):
        return takes_gpu_frames(EncoderSettings(codec=codec, pix_fmt=pix_fmt), info(width=width))

    assert takes("h264_nvenc", "yuv420p")
    assert takes("hevc_nvenc", "yuv420p10le")
    assert not takes("libx264", "yuv420p")
    assert not takes("hevc_nvenc", "yuv444p")
    assert not takes("hevc_nvenc", "yuv420p", width=63)  # a network that enlarges three times makes it
    assert nvenc.LAYOUTS.keys() == {"yuv420p", "yuv420p10le"}


@pytest.mark.gpu
@pytest.mark.skipif(no_encoder(), reason="this GPU has no NVENC")
@pytest.mark.parametrize("codec", ["h264_nvenc", "hevc_nvenc"])
def test_nvenc_encodes_from_the_gpu_s_memory(tmp_path, codec):
    import cupy

    fmt = PixelFormat.parse("yuv420p")
    stream = info(width=256, height=256)
    settings = resolve(EncoderSettings(codec=codec, crf=5), stream, "matroska")
    given = [
        Frame(
            planes=tuple(cupy.asarray(plane) for plane in picture(i, fmt, 256, 256)),
            format=fmt,
            pts=i,
            duration=1,
            time_base=Fraction(1, 25),
            color=COLOR,
        )
        for i in range(12)
    ]
    first, second = (segment(tmp_path / name, settings, stream, given) for name in ("a", "b"))
    assert first.header == second.header
    packets = list(first.packets())
    assert packets[0].key
    assert len(packets) == 12

"""Sound of layouts, rates and depths that containers and encoders do not take as they are."""

from __future__ import annotations

from fractions import Fraction

import av
import numpy as np
import pytest
from doubling import double

from videosr.media.checks.verify import verify
from videosr.media.codecs import EncoderSettings
from videosr.media.probe import plan_streams, probe

FORMATS = {".mkv": "matroska", ".mp4": "mp4", ".webm": "webm"}
PRESETS = {".mp4": "ultrafast", ".webm": "8"}
NOT_MIXED = {"22.2": {"SL", "SR"}}
"""Speakers that FFmpeg leaves out although the target has them."""


def with_sound(path, codec, layout="stereo", rate=48000, fmt=None, container=None, **options):
    """A clip of half a second; its channel number n is a tone of 200 (n + 1) Hz that 24 bits hold exactly."""
    with av.open(str(path), "w", format=container, container_options=options) as out:
        video = out.add_stream("mpeg2video", rate=24)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        stream = out.add_stream(codec, rate=rate, options={"strict": "-2"})
        stream.codec_context.layout = layout
        if fmt:
            stream.codec_context.format = fmt
        out.start_encoding()
        for i in range(12):
            out.mux(video.encode(av.VideoFrame.from_ndarray(np.full((72, 64), 40 + 9 * i, np.uint8), "yuv420p")))
        out.mux(video.encode(None))
        context = stream.codec_context
        resampler = av.AudioResampler(context.format, layout, rate, context.frame_size or 480)
        frame = av.AudioFrame.from_ndarray(tones(context.channels, rate).reshape(1, -1), format="s32", layout=layout)
        frame.sample_rate, frame.pts, frame.time_base = rate, 0, Fraction(1, rate)
        for piece in [*resampler.resample(frame), *resampler.resample(None)]:
            out.mux(stream.encode(piece))
        out.mux(stream.encode(None))
    return path


def tones(channels, rate):
    """Samples as (time, channel), s32 with the low byte 0."""
    phases = 2 * np.pi * 200 * np.outer(np.arange(rate // 2) / rate, 1 + np.arange(channels))
    return (0.2 * np.sin(phases) * 2**31).astype(np.int32) & ~255


def heard(path):
    """The stream's codec context's (codec, layout, rate, format), and its samples as (time, channel)."""
    with av.open(str(path)) as container:
        context = container.streams.audio[0].codec_context
        known = context.name, context.layout.name, context.sample_rate, context.format.name
        packed = av.AudioResampler(context.format.packed, context.layout, context.sample_rate)
        pieces = [p.to_ndarray() for f in [*container.decode(audio=0), None] for p in packed.resample(f)]
    return known, np.concatenate([piece.reshape(-1, context.channels) for piece in pieces])


@pytest.mark.parametrize("suffix", [".avi", ".mkv"])
@pytest.mark.parametrize("layout", ["mono", "stereo", "5.1"])
def test_pcm_that_does_not_say_where_its_speakers_stand_is_copied_to_mp4(tmp_path, suffix, layout):
    source = with_sound(tmp_path / f"a{suffix}", "pcm_s16le", layout)
    output = tmp_path / "b.mp4"
    assert plan_streams(source, "mp4").losses == ()
    assert double(source, output, settings=EncoderSettings(preset="ultrafast")) == []
    assert verify(source, output).problems == []
    assert np.array_equal(heard(source)[1], heard(output)[1])


def test_what_neither_can_be_copied_nor_converted_is_left_out_and_said(tmp_path):
    source = with_sound(tmp_path / "a.mkv", "pcm_s16le", "9 channels")
    (line,) = plan_streams(source, "mp4").losses
    assert "drop" in line
    assert "mp4 holds pcm_s16le, but none like this" in line  # FFmpeg refuses it when it closes the file
    assert "aac cannot be made of 9 channels at 48000 Hz" in line
    output = tmp_path / "b.mp4"
    assert double(source, output) == []
    assert verify(source, output).problems == []
    assert [s.type for s in probe(output).streams] == ["video"]


@pytest.mark.parametrize(
    ("suffix", "codec", "layout", "rate", "given", "at"),
    [
        (".webm", "ac3", "5.1(side)", 48000, "5.1", 48000),
        (".webm", "flac", "4.0", 48000, "6.1", 48000),
        (".webm", "flac", "2.1", 48000, "5.1", 48000),
        (".webm", "flac", "quad(side)", 44100, "quad", 48000),
        (".webm", "flac", "7.1(wide)", 48000, "5.1", 48000),
        (".webm", "flac", "7.1", 48000, "7.1", 48000),
        (".mp4", "wavpack", "stereo", 192000, "stereo", 96000),
        (".mp4", "tta", "5.1", 192000, "5.1", 96000),
        (".mp4", "wavpack", "mono", 50000, "mono", 64000),
        (".mp4", "wavpack", "22.2", 48000, "7.1", 48000),
        (".mp4", "wavpack", "7.1(wide)", 48000, "7.1(wide)", 48000),
    ],
)
def test_sound_is_converted_to_the_nearest_that_the_encoder_takes(tmp_path, suffix, codec, layout, rate, given, at):
    source = with_sound(tmp_path / "a.mkv", codec, layout, rate)
    output = tmp_path / f"b{suffix}"
    (line,) = plan_streams(source, FORMATS[suffix]).losses
    assert (f"{layout} becomes {given}" in line) == (layout != given)
    assert (f"{rate} Hz becomes {at} Hz" in line) == (rate != at)
    assert double(source, output, settings=EncoderSettings(preset=PRESETS[suffix])) == []
    assert verify(source, output).problems == []
    (_, found, rate, _), samples = heard(output)
    assert (found, rate) == (given, at)
    speakers = [channel.name for channel in av.AudioLayout(given).channels]
    for n, name in enumerate(channel.name for channel in av.AudioLayout(layout).channels):
        place = name if name in speakers else name.replace("S", "B")
        if place in speakers and place != "LFE" and name not in NOT_MIXED.get(layout, ()):
            spectrum = np.abs(np.fft.rfft(samples[rate // 10 : rate * 2 // 5, speakers.index(place)]))
            assert spectrum[round(200 * (n + 1) * 0.3)] > 0.3 * spectrum.max()


@pytest.mark.parametrize(
    ("name", "codec", "fmt", "container", "bits"),
    [
        ("a.m2ts", "pcm_bluray", "s32", "mpegts", 24),
        ("a.vob", "pcm_dvd", "s32", "vob", 24),
        ("a.m2ts", "pcm_bluray", "s16", "mpegts", 16),
        ("a.mov", "pcm_f32be", "flt", "mov", 24),
    ],
)
def test_lossless_sound_keeps_its_depth_in_matroska(tmp_path, name, codec, fmt, container, bits):
    source = with_sound(tmp_path / name, codec, fmt=fmt, container=container)
    output = tmp_path / "b.mkv"
    (line,) = plan_streams(source, "matroska").losses
    assert ("32-bit floating point becomes 24-bit integers" in line) == (fmt == "flt")
    assert double(source, output) == []
    assert verify(source, output).problems == []
    with av.open(str(output)) as container:
        assert container.streams.audio[0].codec_context.bits_per_raw_sample == bits
    (_, kept), (_, was) = heard(output), heard(source)
    assert np.array_equal(kept, (was.astype(np.float64) * 2**31).astype(np.int32) if fmt == "flt" else was)


def test_sound_decoded_to_floating_point_has_24_bits_in_flac(tmp_path):
    source = with_sound(tmp_path / "a.ts", "aac", mpegts_flags="latm")
    output = tmp_path / "b.mkv"
    assert double(source, output) == []
    assert verify(source, output).problems == []
    ((was, _, _, _), sound), ((now, _, _, fmt), samples) = heard(source), heard(output)
    assert (was, now, fmt) == ("aac_latm", "flac", "s32")
    assert np.abs(samples / 2**31 - sound).max() <= 2**-23

"""Films whose sound changes in mid-stream, as broadcasts do, made with PyAV."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

TICK = Fraction(1, 90_000)
BEGIN = Fraction(1)
"""Seconds at which films begin."""
SIZE = 32
"""Pixels of the picture's sides."""


def television(
    path: Path,
    parts: Sequence[tuple[str, int, int]],
    *,
    codec: str = "ac3",
    silence: int = 0,
    pace: Fraction = Fraction(1),
) -> tuple[Path, int]:
    """Write a transport stream whose sound, a tone of 440 Hz, changes from part to part without a gap.

    Args:
        path: of the file.
        parts: layout, samples a second and number of packets of each.
        codec: encoder of the sound.
        silence: seconds before the first packet of sound.
        pace: of the clock by which packets of sound are dated; slower than 1, they hold more than their times say.

    Returns:
        The path, and the frames of its picture, 25 a second.
    """
    with av.open(str(path), "w", format="mpegts") as out:
        video = out.add_stream("mpeg2video", rate=25)
        video.width, video.height, video.pix_fmt = SIZE, SIZE, "yuv420p"
        sound = out.add_mux_stream(codec, rate=parts[0][1])
        out.start_encoding()
        at = BEGIN + silence
        for layout, rate, count in parts:
            encoder = _encoder(codec, layout, rate)
            for packet in _tone(encoder, count):
                packet.stream, packet.time_base = sound, TICK
                packet.pts = packet.dts = round(at / TICK)
                packet.duration = 0
                out.mux(packet)
                at += Fraction(encoder.frame_size, rate) * pace
        frames = round((at - BEGIN) * 25)
        for n in range(frames):
            frame = av.VideoFrame.from_ndarray(np.full((SIZE * 3 // 2, SIZE), 16 + n % 200, np.uint8), "yuv420p")
            frame.pts, frame.time_base = n + round(BEGIN * 25), Fraction(1, 25)
            out.mux(video.encode(frame))
        out.mux(video.encode(None))
    return path, frames


def _encoder(codec: str, layout: str, rate: int) -> av.AudioCodecContext:
    encoder = av.CodecContext.create(codec, "w")
    encoder.format, encoder.layout, encoder.sample_rate = encoder.codec.audio_formats[0], layout, rate
    encoder.time_base = Fraction(1, rate)
    encoder.open()
    return encoder


def _tone(encoder: av.AudioCodecContext, count: int) -> list[av.Packet]:
    made: list[av.Packet] = []
    size, channels = encoder.frame_size, encoder.layout.nb_channels
    for at in range(0, count * size, size):
        wave = 0.3 * np.sin(2 * np.pi * 440 * np.arange(at, at + size) / encoder.sample_rate)
        if encoder.format.name == "s16":
            samples = (wave * 32767).astype(np.int16).repeat(channels)[None]
        else:
            samples = wave.astype(np.float32)[None].repeat(channels, 0)
        frame = av.AudioFrame.from_ndarray(samples, format=encoder.format.name, layout=encoder.layout.name)
        frame.sample_rate, frame.pts, frame.time_base = encoder.sample_rate, at, encoder.time_base
        made += encoder.encode(frame)
    return made

"""Small video files made with PyAV, so that tests need no samples and no ffmpeg binary."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from videosr import cli_options
from videosr.frame import Array, PixelFormat
from videosr.media.planes import to_av_frame
from videosr.media.segments import SegmentRule

VFR_PTS = (0, 40, 83, 125, 292, 333, 375, 541, 542, 600, 733, 800, 842, 1000, 1041, 1083)
"""Uneven times in milliseconds, a single tick among them."""
SUBTITLES = ((100, 200, "first line"), (400, 150, "second <i>line</i>"), (400, 100, "at the same time"))
"""(start, length, text) of every subtitle stream, in milliseconds."""


def use_rule(monkeypatch, **rule: int) -> None:
    """Let the command line's segments close by a `SegmentRule` of these values."""
    wanted = cli_options.wanted
    monkeypatch.setattr("videosr.cli.wanted", lambda **o: replace(wanted(**o), segments=SegmentRule(**rule)))


def picture(index: int, fmt: PixelFormat, height: int, width: int, noise: float = 0.0) -> tuple[Array, ...]:
    """Planes of a moving gradient that differ from frame to frame, with noise of that sigma in 8-bit codes."""
    planes = []
    rng = np.random.default_rng(index)
    for plane in range(fmt.planes):
        rows, columns = fmt.plane_shape(plane, height, width)
        y, x = np.mgrid[0:rows, 0:columns]
        level = 32 + (3 * x + 2 * y + 5 * index * (plane + 1) + 40 * plane) % 160
        if noise:
            level = np.clip(np.rint(level + rng.normal(0, noise, level.shape)), 0, 255).astype(int)
        planes.append((level << (fmt.bits - 8)).astype(fmt.dtype))
    return tuple(planes)


def make_clip(
    path: Path,
    *,
    frames: int = 16,
    pts: Sequence[int] | None = None,
    time_base: Fraction = Fraction(1, 1000),
    rate: Fraction = Fraction(24),
    width: int = 64,
    height: int = 48,
    pix_fmt: str = "yuv420p",
    codec: str = "libx264",
    options: Mapping[str, str] = {},
    color: tuple[int, int, int, int, int] = (2, 0, 2, 2, 0),
    sar: Fraction = Fraction(1),
    rotation: int = 0,
    matrix: Sequence[float] = (),
    audio: Sequence[tuple[str, str]] = (),
    subtitles: Sequence[str] = (),
    attachments: Sequence[tuple[str, str, bytes]] = (),
    chapters: Sequence[tuple[int, int, str]] = (),
    metadata: Mapping[str, str] = {},
    video: bool = True,
    noise: float = 0.0,
) -> Path:
    """Write a clip and return its path.

    Args:
        path: its suffix chooses the container.
        frames: number of frames at a constant rate, if `pts` is not given.
        pts: presentation times in `time_base`.
        time_base: seconds a tick.
        rate: nominal frames per second.
        width: of the picture.
        height: of the picture.
        pix_fmt: FFmpeg's name.
        codec: FFmpeg's video encoder.
        options: of the encoder.
        color: matrix, range, primaries, transfer, siting as code points.
        sar: sample aspect ratio.
        rotation: degrees counter-clockwise in the display matrix.
        matrix: a, b, c and d of a display matrix instead.
        audio: (encoder, language) of each audio stream.
        subtitles: language of each SubRip stream (Matroska only).
        attachments: (name, MIME type, payload) of each (Matroska only).
        chapters: (start, end, title) in milliseconds.
        metadata: global tags.
        video: leave the video out if False.
        noise: sigma in 8-bit codes.
    """
    fmt = PixelFormat.parse(pix_fmt)
    times = list(pts) if pts is not None else [round(i / rate / time_base) for i in range(frames)]
    with av.open(str(path), "w", container_options={"fflags": "+bitexact"}) as out:
        out.metadata.update(metadata)
        if chapters:
            out.set_chapters(
                [
                    {"id": i + 1, "start": a, "end": b, "time_base": Fraction(1, 1000), "metadata": {"title": title}}
                    for i, (a, b, title) in enumerate(chapters)
                ]
            )
        stream = None
        if video:
            stream = out.add_stream(codec, rate=rate, options={"threads": "1", **options})
            stream.width, stream.height, stream.pix_fmt = width, height, pix_fmt
            context = stream.codec_context
            context.time_base = stream.time_base = time_base
            context.sample_aspect_ratio = sar
            context.colorspace, context.color_range = color[:2]
            context.color_primaries, context.color_trc, context.chroma_sample_location = color[2:]
            if rotation:
                stream.set_display_rotation(rotation)
            if matrix:
                a, b, c, d = (round(entry * 65536) for entry in matrix)
                stream.set_display_matrix([a, b, 0, c, d, 0, 0, 0, 1 << 30])
        seconds = times[-1] * time_base + Fraction(1, 24)
        fills = [_add_audio(out, name, language, seconds) for name, language in audio]
        fills += [_add_subtitles(out, language) for language in subtitles]
        for name, mimetype, payload in attachments:
            out.add_attachment(name, mimetype, payload)
        out.start_encoding()
        if stream is not None:
            for i, time in enumerate(times):
                frame = to_av_frame(picture(i, fmt, height, width, noise), fmt)
                frame.pts, frame.time_base = time, time_base
                frame.colorspace, frame.color_range = color[:2]
                frame.color_primaries, frame.color_trc, frame.chroma_location = color[2:]
                after = times[i + 1] if i + 1 < len(times) else time + round(1 / rate / time_base)
                frame.duration = after - time
                out.mux(stream.encode(frame))
            out.mux(stream.encode(None))
        for fill in fills:
            for packet in fill:
                out.mux(packet)
    return path


def _add_audio(
    out: av.container.OutputContainer, codec: str, language: str, seconds: Fraction
) -> Iterable[av.Packet[av.stream.Stream]]:
    stream = out.add_stream(codec, rate=48000)
    stream.metadata["language"] = language
    stream.codec_context.layout = "mono"

    def packets() -> Iterable[av.Packet[av.stream.Stream]]:
        context = stream.codec_context
        size = context.frame_size or 1024
        count = round(seconds * 48000) // size
        for i in range(count):
            phase = 2 * np.pi * 440 * np.arange(i * size, (i + 1) * size) / 48000
            wave = 0.25 * np.sin(phase)[None]
            if "16" in context.format.name:
                wave = (wave * 32767).astype(np.int16)
            elif "32" in context.format.name:
                wave = (wave * 2**31).astype(np.int32)
            else:
                wave = wave.astype(np.float32)
            frame = av.AudioFrame.from_ndarray(wave, format=context.format.name, layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = 48000, i * size, Fraction(1, 48000)
            yield from stream.encode(frame)
        yield from stream.encode(None)

    return packets()


def _add_subtitles(out: av.container.OutputContainer, language: str) -> Iterable[av.Packet[av.stream.Stream]]:
    stream = out.add_mux_stream("subrip")
    stream.metadata["language"] = language
    stream.time_base = Fraction(1, 1000)

    def packets() -> Iterable[av.Packet[av.stream.Stream]]:
        for start, length, text in SUBTITLES:
            packet = av.Packet(f"{language}: {text}".encode())
            packet.stream = stream
            packet.pts = packet.dts = start
            packet.duration = length
            packet.time_base = Fraction(1, 1000)
            packet.is_keyframe = True
            yield packet

    return packets()


def remux(source: Path, target: Path, early: Mapping[str, Fraction] = {}, **options: str) -> Path:
    """The same packets in another container.

    Args:
        source: a clip.
        target: its suffix chooses the container.
        early: by how many seconds the packets of a kind of streams come earlier.
        options: of the muxer.
    """
    with av.open(source) as a, av.open(target, "w", options=options) as b:
        made = {stream.index: b.add_stream_from_template(stream) for stream in a.streams}
        for packet in a.demux():
            if packet.size:
                if packet.stream.type in early:
                    shift = round(early[packet.stream.type] / packet.time_base)
                    packet.pts, packet.dts = packet.pts - shift, packet.dts - shift
                packet.stream = made[packet.stream_index]
                b.mux(packet)
    return target

"""Whether a container takes a stream: found before work starts by writing a small file with the stream's beginning."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import islice
from typing import TYPE_CHECKING

import av
import av.error
from av.audio.stream import AudioStream
from av.stream import Stream

from videosr.media.convert import AudioConverter, add_converted
from videosr.media.copies import add_copy
from videosr.media.source import codec_name, open_input

if TYPE_CHECKING:
    type Packet = av.Packet[Stream]

SAMPLES = 3
"""Packets of a stream that are tried in its new container."""


@contextmanager
def open_described(
    path: str | os.PathLike[str],
) -> Iterator[tuple[av.container.InputContainer, dict[int, list[Packet]]]]:
    """A file whose audio streams are described by their first packets too, and those packets.

    Where sound begins late, as in a recording that begins before the programme, FFmpeg knows neither rate nor layout of
    it on opening. Plans, and the headers written by them, have to be made of the same description.

    Raises:
        InputError: it cannot be opened.
    """
    with open_input(path) as source:
        samples = _samples(source)
        for stream in undescribed(source):
            _learn(stream.codec_context, samples[stream.index])
        yield source, samples


def undescribed(source: av.container.InputContainer) -> list[AudioStream]:
    """The audio streams of which FFmpeg knows no rate, because their sound has not begun."""
    return [s for s in source.streams.audio if s.codec_context is not None and not s.codec_context.sample_rate]


def describe(source: av.container.InputContainer, path: str | os.PathLike[str]) -> None:
    """Describe such streams of an open file by a second reading; the open one keeps its place.

    Raises:
        InputError: it cannot be opened again.
    """
    if streams := undescribed(source):
        with open_input(path) as again:
            samples = _samples(again)
        for stream in streams:
            _learn(stream.codec_context, samples[stream.index])


def _samples(source: av.container.InputContainer) -> dict[int, list[Packet]]:
    """The first packets of every audio stream."""
    found: dict[int, list[Packet]] = {s.index: [] for s in source.streams.audio}
    try:
        for packet in islice(source.demux(*source.streams.audio) if found else (), SAMPLES * 8 * len(found)):
            if packet.size and len(found[packet.stream_index]) < SAMPLES:
                found[packet.stream_index].append(packet)
            if all(len(packets) == SAMPLES for packets in found.values()):
                break
    except av.error.FFmpegError:
        pass  # a damaged file: whoever reads it to its end will say so
    return found


def _learn(decoder: av.AudioCodecContext, packets: list[Packet]) -> None:
    """Let a decoder find its rate and layout, and be as new."""
    for packet in packets:
        with suppress(av.error.FFmpegError):
            decoder.decode(packet)
    if decoder.is_open:
        decoder.flush_buffers()


def copy_problem(stream: Stream, container: str, first: list[Packet]) -> str | None:
    """Why a muxer does not take a stream as it is, None if it does.

    Args:
        stream: of the source.
        container: FFmpeg's muxer.
        first: packets of the stream.
    """
    codec = codec_name(stream)
    out = av.open(io.BytesIO(), "w", format=container)
    try:
        made = add_copy(out, stream)
        out.start_encoding()
    except (ValueError, av.error.FFmpegError):
        return f"{container} holds no {'data of this kind' if codec == 'unknown' else codec}"
    refused = 0
    for packet in map(_again, first):
        packet.stream = made
        packet.pts = packet.dts = packet.pts or 0
        try:
            out.mux(packet)
        except (av.error.InvalidDataError, av.error.ArgumentError):
            refused += 1
    try:
        out.close()
    except av.error.FFmpegError:  # some things are looked at only when the index is written
        return f"{container} holds {codec}, but none like this"
    return "its packets are not what its header says" if first and refused == len(first) else None


def rehearse_conversion(stream: Stream, container: str, codec: str, first: list[Packet]) -> list[str]:
    """Convert the beginning of a stream and write it into a file.

    Args:
        stream: of the source, audio or subtitles; its decoder is used up.
        container: FFmpeg's muxer.
        codec: FFmpeg's encoder.
        first: packets of the stream.

    Returns:
        What else becomes another: one line for rate and layout each.

    Raises:
        ValueError: it cannot be converted; says why.
    """
    out = av.open(io.BytesIO(), "w", format=container)
    try:
        converter = add_converted(out, stream, codec)
        out.start_encoding()
        for packet in map(_again, first):
            out.mux(converter.feed(packet))
        out.mux(converter.flush())
        out.close()
    except av.error.FFmpegError as exc:
        with suppress(av.error.FFmpegError):
            out.close()
        raise ValueError(f"{container} does not take {codec} made of it: {exc.strerror}") from exc
    return converter.changes if isinstance(converter, AudioConverter) else []


def _again(packet: Packet) -> Packet:
    """Another packet of the same content: to be tried, a packet is given to another stream and other times."""
    twin = av.Packet(bytes(packet))
    twin.pts, twin.dts, twin.duration, twin.time_base = packet.pts, packet.dts, packet.duration, packet.time_base
    twin.is_keyframe = packet.is_keyframe
    for data in packet.iter_sidedata():
        twin.set_sidedata(data)
    return twin

"""Files read to their end with plain PyAV, for `verify`: frame times, packets, properties of the picture."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import chain

import av
import av.error
from av.codec.context import Flags
from av.stream import Stream

from videosr.errors import InputError
from videosr.media.avi import PictureTimes
from videosr.media.checks.similarity import Samples
from videosr.media.checks.tracks import Track
from videosr.media.clock import clock_of
from videosr.media.copies import is_hidden
from videosr.media.cropping import Cropping
from videosr.media.decoders import host_decoder
from videosr.media.dolby import CONFIGURATION
from videosr.media.hdr import STATIC_HDR, later
from videosr.media.immersive import SPHERICAL, STEREO
from videosr.media.riders import RIDERS, as_written
from videosr.media.sidedata import FrameSideData
from videosr.media.source import coded_display_matrix, fraction, last_duration, open_input, unpack_matrix
from videosr.media.stills.tiffs import is_premultiplied
from videosr.media.tail import Tail
from videosr.media.undated import LEADING, times_before

THREADS = 0
"""Decoder threads at first; FFmpeg chooses how many."""


@dataclass(slots=True)
class Reading:
    """One file, read to its end.

    Attributes:
        tick: seconds a tick of the video stream.
        width: columns of the first frame.
        height: rows of the first frame.
        sar: sample aspect ratio.
        matrix: display matrix, None where there is none.
        rotation: degrees counter-clockwise.
        errors: packets that could not be decoded, and readings that broke off.
        corrupt: frames that the decoder marked as damaged.
        changed: frames of another size, format or sample aspect ratio than the first one has.
        pts: presentation time of every frame in ticks.
        durations: of every frame in ticks, 0 where unknown.
        samples: small copies of some frames.
        fields: of one field of those; None where that was not asked for.
        color: code points of the first frame.
        hdr: static HDR side data of the first frame.
        later: the kinds of it that begin or change afterwards.
        cropped: samples that the container crops at the top, bottom, left and right.
        dolby: what the stream says of Dolby Vision (`dolby`); empty if nothing.
        views: what is said of views and surroundings (`immersive`).
        riders: what rides on frames and outputs have too (`riders.RIDERS`), by its kind: by the frame's number.
        tracks: every other stream by its index.
        form: (width, height, pixel format) of the first frame.
        codec: FFmpeg's name.
    """

    tick: Fraction
    width: int
    height: int
    sar: Fraction
    matrix: tuple[int, ...] | None
    rotation: int = 0
    errors: int = 0
    corrupt: int = 0
    changed: int = 0
    pts: list[int | None] = field(default_factory=list)
    durations: list[int] = field(default_factory=list)
    samples: Samples = field(default_factory=Samples)
    fields: Samples | None = None
    color: dict[str, int] = field(default_factory=dict)
    hdr: dict[str, bytes] = field(default_factory=dict)
    later: set[str] = field(default_factory=set)
    cropped: tuple[int, int, int, int] = (0, 0, 0, 0)
    dolby: bytes = b""
    views: dict[str, bytes] = field(default_factory=dict)
    riders: dict[str, dict[int, bytes]] = field(default_factory=lambda: {kind: {} for kind in RIDERS})
    tracks: dict[int, Track] = field(default_factory=dict)
    form: tuple[int, int, str] | None = None
    codec: str = ""


def read_file(
    path: str | os.PathLike[str],
    index: int,
    *,
    like: Reading | None = None,
    parity: int | None = None,
    decode_audio: bool = False,
    shown: bool = False,
) -> Reading:
    """Read a file to its end; a damaged one on one thread, where damage is concealed the same way every time.

    Args:
        path: the file.
        index: of the video stream.
        like: the reading of another file, with which this one's pictures are to be compared.
        parity: of the field whose pictures are sampled as well (`Samples.parity`); None: there are no fields.
        decode_audio: decode the audio streams as well.
        shown: leave out the sound that an edit list hides (`copies.is_hidden`).
    """
    with open_input(path) as container:
        file = _read_video(container, index, THREADS, like, parity)
    if file.errors or file.corrupt:
        with open_input(path) as container:
            file = _read_video(container, index, 1, like, parity)
    # A second pass for the other streams: what a damaged container yields depends on which streams are asked for.
    with open_input(path) as container:
        others = [s for s in container.streams if s.index != index and s.type != "attachment"]
        container.streams[index].discard = av.stream.Discard.all
        file.tracks = {s.index: Track.of(s) for s in others}
        for packet in _packets(container, others, file) if others else ():
            if not packet.size and packet.pts is None:
                continue  # the demuxer's mark of the end
            if shown and is_hidden(packet):
                continue
            track = file.tracks[packet.stream_index]
            track.add(packet)
            if decode_audio and packet.stream.type == "audio" and packet.size:
                track.errors += _undecodable(packet)
    return file


def _read_video(
    container: av.container.InputContainer, index: int, threads: int, like: Reading | None, parity: int | None
) -> Reading:
    stream = container.streams[index]
    assert isinstance(stream, av.video.stream.VideoStream)
    for other in container.streams:
        if other.index != index:
            other.discard = av.stream.Discard.all
    context, decoder = stream.codec_context, host_decoder(stream)
    decoder.thread_type = "AUTO"
    decoder.flags |= Flags.unaligned  # else FFmpeg rounds what is cropped on the left
    decoder.thread_count = threads
    sar = stream.sample_aspect_ratio
    codec = context.codec.canonical_name
    multiplied = codec == "tiff" and is_premultiplied(container.name.removeprefix("file:"))
    file = Reading(
        tick=Fraction(stream.time_base.num, stream.time_base.den),
        width=context.width,
        height=context.height,
        sar=Fraction(sar.num, sar.den) if sar.num and sar.den else Fraction(1),
        matrix=coded_display_matrix(context),
        samples=Samples(like.samples.size if like else None, codec=codec, premultiplied=multiplied),
        fields=None if parity is None else Samples(None, parity, codec),
        codec=codec,
        dolby=bytes(context.coded_side_data.get(CONFIGURATION, b"")),
    )
    try:
        decoder.open(strict=False)
    except av.error.FFmpegError as exc:
        raise InputError(f"{container.name}: the video stream's header is damaged: {exc.strerror}") from exc
    shape: Fraction | None = None
    cropping, side_data = Cropping(context), FrameSideData(context)
    file.cropped = cropping.edges
    times = PictureTimes(container)
    tail = None if threads == 1 else Tail()
    for packet in chain(_packets(container, [stream], file), [None]):
        if packet is not None:
            packet = side_data.expect(packet)
            if tail is not None and packet.size:
                tail.put(packet)
        try:
            frames = decoder.decode(packet if packet is not None and packet.size else None)
        except av.error.EOFError:
            break
        except av.error.FFmpegError:
            file.errors += 1
            continue
        if tail is not None:
            tail.gave(frames)
        for frame in map(cropping.of, frames):
            now = fraction(context.sample_aspect_ratio) or Fraction(1)  # of the decoder: perhaps of a later frame
            shape = shape or now
            times.correct(frame)
            _note_frame(file, frame, side_data.of(frame), alike=now == shape)
    if tail is not None and tail.is_torn(decoder):
        file.errors += 1
    undated = next((n for n, time in enumerate(file.pts) if time is not None), 0)
    if undated <= LEADING and (first := file.pts[undated] if file.pts else None) is not None:
        file.pts[:undated] = times_before(first, file.durations[:undated])
    if file.pts and file.pts[-1] is not None:
        whole = like is not None  # it was made by videosr
        file.durations[-1] = last_duration(container, stream, file.pts[-1], file.durations[-1], whole=whole)
    return file


def _packets(
    container: av.container.InputContainer, streams: Sequence[Stream], file: Reading
) -> Iterator[av.Packet[Stream]]:
    """The packets of some streams; where reading breaks off, that is an error of the file."""
    try:
        with closing(clock_of(container)) as clock:
            yield from clock.demux(container, *streams)
    except av.error.FFmpegError:
        file.errors += 1


def _undecodable(packet: av.Packet[Stream]) -> bool:
    try:
        packet.decode()
    except av.error.FFmpegError:
        return True
    return False


def _note_frame(file: Reading, frame: av.VideoFrame, rides: Mapping[str, bytes], *, alike: bool) -> None:
    if not file.pts:
        file.width, file.height, file.rotation = frame.width, frame.height, frame.rotation
        file.color = {
            "matrix": frame.colorspace,
            "range": 2 if frame.format.name.startswith("yuvj") else frame.color_range,
            "primaries": frame.color_primaries,
            "transfer": frame.color_trc,
            "siting": frame.chroma_location,
        }
        if file.matrix is None:
            file.matrix = unpack_matrix(rides.get("DISPLAYMATRIX"))
        file.hdr = {kind: data for kind, data in rides.items() if kind in STATIC_HDR}
        file.views = {kind: data for kind, data in rides.items() if kind in (STEREO, SPHERICAL)}
        file.form = frame.width, frame.height, frame.format.name
    file.later |= later(file.hdr, rides)
    for kind, found in file.riders.items():
        if kind in rides and (data := as_written(kind, rides[kind])):
            found[len(file.pts)] = data
    if alike and (frame.width, frame.height, frame.format.name) == file.form:
        for samples in filter(None, (file.samples, file.fields)):
            samples.add(len(file.pts), frame)
    else:
        file.changed += 1
    file.pts.append(frame.pts)
    file.durations.append(frame.duration)
    file.corrupt += frame.is_corrupt

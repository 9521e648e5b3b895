"""What a media file holds, and what becomes of each of its streams in another container."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import av
from av.stream import Disposition, Stream

from videosr.errors import InputError
from videosr.media import program_stream, transport_stream
from videosr.media.adts import changing
from videosr.media.chapters import Chapter, chapters_of, lost_times, unread
from videosr.media.containers import BOOKKEEPING
from videosr.media.immersive import says_of_views
from videosr.media.languages import quicktime_language
from videosr.media.matroska.more import file_tags, known_chapters, lost, more_of
from videosr.media.rehearsal import copy_problem, open_described, rehearse_conversion
from videosr.media.source import codec_name, is_attached_picture, open_input, reel, video_stream
from videosr.media.stills import heif

if TYPE_CHECKING:
    type Packet = av.Packet[Stream]

COPY, CONVERT, DROP, UPSCALE = "copy", "convert", "drop", "upscale"
REMADE = frozenset({"chapters", "timecode"})
"""Targets of tracks that repeat the file's chapters or the video's timecode: no packet of them is copied."""
MOST_WRITTEN = 1000
"""Streams of an output: FFmpeg's `max_streams`, which PyAV sets too late."""
TEXT_SUBTITLES = frozenset({"subrip", "ass", "ssa", "mov_text", "webvtt", "text", "srt", "stl", "sami", "microdvd"})

_TEXT_FOR = {"matroska": "subrip", "mp4": "mov_text", "mov": "mov_text", "webm": "webvtt"}
_AUDIO_FOR = {"matroska": "flac", "mp4": "aac", "mov": "aac", "webm": "libopus"}

# fmt: off
_MP4_GLOBAL = frozenset({
    "title", "artist", "album_artist", "composer", "album", "date", "comment", "genre", "copyright",
    "grouping", "lyrics", "description", "synopsis", "show", "episode_id", "network", "keywords", "track",
    "disc", "compilation", "media_type", "hd_video", "gapless_playback", "sort_name", "sort_artist",
    "sort_album", "sort_album_artist", "sort_composer", "sort_show", "encoding_tool", "performer", "author",
    "year", "creation_time", "location", "timecode", "rating", "podcast", "category", "purchase_date",
    "episode_sort", "season_number",
})
# fmt: on
"""Global metadata keys that FFmpeg's mp4 and mov muxers write without `use_metadata_tags`."""
TRACK_BOOKKEEPING = (
    "bps",
    "duration",
    "number_of_",
    "_statistics",
    "encoder",
    "vendor_id",
    "handler_name",
    "source_id",
    "alpha_mode",
)

_ROLES = Disposition.dub | Disposition.comment | Disposition.forced
_ROLES |= Disposition.hearing_impaired | Disposition.visual_impaired
_FLAGS = {
    "matroska": Disposition.default | _ROLES | Disposition.original,
    "webm": Disposition.default | Disposition.forced,
    "mp4": Disposition.default | _ROLES | Disposition.captions | Disposition.descriptions,
    "mov": Disposition.default,
}
"""Dispositions of tracks that FFmpeg's muxers write and its demuxers find again."""
_SUBTITLE_FLAGS = {
    "matroska": Disposition.descriptions,
    "webm": Disposition.captions | Disposition.descriptions | Disposition.metadata,
}
"""Those that they write of subtitles besides."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StreamFacts:
    """One stream as its container describes it.

    Attributes:
        index: in the container.
        type: "video", "audio", "subtitle", "data", "attachment" or "unknown".
        codec: FFmpeg's name, "unknown" where it has none.
        detail: size and format, or sample rate and channels, or file name, MIME type and size.
        language: ISO 639 code, None where not stated.
        title: None where not stated.
        disposition: FFmpeg's flags that are set.
        metadata: all of the stream's tags.
    """

    index: int
    type: str
    codec: str
    detail: str
    language: str | None
    title: str | None
    disposition: tuple[str, ...]
    metadata: Mapping[str, str]


@dataclass(frozen=True, kw_only=True, slots=True)
class MediaInfo:
    """A media file.

    Attributes:
        path: as given.
        container: FFmpeg's demuxer.
        duration: seconds, None where unknown.
        bit_rate: bits per second, 0 where unknown.
        chapters: in the file's order.
        metadata: global tags.
        streams: in the container's order.
        video: index of the stream that would be upscaled, None if there is none.
    """

    path: str
    container: str
    duration: Fraction | None
    bit_rate: int
    chapters: tuple[Chapter, ...]
    metadata: Mapping[str, str]
    streams: tuple[StreamFacts, ...]
    video: int | None


@dataclass(frozen=True, kw_only=True, slots=True)
class StreamPlan:
    """What becomes of one stream of the source.

    Attributes:
        index: in the source.
        type: of the stream.
        codec: in the source.
        action: "upscale", "copy", "convert" or "drop".
        target: codec in the output when converted, or one of `REMADE`, else "".
        reason: why it is not simply copied, else "".
    """

    index: int
    type: str
    codec: str
    action: str
    target: str = ""
    reason: str = ""

    def __str__(self) -> str:
        what = {CONVERT: f"convert to {self.target}"}.get(self.action, self.action)
        return f"stream {self.index} ({self.type}, {self.codec}): {what}" + (f": {self.reason}" if self.reason else "")


@dataclass(frozen=True, kw_only=True, slots=True)
class Misfit:
    """A tag or flag that the container has no place for.

    Attributes:
        stream: index in the source; None: it is the file's.
        kind: "tag" or "flag".
        name: of it.
        beside: what takes the place, "" if there is none.
    """

    stream: int | None
    kind: str
    name: str
    beside: str = ""

    def __str__(self) -> str:
        owner = "" if self.stream is None else f"stream {self.stream}: "
        return f"{owner}{self.kind} {self.name} has no place in the container" + (
            self.beside and f" beside {self.beside}"
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What becomes of a whole file in a container.

    Attributes:
        container: FFmpeg's muxer.
        video: index of the stream that is upscaled.
        streams: one entry for each stream of the source, in its order.
        losses: one line for each thing that is converted or lost; `--strict` refuses if there is any.
        misfits: those of them that are tags and flags.
        metadata_tags: mp4 and mov must write free-form tags, because the source has such.
    """

    container: str
    video: int
    streams: tuple[StreamPlan, ...]
    losses: tuple[str, ...]
    misfits: tuple[Misfit, ...] = ()
    metadata_tags: bool = False


def probe(path: str | os.PathLike[str]) -> MediaInfo:
    """Describe a media file.

    Raises:
        InputError: it cannot be opened.
    """
    name = os.fspath(path)
    with open_input(path) as container:
        try:
            video: int | None = video_stream(container, name).index
        except InputError:
            video = None
        return MediaInfo(
            path=name,
            container="heif" if heif.read(path) is not None else container.format.name,
            duration=Fraction(container.duration, 1_000_000) if container.duration else None,
            bit_rate=container.bit_rate or 0,
            chapters=tuple(chapters_of(container)),
            metadata=file_tags(container),
            streams=tuple(_facts(stream) for stream in container.streams),
            video=video,
        )


def _facts(stream: Stream) -> StreamFacts:
    detail = ""
    context = stream.codec_context
    if isinstance(stream, av.stream.AttachmentStream):
        detail = f"{stream.name or 'unnamed'}, {stream.mimetype or 'no MIME type'}, {len(stream.data)} bytes"
    elif isinstance(context, av.VideoCodecContext):
        rate = stream.average_rate
        detail = f"{context.width}x{context.height} {context.pix_fmt or ''}" + (
            f", {float(rate):.6g} fps" if rate else ""
        )
    elif isinstance(context, av.AudioCodecContext):
        detail = f"{context.sample_rate} Hz, {context.layout.name}"
    return StreamFacts(
        index=stream.index,
        type=stream.type,
        codec=codec_name(stream),
        detail=detail,
        language=stream.language,
        title=stream.metadata.get("title"),
        disposition=tuple(flag.name for flag in av.stream.Disposition if flag in stream.disposition and flag.name),
        metadata=dict(stream.metadata),
    )


def plan_streams(path: str | os.PathLike[str], container: str, *, trimmed: bool = False) -> Plan:
    """Decide what becomes of every stream of a file in another container.

    Whether a stream can be copied or converted is found by writing a file with it, and its first packets if it is
    audio: the very thing the muxer will do. AAC of an MPEG-TS is looked through to its end.

    Args:
        path: the source.
        container: FFmpeg's muxer (`containers.container_format`), or "image".
        trimmed: the output is to have a part of the film only.

    Raises:
        InputError: the source cannot be opened or has no usable video stream.
    """
    name = os.fspath(path)
    with open_described(path) as (source, first):
        chosen = video_stream(source, name).index
        varying = changing(path) if source.format.name == "mpegts" and container != "image" else set()
        plans = _within_limit(
            [
                StreamPlan(index=s.index, type=s.type, codec=codec_name(s), action=UPSCALE)
                if s.index == chosen
                else _plan_stream(s, source, container, first.get(s.index, []), s.index in varying)
                for s in source.streams
            ]
        )
        losses = [str(p) for p in plans if p.action in (CONVERT, DROP) and p.target not in REMADE]
        losses += _lost_of_file(source, name, plans, container, trimmed)
        covers = any(p.action == COPY and is_attached_picture(source.streams[p.index]) for p in plans)
        free = sorted(key for key in source.metadata if key.lower() not in (*_MP4_GLOBAL, *BOOKKEEPING))
        misfits: list[Misfit] = []
        if container != "image":
            common = {k.lower(): v for k, v in file_tags(source).items()}.get("creation_time")
            for stream, plan in zip(source.streams, plans, strict=True):
                misfits += _lost_tags(stream, plan, container, common)
                misfits += _lost_flags(stream, plan, container)
        tags = container in ("mp4", "mov") and bool(free)
        if tags and covers:  # FFmpeg writes either free-form tags or cover art
            tags = False
            misfits += [Misfit(stream=None, kind="tag", name=key, beside="cover art") for key in free]
        return Plan(
            container=container,
            video=chosen,
            streams=plans,
            losses=(*losses, *map(str, misfits)),
            misfits=tuple(misfits),
            metadata_tags=tags,
        )


def _lost_of_file(
    source: av.container.InputContainer, name: str, plans: Sequence[StreamPlan], container: str, trimmed: bool
) -> list[str]:
    """What is lost of that which belongs to the file and not to one of its streams: a line each."""
    losses: list[str] = []
    if source.format.name == "mpeg" and "://" not in name:
        losses += program_stream.unseen(name, (stream.id for stream in source.streams))
    if source.format.name == "mpegts" and "://" not in name:
        losses += transport_stream.unseen(name, source.streams)
    if container == "image":
        return [*losses, "chapters"] if source.chapters() else losses
    losses += lost_times(source, container)
    more = more_of(source)
    kept = [p.index for p in plans if p.action != DROP]
    losses += lost(more, source.streams, kept, container, trimmed=trimmed)
    whole = container == "matroska" and not trimmed and more.chapters
    if "matroska" in source.format.name and "://" not in name and not whole:
        named = container == "matroska" and bool(known_chapters(more.chapters))
        losses += unread(Path(name), len(source.chapters()), named=named)
    return losses


def _within_limit(plans: list[StreamPlan]) -> tuple[StreamPlan, ...]:
    """Plans in which what is too much for one output is dropped: the last attachments first."""
    kept = [p for p in plans if p.action in (COPY, CONVERT) and p.target not in REMADE]
    kept.sort(key=lambda plan: plan.type == "attachment")
    reason = f"FFmpeg writes {MOST_WRITTEN} streams into a file at most"
    over = {p.index: replace(p, action=DROP, target="", reason=reason) for p in kept[MOST_WRITTEN - 1 :]}
    return tuple(over.get(p.index, p) for p in plans)


def _lost_tags(stream: Stream, plan: StreamPlan, container: str, creation_time: str | None) -> list[Misfit]:
    """Tags of a kept track that the container has no place for.

    MP4 and MOV know a handful of tags for tracks, MOV a reel beside a timecode; Matroska and WebM have any, but no
    creation time for a track.
    """
    if plan.action == DROP or plan.target in REMADE or stream.type in ("attachment", "data"):
        return []
    lost = []
    for key, value in {**stream.metadata, **reel(stream)}.items():
        plain = key.lower()
        if plain.startswith(TRACK_BOOKKEEPING) or says_of_views(plain, value):
            continue
        if container == "mov" and plain == "reel_name" and "timecode" in map(str.lower, stream.metadata):
            continue
        if container == "mov" and plain == "language":
            if value != "und" and quicktime_language(value) is None:
                lost.append(key)
        elif container in ("mp4", "mov"):
            if plain not in ("language", "title", "creation_time", "timecode", "rotate", "name"):
                lost.append(key)
        elif plain == "creation_time" and value != creation_time:
            lost.append(key)
    return [Misfit(stream=stream.index, kind="tag", name=key) for key in sorted(lost)]


def _lost_flags(stream: Stream, plan: StreamPlan, container: str) -> list[Misfit]:
    """Dispositions of a kept track that the container has no place for."""
    if plan.action == DROP or plan.target in REMADE or stream.type in ("attachment", "data"):
        return []
    if is_attached_picture(stream):
        return []
    lost = stream.disposition & ~_FLAGS[container]
    if stream.type == "subtitle" and container in _SUBTITLE_FLAGS:
        lost &= ~_SUBTITLE_FLAGS[container]
    names = [flag.name for flag in Disposition if flag in lost and flag.name]
    return [Misfit(stream=stream.index, kind="flag", name=name) for name in names]


def _plan_stream(
    stream: Stream,
    source: av.container.InputContainer,
    container: str,
    first: list[Packet],
    varies: bool,
) -> StreamPlan:
    codec = codec_name(stream)

    def plan(action: str, target: str = "", reason: str = "") -> StreamPlan:
        return StreamPlan(
            index=stream.index, type=stream.type, codec=codec, action=action, target=target, reason=reason
        )

    if is_attached_picture(stream) and container != "image":
        if container == "matroska" or (container == "mp4" and codec in ("png", "mjpeg", "bmp")):
            return plan(COPY)
        return plan(DROP, reason=f"{container} holds no such cover art")
    if container == "image":
        return plan(DROP, reason="an image holds one picture and nothing else")
    if stream.type == "data" and codec == "bin_data" and "mov" in source.format.name and source.chapters():
        return plan(CONVERT, "chapters", "the track is the chapter list in another form")
    if stream.type == "data" and "timecode" in stream.metadata:
        if container in ("mp4", "mov"):
            return plan(CONVERT, "timecode", "the track is made anew from the video's timecode tag")
        if any(video.metadata.get("timecode") == stream.metadata["timecode"] for video in source.streams.video):
            return plan(CONVERT, "timecode", "the video's timecode tag says the same")
    if stream.type == "attachment":
        return plan(COPY) if container == "matroska" else plan(DROP, reason=f"{container} holds no attachments")
    if stream.type == "unknown" or (codec == "unknown" and stream.type != "data"):
        return plan(DROP, reason="its codec is unknown to FFmpeg")
    problem = copy_problem(stream, container, first)
    if problem is None and varies:
        problem = f"its rate or channels change on the way, and {container} states them once"
    if problem is None:
        return plan(COPY)
    context = stream.codec_context
    if stream.type == "subtitle" and codec in TEXT_SUBTITLES:
        target = _TEXT_FOR[container]
    elif stream.type != "audio":
        return plan(DROP, reason=problem)
    elif isinstance(context, av.AudioCodecContext) and context.sample_rate and context.channels:
        target = _AUDIO_FOR[container]
    else:
        return plan(DROP, reason="too little of it is there to know its sample rate")
    try:
        changes = rehearse_conversion(stream, container, target, first)
    except ValueError as exc:
        return plan(DROP, reason=f"{problem}; {exc}")
    return plan(CONVERT, target, "; ".join([problem, *changes]))

"""Opening media files and choosing the video stream: what everything that reads a file begins with."""

from __future__ import annotations

import errno
import os
import re
import struct
import sys
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import av.error
from av.codec.hwaccel import HWAccel
from av.stream import Disposition
from av.video.stream import VideoStream

from videosr.errors import InputError
from videosr.media import program_stream, transport_stream
from videosr.media.limits import MAX_PIXELS
from videosr.media.stills.numbered import RATE, Numbered
from videosr.media.stills.tiles import put_together

_BLOCK = 1 << 20
_CLOCK = re.compile(r"(\d{1,9}):(\d{1,9}):(\d{1,9}(?:\.\d{0,99})?)", re.ASCII)
MEZZANINE = frozenset({"prores", "prores_raw", "cfhd"})
"""Codecs for editing of which FFmpeg's descriptors do not say that every frame stands alone."""
MOST_STREAMS = "65536"
"""Of a file, attachments among them; FFmpeg leaves out what comes after the first thousand."""
MARKING = frozenset({"mjpeg", "mjpegb", "dnxhd"})
"""Codecs of which every frame stands alone, and that mark pictures at all usual rates."""
IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"})


def open_input(
    path: str | os.PathLike[str], max_pixels: int = MAX_PIXELS, hwaccel: HWAccel | None = None, /, **options: str
) -> av.container.InputContainer:
    """Open a media file for reading.

    Args:
        path: the file, an address, or a pattern of numbered pictures.
        max_pixels: of a picture; larger ones are not decoded to find out about the streams.
        hwaccel: decodes its video.
        options: of FFmpeg's demuxer.

    Raises:
        InputError: it does not exist, is a folder, is empty, may not or cannot be read, or is no media file; one
            of numbered pictures is missing or empty.
    """
    name = os.fspath(path)
    pictures = Numbered.of(path)
    if pictures is not None:
        options = {"framerate": str(RATE), "start_number": str(pictures.numbers[0])} | options
        pictures.check_sizes()
        name = f"file:{pictures.ffmpegs_name}"
    elif "://" not in name:
        _check_file(name)
        options["max_streams"] = MOST_STREAMS
        if Path(name).suffix.lower() in IMAGE_SUFFIXES:
            options["pattern_type"] = "none"  # a percent sign must not be read as a sequence of images
        name = f"file:{name}"  # a colon in a file name must not be read as a protocol
    limit = {"max_pixels": str(max_pixels)}
    try:
        demuxer = None if pictures is None else "image2"
        container = av.open(name, "r", demuxer, options=limit, container_options=options, hwaccel=hwaccel)
        if name.startswith("file:") and (deep := _deeper(container, os.fspath(path))):
            container.close()
            container = av.open(name, "r", options=limit, container_options=options | deep, hwaccel=hwaccel)
    except (av.error.FFmpegError, OSError, ValueError) as exc:
        if pictures is None and _is_no_media(exc, os.fspath(path)):
            check_readable(path)
        raise _open_error(os.fspath(path), exc) from exc
    if container.format.name == "tty":
        container.close()
        raise InputError(f"{os.fspath(path)}: is a text file, not a video")
    if "mov" in container.format.name.split(","):
        try:
            made = put_together(container, path, max_pixels)
        except BaseException:
            container.close()
            raise
        if made is not None:
            container.close()
            container = av.open(made, "r", options=limit)
    return container


def _deeper(container: av.container.InputContainer, path: str) -> dict[str, str]:
    """Options with which FFmpeg finds streams of an MPEG-PS or MPEG-TS it has not found, if there are such."""
    if container.format.name == "mpeg":
        return program_stream.probe_options(path)
    return transport_stream.probe_options(path, container.streams) if container.format.name == "mpegts" else {}


def _check_file(name: str) -> None:
    """Refuse what can be no media file, before FFmpeg says less of it.

    Raises:
        InputError: nothing is there, it is no regular file, or it is empty.
    """
    file = Path(name)
    try:
        size = file.stat().st_size
    except OSError as exc:
        if name == "-":
            raise InputError(
                "-: standard input can be read only once; store it in a file, or use videosr serve"
            ) from exc
        raise InputError(f"{name}: {exc.strerror}; check the path") from exc
    if file.is_dir():
        how = f"`videosr batch` takes folders, `videosr upscale {name}/%05d.png ...` numbered pictures"
        raise InputError(f"{name}: is a folder; give one video file ({how})")
    if not file.is_file():
        raise InputError(f"{name}: is a pipe or device, which can be read only once; store it in a file first")
    if size == 0:
        raise InputError(f"{name}: is empty (0 bytes); copy or download it again")


def check_readable(path: str | os.PathLike[str], first: int = 0, end: int = sys.maxsize) -> None:
    """Read a file from a byte on to see that the disk can: FFmpeg's demuxers take an error of the system for the end.

    Args:
        path: the file; of an address there is nothing to see.
        first: where to begin.
        end: where to stop, at the latest.

    Raises:
        InputError: the system gives an error.
    """
    name = os.fspath(path)
    if "://" in name:
        return
    at = first
    try:
        with Path(name).open("rb", buffering=0) as file:
            file.seek(first)
            while data := file.read(min(_BLOCK, end - at)):
                at += len(data)
    except OSError as exc:
        raise InputError(
            f"{name}: cannot be read at byte {at}: {exc.strerror}; check the disk, or copy the file again"
        ) from exc


class Disk:
    """Sees that it is not the disk's fault where a file looks damaged, or ends; no byte is read twice for that.

    Args:
        path: the file. Of numbered pictures FFmpeg says what it cannot read.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = path
        # From this byte on the file was read to its end without an error of the system.
        self._readable = sys.maxsize if Numbered.of(path) is None else 0

    def check(self, first: int = 0) -> None:
        """Read what has not been read yet.

        Args:
            first: the byte from which on the file is in doubt.

        Raises:
            InputError: it cannot be read from that byte on.
        """
        if first < self._readable:
            check_readable(self._path, first, self._readable)
            self._readable = first


def _is_no_media(exc: Exception, name: str) -> bool:
    """Whether that is about what a file holds. Matroska's demuxer gives EIO where a file ends within its header."""
    if isinstance(exc, (av.error.InvalidDataError, av.error.EOFError)):
        return True
    return "://" not in name and isinstance(exc, OSError) and exc.errno == errno.EIO


def _open_error(name: str, exc: Exception) -> InputError:
    if isinstance(exc, PermissionError):
        return InputError(f"{name}: permission denied; check the file's rights")
    if _is_no_media(exc, name):
        return InputError(
            f"{name}: is not a media file that FFmpeg can read, or its index is missing (an unfinished recording or "
            "download); copy or download it again"
        )
    reason = getattr(exc, "strerror", None) or str(exc)
    return InputError(f"{name}: cannot be opened: {reason}")


def codec_name(stream: av.stream.Stream) -> str:
    """FFmpeg's name of a stream's codec, "unknown" where it has none."""
    if stream.codec_context is not None:
        return stream.codec_context.codec.canonical_name
    if stream.type == "data" and stream.name:
        return stream.name
    return "unknown"


def compresses(context: av.VideoCodecContext) -> bool:
    """Whether the codec has left marks, so that a network for compressed video does better (docs/quality.md).

    No lossless codec has, nor has one for editing but for `MARKING`. Lossless WebP is of R'G'B' (RFC 9649, 3). Lossless
    H.264 of fewer chroma samples than 4:4:4 is known by its profile (ITU-T H.264, A.2.7: no other has the transform
    bypass).
    """
    codec = context.codec
    if codec.canonical_name == "webp":
        return (context.pix_fmt or "").startswith("yuv")
    if codec.canonical_name in MARKING:
        return True
    if not codec.lossy or codec.intra_only or codec.canonical_name in MEZZANINE:
        return False
    return context.profile != "High 4:4:4 Predictive" or "444" in (context.pix_fmt or "")


def is_attached_picture(stream: av.stream.Stream) -> bool:
    """Whether a video stream is cover art or a thumbnail rather than a film."""
    flags = Disposition.attached_pic | Disposition.timed_thumbnails
    return bool(stream.disposition & flags)


def video_stream(container: av.container.InputContainer, name: str, index: int | None = None) -> VideoStream:
    """The video stream to work on: that index, or the one that FFmpeg takes for the best, but if others are as much a
    default and larger, the largest; cover art only if nothing else is there.

    Raises:
        InputError: there is none, or FFmpeg has no decoder for it.
    """
    videos = container.streams.video
    if index is not None:
        if not any(s.index == index for s in videos):
            have = ", ".join(str(s.index) for s in videos) or "none"
            raise InputError(f"{name}: stream {index} is not a video stream (video streams: {have})")
        chosen = next(s for s in videos if s.index == index)
    elif not videos:
        kinds = ", ".join(sorted({s.type for s in container.streams})) or "no streams at all"
        raise InputError(f"{name}: has no video stream (it has: {kinds})")
    else:
        films = [s for s in videos if not is_attached_picture(s)] or list(videos)
        usable = [s for s in films if s.codec_context is not None] or films
        best = container.streams.best("video")
        chosen = next((s for s in usable if best is not None and s.index == best.index), usable[0])
        # Where bit rates are not stated, FFmpeg takes that of which it has seen most frames: 30 a second before 25.
        default = chosen.disposition & Disposition.default
        others = [s for s in usable if s.disposition & Disposition.default == default and _has_pictures(s)]
        chosen = max([chosen, *others], key=lambda s: s.width * s.height if s.codec_context is not None else 0)
    if chosen.codec_context is None:
        raise InputError(f"{name}: FFmpeg has no decoder for video stream {chosen.index}")
    return chosen


def _has_pictures(stream: VideoStream) -> bool:
    """Whether FFmpeg has seen one, by which it knows their format."""
    return stream.codec_context is not None and stream.codec_context.pix_fmt is not None


def last_duration(
    container: av.container.InputContainer, stream: VideoStream, pts: int, duration: int, *, whole: bool = False
) -> int:
    """Ticks for which the last frame of a stream stays.

    MP4 and QuickTime keep no frame's duration but steps from one decoding time to the next (ISO/IEC 14496-12, 8.6.1.2),
    and the frame shown last need not be the one decoded last: how long it stays follows from where the track ends.

    Args:
        container: that holds it.
        stream: the stream.
        pts: of that frame, in ticks.
        duration: of it as FFmpeg states it. An end that asks for twice as much is that of a file that was cut short;
            where frames are hidden, as FFmpeg's `-ss` with `-c copy` leaves them, the track ends with its sound.
        whole: the file is one that was completed: its end counts however long the frame then stays.
    """
    if "mov" not in container.format.name.split(",") or not stream.duration:
        return duration
    rest = (stream.start_time or 0) + stream.duration - pts
    longest = duration if stated_frames(container, stream) < stream.frames else 2 * duration - 1
    return rest if rest > 0 and (whole or rest <= longest) else duration


def stated_frames(container: av.container.InputContainer, stream: VideoStream) -> int:
    """Frames that a file says are shown, 0 where it does not say: in MP4 and QuickTime without what edit lists hide."""
    if "mov" not in container.format.name.split(",") or not stream.frames or not stream.index_entries:
        return stream.frames
    return sum(not entry.is_discard for entry in stream.index_entries)


def fraction(value: Any) -> Fraction | None:
    """A rational of PyAV or of Python as a Fraction; None for 0 and for undefined ones."""
    if value is None or not value.denominator or not value.numerator:
        return None
    return Fraction(value.numerator, value.denominator)


def plausible_rate(value: Any) -> Fraction | None:
    """PyAV's frame rate as a Fraction; None if it is absurd, as it is where a container only states its tick."""
    rate = fraction(value)
    return rate if rate is not None and Fraction(1, 100) <= rate <= 300 else None


def parse_clock(text: str) -> Fraction | None:
    """Seconds of a `HH:MM:SS.fraction` text, None if it is none."""
    found = _CLOCK.fullmatch(text.strip())
    return int(found[1]) * 3600 + int(found[2]) * 60 + Fraction(found[3]) if found else None


def coded_display_matrix(context: av.VideoCodecContext) -> tuple[int, ...] | None:
    """The container's display matrix as FFmpeg's nine integers, None where there is none."""
    return unpack_matrix(context.coded_side_data.get("display_matrix"))


def reel(stream: av.stream.Stream) -> dict[str, str]:
    """The tag that names the reel or card a video was taken from, where QuickTime keeps it: at the timecode's track."""
    code = stream.metadata.get("timecode")
    if code is None or stream.type != "video":
        return {}
    tracks = (track.metadata for track in stream.container.streams.data)
    return next(({"reel_name": t["reel_name"]} for t in tracks if t.get("timecode") == code and "reel_name" in t), {})


def unpack_matrix(data: bytes | None) -> tuple[int, ...] | None:
    """The nine integers of a display matrix in FFmpeg's side data."""
    return struct.unpack("=9i", data) if data is not None and len(data) == 36 else None


def clean_text(text: str) -> str:
    """A tag as valid Unicode; bytes that are not UTF-8 are read as Western European (Windows-1252)."""
    try:
        text.encode()
    except UnicodeEncodeError:  # PyAV smuggles such bytes through as surrogates
        return text.encode("utf-8", "surrogateescape").decode("cp1252", "replace")
    return text


def clean_tags(tags: Mapping[str, str]) -> dict[str, str]:
    """Names and values of tags as valid Unicode."""
    return {clean_text(key): clean_text(value) for key, value in tags.items()}

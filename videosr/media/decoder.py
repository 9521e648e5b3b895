"""A video file as a stream of exactly timed planar frames."""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Generator, Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import av
import av.error
from av.video.stream import VideoStream

from videosr.errors import InputError
from videosr.frame import Frame, PixelFormat, StreamInfo
from videosr.media.colorinfo import resolve_color, tagged_color
from videosr.media.planes import PlaneReader, planar_format

MAX_SIDE = 16384
MAX_PIXELS = 2**28
IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"})

STATIC_HDR = ("MASTERING_DISPLAY_METADATA", "CONTENT_LIGHT_LEVEL")
"""Side data of frames that describes the whole stream and that encoders can write again."""
LOST_SIDE_DATA = {
    "A53_CC": "embedded captions (A53)",
    "DYNAMIC_HDR_PLUS": "HDR10+ dynamic metadata",
    "DYNAMIC_HDR_VIVID": "HDR Vivid metadata",
    "DOVI_RPU_BUFFER": "Dolby Vision metadata",
    "DOVI_METADATA": "Dolby Vision metadata",
    "ICC_PROFILE": "ICC profile",
    "STEREO3D": "stereoscopic 3D description",
    "SPHERICAL": "spherical (360 degree) description",
    "S12M_TIMECODE": "frame timecodes",
    "AMBIENT_VIEWING_ENVIRONMENT": "ambient viewing environment",
    "EXIF": "EXIF data",
}
"""Side data that a decoder finds and that no encoder of PyAV can be given, by what people call it."""


def open_input(path: str | os.PathLike[str], **options: str) -> av.container.InputContainer:
    """Open a media file for reading.

    Raises:
        InputError: it does not exist, is a folder, is empty, may not be read or is no media file.
    """
    name = os.fspath(path)
    if "://" not in name:
        file = Path(name)
        try:
            size = file.stat().st_size
        except OSError as exc:
            raise InputError(f"{name}: {exc.strerror}; check the path") from exc
        if file.is_dir():
            raise InputError(f"{name}: is a folder; give one video file")
        if size == 0 and file.is_file():
            raise InputError(f"{name}: is empty (0 bytes); copy or download it again")
        name = f"file:{name}"  # a colon in a file name must not be read as a protocol
        if file.suffix.lower() in IMAGE_SUFFIXES:
            options["pattern_type"] = "none"  # a percent sign must not be read as a sequence of images
    try:
        container = av.open(name, "r", options={"max_pixels": str(MAX_PIXELS)}, container_options=options)
    except (av.error.FFmpegError, OSError, ValueError) as exc:
        raise _open_error(os.fspath(path), exc) from exc
    if container.format.name == "tty":
        container.close()
        raise InputError(f"{os.fspath(path)}: is a text file, not a video")
    return container


def _open_error(name: str, exc: Exception) -> InputError:
    if isinstance(exc, PermissionError):
        return InputError(f"{name}: permission denied; check the file's rights")
    if isinstance(exc, (av.error.InvalidDataError, av.error.EOFError)):
        return InputError(
            f"{name}: is not a media file that FFmpeg can read, or its index is missing (an unfinished recording or "
            "download); copy or download it again"
        )
    reason = getattr(exc, "strerror", None) or str(exc)
    return InputError(f"{name}: cannot be opened: {reason}")


def is_attached_picture(stream: av.stream.Stream) -> bool:
    """Whether a video stream is cover art or a thumbnail rather than a film."""
    flags = av.stream.Disposition.attached_pic | av.stream.Disposition.timed_thumbnails
    return bool(stream.disposition & flags)


def video_stream(container: av.container.InputContainer, name: str, index: int | None = None) -> VideoStream:
    """The video stream to work on: that index, or the best one; cover art only if nothing else is there.

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
    if chosen.codec_context is None:
        raise InputError(f"{name}: FFmpeg has no decoder for video stream {chosen.index}")
    return chosen


class Decoder:
    """Decodes one video stream of a file into frames, in presentation order.

    Iterate once. Every frame's planes are fresh arrays that nobody else holds. `info` is known before the first
    frame is asked for, because the first one is decoded on opening; `warnings` grows while frames are read.

    Args:
        path: file to read.
        stream: index of the video stream in the container; the best one by default.
        start: seconds after the beginning of the file at which to begin; frames shown earlier are skipped.
        duration: seconds after `start` at which to end.
        frames: end after that many frames.
        threads: decoder threads; 0 chooses by the machine. The frames do not depend on it.

    Attributes:
        info: what the stream says of itself, colour resolved.
        warnings: one line for each kind of thing that was repaired, guessed or concealed.
        losses: what rides on the frames (captions, dynamic HDR, ...) and cannot be carried to another file.
        hdr: static HDR side data of the stream, as it is on every frame.
        display_matrix: FFmpeg's 3x3 display matrix as nine integers, None where there is none.

    Raises:
        InputError: the file cannot be used; the message names it and says what to do. Also while iterating, if the
            picture changes its size or format in mid-stream.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        stream: int | None = None,
        start: Fraction | None = None,
        duration: Fraction | None = None,
        frames: int | None = None,
        threads: int = 0,
    ) -> None:
        self.name = os.fspath(path)
        self.warnings: list[str] = []
        self.losses: list[str] = []
        self._noted: set[str] = set()
        self._reader = PlaneReader()
        self._limit = frames
        self._bad_packets = 0
        self._bad_frames = 0
        self._container = open_input(path)
        try:
            self._open(stream, start, duration, threads)
        except BaseException:
            self._container.close()
            raise

    def _open(self, index: int | None, start: Fraction | None, duration: Fraction | None, threads: int) -> None:
        container = self._container
        self._stream = video_stream(container, self.name, index)
        context = self._stream.codec_context
        self._check_size(context.width, context.height)
        self._time_base = Fraction(self._stream.time_base.num, self._stream.time_base.den)
        origin = Fraction(container.start_time or 0, 1_000_000)
        self._first_pts: int | None = None
        self._end_pts: int | None = None
        if start:
            self._first_pts = math.ceil((origin + start) / self._time_base)
        if duration is not None:
            self._end_pts = math.ceil((origin + (start or 0) + duration) / self._time_base)
        self._threads = threads or min(os.cpu_count() or 1, 8)
        self._prepare(context)
        for other in container.streams:
            if other.index != self._stream.index:
                other.discard = av.stream.Discard.all
        self.hdr: tuple[tuple[str, bytes], ...] = _coded_hdr(context)
        self.display_matrix = coded_display_matrix(context)

        self._source = self._pictures()
        try:
            first = next(self._source, None)
        except av.error.FFmpegError as exc:
            raise InputError(f"{self.name}: cannot be decoded: {exc.strerror}") from exc
        if first is None:
            if self._first_pts is not None:
                raise InputError(f"{self.name}: has no frame at or after the start of {float(start or 0):g} s")
            damaged = f" ({self._bad_packets} packets are damaged)" if self._bad_packets else ""
            raise InputError(f"{self.name}: video stream {self._stream.index} has no decodable frame{damaged}")
        self._pending: av.VideoFrame | None = first
        self._describe(first)

    def _prepare(self, context: av.VideoCodecContext) -> None:
        context.thread_count = self._threads
        context.thread_type = "AUTO"
        context.options = {"max_pixels": str(MAX_PIXELS)}

    def _check_size(self, width: int, height: int) -> None:
        if width > MAX_SIDE or height > MAX_SIDE or width * height > MAX_PIXELS:
            raise InputError(f"{self.name}: {width}x{height} is too large; the limit is {MAX_SIDE} pixels a side")

    def _describe(self, first: av.VideoFrame) -> None:
        """Fill `info`, `losses` and the warnings that can be given before work starts."""
        stream, context = self._stream, self._stream.codec_context
        self._check_size(first.width, first.height)
        try:
            fmt = planar_format(first.format.name, opaque=Path(self.name).suffix.lower() not in IMAGE_SUFFIXES)
        except InputError as exc:
            raise InputError(f"{self.name}: {exc}") from exc
        self._source_format = first.format.name
        codec = context.codec.canonical_name
        tagged = tagged_color(
            first.colorspace, first.color_range, first.color_primaries, first.color_trc, first.chroma_location
        )
        full = first.format.name.startswith("yuvj")
        color, guesses = resolve_color(tagged, fmt, first.height, first.width, codec=codec, full_range_format=full)
        if guesses:
            self._warn("colour", f"colour not fully tagged, assumed {', '.join(guesses)}")
        sar = stream.sample_aspect_ratio
        side = {kind.name for kind in first.side_data}
        coded = context.coded_side_data
        if "dovi_conf" in coded:
            side.add("DOVI_METADATA")
        self.losses = sorted({LOST_SIDE_DATA[s] for s in side if s in LOST_SIDE_DATA})
        rate = next(
            (r for r in map(plausible_rate, (stream.average_rate, stream.guessed_rate, stream.base_rate)) if r), None
        )
        self.info = StreamInfo(
            width=first.width,
            height=first.height,
            format=fmt,
            time_base=self._time_base,
            rate=rate,
            frames=stream.frames,
            duration=self._stated_duration(),
            color=color,
            sar=_fraction(sar) or Fraction(1),
            rotation=first.rotation,
            codec=codec,
        )
        self._tick = max(1, round(1 / (rate * self._time_base))) if rate else 1

    def _stated_duration(self) -> Fraction | None:
        """Seconds of video as the container states them, None where it says nothing about this stream."""
        stream = self._stream
        if stream.duration:
            return stream.duration * self._time_base
        for key, value in stream.metadata.items():
            if key.upper().startswith("DURATION"):  # Matroska's statistics tags
                return parse_clock(value)
        timed = [s for s in self._container.streams if s.type in ("video", "audio")]
        if len(timed) == 1 and self._container.duration:
            return Fraction(self._container.duration, 1_000_000)
        return None

    @property
    def format(self) -> PixelFormat:
        """The planar format of the frames."""
        return self.info.format

    def _warn(self, kind: str, text: str) -> None:
        if kind not in self._noted:
            self._noted.add(kind)
            self.warnings.append(text)

    # -- decoding -----------------------------------------------------------------------------------------------

    def _pictures(self) -> Generator[av.VideoFrame]:
        """FFmpeg's frames from the wanted start on, in presentation order."""
        if self._first_pts is None:
            yield from self._decode_all()
            return
        self._container.seek(self._first_pts, stream=self._stream, backward=True)
        source = self._decode_all()
        first = next(source, None)
        if first is None or first.pts is None or first.pts > self._first_pts:
            # The index is missing or wrong: only reading from the beginning is sure to find the first frame.
            self._container.close()
            self._container = open_input(self.name)
            self._stream = video_stream(self._container, self.name, self._stream.index)
            self._prepare(self._stream.codec_context)
            source = self._decode_all()
            first = next(source, None)
        if first is not None:
            if first.pts is None or first.pts >= self._first_pts:
                yield first
            for frame in source:
                if frame.pts is None or frame.pts >= self._first_pts:
                    yield frame

    def _decode_all(self) -> Iterator[av.VideoFrame]:
        context = self._stream.codec_context
        packets = self._container.demux(self._stream)
        while True:
            try:
                packet = next(packets, None)
            except av.error.FFmpegError as exc:
                self._warn("read", f"reading stopped early: {exc.strerror}; the file is damaged or truncated")
                packet = None
            flushing = packet is None or packet.size == 0
            try:
                yield from context.decode(None if flushing else packet)
            except av.error.EOFError:
                return
            except av.error.FFmpegError:
                # One packet FFmpeg could not use at all; its neighbours may be fine.
                self._bad_packets += 1
            if flushing:
                return

    def __iter__(self) -> Iterator[Frame]:
        """The frames, once."""
        count = 0
        earliest: int | None = None
        previous: int | None = None
        held: Frame | None = None
        for picture in self._remaining():
            pts = self._timestamp(picture, previous)
            if self._end_pts is not None and pts >= self._end_pts:
                break
            if held is not None:
                yield self._with_duration(held, pts)
                held = None
            if self._limit is not None and count >= self._limit:
                break
            held = self._frame(picture, pts)
            earliest = pts if earliest is None else earliest
            previous = pts
            count += 1
        if held is not None:
            yield self._with_duration(held, None)
        self._conclude(count, earliest, previous)

    def _remaining(self) -> Iterator[av.VideoFrame]:
        if self._pending is not None:
            first, self._pending = self._pending, None
            yield first
        yield from self._source

    def _timestamp(self, picture: av.VideoFrame, previous: int | None) -> int:
        pts = picture.pts
        if pts is None:
            pts = picture.dts
            if pts is None or (previous is not None and pts <= previous):
                pts = 0 if previous is None else previous + (picture.duration or self._tick)
            self._warn("pts", "frames without a timestamp: times filled in from their neighbours")
        elif previous is not None and pts <= previous:
            self._warn(
                "order", f"timestamps that do not increase (first at {float(pts * self._time_base):.3f} s): moved"
            )
            pts = previous + 1
        return pts

    def _frame(self, picture: av.VideoFrame, pts: int) -> Frame:
        info = self.info
        if (picture.width, picture.height) != (info.width, info.height):
            raise InputError(
                f"{self.name}: the picture changes from {info.width}x{info.height} to {picture.width}x{picture.height} "
                f"at {float(pts * self._time_base):.3f} s; split the file there"
            )
        if picture.format.name != self._source_format:
            raise InputError(
                f"{self.name}: the pixel format changes from {self._source_format} to {picture.format.name} "
                f"at {float(pts * self._time_base):.3f} s; split the file there"
            )
        if picture.is_corrupt:
            self._bad_frames += 1
        if picture.interlaced_frame:
            self._warn(
                "interlaced", "the video is interlaced; it is upscaled as it is (deinterlace it first for best results)"
            )
        return Frame(
            planes=self._reader.read(picture, info.format),
            format=info.format,
            pts=pts,
            time_base=self._time_base,
            duration=max(0, picture.duration),
            color=info.color,
            sar=info.sar,
            interlaced=picture.interlaced_frame,
            key=picture.key_frame,
            side_data=self._static_hdr(picture),
        )

    def _static_hdr(self, picture: av.VideoFrame) -> tuple[tuple[str, bytes], ...]:
        """The stream's static HDR data; frames inherit it from earlier ones."""
        if len(picture.side_data):
            found = {k.name: bytes(picture.side_data[k]) for k in picture.side_data if k.name in STATIC_HDR}
            if found:
                self.hdr = tuple(sorted((dict(self.hdr) | found).items()))
        return self.hdr

    def _with_duration(self, frame: Frame, next_pts: int | None) -> Frame:
        if frame.duration > 0:
            return frame
        return replace(frame, duration=self._tick if next_pts is None else next_pts - frame.pts)

    def _conclude(self, count: int, first_pts: int | None, last_pts: int | None) -> None:
        """Say what went wrong on the way."""
        if self._bad_packets:
            self._warn("packets", f"{self._bad_packets} damaged packets could not be decoded")
        if self._bad_frames:
            self._warn("frames", f"{self._bad_frames} frames are damaged and were concealed")
        if self._first_pts is not None or self._end_pts is not None or self._limit is not None:
            return
        if first_pts is None or last_pts is None:
            return
        info = self.info
        if 0 < count < info.frames and self._container.format.name != "avi":  # AVI counts dropped frames as well
            self._warn("short", f"{count} frames found where the container states {info.frames}; it may be truncated")
        elif info.frames == 0 and info.duration is not None:
            shown = (last_pts + self._tick - first_pts) * self._time_base
            if shown < info.duration - max(Fraction(1, 2), info.duration / 50):
                self._warn(
                    "short",
                    f"{float(shown):.3f} s of video found where the container states {float(info.duration):.3f} s; "
                    "it may be truncated",
                )

    def close(self) -> None:
        """Release the file."""
        self._pending = None
        self._source.close()
        self._container.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def _fraction(value: Any) -> Fraction | None:
    """PyAV's rational as a Fraction; None for 0 and for undefined ones."""
    if value is None or not value.den or not value.num:
        return None
    return Fraction(value.num, value.den)


def plausible_rate(value: Any) -> Fraction | None:
    """PyAV's frame rate as a Fraction; None if it is absurd, as it is where a container only states its tick."""
    rate = _fraction(value)
    return rate if rate is not None and Fraction(1, 100) <= rate <= 300 else None


def parse_clock(text: str) -> Fraction | None:
    """Seconds of a `HH:MM:SS.fraction` text, None if it is none."""
    try:
        hours, minutes, seconds = text.split(":")
        return int(hours) * 3600 + int(minutes) * 60 + Fraction(seconds.strip())
    except ValueError:
        return None


def _coded_hdr(context: av.VideoCodecContext) -> tuple[tuple[str, bytes], ...]:
    coded = context.coded_side_data
    names = {"mastering_display_metadata": STATIC_HDR[0], "content_light_level": STATIC_HDR[1]}
    return tuple(sorted((names[k], bytes(v)) for k, v in coded.items() if k in names))


def coded_display_matrix(context: av.VideoCodecContext) -> tuple[int, ...] | None:
    """The container's display matrix as FFmpeg's nine integers, None where there is none."""
    data = context.coded_side_data.get("display_matrix")
    return struct.unpack("=9i", data) if data is not None and len(data) == 36 else None

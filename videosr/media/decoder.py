"""A video file as a stream of exactly timed planar frames."""

from __future__ import annotations

import math
import os
from collections import deque
from collections.abc import Generator, Iterator
from dataclasses import replace
from fractions import Fraction
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Self

import av
import av.error
from av.codec.context import Flags

from videosr.errors import InputError
from videosr.frame import ColorSpec, Frame, PixelFormat, StreamInfo
from videosr.media.colorinfo import resolve_color, tagged_color
from videosr.media.deinterlace import LEAD, Deinterlacer, Plan
from videosr.media.hdr import SideData
from videosr.media.limits import DEFAULT_MAX_PIXELS, check_refused, check_size
from videosr.media.planes import PlaneReader, planar_format
from videosr.media.source import (
    IMAGE_SUFFIXES,
    coded_display_matrix,
    fraction,
    open_input,
    parse_clock,
    plausible_rate,
    unpack_matrix,
    video_stream,
)

HELD_FRAMES = 8
HELD_BYTES = 64 * 2**20


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
        deinterlace: how interlaced frames are made whole; None leaves them as they are.
        max_pixels: pictures of more are refused before memory is asked for.
        follow: a picture that changes its size or format in mid-stream comes as it is, with a warning, instead of
            ending the iteration with an error.
        threads: decoder threads; 0 chooses by the machine. The frames do not depend on it.

    Attributes:
        info: what the stream says of itself, colour resolved; of its frames as they come.
        deinterlace: as given.
        origin: seconds of the time stamp with which the file begins.
        warnings: one line for each kind of thing that was repaired, guessed or concealed.
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
        deinterlace: Plan | None = None,
        max_pixels: int = DEFAULT_MAX_PIXELS,
        follow: bool = False,
        threads: int = 0,
    ) -> None:
        self.name = os.fspath(path)
        self.warnings: list[str] = []
        self._noted: set[str] = set()
        self._reader = PlaneReader()
        self._limit = frames
        self.deinterlace = deinterlace
        self._early = 0
        self._bad_packets = 0
        self._bad_frames = 0
        self._max_pixels, self._follow = max_pixels, follow
        self._container = open_input(path, max_pixels)
        try:
            self._open(stream, start, duration, threads)
        except BaseException:
            self._container.close()
            raise

    def _open(self, index: int | None, start: Fraction | None, duration: Fraction | None, threads: int) -> None:
        container = self._container
        self._stream = video_stream(container, self.name, index)
        context = self._stream.codec_context
        self._index = self._stream.index
        check_size(self.name, context.width, context.height, self._max_pixels)
        self._time_base = Fraction(self._stream.time_base.num, self._stream.time_base.den)
        self.origin = origin = Fraction(container.start_time or 0, 1_000_000)
        self._first_pts: int | None = None
        self._end_pts: int | None = None
        if start:
            self._first_pts = math.ceil((origin + start) / self._time_base)
        if duration is not None:
            self._end_pts = math.ceil((origin + (start or 0) + duration) / self._time_base)
        self._threads = threads or min(os.cpu_count() or 1, 8)
        self._prepare()
        self._side_data = SideData(context)
        self.display_matrix = coded_display_matrix(context)

        self._source = self._pictures()
        try:
            first = next(self._source, None)
        except av.error.FFmpegError as exc:
            raise InputError(f"{self.name}: cannot be decoded: {exc.strerror}") from exc
        if first is None:
            check_refused(self.name, self._index, self._max_pixels)
            if self._first_pts is not None:
                raise InputError(f"{self.name}: has no frame at or after the start of {float(start or 0):g} s")
            damaged = f" ({self._bad_packets} packets are damaged)" if self._bad_packets else ""
            raise InputError(f"{self.name}: video stream {self._stream.index} has no decodable frame{damaged}")
        self._pending: av.VideoFrame | None = first
        self._describe(first)

    def _prepare(self) -> None:
        """Set the decoder up and keep the demuxer from reading what is not asked for."""
        context = self._stream.codec_context
        context.thread_count = self._threads
        context.thread_type = "AUTO"
        context.flags |= Flags.unaligned  # else FFmpeg rounds what is cropped on the left
        context.options = {"max_pixels": str(self._max_pixels)}
        for other in self._container.streams:
            if other.index != self._stream.index:
                other.discard = av.stream.Discard.all
        try:
            context.open(strict=False)
        except (av.error.FFmpegError, ValueError) as exc:
            reason = getattr(exc, "strerror", None) or exc
            raise InputError(f"{self.name}: the video stream's header is damaged: {reason}") from exc

    def _describe(self, first: av.VideoFrame) -> None:
        """Fill `info`, `losses` and the warnings that can be given before work starts."""
        stream, context = self._stream, self._stream.codec_context
        fmt, color, guesses = self._look(first)
        self._form = _form(first)
        if guesses:
            self._warn("colour", f"colour not fully tagged, assumed {', '.join(guesses)}")
        sar = stream.sample_aspect_ratio
        self._side_data.of(first)
        for kind, data in first.side_data.items():
            if kind.name == "DISPLAYMATRIX" and self.display_matrix is None:
                self.display_matrix = unpack_matrix(bytes(data))
        rate = next(
            (r for r in map(plausible_rate, (stream.average_rate, stream.guessed_rate, stream.base_rate)) if r), None
        )
        info = StreamInfo(
            width=first.width,
            height=first.height,
            format=fmt,
            time_base=self._time_base,
            rate=rate,
            frames=stream.frames,
            duration=self._stated_duration(),
            color=color,
            sar=fraction(sar) or Fraction(1),
            rotation=first.rotation,
            codec=context.codec.canonical_name,
        )
        self._tick = max(1, round(1 / (rate * self._time_base))) if rate else 1
        self._coded = info
        self.info = self.deinterlace.info(info) if self.deinterlace else info

    def _look(self, picture: av.VideoFrame) -> tuple[PixelFormat, ColorSpec, list[str]]:
        """The planar format and colour of a picture, and what had to be guessed of it."""
        check_size(self.name, picture.width, picture.height, self._max_pixels)
        name = picture.format.name
        try:
            fmt = planar_format(name, opaque=Path(self.name).suffix.lower() not in IMAGE_SUFFIXES)
        except InputError as exc:
            raise InputError(f"{self.name}: {exc}") from exc
        tagged = tagged_color(
            picture.colorspace, picture.color_range, picture.color_primaries, picture.color_trc, picture.chroma_location
        )
        codec = self._stream.codec_context.codec.canonical_name
        size = picture.height, picture.width
        return fmt, *resolve_color(tagged, fmt, *size, codec=codec, full_range_format=name.startswith("yuvj"))

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
    def losses(self) -> list[str]:
        """What rides on the frames and cannot be carried to another file; grows while frames are read."""
        return self._side_data.losses

    @property
    def hdr(self) -> tuple[tuple[str, bytes], ...]:
        """Static HDR side data of the stream, as it is on every frame."""
        return self._side_data.static

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
        """FFmpeg's frames from the wanted start on, in presentation order, the same on every machine.

        Decoders that work on several frames at once conceal damage differently each time. So at the first damage the
        rest is decoded again on one thread. B-frames shown before the damaged frame may have been predicted from it, so
        a run of frames is held back until it is clear that all is well.
        """
        done = 0
        held: deque[av.VideoFrame] = deque()
        for picture in self._from_start():
            if self._threads > 1 and (picture.is_corrupt or self._bad_packets):
                break
            held.append(picture)
            while len(held) > (0 if self._threads == 1 else _frames_to_hold(picture)):
                yield held.popleft()
                done += 1
        else:
            if self._threads == 1 or not self._bad_packets:
                yield from held
                return
        held.clear()
        self._threads, self._bad_packets = 1, 0
        self._reopen()
        yield from islice(self._from_start(), done, None)

    def _reopen(self) -> None:
        self._container.close()
        self._container = open_input(self.name, self._max_pixels)
        self._stream = video_stream(self._container, self.name, self._index)
        self._prepare()

    def _from_start(self) -> Iterator[av.VideoFrame]:
        """Frames from the wanted start on."""
        if self._first_pts is None:
            yield from self._decode_all()
            return
        lead = LEAD if self.deinterlace else 0
        self._container.seek(self._first_pts - round(lead / 4 / self._time_base), stream=self._stream, backward=True)
        source = self._decode_all()
        shown, earlier = self._reach_start(source, lead)
        exact = lead == 0 and bool(shown) and shown[0].pts == self._first_pts
        if earlier < max(lead, 1) and not exact:
            # The index is missing or wrong, or the beginning is near: only reading from there is sure to find them all.
            self._reopen()
            source = self._decode_all()
            shown, _ = self._reach_start(source, lead)
        self._early = max(0, len(shown) - 1)
        yield from shown
        for picture in source:
            if picture.pts is None or picture.pts >= self._first_pts:
                yield picture

    def _reach_start(self, source: Iterator[av.VideoFrame], lead: int) -> tuple[deque[av.VideoFrame], int]:
        """The first picture that is wanted, behind up to `lead` earlier ones, and how many earlier ones there were."""
        assert self._first_pts is not None
        shown: deque[av.VideoFrame] = deque(maxlen=lead + 1)
        for earlier, picture in enumerate(source):
            shown.append(picture)
            if picture.pts is None or picture.pts >= self._first_pts:
                return shown, earlier
        return deque(), len(shown)

    def _decode_all(self) -> Iterator[av.VideoFrame]:
        """Every frame from where the container stands."""
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
        frames, early, fields = self._timed(), self._early, 1
        if self.deinterlace:
            frames = Deinterlacer(self.deinterlace).run(frames)
            fields = 2 if self.deinterlace.double else 1
        count = 0
        earliest: int | None = None
        latest: int | None = None
        for number, frame in enumerate(frames):
            if number < early * fields and self._first_pts is not None and frame.pts < self._first_pts * fields:
                continue  # it was only to be seen by its successors
            if self._end_pts is not None and frame.pts >= self._end_pts * fields:
                break
            earliest = frame.pts if earliest is None else earliest
            latest = frame.pts
            count += 1
            yield frame
            if count == self._limit:
                break
        self._conclude(count, earliest, latest)

    def _timed(self) -> Iterator[Frame]:
        """Every frame, each once the next one's time is known."""
        previous: int | None = None
        held: Frame | None = None
        for picture in self._remaining():
            pts = self._timestamp(picture, previous)
            if held is not None:
                yield self._with_duration(held, pts)
            held = self._frame(picture, pts)
            previous = pts
        if held is not None:
            yield self._with_duration(held, None)

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
        fmt, color, sar = self._coded.format, self._coded.color, self._coded.sar
        if _form(picture) != self._form:
            fmt, color, sar = self._changed(picture, pts)
        if picture.is_corrupt:
            self._bad_frames += 1
        if picture.interlaced_frame and not self.deinterlace:
            self._warn("interlaced", "frames are marked as interlaced; they are upscaled as they are")
        return Frame(
            planes=self._reader.read(picture, fmt),
            format=fmt,
            pts=pts,
            time_base=self._time_base,
            duration=max(0, picture.duration),
            color=color,
            sar=sar,
            interlaced=picture.interlaced_frame,
            key=picture.key_frame,
            side_data=self._side_data.of(picture),
        )

    def _changed(self, picture: av.VideoFrame, pts: int) -> tuple[PixelFormat, ColorSpec, Fraction]:
        """Format, colour and sample aspect ratio of a picture that is not as the first one."""
        was, now = ("{}x{} {}".format(*form) for form in (self._form, _form(picture)))
        change = f"the picture changes from {was} to {now} at {float(pts * self._time_base):.3f} s"
        if not self._follow:
            raise InputError(f"{self.name}: {change}; split the file there")
        self._warn("change", f"{change}: it is fitted into the size, format and colour that the video began with")
        fmt, color, _ = self._look(picture)
        return fmt, color, fraction(self._stream.codec_context.sample_aspect_ratio) or Fraction(1)

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
            shown = (last_pts - first_pts) * info.time_base + self._tick * self._time_base
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


def _form(picture: av.VideoFrame) -> tuple[int, int, str]:
    return picture.width, picture.height, picture.format.name


def _frames_to_hold(picture: av.VideoFrame) -> int:
    """As many as encoders put B-frames in a row, as far as memory allows."""
    size = picture.width * picture.height * picture.format.padded_bits_per_pixel // 8
    return max(2, min(HELD_FRAMES, HELD_BYTES // size))

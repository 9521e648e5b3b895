"""A video file as a stream of exactly timed planar frames.

`pictures` gives FFmpeg's frames in order; here each becomes a `Frame`: its timestamp is repaired where it is missing or
goes back, its duration is taken from the next one's timestamp where the file says none, its planes are copied into
arrays, and a frame whose size, format or colour differs from the first one's is refused or passed on with a warning.
Deinterlacing (`deinterlace`) comes last.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

import av
import av.error

from videosr.color import converted, unmultiplied
from videosr.errors import InputError
from videosr.frame import ColorSpec, Frame, PixelFormat, StreamInfo
from videosr.media.colorinfo import INEXACT, changes, color_of
from videosr.media.conform import Conformer
from videosr.media.deinterlace import LEAD, Deinterlacer, Plan
from videosr.media.fields import Pulldown
from videosr.media.hdr import SideData
from videosr.media.joined import joined
from videosr.media.limits import DEFAULT_MAX_PIXELS, check_size
from videosr.media.pictures import Pictures, check_refused
from videosr.media.planes import planar_format
from videosr.media.source import (
    IMAGE_SUFFIXES,
    coded_display_matrix,
    compresses,
    fraction,
    last_duration,
    parse_clock,
    plausible_rate,
    stated_frames,
    unpack_matrix,
)
from videosr.media.stills.mixed import common_format, holds
from videosr.media.stills.numbered import RATE, Numbered
from videosr.media.stills.tiffs import further_pages, is_premultiplied
from videosr.media.undated import dated

_ROUNDED = Fraction(1, 2_000_000)
"""Seconds by which FFmpeg may give a file's begin too late: it rounds that to microseconds."""


class _Form(NamedTuple):
    """What is the same for all pictures of a video, unless it was joined from several."""

    width: int
    height: int
    pix_fmt: str
    color: ColorSpec


class _Warnings:
    """Keeps a line for each kind of thing.

    Not the decoder itself does, for `Pictures` holds it: a decoder that is let go is to go at once, with its threads.
    """

    def __init__(self) -> None:
        self.lines: list[str] = []
        self._kinds: set[str] = set()

    def __call__(self, kind: str, text: str) -> None:
        if kind not in self._kinds:
            self._kinds.add(kind)
            self.lines.append(text)


class Decoder:
    """Decodes the video stream of a file into frames, in presentation order.

    Iterate once. Every frame's planes are fresh arrays that nobody else holds. `info` is known before the first
    frame is asked for, because the first one is decoded on opening; `warnings` grows while frames are read.

    Args:
        path: file to read.
        start: seconds after the beginning of the file at which to begin; frames shown earlier are skipped.
        duration: seconds after `start` at which to end; None: at the end of the file.
        frames: end after that many frames.
        rate: frames a second of numbered pictures; other files say it themselves.
        deinterlace: how interlaced frames are made whole; None leaves them as they are.
        max_pixels: pictures of more are refused before memory is asked for.
        follow: a picture that changes its size, format or colour in mid-stream comes as it is, with a warning, instead
            of ending the iteration with an error.
        threads: decoder threads; 0 chooses by the machine. The frames do not depend on it.
        device: CUDA device whose NVDEC decodes, giving frames on that GPU; what it cannot do the CPU decodes, with a
            warning. The samples do not depend on it.

    Attributes:
        info: describes the frames as they come: after deinterlacing, with what was not tagged filled in.
        deinterlace: as given.
        origin: the timestamp with which the file begins, in seconds.
        numbered: the files of numbered pictures; None: one file holds them all.
        warnings: one line for each kind of thing that was repaired, guessed or concealed.
        first_data: the side data of the first frame.
        transparent: something in the frames read so far is not opaque.
        display_matrix: FFmpeg's 3x3 display matrix as nine integers, None where there is none.

    Raises:
        InputError: the file cannot be used; the message names it and says what to do. Also while iterating, if the
            picture changes its size, format or colour in mid-stream, or the disk fails.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        start: Fraction | None = None,
        duration: Fraction | None = None,
        frames: int | None = None,
        rate: Fraction = RATE,
        deinterlace: Plan | None = None,
        max_pixels: int = DEFAULT_MAX_PIXELS,
        follow: bool = False,
        threads: int = 0,
        device: int | None = None,
    ) -> None:
        self.name = os.fspath(path)
        self._warn = _Warnings()
        self.warnings = self._warn.lines
        self._limit = frames
        self.deinterlace = deinterlace
        self._bad_frames = 0
        self.transparent = False
        self._max_pixels, self._follow = max_pixels, follow
        numbered = Numbered.of(path)
        self._common = None if numbered is None else common_format(numbered)
        if device is not None and (deinterlace or self._common is not None):
            device = None
            what = "deinterlacing is done" if deinterlace else "pictures of several kinds are brought to one"
            self._warn("device", f"decoded on the CPU, where {what}")
        self._pictures = Pictures(path, max_pixels=max_pixels, threads=threads, device=device, note=self._warn)
        self.numbered = self._pictures.numbered
        try:
            self._open(start, duration, rate)
        except BaseException:
            self._pictures.close()
            raise

    def _open(self, start: Fraction | None, duration: Fraction | None, rate: Fraction) -> None:
        pictures = self._pictures
        context = pictures.stream.codec_context
        check_size(self.name, context.width, context.height, self._max_pixels)
        base = pictures.stream.time_base
        self._time_base = Fraction(base.num, base.den) if self.numbered is None else 1 / rate  # their times are 0, 1, 2
        self.origin = origin = Fraction(pictures.container.start_time or 0, 1_000_000)
        self._end_pts: int | None = None
        begin = origin - _ROUNDED + (start or 0)
        if start:
            pictures.first_pts = math.ceil(begin / self._time_base)
        if duration is not None:
            self._end_pts = math.ceil((begin + duration) / self._time_base)
        pictures.lead = LEAD if self.deinterlace else 0
        pictures.prepare()
        context = pictures.stream.codec_context
        self._side_data = SideData(context)
        self._demuxer = pictures.container.format.name
        tiff = context.codec.name == "tiff"
        self._pages = further_pages(self._file(0)) if tiff else []
        self._premultiplied = tiff and is_premultiplied(self._file(0))
        # Which may have become Matroska: elsewhere the others of its pictures are streams.
        self._heif = pictures.heif if "matroska" in self._demuxer else None
        if self._heif is not None:
            self._pages = self._heif.further
        self.display_matrix = coded_display_matrix(context)

        self._source = iter(pictures)
        if not pictures.on_device:  # which has room for few pictures at a time
            self._source = dated(self._source)
        try:
            first = next(self._source, None)
        except av.error.FFmpegError as exc:
            raise InputError(f"{self.name}: cannot be decoded: {exc.strerror}") from exc
        if first is None:
            check_refused(self.name, pictures.stream.index, self._max_pixels)
            if pictures.first_pts is not None:
                raise InputError(f"{self.name}: has no frame at or after the start of {float(start or 0):g} s")
            damaged = f" ({pictures.bad_packets} packets are damaged)" if pictures.bad_packets else ""
            raise InputError(f"{self.name}: video stream {pictures.stream.index} has no decodable frame{damaged}")
        self._pending: av.VideoFrame | None = first
        self._describe(first)

    def _describe(self, first: av.VideoFrame) -> None:
        """Fill `info`, and the warnings that can be given before work starts."""
        stream, context = self._pictures.stream, self._pictures.stream.codec_context
        fmt, color, guesses = self._look(first)
        self._form = self._latest = _Form(first.width, first.height, self._pictures.format_of(first), color)
        if guesses:
            self._warn("colour", f"colour not fully tagged, assumed {', '.join(guesses)}")
        if any(self._pictures.cropping.edges):
            self._warn("crop", f"cropped to {first.width}x{first.height}, as the container says")
        sar = stream.sample_aspect_ratio
        rides = self._pictures.side_data.of(first)
        self.first_data = self._side_data.of(rides)
        if self.display_matrix is None and "DISPLAYMATRIX" in rides:
            self.display_matrix = unpack_matrix(rides["DISPLAYMATRIX"])
        rates = stream.average_rate, stream.guessed_rate, stream.base_rate
        rate = (
            next((r for r in map(plausible_rate, rates) if r), None) if self.numbered is None else 1 / self._time_base
        )
        info = StreamInfo(
            width=first.width,
            height=first.height,
            format=fmt,
            time_base=self._time_base,
            rate=rate,
            frames=stated_frames(self._pictures.container, stream),
            duration=self._stated_duration(),
            color=color,
            sar=fraction(sar) or Fraction(1),
            rotation=first.rotation,
            codec="heif" if self._heif is not None else context.codec.canonical_name,
            compressed=self._heif is not None or compresses(context),
        )
        self._tick = max(1, round(1 / (rate * self._time_base))) if rate else 1
        self._conformer: Conformer | None = None  # of numbered pictures that are stored in several ways
        if self._common is not None:
            if not holds(fmt, self._common):
                info = replace(info, format=self._common, color=converted(color, fmt, self._common))
            self._conformer = Conformer(info)
        self._coded = info
        self.info = self.deinterlace.info(info) if self.deinterlace else info

    def _file(self, pts: int) -> str:
        """The name of the file that holds the picture of that time."""
        return self.name if self.numbered is None else str(self.numbered.at(pts))

    def _look(
        self, picture: av.VideoFrame, before: ColorSpec | None = None
    ) -> tuple[PixelFormat, ColorSpec, list[str]]:
        """The planar format and colour of a picture, and what had to be guessed of the colour.

        Args:
            picture: to look at.
            before: colour of the picture before it, which stands for what this one does not tag.
        """
        check_size(self.name, picture.width, picture.height, self._max_pixels)
        name = self._pictures.format_of(picture)
        try:
            fmt = planar_format(name, opaque=Path(self.name).suffix.lower() not in IMAGE_SUFFIXES)
        except InputError as exc:
            raise InputError(f"{self.name}: {exc}") from exc
        codec = self._pictures.stream.codec_context.codec.canonical_name
        return fmt, *color_of(picture, fmt, codec, coded_format=name, before=before)

    def _stated_duration(self) -> Fraction | None:
        """Seconds of video as the container states them, None where it says nothing about this stream."""
        stream, container = self._pictures.stream, self._pictures.container
        if self._pictures.clock.leaps:
            return None  # what is stated is the difference of two clocks' times
        if stream.duration:
            return stream.duration * self._time_base
        for key, value in stream.metadata.items():
            if key.upper().startswith("DURATION"):  # Matroska's statistics tags
                return parse_clock(value)
        timed = [s for s in container.streams if s.type in ("video", "audio")]
        if len(timed) == 1 and container.duration:
            return Fraction(container.duration, 1_000_000)
        return None

    @property
    def on_device(self) -> bool:
        """Whether frames lie on the GPU; may become false while they are read."""
        return self._pictures.on_device

    def losses(self, kept: frozenset[str]) -> list[str]:
        """What is in the file, or rides on the frames, and is not carried to another; grows while frames are read.

        Args:
            kept: kinds of side data that the output has a place for.
        """
        return [*self._pages, *self._joined, *self._side_data.losses(kept)]

    @cached_property
    def _joined(self) -> list[str]:
        # Not on opening: a search that may go through all of the file, and parts of a film each open it.
        return joined(self.name, self._demuxer)

    @property
    def first_number(self) -> int:
        """The number of the first frame's picture, 1 where it has none."""
        return 1 if self.numbered is None else self.numbered.numbers[self._pictures.first_pts or 0]

    @property
    def hdr(self) -> tuple[tuple[str, bytes], ...]:
        """Static HDR side data of the stream, as it is on every frame."""
        return self._side_data.static

    @property
    def cropped(self) -> tuple[int, int, int, int]:
        """Samples that the container crops at the top, bottom, left and right."""
        return self._pictures.cropping.edges

    @property
    def dolby(self) -> bytes:
        """The stream's configuration, if it is Dolby Vision that can be carried (`dolby`); else empty."""
        return self._side_data.dolby

    @property
    def views(self) -> dict[str, bytes]:
        """Which views the pictures hold and what they surround: side data for `immersive`, by name."""
        return self._side_data.views

    def __iter__(self) -> Iterator[Frame]:
        """The frames, once."""
        frames, early, fields = self._timed(), self._pictures.early, 1
        if self.deinterlace:
            frames = Deinterlacer(self.deinterlace).run(frames)
            fields = 2 if self.deinterlace.double else 1
        count, begin = 0, self._pictures.first_pts
        earliest: int | None = None
        latest: int | None = None
        for number, frame in enumerate(frames):
            if number < early * fields and begin is not None and frame.pts < begin * fields:
                continue  # before the start: decoded because deinterlacing looks at neighbours
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
        """Every frame. Each waits for the next one's timestamp, from which its duration may follow."""
        previous: int | None = None
        held: Frame | None = None
        pulldown = Pulldown()
        for picture in self._remaining():
            pts = self._timestamp(picture, previous)
            if previous is not None and pulldown.add((pts - previous) * self._time_base):
                self._warn("pulldown", "soft telecine (frames shown for two and three fields in turn): times are kept")
            if held is not None:
                yield self._with_duration(held, pts)
            held = self._frame(picture, pts)
            previous = pts
        if held is not None:
            pictures = self._pictures
            stays = last_duration(pictures.container, pictures.stream, held.pts, held.duration)
            yield self._with_duration(replace(held, duration=stays), None)

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
        fmt, sar = self._coded.format, self._coded.sar
        shape = self._pictures.other_sar(picture)
        form = self._form_of(picture)
        if form != self._form or shape is not None:
            fmt, sar = self._changed(picture, form, pts, shape)
        elif self._conformer is not None:
            fmt = self._look(picture)[0]
        if picture.is_corrupt:
            self._bad_frames += 1
        if picture.interlaced_frame and not self.deinterlace:
            self._warn("interlaced", "frames are marked as interlaced; they are upscaled as they are")
        planes = self._pictures.read(picture, fmt)
        if self._premultiplied and fmt.alpha:
            planes = unmultiplied(planes, fmt)
        if fmt.alpha and not self.transparent:
            self.transparent = bool(planes[-1].min() < (1 << fmt.bits) - 1)
        frame = Frame(
            planes=planes,
            format=fmt,
            pts=pts,
            time_base=self._time_base,
            duration=max(0, picture.duration),
            color=form.color,
            sar=sar,
            interlaced=picture.interlaced_frame,
            key=picture.key_frame,
            side_data=self._side_data.of(self._pictures.side_data.of(picture)),
        )
        return frame if self._conformer is None else next(self._conformer.process(frame))

    def _form_of(self, picture: av.VideoFrame) -> _Form:
        """Form of a picture; its colour is exactly the first picture's where the two are read alike."""
        before = self._latest
        form = before._replace(width=picture.width, height=picture.height, pix_fmt=self._pictures.format_of(picture))
        color = self._look(picture, before.color if form == before else None)[1]
        self._latest = form._replace(color=color)
        return form._replace(color=color if changes(self._form.color, color) else self._form.color)

    def _changed(
        self, picture: av.VideoFrame, form: _Form, pts: int, sar: Fraction | None
    ) -> tuple[PixelFormat, Fraction]:
        """Format and sample aspect ratio of a picture that differs from the first one; says so, or refuses it."""
        at = f"at {float(pts * self._time_base):.3f} s" if self.numbered is None else f"in {self._file(pts)}"
        if self.numbered is not None and form[:2] != self._form[:2]:
            was, now = (f"{f.width}x{f.height}" for f in (self._form, form))
            raise InputError(f"{self._file(pts)}: is {now}, and the pictures before it {was}; bring it to their size")
        fmt, colors = self._look(picture)[0], changes(self._form.color, form.color)
        if self._conformer is not None and sar is None and colors.keys().isdisjoint(INEXACT):
            return fmt, self._coded.sar  # nothing of it is lost
        if form[:3] == self._form[:3] and sar is None:
            kind, change = "recolour", f"the colour changes {at} ({', '.join(colors.values())})"
            done = "it is brought to what the video began with"
            if kept := " and ".join(name for name in INEXACT if name in colors):
                done += f"; {kept} cannot be: split the file there if that is to be right"
        else:
            was, now = (f"{f.width}x{f.height} {f.pix_fmt}" for f in (self._form, form))
            shape = f" with pixels of {sar.numerator}:{sar.denominator}" if sar is not None else ""
            kind, change = "change", f"the picture changes from {was} to {now}{shape} {at}"
            done = "it is fitted into the size, format and colour that the video began with"
        if not self._follow:
            raise InputError(f"{self.name}: {change}; split the file there")
        self._warn(kind, f"{change}: {done}")
        return fmt, sar or fraction(self._pictures.stream.codec_context.sample_aspect_ratio) or Fraction(1)

    def _with_duration(self, frame: Frame, next_pts: int | None) -> Frame:
        if frame.duration > 0:
            return frame
        return replace(frame, duration=self._tick if next_pts is None else next_pts - frame.pts)

    def _conclude(self, count: int, first_pts: int | None, last_pts: int | None) -> None:
        """Warn of what was damaged or missing, after the last frame."""
        pictures = self._pictures
        if pictures.bad_packets:
            self._warn("packets", f"{pictures.bad_packets} damaged packets could not be decoded")
        if damaged := self._bad_frames + pictures.concealed:
            are = "frame is damaged and was" if damaged == 1 else "frames are damaged and were"
            self._warn("frames", f"{damaged} {are} concealed")
        leaps = [
            leap for leap in pictures.clock.leaps if last_pts is not None and leap.time <= last_pts * self._time_base
        ]
        if leaps:
            more = f" (and {len(leaps) - 1} times more)" if len(leaps) > 1 else ""
            self._warn(
                "clock",
                f"the file's clock leaps by {float(leaps[0].by):+.3f} s at {float(leaps[0].time):.3f} s{more}, as "
                "where recordings are joined: each part is shown right behind the one before it",
            )
        if pictures.first_pts is not None or self._end_pts is not None or self._limit is not None:
            return
        if first_pts is None or last_pts is None:
            return
        info = self.info
        if 0 < count < info.frames and pictures.container.format.name != "avi":  # AVI counts dropped frames as well
            self._warn("short", f"{count} frames found where the container states {info.frames}; it may be truncated")
        elif info.frames == 0 and info.duration is not None and not leaps:
            begin = first_pts
            if "matroska" in pictures.container.format.name:  # FFmpeg writes into it when a track ends
                begin = min(0, begin)
            shown = (last_pts - begin) * info.time_base + self._tick * self._time_base
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
        self._pictures.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

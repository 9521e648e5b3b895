"""A live source: packets as they come, decoded at once, with the moment each was demuxed."""

from __future__ import annotations

import stat
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import av
import av.error
from av.audio.stream import AudioStream

from videosr.errors import InputError, UsageError
from videosr.frame import ColorSpec, Frame, PixelFormat, StreamInfo
from videosr.media.captions import CAPTIONS
from videosr.media.colorinfo import resolve_color, tagged_color
from videosr.media.cropping import Cropping
from videosr.media.hdr import SideData
from videosr.media.limits import MAX_PIXELS, MAX_SIDE
from videosr.media.opening import heeding_signals
from videosr.media.orientation import UPRIGHT, Orientation
from videosr.media.planes import PlaneReader, planar_format
from videosr.media.rehearsal import describe
from videosr.media.sidedata import FrameSideData
from videosr.media.source import (
    coded_display_matrix,
    compresses,
    fraction,
    open_input,
    plausible_rate,
    unpack_matrix,
    video_stream,
)

if TYPE_CHECKING:
    from av.stream import Stream

    type Packet = av.Packet[Stream]

OPEN_TIMEOUT = 5.0
READ_TIMEOUT = 5.0
"""Seconds of silence after which a network source counts as lost."""
DEVICES = frozenset({"v4l2", "video4linux2", "x11grab", "fbdev", "kmsgrab", "dshow", "gdigrab", "avfoundation"})
"""FFmpeg's input devices that deliver in real time."""
LIVE_SCHEMES = frozenset({"rtsp", "rtsps", "rtmp", "rtmps", "udp", "tcp", "rtp", "srt", "rtmpt", "mms"})
SHORT_PROBE = {"analyzeduration": "1000000"}
LONG_PROBE = {"analyzeduration": "5000000"}
"""A second to find out what a stream from the network holds; FFmpeg's five, spent at each reconnection, if need be."""
ARRIVALS = 256
"""Packets whose arrival is remembered until their frames come; decoders reorder fewer."""


class InputLost(InputError):  # noqa: N818 - it is an InputError; the name says which
    """A live source has gone; it may come back."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceSpec:
    """What to read.

    Attributes:
        url: a file, a URL, a device's name, or "-" for standard input.
        format: FFmpeg's demuxer or input device; "" finds out.
        options: of the demuxer.
    """

    url: str
    format: str = ""
    options: tuple[tuple[str, str], ...] = ()

    @property
    def shown(self) -> str:
        """The URL without a name and a password in it, for messages and logs."""
        parts = urlsplit(self.url)
        return self.url.replace(parts.netloc, parts.netloc.rpartition("@")[2], 1) if self.remote else self.url

    @property
    def piped(self) -> bool:
        """Whether it is a pipe: read once, at the speed of who writes it."""
        return self.url == "-" or (self._is_path and _mode(self.url, stat.S_ISFIFO))

    @property
    def live(self) -> bool:
        """Whether it runs by a clock of its own and cannot be held back; of plain HTTP only opening it tells."""
        return self.demuxer in DEVICES or urlsplit(self.url).scheme in LIVE_SCHEMES

    @property
    def remote(self) -> bool:
        """Whether it comes over a network."""
        return "://" in self.url and not self.format

    @property
    def file(self) -> bool:
        """Whether it is a file, which can be read more than once."""
        return not (self.demuxer or self.remote or self.piped)

    @property
    def demuxer(self) -> str:
        """The demuxer to use; "" finds out."""
        if not self.format and self._is_path and _mode(self.url, stat.S_ISCHR):
            return "v4l2"
        return self.format

    @property
    def _is_path(self) -> bool:
        return "://" not in self.url and not self.format


def lower_scheme(url: str) -> str:
    """A URL as FFmpeg takes it: to us the case of its scheme means nothing (RFC 3986, 3.1), to FFmpeg it does."""
    scheme, colon, rest = url.partition("://")
    return scheme.lower() + colon + rest if colon else url


def _mode(path: str, is_kind: Callable[[int], bool]) -> bool:
    with suppress(OSError):
        return is_kind(Path(path).stat().st_mode)
    return False


@dataclass(frozen=True, slots=True)
class Picture:
    """A decoded frame, its times on the source's clock.

    Attributes:
        frame: the frame.
        arrival: monotonic seconds at which its packet was demuxed.
    """

    frame: Frame
    arrival: float


@dataclass(frozen=True, slots=True)
class Sound:
    """A packet of the audio stream.

    Attributes:
        packet: as demuxed, pts set.
        arrival: monotonic seconds at which it was.
    """

    packet: Packet
    arrival: float


class LiveInput:
    """One connection to a source.

    Args:
        spec: what to read.

    Attributes:
        info: of the video, from its first frame; frames come upright.
        audio: the audio stream that goes with it, if there is one.
        live: it has no end of its own: an end is a loss.
        damaged: packets that could not be decoded.
        note: what is done about the first picture, where that is not coded as it is to be shown; else "".
        wait: what paces: called with each packet's time on the source's clock in seconds, and whether it is of the
            video; returns the monotonic seconds at which the packet counts as demuxed.

    Raises:
        InputLost: it cannot be reached (live sources).
        InputError: it cannot be used.
        UsageError: an unknown format, or options that it does not have.
    """

    def __init__(self, spec: SourceSpec) -> None:
        self._spec = spec
        self.wait: Callable[[float, bool], float] | None = None
        self.damaged = 0
        self.note = ""
        self._container = _open(spec, SHORT_PROBE)
        if not self._container.streams.video and spec.remote:
            self._container.close()  # its picture may come later than its sound
            self._container = _open(spec, LONG_PROBE)
        try:
            self._stream = video_stream(self._container, spec.shown)
            if spec.file:
                describe(self._container, spec.shown)
            self.audio = self._sound()
            self.live = spec.live or (spec.remote and not self._container.duration and not _whole_file(self._container))
            self._time_base = Fraction(self._stream.time_base.num, self._stream.time_base.den)
            self._arrivals: dict[int, float] = {}
            self._reader = PlaneReader()
            self._kinds: dict[tuple[object, ...], tuple[PixelFormat, ColorSpec]] = {}
            context = self._stream.codec_context
            self._cropping, self._side_data = Cropping(context), FrameSideData(context)
            self._lost = SideData(context)
            self._stated = coded_display_matrix(context)
            self._matrix = self._stated
            self._orientation = Orientation.of(self._matrix) or UPRIGHT
            context.thread_type = "SLICE"  # frame threads would each hold a frame back
            context.options = {"max_pixels": str(MAX_PIXELS)}
            self._events = self._read()
            self._held: list[Picture | Sound] = []
            self.info = self._first()
        except BaseException:
            self._container.close()
            raise

    @property
    def losses(self) -> list[str]:
        """What rides on the frames read so far and is not carried, by what people call it."""
        return self._lost.losses(frozenset({CAPTIONS}))

    def _sound(self) -> AudioStream | None:
        """What players choose: of the picture's programme, by preference the default track."""
        usable = [s for s in self._container.streams.audio if s.codec_context is not None]
        best = self._container.streams.best("audio", related=self._stream)  # None before the sound has begun
        return next((s for s in usable if best is not None and s.index == best.index), usable[0] if usable else None)

    def _first(self) -> StreamInfo:
        """Read up to the first frame, which says what the stream is."""
        try:
            for event in self._events:
                self._held.append(event)
                if isinstance(event, Picture):
                    frame, stream = event.frame, self._stream
                    self.note = self._turning()
                    rates = map(plausible_rate, (stream.average_rate, stream.guessed_rate, stream.base_rate))
                    return StreamInfo(
                        width=frame.width,
                        height=frame.height,
                        format=frame.format,
                        time_base=self._time_base,
                        rate=next((rate for rate in rates if rate), None),
                        color=frame.color,
                        sar=frame.sar,
                        codec=stream.codec_context.codec.canonical_name,
                        compressed=compresses(stream.codec_context),
                    )
        except InputLost as exc:
            if self.live:
                raise
            raise InputError(f"{exc}, before the first frame") from exc
        kind = InputLost if self.live else InputError
        raise kind(f"{self._spec.shown}: has no decodable video frame")

    def __iter__(self) -> Iterator[Picture | Sound]:
        """What comes, in the order in which it comes. Raises InputLost at an error, and at the end if it is `live`."""
        held, self._held = self._held, []
        if not self.live:  # what was read of a file to see what it is counts as read now
            now = time.monotonic()
            self._arrivals = dict.fromkeys(self._arrivals, now)
            held = [replace(event, arrival=now) for event in held]
        yield from held
        yield from self._events

    def _read(self) -> Iterator[Picture | Sound]:
        streams: list[Stream] = [self._stream, *([self.audio] if self.audio is not None else [])]
        packets = self._container.demux(streams)
        while True:
            try:
                packet = next(packets, None)
            except av.error.ExitError as exc:
                raise InputLost(f"{self._spec.shown}: silent for {READ_TIMEOUT:.0f} s") from exc
            except (av.error.FFmpegError, OSError) as exc:
                raise InputLost(f"{self._spec.shown}: {getattr(exc, 'strerror', None) or exc}") from exc
            if packet is None or packet.size == 0:
                break
            time_ = packet.dts if packet.dts is not None else packet.pts
            video = packet.stream_index == self._stream.index
            if self.wait is not None and time_ is not None:
                arrival = self.wait(float(time_ * Fraction(packet.time_base.num, packet.time_base.den)), video)
            else:
                arrival = time.monotonic()
            if not video:
                if packet.pts is not None:
                    yield Sound(packet, arrival)
                continue
            if packet.pts is not None:
                self._arrivals[packet.pts] = arrival
                while len(self._arrivals) > ARRIVALS:
                    del self._arrivals[next(iter(self._arrivals))]
            yield from self._decode(packet, arrival)
        if self.live:
            raise InputLost(f"{self._spec.shown}: ended")
        yield from self._decode(None, time.monotonic())

    def _decode(self, packet: Packet | None, arrival: float) -> Iterator[Picture]:
        if packet is not None:
            packet = self._side_data.expect(packet)
        try:
            pictures = self._stream.codec_context.decode(packet)
        except av.error.EOFError:
            return
        except av.error.FFmpegError:
            self.damaged += 1
            return
        for picture in map(self._cropping.of, pictures):
            pts = picture.pts if picture.pts is not None else picture.dts
            if pts is None:
                self.damaged += 1
                continue
            yield Picture(self._frame(picture, pts), self._arrivals.pop(pts, arrival))

    def _frame(self, picture: av.VideoFrame, pts: int) -> Frame:
        key = (picture.format.name, picture.width, picture.height, picture.colorspace, picture.color_range)
        if key not in self._kinds:
            if max(picture.width, picture.height) > MAX_SIDE:
                raise InputError(f"{self._spec.shown}: {picture.width}x{picture.height} is too large")
            self._kinds.clear()
            fmt = planar_format(picture.format.name, opaque=True)
            tagged = tagged_color(
                picture.colorspace,
                picture.color_range,
                picture.color_primaries,
                picture.color_trc,
                picture.chroma_location,
            )
            full = picture.format.name.startswith("yuvj")
            codec = self._stream.codec_context.codec.canonical_name
            color, _ = resolve_color(tagged, fmt, picture.height, picture.width, codec=codec, full_range_format=full)
            self._kinds[key] = fmt, color
        fmt, color = self._kinds[key]
        rides = self._side_data.of(picture)
        self._lost.of(rides)
        self._orient(picture, rides)
        coded = Frame(
            planes=self._reader.read(picture, fmt),
            format=fmt,
            pts=pts,
            time_base=self._time_base,
            duration=max(0, picture.duration),
            color=color,
            sar=fraction(self._stream.sample_aspect_ratio) or Fraction(1),
            key=picture.key_frame,
            side_data=tuple((kind, data) for kind, data in rides.items() if kind == CAPTIONS),
        )
        return self._orientation.frame(coded)

    def _orient(self, picture: av.VideoFrame, rides: Mapping[str, bytes]) -> None:
        """Find out how a picture is to be shown.

        What the container says holds for all. What the coded video says holds until it says something else, or begins
        anew with a keyframe (H.264, annex D); FFmpeg's decoder tells it only of the picture in whose packet it was.
        """
        if self._stated:
            return
        matrix = unpack_matrix(rides.get("DISPLAYMATRIX"))
        if matrix is not None or picture.key_frame:
            self._matrix = matrix
            self._orientation = Orientation.of(matrix) or UPRIGHT

    def _turning(self) -> str:
        orientation = Orientation.of(self._matrix)
        if orientation is None:
            a, b, _, c, d, *_ = (entry / 65536 for entry in self._matrix or ())
            return (
                f"{self._spec.shown}: its display matrix ({a:g} {b:g} {c:g} {d:g}) asks for more than quarter turns "
                "and mirroring: pictures stay as they are coded; turn them with FFmpeg's rotate filter"
            )
        return "" if orientation == UPRIGHT else f"{self._spec.shown}: turned upright, as its display matrix says"

    def close(self) -> None:
        """Let go of the source; not while another thread iterates."""
        self._container.close()


def _whole_file(container: av.container.InputContainer) -> bool:
    """Whether what comes over the network is a file of a known size, not a playlist that may grow."""
    return (container.size or 0) > 0 and container.format.name not in ("hls", "dash")


def _open(spec: SourceSpec, probe: dict[str, str]) -> av.container.InputContainer:
    if spec.file:
        return open_input(spec.url, **dict(spec.options))
    options: dict[str, str] = dict(spec.options)
    timeout: tuple[float | None, float | None] | None = None
    if spec.remote:
        listening = options.get("listen", "0") != "0" or "listen" in urlsplit(spec.url).query
        timeout = (None if listening else OPEN_TIMEOUT, READ_TIMEOUT)
        scheme = urlsplit(spec.url).scheme
        options = probe | ({"rtsp_transport": "tcp"} if scheme.startswith("rtsp") else {}) | options
    name = "pipe:0" if spec.url == "-" else lower_scheme(spec.url)
    opening = partial(
        av.open,
        name,
        "r",
        format=spec.demuxer or None,
        options={"max_pixels": str(MAX_PIXELS)},
        container_options=options,
        timeout=timeout,
    )
    try:
        return heeding_signals(opening) if spec.remote else opening()
    except (av.error.FFmpegError, OSError) as exc:
        kind: type[InputError] = InputLost if spec.live else InputError
        if isinstance(exc, av.error.ProtocolNotFoundError):
            hint = (
                f"give it on from a program that has it: ffmpeg -i {spec.shown} -c copy -f mpegts - | videosr serve -"
            )
            raise InputError(f"{spec.shown}: PyAV's FFmpeg is built without this protocol; {hint}") from exc
        if isinstance(exc, av.error.OptionNotFoundError):
            kind = InputError
        if isinstance(exc, av.error.InvalidDataError) and not spec.remote:
            hint = "--format names one that it does not know by itself"
            raise kind(f"{spec.shown}: is empty, or not a stream that FFmpeg can read; {hint}") from exc
        raise kind(f"{spec.shown}: cannot be opened: {getattr(exc, 'strerror', None) or exc}") from exc
    except ValueError as exc:  # PyAV knows no such format
        raise UsageError(f"--format {spec.demuxer}: {exc}; see `ffmpeg -formats` for names") from exc

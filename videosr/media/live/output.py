"""Muxers for live use: MPEG-TS into memory, pushes to a URL, raw video into a pipe."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from fractions import Fraction
from typing import TYPE_CHECKING, BinaryIO, Protocol
from urllib.parse import urlsplit

import av
import av.error

from videosr.errors import OutputError, UsageError
from videosr.frame import Frame, Siting, StreamInfo
from videosr.media.live.codec import TIME_BASE, Coded, Template
from videosr.media.planes import to_av_frame

if TYPE_CHECKING:
    from av.stream import Stream

TIMEOUT = 5.0
"""Seconds after which a peer that takes nothing counts as gone."""
PROMPT = {"flush_packets": "1", "max_interleave_delta": "1", "max_delay": "0"}
"""Packets go out at once, without waiting for the other stream's."""
MPEGTS = {"mpegts_flags": "pat_pmt_at_frames", "pes_payload_size": "0"}
"""Who joins, or begins a segment, at a keyframe finds the tables before it; audio is not gathered."""
MUXERS = {"udp": "mpegts", "rtp": "rtp_mpegts", "rtmp": "flv", "rtmps": "flv", "rtsp": "rtsp", "rtsps": "rtsp"}
"""FFmpeg's muxer by the scheme of a URL to push to."""


class Refused(OutputError):  # noqa: N818 - it is an OutputError; the name says which
    """The container has no form for such a stream: to try again is of no use."""


class Muxer:
    """Coded packets into one container.

    Args:
        container: open for writing.
        template: the streams.
    """

    def __init__(self, container: av.container.OutputContainer, template: Template) -> None:
        self._container = container
        assert template.video is not None
        self._video: Stream = container.add_stream_from_template(template.video, opaque=True)
        self._audio: Stream | None = None
        if template.audio is not None:
            self._audio = container.add_stream_from_template(template.audio, opaque=True)
        self._last = {True: -1, False: -1}
        container.start_encoding()

    def write(self, coded: Coded) -> None:
        """Mux one packet. Raises OutputError."""
        stream = self._video if coded.video else self._audio
        if stream is None:
            return
        packet = av.Packet(coded.data)
        packet.stream = stream
        packet.time_base = TIME_BASE
        packet.pts = packet.dts = coded.pts
        packet.duration = coded.duration
        packet.is_keyframe = coded.key
        packet.rescale_ts(stream.time_base)
        # Coarser clocks (FLV counts milliseconds) may give two packets one time.
        if packet.dts is not None and packet.dts <= self._last[coded.video]:
            packet.pts = packet.dts = self._last[coded.video] + 1
        self._last[coded.video] = packet.dts if packet.dts is not None else -1
        with _mapped():
            self._container.mux_one(packet)

    def close(self) -> None:
        """Finish the container. Raises OutputError."""
        with _mapped():
            self._container.close()


@contextmanager
def _mapped() -> Iterator[None]:
    try:
        yield
    except av.error.ExitError as exc:
        raise OutputError(f"took nothing for {TIMEOUT:.0f} s") from exc
    except (av.error.FFmpegError, OSError) as exc:
        raise OutputError(getattr(exc, "strerror", None) or str(exc)) from exc


class TransportStream:
    """MPEG-TS in memory: packets in, bytes out.

    FFmpeg may keep a packet until the next one of the other stream comes, so where a keyframe begins is read from the
    bytes themselves.

    Args:
        template: the streams.
    """

    def __init__(self, template: Template) -> None:
        self._pieces: list[bytes] = []
        self._key_due = False
        container = av.open(self, "w", format="mpegts", container_options=PROMPT | MPEGTS)
        self._muxer = Muxer(container, template)

    def write(self, data: bytes) -> int:
        """Called by FFmpeg."""
        self._pieces.append(bytes(data))
        return len(data)

    def mux(self, coded: Coded) -> list[tuple[bytes, bool]]:
        """Take a packet; whole transport packets that are ready, and whether a keyframe and its tables begin them."""
        self._key_due = self._key_due or (coded.video and coded.key)
        self._muxer.write(coded)
        return self._ready()

    def finish(self) -> list[tuple[bytes, bool]]:
        """The last ones."""
        self._muxer.close()
        return self._ready()

    def _ready(self) -> list[tuple[bytes, bool]]:
        data = b"".join(self._pieces)
        self._pieces.clear()
        cut = keyframe_offset(data) if self._key_due else None
        if cut is None:
            return [(data, False)] if data else []
        self._key_due = False
        return [(data[:cut], False), (data[cut:], True)] if cut else [(data, True)]


PACKET = 188
VIDEO_PID = 0x100
"""FFmpeg's muxer gives its first stream this identifier (PID)."""
TABLE_PIDS = (0x0000, 0x0011, 0x1000)
"""PAT, SDT, and FFmpeg's PMT."""


def keyframe_offset(data: bytes) -> int | None:
    """Where in whole transport packets a video keyframe begins, with the tables before it; None if none does.

    ISO/IEC 13818-1, 2.4.3.4: the adaptation field of its first packet has the random access indicator set.
    """
    tables = 0
    for at in range(0, len(data), PACKET):
        pid = (data[at + 1] & 0x1F) << 8 | data[at + 2]
        if pid in TABLE_PIDS:
            tables += 1
            continue
        starts, adapted = data[at + 1] & 0x40, data[at + 3] & 0x20
        if pid == VIDEO_PID and starts and adapted and data[at + 4] and data[at + 5] & 0x40:
            return at - tables * PACKET
        tables = 0
    return None


def open_push(url: str, template: Template) -> Muxer:
    """Connect to a URL and begin a stream there.

    Raises:
        UsageError: no scheme to push to.
        Refused: its container has no form for such a stream.
        OutputError: it cannot be reached.
    """
    scheme = url.partition("://")[0]
    if scheme not in MUXERS:
        raise UsageError(f"{url}: cannot push there; known: {', '.join(f'{s}://' for s in MUXERS)}")
    options = dict(PROMPT)
    if "mpegts" in MUXERS[scheme]:
        options |= MPEGTS
        if scheme == "udp" and "pkt_size" not in url:
            url += ("&" if "?" in url else "?") + "pkt_size=1316"  # seven transport packets, within any MTU
    elif scheme.startswith("rtsp"):
        options["rtsp_transport"] = "tcp"
    else:
        options["flvflags"] = "no_duration_filesize"
    if MUXERS[scheme] == "flv":
        _rehearse(url, template)
    container = av.open(url, "w", format=MUXERS[scheme], container_options=options, timeout=(TIMEOUT, TIMEOUT))
    try:
        return Muxer(container, template)
    except (av.error.FFmpegError, OSError, ValueError) as exc:
        with suppress(av.error.FFmpegError, OSError):
            container.close()
        reason = getattr(exc, "strerror", None) or str(exc)
        raise OutputError(f"{public_url(url)}: cannot be reached: {reason}") from exc


def _rehearse(url: str, template: Template) -> None:
    """Begin an FLV stream in memory: what fails there does not fail for want of a network. Raises Refused."""
    try:
        with closing(av.open(io.BytesIO(), "w", format="flv")) as container:
            Muxer(container, template)
    except (av.error.FFmpegError, ValueError) as exc:
        reason = getattr(exc, "strerror", None) or str(exc)
        raise Refused(f"{public_url(url)}: RTMP has no form for this sound: {reason}; give another output") from exc


def public_url(url: str) -> str:
    """Scheme, host and port: what may be shown of a URL, whose path or user may be a secret."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


class RawWriter(Protocol):
    """Writes raw pictures into a pipe."""

    def write(self, frame: Frame) -> None:
        """One picture, pts in 1/90000 s. Raises OSError (OutputError is one)."""

    def sound(self, coded: Coded) -> None:
        """An audio packet, where the format has room for it."""

    def close(self) -> None:
        """Write what is left. Raises OSError."""


class Y4mWriter:
    """YUV4MPEG2: a line of header, then the planes of each frame. It has no times and no sound.

    Args:
        file: unbuffered.
        info: of the frames.

    Raises:
        UsageError: the format has no form for such frames.
    """

    def __init__(self, file: BinaryIO, info: StreamInfo) -> None:
        self._file = file
        rate = info.rate or Fraction(25)
        range_ = info.color.range.name
        header = f"YUV4MPEG2 W{info.width} H{info.height} F{rate.numerator}:{rate.denominator} Ip"
        header += f" A{info.sar.numerator}:{info.sar.denominator} C{y4m_colorspace(info)}"
        if range_ != "UNSPECIFIED":
            header += f" XCOLORRANGE={range_}"
        self._header = header.encode() + b"\n"

    def write(self, frame: Frame) -> None:
        """One picture."""
        _write_all(self._file, self._header + b"FRAME\n")
        self._header = b""
        for plane in frame.planes:
            _write_all(self._file, memoryview(plane).cast("B"))

    def sound(self, coded: Coded) -> None:
        """There is no room for it."""

    def close(self) -> None:
        """Nothing is left."""


def _write_all(file: BinaryIO, data: bytes | memoryview) -> None:
    view = memoryview(data)
    while view:
        view = view[file.write(view) or 0 :]


def y4m_colorspace(info: StreamInfo) -> str:
    """The colour space tag of YUV4MPEG2, as FFmpeg writes and reads it.

    Raises:
        UsageError: there is none for this format.
    """
    fmt = info.format
    deep = f"p{fmt.bits}" if fmt.bits > 8 else ""
    if fmt.family == "gray":
        return f"mono{fmt.bits}" if deep else "mono"
    chroma = {(1, 1): "420", (1, 0): "422", (0, 0): "444", (2, 0): "411"}.get((fmt.log2_w, fmt.log2_h))
    if fmt.family != "yuv" or fmt.alpha or chroma is None:
        raise UsageError(
            f"-o: y4m has no form for pictures in {fmt.name}; give nut: before the pipe's name, as in nut:-"
        )
    if chroma == "420" and not deep:
        return {Siting.LEFT: "420mpeg2", Siting.TOPLEFT: "420paldv"}.get(info.color.siting, "420jpeg")
    return chroma + deep


class NutWriter:
    """NUT with raw video, timestamps, and sound as it is.

    Args:
        file: unbuffered.
        info: of the frames.
        template: has the audio stream, if there is one.
    """

    def __init__(self, file: BinaryIO, info: StreamInfo, template: Template) -> None:
        self._container = av.open(_Unseekable(file), "w", format="nut", container_options=PROMPT)
        stream = self._container.add_stream("rawvideo", rate=info.rate or 25)
        stream.width, stream.height, stream.pix_fmt = info.width, info.height, info.format.name
        context = stream.codec_context
        context.time_base = stream.time_base = TIME_BASE
        context.sample_aspect_ratio = info.sar
        context.colorspace, context.color_range = int(info.color.matrix), int(info.color.range)
        self._video = stream
        self._audio: Stream | None = None
        if template.audio is not None:
            self._audio = self._container.add_stream_from_template(template.audio, opaque=True)

    def write(self, frame: Frame) -> None:
        """One picture."""
        picture = to_av_frame(frame.planes, frame.format)
        picture.pts, picture.time_base = frame.pts, TIME_BASE
        with _mapped():
            for packet in self._video.encode(picture):
                self._container.mux_one(packet)

    def sound(self, coded: Coded) -> None:
        """An audio packet."""
        if self._audio is not None:
            packet = av.Packet(coded.data)
            packet.stream, packet.time_base = self._audio, TIME_BASE
            packet.pts = packet.dts = coded.pts
            packet.duration, packet.is_keyframe = coded.duration, True
            with _mapped():
                self._container.mux_one(packet)

    def close(self) -> None:
        """Write what FFmpeg still holds."""
        with _mapped():
            self._container.close()


class _Unseekable:
    """A file for FFmpeg that it can only write to."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def write(self, data: bytes) -> int:
        """All of it."""
        _write_all(self._file, data)
        return len(data)

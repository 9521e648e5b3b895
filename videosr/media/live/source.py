"""What a live stream is read from, and a connection to it."""

from __future__ import annotations

import stat
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import av
import av.error

from videosr.errors import InputError, UsageError
from videosr.media.limits import MAX_PIXELS
from videosr.media.live.demuxer_options import others_option
from videosr.media.source import open_input

if TYPE_CHECKING:
    from av.stream import Stream

    type Packet = av.Packet[Stream]

OPEN_TIMEOUT = 5.0
READ_TIMEOUT = 5.0
"""Seconds of silence after which a network source counts as lost."""
SEGMENT_TIMEOUT = 15.0
"""The same for what comes by segments, which are 10 s long at times; FFmpeg asks for the next one meanwhile."""
SEGMENTED = {".m3u8": "hls", ".mpd": "dash"}
"""The demuxers of that, by the suffixes of their playlists."""
DEVICES = frozenset({"v4l2", "video4linux2", "x11grab", "fbdev", "kmsgrab", "dshow", "gdigrab", "avfoundation"})
"""FFmpeg's input devices that deliver in real time."""
LIVE_SCHEMES = frozenset({"rtsp", "rtsps", "rtmp", "rtmps", "udp", "tcp", "rtp", "srt", "rtmpt", "mms"})
BARE_SCHEMES = frozenset({"udp", "tcp", "srt"})
"""Of those, the ones that carry the bytes of any container."""
UNTIMED = frozenset({"mpjpeg", "mjpeg", "h264", "hevc"})
"""Demuxers of what has no times (cameras by HTTP, bare H.264): FFmpeg gives it 25 pictures a second, whatever comes."""
SHORT_PROBE = {"analyzeduration": "1000000"}
LONG_PROBE = {"analyzeduration": "5000000"}
"""A second to find out what a stream from the network holds; FFmpeg's five, spent at each reconnection, if need be."""
OVER_TCP, RESUMED = {"rtsp_transport": "tcp"}, {"reconnect": "1"}
OF_SCHEMES = {"rtsp": OVER_TCP, "rtsps": OVER_TCP, "http": RESUMED, "https": RESUMED}
"""Nothing of RTSP is lost on the way; a file whose HTTP connection breaks is asked for from there on."""
ENDLESS = {"listen_timeout": "2000000"}
"""Seconds to wait for who sends by RTSP, as long as can be said: FFmpeg's own value for ever is beyond its range."""
MERGED = {"merge_pmt_versions": "1"}
"""MPEG-TS whose streams get other identifiers (PIDs), as after a restart of an encoder, goes on in the same streams."""
PIECE = 32768
"""Bytes taken from the network at a time, at most; what has come is taken at once."""


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


class Connection:
    """One connection to a source.

    Args:
        spec: what to read.
        probe: FFmpeg's options that say how long to look at what comes over a network.

    Attributes:
        container: its streams.

    Raises:
        InputLost: it cannot be reached (live sources).
        InputError: it cannot be used.
        UsageError: an unknown format, or options that it does not have.
    """

    def __init__(self, spec: SourceSpec, probe: dict[str, str]) -> None:
        self._spec, self._probe = spec, probe
        self._wire: _Wire | None = None
        self.container = self._opened()
        try:
            self._check_options()
        except UsageError:
            self.close()
            raise

    def _opened(self) -> av.container.InputContainer:
        spec = self._spec
        if spec.file:
            return open_input(spec.url, **(MERGED | dict(spec.options)))
        try:
            return self._open()
        except (av.error.FFmpegError, OSError) as exc:
            raise self._refusal(exc) from exc
        except ValueError as exc:  # PyAV knows no such format
            raise UsageError(f"--format {spec.demuxer}: {exc}; see `ffmpeg -formats` for names") from exc

    def _check_options(self) -> None:
        """Refuse options of other demuxers, which FFmpeg ignores. Raises UsageError."""
        demuxer = self.container.format.name
        for name, _ in self._spec.options:
            if others := others_option(name, demuxer):
                whose = ", ".join(others[:3]) + (" and others" if len(others) > 3 else "")
                raise UsageError(
                    f"-i {name}: {self._spec.shown} is read by the demuxer {demuxer}, which has no such option "
                    f"(it is one of: {whose}); `ffmpeg -h demuxer={demuxer.partition(',')[0]}` lists them"
                )

    def _open(self) -> av.container.InputContainer:
        spec = self._spec
        options = MERGED | dict(spec.options)
        scheme = urlsplit(spec.url).scheme
        timeout: tuple[float | None, float | None] | None = None
        if spec.remote:
            listening = options.get("listen", "0") != "0" or "listen" in urlsplit(spec.url).query
            if "listen" in options.get("rtsp_flags", ""):
                listening = True
                options = ENDLESS | options
            timeout = (None if listening else OPEN_TIMEOUT, self._patience)
            options = self._probe | OF_SCHEMES.get(scheme, {}) | options
        name: str | _Wire = "pipe:0" if spec.url == "-" else lower_scheme(spec.url)
        if spec.remote and scheme in BARE_SCHEMES:
            name = self._wire = _Wire(spec, options, timeout)
        try:
            return av.open(
                name,
                "r",
                format=spec.demuxer or None,
                options={"max_pixels": str(MAX_PIXELS)},
                container_options=options,
                timeout=timeout,
            )
        except BaseException:
            if self._wire is not None:
                self._wire.close()
            raise

    def _refusal(self, exc: Exception) -> InputError:
        spec = self._spec
        if isinstance(exc, av.error.ProtocolNotFoundError):
            hint = (
                f"give it on from a program that has it: ffmpeg -i {spec.shown} -c copy -f mpegts - | videosr serve -"
            )
            return InputError(f"{spec.shown}: PyAV's FFmpeg is built without this protocol; {hint}")
        if isinstance(exc, av.error.ExitError):
            return InputLost(f"{spec.shown}: nothing came for {OPEN_TIMEOUT:.0f} s")
        kind: type[InputError] = InputLost if spec.live else InputError
        if isinstance(exc, av.error.OptionNotFoundError):
            kind = InputError
        if isinstance(exc, av.error.InvalidDataError) and not spec.remote:
            hint = "--format names one that it does not know by itself"
            return kind(f"{spec.shown}: is empty, or not a stream that FFmpeg can read; {hint}")
        return kind(f"{spec.shown}: cannot be opened: {getattr(exc, 'strerror', None) or exc}")

    @property
    def live(self) -> bool:
        """Whether the source has no end of its own."""
        return self._spec.live or (self._spec.remote and not self.container.duration and not self._whole_file)

    @property
    def untimed(self) -> bool:
        """Whether the times of its pictures are only invented, and when they come tells more."""
        return self.live and self.container.format.name in UNTIMED

    @property
    def _whole_file(self) -> bool:
        """Whether what comes over the network is a file of a known size, not a playlist that may grow."""
        return (self.container.size or 0) > 0 and not self.segmented

    @property
    def segmented(self) -> bool:
        """Whether it comes by segments that a playlist lists, of which who connects is given the last ones."""
        return self.container.format.name in SEGMENTED.values()

    @property
    def _patience(self) -> float:
        """Seconds of silence after which it counts as lost."""
        suffix = PurePosixPath(urlsplit(self._spec.url).path).suffix.lower()
        return SEGMENT_TIMEOUT if suffix in SEGMENTED else READ_TIMEOUT

    def packets(self, streams: list[Stream]) -> Iterator[Packet]:
        """The packets of some streams, to the source's end.

        Raises:
            InputLost: at an error, at silence, and where for as long nothing of what comes is of these streams.
        """
        packets = self.container.demux(streams)
        while True:
            if self._wire is not None:
                self._wire.due = time.monotonic() + READ_TIMEOUT
            try:
                packet = next(packets, None)
            except av.error.ExitError as exc:
                raise InputLost(f"{self._spec.shown}: silent for {self._patience:.0f} s") from exc
            except (av.error.FFmpegError, OSError) as exc:
                raise InputLost(f"{self._spec.shown}: {getattr(exc, 'strerror', None) or exc}") from exc
            if packet is None or packet.size == 0:
                return
            yield packet

    def close(self) -> None:
        """Let go of the source; not while another thread reads."""
        self.container.close()
        if self._wire is not None:
            self._wire.close()


class _Wire:
    """The bytes that come over a network, as a file for a demuxer.

    PyAV passes over packets of streams that were not there when the source was opened, and returns only with one that
    was. Where all of an MPEG-TS source's identifiers change, that is never. But for more bytes it has to come here.

    Args:
        spec: the source.
        options: of the protocol; it lets alone those that are others'.
        timeout: seconds for opening and for reading, see `av.open`.

    Attributes:
        due: monotonic seconds by which the demuxer ought to have made a packet; None where it may take its time.
    """

    def __init__(
        self, spec: SourceSpec, options: dict[str, str], timeout: tuple[float | None, float | None] | None
    ) -> None:
        self._shown = spec.shown
        self.due: float | None = None
        raw = options | {"raw_packet_size": str(PIECE)}
        self._container = av.open(lower_scheme(spec.url), "r", format="data", container_options=raw, timeout=timeout)
        self._pieces = self._container.demux()
        self._rest = b""

    def read(self, size: int) -> bytes:
        """Up to so many bytes; none at the end. Raises InputLost where they make no packet in time."""
        if self.due is not None and time.monotonic() > self.due:
            raise InputLost(f"{self._shown}: nothing of its streams for {READ_TIMEOUT:.0f} s")
        piece = self._rest or bytes(next(self._pieces, b""))
        self._rest = piece[size:]
        return piece[:size]

    def close(self) -> None:
        """Hang up."""
        self._container.close()

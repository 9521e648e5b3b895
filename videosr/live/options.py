"""What `videosr serve` is asked to do."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from videosr.errors import UsageError
from videosr.live.outputs import pipe_form
from videosr.media.live.codec import VideoSettings
from videosr.media.live.demuxer_options import has_option
from videosr.media.live.output import MUXERS
from videosr.media.live.source import SourceSpec, lower_scheme
from videosr.options import UpscaleOptions

PAGE = "http://127.0.0.1:8090/"
"""Where the stream goes if nothing is said."""
PORTS = {"http": 8090, "tcp": 9000}


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """One `-o`.

    Attributes:
        text: as given, its scheme in small letters.
        kind: "pipe", "push", "hls", "http" or "tcp".
        path: of a pipe or playlist.
        form: of a pipe: "y4m" or "nut".
        address: host and port to listen on.
    """

    text: str
    kind: str
    path: str = ""
    form: str = ""
    address: tuple[str, int] = ("", 0)

    @property
    def waits(self) -> bool:
        """Whether it can hold the source back."""
        return self.kind in ("pipe", "hls")

    @property
    def open_to_all(self) -> bool:
        """Whether it listens on more than this machine's loopback."""
        if self.kind not in ("http", "tcp"):
            return False
        try:
            return not ipaddress.ip_address(self.address[0]).is_loopback
        except ValueError:
            return self.address[0] != "localhost"


def parse_target(text: str) -> Target:
    """An output as the user writes it.

    Raises:
        UsageError: it is none.
    """
    text = lower_scheme(text)
    scheme = text.partition("://")[0] if "://" in text else ""
    if scheme in PORTS:
        parts = urlsplit(text)
        try:
            port = parts.port
        except ValueError as exc:
            raise UsageError(f"-o {text}: {exc}") from exc
        if parts.path not in ("", "/") or parts.query:
            raise UsageError(f"-o {text}: give only host and port; the server listens there")
        host = parts.hostname or "127.0.0.1"
        return Target(text=text, kind=scheme, address=(host, PORTS[scheme] if port is None else port))
    if scheme:
        if scheme not in MUXERS:
            known = ", ".join(f"{s}://" for s in (*MUXERS, *PORTS))
            raise UsageError(f"-o {text}: unknown scheme (known: {known}; - or a named pipe; a .m3u8 file)")
        _check_address(text, scheme)
        return Target(text=text, kind="push")
    pipe = pipe_form(text)
    if pipe is not None:
        return Target(text=text, kind="pipe", path=pipe[0], form=pipe[1])
    if not Path(text).absolute().parent.is_dir():
        raise UsageError(f"-o {text}: there is no such folder; make it first")
    return Target(text=text, kind="hls", path=text)


def _check_address(text: str, scheme: str) -> None:
    """Refuse where nothing could be sent to; FFmpeg would say so only when the first frame is there.

    Raises:
        UsageError: there is no host, no number for a port, or no port where none is usual.
    """
    parts = urlsplit(text)
    try:
        port = parts.port
    except ValueError as exc:
        raise UsageError(f"-o {text}: {exc}") from exc
    if not parts.hostname or port == 0 or (scheme in ("udp", "rtp") and port is None):
        raise UsageError(f"-o {text}: is no address; give {scheme}://HOST:PORT")


@dataclass(frozen=True, kw_only=True, slots=True)
class ServeOptions:
    """How to serve.

    Attributes:
        source: what to read.
        targets: where to; none: the page on this machine.
        upscale: how frames are upscaled.
        video: how coded outputs are encoded.
        latency: seconds from demuxed to muxed packet.
        paced: read a file at its own speed; None: if an output needs it.
        steps: take cheaper forms if the machine cannot keep up.
        token: what viewers of the page must know.
    """

    source: SourceSpec
    targets: tuple[Target, ...] = field(default_factory=lambda: (parse_target(PAGE),))
    upscale: UpscaleOptions = field(default_factory=UpscaleOptions)
    video: VideoSettings = field(default_factory=VideoSettings)
    latency: float = 0.3
    paced: bool | None = None
    steps: bool = True
    token: str = ""

    def __post_init__(self) -> None:
        """Check what can be checked without opening anything.

        Raises:
            UsageError: a latency or port that is none, two pages, two outputs of one name, an output twice, an option
                of the source that FFmpeg does not have.
        """
        try:
            urlsplit(self.source.url).port  # noqa: B018  # of no other use yet; it would be waited for for ever
        except ValueError as exc:
            if self.source.remote:
                raise UsageError(f"{self.source.shown}: {exc}") from exc
        for name, _ in self.source.options:
            if not has_option(name):
                hint = f"demuxer={self.source.demuxer}" if self.source.demuxer else "full"
                raise UsageError(f"-i {name}: FFmpeg has no such option for reading; `ffmpeg -h {hint}` lists them")
        if not 0.02 <= self.latency <= 60:
            raise UsageError(f"--latency {self.latency:g} s is not between 20 ms and 60 s")
        if sum(target.kind == "http" for target in self.targets) > 1:
            raise UsageError("-o http://... can be given once")
        if len({target.text for target in self.targets}) < len(self.targets):
            raise UsageError("an output is given twice")
        if sum(target.path == "-" for target in self.targets) > 1:
            raise UsageError("standard output can be written to once")

    @property
    def real_time(self) -> bool:
        """Whether frames that would come too late are dropped, as far as is known before the source is open."""
        if self.source.live:
            return True
        return self.paced if self.paced is not None else not all(target.waits for target in self.targets)

"""The web server, seen from the pipeline: a process of its own that serves viewers.

Whatever viewers do, thousands of connections or none, costs the pipeline nothing but a message a packet: the other
process has its own interpreter and lower priority.
"""

from __future__ import annotations

import multiprocessing
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from videosr.errors import OutputError
from videosr.live.segments import Chunk

STARTING = 30.0
"""Seconds the process may take to come up."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FrontOptions:
    """What to serve, and where.

    Attributes:
        http: host and port of the page; None: no page.
        listeners: hosts and ports where MPEG-TS is given to whoever connects.
        token: what viewers of the page must know; "" lets everyone in.
    """

    http: tuple[str, int] | None = None
    listeners: tuple[tuple[str, int], ...] = ()
    token: str = ""


class Front:
    """Starts and feeds the process.

    Args:
        options: what it serves.
        name: for its errors.

    Attributes:
        name: as given.
        http_port: the port the page got.
        ports: those of the listeners.
        wanted: whether someone is looking at the source beside the upscaled stream.
        viewers: connections open at the moment.
        playing: whether a player is fetching HLS.
        ended: the process has ended, though nobody asked it to.

    Raises:
        MissingExtraError: the web server is not installed.
        OutputError: an address cannot be had.
    """

    def __init__(self, options: FrontOptions, name: str = "the page") -> None:
        from videosr.live import server

        if options.http:
            server.require()
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=server.run, args=(theirs, options), name="videosr-front", daemon=True)
        self._process.start()
        theirs.close()
        self.name = name
        self._sending = threading.Lock()
        self.wanted = False
        self.viewers = 0
        self.playing = False
        self.ended = False
        self.http_port = 0
        self.ports: tuple[int, ...] = ()
        self._thread: threading.Thread | None = None
        try:
            self._await_ready()
        except BaseException:
            self.close()
            raise
        self._thread = threading.Thread(target=self._listen, name="videosr-front", daemon=True)
        self._thread.start()

    def _await_ready(self) -> None:
        try:
            if not self._connection.poll(STARTING):
                raise OutputError("the server process does not start")
            kind, value = self._connection.recv()
        except (EOFError, OSError) as exc:
            raise OutputError("the server process ended while starting") from exc
        if kind == "failed":
            raise OutputError(value)
        self.http_port, self.ports = value

    def _listen(self) -> None:
        with suppress(EOFError, OSError):
            while True:
                self.wanted, self.viewers, self.playing = self._connection.recv()
        self.wanted, self.viewers, self.playing = False, 0, False

    def _send(self, *message: Any) -> None:
        try:
            with self._sending:
                self._connection.send(message)
        except OSError as exc:
            self.ended = True
            raise OutputError(f"{self.name}: the server process has ended; start videosr again") from exc

    def _end(self) -> None:
        with suppress(OutputError):
            self._send("end")

    def begin(self, epoch: float, target: int) -> None:
        """Before the first chunk: what `Segmenter` has to know. Raises OutputError."""
        self._send("begin", epoch, target)

    def date(self, pts: int, epoch: float) -> None:
        """After the source was away: see `Segmenter.date`. Raises OutputError."""
        self._send("date", pts, epoch)

    def taker(self, rendition: str) -> Callable[[Chunk], None]:
        """What passes chunks on as this rendition, "upscaled" or "source". It raises OutputError."""
        return lambda chunk: self._send("chunk", rendition, chunk.data, chunk.key, chunk.pts)

    def tell(self, status: dict[str, Any]) -> None:
        """Give the page its figures. Raises OutputError."""
        self._send("status", status)

    def over(self, status: dict[str, Any]) -> None:
        """The stream has ended, and these are its last figures; viewers may still fetch it. Raises OutputError."""
        self._send("over", status)

    def close(self) -> None:
        """End the process."""
        # In a thread, as a process that takes nothing holds up whoever tells it something; until it is killed.
        end = threading.Thread(target=self._end, name="videosr-front-end", daemon=True)
        end.start()
        self._process.join(2)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        end.join()
        if self._thread is not None:
            self._thread.join()
        self._connection.close()

"""The server process: listens, receives chunks from the pipeline, serves them. Nothing here touches a file."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from importlib.util import find_spec
from multiprocessing.connection import Connection
from typing import Any

from videosr.errors import MissingExtraError
from videosr.live.front import FrontOptions
from videosr.live.hub import Follower, Rendition
from videosr.live.segments import Chunk

STALLED = 10.0
"""Seconds in which a client has to take what it is given."""
UNSENT = 2**16
"""Bytes of a client that the system holds beside those on their way. It would take megabytes, of which a slow client
has to take a third before more is taken of us: it would seem to take nothing for that long."""
CLIENTS = 64
"""Clients of one listener."""
WANTED = 15.0
"""Seconds after a viewer last asked for the source beside the stream."""
PLAYING = 3.0
"""Seconds after which a player that asked for nothing has gone, or has all; until the end it asks every second."""


def require() -> None:
    """Raise MissingExtraError if the web server is not installed."""
    if find_spec("aiohttp") is None:
        raise MissingExtraError("the page of videosr serve", "serve")


class State:
    """What the process serves.

    Args:
        options: see `FrontOptions`.
    """

    def __init__(self, options: FrontOptions) -> None:
        self.options = options
        self.renditions = {name: Rendition() for name in ("upscaled", "source")}
        self.status: dict[str, Any] = {}
        self.asked: float | None = None
        """When someone last asked for the source."""
        self.played: float | None = None
        """When a player last asked for a playlist or a segment."""
        self.clients: list[Callable[[], int]] = []
        """Of every listener, how many connections are open."""

    def handle(self, message: tuple[Any, ...]) -> None:
        """Take a message of the pipeline's."""
        if message[0] == "chunk":
            _, rendition, data, key, pts = message
            self.renditions[rendition].take(Chunk(data, key, pts))
        elif message[0] == "begin":
            for one in self.renditions.values():
                one.begin(*message[1:])
        elif message[0] == "date":
            for one in self.renditions.values():
                one.segmenter.date(*message[1:])
        elif message[0] == "over":
            for one in self.renditions.values():
                one.end()
            self.status = message[1] | {"connected": False, "ended": True}
        else:
            self.status = message[1]


def run(connection: Connection, options: FrontOptions) -> None:
    """The process's main function.

    Args:
        connection: to the pipeline; when it closes, the process ends.
        options: what to serve.
    """
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):  # they go to the whole group; the pipeline decides when to end
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    if hasattr(os, "nice"):
        os.nice(5)
    asyncio.run(_serve(connection, options))


async def _serve(connection: Connection, options: FrontOptions) -> None:
    state = State(options)
    loop = asyncio.get_running_loop()
    servers: list[asyncio.Server] = []
    http_port = 0
    try:
        if options.http:
            from videosr.live.web import listen

            sock = _bind(f"http://{_address(options.http)}/", options.http)
            http_port = sock.getsockname()[1]
            servers.append(await listen(state, sock))
        ports = []
        for address in options.listeners:
            sock = _bind(f"tcp://{_address(address)}", address)
            ports.append(sock.getsockname()[1])
            servers.append(await _listener(state, sock))
    except OSError as exc:
        connection.send(("failed", str(exc)))
        return
    connection.send(("ready", (http_port, tuple(ports))))
    ended = loop.create_future()

    def receive() -> None:
        try:
            with suppress(EOFError, OSError):
                while (message := connection.recv())[0] != "end":
                    # One at a time: if this loop is slow, it is the sender that notices, not the memory.
                    asyncio.run_coroutine_threadsafe(_handle(state, message), loop).result()
        finally:
            loop.call_soon_threadsafe(ended.set_result, None)

    threading.Thread(target=receive, daemon=True).start()
    reporter = asyncio.create_task(_report(state, connection))
    await ended
    reporter.cancel()
    for rendition in state.renditions.values():
        rendition.end()
    for server in servers:
        server.close()
    await asyncio.sleep(0.2)  # for the last bytes; who has not taken them by then does without


async def _handle(state: State, message: tuple[Any, ...]) -> None:
    state.handle(message)


async def _report(state: State, connection: Connection) -> None:
    """Tell the pipeline who is looking."""
    before: tuple[bool, int, bool] | None = None
    while True:
        now = asyncio.get_running_loop().time()
        wanted = state.asked is not None and now - state.asked < WANTED
        playing = state.played is not None and now - state.played < PLAYING
        viewers = sum(count() for count in state.clients)
        if (wanted, viewers, playing) != before:
            before = wanted, viewers, playing
            with suppress(OSError):
                connection.send(before)
        await asyncio.sleep(0.25)


def _address(address: tuple[str, int]) -> str:
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _bind(name: str, address: tuple[str, int]) -> socket.socket:
    """A listening socket. Raises OSError that names it."""
    try:
        family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        sock = socket.create_server(address, family=family, backlog=128)
    except OSError as exc:
        why = str(exc.strerror or exc).partition(" (while")[0]  # Python adds the address, which is there already
        remedy = "another port" if exc.errno in (errno.EADDRINUSE, errno.EACCES) else "an address of this machine"
        raise OSError(f"{name}: cannot listen there: {why}; give {remedy}") from exc
    if hasattr(socket, "TCP_NOTSENT_LOWAT"):  # Linux and macOS; connections inherit it
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, UNSENT)
    return sock


async def _listener(state: State, sock: socket.socket) -> asyncio.Server:
    """Gives MPEG-TS to whoever connects."""
    rendition = state.renditions["upscaled"]
    clients: dict[asyncio.StreamReader, Follower | None] = {}
    state.clients.append(lambda: sum(not one.at_eof() for one in clients))

    async def client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # Who sends no more may have gone, or only have said so: that shows when there is something to write to it, and
        # until then it keeps its place if no other client wants it.
        silent = [one for one in clients if one.at_eof()] if len(clients) >= CLIENTS else []
        for one in silent:
            if (left := clients[one]) is not None:
                left.end()
        follower = rendition.follow() if len(clients) - len(silent) < CLIENTS else None
        clients[reader] = follower
        try:
            if follower is not None:
                async for data in follower:
                    async with asyncio.timeout(STALLED):
                        writer.write(data)
                        await writer.drain()
        except (OSError, TimeoutError):
            writer.transport.abort()
        finally:
            del clients[reader]
            if follower is not None:
                rendition.leave(follower)
            writer.close()

    return await asyncio.start_server(client, sock=sock, limit=4096)

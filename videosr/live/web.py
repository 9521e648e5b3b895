"""The page: a player with source and upscaled picture side by side, its segments, figures and health, by aiohttp.

Only what is in memory is served: there is no way from a request to the file system.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import socket
from collections.abc import Awaitable, Callable
from importlib.resources import files
from urllib.parse import quote

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from videosr.live.door import Door
from videosr.live.metrics import prometheus
from videosr.live.server import STALLED, State

PAGE = {
    "": ("index.html", "text/html"),
    "page.css": ("page.css", "text/css"),
    "page.js": ("page.js", "text/javascript"),
    "hls.min.js": ("hls.min.js", "text/javascript"),
}
"""Path on the server: file in the package and its type."""
HEADERS = {
    "Content-Security-Policy": "default-src 'self'; media-src 'self' blob:; worker-src 'self' blob:; img-src 'self'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
COOKIE = "videosr_token"
PATIENCE = 10.0
"""Seconds a playlist request waits for the first segment."""
SENDING = 60.0
"""Seconds in which a client has to take an answer of known length."""
HEADER_BYTES = 8190

type Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Site:
    """The request handlers.

    Args:
        state: what there is to serve.
    """

    def __init__(self, state: State) -> None:
        self._state = state
        self._token = state.options.token
        self._cookie = hashlib.sha256(self._token.encode()).hexdigest()  # whatever the token is made of
        folder = files("videosr.live") / "page"
        self._page = {path: ((folder / name).read_bytes(), kind) for path, (name, kind) in PAGE.items()}

    def app(self, door: Door) -> web.Application:
        """The application behind a door."""

        @web.middleware
        async def guarded(request: web.Request, handler: Handler) -> web.StreamResponse:
            transport = request.transport  # not there any more when the client has gone
            door.begin(transport)
            try:
                async with asyncio.timeout(SENDING):
                    await door.turn(transport)
            except TimeoutError:
                _hang_up(request)
            try:
                if not self._may(request):
                    return web.Response(status=401, text="this server wants its token: add ?token=... to the address\n")
                return await handler(request)
            finally:
                door.done(transport)

        app = web.Application(middlewares=[guarded], client_max_size=1024)
        app.router.add_get("/healthz", self._health)
        app.router.add_get("/metrics", self._metrics)
        app.router.add_get("/api/status", self._status)
        app.router.add_get("/live.ts", self._follow)
        app.router.add_get("/{rendition:upscaled|source}.m3u8", self._playlist)
        app.router.add_get("/{rendition:upscaled|source}/{number:[0-9]{1,12}}.ts", self._segment)
        app.router.add_get("/{path:[a-z.]*}", self._static)
        return app

    def _may(self, request: web.Request) -> bool:
        """Whether a request shows the token; health is for everyone."""
        if not self._token or request.path == "/healthz":
            return True
        if hmac.compare_digest(request.cookies.get(COOKIE, "").encode("utf-8", "replace"), self._cookie.encode()):
            return True
        shown = request.query.get("token") or request.headers.get("Authorization", "").removeprefix("Bearer ")
        return hmac.compare_digest(shown.encode("utf-8", "replace"), self._token.encode())

    async def _static(self, request: web.Request) -> web.StreamResponse:
        found = self._page.get(request.match_info["path"])
        if found is None:
            raise web.HTTPNotFound(text="there is no such page\n")
        extra = {}
        if self._token and "token" in request.query:
            extra = {"Set-Cookie": f"{COOKIE}={self._cookie}; Path=/; HttpOnly; SameSite=Strict"}
        return await _send(request, *found, extra)

    async def _health(self, request: web.Request) -> web.StreamResponse:
        status = self._state.status
        healthy = bool(status) and status["connected"]
        return web.Response(status=200 if healthy else 503, text="ok\n" if healthy else "no source\n", headers=HEADERS)

    async def _metrics(self, request: web.Request) -> web.StreamResponse:
        return await _send(request, prometheus(self._state.status).encode(), "text/plain")

    async def _status(self, request: web.Request) -> web.StreamResponse:
        return web.json_response(self._state.status, headers=HEADERS)

    async def _playlist(self, request: web.Request) -> web.StreamResponse:
        name = request.match_info["rendition"]
        self._asked(name)
        token = request.query.get("token")
        segment = f"{name}/{{}}.ts" + (f"?token={quote(self._token, safe='')}" if token else "")
        text = await self._state.renditions[name].playlist(segment, PATIENCE)
        if text is None:
            raise web.HTTPServiceUnavailable(text="there is no segment yet\n", headers={"Retry-After": "1"})
        return await _send(request, text.encode(), "application/vnd.apple.mpegurl")

    async def _segment(self, request: web.Request) -> web.StreamResponse:
        name = request.match_info["rendition"]
        self._asked(name)
        segment = self._state.renditions[name].segmenter.find(int(request.match_info["number"]))
        if segment is None:
            raise web.HTTPNotFound(text="that segment is not kept\n")
        return await _send(request, segment.data, "video/mp2t")

    def _asked(self, rendition: str) -> None:
        self._state.played = asyncio.get_running_loop().time()
        if rendition == "source":
            self._state.asked = self._state.played

    async def _follow(self, request: web.Request) -> web.StreamResponse:
        """MPEG-TS without end."""
        response = web.StreamResponse(headers=HEADERS | {"Content-Type": "video/mp2t"})
        if request.method == "HEAD":
            await response.prepare(request)
            return response
        rendition = self._state.renditions["upscaled"]
        follower = rendition.follow()
        if follower is None:
            raise web.HTTPServiceUnavailable(text="too many clients\n", headers={"Retry-After": "10"})
        try:
            await response.prepare(request)
            async for data in follower:
                async with asyncio.timeout(STALLED):
                    await response.write(data)
        except (ConnectionError, TimeoutError):
            _hang_up(request)
        finally:
            rendition.leave(follower)
        return response


async def _send(
    request: web.Request, data: bytes, kind: str, extra: dict[str, str] | None = None
) -> web.StreamResponse:
    """An answer that has to be taken within `SENDING` seconds."""
    text = "; charset=utf-8" if kind.startswith("text/") else ""
    headers = HEADERS | {"Content-Type": kind + text} | (extra or {})
    response = web.StreamResponse(headers=headers)
    response.content_length = len(data)
    try:
        async with asyncio.timeout(SENDING):
            await response.prepare(request)
            if request.method != "HEAD":
                await response.write(data)
            await response.write_eof()
    except (ConnectionError, TimeoutError):
        _hang_up(request)
    return response


def _hang_up(request: web.Request) -> None:
    """Close a connection whose client has gone or takes nothing, without waiting for it to take the rest."""
    if request.transport is not None:
        request.transport.abort()


class _OurErrors(logging.Filter):
    """Keeps errors about malformed requests out of the log; those of our own code pass."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a record is of an error of ours."""
        return not (record.exc_info and isinstance(record.exc_info[1], HttpProcessingError))


async def listen(state: State, sock: socket.socket) -> asyncio.Server:
    """Serve the page on a listening socket."""
    door: Door
    site = Site(state)
    runner: web.AppRunner

    def protocol() -> asyncio.Protocol:
        assert runner.server is not None
        return runner.server()

    door = Door(protocol)
    state.clients.append(lambda: len(door))
    app = site.app(door)
    runner = web.AppRunner(
        app,
        handle_signals=False,
        access_log=None,
        keepalive_timeout=10,
        max_line_size=HEADER_BYTES,
        max_field_size=HEADER_BYTES,
        lingering_time=1,
        handler_cancellation=True,  # else who follows keeps its place until there is something to write
    )
    logging.getLogger("aiohttp.server").addFilter(_OurErrors())
    await runner.setup()
    door.watching = asyncio.create_task(door.watch())  # until the loop ends; the loop itself would forget it
    return await asyncio.get_running_loop().create_server(door, sock=sock)

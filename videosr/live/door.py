"""Limits on connections, between the network and the web server's protocol: how many, and how long idle ones stay."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

CONNECTIONS = 400
"""Open at a time. When there are as many, the one that has been idle longest makes room."""
IDLE = 15.0
"""Seconds a connection may be open without a whole request."""


class Guard(asyncio.Protocol):
    """Passes everything on to the protocol inside, and knows whether that is busy."""

    def __init__(self, inner: asyncio.Protocol, door: Door) -> None:
        self._inner, self._door = inner, door
        self.transport: asyncio.Transport | None = None
        self.busy = 0
        self.room = asyncio.Event()
        """Set while the client takes what is written to it."""
        self.room.set()
        self.idle_since = asyncio.get_running_loop().time()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        self.transport = cast(asyncio.Transport, transport)
        if self._door.enter(self):
            self._inner.connection_made(transport)
        else:
            self.transport.abort()
            self.transport = None

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        self.room.set()  # nobody is to wait for it any more
        if self.transport is not None:
            self._door.leave(self)
            self._inner.connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        if self.transport is not None:
            self._inner.data_received(data)

    def eof_received(self) -> bool | None:
        """See `asyncio.Protocol`."""
        return self._inner.eof_received() if self.transport is not None else None

    def pause_writing(self) -> None:
        """See `asyncio.Protocol`."""
        self.room.clear()
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        """See `asyncio.Protocol`."""
        self.room.set()
        self._inner.resume_writing()


class Door:
    """Limits how many connections there are, and closes those on which nothing happens.

    Slow senders of headers, slow readers of the last bytes, and those who only connect are all the same: open and not
    busy with a request.

    Args:
        make: makes the web server's protocol for a connection.
        limit: connections at a time.
        idle: seconds one may be idle.
    """

    def __init__(self, make: Callable[[], asyncio.Protocol], limit: int = CONNECTIONS, idle: float = IDLE) -> None:
        self._make, self._limit, self._idle = make, limit, idle
        self._guards: dict[asyncio.BaseTransport, Guard] = {}
        self.refused = 0
        """Connections closed to stay within the limit."""
        self.watching: asyncio.Task[None] | None = None
        """What closes idle connections."""

    def __call__(self) -> Guard:
        """The protocol of a new connection."""
        return Guard(self._make(), self)

    def enter(self, guard: Guard) -> bool:
        """Whether there is room, or could be made."""
        assert guard.transport is not None
        if len(self._guards) >= self._limit:
            self.refused += 1
            idle = min((g for g in self._guards.values() if not g.busy), key=lambda g: g.idle_since, default=None)
            if idle is None or idle.transport is None:
                return False
            del self._guards[idle.transport]
            idle.transport.abort()
        self._guards[guard.transport] = guard
        return True

    def leave(self, guard: Guard) -> None:
        """A connection has ended."""
        if guard.transport is not None:
            self._guards.pop(guard.transport, None)

    def begin(self, transport: asyncio.BaseTransport | None) -> None:
        """A whole request has come."""
        if (guard := self._find(transport)) is not None:
            guard.busy += 1

    async def turn(self, transport: asyncio.BaseTransport | None) -> None:
        """Wait until a request may be answered: others come between, and the client has taken the answers before.

        Else a client that sends request after request and reads nothing would fill the memory with answers, and keep
        the server from all others meanwhile: aiohttp waits for no small answer to be taken.
        """
        await asyncio.sleep(0)
        if (guard := self._find(transport)) is not None:
            await guard.room.wait()

    def done(self, transport: asyncio.BaseTransport | None) -> None:
        """It has been answered."""
        if (guard := self._find(transport)) is not None:
            guard.busy -= 1
            guard.idle_since = asyncio.get_running_loop().time()

    def _find(self, transport: asyncio.BaseTransport | None) -> Guard | None:
        return self._guards.get(transport) if transport is not None else None

    def __len__(self) -> int:
        return len(self._guards)

    async def watch(self) -> None:
        """Close idle connections, for ever."""
        while True:
            await asyncio.sleep(self._idle / 5)
            now = asyncio.get_running_loop().time()
            for transport, guard in list(self._guards.items()):
                if not guard.busy and now - guard.idle_since > self._idle:
                    cast(asyncio.Transport, transport).abort()

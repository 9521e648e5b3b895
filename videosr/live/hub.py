"""What the server process knows of the streams: segments, and clients that follow chunk by chunk."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator

from videosr.live.segments import Chunk, Segmenter

BACKLOG = 8 * 2**20
"""Bytes a client may lag behind before it loses what it has not fetched, up to the next keyframe."""
PIECE = 2**16
"""Bytes after which a client is given no more at once: it has to take each piece in time, not all that waits."""
FOLLOWERS = 256
"""Clients that may follow one stream chunk by chunk."""


class Follower:
    """A client that gets every chunk from a keyframe on, for as long as it keeps up."""

    def __init__(self, begin: list[Chunk]) -> None:
        self._waiting: deque[bytes] = deque(chunk.data for chunk in begin)
        self._size = sum(map(len, self._waiting))
        self._needs_key = not begin
        self._event = asyncio.Event()
        if begin:
            self._event.set()
        self._ended = False

    def take(self, chunk: Chunk) -> None:
        """Queue a chunk, or give up what is queued."""
        if self._size > BACKLOG:
            self._waiting.clear()
            self._size = 0
            self._needs_key = True
        if self._needs_key and not chunk.key:
            return
        self._needs_key = False
        self._waiting.append(chunk.data)
        self._size += len(chunk.data)
        self._event.set()

    def end(self) -> None:
        """Nothing more is coming."""
        self._ended = True
        self._event.set()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """What has come, a few chunks joined, again and again."""
        while True:
            await self._event.wait()
            self._event.clear()
            while self._waiting:
                piece: list[bytes] = []
                size = 0
                while self._waiting and size < PIECE:
                    piece.append(self._waiting.popleft())
                    size += len(piece[-1])
                self._size -= size
                yield b"".join(piece)
            if self._ended:
                return


class Rendition:
    """One stream: its playlist and segments, and those who follow it."""

    def __init__(self) -> None:
        self.segmenter = Segmenter()
        self._since_key: list[Chunk] = []
        self._size = 0
        self._followers: set[Follower] = set()
        self._first = asyncio.Event()
        self._ended = False

    def begin(self, epoch: float, target: int) -> None:
        """Before the first chunk: see `Segmenter`."""
        self.segmenter = Segmenter(epoch, target)

    def take(self, chunk: Chunk) -> None:
        """A chunk came."""
        if self.segmenter.add(chunk) is not None:
            self._first.set()
        if chunk.key or self._size > BACKLOG:  # sound may go on where pictures stay away
            self._since_key.clear()
            self._size = 0
        if chunk.key or self._since_key:
            self._since_key.append(chunk)
            self._size += len(chunk.data)
        for follower in self._followers:
            follower.take(chunk)

    async def playlist(self, name: str, patience: float) -> str | None:
        """The playlist, once it has something to list; None if it has not in time."""
        try:
            async with asyncio.timeout(patience):
                await self._first.wait()
        except TimeoutError:
            return None
        return self.segmenter.playlist(name, ended=self._ended)

    def follow(self) -> Follower | None:
        """Follow from the last keyframe on; None if too many already do."""
        if len(self._followers) >= FOLLOWERS:
            return None
        follower = Follower(self._since_key)
        if self._ended:
            follower.end()
        self._followers.add(follower)
        return follower

    def leave(self, follower: Follower) -> None:
        """Follow no longer."""
        self._followers.discard(follower)

    def end(self) -> None:
        """Nothing more is coming: what there is of the last segment is listed as such. Once is enough."""
        if self._ended:
            return
        self._ended = True
        if self.segmenter.finish() is not None:
            self._first.set()
        for follower in self._followers:
            follower.end()

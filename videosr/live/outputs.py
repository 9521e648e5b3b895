"""Where a live stream goes: outputs in threads of their own behind bounded queues, so that none disturbs another.

An entry (a raw picture, or a coded packet of video or sound) is queued by `Output.put` and written by the output's
thread. If the queue is full, either the stream waits or the oldest entry is dropped; coded video then goes on at the
next keyframe. `Pipe` writes raw video, `Push` sends to a network address and reconnects, `Chunks` makes MPEG-TS for the
web server or for `HlsFolder`.
"""

from __future__ import annotations

import errno
import os
import re
import stat
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from videosr.errors import OutputError, UsageError
from videosr.files import move
from videosr.frame import Frame, StreamInfo
from videosr.live.ledger import Latency
from videosr.live.queues import BoundedQueue, Closed
from videosr.live.segments import KEPT, Chunk, Segment, Segmenter
from videosr.media.live.codec import Coded, Template
from videosr.media.live.output import (
    Muxer,
    NutWriter,
    RawWriter,
    Refused,
    TransportStream,
    Y4mWriter,
    open_push,
    y4m_colorspace,
)

QUEUED_FRAMES = 64
"""Coded pictures that wait in an output's queue at most; of raw ones, which are large, `QUEUED_PICTURES`."""
QUEUED_PICTURES = 4
QUEUED_SOUND = 256
"""Packets of sound likewise: some five seconds of AAC, which comes in bursts."""
BACKOFF = (0.1, 0.2, 0.4, 0.8, 1.0)
"""Seconds between attempts to connect; the last value repeats."""
PATIENCE = 3.0
"""Seconds an output gets to finish at the end."""


class Raw:
    """A picture on its way to a pipe, and when its packet was demuxed."""

    __slots__ = ("arrival", "frame")

    def __init__(self, frame: Frame, arrival: float) -> None:
        self.frame, self.arrival = frame, arrival


type Entry = Raw | Coded


def _pictured(entry: Entry) -> bool:
    """Whether it is no sound."""
    return isinstance(entry, Raw) or entry.video


class Output(ABC):
    """One destination.

    Attributes:
        name: as the user gave it.
        raw: takes pictures rather than coded video.
        taken: frames given to it.
        written: how many of them were muxed.
        dropped: how many of them were not.
        silenced: packets of sound that were not muxed.
        latency: from the demuxed packet of the source to the packet muxed here.
        gone: set when it has ended for good.
        error: why it has ended, if it failed.
    """

    raw = False

    def __init__(self, name: str, *, wait: bool, say: Callable[[str], None], stop: threading.Event) -> None:
        self.name, self._say, self._stop = name, say, stop
        self.taken = self.written = self.dropped = self.silenced = 0
        self.latency = Latency()
        self.gone = threading.Event()
        self.error: OutputError | None = None
        self._needs_key = not self.raw
        self._lock = threading.Lock()
        size = QUEUED_PICTURES if self.raw else QUEUED_FRAMES
        self.queue: BoundedQueue[Entry] = BoundedQueue(
            size, None if wait else self._spill, beside=lambda entry: not _pictured(entry), size_beside=QUEUED_SOUND
        )
        self._thread = threading.Thread(target=self._run, name=f"videosr-out-{name}", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def put(self, entry: Entry) -> None:
        """Queue an entry. If the queue is full: waits for room if made with `wait`, else drops the oldest."""
        if _pictured(entry):
            with self._lock:
                self.taken += 1
        try:
            self.queue.put(entry)
        except Closed:
            self._lose(entry)

    def fail(self, error: OutputError) -> None:
        """End it with an error. Any thread may call this."""
        self.error = self.error or error
        self.queue.close()

    @property
    def behind(self) -> bool:
        """Whether it still has to write what it was given."""
        with self._lock:
            return not self.gone.is_set() and self.taken > self.written + self.dropped

    def finish(self) -> None:
        """Nothing more is coming: write what is queued, within `PATIENCE`."""
        self.queue.close()
        if self._thread.ident is not None:  # None: never started, because another output could not be opened
            self._thread.join(PATIENCE)
        for entry in self.queue.drain():
            self._lose(entry)

    def _lose(self, entry: Entry) -> None:
        with self._lock:
            if _pictured(entry):
                self.dropped += 1
            else:
                self.silenced += 1

    def _spill(self, entry: Entry) -> None:
        self._lose(entry)
        if not self.raw and isinstance(entry, Coded) and entry.video:
            self._needs_key = True

    def _run(self) -> None:
        try:
            while True:
                entry = self.queue.get()
                if entry is None:
                    continue
                if isinstance(entry, Coded) and entry.video and self._needs_key:
                    if not entry.key:
                        self._lose(entry)
                        continue
                    self._needs_key = False
                try:
                    written = self._write(entry)
                except OutputError:
                    self._lose(entry)
                    raise
                if not written:
                    self._lose(entry)
                elif _pictured(entry):
                    with self._lock:
                        self.written += 1
                    self.latency.add(time.monotonic() - entry.arrival)
        except Closed:
            pass
        except OutputError as exc:
            self.fail(exc)
        finally:
            for entry in self.queue.drain():
                self._lose(entry)
            try:
                self._close()
            except OutputError as exc:
                self.fail(exc)
            finally:
                self.gone.set()

    @abstractmethod
    def _write(self, entry: Entry) -> bool:
        """Mux an entry; False if that was not possible now. Raises OutputError if it never will be."""

    @abstractmethod
    def _close(self) -> None:
        """Finish the container. Raises OutputError if what was written is not complete."""


class Pipe(Output):
    """Raw video into standard output or a named pipe.

    Raises:
        UsageError: its form has no room for such pictures.
    """

    raw = True

    def __init__(
        self,
        name: str,
        path: str,
        form: str,
        info: StreamInfo,
        template: Template,
        *,
        wait: bool,
        say: Callable[[str], None],
        stop: threading.Event,
    ) -> None:
        if form == "y4m":
            y4m_colorspace(info)  # raises UsageError here, not in the thread at the first picture
        super().__init__(name, wait=wait, say=say, stop=stop)
        self._path, self._form, self._info, self._template = path, form, info, template
        self._writer: RawWriter | None = None
        self._file: BinaryIO | None = None

    def _write(self, entry: Entry) -> bool:
        while True:
            if self._writer is None:
                self._file = _open_pipe(self._path, self._stop)
                if self._file is None:
                    return False
                if self._form == "y4m":
                    self._writer = Y4mWriter(self._file, self._info)
                else:
                    self._writer = NutWriter(self._file, self._info, self._template)
            try:
                if isinstance(entry, Raw):
                    self._writer.write(entry.frame)
                else:
                    self._writer.sound(entry)
                return True
            except OSError as exc:
                self._close()
                # Where FFmpeg wrote, the error of the write is what caused its own.
                cause = exc.__cause__ if isinstance(exc.__cause__, OSError) else exc
                if not isinstance(cause, ConnectionError):  # such as a full disk: standard output may be a file
                    raise OutputError.writing(self.name, cause) from exc
                if self._path == "-":
                    raise OutputError(f"{self.name}: its reader has gone") from exc
                self._say(f"{self.name}: its reader has gone; waiting for another")

    def _close(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            with suppress(OSError):
                writer.close()
        if self._file is not None:
            with suppress(OSError):
                self._file.close()


def _open_pipe(path: str, stop: threading.Event) -> BinaryIO | None:
    """Standard output, or a named pipe once it has a reader; None if `stop` was set before. Raises OutputError."""
    if path == "-":
        return os.fdopen(os.dup(sys.stdout.fileno()), "wb", buffering=0)
    while not stop.is_set():
        try:
            # Without waiting: a pipe that nobody ever reads must not keep us from ending.
            number = os.open(path, os.O_WRONLY | getattr(os, "O_NONBLOCK", 0))
        except OSError as exc:
            if exc.errno != errno.ENXIO:
                raise OutputError.writing(path, exc) from exc
            stop.wait(0.1)
            continue
        os.set_blocking(number, True)
        return os.fdopen(number, "wb", buffering=0)
    return None


class Push(Output):
    """A network destination; connected again, with back-off, whenever it is lost.

    Its name does not show the whole URL, which may hold a key.
    """

    def __init__(
        self,
        name: str,
        url: str,
        template: Template,
        *,
        wait: bool,
        say: Callable[[str], None],
        stop: threading.Event,
    ) -> None:
        super().__init__(name, wait=wait, say=say, stop=stop)
        self._url, self._template = url, template
        self._muxer: Muxer | None = None
        self._attempts = 0
        self._next = 0.0

    def _write(self, entry: Entry) -> bool:
        if self._muxer is None and not self._connect(entry):
            return False
        assert self._muxer is not None
        try:
            self._muxer.write(entry)  # type: ignore[arg-type]  # raw pictures do not come here
            return True
        except OutputError as exc:
            self._say(f"{self.name}: lost: {exc}; connecting again")
            self._close()
            self._needs_key = True
            self._attempts = 0
            return False

    def _connect(self, entry: Entry) -> bool:
        """Connect at a keyframe, if it is time to try."""
        assert isinstance(entry, Coded)
        if not (entry.video and entry.key) or time.monotonic() < self._next:
            self._needs_key = self._needs_key or entry.video
            return False
        try:
            self._muxer = open_push(self._url, self._template)
        except Refused:
            raise
        except OutputError as exc:
            if self._attempts == 0:
                self._say(f"{exc}; trying again until it is there")
            self._next = time.monotonic() + BACKOFF[min(self._attempts, len(BACKOFF) - 1)]
            self._attempts += 1
            self._needs_key = True
            return False
        self._say(f"{self.name}: connected")
        self._attempts = 0
        return True

    def _close(self) -> None:
        muxer, self._muxer = self._muxer, None
        if muxer is not None:
            with suppress(OutputError):
                muxer.close()


class Chunks(Output):
    """MPEG-TS in memory, for whoever takes its chunks.

    Args:
        take: called with each chunk, in this output's thread.
        end: called at the end, with the pts at which the last packet ends.
    """

    def __init__(
        self,
        name: str,
        template: Template,
        take: Callable[[Chunk], None],
        end: Callable[[int], None],
        *,
        wait: bool,
        say: Callable[[str], None],
        stop: threading.Event,
    ) -> None:
        super().__init__(name, wait=wait, say=say, stop=stop)
        self._stream = TransportStream(template)
        self._take, self._end = take, end
        self._pts = self._key_pts = self._until = 0

    def _write(self, entry: Entry) -> bool:
        assert isinstance(entry, Coded)
        self._pts = entry.pts
        self._until = max(self._until, entry.pts + entry.duration)
        if entry.video and entry.key:
            self._key_pts = entry.pts
        self._pass_on(self._stream.mux(entry))
        return True

    def _pass_on(self, pieces: list[tuple[bytes, bool]]) -> None:
        for data, key in pieces:
            self._take(Chunk(data, key, self._key_pts if key else self._pts))

    def _close(self) -> None:
        self._pass_on(self._stream.finish())
        self._end(self._until)


class HlsFolder:
    """HLS as files: a playlist and its segments, each complete when its name appears. Those of an earlier run go.

    After a segment that could not be written none is written any more, and the playlist says that it ends before it.

    Segments are named after the playlist. Characters that mean something in a URL (RFC 8216, 4.1) are replaced in their
    names rather than escaped in the playlist: FFmpeg and others that read it as a file do not undo escapes.

    Args:
        path: of the playlist.
        segmenter: cuts the stream.

    Raises:
        OutputError: nothing can be written there.
    """

    def __init__(self, path: Path, segmenter: Segmenter) -> None:
        self._path, self._segmenter = path, segmenter
        stem = _plain(path.stem)
        self._segment = f"{stem}-{{}}.ts"
        self._failed = False
        earlier = path.exists()
        self._write(path, b"")
        path.unlink(missing_ok=True)
        if earlier:
            for old in path.parent.iterdir():
                if re.fullmatch(rf"{re.escape(stem)}-\d+\.ts", old.name):
                    with suppress(OSError):  # if it is in the way, that will be said when it is
                        old.unlink()

    def take(self, chunk: Chunk) -> None:
        """Write what a chunk completes. Raises OutputError."""
        self._store(self._segmenter.add(chunk), ended=False)

    def _store(self, segment: Segment | None, *, ended: bool) -> None:
        if segment is None or self._failed:
            return
        folder = self._path.parent
        try:
            self._write(folder / self._segment.format(segment.number), segment.data)
        except OutputError:
            self._failed = True
            self._segmenter.segments.pop()
            if self._segmenter.segments:  # what is there ends here
                with suppress(OutputError):  # the cause is told, not what follows from it
                    self._list(ended=True)
            raise
        self._list(ended=ended)
        if segment.number >= KEPT and not self._segmenter.whole:
            with suppress(OSError):  # Windows removes none that a player has open; the next run will
                (folder / self._segment.format(segment.number - KEPT)).unlink(missing_ok=True)

    def _list(self, *, ended: bool) -> None:
        self._write(self._path, self._segmenter.playlist(self._segment, ended=ended).encode())

    def end(self, until: int = 0) -> None:
        """Say that nothing more comes, and at which pts the last packet ends. Raises OutputError."""
        self._store(self._segmenter.finish(until), ended=True)

    @staticmethod
    def _write(path: Path, data: bytes) -> None:
        beside = path.with_name(f".{path.name}.part")
        try:
            beside.write_bytes(data)
            move(beside, path)
        except OSError as exc:
            with suppress(OSError):
                beside.unlink(missing_ok=True)
            raise OutputError.writing(path, exc) from exc


def _plain(stem: str) -> str:
    """A file's name with each byte that means something in a URL as "=" and two hexadecimal digits."""
    return re.sub(r"[^\w.~-]", lambda found: "".join(f"={byte:02X}" for byte in os.fsencode(found[0])), stem)


def pipe_form(target: str) -> tuple[str, str] | None:
    """The path and form, "y4m" or "nut", of an output that is a pipe; None if it is none.

    Raises:
        UsageError: it is a file that is no pipe.
    """
    form, colon, rest = target.partition(":")
    path = rest if colon and form in ("y4m", "nut") else target
    if colon and form not in ("y4m", "nut") and "://" in target:
        return None
    if path != "-":
        if path.lower().endswith(".m3u8"):
            return None
        try:
            mode = Path(path).stat().st_mode
        except OSError as exc:
            raise UsageError(f"-o {target}: {exc.strerror}; make a named pipe first (mkfifo), or give a URL") from exc
        if not stat.S_ISFIFO(mode):
            raise UsageError(f"-o {target}: is not a pipe; `videosr upscale` writes files")
    return path, form if path is not target else "nut" if path.lower().endswith(".nut") else "y4m"

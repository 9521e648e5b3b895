"""The source as it came, encoded small and only while someone compares it with the upscaled stream."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

from videosr.errors import OutputError
from videosr.frame import Frame, PixelFormat, StreamInfo
from videosr.live.front import Front
from videosr.live.queues import BoundedQueue, Closed
from videosr.live.segments import Chunk
from videosr.media.captions import captions_of
from videosr.media.live.codec import LiveEncoder, Template, VideoSettings
from videosr.media.live.output import TransportStream
from videosr.media.rescale import Rescaler

QUEUED = 8


class SideStream:
    """A second, cheap encoder for the page; it holds nothing up, and its errors end nothing else.

    Args:
        info: of the source.
        settings: of the main encoder, whose distance of keyframes is taken.
        front: where chunks go.
        say: is told if it fails.
    """

    def __init__(self, info: StreamInfo, settings: VideoSettings, front: Front, say: Callable[[str], None]) -> None:
        even = replace(
            info, width=info.width + info.width % 2, height=info.height + info.height % 2,
            format=PixelFormat.parse("yuv420p"),
        )  # fmt: skip
        self._front, self._say = front, say
        self._fit = Rescaler(even)
        template = Template()
        cheap = VideoSettings(preset="ultrafast", crf=16, keyframes=settings.keyframes, threads=1)
        self._encoder = LiveEncoder(even, cheap, template)
        template.settle()
        self._stream = TransportStream(template)
        self._send = front.taker("source")
        self._queue: BoundedQueue[Frame] = BoundedQueue(QUEUED, lambda _: None)
        self._thread = threading.Thread(target=self._run, name="videosr-side", daemon=True)
        self._thread.start()

    def take(self, frame: Frame) -> None:
        """A frame of the source, pts in 1/90000 s."""
        if self._front.wanted:
            if triplets := captions_of(frame):
                self._encoder.caption(frame.pts, triplets)
            with suppress(Closed):  # it has failed, and said so
                self._queue.put(frame)

    def _run(self) -> None:
        last = -(10**9)
        try:
            while True:
                frame = self._queue.get()
                if frame is None:
                    continue
                key = frame.pts - last > 90_000  # nobody looked for a while
                last = frame.pts
                for coded in self._encoder.encode(self._fit.rescale(frame), 0.0, key=key):
                    for data, begins in self._stream.mux(coded):
                        self._send(Chunk(data, begins, coded.pts))
        except Closed:
            pass
        except OutputError as exc:
            if not self._front.ended:  # else that is said of the whole page
                self._say(f"the source beside the stream is not shown any more: {exc}")
        finally:
            self._queue.drain()

    def close(self) -> None:
        """End it."""
        self._queue.drain()
        self._thread.join(1)

"""A film as numbered pictures: encoded into segments as video is, and from these written under their names.

So they can be made by several processes, and an interrupted run goes on, by what does that for video. When the pictures
of a segment are written, it is replaced by one with their times and nothing else: it stands for them in the journal.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

from videosr.files import write_atomically
from videosr.frame import Frame, StreamInfo
from videosr.media.codecs import EncoderSettings
from videosr.media.segments import EncodedPacket, Segment, SegmentHeader, SegmentWriter
from videosr.media.stills.images import encode_image
from videosr.media.stills.numbered import Numbered

RUN = 12
"""Pictures of a segment: what an interruption costs at most, and what several processes take in turns."""


class PictureEncoder:
    """Encodes one run of frames into one segment file, each as the whole file of a picture (`encoder.SegmentEncoder`).

    Args:
        path: the segment file; it appears when `finish` has succeeded.
        settings: from `images.image_settings`.
        info: of the frames, in `images.working_format`.
        matrix: display matrix by which they are turned; None: not at all.

    Raises:
        OutputError: the file cannot be written.
    """

    def __init__(self, path: Path, settings: EncoderSettings, info: StreamInfo, matrix: tuple[int, ...] | None) -> None:
        self._settings, self._matrix = settings, matrix
        color, rate = info.color, info.rate or Fraction(0)
        header = SegmentHeader(
            codec=settings.codec,
            width=info.width,
            height=info.height,
            pix_fmt=settings.pix_fmt,
            time_base=(info.time_base.numerator, info.time_base.denominator),
            rate=(rate.numerator, rate.denominator),
            sar=(info.sar.numerator, info.sar.denominator),
            color=(int(color.matrix), int(color.range), color.primaries, color.transfer, int(color.siting)),
            extradata="",
            template="",
        )
        self._writer = SegmentWriter(path, header)
        self._size = min(4, os.cpu_count() or 1)  # PNG takes longer than a network on a GPU
        self._threads = ThreadPoolExecutor(self._size, "videosr-picture")
        self._pending: deque[tuple[Frame, Future[tuple[bytes, Frame]]]] = deque()

    def encode(self, frame: Frame) -> None:
        """Encode the next frame. Raises OutputError."""
        self._pending.append((frame, self._threads.submit(encode_image, frame, self._settings, self._matrix)))
        while len(self._pending) > self._size:
            self._take()

    def _take(self) -> None:
        frame, made = self._pending.popleft()
        self._writer.add(EncodedPacket(frame.pts, frame.duration, True, made.result()[0]))

    def finish(self) -> None:
        """Encode what is pending and give the file its name. Raises OutputError."""
        while self._pending:
            self._take()
        self._threads.shutdown()
        self._writer.finish()

    def abort(self) -> None:
        """Remove the unfinished file."""
        self._threads.shutdown(cancel_futures=True)
        self._writer.abort()


class PictureFiles:
    """The pictures of an output, which are written from the finished segments of its journal.

    Args:
        pattern: their names.
        first: the number of the first one.
        folder: of the journal: pictures lie there until they are whole.

    Attributes:
        uneven: they do not follow one another at the same distance of time.
    """

    def __init__(self, pattern: Numbered, first: int, folder: Path) -> None:
        self._pattern, self._first, self._folder = pattern, first, folder
        self._done: set[str] = set()
        self.uneven = False

    def write(self) -> None:
        """Write the pictures of segments that have come since.

        Raises:
            OutputError: a picture cannot be written.
            InputError: a segment is damaged.
        """
        for name in sorted(set(os.listdir(self._folder)) - self._done):  # noqa: PTH208 (is called for each frame)
            if not name.endswith(".seg"):
                continue
            segment = Segment(self._folder / name)
            times = list(segment.times())
            self.uneven |= _uneven(segment.header, [b - a for (a, _), (b, _) in pairwise(times)])
            if not _is_written(segment):
                for number, packet in enumerate(segment.packets(), self._first + int(segment.path.stem)):
                    write_atomically(self._pattern.name(number), packet.data, self._folder)
                stub = SegmentWriter(segment.path, segment.header)
                for pts, duration in times:
                    stub.add(EncodedPacket(pts, duration, True, b""))
                stub.finish()
            self._done.add(name)

    def forget_missing(self, segments: Iterable[tuple[int, int, Path]]) -> None:
        """Remove segments of written pictures of which one is not there any more: they are made again.

        Args:
            segments: the place of the first picture in the film, how many there are, and the file.
        """
        for at, frames, path in segments:
            files = (self._pattern.name(self._first + at + n) for n in range(frames))
            if _is_written(Segment(path)) and not all(file.is_file() for file in files):
                path.unlink()


def _is_written(segment: Segment) -> bool:
    return not any(packet.data for packet in segment.packets())


def _uneven(header: SegmentHeader, steps: list[int]) -> bool:
    """Whether frames follow one another at other times than their rate says, to a tick, to which containers round."""
    if not steps:
        return False
    usual = 1 / (Fraction(*header.rate) * header.tick) if all(header.rate) else Fraction(steps[0])
    return any(abs(step - usual) > 1 for step in steps)

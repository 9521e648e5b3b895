"""FFmpeg's frames of one video stream, in presentation order: the same on every machine and decoder.

`Pictures.__iter__` decides who decodes: a GPU if asked for, else the CPU on several threads; at the first damage, or
where the GPU refuses, the file is opened again and decoded on the CPU, at last on one thread. `_from_start` finds the
wanted start, by seeking or by decoding from the beginning. `_decode_all` feeds packets to the decoder.
"""

from __future__ import annotations

import os
import re
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any

import av
import av.error
import av.logging
from av.codec.context import Flags

from videosr.errors import InputError
from videosr.frame import Array, PixelFormat
from videosr.media.avi import PictureTimes
from videosr.media.clock import clock_of
from videosr.media.cropping import Cropping
from videosr.media.decoders import host_decoder
from videosr.media.limits import check_size
from videosr.media.logs import captured
from videosr.media.nvdec import ON_DEVICE, DeviceReader, acceleration, cuda_reader, decoder_of, unfit, unreadable
from videosr.media.planes import PlaneReader
from videosr.media.sidedata import FrameSideData
from videosr.media.source import Disk, fraction, open_input, plausible_rate, video_stream
from videosr.media.stills import heif
from videosr.media.stills.jpegs import CODECS, STRICT, Concealing
from videosr.media.stills.numbered import Numbered
from videosr.media.tail import Tail

HELD_FRAMES = 8
HELD_BYTES = 64 * 2**20
_REFUSED = re.compile(r"Picture size (\d+)x(\d+)")  # libavutil/imgutils.c, av_image_check_size2


class Pictures:
    """The frames of a stream from a wanted start on. Iterate once.

    Args:
        path: of the file.
        max_pixels: larger pictures are refused.
        threads: decoder threads; 0 chooses by the machine. The frames do not depend on it.
        device: CUDA device that decodes, if it can; None: the CPU does.
        note: is told, by kind and text, what was repaired or done otherwise.

    Attributes:
        container: the open file; it changes when the file is opened again.
        clock: makes one time line of the file's timestamps.
        stream: the video stream of `container`.
        heif: the items of the file, if it is HEIF.
        numbered: the files, if each picture has its own.
        first_pts: time of the first frame wanted, in the stream's time base; None: the very first frame.
        lead: how many frames before that one are wanted too, as far as there are any.
        early: how many of those were given.
        bad_packets: number of packets that could not be decoded.
        concealed: number of damaged pictures that FFmpeg does not mark as such.
        cropping: crops pictures as the container says.
        side_data: reads the side data of pictures.
        coded_format: FFmpeg's name of the pixel format of the coded video.
        on_device: whether frames come from NVDEC and stay on the GPU.

    Raises:
        InputError: the file or stream cannot be used; also while iterating, if the disk fails.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        max_pixels: int,
        threads: int,
        device: int | None,
        note: Callable[[str, str], None],
    ) -> None:
        self.name = os.fspath(path)
        self.numbered = Numbered.of(path)
        self.first_pts: int | None = None
        self.lead = self.early = self.bad_packets = 0
        self._jpegs: Concealing | None = None
        self._max_pixels, self._note = max_pixels, note
        self._threads = threads or min(os.cpu_count() or 1, 8)
        self._host_reader = PlaneReader()
        self._device_reader: DeviceReader | None = None
        self.container = open_input(path, max_pixels)
        try:
            self.stream = video_stream(self.container, self.name)
            self._index = self.stream.index
            context = self.stream.codec_context
            self._context = host_decoder(self.stream)
            self.heif = heif.read(path)
            rides = self.heif.rides() if self.heif is not None else {}
            self.cropping, self.side_data = Cropping(context), FrameSideData(context, rides)
            self.coded_format, self._size = context.pix_fmt or "", (context.width, context.height)
            self.clock = clock_of(self.container)
        except BaseException:
            self.container.close()
            raise
        self._device = device
        self._refused = False  # the GPU does not decode this video
        self._failure = ""  # an error of the GPU's decoder that damaged data does not explain
        self._disk = Disk(path)
        self._sar: Fraction | None = None  # of the first frame
        self._sars: list[tuple[int, Fraction]] = []  # from which packet on; known on one thread only
        self._tail: Tail | None = None  # of several threads of the CPU

    def prepare(self) -> None:
        """Set the decoder up and keep the demuxer from reading what is not asked for.

        Raises:
            InputError: the stream's header is damaged.
        """
        if self._device is not None and self._device_reader is None:
            self._accelerate(self._device)
        self._configure()

    @property
    def on_device(self) -> bool:
        """See the class."""
        return self._device_reader is not None

    def format_of(self, picture: av.VideoFrame) -> str:
        """FFmpeg's name of a picture's format; of one on the GPU, that of the coded video."""
        name = picture.format.name
        return self.coded_format if name == ON_DEVICE else name

    def read(self, picture: av.VideoFrame, fmt: PixelFormat) -> tuple[Array, ...]:
        """A picture's planes, fresh arrays that nobody else holds, where the picture is."""
        if picture.format.name == ON_DEVICE and self._device_reader is not None:
            return self._device_reader.read(picture, fmt)
        return self._host_reader.read(picture, fmt)

    @property
    def concealed(self) -> int:
        """See the class."""
        return self._jpegs.count if self._jpegs is not None else 0

    def close(self) -> None:
        """Release the file."""
        self.clock.close()
        self.container.close()

    def _accelerate(self, device: int) -> None:
        """Open the file again for decoding on the GPU, or warn why that is not possible."""
        reason = unfit(self.stream)
        if self._context is not self.stream.codec_context:
            reason = "the video has an alpha plane"
        if not reason:
            try:
                found = acceleration(device)
            except InputError as exc:
                reason = str(exc)
        if reason:
            self._to_the_cpu(reason)
            return
        self._device_reader = cuda_reader(device)
        self._open(found)

    def _to_the_cpu(self, reason: str) -> None:
        self._device = self._device_reader = None
        self._refused = False
        self._note("device", f"decoded on the CPU: {reason}")

    def _open(self, hwaccel: Any = None) -> None:
        self.container.close()
        self.container = open_input(self.name, self._max_pixels, hwaccel)
        self.stream = video_stream(self.container, self.name, self._index)
        self._context = decoder_of(self.stream, hwaccel) if self.on_device else host_decoder(self.stream)

    def _configure(self) -> None:
        context = self._context
        context.thread_count = 1 if self.on_device else self._threads
        context.thread_type = "AUTO"
        context.flags |= Flags.unaligned  # else FFmpeg rounds what is cropped on the left
        if self._certain:
            context.flags |= Flags.copy_opaque  # frames have the number of their packet
        options = {"max_pixels": str(self._max_pixels)}
        self._jpegs = Concealing(context, options) if context.codec.name in CODECS else None
        context.options = options if self._jpegs is None else options | STRICT
        for other in self.container.streams:
            if other.index != self.stream.index:
                other.discard = av.stream.Discard.all
        try:
            context.open(strict=False)
        except (av.error.FFmpegError, ValueError) as exc:
            reason = getattr(exc, "strerror", None) or exc
            raise InputError(f"{self.name}: the video stream's header is damaged: {reason}") from exc

    def _reopen(self) -> None:
        self._open(acceleration(self._device) if self._device is not None else None)
        self._configure()

    def __iter__(self) -> Generator[av.VideoFrame]:
        """The frames.

        Decoders that work on several frames at once, and those in hardware, conceal damage differently. So at the first
        damage the rest is decoded again on one thread. B-frames shown before the damaged frame may have been predicted
        from it, so a run of frames is held back until it is clear that all is well. The same is done where the sample
        aspect ratio changes: PyAV tells that of the decoder, not of a frame, and only on one thread is it the packet's.
        """
        done = 0
        held: deque[av.VideoFrame] = deque()
        reason = ""
        for picture in self._from_start():
            damaged = picture.is_corrupt or self.bad_packets > 0
            if damaged:
                self._disk.check(0)
            if self.on_device:
                reason = self._not_from_the_gpu(picture)
            if reason or (not self._certain and (damaged or self._reshaped())):
                break
            held.append(picture)
            while len(held) > (0 if self._certain else _frames_to_hold(picture)):
                yield held.popleft()
                done += 1
        else:
            if self._refused:
                reason = self._why_refused()
            elif self._certain or not self.bad_packets:
                yield from held
                return
        held.clear()
        if not reason:
            self._threads = 1
        if self.on_device:
            self._to_the_cpu(reason or (f"NVDEC fails: {self._failure}" if self._failure else "the video is damaged"))
        self.bad_packets = 0
        self._reopen()
        # On one thread nothing is doubted any more. Otherwise the CPU's threads may meet damage in their turn.
        yield from islice(self._from_start() if self._certain else iter(self), done, None)

    @property
    def _certain(self) -> bool:
        """Whether the frames are final: one thread of the CPU conceals damage in the same way every time."""
        return self._threads == 1 and not self.on_device

    def _not_from_the_gpu(self, picture: av.VideoFrame) -> str:
        """Why this frame and all later ones have to be decoded on the CPU; "" if they do not."""
        if picture.format.name != ON_DEVICE:
            return self._why_refused()
        if (picture.width, picture.height) != self._size:
            # FFmpeg does not crop pictures on the GPU at the left and the top, and says of neither how much.
            return "the picture is cropped at the left or the top, or changes its size"
        return "the shape of its pixels changes" if self._reshaped() else unreadable(picture)

    def _why_refused(self) -> str:
        name = self._context.codec.name
        return f"this GPU's NVDEC does not take {name} of this size or profile, or its driver has no libnvcuvid"

    def _reshaped(self) -> bool:
        """Whether the decoder has met another sample aspect ratio than that of the first frame."""
        now = self._decoders_sar()
        self._sar = self._sar or now
        return now != self._sar

    def _decoders_sar(self) -> Fraction:
        return fraction(self._context.sample_aspect_ratio) or Fraction(1)

    def other_sar(self, picture: av.VideoFrame) -> Fraction | None:
        """A frame's sample aspect ratio as it is coded, if it is not that of the first frame.

        Args:
            picture: frames have to come in order.
        """
        number = picture.opaque
        if not self._certain or not isinstance(number, int):
            return None
        sar = next((sar for first, sar in reversed(self._sars) if first <= number), self._sar)
        self._sar = self._sar or sar
        return sar if sar != self._sar else None

    def _from_start(self) -> Iterator[av.VideoFrame]:
        """Frames from the wanted start on."""
        if self.first_pts is None:
            yield from self._decode_all()
            return
        assert self.stream.time_base is not None
        ahead = round(self.lead / 4 / self.stream.time_base)
        found = self._seek(self.first_pts - ahead)
        if found:
            source = self._decode_all()
            shown, earlier = self._reach_start(source)
            exact = self.lead == 0 and bool(shown) and shown[0].pts == self.first_pts
            found = earlier >= max(self.lead, 1) or exact
        if not found:
            # The index is missing or wrong, or the beginning is near: only reading from there is sure to find them all.
            self._reopen()
            source = self._dated(self._decode_all())
            shown, _ = self._reach_start(source)
        self.early = max(0, len(shown) - 1)
        yield from shown
        for picture in source:
            if picture.pts is None or picture.pts >= self.first_pts:
                yield picture

    def _seek(self, pts: int) -> bool:
        """Seek to that time or before it; False where FFmpeg cannot, as in video without a container."""
        try:
            self.clock.seek(self.container, self.stream, pts)
        except av.error.FFmpegError:
            return False
        return True

    def _dated(self, source: Iterator[av.VideoFrame]) -> Iterator[av.VideoFrame]:
        """Pictures from the beginning on, with timestamps made for those that have none (video without a container)."""
        rate = plausible_rate(self.stream.average_rate)
        at, tick = 0, max(1, round(1 / (rate * self.stream.time_base))) if rate and self.stream.time_base else 1
        for picture in source:
            if picture.pts is None and picture.dts is None:
                self._note("pts", "frames without a timestamp: times filled in from their neighbours")
                picture.pts = at
            if picture.pts is not None:
                at = picture.pts + (picture.duration or tick)
            yield picture

    def _reach_start(self, source: Iterator[av.VideoFrame]) -> tuple[deque[av.VideoFrame], int]:
        """Up to `lead` pictures before the wanted start and the first one after it; and how many came before it."""
        assert self.first_pts is not None
        shown: deque[av.VideoFrame] = deque(maxlen=self.lead + 1)
        for earlier, picture in enumerate(source):
            shown.append(picture)
            if picture.pts is None or picture.pts >= self.first_pts:
                return shown, earlier
        return deque(), len(shown)

    def _decode_all(self) -> Iterator[av.VideoFrame]:
        """Every frame from where the container stands."""
        packets, times = self.clock.demux(self.container, self.stream), PictureTimes(self.container)
        reached = number = 0
        file: Path | None = None  # of a numbered picture
        self._sars.clear()
        self._tail = None if self._certain or self.on_device else Tail()
        while True:
            try:
                packet = next(packets, None)
            except av.error.FFmpegError as exc:
                if self.numbered is not None:
                    raise InputError(f"{file or self.name}: the next picture cannot be read: {exc.strerror}") from exc
                self._disk.check(0)
                self._note("read", f"reading stopped early: {exc.strerror}; the file is damaged or truncated")
                packet = None
            flushing = packet is None or packet.size == 0
            if packet is None or flushing:
                self._disk.check(reached)
            else:
                if packet.has_sidedata("encryption_info"):  # decoders would make what they can of noise
                    raise InputError(
                        f"{self.name}: the video is encrypted (DRM), and videosr has no key; decrypt it first"
                    )
                reached = max(reached, (packet.pos or 0) + packet.size)
                packet.opaque = number = number + 1
                if self.numbered is not None:
                    file = self.numbered.at(packet.pts or 0)
            try:
                pictures = self._decoded(None if flushing else packet)
                if flushing and self._tail is not None and self._tail.is_torn(self._context):
                    self.bad_packets += 1
                    return
                for picture in pictures:
                    times.correct(picture)
                    yield picture
            except av.error.EOFError:
                return
            except av.error.FFmpegError as exc:
                if self.on_device and isinstance(exc, av.error.NotImplementedError):
                    self._refused = True
                    return
                if self.on_device and not isinstance(exc, av.error.InvalidDataError):
                    self._failure = exc.strerror or str(exc)
                if file is not None and self._certain:  # else it may be one of those before, on another thread
                    kind = self._context.codec.canonical_name
                    raise InputError(
                        f"{file}: cannot be decoded as {kind}, which the first one is: {exc.strerror}; make or copy it "
                        "again"
                    ) from exc
                # FFmpeg could not use this packet at all; the next ones may be fine.
                self.bad_packets += 1
            if flushing:
                return

    def _decoded(self, packet: av.Packet[Any] | None) -> Iterable[av.VideoFrame]:
        """The frames that come of a packet, and perhaps of earlier ones."""
        if packet is not None:
            packet = self.side_data.expect(packet)
            if self._tail is not None:
                self._tail.put(packet)
        try:
            frames = self._context.decode(packet)
        except av.error.InvalidDataError:
            if self._jpegs is None or packet is None:
                raise
            frames = self._jpegs.decode(packet)
        if self._certain and packet is not None and isinstance(packet.opaque, int):
            sar = self._decoders_sar()
            if not self._sars or self._sars[-1][1] != sar:
                self._sars.append((packet.opaque, sar))
        if self._tail is not None:
            self._tail.gave(frames)
        return map(self.cropping.of, frames)


def check_refused(path: str | os.PathLike[str], index: int, most: int) -> None:
    """Say so if it was its size for which FFmpeg would not decode a video stream; it tells that in its log alone.

    Raises:
        InputError: it was.
    """
    try:
        with captured(av.logging.ERROR, local=False) as logs, open_input(path, most) as container:
            stream = video_stream(container, os.fspath(path), index)
            stream.codec_context.options = {"max_pixels": str(most)}
            for packet in container.demux(stream):
                stream.codec_context.decode(packet)
                break
    except av.error.FFmpegError:
        pass  # what it is about is in the log
    for _, _, message in logs:
        if (size := _REFUSED.search(message)) is not None:
            check_size(os.fspath(path), int(size[1]), int(size[2]), most)


def _frames_to_hold(picture: av.VideoFrame) -> int:
    """How many frames to hold back: as many B-frames as encoders put in a row, as far as memory allows."""
    bits = picture.format.padded_bits_per_pixel or 24  # a picture on the GPU says nothing of its own
    size = picture.width * picture.height * bits // 8
    return max(2, min(HELD_FRAMES, HELD_BYTES // size))

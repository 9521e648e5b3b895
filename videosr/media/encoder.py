"""Frames to segments: one encoder instance for each run of frames."""

from __future__ import annotations

import base64
import io
import os
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Self

import av
import av.error

from videosr.errors import OutputError
from videosr.frame import Frame, StreamInfo
from videosr.media.codecs import EncoderSettings, configure
from videosr.media.containers import holds_codec
from videosr.media.nvenc import gpu_context, gpu_picture, takes_gpu_frames
from videosr.media.planes import to_av_frame
from videosr.media.riders import Riders, SideData
from videosr.media.segments import EncodedPacket, SegmentHeader, SegmentWriter


def library_versions() -> str:
    """The build whose encoders' bits these are: PyAV and the libavcodec in it."""
    return f"PyAV {av.__version__}, libavcodec {'.'.join(map(str, av.library_versions['libavcodec']))}"


class SegmentEncoder:
    """Encodes one run of frames into one segment file.

    Used as a context manager it removes the unfinished file if it is left by an exception.

    Args:
        path: the segment file; it appears when `finish` has succeeded.
        settings: resolved by `codecs.resolve`.
        info: of the coded stream, from `codecs.output_info`.
        riders: which side data of frames is put into their pictures; none by default.

    Raises:
        OutputError: the encoder cannot be opened or the file cannot be written.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        settings: EncoderSettings,
        info: StreamInfo,
        riders: Riders | None = None,
    ) -> None:
        self.settings = settings
        self._riders = riders
        self.info = info
        self._durations: dict[int, int] = {}
        self._riding: dict[int, SideData] = {}
        self._last_pts: int | None = None
        self._on_gpu = False
        try:
            self._context, header = open_encoder(settings, info)
        except (av.error.FFmpegError, ValueError) as exc:
            raise OutputError(f"{settings.codec}: cannot be opened: {exc}") from exc
        self._extradata = self._context.extradata
        self._writer = SegmentWriter(Path(path), header)

    @property
    def frames(self) -> int:
        """Frames given so far."""
        return self._writer.count + len(self._durations)

    def encode(self, frame: Frame) -> None:
        """Encode the next frame.

        Args:
            frame: host planes of `info.format`, size and time base; pts greater than the one before.

        Raises:
            ValueError: the frame does not belong to this stream.
            OutputError: the encoder failed or the file cannot be written.
        """
        info = self.info
        if frame.format != info.format or (frame.width, frame.height) != (info.width, info.height):
            raise ValueError(
                f"frame is {frame.width}x{frame.height} {frame.format.name}, "
                f"the stream is {info.width}x{info.height} {info.format.name}"
            )
        if frame.time_base != info.time_base:
            raise ValueError(f"frame has time base {frame.time_base}, the stream has {info.time_base}")
        if self._last_pts is not None and frame.pts <= self._last_pts:
            raise ValueError(f"frame has pts {frame.pts} after {self._last_pts}")
        self._last_pts = frame.pts
        self._durations[frame.pts] = frame.duration
        if self._riders is not None and (riding := self._riders.of(frame.side_data)):
            self._riding[frame.pts] = riding
        picture = self._picture(frame)
        picture.pts = frame.pts
        picture.duration = frame.duration
        picture.time_base = info.time_base
        picture.colorspace = int(info.color.matrix)
        picture.color_range = int(info.color.range)
        picture.color_primaries = info.color.primaries
        picture.color_trc = info.color.transfer
        picture.chroma_location = int(info.color.siting)
        self._take(picture)

    def _picture(self, frame: Frame) -> av.VideoFrame:
        """The frame for the encoder; on the GPU, if it lies there and the encoder is there too."""
        if frame.on_gpu and self.frames == 1 and takes_gpu_frames(self.settings, self.info):
            # The encoder that stood ready for pictures of the host gave the header, and is not wanted any more.
            self._context, self._on_gpu = gpu_context(self.settings, self.info), True
        if frame.on_gpu and self._on_gpu:
            try:
                return gpu_picture(frame.planes, frame.format)
            except av.error.FFmpegError as exc:
                raise OutputError(f"{self.settings.codec}: cannot use the GPU's memory: {exc.strerror}") from exc
        return to_av_frame(frame.planes, frame.format)

    def _take(self, picture: av.VideoFrame | None) -> None:
        try:
            packets = self._context.encode(picture)
        except av.error.FFmpegError as exc:
            raise OutputError(f"{self.settings.codec}: encoding failed: {exc.strerror}") from exc
        if self._on_gpu and self._context.extradata != self._extradata:
            raise OutputError(f"{self.settings.codec}: its header is another one with pictures on the GPU")
        for packet in packets:
            if packet.pts is None or packet.pts not in self._durations:
                raise OutputError(f"{self.settings.codec}: gave back a picture with an unknown time {packet.pts}")
            if self._writer.count == 0 and not packet.is_keyframe:
                raise OutputError(f"{self.settings.codec}: began a segment without a keyframe")
            duration = self._durations.pop(packet.pts)
            data = bytes(packet)
            if self._riders is not None and (riding := self._riding.pop(packet.pts, ())):
                data = self._riders.put(data, riding)
            self._writer.add(EncodedPacket(packet.pts, duration, packet.is_keyframe, data))

    def finish(self) -> None:
        """Encode what is pending and give the file its name.

        Raises:
            OutputError: the encoder lost a frame, or the file cannot be written.
        """
        if self._last_pts is not None:
            self._take(None)
        del self._context  # its memory is needed for the next segment's encoder
        if self._durations:
            raise OutputError(f"{self.settings.codec}: lost {len(self._durations)} frames")
        self._writer.finish()

    def abort(self) -> None:
        """Remove the unfinished file."""
        self._writer.abort()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is not None:
            self.abort()


def open_encoder(settings: EncoderSettings, info: StreamInfo) -> tuple[av.VideoCodecContext, SegmentHeader]:
    """A fresh encoder, and what a muxer must know of the stream it will make.

    Raises:
        av.error.FFmpegError: the encoder refuses.
    """
    template = io.BytesIO()
    kind = "matroska" if holds_codec("matroska", settings.codec) else "mov"  # of DNxHR
    with av.open(template, "w", format=kind, container_options={"fflags": "+bitexact"}) as out:
        stream = out.add_stream(settings.codec, rate=info.rate)
        context = stream.codec_context
        if not isinstance(context, av.VideoCodecContext):
            raise ValueError("is not a video encoder")
        configure(context, settings, info)
        out.start_encoding()
        extradata = context.extradata or b""
        # Readers look for a cluster before they believe a Matroska file, so it gets one with a packet of nothing. Of
        # VP9 the muxer holds back what is not to be shown, hence "show an existing frame".
        blank = av.Packet(b"\x88" if context.codec.canonical_name == "vp9" else b"\0")
        blank.stream = stream
        blank.pts = blank.dts = 0
        blank.time_base = Fraction(1, 1000)
        blank.is_keyframe = True
        out.mux(blank)
    rate = info.rate or Fraction(0)
    color = info.color
    header = SegmentHeader(
        codec=settings.codec,
        width=info.width,
        height=info.height,
        pix_fmt=info.format.name,
        time_base=(info.time_base.numerator, info.time_base.denominator),
        rate=(rate.numerator, rate.denominator),
        sar=(info.sar.numerator, info.sar.denominator),
        color=(int(color.matrix), int(color.range), color.primaries, color.transfer, int(color.siting)),
        extradata=base64.b64encode(extradata).decode(),
        template=base64.b64encode(template.getvalue()).decode(),
    )
    return context, header

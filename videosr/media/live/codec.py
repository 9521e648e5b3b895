"""Encoding for live use: a picture in, its packet out at once; audio copied, or converted where it has to be."""

from __future__ import annotations

import io
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

import av
import av.error
from av.audio.stream import AudioStream
from av.codec.context import Flags as CodecFlags
from av.video.frame import PictureType

from videosr.errors import OutputError
from videosr.frame import Frame, StreamInfo
from videosr.media.audio_format import AudioTarget
from videosr.media.captions import caption_messages
from videosr.media.planes import to_av_frame
from videosr.media.resample import Resampler
from videosr.media.user_data import embed

if TYPE_CHECKING:
    from av.stream import Stream

    type AvPacket = av.Packet[Stream]

TIME_BASE = Fraction(1, 90_000)
"""Of all live packets: MPEG-TS's."""
COPIED = {"aac": "aac", "mp3": "libmp3lame", "mp2": "mp2"}
"""Audio codecs that are copied where every muxer takes them, and their encoders; all others become AAC."""
BITS_PER_CHANNEL = 80_000
HELD_CAPTIONS = 600
"""Frames whose captions wait for a frame that is shown; of more the oldest are lost."""
UNKNOWN = 48_000, av.AudioLayout("stereo")
"""Rate and layout of sound that has not begun when the stream does."""


@dataclass(frozen=True, slots=True)
class Coded:
    """A coded packet, ready for any muxer.

    Attributes:
        video: of the video stream, otherwise of the audio.
        data: payload.
        pts: in 1/90000 s.
        duration: in 1/90000 s, 0 where unknown.
        key: decoding can begin here.
        arrival: monotonic seconds at which the source packet was demuxed.
    """

    video: bool
    data: bytes
    pts: int
    duration: int
    key: bool
    arrival: float


@dataclass(frozen=True, kw_only=True, slots=True)
class VideoSettings:
    """How live video is encoded (x264).

    Attributes:
        preset: x264's.
        crf: constant quality.
        bitrate: bits a second; instead of `crf`, as a limit that holds within a second.
        keyframes: seconds between keyframes.
        threads: of the encoder.
    """

    preset: str = "superfast"
    crf: float = 21.0
    bitrate: int | None = None
    keyframes: float = 1.0
    threads: int = 2


class Template:
    """Codec parameters for muxers, as streams of a container that is never written to.

    Muxers come and go (reconnections); input containers do as well, and their streams with them.
    """

    def __init__(self) -> None:
        self._container = av.open(io.BytesIO(), "w", format="nut")
        self.video: Stream | None = None
        self.audio: Stream | None = None

    def add_encoder(self, codec: str, rate: Fraction | int, options: dict[str, str]) -> Stream:
        """A stream with an encoder to configure before `settle`."""
        return self._container.add_stream(codec, rate=rate, options=options)

    def add_copy(self, source: AudioStream) -> AudioStream:
        """A stream with a source's parameters."""
        made = self._container.add_stream_from_template(source, opaque=True)
        context, known = made.codec_context, source.codec_context
        if not context.sample_rate:  # learnt from its first packets, see `rehearsal.describe`
            context.sample_rate, context.layout = known.sample_rate, known.layout
        return made

    def settle(self) -> None:
        """Open the encoders. Raises OutputError."""
        if not len(self._container.streams):
            return
        try:
            self._container.start_encoding()
        except (av.error.FFmpegError, ValueError) as exc:
            raise OutputError(f"the live encoder cannot be opened: {getattr(exc, 'strerror', None) or exc}") from exc


class LiveEncoder:
    """x264 without look-ahead or B-frames: each frame's packet comes at once.

    Args:
        info: of the frames, 8-bit 4:2:0.
        settings: how.
        template: gets the video stream; `settle` it before the first frame.
    """

    def __init__(self, info: StreamInfo, settings: VideoSettings, template: Template) -> None:
        options = {
            "preset": settings.preset,
            "tune": "zerolatency",
            "forced-idr": "1",
            "threads": str(settings.threads),
            # Keyframes come by time, not by count. Headers both outside the stream and before each keyframe: some
            # containers want the one, clients who join late need the other.
            "x264-params": "keyint=infinite:scenecut=0:repeat-headers=1",
        }
        if settings.bitrate:
            rate = str(settings.bitrate)
            options |= {"b": rate, "maxrate": rate, "bufsize": rate}
        else:
            options["crf"] = f"{settings.crf:g}"
        stream = template.add_encoder("libx264", info.rate or 25, options)
        assert isinstance(stream, av.video.stream.VideoStream)
        context = stream.codec_context
        context.width, context.height, context.pix_fmt = info.width, info.height, info.format.name
        context.time_base = stream.time_base = TIME_BASE
        context.sample_aspect_ratio = info.sar
        color = info.color
        context.colorspace, context.color_range = int(color.matrix), int(color.range)
        context.color_primaries, context.color_trc = color.primaries, color.transfer
        context.chroma_sample_location = int(color.siting)
        context.flags |= CodecFlags.global_header
        template.video = stream
        self._context = context
        self._distance = round(settings.keyframes / TIME_BASE)
        self._key: int | None = None
        self._captions: deque[tuple[int, bytes]] = deque(maxlen=HELD_CAPTIONS)

    def caption(self, pts: int, triplets: bytes) -> None:
        """Captions (see `captions`) for the first frame that is not before `pts`; any one thread may call this."""
        self._captions.append((pts, triplets))

    def encode(self, frame: Frame, arrival: float, *, key: bool = False) -> list[Coded]:
        """A frame's packet.

        Args:
            frame: of the stream's size and format, pts in 1/90000 s, later than the one before.
            arrival: see `Coded`.
            key: make it a keyframe.

        Raises:
            OutputError: the encoder failed.
        """
        picture = to_av_frame(frame.planes, frame.format)
        picture.pts, picture.time_base = frame.pts, TIME_BASE
        if key or self._key is None or frame.pts - self._key >= self._distance:
            picture.pict_type = PictureType.I
            self._key = frame.pts
        try:
            packets = self._context.encode(picture)
        except av.error.FFmpegError as exc:
            raise OutputError(f"libx264: encoding failed: {exc.strerror}") from exc
        triplets = b""
        while self._captions and self._captions[0][0] <= frame.pts:
            triplets += self._captions.popleft()[1]
        messages = caption_messages(triplets)
        return [
            Coded(True, embed(bytes(packet), messages, "h264"), packet.pts, frame.duration, packet.is_keyframe, arrival)
            for packet in packets
            if packet.pts is not None
        ]


class LiveAudio:
    """The audio of a stream that may be interrupted: always of one codec, rate and layout.

    Args:
        source: the audio stream of the first connection.
        template: gets the audio stream.
        muxers: FFmpeg's names of those that it goes to, besides MPEG-TS and NUT, which take all that is copied.

    Raises:
        ValueError: it has to be converted, and cannot be.
    """

    def __init__(self, source: AudioStream, template: Template, muxers: Iterable[str]) -> None:
        context = source.codec_context
        codec = context.codec.canonical_name
        begun = bool(context.sample_rate)
        self.copied = begun and codec in COPIED and all(_takes(muxer, source) for muxer in muxers)
        """Whether packets are copied; False while they are converted."""
        self._encoder_name = COPIED[codec] if self.copied else "aac"
        # Said to have no headers outside, packets have to bring their own; muxers add none to those of the encoder.
        self._adts = self.copied and _is_adts(source)
        self.rate, self._layout = context.sample_rate, context.layout
        if not begun:
            self.rate, self._layout = UNKNOWN
        elif not self.copied:
            target = AudioTarget.nearest(self._encoder_name, context)
            self.rate, self._layout = target.rate, target.layout
        self._encoder: av.AudioCodecContext | None = None
        self._kind = _kind(source)
        if self.copied:
            template.audio = template.add_copy(source)
        else:
            stream = template.add_encoder(self._encoder_name, self.rate, {})
            assert isinstance(stream, AudioStream)
            self._configure(stream.codec_context)
            stream.time_base = Fraction(1, self.rate)
            template.audio = stream
            self._encoder = stream.codec_context
        self._resampler: Resampler | None = None
        self.attach(source)

    def _configure(self, encoder: av.AudioCodecContext) -> None:
        encoder.layout = self._layout
        encoder.sample_rate = self.rate
        encoder.time_base = Fraction(1, self.rate)
        encoder.bit_rate = BITS_PER_CHANNEL * self._layout.nb_channels
        encoder.flags |= CodecFlags.global_header

    def attach(self, source: AudioStream) -> None:
        """Take packets of this stream from now on; they are converted if they are not what they were at first."""
        self._source = source.codec_context
        self.copied = (
            self._encoder_name == COPIED.get(self._source.codec.canonical_name) and _kind(source) == self._kind
        )
        self._resampler = None
        if not self.copied and self._encoder is None:
            encoder = av.CodecContext.create(self._encoder_name, "w")
            assert isinstance(encoder, av.AudioCodecContext)
            encoder.format = av.Codec(self._encoder_name, "w").audio_formats[0]  # type: ignore[index]
            self._configure(encoder)
            encoder.open()
            self._encoder = encoder

    def feed(self, packet: AvPacket, pts: int, arrival: float) -> list[Coded]:
        """What follows from one more packet of the source.

        Args:
            packet: of the attached stream.
            pts: its time on the output timeline, in 1/90000 s.
            arrival: see `Coded`.
        """
        if self.copied:
            duration = round((packet.duration or 0) * Fraction(packet.time_base.num, packet.time_base.den) / TIME_BASE)
            return [Coded(False, bytes(packet), pts, duration, True, arrival)]
        assert self._encoder is not None
        if self._resampler is None:
            self._resampler = Resampler(self._encoder)
        ticks = Fraction(1, self.rate) / TIME_BASE
        made: list[Coded] = []
        try:
            for frame in self._source.decode(packet):
                frame.pts, frame.time_base = pts, TIME_BASE
                pts += round(Fraction(frame.samples, frame.sample_rate) / TIME_BASE)
                for piece in self._resampler.take(frame):
                    for coded in self._encoder.encode(piece):
                        time = round((coded.pts or 0) * ticks)
                        data = bytes(coded)
                        if self._adts:
                            data = adts_header(len(data), self.rate, self._layout.nb_channels) + data
                        made.append(Coded(False, data, time, round(piece.samples * ticks), True, arrival))
        except av.error.FFmpegError:
            pass  # damaged: what comes next is whole
        return made


def _takes(muxer: str, source: AudioStream) -> bool:
    """Whether a muxer has room for a codec: FLV has none for MP2, RTP none for AAC without its headers (RFC 3640)."""
    if muxer == "rtsp" and _is_adts(source):
        return False
    with av.open(io.BytesIO(), "w", format=muxer) as container:
        try:
            container.add_stream_from_template(source, opaque=True)
        except ValueError:
            return False
    return True


def _is_adts(source: AudioStream) -> bool:
    """Whether each packet brings its own headers, as AAC's do in MPEG-TS."""
    return source.codec_context.codec.canonical_name == "aac" and not source.codec_context.extradata


ADTS_RATES = (96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000, 7350)
"""By their index (ISO/IEC 14496-3, 1.6.3.4)."""


def adts_header(size: int, rate: int, channels: int) -> bytes:
    """What goes before a packet of AAC LC that has nothing else to say what it is (ISO/IEC 14496-3, 1.A.2.2).

    Args:
        size: of the packet, in bytes.
        rate: samples a second, one of `ADTS_RATES`.
        channels: 1 to 6, or 8.
    """
    config = {8: 7}.get(channels, channels)
    length = size + 7
    low_complexity = 1
    return bytes(
        (
            0xFF,
            0xF1,  # no checksum
            low_complexity << 6 | ADTS_RATES.index(rate) << 2 | config >> 2,
            (config & 3) << 6 | length >> 11,
            length >> 3 & 0xFF,
            (length & 7) << 5 | 0x1F,
            0xFC,
        )
    )


def _kind(source: AudioStream) -> tuple[object, ...]:
    context = source.codec_context
    return context.codec.canonical_name, context.sample_rate, context.layout.name, bytes(context.extradata or b"")

"""The upscaled video as a track of the output: its segments joined in order, and how the container describes them."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction

import av
from av.container import OutputContainer
from av.stream import Stream
from av.video.stream import VideoStream

from videosr.media import dolby, immersive
from videosr.media.matroska.elements import display_size
from videosr.media.segments import Segment, decode_times
from videosr.media.source import coded_display_matrix, plausible_rate
from videosr.media.template import saying

CODES_ASPECT = frozenset({"libx264", "libx265", "ffv1", "mpeg4", "mpeg2video"})
"""Encoders that write the sample aspect ratio into the video itself."""
LONGEST = 2**31 - 1
"""Ticks of the longest duration that MP4 takes; only damaged files state more."""


class VideoTrack:
    """Segments that follow one another.

    Attributes:
        header: what all of them say of the video.
        begin: when the first picture is shown, in seconds.
        end: when the last one is over, in seconds.

    Args:
        segments: with equal headers, in presentation order, at least one.
        container: FFmpeg's name of the muxer.
        says: side data that the file is to say of the video (see `muxer.mux`).

    Raises:
        InputError: a segment is damaged.
    """

    def __init__(self, segments: Sequence[Segment], container: str, says: Mapping[str, bytes]) -> None:
        self.header = segments[0].header
        self._segments, self._container, self._says = segments, container, says
        self._tick = self.header.tick
        self._times = [time for segment in segments for time in segment.times()]  # in decoding order
        self.begin = min(pts for pts, _ in self._times) * self._tick
        self.end = max(pts + duration for pts, duration in self._times) * self._tick

    def __len__(self) -> int:
        """Number of pictures."""
        return len(self._times)

    def add_to(self, out: OutputContainer, source: Stream, matrix: Sequence[int] | None, *, rated: bool) -> Stream:
        """The track in a file that is being made.

        Args:
            out: the file.
            source: the stream that was upscaled.
            matrix: display matrix; None: the source's, if any.
            rated: the source states a frame rate; numbered pictures do not.
        """
        assert isinstance(source, VideoStream)
        header = self.header
        with av.open(io.BytesIO(self._template())) as template:
            model = template.streams.video[0]
            stream = out.add_stream_from_template(model, opaque=True)
            tag = model.codec_context.codec_tag
        context = stream.codec_context
        if context.codec.canonical_name == "prores":
            context.codec_tag = tag  # by which editors tell 4444 and Proxy from HQ
        context.extradata = header.extradata_bytes or None
        context.pix_fmt = header.pix_fmt
        context.sample_aspect_ratio = Fraction(*header.sar)
        (
            context.colorspace,
            context.color_range,
            context.color_primaries,
            context.color_trc,
            context.chroma_sample_location,
        ) = header.color
        context.framerate = self._rate(plausible_rate(source.average_rate if rated else Fraction(*header.rate))) or 0
        stream.time_base = header.tick
        if self._container in ("mp4", "mov") and context.codec.canonical_name == "hevc":
            context.codec_tag = "hvc1"  # the form of HEVC in MP4 that Apple's players accept
        matrix = matrix or coded_display_matrix(source.codec_context)
        if matrix is not None:
            stream.set_display_matrix(matrix)
        return stream

    def _template(self) -> bytes:
        """The header that the stream is made after."""
        header = self.header
        made = b""
        if dolby.CONFIGURATION in self._says:
            rate = Fraction(*header.rate) if all(header.rate) else None
            made = dolby.mapping(self._says[dolby.CONFIGURATION], header.width, header.height, rate)
        return saying(header.template_bytes, video=immersive.video_elements(self._says), track=made)

    def _rate(self, stated: Fraction | None) -> Fraction | None:
        """The frame rate to state: what is stated if frames last as long as it says, else what they last."""
        usual, _ = Counter(duration for _, duration in self._times).most_common(1)[0]
        if not usual or (stated is not None and abs(1 / stated - usual * self._tick) <= self._tick):
            return stated
        return plausible_rate(1 / (usual * self._tick))

    def display_size(self) -> tuple[int, int] | None:
        """The size that Matroska is to show the pictures in, which PyAV cannot give to the muxer; None: their own."""
        sar = Fraction(*self.header.sar)
        if sar == 1:
            return None
        across, down = immersive.views(self._says)  # the size is that of one view (RFC 9559, 5.1.4.1.28.3)
        width, height = self.header.width // across, self.header.height // down
        size = display_size(width, height, sar)
        if self.header.codec in CODES_ASPECT and Fraction(*size) != Fraction(width, height) * sar:
            return None  # the coded video says it better than whole pixels can
        return size

    def packets(self, stream: Stream, start: Fraction) -> Iterator[tuple[Fraction, av.Packet[Stream]]]:
        """The pictures in decoding order, each with the seconds at which it is decoded.

        Args:
            stream: the track.
            start: what is to become 0, in seconds.
        """
        order = [pts for pts, _ in self._times]
        step = max(1, self._times[0][1])
        decoded = decode_times(order, step)
        # MP4 and MOV have the sum of all durations, in decoding order, for the time at which the last picture ends.
        durations = [min(duration, LONGEST) for _, duration in self._times]
        end = max(map(sum, zip(order, durations, strict=True)))
        last = end - (order[0] - decoded[0]) - decoded[-1]
        if self._container in ("mp4", "mov") and last > 0:
            durations[-1] = last
        coded = zip(decoded, durations, strict=True)
        shift = round(start / self._tick)
        for segment in self._segments:
            for packet in segment.packets():
                made: av.Packet[Stream] = av.Packet(packet.data)
                made.stream = stream
                made.time_base = self._tick
                made.pts = packet.pts - shift
                dts, made.duration = next(coded)
                made.dts = dts - shift
                made.is_keyframe = packet.key
                yield made.dts * self._tick, made

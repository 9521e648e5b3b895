"""Which of FFmpeg's decoders decodes a stream."""

from __future__ import annotations

import av
from av.codec.hwaccel import HWAccel
from av.video.stream import VideoStream

_WITH_ALPHA = {"vp8": "libvpx", "vp9": "libvpx-vp9"}


def host_decoder(stream: VideoStream) -> av.VideoCodecContext:
    """What decodes a stream on the CPU: its own context, or libvpx's where FFmpeg's decoder would leave alpha out.

    WebM has the alpha plane of VP8 and VP9 beside their packets (BlockAdditional), which libvpx's wrapper alone reads.
    """
    own = stream.codec_context
    name = _WITH_ALPHA.get(own.codec.canonical_name, "")
    if stream.metadata.get("alpha_mode") != "1" or name not in av.codecs_available:
        return own
    return other_decoder(own, name)


def other_decoder(
    context: av.VideoCodecContext, codec: av.Codec | str, hwaccel: HWAccel | None = None
) -> av.VideoCodecContext:
    """A decoder of the same video by another of FFmpeg's codecs, not yet open."""
    made = av.CodecContext.create(codec, "r", hwaccel=hwaccel)
    if not isinstance(made, av.VideoCodecContext):
        raise TypeError(f"{codec if isinstance(codec, str) else codec.name} is no video decoder")
    made.extradata, made.width, made.height = context.extradata, context.width, context.height
    return made

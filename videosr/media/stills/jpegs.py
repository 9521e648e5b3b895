"""JPEG pictures that are cut short or spoiled: FFmpeg fills what is missing and marks nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import av
import av.error

CODECS = frozenset({"mjpeg", "mjpegb", "jpegls", "ljpeg"})
"""FFmpeg's decoders (libavcodec/mjpegdec.c) that go on behind a damaged scan as if it were whole."""
STRICT = {"err_detect": "explode"}
"""Options with which they refuse such a picture; only so it can be told from one that is whole."""


class Concealing:
    """Decodes pictures that a decoder with the options `STRICT` has refused, and counts them.

    Args:
        context: of the stream.
        options: of decoders.

    Attributes:
        count: of pictures.
    """

    def __init__(self, context: av.VideoCodecContext, options: Mapping[str, str]) -> None:
        self._context, self._options, self.count = context, dict(options), 0
        self._lenient: av.VideoCodecContext | None = None

    def decode(self, packet: av.Packet[Any]) -> list[av.VideoFrame]:
        """The picture of a packet, as far as it goes.

        Raises:
            InvalidDataError: nothing of it can be decoded.
        """
        if self._lenient is None:
            made = av.CodecContext.create(self._context.codec.name, "r")
            assert isinstance(made, av.VideoCodecContext)
            made.extradata, made.codec_tag = self._context.extradata, self._context.codec_tag
            made.options = self._options
            self._lenient = made
        pictures = self._lenient.decode(packet)
        self.count += len(pictures)
        return pictures

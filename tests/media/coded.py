"""Coded pictures, and what FFmpeg's decoders find in them after something was put there."""

from __future__ import annotations

from fractions import Fraction
from functools import cache

import av
import numpy as np

ENCODERS = {
    "libx264": {"preset": "veryfast"},
    "libx265": {"preset": "veryfast", "x265-params": "log-level=none"},
    "libsvtav1": {"preset": "10"},
}


@cache
def coded(encoder):
    """(codec, packets, extradata) of a moving picture whose packets do not come in the order of its frames."""
    context = av.CodecContext.create(encoder, "w")
    context.width, context.height, context.pix_fmt, context.framerate = 128, 96, "yuv420p", 25
    context.time_base, context.options = Fraction(1, 25), ENCODERS[encoder]
    y, x = np.mgrid[0:144, 0:128]
    packets = []
    for i in range(24):
        frame = av.VideoFrame.from_ndarray((128 + 90 * np.sin(x / 9 + i / 2 + y / 20)).astype(np.uint8), "yuv420p")
        frame.pts = i
        packets += context.encode(frame)
    packets += context.encode(None)
    return context.codec.canonical_name, tuple((p.pts, bytes(p)) for p in packets), bytes(context.extradata or b"")


def found(kind, codec, packets, extradata):
    """A kind of side data of each picture by its pts, and the pictures' samples."""
    context = av.CodecContext.create({"av1": "libdav1d"}.get(codec, codec), "r")
    if extradata:
        context.extradata = extradata
    frames = []
    for pts, data in packets:
        packet = av.Packet(data)
        packet.pts = pts
        frames += context.decode(packet)
    frames += context.decode(None)
    return (
        {f.pts: {k.name: bytes(v) for k, v in f.side_data.items()}.get(kind, b"") for f in frames},
        [f.to_ndarray() for f in frames],
    )

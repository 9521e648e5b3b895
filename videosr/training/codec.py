"""Real compression of clips in memory: libx264, libx265 and JPEG as FFmpeg has them, encoded and decoded again."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any, Literal

import av
import numpy as np
from numpy.typing import NDArray

from videosr.errors import InputError

type Planes = tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.uint8]]
"""Y, Cb and Cr of one 4:2:0 picture, chroma of half the size, rounded up."""

_ENCODERS = {"h264": "libx264", "hevc": "libx265"}
_QUIET = "log-level=none:pools=none:frame-threads=1"  # one thread: the same bits on every machine
_STEP, _LEAST = 64, 128  # libx265 writes beyond its buffers where a picture is less than two coding tree units wide


def compress(clip: Sequence[Planes], codec: Literal["h264", "hevc"], crf: float, preset: str) -> list[Planes]:
    """A clip as it comes back from an encoder and its decoder.

    Args:
        clip: consecutive frames of one size, 8 bits.
        codec: the encoder is libx264 or libx265.
        crf: its constant rate factor, 0..51.
        preset: "ultrafast" to "veryslow".

    Raises:
        InputError: this FFmpeg has no such encoder, or it refuses the settings.
    """
    options = {"crf": f"{crf:g}", "preset": preset}
    if codec == "hevc":
        options["x265-params"] = _QUIET
    return _round_trip(clip, _ENCODERS[codec], codec, options, _STEP, _LEAST)


def compress_jpeg(picture: Planes, quantiser: float) -> Planes:
    """A picture as it comes back from FFmpeg's JPEG coder.

    Args:
        picture: 8 bits, full range.
        quantiser: FFmpeg's qscale, 2 (best) to 31; rounded.

    Raises:
        InputError: this FFmpeg has no JPEG.
    """
    scale = str(round(quantiser))
    return _round_trip([picture], "mjpeg", "mjpeg", {"qmin": scale, "qmax": scale, "strict": "unofficial"}, 2, 2)[0]


def _round_trip(
    clip: Sequence[Planes], encoder: str, decoder: str, options: dict[str, str], step: int, least: int
) -> list[Planes]:
    """Through the two codecs, without a container; edges are repeated up to multiples of `step`, `least` or more."""
    height, width = clip[0][0].shape
    rows, columns = (max(least, -(-size // step) * step) for size in (height, width))
    try:
        writer: Any = av.CodecContext.create(encoder, "w")
        reader: Any = av.CodecContext.create(decoder, "r")
        writer.width, writer.height, writer.pix_fmt = columns, rows, "yuv420p"
        writer.time_base, writer.options = Fraction(1, 25), options
        writer.thread_count = reader.thread_count = 1
        packets = [
            packet for i, planes in enumerate(clip) for packet in writer.encode(_frame(planes, rows, columns, i))
        ]
        packets += writer.encode(None)
        frames = [frame for packet in [*packets, None] for frame in reader.decode(packet)]
    except (av.FFmpegError, ValueError) as exc:
        raise InputError(f"{encoder} with {options}: does not compress pictures of {columns} x {rows}: {exc}") from exc
    if len(frames) != len(clip):
        raise InputError(f"{encoder} with {options}: {len(clip)} pictures became {len(frames)}")
    return [_planes(frame.to_ndarray(), rows, height, width) for frame in frames]


def _frame(planes: Planes, rows: int, columns: int, pts: int) -> av.VideoFrame:
    """A PyAV frame of `rows` x `columns`."""
    sizes = ((rows, columns), (rows // 2, columns // 2), (rows // 2, columns // 2))
    flat = [
        np.pad(plane, ((0, r - plane.shape[0]), (0, c - plane.shape[1])), mode="edge").ravel()
        for plane, (r, c) in zip(planes, sizes, strict=True)
    ]
    frame = av.VideoFrame.from_ndarray(np.concatenate(flat).reshape(rows * 3 // 2, columns), format="yuv420p")
    frame.pts = pts
    return frame


def _planes(stacked: NDArray[np.uint8], rows: int, height: int, width: int) -> Planes:
    """The picture out of PyAV's array of 4:2:0: luma over the two halves of chroma."""
    columns = stacked.shape[1]
    luma, chroma = stacked[:rows], stacked[rows:].reshape(2, rows // 2, columns // 2)
    blue, red = chroma[:, : -(-height // 2), : -(-width // 2)]
    return luma[:height, :width].copy(), blue.copy(), red.copy()

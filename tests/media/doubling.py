"""The whole way of a file with the simplest upscaler there is: every sample twice in both directions."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

from videosr.frame import Frame, StreamInfo
from videosr.media.codecs import EncoderSettings, output_info, resolve
from videosr.media.containers import container_format
from videosr.media.decoder import Decoder
from videosr.media.encoder import SegmentEncoder
from videosr.media.muxer import mux
from videosr.media.probe import plan_streams

FAST = EncoderSettings(preset="ultrafast")
LOSSLESS = EncoderSettings(codec="ffv1")


def doubled(frame: Frame, info: StreamInfo) -> Frame:
    """The frame at twice its size, cut to what `info` says."""
    shapes = [info.format.plane_shape(i, info.height, info.width) for i in range(info.format.planes)]
    planes = (p.repeat(2, 0).repeat(2, 1)[:h, :w] for p, (h, w) in zip(frame.planes, shapes, strict=True))
    return frame.with_planes(tuple(planes))


def encode(
    source: Path,
    folder: Path,
    container: str,
    *,
    settings: EncoderSettings = FAST,
    length: int = 6,
    start: Fraction | None = None,
    frames: int | None = None,
) -> list[Path]:
    """Decode, double and encode a file into segments of `length` frames."""
    folder.mkdir(parents=True, exist_ok=True)
    segments: list[Path] = []
    with Decoder(source, start=start, frames=frames) as decoder:
        info = replace(decoder.info, width=decoder.info.width * 2, height=decoder.info.height * 2)
        resolved = resolve(settings, info, container, hdr=decoder.hdr)
        info = output_info(resolved, info)
        pending = list(decoder)
        for i in range(0, len(pending), length):
            segments.append(folder / f"{i:06d}.seg")
            with SegmentEncoder(segments[-1], resolved, info) as encoder:
                for frame in pending[i : i + length]:
                    encoder.encode(doubled(frame, info))
                encoder.finish()
    return segments


def double(
    source: Path,
    output: Path,
    *,
    settings: EncoderSettings = FAST,
    length: int = 6,
    start: Fraction | None = None,
    frames: int | None = None,
) -> list[str]:
    """Make `output` from `source`; the muxer's warnings."""
    container = container_format(output)
    folder = output.parent / f"{output.name}.segments"
    segments = encode(source, folder, container, settings=settings, length=length, start=start, frames=frames)
    trimmed = start is not None or frames is not None
    return mux(segments, source, output, plan_streams(source, container), trimmed=trimmed)

"""Cropping by the container: Matroska's PixelCrop elements and MP4's `clap` box, beside what a codec crops itself."""

from __future__ import annotations

import struct

import av

_EDGES = struct.Struct("<4I")


class Cropping:
    """Crops a stream's pictures as its container says (AV_PKT_DATA_FRAME_CROPPING), as FFmpeg's command does.

    Where chroma is subsampled, the left and top edges move outwards to the next chroma sample (FFmpeg's `crop` filter).

    Args:
        context: of the stream.

    Attributes:
        edges: samples to leave out at the top, bottom, left and right.
    """

    def __init__(self, context: av.VideoCodecContext) -> None:
        data = context.coded_side_data.get("frame_cropping", b"")
        self.edges = _EDGES.unpack(data) if len(data) == _EDGES.size else (0, 0, 0, 0)
        self._form: tuple[int, int, str] | None = None
        self._graph: av.filter.Graph | None = None

    def of(self, picture: av.VideoFrame) -> av.VideoFrame:
        """The part of a picture that is to be seen; shares its memory. All of it, where nothing would be left."""
        top, bottom, left, right = self.edges
        width, height = picture.width - left - right, picture.height - top - bottom
        if not any(self.edges) or min(width, height) < 1:
            return picture
        form = picture.width, picture.height, picture.format.name
        if self._graph is None or form != self._form:
            self._form, self._graph = form, av.filter.Graph()
            source = self._graph.add_buffer(
                width=picture.width, height=picture.height, format=picture.format, time_base=picture.time_base
            )
            crop = self._graph.add("crop", f"w={width}:h={height}:x={left}:y={top}")
            source.link_to(crop)
            crop.link_to(self._graph.add("buffersink"))
            self._graph.configure()
        self._graph.vpush(picture)
        return self._graph.vpull()

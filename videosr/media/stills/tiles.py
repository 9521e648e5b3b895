"""Pictures of HEIF files that are made of several, as telephones make them of tiles: put together for FFmpeg.

FFmpeg gives each coded picture as a stream of its own. Where the one to be shown is a grid of them
(ISO/IEC 23008-12, 6.6.2.3), is one of them cropped or turned (6.6.2.1), has its alpha plane in another, is not the one
that FFmpeg takes, or does not state its colour, which is then another than that of a film, its samples are put together
here and handed on as lossless video of one frame, so that whatever reads a file reads these.
"""

from __future__ import annotations

import io
import os
import struct
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from fractions import Fraction

import av
import av.error
import numpy as np
from av.video.reformatter import Interpolation, VideoReformatter
from av.video.stream import VideoStream

from videosr.color import from_rgb, to_rgb
from videosr.errors import InputError
from videosr.frame import ColorSpec, Frame, Matrix, PixelFormat, Range, Siting
from videosr.media.codecs import ffv1_slices
from videosr.media.colorinfo import resolve_color, tagged_color
from videosr.media.decoders import other_decoder
from videosr.media.limits import check_size
from videosr.media.orientation import Orientation
from videosr.media.planes import PlaneReader, planar_format, to_av_frame
from videosr.media.stills.heif import Heif, read

_TURNS = {
    b"irot": tuple(Orientation(*how) for how in ((False,) * 3, (True, False, True), (False, True, True), (True, True))),
    b"imir": (Orientation(inverted=True), Orientation(mirrored=True)),
}
"""What properties do to a picture: quarters anticlockwise (6.5.10); the axis of a reflection (6.5.12)."""
_PACKED = {"gbrp": "bgr0", "gbrap": "bgra"}
"""Formats that FFV1 takes in place of ours."""
_DEPTH = 8
"""Items that may stand between a picture and the coded ones that it is made of."""
_last: tuple[tuple[object, ...], tuple[int, int], bytes] = ((), (0, 0), b"")
"""Of which file the last picture was put together, its columns and rows, and it: commands open a file several times."""


def put_together(
    container: av.container.InputContainer, path: str | os.PathLike[str], max_pixels: int
) -> io.BytesIO | None:
    """The picture of a HEIF file as Matroska with one frame of FFV1; None where it is what FFmpeg makes of it.

    Args:
        container: the file as FFmpeg opened it.
        path: of the file.
        max_pixels: of the picture; a larger one is not made.

    Raises:
        InputError: the file is damaged, its picture too large, or made in a way that is not known.
    """
    heif = read(path)
    if heif is None:
        return None
    alpha, best = heif.alpha, container.streams.best("video")
    if alpha is None and isinstance(best, VideoStream) and best.id == heif.primary and _states_matrix(best):
        return None
    global _last
    file = heif.path.stat()
    key = (heif.path.absolute(), file.st_dev, file.st_ino, file.st_size, file.st_mtime_ns, file.st_ctime_ns)
    known, size, film = _last
    if known != key:
        maker = _Maker(container, heif, max_pixels)
        frame = maker.picture(heif.primary)
        film = _film(frame if alpha is None else _with_alpha(frame, maker.picture(alpha)))
        size = frame.width, frame.height
        _last = key, size, film
    check_size(os.fspath(path), *size, max_pixels)
    return io.BytesIO(film)


def _states_matrix(stream: VideoStream) -> bool:
    return stream.codec_context is None or stream.codec_context.colorspace != Matrix.UNSPECIFIED


class _Maker:
    """Makes pictures of items.

    Args:
        container: whose streams are the coded ones.
        heif: the items.
        max_pixels: of a picture.
    """

    def __init__(self, container: av.container.InputContainer, heif: Heif, max_pixels: int) -> None:
        self._heif, self._max_pixels, self._name = heif, max_pixels, os.fspath(heif.path)
        self._coded = {s.id: s.codec_context for s in container.streams.video if s.codec_context is not None}
        self._packets: dict[int, list[av.Packet[VideoStream]]] = {}
        try:
            for packet in container.demux(container.streams.video):
                if packet.size:
                    self._packets.setdefault(packet.stream.id, []).append(packet)
        except av.error.FFmpegError:
            pass  # what is missing is found missing

    def picture(self, number: int, depth: int = 0) -> Frame:
        """An item as it is to be shown.

        Raises:
            InputError: it cannot be made.
        """
        item = self._heif.items.get(number)
        parts = item.references.get(b"dimg", []) if item is not None else []
        if item is None or depth > _DEPTH:
            raise self._damaged(number)
        if number in self._coded:
            frame = self._decoded(number)
        elif item.kind == b"iden" and len(parts) == 1:
            frame = self.picture(parts[0], depth + 1)
        elif item.kind == b"grid":
            frame = self._grid(number, parts, depth + 1)
        else:
            kind = item.kind.decode("latin-1")
            raise InputError(
                f"{self._name}: its picture is of a kind ({kind!r}) that videosr cannot make; make a .png of it first, "
                "as heif-convert does"
            )
        return self._transformed(frame, item.properties, number)

    def _damaged(self, number: int) -> InputError:
        return InputError(f"{self._name}: part {number} of the picture is missing or damaged; copy the file again")

    def _decoded(self, number: int) -> Frame:
        own, before = self._coded[number], self._heif.items[number].references.get(b"pred", [])
        packets = [packet for n in (*before, number) for packet in self._packets.get(n, ())]
        context = other_decoder(own, own.codec)
        context.thread_count, context.options = 1, {"max_pixels": str(self._max_pixels)}
        try:
            made = [picture for packet in (*packets, None) for picture in context.decode(packet)]
        except av.error.FFmpegError as exc:
            raise self._damaged(number) from exc
        if not made or made[-1].is_corrupt:
            raise self._damaged(number)
        picture = made[-1]
        try:
            fmt = planar_format(picture.format.name)
        except InputError as exc:
            raise InputError(f"{self._name}: {exc}") from exc
        color = tagged_color(
            picture.colorspace, picture.color_range, picture.color_primaries, picture.color_trc, picture.chroma_location
        )
        if fmt.family == "yuv" and color.matrix == Matrix.UNSPECIFIED:
            color = replace(color, matrix=Matrix.SMPTE170M)  # ISO/IEC 23000-22 (MIAF), 7.3.6.4
        color, _ = resolve_color(color, fmt, picture.height, picture.width)
        planes = PlaneReader().read(picture, fmt)
        return Frame(planes=planes, format=fmt, color=color, pts=0, time_base=Fraction(1, 25), duration=1)

    def _grid(self, number: int, parts: Sequence[int], depth: int) -> Frame:
        data = self._heif.data(number)
        form = ">BBII" if data[1:2] == b"\1" else ">BBHH"
        try:
            rows, columns, width, height = struct.unpack_from(form, data, 2)
        except struct.error as exc:
            raise self._damaged(number) from exc
        rows, columns = rows + 1, columns + 1
        check_size(self._name, width, height, self._max_pixels)
        if len(parts) != rows * columns:
            raise self._damaged(number)
        first = self.picture(parts[0], depth)
        fmt, tile = first.format, (first.height, first.width)
        whole = [np.empty(fmt.plane_shape(i, height, width), fmt.dtype) for i in range(fmt.planes)]
        if rows * tile[0] < height or columns * tile[1] < width:
            raise self._damaged(number)

        def place(at: int) -> None:
            frame = self.picture(parts[at], depth) if at else first
            if (frame.format, frame.height, frame.width) != (fmt, *tile):
                raise self._damaged(parts[at])
            for plane, target in zip(frame.planes, whole, strict=True):
                top, left = at // columns * plane.shape[0], at % columns * plane.shape[1]
                room = target[top : top + plane.shape[0], left : left + plane.shape[1]]
                room[:] = plane[: room.shape[0], : room.shape[1]]

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(place, range(len(parts))))
        return first.with_planes(tuple(whole))

    def _transformed(self, frame: Frame, properties: Sequence[tuple[bytes, bytes]], number: int) -> Frame:
        """With the colour that the item states, cropped, turned and mirrored as it says, in that order (6.3)."""
        try:
            for kind, data in properties:
                if kind == b"colr" and data[:4] == b"nclx":
                    primaries, transfer, matrix, full = struct.unpack_from(">HHHB", data, 4)
                    range_ = Range.FULL if full & 0x80 else Range.LIMITED
                    color = tagged_color(matrix, range_, primaries, transfer, frame.color.siting)
                    if color.matrix == Matrix.UNSPECIFIED:
                        color = replace(color, matrix=frame.color.matrix)
                    frame = replace(frame, color=color)
                elif kind == b"clap":
                    frame = _cropped(frame, struct.unpack_from(">IIIIiIiI", data))
                elif (turns := _TURNS.get(kind)) is not None:
                    frame = turns[data[0] % len(turns)].frame(frame)
        except (struct.error, IndexError, ZeroDivisionError) as exc:
            raise self._damaged(number) from exc
        return frame


def _cropped(frame: Frame, box: tuple[int, ...]) -> Frame:
    """The part that a clean aperture (ISO/IEC 14496-12, 12.1.4) shows; its edges move to the next chroma sample."""
    width, height = box[0] // box[1], box[2] // box[3]
    left = (frame.width - width) / 2 + box[4] / box[5]
    top = (frame.height - height) / 2 + box[6] / box[7]
    fmt = frame.format
    across, down = int(left) >> fmt.log2_w << fmt.log2_w, int(top) >> fmt.log2_h << fmt.log2_h
    if width < 1 or height < 1 or across < 0 or down < 0:
        return frame
    planes = []
    for i, plane in enumerate(frame.planes):
        rows, columns = fmt.plane_shape(i, height, width)
        x, y = (across >> fmt.log2_w, down >> fmt.log2_h) if 0 < i < 3 else (across, down)
        planes.append(np.ascontiguousarray(plane[y : y + rows, x : x + columns]))
    return frame.with_planes(tuple(planes))


def _with_alpha(frame: Frame, alpha: Frame) -> Frame:
    """A picture with another one's luma, brought to its size, as alpha plane; as R'G'B' if no format has both."""
    fmt, color, planes = frame.format, frame.color, frame.planes
    grey, luma = PixelFormat.of("gray", alpha.format.bits), alpha.planes[:1]
    if (frame.height, frame.width) != (alpha.height, alpha.width):
        picture = to_av_frame(luma, grey)
        linear = Interpolation.BILINEAR
        picture = VideoReformatter().reformat(picture, width=frame.width, height=frame.height, interpolation=linear)
        luma = PlaneReader().read(picture, grey)
    try:
        target = PixelFormat.of(fmt.family, fmt.bits, fmt.log2_w, fmt.log2_h, alpha=True)
    except InputError:
        target = PixelFormat.of("rgb", 8 if fmt.bits == 8 else 16, alpha=True)
        color = replace(color, matrix=Matrix.RGB, range=Range.FULL, siting=Siting.UNSPECIFIED)
        planes = from_rgb(to_rgb(planes, fmt, frame.color), PixelFormat.of("rgb", target.bits), color, dither=False)
    full = ColorSpec(matrix=Matrix.BT709, range=Range.FULL)  # ISO/IEC 23000-22, 7.3.5.2, whatever is tagged
    opacity = to_rgb(luma, grey, full)
    codes = from_rgb(opacity, PixelFormat.of("gray", target.bits), full, dither=False)
    return replace(frame, planes=(*planes[:3], *codes), format=target, color=color)


def _film(frame: Frame) -> bytes:
    """The frame as a Matroska file."""
    made = io.BytesIO()
    fmt, color = frame.format, frame.color
    picture = to_av_frame(frame.planes, fmt)
    if (name := _PACKED.get(fmt.name)) is not None:
        picture = picture.reformat(format=name)  # only moves samples
    picture.pts, picture.time_base = 0, frame.time_base
    with av.open(made, "w", format="matroska") as out:
        stream = out.add_stream("ffv1", rate=1 / frame.time_base)
        context = stream.codec_context
        context.width, context.height, context.pix_fmt = picture.width, picture.height, picture.format.name
        context.colorspace, context.color_range = int(color.matrix), int(color.range)
        context.color_primaries, context.color_trc = color.primaries, color.transfer
        context.chroma_sample_location = int(color.siting)
        context.options = {"slices": str(ffv1_slices(picture.width, picture.height))}
        out.mux([*context.encode(picture), *context.encode(None)])
    return made.getvalue()

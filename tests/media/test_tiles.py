"""Pictures that are a grid of tiles, as telephones take them."""

import io
import struct

import av
import pytest
from clips import picture

from videosr.frame import PixelFormat
from videosr.media.planes import to_av_frame

FORMAT = PixelFormat.of("yuv", 8, 1, 1)
SIDE = 64


def box(kind, *parts):
    """A box of ISO/IEC 14496-12, 4.2."""
    data = b"".join(parts)
    return struct.pack(">I4s", 8 + len(data), kind) + data


def full(kind, version, flags, *parts):
    """A box that has a version and flags."""
    return box(kind, struct.pack(">I", version << 24 | flags), *parts)


def coded(index):
    """A tile: its `hvcC` box and its data."""
    film = io.BytesIO()
    with av.open(film, "w", format="mp4") as out:
        stream = out.add_stream("libx265", rate=1, options={"x265-params": "log-level=none:keyint=1"})
        stream.width, stream.height, stream.pix_fmt = SIDE, SIDE, FORMAT.name
        frame = to_av_frame(picture(index, FORMAT, SIDE, SIDE), FORMAT)
        frame.pts = 0
        out.mux([*stream.encode(frame), *stream.encode(None)])
    data = film.getvalue()
    at = data.index(b"hvcC") - 4
    (size,) = struct.unpack_from(">I", data, at)
    film.seek(0)
    with av.open(film) as container:
        return data[at : at + size], b"".join(bytes(packet) for packet in container.demux(video=0))


def heif(path, brand):
    """Two by two tiles, and an item that says where they belong (ISO/IEC 23008-12, 6.6.2.3)."""
    tiles = [coded(n) for n in range(4)]
    grid = struct.pack(">BBBBHH", 0, 0, 1, 1, 2 * SIDE, 2 * SIDE)
    kinds = [*((n, b"hvc1") for n in range(1, 5)), (5, b"grid")]
    items = [full(b"infe", 2, kind == b"hvc1", struct.pack(">HH4sx", n, 0, kind)) for n, kind in kinds]
    sizes = [full(b"ispe", 0, 0, struct.pack(">II", side, side)) for side in (SIDE, 2 * SIDE)]
    has = [struct.pack(">HBBB", n, 2, 0x81, 2) for n in range(1, 5)] + [struct.pack(">HBB", 5, 1, 3)]
    properties = (box(b"ipco", tiles[0][0], *sizes), full(b"ipma", 0, 0, struct.pack(">I", 5), *has))

    def head(at):
        places = []
        for n, (_, data) in enumerate(tiles, 1):
            places.append(struct.pack(">HHHHII", n, 0, 0, 1, at, len(data)))
            at += len(data)
        places.append(struct.pack(">HHHHII", 5, 1, 0, 1, 0, len(grid)))  # within `idat`
        meta = full(
            b"meta", 0, 0,
            full(b"hdlr", 0, 0, struct.pack(">I4s13x", 0, b"pict")),
            full(b"pitm", 0, 0, struct.pack(">H", 5)),
            full(b"iinf", 0, 0, struct.pack(">H", 5), *items),
            full(b"iref", 0, 0, box(b"dimg", struct.pack(">HHHHHH", 5, 4, 1, 2, 3, 4))),
            box(b"iprp", *properties),
            box(b"idat", grid),
            full(b"iloc", 1, 0, bytes((0x44, 0)), struct.pack(">H", 5), *places),
        )  # fmt: skip
        return box(b"ftyp", brand, bytes(4), b"mif1", brand) + meta

    begin = head(0)
    path.write_bytes(head(len(begin) + 8) + box(b"mdat", *(data for _, data in tiles)))
    return path


@pytest.mark.parametrize("brand", [b"heic", b"mif1"])
def test_a_tile_is_not_taken_for_the_picture(videosr, tmp_path, brand):
    source = heif(tmp_path / "photo.heic", brand)
    with av.open(str(source)) as container:
        assert [stream.width for stream in container.streams] == [SIDE] * 4  # FFmpeg shows no larger one
    for command in (("upscale", source, tmp_path / "out.png", "--model", "light-2x"), ("probe", source)):
        done = videosr(*command)
        assert done.code == 1
        assert f"videosr: {source}: is a picture of 4 tiles" in done.err
    assert list(tmp_path.iterdir()) == [source]

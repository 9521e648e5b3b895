"""Pictures of HEIF files: grids of tiles, as telephones make them, transparency, and what belongs to them."""

import contextlib
import io
import struct

import av
import numpy as np
import pytest
from clips import picture
from hypothesis import given, settings
from hypothesis import strategies as st

from videosr.errors import InputError
from videosr.frame import Matrix, PixelFormat, Range
from videosr.media.decoder import Decoder
from videosr.media.planes import to_av_frame
from videosr.media.stills.tiles import _film

FORMAT = PixelFormat.of("yuv", 8, 1, 1)
SIDE = 64
GRID, ALPHA = 5, 6


def box(kind, *parts):
    """A box of ISO/IEC 14496-12, 4.2."""
    data = b"".join(parts)
    return struct.pack(">I4s", 8 + len(data), kind) + data


def full(kind, version, flags, *parts):
    """A box that has a version and flags."""
    return box(kind, struct.pack(">I", version << 24 | flags), *parts)


def coded(index):
    """A tile, lossless: its `hvcC` box and its data."""
    film = io.BytesIO()
    parameters = "log-level=none:keyint=1:lossless=1"
    with av.open(film, "w", format="mp4") as out:
        stream = out.add_stream("libx265", rate=1, options={"x265-params": parameters})
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


@pytest.fixture(scope="module")
def tiles():
    return [coded(n) for n in range(5)]


class Heif:
    """A file whose picture is two by two tiles (ISO/IEC 23008-12, 6.6.2.3), which may be asked to be otherwise."""

    def __init__(self, tiles, width=2 * SIDE, height=2 * SIDE):
        self.tiles = tiles[:4]
        self.grid = struct.pack(">BBBBHH", 0, 0, 1, 1, width, height)
        self.properties = []  # boxes of the grid's
        self.kind = b"grid"
        self.parts = [1, 2, 3, 4]
        self.further = []  # (item, kind, properties, data, its reference: kind and item)
        self.primary = GRID

    def write(self, path, brand=b"heic"):
        items = [
            (n, b"hvc1", [self.tiles[n - 1][0], self._size(SIDE, SIDE)], self.tiles[n - 1][1], None)
            for n in range(1, 5)
        ]
        width, height = struct.unpack(">HH", self.grid[4:8])
        items.append((GRID, self.kind, [self._size(width, height), *self.properties], self.grid, None))
        items += self.further
        known, has, infos, references = [], [], [], [box(b"dimg", struct.pack(">HH4H", GRID, 4, *self.parts))]
        for number, kind, properties, _, reference in items:
            places = []
            for data in properties:
                if data not in known:
                    known.append(data)
                places.append(known.index(data) + 1)
            has.append(struct.pack(f">HB{len(places)}B", number, len(places), *places))
            mime = b"application/rdf+xml\0" if kind == b"mime" else b""
            hidden = kind == b"hvc1" and number != self.primary
            infos.append(full(b"infe", 2, hidden, struct.pack(">HH4sx", number, 0, kind), mime))
            if reference is not None:
                references.append(box(reference[0], struct.pack(">HHH", number, 1, reference[1])))
        properties = (box(b"ipco", *known), full(b"ipma", 0, 0, struct.pack(">I", len(has)), *has))
        stored = [(number, data) for number, kind, _, data, _ in items if kind != self.kind]

        def head(at):
            places = []
            for number, data in stored:
                places.append(struct.pack(">HHHHII", number, 0, 0, 1, at, len(data)))
                at += len(data)
            places.append(struct.pack(">HHHHII", GRID, 1, 0, 1, 0, len(self.grid)))  # within `idat`
            meta = full(
                b"meta", 0, 0,
                full(b"hdlr", 0, 0, struct.pack(">I4s13x", 0, b"pict")),
                full(b"pitm", 0, 0, struct.pack(">H", self.primary)),
                full(b"iinf", 0, 0, struct.pack(">H", len(items)), *infos),
                full(b"iref", 0, 0, *references),
                box(b"iprp", *properties),
                box(b"idat", self.grid),
                full(b"iloc", 1, 0, bytes((0x44, 0)), struct.pack(">H", len(items)), *places),
            )  # fmt: skip
            return box(b"ftyp", brand, bytes(4), b"mif1", brand) + meta

        begin = head(0)
        path.write_bytes(head(len(begin) + 8) + box(b"mdat", *(data for _, data in stored)))
        return path

    @staticmethod
    def _size(width, height):
        return full(b"ispe", 0, 0, struct.pack(">II", width, height))


def whole():
    """The four tiles side by side."""
    parts = [picture(n, FORMAT, SIDE, SIDE) for n in range(4)]
    return [np.block([[parts[0][i], parts[1][i]], [parts[2][i], parts[3][i]]]) for i in range(3)]


def read(path):
    with Decoder(path) as decoder:
        frames = list(decoder)
        assert len(frames) == 1
        return frames[0], decoder.losses(frozenset())


@pytest.mark.parametrize("brand", [b"heic", b"mif1", b"avif"])
def test_tiles_become_the_picture(tmp_path, tiles, brand):
    frame, losses = read(Heif(tiles).write(tmp_path / "photo.heic", brand))
    assert frame.format == FORMAT
    assert losses == []
    for plane, wanted in zip(frame.planes, whole(), strict=True):
        assert np.array_equal(plane, wanted)
    assert frame.color.matrix == Matrix.SMPTE170M  # which no tag says: it is no film


def test_what_tiles_have_too_much_is_left_out(tmp_path, tiles):
    frame, _ = read(Heif(tiles, 101, 99).write(tmp_path / "photo.heic"))
    assert (frame.width, frame.height) == (101, 99)
    assert np.array_equal(frame.planes[0], whole()[0][:99, :101])
    assert np.array_equal(frame.planes[2], whole()[2][:50, :51])


@pytest.mark.parametrize("quarters", range(4))
@pytest.mark.parametrize("axis", [None, 0, 1])
def test_it_is_turned_and_mirrored_as_the_file_says(tmp_path, tiles, quarters, axis):
    heif, wanted = Heif(tiles, 100, 90), np.rot90(whole()[0][:90, :100], quarters)
    heif.properties = [box(b"irot", bytes([quarters]))]
    if axis is not None:
        heif.properties.append(box(b"imir", bytes([axis])))
        wanted = wanted[::-1] if axis == 0 else wanted[:, ::-1]
    frame, _ = read(heif.write(tmp_path / "photo.heic"))
    assert np.array_equal(frame.planes[0], wanted)


def test_a_clean_aperture_crops(tmp_path, tiles):
    heif = Heif(tiles)
    heif.properties = [box(b"clap", struct.pack(">IIIIiIiI", 80, 1, 60, 1, -20, 1, 4, 1))]
    frame, _ = read(heif.write(tmp_path / "photo.heic"))
    left, top = (128 - 80) // 2 - 20, (128 - 60) // 2 + 4
    assert np.array_equal(frame.planes[0], whole()[0][top : top + 60, left : left + 80])
    assert np.array_equal(frame.planes[1], whole()[1][top // 2 : top // 2 + 30, left // 2 : left // 2 + 40])


def test_a_stated_colour_is_used(tmp_path, tiles):
    heif = Heif(tiles)
    heif.properties = [box(b"colr", b"nclx", struct.pack(">HHHB", 12, 16, 9, 0x80))]
    color = read(heif.write(tmp_path / "photo.heic"))[0].color
    assert (color.matrix, color.range, color.primaries, color.transfer) == (Matrix.BT2020_NCL, Range.FULL, 12, 16)


def test_transparency_comes_from_its_own_picture(tmp_path, tiles, videosr):
    heif = Heif(tiles, SIDE, SIDE)
    kind = full(b"auxC", 0, 0, b"urn:mpeg:hevc:2015:auxid:1\0")
    heif.further = [(ALPHA, b"hvc1", [tiles[4][0], heif._size(SIDE, SIDE), kind], tiles[4][1], (b"auxl", GRID))]
    source = heif.write(tmp_path / "photo.heic")
    frame, losses = read(source)
    assert losses == []
    assert frame.format.name == "yuva420p"
    assert np.array_equal(frame.planes[3], picture(4, FORMAT, SIDE, SIDE)[0])
    assert np.array_equal(frame.planes[0], picture(0, FORMAT, SIDE, SIDE)[0])
    done = videosr("upscale", source, tmp_path / "out.png", "--model", "light-2x")
    assert done.code == 0
    with av.open(str(tmp_path / "out.png")) as container:
        assert next(container.decode(video=0)).format.name == "rgba"


def test_transparency_of_another_size_is_brought_to_the_picture_s(tmp_path, tiles):
    heif = Heif(tiles)
    kind = full(b"auxC", 0, 0, b"urn:mpeg:hevc:2015:auxid:1\0")
    heif.further = [(ALPHA, b"hvc1", [tiles[4][0], heif._size(SIDE, SIDE), kind], tiles[4][1], (b"auxl", GRID))]
    frame, _ = read(heif.write(tmp_path / "photo.heic"))
    assert frame.format.name == "yuva420p"
    small = picture(4, FORMAT, SIDE, SIDE)[0].astype(int)
    assert np.abs(frame.planes[3].reshape(SIDE, 2, SIDE, 2).mean((1, 3)) - small).mean() < 2


def test_a_picture_is_put_together_once_until_its_file_changes(tmp_path, tiles, videosr, monkeypatch):
    made = []
    monkeypatch.setattr("videosr.media.stills.tiles._film", lambda frame: made.append(frame) or _film(frame))
    source = Heif(tiles).write(tmp_path / "photo.heic")
    assert videosr("upscale", source, tmp_path / "out.png", "--model", "light-2x").code == 0
    assert len(made) == 1
    Heif(tiles[1:]).write(source)
    frame, _ = read(source)
    assert len(made) == 2
    assert np.array_equal(frame.planes[0][:SIDE, :SIDE], picture(1, FORMAT, SIDE, SIDE)[0])


def test_profile_exif_and_xmp_arrive(tmp_path, tiles, videosr):
    profile = bytes(16) + b"RGB " + bytes(200)
    exif = b"MM\0*\0\0\0\x08\0\1\1\x0f\0\2\0\0\0\4abc\0\0\0\0\0"
    xmp = b"<x:xmpmeta xmlns:x='adobe:ns:meta/'/>"
    heif = Heif(tiles)
    heif.properties = [box(b"colr", b"prof", profile)]
    heif.further = [
        (ALPHA, b"Exif", [], struct.pack(">I", 6) + b"Exif\0\0" + exif, (b"cdsc", GRID)),
        (ALPHA + 1, b"mime", [], xmp, (b"cdsc", GRID)),
    ]
    source = heif.write(tmp_path / "photo.heic")
    done = videosr("upscale", source, tmp_path / "out.png", "--model", "light-2x")
    assert done.code == 0
    assert "cannot be kept" not in done.err
    data = dict(read(tmp_path / "out.png")[0].side_data)
    assert data["ICC_PROFILE"] == profile
    assert b"abc\0" in data["EXIF"]
    assert data["XMP"] == xmp


def test_other_pictures_of_the_file_are_named(tmp_path, tiles, videosr):
    heif = Heif(tiles)
    depth = full(b"auxC", 0, 0, b"urn:mpeg:hevc:2015:auxid:2\0")
    size = heif._size(SIDE, SIDE)
    heif.further = [
        (ALPHA, b"hvc1", [tiles[4][0], size, depth], tiles[4][1], (b"auxl", GRID)),
        (ALPHA + 1, b"hvc1", [tiles[4][0], size], tiles[4][1], (b"thmb", GRID)),
        (ALPHA + 2, b"hvc1", [tiles[4][0], size], tiles[4][1], None),
    ]
    source = heif.write(tmp_path / "photo.heic")
    assert read(source)[1] == [
        "1 auxiliary picture (depth, HDR gain, mattes) of the file",
        "1 further picture of the file",
    ]
    done = videosr("upscale", source, tmp_path / "out.png", "--strict")
    assert done.code == 1
    assert "auxiliary" in done.err


def test_the_picture_that_is_meant_is_taken_whatever_ffmpeg_takes(tmp_path, tiles):
    heif = Heif(tiles)
    heif.primary = 3
    frame, _ = read(heif.write(tmp_path / "photo.heic"))
    assert np.array_equal(frame.planes[0], picture(2, FORMAT, SIDE, SIDE)[0])


def damaged_count(heif):
    heif.grid = struct.pack(">BBBBHH", 0, 0, 2, 1, 128, 192)


def damaged_part(heif):
    heif.parts = [1, 2, 77, 4]


def damaged_tile(heif):
    heif.tiles = [*heif.tiles[:3], (heif.tiles[3][0], bytes(len(heif.tiles[3][1])))]


def made_of_itself(heif):
    heif.parts = [1, 2, 3, GRID]


def unknown(heif):
    heif.kind = b"iovl"


@pytest.mark.parametrize(
    ("spoil", "line"),
    [
        (damaged_count, "is not a media file that FFmpeg can read"),
        (damaged_part, "part 77 of the picture is missing or damaged"),
        (damaged_tile, "part 4 of the picture is missing or damaged"),
        (made_of_itself, "part 1 of the picture is missing or damaged"),
        (unknown, "its picture is of a kind ('iovl') that videosr cannot make"),
    ],
)
def test_what_cannot_be_made_is_said_in_a_line(tmp_path, tiles, videosr, spoil, line):
    heif = Heif(tiles)
    spoil(heif)
    source = heif.write(tmp_path / "photo.heic")
    done = videosr("upscale", source, tmp_path / "out.png", "--model", "light-2x")
    assert done.code == 1
    assert f"videosr: {source}: {line}" in done.err
    assert list(tmp_path.iterdir()) == [source]


def test_a_picture_larger_than_is_allowed_is_not_made(tmp_path, tiles, videosr):
    source = Heif(tiles).write(tmp_path / "photo.heic")
    done = videosr("upscale", source, tmp_path / "out.png", "--max-pixels", "10000")
    assert done.code == 1
    assert "128x128 is too large" in done.err


@given(st.data())
@settings(max_examples=60)
def test_damaged_lists_are_refused_or_read(tmp_path_factory, tiles, data):
    folder = tmp_path_factory.mktemp("damaged")
    source = Heif(tiles).write(folder / "photo.heic")
    bytes_ = bytearray(source.read_bytes())
    end = bytes_.index(b"mdat")
    for _ in range(data.draw(st.integers(1, 4))):
        bytes_[data.draw(st.integers(0, end))] = data.draw(st.integers(0, 255))
    source.write_bytes(bytes_[: data.draw(st.integers(end, len(bytes_)))])
    with contextlib.suppress(InputError):
        read(source)

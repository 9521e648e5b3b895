"""ICC profiles, EXIF, XMP and texts of still pictures: into every kind of file, read back by FFmpeg or by the chunk."""

import struct
import tracemalloc
import zlib
from fractions import Fraction

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_stills import chunk, decode, encode, picture

from videosr.media.sidedata import FrameSideData
from videosr.media.stills import picturedata

LIGHT = ("--model", "light-2x")
SOURCES = {
    "png": ("png", "rgb24", None),
    "jpg": ("mjpeg", "rgb24", "yuvj444p"),
    "webp": ("libwebp", "rgb24", "yuv420p"),
}
XMP = b'<x:xmpmeta><rdf:Description tiff:Orientation="%d"><tiff:Orientation>%d</tiff:Orientation></x:xmpmeta>'
TEXTS = chunk(b"tEXt", b"parameters\0a cat") + chunk(b"zTXt", b"Comment\0\0" + zlib.compress(b"long " * 99))


def profile(space=b"RGB ", size=300):
    """A profile's header (ICC.1:2022, 7.2) and bytes that do not pack."""
    rest = np.random.default_rng(1).integers(0, 256, size - 128, np.uint8).tobytes()
    return struct.pack(">I", size) + bytes(8) + b"mntr" + space + b"XYZ " + bytes(12) + b"acsp" + bytes(88) + rest


def exif(orientation, order="<", *, tags=()):
    """Orientation, further tags of the file, a description, and the old size in a directory of its own.

    Behind the first directory comes that of a thumbnail.
    """
    turned, left = orientation, 0 if order == "<" else 16  # a short lies at the left of its four bytes
    entries = [(0x10E, 2, 4, int.from_bytes(b"cat\0", "little" if order == "<" else "big")), *tags]
    behind = 8 + 2 + 12 * (len(entries) + 2) + 4
    entries += [(0x112, 3, 1, turned << left), (0x8769, 4, 1, behind)]
    size = [(0xA002, 4, 1, 48), (0xA003, 4, 1, 40)]
    thumbnail = [(0x112, 3, 1, turned << left), (0x201, 4, 1, behind + 72), (0x202, 4, 1, 4)]
    directories = [
        struct.pack(order + "H", len(part))
        + b"".join(struct.pack(order + "HHII", *e) for e in sorted(part))
        + struct.pack(order + "I", following)
        for part, following in ((entries, behind + 30), (size, 0), (thumbnail, 0))
    ]
    start = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8)
    return start + b"".join(directories) + b"\xff\xd8\xff\xd9"


def tags_of(exif):
    """(tag: value) of both directories, of which each is the last one."""
    order = "<" if exif.startswith(b"II") else ">"

    def read(at):
        (count,) = struct.unpack_from(order + "H", exif, at)
        assert exif[at + 2 + 12 * count :][:4] in (bytes(4), b"")
        entries = [struct.unpack_from(order + "HHII", exif, at + 2 + 12 * i) for i in range(count)]
        assert all(kind in (2, 3, 4) for _, kind, _, _ in entries)
        return {tag: value for tag, _, _, value in entries}

    first = read(struct.unpack_from(order + "I", exif, 4)[0])
    return first | (read(first.pop(0x8769)) if 0x8769 in first else {})


def make(path, *, icc=b"", exif=b"", xmp=b"", texts=b"", gray=False, alpha=False):
    """A picture of 48x40 with all of these, put together by hand."""
    codec, packed, wanted = SOURCES[path.suffix[1:]]
    channels = 4 if alpha else 3
    array = np.rint(picture(40, 48, channels) * 255).astype(np.uint8)
    if gray:
        encode(path, array[..., 0], codec, "gray")
    else:
        encode(path, array, codec, "rgba" if alpha else packed, wanted)
    data = path.read_bytes()
    if path.suffix == ".png":
        more = chunk(b"iCCP", b"a name\0\0" + zlib.compress(icc)) if icc else b""
        more += (chunk(b"eXIf", exif) if exif else b"") + texts
        more += chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + xmp) if xmp else b""
        data = data[:33] + more + data[33:]
    elif path.suffix == ".jpg":
        more = b""
        xap = xmp and b"http://ns.adobe.com/xap/1.0/\0" + xmp
        for n, part in ((1, exif and b"Exif\0\0" + exif), (1, xap), (2, icc and b"ICC_PROFILE\0\1\1" + icc)):
            more += bytes([0xFF, 0xE0 + n]) + struct.pack(">H", len(part) + 2) + part if part else b""
        data = data[:2] + more + data[2:]
    else:
        flags = (0x20 if icc else 0) | (8 if exif else 0) | (4 if xmp else 0)
        header = bytes([flags, 0, 0, 0, 47, 0, 0, 39, 0, 0])
        parts = [(b"VP8X", header), (b"ICCP", icc)]
        body = b"WEBP" + b"".join(k + struct.pack("<I", len(d)) + d + bytes(len(d) % 2) for k, d in parts if d)
        body += data[12:] + (b"EXIF" + struct.pack("<I", len(exif)) + exif + bytes(len(exif) % 2) if exif else b"")
        body += b"XMP " + struct.pack("<I", len(xmp)) + xmp + bytes(len(xmp) % 2) if xmp else b""
        data = b"RIFF" + struct.pack("<I", len(body)) + body
    path.write_bytes(data)
    return path


def riding(path):
    """Profile, EXIF and texts of a file; of a PNG, at whose profiles FFmpeg must not look, by its chunks."""
    if path.suffix != ".png":
        with av.open(str(path)) as container:
            found = {k.name: bytes(v) for k, v in next(container.decode(video=0)).side_data.items()}
        # From the file, with all that follows: FFmpeg would put it together anew.
        mark = b"Exif\0\0" if path.suffix == ".jpg" else b"EXIF"
        behind = path.read_bytes().partition(mark)[2]
        return found.get("ICC_PROFILE", b""), behind if path.suffix == ".jpg" else behind[4:], b""
    data, at, found, texts = path.read_bytes(), 8, {}, b""
    while at < len(data):
        size, kind = struct.unpack_from(">I4s", data, at)
        found[kind] = data[at + 8 : at + 8 + size]
        assert data[at : at + size + 12] == chunk(kind, found[kind])
        texts += data[at : at + size + 12] if kind in (b"tEXt", b"zTXt", b"iTXt") else b""
        at += size + 12
    icc = found.get(b"iCCP", b"").partition(b"\0")[2][1:]
    return zlib.decompress(icc) if icc else b"", found.get(b"eXIf", b""), texts


@pytest.mark.parametrize("target", SOURCES)
@pytest.mark.parametrize("source", SOURCES)
def test_what_a_pictures_file_holds_is_carried(tmp_path, videosr, source, target):
    icc = profile()
    tags = [(0x111, 4, 1, 99)]
    path = make(tmp_path / f"in.{source}", icc=icc, exif=exif(6, ">", tags=tags), xmp=XMP % (6, 8))
    output = tmp_path / f"out.{target}"
    done = videosr("upscale", path, output, *LIGHT, "--strict")
    assert done.code == 0, done.err
    found, data, _ = riding(output)
    assert found == icc
    tags = tags_of(data)
    assert tags.pop(0x10E) == int.from_bytes(b"cat\0", "little" if data.startswith(b"II") else "big")
    assert tags == {0xA002: 80, 0xA003: 96}  # the picture is upright now, and 0x111 said where the old samples were
    assert decode(output)[0].shape == (96, 80, 3)
    assert output.read_bytes().count(XMP % (1, 1)) == 1
    again = tmp_path / f"again.{source}"
    assert videosr("upscale", output, again, *LIGHT, "--strict").code == 0
    assert again.read_bytes().count(XMP % (1, 1)) == 1


def test_texts_of_a_png_are_carried_into_a_png_and_named_elsewhere(tmp_path, videosr):
    path = make(tmp_path / "in.png", texts=TEXTS, xmp=XMP % (1, 1))
    assert videosr("upscale", path, tmp_path / "out.png", *LIGHT, "--strict").code == 0
    assert riding(tmp_path / "out.png")[2].replace(TEXTS, b"") == chunk(
        b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP % (1, 1)
    )
    for suffix in ("jpg", "webp"):
        done = videosr("upscale", path, tmp_path / f"out.{suffix}", *LIGHT)
        assert done.code == 0
        assert "text in the picture's file cannot be kept" in done.err
        assert XMP % (1, 1) in (tmp_path / f"out.{suffix}").read_bytes()


@pytest.mark.parametrize("gray", [False, True])
def test_a_profile_of_other_channels_is_named(tmp_path, videosr, gray):
    path = make(tmp_path / "in.png", icc=profile(b"GRAY"), gray=gray)
    for suffix in SOURCES:
        output = tmp_path / f"out.{suffix}"
        done = videosr("upscale", path, output, *LIGHT)
        assert done.code == 0
        kept = gray and suffix == "png"
        assert ("ICC profile cannot be kept" in done.err) != kept
        assert riding(output)[0] == (profile(b"GRAY") if kept else b"")


def test_a_profile_of_several_segments(tmp_path, videosr):
    icc = profile(size=200_000)
    path = make(tmp_path / "in.png", icc=icc)
    assert videosr("upscale", path, tmp_path / "out.jpg", *LIGHT, "--strict").code == 0
    assert riding(tmp_path / "out.jpg")[0] == icc


def test_alpha_and_profile_in_a_webp(tmp_path, videosr):
    path = make(tmp_path / "in.png", icc=profile(), alpha=True)
    assert videosr("upscale", path, tmp_path / "out.webp", *LIGHT, "--strict").code == 0
    assert riding(tmp_path / "out.webp")[0] == profile()
    rgb, alpha = decode(tmp_path / "out.webp")
    assert rgb.shape == (80, 96, 3)
    assert np.abs(alpha - decode(path)[1].repeat(2, 0).repeat(2, 1)).mean() < 0.03


@pytest.mark.parametrize(
    "packed", [b"", b"no zlib", zlib.compress(profile())[:-9], zlib.compress(profile(size=2**23 + 1), 1)]
)
def test_a_profile_that_cannot_be_unpacked_is_named(tmp_path, videosr, packed):
    path = make(tmp_path / "in.png")
    data = path.read_bytes()
    path.write_bytes(data[:33] + chunk(b"iCCP", b"a name\0\0" + packed) + data[33:])
    done = videosr("upscale", path, tmp_path / "out.png", *LIGHT)
    assert done.code == 0
    assert "ICC profile cannot be kept" in done.err
    assert riding(tmp_path / "out.png")[0] == b""


def inserted(path, *parts):
    """A PNG or JPEG of `make` with these behind its header."""
    data = path.read_bytes()
    at = 33 if path.suffix == ".png" else 2
    path.write_bytes(data[:at] + b"".join(parts) + data[at:])
    return path


def segment(marker, content):
    """Of a JPEG."""
    return bytes([0xFF, marker]) + struct.pack(">H", len(content) + 2) + content


def test_two_profiles(tmp_path, videosr):
    """Looked at, the second one would end the process as the first would."""
    packed = [b"a\0\0" + zlib.compress(profile(size=size)) for size in (300, 400)]
    path = inserted(make(tmp_path / "in.png"), *(chunk(b"iCCP", data) for data in packed))
    assert videosr("upscale", path, tmp_path / "out.png", *LIGHT, "--strict").code == 0
    assert riding(tmp_path / "out.png")[0] == profile(size=300)


def test_a_picture_is_turned_once_whatever_says_so(tmp_path, videosr):
    """EXIF as ImageMagick wrote it; XMP that is packed, and that has spaces where XML allows them."""
    text = b"\nexif\n%8d\n" % (len(exif(6)) + 6) + (b"Exif\0\0" + exif(6)).hex().encode() + b"\n"
    xmp = b'<a tiff:Orientation = "6" xmpNote:HasExtendedXMP="00"/>'
    parts = [chunk(b"tEXt", b"Raw profile type exif\0" + text)]
    parts += [chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0de\0\0" + zlib.compress(xmp))]
    path = inserted(make(tmp_path / "in.png"), *parts)
    assert videosr("upscale", path, tmp_path / "out.png", *LIGHT, "--strict").code == 0
    data = (tmp_path / "out.png").read_bytes()
    assert b"Raw profile" not in data
    assert b'<a tiff:Orientation = "1"/>' in data
    assert decode(tmp_path / "out.png")[0].shape == (96, 80, 3)
    with av.open(str(tmp_path / "out.png")) as container:
        assert next(container.decode(video=0)).rotation == 0


def test_colour_that_a_png_states_beside_its_profile_stays(tmp_path, videosr):
    """PQ: the profile is there for who does not know it."""
    path = inserted(make(tmp_path / "in.png", icc=profile()), chunk(b"cICP", bytes([9, 16, 0, 1])))
    assert videosr("upscale", path, tmp_path / "out.png", *LIGHT, "--strict").code == 0
    assert chunk(b"cICP", bytes([9, 16, 0, 1])) in (tmp_path / "out.png").read_bytes()
    assert riding(tmp_path / "out.png")[0] == profile()


@pytest.mark.parametrize(
    ("part", "what"),
    [
        (segment(0xE1, b"http://ns.adobe.com/xmp/extension/\0" + bytes(40)), "the extension of XMP data"),
        (segment(0xE1, b"Exif\0\0no TIFF"), "EXIF data"),
        (segment(0xE2, b"MPF\0" + bytes(20)), "further pictures in the file, such as a gain map,"),
        (segment(0xED, b"Photoshop 3.0\0" + bytes(20)), "IPTC data"),
        (segment(0xFE, b"by hand"), "comment in the picture's file"),
    ],
)
def test_what_a_jpeg_has_and_no_picture_keeps_is_named(tmp_path, videosr, part, what):
    path = make(tmp_path / "in.jpg")
    assert videosr("upscale", path, tmp_path / "plain.jpg", *LIGHT, "--strict").code == 0
    done = videosr("upscale", inserted(path, part), tmp_path / "out.jpg", *LIGHT)
    assert done.code == 0
    assert f"{what} cannot be kept" in done.err
    assert videosr("upscale", path, tmp_path / "b.jpg", *LIGHT, "--strict").code == 1


def test_each_picture_of_a_film_has_its_own(tmp_path, videosr):
    """Though decoders on several threads come behind their packets."""
    with av.open(str(tmp_path / "in.mkv"), "w") as out:
        stream = None
        for number in range(8):
            path = make(tmp_path / "a.jpg", xmp=b"<number %d/>" % number)
            with av.open(str(path)) as picture:
                stream = stream or out.add_stream_from_template(picture.streams.video[0])
                packet = av.Packet(path.read_bytes())
                packet.stream, packet.pts, packet.dts, packet.time_base = stream, number, number, Fraction(1, 25)
                out.mux(packet)
    wanted = ("upscale", tmp_path / "in.mkv", tmp_path / "out.png", *LIGHT, "--frames", "1", "--start", "0.12")
    assert videosr(*wanted).code == 0
    assert b"<number 3/>" in (tmp_path / "out.png").read_bytes()


@pytest.mark.parametrize("codec", ["png", "mjpeg", "libwebp"])
@given(data=st.binary(max_size=80))
def test_exif_that_cannot_be_read_does_no_harm(codec, data):
    file = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", bytes(13)) if codec == "png" else b"\xff\xd8" + bytes(20)
    for whole in (data, b"II*\0" + data, b"MM\0*" + data):
        made = picturedata.attach(file, codec, {"EXIF": whole}, 16, 8)
        assert made.startswith(file[:2]) or codec == "libwebp"
        assert len(made) >= len(file)


def test_what_is_remembered_of_pictures_has_a_limit():
    """Packed XMP of eight megabytes in each picture of a film, of which no frame has come out yet."""
    xmp = chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(bytes(2**23 - 1)))
    side_data = FrameSideData(av.CodecContext.create("png", "r"))
    tracemalloc.start()
    for number in range(40):
        packet = av.Packet(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", bytes(13)) + xmp)
        packet.pts = number
        side_data.expect(packet)
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 100 * 2**20

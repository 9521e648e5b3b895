"""ICC profiles, EXIF, XMP and texts of still pictures: into every kind of file, read back by FFmpeg or by the chunk."""

import struct
import zlib

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_stills import chunk, decode, encode, picture

from videosr.media import picturedata

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
    """Orientation, further tags of the file, a description, and the old size in a directory of its own."""
    entries = [(0x10E, 2, 4, int.from_bytes(b"cat\0", "little" if order == "<" else "big")), *tags]
    entries += [
        (0x112, 3, 1, orientation << (0 if order == "<" else 16)),
        (0x8769, 4, 1, 8 + 2 + 12 * (len(entries) + 2) + 4),
    ]
    size = [(0xA002, 4, 1, 48), (0xA003, 4, 1, 40)]
    directories = [
        struct.pack(order + "H", len(part)) + b"".join(struct.pack(order + "HHII", *e) for e in sorted(part)) + bytes(4)
        for part in (entries, size)
    ]
    return (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8) + b"".join(directories)


def tags_of(exif):
    """(tag: value) of both directories."""
    order = "<" if exif.startswith(b"II") else ">"

    def read(at):
        (count,) = struct.unpack_from(order + "H", exif, at)
        return {tag: value for tag, _, _, value in
                (struct.unpack_from(order + "HHII", exif, at + 2 + 12 * i) for i in range(count))}  # fmt: skip

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
        return found.get("ICC_PROFILE", b""), found.get("EXIF", b""), b""
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


@pytest.mark.parametrize("codec", ["png", "mjpeg", "libwebp"])
@given(data=st.binary(max_size=80))
def test_exif_that_cannot_be_read_stays_as_it_is_or_as_long(codec, data):
    file = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", bytes(13)) if codec == "png" else b"\xff\xd8" + bytes(20)
    for whole in (data, b"II*\0" + data, b"MM\0*" + data):
        made = picturedata.attach(file, codec, {"EXIF": whole}, 16, 8)
        assert len(made) >= len(file) + len(whole)

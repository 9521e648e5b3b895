"""What a still picture's file holds beside the picture: its ICC profile, EXIF, XMP, and the texts of a PNG.

FFmpeg's decoders give the first two as side data, the others are found here in the coded picture; PyAV can hand its
encoders none of it, so it is put into the file that they made. EXIF comes as a TIFF without its orientation (FFmpeg
makes that a display matrix, after which the picture is turned), and is written with the size that the picture has now.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator, Mapping

ICC, EXIF = "ICC_PROFILE", "EXIF"
"""FFmpeg's names of the side data."""
XMP, TEXT = "XMP", "PNG_TEXT"
"""Our own: a document in XML (ISO 16684-1); whole chunks, one behind the other."""
XMP_EXTENSION, IPTC, COMMENT, PICTURES = "XMP_EXTENSION", "IPTC", "COMMENT", "PICTURES"
"""Our own, of what is found in a JPEG and nowhere kept. The same is said of `EXIF` where FFmpeg gives none of it."""

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_TEXT_CHUNKS = frozenset({b"tEXt", b"zTXt", b"iTXt"})
_XMP_KEYWORD = b"XML:com.adobe.xmp\0"
_EXIF_KEYWORDS = (b"Raw profile type exif\0", b"Raw profile type APP1\0", b"Raw profile type app1\0")
"""Of texts in which ImageMagick had EXIF before PNG had a chunk for it. FFmpeg reads them, and that is written."""
_XMP_SEGMENT, _XMP_EXTENSION = b"http://ns.adobe.com/xap/1.0/\0", b"http://ns.adobe.com/xmp/extension/\0"
"""How its segments in JPEG begin."""
_XMP_TURNED = re.compile(rb"""(tiff:Orientation\s*(?:=\s*["']|>)\s*)[2-8]""")
_XMP_EXTENDED = re.compile(rb"""\s+xmpNote:HasExtendedXMP\s*=\s*(?:"[^"]*"|'[^']*')""")
_HELD = {"png": (ICC, EXIF, XMP, TEXT), "mjpeg": (ICC, EXIF, XMP), "libwebp": (ICC, EXIF, XMP)}
_MOST = 2**23
"""Bytes of a profile or a packed text; of a longer one nothing is kept. JPEG holds twice that."""
_APP_MAX = 65533
"""Bytes of an application segment of JPEG (ITU-T T.81, B.2.4.6)."""
_OF_THE_FILE = frozenset(
    {0x100, 0x101, 0x102, 0x103, 0x106, 0x10A, 0x111, 0x112, 0x115, 0x116, 0x117, 0x11C, 0x13D, 0x140, 0x142, 0x143}
    | {0x144, 0x145, 0x14A, 0x152, 0x153, 0x15B, 0x201, 0x202, 0x211, 0x212, 0x213, 0x214, 0x8773}
)
"""Tags of a TIFF that say how the samples lie in it and not what they show (TIFF 6.0; 0x8773 is the profile)."""
_POINTERS, _SIZE = (0x8769, 0x8825, 0xA005), {0xA002: 0, 0xA003: 1}
"""Tags that say where further directories are, and those of the picture's columns and rows (Exif 2.32, 4.6)."""


def kept(codec: str, gray: bool, data: Mapping[str, bytes]) -> frozenset[str]:
    """The kinds of `data` that a file of a picture can hold.

    Args:
        codec: its encoder.
        gray: it has grey samples, and no colours.
        data: side data of the picture.
    """
    found = {kind for kind in _HELD[codec] if data.get(kind)}
    profile = data.get(ICC, b"")
    if len(profile) > _MOST or profile[16:20] != (b"GRAY" if gray else b"RGB "):  # ICC.1:2022, 7.2.8
        found.discard(ICC)
    if codec == "mjpeg":
        rooms = {EXIF: _APP_MAX - 6, XMP: _APP_MAX - len(_XMP_SEGMENT)}
        found -= {kind for kind, room in rooms.items() if len(data.get(kind, b"")) > room}
    return frozenset(found)


def attach(file: bytes, codec: str, data: Mapping[str, bytes], width: int, height: int) -> bytes:
    """The file of a picture with what belongs to it.

    Args:
        file: whole, as the encoder made it.
        codec: its encoder.
        data: of the kinds that are `kept`.
        width: of the picture, which is the right way up.
        height: likewise.
    """
    if not data:
        return file
    profile, exif = data.get(ICC, b""), data.get(EXIF, b"")
    exif = exif and _exif_of(exif, width, height)
    xmp = _XMP_EXTENDED.sub(b"", _XMP_TURNED.sub(rb"\g<1>1", data.get(XMP, b"")))
    if codec == "png":
        return _into_png(file, profile, exif, xmp, data.get(TEXT, b""))
    if codec == "mjpeg":
        return _into_jpeg(file, profile, exif, xmp)
    return _into_webp(file, profile, exif, xmp, width, height)


# -- PNG (third edition) ----------------------------------------------------------------------------------------------


def _chunks(png: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Kind, begin and end of each chunk (5.3), with or without the signature before them."""
    at = len(_SIGNATURE) if png.startswith(_SIGNATURE) else 0
    while at + 8 <= len(png):
        size, kind = struct.unpack_from(">I4s", png, at)
        yield kind, at, at + size + 12
        at += size + 12


def in_png(png: bytes) -> tuple[dict[str, bytes], list[tuple[int, int]]]:
    """What is in a PNG besides, and where its profiles begin and end.

    What is broken, or too large, comes empty; EXIF always does.
    """
    found: dict[str, bytes] = {}
    texts, profiles = [], []
    for kind, begin, end in _chunks(png):
        if kind == b"iCCP":
            profiles.append((begin, end))
            found.setdefault(ICC, _unpacked(png[begin + 8 : end - 4].partition(b"\0")[2][1:]))
        elif kind == b"eXIf" or (kind in _TEXT_CHUNKS and png.startswith(_EXIF_KEYWORDS, begin + 8)):
            found[EXIF] = b""
        elif kind == b"iTXt" and png.startswith(_XMP_KEYWORD, begin + 8):
            text = png[begin + 8 + len(_XMP_KEYWORD) : end - 4]  # flag, method, language, keyword, then the document
            document = text[2:].partition(b"\0")[2].partition(b"\0")[2]
            found[XMP] = _unpacked(document) if text[:1] == b"\1" else document
        elif kind in _TEXT_CHUNKS:
            texts.append(png[begin:end])
    return found | ({TEXT: b"".join(texts)} if texts else {}), profiles


def _unpacked(packed: bytes) -> bytes:
    unpacker = zlib.decompressobj()
    try:
        data = unpacker.decompress(packed, _MOST)
    except zlib.error:
        return b""
    return data if unpacker.eof else b""


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I4s", len(data), kind) + data + struct.pack(">I", zlib.crc32(kind + data))


def _into_png(file: bytes, profile: bytes, exif: bytes, xmp: bytes, texts: bytes) -> bytes:
    _, _, end = next(_chunks(file))  # IHDR; what follows it comes before the samples
    made = _chunk(b"iCCP", b"ICC profile\0\0" + zlib.compress(profile)) if profile else b""
    made += _chunk(b"eXIf", exif) if exif else b""
    made += _chunk(b"iTXt", _XMP_KEYWORD + b"\0\0\0\0" + xmp) if xmp else b""
    made += b"".join(_chunk(kind, texts[begin + 8 : stop - 4]) for kind, begin, stop in _chunks(texts))
    return file[:end] + made + file[end:]


# -- JPEG -------------------------------------------------------------------------------------------------------------


def in_jpeg(jpeg: bytes) -> tuple[dict[str, bytes], list[tuple[int, int]]]:
    """What is in a JPEG besides but its profile; nothing is to be cut out (see `in_png`).

    XMP (ISO 16684-3, 5.1) comes whole, all else empty.
    """
    found: dict[str, bytes] = {}
    at = 2
    while jpeg[at : at + 1] == b"\xff" and len(jpeg) >= at + 4 and jpeg[at + 1] != 0xDA:  # up to the first scan
        if jpeg[at + 1] == 0xFF:  # fill
            at += 1
            continue
        marker, begin, end = jpeg[at + 1], at + 4, at + 2 + int.from_bytes(jpeg[at + 2 : at + 4])
        if marker == 0xE1 and jpeg.startswith(_XMP_SEGMENT, begin):
            found[XMP] = jpeg[begin + len(_XMP_SEGMENT) : end]
        elif marker == 0xFE and not jpeg.startswith((b"Lavc", b"CREATOR: "), begin):  # of encoders themselves
            found[COMMENT] = b""
        for kind, (of, mark) in _SEGMENTS.items():
            if marker == of and jpeg.startswith(mark, begin):
                found[kind] = b""
        at = max(end, at + 2)
    return found, []


_SEGMENTS = {
    EXIF: (0xE1, b"Exif\0"),
    XMP_EXTENSION: (0xE1, _XMP_EXTENSION),
    PICTURES: (0xE2, b"MPF\0"),
    IPTC: (0xED, b"Photoshop 3.0\0"),
}
"""Markers of application segments and how they begin; MPF is of CIPA DC-007."""


def _into_jpeg(file: bytes, profile: bytes, exif: bytes, xmp: bytes) -> bytes:
    """Segments behind JFIF's own: EXIF (Exif 2.32, 4.7.2), XMP, and the profile (ICC.1:2022, B.4)."""
    at = 2
    if file[at : at + 2] == b"\xff\xe0":
        at += 2 + int.from_bytes(file[at + 2 : at + 4])
    size = _APP_MAX - 14
    parts = [profile[i : i + size] for i in range(0, len(profile), size)]
    segments = [(1, b"Exif\0\0" + exif)] if exif else []
    segments += [(1, _XMP_SEGMENT + xmp)] if xmp else []
    segments += [(2, b"ICC_PROFILE\0" + bytes([i + 1, len(parts)]) + part) for i, part in enumerate(parts)]
    made = b"".join(bytes([0xFF, 0xE0 + n]) + struct.pack(">H", len(data) + 2) + data for n, data in segments)
    return file[:at] + made + file[at:]


# -- WebP (RFC 9649) --------------------------------------------------------------------------------------------------


def in_webp(webp: bytes) -> tuple[dict[str, bytes], list[tuple[int, int]]]:
    """XMP (2.7.1.5), and whether there is EXIF, which comes empty; nothing is to be cut out (see `in_png`)."""
    found: dict[str, bytes] = {}
    at = 12
    while at + 8 <= len(webp):
        kind, size = struct.unpack_from("<4sI", webp, at)
        if kind == b"XMP ":
            found[XMP] = webp[at + 8 : at + 8 + size]
        elif kind == b"EXIF":
            found[EXIF] = b""
        at += 8 + size + size % 2
    return found, []


def _into_webp(file: bytes, profile: bytes, exif: bytes, xmp: bytes, width: int, height: int) -> bytes:
    """In the extended form (2.7), with the flags that say what is there."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return kind + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2)

    flags, rest = 0, file[12:]
    if rest.startswith(b"VP8X"):
        flags, rest = rest[8], rest[18:]
    flags |= (0x20 if profile else 0) | (0x08 if exif else 0) | (0x04 if xmp else 0)
    header = bytes([flags, 0, 0, 0]) + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    body = b"WEBP" + chunk(b"VP8X", header) + (chunk(b"ICCP", profile) if profile else b"") + rest
    body += (chunk(b"EXIF", exif) if exif else b"") + (chunk(b"XMP ", xmp) if xmp else b"")
    return chunk(b"RIFF", body)


# -- EXIF -------------------------------------------------------------------------------------------------------------


def _exif_of(exif: bytes, width: int, height: int) -> bytes:
    """EXIF of the picture in its new size, without what describes the old file; as it was if it cannot be read.

    What FFmpeg 8 does to it on reading is mended: directories of a type that Exif does not know, links from them to
    places where there is none, and one to a thumbnail that it has left out.
    """
    data = bytearray(exif)
    order = "<" if exif.startswith(b"II") else ">"
    try:
        _mend(data, order, struct.unpack_from(order + "I", data, 4)[0], (width, height), depth=0)
    except struct.error:
        return exif
    return bytes(data)


def _mend(data: bytearray, order: str, at: int, size: tuple[int, int], depth: int) -> None:
    """A directory (TIFF 6.0, section 2) and those that it points to: tags of the old file go, no other one follows."""
    (count,) = struct.unpack_from(order + "H", data, at)
    begin, end = at + 2, at + 2 + 12 * count
    left = []
    for entry in (bytes(data[i : i + 12]) for i in range(begin, end, 12)):
        tag, kind, number, place = struct.unpack(order + "HHII", entry)
        if tag in _POINTERS and depth < 2:
            _mend(data, order, place, size, depth + 1)
            entry = struct.pack(order + "HHII", tag, 4, 1, place)
        elif tag in _SIZE and number == 1 and kind in (3, 4):
            entry = struct.pack(order + "HHII", tag, 4, 1, size[_SIZE[tag]])
        if depth or tag not in _OF_THE_FILE:
            left.append(entry)
    packed = b"".join(left) + bytes(min(4, len(data) - end))
    struct.pack_into(order + "H", data, at, len(left))
    data[begin : begin + len(packed)] = packed

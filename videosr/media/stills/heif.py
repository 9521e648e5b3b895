"""What a HEIF file (ISO/IEC 23008-12; HEIC, AVIF) says of its pictures: items, and what they are made of.

FFmpeg shows coded pictures as streams whose id is that of their item. Where the picture that is meant to be shown is
made of several, as telephones make it of tiles, or has transparency in another, PyAV says nothing of it; nor does
FFmpeg give Exif and XMP. So the boxes are read here; what is in them is turned into samples in `tiles`.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from videosr.errors import InputError
from videosr.media.stills.picturedata import EXIF, ICC, XMP

_BRANDS = frozenset({b"mif1", b"mif2", b"msf1", b"heic", b"heix", b"heim", b"heis", b"avif", b"avis", b"miaf"})
_MOST = 2**24
"""Bytes of the boxes that are read, and of a profile or document."""
_ALPHA = ("urn:mpeg:hevc:2015:auxid:1", "urn:mpeg:mpegB:cicp:systems:auxiliary:alpha")
_CODED = frozenset({b"hvc1", b"hev1", b"lhv1", b"av01", b"avc1", b"vvc1", b"jpeg", b"j2k1", b"unci"})
_DERIVED = frozenset({b"grid", b"iden", b"iovl", b"tmap"})


@dataclass(slots=True)
class Item:
    """An item of the file.

    Attributes:
        kind: its type, four letters.
        mime: its type, where `kind` is "mime".
        references: the items it refers to by the kind of the reference: "dimg" to what it is made of.
        properties: (kind, data) in the order in which they apply.
        places: extents (offset, length), and whether they are in `idat` rather than in the file.
    """

    kind: bytes
    mime: str = ""
    references: dict[bytes, list[int]] = field(default_factory=dict)
    properties: list[tuple[bytes, bytes]] = field(default_factory=list)
    places: tuple[bool, list[tuple[int, int]]] = (False, [])


@dataclass(slots=True)
class Heif:
    """The items of a file.

    Attributes:
        path: of the file.
        primary: number of the item that is the picture.
        items: by number.
        idat: data of items, kept among the boxes.
    """

    path: Path
    primary: int = 0
    items: dict[int, Item] = field(default_factory=dict)
    idat: bytes = b""

    @property
    def alpha(self) -> int | None:
        """Number of the item that is the picture's alpha plane, None where there is none."""
        for number, item in self.items.items():
            if self.primary in item.references.get(b"auxl", ()) and self._auxiliary(item) in _ALPHA:
                return number
        return None

    @property
    def further(self) -> list[str]:
        """What the file shows beside its picture and that one's thumbnails and alpha plane, a line for each kind."""
        parts = {n for item in self.items.values() for n in item.references.get(b"dimg", ())}
        known = {self.primary, self.alpha}
        lines: dict[str, int] = {}
        for number, item in self.items.items():
            if number in parts or number in known or item.kind not in _CODED | _DERIVED or b"thmb" in item.references:
                continue
            what = "auxiliary picture (depth, HDR gain, mattes)" if b"auxl" in item.references else "further picture"
            lines[what] = lines.get(what, 0) + 1
        return [f"{n} {what.replace('picture', 'pictures', n > 1)} of the file" for what, n in lines.items()]

    @staticmethod
    def _auxiliary(item: Item) -> str:
        kind = next((data[4:] for kind, data in item.properties if kind == b"auxC"), b"")
        return kind.partition(b"\0")[0].decode("latin-1")

    def data(self, number: int) -> bytes:
        """What an item holds; at most 16 MiB.

        Raises:
            InputError: the file ends before that.
        """
        within, extents = self.items[number].places
        if sum(length for _, length in extents) > _MOST:
            raise InputError(f"{self.path}: item {number} is too large; the file is damaged")
        if within:
            return b"".join(self.idat[at : at + length] for at, length in extents)
        with self.path.open("rb") as file:
            parts, end = [], os.fstat(file.fileno()).st_size
            for at, length in extents:
                if at + length > end:
                    raise InputError(f"{self.path}: ends within item {number}; copy or download it again")
                file.seek(at)
                parts.append(file.read(length or _MOST))
        return b"".join(parts)

    def rides(self) -> dict[str, bytes]:
        """The picture's ICC profile, Exif (as a TIFF) and XMP, by the names of `picturedata`."""
        found: dict[str, bytes] = {}
        for kind, data in self.items[self.primary].properties:
            if kind == b"colr" and data[:4] in (b"prof", b"rICC"):
                found[ICC] = data[4:]
        for number, item in self.items.items():
            if self.primary not in item.references.get(b"cdsc", ()):
                continue
            if item.kind == b"Exif":
                exif = self.data(number)
                begin = 4 + int.from_bytes(exif[:4])  # 23008-12, A.2.1: bytes before the TIFF's header
                found[EXIF] = exif[begin:] if exif[begin : begin + 2] in (b"II", b"MM") else b""
            elif item.kind == b"mime" and item.mime == "application/rdf+xml":
                found[XMP] = self.data(number)
        return found


def read(path: str | os.PathLike[str]) -> Heif | None:
    """The items of a HEIF file; None of another file, and of one that shows a film.

    Raises:
        InputError: its boxes are damaged.
    """
    found = Heif(Path(path))
    try:
        with found.path.open("rb") as file:
            meta = _meta(file)
    except OSError:
        return None  # who opens it says so
    if meta is None:
        return None
    try:
        _fill(found, meta[4:])
    except (struct.error, IndexError, KeyError) as exc:
        raise InputError(f"{found.path}: the list of its pictures is damaged; copy or download it again") from exc
    return found if found.primary in found.items else None


def _meta(file: BinaryIO) -> bytes | None:
    """What the `meta` box of a HEIF file holds (ISO/IEC 14496-12, 4.2), None of others: films are not gone through."""
    meta: bytes | None = None
    at, end = 0, os.fstat(file.fileno()).st_size
    while len(head := file.read(8)) == 8:
        size, kind = struct.unpack(">I4s", head)
        begin = at + 8
        if size == 1:
            size = int.from_bytes(file.read(8))
            begin += 8
        data = file.read(size - (begin - at)) if kind in (b"ftyp", b"meta") and begin - at <= size <= _MOST else b""
        other = not at and (kind != b"ftyp" or _BRANDS.isdisjoint(data[i : i + 4] for i in range(0, len(data), 4)))
        if other or kind == b"moov":
            return None
        if kind == b"meta" and meta is None:
            meta = data
        at += size
        if size < 8 or at >= end:  # the first goes to the end, or is damaged
            break
        file.seek(at)
    return meta


def _boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = 0
    while at + 8 <= len(data):
        size, kind = struct.unpack_from(">I4s", data, at)
        if size < 8:
            return
        yield kind, data[at + 8 : at + size]
        at += size


class _Reader:
    """Reads numbers of several widths one behind the other."""

    def __init__(self, data: bytes, at: int = 0) -> None:
        self.data, self.at = data, at

    def number(self, width: int) -> int:
        begin, self.at = self.at, self.at + width
        if self.at > len(self.data):
            raise IndexError
        return int.from_bytes(self.data[begin : self.at])


def _fill(heif: Heif, meta: bytes) -> None:
    boxes: dict[bytes, bytes] = {}
    for kind, data in _boxes(meta):
        boxes.setdefault(kind, data)
    heif.idat = boxes.get(b"idat", b"")
    heif.primary = _Reader(boxes[b"pitm"], 4).number(4 if boxes[b"pitm"][0] else 2)
    _fill_kinds(heif, boxes[b"iinf"])
    _fill_places(heif, boxes[b"iloc"])
    _fill_references(heif, boxes.get(b"iref", bytes(4)))
    _fill_properties(heif, boxes.get(b"iprp", b""))


def _fill_kinds(heif: Heif, iinf: bytes) -> None:
    """Types of items (14496-12, 8.11.6)."""
    for kind, data in _boxes(iinf[8 if iinf[0] else 6 :]):
        if kind != b"infe" or data[0] < 2:
            continue
        reader = _Reader(data, 4)
        number = reader.number(4 if data[0] == 3 else 2)
        kind = data[reader.at + 2 : reader.at + 6]
        mime = data[reader.at + 6 :].split(b"\0")[1:2] if kind == b"mime" else []
        heif.items[number] = Item(kind, b"".join(mime).decode("latin-1"))


def _fill_places(heif: Heif, iloc: bytes) -> None:
    """Where their data lie (8.11.3)."""
    version, reader = iloc[0], _Reader(iloc, 4)
    widths = reader.number(2)
    offset, length, base, index = (widths >> shift & 15 for shift in (12, 8, 4, 0))
    wide = 4 if version == 2 else 2
    for _ in range(reader.number(wide)):
        number = reader.number(wide)
        method = reader.number(2) & 15 if version else 0
        reader.number(2)
        begin = reader.number(base)
        extents = []
        for _ in range(reader.number(2)):
            reader.number(index if version else 0)
            extents.append((begin + reader.number(offset), reader.number(length)))
        if number in heif.items and method < 2:
            heif.items[number].places = (method == 1, extents)


def _fill_references(heif: Heif, iref: bytes) -> None:
    """What refers to what (8.11.12)."""
    wide = 4 if iref[0] else 2
    for kind, data in _boxes(iref[4:]):
        reader = _Reader(data)
        number = reader.number(wide)
        others = [reader.number(wide) for _ in range(reader.number(2))]
        if number in heif.items:
            heif.items[number].references.setdefault(kind, []).extend(others)


def _fill_properties(heif: Heif, iprp: bytes) -> None:
    """Properties and whose they are (23008-12, 9.3.1)."""
    known: list[tuple[bytes, bytes]] = []
    for kind, data in _boxes(iprp):
        if kind == b"ipco":
            known = list(_boxes(data))
        elif kind == b"ipma":
            reader = _Reader(data, 4)
            for _ in range(reader.number(4)):
                number = reader.number(4 if data[0] else 2)
                for _ in range(reader.number(1)):
                    place = reader.number(2) & 0x7FFF if data[3] & 1 else reader.number(1) & 0x7F
                    if place and number in heif.items:
                        heif.items[number].properties.append(known[place - 1])

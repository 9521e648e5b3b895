"""TIFF pictures of which FFmpeg shows only the first page, a black one or dark edges, without a word (its tiff.c)."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from videosr.errors import InputError
from videosr.frame import PixelFormat

_SUBFILE, _BITS, _COMPRESSION, _COLOURS, _PLANES, _TILE_WIDTH, _EXTRA, _DNG = 254, 258, 259, 262, 284, 322, 338, 50706
_SMALLER = 1
"""Bit of NewSubfileType: the page is another one at a lower resolution, as thumbnails are."""
_JPEG = frozenset({6, 7})
"""Values of Compression in TIFF 6.0 and in Adobe's supplement."""
_PALETTE = 3
"""Of PhotometricInterpretation: the values below are grey of two kinds and R'G'B'."""
_MOST = 4096
"""Pages that are looked at."""
_FORMS = {3: "H", 4: "I"}


def further_pages(name: str) -> list[str]:
    """What of a TIFF file FFmpeg does not show: at most one line.

    Args:
        name: of the file, or an address, of which there is nothing to see.

    Raises:
        InputError: FFmpeg makes a black picture, or a wrong one, of the first page.
    """
    if "://" in name:
        return []
    with Path(name).open("rb") as file:
        pages = list(_pages(file))
    first = pages[0] if pages else {}
    why = ""
    if _DNG in first:
        pass  # of cameras' files FFmpeg reads tiles and JPEG
    elif first.get(_COMPRESSION) in _JPEG:
        why = "is compressed as JPEG"
    elif _TILE_WIDTH in first:
        why = "is stored in tiles"
    elif first.get(_PLANES) == 2 and first.get(_BITS) != 8:
        why = "has each colour by itself, and not 8 bits of it"
    if why:
        raise InputError(
            f"{name}: {why}, which FFmpeg cannot read in TIFF; make a .png of it first, as ImageMagick does"
        )
    further = sum(not page.get(_SUBFILE, 0) & _SMALLER for page in pages[1:])
    return [f"{further} further page{'s' * (further > 1)} of the file"] if further else []


def is_premultiplied(name: str) -> bool:
    """Whether the colours of a TIFF file's first page are multiplied by its alpha ("associated", TIFF 6.0, section 18).

    FFmpeg gives them as they are.
    """
    if "://" in name:
        return False
    with Path(name).open("rb") as file:
        return next(_pages(file), {}).get(_EXTRA) == 1


def kind_of(file: BinaryIO) -> tuple[PixelFormat, int] | None:
    """The least format, grey or R'G'B', that holds a TIFF file's first page, and its PhotometricInterpretation.

    None of colours such as CMYK.
    """
    page = next(_pages(file), {})
    colours, alpha = page.get(_COLOURS), _EXTRA in page
    if colours is None or colours > _PALETTE:
        return None
    family = "rgb" if colours > 1 or alpha else "gray"
    return PixelFormat.of(family, 16 if page.get(_BITS, 1) > 8 else 8, alpha=alpha), colours


def _pages(file: BinaryIO) -> Iterator[dict[int, int]]:
    """The fields of each page as numbers, of several values the first (TIFF 6.0, section 2)."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(file.read(4), "")
    if not order:
        return

    def read(form: str) -> tuple[int, ...]:
        return struct.unpack(order + form, file.read(struct.calcsize(order + form)))

    seen: set[int] = set()
    try:
        (at,) = read("I")
        while at and at not in seen and len(seen) < _MOST:
            seen.add(at)
            file.seek(at)
            (count,) = read("H")
            entries = [(read("HHI"), file.read(4)) for _ in range(count)]
            (at,) = read("I")
            fields = {}
            for (tag, kind, number), value in entries:
                form = order + _FORMS.get(kind, "B")
                if struct.calcsize(form) * number <= len(value):
                    fields[tag] = struct.unpack_from(form, value)[0]
                elif tag == _BITS:
                    file.seek(struct.unpack(order + "I", value)[0])
                    (fields[tag],) = read("H")
            yield fields
    except struct.error:  # it ends there
        return

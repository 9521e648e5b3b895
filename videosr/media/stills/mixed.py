"""Numbered pictures whose files hold different kinds of samples, though they are one film.

Tools leave out of each PNG, JPEG or TIFF what that picture does not need: a title is stored in grey, a frame without
transparency has no alpha. So the first picture does not say what the film needs; the headers of all do.
"""

from __future__ import annotations

import struct
from functools import lru_cache
from typing import BinaryIO

from videosr.frame import PixelFormat
from videosr.media.stills import tiffs
from videosr.media.stills.numbered import Numbered

_PNG, _JPEG, _TIFFS = b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", (b"II*\0", b"MM\0*")
_NO_FRAME = frozenset({0xC4, 0xC8, 0xCC})
"""Of the markers C0 to CF of JPEG (ITU-T T.81, table B.1), those that begin no frame."""


def common_format(pictures: Numbered) -> PixelFormat | None:
    """The least format, grey or R'G'B', that holds what is in any of some pictures.

    Args:
        pictures: whose files are read up to where their headers end, again only where one has changed: a film that is
            made in pieces is opened for each.

    Returns:
        The format; None if all are of one kind, or one is of a kind that is not known here.

    Raises:
        InputError: a picture is missing or empty.
    """
    return _common_format(pictures, pictures.check_sizes(), pictures.numbers)


@lru_cache(maxsize=4)
def _common_format(pictures: Numbered, state: int, numbers: range) -> PixelFormat | None:
    """As `common_format`, of pictures in a state."""
    kinds: set[tuple[PixelFormat, int]] = set()
    for file in map(pictures.name, numbers):
        try:
            with file.open("rb") as opened:
                kind = _kind(opened)
        except (OSError, ValueError, struct.error):  # who decodes it says what is the matter
            return None
        if kind is None:
            return None
        kinds.add(kind)
    if len(kinds) < 2:
        return None
    formats = [fmt for fmt, _ in kinds]
    family = "rgb" if any(fmt.family == "rgb" for fmt in formats) else "gray"
    alpha = any(fmt.alpha for fmt in formats)
    return PixelFormat.of("rgb" if alpha else family, max(fmt.bits for fmt in formats), alpha=alpha)


def holds(fmt: PixelFormat, other: PixelFormat) -> bool:
    """Whether pictures in a format keep the colours, the alpha and the bits of those in another."""
    colours = fmt.family != "gray" or other.family == "gray"
    return colours and fmt.alpha >= other.alpha and fmt.bits >= other.bits


def _kind(file: BinaryIO) -> tuple[PixelFormat, int] | None:
    """The least format that holds a picture, and the file's own number of how colours are stored, as by a palette.

    None of a kind that is not known here.
    """
    head = file.read(8)
    file.seek(0)
    if head == _PNG:
        return _png(file)
    if head.startswith(_JPEG):
        return _jpeg(file)
    return tiffs.kind_of(file) if head.startswith(_TIFFS) else None


def _png(file: BinaryIO) -> tuple[PixelFormat, int]:
    """PNG, 3rd edition, 11.2.1 and 11.3.1.1: transparency may be in a chunk of its own, before the picture's data."""
    bits, kind = file.read(26)[24:]
    alpha = bool(kind & 4)
    file.seek(33)
    while True:
        length, chunk = struct.unpack(">I4s", file.read(8))
        if chunk in (b"IDAT", b"tRNS"):
            alpha |= chunk == b"tRNS"
            break
        file.seek(length + 4, 1)
    return PixelFormat.of("rgb" if kind & 2 or alpha else "gray", 16 if bits == 16 else 8, alpha=alpha), kind


def _jpeg(file: BinaryIO) -> tuple[PixelFormat, int] | None:
    """ITU-T T.81, B.2.2: how many components the frame has."""
    file.seek(2)
    while True:
        first, marker = file.read(2)
        if first != 0xFF or marker in (0x01, 0xFF, *range(0xD0, 0xDA)):  # damaged, or filled up, which is rare
            return None
        (length,) = struct.unpack(">H", file.read(2))
        if 0xC0 <= marker <= 0xCF and marker not in _NO_FRAME:
            bits, _, _, components = struct.unpack(">BHHB", file.read(6))
            known = bits == 8 and components in (1, 3)
            return (PixelFormat.of("gray" if components == 1 else "rgb", 8), components) if known else None
        file.seek(length - 2, 1)

"""Dolby Vision that has one layer: what says so of a stream, and what rides on each frame, for a larger picture.

Each H.265 picture of it ends in a reference processing unit (RPU), a NAL unit of type 62, which says how a display
makes its picture of the coded one ("Dolby Vision Streams Within the ISO Base Media File Format", and the same for
Matroska; ETSI GS CCM 001 for the syntax). But for the black bars, nothing in it is counted in pixels. FFmpeg gives it
as `AV_FRAME_DATA_DOVI_RPU_BUFFER`, and `AVDOVIDecoderConfigurationRecord` of the stream.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Sequence
from fractions import Fraction
from hashlib import blake2b
from typing import Final, NamedTuple

from videosr.media.matroska.elements import element
from videosr.media.user_data import escaped

RPU: Final = "DOVI_RPU_BUFFER"
"""FFmpeg's name of the side data of frames."""
CONFIGURATION: Final = "dovi_conf"
"""FFmpeg's name of the side data of streams."""
_CONFIGURATION = struct.Struct("=8B")
"""Version (two numbers), profile, level, whether there are RPUs, an enhancement layer, a base layer; and what the base
layer is without them."""
_LEVELS = (
    (1280 * 720 * 24, 1280),
    (1280 * 720 * 30, 1280),
    (1920 * 1080 * 24, 1920),
    (1920 * 1080 * 30, 2560),
    (1920 * 1080 * 60, 3840),
    (3840 * 2160 * 24, 3840),
    (3840 * 2160 * 30, 3840),
    (3840 * 2160 * 48, 3840),
    (3840 * 2160 * 60, 3840),
    (3840 * 2160 * 120, 3840),
    (3840 * 2160 * 120, 7680),
    (7680 * 4320 * 60, 7680),
    (7680 * 4320 * 120, 7680),
)
"""Pixels a second and columns of each level, from 1 on ("Dolby Vision Profiles and Levels")."""
_MAPPING, _NAME, _TYPE, _DATA = 0x41E4, 0x41A4, 0x41E7, 0x41ED
"""BlockAdditionMapping and what is in it (RFC 9559, 5.1.4.1.17)."""
_BARS = 5
"""Level of the block that holds the active area: four numbers of 13 bits."""


def can_be_carried(configuration: bytes) -> bool:
    """Whether a stream is of one layer, with RPUs that hold for it: profiles 5 and 8, not compressed."""
    if len(configuration) < _CONFIGURATION.size:
        return False
    _, _, profile, _, units, enhancement, base, _ = _CONFIGURATION.unpack_from(configuration)
    return profile in (5, 8) and bool(units and base) and not (enhancement or any(configuration[8:9]))


def is_nothing_else(configuration: bytes) -> bool:
    """Whether the base layer is no picture in colours that a display without Dolby Vision knows (profile 5)."""
    return len(configuration) >= _CONFIGURATION.size and _CONFIGURATION.unpack_from(configuration)[-1] == 0


def carried(configuration: bytes, container: str, codec: str, bits: int) -> bool:
    """Whether an output can be Dolby Vision as its source is.

    Args:
        configuration: of the source; empty if there is none.
        container: of the output, FFmpeg's name of the muxer.
        codec: of the output, FFmpeg's name of the codec.
        bits: of its samples.
    """
    return can_be_carried(configuration) and container in ("matroska", "mp4") and codec == "hevc" and bits == 10


def same_kind(a: bytes, b: bytes) -> bool:
    """Whether two configurations say the same but for the level, which depends on the picture's size."""
    kinds = [c[:3] + c[4 : _CONFIGURATION.size] for c in (a, b)]
    return kinds[0] == kinds[1]


def mapping(configuration: bytes, width: int, height: int, rate: Fraction | None) -> bytes:
    """The element of a Matroska track that says it of a stream of this size.

    Args:
        configuration: one that `can_be_carried`.
        width: in pixels.
        height: likewise.
        rate: frames a second; 24 where it is not known.
    """
    major, minor, profile, _, _, _, _, compatible = _CONFIGURATION.unpack_from(configuration)
    speed = width * height * (rate or 24)
    level = next((n for n, (most, wide) in enumerate(_LEVELS, 1) if speed <= most and width <= wide), len(_LEVELS))
    record = bytes([major, minor, profile << 1 | level >> 5, (level & 31) << 3 | 0b101, compatible << 4]) + bytes(19)
    kind = b"dvvC" if profile > 7 else b"dvcC"
    fields = (_NAME, b"Dolby Vision configuration"), (_TYPE, kind), (_DATA, record)
    return element(_MAPPING, b"".join(element(*field) for field in fields))


def unit(rpu: bytes) -> bytes:
    """The NAL unit, with a start code, to put behind a picture's other units."""
    return b"\0\0\0\1\x7c\x01" + rpu


class Fit(NamedTuple):
    """How a picture was made of another one.

    Attributes:
        across: its columns by those of the part of the other that it shows.
        down: rows likewise.
        cropped: rows and columns of the other that it does not show: at the top, bottom, left and right.
    """

    across: Fraction = Fraction(1)
    down: Fraction = Fraction(1)
    cropped: tuple[int, int, int, int] = (0, 0, 0, 0)

    def bars(self, bars: Sequence[int]) -> list[int]:
        """Black bars of the other, at the left, right, top and bottom, as they are in the picture."""
        top, bottom, left, right = self.cropped
        kept = (max(bar - out, 0) for bar, out in zip(bars, (left, right, top, bottom), strict=True))
        factors = self.across, self.across, self.down, self.down
        return [min(round(bar * by), 2**13 - 1) for bar, by in zip(kept, factors, strict=True)]


def fitted(rpu: bytes, fit: Fit) -> bytes:
    """An RPU for a picture that was made of another one.

    Args:
        rpu: of that, as it is coded, without the unit's header.
        fit: how.

    Returns:
        It, with the picture's black bars; as it was, if it tells of none, or is not what its syntax says.
    """
    return _with_bars(rpu, fit.bars)


def _with_bars(rpu: bytes, made: Callable[[Sequence[int]], Sequence[int]]) -> bytes:
    content = bytearray(_plain(rpu))
    try:
        places = _bars(content)
    except ValueError:
        return rpu
    before = content[:]
    number = int.from_bytes(content)
    for place in places:
        ats = range(place, place + 4 * 13, 13)
        for at, value in zip(ats, made([_Bits(before, at).take(13) for at in ats]), strict=True):
            shift = 8 * len(content) - at - 13
            number = number & ~(0x1FFF << shift) | value << shift
    content[:] = number.to_bytes(len(content))
    if content == before:
        return rpu
    content[-5:-1] = _crc32(content[1:-5]).to_bytes(4)
    return escaped(bytes(content))


_SAID = struct.Struct(">16s4H")


def said(rpu: bytes) -> bytes:
    """What an RPU says, short: a digest of what holds for pictures of all sizes, and the black bars."""
    bars = [0, 0, 0, 0]

    def noted(found: Sequence[int]) -> Sequence[int]:
        bars[:] = found
        return 0, 0, 0, 0

    digest = blake2b(_plain(_with_bars(rpu, noted)), digest_size=16).digest()
    return _SAID.pack(digest, *bars)


def said_of_fitted(said: bytes, fit: Fit) -> bytes:
    """What an RPU has to say that is fitted, of what the one before it `said`."""
    digest, *bars = _SAID.unpack(said)
    return _SAID.pack(digest, *fit.bars(bars))


def _plain(rpu: bytes) -> bytes:
    """Without emulation prevention (H.265, 7.4.2), and zeros behind it."""
    return re.sub(rb"\x00\x00\x03", b"\0\0", rpu).rstrip(b"\0")


class _Bits:
    """Reads numbers of bits.

    Args:
        data: from the first byte's highest bit on.
        at: where to begin.
    """

    def __init__(self, data: bytes | bytearray, at: int = 0) -> None:
        self._number, self._end, self.at = int.from_bytes(data), 8 * len(data), at

    def take(self, width: int) -> int:
        """An unsigned number. Raises ValueError: there is no more."""
        self.at += width
        if self.at > self._end:
            raise ValueError("is cut short")
        return self._number >> (self._end - self.at) & (1 << width) - 1

    def golomb(self) -> int:
        """An unsigned number (H.265, 9.2). Raises ValueError: it is longer than 32 bits, or there is no more."""
        zeros = 0
        while not self.take(1):
            zeros += 1
            if zeros > 32:
                raise ValueError("is no number")
        return (1 << zeros) - 1 + self.take(zeros)


def _bars(rpu: bytes | bytearray) -> list[int]:
    """The bits at which the four numbers of black bars begin (left, right, top, bottom), of every block of them.

    Raises:
        ValueError: it is not of one layer and by itself, or not what the syntax says.
    """
    if len(rpu) < 8 or rpu[0] != 25 or rpu[-1] != 0x80 or _crc32(rpu[1:-5]).to_bytes(4) != rpu[-5:-1]:
        raise ValueError("is none")
    bits = _Bits(rpu[:-5], 8)
    kind, form, _ = bits.take(6), bits.take(11), bits.take(8)
    if kind != 2 or form & 0x700 or not bits.take(1):
        raise ValueError("refers to another one")
    bits.take(1)
    floats = bits.take(2) == 1
    fraction = 0 if floats else bits.golomb()
    bits.take(3)
    depth = 8 + bits.golomb()
    bits.golomb(), bits.golomb(), bits.take(1)
    compressed, _, one_layer = bits.take(3), bits.take(1), bits.take(1)
    described, again = bits.take(1), bits.take(1)
    if compressed or not one_layer or fraction > 32 or depth > 16:
        raise ValueError("is of two layers, or compressed")
    if again:
        bits.golomb()
    else:
        _skip_curves(bits, depth, fraction, floats=floats)
    found: list[int] = []
    if not described:
        return found
    for _ in range(3):
        bits.golomb()
    bits.take(9 * 16 + 3 * 32 + 9 * 16 + 3 * 16 + 32 + 5 + 3 * 2 + 2 * 12 + 10)
    blocks = bits.golomb()
    bits.at += -bits.at % 8 if blocks else 0
    for _ in range(blocks):
        length, level = bits.golomb(), bits.take(8)
        begin = bits.at
        bits.take(8 * length)
        if level == _BARS and length >= 7:
            found.append(begin)
    return found


def _skip_curves(bits: _Bits, depth: int, fraction: int, *, floats: bool) -> None:
    """How codes are mapped, for each plane by pieces."""

    def coefficient() -> None:
        if floats:
            bits.take(32)
        else:
            bits.golomb(), bits.take(fraction)

    for _ in range(3):
        bits.golomb()
    pieces = []
    for _ in range(3):
        pivots = bits.golomb() + 2
        bits.take(pivots * depth)
        pieces.append(pivots - 1)
    bits.golomb(), bits.golomb()
    for count in pieces:
        for _ in range(count):
            if bits.golomb():  # each product of the three planes, in powers up to the order
                for _ in range(1 + 7 * (bits.take(2) + 1)):
                    coefficient()
            else:
                order = bits.golomb() + 1
                bits.take(order == 1)
                for _ in range(order + 1):
                    coefficient()


_TABLE = [0] * 256
for _byte in range(256):
    _value = _byte << 24
    for _ in range(8):
        _value = _value << 1 ^ (0x104C11DB7 if _value >> 31 else 0)
    _TABLE[_byte] = _value


def _crc32(data: bytes | bytearray) -> int:
    """Of ISO/IEC 13818-1, annex A: most significant bits first, not inverted."""
    value = 0xFFFFFFFF
    for byte in data:
        value = (value & 0xFFFFFF) << 8 ^ _TABLE[value >> 24 ^ byte]
    return value

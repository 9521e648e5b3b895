"""What a packet holds, however its container frames it.

Containers write the same content in other framings: H.26x with start codes (ITU-T H.264, Annex B) or lengths (ISO/IEC
14496-15), with its parameter sets in the stream or in the header; AAC with or without ADTS headers (ISO/IEC 14496-3,
1.A.3); AV1 with or without temporal delimiters and the size of the last unit (AV1 specification, 5.3).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from videosr.media.adts import HEADER_BYTES, is_framed
from videosr.media.user_data import leb128

START_CODE = b"\0\0\1"
TEMPORAL_DELIMITER = 2
"""`obu_type` (AV1 specification, 6.2.2)."""


class _Units(NamedTuple):
    """Where a codec's NAL units say their type, and which types are framing: delimiters, parameter sets, filler."""

    kind: Callable[[bytes], int]
    framing: frozenset[int]
    length_at: int  # byte of the header's record whose last two bits are the size of lengths less one
    shift: int


_NAL = {
    "h264": _Units(lambda unit: unit[0] & 31, frozenset({7, 8, 9, 12, 13, 15}), 4, 0),
    "hevc": _Units(lambda unit: unit[0] >> 1 & 63, frozenset({32, 33, 34, 35, 38}), 21, 0),
    "vvc": _Units(
        lambda unit: unit[1] >> 3 & 31 if len(unit) > 1 else 0, frozenset({12, 13, 14, 15, 16, 20, 25}), 0, 1
    ),
}


def content(data: bytes, codec: str, header: bytes) -> bytes:
    """A packet's payload in a form that does not depend on its container.

    Args:
        data: the packet.
        codec: FFmpeg's name of it.
        header: the stream's extradata, which says how packets are framed.

    Returns:
        The same bytes of other codecs, and of packets that are not what their codec says.
    """
    if codec == "aac":
        return _without_adts(data)
    try:
        if codec == "av1":
            return b"".join(_obus(data))
        if (units := _NAL.get(codec)) is not None:
            kept = [unit for unit in _nal_units(data, units, header) if unit and units.kind(unit) not in units.framing]
            return START_CODE.join(kept)
    except (IndexError, ValueError):
        pass
    return data


def _without_adts(data: bytes) -> bytes:
    if not is_framed(data):
        return data
    return data[HEADER_BYTES if data[1] & 1 else HEADER_BYTES + 2 :]


def _nal_units(data: bytes, units: _Units, header: bytes) -> Iterator[bytes]:
    """Raises ValueError: lengths do not add up."""
    if len(header) <= units.length_at or header.startswith((b"\0\0\1", b"\0\0\0\1")):
        for unit in data.split(START_CODE):
            yield unit.rstrip(b"\0")  # a unit ends in a one bit; zeros belong to the next start code
        return
    size, at = (header[units.length_at] >> units.shift & 3) + 1, 0
    while at < len(data):
        end = at + size + int.from_bytes(data[at : at + size])
        if end > len(data):
            raise ValueError
        yield data[at + size : end].rstrip(b"\0")
        at = end


def _obus(data: bytes) -> Iterator[bytes]:
    """Type and extension, then the payload, of each unit. Raises IndexError or ValueError: they do not add up."""
    at = 0
    while at < len(data):
        head, kind = data[at], data[at] >> 3 & 15
        names = 2 if head & 4 else 1
        begin = at + names
        end = len(data)
        if head & 2:  # obu_has_size_field: leb128
            length, width = leb128(data, begin)
            begin += width
            end = begin + length
        if not begin <= end <= len(data):
            raise ValueError
        if kind != TEMPORAL_DELIMITER:
            yield bytes([head & ~2, *data[at + 1 : at + names]]) + (end - begin).to_bytes(4) + data[begin:end]
        at = end

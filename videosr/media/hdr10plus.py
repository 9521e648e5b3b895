"""HDR10+: how bright the parts of each frame are and how a display should map them (SMPTE ST 2094-40, CTA-861 Annex S).

FFmpeg gives it as `AVDynamicHDRPlus` (libavutil/hdr_dynamic_metadata.h); in coded video it is user data registered by
ITU-T T.35.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterable

from videosr.media.user_data import Message

DYNAMIC = "DYNAMIC_HDR_PLUS"
"""FFmpeg's name of the side data."""
_PROVIDER = b"\xb5\x00\x3c\x00\x01\x04"
"""Country (the United States), provider (Samsung), its code, and the application, 4."""
_u8, _u16 = ctypes.c_uint8, ctypes.c_uint16


class _Rational(ctypes.Structure):
    _fields_ = (("num", ctypes.c_int), ("den", ctypes.c_int))

    def units(self, denominator: int) -> int:
        """In units of one over `denominator`."""
        return round(self.num * denominator / self.den) if self.den else 0


class _Percentile(ctypes.Structure):
    _fields_ = (("percentage", _u8), ("percentile", _Rational))


class _Window(ctypes.Structure):
    """`AVHDRPlusColorTransformParams`."""

    _fields_ = (
        ("corners", _Rational * 4),
        ("center", _u16 * 2),
        ("rotation_angle", _u8),
        ("axes", _u16 * 3),
        ("overlap_process_option", ctypes.c_int),
        ("maxscl", _Rational * 3),
        ("average_maxrgb", _Rational),
        ("percentiles", _u8),
        ("distribution_maxrgb", _Percentile * 15),
        ("fraction_bright_pixels", _Rational),
        ("tone_mapping_flag", _u8),
        ("knee_point", _Rational * 2),
        ("anchors", _u8),
        ("bezier_curve_anchors", _Rational * 15),
        ("color_saturation_mapping_flag", _u8),
        ("color_saturation_weight", _Rational),
    )


class _Luminances(ctypes.Structure):
    """The actual peak luminance of a display, at places of it."""

    _fields_ = (("flag", _u8), ("rows", _u8), ("columns", _u8), ("values", _Rational * 25 * 25))

    def bits(self) -> Iterable[tuple[int, int]]:
        """(value, width) as they are written."""
        yield self.flag, 1
        if self.flag:
            yield self.rows, 5
            yield self.columns, 5
            for row in self.values[: self.rows]:
                for value in row[: self.columns]:
                    yield value.units(15), 4


class _Metadata(ctypes.Structure):
    """`AVDynamicHDRPlus`."""

    _fields_ = (
        ("country", _u8),
        ("application_version", _u8),
        ("num_windows", _u8),
        ("windows", _Window * 3),
        ("targeted_maximum_luminance", _Rational),
        ("targeted", _Luminances),
        ("mastering", _Luminances),
    )

    def bits(self) -> Iterable[tuple[int, int]]:
        """(value, width) as they are written, for one window: the whole picture."""
        window = self.windows[0]
        yield 1, 2
        yield self.targeted_maximum_luminance.units(1), 27
        yield from self.targeted.bits()
        for value in (*window.maxscl, window.average_maxrgb):
            yield value.units(100000), 17
        yield window.percentiles, 4
        for at in window.distribution_maxrgb[: window.percentiles]:
            yield at.percentage, 7
            yield at.percentile.units(100000), 17
        yield window.fraction_bright_pixels.units(1000), 10
        yield from self.mastering.bits()
        yield window.tone_mapping_flag, 1
        if window.tone_mapping_flag:
            for value in window.knee_point:
                yield value.units(4095), 12
            yield window.anchors, 4
            for value in window.bezier_curve_anchors[: window.anchors]:
                yield value.units(1023), 10
        yield window.color_saturation_mapping_flag, 1
        if window.color_saturation_mapping_flag:
            yield window.color_saturation_weight.units(8), 6


def dynamic_message(data: bytes) -> list[Message]:
    """The message, if any, that says the same of a larger picture.

    Args:
        data: `AVDynamicHDRPlus`.

    Returns:
        Nothing of metadata that describes parts of the picture by their places, nor of what is foreign or incomplete.
    """
    if len(data) < ctypes.sizeof(_Metadata):
        return []
    metadata = _Metadata.from_buffer_copy(data)
    if metadata.num_windows != 1:
        return []
    fields = list(metadata.bits())
    if any(value < 0 or value >> width for value, width in fields):
        return []
    length, number = 0, 0
    for value, width in fields:
        length, number = length + width, number << width | value
    spare = -length % 8
    content = (number << spare).to_bytes((length + spare) // 8)
    return [Message(_PROVIDER + bytes([metadata.application_version]) + content)]

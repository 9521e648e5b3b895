"""Which options FFmpeg has for reading; it ignores what it does not know, and what is another demuxer's."""

from __future__ import annotations

import ctypes
from functools import cache

import av.container.core as pyav

_DECODING_PARAM = 2
_SEARCH_CHILDREN, _SEARCH_FAKE_OBJECT = 1, 2
"""Of `libavutil/opt.h`."""


class _Class(ctypes.Structure):
    """The beginning of `AVClass`."""

    _fields_ = (("class_name", ctypes.c_char_p),)


class _InputFormat(ctypes.Structure):
    """The beginning of `AVInputFormat`."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("long_name", ctypes.c_char_p),
        ("flags", ctypes.c_int),
        ("extensions", ctypes.c_char_p),
        ("codec_tag", ctypes.c_void_p),
        ("priv_class", ctypes.c_void_p),
    )


@cache
def _ffmpeg() -> ctypes.CDLL | None:
    """The FFmpeg that PyAV has loaded; None where it cannot be found through PyAV's module (Windows)."""
    try:
        ffmpeg = ctypes.CDLL(pyav.__file__)
        ffmpeg.avformat_get_class.restype = ctypes.c_void_p
        ffmpeg.av_opt_find.restype = ctypes.c_void_p
        ffmpeg.av_opt_find.argtypes = (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_int, ctypes.c_int)
        ffmpeg.av_opt_child_class_iterate.restype = ctypes.c_void_p
        ffmpeg.av_opt_child_class_iterate.argtypes = (ctypes.c_void_p, ctypes.POINTER(ctypes.c_void_p))
        ffmpeg.av_find_input_format.restype = ctypes.POINTER(_InputFormat)
        ffmpeg.av_find_input_format.argtypes = (ctypes.c_char_p,)
    except (AttributeError, OSError):
        return None
    return ffmpeg


def _has(ffmpeg: ctypes.CDLL, of: int | None, name: str, search: int = 0) -> bool:
    """Whether a class has an option for reading."""
    fake = ctypes.byref(ctypes.c_void_p(of))
    return bool(of and ffmpeg.av_opt_find(fake, name.encode(), None, _DECODING_PARAM, search | _SEARCH_FAKE_OBJECT))


def has_option(name: str) -> bool:
    """Whether some demuxer, input device or protocol has an option of this name, or all have it.

    PyAV lists the options of encoders, but none of demuxers, so this asks FFmpeg in the same way as the command
    `ffmpeg` does. Where that cannot be done all names pass.
    """
    ffmpeg = _ffmpeg()
    return ffmpeg is None or _has(ffmpeg, ffmpeg.avformat_get_class(), name, _SEARCH_CHILDREN)


def others_option(name: str, demuxer: str) -> list[str]:
    """Which demuxers and input devices have an option that the one in use has not; none where it has it.

    Options of all demuxers count as its own, and those of protocols, of which more than one may be in use.

    Args:
        name: of the option.
        demuxer: FFmpeg's name of the one in use.
    """
    ffmpeg = _ffmpeg()
    if ffmpeg is None:
        return []
    of_all = ffmpeg.avformat_get_class()
    found = ffmpeg.av_find_input_format(demuxer.partition(",")[0].encode())
    if not found or _has(ffmpeg, of_all, name) or _has(ffmpeg, found.contents.priv_class, name):
        return []
    others: dict[str, None] = {}
    position = ctypes.c_void_p()
    while child := ffmpeg.av_opt_child_class_iterate(of_all, ctypes.byref(position)):
        kind = _Class.from_address(child).class_name.decode()
        if kind == "AVIOContext":
            if _has(ffmpeg, child, name, _SEARCH_CHILDREN):
                return []
        elif not kind.endswith(" muxer") and _has(ffmpeg, child, name):
            others[kind] = None
    return list(others)

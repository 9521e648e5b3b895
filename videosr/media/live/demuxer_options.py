"""Which options FFmpeg has for reading; it ignores what it does not know."""

from __future__ import annotations

import ctypes

import av.container.core as pyav

_DECODING_PARAM = 2
_SEARCH_CHILDREN, _SEARCH_FAKE_OBJECT = 1, 2
"""Of `libavutil/opt.h`."""


def has_option(name: str) -> bool:
    """Whether some demuxer, input device or protocol has an option of this name, or all have it.

    PyAV lists the options of encoders, but none of demuxers, so this asks the FFmpeg that PyAV has loaded, in the same
    way as the command `ffmpeg` does. Where that cannot be found through PyAV's module (Windows), all names pass.
    """
    try:
        ffmpeg = ctypes.CDLL(pyav.__file__)
        class_of_all, find = ffmpeg.avformat_get_class, ffmpeg.av_opt_find
    except (AttributeError, OSError):
        return True
    class_of_all.restype = find.restype = ctypes.c_void_p
    find.argtypes = (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_int, ctypes.c_int)
    anything = ctypes.byref(ctypes.c_void_p(class_of_all()))
    return bool(find(anything, name.encode(), None, _DECODING_PARAM, _SEARCH_CHILDREN | _SEARCH_FAKE_OBJECT))

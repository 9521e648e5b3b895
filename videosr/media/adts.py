"""AAC in ADTS frames (ISO/IEC 14496-3, 1.A.3), as MPEG-TS has it: each says its rate and channels anew.

Other containers say them once, so what changes midway, as broadcasts of stereo and 5.1 do, cannot be copied there.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

import av.error
from av.stream import Discard

from videosr.media import transport_stream
from videosr.media.source import codec_name, open_input

if TYPE_CHECKING:
    from av.audio.stream import AudioStream
    from av.container import InputContainer

HEADER_BYTES = 7
"""Of a frame; a header that carries a checksum has two more."""


def is_framed(data: bytes) -> bool:
    """Whether a packet is one ADTS frame, as long as its header says."""
    framed = len(data) > HEADER_BYTES and data[0] == 0xFF and data[1] & 0xF6 == 0xF0
    return framed and (data[3] & 3) << 11 | data[4] << 3 | data[5] >> 5 == len(data)


def changing(path: str | os.PathLike[str]) -> set[int]:
    """The indices of those AAC streams of an MPEG-TS whose profile, rate or channels change.

    Raises:
        InputError: it cannot be opened.
    """
    with open_input(path) as source:
        streams = [s for s in source.streams.audio if codec_name(s) == "aac" and not s.codec_context.extradata]
        if not streams:
            return set()
        varying, hidden = transport_stream.changing(os.fspath(path))
        found = {s.index for s in streams if s.id in varying}
        return found | _changing(source, [s for s in streams if s.id in hidden])


def _changing(source: InputContainer, wanted: Sequence[AudioStream]) -> set[int]:
    """The same of some streams, for which the file is read to its end by FFmpeg."""
    found: set[int] = set()
    if not wanted:
        return found
    for stream in source.streams:
        stream.discard = Discard.default if stream in wanted else Discard.all
    forms: dict[int, tuple[int, int]] = {}
    with suppress(av.error.FFmpegError):  # a damaged file: whoever muxes it will say so
        for packet in source.demux(*wanted):
            data = bytes(packet)
            if is_framed(data) and not packet.is_corrupt:
                form = data[2] & 0xFD, data[3] >> 6  # without the private bit
                if forms.setdefault(packet.stream_index, form) != form:
                    found.add(packet.stream_index)
    return found

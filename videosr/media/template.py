"""What the output's file is to say of its video stream besides what an encoder says of it.

Muxers take it from side data of a stream, which PyAV lets nobody set; but a stream that is made after another one
inherits its side data. So the header that the output's stream is made after is given the elements that say it in
Matroska, where FFmpeg's demuxer finds it.
"""

from __future__ import annotations

from videosr.media.matroska.elements import CLUSTER, CRC32, INFO, SEGMENT, TRACK_ENTRY, TRACKS, VIDEO, element, elements


def saying(template: bytes, *, video: bytes = b"", track: bytes = b"") -> bytes:
    """A Matroska file with further elements of its first track; as it was where there are none.

    Args:
        template: made by FFmpeg; what is not needed to read it is left out.
        video: elements of the track's Video.
        track: of the track itself.
    """
    if not (video or track):
        return template
    head = bytearray(template)

    def made(parent: tuple[int, ...], start: int, end: int) -> bytes:
        parts = []
        for child in elements(head, start, end):
            if child.id == CRC32 or (parent == (SEGMENT,) and child.id not in (INFO, TRACKS, CLUSTER)):
                continue
            place = (*parent, child.id)
            if place == (SEGMENT, TRACKS, TRACK_ENTRY, VIDEO):
                parts.append(element(VIDEO, bytes(head[child.data : child.end]) + video) + track)
            elif child.id in (SEGMENT, TRACKS, TRACK_ENTRY):
                parts.append(element(child.id, made(place, child.data, child.end)))
            else:
                parts.append(bytes(head[child.start : child.end]))
        return b"".join(parts)

    return made((), 0, len(head))

"""Side data of the output's video stream, such as how two views share a picture.

Muxers take it from the stream, where PyAV lets nobody set it. But a stream that is made after a template inherits the
template's side data. The templates are small Matroska files; so the Matroska elements that say the same are put into
the template, and FFmpeg's demuxer makes side data of them.
"""

from __future__ import annotations

from videosr.media.matroska.elements import CLUSTER, CRC32, INFO, SEGMENT, TRACK_ENTRY, TRACKS, VIDEO, element, elements


def saying(template: bytes, *, video: bytes = b"", track: bytes = b"") -> bytes:
    """A Matroska file with elements added to its first track; unchanged where there are none to add.

    Args:
        template: the file, as FFmpeg made it; what is not needed to read it is left out of the result.
        video: elements to add to the track's Video element.
        track: elements to add to the track itself.
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

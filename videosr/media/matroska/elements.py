"""Elements of Matroska and WebM files, and what FFmpeg's muxer leaves out of a header: the sample aspect ratio.

FFmpeg's muxer takes the aspect from a field of the stream that PyAV does not reach. H.264 and HEVC carry it inside
themselves, VP9 and AV1 do not. The display size needs a few bytes more in the video track's entry; the muxer leaves
empty space (an EBML Void) in the same entry, so nothing else in the file has to move. RFC 9559, RFC 8794.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator
from contextlib import suppress
from fractions import Fraction
from os import SEEK_END
from pathlib import Path
from typing import BinaryIO, NamedTuple

SEGMENT, INFO, TRACKS, TRACK_ENTRY, VIDEO = 0x18538067, 0x1549A966, 0x1654AE6B, 0xAE, 0xE0
CRC32, VOID, CLUSTER = 0xBF, 0xEC, 0x1F43B675
SEEK_HEAD, SEEK, SEEK_ID, SEEK_POSITION = 0x114D9B74, 0x4DBB, 0x53AB, 0x53AC
CHAPTERS, EDITION, ATOM, DISPLAY, CHAPTER_TRACK = 0x1043A770, 0x45B9, 0xB6, 0x80, 0x8F
TAGS, TAG, TARGETS, SIMPLE_TAG, TAG_NAME, TAG_STRING = 0x1254C367, 0x7373, 0x63C0, 0x67C8, 0x45A3, 0x4487
ATTACHMENTS, ATTACHED_FILE, ATTACHMENT_UID = 0x1941A469, 0x61A7, 0x46AE
ATTACHED = frozenset({0x466E, 0x4660, 0x465C})
"""Name, MIME type and content of an attachment."""
TITLE, CHAPTER_STRING = 0x7BA9, 0x85
MASTERS = frozenset({TRACK_ENTRY, SEEK, EDITION, ATOM, DISPLAY, CHAPTER_TRACK, TAG, TARGETS, SIMPLE_TAG})
"""Elements of which `tree` gives what is in them."""
TEXTS = frozenset({TITLE, CHAPTER_STRING, TAG_NAME, TAG_STRING})
DEEPEST = 50
"""Levels that elements are nested at most."""
LARGEST = 1 << 24
"""Bytes of a payload that are read at most."""
DISPLAY_WIDTH, DISPLAY_HEIGHT, DISPLAY_UNIT = 0x54B0, 0x54BA, 0x54B2


class Element(NamedTuple):
    """Where an EBML element lies in a buffer.

    Attributes:
        id: with its marker bits.
        start: of the whole element.
        data: of the payload.
        end: of the payload.
    """

    id: int
    start: int
    data: int
    end: int


class Node(NamedTuple):
    """An element apart from any file.

    Attributes:
        id: with its marker bits.
        value: the payload; of `MASTERS` the elements in it.
    """

    id: int
    value: bytes | tuple[Node, ...]

    @property
    def inside(self) -> tuple[Node, ...]:
        """The elements in it."""
        return self.value if isinstance(self.value, tuple) else ()

    @property
    def data(self) -> bytes:
        """Its payload, where it holds no elements."""
        return self.value if isinstance(self.value, bytes) else b""

    def with_inside(self, nodes: Iterable[Node]) -> Node:
        """The same element with others in it."""
        return self._replace(value=tuple(nodes))


def display_size(width: int, height: int, sar: Fraction) -> tuple[int, int]:
    """The display size in pixels that says this aspect, exactly if whole numbers can."""
    wide = width * sar
    if wide.denominator == 1 or (height / sar).denominator != 1:
        return round(wide), height
    return width, int(height / sar)


def set_display_size(path: Path, track: int, size: tuple[int, int]) -> bool:
    """Write the display size of a video track into a finished file.

    Args:
        path: a Matroska or WebM file made by FFmpeg.
        track: place of the track among the tracks, counted from 0.
        size: display width and height in pixels.

    Returns:
        Whether it was done; False if the track's entry has no room, the file being left as it was.

    Raises:
        OSError: the file cannot be read or written.
    """
    with path.open("rb+") as file:
        head = bytearray(file.read(1 << 20))
        while (tracks := _find_tracks(head)) is None:
            more = file.read(1 << 20)  # attachments may precede the tracks in files of other muxers
            if not more:
                return False
            head += more
        entries = [e for e in children(head, tracks) if e.id == TRACK_ENTRY]
        if track >= len(entries) or not _edit_entry(head, entries[track], size):
            return False
        first = next(children(head, tracks))
        if first.id == CRC32:
            head[first.data : first.end] = zlib.crc32(head[first.end : tracks.end]).to_bytes(4, "little")
        file.seek(tracks.start)
        file.write(head[tracks.start : tracks.end])
    return True


def payloads(path: Path, wanted: int) -> Iterator[bytearray]:
    """What is in the elements of a kind that stand where readers look: before the pictures, or where an index says.

    Args:
        path: a Matroska or WebM file.
        wanted: identifier of elements in the Segment.
    """
    with suppress(OSError), path.open("rb") as file:  # whoever reads it all will say so
        for found in _places(file, wanted):
            yield _payload(file, found)


def attachments(path: Path) -> list[int]:
    """The UIDs of a Matroska file's attachments, in its order, without reading what is attached; 0: it has none.

    Those that lack a name, a MIME type or content are none to FFmpeg.
    """
    uids = []
    with suppress(OSError), path.open("rb") as file:
        for found in _places(file, ATTACHMENTS):
            for attached in _walk(file, found):
                inside = (
                    {e.id: e for e in _walk(file, attached) if e.end > e.data} if attached.id == ATTACHED_FILE else {}
                )
                if inside.keys() >= ATTACHED:
                    uid = inside.get(ATTACHMENT_UID)
                    uids.append(number(bytes(_payload(file, uid))) if uid is not None else 0)
    return uids


def _places(file: BinaryIO, wanted: int) -> Iterator[Element]:
    """Where elements of a kind lie in a file."""
    file.seek(0, SEEK_END)
    size = file.tell()
    file.seek(0)
    head = bytearray(file.read(1 << 10))
    segment = next((top for top in elements(head, 0, len(head)) if top.id == SEGMENT), None)
    ahead, seen = [segment.data] if segment is not None else [], set[int]()
    while ahead:
        at = ahead.pop()
        while at < size and at not in seen:
            seen.add(at)
            found = _element_at(file, at)
            if found is None or found.id == CLUSTER:
                break
            if found.id == wanted:
                yield found
            elif found.id == SEEK_HEAD and segment is not None:
                ahead += [segment.data + position for position in _positions(_payload(file, found), wanted)]
            at = found.end


def _walk(file: BinaryIO, parent: Element) -> Iterator[Element]:
    """The elements in one that need not fit into memory."""
    at = parent.data
    while at < parent.end and (found := _element_at(file, at)) is not None:
        yield found
        at = found.end


def _element_at(file: BinaryIO, at: int) -> Element | None:
    file.seek(at)
    head = bytearray(file.read(16))
    found = next(elements(head, 0, len(head)), None)
    return found and Element(found.id, at, at + found.data, at + found.end)


def _payload(file: BinaryIO, found: Element) -> bytearray:
    file.seek(found.data)
    return bytearray(file.read(min(found.end - found.data, LARGEST)))


def _positions(seek_head: bytearray, wanted: int) -> Iterator[int]:
    """Where elements of a kind, and further indexes of elements, begin in the Segment."""
    for seek in elements(seek_head, 0, len(seek_head)):
        said = {
            entry.id: int.from_bytes(seek_head[entry.data : entry.end], "big") for entry in children(seek_head, seek)
        }
        if said.get(SEEK_ID) in (SEEK_HEAD, wanted) and SEEK_POSITION in said:
            yield said[SEEK_POSITION]


def _find_tracks(head: bytearray) -> Element | None:
    for top in elements(head, 0, len(head)):
        if top.id == SEGMENT:
            for element in elements(head, top.data, min(top.end, len(head))):
                if element.id == TRACKS:
                    return element if element.end <= len(head) else None
    return None


def _edit_entry(head: bytearray, entry: Element, size: tuple[int, int]) -> bool:
    """Rewrite one TrackEntry in place, its length unchanged."""
    inside = list(children(head, entry))
    video = next((c for c in inside if c.id == VIDEO), None)
    void = next((c for c in inside if c.id == VOID and video is not None and c.start >= video.end), None)
    if video is None or void is None:
        return False
    old = (DISPLAY_WIDTH, DISPLAY_HEIGHT, DISPLAY_UNIT)
    kept = b"".join(bytes(head[c.start : c.end]) for c in children(head, video) if c.id not in old)
    room = void.end - void.start
    for longest in (2, 3):  # one more byte, where the space that is left would be a single byte
        fields = _number(DISPLAY_WIDTH, size[0], longest) + _number(DISPLAY_HEIGHT, size[1], 2)
        payload = kept + fields
        length_bytes = video.data - video.start - 1
        if len(payload) >= (1 << (7 * length_bytes)) - 1:
            length_bytes += 1
        made = bytes([VIDEO]) + sized(len(payload), length_bytes) + payload
        left = room - (len(made) - (video.end - video.start))
        if left == 0 or left >= 2:
            break
    else:
        return False
    between = bytes(head[video.end : void.start])
    head[video.start : void.end] = made + between + filler(left)
    return True


def filler(room: int) -> bytes:
    """What says nothing in that many bytes; there is none of one byte."""
    if room == 0:
        return b""
    return bytes([VOID]) + (
        sized(room - 2, 1) + bytes(room - 2) if room < 120 else sized(room - 9, 8) + bytes(room - 9)
    )


def _number(identifier: int, value: int, longest: int) -> bytes:
    width = max(longest, (value.bit_length() + 7) // 8)
    return identifier.to_bytes(2, "big") + sized(width, 1) + value.to_bytes(width, "big")


def element(identifier: int, payload: bytes, length: int = 8) -> bytes:
    """An element; its size takes so many bytes."""
    return identifier.to_bytes((identifier.bit_length() + 7) // 8, "big") + sized(len(payload), length) + payload


def tree(data: bytes, depth: int = 0) -> tuple[Node, ...]:
    """Elements with what is in those of `MASTERS`, without checksums and empty space. Texts are made UTF-8.

    Raises:
        ValueError: they do not fill the data to its end, or are nested without reason.
    """
    made, end = [], 0
    for found in elements(bytearray(data), 0, len(data)):
        end, inside = found.end, data[found.data : found.end]
        if found.id in (CRC32, VOID):
            continue
        if found.id in MASTERS:
            if depth == DEEPEST:
                raise ValueError("elements are nested too deep")
            made.append(Node(found.id, tree(inside, depth + 1)))
        else:
            made.append(Node(found.id, _utf8(inside) if found.id in TEXTS else inside))
    if end != len(data):
        raise ValueError("elements are cut short")
    return tuple(made)


def coded(nodes: Iterable[Node]) -> bytes:
    """Elements as bytes."""
    parts = []
    for node in nodes:
        payload = node.value if isinstance(node.value, bytes) else coded(node.value)
        parts.append(element(node.id, payload, len(payload).bit_length() // 7 + 1))
    return b"".join(parts)


def summed(identifier: int, nodes: Iterable[Node]) -> bytes:
    """An element of the Segment that begins with a checksum of the others in it."""
    payload = coded(nodes)
    return element(identifier, element(CRC32, zlib.crc32(payload).to_bytes(4, "little"), 1) + payload)


def number(data: bytes) -> int:
    """An unsigned integer as an element has it."""
    return int.from_bytes(data, "big")


def _utf8(text: bytes) -> bytes:
    try:
        text.decode()
    except UnicodeDecodeError:
        return text.decode("cp1252", "replace").encode()  # as `source.clean_text` reads it
    return text


def sized(value: int, length: int) -> bytes:
    """The size of an element in so many bytes."""
    return (value | 1 << (7 * length)).to_bytes(length, "big")


def children(head: bytearray, parent: Element) -> Iterator[Element]:
    """The elements in an element, as far as they are in the buffer."""
    return elements(head, parent.data, parent.end)


def elements(head: bytearray, position: int, end: int) -> Iterator[Element]:
    """The elements between two offsets, as far as they are in the buffer."""
    while position < end:
        start = position
        identifier, position = _vint(head, position, keep_marker=True)
        size, position = _vint(head, position, keep_marker=False)
        if identifier is None or size is None:
            return
        yield Element(identifier, start, position, position + size)
        position += size


def _vint(head: bytearray, position: int, *, keep_marker: bool) -> tuple[int | None, int]:
    if position >= len(head) or head[position] == 0:
        return None, position
    length = 9 - head[position].bit_length()
    raw = head[position : position + length]
    if len(raw) < length:
        return None, position
    value = int.from_bytes(raw, "big")
    return value if keep_marker else value & ((1 << (7 * length)) - 1), position + length

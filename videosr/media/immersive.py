"""Which views a picture holds and what they surround: stereoscopic 3D and 360 degree video, into the output's file.

As Matroska says it (RFC 9559, 5.1.4.1.28.3 and 5.1.4.1.28.41 on), for `template`; FFmpeg's muxers then write it so, or
as the boxes `st3d` and `sv3d` of MP4 (Spherical Video V2 RFC).
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from pathlib import Path

from videosr.media.boxes import movie, places
from videosr.media.matroska.elements import element

STEREO, SPHERICAL = "STEREO3D", "SPHERICAL"
"""FFmpeg's names of the side data."""
_STEREO_MODE, _PROJECTION = 0x53B8, 0x7670
_TYPE, _PRIVATE, _YAW, _PITCH, _ROLL = 0x7671, 0x7672, 0x7673, 0x7674, 0x7675
_MAPPING = struct.Struct("=4i5I")
"""`AVSphericalMapping`: projection; yaw, pitch, roll in 1/65536 degrees; bounds (left, top, right, bottom) in parts of
the whole, in 1/2^32; padding."""
_PACKING = struct.Struct("=2i")
"""How `AVStereo3D` begins: type; flags, of which 1 means that the right view comes first."""
_BESIDE, _ABOVE, _IN_TURN, _LINES, _COLUMNS = 1, 2, 3, 6, 7
_MODES = {_BESIDE: (1, 11), _ABOVE: (3, 2), _IN_TURN: (13, 14), 4: (5, 4), _LINES: (7, 6), _COLUMNS: (9, 8)}
"""`AVStereo3DType` as StereoMode, left and right view first: side by side, above one another, in turn, as a
chequerboard, by lines and by columns."""
_EQUIRECTANGULAR, _CUBEMAP, _TILE = 0, 1, 2
"""`AVSphericalProjection`, as far as FFmpeg's muxers know them."""


def describable(data: Mapping[str, bytes], container: str, *, turned: bool = False) -> dict[str, bytes]:
    """What of `data` can be carried.

    Args:
        data: side data of a stream or its frames.
        container: FFmpeg's name of the muxer.
        turned: there is a display matrix as well, for which Matroska has the same element.
    """
    said = as_said(data)
    able = {kind for kind, values in said.items() if _MAKERS[kind](*values)}
    if container == "mp4" and said.get(STEREO) not in ((_BESIDE, 0), (_ABOVE, 0)):
        able.discard(STEREO)
    if container == "webm" and said.get(STEREO, (0,))[0] == _IN_TURN:
        able.discard(STEREO)
    if container in ("matroska", "webm") and turned:
        able.discard(SPHERICAL)
    return {kind: data[kind] for kind in able} if container in ("matroska", "webm", "mp4") else {}


def says_nothing(kind: str, payload: bytes) -> bool:
    """Whether side data only says that there is one view."""
    return as_said({kind: payload}).get(STEREO, (1,))[0] == 0


def says_of_views(tag: str, value: str) -> bool:
    """Whether a tag of a stream says what side data does: all that FFmpeg's demuxer of Matroska makes of StereoMode.

    But for pictures in two colours, which have no side data.
    """
    return tag == "stereo_mode" and not value.startswith("anaglyph")


def as_said(data: Mapping[str, bytes]) -> dict[str, tuple[int, ...]]:
    """What side data of these kinds says: the fields of `_PACKING` and `_MAPPING`; without what is no such struct."""
    forms = {STEREO: _PACKING, SPHERICAL: _MAPPING}
    return {kind: form.unpack_from(data[kind]) for kind, form in forms.items() if len(data.get(kind, b"")) >= form.size}


def views(data: Mapping[str, bytes]) -> tuple[int, int]:
    """How many views are beside one another, and how many above one another; of lines and columns likewise."""
    kind = as_said(data).get(STEREO, (0,))[0]
    return (2 if kind in (_BESIDE, _COLUMNS) else 1), (2 if kind in (_ABOVE, _LINES) else 1)


def without_vexu(path: Path) -> None:
    """Take Apple's account of it (`vexu`) out of a finished MP4.

    FFmpeg writes it beside the other boxes, without saying how the views are packed and how the picture is turned, and
    newer versions of it believe that alone.

    Raises:
        OSError: the file cannot be read or written.
    """
    with path.open("rb+") as file:
        begin, data = movie(file)
        for place in places(data, (b"trak", b"mdia", b"minf", b"stbl", b"stsd", b"", b"vexu")):
            file.seek(begin + place + 4)
            file.write(b"free")


def video_elements(data: Mapping[str, bytes]) -> bytes:
    """The elements of a Matroska track's Video that say what side data of the kinds that are `describable` says."""
    return b"".join(_MAKERS[kind](*values) for kind, values in as_said(data).items())


def _stereo_mode(kind: int, flags: int) -> bytes:
    """StereoMode; empty for what Matroska cannot say."""
    return element(_STEREO_MODE, bytes([_MODES[kind][flags & 1]])) if kind in _MODES else b""


def _projection(
    kind: int, yaw: int, pitch: int, roll: int, left: int, top: int, right: int, bottom: int, padding: int
) -> bytes:
    """Projection, likewise."""
    if kind in (_EQUIRECTANGULAR, _TILE):
        number, private = 1, struct.pack(">5I", 0, top, bottom, left, right)
    elif kind == _CUBEMAP and not padding:  # which is in pixels of the picture as it was
        number, private = 2, bytes(12)
    else:
        return b""
    pose = zip((_YAW, _PITCH, _ROLL), (yaw, pitch, roll), strict=True)
    fields = [element(_TYPE, bytes([number])), element(_PRIVATE, private)]
    fields += [element(name, struct.pack(">d", angle / 65536)) for name, angle in pose]
    return element(_PROJECTION, b"".join(fields))


_MAKERS: dict[str, Callable[..., bytes]] = {STEREO: _stereo_mode, SPHERICAL: _projection}

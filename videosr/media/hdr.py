"""What rides on frames beside the picture, and static HDR metadata (SMPTE ST 2086, CTA-861.3) for encoders."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

import av

from videosr.media import dolby, immersive
from videosr.media.captions import CAPTIONS
from videosr.media.hdr10plus import DYNAMIC, dynamic_message
from videosr.media.immersive import SPHERICAL, STEREO
from videosr.media.stills.picturedata import COMMENT, EXIF, ICC, IPTC, PICTURES, TEXT, XMP, XMP_EXTENSION
from videosr.media.user_data import Message

_MASTERING = struct.Struct("=20i2i")
_LIGHT = struct.Struct("=2I")
_AMBIENT = struct.Struct("=6i")
CHROMA_UNIT = Fraction(1, 50000)
LUMA_UNIT = Fraction(1, 10000)
STATIC_HDR = {"MASTERING_DISPLAY_METADATA": "mastering metadata", "CONTENT_LIGHT_LEVEL": "content light level"}
"""Side data of frames that describes the whole stream and that encoders can write again, by what people call it."""
LATER = {kind: f"{what} that begins or changes in mid-film" for kind, what in STATIC_HDR.items()}
"""What encoders cannot write of it: they are told once, of the whole stream."""
AMBIENT = "AMBIENT_VIEWING_ENVIRONMENT"
"""FFmpeg's name of it."""
DYNAMIC_OF_PARTS = f"{DYNAMIC} of parts"
_PARSED_RPU = "DOVI_METADATA"
FURTHER_SIDE_DATA = {
    CAPTIONS: "embedded captions (A53)",
    DYNAMIC: "HDR10+ dynamic metadata",
    DYNAMIC_OF_PARTS: "HDR10+ dynamic metadata of parts of the picture",
    "DYNAMIC_HDR_VIVID": "HDR Vivid metadata",
    dolby.RPU: "Dolby Vision metadata",
    _PARSED_RPU: "Dolby Vision metadata",
    ICC: "ICC profile",
    STEREO: "stereoscopic 3D description",
    SPHERICAL: "spherical (360 degree) description",
    "S12M_TIMECODE": "frame timecodes",
    AMBIENT: "ambient viewing environment",
    EXIF: "EXIF data",
    XMP: "XMP data",
    XMP_EXTENSION: "the extension of XMP data",
    IPTC: "IPTC data",
    PICTURES: "further pictures in the file, such as a gain map,",
    COMMENT: "comment in the picture's file",
    TEXT: "text in the picture's file",
}
"""Side data that a decoder finds and that no encoder of PyAV can be given, by what people call it."""
TRAVELLING = frozenset({CAPTIONS, DYNAMIC, AMBIENT, dolby.RPU, ICC, EXIF, XMP, TEXT})
"""What frames carry of it: `riders` and `picturedata` write it where there is a place for it."""


@dataclass(frozen=True, slots=True)
class MasteringDisplay:
    """The display a film was graded on.

    Attributes:
        red: CIE 1931 x, y.
        green: likewise.
        blue: likewise.
        white: likewise.
        darkest: cd/m2.
        brightest: cd/m2.
    """

    red: tuple[Fraction, Fraction]
    green: tuple[Fraction, Fraction]
    blue: tuple[Fraction, Fraction]
    white: tuple[Fraction, Fraction]
    darkest: Fraction
    brightest: Fraction

    @staticmethod
    def parse(payload: bytes) -> MasteringDisplay | None:
        """From `AVMasteringDisplayMetadata`; None if the struct is foreign or incomplete."""
        if len(payload) < _MASTERING.size:
            return None
        *numbers, has_primaries, has_luminance = _MASTERING.unpack_from(payload)
        denominators = numbers[1::2]
        if not (has_primaries and has_luminance) or 0 in denominators:
            return None
        v = [Fraction(n, d) for n, d in zip(numbers[::2], denominators, strict=True)]
        return MasteringDisplay((v[0], v[1]), (v[2], v[3]), (v[4], v[5]), (v[6], v[7]), v[8], v[9])

    def for_x265(self) -> str:
        """The value of x265's `master-display`: chromaticity in units of 0.00002, luminance of 0.0001 cd/m2."""

        def pair(xy: tuple[Fraction, Fraction]) -> str:
            return f"({round(xy[0] / CHROMA_UNIT)},{round(xy[1] / CHROMA_UNIT)})"

        light = f"({round(self.brightest / LUMA_UNIT)},{round(self.darkest / LUMA_UNIT)})"
        return f"G{pair(self.green)}B{pair(self.blue)}R{pair(self.red)}WP{pair(self.white)}L{light}"

    def for_svtav1(self) -> str:
        """The value of SVT-AV1's `mastering-display`: plain decimals."""

        def pair(xy: tuple[Fraction, Fraction], digits: int = 5) -> str:
            return f"({float(xy[0]):.{digits}f},{float(xy[1]):.{digits}f})"

        light = pair((self.brightest, self.darkest), 4)
        return f"G{pair(self.green)}B{pair(self.blue)}R{pair(self.red)}WP{pair(self.white)}L{light}"


def content_light(payload: bytes) -> tuple[int, int] | None:
    """(MaxCLL, MaxFALL) in cd/m2 from `AVContentLightMetadata`; None if the struct is foreign."""
    if len(payload) < _LIGHT.size:
        return None
    brightest, average = _LIGHT.unpack_from(payload)
    return brightest, average


def same_static(name: str, a: bytes, b: bytes) -> bool:
    """Whether two payloads of one kind of static metadata (`STATIC_HDR`) say the same, as finely as codecs write it.

    AV1 has chromaticities in 1/65536 and luminance in 1/256 and 1/16384 cd/m2, HEVC in 1/50000 and 1/10000.
    """
    if a == b:
        return True
    if name == "CONTENT_LIGHT_LEVEL":
        return content_light(a) == content_light(b)
    one, other = MasteringDisplay.parse(a), MasteringDisplay.parse(b)
    if one is None or other is None:
        return one == other
    places = (one.red, one.green, one.blue, one.white), (other.red, other.green, other.blue, other.white)
    pairs = [(x, y) for p, q in zip(*places, strict=True) for x, y in zip(p, q, strict=True)]
    return (
        all(abs(x - y) <= CHROMA_UNIT for x, y in pairs)
        and abs(one.darkest - other.darkest) <= LUMA_UNIT
        and abs(one.brightest - other.brightest) <= Fraction(1, 100)
    )


def ambient_message(data: bytes) -> list[Message]:
    """The light in which a picture is meant to be seen (H.265, D.2.39), if an `AVAmbientViewingEnvironment` says it."""
    if len(data) < _AMBIENT.size or 0 in (numbers := _AMBIENT.unpack_from(data))[1::2]:
        return []
    light, x, y = (Fraction(a, b) for a, b in zip(numbers[::2], numbers[1::2], strict=True))
    values = round(light * 10000), round(x / CHROMA_UNIT), round(y / CHROMA_UNIT)
    if not (0 < values[0] < 2**32 and max(values[1:]) <= 50000 and min(values[1:]) >= 0):
        return []
    return [Message(struct.pack(">I2H", *values), kind=148)]


def encoder_parameters(codec: str, side_data: tuple[tuple[str, bytes], ...]) -> dict[str, str]:
    """The parameters that make an encoder write this metadata again.

    Args:
        codec: FFmpeg's name of the encoder; only libx265 and libsvtav1 can write it.
        side_data: (FFmpeg side-data name, payload) pairs of a frame.
    """
    names = {"libx265": ("master-display", "max-cll"), "libsvtav1": ("mastering-display", "content-light")}.get(codec)
    found: dict[str, str] = {}
    if names is None:
        return found
    for kind, payload in side_data:
        if kind == "MASTERING_DISPLAY_METADATA" and (display := MasteringDisplay.parse(payload)) is not None:
            found[names[0]] = display.for_x265() if codec == "libx265" else display.for_svtav1()
        elif kind == "CONTENT_LIGHT_LEVEL" and (light := content_light(payload)) is not None:
            found[names[1]] = f"{light[0]},{light[1]}"
    return found


def unwritten(codec: str, side_data: tuple[tuple[str, bytes], ...]) -> list[tuple[str, str]]:
    """The static metadata that an encoder will not write: what it is, and why.

    Args:
        codec: FFmpeg's name of the encoder.
        side_data: (FFmpeg side-data name, payload) pairs of a frame.
    """
    found = []
    for kind, payload in side_data:
        if says_nothing(kind, payload) or encoder_parameters(codec, ((kind, payload),)):
            continue
        able = codec in ("libx265", "libsvtav1")
        why = "it is incomplete" if able else f"{codec} cannot write it (libx265 and libsvtav1 can)"
        found.append((STATIC_HDR[kind], why))
    return found


def says_nothing(kind: str, payload: bytes) -> bool:
    """Whether metadata says nothing: light levels of 0 mean unknown (CTA-861.3), and encoders do not write them."""
    return kind == "CONTENT_LIGHT_LEVEL" and content_light(payload) == (0, 0)


def later(first: Mapping[str, bytes], rides: Mapping[str, bytes]) -> set[str]:
    """The kinds of static metadata that a frame has, and that the film did not begin with, or with other values.

    Args:
        first: static metadata of the film's beginning, by name.
        rides: side data of the frame, by name.
    """
    return {
        kind
        for kind in STATIC_HDR.keys() & rides.keys()
        if not says_nothing(kind, rides[kind]) and not (kind in first and same_static(kind, first[kind], rides[kind]))
    }


class SideData:
    """Notes what the frames of one stream carry.

    Args:
        context: of the stream, opened.

    Attributes:
        static: static HDR side data, by name; frames inherit it from earlier ones.
        dolby: the stream's configuration, if it is Dolby Vision that can be carried; else empty.
        views: what is said of views and surroundings (`immersive`), by name, as it was said first.
    """

    def __init__(self, context: av.VideoCodecContext) -> None:
        coded = context.coded_side_data
        names = {kind.lower(): kind for kind in STATIC_HDR}
        self.static: tuple[tuple[str, bytes], ...] = tuple(
            sorted((names[k], bytes(v)) for k, v in coded.items() if k in names)
        )
        configuration = bytes(coded.get(dolby.CONFIGURATION, b""))
        self.dolby = configuration if dolby.can_be_carried(configuration) else b""
        self._first: dict[str, bytes] | None = None  # static data of the first frame
        self._later: set[str] = set()
        self._names = dict(FURTHER_SIDE_DATA)
        if dolby.is_nothing_else(configuration):
            needed = "Dolby Vision metadata, without which its colours are wrong,"
            self._names |= {dolby.RPU: needed, _PARSED_RPU: needed}
        self._met = {dolby.RPU if self.dolby else _PARSED_RPU} if configuration else set[str]()
        self.views: dict[str, bytes] = {}

    def of(self, rides: Mapping[str, bytes]) -> tuple[tuple[str, bytes], ...]:
        """What a frame carries on which this rides: what travels with it, and the static data that holds for it."""
        for kind, data in rides.items():
            if kind in STATIC_HDR:
                self.static = tuple(sorted((dict(self.static) | {kind: data}).items()))
            elif kind in FURTHER_SIDE_DATA and not immersive.says_nothing(kind, data):
                self._met.add(self._kind(kind, data))
                if kind in (STEREO, SPHERICAL):
                    self.views.setdefault(kind, data)
        if self._first is None:
            self._first = dict(self.static)
        self._later |= later(self._first, rides)
        travelling = TRAVELLING if self.dolby else TRAVELLING - {dolby.RPU}
        return (*((kind, data) for kind, data in rides.items() if kind in travelling), *self.static)

    def _kind(self, kind: str, data: bytes) -> str:
        """The kind, as far as it counts for what can be kept."""
        if kind == DYNAMIC and not dynamic_message(data):
            return DYNAMIC_OF_PARTS
        if kind in (dolby.RPU, _PARSED_RPU):
            return dolby.RPU if self.dolby else _PARSED_RPU
        return kind

    def losses(self, kept: frozenset[str]) -> list[str]:
        """What was met so far, without the kinds that are kept, by what people call it."""
        met = dict.fromkeys(line for kind, line in self._names.items() if kind in self._met - kept)
        return [*met, *(line for kind, line in LATER.items() if kind in self._later)]

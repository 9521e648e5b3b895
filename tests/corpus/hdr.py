"""High dynamic range, captions, and dynamic metadata: what can be carried is, what cannot is said or refused."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import av
import numpy as np

from corpus.case import Case, Mismatch, Outcome
from corpus.colour import write
from corpus.films import FAST, clip
from corpus.reader import File

PQ, HLG = 16, 18
"""Transfer characteristics of SMPTE ST 2084 and ARIB STD-B67, H.273 table 3."""
DISPLAY = "G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,50)"
LIGHT = (1000, 400)
"""MaxCLL and MaxFALL in cd/m2."""
SVT_DISPLAY = "G(0.265,0.690)B(0.150,0.060)R(0.680,0.320)WP(0.3127,0.3290)L(1000,0.005)"
CHROMATICITIES = (0.680, 0.320, 0.265, 0.690, 0.150, 0.060, 0.3127, 0.3290)
"""x and y of red, green, blue and white of both of these; 1000 and 0.005 cd/m2."""


def film(folder: Path, codec: str, transfer: int, options: dict[str, str]) -> Path:
    """Three frames of 10-bit BT.2020 video."""
    y, x = np.mgrid[0:96, 0:128]
    luma = (200 + 4 * x + y).astype(np.uint16)
    chroma = (400 + 2 * x[:48, :64] + y[:48, :64]).astype(np.uint16)
    color = (9, 1, 9, transfer, 3)
    planes = [luma, chroma, 900 - chroma]
    return write(folder / "in.mkv", planes, "yuv420p10le", color, codec=codec, options=options, frames=3)


def x265(folder: Path, transfer: int = PQ, *, static: bool = True) -> Path:
    """H.265, with static metadata or without."""
    params = "log-level=none" + (f":master-display={DISPLAY}:max-cll={LIGHT[0]},{LIGHT[1]}:hdr10=1" if static else "")
    return film(folder, "libx265", transfer, {"preset": "ultrafast", "x265-params": params})


def av1(folder: Path) -> Path:
    """AV1 with static metadata."""
    params = f"mastering-display={SVT_DISPLAY}:content-light={LIGHT[0]},{LIGHT[1]}"
    return film(folder, "libsvtav1", PQ, {"preset": "12", "svtav1-params": params})


def _static(file: File) -> tuple[list[float], list[float], tuple[int, int]]:
    """Chromaticities, luminances, (MaxCLL, MaxFALL) by FFmpeg's structs."""
    data = {k.upper(): v for k, v in file.coded_side_data.items()} | file.pictures[0].side_data
    try:
        display, light = data["MASTERING_DISPLAY_METADATA"], data["CONTENT_LIGHT_LEVEL"]
    except KeyError as exc:
        raise Mismatch(f"{exc} is missing, there are {sorted(data)}") from exc
    numbers = struct.unpack_from("=20i", display)
    values = [a / b for a, b in zip(numbers[::2], numbers[1::2], strict=True)]
    brightest, average = struct.unpack_from("=2I", light)
    return values[:8], values[8:], (brightest, average)


def _static_kept(outcome: Outcome) -> str:
    assert outcome.after is not None
    places, luminances, light = _static(outcome.after)
    worst = max(abs(a - b) for a, b in zip(places, CHROMATICITIES, strict=True))
    if worst > 2e-5 or light != LIGHT or abs(luminances[0] - 0.005) > 1e-4 or abs(luminances[1] - 1000) > 0.1:
        raise Mismatch(f"{places} {luminances} {light}")
    return f"chromaticities within {worst:.5f}"


def _riders_kept(outcome: Outcome, *, kind: str) -> str:
    """Of FFmpeg's name, other ones on each frame."""
    assert outcome.before is not None
    assert outcome.after is not None
    was, now = ([p.side_data.get(kind) for p in file.pictures] for file in (outcome.before, outcome.after))
    if was != now or None in was or len(set(was)) != len(was):
        raise Mismatch(f"{now}, expected {was}")
    return f"on {len(now)} frames"


def _bars_doubled(outcome: Outcome) -> str:
    assert outcome.after is not None
    now = [p.side_data.get("DOVI_RPU_BUFFER") for p in outcome.after.pictures]
    if sorted(now, key=str) != sorted((escaped(rpu((0, 0, 20 + 2 * n, 24), 2000 + n)) for n in range(3)), key=str):
        raise Mismatch(f"{now}")
    if "dovi_conf" not in outcome.after.coded_side_data:
        raise Mismatch(f"{outcome.after.coded_side_data}")
    return f"on {len(now)} frames"


# -- what rides in the coded video --------------------------------------------------------------------------------


def escaped(payload: bytes) -> bytes:
    """With emulation prevention (ITU-T H.264 7.4.1, H.265 7.4.2)."""
    made = bytearray()
    for byte in payload:
        if made[-2:] == b"\0\0" and byte <= 3:
            made.append(3)
        made.append(byte)
    return bytes(made)


def sei(header: bytes, payload: bytes, kind: int = 4) -> bytes:
    """A unit with one message, of user data registered by ITU-T T.35 (payload type 4) if not told otherwise."""
    return header + escaped(bytes([kind, len(payload)]) + payload) + b"\x80"


def bits(*fields: tuple[int, int]) -> bytes:
    """(value, width) one behind the other, filled up with zeros."""
    text = "".join(f"{value:0{width}b}" for value, width in fields)
    text += "0" * (-len(text) % 8)
    return bytes(int(text[i : i + 8], 2) for i in range(0, len(text), 8))


def captions(number: int) -> bytes:
    """A unit with a picture's captions: three triplets of CTA-608 in A/53 part 4 user data, the last with zeros."""
    triplets = b"\xfc\x94\x2c\xfd" + bytes([number // 128 | 128, number % 128 | 128]) + b"\xfc\0\0"
    return sei(H264_SEI, b"\xb5\x00\x31GA94\x03\x43\xff" + triplets + b"\xff")


HDR10_PLUS = b"\xb5\x00\x3c\x00\x01\x04\x01" + bits(
    (1, 2),
    (400, 27),
    (0, 1),
    (50000, 17),
    (40000, 17),
    (30000, 17),
    (9000, 17),
    (0, 4),
    (0, 10),
    (0, 1),
    (0, 1),
    (0, 1),
)
"""SMPTE ST 2094-40, one window, no curve."""


def hdr10_plus(number: int) -> bytes:
    """A unit with a picture's HDR10+ metadata."""
    text = bytearray(HDR10_PLUS)
    text[-6] = number
    return sei(HEVC_SEI, bytes(text))


def crc32(data: bytes) -> bytes:
    """As systems have it (ISO/IEC 13818-1, annex A), bit by bit."""
    value = 0xFFFFFFFF
    for byte in data:
        for bit in range(7, -1, -1):
            value = (value << 1 ^ (0x04C11DB7 if (value >> 31 ^ byte >> bit) & 1 else 0)) & 0xFFFFFFFF
    return value.to_bytes(4)


def ue(value: int) -> tuple[int, int]:
    """An unsigned Exp-Golomb number (H.265, 9.2)."""
    return value + 1, 2 * (value + 1).bit_length() - 1


def rpu(bars: tuple[int, int, int, int] | None = None, brightness: int = 2000) -> bytes:
    """Dolby Vision's reference processing unit of profile 8 (ETSI GS CCM 001): codes as they are, in a matrix of ones.

    `bars` are columns and rows at the left, right, top and bottom that are black; `brightness` the greatest, of 4095.
    """
    header = ((2, 6), (18, 11), (1, 4), (0, 4), (1, 1), (0, 1), (0, 2), ue(23), (1, 2), (0, 1), ue(2), ue(2), ue(4),
              (0, 1), (0, 3), (0, 1), (1, 1), (1, 1), (0, 1))  # fmt: skip
    ends = (ue(0), (0, 10), (1023, 10))
    curve = (ue(0), ue(0), (0, 1), ue(0), (0, 23), ue(1), (0, 23))  # 0 + 1 x: the second is se(v) of 1
    mapping = (ue(0), ue(0), ue(0), *ends * 3, ue(0), ue(0), *curve * 3)
    display = (ue(0), ue(0), ue(1), *[(8192, 16), *[(0, 16)] * 3] * 2, (8192, 16), *[(0, 32)] * 3,
               *[(16384, 16), *[(0, 16)] * 3] * 2, (16384, 16), (65535, 16), (0, 16), (0, 16), (0, 32), (12, 5), (0, 2),
               (0, 2), (1, 2), (7, 12), (3079, 12), (42, 10))  # fmt: skip
    blocks: list[tuple[tuple[int, int], ...]] = [(ue(5), (1, 8), (0, 12), (brightness, 12), (1000, 12), (0, 4))]
    if bars is not None:
        blocks.append((ue(7), (5, 8), *((bar, 13) for bar in bars), (0, 4)))
    before = (*header, *mapping, *display, ue(len(blocks)))
    aligned = (0, -sum(width for _, width in before) % 8)
    content = bits(*before, aligned, *(field for block in blocks for field in block))
    return b"\x19" + content + crc32(content) + b"\x80"


def barred(number: int) -> bytes:
    """A unit with black bars and a brightness of its own."""
    return rpu_unit(rpu((0, 0, 10 + number, 12), 2000 + number))


def rpu_unit(content: bytes) -> bytes:
    """A unit of type 62, behind the picture's slices."""
    return b"\x7c\x01" + escaped(content)


TURNED = bits((0, 3), (0x4000, 16), (1, 1), (0, 1))
"""Display orientation (H.264 D.1.27, payload type 47): 90 degrees anticlockwise, for the picture it comes with."""
H264_SEI, HEVC_SEI = b"\x06", b"\x4e\x01"


def with_units(
    folder: Path,
    source: Callable[[Path], Path],
    unit: bytes | Callable[[int], bytes],
    *,
    behind: bool = False,
    begin: int = 0,
) -> Path:
    """A film, with a unit (lengths of four bytes) put before, or behind, every picture from a number on.

    `unit` may depend on the picture's number, counted as they are coded.
    """
    plain = source(folder)
    plain = plain.rename(folder / f"plain{plain.suffix}")
    path = folder / f"in{plain.suffix}"
    with av.open(str(plain)) as a, av.open(str(path), "w") as b:
        streams = [b.add_stream_from_template(stream) for stream in a.streams]
        number = -1
        for packet in a.demux():
            if packet.size == 0:
                continue
            if packet.stream.type != "video":
                packet.stream = streams[packet.stream_index]
                b.mux(packet)
                continue
            number += 1
            made = unit(number) if callable(unit) else unit
            more = struct.pack(">I", len(made)) + made if number >= begin else b""
            longer = av.Packet(bytes(packet) + more if behind else more + bytes(packet))
            longer.stream, longer.time_base = streams[packet.stream_index], packet.time_base
            longer.pts, longer.dts = packet.pts, packet.dts
            longer.duration, longer.is_keyframe = packet.duration, packet.is_keyframe
            b.mux(longer)
    plain.unlink()
    return path


def dolby(folder: Path, profile: int = 8, compatible: int = 1, unit: Callable[[int], bytes] | None = None) -> Path:
    """An MP4 that says it is Dolby Vision (Dolby Vision streams within the ISO base media format)."""
    mkv, path = x265(folder), folder / "in.mp4"
    if unit is not None:
        mkv = with_units(folder, lambda folder: mkv, unit, behind=True)
    with av.open(str(mkv)) as a, av.open(str(path), "w") as b:
        stream = b.add_stream_from_template(a.streams.video[0])
        for packet in a.demux(a.streams.video[0]):
            if packet.size:
                packet.stream = stream
                b.mux(packet)
    mkv.unlink()
    level = 1
    layers = 0b111 if profile == 7 else 0b101
    record = bytes([1, 0, profile << 1 | level >> 5, (level & 31) << 3 | layers, compatible << 4]) + bytes(19)
    box = struct.pack(">I", 8 + len(record)) + (b"dvvC" if profile > 7 else b"dvcC") + record
    data = bytearray(path.read_bytes())
    at = data.index(b"hvcC") - 4
    at += struct.unpack_from(">I", data, at)[0]
    for name in (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd", b"hev1", b"hvc1"):
        place = data.rfind(name, 0, at)
        if place > 0 and place > data.index(b"moov") - 1:
            size = struct.unpack_from(">I", data, place - 4)[0]
            struct.pack_into(">I", data, place - 4, size + len(box))
    data[at:at] = box
    path.write_bytes(data)
    return path


def cases() -> Iterator[Case]:
    """All of them."""
    case = partial(Case, group="hdr", options=FAST, silent=True)
    kept = "PQ, primaries, mastering display and light levels kept"
    for end in ("mkv", "mp4"):
        yield case(name=f"HDR10 in H.265 to H.265 in {end}", make=x265, check=_static_kept, expected=kept,
                   output=f"out.{end}", quick=True)  # fmt: skip
    yield case(name="HDR10 in AV1 to H.265", make=av1, check=_static_kept, expected=kept)
    yield case(name="HDR10 in H.265 to AV1", make=x265, check=_static_kept, expected=kept,
               options=("--codec", "libsvtav1", "--preset", "12"))  # fmt: skip
    yield case(name="HDR10 in AV1 to AV1 in webm", make=av1, check=_static_kept, expected=kept, output="out.webm",
               options=("--preset", "12"))  # fmt: skip
    yield case(name="HDR10 to an encoder that cannot write it", make=x265, options=("--codec", "ffv1"), silent=False,
               says="HDR mastering metadata is lost", expected="said")  # fmt: skip
    yield case(name="HDR10 to an encoder that cannot write it, --strict", make=x265, code=1, silent=False,
               options=("--codec", "ffv1", "--strict"), says="--strict forbids", expected="refused")  # fmt: skip
    for name, transfer in (("PQ without metadata", PQ), ("HLG", HLG)):
        yield case(name=name, make=partial(x265, transfer=transfer, static=False), expected="tags kept",
                   quick=transfer == HLG)  # fmt: skip
    captions_kept, dynamic_kept = (partial(_riders_kept, kind=kind) for kind in ("A53_CC", "DYNAMIC_HDR_PLUS"))
    film_with_captions = partial(with_units, source=clip, unit=captions)
    for end, codec, options in (
        ("mkv", "H.264", FAST),
        ("mp4", "H.264", FAST),
        ("mov", "H.265", ("--codec", "libx265", "--preset", "medium")),
        ("mkv", "AV1", ("--codec", "libsvtav1", "--preset", "8")),
        ("webm", "AV1", ("--preset", "8")),
    ):
        yield case(name=f"A/53 captions to {codec} in {end}", make=film_with_captions, check=captions_kept,
                   expected="the same on every frame", output=f"out.{end}", options=options, quick=True)  # fmt: skip
    lost = {"make": film_with_captions, "says": "embedded captions (A53) cannot be kept", "silent": False}
    yield case(name="A/53 captions to FFV1", options=("--codec", "ffv1"), expected="said before work starts", **lost)
    yield case(name="A/53 captions to FFV1, --strict", options=("--codec", "ffv1", "--strict"), code=1,
               expected="refused", **lost)  # fmt: skip
    bright = partial(with_units, source=x265, unit=hdr10_plus)
    for end, codec, options in (
        ("mkv", "H.265", FAST),
        ("mp4", "H.265", FAST),
        ("webm", "AV1", ("--preset", "12")),
    ):
        yield case(name=f"HDR10+ to {codec} in {end}", make=bright, check=dynamic_kept,
                   expected="the same on every frame", output=f"out.{end}", options=options, quick=True)  # fmt: skip
    lost = {"make": bright, "says": "HDR10+ dynamic metadata cannot be kept", "silent": False}
    yield case(name="HDR10+ to FFV1", options=("--codec", "ffv1"), expected="said before work starts", **lost)
    yield case(name="HDR10+ to FFV1, --strict", options=("--codec", "ffv1", "--strict"), code=1, expected="refused",
               **lost)  # fmt: skip
    vision = partial(dolby, unit=barred)
    for end in ("mkv", "mp4"):
        yield case(name=f"Dolby Vision of profile 8.1 in {end}", make=vision, check=_bars_doubled, output=f"out.{end}",
                   expected="kept on every frame, its black bars doubled", quick=True)  # fmt: skip
    by_units = partial(with_units, source=x265, unit=barred, behind=True)
    for name, make, options in (
        ("Dolby Vision to AV1", vision, ("--codec", "libsvtav1", "--preset", "12")),
        ("Dolby Vision of two layers", partial(dolby, profile=7, compatible=6, unit=barred), FAST),
        ("Dolby Vision by its units alone", by_units, FAST),
    ):
        lost = {"make": make, "says": "Dolby Vision", "silent": False, "quick": True}
        yield case(name=name, options=options, expected="cannot be kept, said before work starts", **lost)
        yield case(name=f"{name}, --strict", code=1, options=(*options, "--strict"), expected="refused", **lost)

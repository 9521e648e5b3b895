"""What a video stream's colour tags mean, and what is assumed where they are missing.

The rule is the one players and FFmpeg's own filters use: an untagged picture of standard-definition size is BT.601,
a larger one BT.709, but a still image BT.601 at any size if it is full range (JFIF); untagged Y'CbCr is limited range;
4:2:0 chroma lies to the left as in MPEG-2, H.264 and HEVC.
Primaries and transfer are never guessed: they are carried along as found.
"""

from __future__ import annotations

import av

from videosr.frame import UNSPECIFIED_CODE, ColorSpec, Matrix, PixelFormat, Range, Siting

BT2020_PRIMARIES = 9
CENTERED_CODECS = frozenset({"mpeg1video", "mjpeg", "mjpegb", "ljpeg", "webp", "webp_anim", "h261", "h263", "h263p"})
"""Codecs whose 4:2:0 chroma lies in the middle of four luma samples (MPEG-1, JPEG and H.263 siting)."""


def resolve_color(
    tagged: ColorSpec, fmt: PixelFormat, height: int, width: int, *, codec: str = "", full_range_format: bool = False
) -> tuple[ColorSpec, list[str]]:
    """Fill in what the stream does not say.

    Args:
        tagged: the colour as the stream states it, with UNSPECIFIED where it does not.
        fmt: the planar format of its frames.
        height: rows of luma samples.
        width: columns of luma samples.
        codec: FFmpeg's name of the codec, which may imply matrix, range and siting.
        full_range_format: the source's pixel format implies full range (FFmpeg's `yuvj*`).

    Returns:
        The resolved colour, and one phrase for each guess that matters to how the picture is read.
    """
    guesses: list[str] = []
    if fmt.family == "rgb":
        return (
            ColorSpec(
                matrix=Matrix.RGB,
                range=tagged.range if tagged.range != Range.UNSPECIFIED else Range.FULL,
                primaries=tagged.primaries,
                transfer=tagged.transfer,
            ),
            guesses,
        )

    range_ = tagged.range
    if full_range_format:
        range_ = Range.FULL
    elif range_ == Range.UNSPECIFIED:
        range_ = Range.LIMITED
        if fmt.family == "gray" and codec in STILL_CODECS:
            range_ = Range.FULL
        guesses.append(f"range {range_.name.lower()}")

    matrix = tagged.matrix
    if matrix in (Matrix.UNSPECIFIED, Matrix.RGB):  # RGB on Y'CbCr planes is a mislabelled stream
        matrix = _guess_matrix(tagged.primaries, height, width, full_range_format and codec in STILL_CODECS)
        if fmt.family != "gray":
            guesses.append(f"matrix {matrix.name}")

    siting = Siting.UNSPECIFIED
    if fmt.family == "yuv" and (fmt.log2_w or fmt.log2_h):
        siting = tagged.siting
        if siting == Siting.UNSPECIFIED:
            siting = _guess_siting(fmt, matrix, codec, full_range_format)
            guesses.append(f"chroma siting {siting.name.lower()}")
    return (
        ColorSpec(matrix=matrix, range=range_, primaries=tagged.primaries, transfer=tagged.transfer, siting=siting),
        guesses,
    )


# fmt: off
STILL_CODECS = frozenset({
    "png", "apng", "mjpeg", "webp", "tiff", "bmp", "pbm", "pgm", "ppm", "pgmyuv", "pam", "jpeg2000", "jpegls", "jpegxl",
    "dpx", "fits", "psd", "sgi", "sunrast", "targa", "xbm", "xwd",
})
# fmt: on
"""Codecs of still images, whose grey is full range."""


def _guess_matrix(primaries: int, height: int, width: int, jfif: bool) -> Matrix:
    """The usual matrix of a picture of that size."""
    if primaries == BT2020_PRIMARIES:
        return Matrix.BT2020_NCL
    if jfif:
        return Matrix.BT470BG  # whatever the size
    if height > 576 or width > 1024:
        return Matrix.BT709
    return Matrix.BT470BG if height in (576, 288) else Matrix.SMPTE170M


def _guess_siting(fmt: PixelFormat, matrix: Matrix, codec: str, full_range_format: bool) -> Siting:
    """The usual place of chroma samples."""
    if full_range_format or codec in CENTERED_CODECS:
        return Siting.CENTER
    if matrix in (Matrix.BT2020_NCL, Matrix.BT2020_CL, Matrix.ICTCP) and fmt.log2_h:
        return Siting.TOPLEFT
    return Siting.LEFT


def tagged_color(matrix: int, range_: int, primaries: int, transfer: int, siting: int) -> ColorSpec:
    """A ColorSpec from FFmpeg's raw numbers; reserved and unknown ones count as unspecified."""
    return ColorSpec(
        matrix=Matrix(matrix) if matrix in Matrix else Matrix.UNSPECIFIED,
        range=Range(range_) if range_ in Range else Range.UNSPECIFIED,
        primaries=primaries if primaries not in (0, 3) else UNSPECIFIED_CODE,
        transfer=transfer if transfer not in (0, 3) else UNSPECIFIED_CODE,
        siting=Siting(siting) if siting in Siting else Siting.UNSPECIFIED,
    )


def color_of(
    picture: av.VideoFrame, fmt: PixelFormat, codec: str, *, coded_format: str = "", before: ColorSpec | None = None
) -> tuple[ColorSpec, list[str]]:
    """The colour of a picture as it is to be read, and what of it was guessed (`resolve_color`).

    Args:
        picture: from a decoder.
        fmt: its planar format.
        codec: FFmpeg's name of the codec.
        coded_format: FFmpeg's name of the pixel format, where that of the picture is another (on a GPU).
        before: colour of the picture before it, which stands for what this one does not tag.
    """
    tagged = tagged_color(
        picture.colorspace, picture.color_range, picture.color_primaries, picture.color_trc, picture.chroma_location
    )
    if before is not None:
        tagged = completed(tagged, before)
    full = (coded_format or picture.format.name).startswith("yuvj")
    return resolve_color(tagged, fmt, picture.height, picture.width, codec=codec, full_range_format=full)


INEXACT = ("primaries", "transfer")
"""Of a colour, what pictures are not converted to."""
_ALIKE: dict[str, dict[int, int]] = {
    "matrix": {Matrix.SMPTE170M: Matrix.BT470BG},
    "primaries": {7: 6},
    "transfer": {6: 1, 14: 1, 15: 1},
}
"""Code points that mean what another one does (H.273, tables 2 to 4)."""


def completed(tagged: ColorSpec, before: ColorSpec) -> ColorSpec:
    """A picture's colour where it follows another of its kind: what it does not state is as before.

    Args:
        tagged: the colour as the picture states it.
        before: of the other one, resolved.
    """
    matrix = before.matrix if tagged.matrix in (Matrix.UNSPECIFIED, Matrix.RGB) else tagged.matrix
    return ColorSpec(
        matrix=matrix,
        range=tagged.range or before.range,
        primaries=before.primaries if tagged.primaries == UNSPECIFIED_CODE else tagged.primaries,
        transfer=before.transfer if tagged.transfer == UNSPECIFIED_CODE else tagged.transfer,
        siting=tagged.siting or before.siting,
    )


def changes(before: ColorSpec, now: ColorSpec) -> dict[str, str]:
    """By its name, what makes a colour another one, in words; empty where both are read alike.

    Primaries and transfer that only one of them states are no difference: nothing is known of the other's.

    Args:
        before: resolved.
        now: resolved.
    """
    found = {}
    for name in ("matrix", "range", "siting", *INEXACT):
        was, becomes = getattr(before, name), getattr(now, name)
        if name in INEXACT and UNSPECIFIED_CODE in (was, becomes):
            continue
        alike = _ALIKE.get(name, {})
        if alike.get(was, was) != alike.get(becomes, becomes):
            words = [getattr(code, "name", str(code)).lower() for code in (was, becomes)]
            found[name] = f"{name} {words[0]} to {words[1]}"
    return found

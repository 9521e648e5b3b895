"""Colour: every usual way to code a picture, checked sample by sample against `reference`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from corpus import reference
from corpus.case import Case, Mismatch, Outcome
from corpus.network import mixer
from corpus.reader import Plane
from corpus.reference import CENTER, FULL, LEFT, LIMITED, TOPLEFT, Coding

HEIGHT, WIDTH = 24, 32
RIM = 5
"""Input samples at the picture's edges that are not compared: what lies outside is anybody's guess."""
STANDARDS = {
    "BT.601-525": (6, 6, 6),
    "BT.601-625": (5, 5, 6),
    "BT.709": (1, 1, 1),
    "BT.2020nc": (9, 9, 14),
}
"""Matrix, primaries and transfer of each, H.273 code points."""
LAYOUTS = {
    "4:2:0 left": ("yuv420p", 2, 2, LEFT),
    "4:2:0 topleft": ("yuv420p", 2, 2, TOPLEFT),
    "4:2:0 center": ("yuv420p", 2, 2, CENTER),
    "4:2:2": ("yuv422p", 2, 1, LEFT),
    "4:4:4": ("yuv444p", 1, 1, 0),
    "gray": ("gray", 1, 1, 0),
    "4:4:4 alpha": ("yuva444p", 1, 1, 0),
}
"""FFmpeg's format at 8 bits, luma samples per chroma sample across and down, siting."""
LOSSLESS = ("--codec", "ffv1", "--precision", "f32")


def write(
    path: Path,
    planes: Sequence[Plane],
    pix_fmt: str,
    color: tuple[int, int, int, int, int],
    *,
    codec: str = "ffv1",
    options: Mapping[str, str] = {},
    frames: int = 1,
) -> Path:
    """A film that shows one picture, at 25 frames a second.

    Args:
        path: its suffix chooses the container.
        planes: integer codes in FFmpeg's order of planes.
        pix_fmt: FFmpeg's name.
        color: matrix, range, primaries, transfer, siting as FFmpeg's code points.
        codec: FFmpeg's encoder.
        options: of the encoder.
        frames: how often it is shown.
    """
    height, width = planes[0].shape
    with av.open(str(path), "w") as out:
        stream = out.add_stream(codec, rate=25, options=dict(options))
        stream.width, stream.height, stream.pix_fmt = width, height, pix_fmt
        context = stream.codec_context
        context.colorspace, context.color_range, context.color_primaries = color[:3]
        context.color_trc, context.chroma_sample_location = color[3:]
        for i in range(frames):
            frame = av.VideoFrame(width, height, pix_fmt)
            for plane, samples in zip(frame.planes, planes, strict=True):
                rows = np.zeros((plane.height, plane.line_size), np.uint8)
                data = np.ascontiguousarray(samples).view(np.uint8)
                rows[:, : data.shape[1]] = data
                plane.update(rows.tobytes())
            frame.pts, frame.time_base = i, Fraction(1, 25)
            frame.colorspace, frame.color_range, frame.color_primaries = color[:3]
            frame.color_trc, frame.chroma_location = color[3:]
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path


def rounded(planes: Sequence[NDArray[np.float64]], bits: int) -> list[Plane]:
    """Integer codes."""
    dtype = np.uint8 if bits == 8 else np.uint16
    return [np.clip(np.rint(p), 0, 2**bits - 1).astype(dtype) for p in planes]


def worst(outcome: Outcome, wanted: Sequence[NDArray[np.float64]], coding: Coding) -> float:
    """The largest error of the output's first picture, in codes, away from the rim."""
    assert outcome.after is not None
    error = 0.0
    for i, (plane, ideal) in enumerate(zip(outcome.after.pictures[0].planes, wanted, strict=True)):
        if plane.shape != ideal.shape:
            raise Mismatch(f"plane {i} is {plane.shape}, expected {ideal.shape}")
        chroma = i in (1, 2)
        rows, columns = (2 * RIM // (coding.down if chroma else 1), 2 * RIM // (coding.across if chroma else 1))
        inside = (slice(rows, -rows), slice(columns, -columns))
        error = max(error, float(np.abs(plane.astype(np.float64) - ideal)[inside].max()))
    return error


def within(outcome: Outcome, wanted: Sequence[NDArray[np.float64]], coding: Coding, most: float) -> str:
    """The figure of a colour case. Raises Mismatch above `most` codes."""
    error = worst(outcome, wanted, coding)
    if error > most:
        raise Mismatch(f"error of {error:.2f} codes, allowed {most:.2f}")
    return f"max error {error:.2f} codes (rounding alone: {most:.2f})"


def format_name(layout: str, bits: int) -> str:
    """FFmpeg's pixel format."""
    return LAYOUTS[layout][0] + ("" if bits == 8 else f"{bits}le")


def shared_mixer(folder: Path) -> None:
    """The network that mixes colours, once for all cases."""
    path = folder.parent / "mixer.onnx"
    if not path.exists():
        mixer(path, reference.MIX)


MIXED = (*LOSSLESS, "--model", "{shared}/mixer.onnx")


def mixed_case(standard: str, range_: int, bits: int, layout: str) -> Case:
    """A picture in this coding, through the network that mixes colours; R'G'B' has to be exactly right in between."""
    matrix, primaries, transfer = STANDARDS[standard]
    _, across, down, siting = LAYOUTS[layout]
    coding = Coding(matrix, range_, bits, across, down, siting, layout == "gray", layout.endswith("alpha"))
    color = (matrix, range_, primaries, transfer, siting)

    def make(folder: Path) -> Path:
        shared_mixer(folder)
        planes = rounded(reference.picture(coding, HEIGHT, WIDTH), bits)
        return write(folder / "in.mkv", planes, format_name(layout, bits), color)

    def check(outcome: Outcome) -> str:
        return within(
            outcome,
            reference.picture(coding, 2 * HEIGHT, 2 * WIDTH, reference.MIX),
            coding,
            reference.tolerance(coding),
        )

    return Case(
        group="colour",
        name=f"{standard} {'limited' if range_ == LIMITED else 'full'} {bits} bit {layout}",
        make=make,
        expected="tags kept, every sample as the standards say",
        options=MIXED,
        check=check,
        silent=True,
        quick=(bits, range_, standard) == (10, FULL, "BT.709") or (layout, bits) == ("4:2:0 left", 8),
    )


def shipped_case(range_: int, bits: int, layout: str) -> Case:
    """The same picture through the default network and its own way from planes to planes.

    What the network makes of luma is its own affair, so luma only has to be near; chroma is interpolated and exact.
    """
    matrix, primaries, transfer = STANDARDS["BT.709"]
    _, across, down, siting = LAYOUTS[layout]
    coding = Coding(matrix, range_, bits, across, down, siting, layout == "gray", layout.endswith("alpha"))

    def make(folder: Path) -> Path:
        planes = rounded(reference.picture(coding, HEIGHT, WIDTH), bits)
        return write(
            folder / "in.mkv", planes, format_name(layout, bits), (matrix, range_, primaries, transfer, siting)
        )

    def check(outcome: Outcome) -> str:
        return within(outcome, reference.picture(coding, 2 * HEIGHT, 2 * WIDTH), coding, 3.0 * 2 ** (bits - 8))

    name = f"default network, {'limited' if range_ == LIMITED else 'full'} {bits} bit {layout}"
    return Case(
        group="colour", name=name, make=make, expected="tags kept, a smooth picture stays what it is",
        options=("--codec", "ffv1"), check=check, silent=True, quick=bits == 10 and range_ == LIMITED,
    )  # fmt: skip


def untagged_case(height: int, matrix: int, name: str, primaries: int = 2) -> Case:
    """A picture that does not say its matrix: players go by its size."""
    coding = Coding(matrix, LIMITED, 8, 2, 2, LEFT if matrix != 9 else TOPLEFT)
    width = 32

    def make(folder: Path) -> Path:
        shared_mixer(folder)
        planes = rounded(reference.picture(coding, height, width), 8)
        return write(folder / "in.mkv", planes, "yuv420p", (2, 0, primaries, 2, 0))

    def check(outcome: Outcome) -> str:
        assert outcome.after is not None
        if outcome.after.pictures[0].color[:2] != (matrix, LIMITED):
            raise Mismatch(f"the output is tagged {outcome.after.pictures[0].color}")
        mixed = reference.picture(coding, 2 * height, 2 * width, reference.MIX)
        return within(outcome, mixed, coding, reference.tolerance(coding))

    return Case(
        group="untagged", name=name, make=make, expected="read and tagged as players take it, and said", options=MIXED,
        check=check, says="colour not fully tagged", quick=height < 600,
    )  # fmt: skip


def excess_case(bits: int) -> Case:
    """Codes beyond the nominal range: super-white, blacker than black, chroma past 240."""
    coding = Coding(1, LIMITED, bits, 1, 1, 0)
    step = 2 ** (bits - 8)

    def ramps(height: int, width: int) -> list[NDArray[np.float64]]:
        u, v = reference.places(width, 1, 0.0)[None, :], reference.places(height, 1, 0.0)[:, None]
        return [step * (2 + 250 * u + 0 * v), step * (248 - 240 * v + 0 * u), step * (4 + 120 * u + 120 * v)]

    def make(folder: Path) -> Path:
        path = folder.parent / "plain.onnx"
        mixer(path, np.eye(3))
        return write(
            folder / "in.mkv", rounded(ramps(HEIGHT, WIDTH), bits), format_name("4:4:4", bits), (1, 1, 1, 1, 0)
        )

    def check(outcome: Outcome) -> str:
        return within(outcome, ramps(2 * HEIGHT, 2 * WIDTH), coding, 1.05)

    return Case(
        group="colour", name=f"beyond the nominal range, {bits} bit", make=make, expected="kept, not clipped",
        options=(*LOSSLESS, "--model", "{shared}/plain.onnx"), check=check, quick=True,
    )  # fmt: skip


def dither_case(bits: int, target: int) -> Case:
    """Fewer bits out than in: the mean over a dither cell is exact, single samples are off by less than one code."""
    coding = Coding(1, LIMITED, bits, 1, 1, 0)
    result = Coding(1, LIMITED, target, 1, 1, 0)

    def make(folder: Path) -> Path:
        shared_mixer(folder)
        planes = rounded(reference.picture(coding, HEIGHT, WIDTH), bits)
        return write(folder / "in.mkv", planes, format_name("4:4:4", bits), (1, 1, 1, 1, 0))

    def check(outcome: Outcome) -> str:
        assert outcome.after is not None
        wanted = reference.picture(result, 2 * HEIGHT, 2 * WIDTH, reference.MIX)
        bias = 0.0
        for plane, ideal in zip(outcome.after.pictures[0].planes, wanted, strict=True):
            error = (plane - ideal)[8:-8, 8:-8]
            cells = error[: error.shape[0] // 8 * 8].reshape(-1, 8, error.shape[1] // 8, 8).mean(axis=(1, 3))
            bias = max(bias, float(np.abs(cells).max()))
        if bias > 0.25:
            raise Mismatch(f"the mean of a dither cell is {bias:.2f} codes off")
        text = within(outcome, wanted, result, 1.0 + reference.tolerance(coding) * 2 ** (target - bits))
        return f"{text}, mean of 8x8 samples within {bias:.2f}"

    return Case(
        group="colour", name=f"dithered from {bits} to {target} bit", make=make, check=check,
        expected="mean kept below a code", says=f"{bits} bits become {target} bits", quick=True,
        options=(*MIXED, "--pix-fmt", format_name("4:4:4", target)),
    )  # fmt: skip


def coded_case(codec: str, bits: int, container: str, standard: str, options: Mapping[str, str]) -> Case:
    """Tags in the coded video itself, in and out through the usual lossy encoders."""
    matrix, primaries, transfer = STANDARDS[standard]
    siting = TOPLEFT if standard == "BT.2020nc" else LEFT
    coding = Coding(matrix, LIMITED, bits, 2, 2, siting)

    def make(folder: Path) -> Path:
        planes = rounded(reference.picture(coding, HEIGHT * 4, WIDTH * 4), bits)
        color = (matrix, LIMITED, primaries, transfer, siting)
        path = folder / f"in.{container}"
        return write(path, planes, format_name("4:2:0 left", bits), color, codec=codec, options=options, frames=3)

    def check(outcome: Outcome) -> str:
        assert outcome.after is not None
        found = outcome.after.pictures[0].format
        if found != format_name("4:2:0 left", bits):
            raise Mismatch(f"the output is {found}")
        return ""

    return Case(
        group="colour", name=f"{standard} {bits} bit from {codec} in {container}", make=make, check=check,
        expected="tags and depth kept by the default encoder", output=f"out.{container}", quick=codec == "libx264",
        options=("--preset", "ultrafast"), silent=True,
    )  # fmt: skip


def rgb_case() -> Case:
    """R'G'B' planes go in as they are."""

    def ramps(height: int, width: int) -> list[NDArray[np.float64]]:
        u, v = reference.places(width, 1, 0.0)[None, :, None], reference.places(height, 1, 0.0)[:, None, None]
        rgb = reference.ORIGIN + reference.ACROSS * u + reference.DOWN * v
        return [1023 * rgb[..., i] for i in (1, 2, 0)]  # FFmpeg's order is G, B, R

    coding = Coding(1, FULL, 10, 1, 1, 0)

    def make(folder: Path) -> Path:
        mixer(folder.parent / "plain.onnx", np.eye(3))
        return write(folder / "in.mkv", rounded(ramps(HEIGHT, WIDTH), 10), "gbrp10le", (0, FULL, 1, 13, 0))

    def check(outcome: Outcome) -> str:
        return within(outcome, ramps(2 * HEIGHT, 2 * WIDTH), coding, 1.05)

    return Case(
        group="colour", name="R'G'B' 10 bit", make=make, expected="stays R'G'B'", check=check, quick=True,
        options=(*LOSSLESS, "--model", "{shared}/plain.onnx"),
    )  # fmt: skip


def cases() -> Iterator[Case]:
    """All of them."""
    for standard in STANDARDS:
        for range_ in (LIMITED, FULL):
            for bits in (8, 10, 12):
                for layout in LAYOUTS:
                    yield mixed_case(standard, range_, bits, layout)
    for range_ in (LIMITED, FULL):
        for bits in (8, 10, 12):
            for layout in LAYOUTS:
                yield shipped_case(range_, bits, layout)
    yield from (excess_case(bits) for bits in (8, 10, 12))
    yield from (dither_case(*pair) for pair in ((10, 8), (12, 8), (12, 10)))
    yield rgb_case()
    x264, x265 = {"preset": "ultrafast", "crf": "4"}, {"preset": "ultrafast", "x265-params": "log-level=none:crf=4"}
    for container in ("mkv", "mp4"):
        for standard in STANDARDS:
            yield coded_case("libx264", 8, container, standard, x264)
            yield coded_case("libx265", 10, container, standard, x265)
        yield coded_case("libx265", 12, container, "BT.2020nc", x265)
    yield untagged_case(480, 6, "SD, 480 rows: BT.601-525")
    yield untagged_case(576, 5, "SD, 576 rows: BT.601-625")
    yield untagged_case(720, 1, "HD, 720 rows: BT.709")
    yield untagged_case(1080, 1, "HD, 1080 rows: BT.709")
    yield untagged_case(2160, 1, "UHD, 2160 rows: BT.709")
    yield untagged_case(2160, 9, "UHD with BT.2020 primaries: BT.2020nc", primaries=9)

"""Pictures that are the same but for size and coding pass; other pictures, colours and times do not."""

from fractions import Fraction
from itertools import islice

import av
import numpy as np
import pytest
from clips import make_clip

from videosr.media.checks.readback import read_file
from videosr.media.checks.similarity import MOST, Samples, compare
from videosr.media.checks.verify import verify
from videosr.media.planes import PlaneReader, planar_format, to_av_frame
from videosr.media.stills.numbered import Numbered
from videosr.progress import Progress
from videosr.transcode import TranscodeOptions, transcode


def scene(n, height=72, width=128, step=4):
    """R'G'B' of a coloured texture that pans by so many columns a frame."""
    rng = np.random.default_rng(2)
    texture = rng.random((height // 8 + 2, width // 4 + 40, 3))
    picture = np.kron(texture, np.ones((8, 8, 1)))[:height, step * n : step * n + width]
    for axis in (0, 1):
        picture = sum(np.roll(picture, k, axis) for k in range(-2, 3)) / 5
    return (20 + 215 * picture).astype(np.uint8)


def write(path, pictures, *, matrix=1, tagged=1, range_=1, tagged_range=1, scale=1, swapped=False, crf=28):
    """A lossy clip whose codes are made by one matrix and range and tagged with others, or with Cb and Cr swapped."""
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=25, options={"crf": str(crf), "preset": "ultrafast", "threads": "1"})
        stream.height, stream.width = (scale * side for side in pictures[0].shape[:2])
        stream.pix_fmt = "yuv420p"
        stream.codec_context.colorspace, stream.codec_context.color_range = tagged, tagged_range
        for n, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame = frame.reformat(
                format="yuv420p",
                width=stream.width,
                height=stream.height,
                dst_colorspace=matrix,
                dst_color_range=range_,
                interpolation="BICUBIC",
            )
            if swapped:
                y, cb, cr = PlaneReader().read(frame, planar_format("yuv420p"))
                frame = to_av_frame((y, cr, cb), planar_format("yuv420p"))
            frame.colorspace, frame.color_range, frame.pts = tagged, tagged_range, n
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path


PICTURES = [scene(n) for n in range(12)]


def green(pictures):
    return [*pictures[:5], np.zeros_like(pictures[5]) + np.uint8([0, 135, 0]), *pictures[6:]]


CHANGES = {
    "nothing": (PICTURES, {}, []),
    "wrong matrix": (PICTURES, {"matrix": 5}, ["colours are off"]),
    "wrong range": (PICTURES, {"range_": 2}, ["colours are off"]),
    "one green frame": (green(PICTURES), {}, ["frame 5 shows another picture"]),
    "all black": ([p * 0 for p in PICTURES], {}, ["pictures differ", "colours are off"]),
    "late": ([PICTURES[0], *PICTURES[:-1]], {}, ["one frame late"]),
    "early": ([*PICTURES[1:], PICTURES[-1]], {}, ["one frame early"]),
    "swapped chroma": (PICTURES, {"swapped": True}, ["pictures differ", "colours are off"]),
    "mirrored": ([p[:, ::-1] for p in PICTURES], {}, ["pictures differ"]),
    "upside down": ([p[::-1] for p in PICTURES], {}, ["pictures differ"]),
    "a row too low": ([np.roll(p, 1, axis=0) for p in PICTURES], {}, ["shifted by +0.0 columns and +1."]),
    "another range that is tagged": (PICTURES, {"range_": 2, "tagged_range": 2}, []),
}


@pytest.mark.parametrize("change", CHANGES)
def test_changes_are_seen(tmp_path, change):
    pictures, how, said = CHANGES[change]
    a = read_file(write(tmp_path / "a.mkv", PICTURES), 0)
    b = read_file(write(tmp_path / "b.mkv", pictures, scale=2, **how), 0, like=a)
    problems = compare(a.samples, b.samples).problems
    assert all(any(line in found for found in problems) for line in said), problems
    assert bool(problems) == bool(said), problems


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("way", [-1, 1])
def test_a_shift_by_one_pixel_is_found_in_a_still(tmp_path, axis, way):
    a = read_file(write(tmp_path / "a.mkv", PICTURES[:1]), 0)
    moved = [np.roll(p, way, axis) for p in PICTURES[:1]]
    likeness = compare(a.samples, read_file(write(tmp_path / "b.mkv", moved, scale=2), 0, like=a).samples)
    assert likeness.shift[1 - axis] * way == pytest.approx(1, abs=0.4)
    assert likeness.shift[axis] == pytest.approx(0, abs=0.1)
    assert ["shifted" in line for line in likeness.problems] == [True]


@pytest.mark.parametrize("late", [0, 1])
def test_order_is_judged_in_slow_motion(tmp_path, late):
    pictures = [100 + scene(n, step=1) // 8 for n in range(12)]
    a = read_file(write(tmp_path / "a.mkv", pictures, crf=8), 0)
    b = read_file(write(tmp_path / "b.mkv", pictures[:1] * late + pictures[: 12 - late], scale=2, crf=8), 0, like=a)
    assert compare(a.samples, b.samples).late == late


def test_pictures_averaged_over_time_are_not_shifted():
    a, b = Samples(), Samples((32, 18))
    for n, picture in enumerate(PICTURES):
        mixed = (picture // 2 + PICTURES[max(n - 1, 0)] // 2).astype(np.uint8)
        for samples, pixels in ((a, picture), (b, mixed)):
            samples.add(n, av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), "rgb24"))
    assert not any("shifted" in line for line in compare(a, b).problems)


PATTERNS = [
    ("testsrc=s=97x65", "yuv420p"),
    ("testsrc=s=97x65", "yuv410p"),
    ("testsrc=s=33x17", "yuv420p"),
    ("testsrc2=s=96x64", "yuv411p"),
    ("testsrc2=s=65x33", "yuv440p"),
    ("smptebars=s=33x17", "yuv422p10le"),
    ("rgbtestsrc=s=97x65", "yuv410p"),
    ("rgbtestsrc=s=33x19", "bgr0"),
    ("mandelbrot=s=97x65", "yuva420p"),
    ("allrgb,scale=96:64", "yuv411p"),
    ("color=red:s=16x16", "yuv420p"),
]


def write_pattern(path, graph, pix_fmt):
    """Three frames of one of FFmpeg's test patterns, lossless; siting and matrix untagged."""
    with av.open(graph, format="lavfi") as pattern, av.open(str(path), "w") as out:
        shown = pattern.streams.video[0]
        stream = out.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = shown.width, shown.height, pix_fmt
        for n, frame in enumerate(islice(pattern.decode(shown), 3)):
            frame = frame.reformat(format=pix_fmt)
            frame.pts, frame.time_base = n, Fraction(1, 25)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path


@pytest.mark.parametrize(("graph", "pix_fmt"), PATTERNS)
def test_saturated_patterns_of_odd_sizes_pass_by_far(tmp_path, graph, pix_fmt):
    source = write_pattern(tmp_path / "in.mkv", graph, pix_fmt)
    upscale(source, tmp_path / "out.mkv")
    report = verify(source, tmp_path / "out.mkv")
    assert report.problems == []
    likeness = report.facts["likeness"]
    assert likeness["worst_psnr"] > 40, likeness
    assert likeness["colour"] < 1.2, likeness
    assert max(map(abs, likeness["shift"])) < 0.2, likeness


@pytest.mark.parametrize("pix_fmt", ["yuv410p", "yuv420p", "yuv444p", "bgr0"])
@pytest.mark.parametrize("graph", ["testsrc=s=17x19", "testsrc2=s=51x37"])
def test_saturated_patterns_pass_as_pictures(tmp_path, graph, pix_fmt):
    """R'G'B' cuts off what is beyond its gamut, so that their colours are drawn together."""
    source = write_pattern(tmp_path / "in.mkv", graph, pix_fmt)
    transcode(source, Numbered.of(tmp_path / "%d.png"), TranscodeOptions(), Progress(source.name, quiet=True))
    report = verify(source, tmp_path / "%d.png")
    assert report.problems == []
    assert report.facts["likeness"]["worst_psnr"] > 24


@pytest.mark.parametrize(("tag", "value"), [("colorspace", 1), ("color_range", 2)])
def test_colour_bars_that_are_read_otherwise_are_found(tmp_path, tag, value):
    """They have few tones, but are neither scanned nor dithered."""
    a, b = Samples(), Samples((24, 16))
    with av.open(str(write_pattern(tmp_path / "in.mkv", "smptebars=s=97x65", "yuv420p"))) as file:
        for n, frame in enumerate(file.decode(video=0)):
            a.add(n, frame)
            setattr(frame, tag, value)
            b.add(n, frame)
    assert compare(a, b).problems


def test_samples_of_a_long_video_are_few_and_the_same_in_every_one():
    frame = av.VideoFrame(64, 48, "yuv420p")
    small, large = Samples((8, 6)), Samples((8, 6))
    for samples in (small, large):
        for n in range(5000):
            samples.add(n, frame)
    assert small.pictures.keys() == large.pictures.keys()
    assert MOST <= sum(n % small.step == 0 for n in small.pictures) <= 2 * MOST
    assert max(small.pictures) > 4900


@pytest.mark.parametrize(
    ("width", "height", "pix_fmt", "compared"), [(4, 6, "yuv420p", False), (64, 48, "yuv411p", True)]
)
def test_copies_of_few_samples_are_no_false_alarm(tmp_path, videosr, width, height, pix_fmt, compared):
    clip = make_clip(
        tmp_path / "a.mkv", frames=12, width=width, height=height, pix_fmt=pix_fmt, codec="ffv1", noise=30.0
    )
    assert videosr("upscale", clip, tmp_path / "b.mkv").code == 0
    report = verify(clip, tmp_path / "b.mkv")
    assert report.problems == []
    assert (report.facts["likeness"] is not None) == compared


def of_two_tones(path, dark, light, invert=False):
    """A still picture of 1 bit a pixel: ordered dither of a ramp."""
    ramp = np.linspace(dark, light, 96)[None].repeat(64, 0)
    threshold = np.array([[0, 8, 2, 10], [12, 4, 14, 6], [3, 11, 1, 9], [15, 7, 13, 5]]) / 16
    white = (ramp > np.tile(threshold, (16, 24))) ^ invert
    with av.open(str(path), "w", format="image2") as out:
        stream = out.add_stream("png" if path.suffix == ".png" else "tiff")
        stream.width, stream.height, stream.pix_fmt = 96, 64, "monob"
        frame = av.VideoFrame.from_ndarray(np.where(white, 255, 0).astype(np.uint8), "gray")
        out.mux(stream.encode(frame.reformat(format="monob")))
        out.mux(stream.encode(None))
    return path


def upscale(source, output):
    transcode(source, output, TranscodeOptions(), Progress(source.name, quiet=True))


@pytest.mark.parametrize("suffix", [".png", ".tiff"])
def test_a_dithered_picture_of_one_bit_passes(tmp_path, suffix):
    source = of_two_tones(tmp_path / f"in{suffix}", 0.6, 1.0)
    upscale(source, tmp_path / "out.png")
    report = verify(source, tmp_path / "out.png")
    assert report.problems == []
    assert report.facts["likeness"]["samples"] == 1


def test_an_inverted_picture_of_one_bit_is_found(tmp_path):
    source = of_two_tones(tmp_path / "in.png", 0.6, 1.0)
    upscale(of_two_tones(tmp_path / "other.png", 0.6, 1.0, invert=True), tmp_path / "out.png")
    assert any("pictures differ" in line for line in verify(source, tmp_path / "out.png").problems)


def test_one_bit_is_reduced_to_the_right_mean(tmp_path):
    source = of_two_tones(tmp_path / "in.png", 0.6, 1.0)
    with av.open(str(source)) as file:
        whole = next(file.decode(video=0)).to_ndarray(format="gray")
    assert abs(read_file(source, 0).samples.pictures[0].mean() - whole.mean()) < 1


@pytest.mark.parametrize("colours", ["rgb8", "rgb4_byte"])
def test_a_picture_of_an_animation_has_no_duration(tmp_path, colours):
    source = tmp_path / "in.gif"
    with av.open(str(source), "w") as out:
        stream = out.add_stream("gif", rate=10)
        stream.width, stream.height, stream.pix_fmt = 128, 72, colours
        frame = av.VideoFrame.from_ndarray(PICTURES[0], "rgb24").reformat(format=colours)
        out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    upscale(source, tmp_path / "out.png")
    assert verify(source, tmp_path / "out.png").problems == []

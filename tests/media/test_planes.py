import av
import numpy as np
import pytest

from videosr.errors import InputError
from videosr.frame import PixelFormat
from videosr.media.planes import PlaneReader, planar_format, to_av_frame

PACKED = [
    ("nv12", "yuv420p"),
    ("nv21", "yuv420p"),
    ("nv16", "yuv422p"),
    ("nv24", "yuv444p"),
    ("yuyv422", "yuv422p"),
    ("uyvy422", "yuv422p"),
    ("p010le", "yuv420p10le"),
    ("p210le", "yuv422p10le"),
    ("yuv420p10be", "yuv420p10le"),
    ("yuvj420p", "yuv420p"),
    ("yuvj444p", "yuv444p"),
    ("rgb24", "gbrp"),
    ("bgr24", "gbrp"),
    ("rgb0", "gbrp"),
    ("bgra", "gbrap"),
    ("rgb48le", "gbrp16le"),
    ("rgba64be", "gbrap16le"),
    ("gray16be", "gray16le"),
]


def random_planes(fmt, height, width, seed=0):
    rng = np.random.default_rng(seed)
    shapes = [fmt.plane_shape(i, height, width) for i in range(fmt.planes)]
    return tuple(rng.integers(0, 1 << fmt.bits, shape).astype(fmt.dtype) for shape in shapes)


@pytest.mark.parametrize(("packed", "planar"), PACKED)
def test_other_layouts_are_repacked_without_changing_a_sample(packed, planar):
    fmt = planar_format(packed)
    assert fmt.name == planar
    planes = random_planes(fmt, 34, 62)
    frame = to_av_frame(planes, fmt)
    if packed.startswith("yuvj"):
        made = av.VideoFrame(62, 34, packed)
        for target, plane in zip(made.planes, planes, strict=True):
            np.frombuffer(target, np.uint8).reshape(target.height, -1)[:, : target.width] = plane
        frame = made
    else:
        frame = frame.reformat(format=packed)
    assert frame.format.name == packed
    read = PlaneReader().read(frame, fmt)
    for was, now in zip(planes, read, strict=True):
        assert np.array_equal(was, now)


@pytest.mark.parametrize(
    "name", ["yuv420p", "yuv422p10le", "yuv444p12le", "gbrp", "gbrap16le", "gray", "yuva420p", "yuv410p"]
)
@pytest.mark.parametrize("size", [(1, 1), (33, 21), (36, 64)])
def test_round_trip_through_ffmpeg_frames(name, size):
    fmt = PixelFormat.parse(name)
    planes = random_planes(fmt, *size)
    read = PlaneReader().read(to_av_frame(planes, fmt), fmt)
    for was, now in zip(planes, read, strict=True):
        assert np.array_equal(was, now)
        assert now.flags.owndata
        assert now.flags.c_contiguous


def test_rgb_planes_are_in_the_order_red_green_blue():
    frame = av.VideoFrame.from_ndarray(np.full((4, 4, 3), (10, 20, 30), np.uint8), format="rgb24")
    red, green, blue = PlaneReader().read(frame, PixelFormat.parse("gbrp"))
    assert (red[0, 0], green[0, 0], blue[0, 0]) == (10, 20, 30)


def test_pictures_stored_bottom_up_are_read_top_down():
    fmt = PixelFormat.parse("yuv420p")
    planes = random_planes(fmt, 16, 24)
    graph = av.filter.Graph()
    source = graph.add_buffer(width=24, height=16, format=av.VideoFormat("yuv420p"), time_base=1)
    flip, sink = graph.add("vflip"), graph.add("buffersink")
    source.link_to(flip)
    flip.link_to(sink)
    graph.configure()
    graph.push(to_av_frame(planes, fmt))
    flipped = graph.pull()
    assert flipped.planes[0].line_size < 0  # or the test shows nothing
    for was, now in zip(planes, PlaneReader().read(flipped, fmt), strict=True):
        assert np.array_equal(was[::-1], now)


def test_palette_becomes_colours():
    image = av.VideoFrame(2, 1, "pal8")
    np.frombuffer(image.planes[0], np.uint8)[:2] = (0, 1)
    palette = np.frombuffer(image.planes[1], np.uint8).reshape(256, 4)
    palette[0], palette[1] = (30, 20, 10, 255), (60, 50, 40, 255)  # B, G, R, A
    red, green, blue = PlaneReader().read(image, planar_format("pal8", opaque=True))
    assert (red.tolist(), green.tolist(), blue.tolist()) == ([[10, 40]], [[20, 50]], [[30, 60]])


@pytest.mark.parametrize("name", ["bayer_rggb8", "gbrpf32le", "xyz12le", "rgbaf16le"])
def test_formats_without_a_planar_form_are_refused(name):
    with pytest.raises(InputError, match=name):
        planar_format(name)

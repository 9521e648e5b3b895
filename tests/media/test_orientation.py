"""Display matrices: which way is up by FFmpeg's own rule, and where the chroma goes."""

import math
from fractions import Fraction

import av
import numpy as np
import pytest
from av.filter import Graph
from clips import make_clip

from videosr.color import to_rgb
from videosr.frame import ColorSpec, Frame, Matrix, PixelFormat, Range, Siting
from videosr.media.decoder import Decoder
from videosr.media.orientation import UPRIGHT, Orientation

QUARTERS = [(s * x, 0, 0, s * y) for s in (1, -1) for x, y in ((1, 1), (1, -1))]
QUARTERS += [(0, s * x, s * y, 0) for s in (1, -1) for x, y in ((1, 1), (1, -1))]
"""a, b, c, d of every matrix that turns by quarters and mirrors."""
DEGREE = math.pi / 180
SITINGS = [siting for siting in Siting if siting != Siting.UNSPECIFIED]


def matrix_of(a, b, c, d):
    return [*(round(n * 65536) for n in (a, b)), 0, *(round(n * 65536) for n in (c, d)), 0, 0, 0, 1 << 30]


def autorotated(frame, matrix):
    """What ffmpeg makes of a decoded frame (fftools/ffmpeg_filter.c, configure_input_video_filter)."""
    theta = math.degrees(math.atan2(matrix[1], matrix[0]))  # -av_display_rotation_get, where both scales are one
    theta -= 360 * math.floor(theta / 360 + 0.9 / 360)
    if abs(theta - 90) < 1:
        filters = [("transpose", "cclock_flip" if matrix[3] > 0 else "clock")]
    elif abs(theta - 180) < 1:
        filters = [("hflip", None)] * (matrix[0] < 0) + [("vflip", None)] * (matrix[4] < 0)
    elif abs(theta - 270) < 1:
        filters = [("transpose", "clock_flip" if matrix[3] < 0 else "cclock")]
    else:
        assert abs(theta) < 1
        filters = [("vflip", None)] * (matrix[4] < 0)
    graph = Graph()
    graph.link_nodes(
        graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=frame.time_base),
        *(graph.add(name, arguments) for name, arguments in filters),
        graph.add("buffersink"),
    ).configure()
    graph.push(frame)
    return graph.pull().to_ndarray()


@pytest.mark.parametrize("quarter", QUARTERS, ids=str)
def test_up_is_where_ffmpeg_has_it(tmp_path, quarter):
    path = make_clip(
        tmp_path / "in.mp4", frames=1, pix_fmt="yuv444p", noise=20, options={"qp": "0"}, matrix=quarter, codec="libx264"
    )
    with av.open(str(path)) as container:
        expected = autorotated(next(container.decode(video=0)), matrix_of(*quarter))
    with Decoder(path) as decoder:
        orientation = Orientation.of(decoder.display_matrix)
        (frame,) = decoder
        info = orientation.info(decoder.info)
    upright = orientation.frame(frame)
    np.testing.assert_array_equal(np.stack(upright.planes), expected)
    assert all(plane.flags.c_contiguous for plane in upright.planes)
    assert (info.width, info.height, info.rotation) == (upright.width, upright.height, 0)
    assert (orientation == UPRIGHT) == (quarter == (1, 0, 0, 1))


def test_what_is_no_quarter_turn_is_none():
    def turned(degrees, scale=1.0):
        sine, cosine = math.sin(degrees * DEGREE) * scale, math.cos(degrees * DEGREE) * scale
        return matrix_of(cosine, sine, -sine, cosine)

    assert Orientation.of(None) == UPRIGHT
    assert Orientation.of(turned(0.9)) == UPRIGHT
    assert Orientation.of(turned(90.9)) == Orientation.of(turned(89.1, 3.0)) == Orientation(True, True, False)
    for odd in (turned(1.1), turned(45), turned(135), turned(91.5), matrix_of(1, 0, 0.5, 1), matrix_of(0, 0, 0, 0)):
        assert Orientation.of(odd) is None


def smooth(fmt, color, height, width):
    """A picture whose colours are linear in the place, each chroma sample that of the place where it lies."""
    fw, fh = 1 << fmt.log2_w, 1 << fmt.log2_h
    x0 = (fw - 1) / 2 if color.siting in (Siting.CENTER, Siting.TOP, Siting.BOTTOM) else 0
    y0 = {Siting.LEFT: (fh - 1) / 2, Siting.CENTER: (fh - 1) / 2, Siting.BOTTOMLEFT: fh - 1, Siting.BOTTOM: fh - 1}
    planes = []
    for i in range(fmt.planes):
        chroma = i in (1, 2)
        y, x = np.mgrid[tuple(slice(n) for n in fmt.plane_shape(i, height, width))].astype(float)
        if chroma:
            x, y = x * fw + x0, y * fh + y0.get(color.siting, 0)
        level = 60 + 1.3 * x + 0.7 * y * (1 + (i == 2)) + 5 * i
        planes.append(np.rint(level * (1 << (fmt.bits - 8))).astype(fmt.dtype))
    return tuple(planes)


@pytest.mark.parametrize("size", [(24, 40), (25, 41)], ids=str)
@pytest.mark.parametrize(
    ("name", "siting"),
    [
        *(("yuv420p10le", siting) for siting in SITINGS),
        ("yuva420p10le", Siting.LEFT),
        ("yuv422p10le", Siting.LEFT),
        ("yuv422p10le", Siting.CENTER),
        ("yuv440p10le", Siting.TOP),
        ("yuv422p14le", Siting.LEFT),
        ("yuv411p", Siting.LEFT),
        ("yuv410p", Siting.LEFT),
        ("yuva422p12le", Siting.LEFT),
        ("gbrap10le", Siting.UNSPECIFIED),
        ("gray", Siting.UNSPECIFIED),
    ],
)
def test_every_colour_stays_where_it_was(size, name, siting):
    """Turning and then looking at the colours, or the other way about: the same."""
    fmt = PixelFormat.parse(name)
    matrix = Matrix.RGB if fmt.family == "rgb" else Matrix.BT709
    color = ColorSpec(matrix=matrix, range=Range.LIMITED, siting=siting)
    planes, tick = smooth(fmt, color, *size), Fraction(1, 24)
    frame = Frame(planes=planes, format=fmt, pts=5, time_base=tick, color=color, sar=Fraction(4, 3), key=True)
    coded = to_rgb(frame.planes, fmt, color)
    for a, b, c, d in QUARTERS:
        upright = Orientation.of(matrix_of(a, b, c, d)).frame(frame)
        expected = (coded if a else coded.transpose(0, 2, 1))[:, :: d or b, :: a or c]
        found = to_rgb(upright.planes, upright.format, upright.color)
        inside = slice(None), slice(8, -8), slice(8, -8)  # beyond the edges samples repeat
        np.testing.assert_allclose(found[inside], expected[inside], atol=3.5 / (1 << fmt.bits))
        for i, plane in enumerate(upright.planes):
            assert plane.shape == upright.format.plane_shape(i, upright.height, upright.width)
            assert plane.dtype == fmt.dtype
        even = fmt.log2_w == fmt.log2_h or a
        assert upright.format == (fmt if even else PixelFormat.of("yuv", fmt.bits, alpha=fmt.alpha))
        assert upright.sar == (frame.sar if a else 1 / frame.sar)
        assert (upright.pts, upright.key) == (5, True)

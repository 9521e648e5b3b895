"""Interlaced and telecined video: recognised by its pictures, made whole, every frame at its time."""

from fractions import Fraction
from functools import cache
from itertools import pairwise

import av
import numpy as np
import pytest

from videosr.errors import InputError, UsageError
from videosr.frame import Frame, PixelFormat
from videosr.media.checks.verify import verify
from videosr.media.decoder import Decoder
from videosr.media.deinterlace import Deinterlace, Deinterlacer, Plan, deinterlacing
from videosr.media.fields import Scan, detect
from videosr.transcode import TranscodeOptions

WIDTH, HEIGHT = 96, 416


@cache
def scene(moment, height=HEIGHT):
    """Luma of a smooth texture that moves sideways: three columns a moment."""
    rng = np.random.default_rng(3)
    texture = rng.random((height, WIDTH))
    for axis, reach in ((0, 6), (1, 3)):
        texture = sum(np.roll(texture, n, axis) for n in range(-reach, reach + 1))
    texture = np.roll(texture, 3 * moment, 1)
    texture -= texture.min()
    return (32 + 180 * texture / texture.max()).astype(np.uint8)


def woven(moments, order="tff", height=HEIGHT):
    """Frames of two fields each; `moments` are those of the fields, in the order in which they are shown."""
    frames = []
    for first, second in zip(moments[::2], moments[1::2], strict=True):
        frame = scene(first, height).copy()
        parity = 1 if order == "tff" else 0
        frame[parity::2] = scene(second, height)[parity::2]
        frames.append(frame)
    return frames


def telecined(count):
    """Moments of the fields of `count` film frames, two and three in turn."""
    return [n for n in range(count) for _ in range(2 + n % 2)]


def write(path, frames, *, codec="ffv1", order=None, rate=Fraction(25)):
    """Luma pictures as a clip; `order` marks it as interlaced."""
    marked = {"flags": "+ilme+ildct", "qmin": "1", "qmax": "2", "b": "20M"} if order else {}
    with av.open(str(path), "w") as out:
        stream = out.add_stream(codec, rate=rate, options={"threads": "1", **marked})
        stream.width, stream.height, stream.pix_fmt = WIDTH, frames[0].shape[0], "yuv420p"
        stream.codec_context.time_base = 1 / rate
        graph = None
        for n, luma in enumerate(frames):
            gray = np.full((luma.shape[0] // 2, WIDTH), 128, np.uint8)
            frame = av.VideoFrame.from_ndarray(np.vstack([luma, gray]), format="yuv420p")
            frame.pts, frame.time_base = n, 1 / rate
            if order:
                if graph is None:
                    graph = av.filter.Graph()
                    mark = graph.add("setfield", f"mode={order}")
                    graph.link_nodes(
                        graph.add_buffer(template=frame, time_base=1 / rate), mark, graph.add("buffersink")
                    )
                graph.vpush(frame)
                frame = graph.vpull()
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fields")
    return {
        "progressive": write(folder / "progressive.mkv", [scene(n) for n in range(30)]),
        "untagged": write(folder / "untagged.mkv", woven(range(60), "bff")),
        "tagged": write(folder / "tagged.mpg", woven(range(60)), codec="mpeg2video", order="tff"),
        "small": write(folder / "small.mpg", woven(range(60), "bff", 64), codec="mpeg2video", order="bff"),
        "film": write(folder / "film.mpg", [scene(n) for n in range(30)], codec="mpeg2video", order="tff"),
        "pulldown": write(folder / "pulldown.mkv", woven(telecined(48)), rate=Fraction(30000, 1001)),
    }


@pytest.mark.parametrize(
    ("name", "scan", "order", "marked"),
    [
        ("progressive", Scan.PROGRESSIVE, "tff", False),
        ("untagged", Scan.INTERLACED, "bff", False),
        ("tagged", Scan.INTERLACED, "tff", True),
        ("small", Scan.INTERLACED, "bff", True),
        ("film", Scan.PROGRESSIVE, "tff", True),
        ("pulldown", Scan.TELECINE, "tff", False),
    ],
)
def test_pictures_tell_how_they_came_about(clips, name, scan, order, marked):
    found = detect(clips[name])
    assert (found.scan, found.order, found.marked) == (scan, order, marked)


def frames(path, wanted="auto", **options):
    """(frames, the line that was said) with `wanted` done."""
    double = options.pop("double", False)
    made, said = deinterlacing(Deinterlace(wanted), lambda: detect(path), double=double)
    with Decoder(path, deinterlace=made, **options) as decoder:
        found = list(decoder)
        assert {frame.time_base for frame in found} <= {decoder.info.time_base}
    return found, said


def error(frame, moment):
    """RMS in codes against the whole picture of that moment, without the rim, where nothing is known of motion."""
    rows = slice(8, -8)
    difference = frame.planes[0][rows, 8:-8].astype(float) - scene(moment, frame.height)[rows, 8:-8]
    return np.sqrt((difference**2).mean())


@pytest.mark.parametrize("name", ["untagged", "tagged"])
def test_frames_are_whole_and_keep_their_times(clips, name):
    before, _ = frames(clips[name], "off")
    after, said = frames(clips[name])
    assert "interlaced" in said
    assert "bwdif" in said
    assert [(f.time, f.duration * f.time_base) for f in before] == [(f.time, f.duration * f.time_base) for f in after]
    for n in range(2, 28):
        assert error(after[n], 2 * n) < 0.4 * error(before[n], 2 * n)
    assert not any(f.interlaced for f in after)


def test_a_frame_for_each_field(clips):
    before, _ = frames(clips["tagged"], "off")
    after, said = frames(clips["tagged"], double=True)
    assert "each field" in said
    assert len(after) == 60
    assert [f.time for f in after[::2]] == [f.time for f in before]
    assert {b.time - a.time for a, b in pairwise(after)} == {Fraction(1, 50)}
    assert all(error(after[n], n) < 6 < error(after[n], n + 1) for n in range(4, 56))


def test_fields_of_telecined_film_find_their_frames(clips):
    before, _ = frames(clips["pulldown"], "off")
    after, said = frames(clips["pulldown"])
    assert "telecined film" in said
    assert [f.time for f in before] == [f.time for f in after]
    shown = telecined(48)[::2]
    # Whole frames of the film come back: better than any interpolation, and one in five a repeat.
    exact = [min(error(f, m) for m in (shown[n], shown[n] + 1)) for n, f in enumerate(after)]
    assert max(exact[2:-2]) < 0.1
    repeats = sum(a.same_picture(b) for a, b in pairwise(after))
    assert len(after) // 5 - 2 <= repeats <= len(after) // 5 + 1


def test_film_that_is_not_recognised_can_be_named(tmp_path):
    """Drawings on threes: half of a second of it shows too few changes to tell."""
    shown = telecined(24)
    path = write(tmp_path / "threes.mkv", woven([moment // 3 for moment in shown]), rate=Fraction(30000, 1001))
    assert detect(path).scan is Scan.INTERLACED
    after, said = frames(path, "film")
    assert "to be taken for film" in said
    assert "fields matched" in said
    interpolated, _ = frames(path)
    wanted = [{moment // 3 for moment in pair} for pair in zip(shown[::2], shown[1::2], strict=True)]

    def worst(found):
        return max(min(error(f, m) for m in moments) for f, moments in list(zip(found, wanted, strict=True))[4:-4])

    assert worst(after) < 0.1 < worst(interpolated)


@cache
def drawn(moment):
    """A texture in which a small part moves, so that idet's sums over all of it see hardly anything."""
    picture = scene(0).copy()
    picture[200:260, 16:64] = scene(2 * moment)[200:260, 16:64]
    return picture


def cadence(moments, order="tff"):
    """Frames of drawings, two fields each; `moments` are those of the fields in the order in which they are shown."""
    top, bottom = (moments[::2], moments[1::2]) if order == "tff" else (moments[1::2], moments[::2])
    frames = []
    for above, below in zip(top, bottom, strict=True):
        frame = drawn(above).copy()
        frame[1::2] = drawn(below)[1::2]
        frames.append(frame)
    return frames


FILM_RATE = Fraction(30000, 1001)


@pytest.mark.parametrize("order", ["tff", "bff"])
@pytest.mark.parametrize("hold", [1, 2, 3])
def test_film_is_known_by_where_its_pictures_change(tmp_path, hold, order):
    moments = [moment // hold for moment in telecined(96)]
    path = write(tmp_path / "film.mpg", cadence(moments, order), codec="mpeg2video", order=order, rate=FILM_RATE)
    found = detect(path)
    assert (found.scan, found.order) == (Scan.TELECINE, order)


def test_film_is_known_in_either_cadence(tmp_path):
    moments = [n for n in range(96) for _ in range((2, 3, 3, 2)[n % 4])]
    assert detect(write(tmp_path / "film.mkv", cadence(moments), rate=FILM_RATE)).scan is Scan.TELECINE


def test_film_is_known_though_the_phase_leaps_at_an_edit(tmp_path):
    moments = [n // 2 for n in telecined(96)]
    moments = moments[:102] + moments[105:118] + moments[119:]
    path = write(tmp_path / "film.mpg", cadence(moments), codec="mpeg2video", order="tff", rate=FILM_RATE)
    assert detect(path).scan is Scan.TELECINE


@pytest.mark.parametrize(
    "moments",
    [
        pytest.param(list(range(240)), id="moves always"),
        pytest.param([max(n % 23, 11) + 12 * (n // 23) for n in range(240)], id="moves and rests"),
        pytest.param([(n + 1) // 2 for n in range(240)], id="out of step by a field"),
        pytest.param([n // 7 for n in range(240)], id="every seventh field"),
    ],
)
def test_video_is_never_taken_for_film(tmp_path, moments):
    path = write(tmp_path / "video.mpg", cadence(moments), codec="mpeg2video", order="tff", rate=FILM_RATE)
    assert detect(path).scan is not Scan.TELECINE


def test_pictures_that_change_whole_are_no_film(tmp_path):
    """Among them a cursor of one row that blinks, as often as the pattern goes round."""
    pictures = [drawn(n * 4 // 5).copy() for n in range(120)]
    for n, picture in enumerate(pictures):
        picture[100, :] = 255 * (n // 5 % 2)
    path = write(tmp_path / "frames.mpg", pictures, codec="mpeg2video", order="tff", rate=FILM_RATE)
    assert detect(path).scan is not Scan.TELECINE


def test_film_in_interlaced_clothes_is_left_alone(clips):
    before, _ = frames(clips["film"], "off")
    after, said = frames(clips["film"])
    assert "left as it is" in said
    assert all(a.same_picture(b) for a, b in zip(before, after, strict=True))
    forced, said = frames(clips["film"], "bwdif")
    assert "not found to be interlaced" in said
    assert not forced[10].same_picture(before[10])


def test_progressive_video_is_not_touched_or_talked_about(clips):
    after, said = frames(clips["progressive"])
    assert said == ""
    assert np.array_equal(after[7].planes[0], scene(7))


@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("name", ["tagged", "pulldown"])
def test_a_part_comes_out_as_in_the_whole(clips, name, double):
    whole, _ = frames(clips[name], double=double)
    origin = whole[0].time
    with av.open(str(clips[name])) as container:
        origin = Fraction(container.start_time, 1_000_000)
    for start in (Fraction(1, 50), Fraction(1, 10), Fraction(1, 2), Fraction(51, 100)):
        part, _ = frames(clips[name], double=double, start=start, duration=Fraction(1, 5))
        wanted = [f for f in whole if origin + start <= f.time < origin + start + Fraction(1, 5)]
        assert [f.time for f in part] == [f.time for f in wanted]
        assert all(a.same_picture(b) for a, b in zip(part, wanted, strict=True))


@pytest.mark.parametrize("fields", [1, 2])
def test_a_whole_run_is_understood_by_verify(clips, fields, tmp_path, videosr):
    output = tmp_path / "out.mkv"
    options = ["--field-rate"] if fields == 2 else []
    done = videosr("upscale", clips["small"], output, "--preset", "ultrafast", "--temporal", "off", *options)
    assert done.code == 0, done.err
    assert "interlaced, bottom field first" in done.err
    report = verify(clips["small"], output, scale=2)
    assert report.problems == []
    assert (report.facts["frames_each"], report.facts["frames_out"]) == (fields, 30 * fields)


def test_field_rate_needs_deinterlacing():
    with pytest.raises(UsageError, match="--field-rate"):
        TranscodeOptions(deinterlace=Deinterlace.OFF, field_rate=True)


@pytest.mark.parametrize("double", [False, True])
def test_a_change_of_size_begins_anew(clips, double):
    """Neither pictures nor times of one size go over into the other."""
    plan = Plan(order="bff", double=double)
    with Decoder(clips["small"]) as small, Decoder(clips["untagged"]) as large:
        parts = [list(small)[:5], list(large)[:5]]
    made = list(Deinterlacer(plan).run([*parts[0], *parts[1]]))
    apart = [frame for part in parts for frame in Deinterlacer(plan).run(part)]
    assert len(made) == 10 * (1 + double)
    assert [f.time for f in made] == [f.time for f in apart]
    assert all(a.same_picture(b) for a, b in zip(made, apart, strict=True))
    assert not made[0].same_picture(parts[0][0])


def plain(height, n=0):
    fmt = PixelFormat.parse("yuv420p")
    planes = tuple(np.full(fmt.plane_shape(i, height, WIDTH), 90 + 20 * i, np.uint8) for i in range(3))
    return Frame(planes=planes, format=fmt, pts=n, time_base=Fraction(1, 25), duration=1)


def test_a_frame_alone_has_two_fields():
    """Of which bwdif gives both the same time."""
    sizes = [48, 48, 40, 48, 48]
    made = list(Deinterlacer(Plan(order="tff", double=True)).run(plain(height, n) for n, height in enumerate(sizes)))
    assert [(frame.pts, frame.duration) for frame in made] == [(n, 1) for n in range(10)]
    assert [frame.height for frame in made] == [size for size in sizes for _ in range(2)]


@pytest.mark.parametrize("height", [2, 6])
def test_what_is_too_small_is_named(height):
    with pytest.raises(InputError, match="too small to be deinterlaced: give --deinterlace off"):
        list(Deinterlacer(Plan(order="tff")).run([plain(height)]))


@pytest.mark.parametrize(
    "name", ["gray10le", "gray16le", "yuv411p", "yuv422p12le", "yuva444p12le", "gbrp10le", "gbrap", "gbrap10le"]
)
def test_every_kind_of_plane_is_deinterlaced(name):
    fmt = PixelFormat.parse(name)

    def woven_frame(n):
        rows = [scene(2 * n + k, 64).astype(fmt.dtype) << fmt.bits - 8 for k in (0, 1)]
        luma = rows[0].copy()
        luma[1::2] = rows[1][1::2]
        planes = []
        for i in range(fmt.planes):
            height, width = fmt.plane_shape(i, 64, WIDTH)
            planes.append(np.ascontiguousarray(luma[:height, :width]))
        return Frame(planes=tuple(planes), format=fmt, pts=n, time_base=Fraction(1, 25), duration=1)

    before = [woven_frame(n) for n in range(6)]
    after = list(Deinterlacer(Plan(order="tff")).run(before))
    assert [(f.pts, f.format) for f in after] == [(f.pts, fmt) for f in before]
    for a, b in zip(before[1:-1], after[1:-1], strict=True):
        for was, now in zip(a.planes, b.planes, strict=True):
            np.testing.assert_array_equal(was[::2], now[::2])  # the first field stays
            assert (was[1::2] != now[1::2]).mean() > 0.3

"""videosr compare: which moments are shown, what is measured, and the page as a browser shows it."""

import asyncio
import base64
import re
import shutil
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from clips import make_clip
from corpus.hdr import barred, dolby
from test_transparency import COLOUR, disc, write

from videosr.compare.page import page, picture
from videosr.compare.png import png
from videosr.compare.samples import RUN, compared
from videosr.errors import InputError
from videosr.frame import PixelFormat
from videosr.media.planes import PlaneReader, to_av_frame

COLOR = (1, 1, 1, 1, 1)


def decoded(data):
    """A PNG file by FFmpeg."""
    codec = av.CodecContext.create("png", "r")
    (frame,) = codec.decode(av.Packet(data))
    return frame.to_ndarray(format="rgb24")


@pytest.fixture(scope="module")
def films(tmp_path_factory):
    """A reference, one of half its size, and a coarse copy with other ticks; the picture moves and has no cut."""
    folder = tmp_path_factory.mktemp("films")
    same = {"frames": 40, "color": COLOR}
    make_clip(folder / "truth.mkv", width=160, height=96, codec="ffv1", **same)
    make_clip(folder / "small.mkv", width=80, height=48, codec="ffv1", **same)
    coarse = {"crf": "45", "bf": "2"}
    make_clip(folder / "coarse.mp4", width=160, height=96, options=coarse, time_base=Fraction(1, 24), **same)
    return folder


def test_png_files_are_what_they_should_be():
    image = np.random.default_rng(1).integers(0, 256, (37, 53, 3)).astype(np.uint8)
    np.testing.assert_array_equal(decoded(png(image)), image)


def test_measured_against_a_reference(films):
    found = compared(films / "small.mkv", films / "coarse.mp4", films / "truth.mkv")
    assert found.size == (160, 96)
    assert found.notes == ("small.mkv was enlarged from 80x48 to 160x96 by a Lanczos filter",)
    assert [scores.model for scores in found.scores] == ["small.mkv", "coarse.mp4"]
    assert [scores.frames for scores in found.scores] == [RUN * len(found.samples)] * 2
    assert all(sample.pictures[2].shape == (96, 160, 3) for sample in found.samples)
    # The coarse copy shows the same moments as the reference: pictures of others are further from it.
    (sample, *_) = found.samples
    assert np.abs(sample.pictures[1].astype(int) - sample.pictures[2]).mean() < 8
    exact = compared(films / "truth.mkv", films / "coarse.mp4", films / "truth.mkv")
    assert exact.scores[0].psnr == 100
    assert exact.scores[0].flicker in (0, None)
    assert exact.scores[1].psnr == pytest.approx(found.scores[1].psnr)


def test_without_one_the_second_is_measured_against_the_first(films):
    found = compared(films / "truth.mkv", films / "coarse.mp4", at=[Fraction(0), Fraction(1)])
    assert [sample.time for sample in found.samples] == [0, 1]
    assert [scores.model for scores in found.scores] == ["coarse.mp4"]
    assert 15 < found.scores[0].psnr < 60


def test_a_film_that_is_to_be_turned_is_shown_as_one_whose_pictures_were(tmp_path):
    fmt = PixelFormat.parse("yuv444p")
    clip = {"frames": 20, "width": 160, "height": 96, "pix_fmt": fmt.name, "color": COLOR, "options": {"qp": "0"}}
    make_clip(tmp_path / "phone.mp4", matrix=(0, 1, -1, 0), **clip)  # clockwise
    with av.open(str(tmp_path / "phone.mp4")) as source, av.open(str(tmp_path / "upright.mkv"), "w") as out:
        stream = out.add_stream("ffv1", rate=24)
        stream.width, stream.height, stream.pix_fmt = 96, 160, fmt.name
        stream.color_range, stream.colorspace = 1, 1
        for shown in source.decode(video=0):
            planes = [np.rot90(plane, -1) for plane in PlaneReader().read(shown, fmt)]
            out.mux(stream.encode(to_av_frame(planes, fmt)))
        out.mux(stream.encode(None))
    for pair in (("phone.mp4", "upright.mkv"), ("upright.mkv", "phone.mp4")):
        found = compared(*(tmp_path / name for name in pair))
        assert (found.size, found.notes) == ((96, 160), ())
        assert {shown.shape for sample in found.samples for shown in sample.pictures} == {(160, 96, 3)}
        assert found.scores[0].psnr == 100
        assert all(sample.difference == 0 for sample in found.samples)


def test_a_film_that_stands_askew_is_named(tmp_path):
    make_clip(tmp_path / "askew.mp4", frames=14, color=COLOR, matrix=(0.75, 0.5, -0.5, 0.75))
    found = compared(tmp_path / "askew.mp4", tmp_path / "askew.mp4")
    assert "askew.mp4 is to be turned by no multiple of 90 degrees: it is shown as it is coded" in found.notes


def test_colours_that_need_dolby_vision_are_told_of(tmp_path):
    film = dolby(tmp_path, 5, 0, barred)
    assert "in.mp4 is Dolby Vision of profile 5, and shown without its metadata: in wrong colours" in (
        compared(film, film).notes
    )


def test_moments_beyond_the_end_are_told_of(films):
    found = compared(films / "truth.mkv", films / "coarse.mp4", at=[Fraction(1), Fraction(9)])
    assert len(found.samples) == 1
    assert found.notes == ("at 9.000 s not all of them have a frame",)
    with pytest.raises(InputError, match="--at 9: not all of the films have a frame there"):
        compared(films / "truth.mkv", films / "coarse.mp4", at=[Fraction(9)])


def test_films_of_other_frame_rates_are_compared_moment_by_moment(films, tmp_path):
    """Each frame twice as often, and every second one: what is shown at the same time is the same, or nearly."""
    with av.open(str(films / "truth.mkv")) as source:
        frames = [frame.to_ndarray() for frame in source.decode(video=0)]
    for name, rate, wanted in (("twice.mkv", 48, np.repeat(range(40), 2)), ("half.mkv", 12, range(0, 40, 2))):
        with av.open(str(tmp_path / name), "w") as out:
            stream = out.add_stream("ffv1", rate=rate)
            stream.width, stream.height, stream.pix_fmt = 160, 96, "yuv420p"
            stream.color_range, stream.colorspace = 1, 1
            for number in wanted:
                out.mux(stream.encode(av.VideoFrame.from_ndarray(frames[number], format="yuv420p")))
            out.mux(stream.encode(None))
    found = compared(tmp_path / "twice.mkv", tmp_path / "half.mkv", films / "truth.mkv", at=[Fraction(0), Fraction(1)])
    assert [scores.frames for scores in found.scores] == [2 * RUN] * 2
    assert found.scores[0].psnr == 100
    assert found.scores[1].psnr > 55  # half of its frames are those, the others the neighbours
    assert found.notes == (
        "twice.mkv has 48 frames a second and truth.mkv 24: what both show at the same moments is compared",
        "half.mkv has 12 frames a second and truth.mkv 24: what both show at the same moments is compared",
    )
    turned = compared(tmp_path / "half.mkv", films / "truth.mkv")
    assert turned.scores[0].psnr == 100


def changing(path, times):
    """A film whose picture is another one every second."""
    rng = np.random.default_rng(5)
    pictures = rng.integers(30, 220, (8, 96, 64)).astype(np.uint8)
    with av.open(str(path), "w") as out:
        stream = out.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        stream.codec_context.time_base = stream.time_base = Fraction(1, 1000)
        for n, time in enumerate(times):
            frame = av.VideoFrame.from_ndarray(pictures[time // 1000], format="yuv420p")
            frame.pts, frame.time_base = time, Fraction(1, 1000)
            frame.duration = (times[n + 1] if n + 1 < len(times) else time + 40) - time
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path


def test_what_is_on_the_screen_is_compared_however_long_it_stays(tmp_path):
    """Also with a film of frames close together at first, and once a second then."""
    at = [Fraction(moment) for moment in ("0", "0.98", "1", "2.75", "6.5")]
    every = changing(tmp_path / "every.mkv", [40 * n for n in range(200)])
    few = changing(tmp_path / "few.mkv", [1000 * n for n in range(8)])
    uneven = changing(tmp_path / "uneven.mkv", [*range(0, 2000, 10), *range(2000, 8000, 1000)])
    for pair in ((every, few), (few, every), (uneven, few), (few, uneven), (uneven, every)):
        found = compared(*pair, at=at)
        assert found.scores[0].psnr == 100, pair
        assert len(found.samples) == len(at)
    moments = compared(uneven, uneven, every, at=at)
    assert moments.scores[0].psnr == 100
    assert len(moments.samples) == len(at)
    for sample in moments.samples:
        assert np.array_equal(*sample.pictures[1:])


def test_a_part_is_compared_with_as_much_of_the_whole(films, tmp_path):
    make_clip(tmp_path / "part.mkv", frames=14, color=COLOR, width=160, height=96, codec="ffv1")
    for pair in ((films / "truth.mkv", tmp_path / "part.mkv"), (tmp_path / "part.mkv", films / "truth.mkv")):
        found = compared(*pair)
        assert [sample.time for sample in found.samples] == [Fraction(292, 1000)]
        assert found.scores[0].psnr == 100


def test_one_moment_of_each_scene(tmp_path):
    """Scenes by their colours, one of them too short to count."""
    source = tmp_path / "scenes.mkv"
    rng = np.random.default_rng(3)
    with av.open(str(source), "w") as out:
        stream = out.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 128, 96, "yuv420p"
        for length in (30, 5, 40, 20):
            texture = rng.integers(30, 220, (18, 16)).repeat(8, 0).repeat(8, 1).astype(np.uint8)
            for _ in range(length):
                out.mux(stream.encode(av.VideoFrame.from_ndarray(texture, format="yuv420p")))
        out.mux(stream.encode(None))
    times = [round(sample.time * 25) for sample in compared(source, source).samples]
    assert times == [15, 55, 85]
    assert [round(s.time * 25) for s in compared(source, source, scenes=1).samples] == [55]


def test_colours_that_do_not_show_do_not_count(tmp_path):
    for name, hidden in (("black", (0, 0, 0)), ("red", (255, 0, 0))):
        write(tmp_path / f"{name}.png", disc(hidden), "png", "rgba")
        write(tmp_path / f"{name}-opaque.png", disc(hidden), "png", "rgb24")
    found = compared(tmp_path / "black.png", tmp_path / "red.png")
    assert found.notes == ("what is transparent is shown on grey",)
    assert found.samples[0].difference == 0
    assert found.scores[0].psnr == 100
    assert [tuple(found.samples[0].pictures[0][at]) for at in ((0, 0), (32, 32))] == [(128,) * 3, COLOUR]
    # Where one has no alpha, the colours behind it show.
    found = compared(tmp_path / "black.png", tmp_path / "red-opaque.png")
    assert found.notes == ()
    assert tuple(found.samples[0].pictures[1][0, 0]) == (255, 0, 0)


def test_large_pictures_show_where_they_differ_most(tmp_path):
    a = np.full((1200, 2000, 3), 90, np.uint8)
    b = a.copy()
    b[1150:1190, 1960:1990] = 200
    (tmp_path / "a.png").write_bytes(png(a))
    (tmp_path / "b.png").write_bytes(png(b))
    found = compared(tmp_path / "a.png", tmp_path / "b.png")
    (sample,) = found.samples
    assert sample.pictures[0].shape == (1080, 1920, 3)
    row, column = sample.corner
    assert row + 1080 >= 1190
    assert column + 1920 >= 1990
    assert f"1920x1080 of 2000x1200, from column {column} and row {row} on" in page(found)
    both = decoded(picture(found))
    assert both.shape == (1080, 3 * 1920 + 8, 3)
    assert (both[:, :1920] == sample.pictures[0]).all()
    assert both[:, -1920:].max() == 255  # 110 times eight and no more
    assert both[:900, -1920:].max() == 0


def test_the_page_needs_nothing_else(films):
    text = page(compared(films / "small.mkv", films / "coarse.mp4", films / "truth.mkv"))
    assert not re.search(r"https?:|//[a-z]", re.sub(r"base64,[^\"]*", "", text))
    images = re.findall(r'src="data:image/png;base64,([^"]*)"', text)
    assert len(images) % 3 == 0
    assert decoded(base64.b64decode(images[0])).shape == (96, 160, 3)
    assert "small.mkv was enlarged from 80x48" in text


def test_names_do_no_harm(films, tmp_path):
    odd = tmp_path / "<img src=x onerror=alert(1)>$a.mkv"
    try:
        shutil.copy(films / "truth.mkv", odd)
    except OSError:
        pytest.skip("the file system has no such names")
    text = page(compared(odd, films / "coarse.mp4"))
    assert "<img src=x" not in text
    assert "&lt;img src=x onerror=alert(1)&gt;$a.mkv" in text


def test_names_that_are_no_unicode(films, tmp_path, videosr):
    odd = tmp_path / "\udcff.mkv"
    shutil.copy(films / "truth.mkv", odd)
    done = videosr("compare", odd, films / "coarse.mp4", "-o", tmp_path / "a.html")
    assert done.code == 0, done.err
    assert r"measured against \udcff.mkv" in done.out
    assert r"<h1>\udcff.mkv | coarse.mp4</h1>" in (tmp_path / "a.html").read_text()


def test_the_command(films, tmp_path, videosr):
    report, image = tmp_path / "report.html", tmp_path / "both\n.png"
    done = videosr("compare", films / "small.mkv", films / "coarse.mp4", "-o", report, "--png", image)
    assert done.code == 0, done.err
    assert done.out.splitlines()[0] == "small.mkv was enlarged from 80x48 to 160x96 by a Lanczos filter"
    assert "coarse.mp4" in done.out
    assert done.out.endswith("both\\n.png\n")  # a line is a line
    assert "measured against small.mkv" in done.out
    assert report.read_text().startswith("<!doctype html>")
    assert decoded(image.read_bytes()).shape[0] == 96
    before = (films / "small.mkv").read_bytes()
    for arguments, words in (
        ((), "nothing to write"),
        (("-o", films / "small.mkv"), "is one of the inputs"),
        (("--png", tmp_path), "is a folder"),
        (("-o", report, "--png", report), "both name"),
        (("-o", tmp_path / "none" / "a.html"), "there is no such folder; make it first"),
        (("-o", report, "--at", 1, "--at=-1"), "--at -1 lies before the beginning"),
    ):
        refused = videosr("compare", films / "small.mkv", films / "coarse.mp4", *arguments)
        assert refused.code == 2
        assert words in refused.err
    assert (films / "small.mkv").read_bytes() == before
    missing = videosr("compare", films / "small.mkv", films / "none.mkv", "-o", report)
    assert (missing.code, "none.mkv" in missing.err) == (1, True)


def test_in_a_browser(films, tmp_path, monkeypatch):
    pytest.importorskip("aiohttp", reason="the browser is driven through aiohttp")
    monkeypatch.syspath_prepend(Path(__file__).with_name("live"))
    from browser import CHROMIUM, browse

    if CHROMIUM is None:
        pytest.skip("there is no Chromium here")
    report = tmp_path / "report.html"
    report.write_text(page(compared(films / "small.mkv", films / "coarse.mp4", films / "truth.mkv")))

    async def look():
        async with browse(report.as_uri(), tmp_path / "profile") as tab:
            shown = "[...document.images].every(i => i.complete && i.naturalWidth === 160) && document.images.length"
            assert await tab.until(shown) % 3 == 0
            style = "getComputedStyle(document.querySelector('{}')).{}"
            clip = style.format(".b", "clipPath")
            assert "50%" in await tab.evaluate(clip)
            width = "Math.round(document.querySelector('{}').getBoundingClientRect().width)"
            # The slider is as wide as what it cuts, but for the frame.
            assert await tab.evaluate(width.format("input")) - await tab.evaluate(width.format(".stage")) in (0, 1, 2)
            await tab.evaluate("const s = document.querySelector('input'); s.value = 20; s.oninput()")
            assert "20%" in await tab.evaluate(clip)
            for key, selector, name, wanted in (
                ("a", ".b", "visibility", "hidden"),
                ("r", ".r", "visibility", "visible"),
                ("d", ".b", "mixBlendMode", "difference"),
                ("b", ".b", "clipPath", "none"),
            ):
                await tab.evaluate(f"dispatchEvent(new KeyboardEvent('keydown', {{key: '{key}'}}))")
                assert await tab.evaluate(style.format(selector, name)) == wanted
            await tab.evaluate("document.querySelector('[data-zoom=\"4\"]').click()")
            width = await tab.evaluate("document.images[0].getBoundingClientRect().width * devicePixelRatio")
            assert width == pytest.approx(640)
            shape = "[...document.images].every(i => Math.abs(i.width / i.height - 160 / 96) < 0.02)"
            assert await tab.evaluate(shape)
            await tab.call(
                "Emulation.setDeviceMetricsOverride", width=120, height=600, deviceScaleFactor=1, mobile=False
            )
            await tab.evaluate("document.querySelector('[data-zoom=fit]').click()")
            assert await tab.evaluate("document.images[0].width") < 120
            assert await tab.evaluate(shape)
            assert await tab.evaluate("performance.getEntriesByType('resource').every(r => r.name.startsWith('data:'))")

    asyncio.run(look())

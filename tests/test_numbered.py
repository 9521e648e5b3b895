"""Numbered pictures through the command line: in, out, and both."""

import json
import os
import struct
from fractions import Fraction

import av
import numpy as np
import pytest
from clips import VFR_PTS, make_clip

from videosr.color import to_rgb
from videosr.errors import OutputError
from videosr.media.checks.verify import verify
from videosr.media.decoder import Decoder
from videosr.media.stills import mixed, sequence
from videosr.media.stills.mixed import common_format
from videosr.media.stills.numbered import Numbered
from videosr.progress import Progress

GREYS = np.stack([np.full(256, 255), *[np.arange(256)] * 3], -1).astype(np.uint8)
"""A palette: alpha, red, green and blue of each code."""
FFV1 = ("--codec", "ffv1")


def write(path, array, codec="png", pix_fmt="rgb24", wanted=None):
    """An (H, W, 3) array as a picture."""
    frame = av.VideoFrame.from_ndarray(array, format=pix_fmt)
    frame = frame.reformat(format=wanted) if wanted else frame
    context = av.CodecContext.create(codec, "w")
    context.width, context.height, context.pix_fmt = frame.width, frame.height, frame.format.name
    context.time_base = Fraction(1)
    frame.pts = 0
    path.write_bytes(b"".join(bytes(p) for f in (frame, None) for p in context.encode(f)))


def moving(index, height=32, width=40):
    y, x = np.mgrid[0:height, 0:width]
    waves = [128 + 100 * np.sin((x + 2 * index) / 7), 128 + 90 * np.cos((y - index) / 5), (x * 2 + index) % 256]
    return np.stack(waves, -1).astype(np.uint8)


def scan(folder, numbers=range(8, 14), suffix="png", codec="png", wanted=None):
    """Numbered pictures; gives their pattern."""
    folder.mkdir()
    for number in numbers:
        write(folder / f"{number:05d}.{suffix}", moving(number), codec, wanted=wanted)
    return folder / f"%05d.{suffix}"


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def samples(path):
    with Decoder(path) as decoder:
        return [np.stack(frame.planes) for frame in decoder]


# -- in ---------------------------------------------------------------------------------------------------------------


def test_pictures_become_a_video(tmp_path, videosr):
    pattern = scan(tmp_path / "50%done")
    done = videosr("upscale", pattern, tmp_path / "out.mkv", *FFV1, "--framerate", "30000/1001")
    assert done.code == 0, done.err
    with av.open(str(tmp_path / "out.mkv")) as container:
        assert container.streams.video[0].average_rate == Fraction(30000, 1001)
        times = [frame.pts for frame in container.decode(video=0)]
    assert times == [round(n * 1001 / 30) for n in range(6)]  # Matroska's milliseconds
    with Decoder(tmp_path / "out.mkv") as made:
        assert made.info.format.family == "rgb"
        assert (made.info.width, made.info.height) == (80, 64)
    assert verify(pattern, tmp_path / "out.mkv", scale=2, framerate=Fraction(30000, 1001)).problems == []
    assert any("frame 1 is shown" in line for line in verify(pattern, tmp_path / "out.mkv").problems)


def test_a_rate_that_nobody_says_is_said(tmp_path, videosr):
    pattern = scan(tmp_path / "scan")
    done = videosr("upscale", pattern, tmp_path / "out.mkv", *FFV1)
    assert done.code == 0, done.err
    assert "24 a second; --framerate" in done.err
    assert verify(pattern, tmp_path / "out.mkv", scale=2).problems == []


def test_a_part_of_pictures(tmp_path, videosr):
    pattern = scan(tmp_path / "50%done")
    part = ("--framerate", "10", "--start", "0.2", "--duration", "0.3", "-q")
    assert videosr("upscale", pattern, tmp_path / "out.mkv", *FFV1, "--pix-fmt", "gbrp10le", *part).code == 0
    (tmp_path / "out").mkdir()
    assert videosr("upscale", pattern, tmp_path / "out" / "%d.png", *part).code == 0
    assert names(tmp_path / "out") == ["10.png", "11.png", "12.png"]
    for number, planes in zip((10, 11, 12), samples(tmp_path / "out.mkv"), strict=True):
        (alone,) = samples(tmp_path / "out" / f"{number}.png")
        assert np.abs(planes / 4 - alone).mean() < 1


def test_deep_pictures_stay_deep(tmp_path, videosr):
    pattern = scan(tmp_path / "dpx", suffix="dpx", codec="dpx", wanted="gbrp10be")
    assert videosr("upscale", pattern, tmp_path / "out.mkv", *FFV1, "-q").code == 0
    with Decoder(tmp_path / "out.mkv") as made:
        assert (made.info.format.family, made.info.format.bits) == ("rgb", 10)
    (tmp_path / "out").mkdir()
    assert videosr("upscale", pattern, tmp_path / "out" / "%d.png", "--frames", "1", "-q").code == 0
    with Decoder(tmp_path / "out" / "8.png") as made:
        assert made.info.format.bits == 16


@pytest.mark.parametrize(
    ("suffix", "codec", "kinds", "format"),
    [
        ("png", "png", ("gray", "rgb24", "gray"), "gbrp"),
        ("png", "png", ("gray", "gray16be"), "gray16le"),
        ("png", "png", ("rgb24", "gray"), "gbrp"),
        ("png", "png", ("rgb24", "rgba", "ya8"), "gbrap"),
        ("png", "png", ("rgba", "rgb48be"), "gbrap16le"),
        ("png", "png", ("rgb24", "pal8"), "gbrp"),
        ("tif", "tiff", ("gray", "rgb24"), "gbrp"),
        ("tif", "tiff", ("gray", "rgb48le"), "gbrp16le"),
    ],
)
def test_pictures_that_are_stored_in_several_ways_lose_nothing(tmp_path, suffix, codec, kinds, format):
    pattern = tmp_path / f"%d.{suffix}"
    for number, kind in enumerate(kinds):
        array = moving(number)
        if kind == "pal8":
            write(tmp_path / f"{number}.{suffix}", (array[..., 0], GREYS), codec, kind)
        else:
            write(tmp_path / f"{number}.{suffix}", array, codec, wanted=kind)
    with Decoder(pattern) as decoder:
        frames = list(decoder)
        assert decoder.info.format.name == format
    assert {frame.format.name for frame in frames} == {format}
    assert {frame.color for frame in frames} == {decoder.info.color}
    assert not [line for line in decoder.warnings if "changes" in line]
    for number, frame in enumerate(frames):
        with Decoder(tmp_path / f"{number}.{suffix}") as alone:
            (own,) = alone
        made = to_rgb(frame.planes, frame.format, frame.color)
        wanted = to_rgb(own.planes, own.format, own.color)
        assert np.abs(made - wanted).max() < 1e-4
        if frame.format.alpha:
            top = (1 << frame.format.bits) - 1
            alpha = own.planes[-1] / ((1 << own.format.bits) - 1) if own.format.alpha else 1
            assert np.abs(frame.planes[-1] / top - alpha).max() < 1e-4


def test_grey_jpegs_are_known_by_their_headers(tmp_path):
    for number, components in enumerate((1, 3)):
        exif = struct.pack(">2sH6s", b"\xff\xe1", 8, b"Exif\0\0")
        head = struct.pack(">2sHBHHB", b"\xff\xc2", 8 + 3 * components, 8, 32, 40, components)
        (tmp_path / f"{number}.jpg").write_bytes(b"\xff\xd8" + exif + head + bytes(3 * components))
    pictures = Numbered(tmp_path / "%d.jpg")
    found = common_format(pictures)
    assert found is not None
    assert found.name == "gbrp"
    with (tmp_path / "0.jpg").open("r+b") as file:  # is not taken for what it was
        file.write((tmp_path / "1.jpg").read_bytes())
    assert common_format(pictures) is None  # all alike
    (tmp_path / "1.jpg").write_bytes(b"\xff\xd8\xff\xe1\xff")  # cut off
    assert common_format(pictures) is None


def test_the_headers_of_many_pictures_are_read_once(tmp_path, monkeypatch):
    pattern = scan(tmp_path / "scan", range(3))
    looked = []
    kind = mixed._kind
    monkeypatch.setattr(mixed, "_kind", lambda file: looked.append(file.name) or kind(file))
    for _ in range(3):  # as pieces of one film are opened
        Decoder(pattern).close()
    assert len(looked) == 3


def test_a_film_that_begins_in_grey_keeps_its_colours(tmp_path, out, videosr):
    pattern = scan(tmp_path / "scan", range(3))
    write(tmp_path / "scan" / "00000.png", moving(0), wanted="gray")
    done = videosr("upscale", pattern, out / "%05d.png", "--strict")
    assert done.code == 0, done.err
    assert samples(out / "%05d.png")[2].std(axis=0).max() > 50


def test_what_is_wrong_with_pictures_names_the_picture(tmp_path, videosr):
    pattern, output = scan(tmp_path / "scan"), tmp_path / "out.mkv"
    third = tmp_path / "scan" / "00010.png"
    whole = third.read_bytes()

    def refused(words):
        done = videosr("upscale", pattern, output, *FFV1, "-q")
        assert done.code == 1
        (line,) = done.err.splitlines()
        assert line.startswith(f"videosr: {third}: ")
        assert words in line
        assert not output.exists()

    third.unlink()
    refused("is missing")
    write(third, moving(10, height=34))
    refused("is 40x34, and the pictures before it 40x32")
    third.write_bytes(whole[: len(whole) // 4])
    refused("cannot be decoded")
    third.write_bytes(b"no picture")
    refused(" as png, which the first one is")
    third.write_bytes(b"")  # which FFmpeg takes for the end of the film
    refused("is empty (0 bytes)")
    third.unlink()
    third.symlink_to("nowhere")
    refused("cannot be read: No such file or directory")


def test_the_name_of_a_file_is_a_name(tmp_path, videosr):
    write(tmp_path / "a%03d.png", moving(1))
    write(tmp_path / "a001.png", moving(99, height=16))
    assert videosr("upscale", tmp_path / "a%03d.png", tmp_path / "out.png", "-q").code == 0
    assert samples(tmp_path / "out.png")[0].shape == (3, 64, 80)


def test_a_rate_is_for_pictures_alone(tmp_path, videosr):
    done = videosr("upscale", make_clip(tmp_path / "clip.mkv"), tmp_path / "out.mkv", "--framerate", "24")
    assert done.code == 2
    assert "says itself when its frames are shown" in done.err


# -- out --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def out(tmp_path):
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


@pytest.fixture
def clip(tmp_path):
    return make_clip(tmp_path / "clip.mkv", frames=40, noise=6.0, codec="ffv1")


def test_a_video_becomes_pictures(tmp_path, out, videosr):
    common = {"frames": 15, "color": (1, 1, 1, 1, 1), "codec": "libx265", "pix_fmt": "yuv420p10le", "noise": 6.0}
    clip = make_clip(
        tmp_path / "clip.mkv", sar=Fraction(4, 3), audio=[("aac", "eng")], chapters=[(0, 90, "a")], **common
    )
    refused = videosr("upscale", clip, out / "%03d.png", "--strict")
    assert refused.code == 1
    assert names(out) == []
    done = videosr("upscale", clip, out / "%03d.png")
    assert done.code == 0, done.err
    assert "audio" in done.err
    assert "chapters" in done.err
    assert "how long each frame" not in done.err
    assert names(out) == [f"{number:03d}.png" for number in range(1, 16)]
    # The same frames as in a film, after the same matrix and range.
    assert videosr("upscale", clip, tmp_path / "film.mkv", *FFV1, "--pix-fmt", "gbrp16le", "-q").code == 0
    for number, planes in enumerate(samples(tmp_path / "film.mkv"), 1):
        with Decoder(out / f"{number:03d}.png") as decoder:
            assert decoder.info.sar == Fraction(4, 3)
            assert decoder.info.format.bits == 16
            (frame,) = decoder
        assert np.abs(np.stack(frame.planes).astype(int) - planes).max() <= 256
    assert verify(clip, out / "%03d.png", scale=2).problems == []
    (out / "015.png").unlink()
    assert any("14 frames, expected 15" in line for line in verify(clip, out / "%03d.png").problems)


def test_the_first_picture_is_that_of_a_still(clip, tmp_path, out, videosr):
    assert videosr("upscale", clip, out / "%d.png", "--frames", "2", "-q").code == 0
    assert videosr("upscale", clip, tmp_path / "still.png", "--frames", "1", "-q").code == 0
    assert (out / "1.png").read_bytes() == (tmp_path / "still.png").read_bytes()


def test_uneven_times_are_named(tmp_path, out, videosr):
    clip = make_clip(tmp_path / "clip.mkv", pts=VFR_PTS)
    done = videosr("upscale", clip, out / "%d.jpg")
    assert done.code == 0
    assert "how long each frame is shown is lost" in done.err
    assert videosr("upscale", clip, out / "%d.jpg", "--strict", "--overwrite").code == 1


def test_pictures_in_keep_their_numbers_and_what_they_hold(tmp_path, out, videosr):
    pattern = scan(tmp_path / "scan")
    for file in (tmp_path / "scan").iterdir():
        alpha = np.dstack([moving(1), np.full((32, 40), 77, np.uint8)])
        write(file, alpha, pix_fmt="rgba")
    done = videosr("upscale", pattern, out / "%d.png", "--strict")
    assert done.code == 0, done.err
    assert names(out) == sorted(f"{number}.png" for number in range(8, 14))
    (planes,) = samples(out / "13.png")
    assert planes.shape[0] == 4
    assert (planes[3] == 77).all()


def fail_at(monkeypatch, frame, error):
    """Let the encoding fail at that frame, once."""
    encode, count = sequence.PictureEncoder.encode, iter(range(10_000))

    def failing(self, picture):
        if next(count) == frame:
            raise error
        encode(self, picture)

    monkeypatch.setattr(sequence.PictureEncoder, "encode", failing)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OutputError("the disk is full")], ids=str)
def test_an_interrupted_run_goes_on(clip, tmp_path, out, videosr, monkeypatch, error):
    straight = tmp_path / "straight"
    straight.mkdir()
    assert videosr("upscale", clip, straight / "%d.png", "-q").code == 0
    with monkeypatch.context() as patch:
        fail_at(patch, 27, error)
        broken = videosr("upscale", clip, out / "%d.png")
    assert broken.code == (130 if isinstance(error, KeyboardInterrupt) else 1)
    assert "the same command goes on from there" in broken.err
    made = [name for name in names(out) if not name.startswith(".")]
    assert 12 <= len(made) <= 24
    for name in made:
        assert (out / name).read_bytes() == (straight / name).read_bytes()
    other = videosr("upscale", clip, out / "%d.png", "--temporal", "off")
    assert other.code == 2
    assert "an unfinished run of another kind" in other.err
    (out / "5.png").unlink()  # with the eleven others of its run it is made again
    mark = (out / "12.png").stat().st_ino, (out / "13.png").exists() and (out / "13.png").stat().st_ino
    again = videosr("upscale", clip, out / "%d.png", "--json")
    assert again.code == 0, again.err
    begin = next(e for e in map(json.loads, again.out.splitlines()) if e["event"] == "begin")
    assert begin["resumed"] == 12
    assert (out / "12.png").stat().st_ino != mark[0]
    if mark[1]:
        assert (out / "13.png").stat().st_ino == mark[1]  # not written again
    assert names(out) == names(straight)
    for name in names(out):
        assert (out / name).read_bytes() == (straight / name).read_bytes()


def test_a_picture_that_is_cut_off_has_no_name(clip, out, videosr, monkeypatch):
    """And what is left of it is gone after the next run."""
    replace, count = os.fsync, iter(range(10_000))

    def failing(file):
        if next(count) == 20:
            raise KeyboardInterrupt
        replace(file)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", failing)
        assert videosr("upscale", clip, out / "%d.png", "-q").code == 130
    made = [name for name in names(out) if not name.startswith(".")]
    assert made
    for name in made:
        assert len(samples(out / name)) == 1
    assert videosr("upscale", clip, out / "%d.png", "-q").code == 0
    assert names(out) == sorted(f"{number}.png" for number in range(1, 41))


def test_pictures_that_are_there_stay(clip, out, videosr):
    for number in (2, 70):
        (out / f"{number}.png").write_bytes(b"mine")
    refused = videosr("upscale", clip, out / "%d.png")
    assert refused.code == 2
    assert f"{out / '2.png'} exists" in refused.err
    assert names(out) == ["2.png", "70.png"]
    done = videosr("upscale", clip, out / "%d.png", "--overwrite")
    assert done.code == 0
    assert f"{out / '70.png'} and what is behind it was there before" in done.err
    assert (out / "70.png").read_bytes() == b"mine"
    assert len(names(out)) == 41


def test_the_input_is_no_output(tmp_path, videosr):
    pattern = scan(tmp_path / "scan")
    before = [file.read_bytes() for file in sorted((tmp_path / "scan").iterdir())]
    done = videosr("upscale", pattern, tmp_path / "scan" / "%d.png", "-q")
    assert done.code == 0  # other names
    done = videosr("upscale", pattern, pattern, "--overwrite")
    assert done.code == 2
    assert "belongs to the input" in done.err
    assert [(tmp_path / "scan" / f"{n:05d}.png").read_bytes() for n in range(8, 14)] == before


def test_several_processes_make_the_same_pictures(clip, tmp_path, out, videosr, monkeypatch):
    straight = tmp_path / "straight"
    straight.mkdir()
    assert videosr("upscale", clip, straight / "%d.png", "-q").code == 0
    there = []
    frames = Progress.frames

    def counted(self, done):
        there.append(len(names(out)))
        frames(self, done)

    monkeypatch.setattr(Progress, "frames", counted)
    done = videosr("upscale", clip, out / "%d.png", "--jobs", "2", "-q")
    assert done.code == 0, done.err
    for name in names(straight):
        assert (out / name).read_bytes() == (straight / name).read_bytes()
    assert names(out) == names(straight)
    assert any(0 < count < 40 for count in there), "pictures come as they are made"


@pytest.mark.parametrize(("output", "way"), [("-", "-o - | ..."), ("a b.y4m", "-o - > '")])
def test_raw_video_is_refused_with_the_way_to_it(clip, tmp_path, videosr, output, way):
    done = videosr("upscale", clip, output if output == "-" else tmp_path / output)
    assert done.code == 2
    assert f"videosr serve {clip} {way}" in done.err

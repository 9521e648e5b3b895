"""JPEG that is cut short, as downloads and recordings are."""

import struct
from fractions import Fraction

import av
import numpy as np
import pytest
from clips import picture

from videosr.frame import PixelFormat
from videosr.media.decoder import Decoder
from videosr.media.planes import to_av_frame

FORMAT = PixelFormat.of("yuv", 8, 1, 1)
SIZE = {"height": 96, "width": 128}


def jpegs(number):
    """So many pictures, each a whole JPEG."""
    context = av.CodecContext.create("mjpeg", "w")
    context.width, context.height, context.pix_fmt = SIZE["width"], SIZE["height"], "yuvj420p"
    context.time_base = Fraction(1, 25)
    context.options = {"qmin": "2", "qmax": "2"}
    made = []
    for n in range(number):
        frame = to_av_frame(picture(n, FORMAT, **SIZE, noise=9.0), FORMAT).reformat(format="yuvj420p")
        frame.pts = n
        made += map(bytes, context.encode(frame))
    return [*made, *map(bytes, context.encode(None))]


def cut(jpeg):
    return jpeg[: len(jpeg) * 2 // 3]


def turned(jpeg, orientation):
    """With an EXIF field that says how it is to be turned (EXIF 2.3, 4.6.4 A)."""
    exif = b"Exif\0\0II*\0\x08\0\0\0\x01\0" + struct.pack("<HHIHHI", 0x112, 3, 1, orientation, 0, 0)
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + jpeg[2:]


def test_a_picture_that_is_cut_short_is_said_and_as_far_as_it_goes_the_whole_one(videosr, tmp_path):
    (whole,) = jpegs(1)
    for name, data in (("whole", whole), ("cut", cut(whole)), ("turned", cut(turned(whole, 6)))):
        (tmp_path / f"{name}.jpg").write_bytes(data)
        done = videosr("upscale", tmp_path / f"{name}.jpg", tmp_path / f"{name}.png", "--model", "light-2x")
        assert done.code == 0, done.err
        assert ("1 frame is damaged and was concealed" in done.err) is (name != "whole")
    pictures = {}
    for name in ("whole", "cut", "turned"):
        with av.open(str(tmp_path / f"{name}.png")) as container:
            pictures[name] = next(container.decode(video=0)).to_ndarray(format="rgb24")
    np.testing.assert_array_equal(pictures["cut"][:64], pictures["whole"][:64])
    assert pictures["turned"].shape == (256, 192, 3)


@pytest.mark.parametrize("threads", [1, 4])
def test_pictures_of_a_film_that_are_cut_short_are_counted(tmp_path, threads):
    packets = jpegs(5)
    for n in (1, 3):
        packets[n] = cut(packets[n])
    path = tmp_path / "film.avi"
    with av.open(str(path), "w") as out:
        stream = out.add_stream("mjpeg", rate=25)
        stream.width, stream.height, stream.pix_fmt = SIZE["width"], SIZE["height"], "yuvj420p"
        for n, data in enumerate(packets):
            packet = av.Packet(data)
            packet.stream, packet.pts, packet.dts, packet.time_base = stream, n, n, Fraction(1, 25)
            packet.is_keyframe = True
            out.mux(packet)
    with Decoder(path, threads=threads) as decoder:
        assert [frame.pts for frame in decoder] == [0, 1, 2, 3, 4]
        assert decoder.warnings == ["2 frames are damaged and were concealed"]

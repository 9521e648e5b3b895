"""Still images through the command line: every kind in, every kind out, the colours as they were."""

import errno
import os
import struct
import zlib
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from clips import make_clip

from videosr.frame import Range
from videosr.media.decoder import Decoder


def picture(height, width, channels):
    """A smooth picture with colours that differ: (H, W, channels) float in [0, 1]."""
    y, x = np.mgrid[0:height, 0:width]
    waves = [0.5 + 0.35 * np.sin(x / 7 + k) * np.cos(y / 9 - k) + 0.05 * (k - 1) for k in range(channels)]
    return np.stack(waves, -1).clip(0.05, 0.95)


def encode(path, array, codec, pix_fmt, wanted=None, **options):
    """Write an (H, W[, C]) array of the packed format `pix_fmt` as an image."""
    frame = av.VideoFrame.from_ndarray(array, format=pix_fmt)
    if wanted:
        full = not wanted.startswith("yuv4")
        frame = frame.reformat(format=wanted, dst_colorspace="ITU601", dst_color_range="JPEG" if full else "MPEG")
    context = av.CodecContext.create(codec, "w")
    context.width, context.height, context.pix_fmt = frame.width, frame.height, frame.format.name
    context.time_base = Fraction(1)
    context.options = options
    frame.pts = 0
    path.write_bytes(b"".join(bytes(p) for f in (frame, None) for p in context.encode(f)))


def decode(path):
    """(H, W, 3) float R'G'B' in [0, 1], and alpha or None, by FFmpeg's own conversion."""
    with av.open(str(path)) as container:
        frame = next(container.decode(video=0))
        alpha = any(c.is_alpha for c in frame.format.components)
        rgba = frame.to_ndarray(format="rgba64le").astype(float) / 65535
    return rgba[..., :3], rgba[..., 3] if alpha else None


IMAGES = {
    "rgb.png": ("png", "rgb24", None),
    "odd.png": ("png", "rgb24", None),
    "deep.png": ("png", "rgb48le", "rgb48be"),
    "gray.png": ("png", "gray", None),
    "alpha.png": ("png", "rgba", None),
    "420.jpg": ("mjpeg", "rgb24", "yuvj420p"),
    "444.jpg": ("mjpeg", "rgb24", "yuvj444p"),
    "lossy.webp": ("libwebp", "rgb24", "yuv420p"),
    "flat.bmp": ("bmp", "bgr24", None),
}


@pytest.fixture
def clip(tmp_path):
    return make_clip(tmp_path / "clip.mkv", frames=3)


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp"])
@pytest.mark.parametrize("name", IMAGES)
def test_images_keep_their_colour(tmp_path, name, suffix, videosr):
    codec, pix_fmt, wanted = IMAGES[name]
    height, width = (47, 61) if name == "odd.png" else (48, 64)
    channels = {"gray": 1, "rgba": 4}.get(pix_fmt, 3)
    array = picture(height, width, channels)
    peak = 65535 if "48" in pix_fmt else 255
    stored = np.rint(array * peak).astype(np.uint16 if peak > 255 else np.uint8)
    if pix_fmt == "bgr24":
        stored = stored[..., ::-1].copy()
    source, output = tmp_path / name, tmp_path / f"out.{suffix}"
    encode(source, stored[..., 0] if channels == 1 else stored, codec, pix_fmt, wanted)
    done = videosr("upscale", source, output)
    assert done.code == 0, done.err
    rgb, alpha = decode(output)
    assert rgb.shape == (2 * height, 2 * width, 3)
    expected = decode(source)[0].repeat(2, 0).repeat(2, 1)
    assert np.abs(expected - array[..., :3].repeat(2, 0).repeat(2, 1)).mean() < 0.03
    # The mean colour is what a wrong matrix or range shifts; lossy formats move it by less than half a code.
    np.testing.assert_allclose(rgb.mean((0, 1)), expected.mean((0, 1)), atol=1.0 / 255)
    assert np.abs(rgb - expected).mean() < 0.04
    if channels == 4 and suffix != "jpg":
        assert np.abs(alpha - array[..., 3].repeat(2, 0).repeat(2, 1)).mean() < 0.03
    assert ("alpha plane is lost" in done.err) == (channels == 4 and suffix == "jpg")
    assert ("16 bits become 8" in done.err) == (peak > 255 and suffix != "png")


def test_a_turned_clip_gives_an_upright_image(tmp_path, videosr):
    source = make_clip(tmp_path / "turned.mp4", frames=3, rotation=90, width=64, height=32)
    assert videosr("upscale", source, tmp_path / "out.png", "--frames", "1").code == 0
    rgb, _ = decode(tmp_path / "out.png")
    assert rgb.shape == (128, 64, 3)
    with av.open(str(source)) as container:
        flat = next(container.decode(video=0)).to_ndarray(format="rgb24") / 255
    turned = np.rot90(flat).repeat(2, 0).repeat(2, 1)
    assert np.abs(rgb - turned).mean() < 0.05
    assert np.abs(rgb - turned[::-1, ::-1]).mean() > 0.1


def test_a_video_is_no_image(clip, tmp_path, videosr):
    done = videosr("upscale", clip, tmp_path / "out.png")
    assert done.code == 2
    assert "--frames 1" in done.err
    done = videosr("upscale", clip, tmp_path / "out.png", "--frames", "1", "--codec", "libx264")
    assert done.code == 2
    assert list(tmp_path.iterdir()) == [clip]


def test_an_image_that_cannot_be_written(clip, tmp_path, videosr, monkeypatch):
    def refuse(path, *args, **kwargs):
        raise OSError(errno.EROFS, "Read-only file system", str(path))

    monkeypatch.setattr(Path, "replace", refuse)
    monkeypatch.setattr(Path, "unlink", refuse)
    done = videosr("upscale", clip, tmp_path / "out.png", "--frames", "1", "-q")
    assert done.code == 1
    (line,) = done.err.splitlines()
    assert line.startswith(f"videosr: {tmp_path / 'out.png'}: cannot be written: Read-only file system; choose")


def test_an_image_is_on_the_disk_before_it_has_its_name(clip, tmp_path, videosr, monkeypatch):
    output, flushed = tmp_path / "out.png", []
    monkeypatch.setattr(os, "fsync", lambda file: flushed.append((os.fstat(file).st_size, output.exists())))
    assert videosr("upscale", clip, output, "--frames", "1").code == 0
    assert (output.stat().st_size, False) in flushed


def test_a_still_keeps_its_shape_to_the_pixel(tmp_path, videosr):
    source = tmp_path / "square.png"
    encode(source, np.rint(picture(40, 40, 3) * 255).astype(np.uint8), "png", "rgb24")
    output = tmp_path / "larger.png"
    assert videosr("upscale", source, output, "--height", "75").code == 0
    assert decode(output)[0].shape == (75, 75, 3)


def chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


@pytest.mark.parametrize("suffix", [".png", ".apng", ".mov"])
def test_an_icc_profile_that_is_none_or_is_a_films_is_named_whatever_carries_the_png(tmp_path, videosr, suffix):
    """Looked at, PyAV's copy of such a frame's side data ends the process."""
    clip, output = tmp_path / f"clip{suffix}", tmp_path / ("out.png" if suffix == ".png" else "out.mkv")
    encode(clip, np.rint(picture(40, 48, 3) * 255).astype(np.uint8), "png", "rgb24")
    data, ihdr = clip.read_bytes(), 8 + 12 + 13
    profile = chunk(b"iCCP", b"a name\0\0" + zlib.compress(bytes(128)))
    if suffix == ".apng":
        profile += chunk(b"acTL", struct.pack(">II", 1, 0))
        profile += chunk(b"fcTL", struct.pack(">5I2H2B", 0, 48, 40, 0, 0, 1, 25, 0, 0))
    tagged = tmp_path / "tagged.png" if suffix == ".mov" else clip
    tagged.write_bytes(data[:ihdr] + profile + data[ihdr:])
    if suffix == ".mov":
        with av.open(tagged) as source, av.open(clip, "w") as target:
            stream = target.add_stream_from_template(source.streams.video[0])
            packet = next(source.demux())
            packet.stream = stream
            target.mux(packet)
    done = videosr("upscale", clip, output)
    assert done.code == 0
    assert "ICC profile cannot be kept" in done.err
    assert videosr("upscale", clip, output, "--overwrite", "--strict").code == 1
    if suffix != ".png":
        assert "ok" in videosr("verify", clip, output).out


def test_a_picture_too_large_for_its_file_is_refused_before_it_is_made(videosr, tmp_path):
    """WebP has 14 bits for each side, and its encoder says of more that an argument is invalid."""
    encode(tmp_path / "wide.png", np.full((16, 8200, 3), 99, np.uint8), "png", "rgb24")
    command = ("upscale", tmp_path / "wide.png", tmp_path / "wide.webp", "--model", "light-2x")
    done = videosr(*command)
    assert done.code == 2
    assert "wide.webp: would be 16400x32, and .webp holds 16383 a side at most" in done.err
    assert not (tmp_path / "wide.webp").exists()
    assert videosr(*command, "--size", "8200x16").code == 0


def tiff(path, pages, *, samples=1, bits=8, more=()):
    """A TIFF of 16x8 pixels, its planes apart (TIFF 6.0, section 2).

    Args:
        pages: how many.
        samples: of each pixel.
        bits: of each sample.
        more: (tag, value) of each page besides.
    """
    strip = bytes(16 * 8 * samples * bits // 8)
    data, link = bytearray(b"II*\0\0\0\0\0"), 4
    for _ in range(pages):
        at = len(data)
        data += strip
        struct.pack_into("<I", data, link, len(data))
        fields = {256: 16, 257: 8, 258: bits, 259: 1, 262: 1, 273: at, 277: samples, 278: 8, 279: len(strip)}
        fields |= {284: 1 if samples == 1 else 2} | dict(more)
        data += struct.pack("<H", len(fields))
        data += b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(fields.items()))
        link = len(data)
        data += bytes(4)
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("associated", [1, 2])
def test_colours_that_a_tiff_has_multiplied_by_alpha_are_as_they_were(tmp_path, videosr, associated):
    rgba = np.full((8, 16, 4), (200, 100, 40, 255), np.uint8)
    rgba[:, 8:, 3] = 100
    if associated == 1:
        rgba[..., :3] = np.rint(rgba[..., :3] * (rgba[..., 3:] / 255))
    strip = rgba.tobytes()
    fields = {256: 16, 257: 8, 258: 4, 259: 1, 262: 2, 273: 8, 277: 4, 278: 8, 279: len(strip), 338: associated}
    entries = b"".join(
        struct.pack("<HHII", tag, 3, 4, 8 + len(strip) + 2 + 12 * len(fields) + 4)
        if tag == 258
        else struct.pack("<HHII", tag, 4 if tag != 338 else 3, 1, value)
        for tag, value in sorted(fields.items())
    )
    source, output = tmp_path / "in.tif", tmp_path / "out.png"
    head = struct.pack("<4sI", b"II*\0", 8 + len(strip)) + strip + struct.pack("<H", len(fields))
    source.write_bytes(head + entries + bytes(4) + struct.pack("<4H", 8, 8, 8, 8))
    assert videosr("upscale", source, output, "--model", "light-2x").code == 0
    rgb, alpha = decode(output)
    assert abs(alpha[:, 20:].mean() * 255 - 100) < 1
    assert np.abs(rgb * 255 - (200, 100, 40)).max() < 3
    assert videosr("verify", source, output).code == 0


def test_further_pages_of_a_tiff_are_named(tmp_path, videosr):
    source, output = tiff(tmp_path / "in.tif", 3), tmp_path / "out.png"
    done = videosr("upscale", source, output, "--model", "light-2x")
    assert done.code == 0, done.err
    assert "2 further pages of the file cannot be kept" in done.err
    assert videosr("upscale", source, output, "--overwrite", "--strict").code == 1


@pytest.mark.parametrize(("more", "why"), [((259, 7), "as JPEG"), ((322, 16), "in tiles"), ((258, 16), "by itself")])
def test_a_tiff_of_which_ffmpeg_makes_a_black_picture_is_refused(tmp_path, videosr, more, why):
    source = tiff(tmp_path / "in.tif", 1, samples=3, more=[(262, 2), more])
    done = videosr("upscale", source, tmp_path / "out.png", "--model", "light-2x")
    assert done.code == 1
    assert why in done.err


def test_an_image_says_which_other_pictures_it_leaves_out(tmp_path, videosr):
    """As AVIF has its alpha plane."""
    source = tmp_path / "in.mkv"
    with av.open(source, "w") as out:
        for _ in range(2):
            video = out.add_stream("ffv1", rate=1)
            video.width, video.height, video.pix_fmt = 32, 16, "gray"
        for video in out.streams.video:
            out.mux(video.encode(av.VideoFrame.from_ndarray(np.zeros((16, 32), np.uint8), format="gray")))
            out.mux(video.encode(None))
    done = videosr("upscale", source, tmp_path / "out.png", "--model", "light-2x")
    assert done.code == 0, done.err
    assert "stream 1 (video, ffv1): drop" in done.err


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp"])
def test_a_picture_passes_verification(videosr, tmp_path, suffix):
    source = make_clip(tmp_path / "in.jpg", codec="mjpeg", color=(5, 2, 2, 2, 0), frames=1)
    output = tmp_path / f"out{suffix}"
    assert videosr("upscale", source, output, "--model", "light-2x").code == 0
    found = videosr("verify", source, output)
    assert found.code == 0, found.out


@pytest.mark.parametrize("codec", ["png", "pgm", "dpx", "sgi", "sunrast", "targa", "jpeg2000"])
def test_grey_pictures_have_full_range(tmp_path, codec):
    source = tmp_path / f"in.{ {'sunrast': 'ras', 'targa': 'tga', 'jpeg2000': 'jp2'}.get(codec, codec) }"
    encode(source, np.arange(48 * 64, dtype=np.uint8).reshape(48, 64), codec, "gray")
    with Decoder(source) as decoder:
        assert decoder.info.format.name == "gray"
        assert decoder.info.color.range is Range.FULL


def test_a_heif_picture_passes_verification(tmp_path, videosr):
    source = make_clip(tmp_path / "in.avif", codec="libsvtav1", color=(6, 1, 2, 2, 1), frames=1)
    output = tmp_path / "out.png"
    assert videosr("upscale", source, output, "--model", "light-2x").code == 0
    found = videosr("verify", source, output)
    assert found.code == 0, found.out

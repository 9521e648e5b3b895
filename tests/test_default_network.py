"""Which network a source is given where none is named."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import pytest
from clips import make_clip, picture

from videosr.errors import UsageError
from videosr.frame import PixelFormat, StreamInfo
from videosr.media.decoder import Decoder
from videosr.media.planes import to_av_frame
from videosr.models import registry
from videosr.options import UpscaleOptions
from videosr.upscaler import Upscaler

MARKED = {
    "H.264": ("a.mp4", "yuv420p", "libx264", {}),
    "H.264 of 4:4:4": ("a.mkv", "yuv444p", "libx264", {}),
    "HEVC of ten bits": ("a.mkv", "yuv420p10le", "libx265", {"x265-params": "log-level=none"}),
    "VP9": ("a.webm", "yuv420p", "libvpx-vp9", {}),
    "MPEG-2": ("a.ts", "yuv420p", "mpeg2video", {}),
    "MPEG-4": ("a.avi", "yuv420p", "mpeg4", {}),
    "Motion JPEG": ("a.avi", "yuv420p", "mjpeg", {"strict": "unofficial"}),
    "WebP": ("a.webp", "yuv420p", "libwebp", {"quality": "80"}),
}
UNMARKED = {
    "lossless H.264": ("a.mp4", "yuv420p", "libx264", {"qp": "0"}),
    "FFV1": ("a.mkv", "yuv420p", "ffv1", {}),
    "Ut Video": ("a.avi", "yuv420p", "utvideo", {}),
    "uncompressed": ("a.nut", "yuv420p", "rawvideo", {}),
    "ProRes": ("a.mov", "yuv422p10le", "prores_ks", {}),
}


def info_of(folder, name, pix_fmt, codec, options) -> StreamInfo:
    """What the decoder says of such a clip."""
    rate = Fraction(25)  # MPEG-2 and MPEG-4 know few others
    form = {"pix_fmt": pix_fmt, "codec": codec, "options": options, "rate": rate, "time_base": 1 / rate}
    with Decoder(make_clip(folder / name, frames=3, **form)) as decoder:
        return decoder.info


def pictures_of(path: Path) -> list[bytes]:
    """The planes of a file's frames."""
    with Decoder(path) as decoder:
        return [b"".join(plane.tobytes() for plane in frame.planes) for frame in decoder]


@pytest.mark.parametrize("kind", MARKED)
def test_video_that_compression_has_marked_is_known(tmp_path, kind):
    info = info_of(tmp_path, *MARKED[kind])
    assert info.compressed
    assert UpscaleOptions().of(info).model == registry.DEFAULT_COMPRESSED


@pytest.mark.parametrize("kind", UNMARKED)
def test_what_is_lossless_or_made_for_editing_is_not_marked(tmp_path, kind):
    info = info_of(tmp_path, *UNMARKED[kind])
    assert not info.compressed
    assert UpscaleOptions().of(info).model == registry.DEFAULT


def test_lossless_webp_is_not_marked(tmp_path):
    """As which codec it is the same as the other one."""
    fmt = PixelFormat.parse("gbrp")
    with av.open(str(tmp_path / "a.webp"), "w") as out:
        stream = out.add_stream("libwebp", rate=1, options={"lossless": "1"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "bgra"
        frame = to_av_frame(picture(0, fmt, 48, 64), fmt).reformat(format="bgra")
        out.mux([*stream.encode(frame), *stream.encode(None)])
    with Decoder(tmp_path / "a.webp") as decoder:
        assert decoder.info.codec == "webp"
        assert not decoder.info.compressed


def test_a_network_that_was_named_stays(tmp_path):
    info = info_of(tmp_path, *MARKED["H.264"])
    assert UpscaleOptions(model="light-2x").of(info).model == "light-2x"


def test_frames_of_unknown_source_get_the_general_one():
    assert Upscaler().engine.network.name == registry.DEFAULT
    assert Upscaler(UpscaleOptions(scale=4)).engine.network.name == registry.DEFAULTS[4][0]


@pytest.mark.parametrize(
    ("scale", "size", "network"),
    [
        (None, None, 2),
        (None, (191, 143), 2),
        (None, (192, 144), 4),
        (None, (192, 48), 4),
        (2, (640, 480), 2),
        (4, None, 4),
        (4, (64, 48), 4),
    ],
)
def test_the_scale_goes_by_what_is_asked_for(tmp_path, scale, size, network):
    info = info_of(tmp_path, *MARKED["H.264"])  # of 64x48
    found = UpscaleOptions(scale=scale).of(info, size)
    assert found.model == registry.DEFAULTS[network][1]
    assert found.of(info, (640, 480)) == found, "what was chosen once stays"
    drawn = UpscaleOptions(model="anime", scale=scale).of(info, size)
    assert drawn.model == f"realtime-{network}x-anime"


def test_a_named_network_has_a_scale_of_its_own(videosr, tmp_path):
    with pytest.raises(UsageError, match="scale 3 is not one of 2, 4"):
        UpscaleOptions(scale=3)
    done = videosr("upscale", make_clip(tmp_path / "in.mkv"), tmp_path / "out.mkv", "--scale", "4", "-m", "light-2x")
    assert (done.code, done.err.strip()) == (
        2,
        "videosr: the network light-2x has a scale of its own; leave --scale out, or --model",
    )


@pytest.mark.parametrize(
    ("asked", "size"),
    [(("--scale", "4"), (256, 192)), (("--height", "144"), (192, 144)), (("--size", "96x192"), (96, 192))],
)
def test_a_film_is_enlarged_four_times(videosr, tmp_path, asked, size):
    """Asked for, or because what is wanted is three times the size: two frames by two processes, and a picture."""
    source, output = make_clip(tmp_path / "in.mkv", frames=2, codec="libx264"), tmp_path / "out.mkv"
    done = videosr("upscale", source, output, *asked, "--jobs", "2")
    assert done.code == 0, done.err
    assert f"the network is {registry.DEFAULTS[4][1]}, as the video is compressed (h264)" in done.err
    done = videosr("upscale", source, tmp_path / "out.png", *asked, "--frames", "1")
    assert f"the network is {registry.DEFAULTS[4][1]}, as the picture is compressed (h264)" in done.err
    done = videosr("upscale", source, tmp_path / "drawn.mkv", *asked, "--as", "anime", "--preset", "ultrafast")
    assert "the network is realtime-4x-anime\n" in done.err
    for path in (output, tmp_path / "out.png", tmp_path / "drawn.mkv"):
        with Decoder(path) as decoder:
            assert (decoder.info.width, decoder.info.height) == size


@pytest.mark.parametrize(
    ("codec", "network", "why"),
    [
        ("libx264", registry.DEFAULT_COMPRESSED, "compressed (h264)"),
        ("ffv1", registry.DEFAULT, "lossless or made for editing (ffv1)"),
    ],
)
def test_a_film_is_made_by_the_network_for_it(videosr, tmp_path, codec, network, why):
    source = make_clip(tmp_path / "in.mkv", frames=3, codec=codec)
    done = videosr("upscale", source, tmp_path / "out.mkv", "--codec", "ffv1")
    assert done.code == 0, done.err
    assert f"the network is {network}, as the video is {why}" in done.err
    named = videosr("upscale", source, tmp_path / "named.mkv", "--codec", "ffv1", "--model", network)
    assert "the network is" not in named.err
    assert pictures_of(tmp_path / "out.mkv") == pictures_of(tmp_path / "named.mkv")
    assert videosr("verify", source, tmp_path / "out.mkv").code == 0

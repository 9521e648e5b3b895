"""How long the last frame stays: animations hold it, and MP4 says it by where the track ends alone."""

import av
import pytest
from clips import picture

from videosr.frame import PixelFormat
from videosr.media.checks.readback import read_file
from videosr.media.planes import to_av_frame


@pytest.mark.parametrize("codec", ["libx264", "libx265"])
def test_a_long_last_frame_stays_as_long_and_is_no_fault(videosr, tmp_path, codec):
    source, fmt = tmp_path / "in.gif", PixelFormat.parse("gbrp")
    with av.open(str(source), "w", options={"final_delay": "90"}) as out:
        stream = out.add_stream("gif", rate=20)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "bgr8"
        for n in range(9):
            frame = to_av_frame(picture(n, fmt, 48, 64), fmt).reformat(format="bgr8")
            frame.pts = n
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    output = tmp_path / "out.mp4"
    done = videosr("upscale", source, output, "--model", "light-2x", "--codec", codec)
    assert done.code == 0, done.err
    found = videosr("verify", source, output)
    assert found.code == 0, found.out
    made = read_file(output, 0, like=read_file(source, 0))
    assert abs(float(made.durations[-1] * made.tick) - 0.9) < 0.01

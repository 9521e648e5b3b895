"""The name of the reel or card that a film was taken from, which QuickTime keeps with the timecode."""

import av
import numpy as np
import pytest

FAST = ("--model", "light-2x-video", "--preset", "ultrafast")


def reels(path):
    with av.open(str(path)) as container:
        return {v for s in container.streams for k, v in s.metadata.items() if k.lower() == "reel_name"}


@pytest.mark.parametrize("suffixes", [("mov",), ("mkv", "mov")])
def test_the_reel_is_carried_and_comes_back(tmp_path, videosr, suffixes):
    source = tmp_path / "a.mov"
    with av.open(str(source), "w") as out:
        stream = out.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 48, 32, "yuv420p"
        stream.metadata.update(timecode="01:00:00:00", reel_name="A001C002")
        for n in range(5):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(np.full((32, 48, 3), 40 * n, np.uint8), "rgb24")))
        out.mux(stream.encode(None))
    assert reels(source) == {"A001C002"}
    for n, suffix in enumerate(suffixes):
        made = tmp_path / f"b{n}.{suffix}"
        done = videosr("upscale", source, made, *FAST)
        assert done.code == 0, done.err
        assert ("reel_name" in done.err.lower()) == (suffix == "mp4")  # which has no place for it
        assert reels(made) == (set() if suffix == "mp4" else {"A001C002"})
        assert videosr("verify", source, made).code == 0
        source = made

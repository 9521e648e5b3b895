"""What a container crops is cropped, as FFmpeg's own command does; not only what the codec crops."""

import struct

import av
import numpy as np
import pytest
from clips import make_clip

from videosr.media.decoder import Decoder
from videosr.media.live.input import LiveInput, Picture
from videosr.media.live.source import SourceSpec

WIDTH, HEIGHT = 64, 48


def with_clean_aperture(path, width, height):
    """Put a `clap` box (ISO/IEC 14496-12, 12.1.4) around the centre into an MP4 file whose `moov` comes last."""
    data = bytearray(path.read_bytes())

    def boxes(names, low, high):
        at = low
        while at + 8 <= high:
            size, name = struct.unpack_from(">I4s", data, at)
            if name == names[0]:
                inner = at + {b"stsd": 16, b"avc1": 86}.get(name, 8)
                return [at, *(boxes(names[1:], inner, at + size) if names[1:] else [])]
            at += size
        raise AssertionError(names)

    chain = boxes([b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd", b"avc1"], 0, len(data))
    end = chain[-1] + struct.unpack_from(">I", data, chain[-1])[0]
    for at in chain:
        struct.pack_into(">I", data, at, struct.unpack_from(">I", data, at)[0] + 40)
    data[end:end] = struct.pack(">I4s8I", 40, b"clap", width, 1, height, 1, 0, 1, 0, 1)
    path.write_bytes(data)


@pytest.fixture(params=[(48, 32, 8, 8), (46, 48, 8, 0), (62, 46, 0, 0)], ids=str)
def cropped(request, tmp_path):
    """A clip, what is to be seen of it, and the first column and row of that: even ones, where chroma is."""
    width, height, left, top = request.param
    path = make_clip(tmp_path / "clip.mp4", frames=5, width=WIDTH, height=HEIGHT, codec="libx264")
    with av.open(path) as container:
        whole = [frame.to_ndarray() for frame in container.decode(video=0)]
    with_clean_aperture(path, width, height)
    luma = [planes[top : top + height, left : left + width] for planes in (frame[:HEIGHT] for frame in whole)]
    return path, width, height, luma


def test_frames_are_what_is_to_be_seen(cropped):
    path, width, height, luma = cropped
    with Decoder(path) as decoder:
        assert (decoder.info.width, decoder.info.height) == (width, height)
        assert any(f"cropped to {width}x{height}" in warning for warning in decoder.warnings)
        frames = list(decoder)
    assert len(frames) == len(luma)
    for frame, wanted in zip(frames, luma, strict=True):
        assert np.array_equal(frame.planes[0], wanted)
        assert frame.planes[1].shape == ((height + 1) // 2, (width + 1) // 2)


def test_live_video_is_cropped_alike(cropped):
    path, width, height, luma = cropped
    source = LiveInput(SourceSpec(url=str(path)))
    try:
        assert (source.info.width, source.info.height) == (width, height)
        frames = [event.frame for event in source if isinstance(event, Picture)]
    finally:
        source.close()
    assert len(frames) == len(luma)
    for frame, wanted in zip(frames, luma, strict=True):
        assert np.array_equal(frame.planes[0], wanted)


def test_the_output_is_of_that_size_and_verified(cropped, tmp_path, videosr):
    path, width, height, _ = cropped
    output = tmp_path / "out.mkv"
    assert videosr("upscale", path, output).code == 0
    with av.open(output) as container:
        frame = next(container.decode(video=0))
    assert (frame.width, frame.height) == (2 * width, 2 * height)
    done = videosr("verify", path, output)
    assert (done.code, "ok" in done.out) == (0, True)

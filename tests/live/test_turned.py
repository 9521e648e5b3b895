"""Live streams of pictures that are not coded as they are to be shown."""

from __future__ import annotations

import os
import threading
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.bitstream import BitStreamFilterContext
from clips import make_clip

from videosr.frame import PixelFormat
from videosr.live.options import ServeOptions, parse_target
from videosr.live.serve import Server
from videosr.media.decoder import Decoder
from videosr.media.live.input import LiveInput, Picture
from videosr.media.live.source import SourceSpec
from videosr.media.orientation import Orientation
from videosr.media.planes import PlaneReader
from videosr.media.sidedata import FrameSideData
from videosr.media.source import unpack_matrix
from videosr.models import registry
from videosr.options import UpscaleOptions
from videosr.upscaler import Upscaler

TICK = Fraction(1, 24)
CLOCKWISE, ROTATED = (0, 1, -1, 0), (0.75, 0.5, -0.5, 0.75)


def served(tmp_path: Path, source: Path, form: str) -> tuple[av.container.InputContainer, list[str]]:
    """What a named pipe gets of a whole file, and what was said."""
    pipe, out = tmp_path / "pipe", tmp_path / "out"
    os.mkfifo(pipe)
    said: list[str] = []
    reader = threading.Thread(target=lambda: out.write_bytes(pipe.read_bytes()))
    reader.start()
    options = ServeOptions(source=SourceSpec(url=str(source)), targets=(parse_target(f"{form}:{pipe}"),))
    Server(options, said.append).run()
    reader.join()
    return av.open(str(out), format={"y4m": "yuv4mpegpipe"}.get(form, form)), said


def live_frames(path: Path):
    source = LiveInput(SourceSpec(url=str(path)))
    try:
        return [event.frame for event in source if isinstance(event, Picture)]
    finally:
        source.close()


def coded_frames(path: Path):
    with Decoder(path) as decoder:
        return list(decoder)


@pytest.mark.parametrize(
    ("form", "pix_fmt", "expected"), [("nut", "yuv420p", "yuv420p"), ("y4m", "yuv422p", "yuv444p")]
)
def test_a_turned_film_is_served_upright(tmp_path, form, pix_fmt, expected):
    path = make_clip(tmp_path / "in.mp4", frames=6, pix_fmt=pix_fmt, matrix=CLOCKWISE, sar=Fraction(4, 3))
    frames = coded_frames(path)
    upscaler = Upscaler(UpscaleOptions(model=registry.DEFAULT_COMPRESSED))
    upright = [Orientation(sideways=True, mirrored=True).frame(frame) for frame in frames]
    for before, after in zip(frames, upright, strict=True):
        np.testing.assert_array_equal(after.planes[0], np.rot90(before.planes[0], -1))
    wanted = [made for frame in upright for made in upscaler.process(frame)] + list(upscaler.flush())
    back, said = served(tmp_path, path, form)
    with back:
        stream = back.streams.video[0]
        if form == "y4m":  # PyAV gives NUT's muxer no sample aspect ratio
            assert stream.sample_aspect_ratio == Fraction(3, 4)
        found = [PlaneReader().read(frame, PixelFormat.parse(expected)) for frame in back.decode(stream)]
    assert found[0][0].shape == (128, 96)
    for one, other in zip(found, wanted, strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(one, other.planes, strict=True))
    assert f"{path}: turned upright, as its display matrix says" in said
    assert any("48x64 to 96x128" in line for line in said)


def test_what_is_no_quarter_turn_is_named_and_left(tmp_path):
    path = make_clip(tmp_path / "in.mp4", frames=3, matrix=ROTATED)
    back, said = served(tmp_path, path, "nut")
    with back:
        assert {(frame.width, frame.height) for frame in back.decode(video=0)} == {(128, 96)}
    (line,) = [line for line in said if "display matrix" in line]
    assert line.startswith(f"{path}: its display matrix (0.75 0.5 -0.5 0.75) asks for more than quarter turns")
    assert "rotate filter" in line


def orientation_message(quarters: int) -> bytes:
    """H.264's supplemental information "display orientation" (annex D): turned counter-clockwise, until further notice.

    Flags of one bit (cancelled, two mirrorings), the angle in 16, a period of 1 in 3 (Exp-Golomb), no extension.
    """
    bits = f"000{quarters << 14:016b}0100" + "1"
    return bytes([0, 0, 0, 1, 6, 47, 3, *int(bits, 2).to_bytes(3), 0x80])


def speaking(tmp_path: Path, *groups: int) -> tuple[Path, Path]:
    """A film of groups of four pictures, and the same with what each group says of its quarter turns; 0: nothing."""
    plain = make_clip(tmp_path / "plain.ts", frames=4 * len(groups), options={"g": "4", "bf": "2"}, time_base=TICK)
    path, left = tmp_path / "in.ts", iter(groups)
    with av.open(str(plain)) as source, av.open(str(path), "w") as out:
        stream = out.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is None:
                continue
            data = bytes(packet)
            quarters = next(left) if packet.is_keyframe else 0
            if quarters:
                at = data.index(b"\0\0\1\x65")  # the first slice
                at -= data[at - 1] == 0
                data = data[:at] + orientation_message(quarters) + data[at:]
            made = av.Packet(data)
            made.pts, made.dts, made.time_base = packet.pts, packet.dts, packet.time_base
            made.is_keyframe, made.stream = packet.is_keyframe, stream
            out.mux(made)
    return plain, path


def test_what_the_coded_video_says_holds_until_the_next_keyframe(tmp_path):
    """The decoder gives it with the keyframe alone."""
    plain, path = speaking(tmp_path, 1, 0, 3, 0)
    with av.open(str(path)) as container:
        assert [frame.rotation for frame in container.decode(video=0)] == [90, *[0] * 7, -90, *[0] * 7]
    turns = [1] * 4 + [0] * 4 + [3] * 4 + [0] * 4
    for before, after, number in zip(coded_frames(plain), live_frames(path), turns, strict=True):
        np.testing.assert_array_equal(after.planes[0], np.rot90(before.planes[0], number))


def test_a_picture_that_turns_on_the_way_keeps_its_shape(tmp_path):
    """The output's size stays: a lying picture lies in the middle of a standing one."""
    _, path = speaking(tmp_path, 1, 0)
    back, _ = served(tmp_path, path, "nut")
    with back:
        frames = [frame.to_ndarray()[:128] for frame in back.decode(video=0)]
    assert {frame.shape for frame in frames} == {(128, 96)}
    assert all(frame.mean(axis=1).min() > 60 for frame in frames[:4])
    for frame in frames[4:]:
        assert (frame[:28] == 16).all()
        assert (frame[100:] == 16).all()
        assert frame[30:98].mean(axis=1).min() > 60


def test_what_the_container_says_holds_for_all(tmp_path):
    """FFmpeg gives each frame the container's matrix, but those in whose packet the coded video has one of its own."""
    plain = make_clip(tmp_path / "plain.mp4", frames=8, rotation=180)
    path = tmp_path / "in.mp4"
    with av.open(str(plain)) as source, av.open(str(path), "w") as out:
        video = source.streams.video[0]
        stream = out.add_stream_from_template(video)
        insert = BitStreamFilterContext("h264_metadata=display_orientation=insert:rotate=90", video, stream)
        for packet in [*source.demux(video), None]:
            for made in insert.filter(packet) if packet is None or packet.size else ():
                made.stream = stream
                out.mux(made)
    with av.open(str(path)) as container:
        rides = FrameSideData(container.streams.video[0].codec_context)
        matrices = [unpack_matrix(rides.of(f)["DISPLAYMATRIX"])[:5] for f in container.decode(video=0)]
    assert matrices == [(0, -65536, 0, 65536, 0), *[(-65536, 0, 0, 0, -65536)] * 7]
    for before, after in zip(coded_frames(plain), live_frames(path), strict=True):
        np.testing.assert_array_equal(after.planes[0], before.planes[0][::-1, ::-1])

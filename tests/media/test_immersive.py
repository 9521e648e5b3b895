"""Stereoscopic 3D and 360 degree video: what the source's container or video says, the output's container says."""

from __future__ import annotations

import struct
from fractions import Fraction

import av
import pytest
from clips import make_clip
from corpus.hdr import H264_SEI, bits, sei, with_units
from hypothesis import given
from hypothesis import strategies as st

from videosr.media import immersive
from videosr.media.checks.verify import verify
from videosr.media.decoder import Decoder
from videosr.media.immersive import SPHERICAL, STEREO
from videosr.media.template import saying

FAST = ("--preset", "ultrafast")
GLOBE = struct.pack("=4i5I", 0, 90 << 16, -(10 << 16), 5 << 16, 0, 0, 0, 0, 0)
TILE = struct.pack("=4i5I", 2, 0, 0, 0, 1 << 30, 0, 1 << 30, 0, 0)
CUBE, PADDED = (struct.pack("=4i5I", 1, 0, 0, 0, 0, 0, 0, 0, padding) for padding in (0, 3))
FISHEYE = struct.pack("=4i5I", 5, 0, 0, 0, 0, 0, 0, 0, 0)
BESIDE, ABOVE, LINES = (struct.pack("=2i", kind, 0) for kind in (1, 2, 6))
IN_TURN = struct.pack("=2i", 3, 0)
RIGHT_FIRST = struct.pack("=2i", 1, 1)


def said(path):
    with Decoder(path) as decoder:
        return immersive.as_said(decoder.views), decoder.info


def shown(path, data, **options):
    """A film whose container says it."""
    make_clip(path, frames=6, color=(1, 1, 1, 1, 1), **options)
    path.write_bytes(saying(path.read_bytes(), video=immersive.video_elements(data)))
    return path


@pytest.mark.parametrize("suffix", [".mkv", ".mp4", ".webm"])
@pytest.mark.parametrize(
    "data",
    [{SPHERICAL: GLOBE}, {SPHERICAL: TILE}, {SPHERICAL: CUBE}, {STEREO: BESIDE}, {SPHERICAL: GLOBE, STEREO: ABOVE}],
)
def test_views_and_surroundings_are_carried(tmp_path, videosr, data, suffix):
    film, output = shown(tmp_path / "in.mkv", data, sar=Fraction(4, 3)), tmp_path / f"out{suffix}"
    assert said(film)[0] == immersive.as_said(data)
    options = FAST if suffix != ".webm" else ("--preset", "12")
    done = videosr("upscale", film, output, "--strict", *options)
    assert done.code == 0, done.err
    views, info = said(output)
    assert views == immersive.as_said(data)
    assert (info.width, info.height, info.sar) == (128, 96, Fraction(4, 3))
    assert verify(film, output).problems == []
    assert b"vexu" not in output.read_bytes()


@pytest.mark.parametrize(
    ("data", "suffixes"),
    [
        ({STEREO: LINES}, [".mkv", ".webm"]),
        ({STEREO: RIGHT_FIRST}, [".mkv", ".webm"]),
        ({STEREO: IN_TURN}, [".mkv"]),
        ({SPHERICAL: GLOBE}, [".mkv", ".webm", ".mp4"]),
    ],
)
def test_what_a_container_cannot_say_is_named(tmp_path, videosr, data, suffixes):
    film = shown(tmp_path / "in.mkv", data)
    for suffix in (".mkv", ".webm", ".mp4", ".mov"):
        output = tmp_path / f"out{suffix}"
        done = videosr("upscale", film, output, *(FAST if suffix != ".webm" else ("--preset", "12")))
        assert done.code == 0, done.err
        assert ("description cannot be kept" in done.err) == (suffix not in suffixes)
        assert said(output)[0] == (immersive.as_said(data) if suffix in suffixes else {})
        assert verify(film, output).problems == []


def test_views_that_the_coded_video_alone_tells_of_are_carried(tmp_path, videosr):
    """Frame packing arrangement (H.264, D.1.26): the left view above the right one."""
    arrangement = bits(
        (1, 1), (0, 1), (4, 7), (0, 1), (1, 6), (0, 6), (0, 4), (0, 4), (0, 4), (0, 4), (0, 8), (1, 1), (0, 1)
    )
    film = with_units(tmp_path, lambda f: make_clip(f / "a.mkv", frames=4), sei(H264_SEI, arrangement, 45))
    assert said(film)[0] == {STEREO: (2, 0)}
    for suffix in (".mkv", ".mp4"):
        assert videosr("upscale", film, tmp_path / f"out{suffix}", "--strict", *FAST).code == 0
        assert said(tmp_path / f"out{suffix}")[0] == {STEREO: (2, 0)}


def test_spherical_video_as_cameras_mark_it(tmp_path, videosr):
    """Spherical Video V1: a document in XML in a box of its own."""
    film = make_clip(tmp_path / "in.mp4", frames=4)
    xml = (
        b'<rdf:SphericalVideo xmlns:rdf="a" xmlns:GSpherical="b"><GSpherical:Spherical>true</GSpherical:Spherical>'
        b"<GSpherical:Stitched>true</GSpherical:Stitched><GSpherical:StitchingSoftware>c</GSpherical:StitchingSoftware><GSpherical:StereoMode>top-bottom</GSpherical:StereoMode>"
        b"<GSpherical:ProjectionType>equirectangular</GSpherical:ProjectionType></rdf:SphericalVideo>"
    )
    box = bytes.fromhex("ffcc8263f8554a938814587a02521fdd") + xml
    box = struct.pack(">I4s", len(box) + 8, b"uuid") + box
    data = bytearray(film.read_bytes())
    moov, trak = data.index(b"moov") - 4, data.index(b"trak") - 4
    assert moov > data.index(b"mdat")  # so that no sample moves
    for at in (moov, trak):
        struct.pack_into(">I", data, at, struct.unpack_from(">I", data, at)[0] + len(box))
    end = trak + struct.unpack_from(">I", data, trak)[0] - len(box)
    film.write_bytes(data[:end] + box + data[end:])
    marked = {STEREO: (2, 0), SPHERICAL: (0,) * 9}
    assert said(film)[0] == marked
    for suffix in (".mkv", ".mp4"):
        assert videosr("upscale", film, tmp_path / f"out{suffix}", "--strict", *FAST).code == 0
        assert said(tmp_path / f"out{suffix}")[0] == marked


def remuxed(source, target, *, matrix=None, **tags):
    """The same with a display matrix and tags of the stream."""
    with av.open(str(source)) as a, av.open(str(target), "w", container_options={"strict": "unofficial"}) as b:
        stream = b.add_stream_from_template(a.streams.video[0], opaque=True)
        stream.metadata.update(tags)
        if matrix:
            stream.set_display_matrix(matrix)
        for packet in a.demux(video=0):
            if packet.size:
                packet.stream = stream
                b.mux(packet)
    return target


def test_a_surrounding_picture_that_is_to_be_turned(tmp_path, videosr):
    """Matroska has one element for both."""
    plain = shown(tmp_path / "a.mkv", {SPHERICAL: GLOBE})
    film = remuxed(plain, tmp_path / "in.mp4", matrix=(0, 65536, 0, -65536, 0, 0, 0, 0, 1 << 30))
    immersive.without_vexu(film)
    assert said(film)[1].rotation
    for suffix, kept in ((".mkv", False), (".mp4", True)):
        done = videosr("upscale", film, tmp_path / f"out{suffix}", *FAST)
        assert done.code == 0
        assert ("spherical (360 degree) description cannot be kept" in done.err) != kept
        assert verify(film, tmp_path / f"out{suffix}").problems == []


def test_pictures_in_two_colours_stay_so_in_matroska_and_are_named_elsewhere(tmp_path, videosr):
    film = remuxed(make_clip(tmp_path / "a.mkv", frames=4), tmp_path / "in.mkv", stereo_mode="anaglyph_cyan_red")
    for suffix in (".mkv", ".mp4"):
        done = videosr("upscale", film, tmp_path / f"out{suffix}", *FAST)
        assert done.code == 0
        assert ("tag stereo_mode has no place" in done.err) == (suffix == ".mp4")
    with av.open(str(tmp_path / "out.mkv")) as container:
        assert container.streams.video[0].metadata["stereo_mode"] == "anaglyph_cyan_red"


def test_what_no_container_can_say():
    assert immersive.describable({SPHERICAL: PADDED}, "mp4") == {}  # the padding is of the picture as it was
    assert immersive.describable({SPHERICAL: FISHEYE, "A53_CC": b"x"}, "matroska") == {}
    assert immersive.describable({SPHERICAL: GLOBE[:20], STEREO: b""}, "matroska") == {}
    assert immersive.says_nothing(STEREO, struct.pack("=2i", 0, 0))
    assert not immersive.says_nothing(STEREO, b"")
    assert saying(b"anything", video=immersive.video_elements({})) == b"anything"


@given(data=st.binary(max_size=120))
def test_a_file_that_is_no_mp4_stays_as_it_is(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("a") / "a.mp4"
    path.write_bytes(data)
    immersive.without_vexu(path)
    assert path.read_bytes() == data


def test_a_described_template_can_still_be_read(tmp_path):
    film = shown(tmp_path / "in.mkv", {SPHERICAL: GLOBE, STEREO: BESIDE})
    with av.open(str(film)) as container:
        assert len(list(container.decode(video=0))) == 6

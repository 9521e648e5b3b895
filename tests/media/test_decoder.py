import gc
import resource
import shutil
import struct
import weakref
import zlib
from fractions import Fraction
from itertools import pairwise

import av
import numpy as np
import pytest
from clips import VFR_PTS, make_clip, picture

from videosr.errors import InputError
from videosr.frame import Matrix, PixelFormat, Range
from videosr.media.checks.readback import read_file
from videosr.media.checks.verify import verify
from videosr.media.decoder import Decoder
from videosr.media.fields import detect

B_FRAMES = {"bf": "3", "b_strategy": "0", "g": "8"}


def same(a, b):
    return all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """A clip with B-frames and several keyframes."""
    return make_clip(tmp_path_factory.mktemp("clip") / "b.mkv", frames=40, options=B_FRAMES)


@pytest.mark.parametrize(
    "name", ["yuv420p", "yuv422p10le", "yuv444p", "yuv440p", "gray", "gray10le", "gbrp10le", "yuva420p"]
)
@pytest.mark.parametrize("size", [(48, 64), (21, 33)])
def test_lossless_video_is_decoded_to_the_sample(tmp_path, name, size):
    height, width = size
    path = make_clip(tmp_path / "a.mkv", codec="ffv1", pix_fmt=name, height=height, width=width, frames=3)
    fmt = PixelFormat.parse(name)
    with Decoder(path) as decoder:
        assert (decoder.info.format, decoder.info.height, decoder.info.width) == (fmt, height, width)
        frames = list(decoder)
    assert len(frames) == 3
    for i, frame in enumerate(frames):
        assert same(frame.planes, picture(i, fmt, height, width))


@pytest.mark.parametrize("suffix", [".mkv", ".mp4"])
def test_times_are_exact_and_in_order(tmp_path, suffix):
    path = make_clip(tmp_path / f"a{suffix}", pts=VFR_PTS, options=B_FRAMES)
    with Decoder(path) as decoder:
        frames = list(decoder)
        tick = decoder.info.time_base
    assert [frame.pts * tick * 1000 for frame in frames] == list(VFR_PTS)
    assert all(frame.time_base == tick and frame.duration > 0 for frame in frames)


def test_frames_own_their_memory(clip):
    with Decoder(clip) as decoder:
        first = next(iter(decoder))
        before = [plane.copy() for plane in first.planes]
        for _ in decoder:
            pass
    del decoder
    assert same(first.planes, before)
    assert all(plane.flags.owndata and plane.flags.c_contiguous for plane in first.planes)


def test_any_start_gives_the_frames_of_the_sequential_run(clip):
    with Decoder(clip) as decoder:
        everything = list(decoder)
    for i in (0, 1, 7, 8, 13, 39):
        start = everything[i].time
        with Decoder(clip, start=start) as decoder:
            part = list(decoder)
        assert [f.pts for f in part] == [f.pts for f in everything[i:]]
        assert all(same(a.planes, b.planes) for a, b in zip(part, everything[i:], strict=True))


@pytest.mark.parametrize("first", [0, 4, 5, 8])
def test_a_start_on_a_frame_gives_that_frame_whatever_tick_the_file_begins_on(tmp_path, first):
    """FFmpeg tells where a file begins in whole microseconds, of which a tick of MPEG-TS has eleven and a ninth."""
    made = make_clip(tmp_path / "made.mkv", frames=40, rate=Fraction(25), codec="mpeg2video", time_base=Fraction(1, 25))
    path = tmp_path / "a.ts"
    with av.open(made) as source, av.open(path, "w", options={"mpegts_copyts": "1"}) as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.pts, packet.dts = (126_000 + first + 90 * tick for tick in (packet.pts, packet.dts))
                packet.time_base, packet.stream = Fraction(1, 90_000), stream
                target.mux(packet)
    with Decoder(path) as decoder:
        assert decoder.origin != Fraction(126_000 + first, 90_000) or first == 0
        times = [frame.pts for frame in decoder]
    with Decoder(path, start=Fraction(1), duration=Fraction(1, 5)) as decoder:
        assert [frame.pts for frame in decoder] == times[25:30]


def test_start_duration_and_frames_limit_what_is_read(clip):
    with Decoder(clip, start=Fraction(1, 2), duration=Fraction(1, 4)) as decoder:
        times = [frame.time for frame in decoder]
    assert times[0] == Fraction(1, 2)
    assert len(times) == 6
    with Decoder(clip, frames=3) as decoder:
        assert len(list(decoder)) == 3
    with pytest.raises(InputError, match="no frame at or after the start"):
        Decoder(clip, start=Fraction(100))


def test_colour_tags_are_read_and_the_rest_is_guessed_once(tmp_path):
    tagged = make_clip(tmp_path / "a.mkv", color=(9, 2, 9, 16, 3), pix_fmt="yuv420p10le", codec="libx264", frames=3)
    with Decoder(tagged) as decoder:
        color = next(iter(decoder)).color
        assert (color.matrix, color.range, color.primaries, color.transfer) == (Matrix.BT2020_NCL, Range.FULL, 9, 16)
    untagged = make_clip(tmp_path / "b.mkv", frames=3)
    with Decoder(untagged) as decoder:
        list(decoder)
        said = [w for w in decoder.warnings if w.startswith("colour")]
    assert len(said) == 1
    assert "SMPTE170M" in said[0]
    assert "limited" in said[0]


def test_cover_art_is_not_taken_for_the_film(tmp_path):
    cover = tmp_path / "cover.png"
    av.VideoFrame.from_ndarray(np.zeros((9, 9, 3), np.uint8), format="rgb24").save(cover)
    film = make_clip(tmp_path / "film.mkv", frames=2)
    path = tmp_path / "with_cover.mp4"
    with av.open(str(path), "w") as out, av.open(str(cover)) as art, av.open(str(film)) as video:
        picture_out = out.add_stream_from_template(art.streams[0], opaque=True)
        picture_out.disposition = av.stream.Disposition.attached_pic
        video_out = out.add_stream_from_template(video.streams[0], opaque=True)
        for source, target in ((art, picture_out), (video, video_out)):
            for packet in source.demux():
                if packet.size:
                    packet.stream = target
                    out.mux(packet)
    with Decoder(path) as decoder:
        assert (decoder.info.width, len(list(decoder))) == (64, 2)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".webp"])
def test_an_image_is_one_frame_at_time_zero(tmp_path, suffix):
    path = tmp_path / f"100%03d{suffix}"
    codec = {".png": "png", ".jpg": "mjpeg", ".webp": "libwebp"}[suffix]
    context = av.CodecContext.create(codec, "w")
    fmt = {".png": "rgb24", ".jpg": "yuvj420p", ".webp": "yuv420p"}[suffix]
    context.width, context.height, context.pix_fmt, context.time_base = 34, 22, fmt, Fraction(1, 25)
    image = av.VideoFrame.from_ndarray(np.full((22, 34, 3), 90, np.uint8), format="rgb24").reformat(format=fmt)
    image.pts = 0
    path.write_bytes(b"".join(bytes(p) for f in (image, None) for p in context.encode(f)))
    with Decoder(path) as decoder:
        (frame,) = list(decoder)
    assert (frame.pts, frame.width, frame.height) == (0, 34, 22)
    assert frame.color.range == (Range.LIMITED if suffix == ".webp" else Range.FULL)


def test_streams_without_times_get_some(tmp_path):
    clip = make_clip(tmp_path / "a.mkv", frames=10, options=B_FRAMES)
    raw = tmp_path / "a.h264"
    with av.open(str(clip)) as source, raw.open("wb") as out:
        stream = source.streams.video[0]
        to_annexb = av.bitstream.BitStreamFilterContext("h264_mp4toannexb", stream)
        for packet in source.demux(stream):
            for made in to_annexb.filter(packet if packet.size else None):
                out.write(bytes(made))
    with Decoder(raw) as decoder:
        times = [frame.pts for frame in decoder]
    assert len(times) == 10
    assert all(a < b for a, b in pairwise(times))


@pytest.mark.parametrize(("suffix", "codec"), [(".h264", "libx264"), (".hevc", "libx265")])
def test_video_without_a_container_begins_where_it_is_asked_to(tmp_path, suffix, codec):
    options = {"x265-params": "log-level=none"} if codec == "libx265" else {}
    raw = make_clip(tmp_path / f"a{suffix}", frames=50, rate=Fraction(25), codec=codec, options=B_FRAMES | options)
    with Decoder(raw) as decoder:
        every = list(decoder)
    start, duration = Fraction(4, 5), Fraction(2, 5)
    with Decoder(raw, start=start, duration=duration) as decoder:
        part = list(decoder)
    assert [frame.pts for frame in part] == [f.pts for f in every if start <= f.pts * f.time_base < start + duration]
    assert len(part) == 10
    assert all(same(frame.planes, every[20 + n].planes) for n, frame in enumerate(part))


# -- files that cannot be used as they are --------------------------------------------------------------------------


def audio_only(folder):
    return make_clip(folder / "sound.mkv", video=False, audio=[("flac", "eng")])


def without_index(folder):
    path = make_clip(folder / "cut.mp4", frames=30)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return path


def written(folder, name, data):
    path = folder / name
    path.write_bytes(data)
    return path


def broken_video(folder):
    """A sound container whose pictures are noise."""
    path = make_clip(folder / "noise.mkv", frames=8)
    with av.open(str(path)) as source:
        packets = [bytes(p) for p in source.demux(source.streams.video[0]) if p.size]
    data = path.read_bytes()
    for packet in packets:
        data = data.replace(packet, b"\xff" * len(packet))
    path.write_bytes(data)
    return path


BAD = {
    "missing": (lambda f: f / "nothing.mkv", "No such file"),
    "folder": (lambda f: f, r"is a folder; .*`videosr batch`.*`videosr upscale .*/%05d\.png"),
    "numbered pictures": (lambda f: f / "a b%04d.png", r"no file of that name, nor are there pictures numbered"),
    "empty": (lambda f: written(f, "empty.mkv", b""), "is empty"),
    "text": (lambda f: written(f, "letter.mkv", b"Dear Sir or Madam,\n" * 99), "is not a media file"),
    "text as text": (
        lambda f: written(f, "letter.txt", b"Dear Sir or Madam,\n" * 99),
        "not a video|is not a media file",
    ),
    "header": (lambda f: written(f, "cut.mkv", make_clip(f / "whole.mkv").read_bytes()[:300]), "is not a media file"),
    "noise": (lambda f: written(f, "noise.mp4", np.random.default_rng(1).bytes(4096)), "is not a media file"),
    "audio only": (audio_only, "no video stream"),
    "unfinished mp4": (without_index, "index is missing"),
    "no picture decodes": (broken_video, "no decodable frame|cannot be decoded"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused_with_one_line_that_names_the_file(tmp_path, case):
    make, message = BAD[case]
    path = make(tmp_path)
    with pytest.raises(InputError, match=message) as caught:
        Decoder(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_unreadable_file_is_refused(tmp_path, monkeypatch):
    path = make_clip(tmp_path / "a.mkv", frames=2)
    path.chmod(0)
    try:
        path.read_bytes()
    except PermissionError:
        with pytest.raises(InputError, match="ermission denied"):
            Decoder(path)
    else:  # the superuser may read everything: let the system call say no
        monkeypatch.setattr("av.open", lambda *_, **__: (_ for _ in ()).throw(PermissionError(13, "Permission denied")))
        with pytest.raises(InputError, match="permission denied"):
            Decoder(path)


def test_wrong_stream_index_names_the_right_ones(tmp_path):
    path = make_clip(tmp_path / "a.mkv", frames=2, audio=[("flac", "eng")])
    with pytest.raises(InputError, match=r"stream 1 is not a video stream.*: 0"):
        detect(path, 1)


def test_truncated_file_gives_the_frames_that_are_there_and_says_so(tmp_path):
    path = make_clip(tmp_path / "a.mkv", frames=48, options={"g": "4"})
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with Decoder(path) as decoder:
        count = len(list(decoder))
    assert 5 < count < 43
    assert any("truncated" in w for w in decoder.warnings)


def test_damage_is_concealed_the_same_way_with_any_number_of_threads(tmp_path):
    path = make_clip(tmp_path / "a.mkv", frames=48, width=320, height=192, options=B_FRAMES | {"qp": "20"})
    data = bytearray(path.read_bytes())
    rng = np.random.default_rng(3)
    for position in rng.integers(len(data) // 4, len(data), 12):
        data[position] ^= 0x55
    path.write_bytes(data)
    runs = []
    for threads in (1, 3, 8, 8):
        with Decoder(path, threads=threads) as decoder:
            runs.append([(frame.pts, tuple(p.tobytes() for p in frame.planes)) for frame in decoder])
            assert any("damaged" in w for w in decoder.warnings)  # or the test shows nothing
    assert len(runs[0]) > 40
    assert all(run == runs[0] for run in runs[1:])


def test_a_picture_that_changes_its_size_is_refused(tmp_path):
    parts = []
    for width in (64, 96):
        part = make_clip(
            tmp_path / f"{width}.ts",
            width=width,
            frames=6,
            time_base=Fraction(1, 25),
            rate=Fraction(25),
            codec="mpeg2video",
        )
        parts.append(part.read_bytes())
    path = written(tmp_path, "joined.ts", b"".join(parts))
    with (
        pytest.raises(InputError, match="picture changes from 64x48 yuv420p to 96x48 yuv420p"),
        Decoder(path) as decoder,
    ):
        list(decoder)


def test_huge_pictures_are_refused_before_memory_is_taken(tmp_path):
    wide = make_clip(tmp_path / "wide.mkv", frames=1, width=20000, height=2, codec="ffv1")
    with pytest.raises(InputError, match="20000x2 is too large"):
        Decoder(wide)


def test_closing_early_releases_the_file(clip, tmp_path):
    path = shutil.copy(clip, tmp_path / "copy.mkv")
    with Decoder(path) as decoder:
        next(iter(decoder))
    path.unlink()
    assert not path.exists()


def bomb(path, width, height):
    """A PNG of a few kilobytes that claims to be of this size."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    data = zlib.compress(bytes((width + 7) // 8 + 1) * 16, 9)
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunks)
    return path


@pytest.mark.parametrize(("width", "height"), [(9000, 9000), (30000, 30000), (60000, 400)])
def test_pictures_too_large_are_refused_by_their_headers(tmp_path, width, height):
    path = bomb(tmp_path / "bomb.png", width, height)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(InputError, match=rf"bomb\.png: {width}x{height} is too large"):
        Decoder(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # KiB


def test_the_limit_of_pixels_is_chosen(tmp_path, videosr):
    clip = make_clip(tmp_path / "a.mkv", frames=2)
    with pytest.raises(InputError, match=r"64x48 is too large: 3072 pixels, the limit is 3071 \(--max-pixels\)"):
        Decoder(clip, max_pixels=3071)
    with Decoder(clip, max_pixels=3072) as decoder:
        assert len(list(decoder)) == 2
    done = videosr("upscale", clip, tmp_path / "b.mkv", "--max-pixels", 3000)
    assert done.code == 1
    assert "64x48 is too large" in done.err


def test_a_film_that_begins_behind_its_sound_is_not_called_truncated(tmp_path):
    path = make_clip(tmp_path / "a.mkv", pts=range(3000, 4000, 40), audio=[("flac", "eng")])
    with av.open(path) as container:
        assert "DURATION" in container.streams.video[0].metadata
    with Decoder(path) as decoder:
        assert len(list(decoder)) == 25
    assert not any("truncated" in line for line in decoder.warnings)


@pytest.fixture
def shortened(tmp_path):
    """An MP4 of which an edit list shows the sixth picture on, and half a picture too much, as copies of parts are."""
    path = make_clip(tmp_path / "a.mp4", frames=60, rate=Fraction(25), time_base=Fraction(1, 25), options=B_FRAMES)
    data = bytearray(path.read_bytes())
    moov, at = data.index(b"mvhd") + 16, data.index(b"elst") + 8
    (scale,) = struct.unpack_from(">I", data, moov)
    with av.open(path) as container:
        tick = container.streams.video[0].time_base
    _, begin = struct.unpack_from(">Ii", data, at + 4)
    struct.pack_into(">Ii", data, at + 4, round(2.22 * scale), begin + round(Fraction(5, 25) / tick))
    path.write_bytes(data)
    return path


def test_what_an_edit_list_hides_is_not_missed(shortened):
    with Decoder(shortened) as decoder:
        frames = list(decoder)
    assert len(frames) == decoder.info.frames == 55
    assert not any("truncated" in line for line in decoder.warnings)


def test_the_last_frame_of_a_part_of_an_mp4_lasts_as_it_did(shortened, videosr, tmp_path):
    with Decoder(shortened) as decoder:
        *_, before, last = decoder
    assert last.duration == before.duration
    output = tmp_path / "out.mp4"
    done = videosr("upscale", shortened, output, "--model", "light-2x")
    assert done.code == 0, done.err
    assert verify(shortened, output).problems == []


def test_the_last_frame_of_an_mp4_ends_with_its_track(tmp_path):
    """The second is decoded last, and the step of the first to the third, its 40 ms, stands for the third."""
    path = make_clip(tmp_path / "a.mp4", pts=(0, 40, 60), options={"bf": "1", "b-adapt": "0"})
    with av.open(path) as container:
        *_, end = container.decode(video=0)
        stated = container.streams.video[0].duration
    assert end.pts + end.duration < stated
    with Decoder(path) as decoder:
        *_, last = decoder
    assert last.pts + last.duration == stated
    assert read_file(path, 0).durations[-1] == last.duration


@pytest.mark.parametrize(("codec", "suffix"), [("libvpx-vp9", ".webm"), ("libvpx", ".webm"), ("libvpx-vp9", ".mkv")])
def test_alpha_beside_the_packets_is_read(tmp_path, codec, suffix):
    """FFmpeg's own decoders of VP8 and VP9 leave it out."""
    fine = {"crf": "10", "b": "2M", "auto-alt-ref": "0"}
    path = make_clip(tmp_path / f"a{suffix}", frames=6, codec=codec, pix_fmt="yuva420p", options=fine)
    fmt = PixelFormat.parse("yuva420p")
    with Decoder(path) as decoder:
        assert decoder.info.format == fmt
        frames = list(decoder)
    assert len(frames) == 6
    for i, frame in enumerate(frames):
        off = frame.planes[3].astype(int) - picture(i, fmt, 48, 64)[3]
        assert abs(off).mean() < 4
    with Decoder(path, start=Fraction(1, 10)) as decoder:
        assert [frame.planes[3].tobytes() for frame in decoder] == [frame.planes[3].tobytes() for frame in frames[3:]]


def test_a_decoder_that_is_closed_and_let_go_is_gone(clip):
    """Its threads are: they would wait for the collector of garbage."""
    gc.disable()
    try:
        with Decoder(clip) as decoder:
            next(iter(decoder))
        known = weakref.ref(decoder)
        del decoder
        assert known() is None
    finally:
        gc.enable()

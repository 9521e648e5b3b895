import hashlib
import resource
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from clips import VFR_PTS, make_clip, picture
from doubling import FAST, LOSSLESS, double, encode

from videosr.errors import InputError, OutputError
from videosr.frame import PixelFormat
from videosr.media.checks.verify import verify
from videosr.media.codecs import EncoderSettings
from videosr.media.decoder import Decoder
from videosr.media.hdr import MasteringDisplay
from videosr.media.matroska.elements import display_size
from videosr.media.muxer import mux
from videosr.media.probe import plan_streams, probe

REORDERED = EncoderSettings(codec="libx264", preset="medium")  # with B-frames
FONT = bytes(range(256)) * 5


@pytest.fixture(scope="module")
def rich(tmp_path_factory):
    """A Matroska file with some of everything."""
    return make_clip(
        tmp_path_factory.mktemp("rich") / "rich.mkv",
        pts=VFR_PTS,
        audio=[("aac", "eng"), ("libopus", "deu"), ("flac", "jpn")],
        subtitles=["eng", "fra"],
        attachments=[("font.ttf", "font/ttf", FONT), ("note.txt", "text/plain", b"hello")],
        chapters=[(0, 500, "One"), (500, 1100, "Zwei")],
        metadata={"title": "A clip", "director": "Nobody"},
        sar=Fraction(4, 3),
        color=(1, 1, 1, 1, 1),
    )


def shown(path, tick=None):
    """Presentation times of the decoded frames, in seconds."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        return [frame.pts * Fraction(frame.time_base.num, frame.time_base.den) for frame in container.decode(stream)]


@pytest.mark.parametrize("suffix", [".mkv", ".mp4", ".mov"])
def test_uneven_times_survive_with_reordered_frames_and_several_segments(rich, tmp_path, suffix):
    output = tmp_path / f"out{suffix}"
    assert double(rich, output, settings=REORDERED, length=5) == []
    assert shown(output) == [Fraction(pts, 1000) for pts in VFR_PTS]
    report = verify(rich, output, scale=2)
    assert report.problems == []
    with av.open(str(output)) as container:
        dts = [p.dts for p in container.demux(container.streams.video[0]) if p.dts is not None]
    assert dts == sorted(set(dts))


@pytest.mark.parametrize("time_base", [Fraction(1, 24), Fraction(1001, 24000), Fraction(1, 90000), Fraction(1, 12800)])
def test_every_time_base_is_exact_in_mp4(tmp_path, time_base):
    rate = 1 / time_base if time_base > Fraction(1, 99) else Fraction(25)
    source = make_clip(
        tmp_path / "a.mp4",
        frames=12,
        time_base=time_base,
        rate=rate,
    )
    output = tmp_path / "b.mp4"
    double(source, output)
    assert shown(output) == shown(source)
    assert verify(source, output).ok


def test_rounding_to_milliseconds_never_adds_up(tmp_path):
    source = make_clip(
        tmp_path / "a.mp4", frames=90, time_base=Fraction(1001, 30000), rate=Fraction(30000, 1001), width=16, height=16
    )
    output = tmp_path / "b.mkv"
    double(source, output, length=40)
    for i, time in enumerate(shown(output)):
        assert abs(time - i * Fraction(1001, 30000)) <= Fraction(1, 2000)


@pytest.mark.parametrize("length", [1, 4, 16])
def test_joined_segments_hold_every_frame_to_the_sample(tmp_path, length):
    source = make_clip(tmp_path / "a.mkv", codec="ffv1", pix_fmt="yuv420p10le", width=34, height=22)
    output = tmp_path / "b.mkv"
    double(source, output, settings=LOSSLESS, length=length)
    with Decoder(output) as decoder:
        frames = list(decoder)
    assert len(frames) == 16
    fmt = PixelFormat.parse("yuv420p10le")
    for i, frame in enumerate(frames):
        for plane, expected in zip(frame.planes, picture(i, fmt, 22, 34), strict=True):
            assert np.array_equal(plane, expected.repeat(2, 0).repeat(2, 1))


@pytest.mark.parametrize("settings", [FAST, REORDERED, EncoderSettings(codec="libx265", preset="ultrafast")])
@pytest.mark.parametrize("suffix", [".mkv", ".mp4"])
def test_the_same_input_gives_the_same_bytes(rich, tmp_path, settings, suffix):
    digests = []
    for name in ("first", "second"):
        output = tmp_path / f"{name}{suffix}"
        double(rich, output, settings=settings)
        digests.append(hashlib.sha256(output.read_bytes()).hexdigest())
    assert digests[0] == digests[1]


def test_matroska_keeps_everything(rich, tmp_path):
    output = tmp_path / "out.mkv"
    double(rich, output)
    before, after = probe(rich), probe(output)
    assert [(s.type, s.codec, s.language) for s in after.streams] == [
        (s.type, s.codec, s.language) for s in before.streams
    ]
    assert after.chapters == before.chapters
    assert after.metadata["title"] == "A clip"
    assert {k.lower(): v for k, v in after.metadata.items()}["director"] == "Nobody"
    with av.open(str(output)) as container:
        payloads = {s.name: s.data for s in container.streams.attachments}
        sar = container.streams.video[0].sample_aspect_ratio
    assert payloads == {"font.ttf": FONT, "note.txt": b"hello"}
    assert (sar.num, sar.den) == (4, 3)
    assert verify(rich, output).problems == []


def test_mp4_converts_what_it_cannot_hold_and_says_so(rich, tmp_path):
    plan = plan_streams(rich, "mp4")
    actions = {p.index: (p.action, p.target) for p in plan.streams}
    assert actions[0] == ("upscale", "")
    assert [actions[i][0] for i in (1, 2, 3)] == ["copy"] * 3
    assert [actions[i] for i in (4, 5)] == [("convert", "mov_text")] * 2
    assert [actions[i][0] for i in (6, 7)] == ["drop"] * 2
    assert len(plan.losses) == 4
    output = tmp_path / "out.mp4"
    double(rich, output)
    after = probe(output)
    assert [(s.codec, s.language) for s in after.streams if s.type == "subtitle"] == [
        ("mov_text", "eng"),
        ("mov_text", "fra"),
    ]
    tags = {k.lower(): v for k, v in after.metadata.items()}
    assert (tags["title"], tags["director"]) == ("A clip", "Nobody")
    with av.open(str(output)) as container:
        stream = container.streams.subtitles[0]
        payloads = [bytes(p) for p in container.demux(stream) if p.size > 2]
    texts = [p[2 : 2 + int.from_bytes(p[:2], "big")].decode() for p in payloads]  # what follows is the style
    assert texts == ["eng: first line", "eng: second line\neng: at the same time", "eng: second line"]
    assert verify(rich, output).problems == []


def test_webm_converts_audio_and_text(rich, tmp_path):
    output = tmp_path / "out.webm"
    double(rich, output, settings=EncoderSettings(codec="libvpx-vp9", preset="8"))
    kinds = [(s.type, s.codec) for s in probe(output).streams]
    assert kinds == [
        ("video", "vp9"),
        ("audio", "opus"),
        ("audio", "opus"),
        ("audio", "opus"),
        ("subtitle", "webvtt"),
        ("subtitle", "webvtt"),
    ]
    report = verify(rich, output)
    assert report.problems == []  # the aspect, too, which VP9 itself cannot carry
    with av.open(str(output)) as container:
        sar = container.streams.video[0].sample_aspect_ratio
        audio = [frame.to_ndarray() for frame in container.decode(container.streams.audio[0])]
    assert (sar.num, sar.den) == (4, 3)
    assert 0.05 < np.abs(np.concatenate(audio, axis=1)).mean() < 0.4  # the tone is there


@pytest.mark.parametrize("suffix", [".mkv", ".mp4"])
@pytest.mark.parametrize("rotation", [90, 180, -90])
def test_rotation_is_kept(tmp_path, suffix, rotation):
    source = make_clip(tmp_path / "a.mp4", frames=3, rotation=rotation)
    output = tmp_path / f"b{suffix}"
    double(source, output)
    with Decoder(source) as before, Decoder(output) as after:
        assert abs(before.info.rotation) == abs(rotation)
        assert after.info.rotation == before.info.rotation
    assert verify(source, output).ok


@pytest.mark.parametrize("suffix", [".mkv", ".mp4"])
@pytest.mark.parametrize(
    ("pix_fmt", "settings", "color"),
    [
        ("yuv420p", FAST, (1, 1, 1, 1, 1)),
        ("yuv420p", FAST, (6, 2, 6, 6, 2)),
        ("yuv422p", FAST, (5, 1, 5, 4, 1)),
        ("yuv420p10le", EncoderSettings(codec="libx265", preset="ultrafast"), (9, 1, 9, 16, 3)),
        ("yuv420p10le", EncoderSettings(codec="libsvtav1", preset="13"), (9, 1, 9, 18, 3)),
        ("yuv444p10le", FAST, (9, 2, 9, 14, 0)),
    ],
)
def test_colour_tags_are_kept(tmp_path, suffix, pix_fmt, settings, color):
    codec = "libx265" if settings.codec == "libx265" else "libx264"
    quiet = {"x265-params": "log-level=none"} if codec == "libx265" else {}
    source = make_clip(tmp_path / "a.mkv", frames=3, pix_fmt=pix_fmt, color=color, codec=codec, options=quiet)
    output = tmp_path / f"b{suffix}"
    double(source, output, settings=settings)
    assert verify(source, output).problems == []
    with Decoder(output) as decoder:
        made = decoder.info
    assert (int(made.color.matrix), int(made.color.range), made.color.primaries, made.color.transfer) == color[:4]
    assert made.format.name == pix_fmt


def test_guessed_matrix_is_written_and_unknown_primaries_stay_unknown(tmp_path):
    source = make_clip(tmp_path / "a.mkv", frames=2, width=640, height=400)  # SD: its double would be taken for BT.709
    output = tmp_path / "b.mkv"
    double(source, output)
    with av.open(str(output)) as container:
        frame = next(container.decode(video=0))
    assert (frame.colorspace, frame.color_primaries, frame.color_trc) == (6, 2, 2)


@pytest.mark.parametrize(("codec", "preset"), [("libx265", "ultrafast"), ("libsvtav1", "13")])
@pytest.mark.parametrize("suffix", [".mkv", ".mp4"])
def test_static_hdr_metadata_reaches_the_frames(tmp_path, codec, preset, suffix):
    display = "G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,50)"
    params = f"log-level=none:hdr10=1:master-display={display}:max-cll=1000,400"
    source = make_clip(
        tmp_path / "a.mkv",
        frames=3,
        pix_fmt="yuv420p10le",
        codec="libx265",
        color=(9, 1, 9, 16, 3),
        options={"x265-params": params},
    )
    output = tmp_path / f"b{suffix}"
    double(source, output, settings=EncoderSettings(codec=codec, preset=preset))
    with Decoder(source) as before, Decoder(output) as after:
        was, now = next(iter(before)).side_data, next(iter(after)).side_data
    names = ["CONTENT_LIGHT_LEVEL", "MASTERING_DISPLAY_METADATA"]
    assert [name for name, _ in was] == names  # or the test shows nothing
    assert [name for name, _ in now] == names
    assert now[0] == was[0]
    x, y = (MasteringDisplay.parse(data[1][1]) for data in (was, now))
    for a, b in ((x.red, y.red), (x.green, y.green), (x.blue, y.blue), (x.white, y.white)):
        assert max(abs(a[0] - b[0]), abs(a[1] - b[1])) < Fraction(1, 10000)
    assert abs(x.brightest - y.brightest) < 1
    assert abs(x.darkest - y.darkest) < Fraction(1, 1000)
    assert verify(source, output).problems == []
    without = tmp_path / f"c{suffix}"
    double(source, without, settings=EncoderSettings(codec="libx264", preset="ultrafast"))  # x264 cannot write it
    assert [line for line in verify(source, without).problems if "mastering display metadata is missing" in line]


@pytest.mark.parametrize("sar", [Fraction(64, 45), Fraction(8, 9), Fraction(40, 33)])
@pytest.mark.parametrize("suffix", [".mkv", ".mp4", ".webm"])
def test_aspect_is_kept(tmp_path, sar, suffix):
    source = make_clip(tmp_path / "a.mp4", frames=2, width=90, sar=sar)
    output = tmp_path / f"b{suffix}"
    double(source, output, settings=EncoderSettings(codec="libvpx-vp9", preset="8") if suffix == ".webm" else FAST)
    assert verify(source, output).problems == []
    with Decoder(output) as decoder:
        exact = suffix != ".webm" or (180 * sar).denominator == 1
        assert decoder.info.sar == sar if exact else abs(decoder.info.sar / sar - 1) < Fraction(1, 200)


def test_display_size_is_exact_where_whole_pixels_can_say_it():
    assert display_size(1440, 1152, Fraction(64, 45)) == (2048, 1152)
    assert display_size(1441, 960, Fraction(8, 9)) == (1441, 1080)
    assert display_size(1441, 960, Fraction(32, 27)) == (1441, 810)


@pytest.mark.parametrize("suffix", [".mkv", ".mp4"])
def test_odd_sizes(tmp_path, suffix):
    source = make_clip(tmp_path / "a.mkv", frames=3, codec="ffv1", pix_fmt="yuv420p", width=33, height=21)
    output = tmp_path / f"b{suffix}"
    double(source, output)
    assert verify(source, output, scale=2).problems == []


def test_a_part_of_the_source_begins_at_zero_with_everything_in_step(rich, tmp_path):
    output = tmp_path / "part.mkv"
    double(rich, output, start=Fraction(29, 100), frames=8)
    inside = [pts for pts in VFR_PTS if pts >= 290][:8]
    assert shown(output) == [Fraction(pts - inside[0], 1000) for pts in inside]
    with av.open(str(rich)) as a, av.open(str(output)) as b:
        was = {bytes(p): p.pts for p in a.demux(a.streams.audio[2]) if p.size}
        now = [(bytes(p), p.pts) for p in b.demux(b.streams.audio[2]) if p.size]
        assert now
        assert all(was[payload] - pts == inside[0] for payload, pts in now)
        b.seek(0)
        cues = [(p.pts, p.duration) for p in b.demux(b.streams.subtitles[0]) if p.size]
        titles = [c["metadata"]["title"] for c in b.chapters()]
    assert cues == [(0, 8), (108, 150), (108, 100)]  # the first one was on the screen already
    assert titles == ["One", "Zwei"]


@pytest.mark.parametrize("suffix", [".mkv", ".mp4"])
@pytest.mark.parametrize(("name", "codec"), [("a.ts", "libx264"), ("a.flv", "flv")])
def test_a_recording_begins_at_zero_at_whatever_hour_its_clock_did(tmp_path, name, codec, suffix):
    tick, hours = Fraction(1, 1000 if name == "a.flv" else 90_000), 11 * 3600
    times = [round((hours + Fraction(n, 25)) / tick) for n in range(12)]
    source = make_clip(tmp_path / name, pts=times, time_base=tick, rate=Fraction(25), codec=codec)
    with av.open(str(source)) as container:
        assert container.start_time > 10 * 3600 * 1_000_000  # or the test shows nothing
    output = tmp_path / f"b{suffix}"
    assert double(source, output) == []
    with av.open(str(output)) as container:
        assert abs(container.start_time) < 50_000
    assert verify(source, output).problems == []


def test_cover_art_is_copied(tmp_path):
    source = make_clip(tmp_path / "a.mkv", frames=2)
    cover = tmp_path / "cover.png"
    av.VideoFrame.from_ndarray(np.full((8, 8, 3), 77, np.uint8), format="rgb24").save(cover)
    with_cover = tmp_path / "covered.mp4"
    with av.open(str(with_cover), "w") as out, av.open(str(source)) as film, av.open(str(cover)) as art:
        pairs = [(film, out.add_stream_from_template(film.streams[0], opaque=True))]
        pairs.append((art, out.add_stream_from_template(art.streams[0], opaque=True)))
        pairs[1][1].disposition = av.stream.Disposition.attached_pic
        for container, target in pairs:
            for packet in container.demux():
                if packet.size:
                    packet.stream = target
                    out.mux(packet)
    assert plan_streams(with_cover, "mov").losses == ("stream 1 (video, png): drop: mov holds no such cover art",)
    for suffix in (".mp4", ".mkv"):
        output = tmp_path / f"out{suffix}"
        double(with_cover, output)
        assert verify(with_cover, output).problems == []
        with av.open(str(output)) as container:
            pictures = [s for s in container.streams.video if s.disposition & av.stream.Disposition.attached_pic]
            assert len(pictures) == 1


def test_tags_in_an_old_encoding_become_unicode(tmp_path):
    source = make_clip(tmp_path / "a.mkv", frames=2, metadata={"title": "Cafe noir"}, chapters=[(0, 40, "Cafe")])
    source.write_bytes(source.read_bytes().replace(b"Cafe", b"Caf\xe9"))
    for suffix in (".mkv", ".mp4"):
        output = tmp_path / f"b{suffix}"
        double(source, output)
        info = probe(output)
        assert info.metadata["title"] == "Café noir"
        assert info.chapters[0][2] == "Café"
        assert verify(source, output).problems == []


# -- failures ---------------------------------------------------------------------------------------------------


def names(folder: Path) -> set[str]:
    return {entry.name for entry in folder.iterdir() if not entry.name.endswith(".segments")}


def test_a_damaged_segment_leaves_no_output_and_the_old_one_alone(rich, tmp_path):
    segments = encode(rich, tmp_path / "x.segments", "matroska")
    data = bytearray(segments[1].read_bytes())
    data[-60] ^= 1
    segments[1].write_bytes(data)
    output = tmp_path / "out.mkv"
    output.write_bytes(b"the old one")
    with pytest.raises(InputError, match=segments[1].name):
        mux(segments, rich, output, plan_streams(rich, "matroska"))
    assert names(tmp_path) == {"out.mkv"}
    assert output.read_bytes() == b"the old one"


def test_segments_of_different_streams_are_not_joined(rich, tmp_path):
    one = encode(rich, tmp_path / "1.segments", "matroska")
    two = encode(rich, tmp_path / "2.segments", "matroska", settings=LOSSLESS)
    with pytest.raises(InputError, match="equal headers"):
        mux([one[0], two[1]], rich, tmp_path / "out.mkv", plan_streams(rich, "matroska"))
    assert names(tmp_path) == set()


def test_segments_in_the_wrong_number_are_noticed(rich, tmp_path):
    segments = encode(rich, tmp_path / "x.segments", "matroska")
    with pytest.raises(InputError, match="same presentation time"):
        mux([*segments, segments[0]], rich, tmp_path / "out.mkv", plan_streams(rich, "matroska"))
    assert names(tmp_path) == set()


@pytest.mark.parametrize("suffix", [".mkv", ".mp4"])
def test_a_folder_that_is_not_there_is_an_output_error(rich, tmp_path, suffix):
    segments = encode(rich, tmp_path / "x.segments", "matroska")
    output = tmp_path / "nowhere" / f"out{suffix}"
    with pytest.raises(OutputError, match=r"nowhere.*No such file"):
        mux(segments, rich, output, plan_streams(rich, "matroska"))


@pytest.mark.skipif(sys.platform == "win32", reason="limits of file size are a POSIX thing")
@pytest.mark.parametrize("suffix", [".mkv", ".mp4"])
@pytest.mark.parametrize("room", [100, 3000, -200])
def test_a_full_disk_leaves_nothing_and_is_an_error(rich, tmp_path, suffix, room):
    container = {".mkv": "matroska", ".mp4": "mp4"}[suffix]
    segments = encode(rich, tmp_path / "x.segments", container)
    whole = tmp_path / f"whole{suffix}"
    plan = plan_streams(rich, container)
    mux(segments, rich, whole, plan)
    size = whole.stat().st_size
    whole.unlink()
    code = (
        "import resource, sys\n"
        "from videosr.errors import OutputError\n"
        "from videosr.media.muxer import mux\n"
        "from videosr.media.probe import plan_streams\n"
        f"plan = plan_streams({str(rich)!r}, {container!r})\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({room % size}, {resource.RLIM_INFINITY}))\n"
        f"try:\n    mux({[str(s) for s in segments]!r}, {str(rich)!r}, {str(tmp_path / ('out' + suffix))!r}, plan)\n"
        "except OutputError as exc:\n    print(exc)\n    sys.exit(7)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 7, done.stderr
    assert "File too large" in done.stdout
    assert names(tmp_path) == set()


@pytest.mark.parametrize(("source", "suffix"), [(".mp4", ".mkv"), (".mkv", ".mp4")])
def test_streams_lie_beside_each_other_in_the_file(tmp_path, source, suffix):
    """Players of slow disks and networks read one place at a time."""
    clip = make_clip(tmp_path / f"in{source}", frames=24 * 14, width=32, height=32, audio=[("aac", "eng")])
    output = tmp_path / f"out{suffix}"
    double(clip, output, length=400)
    at = [Fraction(0), Fraction(0)]
    with av.open(str(output)) as container:
        for packet in sorted((p for p in container.demux() if p.size and p.dts is not None), key=lambda p: p.pos):
            at[packet.stream_index] = packet.dts * packet.time_base
            assert abs(at[0] - at[1]) < Fraction(1, 2)


@pytest.mark.parametrize("suffix", [".mkv", ".mp4"])
def test_a_second_video_with_reordered_frames_keeps_its_times(tmp_path, suffix):
    source = tmp_path / "two.mkv"
    with av.open(str(source), "w") as out:
        streams = [out.add_stream("libx264", rate=25, options={"bf": "2", "threads": "1"}) for _ in range(2)]
        for stream, size in zip(streams, (64, 48), strict=True):
            stream.width, stream.height, stream.pix_fmt = size, size, "yuv420p"
        out.start_encoding()
        for i in range(12):
            for stream in streams:
                shades = np.full((stream.height * 3 // 2, stream.width), 16 + 9 * i, np.uint8)
                out.mux(stream.encode(av.VideoFrame.from_ndarray(shades, "yuv420p")))
        for stream in streams:
            out.mux(stream.encode(None))
    output = tmp_path / f"out{suffix}"
    assert double(source, output, settings=REORDERED) == []
    assert verify(source, output).problems == []


@pytest.mark.parametrize(
    ("suffix", "lost"),
    [
        (".mkv", set()),
        (".mp4", {"original"}),
        (".mov", {"original", "comment", "forced", "hearing_impaired", "visual_impaired"}),
        (".webm", {"original", "comment", "hearing_impaired", "visual_impaired"}),
    ],
)
def test_flags_of_tracks_are_kept_or_named(tmp_path, suffix, lost):
    plain = make_clip(tmp_path / "plain.mkv", frames=6, audio=[("libopus", "eng")], subtitles=["eng"])
    source = tmp_path / "a.mkv"
    with av.open(str(plain)) as container, av.open(str(source), "w") as out:
        streams = [out.add_stream_from_template(s) for s in container.streams]
        for stream in streams:
            for flag in ("default", "original", "comment", "forced", "hearing_impaired", "visual_impaired"):
                stream.disposition |= av.stream.Disposition[flag]
        for packet in container.demux():
            if packet.size:
                packet.stream = streams[packet.stream_index]
                out.mux(packet)
    losses = plan_streams(source, {".mkv": "matroska"}.get(suffix, suffix[1:])).losses
    named = {line.split(" has no place")[0] for line in losses if ": flag " in line}
    assert named == {f"stream {n}: flag {flag}" for n in range(3) for flag in lost}
    output = tmp_path / f"out{suffix}"
    double(source, output, settings=EncoderSettings())
    assert verify(source, output).problems == []


@pytest.mark.parametrize("suffix", [".webm", ".mp4"])
def test_sound_that_only_says_how_many_channels_it_has_is_converted(tmp_path, suffix):
    source = make_clip(
        tmp_path / "a.avi", frames=8, time_base=Fraction(1, 24), codec="mpeg4", audio=[("adpcm_ms", "eng")]
    )
    with av.open(str(source)) as container:
        assert container.streams.audio[0].layout.name == "1 channels"
    output = tmp_path / f"b{suffix}"
    double(source, output, settings=EncoderSettings())
    assert verify(source, output).problems == []
    with av.open(str(output)) as container:
        assert container.streams.audio[0].layout.name == "mono"


@pytest.mark.parametrize(("profile", "tag"), [("0", "apco"), ("2", "apcn"), ("3", "apch")])
def test_prores_is_tagged_with_its_profile(videosr, tmp_path, profile, tag):
    source = make_clip(tmp_path / "in.mkv", frames=3)
    output = tmp_path / "out.mov"
    done = videosr("upscale", source, output, "--model", "light-2x", "--codec", "prores_ks", "-x", f"profile={profile}")
    assert done.code == 0, done.err
    with av.open(str(output)) as container:
        assert container.streams.video[0].codec_context.codec_tag == tag

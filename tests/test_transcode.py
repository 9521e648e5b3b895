"""Whole runs of `videosr upscale` on small clips: what arrives, what is refused, and what is left behind."""

import hashlib
import json
from collections import Counter
from fractions import Fraction

import av
import numpy as np
import pytest
from clips import SUBTITLES, VFR_PTS, make_clip, use_rule
from corpus.hdr import H264_SEI, TURNED, captions, sei, with_units

from videosr import transcode as module
from videosr.color import to_rgb
from videosr.errors import OutputError
from videosr.media.checks.verify import verify
from videosr.media.decoder import Decoder
from videosr.media.encoder import SegmentEncoder
from videosr.options import UpscaleOptions
from videosr.progress import Progress
from videosr.upscaler import Upscaler

FAST = ("--codec", "libx264", "--preset", "ultrafast")
FONT = ("font.ttf", "font/ttf", bytes(range(256)) * 8)


@pytest.fixture
def rich(tmp_path):
    """A clip of uneven times with everything Matroska can hold."""
    return make_clip(
        tmp_path / "rich.mkv",
        pts=VFR_PTS,
        sar=Fraction(4, 3),
        color=(1, 1, 1, 1, 1),
        audio=[("aac", "eng"), ("libopus", "deu")],
        subtitles=["eng", "fra"],
        attachments=[FONT],
        chapters=[(0, 500, "one"), (500, 1083, "two")],
        metadata={"title": "A title", "MOOD": "odd"},
    )


def times(path):
    """Presentation times of the decoded video frames in seconds, exact."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        base = Fraction(stream.time_base.num, stream.time_base.den)
        return [frame.pts * base for frame in container.decode(stream)]


def planes(path):
    with Decoder(path) as decoder:
        return [frame.planes for frame in decoder]


def only(folder, *names):
    """Whether nothing but these files is in the folder."""
    return sorted(p.name for p in folder.iterdir()) == sorted(names)


@pytest.mark.parametrize("suffix", ["mkv", "mp4", "mov", "webm"])
def test_everything_arrives_or_is_named(rich, suffix, videosr):
    output = rich.with_name(f"out.{suffix}")
    options = () if suffix == "webm" else FAST
    done = videosr("upscale", rich, output, *options)
    assert done.code == 0, done.err
    report = verify(rich, output, scale=2)
    assert report.problems == []
    assert report.facts["frames_out"] == len(VFR_PTS)
    with av.open(str(output)) as container:
        kinds = Counter(stream.type for stream in container.streams)
    assert kinds["audio"] == 2
    assert kinds["subtitle"] == 2
    assert kinds["attachment"] == (suffix == "mkv")
    if suffix == "mkv":
        assert "convert" not in done.err
        assert "drop" not in done.err
    else:
        assert "attachment" in done.err
        assert "subrip" in done.err
    assert only(rich.parent, rich.name, output.name)


@pytest.mark.parametrize("suffix", ["mkv", "mp4"])
def test_uneven_times_stay(rich, suffix, videosr):
    output = rich.with_name(f"out.{suffix}")
    assert videosr("upscale", rich, output, *FAST, "-q").code == 0
    assert times(output) == times(rich)
    assert len(set(np.diff([float(t) for t in times(rich)]).round(6))) > 5


def test_the_output_holds_the_upscalers_frames(tmp_path, videosr):
    source = make_clip(tmp_path / "in.mkv", width=50, height=38)
    output = tmp_path / "out.mkv"
    assert videosr("upscale", source, output, "--codec", "ffv1").code == 0
    with Decoder(source) as decoder:
        upscaler = Upscaler(UpscaleOptions().of(decoder.info))
        made = [f for frame in decoder for f in upscaler.process(frame)]
    made += upscaler.flush()
    found = planes(output)
    assert len(found) == len(made) == 16
    for frame, stored in zip(made, found, strict=True):
        for a, b in zip(frame.planes, stored, strict=True):
            np.testing.assert_array_equal(a, b)


def segments_of(monkeypatch, **rule):
    """Let segments close after few frames; returns a list that will hold the paths of those made."""
    made = []
    use_rule(monkeypatch, **rule)
    monkeypatch.setattr(
        module, "mux", lambda segments, *a, mux=module.mux, **k: (made.extend(segments), mux(segments, *a, **k))[1]
    )
    return made


@pytest.mark.parametrize(
    ("codec", "suffix", "color", "said"),
    [
        ("prores_ks", "mov", (1, 2, 1, 1, 1), "range becomes limited: prores_ks knows no other"),
        ("prores_ks", "mkv", (6, 2, 2, 2, 1), "range becomes limited: prores_ks knows no other"),
        ("dnxhd", "mov", (6, 2, 6, 6, 1), "matrix becomes bt709: dnxhd knows no other"),
        ("ffv1", "mp4", (6, 2, 2, 2, 1), ""),
    ],
)
def test_colours_are_what_the_readers_of_a_codec_take_them_for(tmp_path, codec, suffix, color, said, videosr):
    """Codecs with a colour of their own, and containers that state only what is known as a whole."""
    source = make_clip(tmp_path / "in.mkv", frames=4, width=256, height=128, color=color)
    output = tmp_path / f"out.{suffix}"
    done = videosr("upscale", source, output, "--codec", codec)
    assert done.code == 0
    assert said in done.err
    means = []
    for path in (source, output):
        with Decoder(path) as decoder:
            frame = next(iter(decoder))
            means.append(to_rgb(frame.planes, frame.format, frame.color).mean((1, 2)))
    np.testing.assert_allclose(*means, atol=1 / 255)
    assert not any(" colour matrix" in line or " colour range" in line for line in verify(source, output).problems)


def test_rgb_is_found_again_in_ycbcr(tmp_path, videosr):
    source = make_clip(tmp_path / "in.mkv", frames=4, codec="libx265", pix_fmt="gbrp", color=(0, 2, 1, 13, 0))
    output = tmp_path / "out.mkv"
    assert videosr("upscale", source, output, *FAST).code == 0
    assert verify(source, output, scale=2).problems == []


@pytest.mark.parametrize("codec", ["libx264", "libx265"])
@pytest.mark.parametrize("suffix", ["mkv", "mp4"])
def test_segments_join_into_one_stream(rich, codec, suffix, videosr, monkeypatch):
    made = segments_of(monkeypatch, shortest=2, longest=5)
    output = rich.with_name(f"out.{suffix}")
    assert videosr("upscale", rich, output, "--codec", codec, "--preset", "veryfast", "-x", "bf=2").code == 0
    assert len(made) == 4
    assert verify(rich, output, scale=2).problems == []
    with av.open(str(output)) as container:
        packets = [p for p in container.demux(video=0) if p.size]
        shown = sorted(p.pts for p in packets)
        keys = [shown.index(p.pts) for p in packets if p.is_keyframe]
        assert [p.pts for p in packets] != shown  # there are B-frames, so that joining is no matter of course
    assert keys == [0, 5, 10, 15]


def test_a_rate_mode_over_the_whole_file_is_one_piece(rich, videosr, monkeypatch):
    made = segments_of(monkeypatch, shortest=2, longest=5)
    output = rich.with_name("out.mkv")
    done = videosr("upscale", rich, output, *FAST, "-x", "b=300k")
    assert done.code == 0
    assert "in one piece, without segments" in done.err
    assert len(made) == 1
    assert verify(rich, output, scale=2).problems == []


@pytest.mark.parametrize(
    ("wanted", "size"),
    [(("--height", "60"), (80, 60)), (("--size", "120x90"), (120, 90)), (("--size", "100x90"), (100, 90))],
)
def test_resizing_keeps_the_shape_seen(rich, wanted, size, videosr):
    output = rich.with_name("out.mkv")
    assert videosr("upscale", rich, output, *FAST, *wanted).code == 0
    with Decoder(output) as decoder:
        info = decoder.info
    assert (info.width, info.height) == size
    assert info.sar * info.width / info.height == Fraction(4, 3) * 64 / 48


@pytest.mark.parametrize("pix_fmt", ["yuv420p10le", "yuv422p10le", "yuv444p10le", "yuv420p", "yuv422p", "yuv444p"])
def test_depth_and_chroma_stay(tmp_path, pix_fmt, videosr):
    source = make_clip(tmp_path / "in.mkv", frames=4, pix_fmt=pix_fmt, codec="ffv1", color=(9, 1, 9, 16, 0))
    output = tmp_path / "out.mkv"
    done = videosr("upscale", source, output, "--preset", "ultrafast")
    assert done.code == 0
    with Decoder(source) as before, Decoder(output) as after:
        assert after.info.format == before.info.format
        assert after.info.color == before.info.color
        assert after.info.codec == ("hevc" if "10" in pix_fmt else "h264")
    assert verify(source, output, scale=2).problems == []


@pytest.mark.parametrize(("width", "height"), [(33, 27), (17, 64), (64, 19)])
def test_odd_sizes(tmp_path, width, height, videosr):
    source = make_clip(tmp_path / "in.mkv", frames=3, width=width, height=height, codec="ffv1")
    output = tmp_path / "out.mp4"
    assert videosr("upscale", source, output, *FAST).code == 0
    assert verify(source, output, scale=2).problems == []


@pytest.mark.parametrize(
    ("options", "first", "last"),
    [
        (("--start", "0.2"), 4, 15),
        (("--duration", "0.3"), 0, 4),
        (("--start", "0:00.2", "--duration", "0.35"), 4, 8),
        (("--start", "00:00:00.2", "--frames", "2"), 4, 5),
        (("--frames", "100"), 0, 15),
    ],
)
def test_a_part(rich, options, first, last, videosr):
    output = rich.with_name("out.mkv")
    assert videosr("upscale", rich, output, *FAST, *options).code == 0
    wanted = times(rich)[first : last + 1]
    assert times(output) == [time - wanted[0] for time in wanted]
    with av.open(str(output)) as container:
        audio = [p for p in container.demux(audio=0) if p.size]
    end = float(wanted[-1] - wanted[0]) + 0.2
    assert audio
    assert all(-0.1 < p.pts * p.time_base < end for p in audio)


def sound(path):
    """When it begins, and its samples."""
    with av.open(str(path)) as container:
        decoded = list(container.decode(audio=0))
    return decoded[0].time, np.concatenate([frame.to_ndarray() for frame in decoded], axis=1)


@pytest.mark.parametrize("suffix", ["mkv", "mp4"])
def test_a_part_has_its_sound_from_the_first_sample_on(tmp_path, suffix, videosr):
    """Decoders throw away what an encoder put before the beginning; where that is cut off, they take the beginning."""
    source = make_clip(tmp_path / "in.mp4", frames=48, audio=[("aac", "eng")])
    output = tmp_path / f"out.{suffix}"
    assert videosr("upscale", source, output, *FAST, "--frames", "12").code == 0
    (began, whole), (begins, part) = sound(source), sound(output)
    assert (began, begins) == (0, 0)
    assert 0.4 < part.shape[1] / 48000 < 0.6
    np.testing.assert_array_equal(part, whole[:, : part.shape[1]])
    assert videosr("upscale", source, output, *FAST, "--start", "1", "--overwrite").code == 0
    begins, part = sound(output)
    assert 0 <= begins < 1024 / 48000 + 0.001, "not more than a packet late"
    at = 48000 + round(begins * 48000)
    shift = min(
        range(-48, 49), key=lambda n: np.abs(part[:, 2048:6144] - whole[:, at + n + 2048 : at + n + 6144]).max()
    )
    np.testing.assert_allclose(part[:, 2048:6144], whole[:, at + shift + 2048 : at + shift + 6144], atol=0.02)


@pytest.mark.parametrize(
    ("rotation", "size"), [(0, (214, 160)), (90, (160, 120)), (180, (214, 160)), (-90, (160, 120))]
)
def test_the_height_is_that_of_what_is_seen(tmp_path, rotation, size, videosr):
    source = make_clip(tmp_path / "in.mp4", frames=2, rotation=rotation)
    output = tmp_path / "out.mp4"
    assert videosr("upscale", source, output, *FAST, "--height", "160").code == 0
    with Decoder(output) as decoder:
        assert (decoder.info.width, decoder.info.height, decoder.info.rotation % 360) == (*size, rotation % 360)


def test_repeated_frames_are_not_computed_twice(tmp_path, videosr):
    source = make_clip(tmp_path / "in.mkv", frames=6, codec="ffv1")
    doubled = tmp_path / "doubled.mkv"
    with av.open(str(source)) as a, av.open(str(doubled), "w") as b:
        stream = b.add_stream("ffv1", rate=48)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for i, frame in enumerate(a.decode(video=0)):
            for k in range(2):
                frame.pts, frame.time_base = 2 * i + k, Fraction(1, 48)
                b.mux(stream.encode(frame))
        b.mux(stream.encode(None))
    done = videosr("upscale", doubled, tmp_path / "out.mkv", "--codec", "ffv1", "--temporal", "off", "--json")
    last = json.loads(done.out.splitlines()[-1])
    assert (last["event"], last["frames"], last["reused"]) == ("done", 12, 6)
    found = planes(tmp_path / "out.mkv")
    for a, b in zip(found[::2], found[1::2], strict=True):
        np.testing.assert_array_equal(a[0], b[0])


@pytest.mark.parametrize("suffix", ["mkv", "mp4"])
@pytest.mark.parametrize("codec", ["libx264", "libx265"])
def test_two_runs_give_the_same_bytes(rich, suffix, codec, videosr, monkeypatch):
    segments_of(monkeypatch, shortest=2, longest=7)
    hashes = set()
    for threads in ("1", "2", "2"):
        output = rich.with_name(f"out.{suffix}")
        settings = ("--codec", codec, "--preset", "superfast", "--threads", threads, "--overwrite")
        assert videosr("upscale", rich, output, *settings).code == 0
        hashes.add(hashlib.sha256(output.read_bytes()).hexdigest())
    assert len(hashes) == 1


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_a_rotation_that_is_in_the_coded_video_alone_is_kept(tmp_path, videosr, suffix):
    film = with_units(tmp_path, lambda folder: make_clip(folder / "a.mp4", frames=3), sei(H264_SEI, TURNED, 47))
    with Decoder(film) as decoder:
        turned = decoder.info.rotation
    assert turned == 90
    output = tmp_path / f"b{suffix}"
    assert videosr("upscale", film, output).code == 0
    with Decoder(output) as decoder:
        assert decoder.info.rotation == turned
    assert verify(film, output).problems == []


def test_strict_refuses_what_would_be_lost(rich, videosr):
    done = videosr("upscale", rich, rich.with_name("out.mp4"), "--strict")
    assert done.code == 1
    assert len(done.err.splitlines()) == 1
    assert "--strict" in done.err
    assert "subrip" in done.err
    assert only(rich.parent, rich.name)
    assert videosr("upscale", rich, rich.with_name("out.mkv"), "--strict", *FAST).code == 0


@pytest.mark.parametrize("strict", [("--strict",), ()])
def test_what_is_lost_late_is_told_when_it_is_met(tmp_path, videosr, monkeypatch, strict):
    film = with_units(tmp_path, lambda folder: make_clip(folder / "a.mkv", frames=70), captions, begin=10)
    encoded = []
    encode = SegmentEncoder.encode
    monkeypatch.setattr(SegmentEncoder, "encode", lambda self, frame: (encoded.append(frame.pts), encode(self, frame)))
    done = videosr("upscale", film, tmp_path / "out.mkv", "--codec", "ffv1", *strict)
    assert done.err.count("embedded captions") == 1
    assert done.code == (1 if strict else 0)
    assert len(encoded) < 50 if strict else len(encoded) == 70


def test_strict_refuses_what_a_part_would_lose_and_keeps_what_is_made(tmp_path, videosr):
    source = make_clip(tmp_path / "a.mkv", pts=VFR_PTS, metadata={"TIMECODE": "01:00:00:00"}, color=(1, 1, 1, 1, 1))
    part = ("upscale", source, tmp_path / "b.mkv", "--start", "0.3", "--frames", "3", *FAST)
    done = videosr(*part, "--strict")
    assert done.code == 1
    assert "--strict forbids" in done.err
    assert "timecode 01:00:00:00" in done.err
    assert "the same command goes on from there" in done.err
    assert not (tmp_path / "b.mkv").exists()
    again = videosr(*part, "--json")
    assert again.code == 0
    events = [json.loads(line) for line in again.out.splitlines()]
    assert [e["resumed"] for e in events if e["event"] == "begin"] == [3]
    assert sum("timecode 01:00:00:00 is left out" in e["message"] for e in events if e["event"] == "warning") == 1
    assert only(tmp_path, "a.mkv", "b.mkv")


def test_subtitles_in_another_container_say_the_same(rich, videosr):
    output = rich.with_name("out.mp4")
    assert videosr("upscale", rich, output, *FAST).code == 0
    with av.open(str(output)) as container:
        text = b"".join(bytes(p) for p in container.demux(subtitles=0))
    for _, _, line in SUBTITLES:
        assert line.replace("<i>", "").replace("</i>", "").encode() in text


# -- failures ---------------------------------------------------------------------------------------------------------


def fail_after(monkeypatch, frames):
    """Let the encoder fail after that many frames."""
    encode, count = SegmentEncoder.encode, iter(range(10_000))

    def failing(self, frame):
        if next(count) >= frames:
            raise OutputError("libx264: encoding failed: out of luck")
        encode(self, frame)

    monkeypatch.setattr(SegmentEncoder, "encode", failing)


def test_a_failure_leaves_the_old_output(rich, videosr, monkeypatch):
    segments_of(monkeypatch, shortest=2, longest=3)
    fail_after(monkeypatch, 8)
    output = rich.with_name("out.mkv")
    output.write_text("precious")
    done = videosr("upscale", rich, output, *FAST, "--overwrite")
    assert (done.code, done.err.splitlines()[-1]) == (1, "videosr: libx264: encoding failed: out of luck")
    assert output.read_text() == "precious"
    assert only(rich.parent, rich.name, output.name, ".out.mkv.videosr")


def test_a_failure_while_joining_costs_no_frame(rich, videosr, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("videosr.media.muxer._publish", lambda part, target, *_: part.replace(target / "not a folder"))
        done = videosr("upscale", rich, rich.with_name("out.mkv"), *FAST)
    assert done.code == 1
    assert "out.mkv: cannot be written" in done.err.splitlines()[-1]
    assert only(rich.parent, rich.name, ".out.mkv.videosr")
    fail_after(monkeypatch, 0)  # there is nothing left to encode
    assert videosr("upscale", rich, rich.with_name("out.mkv"), *FAST).code == 0
    assert verify(rich, rich.with_name("out.mkv"), scale=2).ok
    assert only(rich.parent, rich.name, "out.mkv")


def test_an_existing_output_needs_leave(rich, videosr):
    output = rich.with_name("out.mkv")
    output.write_text("precious")
    done = videosr("upscale", rich, output)
    assert (done.code, output.read_text()) == (2, "precious")
    assert "--overwrite" in done.err
    assert videosr("upscale", rich, output, "--overwrite", *FAST).code == 0
    assert verify(rich, output, scale=2).ok


def test_paths_may_be_text(tmp_path):
    source = make_clip(tmp_path / "in.mkv", frames=2)
    options = module.TranscodeOptions(upscale=UpscaleOptions(model="light-2x"))
    done = module.transcode(str(source), str(tmp_path / "out.mkv"), options, Progress("in.mkv", quiet=True))
    assert done.frames == 2
    assert only(tmp_path, "in.mkv", "out.mkv")


def test_the_input_is_never_the_output(rich, videosr):
    before = rich.read_bytes()
    link = rich.with_name("link.mkv")
    link.symlink_to(rich)
    hard = rich.with_name("hard.mkv")
    hard.hardlink_to(rich)
    for output in (rich, link, hard):
        done = videosr("upscale", rich, output, "--overwrite")
        assert done.code == 2
        assert "is the input itself" in done.err
    assert rich.read_bytes() == before


def test_a_cut_file_is_upscaled_as_far_as_it_goes(tmp_path, videosr):
    whole = make_clip(tmp_path / "whole.mkv", frames=60, options={"g": "10"})
    data = whole.read_bytes()
    cut = tmp_path / "cut.mkv"
    cut.write_bytes(data[: len(data) // 2])
    output = tmp_path / "out.mkv"
    done = videosr("upscale", cut, output, *FAST)
    assert done.code == 0
    assert "truncated" in done.err
    assert 10 < len(times(output)) < 60
    assert times(output) == times(cut)


def test_a_cut_transport_stream_may_lack_its_sound(tmp_path, videosr):
    """Sound of which too little is there can be neither copied nor converted; the pictures are saved all the same."""
    data = make_clip(tmp_path / "whole.ts", frames=48, audio=[("aac", "eng")], options={"g": "12"}).read_bytes()
    cut, output = tmp_path / "cut.ts", tmp_path / "out.mkv"
    for packets in range(4, 80, 2):
        cut.write_bytes(data[: packets * 188])
        done = videosr("upscale", cut, output, *FAST, "--temporal", "off")
        assert "internal" not in done.err
        assert done.code == (0 if output.exists() else 1)
        if done.code == 0:
            break
    assert "too little of it" in done.err
    assert times(output)


def test_names_at_the_limit(rich, videosr):
    output = rich.with_name("é" * 125 + "a.mkv")  # 255 bytes in UTF-8
    assert videosr("upscale", rich, output, *FAST, "--frames", "2").code == 0
    assert only(rich.parent, rich.name, output.name)
    done = videosr("upscale", rich, rich.with_name("a" * 252 + ".mkv"))
    assert done.code == 1
    assert "too long" in done.err


@pytest.mark.parametrize("jobs", [(), ("--jobs", "2")])
@pytest.mark.parametrize("since", [None, 0, 20])
def test_alpha_is_named_where_something_is_transparent(tmp_path, videosr, since, jobs):
    source, rgba = tmp_path / "a.mkv", np.full((32, 48, 4), 200, np.uint8)
    with av.open(str(source), "w") as out:
        stream = out.add_stream("ffv1", rate=24)
        stream.width, stream.height, stream.pix_fmt = 48, 32, "yuva444p"
        for n in range(24):
            rgba[..., 3] = 255 if since is None or n < since else 128
            out.mux(stream.encode(av.VideoFrame.from_ndarray(rgba, format="rgba").reformat(format="yuva444p")))
        out.mux(stream.encode(None))
    done = videosr("upscale", source, tmp_path / "b.mkv", *FAST, *jobs)
    assert done.code == 0, done.err
    assert done.err.count("the alpha plane is lost") == (0 if since is None else 1)
    strict = videosr("upscale", source, tmp_path / "c.mkv", *FAST, *jobs, "--strict")
    assert strict.code == (0 if since is None else 1)

import io
import json
import re
import tracemalloc
from fractions import Fraction

import av
import pytest
from clips import VFR_PTS, make_clip
from doubling import LOSSLESS, double

from videosr.errors import InputError
from videosr.media.checks.readback import Track
from videosr.media.checks.verify import verify


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """A source and a sound output whose every frame is a keyframe, so that it can be tampered with."""
    folder = tmp_path_factory.mktemp("verify")
    source = make_clip(
        folder / "in.mkv",
        codec="ffv1",
        pts=VFR_PTS,
        color=(1, 1, 1, 1, 1),
        audio=[("flac", "eng"), ("flac", "deu")],
        subtitles=["eng"],
        attachments=[("font.ttf", "font/ttf", b"abc" * 50)],
        chapters=[(0, 500, "One"), (500, 1100, "Two")],
        metadata={"title": "A clip"},
    )
    output = folder / "out.mkv"
    double(source, output, settings=LOSSLESS)
    return source, output


def tampered(
    output,
    path,
    *,
    drop=None,
    shift=None,
    without=None,
    color=None,
    retitle=None,
    chapters=None,
    attachment=None,
    flip=None,
    language=None,
    late=None,
    brief=None,
):
    """A copy of an output with one thing wrong."""
    with av.open(str(output)) as source, av.open(str(path), "w", container_options={"fflags": "+bitexact"}) as out:
        out.metadata.update({"title": retitle or source.metadata["title"]})
        out.set_chapters(chapters if chapters is not None else source.chapters())
        targets = {}
        for stream in source.streams:
            if stream.index == without:
                continue
            if stream.type == "attachment":
                out.add_attachment(stream.name, stream.mimetype, attachment or stream.data)
                continue
            target = out.add_stream_from_template(stream, opaque=True)
            target.metadata.update({k: v for k, v in stream.metadata.items() if k != "DURATION"})
            target.disposition = stream.disposition
            targets[stream.index] = target
            if stream.type == "video":
                target.codec_context.framerate = 24
                if color is not None:
                    target.codec_context.color_primaries = color
            if stream.type == "audio" and language:
                target.metadata["language"] = language
        count = 0
        for packet in source.demux(list(source.streams[i] for i in targets)):
            if packet.size == 0:
                continue
            if packet.stream_index == 0:
                count += 1
                if count - 1 == drop:
                    continue
                if count - 1 == shift:
                    packet.pts += 2
                    packet.dts = packet.pts
            elif packet.stream_index == 1 and late:
                packet.pts += late
                packet.dts = packet.pts
            elif packet.stream_index == 3 and brief:
                packet.duration -= brief
            elif packet.stream_index == 1 and flip:
                payload = bytearray(bytes(packet))
                payload[-1] ^= 1
                copy = av.Packet(bytes(payload))
                copy.pts, copy.dts, copy.duration, copy.time_base = (
                    packet.pts,
                    packet.dts,
                    packet.duration,
                    packet.time_base,
                )
                packet = copy
                packet.stream = targets[1]
                out.mux(packet)
                continue
            packet.stream = targets[packet.stream_index]
            out.mux(packet)
    return path


def test_a_sound_output_is_passed(pair):
    report = verify(*pair, scale=2)
    assert report.ok, report.problems
    assert report.facts["frames_out"] == len(VFR_PTS)
    assert json.loads(json.dumps(report.as_json()))["ok"]


def test_an_untampered_copy_is_passed(pair, tmp_path):
    source, output = pair
    assert verify(source, tampered(output, tmp_path / "copy.mkv"), scale=2).problems == []


DAMAGE = {
    "lost frame": ({"drop": 7}, "15 frames, expected 16"),
    "shifted frame": ({"shift": 5}, "frame 5 is shown at 0.335"),
    "lost audio": ({"without": 2}, r"stream 2 \(audio, flac\) is missing"),
    "lost subtitles": ({"without": 3}, r"stream 3 \(subtitle, subrip\) is missing"),
    "lost attachment": ({"without": 4}, "attachment.* is missing"),
    "changed attachment": ({"attachment": b"xyz"}, "attachment font.ttf"),
    "wrong primaries": ({"color": 9}, "colour primaries 9, expected 1"),
    "changed title": ({"retitle": "Another"}, "tag title"),
    "wrong language": ({"language": "fra"}, "tag language"),
    "lost chapters": ({"chapters": []}, "0 chapters, expected 2"),
    "cut chapter": (
        {
            "chapters": [
                {"id": n, "start": a, "end": b, "time_base": Fraction(1, 1000), "metadata": {"title": title}}
                for n, a, b, title in ((1, 0, 400, "One"), (2, 500, 1100, "Two"))
            ]
        },
        "chapter 0: 'One' from 0.000 to 0.400 s, expected 'One' from 0.000 to 0.500 s",
    ),
    "late audio": ({"late": 3}, r"stream 1 .*packet 0 is \+0.0030 s off"),
    "short subtitle": ({"brief": 20}, r"stream 3 .*packet 0 lasts 0.1800 s, expected 0.2000 s"),
    "changed audio": ({"flip": True}, r"stream 1 .*other content"),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_each_kind_of_damage_is_found(pair, tmp_path, kind):
    source, output = pair
    change, message = DAMAGE[kind]
    report = verify(source, tampered(output, tmp_path / "bad.mkv", **change))
    assert not report.ok
    assert any(re.search(message, line) for line in report.problems), report.problems


def test_wrong_size_and_aspect_are_found(pair, tmp_path):
    source, _ = pair
    other = make_clip(tmp_path / "other.mkv", pts=VFR_PTS, width=128, height=100, sar=Fraction(3, 2))
    problems = verify(source, other, scale=2).problems
    assert any("size 128x100, expected 128x96" in line for line in problems)
    assert any("display aspect" in line for line in problems)


def test_wrong_rotation_is_found(tmp_path):
    source = make_clip(tmp_path / "a.mp4", frames=3, rotation=90)
    other = make_clip(tmp_path / "b.mp4", frames=3)
    assert any("rotation" in line for line in verify(source, other).problems)


def test_damaged_pictures_in_the_output_are_found(tmp_path):
    source = make_clip(tmp_path / "a.mkv", frames=8)
    output = tmp_path / "b.mkv"
    double(source, output)
    with av.open(str(output)) as container:
        packet = max((bytes(p) for p in container.demux(container.streams.video[0]) if p.size), key=len)
    data = output.read_bytes()
    output.write_bytes(data.replace(packet, packet[:10] + b"\xff" * (len(packet) - 10)))
    assert any("decoding errors" in line for line in verify(source, output).problems)


def test_a_file_that_is_not_there_is_an_error(pair, tmp_path):
    with pytest.raises(InputError, match=r"none\.mkv"):
        verify(pair[0], tmp_path / "none.mkv")


def test_other_hdr_values_are_found(tmp_path):
    def clip(name, light):
        params = f"log-level=none:hdr10=1:max-cll={light}:repeat-headers=1"
        options = {"preset": "ultrafast", "x265-params": params}
        return make_clip(tmp_path / name, frames=3, codec="libx265", pix_fmt="yuv420p10le", options=options)

    source = clip("a.mkv", "1000,400")
    assert verify(source, clip("same.mkv", "1000,400")).problems == []
    problems = verify(source, clip("other.mkv", "1000,300")).problems
    assert any("content light level has other values" in line for line in problems), problems


def test_other_pictures_are_found(pair, tmp_path):
    source, _ = pair
    other = make_clip(tmp_path / "other.mkv", pts=VFR_PTS, width=128, height=96, noise=90)
    assert any("pictures differ" in line for line in verify(source, other).problems)
    report = verify(source, pair[1])
    assert report.facts["likeness"]["samples"] == len(VFR_PTS)
    assert report.facts["likeness"]["median_psnr"] > 35


@pytest.mark.parametrize("suffix", [".mkv", ".mp4"])
def test_subtitles_of_two_letters_count(tmp_path, suffix):
    plain = make_clip(tmp_path / "plain.mkv", subtitles=["eng"])
    source = tmp_path / "a.mkv"
    with av.open(str(plain)) as container, av.open(str(source), "w") as out:
        streams = [out.add_stream_from_template(s) for s in container.streams]
        for packet in container.demux():
            if packet.size and packet.stream.type == "subtitle":
                times = packet.pts, packet.duration, packet.time_base
                packet = av.Packet(b"No")
                packet.pts, packet.duration, packet.time_base = times
                packet.dts, packet.stream = packet.pts, streams[1]
                out.mux(packet)
            elif packet.size:
                packet.stream = streams[0]
                out.mux(packet)
    output = tmp_path / f"b{suffix}"
    double(source, output)
    report = verify(source, output)
    assert report.problems == []
    assert report.facts["streams"]["kept"] == 1


def test_samples_may_come_in_packets_of_other_sizes(tmp_path):
    clip = make_clip(
        tmp_path / "a.mxf",
        frames=15,
        time_base=Fraction(1, 25),
        rate=Fraction(25),
        codec="mpeg2video",
        audio=[("pcm_s16le", "eng")],
    )
    output = tmp_path / "b.mp4"
    double(clip, output)
    assert verify(clip, output).problems == []


@pytest.mark.parametrize("lost", [0, 1])
def test_samples_may_come_in_as_many_packets_that_are_cut_elsewhere(tmp_path, lost):
    """As from QuickTime, where chunks of samples end where pictures are written between them."""
    clip = make_clip(tmp_path / "a.mkv", codec="ffv1", frames=6, audio=[("pcm_s16le", "eng")])
    double(clip, tmp_path / "made.mkv", settings=LOSSLESS)
    with av.open(tmp_path / "made.mkv") as made, av.open(tmp_path / "recut.mkv", "w") as out:
        targets = [out.add_stream_from_template(stream) for stream in made.streams]
        targets[1].metadata["language"] = "eng"
        packets = [packet for packet in made.demux() if packet.size]
        first, second = [bytes(packet) for packet in packets if packet.stream_index == 1][:2]
        cuts = [first[: len(first) // 2], first[len(first) // 2 :] + second[: len(second) - 2 * lost]]
        for packet in packets:
            if packet.stream_index == 1 and cuts:
                sound = av.Packet(cuts.pop(0))
                sound.stream, sound.time_base = targets[1], Fraction(1, 48000)
                sound.pts = sound.dts = 0 if cuts else len(first) // 4
                sound.duration = sound.size // 2
                out.mux(sound)
            else:
                packet.stream = targets[packet.stream_index]
                out.mux(packet)
    problems = verify(clip, tmp_path / "recut.mkv").problems
    assert problems == (["stream 1 (audio, pcm_s16le): has other content"] if lost else [])


def test_a_packet_costs_a_few_bytes():
    """Of lossless sound a film has millions, of which a list of integers and hashes would be a gigabyte."""
    track, packet = Track(Fraction(1, 90000)), av.Packet(b"\1" * 50)
    with av.open(io.BytesIO(), "w", format="matroska") as out:
        packet.stream = out.add_stream("flac", rate=48000)
        tracemalloc.start()
        for number in range(10000):
            packet.pts = packet.dts = 10**9 + 75 * number
            packet.duration = 75 + number
            track.add(packet)
        held, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert len(track.times) == 10000
    assert held < 40 * 10000

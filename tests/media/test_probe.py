from fractions import Fraction

import pytest
from clips import make_clip

from videosr.errors import InputError
from videosr.media.probe import plan_streams, probe


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return make_clip(
        tmp_path_factory.mktemp("probe") / "a.mkv",
        frames=12,
        audio=[("libopus", "eng"), ("ac3", "deu")],
        subtitles=["fra"],
        attachments=[("font.ttf", "font/ttf", b"12345")],
        chapters=[(0, 250, "One")],
        metadata={"title": "T"},
    )


def test_probe_lists_everything(clip):
    info = probe(clip)
    assert info.container == "matroska,webm"
    assert [(s.type, s.codec, s.language) for s in info.streams] == [
        ("video", "h264", None),
        ("audio", "opus", "eng"),
        ("audio", "ac3", "deu"),
        ("subtitle", "subrip", "fra"),
        ("attachment", "unknown", None),
    ]
    assert info.streams[0].detail == "64x48 yuv420p, 24 fps"
    assert info.streams[4].detail == "font.ttf, font/ttf, 5 bytes"
    assert info.chapters == ((Fraction(0), Fraction(1, 4), "One"),)
    assert info.metadata["title"] == "T"
    assert info.video == 0
    assert info.duration is not None


@pytest.mark.parametrize(
    ("container", "actions"),
    [
        ("matroska", ["upscale", "copy", "copy", "copy", "copy"]),
        ("mp4", ["upscale", "copy", "copy", "convert to mov_text", "drop"]),
        ("mov", ["upscale", "convert to aac", "copy", "convert to mov_text", "drop"]),
        ("webm", ["upscale", "copy", "convert to libopus", "convert to webvtt", "drop"]),
        ("image", ["upscale", "drop", "drop", "drop", "drop"]),
    ],
)
def test_the_plan_says_what_each_container_holds(clip, container, actions):
    plan = plan_streams(clip, container)
    assert [f"convert to {p.target}" if p.action == "convert" else p.action for p in plan.streams] == actions
    changed = [p for p in plan.streams if p.action in ("convert", "drop")]
    assert all(p.reason for p in changed)
    assert [line for line in plan.losses if line.startswith("stream ")] == [str(p) for p in changed]


def test_probe_of_a_file_without_video_works_and_its_plan_does_not(tmp_path):
    sound = make_clip(tmp_path / "a.mkv", video=False, audio=[("flac", "eng")])
    assert probe(sound).video is None
    with pytest.raises(InputError, match="no video stream"):
        plan_streams(sound, "matroska")


@pytest.mark.parametrize("container", ["matroska", "mov", "mp4"])
def test_a_timecode_track_is_no_loss(tmp_path, container):
    clip = make_clip(tmp_path / "a.mov", frames=3, metadata={"timecode": "01:02:03:04"})
    assert [s.type for s in probe(clip).streams] == ["video", "data"]
    plan = plan_streams(clip, container)
    assert plan.losses == ()
    assert plan.streams[1].target == "timecode"

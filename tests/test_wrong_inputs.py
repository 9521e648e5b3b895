"""What people give by mistake: each is met by one line that says what it is and what to do; and odd terminals."""

import os
import subprocess
import sys

import av
import pytest
from clips import make_clip

KEY = "76a6c65c5ea762046bd749a2e632ccbb"


def encrypted(source, path):
    """The video of a clip under Common Encryption (ISO/IEC 23001-7)."""
    scheme = {"encryption_scheme": "cenc-aes-ctr", "encryption_key": KEY, "encryption_kid": KEY}
    with av.open(source) as clip, av.open(path, "w", container_options=scheme) as output:
        stream = output.add_stream_from_template(clip.streams.video[0])
        for packet in clip.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                output.mux(packet)
    return path


def test_an_encrypted_video_is_called_that(videosr, tmp_path):
    """The slices' beginnings are not encrypted, so that a decoder makes pictures of the rest, which is noise."""
    source = encrypted(make_clip(tmp_path / "clear.mp4"), tmp_path / "locked.mp4")
    for arguments in (("upscale", source, tmp_path / "out.mkv"), ("probe", source)):
        done = videosr(*arguments)
        assert done.code == 1
        assert (
            done.err == f"videosr: {source}: the video is encrypted (DRM), and videosr has no key; decrypt it first\n"
        )
    assert not (tmp_path / "out.mkv").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ("upscale", "https://example.com/a.mp4", "out.mkv"),
        ("upscale", "in.mkv", "https://example.com/a.mkv"),
        ("probe", "rtsp://camera/1"),
        ("compare", "in.mkv", "https://example.com/a.mp4", "-o", "page.html"),
    ],
)
def test_an_address_is_no_file(videosr, tmp_path, monkeypatch, arguments):
    monkeypatch.chdir(tmp_path)
    done = videosr(*arguments)
    address = next(a for a in arguments if "://" in a)
    assert done.code == 2
    assert f"{address} is an address, not a file: download it first, or see videosr serve" in done.err


def test_standard_input_is_for_serve(videosr, tmp_path):
    done = videosr("upscale", "-", tmp_path / "out.mkv")
    assert done.code == 1
    assert done.err == "videosr: -: standard input can be read only once; store it in a file, or use videosr serve\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('crf = "low"', "crf: 'low' is not a valid float"),
        ("height = 9", "height: 9 is not in the range 16<=x<=16384"),
        ('[options]\n"" = 1', "options: '=1' is not of the form KEY=VALUE"),
        ("threads = 0.5", "threads: '0.5' is not a valid integer range"),
    ],
)
def test_a_wrong_value_in_a_preset_is_told_of_as_the_presets(videosr, tmp_path, text, words):
    preset = tmp_path / "mine.toml"
    preset.write_text(text)
    done = videosr("upscale", "in.mkv", tmp_path / "out.mkv", "--as", preset)
    assert done.code == 2
    assert done.err == f"videosr: preset {preset}: {words}\n"


def test_a_preset_may_begin_with_a_byte_order_mark(videosr, tmp_path):
    preset = tmp_path / "mine.toml"
    preset.write_bytes(b"\xef\xbb\xbfframes = 2\r\n[options]\r\nbf = 0\r\n")
    source = make_clip(tmp_path / "in.mkv")
    done = videosr("upscale", source, tmp_path / "out.mkv", "--as", preset, "--model", "light-2x")
    assert done.code == 0
    assert "2 frames" in done.err


def test_names_that_the_terminal_cannot_show_are_escaped(tmp_path):
    """As where the locale is not UTF-8, and on Windows where the output goes into a file."""
    source = make_clip(tmp_path / "日本.mkv", frames=3)
    env = os.environ | {"PYTHONIOENCODING": "latin-1", "PYTHONUTF8": "0", "LC_ALL": "C.UTF-8"}
    command = [sys.executable, "-m", "videosr", "probe", source.name]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 0
    assert done.stdout.startswith("\\u65e5\\u672c.mkv: matroska")
    assert done.stderr == ""

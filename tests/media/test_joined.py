"""Two files appended to one another are told of where FFmpeg would show only one, or both with wrong times."""

import struct

import pytest
from clips import make_clip

from videosr.media.decoder import Decoder
from videosr.media.joined import joined


def losses(path):
    with Decoder(path) as decoder:
        return decoder.losses(frozenset())


@pytest.mark.parametrize(("suffix", "codec"), [("mp4", "libx264"), ("mov", "libx264"), ("flv", "libx264"),
                                               ("mkv", "libx264"), ("webm", "libvpx")])  # fmt: skip
def test_a_file_joined_behind_another_is_named(tmp_path, suffix, codec):
    alone = make_clip(tmp_path / f"alone.{suffix}", codec=codec, frames=6)
    both = tmp_path / f"both.{suffix}"
    both.write_bytes(2 * alone.read_bytes())
    assert losses(alone) == []
    (line,) = losses(both)
    assert f"another film that begins at byte {alone.stat().st_size} (" in line


@pytest.mark.parametrize("suffix", ["ts", "mkv"])
def test_what_may_be_joined_is_not_named(tmp_path, suffix):
    """MPEG-TS is read to its end; of Matroska that is cut short the next file begins within the first one's Segment."""
    alone = make_clip(tmp_path / f"alone.{suffix}", frames=6).read_bytes()
    both = tmp_path / f"both.{suffix}"
    both.write_bytes((alone if suffix == "ts" else alone[:-50]) + alone)
    assert losses(both) == []


def test_a_damaged_size_leads_nowhere(tmp_path):
    path = tmp_path / "a.mp4"
    path.write_bytes(struct.pack(">I4sQ", 1, b"free", 2**64 - 1))
    assert joined(str(path), "mov,mp4,m4a,3gp,3g2,mj2") == []


def test_a_refusal_says_what_to_do(tmp_path, videosr):
    alone = make_clip(tmp_path / "alone.mp4", frames=6)
    both = tmp_path / "both.mp4"
    both.write_bytes(2 * alone.read_bytes())
    done = videosr("upscale", both, tmp_path / "out.mkv", "--strict", "--model", "light-2x")
    assert done.code == 1
    assert "mkvmerge" in done.err

"""AAC that changes its rate or channels on the way: broadcasts of stereo and 5.1 in turn."""

from __future__ import annotations

import pytest
from doubling import double
from test_audio_format import with_sound

from videosr.media.adts import changing
from videosr.media.checks.verify import verify
from videosr.media.codecs import EncoderSettings
from videosr.media.probe import plan_streams


def joined(folder, *layouts):
    """A recording of half a second of each."""
    parts = [
        with_sound(folder / f"{n}.ts", "aac", layout, initial_offset=str(n / 2)) for n, layout in enumerate(layouts)
    ]
    path = folder / "joined.ts"
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    return path


@pytest.mark.parametrize(("suffix", "codec"), [(".mkv", "flac"), (".mp4", "aac"), (".mov", "aac")])
def test_aac_that_changes_its_channels_is_converted_whole(tmp_path, suffix, codec):
    source, output = joined(tmp_path, "stereo", "5.1", "stereo"), tmp_path / f"out{suffix}"
    (line,) = plan_streams(source, suffix[1:].replace("mkv", "matroska")).losses
    assert f"convert to {codec}: its rate or channels change on the way" in line
    double(source, output, settings=EncoderSettings(preset="ultrafast"))
    assert verify(source, output).problems == []


def test_aac_that_stays_as_it_is_is_copied(tmp_path):
    source = joined(tmp_path, "5.1", "5.1")
    assert changing(source) == set()
    assert plan_streams(source, "matroska").losses == ()

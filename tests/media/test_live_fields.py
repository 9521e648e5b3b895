"""Interlaced sources that come live: what is marked is made whole, whichever field is said to be first."""

from __future__ import annotations

import os
import threading
from contextlib import closing
from pathlib import Path

import av
import numpy as np
import pytest
from test_deinterlace import scene, woven, write

from videosr.media.live.input import LiveInput, Picture
from videosr.media.live.source import SourceSpec

FRAMES = 30


def read(path: Path) -> tuple[list[Picture], list[str]]:
    """The pictures of a source, and what is noted."""
    with closing(LiveInput(SourceSpec(url=str(path)))) as source:
        return [event for event in source if isinstance(event, Picture)], source.notes


def piped(tmp_path: Path, *parts: Path) -> Path:
    """A pipe through which files come, one behind the other."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    data = b"".join(part.read_bytes() for part in parts)
    threading.Thread(target=lambda: pipe.write_bytes(data), daemon=True).start()
    return pipe


def off(picture: Picture, moment: int) -> float:
    """Mean difference from the scene at a moment."""
    luma = picture.frame.planes[0].astype(float)
    return float(np.abs(luma - scene(moment, luma.shape[0])).mean())


@pytest.mark.parametrize(("marked", "order"), [("tff", "tff"), ("bff", "bff"), ("bff", "tff"), ("tff", "bff")])
def test_pictures_of_a_pipe_are_deinterlaced_as_their_fields_lie(tmp_path, marked, order):
    clip = write(tmp_path / "in.ts", woven(range(2 * FRAMES), order), codec="mpeg2video", order=marked)
    pictures, notes = read(piped(tmp_path, clip))
    times = [float(picture.frame.pts * picture.frame.time_base) for picture in pictures]
    assert len(times) == FRAMES
    assert np.diff(times) == pytest.approx(1 / 25)
    assert not any(picture.frame.interlaced for picture in pictures)
    assert max(off(picture, 2 * n) for n, picture in enumerate(pictures) if n > 12) < 4.5
    assert [line.partition(": ")[2] for line in notes] == [
        "pictures that are marked as interlaced are deinterlaced by bwdif, one frame for each"
    ]


def test_a_source_may_change_between_interlaced_and_progressive(tmp_path):
    whole = write(tmp_path / "whole.ts", [scene(n) for n in range(FRAMES)], codec="mpeg2video")
    fields = write(tmp_path / "fields.ts", woven(range(2 * FRAMES)), codec="mpeg2video", order="tff")
    pictures, notes = read(piped(tmp_path, whole, fields, whole))
    with av.open(str(whole)) as plain:
        expected = [frame.to_ndarray()[:416] for frame in plain.decode(video=0)]
    assert len(pictures) == 3 * FRAMES
    for n in range(FRAMES):
        assert np.array_equal(pictures[n].frame.planes[0], expected[n])
        assert np.array_equal(pictures[2 * FRAMES + n].frame.planes[0], expected[n])
    assert max(off(picture, 2 * n) for n, picture in enumerate(pictures[FRAMES : 2 * FRAMES])) < 4.5
    assert sum("deinterlaced" in line for line in notes) == 1


def test_a_file_is_looked_at_as_for_upscale(tmp_path):
    clip = write(tmp_path / "untagged.mkv", woven(range(2 * FRAMES), "bff"))
    pictures, notes = read(clip)
    assert len(pictures) == FRAMES
    assert max(off(picture, 2 * n) for n, picture in enumerate(pictures)) < 4.5
    assert notes == [
        f"{clip}: interlaced, bottom field first (idet: 30 of 30 frames are combed): "
        "deinterlaced by bwdif, one frame for each"
    ]


def test_a_file_whose_pictures_are_not_combed_stays_as_it_is_marked_or_not(tmp_path):
    clip = write(tmp_path / "film.ts", [scene(n) for n in range(FRAMES)], codec="mpeg2video", order="tff")
    pictures, notes = read(clip)
    assert max(off(picture, n) for n, picture in enumerate(pictures)) < 2
    assert len(pictures) == FRAMES
    assert "left as it is" in notes[0]

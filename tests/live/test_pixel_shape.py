"""Sources whose pixels change their shape in mid-stream, while the picture keeps its size."""

from __future__ import annotations

import os
import threading
from contextlib import closing
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from clips import make_clip

from videosr.live.options import ServeOptions, parse_target
from videosr.live.serve import Server
from videosr.media.live.input import LiveInput, Picture
from videosr.media.live.source import SourceSpec
from videosr.options import UpscaleOptions

NARROW, WIDE = Fraction(16, 15), Fraction(64, 45)


def both(tmp_path: Path) -> Path:
    """A pipe through which a second of 4:3 comes, and then one of 16:9."""
    parts = [
        make_clip(tmp_path / f"{n}.ts", frames=24, sar=sar, options={"bf": "0"}).read_bytes()
        for n, sar in enumerate((NARROW, WIDE))
    ]
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    threading.Thread(target=lambda: pipe.write_bytes(b"".join(parts)), daemon=True).start()
    return pipe


def test_each_picture_has_the_shape_that_it_is_coded_with(tmp_path):
    with closing(LiveInput(SourceSpec(url=str(both(tmp_path))))) as source:
        shapes = [event.frame.sar for event in source if isinstance(event, Picture)]
    assert shapes == [NARROW] * 24 + [WIDE] * 24


def test_what_a_container_says_apart_from_that_holds_for_all(tmp_path):
    path = tmp_path / "in.y4m"
    path.write_bytes(b"YUV4MPEG2 W64 H48 F24:1 Ip A64:45 C420jpeg\n" + 3 * (b"FRAME\n" + bytes(64 * 72)))
    with closing(LiveInput(SourceSpec(url=str(path)))) as source:
        assert {event.frame.sar for event in source if isinstance(event, Picture)} == {source.info.sar} == {WIDE}


def test_the_output_keeps_its_shape_and_gets_black_bars(tmp_path):
    wanted = ServeOptions(
        source=SourceSpec(url=str(both(tmp_path))),
        targets=(parse_target(str(tmp_path / "live.m3u8")),),
        upscale=UpscaleOptions(model="light-2x"),
        steps=False,
    )
    assert Server(wanted, lambda _: None).run().delivered == 48
    with av.open(str(tmp_path / "live.m3u8")) as back:
        pictures = [frame.to_ndarray()[:96] for frame in back.decode(video=0)]
        assert back.streams.video[0].sample_aspect_ratio == NARROW
    tops = [float(np.max(picture[:8])) for picture in pictures]
    assert min(tops[:24]) > 30
    assert max(tops[24:]) < 30

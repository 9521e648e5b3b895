"""Closed captions of live streams."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import av
from clips import make_clip
from corpus.hdr import captions, with_units

from videosr.frame import StreamInfo
from videosr.live.options import ServeOptions, parse_target
from videosr.live.serve import Server
from videosr.media.decoder import Decoder
from videosr.media.live.codec import TIME_BASE, LiveEncoder, Template, VideoSettings
from videosr.media.live.source import SourceSpec


def captioned(folder):
    return with_units(folder, lambda folder: make_clip(folder / "a.mkv", frames=24), captions)


def riding(frames):
    return [{kind.name: bytes(data) for kind, data in f.side_data.items()}.get("A53_CC", b"") for f in frames]


def test_a_stream_carries_its_captions(tmp_path):
    film = captioned(tmp_path)
    with Decoder(film) as decoder:
        expected = [dict(frame.side_data)["A53_CC"] for frame in decoder]
    target = parse_target(str(tmp_path / "out.m3u8"))
    Server(ServeOptions(source=SourceSpec(url=str(film)), targets=(target,), latency=30.0), print).run()
    with av.open(str(tmp_path / "out.m3u8")) as back:
        assert riding(back.decode(video=0)) == expected


def test_captions_of_frames_that_are_dropped_come_with_the_next(tmp_path):
    template = Template()
    with Decoder(captioned(tmp_path)) as decoder:
        frames = [replace(f, pts=3750 * n, time_base=TIME_BASE) for n, f in enumerate(decoder)]
        info = decoder.info
    live = StreamInfo(width=info.width, height=info.height, format=info.format, time_base=TIME_BASE, rate=Fraction(24))
    encoder = LiveEncoder(live, VideoSettings(), template)
    template.settle()
    texts = [dict(frame.side_data)["A53_CC"] for frame in frames]
    for frame, text in zip(frames, texts, strict=True):  # read ahead of what is encoded
        encoder.caption(frame.pts, text)
    shown = [n for n in range(24) if n not in (0, 5, 6, 7)]
    context = av.CodecContext.create("h264", "r")
    found = []
    for n in shown:
        for coded in encoder.encode(frames[n], 0.0):
            found += context.decode(av.Packet(coded.data))
    found += context.decode(None)
    assert riding(found) == [
        b"".join(texts[before + 1 : n + 1]) for before, n in zip([-1, *shown], shown, strict=False)
    ]

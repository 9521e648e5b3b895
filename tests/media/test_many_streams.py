"""Files of more streams than FFmpeg reads and writes if it is not told otherwise: a thousand."""

from __future__ import annotations

from fractions import Fraction

import av
from clips import make_clip
from doubling import double

from videosr.media.checks.verify import verify
from videosr.media.matroska.elements import CLUSTER, INFO, SEGMENT, TRACKS, element, elements
from videosr.media.probe import MOST_WRITTEN, plan_streams
from videosr.media.source import open_input, video_stream

ATTACHMENTS = 0x1941A469
FILMS = (32, 30), (64, 25)
"""Columns, and frames a second."""


def attachment(number):
    name, mimetype, data, identifier = 0x466E, 0x4660, 0x465C, 0x46AE
    text = f"{number}.ttf".encode()
    parts = ((name, text), (mimetype, b"font/ttf"), (identifier, (number + 1).to_bytes(4)), (data, text))
    return element(0x61A7, b"".join(element(*part) for part in parts))


def test_of_more_attachments_than_an_output_holds_the_last_are_named_and_the_others_kept(tmp_path):
    source, output = tmp_path / "in.mkv", tmp_path / "out.mkv"
    head = bytearray(make_clip(tmp_path / "plain.mkv", frames=3).read_bytes())
    first, segment = list(elements(head, 0, len(head)))[:2]
    parts = [e for e in elements(head, segment.data, len(head)) if e.id in (INFO, TRACKS, CLUSTER)]
    body = element(ATTACHMENTS, b"".join(map(attachment, range(1050))))
    body += b"".join(bytes(head[e.start : e.end]) for e in parts)
    source.write_bytes(bytes(head[first.start : first.end]) + element(SEGMENT, body))
    plan = plan_streams(source, "matroska")
    dropped = [p.index for p in plan.streams if p.action == "drop"]
    assert dropped == list(range(MOST_WRITTEN, 1051))
    assert len(plan.losses) == len(dropped)
    double(source, output)
    with open_input(output) as made:
        assert [s.name for s in made.streams.attachments] == [f"{n}.ttf" for n in range(MOST_WRITTEN - 1)]
    report = verify(source, output)
    assert report.problems == []
    assert report.facts["streams"] == {"kept": MOST_WRITTEN - 1, "dropped": len(dropped)}


def test_of_several_films_the_largest_is_upscaled_however_fast_another_is(tmp_path):
    path = tmp_path / "in.mkv"
    with av.open(str(path), "w") as out:
        films = [(out.add_stream("mpeg4", rate=rate, width=width, height=32), rate) for width, rate in FILMS]
        for stream, _ in films:
            stream.disposition = 0
        for i in range(60):
            for stream, rate in films:
                frame = av.VideoFrame(stream.width, 32, "yuv420p")
                frame.pts, frame.time_base = i, Fraction(1, rate)
                out.mux(stream.encode(frame))
        for stream, _ in films:
            out.mux(stream.encode(None))
    with open_input(path) as container:
        assert container.streams.best("video").index == 0  # or the test shows nothing
        assert video_stream(container, "in.mkv").index == 1

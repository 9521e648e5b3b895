"""Segments, playlists and followers."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from fractions import Fraction

import pytest

from videosr.live import hub
from videosr.live.hub import Rendition
from videosr.live.segments import KEPT, LISTED, Chunk, Segmenter, target_duration
from videosr.live.timeline import TICKS


def chunks(seconds: int, size: int = 10):
    """A keyframe a second, ten chunks a second."""
    for n in range(seconds * 10):
        yield Chunk(bytes([n % 256]) * size, n % 10 == 0, n * TICKS // 10)


def test_segments_begin_with_keyframes_and_the_list_is_bounded():
    segmenter = Segmenter()
    segmenter.add(Chunk(b"sound before the first picture", False, 0))
    done = [segment for chunk in chunks(40) if (segment := segmenter.add(chunk))]
    assert [segment.number for segment in done] == list(range(39))
    assert all(segment.seconds == 1 and len(segment.data) == 100 for segment in done)
    assert len(segmenter.segments) == KEPT
    text = segmenter.playlist("s/{}.ts")
    assert "#EXT-X-MEDIA-SEQUENCE:33\n" in text
    assert re.findall(r"s/(\d+)\.ts", text) == [str(n) for n in range(39 - LISTED, 39)]
    assert "#EXT-X-TARGETDURATION:1\n" in text
    assert "1970-01-01T00:00:33.000+00:00" in text
    assert segmenter.find(38) is done[-1]
    assert segmenter.find(39 - KEPT - 1) is None
    assert segmenter.finish().number == 39
    assert segmenter.playlist(ended=True).endswith("#EXT-X-ENDLIST\n")


def test_keyframes_close_together_make_one_segment():
    segmenter = Segmenter()
    done = [segmenter.add(Chunk(b"x", True, n * TICKS // 10)) for n in range(25)]
    assert [segment.seconds for segment in done if segment] == [0.9, 0.9]


def test_after_the_source_was_away_a_segment_begins_with_its_first_keyframe_and_the_date_leaps():
    segmenter = Segmenter(1000.0)
    for n in range(60):  # away for 20 s at 1.3 s, for 5 s at 3.9 s, where by the keyframes' distance it would be less
        if n == 13:
            segmenter.date(13 * TICKS // 10, 1020.0)
        if n == 39:
            segmenter.date(39 * TICKS // 10, 1015.0)
        segmenter.add(Chunk(b"%d " % n, n in (0, 10, 14, 24, 34, 39, 49, 59), n * TICKS // 10))
    assert [segment.data.split()[0] for segment in segmenter.segments] == [
        b"0",
        b"10",
        b"14",
        b"24",
        b"34",
        b"39",
        b"49",
    ]
    dates = re.findall(r"DATE-TIME:1970-01-01T00:(.*)\+", segmenter.playlist())
    assert dates == ["16:41.000", "17:01.400", "17:02.400", "17:03.400", "17:03.900", "17:04.900"]


def interrupted() -> Iterator[Chunk]:
    """Pictures with sound; 4 s of sound alone; nothing for an hour; then both again."""
    for n in range(200):
        if n < 60 or n > 140:
            yield Chunk(b"picture", n % 20 == 0, n * TICKS // 20)
        yield Chunk(b"sound", False, n * TICKS // 20 + 700)
    yield from (Chunk(chunk.data, chunk.key, chunk.pts + 3600 * TICKS) for chunk in chunks(20))


def slow(seconds: float) -> Iterator[Chunk]:
    """A picture every so many seconds."""
    yield from (Chunk(b"picture", True, round(n * seconds * TICKS)) for n in range(30))


@pytest.mark.parametrize(
    ("stream", "rate", "target", "leaps"),
    [
        (list(interrupted()), Fraction(24), 1, 1),
        ([Chunk(b"picture", n % 24 == 0, n * 90090 // 24) for n in range(999)], Fraction(24000, 1001), 1, 0),
        (list(slow(2)), Fraction(1, 2), 3, 0),
        (list(slow(0.99)), Fraction(100, 99), 2, 0),
        (list(slow(3)), Fraction(30), 1, 28),  # only every ninetieth of a camera's pictures comes through
    ],
    ids=["interrupted", "23.976", "every 2 s", "almost every second", "every 3 s of 30 Hz"],
)
def test_no_segment_exceeds_the_target_duration_which_stays(stream, rate, target, leaps):
    """RFC 8216, 4.3.3.1 and 6.2.1; the numbers of discontinuities are what players tell the same moment by."""
    segmenter = Segmenter(0.0, target_duration(rate))
    seen: dict[str, int] = {}
    broken = set()
    for chunk in stream:
        if segmenter.add(chunk) is None:
            continue
        text = segmenter.playlist()
        assert re.findall(r"TARGETDURATION:(.*)", text) == [str(target)]
        assert all(round(float(seconds)) <= target for seconds in re.findall(r"#EXTINF:(.*),", text))
        (breaks,) = map(int, re.findall(r"DISCONTINUITY-SEQUENCE:(\d+)", text))
        for line in text.splitlines():
            breaks += line == "#EXT-X-DISCONTINUITY"
            if line.endswith(".ts"):
                assert seen.setdefault(line, breaks) == breaks
                broken.add(breaks)
    assert len(broken) == 1 + leaps
    assert b"".join(s.data for s in segmenter.segments) in b"".join(chunk.data for chunk in stream)


def test_a_follower_begins_at_the_last_keyframe():
    async def main() -> None:
        rendition = Rendition()
        stream = list(chunks(3))
        for chunk in stream[:25]:
            rendition.take(chunk)
        follower = rendition.follow()
        for chunk in stream[25:]:
            rendition.take(chunk)
        rendition.end()
        got = b"".join([data async for data in follower])
        assert got == b"".join(chunk.data for chunk in stream[20:])

    asyncio.run(main())


def test_a_follower_that_takes_nothing_loses_whole_runs_and_costs_bounded_memory(monkeypatch):
    monkeypatch.setattr(hub, "BACKLOG", 1000)

    async def main() -> None:
        rendition = Rendition()
        follower = rendition.follow()
        stream = list(chunks(60))
        for chunk in stream:
            rendition.take(chunk)
            assert sum(map(len, follower._waiting)) <= 1010
        rendition.end()
        got = b"".join([data async for data in follower])
        whole = b"".join(chunk.data for chunk in stream)
        assert len(got) < len(whole)
        assert whole.endswith(got)
        assert (len(whole) - len(got)) % 100 == 0, "it goes on at a keyframe"

    asyncio.run(main())


def test_a_follower_is_given_what_waits_piece_by_piece(monkeypatch):
    """It has so many seconds for each: all at once would be too much for a slow one, and be held for each anew."""
    monkeypatch.setattr(hub, "PIECE", 100)

    async def main() -> None:
        rendition = Rendition()
        follower = rendition.follow()
        stream = list(chunks(6, size=30))
        for chunk in stream[:40]:
            rendition.take(chunk)
        pieces = []
        async for data in follower:
            pieces.append(data)
            if len(pieces) == 2:  # what comes meanwhile is not lost
                for chunk in stream[40:]:
                    rendition.take(chunk)
                rendition.end()
        assert [len(piece) for piece in pieces] == [120] * 15
        assert b"".join(pieces) == b"".join(chunk.data for chunk in stream)
        assert follower._size == 0

    asyncio.run(main())


def test_followers_are_limited(monkeypatch):
    monkeypatch.setattr(hub, "FOLLOWERS", 2)

    async def main() -> None:
        rendition = Rendition()
        followers = [rendition.follow() for _ in range(3)]
        assert [follower is not None for follower in followers] == [True, True, False]
        rendition.leave(followers[0])
        assert rendition.follow() is not None

    asyncio.run(main())


def test_a_playlist_waits_for_its_first_segment():
    async def main() -> None:
        rendition = Rendition()
        assert await rendition.playlist("{}.ts", 0.01) is None
        waiting = asyncio.create_task(rendition.playlist("{}.ts", 60))
        await asyncio.sleep(0)
        for chunk in chunks(2):
            rendition.take(chunk)
        assert "0.ts" in (await waiting)

    asyncio.run(main())


def test_what_a_new_follower_is_given_is_bounded_also_without_keyframes(monkeypatch):
    """Pictures may stay away while sound goes on."""
    monkeypatch.setattr(hub, "BACKLOG", 1000)

    async def main() -> None:
        rendition = Rendition()
        for n in range(1000):
            rendition.take(Chunk(b"s" * 10, n == 0, n))
            assert sum(len(chunk.data) for chunk in rendition._since_key) <= 1010
        follower = rendition.follow()
        rendition.take(Chunk(b"key", True, 1000))
        rendition.end()
        assert b"".join([data async for data in follower]) == b"key"

    asyncio.run(main())

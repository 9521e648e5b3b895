"""The page in a real browser: frames advance, the source stays beside them, the slider works."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest
from clips import make_clip
from corpus.hdr import H264_SEI, sei, with_units

from videosr.live.options import ServeOptions, parse_target
from videosr.live.serve import Server
from videosr.media.live.source import SourceSpec

aiohttp = pytest.importorskip("aiohttp")
browser = pytest.importorskip("browser", reason="the driver needs aiohttp")

pytestmark = pytest.mark.skipif(browser.CHROMIUM is None, reason="Chromium is not installed")

SHOWN = """(() => {
  const frames = (id) => document.getElementById(id).getVideoPlaybackQuality().totalVideoFrames;
  return [frames("upscaled"), frames("source")];
})()"""


WORDS = "HELLO YOU"
PAIRS = [
    *[(0x14, 0x20)] * 2, *[(0x14, 0x2E)] * 2, *[(0x14, 0x70)] * 2,  # a caption that pops on, in the lowest row
    *[(ord(a), ord(b)) for a, b in zip(WORDS[::2], WORDS[1::2] + "\0", strict=True)],
    *[(0x14, 0x2F)] * 2, *[(0, 0)] * 30, *[(0x14, 0x2C)] * 2,  # shown, and taken away
]  # fmt: skip
"""CTA-608, a pair of characters a frame, without their parity."""


def said(number: int) -> bytes:
    """What a frame has of it: the unit of H.264 before its picture."""
    pair = bytes(c | 128 * (c.bit_count() % 2 == 0) for c in PAIRS[number % len(PAIRS)])
    return sei(H264_SEI, b"\xb5\x00\x31GA94\x03\x41\xff\xfc" + pair + b"\xff")


def test_the_page_plays(tmp_path):
    def film(folder: Path) -> Path:
        return make_clip(
            folder / "clip.mkv", frames=24 * 90, width=96, height=64, options={"bf": "0"}, audio=[("aac", "eng")]
        )

    clip = with_units(tmp_path, film, said)
    options = ServeOptions(
        source=SourceSpec(url=str(clip)), targets=(parse_target("http://127.0.0.1:0/"),), latency=60.0, token="word"
    )
    lines: list[str] = []
    server = Server(options, lines.append)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        asyncio.run(look(f"{lines[0].split()[1]}?token=word", tmp_path))
    finally:
        server.stop()
        thread.join()


async def look(url: str, folder: Path) -> None:
    async with browser.browse(url, folder / "profile") as page:
        assert await page.until("upscaled.currentTime > 0.5 && source.readyState >= 2")
        before = await page.evaluate(SHOWN)
        assert await page.until(f"{SHOWN}.every((count, i) => count > {before}[i] + 24)")
        assert await page.evaluate("[upscaled.videoWidth, source.videoWidth]") == [192, 96]
        assert await page.until("Math.abs(main.playingDate - beside.playingDate) < 100")
        assert await page.until("!captions.hidden")
        await page.evaluate("captions.click()")
        shown = (
            "[upscaled, source].every(({ textTracks: [track] }) => track?.activeCues?.[0]?.text === '" + WORDS + "')"
        )
        assert await page.until(shown)
        await page.evaluate('(() => { split.value = 30; split.dispatchEvent(new Event("input")); })()')
        assert await page.evaluate("getComputedStyle(upscaled).clipPath") == "inset(0px 0px 0px 30%)"
        await page.evaluate('(() => { split.value = 0; split.dispatchEvent(new Event("input")); })()')
        assert await page.evaluate('stage.classList.contains("alone") && beside === null')
        assert await page.until('Number(document.getElementById("fps").textContent) > 0')
        assert " / " in await page.evaluate('document.getElementById("frames").textContent')
        assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "nothing sticks out"
        assert "token" not in await page.evaluate("location.href")


def test_the_page_goes_on_with_the_next_stream_at_its_address(tmp_path):
    """Also where it could not see how the one before ended, as with Ctrl-C."""

    def serve(address: str) -> tuple[Server, threading.Thread, str]:
        source = SourceSpec(url="testsrc2=size=96x64:rate=12", format="lavfi")
        target = parse_target(address)
        options = ServeOptions(source=source, targets=(target,), latency=60.0, steps=False, token="word")
        lines: list[str] = []
        server = Server(options, lines.append)
        thread = threading.Thread(target=server.run)
        thread.start()
        return server, thread, lines[0].split()[1]

    async def look(server: Server, thread: threading.Thread, address: str) -> None:
        try:
            async with browser.browse(f"{address}?token=word", tmp_path / "profile") as page:
                assert await page.until("upscaled.currentTime > 0.5")
                await page.until("began")
                await page.evaluate("window.ofTheFirst = true")
                server.stop()
                await asyncio.to_thread(thread.join)
                server, thread, _ = await asyncio.to_thread(serve, address)
                assert await page.until("!window.ofTheFirst && upscaled.currentTime > 0.5 && source.readyState >= 2")
        finally:
            server.stop()
            thread.join()

    asyncio.run(look(*serve("http://127.0.0.1:0/")))

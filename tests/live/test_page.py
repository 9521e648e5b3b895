"""The page in a real browser: frames advance, the source stays beside them, the slider works."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest
from clips import make_clip

from videosr.live.options import ServeOptions, parse_target
from videosr.live.serve import Server
from videosr.media.live_input import SourceSpec

aiohttp = pytest.importorskip("aiohttp")
browser = pytest.importorskip("browser", reason="the driver needs aiohttp")

pytestmark = pytest.mark.skipif(browser.CHROMIUM is None, reason="Chromium is not installed")

SHOWN = """(() => {
  const frames = (id) => document.getElementById(id).getVideoPlaybackQuality().totalVideoFrames;
  return [frames("upscaled"), frames("source")];
})()"""


def test_the_page_plays(tmp_path):
    clip = make_clip(tmp_path / "clip.mkv", frames=24 * 90, width=96, height=64, audio=[("aac", "eng")])
    options = ServeOptions(
        source=SourceSpec(url=str(clip)), targets=(parse_target("http://127.0.0.1:0/"),), latency=60.0, token="word"
    )
    server = Server(options, lambda _: None)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        asyncio.run(look(f"http://127.0.0.1:{server.page_port}/?token=word", tmp_path))
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
        await page.evaluate('(() => { split.value = 30; split.dispatchEvent(new Event("input")); })()')
        assert await page.evaluate("getComputedStyle(upscaled).clipPath") == "inset(0px 0px 0px 30%)"
        await page.evaluate('(() => { split.value = 0; split.dispatchEvent(new Event("input")); })()')
        assert await page.evaluate('stage.classList.contains("alone") && beside === null')
        assert await page.until('Number(document.getElementById("fps").textContent) > 0')
        assert " / " in await page.evaluate('document.getElementById("frames").textContent')
        assert await page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "nothing sticks out"
        assert "token" not in await page.evaluate("location.href")

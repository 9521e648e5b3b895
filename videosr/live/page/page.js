"use strict";

const byId = (id) => document.getElementById(id);
const stage = byId("stage");
const upscaled = byId("upscaled");
const source = byId("source");
const token = new URLSearchParams(location.search).get("token");
const address = (path) => (token ? `${path}?token=${encodeURIComponent(token)}` : path);

// The token lives in the address only until the page has it.
if (token) history.replaceState(null, "", location.pathname);

let over = false; // the stream has ended
let began = null; // when the one that is shown began; the next one at this address began later

function player(video, path) {
  if (!Hls.isSupported()) {
    video.src = address(path); // browsers that play HLS themselves
    return null;
  }
  const hls = new Hls({
    liveSyncDurationCount: 2,
    liveMaxLatencyDurationCount: 6,
    maxLiveSyncPlaybackRate: 1.1,
    backBufferLength: 10,
    maxBufferLength: 10,
    manifestLoadPolicy: { default: {
      maxTimeToFirstByteMs: 15000, maxLoadTimeMs: 20000,
      timeoutRetry: { maxNumRetry: 1e6, retryDelayMs: 500, maxRetryDelayMs: 2000 },
      errorRetry: { maxNumRetry: 1e6, retryDelayMs: 500, maxRetryDelayMs: 2000 },
    } },
    playlistLoadPolicy: { default: {
      maxTimeToFirstByteMs: 15000, maxLoadTimeMs: 20000,
      timeoutRetry: { maxNumRetry: 1e6, retryDelayMs: 500, maxRetryDelayMs: 2000 },
      errorRetry: { maxNumRetry: 1e6, retryDelayMs: 500, maxRetryDelayMs: 2000 },
    } },
  });
  hls.on(Hls.Events.ERROR, (_, error) => {
    if (!error.fatal) return;
    if (error.type === Hls.ErrorTypes.MEDIA_ERROR) hls.recoverMediaError();
    else if (!over) setTimeout(() => hls.loadSource(address(path)), 1000);
  });
  hls.loadSource(address(path));
  hls.attachMedia(video);
  return hls;
}

const main = player(upscaled, "upscaled.m3u8");
let beside = null; // the source's player, while it is looked at

function compare(on) {
  stage.classList.toggle("alone", !on);
  if (on && !beside) {
    beside = player(source, "source.m3u8");
    if (!beside) beside = { playingDate: null, destroy() { source.removeAttribute("src"); } };
  } else if (!on && beside) {
    beside.destroy();
    beside = null;
  }
}

// Both carry the date of each picture; the source follows the upscaled stream.
function align() {
  if (!beside) return;
  if (source.paused && !source.ended && !upscaled.paused) source.play().catch(() => {});
  const here = beside.playingDate, there = main && main.playingDate;
  if (!here || !there) return;
  const behind = (there - here) / 1000;
  if (Math.abs(behind) > 0.4) {
    source.currentTime += behind;
    source.playbackRate = 1;
  } else {
    source.playbackRate = upscaled.playbackRate * (1 + Math.max(-0.25, Math.min(0.25, behind * 2)));
  }
}
setInterval(align, 100);

const split = byId("split");
function divide(percent) {
  const value = Math.max(0, Math.min(100, percent));
  split.value = value;
  stage.style.setProperty("--split", `${value}%`);
  compare(value > 0.5);
}
split.addEventListener("input", () => divide(Number(split.value)));
const drag = (event) => {
  const box = stage.getBoundingClientRect();
  divide((100 * (event.clientX - box.left)) / box.width);
};
stage.addEventListener("pointerdown", (event) => {
  stage.setPointerCapture(event.pointerId);
  upscaled.play().catch(() => {});
  drag(event);
});
stage.addEventListener("pointermove", (event) => {
  if (stage.hasPointerCapture(event.pointerId)) drag(event);
});

const sound = byId("sound");
sound.addEventListener("click", () => {
  upscaled.muted = !upscaled.muted;
  sound.setAttribute("aria-pressed", String(!upscaled.muted));
});

// Captions in the pictures: tracks of both videos, each of which shows its part of the stage.
const captions = byId("captions");
const wanted = () => captions.getAttribute("aria-pressed") === "true";
const caption = () => {
  captions.hidden = upscaled.textTracks.length === 0;
  for (const { textTracks } of [upscaled, source]) {
    [...textTracks].forEach((track, i) => { track.mode = wanted() && i === 0 ? "showing" : "hidden"; });
  }
};
captions.addEventListener("click", () => {
  captions.setAttribute("aria-pressed", String(!wanted()));
  caption();
});
for (const { textTracks } of [upscaled, source]) textTracks.addEventListener("addtrack", caption);

byId("full").addEventListener("click", () => {
  if (document.fullscreenElement) document.exitFullscreen();
  else if (stage.requestFullscreen) stage.requestFullscreen();
  else if (upscaled.webkitEnterFullscreen) upscaled.webkitEnterFullscreen();
});
upscaled.addEventListener("loadedmetadata", () => {
  if (upscaled.videoWidth) stage.style.aspectRatio = `${upscaled.videoWidth} / ${upscaled.videoHeight}`;
});

const milliseconds = (seconds) => (seconds === null ? "–" : `${Math.round(1000 * seconds)} ms`);
const ENDED = "the stream has ended";
let before = null;
async function figures() {
  try {
    const answer = await fetch(address("api/status"), { cache: "no-store" });
    if (!answer.ok) throw new Error(String(answer.status));
    const status = await answer.json();
    if (began && status.began && status.began !== began) location.reload(); // its segments count from 0 again
    began = status.began || began;
    over = Boolean(status.ended);
    if (status.frames_in === undefined) {
      byId("message").textContent = "waiting for the source";
      return;
    }
    const now = performance.now();
    if (before && now > before.time) {
      byId("fps").textContent = ((1000 * (status.frames_out - before.out)) / (now - before.time)).toFixed(1);
    }
    if (!before || now - before.time > 3000) before = { time: now, out: status.frames_out };
    byId("p50").textContent = milliseconds(status.p50);
    byId("p95").textContent = milliseconds(status.p95);
    byId("budget").textContent = status.budget === null ? "none" : milliseconds(status.budget);
    const lost = Object.entries(status.dropped).filter(([, count]) => count);
    const total = lost.reduce((sum, [, count]) => sum + count, 0);
    byId("dropped").textContent = total + (total ? ` (${lost.map(([why, count]) => `${count} ${why}`).join(", ")})` : "");
    byId("frames").textContent = `${status.frames_in} / ${status.frames_out}`;
    byId("queues").textContent = Object.entries(status.queues).map(([name, depth]) => `${name} ${depth}`).join(", ");
    byId("form").textContent = status.form;
    byId("message").textContent = over ? ENDED : status.connected ? "" : "the source is away";
  } catch {
    byId("message").textContent = over ? ENDED : "the server does not answer";
  }
}
setInterval(figures, 1000);
figures();
compare(true);

"""Cheaper forms of the work, at the same output size, for a machine that cannot keep up, and the way back."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np

from videosr.engines.choice import AUTO
from videosr.errors import UsageError
from videosr.frame import Frame, StreamInfo
from videosr.look import Seen, look_at
from videosr.media.rescale import Rescaler
from videosr.models import registry
from videosr.options import UpscaleOptions
from videosr.temporal import HISTORY, Mode
from videosr.upscaler import Pending, Upscaler

type Finish = Callable[[], Frame]
"""Waits for a frame under way and returns it."""


class Prompt:
    """The core, for live use: a frame is not given back only when later ones come.

    `Upscaler.process` gives a frame back when later ones have come, which keeps all cores busy; here the caller keeps
    several under way and waits for each of them in another thread. The frames are the same, bit for bit.

    Args:
        upscaler: used by this alone.
    """

    def __init__(self, upscaler: Upscaler) -> None:
        self._upscaler = upscaler
        self._history: deque[Seen] = deque(maxlen=HISTORY)
        self._last: Pending | None = None

    def start(self, frame: Frame) -> Finish:
        """Begin on the next frame of a sequence."""
        upscaler = self._upscaler
        if upscaler.sequential:
            made = [*upscaler.process(frame)]  # such a network gives each frame at once
            return lambda: made[0]
        before = self._history[-1] if self._history else None
        self._history.append(look_at(frame, before, device=upscaler.engine.device))
        pending = self._last = upscaler.begin(self._history, () if self._last is None else (self._last,))
        return lambda: upscaler.finish(pending)

    def reset(self) -> None:
        """The next frame begins a new sequence."""
        self._history.clear()
        self._last = None
        for _ in self._upscaler.flush():
            pass


@dataclass(frozen=True, slots=True)
class Rung:
    """One form of the work.

    Attributes:
        name: for the log.
        start: begins on a frame.
        reset: the next frame begins a new sequence.
    """

    name: str
    start: Callable[[Frame], Finish]
    reset: Callable[[], None]


def rungs(options: UpscaleOptions, info: StreamInfo, *, steps: bool = True) -> tuple[StreamInfo, list[Rung]]:
    """What the upscaled stream is, and the forms of making it, best first.

    As asked for; without temporal reuse; by the cheaper networks that are shipped for the same scale; by bicubic
    resampling. All give frames of the first one's size, format and colour.

    Args:
        options: how to upscale.
        info: of the source.
        steps: False leaves only what was asked for.

    Raises:
        VideosrError: what loading the network raises.
    """
    options = options.of(info)
    first = Upscaler(options)
    upscalers = [(options.model, first)]
    if steps and first.mode is not Mode.OFF and not options.denoise:
        off = replace(options, temporal=Mode.OFF)
        upscalers.append((f"{options.model} without temporal reuse", Upscaler(off, first.engine)))
    on_gpu = first.engine.device is not None
    for model in registry.cheaper(options.model, first.scale, gpu=on_gpu) if steps else ():
        plain = replace(options, model=model, engine=AUTO, precision="auto", temporal=Mode.OFF, denoise=0.0)
        upscalers.append((model, Upscaler(plain)))
    target = first.output_info(info)
    prompt = [(name, Prompt(upscaler)) for name, upscaler in upscalers]
    found = [Rung(name, form.start, form.reset) for name, form in prompt]
    if steps:
        rescaler = Rescaler(target)

        def resample(frame: Frame) -> Finish:
            made = rescaler.rescale(frame)
            return lambda: made

        found.append(Rung("bicubic resampling", resample, lambda: None))
    return target, found


BAD_SECONDS = 3
"""Seconds in a row with too many drops before a cheaper form is taken; one, soon after a better form was tried."""
BAD_SHARE = 0.05
"""Share of a second's frames whose loss makes it a bad one."""
FIRST_HOLD = 10.0
MEASURED_HOLD = 60.0
LONGEST_HOLD = 300.0
"""Seconds without drops before a better form is tried: the first; after it was measured and found too slow; the
longest, to which it doubles each time that fails."""


class Ladder:
    """Chooses the form: down when frames have been lost for seconds, up when none have for longer.

    Args:
        forms: best first, at least one.
        say: is told of each step.
        now: a clock in seconds.
    """

    def __init__(
        self, forms: list[Rung], say: Callable[[str], None], now: Callable[[], float] = time.monotonic
    ) -> None:
        if not forms:
            raise UsageError("a ladder needs a rung")
        self._forms, self._say, self._now = forms, say, now
        self.level = 0
        """Index of the form in use; 0 is what was asked for."""
        self.steps = 0
        """Changes of form so far."""
        self._lock = threading.Lock()
        self._second: float | None = None
        self._frames = self._lost = self._bad = 0
        self._good_since: float | None = None
        self._hold = FIRST_HOLD
        self._climbed: float | None = None

    def begin_at(self, level: int) -> None:
        """Begin with this form, because those above were measured and are too slow at the moment."""
        if level:
            self.level, self._hold = level, MEASURED_HOLD
            self._say(
                f"the machine is too slow for {self._forms[0].name} at the moment: beginning with {self.rung.name}"
            )

    @property
    def rung(self) -> Rung:
        """The form in use."""
        return self._forms[self.level]

    def frame(self, *, lost: bool) -> None:
        """A frame has been delivered, or lost because it would have been late; any thread may say so."""
        with self._lock:
            self._frames += 1
            self._lost += lost

    def decide(self) -> None:
        """Take a step if it is time to; called by the thread that begins on frames, between two of them."""
        now = self._now()
        if self._second is None or self._good_since is None:
            self._second = self._good_since = now
        if now - self._second >= 1:
            with self._lock:
                frames, lost = self._frames, self._lost
                self._frames = self._lost = 0
            self._second = now
            if lost:
                self._good_since = now
            self._bad = self._bad + 1 if lost > BAD_SHARE * frames else 0
        trying = self._climbed is not None and now - self._climbed < FIRST_HOLD
        if self._bad >= (1 if trying else BAD_SECONDS) and self.level + 1 < len(self._forms):
            self._down(now)
        elif self.level and now - self._good_since >= self._hold:
            self._up(now)

    def rest(self) -> None:
        """The source paused: forget what was counted."""
        self._second = self._good_since = None
        with self._lock:
            self._frames = self._lost = 0
        self._bad = 0
        self.rung.reset()

    def _down(self, now: float) -> None:
        failed = self._climbed is not None and now - self._climbed < FIRST_HOLD + BAD_SECONDS
        self._hold = min(2 * self._hold, LONGEST_HOLD) if failed else FIRST_HOLD
        self._climbed = None
        self._step(1)
        self._say(f"the machine cannot keep up: going on with {self.rung.name}")
        self._good_since = now

    def _up(self, now: float) -> None:
        self._step(-1)
        self._say(f"no frame lost for {self._hold:.0f} s: back to {self.rung.name}")
        self._climbed = self._good_since = now

    def _step(self, by: int) -> None:
        self.rung.reset()
        self.level += by
        self.steps += 1
        with self._lock:
            self._frames = self._lost = 0
        self._bad = 0
        self._second = self._now()
        self.rung.reset()


HEADROOM = 1.25
"""What a form must be able to do beyond the source's rate: decoding and encoding want their share."""
MEASURED = 0.6
"""Seconds for which each form is measured."""


def warm_up(forms: list[Rung], frame: Frame, at_a_time: int = 1, seconds: float = 0.0) -> list[float]:
    """Have every form compile what it needs for such pictures, with and without neighbours, before time counts.

    Args:
        forms: to warm.
        frame: a picture of the stream.
        at_a_time: frames to keep under way.
        seconds: to measure each form for; until its first frame at least.

    Returns:
        Frames a second of each form, 0 where nothing was measured.
    """
    rng = np.random.default_rng(0)

    def noise() -> Frame:  # so that temporal reuse sets in, and no two are alike
        return frame.with_planes(
            tuple(
                plane // 2 + rng.integers(0, 1 << (frame.format.bits - 3), plane.shape, plane.dtype)
                for plane in frame.planes
            )
        )

    pictures = [noise() for _ in range(HISTORY)]
    speeds = []
    for form in forms:
        form.start(frame)()
        for picture in pictures:
            form.start(picture)()
        begun = time.perf_counter()
        waiting: deque[Finish] = deque()
        count = 0
        while seconds and (not count or time.perf_counter() - begun < seconds):
            waiting.append(form.start(pictures[count % HISTORY]))
            if len(waiting) > at_a_time - 1:
                waiting.popleft()()
                count += 1
        speeds.append(count / (time.perf_counter() - begun))
        for finish in waiting:
            finish()
        form.reset()
    return speeds


def first_level(speeds: list[float], rate: Fraction | None) -> int:
    """The best form that can do the source's rate; the last one if none can.

    Args:
        speeds: of the forms, in frames a second.
        rate: of the source.
    """
    wanted = float(rate or 25) * HEADROOM
    return next((level for level, speed in enumerate(speeds) if speed >= wanted), len(speeds) - 1)

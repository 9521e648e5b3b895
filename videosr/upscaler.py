"""The core: frames in, larger frames out. Every face of videosr calls this and nothing else.

The way of a frame: it is compared with the frame before it (`look`: scene cut? repeat? how much noise?); from that
follows its window, the earlier frames it is averaged with (`temporal`); then it is computed, in one of two ways. A
runner of the engine takes the window's planes and gives the output's planes (`engines.PlanarRunner`); several frames
are then under way at a time. Where the engine has no runner for these formats or options, `_by_tensors` converts to
R'G'B', calls the network and converts back, and the frame is finished at once.

A result depends on the frame and at most `HISTORY - 1` earlier frames of its scene, so frames may be made in order
(`process`) or at random (`picture`), with the same bits. Networks with recurrent state inside are the exception.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from videosr import color, temporal
from videosr.engines import Engine, Interface, NotFinite, Picture, PlanarRunner
from videosr.engines.choice import Wish, choose
from videosr.errors import EngineError, UsageError
from videosr.frame import Array, Frame, PixelFormat, StreamInfo, complete, namespace, on_host, together
from videosr.look import Looker, Seen, look_at
from videosr.models import registry
from videosr.options import OnNan, UpscaleOptions
from videosr.reflections import over_reflections
from videosr.sharpness import sharpen
from videosr.temporal import Mode
from videosr.tiling import OVERLAP, Tiling
from videosr.transparency import SPARE, spread


class _Window(NamedTuple):
    """The frames a result is made of, newest first, and the likeness scale of their average (`temporal.threshold`)."""

    frames: tuple[Frame, ...]
    likeness: float


class Pending(NamedTuple):
    """A frame under way.

    Attributes:
        window: the frames it is made of.
        cut: a scene begins with it.
        wait: waits for the finished planes and returns them; may be called by several threads, and again.
    """

    window: _Window
    cut: bool
    wait: Callable[[], tuple[Array, ...]]


class Upscaler:
    """Turns frames into larger frames, in the memory they are in: frames on the GPU stay there.

    It is of use in the process that made it. A forked one, as multiprocessing starts them on Linux up to Python 3.13,
    makes its own; not by OpenVINO, where that has been used before the fork.

    Args:
        options: how.
        engine: an engine already loaded, in place of the one that `options` name.

    Raises:
        VideosrError: what `engines.load` and `registry.find` raise.
    """

    def __init__(self, options: UpscaleOptions | None = None, engine: Engine | None = None) -> None:
        self.options = o = options or UpscaleOptions()
        self.chosen = ""
        """If engine or device was "auto": a line that says what was chosen and why. `options` then hold the choice."""
        if engine is None:
            wish = Wish(engine=o.engine, device=o.device, precision=o.precision, threads=o.threads)
            engine, found, self.chosen = choose(registry.find(o.named(compressed=False).model), wish)
            self.options = o = replace(o, engine=found.engine, device=found.device)
        self.engine = engine
        network = self.engine.network
        if o.tta and self.sequential:
            raise UsageError(f"{network.path}: keeps a state from frame to frame, which --tta cannot reflect")
        reach = network.number("reach", 0) if "reach" in network.metadata else None
        self.tiling = Tiling.of(
            0 if self.sequential else self.options.tile,  # a state has the size of the picture
            window=network.number("window_size", 0),
            reach=reach,
        )
        """How pictures are cut."""
        self._reach = OVERLAP if reach is None else reach
        self.reused = 0
        """Frames whose picture repeated the one before and were not computed again."""
        self.mended = 0
        """Frames whose result held NaN or infinity, and was sound when computed again in float32."""
        self.replaced = 0
        """Frames whose result was not finite in float32 either, and that were interpolated."""
        self._exact: Engine | None = None  # computes in float32; loaded at the first result that is not finite
        self._broken = False  # a recurrent network's state is of no use any more: it has to begin anew
        self._mending = threading.Lock()
        self._process = os.getpid()
        self._looker = Looker(engine.device)
        self._looking: deque[Callable[[], Seen]] = deque()  # frames that are being looked at
        self._history: deque[Seen] = deque(maxlen=temporal.HISTORY)
        self._pending: deque[Pending] = deque()  # frames that are being computed
        self._in_flight = 0  # how many of those to keep under way
        self._runners: dict[tuple[Picture, int], PlanarRunner | None] = {}
        self._last: Pending | None = None

    @property
    def scale(self) -> int:
        """Output pixels per input pixel and axis."""
        return self.engine.scale

    @property
    def sequential(self) -> bool:
        """Whether frames have to come in order, from the beginning: the network keeps a state of its own."""
        return self.engine.interface is Interface.RECURRENT

    @property
    def mode(self) -> Mode:
        """The temporal reuse that takes place: off where the network's interface leaves no room for it."""
        if self.sequential:
            return Mode.OFF  # it has its own
        if self.engine.interface is Interface.IMAGE and not self.options.denoise:
            return Mode.OFF  # without a detail path the whole picture would become the average, and lose its grain
        return self.options.temporal

    @property
    def identity(self) -> str:
        """Everything that the output's bits depend on besides the frames."""
        o = self.options
        made = f"{self.engine.identity} {self.mode} denoise={o.denoise}{' tta' if o.tta else ''}"
        sharper = f" sharpen={o.sharpen}" if o.sharpen else ""
        return f"{made} {o.pix_fmt or 'input format'} {self.tiling}{sharper}"

    def output_info(self, info: StreamInfo) -> StreamInfo:
        """The description of the upscaled stream, given that of the input stream."""
        fmt = self._output_format(info.format)
        return replace(
            info,
            width=info.width * self.scale,
            height=info.height * self.scale,
            format=fmt,
            color=color.converted(info.color, info.format, fmt),
        )

    def process(self, frame: Frame) -> Iterator[Frame]:
        """Take the next frame of a sequence; yields finished frames, in order, some frames later.

        Raises:
            UsageError: the frame's planes are not what its format says; or the process is a fork.
            EngineError: the engine failed.
        """
        self._looking.append(self._looker.begin(frame))
        # If nothing is kept under way, each frame is given back at once: then there is no looking ahead either.
        self._begin_looked_at(self._looker.ahead if self._in_flight else 0)
        while len(self._pending) > self._in_flight:
            yield self.finish(self._pending.popleft())

    def _begin_looked_at(self, ahead: int = 0) -> None:
        """Begin to compute the frames that were looked at, except the last `ahead` of them."""
        self._check_process()
        while len(self._looking) > ahead:
            self._history.append(self._looking.popleft()())
            recent = () if self._last is None or self.sequential else (self._last,)
            self._last = self._begin(self._history, recent)
            self._pending.append(self._last)

    def remember(self, frame: Frame) -> None:
        """Take a frame whose result is not wanted, because later frames may depend on it.

        After the last `HISTORY` frames before a frame, or all there are, `process` makes it as in the whole sequence.
        """
        if self.sequential:
            for _ in self.process(frame):
                pass
        else:
            self._begin_looked_at()
            self._history.append(self._looker.begin(frame)())

    def flush(self) -> Iterator[Frame]:
        """Finish the frames still under way; the next frame begins a new sequence."""
        self._begin_looked_at()
        while self._pending:
            yield self.finish(self._pending.popleft())
        self._history.clear()
        self._looker.forget()
        self._last = None

    def picture(self, history: Sequence[Frame]) -> Frame:
        """The last of some consecutive frames, as `process` would make it after them.

        Args:
            history: oldest first. All of the sequence or its last `HISTORY` frames give the same bits.

        Raises:
            UsageError: the network is recurrent and can only `process`, there is no frame, or the process is a fork.
        """
        if not history:
            raise UsageError("a picture is made of at least one frame")
        seen: list[Seen] = []
        for frame in history[-temporal.HISTORY :]:
            seen.append(look_at(frame, seen[-1] if seen else None, device=self.engine.device))
        return self.finish(self.begin(seen))

    def begin(self, seen: Sequence[Seen], recent: Iterable[Pending] = ()) -> Pending:
        """Start on the last of some consecutive frames, as `picture` would make it; `finish` gives the result.

        One thread at a time may begin frames, while others finish theirs: a runner's `submit` is not for many at once.

        Args:
            seen: oldest first, each compared with the one before it (`look.look_at`); more than the last `HISTORY` are
                ignored.
            recent: frames begun lately; if one is made of the same pictures, it is not computed again.

        Raises:
            UsageError: the network is recurrent and can only `process`; the frame is on the GPU, the engine not; or the
                process is a fork.
            EngineError: the engine failed.
        """
        self._check_process()
        if self.sequential:
            raise UsageError(f"{self.engine.network.name} keeps its own state: frames have to come in order")
        return self._begin(seen, recent)

    def finish(self, pending: Pending) -> Frame:
        """Wait for a frame that has begun.

        Raises:
            EngineError: the engine failed, or the network's result is not finite and `on_nan` is "fail".
        """
        frame = pending.window.frames[0]
        fmt = self._output_format(frame.format)
        return replace(
            frame,
            planes=pending.wait(),
            format=fmt,
            color=color.converted(frame.color, frame.format, fmt),
            scene_start=pending.cut,
        )

    def _check_process(self) -> None:
        """Refuse to wait for ever: a fork has the engine, and none of the threads that compute.

        Raises:
            UsageError: another process made this.
        """
        if os.getpid() != self._process:
            raise UsageError(
                "an Upscaler does not work in a process that was forked after it was made, as its threads stay behind: "
                "make one in every process"
            )

    def _begin(self, seen: Sequence[Seen], recent: Iterable[Pending]) -> Pending:
        window, cut = self._window(seen), seen[-1].cut
        for other in recent:
            if temporal.same_window(other.window.frames, window.frames):
                self.reused += 1
                return Pending(window, cut, other.wait)
        return self._compute(window, cut)

    def _window(self, seen: Sequence[Seen]) -> _Window:
        """The window of the last of these frames: the frame alone where the video is clean."""
        known = {id(s.frame): s for s in seen}
        frames = temporal.window(
            [s.frame for s in seen],
            self.mode,
            cut=lambda _, newer: known[id(newer)].cut,
            same=lambda _, newer: known[id(newer)].repeat,
        )
        if self.mode is not Mode.ADAPTIVE:
            return _Window(frames, 0.0)
        likeness = temporal.threshold(frames, seen[-1].noise, keep_grain=not self.options.denoise)
        return _Window(frames if likeness else frames[:1], likeness)

    def _compute(self, window: _Window, cut: bool) -> Pending:
        """Start on a frame: with a planar runner if there is one, else by tensors."""
        frames, likeness = window
        frame = frames[0]
        if frame.on_gpu and self.engine.device is None:
            raise UsageError(
                f"the frame is on the GPU and {self.options.engine} computes on the CPU: give --device cuda, or the "
                "frame's planes as arrays of the host"
            )
        source = self._source(frame)
        target = self._target(source)
        computed = window
        if target.format.alpha:
            computed = window._replace(frames=tuple(spread(f, self._reach + SPARE) for f in frames))
        # Rounding to fewer bits than the input has would show as bands.
        dither = target.format.bits < source.format.bits
        runner = None
        if (not dither or self.engine.dithers) and (self.mode is not Mode.EMA or len(frames) == 1):
            # On a GPU one runner serves windows of every length: a second one would have tensors of its own, and those
            # are most of what takes memory there.
            alone = len(frames) == 1 and not (self.engine.device and self.mode is Mode.ADAPTIVE)
            runner = self._runner(source, target, 1 if alone else temporal.DEPTH)
        if runner is None:
            try:
                planes = self._by_tensors(self.engine, computed, source, target, cut=cut, dither=dither)
            except NotFinite:
                planes = self._mend(computed, source, target, dither=dither)
            planes = self._sharpened(planes, target)
            return Pending(window, cut, lambda: planes)
        self._in_flight = runner.in_flight
        ticket = runner.submit([f.planes for f in computed.frames], likeness)
        done: list[tuple[Array, ...]] = []  # kept: a frame that repeats this one waits for the same result

        def wait() -> tuple[Array, ...]:
            if not done:
                try:
                    planes = (*runner.result(ticket), *self._alpha(frame, target.format))
                except NotFinite:
                    planes = self._mend(computed, source, target, dither=dither)
                done.append(self._sharpened(planes, target))
            return done[0]

        return Pending(window, cut, wait)

    def enlarge(self, rgb: Array, average: Array | None = None, *, engine: Engine | None = None) -> Array:
        """Put R'G'B' through the network, in tiles and reflections as the options say; the result is not clamped.

        Args:
            rgb: (N, 3, H, W) float32, nominal range [0, 1].
            average: what the detail path sees, same shape; None: `rgb` itself.
            engine: another engine of the same network, in place of `self.engine`.

        Returns:
            (N, 3, scale*H, scale*W) float32.

        Raises:
            EngineError: the engine failed.
        """
        run = (engine or self.engine).run
        return self.tiling.run(over_reflections(run) if self.options.tta else run, self.scale, rgb, average)

    def _by_tensors(
        self, engine: Engine, window: _Window, source: Picture, target: Picture, *, cut: bool, dither: bool
    ) -> tuple[Array, ...]:
        """The long way, for any network and format: planes to R'G'B', the network, back to planes.

        Raises:
            NotFinite: the network gave NaN or infinity.
        """
        frames, likeness = together(window.frames), window.likeness
        frame: tuple[Array, ...] = frames[0].planes
        rgb = color.to_rgb(frame, source.format, source.color)
        if self.sequential:
            complete(rgb)
            out = engine.step(rgb[None], reset=cut or self._broken)[0]
        else:
            average = None
            if len(frames) > 1:
                planes = temporal.average(frames, self.mode, likeness)
                average = color.to_rgb(planes, source.format, source.color)
                share = rgb.dtype.type(self.options.denoise)
                rgb = rgb + share * (average - rgb)
                frame = tuple(f + share * (a - f) for f, a in zip(frame, planes, strict=False))
            complete(rgb)
            pictures = (rgb[None], None if average is None else average[None])
            out = self.enlarge(*pictures, engine=engine)[0]
        with np.errstate(over="ignore", invalid="ignore"):  # which the next line tells of
            total = out.sum()
        self._broken = not namespace(out).isfinite(total)
        if self._broken:
            raise NotFinite(f"{engine.network.path}: gave values that are not finite")
        planes = (*self._planes(out, frame, source, target, dither=dither), *self._alpha(frames[0], target.format))
        complete(planes[-1])
        return planes

    def _planes(
        self, rgb: Array, frame: tuple[Array, ...], source: Picture, target: Picture, *, dither: bool
    ) -> tuple[Array, ...]:
        """The colour planes of a result in R'G'B'; chroma that the network does not make comes from the frame's."""
        opaque = _opaque(target.format)
        apart = self.engine.network.chroma_apart(source.format, opaque)
        chroma = (frame, source.format, source.color) if apart else None
        return color.from_rgb(rgb, opaque, target.color, dither=dither, chroma=chroma)

    def _mend(self, window: _Window, source: Picture, target: Picture, *, dither: bool) -> tuple[Array, ...]:
        """Compute a frame whose result was not finite again, in float32; if that fails too, do as `on_nan` says.

        By one thread at a time: the float32 engine is loaded once.

        Raises:
            EngineError: it is not finite in float32 either, and `on_nan` says so.
        """
        o, network, frame = self.options, self.engine.network, window.frames[0]
        with self._mending:
            if self._exact is None:
                self._exact = self.engine if self.engine.precision == "f32" else self._in_float32()
            if self._exact.device is None:  # it takes arrays of the host only
                window = window._replace(
                    frames=tuple(f.with_planes(tuple(map(on_host, f.planes))) for f in window.frames)
                )
                frame = window.frames[0]
            try:
                planes = self._by_tensors(self._exact, window, source, target, cut=True, dither=dither)
                self._broken = True  # this state is that of `_exact`; the engine's own has to begin anew
                self.mended += 1
            except NotFinite as exc:
                if o.on_nan is OnNan.FAIL:
                    raise EngineError(
                        f"{network.path}: gives NaN or infinity for the frame at {float(frame.time):.3f} s (pts "
                        f"{frame.pts}), in f32 too; use another network, or --on-nan bicubic to replace such frames"
                    ) from exc
                rgb = color.enlarge(color.to_rgb(frame.planes, source.format, source.color), self.scale)
                planes = self._planes(rgb, frame.planes, source, target, dither=dither)
                planes = (*planes, *self._alpha(frame, target.format))
                complete(planes[-1])
                self.replaced += 1
        return planes

    def _in_float32(self) -> Engine:
        """The network in float32: in the same engine, or on the CPU if that engine has no float32."""
        o, path = self.options, self.engine.network.path
        try:
            return choose(path, Wish(engine=o.engine, device=o.device, precision="f32", threads=o.threads))[0]
        except UsageError:
            return choose(path, Wish(device="cpu", precision="f32", threads=o.threads))[0]

    def _sharpened(self, planes: tuple[Array, ...], target: Picture) -> tuple[Array, ...]:
        return sharpen(planes, target.format, self.options.sharpen, self.scale)

    def _alpha(self, frame: Frame, target: PixelFormat) -> tuple[Array, ...]:
        if not target.alpha:
            return ()
        return (color.resize_plane(frame.planes[-1], frame.format, self.scale, target),)

    def _output_format(self, source: PixelFormat) -> PixelFormat:
        if self.options.pix_fmt is None:
            return source
        target = PixelFormat.parse(self.options.pix_fmt)
        return target if source.alpha else _opaque(target)

    @staticmethod
    def _source(frame: Frame) -> Picture:
        return Picture(height=frame.height, width=frame.width, format=frame.format, color=frame.color)

    def _target(self, source: Picture) -> Picture:
        fmt = self._output_format(source.format)
        return Picture(
            height=source.height * self.scale,
            width=source.width * self.scale,
            format=fmt,
            color=color.converted(source.color, source.format, fmt),
        )

    def _runner(self, source: Picture, target: Picture, window: int) -> PlanarRunner | None:
        """The runner for these planes; None: frames go by tensors."""
        # A runner makes no reflections and no blended tiles. On the CPU it cuts pictures into strips by itself, where
        # the network's reach is known; on a GPU it takes them whole, so who asks for tiles there, for want of memory,
        # gets them by tensors.
        tiled = self.tiling.blend or (self.engine.device is not None and self.options.tile is not None)
        if self.options.tta or (tiled and self.tiling.cuts(source.height, source.width)):
            return None
        key = (source, window)
        if key not in self._runners:
            # The stream has changed: the old sizes will not come back soon, and on a GPU they hold most of its memory.
            if len(self._runners) > (3 if self.engine.device is None else 0):
                self._runners.clear()
            denoise = self.options.denoise if window > 1 else 0.0
            self._runners[key] = self.engine.planar(source, target, window, denoise)
        return self._runners[key]


def _opaque(format: PixelFormat) -> PixelFormat:
    """The same format without alpha."""
    if not format.alpha:
        return format
    return PixelFormat.of(format.family, format.bits, format.log2_w, format.log2_h)

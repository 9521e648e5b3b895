"""VMAF by libavfilter's libvmaf, with the models that are built into it."""

from __future__ import annotations

import contextlib
import gc
import json
import tempfile
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

import av
import av.error
from av.filter import Graph

from videosr.errors import EngineError
from videosr.frame import Frame, PixelFormat
from videosr.media.planes import to_av_frame

if TYPE_CHECKING:
    from av.filter.context import FilterContext

_MODELS = "version=vmaf_v0.6.1:name=vmaf|version=vmaf_v0.6.1neg:name=vmaf_neg"
_TICK = Fraction(1, 25)


def available() -> bool:
    """Whether this build of FFmpeg can measure VMAF."""
    return "libvmaf" in av.filter.filters_available


class Vmaf:
    """VMAF of a video against its original, frame by frame; a context manager.

    Two models: v0.6.1 (Netflix; viewers of 1080p at three picture heights), and its NEG variant, which gives nothing
    for sharpening and contrast that the original has not.

    Args:
        width: of the frames.
        height: of the frames.
        format: of both, Y'CbCr without alpha.

    Raises:
        EngineError: libvmaf refuses such pictures.
    """

    def __init__(self, width: int, height: int, format: PixelFormat) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="videosr-vmaf-")
        self._log = Path(self._folder.name) / "vmaf.json"
        self._graph: Graph | None = Graph()
        self._buffers: list[FilterContext] = []
        self._format, self._count = format, 0
        try:
            filter_ = self._graph.add("libvmaf", model=_MODELS, log_fmt="json", log_path=str(self._log), n_threads="1")
            for pad in (0, 1):
                buffer = self._graph.add_buffer(width=width, height=height, format=format.name, time_base=_TICK)
                buffer.link_to(filter_, 0, pad)
                self._buffers.append(buffer)
            self._sink: FilterContext | None = self._graph.add("buffersink")
            filter_.link_to(self._sink)
            self._graph.configure()
        except (av.error.FFmpegError, ValueError) as exc:
            raise EngineError(f"libvmaf refuses {width}x{height} {format.name}: {exc}") from exc

    def add(self, shown: Frame, original: Frame) -> None:
        """The next frame of both."""
        for buffer, frame in zip(self._buffers, (shown, original), strict=True):
            picture = to_av_frame(frame.planes[:3], self._format)
            picture.pts, picture.time_base = self._count, _TICK
            buffer.push(picture)
        self._count += 1
        self._drain()

    def _drain(self) -> None:
        assert self._sink is not None
        with contextlib.suppress(av.error.BlockingIOError, av.error.EOFError):
            while True:
                self._sink.pull()

    def result(self) -> tuple[float, float]:
        """The means of VMAF and VMAF NEG over the frames, 0..100; ends the measurement."""
        while self._buffers:
            self._buffers.pop().push(None)
        self._drain()
        self._free()
        try:
            pooled = json.loads(self._log.read_text(encoding="utf-8"))["pooled_metrics"]
            return float(pooled["vmaf"]["mean"]), float(pooled["vmaf_neg"]["mean"])
        except (OSError, ValueError, KeyError) as exc:
            raise EngineError(f"libvmaf did not say what it measured: {exc}") from exc

    def _free(self) -> None:
        """Free the filter, which writes its log then. Graph and its contexts hold each other: no name may be left."""
        self._buffers.clear()
        self._graph = self._sink = None
        gc.collect()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._graph is not None:
            self._free()
        self._folder.cleanup()

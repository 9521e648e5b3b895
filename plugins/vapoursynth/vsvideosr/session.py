"""The frames of one clip, in any order and from several threads at once.

A frame depends on itself and its `depth` - 1 predecessors alone, so it comes out the same whoever asks when. What is
kept from one request to the next saves work and changes nothing: what was seen of the last frames of the source, and
the last results, which a repeat of the same picture takes over. Both are bounded.
"""

from __future__ import annotations

import re
import threading
from collections import OrderedDict, deque
from collections.abc import Sequence

import vapoursynth as vs

from videosr.errors import VideosrError
from videosr.frame import PixelFormat
from videosr.look import Seen, look_at
from videosr.upscaler import Pending, Upscaler
from vsvideosr import frames


class Session:
    """What stands behind an upscaled clip.

    Args:
        upscaler: with a network that takes frames in any order.
        source: `core_format` of the clip.
        template: a clip with the output's format.
        depth: frames of the clip that a result depends on.
        lanes: requests at the same time.
    """

    def __init__(self, upscaler: Upscaler, source: PixelFormat, template: vs.VideoNode, depth: int, lanes: int) -> None:
        self._upscaler, self._source, self._format = upscaler, source, template.format
        self._lock = threading.Lock()
        self._seen: OrderedDict[int, Seen] = OrderedDict()
        self._kept = depth + lanes
        self._recent: deque[Pending] = deque(maxlen=lanes + 2)  # requests overtake one another a little

    def frame(self, n: int, f: Sequence[vs.VideoFrame]) -> vs.VideoFrame:
        """Make frame `n`; called by VapourSynth's threads.

        Args:
            n: the frame's number.
            f: the source's frames n, n - 1, n - 2, ...; those before its first one are fillers.

        Raises:
            vapoursynth.Error: it failed; other frames are not touched by that.
        """
        pending = None
        try:
            with self._lock:
                pending = self._upscaler.begin(self._look(n, f), self._recent)
                self._recent.append(pending)
            return frames.write(self._upscaler.finish(pending), f[0], self._format)
        except VideosrError as exc:
            with self._lock:  # whoever asks again gets another try
                self._recent = deque((p for p in self._recent if p is not pending), self._recent.maxlen)
            # VapourSynth shows the whole chain of tracebacks: one is enough.
            raise vs.Error(f"vsvideosr.upscale: frame {n}: {in_script(str(exc))}") from None

    def _look(self, n: int, f: Sequence[vs.VideoFrame]) -> list[Seen]:
        """The frames that exist of these, oldest first, each compared with the one before it."""
        chain: list[Seen] = []
        for m in range(max(0, n + 1 - len(f)), n + 1):
            seen = self._seen.get(m)
            if seen is None:
                source = f[n - m]
                before = chain[-1] if chain else None
                frame = frames.read(source, m, self._source)
                seen = look_at(frame, before, frames.scene_change(source.props))
                if before is None and m:
                    chain.append(seen)  # what is before it is not known here: good for this window's end alone
                    continue
                self._seen[m] = seen
                if len(self._seen) > self._kept:
                    self._seen.popitem(last=False)
            else:
                self._seen.move_to_end(m)
            chain.append(seen)
        return chain


_OPTION = re.compile(r"--(model|temporal|denoise|sharpen|tta|engine|device|precision|threads|on-nan)\b")
"""What the command line calls the arguments of `upscale`."""


def in_script(message: str) -> str:
    """A message with the options of the command line as arguments: `on_nan` for `--on-nan`.

    Others stay: they belong to commands that the message tells to type, as in `uv run --extra`.
    """
    return _OPTION.sub(lambda option: option[1].replace("-", "_"), message)

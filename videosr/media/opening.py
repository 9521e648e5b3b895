"""Opening of what may never come: a call in a thread of its own, for which no signal has to wait."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, wait

_NAME = "videosr-open"
_POLL = 0.2  # seconds


def heeding_signals[T](work: Callable[[], T]) -> T:
    """What a call returns or raises; it is left to itself if a signal's handler raises.

    FFmpeg does not return at a signal, and PyAV takes what its handler raises for an error of the call.
    """
    done: Future[T] = Future()

    def run() -> None:
        try:
            done.set_result(work())
        except BaseException as exc:
            done.set_exception(exc)

    threading.Thread(target=run, daemon=True, name=_NAME).start()
    while not wait([done], _POLL).done:  # in slices: on Windows a signal reaches Python only between them
        pass
    return done.result()


def under_way() -> bool:
    """Whether a call is still at work. Python must not be taken down around it: FFmpeg would call back into that."""
    return any(thread.name == _NAME for thread in threading.enumerate())

"""Worker processes: each takes one job after the other, and one that dies costs the job it was at.

A worker ends at once when its parent is gone, however that ended. So nothing goes on unseen, and the journals and their
locks are free for the next run.
"""

from __future__ import annotations

import contextlib
import math
import os
import pickle
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, BinaryIO, Protocol, Self

from videosr.errors import VideosrError

PATIENCE = 10.0
"""Seconds that workers have to put things in order when a run is interrupted."""
_EVERY = 0.2  # seconds between two words on progress
_NO_CTRL_C = getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0)
"""What does on Windows what `_signals_blocked` does elsewhere."""


class Job(Protocol):
    """Something to do in a worker; it is pickled, and so is what it gives back."""

    def __call__(self, tell: Callable[[Any], None]) -> Any:
        """Do it. `tell` sends the parent something meanwhile."""


@dataclass(frozen=True, slots=True)
class Told:
    """What a job sent while it was at work."""

    value: Any


@dataclass(frozen=True, slots=True)
class Frames:
    """What most jobs tell: so many frames of this one are done."""

    done: int


def frames_told(tell: Callable[[Any], None]) -> Callable[[int], None]:
    """A function that sends numbers of frames as `Frames`, not each of them but every now and then."""
    told = -math.inf

    def frames(done: int) -> None:
        nonlocal told
        if time.monotonic() - told >= _EVERY:
            told = time.monotonic()
            tell(Frames(done))

    return frames


@dataclass(frozen=True, slots=True)
class Done:
    """What a job gave back."""

    value: Any


@dataclass(frozen=True, slots=True)
class Failed:
    """A job that could not be done.

    Attributes:
        message: one line.
        exit_code: as the command would have it.
        errno: of the system's error behind it, 0 where there is none.
        lost: the worker has died; another try may succeed.
    """

    message: str
    exit_code: int = 1
    errno: int = 0
    lost: bool = False


type Outcome = Told | Done | Failed


class Pool:
    """Some worker processes. To be left by `with`: that ends them.

    Args:
        size: how many.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._messages: queue.Queue[tuple[_Worker, Outcome | None]] = queue.Queue()
        self._workers: list[_Worker] = []

    def run(self, jobs: Iterator[tuple[int, Job]]) -> Generator[tuple[int, Outcome]]:
        """Do jobs, each under a number of its own; yields their outcomes as they come.

        A job is taken from `jobs` when a worker is free for it. Close the iterator to begin no more.
        """
        at: dict[_Worker, int] = {}
        idle = list(self._workers)

        def begin() -> bool:
            job = next(jobs, None)
            if job is None:
                return False
            worker = idle.pop() if idle else self._start()
            at[worker] = job[0]
            worker.give(job[1])
            return True

        while len(at) < self.size and begin():
            pass
        while at:
            worker, outcome = self._message()
            if worker not in at:  # ended while it had nothing to do
                idle.remove(worker)
                self._workers.remove(worker)
                continue
            if outcome is None:
                self._workers.remove(worker)
                yield at.pop(worker), Failed(worker.how_it_ended(), lost=True)
            else:
                yield at[worker], outcome
                if isinstance(outcome, Told):
                    continue
                del at[worker]
                idle.append(worker)
            begin()

    def _message(self) -> tuple[_Worker, Outcome | None]:
        """The next one; waits in slices, for on Windows a signal reaches Python only between them."""
        while True:
            try:
                return self._messages.get(timeout=_EVERY)
            except queue.Empty:
                continue

    def _start(self) -> _Worker:
        worker = _Worker(self._messages)
        self._workers.append(worker)
        return worker

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for worker in self._workers:
            worker.end()
        for worker in self._workers:
            worker.wait()


class _Worker:
    """The parent's side of a worker."""

    def __init__(self, messages: queue.Queue[tuple[_Worker, Outcome | None]]) -> None:
        command = [sys.executable, "-m", "videosr.distributed.pool"]
        with _signals_blocked():
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, creationflags=_NO_CTRL_C
            )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._in, self._out = self._process.stdin, self._process.stdout
        self._messages = messages
        threading.Thread(target=self._listen, name="videosr-worker", daemon=True).start()

    def _listen(self) -> None:
        try:
            while True:
                self._messages.put((self, pickle.load(self._out)))
        except (EOFError, pickle.UnpicklingError, OSError, ValueError):
            pass
        except Exception:  # it sends classes that do not exist here: videosr was replaced while it ran
            self.end()
        finally:
            self._messages.put((self, None))

    def give(self, job: Job) -> None:
        # It has died, which `_listen` will find out. Windows calls that an invalid argument.
        with contextlib.suppress(OSError):
            pickle.dump(job, self._in)
            self._in.flush()

    def how_it_ended(self) -> str:
        """Why there is no result, in words; waits for the end of the process."""
        code = self._process.wait()
        if code < 0:
            name = signal.Signals(-code).name
            if name == "SIGKILL":
                return "the process that worked on it was killed, perhaps because memory ran out"
            return f"the process that worked on it crashed ({name})"
        return f"the process that worked on it ended with exit code {code}"

    def end(self) -> None:
        """Ask it to stop what it does: journals are kept."""
        self._process.terminate()

    def wait(self) -> None:
        try:
            self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()  # no harm to journals: what is finished in them stays
            self._process.wait()
        with contextlib.suppress(OSError):
            self._in.close()


@contextmanager
def _signals_blocked() -> Iterator[None]:
    """Keep Ctrl-C and a closed terminal, which reach all processes, from a new one: they are for its parent."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


# -- in the worker ----------------------------------------------------------------------------------------------------


def _work() -> None:
    """Do jobs from standard input until it ends."""
    came = threading.Event()

    def interrupt(signum: int, frame: object) -> None:
        if not came.is_set():
            came.set()
            raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)
    # Messages keep the old standard output; what libraries print goes to standard error.
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    jobs: queue.SimpleQueue[Job] = queue.SimpleQueue()
    threading.Thread(target=_take, args=(sys.stdin.buffer, jobs), name="videosr-jobs", daemon=True).start()

    sending = threading.Lock()  # jobs tell of progress from threads of their own

    def send(outcome: Outcome) -> None:
        try:
            with sending:
                pickle.dump(outcome, out)
                out.flush()
        except OSError:  # the parent has gone; Windows calls that an invalid argument
            os._exit(1)

    while True:
        job = jobs.get()
        send(outcome(job, lambda value: send(Told(value))))


def outcome(job: Job, tell: Callable[[Any], None]) -> Done | Failed:
    """Do a job; its errors are outcomes too."""
    try:
        return Done(job(tell))
    except VideosrError as exc:
        return Failed(str(exc), exc.exit_code, getattr(exc.__cause__, "errno", 0) or 0)
    except MemoryError:
        return Failed("not enough memory for pictures of this size")
    except Exception as exc:  # a mistake in videosr: only this job fails
        return Failed(f"internal error: {type(exc).__name__}: {exc} (please report it)")


def _take(source: BinaryIO, jobs: queue.SimpleQueue[Job]) -> None:
    """Take jobs; when the parent ends, this process does."""
    try:
        while True:
            jobs.put(pickle.load(source))
    except (EOFError, pickle.UnpicklingError, OSError):
        pass
    except ImportError as exc:  # the package has changed since the parent began
        print(f"videosr: a worker cannot take its job: {exc}", file=sys.stderr, flush=True)
    finally:
        os._exit(1)


if __name__ == "__main__":
    # By its other name, so that what is pickled here is what the parent knows.
    from videosr.distributed import pool

    try:
        pool._work()
    except KeyboardInterrupt:
        os._exit(130)  # not by `sys.exit`: another thread is reading standard input, which Python could not close

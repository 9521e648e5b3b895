"""Segments as tasks of a Ray cluster: a node that is lost costs the segments it was at.

A task begins by comparing its machine with the head's: first the package itself (`source_mark`), then all that the bits
depend on (`Film.job`). Where they would be other bits, that node gets no more work. What a node does not find under its
name (the film, the network) is sent through the object store, once to a node. Segments come back as streams of chunks,
with words on progress between them.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import queue
import shutil
import signal
import socket
import stat
import tempfile
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from videosr import __version__
from videosr.distributed.crew import fill
from videosr.distributed.piece import MakePiece, Unfit
from videosr.distributed.pool import Done, Failed, Outcome, Told, outcome
from videosr.errors import InputError, MissingExtraError, OutputError, UsageError
from videosr.film import Film
from videosr.journal import Journal, fingerprint
from videosr.machine import cores
from videosr.media.stills.numbered import Numbered

SHARE = 8
"""CPUs that a task takes of nodes with more, where `--threads` does not say."""
PATIENCE = 60.0
"""Seconds to wait for a node that can work, when none is left."""
_CHUNK = 32 << 20
_ANSWER = 10.0  # seconds for a cluster's head to take a connection
_LOOK = 2.0  # seconds between looks at the nodes
_SOURCES = {".py", ".c", ".h", ".cu", ".cuh"}  # suffixes of what the package is made of
_STALE = 24 * 3600.0  # seconds after which what was sent to a node is deleted there by the next run


@contextmanager
def connected(address: str) -> Iterator[str]:
    """Be connected to a cluster.

    Args:
        address: of its head; "auto" finds one that was begun on this machine; "local" begins one of this machine alone.

    Yields:
        The address under which other processes of this machine find it.

    Raises:
        MissingExtraError: Ray is not installed.
        OutputError: there is no such cluster, or it is of another version.
    """
    # Every task's environment would be set up anew, from whatever project file lies around.
    os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    ray = _ray()
    if ray.is_initialized():
        yield ray.get_runtime_context().gcs_address
        return
    _reach(address)
    own: dict[str, Any] = {"include_dashboard": False, "num_cpus": cores()}
    try:
        with _own_sigterm():
            ray.init(address=address, log_to_driver=False, logging_level="ERROR", **(own if address == "local" else {}))
    except Exception as exc:  # what Ray raises here is of no class of its own, down to plain `Exception`
        reason = " ".join(str(exc).split())
        raise OutputError(f"--ray {address}: cannot be used: {reason}") from exc
    try:
        yield ray.get_runtime_context().gcs_address
    finally:
        ray.shutdown()


@contextmanager
def _own_sigterm() -> Iterator[None]:
    """Keep what this process does on SIGTERM: Ray puts in its own, by which a run would end without a word."""
    if threading.current_thread() is not threading.main_thread():  # Ray leaves it alone there too
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _reach(address: str) -> None:
    """Make sure that something answers there: Ray itself would try for minutes.

    Raises:
        OutputError: nothing does.
    """
    host, _, port = address.rpartition(":")
    if not (host and port.isdecimal()) or "/" in host:
        return  # no plain address of a cluster's head: Ray knows what it is
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_ANSWER).close()
    except OSError as exc:
        raise OutputError(f"--ray {address}: nothing answers there: {exc.strerror or exc}") from exc


def _ray() -> Any:
    try:
        import ray
    except ModuleNotFoundError as exc:
        raise MissingExtraError("--ray", "ray") from exc
    return ray


class RayCrew:
    """Makes a film's segments on the nodes of a cluster.

    Args:
        address: see `connected`.
    """

    def __init__(self, address: str) -> None:
        self._address = address

    def fill(self, film: Film, journal: Journal, told: Callable[[int], None], warn: Callable[[str], None]) -> None:
        """See `transcode.Crew`."""
        with connected(self._address):
            cluster = _Cluster(film)
            fill(film, journal, told, warn, cluster, cluster.slots(), threads=cluster.cpus)


@dataclass(slots=True, eq=False)
class _Try:
    """A task under way."""

    number: int
    job: MakePiece
    stream: Any
    node: str = ""


@dataclass(frozen=True, slots=True)
class _Absent:
    """The node lacks a file that the job needs."""


@dataclass(frozen=True, slots=True)
class _Parcel:
    """A file in the object store.

    Attributes:
        name: its own.
        mark: its fingerprint.
        chunks: references to its bytes.
    """

    name: str
    mark: str
    chunks: list[Any] = field(default_factory=list)


class _Cluster:
    """The cluster as `crew.Workers`."""

    def __init__(self, film: Film) -> None:
        self._ray = _ray()
        self._refused: set[str] = set()
        upscale = film.options.upscale
        cpus = [int(node["Resources"].get("CPU", 0)) for node in self._ray.nodes() if node["Alive"]]
        usable = [n for n in cpus if n >= (upscale.threads or 1)]
        self.cpus = upscale.threads or min([SHARE, *usable])
        self._needs = {"CPU": float(self.cpus), "GPU": float(film.upscaler.engine.device is not None)}
        if not self.slots():
            raise UsageError(
                f"no node of the cluster has {self.cpus} CPUs{' and a GPU' if self._needs['GPU'] else ''}: "
                "give fewer --threads, or another --device"
            )
        self._files = [film.source.absolute()]
        network = Path(upscale.model)
        if network.is_file():
            self._files.append(network.absolute())
        self._marks = {path: fingerprint(path) for path in self._files}
        self._parcels: list[_Parcel] | None = None
        self._mark = source_mark()
        self._task = self._ray.remote(max_retries=0, num_cpus=self.cpus, num_gpus=self._needs["GPU"])(_by_value())

    def _fit(self) -> list[dict[str, Any]]:
        """Nodes that can work."""
        return [
            node
            for node in self._ray.nodes()
            if node["Alive"]
            and node["NodeID"] not in self._refused
            and all(node["Resources"].get(name, 0) >= n for name, n in self._needs.items())
        ]

    def slots(self) -> int:
        """Tasks that the cluster has room for."""
        return int(
            sum(min(node["Resources"].get(k, 0) // n for k, n in self._needs.items() if n) for node in self._fit())
        )

    def run(self, jobs: Iterator[tuple[int, MakePiece]]) -> Generator[tuple[int, Outcome]]:
        """See `crew.Workers`."""
        under_way: list[_Try] = []
        try:
            yield from self._outcomes(jobs, under_way)
        finally:
            for attempt in under_way:
                self._ray.cancel(attempt.stream)

    def _outcomes(self, jobs: Iterator[tuple[int, MakePiece]], under_way: list[_Try]) -> Generator[tuple[int, Outcome]]:
        """Do jobs; the tasks that are at them are in `under_way`."""
        ray = self._ray
        again: list[tuple[int, MakePiece]] = []
        looked, fit_at, slots = -_LOOK, time.monotonic(), 1
        while True:
            now = time.monotonic()
            if now - looked >= _LOOK:
                looked, slots = now, self.slots()
                fit_at = now if slots else fit_at
                if now - fit_at > PATIENCE:
                    raise OutputError("no node of the cluster that can work is left; what is finished is kept")
            while len(under_way) < slots + 1:  # one waits, so that no slot does
                given = again.pop() if again else next(jobs, None)
                if given is None:
                    break
                under_way.append(_Try(*given, self._begin(given[1])))
            if not under_way:
                return
            streams = {t.stream: t for t in under_way}
            ready, _ = ray.wait(list(streams), timeout=0.1)  # returns with the first word that is there
            for stream in ready:
                attempt = streams[stream]
                word = self._next(attempt)
                if isinstance(word, str):
                    attempt.node = word
                elif isinstance(word, Told):
                    yield attempt.number, word
                else:
                    under_way.remove(attempt)
                    if isinstance(word, _Absent):
                        self._send()
                        again.append((attempt.number, attempt.job))
                    elif isinstance(word, tuple):
                        yield from self._refuse(attempt, f"another version of videosr: {' '.join(word[0].split())}")
                        again.append((attempt.number, attempt.job))
                    elif isinstance(word, Done) and isinstance(word.value, Unfit):
                        yield from self._refuse(attempt, word.value.why)
                        again.append((attempt.number, attempt.job))
                    else:
                        yield attempt.number, word

    def _begin(self, job: MakePiece) -> Any:
        options = {}
        if self._refused:
            options["label_selector"] = {"ray.io/node-id": f"!in({','.join(sorted(self._refused))})"}
        parcels = None if self._parcels is None else [(p.name, p.mark, p.chunks) for p in self._parcels]
        return self._task.options(**options).remote(self._mark, pickle.dumps(job), self._marks, parcels)

    def _next(self, attempt: _Try) -> Any:
        """The next message of a task; there is none if its node or worker has died."""
        errors = self._ray.exceptions
        try:
            return self._ray.get(next(attempt.stream))
        except StopIteration:
            return Failed("a worker of the cluster ended without a word", lost=True)
        except errors.RayTaskError as exc:
            # The task itself reports what goes wrong in it: this is what goes wrong before it.
            return Failed(f"a node of the cluster cannot work: {' '.join(str(exc.cause).split())}")
        except errors.RayError as exc:
            what = "a node of the cluster was lost" if _node_died(errors, exc) else "a worker of the cluster was lost"
            return Failed(what, lost=True)

    def _refuse(self, attempt: _Try, why: str) -> Iterator[tuple[int, Outcome]]:
        """Give a node no more work.

        Raises:
            UsageError: no other is left.
        """
        if attempt.node not in self._refused:
            self._refused.add(attempt.node)
            name = next((n["NodeManagerHostname"] for n in self._ray.nodes() if n["NodeID"] == attempt.node), "a node")
            line = f"{name} (node {attempt.node[:8]}) would make other bits and gets no work: {why}"
            yield attempt.number, Told(line)
            if not self._fit():
                raise UsageError(f"no node of the cluster makes the same bits as this machine: {line}")

    def _send(self) -> None:
        """Put the job's files into the object store."""
        if self._parcels is not None:
            return
        self._parcels = []
        for path in self._files:
            if Numbered.of(path) is not None:
                raise InputError(
                    f"{path}: numbered pictures are not sent to nodes; put them where every node finds them"
                )
            parcel = _Parcel(path.name, self._marks[path])
            try:
                with path.open("rb") as file:
                    while data := file.read(_CHUNK):
                        parcel.chunks.append(self._ray.put(data))
            except OSError as exc:
                raise InputError(f"{path}: cannot be read: {exc.strerror}") from exc
            self._parcels.append(parcel)


def _node_died(errors: Any, exc: Exception) -> bool:
    kinds = tuple(getattr(errors, name) for name in ("NodeDiedError", "ObjectLostError") if hasattr(errors, name))
    return isinstance(exc, kinds)


# -- on the nodes -----------------------------------------------------------------------------------------------------


def source_mark(home: Path = Path(__file__).parents[1]) -> str:
    """What tells one state of this package from another of the same version: a hash of its source, which lies there."""
    digest = hashlib.sha256()
    for path in sorted(path for path in home.rglob("*") if path.suffix in _SOURCES):
        digest.update(path.relative_to(home).as_posix().encode() + b"\0" + path.read_bytes())
    return f"{__version__} {digest.hexdigest()[:12]}"


def _by_value() -> Callable[..., Iterator[Any]]:
    """The task: a generator of what `_Cluster.run` takes, the node's name first; a tuple of a line if videosr differs.

    A function within a function is taken to the nodes by value. So it begins, and can say what it lacks, where videosr
    is another one or is not there at all; nothing that is given to it, or given back before that is known, is of our
    classes.
    """

    def task(mark: str, job: bytes, marks: dict[Path, str], parcels: list[Any] | None) -> Iterator[Any]:
        import ray

        yield ray.get_runtime_context().get_node_id()
        try:
            from videosr.distributed import cluster

            here = cluster.source_mark()
        except Exception as exc:  # whatever another version, or its ruins, may raise
            yield (f"{type(exc).__name__}: {exc}",)
            return
        if here != mark:
            yield (f"{here} there, {mark} here",)
            return
        yield from cluster.do(job, marks, parcels)

    return task


def do(pickled: bytes, marks: dict[Path, str], parcels: list[tuple[str, str, list[Any]]] | None) -> Iterator[Any]:
    """What the task does on a node that has this very videosr.

    Args:
        pickled: the job.
        marks: the files that it needs, and their fingerprints.
        parcels: the same files as name, fingerprint, and references to their bytes.
    """
    job: MakePiece = pickle.loads(pickled)
    ray = _ray()
    places: dict[Path, Path] = {}
    for number, (path, mark) in enumerate(marks.items()):
        place = _found(path, mark)
        if place is None and parcels is not None:
            place = _unpacked(_Parcel(*parcels[number]), ray.get)
        if place is None:
            yield _Absent()
            return
        places[path] = place
    model = job.options.upscale.model
    placed = {str(path.absolute()): str(place) for path, place in places.items()}
    upscale = replace(job.options.upscale, model=placed.get(str(Path(model).absolute()), model))
    here = replace(job, source=places[job.source], options=replace(job.options, upscale=upscale))

    words: queue.Queue[Told | None] = queue.Queue()
    result: list[Outcome] = []
    stopped = threading.Event()

    def tell(value: Any) -> None:
        if stopped.is_set():
            raise KeyboardInterrupt  # as in a process of its own, it leaves nothing behind
        words.put(Told(value))

    def work() -> None:
        try:
            with suppress(KeyboardInterrupt):
                result.append(outcome(here, tell))
        finally:
            words.put(None)

    thread = threading.Thread(target=work, name="videosr-task", daemon=True)
    thread.start()
    try:
        while (word := words.get()) is not None:
            yield word
    finally:  # at once where the run has ended, and Ray interrupts the task
        stopped.set()
        thread.join()
    yield result[0]


def _found(path: Path, mark: str) -> Path | None:
    """The file itself, where it is under its name here too."""
    try:
        return path if fingerprint(path) == mark else None
    except InputError:
        return None


def _unpacked(parcel: _Parcel, get: Callable[[Any], bytes]) -> Path:
    """The file out of the object store; processes of a node share it."""
    home = Path(tempfile.gettempdir()) / f"videosr-sent-{os.getuid() if hasattr(os, 'getuid') else 0}"
    home.mkdir(mode=0o700, exist_ok=True)
    found = home.lstat()
    if hasattr(os, "getuid") and not (stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid()):
        raise OutputError(f"{home}: is another user's, and what is there is not trusted: remove it, or set TMPDIR")
    for old in home.iterdir():
        with suppress(OSError):  # another process may be clearing up as well
            if time.time() - old.stat().st_mtime > _STALE:
                shutil.rmtree(old, ignore_errors=True)
    folder = home / parcel.mark.rpartition(" ")[2]
    folder.mkdir(exist_ok=True)
    path = folder / parcel.name
    if _found(path, parcel.mark) is None:
        try:
            with tempfile.NamedTemporaryFile(dir=folder, delete_on_close=False) as file:
                for chunk in parcel.chunks:
                    file.write(get(chunk))
                file.close()
                Path(file.name).replace(path)
        except OSError as exc:
            raise OutputError.writing(path, exc) from exc
    os.utime(folder)
    return path

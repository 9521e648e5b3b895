"""The graph: order, bounds, errors, Ctrl-C, and nothing left behind."""

from __future__ import annotations

import gc
import itertools
import signal
import threading
import time
import weakref
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from videosr.errors import EngineError, InputError, OutputError
from videosr.frame import FORMATS, Frame
from videosr.graph import Graph


def frames(count):
    for i in range(count):
        yield Frame(
            planes=(np.full((2, 2), i % 256, np.uint8),), format=FORMATS["gray"], pts=i, time_base=Fraction(1, 25)
        )


class Delay:
    """A stage that keeps so many frames inside, as an engine with frames in flight does."""

    def __init__(self, held=0, fail_at=None, error=None):
        self.held, self.inside, self.fail_at, self.error = held, [], fail_at, error

    def process(self, frame):
        if frame.pts == self.fail_at:
            raise self.error
        self.inside.append(frame)
        while len(self.inside) > self.held:
            yield self.inside.pop(0)

    def flush(self):
        yield from self.inside
        self.inside = []


class Repeat(Delay):
    """A stage that makes three of one, in a list."""

    def process(self, frame):
        return [frame] * 3

    def flush(self):
        return []


class Sink:
    def __init__(self, fail_at=None, error=None, act=None):
        self.pts, self.finished, self.fail_at, self.error, self.act = [], 0, fail_at, error, act

    def write(self, frame):
        assert not self.finished
        if frame.pts == self.fail_at:
            raise self.error
        self.pts.append(frame.pts)
        if self.act is not None:
            self.act(frame)

    def finish(self):
        self.finished += 1
        if self.fail_at == "finish":
            raise self.error


def alive():
    return [t.name for t in threading.enumerate() if t.name.startswith("videosr-")]


@pytest.fixture(autouse=True)
def nothing_left_behind():
    yield
    assert alive() == []


@given(
    count=st.integers(0, 20),
    held=st.lists(st.integers(0, 6), max_size=3),
    depth=st.integers(1, 4),
)
@settings(max_examples=25)
def test_frames_arrive_once_and_in_order(count, held, depth):
    sink, seen = Sink(), []
    stages = [(f"stage {i}", Delay(h)) for i, h in enumerate(held)]
    graph = Graph(frames(count), stages, sink, depth=depth, progress=seen.append)
    graph.run()
    assert sink.pts == list(range(count))
    assert sink.finished == 1
    assert seen == list(range(1, count + 1))
    assert [t.frames for t in graph.timings] == [count] * (len(held) + 2)
    assert [t.name for t in graph.timings] == ["decode", *(name for name, _ in stages), "encode"]


def test_a_stage_may_make_more_frames_than_it_takes():
    sink = Sink()
    graph = Graph(frames(3), [("repeat", Repeat())], sink)
    graph.run()
    assert sink.pts == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert [t.frames for t in graph.timings] == [3, 9, 9]


@pytest.mark.parametrize(("stages", "depth"), [(0, 1), (1, 4), (2, 2)])
def test_the_source_is_held_back_by_a_slow_sink(stages, depth):
    """Never more frames under way than the queues, and a hand for every node, hold."""
    ahead, made, taken = [], 0, 0
    bound = (stages + 1) * depth + stages + 2

    def source():
        nonlocal made
        for frame in frames(40):
            made += 1
            ahead.append(made - taken)
            yield frame

    def take(frame):
        nonlocal taken
        time.sleep(0.002)
        taken += 1

    sink = Sink(act=take)
    Graph(source(), [(f"{i}", Delay()) for i in range(stages)], sink, depth=depth).run()
    assert sink.pts == list(range(40))
    assert max(ahead) <= bound
    assert max(ahead) > depth  # and it does run ahead


def test_frames_are_let_go():
    """What the sink has taken is in nobody's hands any more."""
    alive_at_once = []
    living = weakref.WeakValueDictionary()

    def source():
        for frame in frames(60):
            plane = frame.planes[0].copy()
            living[frame.pts] = plane
            yield frame.with_planes((plane,))

    Graph(source(), [("a", Delay())], Sink(act=lambda _: alive_at_once.append(len(living))), depth=2).run()
    assert max(alive_at_once) <= 2 * 2 + 2 * 3 + 2
    gc.collect()
    assert len(living) == 0


ERRORS = [InputError("broken input"), EngineError("broken engine"), OutputError("disk full"), ZeroDivisionError("bug")]


@pytest.mark.parametrize("error", ERRORS, ids=lambda e: type(e).__name__)
@pytest.mark.parametrize("where", ["source", "stage", "flush", "sink", "finish", "progress"])
def test_the_error_of_any_node_is_the_one_raised(where, error):
    def source():
        for frame in frames(50):
            if where == "source" and frame.pts == 7:
                raise error
            yield frame

    class Flush(Delay):
        def flush(self):
            raise error
            yield

    def progress(done):
        if where == "progress" and done == 7:
            raise error

    stage = Delay(2, 7, error) if where == "stage" else Flush() if where == "flush" else Delay(2)
    sink = Sink({"sink": 7, "finish": "finish"}.get(where), error)
    with pytest.raises(type(error)) as caught:
        Graph(source(), [("a", Delay()), ("b", stage), ("c", Delay(1))], sink, progress=progress).run()
    assert caught.value is error
    assert sink.pts == sorted(sink.pts)
    assert sink.finished == (where == "finish")
    if where in ("source", "stage"):
        assert len(sink.pts) <= 7


def test_the_first_error_wins():
    first, second = InputError("first"), OutputError("second")
    broken = threading.Event()

    def source():
        yield from frames(5)
        broken.set()
        raise first

    class Late(Sink):
        def write(self, frame):
            broken.wait(10)
            time.sleep(0.3)  # the source's error is on record by now
            raise second

    with pytest.raises(InputError, match="first"):
        Graph(source(), [], Late(), depth=8).run()


@pytest.mark.parametrize("where", ["sink", "stage", "nowhere"])
def test_generators_are_closed_in_the_thread_that_ran_them(where):
    closed = []

    def source():
        try:
            yield from frames(30)
        finally:
            closed.append(threading.current_thread().name)

    error = OutputError("disk full")
    stage = Delay(0, 5 if where == "stage" else None, error)
    graph = Graph(source(), [("a", stage)], Sink(5 if where == "sink" else None, error), depth=1)
    if where == "nowhere":
        graph.run()
    else:
        with pytest.raises(OutputError):
            graph.run()
    assert closed == ["videosr-decode"]


def test_ctrl_c_stops_everything():
    """A signal that arrives while the main thread waits; the sink ends what it is at before `run` returns."""
    written = []

    def interrupt(frame):
        if frame.pts == 20:
            signal.raise_signal(signal.SIGINT)
            time.sleep(0.3)
        written.append(frame.pts)

    endless = (frame for _ in iter(int, 1) for frame in frames(100))
    sink = Sink(act=interrupt)
    with pytest.raises(KeyboardInterrupt):
        Graph(endless, [("a", Delay())], sink).run()
    assert sink.finished == 0
    assert written == list(range(21))


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("which", [0, 1, 2])
def test_ctrl_c_while_threads_are_started_stops_those_that_run(monkeypatch, which, before):
    start, count = threading.Thread.start, itertools.count()

    def interrupted(thread):
        if next(count) != which:
            return start(thread)
        if not before:
            start(thread)
        raise KeyboardInterrupt

    endless = (frame for _ in iter(int, 1) for frame in frames(100))
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", interrupted)
        with pytest.raises(KeyboardInterrupt):
            Graph(endless, [("a", Delay())], Sink()).run()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("videosr-")]


def test_an_interrupt_in_a_node_is_an_interrupt():
    with pytest.raises(KeyboardInterrupt):
        Graph(frames(9), [("a", Delay(0, 3, KeyboardInterrupt()))], Sink()).run()


def test_timings_say_where_the_time_went():
    """Every node's three times add up to what it ran, and the slow node is the busy one."""

    at = []

    class Slow(Delay):
        def process(self, frame):
            at.append(time.perf_counter())
            time.sleep(0.01)
            yield frame
            at.append(time.perf_counter())

    sink = Sink()
    graph = Graph(frames(25), [("slow", Slow()), ("fast", Delay())], sink, depth=2)
    start = time.perf_counter()
    graph.run()
    wall = time.perf_counter() - start
    decode, slow, fast, encode = graph.timings
    for timing in graph.timings:
        assert min(timing.busy, timing.starved, timing.blocked) >= 0
        assert timing.busy + timing.starved + timing.blocked <= wall
    assert slow.busy >= 25 * 0.01
    assert slow.busy > fast.busy
    assert decode.blocked > decode.busy
    assert encode.starved > encode.busy
    # What is not booked is the bookkeeping itself; how long threads take to begin and end is the system's business.
    assert slow.busy + slow.starved + slow.blocked >= 0.8 * (at[-1] - at[0])
    assert encode.blocked == 0

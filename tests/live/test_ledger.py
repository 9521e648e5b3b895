"""The account of frames and the queues between threads."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from videosr.live.ledger import Latency, Ledger, Reason
from videosr.live.metrics import prometheus
from videosr.live.pipeline import Estimate
from videosr.live.queues import BoundedQueue, Closed


@given(st.lists(st.sampled_from(["take", "deliver", *Reason])))
def test_in_is_out_and_dropped_and_under_way(acts):
    ledger = Ledger(0.3)
    inside: list[int] = []
    for number, act in enumerate(acts):
        if act == "take":
            ledger.take(number, 0.0)
            inside.append(number)
        elif inside and act == "deliver":
            ledger.deliver(inside.pop(0))
        elif inside:
            ledger.drop(inside.pop(), Reason(act))
        account = ledger.account
        assert account.taken == account.delivered + sum(account.dropped.values()) + account.under_way
        assert account.under_way == len(inside)


def test_late_is_what_would_be_over_the_budget():
    now = [10.0]
    ledger = Ledger(0.3, lambda: now[0])
    ledger.take(1, 10.0)
    now[0] = 10.2
    assert not ledger.late(1, 0.05)
    assert ledger.late(1, 0.15)
    patient = Ledger(None, lambda: 1e9)
    patient.take(1, 0.0)
    assert not patient.late(1, 1e9)


def test_percentiles_and_histogram():
    latency = Latency()
    assert latency.percentile(0.95) is None
    for n in range(1, 101):
        latency.add(n / 1000)
    assert latency.percentile(0.5) == pytest.approx(0.051)
    assert latency.percentile(0.95) == pytest.approx(0.096)
    assert sum(latency.counts) == 100
    for n in range(100_000):
        latency.add(n)
    assert len(latency.recent) == 2048


def test_a_full_queue_drops_its_oldest():
    spilled: list[int] = []
    queue: BoundedQueue[int] = BoundedQueue(2, spilled.append)
    for n in range(5):
        queue.put(n)
    assert spilled == [0, 1, 2]
    assert (queue.get(), queue.get(), queue.get(0.01)) == (3, 4, None)


def test_entries_beside_the_others_are_counted_apart():
    spilled: list[int] = []
    queue: BoundedQueue[int] = BoundedQueue(2, spilled.append, beside=lambda n: n % 10 > 0, size_beside=3)
    for n in (10, 1, 2, 20, 3, 30, 4):
        queue.put(n)
    assert spilled == [10, 1]
    assert [queue.get() for _ in range(5)] == [2, 20, 3, 30, 4]


def test_a_full_queue_that_may_not_drop_waits():
    queue: BoundedQueue[int] = BoundedQueue(1)
    queue.put(0)
    thread = threading.Thread(target=queue.put, args=(1,))
    thread.start()
    assert queue.get() == 0
    thread.join()
    assert queue.get() == 1


def test_closing_wakes_who_waits_and_keeps_what_is_inside():
    queue: BoundedQueue[int] = BoundedQueue(1)
    queue.put(0)
    outcome: list[str] = []

    def put() -> None:
        try:
            queue.put(1)
        except Closed:
            outcome.append("closed")

    thread = threading.Thread(target=put)
    thread.start()
    queue.close()
    thread.join()
    assert outcome == ["closed"]
    assert queue.get() == 0
    with pytest.raises(Closed):
        queue.get()


def test_an_estimate_recovers_from_a_hiccup():
    estimate = Estimate(0.3)
    for _ in range(100):
        estimate.add(0.02)
    assert 0.02 <= estimate.seconds < 0.03
    estimate.add(30.0)
    assert estimate.seconds < 0.2
    for _ in range(100):
        estimate.add(9.0)
    given_up = 0
    while estimate.seconds > 0.2:
        estimate.fade()
        given_up += 1
    assert given_up < 30


def test_metrics_are_well_formed():
    assert prometheus({}) == ""
    status = {
        "frames_in": 5,
        "frames_out": 3,
        "dropped": {"late": 2},
        "under_way": 0,
        "queues": {"source": 1},
        "level": 0,
        "connected": True,
        "losses": 0,
        "viewers": 0,
        "latency": {"counts": Latency().counts, "total": 0.0},
        "outputs": [{"name": 'odd "name"\\\n', "taken": 3, "written": 3, "dropped": 0, "silenced": 4}],
    }
    lines = prometheus(status).splitlines()
    assert 'videosr_frames_dropped_total{reason="late"} 2' in lines
    assert 'videosr_output_frames_written_total{output="odd \\"name\\"\\\\\\n"} 3' in lines
    assert 'videosr_output_sound_dropped_total{output="odd \\"name\\"\\\\\\n"} 4' in lines
    for line in lines:
        assert line.startswith(("# HELP videosr_", "# TYPE videosr_", "videosr_"))
    names = [line.split()[2] for line in lines if line.startswith("# TYPE")]
    assert len(names) == len(set(names))

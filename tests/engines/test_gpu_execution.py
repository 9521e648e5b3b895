"""Buffers, streams, events, graphs and the ping-pong of states, on a stand-in that runs them in any allowed order."""

from __future__ import annotations

import dataclasses
import gc
import itertools
import threading
import weakref

import numpy as np
import pytest
from hostdevice import DeviceArray, HostContext, HostDevice, on_device

from videosr.engines.gpu_execution import Conversion, Execution, Layout, _Slot
from videosr.errors import EngineError

SHAPE, LARGE, STATE = (1, 3, 4, 5), (1, 3, 8, 10), (1, 2, 4, 5)
BLEND = 0.25


def enlarged(x):
    return x.repeat(2, axis=2).repeat(2, axis=3)


def independent(arrays):
    return {"output": enlarged(arrays["input"]) + 10 * enlarged(arrays["average"])}


def recurrent(arrays):
    features = (1 - BLEND) * arrays["input"][:, :2] + BLEND * arrays["prev_feat"]
    return {"output": enlarged(np.pad(features, ((0, 0), (0, 1), (0, 0), (0, 0)))), "feature_map": features}


def hoisted(device, *, lanes=1, slots=3, conversion=None, capturable=True, graphs=True):
    contexts = [
        HostContext(device, independent, ["input", "average"], ["output"], capturable=capturable) for _ in range(lanes)
    ]
    ports = {"input": Layout(SHAPE, "float32"), "average": Layout(SHAPE, "float32")}
    outputs = {"output": Layout(LARGE, "float32")}
    return contexts, Execution(device, contexts, ports, outputs, conversion, slots=slots, graphs=graphs)


def published(device, dtype="float32", **options):
    context = HostContext(device, recurrent, ["input", "prev_feat"], ["output", "feature_map"])
    inputs = {"input": Layout(SHAPE, dtype), "prev_feat": Layout(STATE, dtype)}
    outputs = {"output": Layout(LARGE, dtype), "feature_map": Layout(STATE, dtype)}
    return context, Execution(device, [context], inputs, outputs, **options)


def film(count, seed=0):
    return list(np.random.default_rng(seed).random((count, *SHAPE)).astype(np.float32))


def run_ahead(execution, frames, ahead, **options):
    """Results of frames, `ahead` of them under way at a time; the host's arrays are overwritten at once."""
    pending, results = [], []
    for frame in frames:
        arrays = [np.array(part) for part in frame]
        pending.append(execution.submit(arrays, **options))
        for array in arrays:
            array.fill(-1)  # ours again: whoever still reads it is wrong
        if len(pending) > ahead:
            results.append(execution.result(pending.pop(0))[0])
    return results + [execution.result(ticket)[0] for ticket in pending]


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize(("lanes", "slots"), [(1, 1), (1, 3), (2, 4), (3, 5)])
def test_frames_come_out_as_if_alone_in_whatever_order_the_device_works(seed, lanes, slots):
    _, execution = hoisted(HostDevice(seed), lanes=lanes, slots=slots)
    assert execution.in_flight == slots - 1
    pairs = list(zip(film(12), film(12, seed=1), strict=True))
    for wanted, got in zip(pairs, run_ahead(execution, pairs, execution.in_flight), strict=True):
        assert np.array_equal(got, independent({"input": wanted[0], "average": wanted[1]})["output"])


def test_without_the_events_pictures_are_wrong():
    """The stand-in sees what it is there for."""
    wrong = 0
    for seed in range(8):
        _, execution = hoisted(HostDevice(seed, waits=False))
        pairs = list(zip(film(12), film(12, seed=1), strict=True))
        for wanted, got in zip(pairs, run_ahead(execution, pairs, 2), strict=True):
            wrong += not np.array_equal(got, independent({"input": wanted[0], "average": wanted[1]})["output"])
    assert wrong > 0


def test_the_host_waits_for_results_alone():
    device = HostDevice()
    _, execution = hoisted(device, slots=4)
    before = device.host_waits
    tickets = [execution.submit([frame, frame]) for frame in film(3)]
    assert device.host_waits == before
    for ticket in tickets:
        execution.result(ticket)
    assert device.host_waits == before + 3


def test_the_network_is_recorded_once_a_slot_and_then_launched():
    device = HostDevice()
    (context,), execution = hoisted(device, slots=3)
    assert context.enqueued == 1  # the first run, in which kernels are compiled, is not recorded
    run_ahead(execution, [(frame, frame) for frame in film(20)], 2)
    assert device.captures == 3
    assert context.enqueued == 1 + 3  # nothing but recordings


@pytest.mark.parametrize("how", ["library", "option", "device"])
def test_without_graphs_the_pictures_are_the_same(how, monkeypatch):
    device = HostDevice(3)

    def refuse(work, stream):
        raise EngineError("cannot be recorded")

    if how == "device":
        monkeypatch.setattr(device, "capture", refuse)
    (context,), execution = hoisted(device, capturable=how != "library", graphs=how != "option")
    pairs = list(zip(film(7), film(7, seed=1), strict=True))
    results = run_ahead(execution, pairs, 2)
    assert context.enqueued == 1 + 7
    assert device.captures == 0
    for wanted, got in zip(pairs, results, strict=True):
        assert np.array_equal(got, independent({"input": wanted[0], "average": wanted[1]})["output"])


def recurrence(frames, resets):
    """What the published network makes of frames, each scene beginning as if its first frame stood alone."""
    state, out = None, []
    for frame, reset in zip(frames, resets, strict=True):
        # Alone: the fixed point of the recurrence, features without any scaling.
        made = recurrent({"input": frame, "prev_feat": frame[:, :2] if reset else state})
        state = made["feature_map"]
        out.append(made["output"])
    return out


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("seed", range(6))
def test_states_go_back_and_forth_and_scenes_begin_exactly(seed, dtype):
    device = HostDevice(seed)
    _, execution = published(device, dtype)
    exact = 1e-6 if dtype == "float32" else 2e-3
    assert execution.blend == pytest.approx(BLEND, abs=1e-3)
    frames = film(11, seed)
    resets = [i in (0, 1, 4, 9) for i in range(11)]
    pending, got = [], []
    for frame, reset in zip(frames, resets, strict=True):
        pending.append(execution.submit([frame], reset=reset))
        if len(pending) > execution.in_flight:
            got.append(execution.result(pending.pop(0))[0])
    got += [execution.result(ticket)[0] for ticket in pending]
    for wanted, result in zip(recurrence(frames, resets), got, strict=True):
        assert np.abs(result.astype(np.float32) - wanted).max() < exact


def test_states_are_never_copied():
    """Of the recurrence only two state buffers exist, and each frame binds them the other way round."""
    device = HostDevice()
    context, execution = published(device, graphs=False)
    seen = []
    for i, frame in enumerate(film(5)):
        execution.run([frame], reset=i == 0)
        seen.append((context.bound["prev_feat"], context.bound["feature_map"]))
    assert len({address for pair in seen for address in pair}) == 2
    assert all(a == (b[1], b[0]) for a, b in itertools.pairwise(seen))


def test_a_state_that_is_no_average_is_refused():
    device = HostDevice()

    def squared(arrays):
        return recurrent({**arrays, "prev_feat": arrays["prev_feat"] ** 2 + arrays["prev_feat"]})

    context = HostContext(device, squared, ["input", "prev_feat"], ["output", "feature_map"])
    inputs = {"input": Layout(SHAPE, "float32"), "prev_feat": Layout(STATE, "float32")}
    outputs = {"output": Layout(LARGE, "float32"), "feature_map": Layout(STATE, "float32")}
    with pytest.raises(EngineError, match="running average"):
        Execution(device, [context], inputs, outputs)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(("lanes", "slots"), [(1, 2), (1, 4), (2, 6)])
def test_conversions_are_queued_between_the_copies(seed, lanes, slots):
    def before(uploaded, inputs, parameters):
        inputs["input"][...] = uploaded[0] / np.float32(255)
        inputs["average"][...] = parameters

    def after(uploaded, outputs, made, parameters):
        made[0][...] = outputs["output"] > 10 * parameters + 0.5
        made[1][...] = uploaded[0]

    conversion = Conversion([Layout(SHAPE, "uint8")], [Layout(LARGE, "uint8"), Layout(SHAPE, "uint8")], before, after)
    device = HostDevice(seed)
    _, execution = hoisted(device, conversion=conversion, lanes=lanes, slots=slots)
    frames = [(255 * frame).astype(np.uint8) for frame in film(9)]
    tickets = [(execution.submit([frame], float(i)), frame) for i, frame in enumerate(frames)]
    # The network's own tensors, large ones, are fewer than the frames under way.
    assert sum(array.shape == LARGE and array.dtype == np.float32 for array in device.arrays.values()) == 2 * lanes
    for ticket, frame in tickets:  # more than there are slots: results wait in their tickets
        large, same = execution.result(ticket)
        assert np.array_equal(large, enlarged(frame) > 127)
        assert np.array_equal(same, frame)


def test_results_belong_to_the_caller_and_may_be_asked_for_again():
    _, execution = hoisted(HostDevice(), slots=1)
    first = execution.submit([film(1)[0]] * 2)
    kept = execution.result(first)[0].copy()
    execution.run([film(1, seed=5)[0]] * 2)
    assert np.array_equal(execution.result(first)[0], kept)


def test_results_may_be_fetched_by_another_thread():
    _, execution = hoisted(HostDevice(), slots=3)
    ticket, results = execution.submit([film(1)[0]] * 2), []
    threads = [threading.Thread(target=lambda: results.append(execution.result(ticket)[0])) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 3
    assert all(result is results[0] for result in results)


def test_results_may_be_fetched_by_another_thread_while_their_slot_is_asked_for():
    _, execution = hoisted(HostDevice(), slots=1)

    class Fetched(_Slot):
        """Its result is fetched elsewhere as soon as it has been looked whether there is one."""

        @property
        def ticket(self):
            found = _Slot.ticket.__get__(self)
            if found is not None:
                _Slot.ticket.__set__(self, None)
                execution.result(found)
            return found

        @ticket.setter
        def ticket(self, value):
            _Slot.ticket.__set__(self, value)

    frame = film(1)[0]
    first = execution.submit([frame, frame])
    (slot,) = execution._slots
    first.slot = Fetched(**{field.name: getattr(slot, field.name) for field in dataclasses.fields(slot)})
    execution._slots = [first.slot]
    frame = film(1, seed=9)[0]
    assert np.array_equal(execution.run([frame, frame])[0], independent({"input": frame, "average": frame})["output"])


def test_tickets_nobody_asks_for_cost_nothing():
    _, execution = hoisted(HostDevice(), slots=2)
    lost = [weakref.ref(execution.submit([frame, frame])) for frame in film(10)]
    frame = film(1, seed=9)[0]
    assert np.array_equal(execution.run([frame, frame])[0], independent({"input": frame, "average": frame})["output"])
    gc.collect()
    assert sum(ref() is not None for ref in lost) <= 2


def doubled(told=False):
    """A conversion that shows what it was given; the sum of the frame's samples is told to the host."""

    def before(uploaded, inputs, parameters):
        for tensor in inputs.values():
            tensor[...] = uploaded[0]

    def after(uploaded, outputs, made, parameters):
        made[0][...] = outputs["output"] > 127
        made[1][...] = uploaded[0].sum() % 251

    downloads = [Layout(LARGE, "uint8"), Layout((1,), "uint8", told=told)]
    return Conversion([Layout(SHAPE, "uint8")], downloads, before, after)


@pytest.mark.parametrize("lanes", [1, 2])
@pytest.mark.parametrize("seed", range(6))
def test_frames_on_the_device_stay_there(seed, lanes):
    device = HostDevice(seed)
    _, execution = hoisted(device, conversion=doubled(told=True), lanes=lanes)
    frames = [(255 * frame).astype(np.uint8) for frame in film(9, seed)]
    tickets = [execution.submit([on_device(frame)]) for frame in frames]
    for ticket, frame in zip(tickets, frames, strict=True):
        large, told = execution.result(ticket)
        assert isinstance(large, DeviceArray)
        assert not isinstance(told, DeviceArray)
        assert np.array_equal(large, enlarged(frame) * 11.0 > 127)
        assert told[0] == frame.sum() % 251
    assert device.uploaded == 0
    assert device.downloaded == len(frames)  # one byte each
    results = [execution.result(ticket)[0] for ticket in tickets]
    assert len({result.ctypes.data for result in results}) == len(results)  # no slot's buffer goes out


@pytest.mark.parametrize("seed", range(4))
def test_tensors_on_the_device_stay_there(seed):
    device = HostDevice(seed)
    _, execution = hoisted(device, slots=3)
    frames = film(7, seed)
    tickets = [execution.submit([on_device(frame), on_device(2 * frame)]) for frame in frames]
    for ticket, frame in zip(tickets, frames, strict=True):
        (made,) = execution.result(ticket)
        assert isinstance(made, DeviceArray)
        assert np.allclose(made, independent({"input": frame, "average": 2 * frame})["output"])
    assert (device.uploaded, device.downloaded) == (0, 0)


def test_what_crosses_the_bus_is_counted():
    device = HostDevice()
    _, execution = hoisted(device, conversion=doubled(told=True))
    execution.run([np.zeros(SHAPE, np.uint8)])
    assert (device.uploaded, device.downloaded) == (np.prod(SHAPE), np.prod(LARGE) + 1)
    # frames of the host and of the device may take turns
    stayed, told = execution.run([on_device(np.ones(SHAPE, np.uint8))])
    assert isinstance(stayed, DeviceArray)
    assert not isinstance(told, DeviceArray)
    assert (device.uploaded, device.downloaded) == (np.prod(SHAPE), np.prod(LARGE) + 2)


def test_a_frame_on_the_device_is_held_until_all_work_on_it_is_done():
    """Its memory goes back to the decoder when nobody holds it: whoever still reads then reads another picture."""
    device = HostDevice()
    _, execution = hoisted(device, conversion=doubled())
    frame = on_device(np.ones(SHAPE, np.uint8))
    held = weakref.ref(frame)
    ticket = execution.submit([frame])
    del frame
    device.synchronize(ticket.slot.downloaded)  # what is queued no longer refers to it
    gc.collect()
    assert held() is not None
    execution.result(ticket)
    gc.collect()
    assert held() is None

"""What OpenVINO is given: published networks hoisted, odd ones refused, cached models made anew when damaged."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal

import numpy as np
import openvino as ov
import pytest

pytest.importorskip("torch")

import networks

from videosr.engines import Interface, load, openvino_core
from videosr.engines.network import Network
from videosr.errors import NetworkError, UsageError
from videosr.frame import PixelFormat


@pytest.mark.parametrize(
    ("options", "interface"),
    [
        ({}, Interface.AVERAGE),
        ({"scaled_input": True}, Interface.RECURRENT),
        ({"state_used_twice": True}, Interface.RECURRENT),
        ({"heavy": True}, Interface.RECURRENT),
    ],
)
def test_a_published_recurrence_is_hoisted_where_it_can_be(tmp_path, options, interface):
    """That both compute the same is the conformance suite's business."""
    assert load(networks.video(tmp_path / "video.onnx", **options), threads=1).interface is interface


def test_our_export_of_the_published_interface_is_hoisted(paragon):
    assert load(paragon.video, threads=1).interface is Interface.AVERAGE


def test_the_format_of_a_deployed_file_is_complete(paragon):
    network = Network.open(paragon.deploy)
    assert network.metadata["form"] == "deploy"
    assert (network.number("scale", 0), network.number("halo", 0), network.number("reach", 0)) == (2, 8, 7)
    assert PixelFormat.parse("yuv420p").name == "yuv420p"


def test_a_network_that_gives_nothing_is_refused_and_the_next_one_runs(tmp_path):
    """OpenVINO crashes in the second one where the first one's request is released."""
    path = networks.nearest(tmp_path / "nothing.onnx")
    path.write_bytes(path.read_bytes().replace(np.float32(1).tobytes(), bytes(4), 1))
    sound = networks.nearest(tmp_path / "sound.onnx")
    frame = np.zeros((1, 3, 24, 32), np.float32)
    for _ in range(3):
        with pytest.raises(NetworkError, match=r"nothing\.onnx: not an upscaler by a whole factor: .*empty picture"):
            load(path, threads=1)
        assert load(sound, threads=1).run(frame).shape == (1, 3, 48, 64)


def test_names_that_are_no_text_are_refused(tmp_path):
    path = networks.nearest(tmp_path / "named.onnx")
    data = path.read_bytes()
    assert b"constant_0" in data
    path.write_bytes(data.replace(b"constant_0", b"constant_\xff"))
    with pytest.raises(NetworkError, match=r"named\.onnx: OpenVINO cannot read it: .*codec"):
        load(path, threads=1)


@pytest.mark.skipif(openvino_core.fcntl is None, reason="there is no cache without file locks")
def test_damaged_files_of_the_cache_are_made_anew(tmp_path):
    """OpenVINO itself may hang on one."""
    model = ov.Core().read_model(networks.nearest(tmp_path / "network.onnx"))
    cache = tmp_path / "cache"
    cache.mkdir()

    def compiled():
        core = openvino_core.CachingCore(cache)
        assert core.compile_model(model, "CPU", {}).inputs
        return [path.read_bytes() for path in sorted(cache.glob("*.blob"))]

    core = openvino_core.CachingCore(cache)
    shutil.rmtree(cache)  # as by a user who makes room
    assert core.compile_model(model, "CPU", {}).inputs
    cache.mkdir()
    whole = compiled()
    assert len(whole) == 1
    (blob,), (stated,) = cache.glob("*.blob"), cache.glob("*.sum")
    for data in (whole[0][:-1], whole[0][: len(whole[0]) // 2] + bytes(len(whole[0]) // 2), b""):
        blob.unlink()  # OpenVINO takes the right to write from it
        blob.write_bytes(data)
        (made,) = compiled()  # of another length perhaps: OpenVINO writes numbers into it that are not always as long
        assert made != data
        assert stated.read_bytes() == hashlib.blake2b(made).hexdigest().encode()
    stated.unlink()
    before = blob.stat().st_ino, blob.stat().st_mtime_ns
    compiled()
    assert (blob.stat().st_ino, blob.stat().st_mtime_ns) != before
    before = blob.stat().st_ino, blob.stat().st_mtime_ns
    compiled()
    assert (blob.stat().st_ino, blob.stat().st_mtime_ns) == before


@pytest.mark.skipif(openvino_core.fcntl is None, reason="there is no cache without file locks")
def test_a_cache_does_not_grow_with_the_sizes_that_one_process_meets(tmp_path, monkeypatch):
    monkeypatch.setattr(openvino_core, "_KEPT", 2)
    monkeypatch.setattr(openvino_core, "_MOST", 4)
    core = openvino_core.CachingCore(tmp_path)
    path = networks.nearest(tmp_path / "network.onnx")

    def compiled(size):
        model = core.read_model(path)
        model.reshape([1, 3, size, size])
        assert core.compile_model(model, "CPU", {}).inputs
        found = {kind: {path.stem for path in tmp_path.glob(f"*.{kind}")} for kind in ("blob", "sum")}
        assert found["blob"] == found["sum"]
        return found["blob"]

    first = compiled(16)
    for size in range(17, 28):
        assert len(compiled(size)) <= 5
    assert not first & compiled(27)
    assert first < compiled(16), "what went is made again, and vouched for"
    blob = next(tmp_path.glob(f"{first.pop()}.blob"))
    before = blob.stat().st_ino, blob.stat().st_mtime_ns
    compiled(16)
    assert (blob.stat().st_ino, blob.stat().st_mtime_ns) == before


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_process_is_told_that_it_cannot_load(paragon):
    """A child that waits for its parent's threads is ended by an alarm."""
    load(paragon.deploy, engine="openvino")
    child = os.fork()
    if not child:
        signal.alarm(60)
        try:
            load(paragon.deploy, engine="openvino")
        except UsageError as exc:
            os._exit(0 if "spawn" in str(exc) else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0

"""A film made on a real cluster of several nodes: the same bytes as by one process, also when one is killed."""

import os
import shutil
import signal
from pathlib import Path

import pytest
from clips import make_clip
from test_crew import COLOR, Told, make

from videosr import machine
from videosr.distributed.cluster import RayCrew, _Cluster, connected

ray = pytest.importorskip("ray", reason="Ray is not installed")


@pytest.fixture(scope="module")
def cluster():
    """A head without CPUs, and three nodes; one of them is another kind of machine."""
    from ray.cluster_utils import Cluster

    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    node = {"num_cpus": 1, "object_store_memory": 80 << 20}
    made = Cluster(initialize_head=True, head_node_args={**node, "num_cpus": 0, "include_dashboard": False})
    made.first, made.second = made.add_node(**node), made.add_node(**node)
    features = machine.numpy_build().split()[2:]
    made.other = features and made.add_node(**node, env_vars={"NPY_DISABLE_CPU_FEATURES": features[-1]})
    made.wait_for_nodes()
    yield made
    made.shutdown()


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    options = {"preset": "veryfast", "g": "12", "bf": "2", "crf": "30"}
    path = tmp_path_factory.mktemp("clip") / "clip.mkv"
    return make_clip(path, frames=72, noise=4.0, options=options, color=COLOR)


def test_nodes_one_of_which_is_killed_and_one_is_of_another_kind(clip, cluster, tmp_path, monkeypatch):
    make(clip, tmp_path / "alone.mkv")
    told, nodes = Told(), {node.node_id: node for node in (cluster.first, cluster.second)}

    def losing(self, attempt):
        """Kills the first node that has all it needs and says that it has begun a segment."""
        word = following(self, attempt)
        if self._parcels is not None and len(nodes) == 2 and isinstance(word, str) and word in nodes:
            cluster.remove_node(nodes.pop(word), allow_graceful=False)
        return word

    following = _Cluster._next
    monkeypatch.setattr(_Cluster, "_next", losing)
    # A path that other processes do not have: the film is sent to the nodes.
    with clip.open("rb") as file:
        source = Path(f"/proc/self/fd/{file.fileno()}")
        source = source if source.exists() else clip
        result = make(source, tmp_path / "out.mkv", RayCrew(cluster.address), told)
    assert len(nodes) == 1
    assert result.frames == told.done[-1] == 72
    assert (tmp_path / "out.mkv").read_bytes() == (tmp_path / "alone.mkv").read_bytes()
    lost = [line for line in told.warnings if "made again" in line]
    refused = [line for line in told.warnings if "would make other bits and gets no work: numpy: " in line]
    assert 0 < len(lost) <= 2  # what runs on a node of one CPU, and what may wait for it there
    assert len(refused) == bool(cluster.other)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["alone.mkv", "out.mkv"]


def test_a_batch_on_the_cluster(clip, cluster, tmp_path, videosr):
    fast = ("--codec", "libx264", "--preset", "ultrafast", "--frames", "24")
    (tmp_path / "in").mkdir()
    shutil.copy(clip, tmp_path / "in" / "clip.mkv")
    done = videosr("batch", tmp_path / "in", "-o", tmp_path / "out", "--ray", cluster.address, *fast)
    assert done.code == 0, done.err
    assert videosr("upscale", clip, tmp_path / "alone.mkv", *fast).code == 0
    assert (tmp_path / "out" / "clip.mkv").read_bytes() == (tmp_path / "alone.mkv").read_bytes()


def test_nodes_with_another_videosr_get_no_work(clip, cluster, tmp_path, monkeypatch):
    """What they have under that name may be from another year, or nothing of the kind."""
    (tmp_path / "other" / "videosr").mkdir(parents=True)
    (tmp_path / "other" / "videosr" / "__init__.py").write_text('__version__ = "0.0.1"\n')
    environment = {"PYTHONPATH": os.pathsep.join([str(tmp_path / "other"), os.environ.get("PYTHONPATH", "")])}
    other = cluster.add_node(num_cpus=4, object_store_memory=80 << 20, env_vars=environment)
    cluster.wait_for_nodes()
    monkeypatch.chdir(tmp_path)  # nodes look for modules where a run was begun, too
    told = Told()
    try:
        make(clip, tmp_path / "out.mkv", RayCrew(cluster.address), told)
    finally:
        cluster.remove_node(other)
    make(clip, tmp_path / "alone.mkv")
    assert (tmp_path / "out.mkv").read_bytes() == (tmp_path / "alone.mkv").read_bytes()
    (line,) = [line for line in told.warnings if "another version of videosr" in line]
    assert "gets no work: another version of videosr: ModuleNotFoundError: No module named" in line


def test_an_ended_run_ends_as_without_a_cluster(cluster):
    """Ray puts in a SIGTERM handler of its own."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with connected(cluster.address), pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)


def test_nobody_that_can_do_it(clip, cluster, videosr, tmp_path):
    done = videosr("upscale", clip, tmp_path / "out.mkv", "--ray", cluster.address, "--threads", "64")
    assert done.code == 2
    assert "no node of the cluster has 64 CPUs: give fewer --threads" in done.err
    assert list(tmp_path.iterdir()) == []


def test_no_cluster_there(clip, videosr, tmp_path):
    done = videosr("upscale", clip, tmp_path / "out.mkv", "--ray", "127.0.0.1:9")
    assert done.code == 1
    assert "--ray 127.0.0.1:9: nothing answers there: " in done.err

"""Network files read without any inference library, against onnx itself, and against every kind of damage."""

from __future__ import annotations

import hashlib
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

onnx = pytest.importorskip("onnx")
pytest.importorskip("torch")

import networks  # noqa: E402

from videosr.engines.network import PREFIX, Network  # noqa: E402
from videosr.engines.tensorrt_plans import read_network  # noqa: E402
from videosr.errors import NetworkError, UsageError  # noqa: E402
from videosr.frame import FORMATS  # noqa: E402
from videosr.models import registry  # noqa: E402


def with_metadata(path, entries):
    model = onnx.load(networks.nearest(path))
    for key, value in entries.items():
        model.metadata_props.add(key=key, value=value)
    onnx.save(model, path)
    return path


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    return tmp_path_factory.mktemp("network")


@given(entries=st.dictionaries(st.text(max_size=20), st.text(max_size=300), max_size=6))
@settings(max_examples=20)
def test_metadata_is_what_onnx_reads(shared, entries):
    ours = {PREFIX + key: value for key, value in entries.items()}
    path = with_metadata(shared / "metadata.onnx", {"author": "someone", **ours})
    network = Network.open(path)
    assert dict(network.metadata) == entries
    written = {p.key: p.value for p in onnx.load(path).metadata_props}
    assert {PREFIX + k: v for k, v in network.metadata.items()} | {"author": "someone"} == written


def test_identity_is_the_content(paragon):
    network = Network.open(paragon.deploy)
    assert network.sha256 == hashlib.sha256(paragon.deploy.read_bytes()).hexdigest()
    assert network.path == paragon.deploy
    with pytest.raises(TypeError):
        network.metadata["form"] = "image"


@pytest.fixture
def parted(tmp_path):
    """A network whose weights lie in a file beside it, and that file."""
    path, weights = tmp_path / "parted.onnx", tmp_path / "parted.onnx.data"
    model = onnx.load(networks.nearest(path))
    onnx.save(model, path, save_as_external_data=True, location=weights.name, size_threshold=0)
    return path, weights


def test_identity_is_the_content_of_the_weights_beside_it_too(parted):
    path, weights = parted
    before = Network.open(path)
    assert before.beside == (weights,)
    weights.write_bytes(bytes(weights.stat().st_size))  # trained anew: the graph is the same
    assert Network.open(path).sha256 != before.sha256


def test_weights_beside_a_network_that_are_not_there_or_not_whole_are_named(parted):
    path, weights = parted
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1])
    with pytest.raises(NetworkError, match=f"in {weights}, which has {len(whole) - 1} bytes of the {len(whole)} "):
        Network.open(path)
    weights.unlink()
    with pytest.raises(NetworkError, match=f"in {weights}, which is not there; copy both"):
        Network.open(path)


def test_what_tensorrt_cannot_read_is_refused_by_name(parted):
    path, weights = parted
    with pytest.raises(NetworkError, match=f"its weights lie in {weights}, where TensorRT does not look"):
        read_network(Network.open(path), "f32")


def test_a_network_without_a_name_has_its_files(tmp_path):
    assert Network.open(networks.nearest(tmp_path / "some-4x.onnx", 4)).name == "some-4x"
    named = with_metadata(tmp_path / "file.onnx", {PREFIX + "name": "sharp"})
    assert Network.open(named).name == "sharp"


def test_numbers(tmp_path):
    network = Network.open(with_metadata(tmp_path / "n.onnx", {PREFIX + "halo": "8", PREFIX + "reach": "seven"}))
    assert network.number("halo", 0) == 8
    assert network.number("scale", 2) == 2
    with pytest.raises(NetworkError, match=r"n\.onnx.*reach.*seven"):
        network.number("reach", 0)


@given(data=st.binary(max_size=400))
@settings(max_examples=200)
def test_no_bytes_are_too_strange(shared, data):
    path = shared / "strange.onnx"
    path.write_bytes(data)
    with suppress(NetworkError):  # nothing else; a few short strings even are messages with a graph field
        Network.open(path)


@given(cut=st.floats(0, 1), seed=st.integers(0, 2**32))
@settings(max_examples=40)
def test_every_truncation_is_noticed(shared, paragon, cut, seed):
    """Protobuf says no total length, but a file ends in the middle of a field nearly everywhere."""
    data = paragon.deploy.read_bytes()
    path = shared / "cut.onnx"
    path.write_bytes(data[: int(cut * (len(data) - 1))])
    try:
        network = Network.open(path)
    except NetworkError:
        return
    # What is left was a whole number of fields: then the graph is there, and only trailing metadata may be gone.
    onnx.load(path)
    assert dict(network.metadata).items() <= dict(Network.open(paragon.deploy).metadata).items()


@pytest.mark.parametrize("content", [b"", b"text\n" * 50, b"\x89PNG\r\n\x1a\n" + bytes(64), bytes(4096), b"\xff" * 64])
def test_other_files_are_refused(tmp_path, content):
    path = tmp_path / "other.onnx"
    path.write_bytes(content)
    with pytest.raises(NetworkError, match=r"other\.onnx.*not an ONNX network"):
        Network.open(path)


def test_a_checkpoint_is_told_what_to_do(paragon):
    with pytest.raises(NetworkError, match="videosr export"):
        Network.open(paragon.weights)


def test_what_cannot_be_read_is_named(tmp_path):
    with pytest.raises(NetworkError, match=r"missing\.onnx"):
        Network.open(tmp_path / "missing.onnx")
    with pytest.raises(NetworkError, match=str(tmp_path)):
        Network.open(tmp_path)


def test_a_file_too_large_is_refused_unread(tmp_path):
    path = tmp_path / "huge.onnx"
    with path.open("wb") as file:
        file.truncate((1 << 31) + 1)  # sparse: takes no room
    with pytest.raises(NetworkError, match="2 GiB"):
        Network.open(path)


def test_constants_are_those_that_onnx_reads(paragon, tmp_path):
    model = onnx.load(paragon.deploy)
    wanted = {i.name: onnx.numpy_helper.to_array(i) for i in model.graph.initializer if i.data_type == 1}
    assert len(wanted) > 20
    for tensor in model.graph.initializer:  # the other way to write numbers down
        if tensor.name.endswith("bias"):
            tensor.float_data[:] = wanted[tensor.name]
            tensor.ClearField("raw_data")
    onnx.save(model, tmp_path / "other.onnx")
    for path in (paragon.deploy, tmp_path / "other.onnx"):
        found = Network.open(path).constants()
        assert found.keys() == wanted.keys()
        assert all(np.array_equal(found[name], values.ravel()) for name, values in wanted.items())


def test_constants_of_a_damaged_graph_are_refused(paragon, tmp_path):
    model = onnx.load(paragon.deploy)
    data = model.SerializeToString().replace(b"conv_in.weight", b"\xff" * 14)
    (tmp_path / "bad.onnx").write_bytes(data)
    with pytest.raises(NetworkError, match=r"bad\.onnx: not an ONNX network that can be read"):
        Network.open(tmp_path / "bad.onnx").constants()


# The registry


def test_shipped_models_are_found_by_name():
    models = {m.name: m for m in registry.shipped()}
    assert registry.DEFAULT in models
    for name, model in models.items():
        assert registry.find(name) == model.path
        network = Network.open(model.path)
        assert network.metadata["form"] == "deploy"
        assert model.scale == network.number("scale", 0) >= 2
        assert network.metadata["license"] not in ("", "unknown")
        assert model.about


def test_what_a_choice_stands_for_is_shipped():
    scales = {m.name: m.scale for m in registry.shipped()}
    for model, choices in registry.CHOICES.items():
        assert {scales[name] for names in choices.values() for name in names} == set(choices)
        assert registry.find(model) == registry.find(choices[2][0])


def test_files_are_found_by_path(paragon, tmp_path, monkeypatch):
    assert registry.find(str(paragon.deploy)) == paragon.deploy
    monkeypatch.chdir(paragon.deploy.parent)
    assert registry.find(paragon.deploy.name).samefile(paragon.deploy)


def test_cheaper_networks_are_smaller_and_enlarge_as_much(paragon):
    assert registry.cheaper("light-2x", 2) == []
    assert registry.cheaper("realtime-4x", 4) == []
    assert registry.cheaper(registry.DEFAULT, 2) == ["light-2x"]
    assert registry.cheaper(registry.DEFAULT, 2, gpu=True) == []
    assert registry.cheaper("realtime-2x-video", 2) == ["light-2x-video"]
    assert registry.cheaper("fine-2x-anime", 2) == ["realtime-2x-video", "light-2x-video"]
    assert registry.cheaper(str(paragon.deploy), 2, gpu=True) == [registry.DEFAULT]
    names = registry.cheaper(str(paragon.deploy), 2)
    assert registry.DEFAULT in names
    sizes = [registry.find(name).stat().st_size for name in names]
    assert sizes == sorted(sizes, reverse=True)


@pytest.mark.parametrize("name", ["no-such-model", "../models/realtime-2x", "realtime-2x.onnx.onnx", "", "\0"])
def test_unknown_models_are_refused_with_the_known_ones(name):
    with pytest.raises(UsageError, match=registry.DEFAULT):
        registry.find(name)


def test_who_makes_chroma_is_in_the_metadata(shared, tmp_path):
    plain = Network.open(with_metadata(tmp_path / "plain.onnx", {}))
    apart = Network.open(with_metadata(tmp_path / "apart.onnx", {PREFIX + "chroma": "interpolated"}))
    wrong = Network.open(with_metadata(tmp_path / "wrong.onnx", {PREFIX + "chroma": "guessed"}))
    half, full, rgb, gray = (FORMATS[name] for name in ("yuv420p", "yuv444p", "gbrp", "gray"))
    assert [apart.chroma_apart(half, to) for to in (half, full, rgb, gray)] == [True, True, False, False]
    assert not any(apart.chroma_apart(source, half) for source in (full, rgb, gray))
    assert not plain.chroma_apart(half, half)
    with pytest.raises(NetworkError, match=r"wrong\.onnx: metadata videosr\.chroma='guessed' is not network or"):
        wrong.chroma_apart(half, half)

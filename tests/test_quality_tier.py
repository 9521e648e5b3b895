"""The quality tier (photo, pro, NEXUS) from its weights to an upscaled clip: exported, tiled, in every engine."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnx")

import av  # noqa: E402
from clips import make_clip  # noqa: E402

from videosr.archs import checkpoint, nexus, paragonsr2  # noqa: E402
from videosr.archs.families import Start, family_of  # noqa: E402
from videosr.engines import Interface, Network, load  # noqa: E402
from videosr.errors import UsageError  # noqa: E402
from videosr.export import export  # noqa: E402
from videosr.media.decoder import Decoder  # noqa: E402
from videosr.options import UpscaleOptions  # noqa: E402
from videosr.temporal import Mode  # noqa: E402
from videosr.upscaler import Upscaler  # noqa: E402

TIER = ("photo", "pro", "nexus_tiny")
WINDOW, TILE = 4, 136  # the smallest tiles with windows of 4


@pytest.fixture(scope="module")
def tier(tmp_path_factory):
    """A shallow network of each kind with random weights that leave their mark: checkpoint and ONNX file by variant."""
    folder, made = tmp_path_factory.mktemp("tier"), {}
    with pytest.MonkeyPatch.context() as patch:
        for name in ("photo", "pro"):
            patch.setitem(paragonsr2.VARIANTS, name, replace(paragonsr2.VARIANTS[name], groups=1, blocks=2))
        patch.setitem(nexus.VARIANTS, "nexus_tiny", nexus.VariantSpec(16, (2, 2), 4))
        for variant in TIER:
            torch.manual_seed(7)
            network = family_of(variant).new(variant, 2, Start(detail_gain=0.5))
            network.window_size = WINDOW
            for module in network.modules():
                if isinstance(module, paragonsr2.WindowAttention):
                    module.window_size, module.shift = WINDOW, module.shift and WINDOW // 2
            if variant == "nexus_tiny":
                network = nexus.Nexus(variant, 2, window_size=WINDOW)
            weights, output = folder / f"{variant}.safetensors", folder / f"{variant}.onnx"
            checkpoint.save(weights, network, name=variant, training="none: random weights", license="MIT")
            made[variant] = weights, output, export(weights, output)
        yield made


def psnr(a, b):
    return 10 * np.log10(1 / np.mean((a.astype(np.float64) - b) ** 2))


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """Three noisy frames, wider than a tile."""
    path = tmp_path_factory.mktemp("clip") / "clip.mkv"
    return make_clip(path, frames=3, width=200, height=48, codec="ffv1", noise=3.0)


@pytest.mark.parametrize("variant", TIER)
def test_the_exported_network_says_how_it_is_to_be_tiled(tier, variant):
    _, output, report = tier[variant]
    metadata = Network.open(output).metadata
    assert metadata == report.metadata
    assert "reach" not in metadata
    assert metadata["window_size"] == str(WINDOW)
    form = "image" if variant == "nexus_tiny" else "deploy"
    assert (metadata["variant"], metadata["form"], metadata["halo"]) == (variant, form, "8")
    assert ("alpha" in metadata) == (variant != "nexus_tiny")
    assert len(report.lines()) == 6


@pytest.mark.parametrize("variant", TIER)
def test_every_engine_gives_the_same_picture_tiled_or_not(tier, variant):
    pytest.importorskip("onnxruntime")
    weights, output, _ = tier[variant]
    rng = np.random.default_rng(0)
    frame, average = rng.random((2, 1, 3, 50, 203), np.float32)
    outputs = {}
    for name, path in (("openvino", output), ("onnxruntime", output), ("torch", weights)):
        engine = load(path, name, precision="f32", threads=1)
        assert engine.interface is (Interface.IMAGE if variant == "nexus_tiny" else Interface.AVERAGE)
        inputs = (frame,) if variant == "nexus_tiny" else (frame, average)
        upscaler = Upscaler(UpscaleOptions(tile=TILE), engine)
        assert upscaler.tiling.grid == WINDOW
        outputs[name] = engine.run(*inputs), upscaler.tiling.run(engine.run, 2, *inputs)
    whole, tiled = outputs.pop("openvino")
    for other_whole, other_tiled in outputs.values():
        assert np.abs(whole - other_whole).max() < 1e-4
        assert np.abs(tiled - other_tiled).max() < 1e-4
    assert np.any(whole != tiled)
    assert psnr(whole, tiled) > 45


@pytest.mark.parametrize("variant", TIER)
def test_tiles_do_not_depend_on_order(tier, variant, clip):
    """One frame at a time, in any order, or as a sequence: the same bits, tiled as whole."""
    engine = load(tier[variant][1], precision="f32", threads=1)
    with Decoder(clip) as decoder:
        frames = list(decoder)
    made = {}
    for tile in (TILE, 0):
        upscaler = Upscaler(UpscaleOptions(tile=tile, temporal=Mode.ADAPTIVE), engine)
        made[tile] = [f for frame in frames for f in upscaler.process(frame)] + list(upscaler.flush())
        for i in (2, 0, 1):
            again = upscaler.picture(frames[: i + 1])
            assert all(np.array_equal(a, b) for a, b in zip(again.planes, made[tile][i].planes, strict=True))
    # The hoisted form takes the average of the window; an image network has no place for one.
    off = Upscaler(UpscaleOptions(tile=0, temporal=Mode.OFF), engine).picture(frames)
    assert np.array_equal(off.planes[0], made[0][2].planes[0]) == (variant == "nexus_tiny")


@pytest.mark.parametrize("variant", TIER)
def test_a_clip_goes_through(tier, variant, clip, tmp_path, videosr):
    output = tmp_path / "out.mkv"
    command = ("upscale", clip, output, "--model", tier[variant][1], "--tile", TILE, "--codec", "ffv1", "--threads", 1)
    ended = videosr(*command)
    assert ended.code == 0, ended.err
    with av.open(output) as container:
        pictures = [p.to_ndarray()[:96] for p in container.decode(video=0)]
    assert [p.shape for p in pictures] == [(96, 400)] * 3
    engine = load(tier[variant][1], threads=1)
    upscaler = Upscaler(UpscaleOptions(tile=TILE, model=str(tier[variant][1])), engine)
    with Decoder(clip) as decoder:
        frames = list(decoder)
    assert np.array_equal(upscaler.picture(frames).planes[0], pictures[2])
    still = tmp_path / "still.png"
    assert videosr("upscale", clip, still, "--model", tier[variant][1], "--tile", TILE, "--frames", 1).code == 0
    with av.open(still) as container:
        assert next(container.decode(video=0)).width == 400


def test_no_runner_takes_whole_what_is_to_be_cut(tier, clip, monkeypatch):
    engine = load(tier["photo"][1], precision="f32", threads=1)
    asked = []
    monkeypatch.setattr(engine, "planar", lambda source, *_: asked.append(source.width))
    with Decoder(clip) as decoder:
        frame = next(iter(decoder))
    for tile in (TILE, 0, 200):
        Upscaler(UpscaleOptions(tile=tile), engine).picture([frame])
    assert asked == [200, 200]  # not with tiles of 136


def test_identities_name_the_tiles(tier, paragon):
    engine = load(tier["pro"][1], precision="f32", threads=1)
    identities = {Upscaler(UpscaleOptions(tile=tile), engine).identity for tile in (None, 384, 0, 200)}
    assert len(identities) == 3  # 384 is the default
    assert any("tiles 200, overlap 64 blended, grid 4" in identity for identity in identities)
    with pytest.raises(UsageError, match="give --tile 136 or more, or 0"):
        Upscaler(UpscaleOptions(tile=100), engine)
    with pytest.raises(UsageError, match="tiles of -1 pixels"):
        UpscaleOptions(tile=-1)
    # A state has the size of the picture.
    assert "no tiles" in Upscaler(UpscaleOptions(tile=200), load(paragon.video, "onnxruntime", threads=1)).identity
    # What a pixel sees is known: tiles are cut, and nothing is lost.
    for name, path in (("onnxruntime", paragon.deploy), ("torch", paragon.weights)):
        engine = load(path, name, precision="f32", threads=1)
        x = np.random.default_rng(1).random((1, 3, 40, 150), np.float32)
        tiling = Upscaler(UpscaleOptions(tile=64), engine).tiling
        assert (tiling.overlap, tiling.blend) == (14, False)
        assert np.abs(tiling.run(engine.run, 2, x) - engine.run(x)).max() < 1e-5


@pytest.mark.parametrize("variant", TIER)
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_tensorrt_rtx_builds_engines(tier, variant, precision, tmp_path):
    """For the tiles of one film, which are all of one size; no GPU is needed to build."""
    pytest.importorskip("tensorrt_rtx")
    from videosr.engines.tensorrt_builder import Definition, Shapes
    from videosr.engines.tensorrt_library import Library

    output = tmp_path / "net.onnx"
    export(tier[variant][0], output, precision=precision)
    definition = Definition(Library("tensorrt_rtx"), output.read_bytes(), output.name)
    assert (definition.scale, definition.multiple) == (2, 1)
    assert definition.build(Shapes.fixed(48, 64), capability=(8, 6))[0]

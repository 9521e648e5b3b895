"""A file's way with every frame on the GPU, on the stand-ins for its memory and for its decoder."""

from __future__ import annotations

import threading
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("torch")

import hostnvdec
from clips import make_clip
from hostdevice import DeviceArray, HostDevice, on_device

from videosr import look
from videosr.arrays import frame_of, picture_of
from videosr.engines import NotFinite
from videosr.engines import torch as torch_engine
from videosr.engines.choice import AUTO, Wish, choose
from videosr.engines.torch import TorchEngine
from videosr.errors import UsageError
from videosr.film import Film, TranscodeOptions
from videosr.graph import Graph, NullSink
from videosr.media.codecs import EncoderSettings
from videosr.media.decoder import Decoder
from videosr.models import registry
from videosr.options import UpscaleOptions
from videosr.progress import Progress
from videosr.temporal import Mode
from videosr.transcode import transcode
from videosr.upscaler import Upscaler

FRAMES, WIDTH, HEIGHT = 8, 64, 48
OPTIONS = TranscodeOptions(encoder=EncoderSettings(codec="ffv1"), upscale=UpscaleOptions(device="cuda"))


class Eager:
    """Stands in for a CUDA graph of torch's."""

    def __init__(self, net, inputs, output):
        self.replay = lambda: output.copy_(net(*inputs))


@pytest.fixture
def engine(monkeypatch):
    """An engine on the stand-in, which is what `auto` finds."""
    device = HostDevice(3)
    monkeypatch.setattr(torch_engine, "_Recorded", Eager)
    monkeypatch.setattr(torch_engine, "_on_stream", lambda place: device.launched)
    weights = registry.find(registry.DEFAULT).with_suffix(".safetensors")
    made = TorchEngine(weights, precision="f32", threads=1, gpu=device)
    found = made, Wish(engine="torch", device="cuda"), "computes on the stand-in"
    monkeypatch.setattr("videosr.upscaler.choose", lambda path, wish: found)
    return made


@pytest.fixture
def clip(tmp_path):
    return make_clip(tmp_path / "in.mkv", frames=FRAMES, width=WIDTH, height=HEIGHT, noise=2.0, options={"bf": "2"})


def decoded(path):
    with Decoder(path) as decoder:
        return list(decoder)


def made(clip, output, options=OPTIONS):
    transcode(clip, output, options, Progress("", quiet=True))
    return decoded(output)


def test_no_frame_is_uploaded_and_the_file_is_the_same(engine, clip, tmp_path, monkeypatch):
    wanted = made(clip, tmp_path / "host.mkv")  # decoded on the CPU: there is no NVDEC
    uploaded, downloaded = engine.device.uploaded, engine.device.downloaded
    assert uploaded > 0
    hostnvdec.install(monkeypatch)
    frames = made(clip, tmp_path / "gpu.mkv")
    assert engine.device.uploaded == uploaded
    size = WIDTH * HEIGHT * 4 * 3 // 2
    assert engine.device.downloaded - downloaded == FRAMES * (size + 1)  # a byte says "finite"
    assert len(frames) == FRAMES
    for frame, other in zip(frames, wanted, strict=True):
        assert frame.pts == other.pts
        assert frame.same_picture(other)


def test_to_a_sink_that_forgets_nothing_crosses_the_bus(engine, clip, monkeypatch):
    hostnvdec.install(monkeypatch)
    kept = []

    class Sink(NullSink):
        def write(self, frame):
            kept.append(frame)

    with Decoder(clip, device=0) as decoder:
        Graph(decoder, [("upscale", Upscaler())], Sink()).run()
    assert (engine.device.uploaded, engine.device.downloaded) == (0, FRAMES)
    assert all(frame.on_gpu and isinstance(frame.planes[0], DeviceArray) for frame in kept)
    assert [(frame.width, frame.height) for frame in kept] == [(2 * WIDTH, 2 * HEIGHT)] * FRAMES


def test_frames_on_the_gpu_are_looked_at_ahead(engine, clip, monkeypatch):
    """In a thread of its own, in order, before the frames in front of them are asked for."""
    hostnvdec.install(monkeypatch)
    seen, plain = [], look.look_at

    def watched(frame, before, cut=None, device=None):
        seen.append((frame.pts, before and before.frame.pts, threading.current_thread().name))
        return plain(frame, before, cut, device)

    monkeypatch.setattr(look, "look_at", watched)
    upscaler, made = Upscaler(), []
    with Decoder(clip, device=0) as decoder:
        frames = list(decoder)
    upscaler.remember(frames[0])
    upscaler.remember(frames[1])
    for frame in frames[2:]:
        made += upscaler.process(frame)
    assert len(made) < FRAMES - 2 - upscaler._in_flight  # one more than those that are being enlarged
    made += upscaler.flush()
    times = [frame.pts for frame in frames]
    assert [frame.pts for frame in made] == times[2:]
    assert [entry[:2] for entry in seen] == list(zip(times, [None, *times], strict=False))
    assert all(thread.startswith("videosr-look") for _, _, thread in seen)
    again = [*upscaler.process(frames[2]), *upscaler.flush()]  # a new sequence: nothing is before it
    assert seen[-1][1] is None
    alone = Upscaler().picture(frames[:3])
    assert alone.same_picture(made[0])
    assert len(again) == 1


def test_tiles_that_are_asked_for_are_made_on_the_gpu(engine, clip, tmp_path, monkeypatch):
    """Each takes the memory of a tile; the picture is the same to a code."""
    hostnvdec.install(monkeypatch)
    whole, sizes, run = made(clip, tmp_path / "whole.mkv"), [], engine.run

    def watched(frame, average=None):
        sizes.append(frame.shape[2:])
        return run(frame, average)

    monkeypatch.setattr(engine, "run", watched)
    small = replace(OPTIONS, upscale=replace(OPTIONS.upscale, tile=60))
    for frame, other in zip(made(clip, tmp_path / "tiles.mkv", small), whole, strict=True):
        for plane, sample in zip(frame.planes, other.planes, strict=True):
            assert np.abs(plane.astype(int) - sample).max() <= 1
    assert sizes
    assert max(max(size) for size in sizes) <= 60


class Strict(DeviceArray):
    """Refuses to be computed with together with an array of the host, as cupy's do."""

    def __array_ufunc__(self, ufunc, method, *inputs, **options):
        if any(type(a) is np.ndarray and a.ndim for a in inputs):
            raise TypeError("Unsupported type <class 'numpy.ndarray'>")
        made = getattr(ufunc, method)(*(np.asarray(a) if isinstance(a, Strict) else a for a in inputs), **options)
        return made.view(Strict) if isinstance(made, np.ndarray) else made


def test_a_film_goes_on_where_the_gpu_s_decoder_gives_up(engine, tmp_path, monkeypatch):
    """The first frame of the host is looked at beside the last one of the GPU, and averaged with it."""
    clip = make_clip(tmp_path / "long.mkv", frames=24, width=WIDTH, height=HEIGHT, noise=2.0, options={"bf": "2"})
    wanted = made(clip, tmp_path / "host.mkv")
    monkeypatch.setattr(hostnvdec, "DeviceArray", Strict)
    monkeypatch.setattr(engine.device, "holds", lambda array: isinstance(array, DeviceArray))
    hostnvdec.install(monkeypatch, lambda number, surface, frame: frame if number >= 16 else surface)
    uploaded = engine.device.uploaded
    frames = made(clip, tmp_path / "mixed.mkv")
    assert len(frames) == 24
    assert engine.device.uploaded > uploaded  # more than none: frames of the host came too
    for frame, other in zip(frames, wanted, strict=True):
        for plane, sample in zip(frame.planes, other.planes, strict=True):
            assert np.abs(plane.astype(int) - sample).max() <= 1


@pytest.mark.parametrize(
    ("encoder", "height", "stages"),
    [("libx264", None, True), ("h264_nvenc", None, False), ("h264_nvenc", 72, True)],
)
def test_frames_come_to_the_host_only_for_those_who_need_them_there(engine, clip, monkeypatch, encoder, height, stages):
    monkeypatch.setattr("videosr.media.codecs._try_open", lambda settings, info: None)
    options = TranscodeOptions(encoder=EncoderSettings(codec=encoder), height=height)
    with Film(clip, "matroska", options) as film:
        assert ("download" in [name for name, _ in film._stages]) is stages
        assert film.upscaler.chosen == "computes on the stand-in"
        assert (film.options.upscale.engine, film.options.upscale.device) == ("torch", "cuda")
        assert ("Stand-in" in film.job["encoders"]) is (encoder == "h264_nvenc")


def test_a_frame_on_the_gpu_is_not_for_an_engine_of_the_cpu():
    upscaler = Upscaler(UpscaleOptions(engine="openvino"))
    frame = frame_of(np.zeros((3, 16, 16), np.uint8))
    frame = frame.with_planes(tuple(map(on_device, frame.planes)))
    with pytest.raises(UsageError, match="frame is on the GPU and openvino computes on the CPU: give --device cuda"):
        list(upscaler.process(frame))


@pytest.mark.parametrize("mode", list(Mode))
def test_every_temporal_mode_and_format_leaves_frames_where_they_are(engine, mode):
    """Modes and formats that have no kernels of their own go as tensors, on the GPU too."""
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 255, (3, 24, 32), np.uint8) for _ in range(3)]
    results = []
    for place in (np.array, on_device):
        upscaler = Upscaler(UpscaleOptions(temporal=mode))
        frames = [frame_of(picture, pts=i) for i, picture in enumerate(pictures)]
        placed = [frame.with_planes(tuple(map(place, frame.planes))) for frame in frames]
        large = [f for frame in placed for f in upscaler.process(frame)]
        results.append([picture_of(f) for f in (*large, *upscaler.flush())])
    for a, b in zip(*results, strict=True):
        assert np.array_equal(a, b)


def test_an_engine_without_float32_is_mended_on_the_cpu(engine, monkeypatch):
    """The cuda engine has half precision alone."""

    def fail(self, ticket):
        raise NotFinite("NaN")

    def load_exact(path, wish):
        assert wish.precision == "f32"
        if wish.engine != AUTO:
            raise UsageError(f"precision f32 of the {wish.engine} engine is not one of auto, f16")
        return choose(registry.find(registry.DEFAULT), wish)

    monkeypatch.setattr(engine, "precision", "f16")
    monkeypatch.setattr("videosr.engines.gpu_planes.PlanesRunner.result", fail)
    upscaler = Upscaler()
    monkeypatch.setattr("videosr.upscaler.choose", load_exact)
    picture = np.random.default_rng(0).integers(0, 255, (3, 16, 24), np.uint8)
    frame = frame_of(picture)
    placed = frame.with_planes(tuple(map(on_device, frame.planes)))
    (large,) = [*upscaler.process(placed), *upscaler.flush()]
    assert upscaler.mended == 1
    assert not large.on_gpu
    exact = Upscaler(UpscaleOptions(), choose(registry.find(registry.DEFAULT), Wish(device="cpu", precision="f32"))[0])
    (wanted,) = [*exact.process(frame), *exact.flush()]
    assert np.abs(picture_of(large).astype(int) - picture_of(wanted)).max() <= 1


@pytest.mark.gpu
@pytest.mark.parametrize("device", ["cuda", "cuda:0"])
def test_a_file_on_the_gpu(tmp_path, device):
    clip = make_clip(tmp_path / "in.mkv", frames=FRAMES, width=320, height=256, options={"bf": "2"})
    options = TranscodeOptions(encoder=EncoderSettings(codec="ffv1"), upscale=UpscaleOptions(device=device))
    with Film(clip, "matroska", options) as film:
        assert film.decoder.on_device, film.decoder.warnings
        assert film.upscaler.engine.device is not None
    frames = made(clip, tmp_path / "gpu.mkv", options)
    on_cpu = made(clip, tmp_path / "cpu.mkv", TranscodeOptions(encoder=EncoderSettings(codec="ffv1"), upscale=CPU))
    for frame, other in zip(frames, on_cpu, strict=True):
        assert frame.pts == other.pts
        difference = np.abs(frame.planes[0].astype(int) - other.planes[0])
        assert (difference <= 1).mean() > 0.999


CPU = UpscaleOptions(device="cpu")

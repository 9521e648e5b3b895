"""Decoding on the GPU: what can be had without one.

A stand-in (`hostnvdec`) gives pictures as NVDEC does. Tests marked `gpu` run the real thing.
"""

from __future__ import annotations

import gc
import sys
from fractions import Fraction
from functools import partial
from types import SimpleNamespace

import av
import numpy as np
import pytest
from clips import VFR_PTS, make_clip
from hostdevice import DeviceArray
from hostnvdec import SEMIPLANAR, Surface, host_reader, install

from videosr.errors import InputError, MissingExtraError
from videosr.frame import Frame, PixelFormat
from videosr.media import nvdec, pictures
from videosr.media.decoder import Decoder
from videosr.media.planes import PlaneReader

B_FRAMES = {"bf": "3", "b_strategy": "0", "g": "8"}


@pytest.fixture
def nvdec_stand_in(monkeypatch):
    """Makes `Decoder(..., device=0)` decode on the stand-in."""
    return partial(install, monkeypatch)


def everything(path, **options) -> tuple[list[Frame], Decoder]:
    with Decoder(path, **options) as decoder:
        return list(decoder), decoder


def assert_same(frames, wanted, kind=np.ndarray) -> None:
    assert len(frames) == len(wanted)
    for frame, other in zip(frames, wanted, strict=True):
        for plane, sample in zip(frame.planes, other.planes, strict=True):
            assert type(plane) is kind
            assert plane.dtype == sample.dtype
            assert plane.flags.c_contiguous
            assert np.array_equal(plane, sample)
        for name in set(Frame.__dataclass_fields__) - {"planes"}:
            assert getattr(frame, name) == getattr(other, name), name


@pytest.mark.parametrize("name", ["nv12", "p010le"])
@pytest.mark.parametrize("size", [(48, 64), (50, 70), (16, 48)])
def test_planes_are_taken_out_of_the_gpu_s_layouts(name, size):
    planar = {v: k for k, v in SEMIPLANAR.items() if not k.startswith("yuvj")}[name]
    fmt = PixelFormat.parse(planar)
    rng = np.random.default_rng(0)
    source = av.VideoFrame(size[1], size[0], planar)
    for plane in source.planes:
        samples = rng.integers(0, 1 << fmt.bits, plane.buffer_size // fmt.dtype.itemsize).astype(fmt.dtype)
        plane.update(samples.tobytes())
    wanted = PlaneReader().read(source, fmt)
    surface = Surface(source)
    planes = host_reader().read(surface, fmt)
    # the picture is dropped, and its memory used for something else
    memory = [np.from_dlpack(nvdec._Shared(plane)).base for plane in surface.planes]
    del source, surface, memory
    gc.collect()
    junk = [np.full(size, 255, np.uint8) for _ in range(20)]
    assert all(type(plane) is DeviceArray and plane.flags.c_contiguous for plane in planes)
    assert all(np.array_equal(plane, other) for plane, other in zip(planes, wanted, strict=True))
    del junk


CLIPS = {
    "h264": {"options": B_FRAMES},
    "variable rate": {"pts": VFR_PTS, "options": B_FRAMES},
    "full range": {"color": (5, 2, 5, 6, 2)},
    "hevc 10 bits": {"codec": "libx265", "pix_fmt": "yuv420p10le"},
    "vp9": {"codec": "libvpx-vp9"},
    "av1": {"codec": "libsvtav1", "width": 128, "height": 128},
}


@pytest.mark.parametrize("kind", CLIPS)
def test_frames_are_those_of_the_cpu_in_all_but_where_they_lie(tmp_path, nvdec_stand_in, kind):
    path = make_clip(tmp_path / "a.mkv", **CLIPS[kind])
    wanted, reference = everything(path)
    nvdec_stand_in()
    frames, decoder = everything(path, device=0)
    assert decoder.on_device
    assert_same(frames, wanted, DeviceArray)
    assert decoder.info == reference.info
    assert decoder.warnings == reference.warnings
    part, _ = everything(path, device=0, start=wanted[4].time, frames=3)
    assert_same(part, wanted[4:7], DeviceArray)


def test_rotation_and_colour_come_along(tmp_path, nvdec_stand_in):
    path = make_clip(tmp_path / "a.mp4", color=(9, 1, 9, 16, 3), rotation=90)
    _, reference = everything(path)
    nvdec_stand_in()
    _, decoder = everything(path, device=0)
    assert decoder.info == reference.info
    assert decoder.info.color.primaries == 9
    assert decoder.display_matrix == reference.display_matrix


UNFIT = {
    "another codec": ({"codec": "mpeg4"}, "mpeg4 may differ"),
    "lossless": ({"codec": "ffv1"}, "ffv1 may differ"),
    "4:2:2": ({"pix_fmt": "yuv422p"}, "yuv422p"),
    "4:4:4": ({"pix_fmt": "yuv444p"}, "yuv444p"),
    "12 bits": ({"codec": "libx265", "pix_fmt": "yuv420p12le"}, "yuv420p12le"),
    "odd size": ({"codec": "libvpx-vp9", "width": 63, "height": 47}, "63x47"),
}


@pytest.mark.parametrize("kind", UNFIT)
def test_what_nvdec_is_not_for_is_decoded_on_the_cpu(tmp_path, nvdec_stand_in, kind):
    options, reason = UNFIT[kind]
    path = make_clip(tmp_path / "a.mkv", **options)
    wanted, reference = everything(path)
    nvdec_stand_in()
    frames, decoder = everything(path, device=0)
    assert not decoder.on_device
    assert_same(frames, wanted)
    (said,) = set(decoder.warnings) - set(reference.warnings)
    assert said.startswith("decoded on the CPU: ")
    assert reason in said


@pytest.fixture
def pyav_with_hwaccel(monkeypatch):
    """What PyAV does to a decoder's context that is made for hardware, but for the hardware."""

    def create(codec, mode, hwaccel):
        context = av.CodecContext.create(codec, mode)
        context.pix_fmt = "cuda"
        return context

    there = SimpleNamespace(CodecContext=SimpleNamespace(create=create), VideoCodecContext=av.VideoCodecContext)
    monkeypatch.setattr(nvdec, "av", there)


@pytest.mark.usefixtures("pyav_with_hwaccel")
def test_av1_is_decoded_by_ffmpeg_s_own_decoder(tmp_path, monkeypatch):
    """PyAV takes dav1d. The other one does nothing without hardware: it refuses, as where a GPU knows no AV1.

    It only looks for hardware where the context does not say already that its pictures are there.
    """
    path = make_clip(tmp_path / "a.mkv", codec="libsvtav1", width=128, height=128)
    wanted, reference = everything(path)
    used = []

    def own(stream, found):
        used.append(nvdec.decoder_of(stream, found))
        assert used[-1].extradata == stream.codec_context.extradata
        return used[-1]

    monkeypatch.setattr(pictures, "acceleration", lambda index: None)
    monkeypatch.setattr(pictures, "cuda_reader", lambda index: host_reader())
    monkeypatch.setattr(pictures, "decoder_of", own)
    frames, decoder = everything(path, device=0)
    assert [context.codec.name for context in used] == ["av1"]
    assert_same(frames, wanted)
    (said,) = set(decoder.warnings) - set(reference.warnings)
    assert said.startswith("decoded on the CPU: this GPU's NVDEC does not take av1")
    part, _ = everything(path, device=0, start=wanted[4].time, frames=3)
    assert_same(part, wanted[4:7])


def test_other_streams_are_decoded_by_their_own_context(tmp_path):
    with av.open(str(make_clip(tmp_path / "a.mkv", options=B_FRAMES))) as container:
        stream = container.streams.video[0]
        assert nvdec.decoder_of(stream, None) is stream.codec_context


def test_deinterlacing_is_done_on_the_cpu(tmp_path, nvdec_stand_in):
    from videosr.media.deinterlace import Plan

    path = make_clip(tmp_path / "a.mkv")
    nvdec_stand_in()
    frames, decoder = everything(path, device=0, deinterlace=Plan(order="tff"))
    assert type(frames[0].planes[0]) is np.ndarray
    assert "decoded on the CPU, where deinterlacing is done" in decoder.warnings


@pytest.mark.parametrize("number", [0, 3, 20])
def test_what_this_gpu_cannot_do_is_decoded_on_the_cpu_from_there(tmp_path, nvdec_stand_in, number):
    """FFmpeg gives pictures of the host where the GPU refuses a profile or a size."""
    path = make_clip(tmp_path / "a.mkv", frames=30, options=B_FRAMES)
    wanted, _ = everything(path)
    nvdec_stand_in(lambda n, surface, frame: frame if n >= number else surface)
    frames, decoder = everything(path, device=0)
    kinds = [type(frame.planes[0]) for frame in frames]
    switched = kinds.index(np.ndarray)
    assert switched <= number
    assert_same(frames[:switched], wanted[:switched], DeviceArray)
    assert_same(frames[switched:], wanted[switched:])
    assert not decoder.on_device
    (said,) = (text for text in decoder.warnings if "CPU" in text)
    assert "this GPU's NVDEC does not take h264" in said


def test_pictures_cropped_at_the_left_are_decoded_on_the_cpu(tmp_path, nvdec_stand_in):
    path = make_clip(tmp_path / "a.mkv", options=B_FRAMES)
    wanted, _ = everything(path)
    nvdec_stand_in(lambda n, surface, frame: Surface(frame, crop=8))
    frames, decoder = everything(path, device=0)
    assert_same(frames, wanted)
    assert any("cropped at the left" in text for text in decoder.warnings)


def test_pictures_that_pyav_does_not_give_away_are_decoded_on_the_cpu(tmp_path, nvdec_stand_in):
    class Closed:
        def __dlpack__(self):
            raise NotImplementedError("unsupported sw_format for DLPack export")

    class Other(Surface):
        planes = (Closed(), Closed())

    path = make_clip(tmp_path / "a.mkv", frames=30, options=B_FRAMES)
    wanted, _ = everything(path)
    nvdec_stand_in(lambda n, surface, frame: Other(frame) if n >= 20 else surface)
    frames, decoder = everything(path, device=0)
    switched = [type(frame.planes[0]) for frame in frames].index(np.ndarray)
    assert 0 < switched <= 20
    assert_same(frames[:switched], wanted[:switched], DeviceArray)
    assert_same(frames[switched:], wanted[switched:])
    (said,) = (text for text in decoder.warnings if "CPU" in text)
    assert said.endswith("away on the GPU: unsupported sw_format for DLPack export")


def test_what_is_no_damage_is_not_called_so(tmp_path, monkeypatch, nvdec_stand_in):
    path = make_clip(tmp_path / "a.mkv", options=B_FRAMES)
    wanted, reference = everything(path)
    nvdec_stand_in()
    decoded = pictures.Pictures._decoded

    def failing(self, packet):
        if self.on_device:
            raise av.error.ArgumentError(22, "Invalid argument")
        return decoded(self, packet)

    monkeypatch.setattr(pictures.Pictures, "_decoded", failing)
    frames, decoder = everything(path, device=0)
    assert_same(frames, wanted)
    assert set(decoder.warnings) - set(reference.warnings) == {"decoded on the CPU: NVDEC fails: Invalid argument"}


def test_damaged_video_gives_the_frames_of_the_cpu(tmp_path, nvdec_stand_in):
    path = make_clip(tmp_path / "a.mkv", frames=48, width=320, height=192, options=B_FRAMES | {"qp": "20"})
    data = bytearray(path.read_bytes())
    for position in np.random.default_rng(3).integers(len(data) // 4, len(data), 12):
        data[position] ^= 0x55
    path.write_bytes(data)
    wanted, reference = everything(path)
    assert any("damaged" in text for text in reference.warnings)
    nvdec_stand_in()
    frames, decoder = everything(path, device=0)
    assert type(frames[0].planes[0]) is DeviceArray
    assert not decoder.on_device
    assert [frame.pts for frame in frames] == [frame.pts for frame in wanted]
    assert all(
        np.array_equal(np.asarray(a), b)
        for frame, other in zip(frames, wanted, strict=True)
        for a, b in zip(frame.planes, other.planes, strict=True)
    )
    assert set(decoder.warnings) - set(reference.warnings) == {"decoded on the CPU: the video is damaged"}


def no_cuda() -> bool:
    try:
        nvdec.acceleration(0)
    except InputError:
        return True
    return False


@pytest.mark.skipif(not no_cuda(), reason="there is a GPU")
def test_without_a_gpu_the_cpu_decodes_and_that_is_said_once(tmp_path):
    path = make_clip(tmp_path / "a.mkv", options=B_FRAMES)
    wanted, reference = everything(path)
    with pytest.raises(InputError, match=r"FFmpeg cannot use CUDA device 0 \(.+\); see videosr doctor"):
        nvdec.acceleration(0)
    frames, decoder = everything(path, device=0, start=Fraction(0))
    assert_same(frames, wanted)
    (said,) = set(decoder.warnings) - set(reference.warnings)
    assert said.startswith("decoded on the CPU: FFmpeg cannot use CUDA device 0")


class FakeCuda:
    """cupy, as far as contexts go: which device's is current in this thread."""

    class CUDARuntimeError(RuntimeError):
        pass

    def __init__(self, broken: bool = False) -> None:
        self.said: list[str] = []
        self.runtime = SimpleNamespace(CUDARuntimeError=self.CUDARuntimeError, free=self.free)
        self.broken = broken

    def Device(self, index):  # noqa: N802 - as it is called there
        return SimpleNamespace(use=lambda: self.said.append(f"current {index}"))

    def free(self, address):
        if self.broken:
            raise self.CUDARuntimeError("cudaErrorNoDevice: no CUDA-capable device is detected")
        self.said.append(f"free {address}")


def test_ffmpeg_works_in_the_context_that_is_there_already(monkeypatch):
    """Its option for the primary context refuses one that an engine has made before."""
    cuda = FakeCuda()
    monkeypatch.setitem(sys.modules, "cupy", SimpleNamespace(cuda=cuda))
    tried = []
    monkeypatch.setattr(nvdec, "HWDevice", lambda *given: tried.append((list(cuda.said), *given)))
    found = nvdec.acceleration(1)
    options = {"primary_ctx": "0", "current_ctx": "1"}
    assert tried == [(["current 1", "free 0"], "cuda", "1", options)]
    assert found.options == options  # PyAV asks for the primary context where nothing is said of it
    assert (found.is_hw_owned, found.device_id) == (True, 1)


def test_a_context_that_cannot_be_made_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", SimpleNamespace(cuda=FakeCuda(broken=True)))
    with pytest.raises(
        InputError, match=r"FFmpeg cannot use CUDA device 0 \(cudaErrorNoDevice.+\); see videosr doctor"
    ):
        nvdec.acceleration(0)


def test_a_missing_cupy_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)
    with pytest.raises(MissingExtraError, match=r"decoding on the GPU.*--extra cuda "):
        nvdec.cuda_reader(0)


@pytest.mark.gpu
@pytest.mark.parametrize("kind", CLIPS)
def test_nvdec_gives_the_frames_of_the_cpu(tmp_path, kind):
    import cupy

    if kind == "av1" and (
        int(cupy.cuda.Device(0).compute_capability) < 86 or cupy.cuda.Device(0).compute_capability == "90"
    ):
        pytest.skip("GPUs before the GeForce 30 series, and A100, H100 and H200, know no AV1")
    path = make_clip(tmp_path / "a.mkv", **(CLIPS[kind] | {"width": 320, "height": 256}))
    wanted, _ = everything(path)
    frames, decoder = everything(path, device=0)
    assert decoder.on_device, decoder.warnings
    del decoder
    gc.collect()
    cupy.get_default_memory_pool().free_all_blocks()
    for frame, other in zip(frames, wanted, strict=True):
        assert frame.pts == other.pts
        for plane, sample in zip(frame.planes, other.planes, strict=True):
            assert isinstance(plane, cupy.ndarray)
            assert np.array_equal(plane.get(), sample)

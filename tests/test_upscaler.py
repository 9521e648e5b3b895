"""The core: order does not matter, scenes begin fresh, repeats are not computed, and frames keep all but their size."""

from __future__ import annotations

import hashlib
import os
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from fractions import Fraction
from functools import cache

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import networks  # noqa: E402

from videosr import color, temporal  # noqa: E402
from videosr.engines import Engine, load  # noqa: E402
from videosr.errors import UsageError  # noqa: E402
from videosr.frame import FORMATS, ColorSpec, Frame, Matrix, Range, Siting, StreamInfo  # noqa: E402
from videosr.look import look_at  # noqa: E402
from videosr.options import OnNan, UpscaleOptions  # noqa: E402
from videosr.temporal import HISTORY, Mode  # noqa: E402
from videosr.upscaler import Upscaler  # noqa: E402

HEIGHT, WIDTH = 50, 70
LEFT = ColorSpec(matrix=Matrix.BT709, range=Range.LIMITED, siting=Siting.LEFT)
RGB = ColorSpec(matrix=Matrix.RGB, range=Range.FULL)


@pytest.fixture(scope="module")
def engine(paragon):
    return load(paragon.deploy, threads=2)


def scene(seed, format="yuv420p"):
    """Planes of a wide textured picture, float in [0, 1]."""
    rng, fmt = np.random.default_rng(seed), FORMATS[format]
    planes = []
    for i in range(fmt.planes):
        rows, columns = fmt.plane_shape(i, HEIGHT, WIDTH + 60)
        y, x = np.mgrid[:rows, :columns]
        waves = sum(
            np.sin(rng.uniform(0.05, 0.5) * x + rng.uniform(0.05, 0.5) * y + rng.uniform(0, 6)) for _ in range(5)
        )
        blocks = np.kron(rng.random((rows // 10 + 1, columns // 10 + 1)), np.ones((10, 10)))[:rows, :columns]
        planes.append(0.5 + (0.04 * waves + 0.25 * (blocks - 0.5)) * (1 if i == 0 else 0.4))
    return planes


def shot(base, t, pts, format="yuv420p", noise=3.0, spec=LEFT, **fields):
    """The frame of a scene that pans a pixel or two a frame, with fresh noise of so many 8-bit codes."""
    fmt, rng = FORMATS[format], np.random.default_rng(1000 + pts)
    top, planes = (1 << fmt.bits) - 1, []
    for i, plane in enumerate(base[: fmt.planes]):
        columns = fmt.plane_shape(i, HEIGHT, WIDTH)[1]
        start = 2 * t if columns == WIDTH else t
        value = plane[:, start : start + columns] + rng.normal(0, noise / 255, (plane.shape[0], columns))
        planes.append(np.clip(np.rint(value * top), 0, top).astype(fmt.dtype))
    return Frame(
        planes=tuple(planes),
        format=fmt,
        pts=pts,
        duration=1,
        time_base=Fraction(1, 25),
        color=color.converted(spec, fmt, fmt),
        **fields,
    )


def clip():
    """25 noisy moving frames: a cut, a stretch on twos, a scene of a single frame, a still."""
    first, second, third, fourth = (scene(s) for s in range(4))
    frames = [shot(first, t, t) for t in range(9)]
    for t in range(4):
        drawn = shot(second, t, 9 + 2 * t)
        frames += [drawn, replace(drawn, pts=10 + 2 * t)]
    frames.append(shot(third, 0, 17))
    frames += [shot(fourth, t, 18 + t) for t in range(4)]
    frames += [replace(frames[-1], pts=22 + t) for t in range(3)]
    assert [f.pts for f in frames] == list(range(25))
    return frames


CUTS = {0, 9, 17, 18}


def digest(frame):
    planes = hashlib.sha256(b"".join(np.ascontiguousarray(p).tobytes() for p in frame.planes)).hexdigest()
    return planes, frame.format.name, frame.color, frame.pts, frame.scene_start


def picture_of(frame):
    return digest(frame)[0]


def upscale(upscaler, frames):
    return [out for frame in frames for out in upscaler.process(frame)] + list(upscaler.flush())


def options(mode, **more):
    return UpscaleOptions(temporal=mode, **more)


@cache
def upscaler_of(engine, mode, denoise=0.0):
    """One for many tests: what it keeps from one to the next must not show."""
    return Upscaler(options(mode, denoise=denoise), engine)


MODES = [(mode, 0.0) for mode in Mode] + [(Mode.ADAPTIVE, 0.5)]


@pytest.mark.parametrize(("mode", "denoise"), MODES)
def test_order_does_not_matter(engine, mode, denoise):
    """Sequential, from any start with enough history, and at random: the same bits."""
    frames = clip()
    upscaler = upscaler_of(engine, mode, denoise)
    sequential = [digest(f) for f in upscale(upscaler, frames)]
    assert len(sequential) == len(frames)
    order = np.random.default_rng(5).permutation(len(frames))
    for i in order:
        history = frames[: i + 1]
        if i < HISTORY:
            assert digest(upscaler.picture(history)) == sequential[i]
        else:
            assert digest(upscaler.picture(history[-HISTORY:])) == sequential[i]
            assert i not in (8, 14, 20) or digest(upscaler.picture(history)) == sequential[i]
    # A chunk that is given HISTORY - 1 frames of run-up joins without a seam.
    for start in (5, 11, 20):
        joined = upscale(upscaler, frames[max(0, start - HISTORY + 1) :])[-(len(frames) - start) :]
        assert [digest(f) for f in joined] == sequential[start:]


def test_frames_may_be_begun_in_any_order_and_finished_by_other_threads(engine):
    frames = clip()
    sequential = [digest(f) for f in upscale(upscaler_of(engine, Mode.ADAPTIVE), frames)]
    upscaler = Upscaler(options(Mode.ADAPTIVE), engine)
    seen = [look_at(frames[0], None)]
    for frame in frames[1:]:
        seen.append(look_at(frame, seen[-1]))
    recent, finished = deque(maxlen=3), {}
    with ThreadPoolExecutor(4) as pool:
        for i in np.random.default_rng(6).permutation(len(frames)):
            recent.append(upscaler.begin(seen[max(0, i - HISTORY + 1) : i + 1], recent))
            finished[i] = pool.submit(upscaler.finish, recent[-1])
    assert [digest(finished[i].result()) for i in range(len(frames))] == sequential
    assert upscaler.reused  # on twos, in whatever order


def test_cuts_that_are_known_are_believed():
    frames = clip()
    first = look_at(frames[7], None)
    assert first.cut
    assert look_at(frames[8], first, cut=True).cut
    assert look_at(frames[9], look_at(frames[8], first)).cut
    assert not look_at(frames[9], look_at(frames[8], first), cut=False).cut
    same = replace(frames[7], pts=8)
    assert look_at(same, first, cut=False).repeat
    fresh = look_at(same, first, cut=True)
    assert (fresh.cut, fresh.repeat) == (True, False)
    recoloured = replace(frames[8], color=replace(LEFT, range=Range.FULL))
    assert look_at(recoloured, first, cut=False).cut


@pytest.mark.parametrize(("mode", "denoise"), MODES)
def test_scenes_begin_fresh(engine, mode, denoise):
    frames = clip()
    upscaler = upscaler_of(engine, mode, denoise)
    results = upscale(upscaler, frames)
    assert {f.pts for f in results if f.scene_start} == CUTS
    off = upscaler_of(engine, Mode.OFF)
    for i in CUTS:
        # Alone: no history, and no temporal mode at all, so nothing of the scene before can be in it.
        assert picture_of(results[i]) == picture_of(upscaler.picture([frames[i]]))
        if mode is Mode.ADAPTIVE and not denoise:
            assert picture_of(results[i]) == picture_of(off.picture([frames[i]]))
    if mode is not Mode.OFF:
        assert picture_of(results[5]) != picture_of(upscaler.picture([frames[5]]))


@pytest.mark.parametrize(
    "change",
    [
        lambda planes: tuple(p.astype(np.float64) for p in planes),
        lambda planes: tuple(p.astype(np.uint16) for p in planes),
        lambda planes: planes[:2],
        lambda planes: (),
        lambda planes: (planes[0], planes[0], planes[0]),
        lambda planes: tuple(p[:0] for p in planes),
        lambda planes: tuple(np.stack([p] * 3, axis=2) for p in planes),
        lambda planes: tuple(p.tolist() for p in planes),
    ],
)
def test_planes_that_are_not_of_the_format_are_refused(engine, change):
    """They would be read as another picture, or fail somewhere inside."""
    frame = shot(scene(1), 0, 0)
    upscaler = upscaler_of(engine, Mode.OFF)
    wrong = replace(frame, planes=change(frame.planes))
    with pytest.raises(UsageError, match=r"a frame in yuv420p takes planes of uint8 .*, not "):
        list(upscaler.process(wrong))
    with pytest.raises(UsageError, match="takes planes of uint8"):
        upscaler.picture([wrong])
    assert len([*upscaler.process(frame), *upscaler.flush()]) == 1, "the next one is taken"


def test_repeats_are_counted_and_not_computed(engine):
    frames = clip()
    for mode in (Mode.OFF, Mode.ADAPTIVE):
        counting = Counting(engine)
        upscaler = Upscaler(options(mode), counting)
        results = upscale(upscaler, frames)
        # A long still slowly pushes older frames out of the window; on twos every repeat is free.
        assert upscaler.reused >= 6
        assert upscaler.reused + counting.submitted == len(frames)
        for i in (10, 12, 14, 16):
            assert picture_of(results[i]) == picture_of(results[i - 1])
        assert [f.pts for f in results] == list(range(25))


class Counting:
    """An engine that counts what is asked of it."""

    def __init__(self, engine: Engine) -> None:
        self._engine, self.submitted = engine, 0

    def __getattr__(self, name):
        return getattr(self._engine, name)

    def planar(self, *args):
        runner, outer = self._engine.planar(*args), self

        class Runner:
            in_flight = runner.in_flight

            def submit(self, frames, threshold):
                outer.submitted += 1
                return runner.submit(frames, threshold)

            def result(self, ticket):
                return runner.result(ticket)

        return Runner()


def test_adaptive_leaves_a_clean_clip_alone_and_calms_a_noisy_one(engine):
    base = scene(1)
    for noise, changes in ((0.0, False), (4.0, True)):
        frames = [shot(base, 0, t, noise=noise) for t in range(6)]
        plain = [f.planes[0].astype(int) for f in upscale(upscaler_of(engine, Mode.OFF), frames)]
        calm = [f.planes[0].astype(int) for f in upscale(upscaler_of(engine, Mode.ADAPTIVE), frames)]
        assert any(not np.array_equal(a, b) for a, b in zip(plain, calm, strict=True)) == changes
        if changes:
            flicker = [np.abs(x[5] - x[4]).mean() for x in (plain, calm)]
            assert flicker[1] < flicker[0]


def test_denoising_comes_nearer_to_the_clean_picture(engine):
    base = scene(1)
    frames = [shot(base, 0, t, noise=5.0) for t in range(6)]
    clean = upscaler_of(engine, Mode.OFF).picture([shot(base, 0, 0, noise=0.0)])
    errors = []
    for denoise in (0.0, 0.5, 1.0):
        out = upscale(upscaler_of(engine, Mode.ADAPTIVE, denoise), frames)[-1]
        errors.append(np.square(out.planes[0].astype(float) - clean.planes[0]).mean())
    assert errors[0] > 1.1 * errors[1] > 1.1 * errors[2]


def test_ema_is_the_published_recursion(paragon):
    """Over a dozen frames of one scene, against torch's feature recursion, in 16 bits."""
    base = scene(2, "gbrp16le")
    frames = [shot(base, t, t, "gbrp16le", noise=2.0, spec=RGB) for t in range(12)]
    features, upscaler = None, Upscaler(UpscaleOptions(temporal=Mode.EMA), load(paragon.video, precision="f32"))
    for frame, out in zip(frames, upscale(upscaler, frames), strict=True):
        rgb = np.stack([p.astype(np.float32) / 65535 for p in frame.planes])[None]
        with torch.no_grad():
            wanted, features = paragon.model.forward_video(torch.from_numpy(rgb), features)
        codes = np.clip(wanted[0].numpy() * 65535, 0, 65535)
        assert np.abs(np.stack(out.planes) - codes).max() <= 1.5 + 65535 * 1e-5


# What a frame keeps


def test_frames_come_in_order_with_all_that_travels(engine):
    base = scene(3)
    tags = replace(LEFT, primaries=5, transfer=6)
    frames = [
        shot(base, t, 7 * t, spec=tags, sar=Fraction(8, 9), key=t == 0, side_data=(("n", bytes([t])),))
        for t in range(9)
    ]
    upscaler = upscaler_of(engine, Mode.ADAPTIVE)
    counts = []
    results = []
    for frame in frames:
        made = list(upscaler.process(frame))
        counts.append(len(made))
        results += made
    held = len(frames) - len(results)
    assert 1 <= held <= 4  # some stay in flight, so that the engine is never idle
    results += upscaler.flush()
    for frame, out in zip(frames, results, strict=True):
        assert (out.height, out.width) == (2 * HEIGHT, 2 * WIDTH)
        kept = replace(out, planes=frame.planes, scene_start=False)
        for field in ("pts", "duration", "time_base", "format", "color", "sar", "key", "side_data", "interlaced"):
            assert getattr(kept, field) == getattr(frame, field)
        assert all(p.dtype == frame.format.dtype for p in out.planes)


def test_flush_ends_the_sequence(engine):
    frames = clip()[:6]
    upscaler = upscaler_of(engine, Mode.ADAPTIVE)
    first = [digest(f) for f in upscale(upscaler, frames)]
    assert list(upscaler.flush()) == []
    again = upscale(upscaler, frames)
    assert [digest(f) for f in again] == first
    after = upscale(upscaler, frames[3:])
    assert after[0].scene_start
    assert picture_of(after[0]) == picture_of(upscaler.picture([frames[3]]))


def test_inputs_are_not_written_to(engine):
    frames = clip()[:10]
    for frame in frames:
        for plane in frame.planes:
            plane.setflags(write=False)
    for mode in Mode:
        upscale(upscaler_of(engine, mode), frames)


def test_output_info_is_what_comes_out(engine):
    for source, target in (("yuv420p", None), ("yuv422p10le", "yuv420p"), ("gbrp", "yuv444p")):
        spec = RGB if source == "gbrp" else LEFT
        frame = shot(scene(0, source), 0, 0, source, spec=spec)
        upscaler = Upscaler(options(Mode.OFF, pix_fmt=target), engine)
        info = StreamInfo(width=WIDTH, height=HEIGHT, format=frame.format, time_base=Fraction(1, 25), color=frame.color)
        said = upscaler.output_info(info)
        (made,) = upscale(upscaler, [frame])
        assert (said.width, said.height, said.format, said.color) == (made.width, made.height, made.format, made.color)
        assert made.format.name == (target or source)


# Formats


def reference(engine, frame, target, spec, dither):
    rgb = color.to_rgb(frame.planes, frame.format, frame.color)
    return color.from_rgb(engine.run(rgb[None])[0], FORMATS[target], spec, dither=dither)


@pytest.mark.parametrize(
    ("source", "target"), [("yuv420p10le", "yuv420p"), ("gbrp12le", "yuv444p"), ("gray16le", "gray")]
)
def test_fewer_bits_are_dithered(engine, source, target):
    spec = RGB if source.startswith("g") else LEFT
    upscaler = Upscaler(options(Mode.OFF, pix_fmt=target), engine)
    frame = shot(scene(4, source), 0, 0, source, spec=spec)
    (made,) = upscale(upscaler, [frame])
    wanted = reference(engine, frame, target, made.color, dither=True)
    assert all(np.array_equal(a, b) for a, b in zip(made.planes, wanted, strict=True))
    rounded = reference(engine, frame, target, made.color, dither=False)
    differing = np.mean(made.planes[0] != rounded[0])
    assert 0.1 < differing < 0.5
    assert abs(np.mean(made.planes[0].astype(float) - rounded[0])) < 0.05


def test_as_many_bits_are_rounded(engine):
    frame = shot(scene(4), 0, 0)
    (made,) = upscale(upscaler_of(engine, Mode.OFF), [frame])
    luma = reference(engine, frame, "yuv420p", made.color, dither=False)[0]
    inner = np.s_[16:-16, 16:-16]
    assert np.abs(luma.astype(int) - made.planes[0])[inner].max() <= 1


def test_rgb_becomes_tagged_yuv_and_the_reverse(engine):
    frame = shot(scene(5, "gbrp"), 0, 0, "gbrp", spec=RGB)
    (made,) = upscale(Upscaler(options(Mode.OFF, pix_fmt="yuv420p"), engine), [frame])
    assert (made.color.matrix, made.color.range, made.color.siting) == (Matrix.BT709, Range.LIMITED, Siting.LEFT)
    luma = reference(engine, frame, "yuv420p", made.color, dither=False)[0]
    assert np.abs(luma.astype(int) - made.planes[0]).max() <= 1
    frame = shot(scene(5), 0, 0)
    (made,) = upscale(Upscaler(options(Mode.OFF, pix_fmt="gbrp"), engine), [frame])
    assert (made.color.matrix, made.color.range) == (Matrix.RGB, Range.FULL)


@pytest.mark.parametrize(
    ("source", "mode"), [("yuva420p", Mode.ADAPTIVE), ("gbrap", Mode.OFF), ("yuva444p10le", Mode.EMA)]
)
def test_alpha_is_enlarged_beside_the_network(engine, source, mode):
    spec = RGB if source == "gbrap" else LEFT
    opaque = source.replace("a", "", 1)
    base = scene(6, source)
    frames = [shot(base, t, t, source, spec=spec) for t in range(3)]
    results = upscale(upscaler_of(engine, mode), frames)
    bare = [f.with_planes(f.planes[:-1], FORMATS[opaque]) for f in frames]
    without = upscale(upscaler_of(engine, mode), bare)
    for frame, out, other in zip(frames, results, without, strict=True):
        assert out.format.name == source
        *colours, alpha = out.planes
        assert np.array_equal(alpha, color.resize_plane(frame.planes[-1], frame.format, 2, out.format))
        assert all(np.array_equal(a, b) for a, b in zip(colours, other.planes, strict=True))


def test_alpha_is_kept_if_there_is_any_and_room_for_it(engine):
    with_alpha, without = shot(scene(6, "yuva420p"), 0, 0, "yuva420p"), shot(scene(6), 0, 0)
    (a,) = upscale(Upscaler(options(Mode.OFF, pix_fmt="yuva444p10le"), engine), [with_alpha])
    assert a.format.name == "yuva444p10le"
    assert len(a.planes) == 4
    (b,) = upscale(Upscaler(options(Mode.OFF, pix_fmt="yuva444p10le"), engine), [without])
    assert b.format.name == "yuv444p10le"
    (c,) = upscale(Upscaler(options(Mode.OFF, pix_fmt="yuv420p"), engine), [with_alpha])
    assert len(c.planes) == 3


@pytest.mark.parametrize("mode", [Mode.ADAPTIVE, Mode.EMA])
def test_the_size_may_change_in_mid_stream(engine, mode):
    frames = [shot(scene(7), t, t) for t in range(4)]
    small = [f.with_planes(tuple(p[: -(-len(p) // 2), : -(-p.shape[1] // 2)] for p in f.planes)) for f in frames]
    small = [replace(f, pts=4 + f.pts) for f in small]
    upscaler = upscaler_of(engine, mode)
    results = upscale(upscaler, [*frames, *small, *frames])
    assert [(f.height, f.width) for f in results] == [(100, 140)] * 4 + [(50, 70)] * 4 + [(100, 140)] * 4
    assert [f.scene_start for f in results] == ([True] + [False] * 3) * 3
    assert picture_of(results[4]) == picture_of(upscaler.picture(small[:1]))
    assert [picture_of(f) for f in results[8:]] == [picture_of(f) for f in results[:4]]


@pytest.mark.parametrize(("mode", "change"), [(Mode.ADAPTIVE, "format"), (Mode.ADAPTIVE, "range"), (Mode.EMA, "range")])
def test_what_codes_mean_may_change_in_mid_stream(engine, mode, change):
    """Codes of another depth, or of another range, are not averaged with those before."""
    frames = [shot(scene(7), 0, t) for t in range(3)]
    if change == "format":
        other = [shot(scene(7), 0, t, "yuv420p10le") for t in range(3)]
    else:
        other = [replace(f, color=replace(f.color, range=Range.FULL)) for f in frames]
    upscaler = upscaler_of(engine, mode)
    results = upscale(upscaler, frames + other)
    assert picture_of(results[3]) == picture_of(upscaler.picture(other[:1]))
    assert results[3].scene_start
    assert not results[4].scene_start


# Other networks


def test_image_networks_know_no_time(paragon):
    frames = clip()[:5]
    upscaler = Upscaler(options(Mode.ADAPTIVE), load(paragon.image, precision="f32", threads=1))
    assert upscaler.mode is Mode.OFF
    results = upscale(upscaler, frames)
    for frame, out in zip(frames, results, strict=True):
        assert picture_of(out) == picture_of(upscaler.picture([frame]))
        wanted = reference(upscaler.engine, frame, "yuv420p", out.color, dither=False)
        assert all(np.array_equal(a, b) for a, b in zip(out.planes, wanted, strict=True))
    denoising = Upscaler(options(Mode.ADAPTIVE, denoise=1.0), upscaler.engine)
    assert denoising.mode is Mode.ADAPTIVE
    assert picture_of(upscale(denoising, frames)[-1]) != picture_of(results[-1])


def test_networks_in_half_precision_work_on_planes_too(paragon):
    frame = clip()[0]
    (half,) = upscale(Upscaler(options(Mode.OFF), load(paragon.half, threads=1)), [frame])
    (full,) = upscale(Upscaler(options(Mode.OFF), load(paragon.deploy, threads=1)), [frame])
    inner = np.s_[16:-16, 16:-16]
    for a, b in zip(half.planes, full.planes, strict=True):
        assert np.abs(a.astype(int) - b)[inner].max() <= 1


def test_recurrent_networks_take_frames_in_order_alone(tmp_path):
    engine = load(networks.video(tmp_path / "video.onnx", state_used_twice=True), precision="f32", threads=1)
    frames = clip()
    upscaler = upscaler_of(engine, Mode.ADAPTIVE)
    assert upscaler.mode is Mode.OFF
    with pytest.raises(UsageError, match="in order"):
        upscaler.picture(frames[:3])
    results = upscale(upscaler, frames)
    assert [f.pts for f in results] == [f.pts for f in frames]
    for i in CUTS:
        (alone,) = upscale(upscaler, frames[i : i + 1])
        assert picture_of(alone) == picture_of(results[i])
    (alone,) = upscale(upscaler, frames[5:6])
    assert picture_of(alone) != picture_of(results[5])


# Options


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ({"denoise": -0.1}, "-0.1"),
        ({"denoise": 1.5}, "1.5"),
        ({"denoise": float("nan")}, "nan"),
        ({"denoise": 0.5, "temporal": Mode.OFF}, "--temporal"),
        ({"denoise": 0.5, "temporal": "off"}, "--temporal"),
        ({"temporal": "often"}, "temporal 'often' is not one of off, ema, adaptive"),
        ({"on_nan": "black"}, "on_nan 'black' is not one of fail, bicubic"),
        ({"threads": 0}, "threads 0 is not positive"),
    ],
)
def test_impossible_options_are_refused(bad, said):
    with pytest.raises(UsageError, match=said):
        UpscaleOptions(**bad)


def test_modes_may_be_given_by_their_names():
    options = UpscaleOptions(temporal="ema", on_nan="bicubic")
    assert options.temporal is Mode.EMA
    assert options.on_nan is OnNan.BICUBIC


def test_a_picture_needs_a_frame(engine):
    with pytest.raises(UsageError, match="at least one frame"):
        Upscaler(engine=engine).picture([])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize("way", ["process", "flush", "picture"])
def test_a_forked_process_is_told_to_make_its_own(way, paragon):
    """The engine is one that would not hang there, so that without the refusal the test ends as well."""
    upscaler, frame = Upscaler(engine=load(paragon.deploy, engine="onnxruntime", threads=1)), clip()[0]
    upscale(upscaler, [frame])
    use = {
        "process": lambda: list(upscaler.process(frame)),
        "flush": lambda: list(upscaler.flush()),
        "picture": lambda: upscaler.picture([frame]),
    }[way]
    child = os.fork()
    if not child:
        try:
            use()
        except UsageError as exc:
            os._exit(0 if "make one in every process" in str(exc) else 1)
        finally:
            os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert len(upscale(upscaler, [frame])) == 1  # the process that made it goes on


def test_unknown_models_and_formats_are_refused(engine):
    with pytest.raises(UsageError, match="no-such-model"):
        Upscaler(UpscaleOptions(model="no-such-model"))
    with pytest.raises(ValueError, match="nv12"):
        upscale(Upscaler(UpscaleOptions(pix_fmt="nv12"), engine), clip()[:1])


def test_the_identity_tells_settings_apart(engine):
    settings = [
        UpscaleOptions(temporal=Mode.OFF),
        UpscaleOptions(temporal=Mode.EMA),
        UpscaleOptions(),
        UpscaleOptions(denoise=0.5),
        UpscaleOptions(pix_fmt="yuv444p"),
    ]
    identities = {Upscaler(s, engine).identity for s in settings}
    assert len(identities) == len(settings)
    assert all(engine.identity in i for i in identities)


def test_the_default_model_is_shipped():
    upscaler = Upscaler(UpscaleOptions(threads=1))
    assert upscaler.scale == 2
    assert upscaler.mode is Mode.ADAPTIVE
    (out,) = upscale(upscaler, clip()[:1])
    assert (out.height, out.width) == (2 * HEIGHT, 2 * WIDTH)
    # It enlarges the picture that it is given: halved again it is nearly that.
    small = out.planes[0].reshape(HEIGHT, 2, WIDTH, 2).mean(axis=(1, 3))
    assert np.abs(small - clip()[0].planes[0]).mean() < 3


def test_depth_and_history_are_what_the_laws_say():
    assert 4 <= temporal.DEPTH <= temporal.HISTORY <= 8

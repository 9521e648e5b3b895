"""What is known of encoders beside what FFmpeg says: a person's choice of settings, and what segments depend on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from videosr.frame import Matrix, Range

THREADS = "8"
"""Threads of every encoder: fixed, because x264's and x265's output depends on the number."""
KEYFRAME_DISTANCE = "250"

ALIASES = {
    "h264": "libx264",
    "x264": "libx264",
    "h265": "libx265",
    "hevc": "libx265",
    "x265": "libx265",
    "av1": "libsvtav1",
    "svtav1": "libsvtav1",
    "vp9": "libvpx-vp9",
    "prores": "prores_ks",
}

_X26_PRESETS = (
    "ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower", "veryslow", "placebo",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class Family:
    """What is known of one encoder.

    Attributes:
        crf: (lowest, highest, default), None where the encoder has no such scale.
        presets: allowed values of `--preset`, () where there is none.
        preset: default.
        preset_option: name of the encoder option the preset is.
        options: other options a person would set.
        quality: name of the encoder option that the crf is.
        constant: options that go with it, where constant quality has to be asked for.
        formats: the encoder's own pixel formats by the planar ones of the same samples; None: FFmpeg's list is right.
        params: name of the option that holds the encoder library's own KEY=VALUE:... list.
        forced: entries of that list that segments and reproducible output depend on.
        even: odd sizes are refused where chroma is subsampled.
        lookahead: frames each preset looks ahead.
        color: fields of `ColorSpec` that readers of its pictures assume, whatever a file says.
    """

    crf: tuple[float, float, float] | None = None
    presets: tuple[str, ...] = ()
    preset: str = ""
    preset_option: str = "preset"
    options: Mapping[str, str]
    quality: str = "crf"
    constant: Mapping[str, str] = field(default_factory=dict)
    formats: Mapping[str, str] | None = None
    params: str = ""
    forced: Mapping[str, str] | None = None
    even: bool = False
    lookahead: Mapping[str, int] | None = None
    color: Mapping[str, Range | Matrix] = field(default_factory=dict)


def _nvenc(crf: tuple[float, float, float], deep: Mapping[str, str]) -> Family:
    """An encoder of NVIDIA's GPUs. Every keyframe is an IDR picture, so groups of pictures are closed."""
    return Family(
        crf=crf,
        presets=("p1", "p2", "p3", "p4", "p5", "p6", "p7"),
        preset="p5",
        options={"g": KEYFRAME_DISTANCE, "tune": "hq", "forced-idr": "1"},
        quality="cq",
        constant={"rc": "vbr", "b": "0"},  # NVENC's constant quality is a mode of its variable bit rate
        formats={"yuv420p": "yuv420p", **deep},
        even=True,
    )


_COMMON = {"threads": THREADS, "g": KEYFRAME_DISTANCE}
FAMILIES: dict[str, Family] = {
    "libx264": Family(
        crf=(0, 51, 17),
        presets=_X26_PRESETS,
        preset="medium",
        options=_COMMON,
        params="x264-params",
        forced={"open-gop": "0"},
        even=True,
        lookahead=dict(zip(_X26_PRESETS, (0, 0, 10, 20, 30, 40, 50, 60, 60, 60), strict=True)),
    ),
    "libx265": Family(
        crf=(0, 51, 18),
        presets=_X26_PRESETS,
        preset="medium",
        options=_COMMON,
        params="x265-params",
        # info=0: the encoder would write the machine's CPU features into the stream.
        forced={"open-gop": "0", "frame-threads": "3", "info": "0", "log-level": "none"},
        even=True,
        lookahead=dict(zip(_X26_PRESETS, (5, 10, 15, 15, 15, 20, 25, 40, 40, 60), strict=True)),
    ),
    "libsvtav1": Family(
        crf=(1, 63, 24),
        presets=tuple(str(p) for p in range(-1, 14)),
        preset="6",
        options={"g": KEYFRAME_DISTANCE},
        params="svtav1-params",
        forced={"lp": "4"},
    ),
    "libvpx-vp9": Family(
        crf=(0, 63, 24),
        presets=tuple(str(p) for p in range(9)),
        preset="2",
        preset_option="cpu-used",
        options={**_COMMON, "deadline": "good", "row-mt": "1", "lag-in-frames": "25", "auto-alt-ref": "1"},
    ),
    "ffv1": Family(options={"threads": THREADS, "g": "1", "level": "3", "slicecrc": "1"}),
    "prores_ks": Family(options={"threads": THREADS}, color={"range": Range.LIMITED}),
    "dnxhd": Family(options={"threads": THREADS}, color={"matrix": Matrix.BT709}),
    "h264_nvenc": _nvenc((1, 51, 19), {}),
    "hevc_nvenc": _nvenc((1, 51, 21), {"yuv420p10le": "p010le"}),
    "av1_nvenc": _nvenc((1, 63, 26), {"yuv420p10le": "p010le"}),
}
NVENC = frozenset({"h264_nvenc", "hevc_nvenc", "av1_nvenc"})
OTHER = Family(options={"threads": THREADS})

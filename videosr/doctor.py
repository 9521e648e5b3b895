"""What this machine can do for videosr, and what is missing, each with its remedy in one line."""

from __future__ import annotations

import importlib.util
import platform
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from fractions import Fraction
from importlib import metadata
from pathlib import Path
from typing import Any

import av
from av.codec import codecs_available
from av.codec.hwaccel import hwdevices_available

from videosr import __version__
from videosr.engines import CPU_ENGINES, CUDA_ENGINES, DEFAULT
from videosr.engines.cache import Cache
from videosr.engines.cuda_blocks import LEAST as LARGER
from videosr.engines.cuda_realtime import LEAST
from videosr.engines.gpu_device import Gpu
from videosr.engines.native_library import kernels
from videosr.engines.nvidia import NoDriverError, gpus
from videosr.engines.openvino import fast_precisions
from videosr.engines.openvino_core import core
from videosr.engines.tensorrt_library import RTX_CAPABILITIES, Library
from videosr.errors import EngineError, InputError, MissingExtraError, UsageError, VideosrError, remedy
from videosr.frame import FORMATS, StreamInfo
from videosr.machine import cores, instruction_sets
from videosr.media.codecs import EncoderSettings, resolve
from videosr.media.encoders import NVENC
from videosr.media.nvdec import EXACT, acceleration

ENCODERS = (
    "libx264", "libx265", "libsvtav1", "libvpx-vp9", "ffv1", "prores_ks", "h264_nvenc", "hevc_nvenc", "av1_nvenc",
    "h264_qsv", "hevc_qsv", "av1_qsv", "h264_amf", "hevc_amf", "av1_amf",
)  # fmt: skip
_DISTRIBUTIONS = {"cupy": ("cupy-cuda13x", "cupy-cuda12x", "cupy"), "tensorrt_rtx": ("tensorrt-rtx",)}


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One engine or device.

    Attributes:
        name: what it is called in options.
        ready: it can be used here and now.
        about: version, devices, what it can do.
        remedy: what to do about what is missing; "" where nothing is to be done.
    """

    name: str
    ready: bool
    about: str
    remedy: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """Everything.

    Attributes:
        system: facts by name.
        media: facts by name.
        gpus: NVIDIA GPUs.
        engines: one finding each.
        cache: of built engines: facts by name.
        auto: what `--device auto` takes, and why.
    """

    system: dict[str, str]
    media: dict[str, str]
    gpus: list[Finding]
    engines: list[Finding] = field(default_factory=list)
    cache: dict[str, str] = field(default_factory=dict)
    auto: str = ""

    def as_json(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)

    def lines(self) -> list[str]:
        """For people."""
        lines = []
        for title, facts in (("system", self.system), ("media", self.media), ("engine cache", self.cache)):
            lines += [title, *(f"  {name:<14}{value}" for name, value in facts.items())]
        for title, findings in (("NVIDIA GPU", self.gpus), ("engines", self.engines)):
            lines.append(title)
            for finding in findings:
                lines.append(f"  {'yes' if finding.ready else 'no ':<4}{finding.name:<14}{finding.about}")
                if finding.remedy:
                    lines.append(f"      -> {finding.remedy}")
        return [*lines, f"--device auto takes {self.auto}"]


def examine() -> Report:
    """Look at everything; nothing is installed, built or changed."""
    try:
        here, problem = gpus(), ""
    except NoDriverError as exc:
        here, problem = (), str(exc)
    devices = [Finding(name="cuda", ready=True, about=f"{gpu}, {gpu.memory / 2**30:.1f} GiB") for gpu in here]
    engines = [
        _native(),
        _openvino(),
        _package("onnxruntime", "on the CPU"),
        _package("torch", "runs checkpoints, trains, exports" + (", on the GPU too" if here else ", on the CPU")),
        _package("cupy", "arrays on the GPU", extra="cuda", gpu=problem),
        _tensorrt("tensorrt_rtx", here, problem),
        _tensorrt("tensorrt", here, problem),
        _own(here, problem),
    ]
    reason, _, cure = problem.partition(": ")
    return Report(
        system={
            "videosr": __version__,
            "python": platform.python_version(),
            "system": f"{platform.system()} {platform.release()} {platform.machine()}",
            "processor": _processor(),
            "threads": str(cores()),
            "instructions": instruction_sets(),
        },
        media={
            "PyAV": av.__version__,
            "FFmpeg": str(av.ffmpeg_version_info),
            "encoders": " ".join(name for name in ENCODERS if name in codecs_available),
            "not in it": " ".join(name for name in ENCODERS if name not in codecs_available) or "-",
            "NVDEC": _nvdec(here),
            "NVENC": _nvenc(here),
            "GPU devices": " ".join(hwdevices_available()) or "-",
        },
        gpus=devices or [Finding(name="cuda", ready=False, about=reason, remedy=cure)],
        engines=engines,
        cache=_cache(),
        auto=_auto(engines, here, reason),
    )


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def installed(package: str) -> str:
    """The version of a package, by the name it is imported by; "" if it is not installed.

    Found without importing it: torch alone takes seconds.
    """
    for name in _DISTRIBUTIONS.get(package, (package,)):
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return ""


def _native() -> Finding:
    try:
        found = kernels()
    except VideosrError as exc:
        problem, _, cure = str(exc).partition(": ")
        return Finding(name="native", ready=False, about=problem, remedy=cure)
    vectors = "AVX-512" if found[0].lanes == 16 else "AVX2"
    about = f"our own kernels for realtime, light, fine and stream networks on the CPU, the default, with {vectors}"
    return Finding(name="native", ready=True, about=about)


def _openvino() -> Finding:
    devices = ", ".join(
        f"{name} ({core().get_property(name, 'FULL_DEVICE_NAME')})" for name in core().available_devices
    )
    fast = fast_precisions()
    about = f"{installed('openvino')}, for every network; sees {devices}; the CPU computes f32"
    about += f" and {', '.join(fast)}" if fast else " and no half precision"
    if "bf16" in fast:
        about += " (--precision bf16: faster with AMX, rarely two codes off)"
    return Finding(name="openvino", ready=True, about=about)


def _package(name: str, about: str, extra: str = "", gpu: str = "") -> Finding:
    """A package that is there or is not.

    Args:
        name: it is imported by.
        about: what it is for.
        extra: that brings it; its own name by default.
        gpu: why no GPU can be used, where it needs one.
    """
    if importlib.util.find_spec(name) is None:
        return Finding(name=name, ready=False, about=f"not installed: {about}", remedy=remedy(extra or name))
    return Finding(
        name=name, ready=not gpu, about=f"{installed(name)}: {about}" + (", but there is none" if gpu else "")
    )


def _tensorrt(name: str, here: tuple[Gpu, ...], problem: str) -> Finding:
    finding: Callable[..., Finding] = lambda **values: Finding(name=name, **values)  # noqa: E731
    try:
        library = Library(name)
    except MissingExtraError as exc:
        return finding(ready=False, about="not installed", remedy=remedy(exc.extra))
    except EngineError as exc:
        return finding(ready=False, about=str(exc), remedy=f"install {name} anew, or a newer NVIDIA driver")
    able = ", ".join(f"{major}.{minor}" for major, minor in RTX_CAPABILITIES)
    about = f"{library.version}"
    if library.rtx:
        about += f": builds engines for compute capability {able} (videosr engine build --for)"
    if not here:
        return finding(ready=False, about=f"{about}; none can run here: {problem.partition(': ')[0]}")
    major, minor = here[0].capability
    if library.rtx and here[0].capability not in RTX_CAPABILITIES:
        other = f"--engine cuda or torch; or --engine tensorrt: {remedy('tensorrt')}"
        return finding(ready=False, about=f"{about}; {here[0].name} has {major}.{minor}", remedy=other)
    for package, need in (("cupy", "GPU arrays"), ("onnx", "half precision")):
        if importlib.util.find_spec(package) is None:
            return finding(ready=False, about=f"{about}; {package} is not installed ({need})", remedy=remedy("cuda"))
    return finding(ready=True, about=f"{about}; runs on {here[0].name}: --engine {name} --device cuda")


def _own(here: tuple[Gpu, ...], problem: str) -> Finding:
    about = "our own kernels: realtime" + (", stream, fine" if not here or here[0].capability >= LARGER else "")
    if importlib.util.find_spec("cupy") is None:
        return Finding(name="cuda", ready=False, about=f"{about}; needs cupy", remedy=remedy("cuda"))
    if not here:
        return Finding(name="cuda", ready=False, about=f"{about}; cannot run here: {problem.partition(': ')[0]}")
    if here[0].capability < LEAST:
        return Finding(name="cuda", ready=False, about=f"{about}; needs compute capability 7.5: {here[0]}")
    return Finding(name="cuda", ready=True, about=f"{about}; runs on {here[0].name}: --engine cuda")


def _auto(engines: list[Finding], here: tuple[Gpu, ...], reason: str) -> str:
    """What `engines.choice.choose` tries first; whether it passes its self-test shows when it is loaded."""
    ready = {e.name for e in engines if e.ready}
    cpu = next(name for name in CPU_ENGINES if name in ready or name == DEFAULT)
    if not here:
        return f"the CPU ({cpu}): {reason}"
    first = next((name for name in CUDA_ENGINES if name in ready), None)
    if first is None:
        return f"the CPU ({cpu}): no engine is ready for {here[0].name}"
    return f"{here[0].name} with {first}, else the CPU ({cpu})"


def _nvdec(here: tuple[Gpu, ...]) -> str:
    """Whether FFmpeg can decode on the GPU."""
    if not here:
        return "none without a GPU"
    try:
        acceleration(0)
    except InputError as exc:
        return f"none: {exc}"
    return f"decodes {', '.join(sorted(EXACT))} on {here[0].name}, as far as it can"


def _nvenc(here: tuple[Gpu, ...]) -> str:
    """The encoders that open on the GPU."""
    if not here:
        return "none without a GPU"
    picture = StreamInfo(width=256, height=256, format=FORMATS["yuv420p"], time_base=Fraction(1, 25), rate=Fraction(25))
    able, reason = [], ""
    for codec in sorted(NVENC):
        try:
            resolve(EncoderSettings(codec=codec), picture, "matroska")
            able.append(codec)
        except UsageError as exc:
            reason = str(exc)
    return " ".join(able) or f"none: {reason}"


def _cache() -> dict[str, str]:
    cache = Cache()
    entries = cache.entries()
    broken = sum(bool(entry.problem) for entry in entries)
    size = sum(entry.size for entry in entries) / 2**20
    held = f"{len(entries)} entries, {size:.1f} MiB" + (f", {broken} broken: videosr engine prune" if broken else "")
    return {"folder": str(cache.folder), "holds": held}

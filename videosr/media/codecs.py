"""Encoder settings: what a person would choose by default, and what is refused before work starts."""

from __future__ import annotations

import contextlib
import difflib
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import av
import av.error
import av.logging
from av.codec.codec import UnknownCodecError, find_best_pix_fmt_of_list
from av.codec.context import CodecOption, OptionFlags
from av.codec.context import Flags as CodecFlags

from videosr.color import converted
from videosr.errors import UsageError
from videosr.frame import FORMATS, ColorSpec, PixelFormat, StreamInfo
from videosr.media.containers import holds_codec
from videosr.media.encoders import ALIASES, FAMILIES, NVENC, OTHER, Family
from videosr.media.hdr import encoder_parameters, unwritten
from videosr.media.logs import captured

LOOKAHEAD_BYTES = 256 * 2**20
"""Memory for the frames that x264 and x265 look ahead; at 4K their presets would take more than a gigabyte."""
LEAST_LOOKAHEAD = 10
_SLICE_SAMPLES = 2**27 // (17 * 4)

WHOLE_FILE = frozenset(
    {"b", "minrate", "maxrate", "bufsize", "rc_init_occupancy", "crf_max"}
    | {"bitrate", "vbv-maxrate", "vbv-bufsize", "vbv-init", "nal-hrd", "strict-cbr", "rc", "tbr", "mbr", "buf-sz"}
)
"""Options and library parameters of rate modes whose state spans the whole file."""
TWO_PASS = frozenset({"pass", "stats", "passlogfile"})
"""Those of encoding a file twice, which leaves another file lying about."""

_NO_NVENC = ("Cannot load", "No capable devices", "OpenEncodeSession", "unsupported device", "cuInit", "driver")
"""What FFmpeg says where the machine has no encoder, and not where a setting is wrong."""

RESERVED = {
    "flags": "is set by videosr (global headers)",
    "pixel_format": "is --pix-fmt",
    "pix_fmt": "is --pix-fmt",
    "video_size": "is --size",
    "crf": "is --crf",
    "cq": "is --crf",
    "preset": "is --preset",
    "time_base": "comes from the input",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class EncoderSettings:
    """How the output video is encoded. Empty fields are filled in by `resolve`.

    Attributes:
        codec: FFmpeg's name of the encoder (`libx264`), or a common name (`hevc`, `av1`).
        crf: constant quality on the encoder's own scale; lower is better and larger.
        preset: the encoder's own name or number for speed against size.
        pix_fmt: FFmpeg's pixel format of the coded video.
        options: further encoder options as (key, value) pairs.
    """

    codec: str = ""
    crf: float | None = None
    preset: str = ""
    pix_fmt: str = ""
    options: tuple[tuple[str, str], ...] = ()

    @property
    def segmented(self) -> bool:
        """Whether segments can be encoded apart; rate modes that span the whole file need one single segment."""
        return not any(_is_rate_mode(k, v) for k, v in _flat_options(self))

    @property
    def format(self) -> PixelFormat:
        """The pixel format frames must have. Raises InputError while `pix_fmt` is empty."""
        return PixelFormat.parse(self.pix_fmt)


def _flat_options(settings: EncoderSettings) -> list[tuple[str, str]]:
    """Options with the library's own parameter list taken apart."""
    flat: list[tuple[str, str]] = []
    for key, value in settings.options:
        flat += list(split_params(value).items()) if key.endswith("-params") else [(key, value)]
    return flat


def _is_rate_mode(key: str, value: str) -> bool:
    return key in WHOLE_FILE and value not in ("", "0")


def split_params(text: str) -> dict[str, str]:
    """The entries of `key=value:key=value`; a bare key counts as 1, as the libraries read it."""
    return {k: v or "1" for k, _, v in (entry.partition("=") for entry in text.split(":") if entry)}


def join_params(params: Mapping[str, str]) -> str:
    """The reverse of `split_params`."""
    return ":".join(f"{k}={v}" for k, v in params.items())


def canonical_name(encoder: str) -> str:
    """The codec of an encoder: `h264` of `libx264`."""
    return av.Codec(encoder, "w").canonical_name


def default_codec(fmt: PixelFormat, container: str) -> str:
    """The encoder a person would choose: x264 for 8 bits, x265 above; in WebM AV1, or VP9 for other chroma."""
    if container == "webm":
        return "libsvtav1" if fmt.family == "yuv" and (fmt.log2_w, fmt.log2_h) == (1, 1) else "libvpx-vp9"
    return "libx264" if fmt.bits == 8 else "libx265"


def resolve(
    settings: EncoderSettings, info: StreamInfo, container: str, *, hdr: tuple[tuple[str, bytes], ...] = ()
) -> EncoderSettings:
    """Complete the settings for a stream and check every one of them by opening the encoder once.

    Args:
        settings: what the user asked for.
        info: the picture to encode (after upscaling), in its own format.
        container: FFmpeg's muxer (`container_format`).
        hdr: static HDR side data of the stream, written again by the encoders that can.

    Returns:
        Settings with nothing left open; resolving them again changes nothing. Two machines that encode with equal
        settings write equal packets.

    Raises:
        UsageError: unknown encoder, option or parameter; a value out of range; a pixel format, size or container that
            the encoder does not go with.
    """
    wished = FORMATS.get(settings.pix_fmt, info.format)
    codec = ALIASES.get(settings.codec, settings.codec) or default_codec(wished, container)
    formats = _encoder_formats(codec)
    if not holds_codec(container, codec):
        raise UsageError(f"--codec {codec} cannot be stored in a {container} file; choose another container or codec")
    family = FAMILIES.get(codec, OTHER)
    pix_fmt = _pixel_format(settings.pix_fmt, codec, family, formats, info)
    options = dict(settings.options)
    _check_names(codec, family, options)
    if twice := next((key for key, value in _flat_options(settings) if key in TWO_PASS and value not in ("", "0")), ""):
        raise UsageError(f"-x {twice}: videosr encodes once; make --codec ffv1, and encode that with two passes")
    rate_mode = not settings.segmented
    crf = _quality(settings.crf, codec, family, rate_mode)
    preset = settings.preset or family.preset
    if preset and preset not in family.presets:
        allowed = ", ".join(family.presets) or "none"
        raise UsageError(f"--preset {preset}: not a preset of {codec} (allowed: {allowed})")
    merged = {**family.options, **options}
    for key, value in _fitting(codec, pix_fmt, info, rate_mode).items():
        merged.setdefault(key, value)
    if family.params:
        params = _library_parameters(codec, family, options.get(family.params, ""), hdr)
        most = _affordable_lookahead(pix_fmt, info)
        if "rc-lookahead" not in {**options, **params} and (family.lookahead or {}).get(preset, 0) > most:
            params["rc-lookahead"] = str(most)
        if codec == "libx265" and 32 < info.width <= 48:
            params["cutree"] = "0"  # x265 4.3 writes past the end of a buffer there: seen as a crash on closing it
        merged[family.params] = join_params(params)
    full = EncoderSettings(codec=codec, crf=crf, preset=preset, pix_fmt=pix_fmt, options=tuple(merged.items()))
    _try_open(full, info)
    return full


def _fitting(codec: str, pix_fmt: str, info: StreamInfo, rate_mode: bool) -> dict[str, str]:
    """Options that follow from the picture, where the user gives none."""
    match codec:
        case "libvpx-vp9" if not rate_mode:
            return {"b": "0"}  # else `crf` is only a limit
        case "ffv1":
            return {"slices": str(ffv1_slices(info.width, info.height))}
        case "prores_ks":
            return {"profile": "3" if pix_fmt.startswith("yuv422") else "4"}
        case "dnxhd":  # of DNxHD proper, only a few sizes and rates are allowed
            return {"profile": {"yuv422p": "dnxhr_hq", "yuv422p10le": "dnxhr_hqx"}.get(pix_fmt, "dnxhr_444")}
    return {}


def ffv1_slices(width: int, height: int) -> int:
    """FFV1's slices: what FFmpeg's encoder takes, so many as its threads can share, more where each would be too large.

    FFmpeg refuses slices of more than 2^27 / ((bits + 1) planes) samples (`ff_ffv1_encode_determine_slices`), where 1.9
    million are not too many for any format.
    """
    rows, columns = 4, 6
    while -(-width // columns) * -(-height // rows) > _SLICE_SAMPLES:
        rows = columns = max(columns, rows + 1)
    return rows * columns


def output_info(settings: EncoderSettings, info: StreamInfo) -> StreamInfo:
    """The stream that resolved settings lead to: the format of its frames and the colour they must have.

    The colour follows `color.converted`, but for what the codec's readers always assume.
    """
    fmt = settings.format
    assumed: Mapping[str, Any] = FAMILIES.get(settings.codec, OTHER).color
    return replace(info, format=fmt, color=replace(converted(info.color, info.format, fmt), **assumed))


def notes(settings: EncoderSettings, info: StreamInfo, hdr: tuple[tuple[str, bytes], ...] = ()) -> list[str]:
    """What the user should know of resolved settings: one line for each thing that differs from the input.

    Args:
        settings: resolved.
        info: of the input, or of the picture after upscaling.
        hdr: static HDR side data of the stream.
    """
    lines: list[str] = []
    lines += [f"HDR {what} is lost: {why}" for what, why in unwritten(settings.codec, hdr)]
    fmt = settings.format
    if info.format.bits > fmt.bits:
        lines.append(f"{info.format.bits} bits become {fmt.bits} bits: {settings.codec} is to code {fmt.name}")
    if fmt.family == "gray" and info.format.family != "gray":
        lines.append(f"the colours are lost: {fmt.name} has none")
    elif info.format.family == "rgb" and fmt.family == "yuv":
        lines.append(f"R'G'B' becomes Y'CbCr: {settings.codec} is to code {fmt.name} (--codec ffv1 keeps R'G'B')")
    elif info.format.family == "yuv" and fmt.family == "rgb":
        lines.append(f"Y'CbCr becomes R'G'B': {settings.codec} is to code {fmt.name}")
    elif (fmt.log2_w, fmt.log2_h) != (info.format.log2_w, info.format.log2_h) and info.format.family == "yuv":
        lines.append(f"chroma changes from {info.format.name} to {fmt.name}")
    was = converted(info.color, info.format, fmt)
    for name, assumed in FAMILIES.get(settings.codec, OTHER).color.items():
        if getattr(was, name) != assumed:
            lines.append(f"{name} becomes {assumed.name.lower()}: {settings.codec} knows no other")
    if not settings.segmented:
        lines.append("the rate mode spans the whole file: it is encoded in one piece, without segments")
    return lines


def alpha_note(settings: EncoderSettings, info: StreamInfo) -> list[str]:
    """The line to be said where something is transparent, and the output has no place for that; else none."""
    fmt = settings.format
    if not info.format.alpha or fmt.alpha:
        return []
    return [f"the alpha plane is lost: {fmt.name} has none (--codec ffv1 or prores_ks keeps it)"]


def _encoder_formats(codec: str) -> list[str]:
    """Pixel formats of an encoder that frames can have."""
    try:
        found = av.Codec(codec, "w")
    except UnknownCodecError:
        names = [*FAMILIES, *ALIASES]
        close = difflib.get_close_matches(codec, names, 1)
        hint = f"; did you mean {close[0]}?" if close else f" (common ones: {', '.join(FAMILIES)})"
        raise UsageError(f"--codec {codec}: FFmpeg has no such encoder here{hint}") from None
    if found.type != "video":
        raise UsageError(f"--codec {codec}: is not a video encoder")
    own = FAMILIES.get(codec, OTHER).formats
    if own is not None:
        return list(own)
    names = [f.name for f in found.video_formats or () if f.name in FORMATS]
    # x265 is built without the alpha layer that FFmpeg lists; libvpx gives alpha beside the packets, not in them.
    return [n for n in names if not (codec in ("libx265", "libvpx-vp9") and FORMATS[n].alpha)]


def _pixel_format(wanted: str, codec: str, family: Family, formats: list[str], info: StreamInfo) -> str:
    odd = family.even and (info.width % 2, info.height % 2)

    def fits(name: str) -> bool:
        fmt = FORMATS[name]
        return not odd or not ((fmt.log2_w and odd[0]) or (fmt.log2_h and odd[1]))

    if wanted:
        if wanted not in formats:
            raise UsageError(f"--pix-fmt {wanted}: not a format of {codec} (allowed: {', '.join(formats)})")
        if not fits(wanted):
            raise UsageError(
                f"--pix-fmt {wanted}: {codec} cannot code the odd size {info.width}x{info.height} in it; "
                "leave --pix-fmt out or choose an even --size"
            )
        return wanted
    candidates = [name for name in formats if fits(name)]
    if info.format.name in candidates:
        return info.format.name
    if info.format.family != "gray":
        candidates = [name for name in candidates if FORMATS[name].family != "gray"]
    best, _loss = find_best_pix_fmt_of_list(candidates, info.format.name, info.format.alpha)
    if best is None:
        raise UsageError(f"--codec {codec}: has no pixel format for {info.format.name}; choose another codec")
    return best.name


def _quality(wanted: float | None, codec: str, family: Family, rate_mode: bool) -> float | None:
    if family.crf is None:
        if wanted is not None:
            raise UsageError(f"--crf: {codec} has no such scale; use -x with its own options")
        return None
    low, high, default = family.crf
    if wanted is None:
        return None if rate_mode else default
    if not low <= wanted <= high:
        raise UsageError(f"--crf {wanted:g}: out of range for {codec} ({low:g} to {high:g})")
    return wanted


def _check_names(codec: str, family: Family, options: Mapping[str, str]) -> None:
    """Refuse options that the encoder does not have; FFmpeg itself would ignore them silently."""
    supported = av.CodecContext.create(codec, "w").supported_options

    def for_video(option: CodecOption) -> bool:
        wanted = OptionFlags.ENCODING_PARAM | OptionFlags.VIDEO_PARAM
        return option.flags & wanted == wanted

    names = {o.name for o in supported.private} | {o.name for o in supported.generic if for_video(o)}
    for key in options:
        if key in RESERVED and not (key == family.preset_option and key != "preset"):
            raise UsageError(f"-x {key}: {RESERVED[key]}")
        if key not in names:
            close = difflib.get_close_matches(key, sorted(names), 3)
            hint = f"; did you mean {', '.join(close)}?" if close else ""
            if family.params:
                hint += f" (the library's own parameters go into -x {family.params}=KEY=VALUE:...)"
            raise UsageError(f"-x {key}: {codec} has no such option{hint}")


def _library_parameters(codec: str, family: Family, text: str, hdr: tuple[tuple[str, bytes], ...]) -> dict[str, str]:
    given = split_params(text)
    forced = family.forced or {}
    for key in ("open-gop", "annexb", "repeat-headers"):
        if given.get(key, forced.get(key)) != forced.get(key):
            raise UsageError(f"-x {family.params}={key}={given[key]}: segments could not be joined")
    return {**forced, **encoder_parameters(codec, hdr), **given}


def _affordable_lookahead(pix_fmt: str, info: StreamInfo) -> int:
    """Frames that an encoder may hold back: each takes about 2.5 samples a pixel with its small copies."""
    size = info.width * info.height * FORMATS[pix_fmt].dtype.itemsize * 5 // 2
    return max(LEAST_LOOKAHEAD, LOOKAHEAD_BYTES // size)


def avoptions(settings: EncoderSettings) -> dict[str, str]:
    """The options dictionary that `avcodec_open2` gets for resolved settings."""
    family = FAMILIES.get(settings.codec, OTHER)
    options = dict(settings.options)
    if settings.crf is not None:
        options |= {family.quality: f"{settings.crf:g}", **family.constant}
    if settings.preset:
        options[family.preset_option] = settings.preset
    return options


SVT_RATE = Fraction(240)
"""Frames a second that SVT-AV1 takes at most."""


def configure(context: Any, settings: EncoderSettings, info: StreamInfo) -> None:
    """Set up an unopened encoder context for frames of `output_info(settings, info)`."""
    os.environ.setdefault("SVT_LOG", "1")  # SVT-AV1 writes to stderr by itself; 1 leaves its errors
    color: ColorSpec = info.color
    context.width, context.height = info.width, info.height
    own = FAMILIES.get(settings.codec, OTHER).formats or {}
    context.pix_fmt = own.get(settings.pix_fmt, settings.pix_fmt)  # PyAV moves the samples there
    context.time_base = info.time_base
    rate = info.rate
    if settings.codec == "libsvtav1":  # which would take the time base for it; frames have times of their own
        rate = min(rate or 1 / info.time_base, SVT_RATE)
    if rate is not None:
        context.framerate = rate
    context.sample_aspect_ratio = info.sar
    context.colorspace = int(color.matrix)
    context.color_range = int(color.range)
    context.color_primaries = color.primaries
    context.color_trc = color.transfer
    context.chroma_sample_location = int(color.siting)
    context.flags |= CodecFlags.global_header
    context.options = avoptions(settings)


@contextlib.contextmanager
def _printed(lines: list[str]) -> Iterator[None]:
    """Take what is written to the process's stderr meanwhile: x264 and SVT-AV1 name a bad value nowhere else."""
    try:
        stderr = os.dup(2)
    except OSError:  # closed by whoever started us
        yield
        return
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
            file.seek(0)
            said = file.read().decode(errors="replace").splitlines()
            # SVT-AV1 tells more than errors if it was used in this process before `SVT_LOG` was set.
            lines += [re.sub(r"^\w+ ?\[\w+\]: ", "", line) for line in said if not line.startswith("Svt[info]")]


def _try_open(settings: EncoderSettings, info: StreamInfo) -> None:
    """Open the encoder once with everything set, and turn what it says into a refusal."""
    context = av.CodecContext.create(settings.codec, "w")
    configure(context, settings, output_info(settings, info))
    printed: list[str] = []
    try:
        with captured(av.logging.WARNING) as logs, _printed(printed):
            context.open()
    except (av.error.FFmpegError, ValueError) as exc:
        said = [message.strip() for level, _, message in logs if level <= av.logging.ERROR]
        reason = (printed or said or [str(getattr(exc, "strerror", exc))])[0].rstrip(".")
        if settings.codec in NVENC and any(hint in " ".join((reason, *said)) for hint in _NO_NVENC):
            raise UsageError(
                f"--codec {settings.codec}: NVENC cannot be used here ({reason}); A100, H100 and H200 have none, "
                "other cards need NVIDIA's driver: use --codec libx264, libx265 or libsvtav1"
            ) from exc
        raise UsageError(f"{settings.codec} refuses these settings: {reason}; check --crf, --preset and -x") from exc
    if context.options:
        raise UsageError(f"-x {', '.join(context.options)}: not used by {settings.codec}")
    for _, _, message in logs:
        if message.startswith(("Error parsing option", "Unknown option", "Invalid value")):
            raise UsageError(f"{settings.codec}: {message.strip().rstrip('.')}; check -x")

"""Imported by `fuzz.py`; not a command.

What that begins with, whole files of every kind that videosr reads, and how it spoils them."""

from __future__ import annotations

import json
import pickle
import random
import re
import struct
import sys
import zipfile
from fractions import Fraction
from pathlib import Path
from typing import Any

import av

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))
from clips import VFR_PTS, make_clip  # noqa: E402

from videosr.media.stills import picturedata  # noqa: E402

CONTAINERS = ("mkv", "mp4", "mov", "ts", "avi", "webm")
KINDS = (
    *CONTAINERS, "bitstream", "payload", "subtitle", "image", "onnx", "cache", "safetensors", "pth", "journal",
    "ledger", "preset", "training",
)  # fmt: skip
"""Kinds of input, by the name that `--kind` takes."""
MARK = "unpickled"
"""The file that a hostile checkpoint makes when its code is run."""
NEAREST = "nearest.onnx"
"""A small network, in the folder above those of the kinds."""
SMALL = {"width": 64, "height": 48, "frames": 8}
X264 = {"preset": "ultrafast", "x264-params": "keyint=4:bframes=1"}
TEXTS = {"preset": "toml", "training": "toml", "ledger": "jsonl"}

_EDGES = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
_JSON = (None, True, -1, 0, 1e308, 2**70, "", "x" * 300, "\0", "../../x", [], {}, [[1]], {"a": {"b": 0}})
_TOML = (
    "-1",
    "0",
    "1e400",
    "nan",
    "inf",
    '""',
    '"../.."',
    "[]",
    "{}",
    "[[1]]",
    "true",
    "99999999999999999999",
    "'\\0'",
)


def make(kind: str, folder: Path) -> list[Path]:
    """Whole files of a kind, in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    from networks import nearest

    nearest(folder.parent / NEAREST)
    if kind in CONTAINERS:
        return _containers(kind, folder)
    made: list[Path] = {
        "bitstream": _bitstreams, "payload": _payloads, "subtitle": _subtitles, "image": _images, "onnx": _networks,
        "cache": _networks, "safetensors": _weights, "pth": _pickles, "journal": _journal, "ledger": _ledger,
        "preset": _presets, "training": _training,
    }[kind](folder)  # fmt: skip
    return made


def _containers(kind: str, folder: Path) -> list[Path]:
    common: dict[str, Any] = {"metadata": {"title": "a title"}, "chapters": [(0, 100, "one"), (100, 300, "two")]}
    if kind in ("mkv", "mp4", "mov"):
        common |= {"options": X264, "audio": [("aac", "eng"), ("aac", "deu")], "rotation": 90, "sar": Fraction(16, 11)}
    if kind == "mkv":
        common |= {"subtitles": ["eng"], "attachments": [("font.ttf", "font/ttf", bytes(range(200)))]}
        small = {**SMALL, "pts": VFR_PTS[:8]}
        return [
            make_clip(folder / "a.mkv", **small, **common),
            make_clip(folder / "b.mkv", **SMALL, codec="ffv1", pix_fmt="yuv444p10le", options={"level": "3"}),
            make_clip(folder / "c.mkv", **SMALL, codec="libx265", options={"preset": "ultrafast"}),
        ]
    if kind == "mov":
        common |= {"codec": "prores_ks", "pix_fmt": "yuv422p10le", "options": {}}
    if kind == "ts":
        common = {"options": X264, "audio": [("mp2", "eng")]}
    if kind == "avi":
        common = {"codec": "mpeg4", "audio": [("mp2", "eng")], "time_base": Fraction(1, 24)}
    if kind == "webm":
        common |= {"codec": "libvpx-vp9", "options": {"deadline": "realtime", "cpu-used": "8"}}
        common |= {"audio": [("libopus", "eng")]}
    return [make_clip(folder / f"a.{kind}", **SMALL, **common)]


def _bitstreams(folder: Path) -> list[Path]:
    codecs = {"h264": "libx264", "hevc": "libx265", "m2v": "mpeg2video", "ivf": "libsvtav1", "y4m": "wrapped_avframe"}
    options = {"libx264": X264, "libx265": {"preset": "ultrafast"}, "libsvtav1": {"preset": "12"}}
    made = []
    for suffix, codec in codecs.items():
        size = {**SMALL, "height": 64} if suffix == "ivf" else SMALL  # the smallest that SVT-AV1 takes
        tick = Fraction(1, 24)
        clip = {**size, "codec": codec, "options": options.get(codec, {}), "time_base": tick}
        made.append(make_clip(folder / f"a.{suffix}", **clip))
    return made


def _payloads(folder: Path) -> list[Path]:
    """Films whose packets are spoiled and then stored in a sound container."""
    return [_containers("mkv", folder)[0], *(_containers(kind, folder)[0] for kind in ("webm", "avi", "mov"))]


def _subtitles(folder: Path) -> list[Path]:
    return [make_clip(folder / "a.mkv", **SMALL, options=X264, subtitles=["eng", "deu"])]


BESIDE = {
    picturedata.ICC: bytes(16) + b"RGB " + bytes(range(256)),
    picturedata.EXIF: b"II*\0\x08\0\0\0\x02\0" + struct.pack("<6I", 0x30112, 1, 6, 0x48769, 1, 38)
    + struct.pack("<IH3II", 0, 1, 0x4A002, 1, 64, 0),
    picturedata.XMP: b'<a tiff:Orientation="6"/>',
    picturedata.TEXT: struct.pack(">I", 7) + b"tEXta\0words" + bytes(4),
}  # fmt: skip
"""Beside a picture, of every kind."""


def _images(folder: Path) -> list[Path]:
    encoders = {"png": ("png", "rgb24"), "jpg": ("mjpeg", "yuvj420p"), "webp": ("libwebp", "bgra"),
                "bmp": ("bmp", "bgr24"), "tiff": ("tiff", "rgb48le")}  # fmt: skip
    made = []
    for suffix, (codec, pix_fmt) in encoders.items():
        picture = av.VideoFrame(64, 48, "rgb24")
        picture.planes[0].update(bytes(i % 251 for i in range(picture.planes[0].buffer_size)))
        encoder = av.CodecContext.create(codec, "w")
        assert isinstance(encoder, av.VideoCodecContext)
        encoder.width, encoder.height, encoder.pix_fmt, encoder.time_base = 64, 48, pix_fmt, Fraction(1, 25)
        coded = picture.reformat(format=pix_fmt)
        coded.pts = 0
        data = b"".join(bytes(p) for p in [*encoder.encode(coded), *encoder.encode(None)])
        made.append(folder / f"a.{suffix}")
        made[-1].write_bytes(data)
        if suffix in ("png", "jpg", "webp"):
            made.append(folder / f"beside.{suffix}")
            made[-1].write_bytes(picturedata.attach(data, codec, BESIDE, 64, 48))
    return made


def _networks(folder: Path) -> list[Path]:
    from networks import Graph, nearest

    made = [nearest(folder / "nearest.onnx"), folder / "shipped.onnx", folder / "convolution.onnx"]
    made[1].write_bytes((ROOT / "videosr/models/realtime-2x.onnx").read_bytes())
    import numpy as np

    g = Graph()
    kernel = np.random.default_rng(1).normal(0, 0.1, (12, 3, 3, 3)).astype(np.float32)
    features = g.node("Conv", g.input("input", "N", 3, "H", "W"), g.constant(kernel), pads=[1, 1, 1, 1])
    g.node("DepthToSpace", features, output="output", blocksize=2)
    g.save(made[2], "output")
    return made


def _weights(folder: Path) -> list[Path]:
    path = folder / "a.safetensors"
    path.write_bytes((ROOT / "videosr/models/realtime-2x.safetensors").read_bytes())
    return [path]


class _Evil:
    """What runs code when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self._mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return (open, (str(self._mark), "w"))


def _pickles(folder: Path) -> list[Path]:
    import torch
    from safetensors.torch import load_file

    state = load_file(ROOT / "videosr/models/realtime-2x.safetensors")
    made = [folder / name for name in ("new.pth", "old.pth", "evil.pth", "evil_zip.pth")]
    torch.save({"params_ema": state}, made[0])
    torch.save(state, made[1], _use_new_zipfile_serialization=False)
    evil = {"params": {"conv_in.weight": _Evil(folder / MARK)}}
    made[2].write_bytes(pickle.dumps(evil))
    with zipfile.ZipFile(made[0]) as whole, zipfile.ZipFile(made[3], "w") as changed:
        for name in whole.namelist():
            changed.writestr(name, pickle.dumps(evil) if name.endswith("data.pkl") else whole.read(name))
    return made


def _journal(folder: Path) -> list[Path]:
    """The journal of an interrupted run: its job and two segments."""
    from media.doubling import encode

    clip = make_clip(folder / "film.mkv", **SMALL, options=X264)
    segments = encode(clip, folder / "segments", "matroska", length=4)
    job = folder / "job.json"
    job.write_text(json.dumps({"videosr": "1", "input": "10 bytes", "start": None, "size": "128x96"}), encoding="utf-8")
    return [job, *segments]


def _ledger(folder: Path) -> list[Path]:
    path = folder / "batch.jsonl"
    entry = {"input": "9 bytes, 00", "settings": {"codec": "libx264", "crf": None}, "source": "/films/a.mkv"}
    lines = [
        {"state": state, "output": f"{name}.mkv", "file": None if state == "begun" else "10 bytes, 11", **entry}
        for name in ("a", "b", "c")
        for state in ("begun", "done")
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return [path]


def _presets(folder: Path) -> list[Path]:
    text = (
        'codec = "libx265"\ncrf = 18\npreset = "slow"\ndenoise = 0.5\ntemporal = "ema"\nheight = 96\nstart = "1:00"\n'
    )
    text += 'frames = 3\nthreads = 2\noverwrite = true\n\n[options]\ntune = "grain"\nx265-params = "aq-mode=3"\n'
    path = folder / "a.toml"
    path.write_text(text, encoding="utf-8")
    return [path, *(_copy(p, folder) for p in sorted((ROOT / "videosr/presets").glob("*.toml")))]


def _training(folder: Path) -> list[Path]:
    return [_copy(p, folder) for p in sorted((ROOT / "scripts" / "recipes").glob("*.toml"))]


def _copy(path: Path, folder: Path) -> Path:
    copy = folder / path.name
    copy.write_bytes(path.read_bytes())
    return copy


def spoil(rng: random.Random, data: bytes, kind: str = "") -> bytes:
    """Data with one to several mistakes in it, of the sorts that files meet, or that somebody makes on purpose."""
    for _ in range(rng.choice((1, 1, 1, 2, 4, 16))):
        if kind in TEXTS and rng.random() < 0.7:
            data = (_spoil_json if TEXTS[kind] == "jsonl" else _spoil_toml)(rng, data)
        else:
            data = _spoil_bytes(rng, data)
    return data


def _spoil_bytes(rng: random.Random, data: bytes) -> bytes:
    if not data:
        return rng.randbytes(rng.randrange(64))
    size = len(data)
    # Structure lies at the beginning of most files, and at the end of some.
    near = rng.choice((min(size, 64), min(size, 1024), size, size))
    at = rng.randrange(near) if rng.random() < 0.8 else size - 1 - rng.randrange(near)
    made = bytearray(data)
    length = min(size - at, rng.choice((1, 4, 16, 256, 4096)))
    match rng.randrange(9):
        case 0:
            made[at] ^= 1 << rng.randrange(8)
        case 1:
            made[at] = rng.randrange(256)
        case 2:
            width = rng.choice((1, 2, 4, 8))
            value = rng.choice(_EDGES) & (1 << 8 * width) - 1
            made[at : at + width] = value.to_bytes(width, rng.choice(("big", "little")))
        case 3:
            del made[at : at + length]
        case 4:
            made[at:at] = rng.randbytes(length)
        case 5:
            made[at:at] = made[at : at + length] * rng.choice((1, 3))
        case 6:
            made[at : at + length] = bytes(length)
        case 7:
            made[at : at + length] = rng.randbytes(length)
        case 8:
            del made[at:]
    return bytes(made)


def _spoil_json(rng: random.Random, data: bytes) -> bytes:
    lines = data.splitlines()
    if not lines:
        return data
    at = rng.randrange(len(lines))
    try:
        value = json.loads(lines[at])
    except (ValueError, RecursionError):
        return data
    if isinstance(value, dict) and value and rng.random() < 0.9:
        key = rng.choice(sorted(value))
        if rng.random() < 0.2:
            del value[key]
        else:
            value[key] = rng.choice(_JSON)
    else:
        value = rng.choice(_JSON)
    lines[at] = b"[" * 100_000 if rng.random() < 0.02 else json.dumps(value).encode()
    return b"\n".join(lines) + b"\n"


def _spoil_toml(rng: random.Random, data: bytes) -> bytes:
    lines = data.decode("utf-8", "replace").split("\n")
    at = rng.randrange(len(lines))
    match rng.randrange(4):
        case 0:
            lines[at] = re.sub(r"= .*", lambda _: f"= {rng.choice(_TOML)}", lines[at])
        case 1:
            lines.insert(at, rng.choice(lines))
        case 2:
            del lines[at]
        case 3:
            lines[at] = lines[at].replace(
                rng.choice("=[]\"'.e") or "=", rng.choice(('"', "[" * 2000, "=", "\u2028", ""))
            )
    return "\n".join(lines).encode()


def spoil_packets(rng: random.Random, source: Path, target: Path, only: str) -> None:
    """Copy a film, with some of its packets of a type of stream ("video", "subtitle") spoiled, headers too."""
    with av.open(str(source)) as a, av.open(str(target), "w") as b:
        copies = {s.index: b.add_stream_from_template(s, opaque=True) for s in a.streams if s.type != "attachment"}
        for index, copy in copies.items():
            context = copy.codec_context
            if a.streams[index].type == only and context is not None and context.extradata and rng.random() < 0.2:
                context.extradata = spoil(rng, context.extradata) or b"\0"
        share = rng.choice((0.1, 0.5, 1.0))
        for packet in a.demux():
            if packet.size == 0 or packet.stream_index not in copies:
                continue
            if packet.stream.type == only and rng.random() < share:
                made = av.Packet(spoil(rng, bytes(packet)))
                made.pts, made.dts, made.time_base = packet.pts, packet.dts, packet.time_base
                made.duration, made.is_keyframe = packet.duration, packet.is_keyframe
                packet.stream, made.stream = copies[packet.stream_index], copies[packet.stream_index]
                packet = made
            else:
                packet.stream = copies[packet.stream_index]
            b.mux(packet)

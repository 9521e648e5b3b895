"""A network file: its hash and what it says of itself, read without any inference library."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from videosr.errors import NetworkError
from videosr.frame import PixelFormat

PREFIX = "videosr."
_METADATA_FIELD = 14  # ModelProto.metadata_props, onnx.proto3
_GRAPH_FIELD = 7  # ModelProto.graph
_INITIALIZER_FIELD = 5  # GraphProto.initializer
_TYPE_FIELD, _FLOATS_FIELD, _NAME_FIELD, _RAW_FIELD = 2, 4, 8, 9  # TensorProto
_EXTERNAL_FIELD = 13  # TensorProto.external_data
_TYPES: dict[object, str] = {1: "<f4", 10: "<f2"}  # TensorProto.FLOAT, FLOAT16
_MAX_BYTES = 1 << 31  # the most a protobuf message can be


@dataclass(frozen=True, kw_only=True, slots=True)
class Network:
    """An ONNX file.

    Attributes:
        path: where it lies.
        sha256: hex digest of its bytes, and of those beside it.
        metadata: what `videosr export` wrote into it, keys without the prefix `videosr.`; empty for other files.
        beside: files that hold its weights, where those are not inside, as torch exports larger networks.
    """

    path: Path
    sha256: str
    metadata: Mapping[str, str]
    beside: tuple[Path, ...] = ()

    @property
    def name(self) -> str:
        """The name it gives itself, else the file's."""
        return self.metadata.get("name", self.path.stem)

    def number(self, key: str, default: int) -> int:
        """An integer of the metadata.

        Raises:
            NetworkError: it is there and no integer.
        """
        value = self.metadata.get(key, str(default))
        try:
            return int(value)
        except ValueError:
            raise NetworkError(f"{self.path}: metadata {PREFIX}{key}={value!r} is not a whole number") from None

    def chroma_apart(self, source: PixelFormat, target: PixelFormat) -> bool:
        """Whether chroma planes are interpolated beside the network, which then makes luma alone.

        A network that has only seen full-resolution chroma (metadata `chroma` = "interpolated") makes subsampled chroma
        worse than plain interpolation does.

        Raises:
            NetworkError: the metadata says neither "network" nor "interpolated".
        """
        value = self.metadata.get("chroma", "network")
        if value not in ("network", "interpolated"):
            raise NetworkError(f"{self.path}: metadata {PREFIX}chroma={value!r} is not network or interpolated")
        return value == "interpolated" and source.subsampled and target.family == "yuv"

    def constants(self) -> dict[str, NDArray[np.float32]]:
        """The tensors of floating-point numbers in the graph by name, flat, as float32.

        Raises:
            NetworkError: the file cannot be read.
        """
        found: dict[str, NDArray[np.float32]] = {}
        try:
            data = memoryview(self.path.read_bytes())
            graph = next(value for field, value in _fields(data) if field == _GRAPH_FIELD)
            for field, tensor in _fields(_part(graph)):
                if field == _INITIALIZER_FIELD:
                    parts = dict(_fields(_part(tensor)))
                    kind = _TYPES.get(parts.get(_TYPE_FIELD))
                    if kind is not None:
                        values = parts.get(_RAW_FIELD, parts.get(_FLOATS_FIELD, memoryview(b"")))
                        numbers = np.frombuffer(_part(values), kind).astype(np.float32)
                        found[bytes(_part(parts[_NAME_FIELD])).decode()] = numbers
        except (OSError, StopIteration, KeyError, ValueError, IndexError) as exc:
            raise NetworkError(f"{self.path}: not an ONNX network that can be read: {exc!r}") from exc
        return found

    @staticmethod
    def open(path: Path) -> Network:
        """Read the file's identity.

        Raises:
            NetworkError: it, or a file with its weights, cannot be read or is not whole; or it is no ONNX model.
        """
        try:
            size = path.stat().st_size
            if size > _MAX_BYTES:
                raise NetworkError(f"{path}: {size} bytes is more than an ONNX file can have (2 GiB)")
            data = path.read_bytes()
        except OSError as exc:
            raise NetworkError(f"{path}: cannot read the network file: {exc.strerror}") from exc
        metadata: dict[str, str] = {}
        outside: dict[str, int] = {}
        has_graph = False
        try:
            for field, value in _fields(memoryview(data)):
                if field == _METADATA_FIELD and isinstance(value, memoryview):
                    entry = {k: bytes(v).decode() for k, v in _fields(value) if isinstance(v, memoryview)}
                    key = entry.get(1, "")
                    if key.startswith(PREFIX):
                        metadata[key.removeprefix(PREFIX)] = entry.get(2, "")
                if field == _GRAPH_FIELD:
                    has_graph = True
                    outside |= _outside(_part(value))
        except (ValueError, IndexError):
            has_graph = False
        if not has_graph:
            raise NetworkError(
                f"{path}: not an ONNX network (give a .onnx file, or `videosr export` a checkpoint first)"
            )
        digest = hashlib.sha256(data)
        beside = {path.parent / name: least for name, least in sorted(outside.items())}
        for weights, least in beside.items():
            digest.update(_digest(path, weights, least))
        return Network(path=path, sha256=digest.hexdigest(), metadata=MappingProxyType(metadata), beside=tuple(beside))


def _outside(graph: memoryview) -> dict[str, int]:
    """The files that tensors of a graph lie in, as it names them, and how many bytes each must have.

    Raises:
        ValueError, IndexError: not a graph.
    """
    found: dict[str, int] = {}
    for field, tensor in _fields(graph):
        if field != _INITIALIZER_FIELD:
            continue
        entries: dict[str, str] = {}
        for part, entry in _fields(_part(tensor)):
            if part == _EXTERNAL_FIELD:
                key, value = (bytes(_part(v)).decode() for _, v in _fields(_part(entry)))
                entries[key] = value
        if "location" in entries:
            name, end = entries["location"], int(entries.get("offset", 0)) + int(entries.get("length", 0))
            found[name] = max(found.get(name, 0), end)
    return found


def _digest(network: Path, weights: Path, least: int) -> bytes:
    """Of a file with a network's weights.

    Raises:
        NetworkError: it is not there, or has fewer bytes than the network says.
    """
    try:
        size = weights.stat().st_size if weights.is_file() else -1  # and no device, which might have no end
        if size >= least:
            with weights.open("rb") as file:
                return hashlib.file_digest(file, "sha256").digest()
    except OSError as exc:
        raise NetworkError(f"{network}: its weights lie in {weights}, which cannot be read: {exc.strerror}") from exc
    wrong = "is not there" if size < 0 else f"has {size} bytes of the {least} that it should have"
    raise NetworkError(f"{network}: its weights lie in {weights}, which {wrong}; copy both files again, side by side")


def _part(value: memoryview | int) -> memoryview:
    if isinstance(value, int):
        raise ValueError(f"{value} where bytes should be")
    return value


def _fields(data: memoryview) -> Iterator[tuple[int, memoryview | int]]:
    """The fields of one protobuf message (encoding: protobuf.dev/programming-guides/encoding).

    Raises:
        ValueError, IndexError: not a message.
    """
    at = 0

    def varint() -> int:
        nonlocal at
        value = 0
        for shift in range(0, 70, 7):
            byte = data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
        raise ValueError("varint too long")

    while at < len(data):
        tag = varint()
        wire = tag & 7
        if wire == 0:
            yield tag >> 3, varint()
            continue
        length = {1: 8, 2: -1, 5: 4}.get(wire)
        if length is None or tag >> 3 == 0:
            raise ValueError(f"wire type {wire}")
        if length < 0:
            length = varint()
        if at + length > len(data):
            raise ValueError("truncated")
        yield tag >> 3, data[at : at + length]
        at += length

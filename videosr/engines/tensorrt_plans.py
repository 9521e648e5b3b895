"""The engines of one network on one GPU: found in the cache, or built and kept there."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import NamedTuple

from videosr.engines.cache import Cache, Entry, Key
from videosr.engines.gpu_device import Gpu
from videosr.engines.network import Network
from videosr.engines.tensorrt_builder import Definition, Progress, Shapes, Size, builder_flags
from videosr.engines.tensorrt_library import Library
from videosr.errors import MissingExtraError, NetworkError, OutputError

PRECISIONS = ("f16", "f32")
_HALF_RULES = "1"
"""Of `tensorrt_half`; counted up when it gives other networks."""

log = logging.getLogger("videosr")


def read_network(network: Network, precision: str) -> bytes:
    """The ONNX model as the library is to see it.

    Raises:
        NetworkError: it cannot be read, has weights in another file, or has no form in this precision.
        MissingExtraError: half precision needs the onnx package.
    """
    if network.beside:
        raise NetworkError(
            f"{network.path}: its weights lie in {network.beside[0]}, where TensorRT does not look; join the two by "
            "onnx.save(onnx.load(FILE), JOINED)"
        )
    try:
        data = network.path.read_bytes()
    except OSError as exc:
        raise NetworkError(f"{network.path}: cannot read the network file: {exc.strerror}") from exc
    if precision == "f32":
        return data
    try:
        from videosr.engines.tensorrt_half import to_half
    except ModuleNotFoundError as exc:
        raise MissingExtraError("half precision with TensorRT", "cuda") from exc
    return to_half(data, str(network.path))


def machine(library: Library, gpu: Gpu) -> dict[str, str]:
    """The part of a key that says where and with what something was built."""
    return {
        "library": library.name,
        "version": library.version,
        "gpu": gpu.name,
        "capability": ".".join(map(str, gpu.capability)),
        "driver": gpu.driver,
    }


class Plan(NamedTuple):
    """A built engine.

    Attributes:
        shapes: the sizes it takes.
        key: of its cache entry.
        data: it, serialised.
        facts: what was measured when it was made.
    """

    shapes: Shapes
    key: Key
    data: bytes
    facts: Mapping[str, str]


class Plans:
    """Engines of a network.

    Args:
        library: that builds.
        network: the file.
        gpu: they are for.
        cache: where they are kept.
    """

    def __init__(self, library: Library, network: Network, gpu: Gpu, cache: Cache) -> None:
        self.library, self.network, self.gpu, self.cache = library, network, gpu, cache
        self._definitions: dict[str, Definition] = {}

    def definition(self, precision: str) -> Definition:
        """The network as the library reads it, read once.

        Raises:
            NetworkError, MissingExtraError, EngineError: see `read_network`, `Definition`.
        """
        if precision not in self._definitions:
            data = read_network(self.network, precision)
            self._definitions[precision] = Definition(self.library, data, str(self.network.path))
        return self._definitions[precision]

    def key(self, shapes: Shapes, precision: str) -> dict[str, str]:
        """Of the cache entry of an engine."""
        flags = ",".join(f"{flag}={on}" for flag, on in sorted(builder_flags(self.library).items()))
        return {
            "kind": "engine",
            "network": self.network.sha256,
            "form": str(self.definition(precision).interface),
            "shapes": str(shapes),
            "precision": precision,
            "options": f"{flags};half={_HALF_RULES}",
            **machine(self.library, self.gpu),
        }

    def find(self, size: Size, precision: str) -> Plan | None:
        """An engine in the cache that takes this size: one for this size alone before one for many."""
        fixed = Shapes.fixed(*size)
        entry = self.cache.read(self.key(fixed, precision))
        if entry is not None:
            return Plan(fixed, entry.key, entry.payload, entry.facts)
        for listed in self.cache.entries():
            if listed.key.get("kind") != "engine" or ".." not in listed.key.get("shapes", ""):
                continue
            shapes = Shapes.parse(listed.key["shapes"])
            if shapes.covers(size) and dict(listed.key) == self.key(shapes, precision):
                entry = self.cache.read(listed.key)
                if entry is not None:
                    return Plan(shapes, entry.key, entry.payload, entry.facts)
        return None

    def build(
        self,
        shapes: Shapes,
        precision: str,
        test: Callable[[bytes], Mapping[str, str]],
        progress: Progress | None = None,
    ) -> Plan:
        """The engine for these sizes: from the cache, or built, tested and kept.

        Args:
            shapes: the sizes it takes.
            precision: "f16" or "f32".
            test: given the new engine, says what is to be known of it; what it finds wrong is in there too, so that it
                need not be found again.
            progress: of the build.

        Raises:
            EngineError: the library failed.
        """
        key = self.key(shapes, precision)
        busy = f"another process is building the engine of {self.network.name} for {shapes}; waiting for it"
        with self.cache.alone(key, lambda: log.warning(busy)):
            entry = self.cache.read(key)
            if entry is not None:
                return Plan(shapes, key, entry.payload, entry.facts)
            if not self.library.rtx:
                log.warning("building the engine of %s for %s: once, it may take minutes", self.network.name, shapes)
            timing_key = {"kind": "timing", **machine(self.library, self.gpu)}
            timing = self._payload(timing_key)
            data, learned = self.definition(precision).build(
                shapes,
                capability=self.gpu.capability if self.library.rtx else None,
                progress=progress,
                timing=timing,
            )
            facts = test(data)
            self.keep(key, data, facts)
            if learned and learned != timing:
                self.keep(timing_key, learned)
            return Plan(shapes, key, data, facts)

    def kernels_key(self, key: Key) -> dict[str, str]:
        """Of the entry with the kernels that TensorRT-RTX has compiled for an engine."""
        return {**key, "kind": "kernels"}

    def kernels(self, key: Key) -> bytes:
        """Kernels compiled for an engine in earlier runs, b"" where there are none."""
        return self._payload(self.kernels_key(key))

    def keep(self, key: Key, data: bytes, facts: Mapping[str, str] | None = None) -> None:
        """Write to the cache; one that cannot be written costs time at the next start, nothing else."""
        with suppress(OutputError):
            self.cache.write(key, data, facts)

    def _payload(self, key: Key) -> bytes:
        entry: Entry | None = self.cache.read(key)
        return entry.payload if entry else b""

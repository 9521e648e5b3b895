"""The commands `videosr engine build|list|prune` and `videosr doctor`."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import click

from videosr.cli_options import FileName
from videosr.engines.cache import Cache, Entry
from videosr.engines.network import Network
from videosr.engines.tensorrt_builder import Definition, Shapes
from videosr.errors import UsageError
from videosr.models import registry

LIBRARIES = ("tensorrt_rtx", "tensorrt")


@click.group()
def engine() -> None:
    """Build, list and delete TensorRT engines.

    They are built by themselves when a picture size is first met; this is for building them ahead, and for looking at
    the cache.
    """


@engine.command()
@click.argument("model", default=registry.DEFAULT_COMPRESSED)
@click.option("--size", "sizes", multiple=True, metavar="WxH", help="For pictures of this size; may be repeated.")
@click.option("--sizes", "ranges", multiple=True, metavar="A..B..C", help="For all from A to C, fastest at B.")
@click.option("--engine", "library", type=click.Choice(LIBRARIES), default="tensorrt_rtx", help="The library.")
@click.option("--precision", type=click.Choice(["auto", "f32", "f16"]), default="auto", help="Arithmetic.")
@click.option("--for", "capability", metavar="X.Y", help="For a GPU of this compute capability that is not here.")
@click.option("-o", "--output", type=FileName(), help="With --for: the file to write.")
@click.option("-q", "--quiet", is_flag=True, help="Say nothing but errors.")
def build(
    model: str,
    sizes: tuple[str, ...],
    ranges: tuple[str, ...],
    library: str,
    precision: str,
    capability: str | None,
    output: Path | None,
    quiet: bool,
) -> None:
    """Build engines of MODEL: realtime-2x-video if none is named.

    MODEL is a shipped network (see videosr upscale --list-models) or an ONNX file. Engines are tested against the
    network on the CPU and kept in the cache. With --for, an engine for another GPU is written to a file, without a
    test: TensorRT-RTX needs no GPU to build.
    """
    shapes = [Shapes.parse(text) for text in (*sizes, *ranges)]
    if not shapes:
        raise UsageError("nothing to build: give --size 1920x1080, or --sizes 64x64..1280x720..1920x1080")
    network = Network.open(registry.find(model))
    show = _Bar(quiet or not sys.stderr.isatty())
    if capability is not None:
        if output is None or len(shapes) != 1:
            raise UsageError("--for writes one engine to a file: give one size and -o FILE")
        size = _for_another(network, library, precision, shapes[0], _capability(capability), output, show)
        if not quiet:
            click.echo(f"{output}: {network.name} for {shapes[0]} on compute capability {capability}, {size} bytes")
        return
    if output is not None:
        raise UsageError("-o goes with --for; engines for this machine go to the cache")
    from videosr.engines.tensorrt import TensorRTEngine

    made = TensorRTEngine(network, library=library, precision=precision)
    for shape in shapes:
        plan = made.prepare(shape, show)
        show.end()
        if not quiet:
            psnr = plan.facts.get("psnr", "?")
            click.echo(f"{network.name} {plan.shapes} {made.precision}: {len(plan.data)} bytes, self-test {psnr} dB")


def _for_another(
    network: Network,
    library: str,
    precision: str,
    shapes: Shapes,
    capability: tuple[int, int],
    output: Path,
    show: _Bar,
) -> int:
    """Build for a GPU that is not here and write it; returns its size in bytes."""
    from videosr.engines.tensorrt_library import Library
    from videosr.engines.tensorrt_plans import read_network
    from videosr.files import write_atomically

    data = read_network(network, "f32" if precision == "f32" else "f16")
    definition = Definition(Library(library), data, str(network.path))
    plan, _ = definition.build(shapes, capability=capability, progress=show)
    show.end()
    write_atomically(output, plan)
    return len(plan)


def _capability(text: str) -> tuple[int, int]:
    major, _, minor = text.partition(".")
    if not (major.isdecimal() and minor.isdecimal()):
        raise UsageError(f"compute capability {text!r} is not of the form 8.6")
    return int(major), int(minor)


class _Bar:
    """Shows how far a build is, on one line of a terminal."""

    def __init__(self, off: bool) -> None:
        self._off = off

    def __call__(self, phase: str, share: float) -> None:
        if not self._off:
            click.echo(f"\r\033[K{share:4.0%} {phase[:60]}", nl=False, err=True)

    def end(self) -> None:
        """Take the line away."""
        if not self._off:
            click.echo("\r\033[K", nl=False, err=True)


@engine.command("list")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def show_list(as_json: bool) -> None:
    """Show what the cache holds, last used first."""
    entries = Cache().entries()
    if as_json:
        values = [
            {"file": str(e.path), "bytes": e.size, "used": e.used, "problem": e.problem, "key": dict(e.key)}
            | {"facts": dict(e.facts)}
            for e in entries
        ]
        click.echo(json.dumps(values, indent=2))
        return
    for entry in entries:
        click.echo(_line(entry))
    if not entries:
        click.echo(f"no engines in {Cache().folder}")


@engine.command()
@click.option("--all", "everything", is_flag=True, help="Delete all of it.")
@click.option("--unused", type=click.IntRange(min=0), metavar="DAYS", help="Delete what was not used for so long.")
def prune(everything: bool, unused: int | None) -> None:
    """Delete engines that are of no use.

    Those are broken ones, and those of a library version, a driver or a GPU that is not here any more.
    """
    useful = _usefulness()
    oldest = 0.0 if unused is None else time.time() - unused * 86400

    def keep(entry: Entry) -> bool:
        return not everything and entry.used >= oldest and useful(entry)

    gone = Cache().prune(keep)
    for entry in gone:
        click.echo(f"deleted: {_line(entry)}")
    click.echo(f"{len(gone)} deleted, {sum(entry.size for entry in gone) / 2**20:.1f} MiB")


def _usefulness() -> Callable[[Entry], bool]:
    """Tells whether an entry could still be found by this machine as it is now."""
    from videosr.doctor import installed
    from videosr.engines.nvidia import NoDriverError, gpus

    versions = {name: installed(name) for name in LIBRARIES}
    try:
        here = {(gpu.name, gpu.driver) for gpu in gpus()}
    except NoDriverError:
        here = set()  # not known: a GPU may be away for a while

    def useful(entry: Entry) -> bool:
        version = versions.get(entry.key.get("library", ""))
        present = not here or (entry.key.get("gpu", ""), entry.key.get("driver", "")) in here
        return present and (not version or version == entry.key.get("version"))

    return useful


def _line(entry: Entry) -> str:
    size = f"{entry.size / 2**20:.1f} MiB"
    if entry.problem:
        return f"{entry.path.name}: {entry.problem}, {size}"
    key = entry.key
    what = " ".join(filter(None, (entry.facts.get("name"), key.get("shapes"), key.get("precision"))))
    where = f"{key.get('library')} {key.get('version')}, {key.get('gpu')}, driver {key.get('driver')}"
    verdict = entry.facts.get("problem") or (f"{entry.facts['psnr']} dB" if "psnr" in entry.facts else "")
    return ", ".join(filter(None, (f"{key.get('kind')} {what}".strip(), where, size, verdict)))


@click.command()
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def doctor(as_json: bool) -> None:
    """Show what this machine can do, and what it lacks."""
    from videosr.doctor import examine

    report = examine()
    click.echo(json.dumps(report.as_json(), indent=2) if as_json else "\n".join(report.lines()))

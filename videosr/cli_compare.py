"""The command `videosr compare`."""

from __future__ import annotations

import sys
from fractions import Fraction
from pathlib import Path

import click
from tqdm import tqdm

from videosr.cli_options import Clock, FileName
from videosr.errors import UsageError, one_line
from videosr.files import write_atomically


@click.command()
@click.argument("first", type=FileName(), metavar="A")
@click.argument("second", type=FileName(), metavar="B")
@click.option("-o", "--output", type=FileName(), help="The page to write, as report.html.")
@click.option("--png", "image", type=FileName(), help="A picture to write: A, B and their difference.")
@click.option("--reference", type=FileName(), help="What both should look like: A and B are measured.")
@click.option("--scenes", type=click.IntRange(1, 100), default=6, help="How many to show at most.")
@click.option("--at", type=Clock(), multiple=True, help="A moment to show: seconds or [HH:]MM:SS; may be repeated.")
@click.option("-q", "--quiet", is_flag=True, help="Say nothing but errors.")
def compare(
    first: Path,
    second: Path,
    output: Path | None,
    image: Path | None,
    reference: Path | None,
    scenes: int,
    at: tuple[Fraction, ...],
    quiet: bool,
) -> None:
    """Compare two films, or two pictures, side by side.

    Scenes of both, with a slider between them, their difference and what was measured, go into one HTML file that needs
    no other. The smaller one is enlarged; both are turned upright, as players do.
    """
    from videosr.compare.page import against, page, picture, table
    from videosr.compare.samples import compared

    if output is None and image is None:
        raise UsageError("nothing to write: give -o report.html, --png picture.png, or both")
    if output == image:
        raise UsageError(f"-o and --png both name {output}; choose another name for one")
    for path in filter(None, (output, image)):
        if not path.absolute().parent.is_dir():
            raise UsageError(f"{path}: there is no such folder; make it first")
        if path.is_dir():
            raise UsageError(f"{path} is a folder; name the file to write")
        if any(path.exists() and film and film.exists() and path.samefile(film) for film in (first, second, reference)):
            raise UsageError(f"{path} is one of the inputs; choose another name")
    if at and min(at) < 0:
        raise UsageError(f"--at {float(min(at)):g} lies before the beginning")
    hidden = quiet or not sys.stderr.isatty()
    with tqdm(desc="looking for scenes", unit=" frames", disable=hidden, file=sys.stderr) as bar:
        found = compared(
            first, second, reference, scenes=scenes, at=at, told=lambda frames: bar.update(frames - bar.n) and None
        )
    if output is not None:
        write_atomically(output, page(found).encode(errors="backslashreplace"))  # names may be no Unicode
    if image is not None:
        write_atomically(image, picture(found))
    if quiet:
        return
    for note in found.notes:
        click.echo(one_line(note))
    if found.scores:
        rows = table(found)
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        for row in rows:
            click.echo(one_line("  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()))
        click.echo(one_line(against(found)))
    shown = f"{len(found.samples)} scene{'s' * (len(found.samples) != 1)}"
    click.echo(one_line(f"{shown}: {' '.join(str(path) for path in (output, image) if path is not None)}"))

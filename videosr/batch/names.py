"""What the outputs of a batch are called: the same whatever else it works on, once a file has been begun."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from videosr.batch.ledger import Entry, Known
from videosr.errors import InputError
from videosr.journal import fingerprint


@dataclass(frozen=True, slots=True)
class Item:
    """One file to make.

    Attributes:
        source: where it is.
        output: its path within the output folder.
    """

    source: Path
    output: Path


def named(
    pairs: Sequence[tuple[Path, Path]], to: str, suffixes: Iterable[str], record: Mapping[str, Known]
) -> list[Item]:
    """Give outputs their suffix and names of their own.

    A source that the record knows keeps the output that it has there. A new one has the first of these names that no
    other one has, or could have: `a.mkv`; `a.avi.mkv`; `a.avi (FOLDER).mkv`, by the source's folder; and the last with
    a hash of its path instead. Their order does not matter, nor does it if some of them have been made already.

    Args:
        pairs: sources, and their paths below the output folder, still with the sources' suffixes.
        to: suffix of the outputs.
        suffixes: of sources, which an output's name does without.
        record: what has been made in the output folder.
    """
    suffix = f".{to.removeprefix('.')}"
    levels = [_names(source, below, suffix, frozenset(suffixes)) for source, below in pairs]
    entries = {output: entry for output, known in record.items() if (entry := known.begun or known.done)}
    owners = {_key(Path(output)): entry for output, entry in entries.items()}
    kept = _kept(pairs, suffix, entries)
    taken = {_key(output) for output in kept.values()}
    left = [n for n, (source, _) in enumerate(pairs) if source not in kept]
    outputs: dict[int, Path] = {n: kept[source] for n, (source, _) in enumerate(pairs) if source in kept}
    for level in range(4):
        common = Counter(_key(names[level]) for names in levels)
        still = []
        for n in left:
            key = _key(levels[n][level])
            alone = common[key] == 1 and key not in taken and not _of_another(pairs[n][0], owners.get(key))
            if alone or level == 3:
                outputs[n] = levels[n][level]
                taken.add(key)
            else:
                still.append(n)
        left = still
    return [Item(source, outputs[n]) for n, (source, _) in enumerate(pairs)]


def _key(output: Path) -> str:
    return str(output).casefold()  # on some systems these are one


def _names(source: Path, below: Path, suffix: str, known: frozenset[str]) -> tuple[Path, Path, Path, Path]:
    whole = os.path.abspath(source)  # noqa: PTH100 - as it was asked for, whatever links lead there
    mark = hashlib.sha256(os.fsencode(whole)).hexdigest()[:8]
    return (
        below.with_name((below.stem if below.suffix.lower() in known else below.name) + suffix),
        below.with_name(below.name + suffix),
        below.with_name(f"{below.name} ({Path(whole).parent.name}){suffix}"),
        below.with_name(f"{below.name} ({mark}){suffix}"),
    )


def _kept(pairs: Sequence[tuple[Path, Path]], suffix: str, entries: Mapping[str, Entry]) -> dict[Path, Path]:
    """The outputs that sources have already, in the folder where they would have them now."""
    of: dict[tuple[str, Path], Path] = {}
    for name, entry in entries.items():
        output = Path(name)
        if output.suffix == suffix:
            of[entry.source, output.parent] = output
    kept: dict[Path, Path] = {}
    taken: set[str] = set()
    for source, below in pairs:
        absolute = os.path.abspath(source)  # noqa: PTH100
        has = of.get((absolute, below.parent)) or of.get((str(source), below.parent))
        if has is not None and _key(has) not in taken:
            kept[source] = has
            taken.add(_key(has))
    return kept


def _of_another(source: Path, entry: Entry | None) -> bool:
    """Whether an output was made of another file that is still there; if it is gone, it was moved or is done with."""
    if entry is None or not os.path.exists(entry.source) or os.path.realpath(entry.source) == os.path.realpath(source):  # noqa: PTH110
        return False
    try:
        return fingerprint(source) != entry.input  # a copy is as good
    except InputError:
        return True

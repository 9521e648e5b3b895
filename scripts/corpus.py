"""Odd, hostile and high-end video: `python scripts/corpus.py [--group GROUP] [--large] [--markdown FILE]`.

Generates every file of the corpus (`tests/corpus`), upscales it with `videosr upscale` and compares what comes out with
what went in, read by PyAV alone; colour is checked sample by sample against the standards' own formulas. Where ffprobe
is installed it reads every output as well. Prints a table; exit code 1 if a case is not as it should be.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

from common import run

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))
from corpus import all_cases  # noqa: E402
from corpus.case import Row  # noqa: E402
from corpus.case import run as run_case  # noqa: E402


def second_opinion(output: Path) -> list[str]:
    """What ffprobe has against an output."""
    command = ["ffprobe", "-v", "error", "-count_frames", "-show_streams", "-of", "json", str(output)]
    done = subprocess.run(command, capture_output=True, text=True)
    if "not supported" in done.stderr:
        return []  # an older one that does not know the format
    problems = [f"ffprobe: {line}" for line in done.stderr.splitlines()[:1]]
    streams = json.loads(done.stdout or "{}").get("streams", [])
    if not any(s.get("nb_read_frames", "0") != "0" for s in streams if s.get("codec_type") == "video"):
        problems.append("ffprobe finds no frame of video")
    return problems


def line(row: Row) -> str:
    case = row.case
    outcome = "; ".join(row.problems) if row.problems else case.expected + (f"; {row.figure}" if row.figure else "")
    cells = (case.group, case.name, "ok" if row.ok else "FAILED", outcome)
    return f"| {' | '.join(cell.replace('|', '/') for cell in cells)} |"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--group", action="append", help="only this; may be repeated")
    parser.add_argument("--case", help="only cases with this in their name")
    parser.add_argument("--large", action="store_true", help="pictures of up to 8K as well (minutes, gigabytes)")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the table there too")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="leave the files there")
    args = parser.parse_args()
    cases = [
        c
        for c in all_cases()
        if (not args.group or c.group in args.group) and (args.case or "") in c.name and (args.large or not c.large)
    ]
    if not cases:
        parser.error(f"no case is chosen; the groups are {', '.join(sorted({c.group for c in all_cases()}))}")
    os.environ.setdefault("SVT_LOG", "1")
    ffprobe = shutil.which("ffprobe") is not None
    lines = ["| group | case | | outcome |", "|---|---|---|---|"]
    print("\n".join(lines), flush=True)
    failed: Counter[str] = Counter()
    with tempfile.TemporaryDirectory(prefix="videosr-corpus-") as temporary:
        for number, case in enumerate(cases):
            folder = (args.keep or Path(temporary)) / f"{number:04d}"
            folder.mkdir(parents=True)
            row = run_case(case, folder)
            if ffprobe and case.code == 0 and row.ok:
                row.problems += second_opinion(folder / case.output)
            failed[case.group] += not row.ok
            lines.append(line(row))
            print(lines[-1], flush=True)
            if not args.keep:
                shutil.rmtree(folder)
    bad = failed.total()
    readers = "PyAV and ffprobe" if ffprobe else "PyAV"
    lines.append(f"\n{len(cases) - bad} of {len(cases)} cases as they should be, read by {readers}")
    print(lines[-1])
    if args.markdown:
        args.markdown.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return 1 if bad else 0


if __name__ == "__main__":
    run(main)

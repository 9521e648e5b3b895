"""Upscale real clips and check each result: `python scripts/clips_bar.py CLIP... [--broken PATTERN]... [-- OPTIONS]`.

For each clip: `videosr upscale OPTIONS`, then the comparison of `videosr verify`, which reads both files to their ends:
as many frames out as in, times equal to the tick, every stream, no decoding error. A clip whose name matches a
`--broken` pattern may be refused or recovered in part instead, but in one clear line, in good time and with nothing
left behind. Prints a table; exit code 1 if anything failed.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from common import count, existing, positive, run

from videosr.errors import VideosrError
from videosr.media.checks.verify import Report, verify
from videosr.media.decoder import Decoder

DAMAGE = re.compile("damage|truncat|concealed|left out|stopped early")


class Row(NamedTuple):
    """What became of one clip."""

    ok: bool
    outcome: str
    frames: str = ""
    size: str = ""
    streams: str = ""


def check(clip: Path, output: Path, broken: bool, limited: bool, options: list[str], seconds: float) -> Row:
    command = [sys.executable, "-m", "videosr", "upscale", str(clip), str(output), "--json", *options]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds)
    except subprocess.TimeoutExpired:
        return Row(False, f"FAILED: not done after {seconds:g} s")
    left = [path.name for path in output.parent.iterdir() if path != output]
    if left:
        return Row(False, f"FAILED: left behind {', '.join(left)}")
    errors = done.stderr.splitlines()
    if done.returncode:
        if done.returncode != 1 or len(errors) != 1 or not errors[0].startswith("videosr: ") or output.exists():
            return Row(False, f"FAILED: exit code {done.returncode}: {' / '.join(errors[-3:])}")
        message = errors[0].removeprefix(f"videosr: {clip}: ")
        return Row(broken, f"{'refused' if broken else 'FAILED'}: {message}")
    if errors:
        return Row(False, f"FAILED: said {' / '.join(errors)}")
    events = [json.loads(line) for line in done.stdout.splitlines()]
    damage = [e["message"] for e in events if e["event"] == "warning" and DAMAGE.search(e["message"])]
    if limited:
        with Decoder(output) as decoder:
            frames = sum(1 for _ in decoder)
            return Row(not decoder.warnings, "; ".join(("ok, in part", *decoder.warnings)), str(frames))
    report = verify(clip, output, scale=2)
    outcome = "; ".join(("recovered", *damage)) if damage else "ok"
    if report.problems:
        outcome = f"FAILED: {'; '.join(report.problems)}"
    elif damage and not broken:
        outcome = f"FAILED: {outcome}"
    return Row(not outcome.startswith("FAILED"), outcome, *figures(report))


def figures(report: Report) -> tuple[str, str, str]:
    facts = report.facts
    streams = facts["streams"]
    return (
        f"{facts['frames_out']}/{facts['frames_in']}",
        "x".join(map(str, facts["size"])),
        f"{streams['kept']}/{streams['kept'] + streams['dropped']}",
    )


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="%(prog)s [-h] [--broken PATTERN]... [--to SUFFIX] [--frames N] [--seconds S] CLIP... "
        "[-- OPTIONS OF videosr upscale]",
    )
    parser.add_argument("clips", nargs="+", type=existing, metavar="CLIP", help="a file, or a folder of files")
    parser.add_argument("--broken", action="append", default=[], metavar="PATTERN", help="names of damaged clips")
    parser.add_argument("--to", default="mkv", metavar="SUFFIX", help="container of the outputs")
    parser.add_argument("--frames", type=count, metavar="N", help="take only so many frames, and compare less")
    parser.add_argument(
        "--seconds", type=positive, default=7200, metavar="S", help="a clip that takes longer has failed"
    )
    arguments = sys.argv[1:]
    split = arguments.index("--") if "--" in arguments else len(arguments)
    args = parser.parse_args(arguments[:split])
    options = arguments[split + 1 :] + (["--frames", str(args.frames)] if args.frames else [])
    clips = [p for path in args.clips for p in (sorted(path.iterdir()) if path.is_dir() else [path]) if p.is_file()]
    if not clips:
        parser.error(f"there is no file in {', '.join(map(str, args.clips))}")
    print("| clip | outcome | frames | size | other streams | seconds |\n|---|---|---|---|---|---|", flush=True)
    failed = 0
    for clip in clips:
        broken = any(fnmatch.fnmatch(clip.name, pattern) for pattern in args.broken)
        start = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            try:
                output = Path(folder) / f"out.{args.to}"
                row = check(clip, output, broken, bool(args.frames), options, args.seconds)
            except VideosrError as exc:
                row = Row(False, f"FAILED: {exc}")
        failed += not row.ok
        print(
            f"| {clip.name} | {row.outcome} | {row.frames} | {row.size} | {row.streams} | "
            f"{time.monotonic() - start:.1f} |",
            flush=True,
        )
    print(f"\n{len(clips) - failed} of {len(clips)} clips as they should be")
    return 1 if failed else 0


if __name__ == "__main__":
    run(main)

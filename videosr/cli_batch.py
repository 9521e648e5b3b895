"""The command `videosr batch`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from videosr.cli_options import FileName, ray_option, transcode_options, wanted
from videosr.errors import VideosrError, one_line

if TYPE_CHECKING:  # slow to import, and nothing that --help needs
    from videosr.batch.run import BatchOptions, Plan
    from videosr.engines.gpu_device import Gpu


@click.command()
@click.argument("sources", nargs=-1, required=True, metavar="FOLDER|GLOB|LIST...")
@click.option("-o", "--output", "out", type=FileName(), required=True, help="The folder to make.")
@click.option(
    "--to",
    metavar="SUFFIX",
    default="mkv",
    help="The outputs' kind: mkv, mp4, mov or webm; of pictures png, jpg or webp.",
)
@click.option("--pattern", metavar="GLOB", show_default="the usual suffixes", help="Names to take, as '*.mkv'.")
@click.option(
    "--jobs", type=click.IntRange(min=1), default=1, help="Files under way at once; they share the CPU's threads."
)
@click.option("--dry-run", is_flag=True, help="Look, try a few frames, say what would be done, and do nothing.")
@click.option("--no-space-check", is_flag=True, help="Begin even if the disk seems too small.")
@click.option("--no-verify", is_flag=True, help="Do not compare each finished file with its source.")
@ray_option
@transcode_options
@click.option("--json", "as_json", is_flag=True, help="As JSON lines on stdout: file, plan, begin, progress, done, ...")
@click.option("-q", "--quiet", is_flag=True, help="Say nothing but what failed.")
def batch(
    sources: tuple[str, ...],
    out: Path,
    to: str,
    pattern: str | None,
    jobs: int,
    ray: str | None,
    dry_run: bool,
    no_space_check: bool,
    no_verify: bool,
    as_json: bool,
    quiet: bool,
    **options: Any,
) -> None:
    """Upscale many files.

    The tree of a folder is mirrored in the output folder; a list is a text file with one path a line, or - for standard
    input. What is done, by a record of inputs and settings in the output folder, is not made again; a file that was
    interrupted goes on where it was. Files that cannot be made are told of at the end: exit code 1.
    """
    from videosr.batch.inputs import find
    from videosr.batch.report import Report
    from videosr.batch.run import Batch, BatchOptions

    checks = {"check_space": not no_space_check, "verify": not no_verify}
    request = BatchOptions(out=out, to=to, transcode=wanted(**options), jobs=jobs, ray=ray, **checks)
    report = Report(as_json=as_json, quiet=quiet)
    try:
        work = Batch(find(sources, out, to, pattern), request, report)
        if not dry_run:
            code = work.run()
        else:
            plan = work.plan()
            code = 1 if report.failures else 0
            if not as_json:
                for line in _told(plan, request, work.gpu):
                    click.echo(line)
    except VideosrError as exc:
        report.event("error", message=str(exc), exit_code=exc.exit_code)
        raise
    except KeyboardInterrupt:
        report.event("error", message="interrupted", exit_code=130)
        raise
    finally:
        report.close()
    if code:
        raise click.exceptions.Exit(code)


def _told(plan: Plan, request: BatchOptions, gpu: Gpu | None) -> Iterator[str]:
    """A plan in words: a line for each file to make, then what all of them come to."""
    from videosr.batch.estimate import human
    from videosr.batch.report import count

    for (item, facts), size in zip(plan.files, plan.estimate.bytes, strict=True):
        columns, rows = facts.output_size
        frames = count(facts.frames, "frame") if facts.frames else "unknown length"
        why = f" ({facts.verdict.reason})" if facts.verdict.reason else ""
        yield one_line(f"{item.source} -> {request.out / item.output}: {columns}x{rows}, {frames}, {human(size)}{why}")
    seconds = plan.estimate.seconds
    eta = "unknown" if seconds is None else _duration(seconds)
    yield (
        f"{count(len(plan.files))} to make, {count(plan.frames, 'frame')}; {plan.known} done before; time: {eta}; "
        f"outputs: {human(plan.estimate.total)}, while working {human(plan.need(request.jobs))} "
        f"of {human(plan.free)} free ({plan.estimate.how})"
    )
    if gpu is None:
        yield "computed on the CPU: no engine to build, no memory of a GPU taken"
    else:
        taken = "unknown" if plan.vram is None else human(plan.vram)
        yield f"{gpu.name}: {taken} of {human(gpu.memory)} taken; engines to build: {', '.join(plan.builds) or 'none'}"
    if plan.estimate.unknown:
        yield f"{count(plan.estimate.unknown)} of unknown length: not in the figures"


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    if minutes < 1:
        return f"{seconds:.0f} s"
    return f"{minutes // 60} h {minutes % 60:02d} min" if minutes >= 60 else f"{minutes} min"

"""A batch: look at all files, plan, make what is not done, go on past what fails.

All work on files is done by a pool of processes, as jobs (`batch.jobs`): `Look` says whether a file is to be made,
`Try` makes a few frames of it for `--dry-run`, `Make` makes it. This process keeps the record (`batch.ledger`) and
reports.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

from videosr.batch.estimate import Estimate, estimate, human, need, space
from videosr.batch.inputs import PICTURE_SUFFIXES, Found
from videosr.batch.jobs import Begun, Check, Facts, Look, Made, Make, Measured, Try
from videosr.batch.ledger import Entry, Known, Ledger, read
from videosr.batch.names import Item
from videosr.batch.report import Report, count
from videosr.batch.settings import settings
from videosr.distributed.cluster import connected
from videosr.distributed.pool import Done, Failed, Frames, Pool, Told
from videosr.engines.gpu_device import Gpu
from videosr.errors import OutputError, UsageError
from videosr.frame import PixelFormat, StreamInfo
from videosr.journal import folder_of
from videosr.machine import cores
from videosr.media.codecs import resolve
from videosr.media.containers import container_format
from videosr.transcode import TranscodeOptions
from videosr.upscaler import Upscaler

SAMPLES, SAMPLE_FRAMES = 2, 24
_FULL = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchOptions:
    """How to make many files.

    Attributes:
        out: the output folder.
        to: suffix of the outputs.
        transcode: how each is made. `overwrite` is about outputs that no batch has made.
        jobs: files under way at once, each in a process of its own; they share the processor's threads.
        ray: address of a Ray cluster whose nodes make the files' segments; None: this machine makes them.
        check_space: refuse to begin if the disk is likely to fill up.
        verify: compare every finished file with its source.
    """

    out: Path
    to: str = "mkv"
    transcode: TranscodeOptions = field(default_factory=TranscodeOptions)
    jobs: int = 1
    ray: str | None = None
    check_space: bool = True
    verify: bool = True

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises:
            UsageError: no jobs, or a suffix that videosr does not write.
        """
        container_format(self.to)
        if self.jobs < 1:
            raise UsageError(f"--jobs {self.jobs} is not positive")


class Planned(NamedTuple):
    """A file that is to be made."""

    item: Item
    facts: Facts


@dataclass(frozen=True, slots=True)
class Plan:
    """What a batch would do.

    Attributes:
        files: that are to be made.
        known: how many files are done already.
        estimate: of space and time.
        free: bytes on the output's disk.
        builds: sizes of pictures, "1280x720", for which an engine has to be built first.
        vram: bytes of the GPU's memory that are taken while files are made; 0 on the CPU, None where nothing was
            measured.
    """

    files: tuple[Planned, ...]
    known: int
    estimate: Estimate
    free: int
    builds: tuple[str, ...]
    vram: int | None

    def need(self, jobs: int) -> int:
        """Bytes that are taken while so many files at once are made (`estimate.need`)."""
        return need([f.facts for f in self.files], self.estimate.bytes, jobs)

    @property
    def frames(self) -> int:
        """Frames of all files whose length is known."""
        return sum(f.facts.frames or 0 for f in self.files)


class Batch:
    """One run over many files.

    Args:
        found: the files.
        options: how to make them.
        report: is told of everything.

    Raises:
        VideosrError: the request cannot work for any file: no such network, engine, encoder or option.
    """

    def __init__(self, found: Found, options: BatchOptions, report: Report) -> None:
        self._found, self._options, self._report = found, options, report
        self._settings = settings(options.transcode)
        self._upscaler = _check(options)
        share = options.transcode.upscale.threads or max(1, cores() // options.jobs)
        upscale = options.transcode.upscale if options.ray else replace(options.transcode.upscale, threads=share)
        self._transcode = replace(options.transcode, upscale=upscale)
        # A part of a film, or a picture, is not to hold all that its source does.
        self._verify = options.verify and not options.transcode.trimmed and container_format(options.to) != "image"

    def plan(self) -> Plan:
        """Look at every file and try a few frames; changes nothing."""
        with Pool(self._options.jobs) as pool:
            files, checks, known = self._look(pool, read(self._options.out))
            builds = self._builds(files)  # samples build them too
            measured, vram = self._try(pool, files)
            failed = {file for file, _ in self._report.failures}
            files = [file for file in files if file.item.source not in failed]
            plan = self._planned(files, known + len(checks), builds, measured, vram)
        self._event_of_plan(plan)
        return plan

    def run(self) -> int:
        """Make what is not done.

        Returns:
            The exit code: 1 if a file failed.

        Raises:
            OutputError: the output folder cannot be written to, or its disk is too small or has filled up.
        """
        begun = time.monotonic()
        with Ledger(self._options.out) as ledger, Pool(self._options.jobs) as pool:
            files, checks, known = self._look(pool, ledger.known)
            self._check(pool, checks, ledger)
            known += len(checks)
            plan = self._planned(files, known, self._builds(files), [], None if self.gpu else 0)
            self._event_of_plan(plan)
            self._report.say(
                f"{count(len(files))} to make, {known} done before; {count(plan.frames, 'frame')}; "
                f"some {human(plan.estimate.total)} ({plan.estimate.how}), {human(plan.free)} free"
            )
            wanted = plan.need(self._options.jobs)
            if self._options.check_space and wanted > plan.free:
                raise OutputError(
                    f"{self._options.out}: some {human(wanted)} are needed ({plan.estimate.how}) and "
                    f"{human(plan.free)} are free; free some space, choose another -o, or give --no-space-check"
                )
            with connected(self._options.ray) if self._options.ray else nullcontext() as address:
                self._make(pool, files, ledger, address)
        self._report.end(known, time.monotonic() - begun)
        return 1 if self._report.failures else 0

    # -- before -------------------------------------------------------------------------------------------------

    def _look(self, pool: Pool, record: dict[str, Known]) -> tuple[list[Planned], list[Planned], int]:
        """The files to make, in order, those to be compared with their sources, and how many are done."""
        report, options, items = self._report, self._options, self._found.items
        self._tell_of_left()
        jobs = (
            (
                n,
                Look(
                    item.source,
                    options.out / item.output,
                    options.transcode,
                    self._settings,
                    record.get(item.output.as_posix(), Known()),
                    self._upscaler.scale,
                    self._verify,
                ),
            )
            for n, item in enumerate(items)
        )
        found: dict[int, Facts] = {}
        report.start(dict.fromkeys((item.source for item in items), 1), looking=True)
        for n, outcome in pool.run(jobs):
            item = items[n]
            if isinstance(outcome, Failed):
                report.failed(item.source, outcome.message, outcome.exit_code)
            elif isinstance(outcome, Done):
                report.progress(item.source, 1)
                found[n] = outcome.value
        report.start({})
        return self._sorted([Planned(items[n], facts) for n, facts in sorted(found.items())])

    def _tell_of_left(self) -> None:
        """Say what was left aside by its name, and which folders could not be read."""
        report, left = self._report, self._found.left
        if left:
            kinds = ", ".join(f"{suffix} {number}" for suffix, number in left.most_common())
            report.event("left", **{"suffixes": dict(left)})
            how = "--pattern takes others"
            if PICTURE_SUFFIXES & left.keys() and container_format(self._options.to) != "image":
                how += "; pictures need --to png, numbered ones of a film videosr upscale 'FOLDER/%05d.png' ..."
            report.say(f"{count(left.total())} left aside by name ({kinds}); {how}")
        for folder, problem in self._found.unreadable:
            report.failed(folder, str(problem))

    def _sorted(self, found: Sequence[Planned]) -> tuple[list[Planned], list[Planned], int]:
        """Files by what is to be done about them, as `_look` returns them; tells of each."""
        report = self._report
        files: list[Planned] = []
        checks: list[Planned] = []
        known = 0
        for planned in found:
            item, facts = planned.item, planned.facts
            output = self._options.out / item.output
            self._event_of(item, facts)
            match facts.verdict.action:
                case "refuse":
                    report.failed(item.source, f"{output}: {facts.verdict.reason}", 2)
                case "done":
                    known += 1
                    if facts.stored:
                        what = f"{human(facts.stored)} of an unfinished run of another kind"
                        where = folder_of(output)
                        report.warning(item.source, f"is done, and {where} has {what}: remove it if it is done with")
                case "check":
                    checks.append(planned)
                case _:
                    files.append(planned)
        return files, checks, known

    def _event_of(self, item: Item, facts: Facts) -> None:
        size = "x".join(map(str, facts.output_size))
        verdict = facts.verdict
        fields = {"action": verdict.action, "reason": verdict.reason}
        if verdict.action == "make":
            fields |= {"frames": facts.frames, "size": size}  # type: ignore[dict-item]
        self._report.event("file", file=item.source, output=self._options.out / item.output, **fields)

    @property
    def gpu(self) -> Gpu | None:
        """The GPU that computes, None on the CPU."""
        device = self._upscaler.engine.device
        return None if device is None else device.gpu

    def _builds(self, files: Sequence[Planned]) -> tuple[str, ...]:
        """Sizes of pictures for which an engine has to be built first (`Plan.builds`)."""
        tiling, sizes = self._upscaler.tiling, {f.facts.size for f in files}
        if tiling.blend:  # the engine is given tiles; else whole pictures, which planar runners cut if at all
            sizes = {(tiling.axis(width).size, tiling.axis(height).size) for width, height in sizes}
        engine = self._upscaler.engine
        return tuple(f"{width}x{height}" for width, height in sorted(sizes) if engine.to_build((height, width)))

    def _try(self, pool: Pool, files: Sequence[Planned]) -> tuple[list[Measured], int | None]:
        """Make samples of files spread over the batch, as many at once as there will be files under way.

        Returns:
            What they took; and bytes of the GPU's memory, as `Plan.vram`.
        """
        number = min(len(files), max(SAMPLES, self._options.jobs))
        chosen = [files[n * len(files) // number] for n in range(number)]
        suffix = f".{self._options.to.removeprefix('.')}"
        jobs = ((n, Try(f.item.source, suffix, self._transcode, SAMPLE_FRAMES)) for n, f in enumerate(chosen))
        device = self._upscaler.engine.device
        before = peak = device.used_memory() if device else 0
        measured = []
        for n, outcome in pool.run(jobs):
            peak = max(peak, device.used_memory() if device else 0)
            if isinstance(outcome, Done) and outcome.value is not None:
                measured.append(outcome.value)
            elif isinstance(outcome, Failed):
                self._report.failed(chosen[n].item.source, outcome.message, outcome.exit_code)
        return measured, peak - before if measured or not device else None

    def _planned(
        self, files: list[Planned], known: int, builds: tuple[str, ...], measured: list[Measured], vram: int | None
    ) -> Plan:
        options = self._options
        facts = [f.facts for f in files]
        expected = estimate(facts, options.transcode.encoder, measured, options.jobs, options.to)
        return Plan(tuple(files), known, expected, space(options.out), builds, vram)

    def _event_of_plan(self, plan: Plan) -> None:
        what = plan.estimate
        self._report.event(
            "plan",
            files=len(plan.files),
            known=plan.known,
            failed=len(self._report.failures),
            frames=plan.frames,
            bytes=what.total,
            space=plan.need(self._options.jobs),
            free=plan.free,
            engine=self._upscaler.options.engine,
            builds=plan.builds,
            vram=plan.vram,
            eta=what.seconds and round(what.seconds, 1),
            unknown=what.unknown,
            how=what.how,
        )

    # -- the work -----------------------------------------------------------------------------------------------

    def _check(self, pool: Pool, files: list[Planned], ledger: Ledger) -> None:
        """Compare with their sources what was made and not compared; what fails is taken out of `files`."""
        report, good = self._report, []
        jobs = ((n, Check(f.item.source, self._options.out / f.item.output)) for n, f in enumerate(files))
        for n, outcome in pool.run(jobs):
            item, facts = files[n]
            match outcome:
                case Told(str(text)):
                    report.warning(item.source, text)
                case Done():
                    ledger.add(self._entry("done", item, facts.input, facts.file))
                    report.say(f"{self._options.out / item.output}: made before, and now compared with its source")
                    good.append(files[n])
                case Failed(message, code, _):
                    report.failed(item.source, message, code)
                    if not (self._options.out / item.output).exists():
                        ledger.add(self._entry("failed", item, facts.input, None))
        files[:] = good

    def _make(self, pool: Pool, files: Sequence[Planned], ledger: Ledger, ray: str | None) -> None:
        report = self._report
        report.start({f.item.source: f.facts.frames or 0 for f in files})
        full: Failed | None = None

        def jobs() -> Iterator[tuple[int, Make]]:
            for n, (item, facts) in enumerate(files):
                if full is not None:
                    return
                ledger.add(self._entry("begun", item, facts.input, facts.file))
                output = self._options.out / item.output
                yield n, Make(item.source, output, self._transcode, facts.file, self._verify, ray)

        for n, outcome in pool.run(jobs()):
            item = files[n].item
            match outcome:
                case Told(Begun(total, resumed)):
                    report.begin(item.source, total, resumed)
                case Told(Frames(done)):
                    report.progress(item.source, done)
                case Told(str(text)):
                    report.warning(item.source, text)
                case Done(Made() as made):
                    ledger.add(self._entry("done", item, made.input, made.file))
                    self._made(item, made)
                case Failed(message, code, number):
                    report.failed(item.source, message, code)
                    output = self._options.out / item.output
                    if number in _FULL:
                        full = outcome
                    elif code == UsageError.exit_code or not output.exists():
                        # After any other error what is there is whole: the next run compares it with its source.
                        ledger.add(self._entry("failed", item, files[n].facts.input, None))
        if full is not None:
            raise OutputError(
                f"{self._options.out}: the disk is full; what is finished is kept: free some space and "
                "repeat the command"
            )

    def _entry(self, state: Any, item: Item, made_of: str, file: str | None) -> Entry:
        return Entry(
            state=state,
            output=item.output.as_posix(),
            input=made_of,
            settings=self._settings,
            file=file,
            source=os.path.abspath(item.source),  # noqa: PTH100 - the name it has for people, not what is behind links
        )

    def _made(self, item: Item, made: Made) -> None:
        result, output = made.result, self._options.out / item.output
        size = f"{result.width}x{result.height}"
        speed = (result.frames - result.resumed) / max(made.seconds, 1e-6)
        line = f"{output}: {size}, {count(result.frames, 'frame')}, {human(made.bytes)}, {speed:.1f} fps"
        self._report.done(
            item.source,
            result.frames,
            line,
            output=output,
            size=size,
            resumed=result.resumed,
            reused=result.reused,
            bytes=made.bytes,
            seconds=round(made.seconds, 3),
        )


def _check(options: BatchOptions) -> Upscaler:
    """Load the network once, and open the encoder if one was named: what fails here would fail for every file.

    Returns:
        The upscaler, as the workers will make theirs.
    """
    encoder, container = options.transcode.encoder, container_format(options.to)
    upscaler = Upscaler(options.transcode.upscale.named(compressed=container != "image"))
    if encoder.codec and container != "image":
        fmt = PixelFormat.parse(encoder.pix_fmt or "yuv420p")
        info = StreamInfo(width=256, height=256, format=fmt, time_base=Fraction(1, 25), rate=Fraction(25))
        resolve(encoder, info, container)
    return upscaler

"""What the workers of a batch do: look at a file, make it, or try a few of its frames."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

from videosr.batch.ledger import Known, Verdict, judge
from videosr.distributed.cluster import RayCrew
from videosr.distributed.pool import frames_told
from videosr.errors import InputError, OutputError, UsageError, VideosrError
from videosr.files import move
from videosr.film import TranscodeOptions, expected_frames
from videosr.journal import discard, fingerprint, stored
from videosr.media.checks.verify import verify
from videosr.media.containers import container_format
from videosr.media.decoder import Decoder
from videosr.media.resize import wanted_size
from videosr.progress import Progress
from videosr.transcode import Result, transcode


@dataclass(frozen=True, kw_only=True, slots=True)
class Facts:
    """What is known of a file before it is made.

    Attributes:
        input: its fingerprint.
        file: that of the output, None if there is none.
        verdict: what to do about it; the rest is filled in if it is to be made.
        bytes: size of the source.
        frames: that will come, None where the container does not say.
        seconds: that will be taken, None where unknown.
        size: columns and rows of the source.
        output_size: columns and rows of the output.
        bits: of its samples.
        stored: bytes of segments that an unfinished run has left; also of an output that is done.
    """

    input: str
    file: str | None
    verdict: Verdict
    bytes: int = 0
    frames: int | None = None
    seconds: Fraction | None = None
    size: tuple[int, int] = (0, 0)
    output_size: tuple[int, int] = (0, 0)
    bits: int = 8
    stored: int = 0


@dataclass(frozen=True, slots=True)
class Look:
    """Finds out whether a file is to be made, and how much work that is.

    Attributes:
        source: the file.
        output: what it becomes.
        options: how it would be made.
        settings: the same, as the record has them.
        known: what the record says.
        scale: of the network.
        verify: outputs are compared with their sources.
    """

    source: Path
    output: Path
    options: TranscodeOptions
    settings: Mapping[str, Any]
    known: Known
    scale: int
    verify: bool

    def __call__(self, tell: Callable[[Any], None]) -> Facts:
        """Look."""
        made_of = fingerprint(self.source)
        try:
            file = fingerprint(self.output) if self.output.exists() else None
        except OSError as exc:  # as of a name that is too long with its suffix
            if isinstance(exc, VideosrError):
                raise
            raise OutputError.writing(self.output, exc) from exc
        verdict = judge(self.known, made_of, self.settings, file, overwrite=self.options.overwrite)
        if verdict.action == "check" and not self.verify:
            verdict = Verdict("done")
        if verdict.action != "make":
            return Facts(input=made_of, file=file, verdict=verdict, stored=stored(self.output))
        still = container_format(self.output) == "image"
        most = self.options.max_pixels
        with Decoder(self.source, threads=1, start=self.options.start, max_pixels=most) as decoder:
            info = decoder.info
        frames = 1 if still else expected_frames(info, self.options)
        larger = replace(info, width=info.width * self.scale, height=info.height * self.scale)
        size = larger.width, larger.height
        if self.options.width or self.options.height:
            size = wanted_size(larger, self.options.width, self.options.height)
        return Facts(
            input=made_of,
            file=file,
            verdict=verdict,
            bytes=self.source.stat().st_size,
            frames=frames,
            seconds=frames / info.rate if frames and info.rate else info.duration,
            size=(info.width, info.height),
            output_size=size,
            bits=info.format.bits,
            stored=stored(self.output),
        )


@dataclass(frozen=True, slots=True)
class Begun:
    """A file's first frame is under way.

    Attributes:
        total: frames expected, None where unknown.
        resumed: of them, those that an earlier run has finished.
    """

    total: int | None
    resumed: int


class _Relay(Progress):
    """Sends what the transcoder tells to the parent; warnings as plain text."""

    def __init__(self, name: str, tell: Callable[[Any], None]) -> None:
        super().__init__(name, quiet=True)
        self._tell, self._frames = tell, frames_told(tell)

    def begin(self, total: int | None, rate: Fraction | None, before: int = 0) -> None:
        self._tell(Begun(total, before))

    def frames(self, done: int) -> None:
        self._frames(done)

    def warning(self, text: str) -> None:
        self._tell(text)


@dataclass(frozen=True, slots=True)
class Check:
    """Compares a file that was made with its source.

    Attributes:
        source: the source.
        output: the file.
    """

    source: Path
    output: Path

    def __call__(self, tell: Callable[[Any], None]) -> None:
        """Compare them.

        Raises:
            VideosrError: it does not hold what its source does, and has another name now; or they cannot be compared.
        """
        try:
            report = verify(self.source, self.output)
            problems, of_source = report.problems, report.facts["input_errors"] or report.facts["input_damaged"]
        except InputError as exc:
            if not str(exc).startswith(f"{self.output}:"):
                raise
            problems, of_source = [str(exc)], False  # what was made cannot even be opened
        if not problems:
            discard(self.output)  # a run that was killed just behind the output's appearance has left its segments
            return
        if of_source:  # what a damaged file holds depends on who reads it
            for line in problems:
                tell(f"compared with its damaged source: {line}")
            return
        failed = self.output.with_name(f"{self.output.stem}.failed{self.output.suffix}")
        try:
            move(self.output, failed)
        except OSError as exc:
            raise OutputError.writing(failed, exc) from exc
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise OutputError(f"{failed}: does not hold what {self.source} does: {problems[0]}{more}")


@dataclass(frozen=True, slots=True)
class Made:
    """A file that was made.

    Attributes:
        input: fingerprint of the source, taken before work began.
        file: that of the output.
        result: of the transcoder.
        bytes: size of the output.
        seconds: it took.
    """

    input: str
    file: str
    result: Result
    bytes: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Make:
    """Makes a file.

    Attributes:
        source: the file.
        output: what it becomes.
        options: how.
        judged: fingerprint of the output when it was found that the file is to be made, None if there was none.
        verify: compare the two when it is made.
        ray: address of a cluster whose nodes make its segments.
    """

    source: Path
    output: Path
    options: TranscodeOptions
    judged: str | None
    verify: bool = True
    ray: str | None = None

    def __call__(self, tell: Callable[[Any], None]) -> Made:
        """Make it.

        Raises:
            VideosrError: it cannot be made, or does not hold what its source does; it then has another name.
        """
        begun = time.monotonic()
        try:
            self.output.parent.mkdir(parents=True, exist_ok=True)
        except OSError as exc:
            raise OutputError.writing(self.output.parent, exc) from exc
        made_of = fingerprint(self.source)
        crew = RayCrew(self.ray) if self.ray else None
        options, relay = replace(self.options, overwrite=True), _Relay(self.source.name, tell)
        result = transcode(self.source, self.output, options, relay, crew, self._permit)
        if self.verify:
            Check(self.source, self.output)(tell)
        seconds = time.monotonic() - begun
        return Made(made_of, fingerprint(self.output), result, self.output.stat().st_size, seconds)

    def _permit(self) -> None:
        """Raises UsageError: the output is not what it was when it was found that it may be replaced."""
        if self.options.overwrite or not self.output.exists() or fingerprint(self.output) == self.judged:
            return
        raise UsageError(
            f"{self.output}: appeared or was changed while the batch ran; move it away or give --overwrite"
        )


@dataclass(frozen=True, slots=True)
class Measured:
    """What a few frames took.

    Attributes:
        pixels_per_second: of the output, decoding to muxing, without what only the first frame takes; of a still image
            all that it takes.
        bits_per_pixel: of the output.
        begins: seconds until the first frame was done; 0 for a still image.
    """

    pixels_per_second: float
    bits_per_pixel: float
    begins: float


class _Watch(Progress):
    """Notes when the first frame was done; tells the parent of frames, so that it looks at the GPU's memory then."""

    def __init__(self, name: str, tell: Callable[[Any], None]) -> None:
        super().__init__(name, quiet=True)
        self._frames, self.first = frames_told(tell), 0.0

    def frames(self, done: int) -> None:
        self._frames(done)
        self.first = self.first or time.perf_counter()


@dataclass(frozen=True, slots=True)
class Try:
    """Makes a few frames of a file to measure what that takes; the output is thrown away."""

    source: Path
    suffix: str
    options: TranscodeOptions
    frames: int

    def __call__(self, tell: Callable[[Any], None]) -> Measured | None:
        """Try; None if a film has but one frame."""
        with tempfile.TemporaryDirectory(prefix="videosr-") as folder:
            output = Path(folder) / f"try{self.suffix}"
            watch, begun = _Watch(self.source.name, tell), time.perf_counter()
            result = transcode(self.source, output, replace(self.options, frames=self.frames), watch)
            ended, pixels = time.perf_counter(), result.width * result.height
            if container_format(output) == "image":
                return Measured(pixels / (ended - begun), 8 * output.stat().st_size / pixels, begins=0.0)
            seconds = ended - watch.first
            if result.frames < 2 or not watch.first:
                return None
            return Measured(
                pixels_per_second=(result.frames - 1) * pixels / seconds,
                bits_per_pixel=8 * output.stat().st_size / result.frames / pixels,
                begins=watch.first - begun,
            )

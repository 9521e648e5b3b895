"""`videosr serve`: puts source, pipeline and outputs together, and takes them apart again."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from videosr.errors import OutputError
from videosr.frame import Frame, StreamInfo
from videosr.live.fanout import Fanout
from videosr.live.front import Front, FrontOptions
from videosr.live.intake import Intake, Pace
from videosr.live.ladder import MEASURED, Ladder, first_level, rungs, warm_up
from videosr.live.ledger import Account, Ledger
from videosr.live.options import ServeOptions, Target
from videosr.live.outputs import BACKOFF, Chunks, HlsFolder, Output, Pipe, Push
from videosr.live.pipeline import Pipeline, frames_at_a_time
from videosr.live.segments import Segmenter, target_duration
from videosr.live.sidestream import SideStream
from videosr.media.live.codec import LiveAudio, LiveEncoder, Template
from videosr.media.live.input import LiveInput
from videosr.media.live.output import MUXERS, public_url
from videosr.media.live.source import InputLost
from videosr.media.opening import heeding_signals

CODED_FORMAT = "yuv420p"
"""What every H.264 player takes."""
STATUS = 0.5
"""Seconds between looks at the figures."""
READER = 2.0
"""Seconds the reading thread gets to notice the end."""
SEEING_OFF = 10.0
"""Seconds that the page stays at most after the source's end, for players that are some seconds behind."""


class Server:
    """A stream being served.

    Args:
        options: see `ServeOptions`.
        say: is told what happens, a line each.

    Raises:
        VideosrError: the source or the network cannot be opened, or an output cannot be had.
    """

    def __init__(self, options: ServeOptions, say: Callable[[str], None]) -> None:
        self.options, self._say = options, say
        self._stop = threading.Event()
        self._asked_to_stop = threading.Event()
        self._front: Front | None = None
        self._served: Output | None = None  # through the front
        self._outputs: list[Output] = []
        self._lost: list[Output] = []
        self._dated: list[Callable[[int, float], None]] = []
        source: LiveInput | None = None
        try:
            # First, for an address may be refused, and the source long in coming: until then health says it is away.
            self._listen()
            source = self._connect()
            self._open(source)
        except BaseException:
            self._stop.set()
            for output in self._outputs:
                output.finish()
            if self._front is not None:
                self._front.close()
            if source is not None:
                source.close()
            raise

    def _listen(self) -> None:
        options = self.options
        page = next((target for target in options.targets if target.kind == "http"), None)
        listening = [target for target in options.targets if target.kind == "tcp"]
        if not page and not listening:
            return
        self._front = Front(
            FrontOptions(
                http=page.address if page else None,
                listeners=tuple(target.address for target in listening),
                token=options.token,
            ),
            ", ".join(target.text for target in (*([page] if page else []), *listening)),
        )
        self._announce(self._front, page, listening)

    def _connect(self) -> LiveInput:
        """Open the source; if it is live and not there yet, wait for it."""
        attempt = 0
        while True:
            try:
                # Up to its first frame, for which a pipe may be waited for as long as for anything.
                return heeding_signals(lambda: LiveInput(self.options.source))
            except InputLost as exc:
                if not self.options.source.live:
                    raise
                if attempt == 0:
                    self._say(f"{exc}; waiting for it")
                time.sleep(BACKOFF[min(attempt, len(BACKOFF) - 1)])
                attempt += 1

    def _open(self, source: LiveInput) -> None:
        options = self.options
        real_time = options.real_time or source.live
        budget = options.latency if real_time else None
        coded = any(target.kind != "pipe" for target in options.targets)
        upscale = replace(options.upscale, pix_fmt=CODED_FORMAT) if coded else options.upscale
        info, forms = rungs(upscale, source.info, steps=options.steps and real_time)
        at_a_time = frames_at_a_time(source.info, options.upscale.threads)
        measure = MEASURED if real_time and len(forms) > 1 else 0.0
        speeds = warm_up(forms, _blank(source.info), at_a_time, measure)
        how = f"within {1000 * options.latency:.0f} ms" if real_time else "held back by its readers, nothing dropped"
        self._say(
            f"{options.source.shown}: {source.info.width}x{source.info.height} to {info.width}x{info.height} "
            f"by {forms[0].name}, {how}"
        )
        self._say_losses(source, info, coded)
        if len(forms) > 1:
            self._say(f"if the machine cannot keep up: {', then '.join(form.name for form in forms[1:])}")
        template = Template()
        encoder = LiveEncoder(info, options.video, template) if coded else None
        pushed = {MUXERS[target.text.partition("://")[0]] for target in options.targets if target.kind == "push"}
        audio = self._open_audio(source, template, pushed)
        template.settle()
        self.ledger = Ledger(budget)
        # Time of day at which the outputs' times begin, in seconds since 1970. Of what is live the first picture came
        # before the forms were measured, and the others go on from there.
        self._epoch = time.time() - (time.monotonic() - source.began if source.live else 0.0)
        whole = not real_time and (options.source.file or options.source.remote)
        side = self._open_outputs(source.info, info, template, wait=not real_time, whole=whole)
        fanout = Fanout(self._outputs, encoder, options.latency)
        self.intake = Intake(
            options.source,
            source,
            # What comes over HTTP comes in bursts, a segment at a time.
            pace=Pace(self._stop) if real_time and not options.source.live else None,
            ledger=self.ledger,
            sound=fanout.sound,
            captions=fanout.captions,
            date=self._date,
            audio=audio,
            say=self._say,
            stop=self._stop,
        )
        self.ladder = Ladder(forms, self._say)
        if measure:
            self.ladder.begin_at(first_level(speeds, source.info.rate))
        tap = side.take if side is not None else None
        self._side = side
        self.pipeline = Pipeline(self.intake, self.ladder, self.ledger, fanout, info, at_a_time, tap)

    def _say_losses(self, source: LiveInput, info: StreamInfo, coded: bool) -> None:
        """Name what the outputs do not keep; `coded`: some of them are coded video."""
        shown = self.options.source.shown
        for lost in source.losses:
            self._say(f"{shown}: {lost} cannot be kept")
        if coded and source.info.format.bits > 8:
            self._say(f"{shown}: has {source.info.format.bits} bits, coded outputs get 8")
        if info.sar != 1 and any(target.form == "nut" for target in self.options.targets):
            self._say(f"nut: cannot be told that pixels are {info.sar.numerator}:{info.sar.denominator}; y4m can")

    def _open_audio(self, source: LiveInput, template: Template, muxers: set[str]) -> LiveAudio | None:
        if source.audio is None:
            return None
        try:
            return LiveAudio(source.audio, template, muxers)
        except ValueError as exc:
            self._say(f"{self.options.source.shown}: its sound is left out: {exc}")
            return None

    def _open_outputs(
        self,
        source: StreamInfo,
        info: StreamInfo,
        template: Template,
        *,
        wait: bool,
        whole: bool,
    ) -> SideStream | None:
        """Make the outputs, and what encodes the source for the page where there is one.

        Args:
            source: describes the source's pictures.
            info: describes the upscaled ones.
            template: of the streams that coded outputs hold.
            wait: nothing is dropped; the source waits for the outputs.
            whole: HLS files keep all their segments.
        """
        options = self.options
        segments = target_duration(source.rate)
        common: dict[str, Any] = {"wait": wait, "say": self._say, "stop": self._stop}
        side, front = None, self._front
        if front is not None:
            front.begin(self._epoch, segments)
            self._dated.append(front.date)
            self._served = Chunks(front.name, template, front.taker("upscaled"), lambda until: None, **common)
            self._outputs.append(self._served)
            if any(target.kind == "http" for target in options.targets):
                side = SideStream(source, options.video, front, self._say)
        for target in options.targets:
            if target.kind == "pipe":
                self._outputs.append(Pipe(target.text, target.path, target.form, info, template, **common))
            elif target.kind == "push":
                pushed = sum(isinstance(output, Push) for output in self._outputs)
                name = f"{public_url(target.text)}{f' #{pushed + 1}' if pushed else ''}"
                self._outputs.append(Push(name, target.text, template, **common))
            elif target.kind == "hls":
                segmenter = Segmenter(self._epoch, segments, whole=whole)
                self._dated.append(segmenter.date)
                folder = HlsFolder(Path(target.path), segmenter)
                self._outputs.append(Chunks(target.text, template, folder.take, folder.end, **common))
        return side

    def _date(self, pts: int, epoch: float) -> None:
        """Tell those that date what they give out when pts 0 was, by pictures from some pts on."""
        for tell in self._dated:
            with suppress(OutputError):  # the page's process has died, which `_tell_front` finds out as well
                tell(pts, epoch)

    def _announce(self, front: Front, page: Target | None, listening: list[Target]) -> None:
        if page:
            self._say(f"page: http://{_host(page)}:{front.http_port}/ (HLS: about 3 s behind, by its segments)")
            if page.open_to_all and not self.options.token:
                self._say("the page is open to everyone who can reach this machine; --token asks for a word")
        for target, port in zip(listening, front.ports, strict=True):
            self._say(f"MPEG-TS: tcp://{_host(target)}:{port}")

    def stop(self) -> None:
        """End `run` from any thread or signal handler."""
        self._asked_to_stop.set()

    def run(self) -> Account:
        """Serve until the source ends or `stop` is called.

        Returns:
            The account of all frames; none is under way any more.

        Raises:
            KeyboardInterrupt: if it comes; everything has been finished by then.
            VideosrError: the source could not be used any more, no output is left, or none was ever reached.
        """
        for output in self._outputs:
            output.start()
        self.pipeline.start()
        by_itself = False
        try:
            self._watch()
            by_itself = self.pipeline.ended.is_set() and not self._waiting  # not by whoever asked for it
        finally:
            self._finish(by_itself=by_itself)
        if self.intake.error is not None:
            raise self.intake.error
        if len(self._lost) == len(self._outputs):
            raise OutputError("no output is left")
        if by_itself:
            self._check_reached()
        return self.ledger.account

    def _check_reached(self) -> None:
        """Name the destinations to which nothing was ever written; if that is all of them, it is an error."""
        away = [output.name for output in self._outputs if isinstance(output, (Push, Pipe)) and not output.written]
        if not away or not self.ledger.account.delivered:
            return
        line = f"{', '.join(away)}: could not be reached until the end, nothing was sent there"
        if len(away) == len(self._outputs):
            raise OutputError(line)
        self._say(line)

    def _tell_of_lost(self) -> None:
        """Say why outputs have ended for good, each once."""
        for output in self._outputs:
            if output.error is not None and output not in self._lost:
                self._lost.append(output)
                self._say(str(output.error))

    @property
    def _waiting(self) -> bool:
        """Whether frames still wait for a reader, where none may be dropped."""
        return not self.options.real_time and any(output.behind for output in self._outputs)

    def _watch(self) -> None:
        told = 0.0
        while not self._asked_to_stop.is_set():
            if self.pipeline.ended.wait(0.1):
                if not self._waiting:
                    break
                time.sleep(0.1)
            self._tell_of_lost()
            if all(output.gone.is_set() for output in self._outputs):
                raise OutputError("no output is left")
            if time.monotonic() - told >= STATUS:
                told = time.monotonic()
                self._tell_front()

    def _tell_front(self) -> None:
        """Give the page its figures. If its process has died, the output that it serves ends, and no other."""
        if self._front is None or self._served is None or self._front.ended:
            return
        try:
            self._front.tell(self.status())
        except OutputError as exc:
            self._served.fail(exc)

    def _finish(self, *, by_itself: bool) -> None:
        self._stop.set()
        ended = self.pipeline.ended.is_set()
        if not ended:
            self.pipeline.abandon()
            if not self.options.real_time:
                for output in self._outputs:  # the pipeline may wait for a reader that has stalled: end that wait
                    output.queue.close()
        try:
            self.pipeline.finish()
        finally:
            self.intake.join(READER)
            for output in self._outputs:
                output.finish()
            if self._side is not None:
                self._side.close()
            try:
                if self._front is not None and by_itself:
                    self._see_off(self._front)
            finally:
                if self._front is not None:
                    self._front.close()
                self._tell_of_lost()  # with the last frames
                self._say(self.summary())

    def _see_off(self, front: Front) -> None:
        """Let players that are behind come to the end."""
        with suppress(OutputError):  # its process has died, which has been said
            front.over(self.status())
        if front.playing:
            self._say(f"the page stays for its players to come to the end, {SEEING_OFF:.0f} s at most")
        until = time.monotonic() + SEEING_OFF
        while front.playing and time.monotonic() < until and not self._asked_to_stop.wait(0.1):
            pass

    def summary(self) -> str:
        """One line with the account of all frames."""
        account = self.ledger.account
        dropped = sum(account.dropped.values())
        why = ", ".join(f"{count} {reason}" for reason, count in account.dropped.items() if count)
        text = f"{account.taken} frames in, {account.delivered} out, {dropped} dropped" + (f" ({why})" if why else "")
        if self.intake.damaged:
            text += f"; {self.intake.damaged} damaged packets of the source gave no frame"
        for output in self._outputs:
            lost = {"pictures": output.dropped, "packets of sound": output.silenced}
            if any(lost.values()):
                text += f"; {output.name} lost {' and '.join(f'{n} {what}' for what, n in lost.items() if n)}"
        p95 = self.ledger.latency.percentile(0.95)
        return text + (f"; latency p95 {1000 * p95:.0f} ms" if p95 is not None else "")

    def status(self) -> dict[str, Any]:
        """The figures, as the page and `metrics` take them."""
        account, latency = self.ledger.account, self.ledger.latency
        return {
            "began": self._epoch,
            "connected": self.intake.connected,
            "losses": self.intake.losses,
            "frames_in": account.taken,
            "frames_out": account.delivered,
            "dropped": account.dropped,
            "under_way": account.under_way,
            "budget": self.ledger.budget,
            "p50": latency.percentile(0.5),
            "p95": latency.percentile(0.95),
            "latency": {"counts": list(latency.counts), "total": latency.total},
            "queues": self.pipeline.depths | {f"output {o.name}": len(o.queue) for o in self._outputs},
            "level": self.ladder.level,
            "form": self.ladder.rung.name,
            "viewers": self._front.viewers if self._front is not None else 0,
            "outputs": [
                {name: getattr(o, name) for name in ("name", "taken", "written", "dropped", "silenced")}
                for o in self._outputs
            ],
        }


def _host(target: Target) -> str:
    """Of an address as it stands in a URL (RFC 3986, 3.2.2)."""
    host = target.address[0]
    return f"[{host}]" if ":" in host else host


def _blank(info: StreamInfo) -> Frame:
    planes = tuple(
        np.full(info.format.plane_shape(i, info.height, info.width), 1 << (info.format.bits - 1), info.format.dtype)
        for i in range(info.format.planes)
    )
    return Frame(planes=planes, format=info.format, pts=0, time_base=info.time_base, color=info.color, sar=info.sar)

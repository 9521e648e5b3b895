"""The final file: the joined segments, and everything else of the source as it was.

`_Mux.__init__` writes the header (streams, tags, chapters). `run` then merges two sources of packets by decoding time:
the segments (`videotrack`) and the source's other streams, copied or converted (`_other_packets`). What FFmpeg does
not write, Matroska's display size and what `matroska.more` carries, is put into the finished file.
"""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import av
import av.error
from av.stream import Stream

from videosr.errors import InputError, OutputError
from videosr.files import move
from videosr.media import immersive
from videosr.media.boxes import set_created, since_1904
from videosr.media.chapters import moved_chapters
from videosr.media.clock import FORMATS, Clock, clock_of
from videosr.media.containers import BOOKKEEPING
from videosr.media.convert import Converter, add_converted
from videosr.media.copies import EDITED, StreamCopy, add_copy, cover_attachment, hides_sound, is_hidden
from videosr.media.languages import quicktime_language
from videosr.media.matroska.elements import set_display_size
from videosr.media.matroska.more import carry, file_tags, more_of
from videosr.media.part import Part, Window
from videosr.media.probe import CONVERT, COPY, DROP, REMADE, UPSCALE, Plan
from videosr.media.rehearsal import open_described
from videosr.media.segments import Segment
from videosr.media.source import (
    Disk,
    clean_tags,
    clean_text,
    is_attached_picture,
    open_input,
    reel,
)
from videosr.media.videotrack import VideoTrack

CODES_NO_COLOR = frozenset({"ffv1", "mpeg4"})
"""Encoders that write no colour into the video itself."""

if TYPE_CHECKING:
    from av.container.streams import StreamContainer

    type Packet = av.Packet[Stream]

STREAMED = FORMATS | {"flv"}
"""FFmpeg's demuxers of recorded streams, whose clocks begin anywhere (a broadcaster's at any hour of the day). The
output begins at 0, as with FFmpeg's own command; else players would show nothing until then."""
STATISTICS = ("bps", "duration", "number_of_", "_statistics")
"""Beginnings of tags that count what is in a stream."""
STALE_TAGS = (*STATISTICS, "encoder", "alpha_mode")
"""Beginnings of tags that describe the old coded video, not its content."""


def mux(
    segments: Sequence[str | os.PathLike[str]],
    source: str | os.PathLike[str],
    output: str | os.PathLike[str],
    plan: Plan,
    *,
    trimmed: bool = False,
    matrix: tuple[int, ...] | None = None,
    says: Mapping[str, bytes] | None = None,
    folder: Path | None = None,
    accept: Callable[[list[str]], None] | None = None,
    permit: Callable[[], None] | None = None,
) -> list[str]:
    """Write the output file. It appears under its name when it is complete; on any failure nothing is left.

    Args:
        segments: segment files in presentation order, at least one.
        source: the file the plan was made from.
        output: where to; an existing file is replaced.
        plan: from `plan_streams`.
        trimmed: the segments hold only a part of the source's video; the other streams are cut to that part and
            everything is moved so that the video begins at 0.
        matrix: display matrix of the frames, FFmpeg's nine integers; None: that of the source's container, if any.
        says: side data of the video stream that the file is to say: what `immersive.describable` and `dolby.carried`
            leave for this container.
        folder: for the unfinished file, on the output's disk; beside the output by default. A process that is killed
            leaves the file there.
        accept: is told what cannot be kept of a part (`trimmed`) before packets are written, and may raise.
        permit: is called when the file is whole, before it gets its name, and may raise.

    Returns:
        Warnings: what was found damaged, and what of a part could not be kept.

    Raises:
        InputError: a segment is damaged or does not fit the others, or the source has changed or cannot be read.
        OutputError: the file cannot be written; the message names it.
    """
    target = Path(output)
    part = (folder or target.parent) / f".{target.name[:50]}.{os.getpid()}.part"
    pieces = [Segment(path) for path in segments]
    if not pieces or any(piece.header != pieces[0].header for piece in pieces):
        raise InputError(f"{target}: the segments do not have equal headers; delete them and run again")
    try:
        with (
            open_input(source) as container,
            open_described(source) as (described, _),
            contextlib.closing(clock_of(container)) as clock,
        ):
            name = os.fspath(source)
            track = VideoTrack(pieces, plan.container, says or {})
            job = _Mux(name, track, container, described.streams, clock, part, plan, trimmed, matrix, says or {})
            if accept is not None:
                accept(job.warnings)
            warnings = job.run()
        _publish(part, target, permit)
    except (av.error.FFmpegError, OSError) as exc:
        if isinstance(exc, OutputError):
            raise
        raise OutputError.writing(target, exc) from exc
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
    return warnings


def _publish(part: Path, target: Path, permit: Callable[[], None] | None) -> None:
    """Make sure the bytes are on the disk, then give them their name."""
    with part.open("rb+") as file:
        os.fsync(file.fileno())
    if permit is not None:
        permit()
    move(part, target)


class _Mux:
    """One run of `mux`."""

    def __init__(
        self,
        name: str,
        track: VideoTrack,
        source: av.container.InputContainer,
        described: StreamContainer,
        clock: Clock,
        part: Path,
        plan: Plan,
        trimmed: bool,
        matrix: tuple[int, ...] | None,
        says: Mapping[str, bytes],
    ) -> None:
        self._matrix, self._says = matrix, says
        self._path = part
        self._name = name
        self._track = track
        self._source, self._clock = source, clock
        self._plan = plan
        self.warnings: list[str] = []
        self._refused = 0
        if not len(source.streams) == len(described) == len(plan.streams):
            raise InputError(f"{self._name}: has changed since it was read; run again")
        self._window = Window(track.begin, track.end) if trimmed else None
        self._part = Part(self._name, plan, self._window) if self._window is not None else None
        self._delay = self._needed_delay(track.begin) if self._window is None else Fraction(0)
        self._out = av.open(f"file:{part}", "w", format=plan.container, container_options=self._options())
        self._tracks: dict[int, tuple[str, ...]] = {}  # in the output's order: stream of the source, `_stale` of it
        self._copies: dict[int, StreamCopy] = {}
        self._created: int | None = None  # what FFmpeg would write twice
        self._hidden: Counter[int] = Counter()
        self._converters: dict[int, Converter] = {}
        self._video = self._add_streams(described)
        self._describe()
        if self._part is not None:
            self.warnings += self._part.losses

    # -- header -------------------------------------------------------------------------------------------------

    def _needed_delay(self, begin: Fraction) -> Fraction:
        """Seconds by which everything is moved; the video begins at `begin`.

        Players show an MP4 from 0 on, and FFmpeg misreads negative times of H.264 in Matroska. So a video that begins
        before 0 is moved to 0, and with it all else.
        """
        origin = Fraction(0)
        if self._source.format.name in STREAMED:
            origin = max(origin, Fraction(self._source.start_time or 0, 1_000_000))
        return -min(begin, origin)

    def _options(self) -> dict[str, str]:
        """What FFmpeg's muxer is told."""
        container = self._plan.container
        options = {"fflags": "+bitexact"}
        if container == "matroska":
            options["avoid_negative_ts"] = "disabled"
        if self._delay:
            options["output_ts_offset"] = f"{round(self._delay * 1_000_000)}us"
        if container in ("mp4", "mov"):
            options["movie_timescale"] = "90000"  # in which edit lists say where a stream begins; by default it is 1000
            flags = "+use_metadata_tags" if self._plan.metadata_tags else ""
            if self._track.header.codec in CODES_NO_COLOR:
                flags += "+write_colr"  # else FFmpeg writes colour into the container only if all of it is known
            if flags:
                options["movflags"] = flags
        if self._says and container == "mp4":
            options["strict"] = "unofficial"  # else FFmpeg leaves out what the standard does not know
        return options

    def _add_streams(self, described: StreamContainer) -> Stream:
        video: Stream | None = None
        rated = self._source.format.name != "image2"
        for entry, stream in zip(self._plan.streams, described, strict=True):
            if entry.action == DROP or entry.target in REMADE:
                continue
            if entry.action == UPSCALE:
                made = video = self._track.add_to(self._out, stream, self._matrix, rated=rated)
                self._place = len(self._tracks)
            elif entry.action == CONVERT:
                converter = add_converted(self._out, stream, entry.target)
                self._converters[stream.index] = converter
                made = converter.stream
            elif isinstance(stream, av.stream.AttachmentStream):
                made = self._out.add_attachment(
                    clean_text(stream.name or "unnamed"), clean_text(stream.mimetype or ""), stream.data
                )
            elif is_attached_picture(stream) and self._plan.container == "matroska":
                made = self._out.add_attachment(*cover_attachment(self._name, stream))
            else:
                made = self._add_copy(stream)
                self._copies[stream.index] = StreamCopy(stream, made, self._plan.container in ("mp4", "mov"))
            made.metadata.update(self._stream_tags(stream, entry.action))
            if made.type != "attachment":
                made.disposition = stream.disposition
                self._tracks[stream.index] = self._stale(entry.action)
        if video is None:
            raise InputError(f"{self._name}: the plan upscales no video stream")
        return video

    def _add_copy(self, stream: Stream) -> Stream:
        """A stream for copied packets. What an edit list hides is no delay of the codec, where it is not copied too."""
        kept = self._plan.container in EDITED and self._part is None
        if kept or not hides_sound(stream):
            return add_copy(self._out, stream)
        with open_input(self._name, ignore_editlist="1") as plain:
            return add_copy(self._out, plain.streams[stream.index])

    def _stream_tags(self, stream: Stream, action: str) -> dict[str, str]:
        tags = clean_tags({**stream.metadata, **reel(stream)})  # which FFmpeg's muxer of MOV moves back
        if self._plan.container == "mov" and "language" in tags:
            tags["language"] = quicktime_language(tags["language"]) or tags["language"]
        if "name" in tags:  # what FFmpeg calls a track's title on reading MP4
            tags.setdefault("title", tags.pop("name"))
        if action == UPSCALE and (self._plan.container == "webm" or immersive.STEREO in self._says):
            tags.pop("stereo_mode", None)  # FFmpeg writes it by itself; WebM does not hold all of them
        tags = {k: v for k, v in tags.items() if not k.lower().startswith(self._stale(action))}
        return self._part.tags(tags, f"stream {stream.index}") if self._part is not None else tags

    def _stale(self, action: str) -> tuple[str, ...]:
        """How the names of a track's tags begin that are not kept."""
        return STALE_TAGS if action != COPY else STATISTICS if self._part is not None else ()

    def _describe(self) -> None:
        """Global tags and chapters."""
        tags = {k: v for k, v in clean_tags(file_tags(self._source)).items() if k.lower() not in BOOKKEEPING}
        tags = self._part.tags(tags, "file") if self._part is not None else tags
        if self._plan.metadata_tags:
            dated = {key for key in tags if key.lower() == "creation_time"}
            self._created = next((since_1904(tags[key]) for key in dated), None)
            if self._created is not None:
                tags = {key: value for key, value in tags.items() if key not in dated}
        self._out.metadata.update(tags)
        if chapters := moved_chapters(self._source, self._delay, self._window, self._plan.container):
            self._out.set_chapters(chapters)

    # -- packets ------------------------------------------------------------------------------------------------

    def run(self) -> list[str]:
        """Write every packet and close the file."""
        try:
            self._out.start_encoding()
            start = Fraction(0) if self._window is None else self._window.start
            video = self._track.packets(self._video, start)
            waiting = next(video, None)
            for time, packets in self._other_packets():
                while waiting is not None and waiting[0] <= time:
                    self._put([waiting[1]])
                    waiting = next(video, None)
                self._put(packets)
            while waiting is not None:
                self._put([waiting[1]])
                waiting = next(video, None)
            for index, converter in self._converters.items():
                self._put(converter.flush())
                if converter.errors:
                    self.warnings.append(
                        f"stream {index}: {converter.errors} damaged packets were left out of the conversion"
                    )
        except BaseException:
            # The error in flight is the one to report; closing only releases the file.
            with contextlib.suppress(av.error.FFmpegError, OSError):
                self._out.close()
            raise
        try:
            self._out.close()
        except (av.error.InvalidDataError, av.error.ArgumentError):
            self._refused += 1  # one of the last packets; the file itself has been finished
        self._check_refused()
        self._write_aspect()
        self._write_more()
        if self._says and self._plan.container == "mp4":
            immersive.without_vexu(self._path)
        if self._created is not None:
            set_created(self._path, self._created)
        self.warnings += [
            f"stream {index}: {count} packets of sound that the source has an edit list to hide were left out"
            for index, count in self._hidden.items()
        ]
        self.warnings += [
            f"stream {index}: {copy.moved} packets whose times go back were moved"
            for index, copy in self._copies.items()
            if copy.moved
        ]
        if self._part is not None:
            self.warnings += self._part.notes
        return self.warnings

    def _put(self, packets: list[Packet]) -> None:
        """Hand packets to the muxer. What it refuses for its content is left out and counted."""
        for packet in packets:
            try:
                self._out.mux(packet)
            except (av.error.InvalidDataError, av.error.ArgumentError):
                # The muxer writes in its own order, so this may be any packet: `_check_refused` looks whose it was.
                self._refused += 1

    def _check_refused(self) -> None:
        """See what the refused packets were: damaged ones of copied streams are a warning, of the video an error."""
        if not self._refused:
            return
        try:
            with open_input(self._path) as made:
                count = sum(1 for packet in made.demux(made.streams[self._video.index]) if packet.size)
        except (av.error.FFmpegError, InputError):
            count = 0
        if count != len(self._track):
            remedy = "take its damaged tracks out" if self._plan.container == "matroska" else "choose .mkv"
            raise InputError(f"{self._name}: {self._plan.container} cannot hold its damaged packets; {remedy}")
        self.warnings.append(f"{self._refused} damaged packets of the source could not be stored and were left out")

    def _write_aspect(self) -> None:
        """Write Matroska's display size into the finished file."""
        if self._plan.container not in ("matroska", "webm") or (size := self._track.display_size()) is None:
            return
        if not set_display_size(self._path, self._place, size):
            sar = Fraction(*self._track.header.sar)
            self.warnings.append(f"the sample aspect ratio {sar} could not be written into the container")

    def _write_more(self) -> None:
        """Write into a finished Matroska file what FFmpeg leaves of the source's."""
        if self._plan.container != "matroska":
            return
        delay = self._delay if self._part is None else None
        if not carry(self._path, more_of(self._source), self._tracks, delay):
            self.warnings.append("chapters, tags and languages are kept only as far as FFmpeg knows them: no room")

    def _other_packets(self) -> Iterator[tuple[Fraction, list[Packet]]]:
        """Packets of all other streams in the source's order, copied or converted."""
        wanted = [s for s in self._source.streams if s.index in self._copies or s.index in self._converters]
        for stream in self._source.streams:
            if stream not in wanted:
                stream.discard = av.stream.Discard.all
        if not wanted:
            return
        packets = self._clock.demux(self._source, *wanted)
        disk, reached = Disk(self._name), 0
        while True:
            try:
                packet = next(packets, None)
            except av.error.FFmpegError as exc:
                disk.check()
                self.warnings.append(f"{self._name}: reading stopped early: {exc.strerror}")
                return
            if packet is None:
                if self._window is None:
                    disk.check(reached)
                return
            if packet.size == 0 and packet.pts is None and packet.dts is None:
                continue  # the demuxer's end marks
            if packet.is_corrupt:
                disk.check()
            reached = max(reached, (packet.pos or 0) + packet.size)
            index = packet.stream_index
            if self._plan.container not in EDITED and index in self._copies and is_hidden(packet):
                self._hidden[index] += 1
                continue
            kept = [packet]
            if self._part is not None:
                lead = self._copies[index].lead(packet) if index in self._copies else Fraction(0)
                kept = self._part.take(packet, lead)
            for packet in kept:
                when = packet.dts if packet.dts is not None else packet.pts  # before its ticks become the output's
                seconds = (when or 0) * Fraction(packet.time_base.num, packet.time_base.den)
                if index in self._converters:
                    yield seconds, self._converters[index].feed(packet)
                elif self._copies[index].storable(packet):
                    yield seconds, [self._copies[index].take(packet)]
                else:
                    self._refused += 1

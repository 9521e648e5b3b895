"""A film made by several processes: the same bytes as by one, however it is cut and whoever dies."""

import itertools
import os
import pickle
import random
import signal
import tempfile
import threading
from fractions import Fraction
from itertools import islice, pairwise
from pathlib import Path

import av
import pytest
from clips import make_clip

from videosr import machine
from videosr.distributed import cluster, piece
from videosr.distributed.crew import LocalCrew, fill
from videosr.distributed.plan import ahead
from videosr.distributed.pool import Failed, outcome
from videosr.distributed.pool import Told as Sent
from videosr.errors import OutputError, UsageError
from videosr.film import TranscodeOptions
from videosr.journal import fingerprint, segment_name
from videosr.media.codecs import EncoderSettings
from videosr.media.deinterlace import Deinterlace
from videosr.media.segments import SegmentRule
from videosr.options import UpscaleOptions
from videosr.progress import Progress
from videosr.transcode import transcode

FAST = EncoderSettings(codec="libx264", preset="ultrafast")


class Told(Progress):
    """Notes what it is told."""

    def __init__(self):
        super().__init__("film", quiet=True)
        self.resumed, self.done, self.warnings = None, [], []

    def begin(self, total, rate, before=0):
        self.resumed = before

    def frames(self, done):
        self.done.append(done)

    def warning(self, text):
        self.warnings.append(text)


def make(source, output, crew=None, told=None, **options):
    options.setdefault("segments", SegmentRule(shortest=5, longest=11))
    wanted = TranscodeOptions(encoder=FAST, **options)
    return transcode(source, output, wanted, told or Told(), crew)


class Here:
    """Hands that make segments in this process, several under way and finished in any order; some die at it.

    Args:
        size: segments under way.
        seed: of the order.
        deaths: numbers, counted over all tries, of those that end before they are done.
        sent: segments are sent, as from another machine.
    """

    def __init__(self, size, seed=0, deaths=(), sent=False):
        self.size, self._chance, self._deaths, self.sent = size, random.Random(seed), deaths, sent
        self.tries = 0

    def run(self, jobs):
        under_way = list(islice(jobs, self.size))
        while under_way:
            number, job = under_way.pop(self._chance.randrange(len(under_way)))
            self.tries += 1
            told = []
            result = outcome(job, told.append)
            if self.tries - 1 in self._deaths:
                yield from ((number, Sent(value)) for value in told[: len(told) // 2])
                if not self.sent:
                    (job.folder / segment_name(number)).unlink()
                yield number, Failed("a worker died", lost=True)
            else:
                yield from ((number, Sent(value)) for value in told)
                yield number, result
            under_way += islice(jobs, 1)

    def fill(self, film, journal, told, warn):
        folder = None if self.sent else journal.folder
        fill(film, journal, told, warn, self, self.size, threads=1, folder=folder)


COLOR = (1, 1, 1, 1, 1)
B_FRAMES = {"preset": "veryfast", "g": "12", "bf": "2", "crf": "30"}


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """Noise over movement, with a keyframe now and then and B-frames between them."""
    path = tmp_path_factory.mktemp("clip") / "clip.mkv"
    return make_clip(path, frames=50, noise=4.0, options=B_FRAMES, color=COLOR)


@pytest.fixture(scope="module")
def alone(clip, tmp_path_factory):
    """What one process makes of the clip, by the rule's lengths."""
    folder, made = tmp_path_factory.mktemp("alone"), {}

    def bytes_of(*rule):
        if rule not in made:
            make(clip, folder / f"{rule}.mkv", segments=SegmentRule(shortest=rule[0], longest=rule[1]))
            made[rule] = (folder / f"{rule}.mkv").read_bytes()
        return made[rule]

    return bytes_of


@pytest.mark.parametrize(
    ("hands", "rule"),
    [
        (Here(1), (5, 11)),
        (Here(2, seed=1), (3, 7)),
        (Here(2, sent=True), (48, 240)),
        (Here(5, seed=2, deaths=(0, 3, 7)), (1, 3)),
        (Here(3, seed=3, deaths=(1, 2, 6, 7), sent=True), (5, 11)),
    ],
    ids=["1", "2", "one segment", "5 of which three die", "3 of which four die, sending"],
)
def test_the_same_bytes_from_any_number(clip, alone, tmp_path, hands, rule):
    told = Told()
    segments = SegmentRule(shortest=rule[0], longest=rule[1])
    result = make(clip, tmp_path / "out.mkv", hands, told, segments=segments)
    assert (tmp_path / "out.mkv").read_bytes() == alone(*rule)
    assert (result.frames, result.resumed, told.done[-1]) == (50, 0, 50)
    assert [line for line in told.warnings if "made again" not in line] == []
    assert [path.name for path in tmp_path.iterdir()] == ["out.mkv"]


def test_processes_one_of_which_is_killed(clip, alone, tmp_path):
    told, killed = Told(), []

    def kill(done):
        if not killed:
            children = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()
            killed.extend(pid for pid in children if b"distributed.pool" in Path(f"/proc/{pid}/cmdline").read_bytes())
            os.kill(int(killed[0]), signal.SIGKILL)

    if not Path("/proc/self/task").exists():
        pytest.skip("children are looked up as Linux lists them")
    told.frames = kill
    make(clip, tmp_path / "out.mkv", LocalCrew(2), told)
    assert len(killed) == 2
    assert len(told.warnings) == 1
    assert "was killed, perhaps because memory ran out: frames from" in told.warnings[0]
    assert (tmp_path / "out.mkv").read_bytes() == alone(5, 11)


@pytest.mark.parametrize("after", [Here(3, seed=5, sent=True), None], ids=["several", "one"])
def test_an_interrupted_crew_goes_on(clip, alone, tmp_path, after):
    """What is finished stays, in whatever order it was; who goes on does not matter."""
    told = Told()

    def interrupt(done):
        told.done.append(done)
        if done >= 25:
            raise KeyboardInterrupt

    told.frames = interrupt
    with pytest.raises(KeyboardInterrupt):
        make(clip, tmp_path / "out.mkv", Here(4, seed=6), told)
    kept = [int(path.stem) for path in sorted((tmp_path / ".out.mkv.videosr").glob("*.seg"))]
    assert any(b - a > 11 for a, b in pairwise([-11, *kept]))  # there are gaps between them
    again = Told()
    result = make(clip, tmp_path / "out.mkv", after, again)
    assert again.resumed == result.resumed >= 25
    assert result.frames == 50
    assert (tmp_path / "out.mkv").read_bytes() == alone(5, 11)


STREAMS = {
    "open groups": ("a.mkv", "libx264", {**B_FRAMES, "x264-params": "open-gop=1"}, False),
    "intra refresh": ("a.mkv", "libx264", {**B_FRAMES, "bf": "0", "x264-params": "intra-refresh=1"}, None),
    "transport stream": ("a.ts", "libx264", B_FRAMES, None),
    "program stream": ("a.mpg", "mpeg2video", {"g": "9", "bf": "2"}, None),
    "no times": ("a.avi", "mpeg4", {"g": "9"}, None),
    "elementary stream": ("a.h264", "libx264", {**B_FRAMES, "bf": "0"}, False),  # read from the beginning, and counted
    "hevc, open groups": ("a.mp4", "libx265", {"x265-params": "open-gop=1:keyint=12:log-level=none"}, None),
    "vp9": ("a.webm", "libvpx-vp9", {"g": "12", "deadline": "realtime"}, False),
}


@pytest.mark.parametrize("name", STREAMS)
def test_streams_that_can_and_cannot_be_cut(name, tmp_path):
    file, codec, options, uncut = STREAMS[name]
    rate = {"rate": Fraction(25), "time_base": Fraction(1, 25)} if codec.startswith("mpeg") else {}
    source = make_clip(tmp_path / file, frames=40, noise=3.0, codec=codec, options=options, color=COLOR, **rate)
    make(source, tmp_path / "alone.mkv")
    told = Told()
    make(source, tmp_path / "out.mkv", Here(2, seed=1), told)
    assert (tmp_path / "out.mkv").read_bytes() == (tmp_path / "alone.mkv").read_bytes()
    linear = any("cannot be decoded from its middle on" in line for line in told.warnings)
    if uncut is not None:
        assert linear == uncut


@pytest.mark.parametrize(
    "options", [{"start": Fraction(1, 2), "frames": 30}, {"deinterlace": "bwdif", "field_rate": True}]
)
def test_parts_and_fields(clip, tmp_path, options):
    if "deinterlace" in options:
        options = {**options, "deinterlace": Deinterlace(options["deinterlace"])}
    make(clip, tmp_path / "alone.mkv", **options)
    told = Told()
    result = make(clip, tmp_path / "out.mkv", Here(2, seed=4), told, **options)
    assert result.frames == (30 if "frames" in options else 100)
    assert (tmp_path / "out.mkv").read_bytes() == (tmp_path / "alone.mkv").read_bytes()
    assert not any("cannot be decoded" in line for line in told.warnings)


def test_a_picture_that_changes_in_a_segment(tmp_path):
    """13 frames of one size and 3 of another, in segments of 11 and 5."""
    clock = {"rate": Fraction(25), "time_base": Fraction(1, 25), "color": COLOR, "options": {**B_FRAMES, "bf": "0"}}
    parts = (
        make_clip(tmp_path / "a.ts", frames=13, **clock),
        make_clip(tmp_path / "b.ts", pts=range(13, 16), width=96, **clock),
    )
    joined, source = tmp_path / "joined.ts", tmp_path / "source.mkv"
    joined.write_bytes(b"".join(part.read_bytes() for part in parts))
    with av.open(str(joined)) as a, av.open(str(source), "w") as b:
        copy = b.add_stream_from_template(a.streams.video[0])
        for packet in a.demux(a.streams.video[0]):
            if packet.size:
                packet.stream = copy
                b.mux(packet)
    make(source, tmp_path / "alone.mkv")
    told = Told()
    result = make(source, tmp_path / "out.mkv", Here(2), told)
    assert result.frames == 16
    assert (tmp_path / "out.mkv").read_bytes() == (tmp_path / "alone.mkv").read_bytes()
    assert any("the picture changes from 64x48" in line for line in told.warnings)
    assert not any("cannot be decoded from its middle on" in line for line in told.warnings)


def test_a_damaged_file(clip, tmp_path):
    """Decoders that start elsewhere conceal damage otherwise: so they do not."""
    data = bytearray(clip.read_bytes())
    data[len(data) * 2 // 3 : len(data) * 2 // 3 + 40] = bytes(40)
    source = tmp_path / "damaged.mkv"
    source.write_bytes(data)
    make(source, tmp_path / "alone.mkv")
    make(source, tmp_path / "out.mkv", Here(3, seed=2))
    assert (tmp_path / "out.mkv").read_bytes() == (tmp_path / "alone.mkv").read_bytes()


def test_a_task_of_a_cluster_that_is_closed_stops_and_leaves_nothing(clip, tmp_path, monkeypatch):
    given = []

    class Elsewhere(Here):
        def run(self, jobs):
            given.extend(pickle.dumps(job) for _, job in jobs)
            raise OutputError("no node is there")
            yield

    with pytest.raises(OutputError, match="no node is there"):
        make(clip, tmp_path / "out.mkv", Elsewhere(1, sent=True), segments=SegmentRule(shortest=50, longest=50))
    monkeypatch.setattr(cluster, "_ray", lambda: None)  # the file is found under its name
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    task = cluster.do(given[0], {clip: fingerprint(clip)}, None)
    assert isinstance(next(task), Sent)
    task.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "videosr-task"]
    assert list(tmp_path.iterdir()) == []


def test_another_machine_makes_nothing(clip, tmp_path, monkeypatch):
    class Elsewhere(Here):
        def run(self, jobs):
            with monkeypatch.context() as patch:
                patch.setattr(machine, "instruction_sets", lambda: "pdp11")
                piece._films.clear()
                yield from super().run(jobs)

    with pytest.raises(OutputError, match=r"a worker would make other bits: cpu: '\w+ .*' where .* 'pdp11' here"):
        make(clip, tmp_path / "out.mkv", Elsewhere(1))
    assert [path.name for path in tmp_path.iterdir()] == []


def test_an_input_that_changes_on_the_way(clip, tmp_path):
    source = tmp_path / "clip.mkv"
    source.write_bytes(clip.read_bytes())

    class Swapped(Here):
        def run(self, jobs):
            jobs = list(jobs)
            make_clip(source, frames=50, noise=5.0, options=B_FRAMES, color=COLOR)
            piece._films.clear()
            yield from super().run(iter(jobs))

    with pytest.raises(OutputError, match="input: "):
        make(source, tmp_path / "out.mkv", Swapped(1))


def test_of_an_input_that_changed_nothing_is_kept(clip, tmp_path):
    """What a worker finds wrong with the source is told as an error of the output; no next run could go on with it."""
    source = tmp_path / "clip.mkv"
    source.write_bytes(clip.read_bytes())

    class Late(Here):
        def run(self, jobs):
            for n, told in enumerate(super().run(jobs)):
                yield told
                if n == 4:
                    source.write_bytes(clip.read_bytes() + b"more")
                    yield told[0], Failed(f"{source}: was changed", exit_code=1)

    with pytest.raises(OutputError, match="was changed"):
        make(source, tmp_path / "out.mkv", Late(1))
    assert [path.name for path in tmp_path.iterdir()] == ["clip.mkv"]


def test_a_worker_s_error_ends_the_command_as_its_own_would(clip, tmp_path):
    class Refusing(Here):
        def run(self, jobs):
            number, _ = next(jobs)
            yield number, Failed("no such thing", exit_code=2)

    with pytest.raises(UsageError, match="no such thing"):
        make(clip, tmp_path / "out.mkv", Refusing(1))


def test_a_plan_is_left_in_the_middle_of_what_it_is_making():
    """A segment is hundreds of frames, a film of one segment all of them; nobody waits for that after Ctrl-C."""

    def endless(frames):
        yield next(frames)
        yield len(list(frames))

    planned = ahead(itertools.count(), endless, 1)
    assert next(planned) == 0
    closing = threading.Thread(target=planned.close, daemon=True)
    closing.start()
    closing.join(30)
    assert not closing.is_alive()


def test_whose_makers_always_die(clip, tmp_path):
    with pytest.raises(OutputError, match="a worker died"):
        make(clip, tmp_path / "out.mkv", Here(1, deaths=range(100), sent=True))


def test_networks_with_a_state_need_one_process(clip, tmp_path):
    pytest.importorskip("onnx")
    from networks import video

    options = {"upscale": UpscaleOptions(model=str(video(tmp_path / "state.onnx", heavy=True)))}
    with pytest.raises(UsageError, match="keeps a state of its own and needs all frames in order"):
        make(clip, tmp_path / "out.mkv", Here(2), **options)


@pytest.mark.parametrize("arguments", [("--jobs", "0"), ("--jobs", "2", "--ray", "auto")])
def test_wrong_usage(clip, tmp_path, videosr, arguments):
    assert videosr("upscale", clip, tmp_path / "out.mkv", *arguments).code == 2


def test_the_package_s_mark_is_of_all_that_it_is_made_of(tmp_path):
    """Two trees of one version are told apart, whatever was compiled in them."""
    home = tmp_path / "videosr"
    (home / "engines").mkdir(parents=True)
    for name in ("__init__.py", "engines/a.py", "engines/b.cu"):
        (home / name).write_text(name)
    mark = cluster.source_mark(home)
    (home / "engines" / "a.pyc").write_text("compiled")
    assert cluster.source_mark(home) == mark
    (home / "engines" / "b.cu").write_text("changed")
    assert cluster.source_mark(home) != mark

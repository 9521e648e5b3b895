"""The bars of live use: delivery and latency, overload, a source that keeps going away, memory.

    python scripts/live_bar.py CLIP [--seconds 60] [--latency 0.3] [--size 640x360] [--only delivery,overload,...]

CLIP is repeated as a source of 24 frames a second: in real time for delivery and overload, by a TCP source that is cut
off ten times for losses, and as fast as frames are taken for memory. Exit code 1 if a bar is missed.

    delivery   99 % of the frames out, all by the network, p95 of demuxed to muxed packet within the budget
    overload   twice the frame rate that the machine can do, no cheaper forms: p95 within the budget, in = out + dropped
    losses     10 disconnections: a frame out within 2 s of each return of the source
    memory     an hour's frames, without waiting, small pictures: the resident set grows less than 5 %
"""

from __future__ import annotations

import argparse
import os
import socket
import tempfile
import threading
import time
from fractions import Fraction
from pathlib import Path

import av
from common import among, even_size, existing, positive, run

from videosr.live.ledger import Account
from videosr.live.options import ServeOptions, parse_target
from videosr.live.serve import Server
from videosr.media.live.source import SourceSpec
from videosr.options import UpscaleOptions
from videosr.upscaler import Upscaler

RATE = 24


def say(line: str) -> None:
    print(f"    {line}", flush=True)


def repeat(clip: Path, path: Path, seconds: float, rate: Fraction, size: tuple[int, int]) -> Path:
    """The clip, again and again, at this size and rate."""
    with av.open(str(path), "w") as out:
        options = {"preset": "veryfast", "crf": "18", "g": str(round(rate)), "bf": "0"}
        stream = out.add_stream("libx264", rate=rate, options=options)
        stream.width, stream.height = size
        stream.pix_fmt = "yuv420p"
        done, left = 0, round(seconds * rate)
        while left:
            with av.open(str(clip)) as source:
                for picture in source.decode(video=0):
                    made = picture.reformat(*size, format="yuv420p")
                    made.pts, made.time_base, made.pict_type = done, 1 / rate, 0
                    out.mux(stream.encode(made))
                    done, left = done + 1, left - 1
                    if not left:
                        break
        out.mux(stream.encode(None))
    return path


def serve(source: str, *, latency: float, **more: object) -> Server:
    """A server into MPEG-TS over UDP on this machine, where nobody listens."""
    options = ServeOptions(
        source=SourceSpec(url=source),
        targets=(parse_target("udp://127.0.0.1:9"),),
        latency=latency,
        upscale=UpscaleOptions(),
        **more,  # type: ignore[arg-type]
    )
    return Server(options, say)


def report(server: Server, account: Account, budget: float) -> tuple[float, float, bool]:
    """Print the account; share delivered, p95 at the output, and whether the account is exact."""
    output = server.status()["outputs"][0]
    muxed = server._outputs[0].latency
    share = output["written"] / account.taken
    p50, p95 = muxed.percentile(0.5) or 0.0, muxed.percentile(0.95) or 0.0
    dropped = {reason: count for reason, count in account.dropped.items() if count}
    exact = account.taken == account.delivered + sum(account.dropped.values()) and account.under_way == 0
    exact = exact and output["taken"] == account.delivered == output["written"] + output["dropped"]
    print(f"    {account.taken} in = {account.delivered} out + {sum(account.dropped.values())} dropped {dropped}")
    print(f"    muxed {100 * share:.2f} %; p50 {1000 * p50:.0f} ms, p95 {1000 * p95:.0f} ms of {1000 * budget:.0f} ms")
    print(f"    at the end: {server.ladder.rung.name}, {server.ladder.steps} steps; account exact: {exact}")
    return share, p95, exact


def delivery(clip: Path, folder: Path, options: argparse.Namespace) -> bool:
    source = repeat(clip, folder / "delivery.mp4", options.seconds, Fraction(RATE), options.size)
    server = serve(str(source), latency=options.latency, paced=True)
    share, p95, exact = report(server, server.run(), options.latency)
    return share >= 0.99 and p95 <= options.latency and exact and server.ladder.steps == server.ladder.level == 0


def capacity(clip: Path, folder: Path, size: tuple[int, int]) -> float:
    """Frames a second that the whole line makes without a clock."""
    source = repeat(clip, folder / "capacity.mp4", 4, Fraction(RATE), size)
    server = serve(str(source), latency=1, paced=False)
    for output in server._outputs:
        assert not output.raw
    start = time.monotonic()
    account = server.run()
    return account.delivered / (time.monotonic() - start)


def overload(clip: Path, folder: Path, options: argparse.Namespace) -> bool:
    able = capacity(clip, folder, options.size)
    rate = Fraction(round(2 * able))
    print(f"    this machine makes {able:.1f} frames/s; source at {rate}")
    source = repeat(clip, folder / "overload.mp4", options.seconds / 2, rate, options.size)
    server = serve(str(source), latency=options.latency, paced=True, steps=False)
    _, p95, exact = report(server, server.run(), options.latency)
    return p95 <= options.latency and exact


class Source:
    """MPEG-TS at the speed of its clock to whoever connects; away for a while when told."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._listening: socket.socket | None = None
        self._cut = threading.Event()
        self.port = 0
        self.back()

    def back(self) -> None:
        """Be there."""
        self._cut.clear()
        self._listening = socket.create_server(("127.0.0.1", self.port))
        self.port = self._listening.getsockname()[1]
        threading.Thread(target=self._serve, args=(self._listening,), daemon=True).start()

    def away(self) -> None:
        """Hang up, and take no more calls."""
        self._cut.set()
        if self._listening is not None:
            self._listening.close()

    def _serve(self, listening: socket.socket) -> None:
        while not self._cut.is_set():
            try:
                client, _ = listening.accept()
            except OSError:
                return
            with client:
                self._play(client)

    def _play(self, client: socket.socket) -> None:
        class File:
            @staticmethod
            def write(data: bytes) -> int:
                client.sendall(data)
                return len(data)

        try:
            start = time.monotonic()
            flush = {"flush_packets": "1"}
            with av.open(str(self._path)) as clip, av.open(File, "w", format="mpegts", container_options=flush) as out:
                stream = out.add_stream_from_template(clip.streams.video[0], opaque=True)
                for packet in clip.demux(video=0):
                    if packet.dts is None or self._cut.is_set():
                        return
                    due = start + float(packet.dts * packet.time_base)
                    time.sleep(max(0.0, due - time.monotonic()))
                    packet.stream = stream
                    out.mux(packet)
        except OSError:
            return


def losses(clip: Path, folder: Path, options: argparse.Namespace) -> bool:
    small = (160, 90)
    source = Source(repeat(clip, folder / "losses.mp4", 600, Fraction(RATE), small))
    server = serve(f"tcp://127.0.0.1:{source.port}", latency=options.latency)
    thread = threading.Thread(target=server.run)
    thread.start()
    waited: list[float] = []
    for n in range(10):
        time.sleep(2)
        source.away()
        time.sleep((0.3, 1.0, 3.0)[n % 3])
        delivered = server.ledger.account.delivered
        time.sleep(0.3)  # what was still under way is out
        delivered = server.ledger.account.delivered
        source.back()
        back = time.monotonic()
        while server.ledger.account.delivered == delivered and time.monotonic() - back < 20:
            time.sleep(0.005)
        waited.append(time.monotonic() - back)
    server.stop()
    thread.join()
    source.away()
    report(server, server.ledger.account, options.latency)
    print(f"    first frame after each return: {', '.join(f'{seconds:.2f}' for seconds in waited)} s")
    return max(waited) <= 2 and server.intake.losses >= 10


def resident() -> int:
    """Bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def memory(clip: Path, folder: Path, options: argparse.Namespace) -> bool:
    frames = round(options.hours * 3600 * RATE)
    source = repeat(clip, folder / "memory.mp4", frames / RATE, Fraction(RATE), (64, 36))
    pipe = folder / "pipe.y4m"
    os.mkfifo(pipe)

    def read() -> None:
        with pipe.open("rb", buffering=0) as file:
            while file.read(1 << 20):
                pass

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    targets = (parse_target(str(pipe)), parse_target(str(folder / "out.m3u8")))
    server = Server(ServeOptions(source=SourceSpec(url=str(source)), targets=targets, paced=False), say)
    seen: list[tuple[int, int]] = []
    thread = threading.Thread(target=server.run)
    thread.start()
    while thread.is_alive():
        time.sleep(1)
        seen.append((server.ledger.account.delivered, resident()))
    early = max((size for count, size in seen if count < frames // 10), default=seen[0][1])
    late = max(size for count, size in seen if count > frames * 9 // 10)
    account = server.ledger.account
    print(f"    {account.taken} in = {account.delivered} out; {early / 2**20:.0f} MiB in the first tenth,", end=" ")
    print(f"{late / 2**20:.0f} MiB in the last: {100 * (late / early - 1):+.1f} %")
    return late < 1.05 * early and account.delivered == account.taken == frames


BARS = {"delivery": delivery, "overload": overload, "losses": losses, "memory": memory}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clip", type=existing)
    parser.add_argument("--seconds", type=positive, default=60)
    parser.add_argument("--latency", type=positive, default=0.3)
    parser.add_argument("--size", type=even_size, default="640x360")
    parser.add_argument("--hours", type=positive, default=1, help="of 24 frames a second for memory")
    parser.add_argument("--only", type=among(list(BARS)), default=",".join(BARS))
    options = parser.parse_args()
    Upscaler()  # compiled networks are cached by now
    failed = []
    for name in options.only:
        print(name, flush=True)
        with tempfile.TemporaryDirectory() as folder:
            met = BARS[name](options.clip, Path(folder), options)
        print(f"    {'met' if met else 'MISSED'}; load of the machine {os.getloadavg()[0]:.1f}", flush=True)
        failed += [] if met else [name]
    return bool(failed)


if __name__ == "__main__":
    run(main)

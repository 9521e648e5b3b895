"""Speed of the VapourSynth filter beside vs-mlrt's OpenVINO plugin, same weights, same source, in one run.

Every side is a process of its own that waits while the others work; they take turns, so that a busy machine slows all
of them. Each turn takes the frames that follow, over and over the clip, so that no side finds in a cache what it has
made before. CPU time is what still compares when it is very busy. All begin and end with 8-bit 4:2:0. Bar: 1.5 times as
fast as the default use of `core.ov.Model` on the published (unfolded) network.

    pip install '.[torch]' ./plugins/vapoursynth vapoursynth-bestsource vapoursynth-mlrt-ov    # in videosr's folder
    python scripts/vapoursynth_bar.py [CLIP] [--frames 24] [--rounds 5]
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import count, existing, run

MODEL = "realtime-2x"
SIDES = {
    "vsvideosr, default": ("videosr", "adaptive", 0),
    "vsvideosr, temporal off": ("videosr", "off", 0),
    "ov.Model, published network": ("mlrt", "published.onnx", 1),
    "ov.Model, published, 2 streams": ("mlrt", "published.onnx", 2),
    "ov.Model, folded network": ("mlrt", "folded.onnx", 1),
    "ov.Model, folded, 2 streams": ("mlrt", "folded.onnx", 2),
}
OURS, BAR = "vsvideosr, default", "ov.Model, published network"


def make_networks(folder: Path) -> None:
    """The shipped weights as published, and folded with one input, as `ov.Model` takes it."""
    import onnx

    from videosr.export import export
    from videosr.models import registry

    shipped = registry.find(MODEL)
    export(shipped.with_suffix(".safetensors"), folder / "published.onnx", form="image", alpha=0.0)
    network = onnx.load(shipped)
    for node in network.graph.node:
        node.input[:] = ["input" if name == "average" else name for name in node.input]
    kept = [port for port in network.graph.input if port.name != "average"]
    del network.graph.input[:]
    network.graph.input.extend(kept)
    onnx.save(network, folder / "folded.onnx")


def serve(kind: str, how: str, streams: int, clip: str) -> None:
    """One side: upscales as many frames as each line on stdin says, and answers with the seconds and CPU seconds."""
    if kind == "videosr":
        import openvino  # noqa: F401  # before VapourSynth loads the other plugin and with it another build of this
    import vapoursynth as vs

    for plugin in ("bs", "ov")[: 1 + (kind == "mlrt")]:
        if not hasattr(vs.core, plugin):
            sys.exit(f"VapourSynth has no plugin {plugin}; see vapoursynth_bar.py --help")
    try:
        source = vs.core.bs.VideoSource(clip, cachemode=0).std.Loop()
    except vs.Error as exc:
        sys.exit(f"{clip}: {exc}")
    if kind == "videosr":
        import vsvideosr

        result = vsvideosr.upscale(source, MODEL, temporal=how)
    else:
        rgb = source.resize.Bicubic(format=vs.RGBS)
        result = vs.core.ov.Model(rgb, how, num_streams=streams).resize.Bicubic(format=source.format.id, matrix_s="709")
    at = 0
    for line in sys.stdin:
        vs.core.clear_cache()
        start, start_cpu = time.perf_counter(), time.process_time()
        for frame in result[at : at + int(line)].frames(close=True):
            frame[0]
        at += int(line)
        print(time.perf_counter() - start, time.process_time() - start_cpu, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clip", nargs="?", type=existing, default=Path(__file__).parents[1] / "samples" / "bunny.mp4")
    parser.add_argument("--frames", type=count, default=24)
    parser.add_argument("--rounds", type=count, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        make_networks(Path(folder))
        workers = {}
        for name, (kind, how, streams) in SIDES.items():
            network = str(Path(folder) / how) if kind == "mlrt" else how
            command = [sys.executable, __file__, "--side", kind, network, str(streams), str(arguments.clip)]
            workers[name] = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

        def turn(name: str, frames: int) -> tuple[float, float]:
            """Seconds and CPU seconds a frame."""
            worker = workers[name]
            print(frames, file=worker.stdin, flush=True)
            answer = worker.stdout.readline()
            if not answer:
                raise SystemExit(f"{name}: ended with exit code {worker.wait()}")
            wall, cpu = answer.split()
            return float(wall) / frames, float(cpu) / frames

        for name in workers:
            turn(name, 4)  # compile, allocate
        rounds = [{name: turn(name, arguments.frames) for name in workers} for _ in range(arguments.rounds)]
        for worker in workers.values():
            worker.stdin.close()
            worker.wait()
    print(f"{arguments.clip}: {arguments.frames} frames a turn, {arguments.rounds} rounds")
    print(f"{'':32} {'ms':>6} {'x ours':>7} {'CPU ms':>8} {'x ours':>7}   medians a frame, and of the rounds' ratios")
    ratios = {}
    for name in SIDES:
        wall, cpu = (statistics.median(r[name][i] for r in rounds) for i in (0, 1))
        ratios[name] = [statistics.median(r[name][i] / r[OURS][i] for r in rounds) for i in (0, 1)]
        slower, dearer = ratios[name]
        print(f"{name:32} {wall * 1e3:6.0f} {slower:7.2f} {cpu * 1e3:8.0f} {dearer:7.2f}")
    print(f"bar: {BAR} takes 1.5 times as long: {ratios[BAR][0]:.2f}, {'met' if ratios[BAR][0] >= 1.5 else 'missed'}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--side"]:
        run(lambda: serve(sys.argv[2], sys.argv[3], int(sys.argv[4]), sys.argv[5]))
    else:
        run(main)

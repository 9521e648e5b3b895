"""The figures of a running server, for Prometheus (text exposition format 0.0.4)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from videosr.live.ledger import BUCKETS


def prometheus(status: dict[str, Any]) -> str:
    """The status of `serve.Server.status` as metrics; empty before the first status."""
    return "\n".join(_lines(status)) + "\n" if status else ""


def _lines(status: dict[str, Any]) -> Iterator[str]:
    yield from _family("frames_in_total", "counter", "Frames decoded from the source.", [("", status["frames_in"])])
    yield from _family("frames_out_total", "counter", "Frames encoded.", [("", status["frames_out"])])
    drops = [(f'{{reason="{reason}"}}', count) for reason, count in status["dropped"].items()]
    yield from _family("frames_dropped_total", "counter", "Frames dropped.", drops)
    yield from _family("frames_under_way", "gauge", "Frames in queues or being computed.", [("", status["under_way"])])
    depths = [(f'{{queue="{_escaped(name)}"}}', depth) for name, depth in status["queues"].items()]
    yield from _family("queue_depth", "gauge", "Frames in a queue.", depths)
    yield from _family("ladder_level", "gauge", "0: as asked for; above: cheaper forms.", [("", status["level"])])
    yield from _family("source_connected", "gauge", "Whether the source is there.", [("", int(status["connected"]))])
    yield from _family("source_losses_total", "counter", "Times the source was lost.", [("", status["losses"])])
    yield from _family("viewers", "gauge", "Clients of the page and listeners.", [("", status["viewers"])])
    for what in ("taken", "written", "dropped"):
        rows = [(f'{{output="{_escaped(o["name"])}"}}', o[what]) for o in status["outputs"]]
        yield from _family(f"output_frames_{what}_total", "counter", f"Frames an output has {what}.", rows)
    rows = [(f'{{output="{_escaped(o["name"])}"}}', o["silenced"]) for o in status["outputs"]]
    yield from _family("output_sound_dropped_total", "counter", "Packets of sound an output has dropped.", rows)
    counts, total = status["latency"]["counts"], status["latency"]["total"]
    yield "# HELP videosr_latency_seconds From demuxed to encoded packet."
    yield "# TYPE videosr_latency_seconds histogram"
    running = 0
    for bound, count in zip((*map(str, BUCKETS), "+Inf"), counts, strict=True):
        running += count
        yield f'videosr_latency_seconds_bucket{{le="{bound}"}} {running}'
    yield f"videosr_latency_seconds_sum {total:.6f}"
    yield f"videosr_latency_seconds_count {running}"


def _family(name: str, kind: str, about: str, rows: list[tuple[str, Any]]) -> Iterator[str]:
    yield f"# HELP videosr_{name} {about}"
    yield f"# TYPE videosr_{name} {kind}"
    for labels, value in rows:
        yield f"videosr_{name}{labels} {value}"


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")

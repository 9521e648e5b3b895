"""What fails while a stream is served: it ends what it must end, with an error, and nothing else."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from clips import make_clip

from videosr.errors import EngineError
from videosr.live.options import ServeOptions, parse_target
from videosr.live.serve import Server
from videosr.media.live_input import SourceSpec
from videosr.upscaler import UpscaleOptions


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    """Two seconds with sound."""
    path = tmp_path_factory.mktemp("clips") / "clip.mkv"
    return make_clip(path, frames=48, audio=[("aac", "eng")])


def serve(source: Path, *targets: str, **more) -> tuple[Server, list[str]]:
    """A server that is yet to run, and what it says."""
    said: list[str] = []
    wanted = tuple(parse_target(target) for target in targets)
    options = ServeOptions(source=SourceSpec(url=str(source)), targets=wanted, latency=60, steps=False, **more)
    return Server(options, said.append), said


def brightening(path: Path) -> Path:
    """Half a second of dark pictures, then bright ones."""
    with av.open(str(path), "w") as out:
        stream = out.add_stream("ffv1", rate=24)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for n in range(48):
            planes = np.full((72, 64), 40 if n < 12 else 230, np.uint8)
            planes[48:] = 128
            frame = av.VideoFrame.from_ndarray(planes, format="yuv420p")
            frame.pts, frame.time_base = n, Fraction(1, 24)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path


def test_a_network_that_fails_with_several_frames_under_way_ends_the_stream(tmp_path):
    pytest.importorskip("torch")
    import networks

    g = networks.Graph()
    x = g.input("lr", "N", 3, "H", "W")
    bad = g.node("Sqrt", g.node("Sub", g.constant(np.array(0.7, np.float32)), x))  # not a number where it is bright
    g.enlarged(g.node("Add", x, bad), 2, "hr")
    network = g.save(tmp_path / "image.onnx", "hr")
    source = brightening(tmp_path / "in.mkv")
    server, said = serve(source, str(tmp_path / "live.m3u8"), upscale=UpscaleOptions(model=str(network)))
    with pytest.raises(EngineError, match="gives NaN"):
        server.run()
    account = server.ledger.account
    assert account.delivered == 12
    assert account.under_way <= 1, "the one that failed"
    assert "12 out" in said[-1]
    with av.open(str(tmp_path / "live.m3u8")) as back:
        assert len(list(back.decode(video=0))) == 12


def test_whatever_fails_in_the_thread_that_reads_is_raised(tmp_path, clip):
    server, _ = serve(clip, str(tmp_path / "live.m3u8"))

    def fail(coded):
        raise ValueError("no such layout")

    server.intake._sound = fail
    with pytest.raises(ValueError, match="no such layout"):
        server.run()
    assert not server.intake.connected

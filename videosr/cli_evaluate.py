"""The command `videosr evaluate`."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from videosr.cli_options import FileName
from videosr.errors import UsageError, one_line

if TYPE_CHECKING:
    from videosr.evaluate.images import SetScores, Upscale
    from videosr.evaluate.video import Enlarge, VideoScores
    from videosr.frame import Frame

BICUBIC = "bicubic"


@dataclass(frozen=True, slots=True)
class Candidate:
    """Something that enlarges, as images and as video need it."""

    name: str
    upscale: Upscale
    enlarge: Enlarge


def candidates(
    models: Iterable[str],
    temporal: str = "adaptive",
    scale: int | None = None,
    *,
    sharpen: float = 0.0,
    tta: bool = False,
) -> tuple[int, list[Candidate]]:
    """Bicubic and the named networks, and their common scale.

    Args:
        models: shipped names or network files; "bicubic" may be among them.
        temporal: mode of temporal reuse on video.
        scale: of bicubic where no network says it; 2 by default.
        sharpen: see `UpscaleOptions`; on video.
        tta: see there.

    Raises:
        UsageError: the networks' scales differ from one another or from `scale`.
        VideosrError: what `Upscaler` raises.
    """
    from videosr.evaluate.images import bicubic
    from videosr.evaluate.video import bicubic_video
    from videosr.options import UpscaleOptions
    from videosr.temporal import Mode
    from videosr.upscaler import Upscaler

    options = [
        UpscaleOptions(model=m, temporal=Mode(temporal), sharpen=sharpen, tta=tta) for m in models if m != BICUBIC
    ]
    networks = [(o, Upscaler(o)) for o in options]
    scales = {u.scale for _, u in networks} | ({scale} if scale else set())
    if len(scales) > 1:
        raise UsageError(f"the scales {', '.join(map(str, sorted(scales)))} cannot be measured side by side")
    common = scales.pop() if scales else 2
    found = [Candidate(BICUBIC, bicubic(common), bicubic_video(common))]
    found += [Candidate(Path(o.model).stem, _on_images(u), _on_video(o, u)) for o, u in networks]
    return common, found


def _on_images(upscaler: Any) -> Upscale:
    """The network on single (H, W, 3) pictures, as in use."""
    return lambda image: upscaler.enlarge(image.transpose(2, 0, 1)[None])[0].transpose(1, 2, 0)


def _on_video(options: Any, upscaler: Any) -> Enlarge:
    """The whole core, as users have it; a fresh history each time."""
    from videosr.upscaler import Upscaler

    def enlarge(frames: Iterable[Frame]) -> Iterator[Frame]:
        fresh = Upscaler(options, upscaler.engine)
        for frame in frames:
            yield from fresh.process(frame)
        yield from fresh.flush()

    return enlarge


class _Crfs(click.ParamType[tuple[float, ...]]):
    """Comma-separated constant qualities of x264."""

    name = "CRF,..."

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[float, ...]:
        """Parse."""
        if isinstance(value, tuple):
            return value
        try:
            found = tuple(float(part) for part in value.split(","))
        except ValueError:
            self.fail(f"{value!r} is not of the form 28 or 28,35", param, ctx)
        if not all(0 <= crf <= 51 for crf in found):
            self.fail(f"{value!r} is not between 0 and 51", param, ctx)
        return found


def _names(ctx: click.Context, param: click.Parameter, value: str | None) -> list[str]:
    return [] if value is None else [name.strip().lower() for name in value.split(",")]


@click.command()
@click.argument("sources", nargs=-1, required=True, type=FileName(), metavar="CLIP|FOLDER...")
@click.option(
    "-m",
    "--model",
    "models",
    multiple=True,
    metavar="NAME|FILE",
    show_default="the default networks",
    help="A shipped network (see videosr upscale --list-models) or an ONNX file; may be repeated. Bicubic is always "
    "measured beside.",
)
@click.option("--scale", type=click.IntRange(min=2), help="Of bicubic where no network is measured.")
@click.option("--lr", type=FileName(), metavar="FOLDER", help="Take the small images from here.")
@click.option(
    "--crf", "crfs", type=_Crfs(), default=(), show_default="uncompressed only", help="Compress small clips by x264."
)
@click.option("--frames", type=click.IntRange(min=1), show_default="all", help="Take so many frames of a clip.")
@click.option("--sequence", is_flag=True, help="The images of a FOLDER are the frames of a clip.")
@click.option(
    "--temporal", type=click.Choice(["off", "ema", "adaptive"]), default="adaptive", help="On clips, as in upscale."
)
@click.option("--sharpen", type=click.FloatRange(0, 1), default=0.0, help="On clips, as in upscale.")
@click.option("--tta", is_flag=True, help="As in upscale.")
@click.option(
    "--perceptual", callback=_names, metavar="NAME,...", help="On images: lpips, dists, topiq, ssim-c; needs pyiqa."
)
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
def evaluate(
    sources: tuple[Path, ...],
    models: tuple[str, ...],
    scale: int | None,
    lr: Path | None,
    crfs: tuple[float, ...],
    frames: int | None,
    sequence: bool,
    temporal: str,
    sharpen: float,
    tta: bool,
    perceptual: list[str],
    as_json: bool,
) -> None:
    """Measure networks beside bicubic.

    A FOLDER holds original images: PSNR over R'G'B' and of luma, SSIM. The networks work on copies that MATLAB's
    bicubic has made smaller, or on those of --lr.

    A CLIP is an original too: it is halved (plane by plane, antialiased bicubic, chroma by its siting), perhaps
    compressed, and upscaled as `videosr upscale` would. PSNR is that of luma and chroma, 6:1:1. Flicker (code values)
    and motion (pixels) say how far the changes from frame to frame are from the original's.
    """
    from videosr import evaluate as ev
    from videosr.evaluate.images import check_images
    from videosr.evaluate.perceptual import Perceptual
    from videosr.evaluate.video import Reference, evaluate_video
    from videosr.models import registry

    folders = [source for source in sources if source.is_dir() and not sequence]
    if len(folders) == len(sources) and (crfs or frames):
        raise UsageError("--crf and --frames are for clips, and no source is one; with --sequence a folder is")
    if len(folders) == len(sources) and sharpen:
        raise UsageError("--sharpen is for clips, and no source is one; with --sequence a folder is")
    if not folders and (lr or perceptual):
        raise UsageError("--lr and --perceptual are for folders of images, and no source is one")
    further = Perceptual(perceptual) if perceptual else None
    asked = models or (() if scale else registry.DEFAULTS[2])
    common, found = candidates(asked, temporal, scale, sharpen=sharpen, tta=tta)
    # What is wrong with the last source is to be said before hours of measuring, not in place of their results.
    originals = {source: Reference(source, common, frames) for source in sources if source not in folders}
    for folder in folders:
        check_images(folder, common, lr)
    sets: list[SetScores] = []
    clips: list[VideoScores] = []
    for source in sources:
        if source in folders:
            for c in found:
                _tell(f"{source}: {c.name}")
                sets.append(ev.evaluate(source, c.upscale, common, lr_folder=lr, model=c.name, perceptual=further))
        else:
            for scores in evaluate_video(originals[source], {c.name: c.enlarge for c in found}, (None, *crfs)):
                clips.append(scores)
                _tell(f"{source}: {scores.model}, {scores.frames} frames")
    click.echo(ev.to_json(sets, clips) if as_json else ev.markdown(sets, clips))


def _tell(line: str) -> None:
    """Progress, for a terminal only."""
    if sys.stderr.isatty():
        click.echo(one_line(line), err=True)

"""Finding a network by name or path."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from videosr.engines.network import Network
from videosr.errors import UsageError

AUTO, ANIME = "auto", "anime"
"""Names for the one of `CHOICES` that suits a source: drawings are not told from photographs, one has to say so."""
DEFAULT = "realtime-2x"
DEFAULT_COMPRESSED = "realtime-2x-video"
"""For sources that compression has marked."""
DEFAULTS = {2: (DEFAULT, DEFAULT_COMPRESSED), 4: ("realtime-4x", "realtime-4x-video")}
"""By scale, for sources that are lossless and compressed."""
CHOICES = {AUTO: DEFAULTS, ANIME: {scale: (f"realtime-{scale}x-anime",) * 2 for scale in DEFAULTS}}
"""What such a name stands for, as `DEFAULTS`."""
FAST = ("realtime-2x", "light-2x")
"""For a machine that cannot keep up, the costliest first."""
FAST_COMPRESSED = ("realtime-2x-video", "light-2x-video")
"""The same for those who chose a network for compressed sources, as all `video` and `anime` ones are."""
_FOLDER = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Model:
    """A shipped network: its name, its file, its scale and what its card says first."""

    name: str
    path: Path
    scale: int
    about: str


def shipped() -> list[Model]:
    """The networks that come with the package, by name."""
    models = []
    for path in sorted(_FOLDER.glob("*.onnx"), key=lambda path: path.stem):
        network = Network.open(path)
        _, about, *_ = path.with_suffix(".md").read_text(encoding="utf-8").split("\n\n")
        models.append(Model(path.stem, path, network.number("scale", 1), " ".join(about.split())))
    return models


def suited(model: str, compressed: bool, scale: int = 2) -> str:
    """The model, or what of `CHOICES` it is for such a source (see `StreamInfo.compressed`) at a scale of those."""
    return CHOICES[model][scale][compressed] if model in CHOICES else model


def find(model: str) -> Path:
    """The network file for a shipped model's name, or for the path of a file; of `CHOICES`, that for unknown sources.

    Raises:
        UsageError: there is no such model or file.
    """
    model = suited(model, compressed=False)
    path = _FOLDER / f"{model}.onnx"
    if path.is_file() and Path(model).name == model:
        return path
    path = Path(model)
    if path.is_file():
        return path
    names = ", ".join([*CHOICES, *(m.name for m in shipped())])
    raise UsageError(f"model {model!r} is neither a shipped one ({names}) nor a file")


def cheaper(model: str, scale: int, *, gpu: bool = False) -> list[str]:
    """The shipped networks of that scale that cost less than `model`, the costliest first.

    Args:
        model: a shipped model's name, or the path of a file; what is not among the fast ones is taken to cost more.
        scale: of it.
        gpu: where it runs: there the smallest are no faster, and an engine would have to be built for them.
    """
    fast = FAST_COMPRESSED if model.endswith(("-video", "-anime")) else FAST
    rest = fast[fast.index(model) + 1 :] if model in fast else fast
    scales = {m.name: m.scale for m in shipped()}
    return [name for name in rest if scales[name] == scale and not (gpu and name == fast[-1])]

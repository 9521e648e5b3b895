"""The house: which room may know which, and what the light install can import."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

import videosr

ROOT = Path(videosr.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))

# From the ground up. A room may import itself and the floors below its own, so nothing imports cli or knows of it.
FLOORS = [
    {"errors"},
    {"frame", "presets", "files", "machine"},
    {
        "color",
        "scenes",
        "temporal",
        "tiling",
        "reflections",
        "sharpness",
        "graph",
        "metrics",
        "progress",
        "archs",
        "arrays",
    },
    {"engines"},
    {"models", "media", "export", "look", "transparency"},
    {"options"},
    {"upscaler", "download", "evaluate", "exporting", "journal", "doctor", "bench_alone", "bench_torch"},
    {"film"},
    {"losses"},
    {"transcode", "live", "training", "compare"},
    {"distributed"},
    {"bench_film"},
    {"batch", "bench", "bench_gpu", "cli_options"},
    {"cli_batch", "cli_compare", "cli_engine", "cli_evaluate", "cli_serve"},
    {"cli"},
    {"__main__"},
]
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}

STRANGERS = {("engines", "media"), ("media", "engines"), ("media", "archs"), ("models", "archs")}
"""Rooms that never meet, whatever floor they are on."""

KNOWS = {
    "av": {"media", "evaluate", "bench", "training", "doctor"},
    "openvino": {"engines", "export", "bench"},
    "onnxruntime": {"engines", "export", "bench"},
    "torch": {"archs", "training", "export", "engines", "bench", "bench_torch", "bench_gpu", "evaluate"},
    "onnx": {"archs", "export", "engines"},
    "click": {"cli", "cli_batch", "cli_compare", "cli_engine", "cli_evaluate", "cli_options", "cli_serve"},
    "aiohttp": {"live"},
    "ray": {"distributed"},
}
"""Libraries, and the rooms that may import them."""


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room_of(module: str) -> str:
    """The room a dotted name is in: `videosr.media.probe` is in `media`."""
    return module.split(".")[1] if "." in module else ""


@cache
def imports(path: Path) -> set[str]:
    """Dotted names that a file imports, anywhere in it but for type checkers alone."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            node.body = []
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            assert node.module is not None
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


OWN = {module_name(path) for path in FILES}


def rooms(path: Path) -> set[str]:
    """Rooms of the package that a file imports."""
    names = {n for n in imports(path) if n.split(".")[0] == "videosr"}
    return {room_of(n) for n in names if n in OWN or n.rpartition(".")[0] in OWN - {"videosr"}}


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_imports_point_one_way(path):
    room = room_of(module_name(path))
    if not room:
        assert rooms(path) == set()
        return
    assert room in FLOOR, f"{room} is a new room: give it a floor in this test, as DESIGN.md would"
    for other in rooms(path) - {room}:
        assert FLOOR[other] < FLOOR[room], f"{module_name(path)} imports {other}, which stands on it or beside it"
        assert (room, other) not in STRANGERS, f"{room} and {other} are never to meet"


def test_only_the_torch_engine_knows_the_architectures():
    for path in FILES:
        if room_of(module_name(path)) == "engines" and "archs" in rooms(path):
            assert module_name(path) == "videosr.engines.torch"


def test_the_largest_room_has_a_map():
    folder = ROOT / "media"
    said = set(re.findall(r"\w+", ast.get_docstring(ast.parse((folder / "__init__.py").read_text(encoding="utf-8")))))
    assert {path.stem for path in folder.rglob("*.py")} - {"__init__"} <= said


@pytest.mark.parametrize("library", KNOWS)
def test_libraries_stay_in_their_rooms(library):
    found = {room_of(module_name(path)) for path in FILES for name in imports(path) if name.split(".")[0] == library}
    assert found <= KNOWS[library]
    assert found


BLOCKED = ["torch", "onnx", "onnxruntime", "cupy", "tensorrt", "tensorrt_rtx", "vapoursynth", "ray", "aiohttp"]
BLOCKED += ["safetensors", "PIL", "scipy"]
GPU = ["engines.gpu_cupy", "engines.tensorrt_half"]
HEAVY = ["archs", "training", "export", "exporting", "engines.torch", "engines.onnxruntime", *GPU]
HEAVY += ["bench", "bench_torch", "bench_gpu", "live.web"]
LIGHT = {"av", "numpy", "click", "tqdm", "openvino", "packaging", "videosr"}  # packaging is openvino's

SCRIPT = """
import importlib, json, sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in BLOCKED:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Blocker())
BLOCKED, modules = json.loads(sys.argv[1])
import videosr
start = sorted({name.split(".")[0] for name in sys.modules})
outcome = {}
for module in modules:
    try:
        importlib.import_module(module)
        outcome[module] = "imported"
    except ImportError as exc:
        outcome[module] = f"{type(exc).__name__}: {exc}"
third = sorted({
    name.split(".")[0] for name, m in list(sys.modules.items()) if "site-packages" in (getattr(m, "__file__", "") or "")
})
print(json.dumps([start, outcome, third]))
"""


@pytest.fixture(scope="module")
def light():
    """What happens to every import where the extras are not installed."""
    modules = [module_name(path) for path in FILES if path.name != "__main__.py"]
    command = [sys.executable, "-c", SCRIPT, json.dumps([BLOCKED, modules])]
    run = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT.parent)
    return json.loads(run.stdout)


def test_import_videosr_loads_nothing_heavy(light):
    start, _, _ = light
    assert not {"av", "numpy", "openvino", "click", "tqdm"} & set(start)


def test_everything_but_the_extras_imports_without_them(light):
    _, outcome, third = light
    for module, result in outcome.items():
        room = module.removeprefix("videosr.")
        heavy = any(room == name or room.startswith(f"{name}.") for name in HEAVY)
        if not heavy:
            assert result == "imported", f"{module}: {result}"
        elif module != "videosr.archs":  # the package itself holds nothing
            assert result.startswith(("ModuleNotFoundError", "ImportError", "MissingExtraError")), f"{module}: {result}"
    assert {name for name in third if not name.startswith("_")} <= LIGHT


def test_openvino_reports_to_nobody(tmp_path):
    """Its telemetry would fork, use the network, and leave an identifier in the user's home."""
    home = tmp_path / "home"
    home.mkdir()
    script = "import videosr.engines.openvino, threading; print(threading.active_count())"
    environment = {k: v for k, v in os.environ.items() if k not in ("CI", "XDG_CACHE_HOME", "JENKINS_URL", "TF_BUILD")}
    environment |= {"HOME": str(home), "USERPROFILE": str(home), "LOCALAPPDATA": str(home)}
    command = [sys.executable, "-c", script]
    run = subprocess.run(command, capture_output=True, text=True, check=True, env=environment, cwd=ROOT.parent)
    assert run.stdout.split() == ["1"]
    assert list(home.iterdir()) == []

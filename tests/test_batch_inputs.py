"""Which files videosr batch takes, and what it calls their outputs."""

from __future__ import annotations

import random
import re
import shutil
from collections import Counter
from pathlib import Path

import pytest

from videosr.batch import inputs
from videosr.batch.inputs import find
from videosr.batch.ledger import Entry, Ledger
from videosr.errors import UsageError
from videosr.journal import fingerprint


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """Empty files: names are all that counts here."""
    for name in ("s/b.mkv", "s/a.MP4", "s/x/c.avi", "s/x/c.srt", "s/.h.mkv", "s/.hidden/d.mkv", "t/a.webm", "one"):
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    monkeypatch.chdir(tmp_path / "in")
    return tmp_path / "in"


def named(found):
    return {str(item.source): str(item.output) for item in found.items}


def test_a_folder_is_mirrored(tree):
    found = find(["s"], Path("out"), "mkv")
    assert named(found) == {"s/a.MP4": "a.mkv", "s/b.mkv": "b.mkv", "s/x/c.avi": "x/c.mkv"}
    assert found.left == Counter({".srt": 1})


def test_several_arguments_keep_their_names(tree):
    found = find(["s", "t", "s/b.mkv", "one"], Path("out"), ".mp4")
    assert named(found) == {
        "s/a.MP4": "s/a.mp4",
        "s/b.mkv": "s/b.mp4",
        "s/x/c.avi": "s/x/c.mp4",
        "t/a.webm": "t/a.mp4",
    }


def test_globs(tree):
    assert named(find(["s/**/*.avi"], Path("out"), "mkv")) == {"s/x/c.avi": "x/c.mkv"}
    assert named(find([f"{tree}/*"], Path("out"), "mkv")) == {
        f"{tree}/{source}": output
        for source, output in {"s/a.MP4": "s/a.mkv", "s/b.mkv": "s/b.mkv", "s/x/c.avi": "s/x/c.mkv"}.items()
    } | {f"{tree}/t/a.webm": "t/a.mkv"}


def test_a_glob_that_finds_the_output_folder_leaves_it_out(tree):
    """As it does when the command is repeated, and the folder is there."""
    before = named(find(["*"], tree / "t2", "mkv"))
    (tree / "t2").mkdir()
    (tree / "t2" / "a.mkv").touch()
    assert named(find(["*"], tree / "t2", "mkv")) == before
    with pytest.raises(UsageError, match="lies in the output folder"):
        find(["s", "t2"], tree / "t2", "mkv")


def test_lists(tree, monkeypatch):
    (tree / "list.m3u").write_text("#EXTM3U\ns/x/c.avi\n\ns/b.mkv\ngone.mkv\n" + str(tree / "t" / "a.webm") + "\n")
    expected = {"s/x/c.avi": "s/x/c.mkv", "s/b.mkv": "s/b.mkv", "gone.mkv": "gone.mkv"}
    assert named(find(["list.m3u"], Path("out"), "mkv")) == expected | {str(tree / "t" / "a.webm"): "a.mkv"}
    with (tree / "list.m3u").open() as lines:
        monkeypatch.setattr(inputs.sys, "stdin", lines)
        assert len(find(["-"], Path("out"), "mkv").items) == 4
    monkeypatch.setattr(inputs.sys, "stdin", None)  # closed, as services have it
    assert find(["-"], Path("out"), "mkv").items == []


def test_a_list_may_name_folders_and_a_file_more_than_once(tree):
    (tree / "t" / "link.webm").symlink_to("a.webm")
    lines = ["t", "t/a.webm", "./t/../t/a.webm", str(tree / "t" / "a.webm"), "s/x"]
    (tree / "list.txt").write_bytes("\ufeff# twice\r\n".encode() + "\r\n".join(lines).encode())
    assert named(find(["list.txt"], Path("out"), "mkv")) == {"t/a.webm": "t/a.mkv", "s/x/c.avi": "s/x/c.mkv"}


@pytest.mark.parametrize("piped", [False, True])
def test_lists_from_other_systems(tree, monkeypatch, piped):
    """A byte order mark, line ends of two characters, a name that is no UTF-8; not what is no text."""

    def listed(data):
        (tree / "list.txt").write_bytes(data)
        with (tree / "list.txt").open(encoding="utf-8", errors="strict") as lines:
            monkeypatch.setattr(inputs.sys, "stdin", lines)
            return named(find(["-" if piped else "list.txt"], Path("out"), "mkv"))

    assert listed("\ufeffs/x/c.avi\r\n".encode() + b"caf\xe9.mkv\r\n") == {
        "s/x/c.avi": "s/x/c.mkv",
        "caf\udce9.mkv": "caf\udce9.mkv",
    }
    for data in (b"s/x/c.avi\0s/b.mkv\0", "s/b.mkv\n".encode("utf-16")):
        with pytest.raises(UsageError, match="it has zero bytes; give one path a line"):
            listed(data)


def test_links_that_lead_nowhere_and_in_circles(tree):
    """They are taken by their names, and fail when they are looked at; folders are not walked twice."""
    (tree / "s" / "self.mkv").symlink_to("self.mkv")
    (tree / "s" / "gone.mkv").symlink_to("nowhere")
    (tree / "s" / "loop").symlink_to(".")
    outputs = {"a.mkv", "b.mkv", "x/c.mkv", "self.mkv", "gone.mkv"}
    assert set(named(find(["s"], Path("out"), "mkv")).values()) == outputs


def test_globs_of_any_depth_go_where_folders_go(tree):
    """Not behind links to folders, in circles least of all, nor into what is hidden, nor into the output folder."""
    for name in ("up", "again"):
        (tree / "s" / "x" / name).symlink_to("..")
    (tree / "s" / "out").mkdir()
    (tree / "s" / "out" / "e.mkv").touch()
    out = tree / "s" / "out"
    assert named(find(["s/**"], out, "mkv")) == {"s/a.MP4": "a.mkv", "s/b.mkv": "b.mkv", "s/x/c.avi": "x/c.mkv"}
    assert named(find(["**/x/**/*.avi"], out, "mkv")) == {"s/x/c.avi": "s/x/c.mkv"}
    assert named(find(["**/*.mkv"], out, "mkv")) == {"s/b.mkv": "s/b.mkv"}
    with pytest.raises(UsageError, match="matches nothing"):
        find(["s/**/*.flv"], out, "mkv")


def test_a_pattern_decides_alone(tree):
    assert named(find(["s", "t"], Path("out"), "mkv", "*.S*")) == {"s/x/c.srt": "s/x/c.srt.mkv"}
    assert named(find(["."], Path("out"), "mkv", "one")) == {"one": "one.mkv"}


def test_two_of_a_name_keep_their_suffixes(tree):
    (tree / "s" / "A.mov").touch()
    assert {o for o in named(find(["s"], Path("out"), "mkv")).values() if "c" not in o} == {
        "A.mov.mkv",
        "a.MP4.mkv",
        "b.mkv",
    }
    (tree / "s" / "a.mp4").touch()
    if len(list((tree / "s").glob("?.[mM][pP]4"))) == 2:  # else the file system takes them for one
        outputs = set(named(find(["s"], Path("out"), "mkv")).values())
        marked = {name for name in outputs if re.fullmatch(r"a\.(mp4|MP4) \([0-9a-f]{8}\)\.mkv", name)}
        assert outputs >= {"A.mov.mkv", "b.mkv"}
        assert len(marked) == 2


def test_an_output_s_name_may_be_that_of_another_source_s_output(tree):
    for name in ("d.mp4", "d.mov", "d.mp4.mkv"):
        (tree / "t" / name).touch()
    outputs = named(find(["t"], Path("out"), "mkv"))
    assert outputs == {
        "t/a.webm": "a.mkv",
        "t/d.mov": "d.mov.mkv",
        "t/d.mp4": "d.mp4 (t).mkv",
        "t/d.mp4.mkv": "d.mp4.mkv",
    }


def test_what_lies_in_the_output_folder_is_no_input(tree):
    assert "s/x/c.avi" not in named(find(["s"], Path("s/x"), "mkv"))
    with pytest.raises(UsageError, match="lies in the output folder"):
        find(["s"], Path("s"), "mkv")
    (tree / "list.txt").write_text("s/b.mkv\n")
    for argument in ("s/b.mkv", "list.txt"):
        with pytest.raises(UsageError, match=r"s/b\.mkv lies in the output folder"):
            find([argument], Path("s"), "mkv")


@pytest.mark.parametrize("argument", ["nowhere", "s/*.nothing", ""])
def test_arguments_that_name_nothing(tree, argument):
    with pytest.raises(UsageError, match=r"no such file|matches nothing|names no file"):
        find([argument], Path("out"), "mkv")


def test_scans_are_pictures_whatever_they_are_kept_in(tmp_path):
    for name in ("a.tif", "b.TIFF", "c.bmp", "d.png", "e.avif", "f.mkv", "g.png", "g.tif"):
        (tmp_path / name).touch()
    found = find([str(tmp_path)], tmp_path / "out", "png")
    assert [item.output.as_posix() for item in found.items] == [
        "a.png", "b.png", "c.png", "d.png", "e.png", "g.png.png", "g.tif.png",
    ]  # fmt: skip
    assert found.left == {".mkv": 1}


def test_who_has_numbered_pictures_is_told_what_takes_them(tmp_path, videosr):
    (tmp_path / "scan").mkdir()
    (tmp_path / "scan" / "00001.png").touch()
    with pytest.raises(UsageError, match="numbered pictures are one film, which `videosr upscale` takes"):
        find([str(tmp_path / "scan" / "%05d.png")], tmp_path / "out", "png")
    done = videosr("batch", tmp_path / "scan", "-o", tmp_path / "out")
    assert done.code == 0
    assert "pictures need --to png, numbered ones of a film videosr upscale" in done.err


def made(out, found, *sources):
    """Let the record say that these were made, as a batch does."""
    with Ledger(out) as ledger:
        for item in found.items:
            if not sources or item.source.name in sources:
                fields = {"output": item.output.as_posix(), "input": fingerprint(item.source), "settings": {}}
                source = str(item.source.absolute())
                ledger.add(Entry(state="begun", file=None, source=source, **fields))
                ledger.add(Entry(state="done", file="F", source=source, **fields))


def episodes(tree, *folders):
    """Files of one name in several folders, and a list of them."""
    paths = [tree / folder / "e01.mp4" for folder in folders]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(str(path).encode())
    (tree / "list.txt").write_text("".join(f"{path}\n" for path in paths))
    return paths


def test_equal_names_of_a_list_do_not_depend_on_its_order(tree):
    paths = episodes(tree, "A/1", "A/2", "B/1", "C")
    before = named(find(["list.txt"], Path("out"), "mkv"))
    outputs = set(before.values())
    assert len(outputs) == 4
    assert {"e01.mp4 (2).mkv", "e01.mp4 (C).mkv"} < outputs  # the folder tells those two, not the others
    for seed in range(5):
        random.Random(seed).shuffle(paths)
        (tree / "list.txt").write_text("".join(f"{path}\n" for path in paths))
        assert named(find(["list.txt"], Path("out"), "mkv")) == before


def test_what_was_made_keeps_its_name(tree):
    """Whatever list it is in next, and whatever comes beside it."""
    out, (first,) = tree / "out", episodes(tree, "A")
    before = find(["list.txt"], out, "mkv")
    assert named(before) == {str(first): "e01.mkv"}
    made(out, before)
    first, second = episodes(tree, "A", "B")
    (tree / "list.txt").write_text(f"{second}\n{first}\n")
    assert named(find(["list.txt"], out, "mkv")) == {str(first): "e01.mkv", str(second): "e01.mp4 (B).mkv"}
    (tree / "list.txt").write_text(f"{second}\n")
    assert named(find(["list.txt"], out, "mkv")) == {str(second): "e01.mp4.mkv"}, "the first one's is not free"

    made(tree / "out2", find(["s"], tree / "out2", "mkv"))
    (tree / "s" / "x" / "c.mp4").touch()
    outputs = named(find(["s"], tree / "out2", "mkv"))
    assert (outputs["s/x/c.avi"], outputs["s/x/c.mp4"]) == ("x/c.mkv", "x/c.mp4.mkv")


def test_names_of_the_rest_do_not_depend_on_what_was_made(tree):
    for name in ("d.mp4", "d.mov", "d.mp4.mkv"):
        (tree / "t" / name).write_text(name)
    out = tree / "out"
    before = find(["t"], out, "mkv")
    for name in ("d.mov", "d.mp4.mkv", "a.webm"):
        made(out, before, name)
        assert named(find(["t"], out, "mkv")) == named(before)


def test_a_source_that_was_moved_or_copied_has_its_output(tree):
    out = tree / "out"
    episodes(tree, "A")
    made(out, find(["A"], out, "mkv"))
    shutil.copytree(tree / "A", tree / "B")
    assert named(find(["B"], out, "mkv")) == {"B/e01.mp4": "e01.mkv"}, "a copy"
    (tree / "B" / "e01.mp4").write_text("another")
    assert named(find(["B"], out, "mkv")) == {"B/e01.mp4": "e01.mp4.mkv"}, "another one"
    shutil.rmtree(tree / "A")
    assert named(find(["B"], out, "mkv")) == {"B/e01.mp4": "e01.mkv"}, "moved, and changed"

import xml.etree.ElementTree as ET
from itertools import pairwise
from pathlib import Path

from videosr.training.journal import Journal

SVG = "{http://www.w3.org/2000/svg}"


def test_losses_and_scores_are_drawn_where_they_belong(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    for i in range(1, 6):
        journal.write(iteration=100 * i, seconds=1.0, loss=10.0**-i, l2_loss=10.0**-i / 2, learning_rate=1e-3)
        journal.write(iteration=100 * i, seconds=1.0, psnr_y={"A & B": 30.0 + i, "C": 29.0}, psnr_rgb={"C": 1.0})
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"iteration": 6')  # killed while writing
    journal.draw()
    root = ET.parse(tmp_path / "log.svg").getroot()
    lines = [
        [tuple(map(float, point.split(","))) for point in line.attrib["points"].split()]
        for line in root.iter(f"{SVG}polyline")
    ]
    assert [len(line) for line in lines] == [5, 5, 5, 5]
    loss, _, rising, flat = lines
    steps = [b[1] - a[1] for a, b in pairwise(loss)]
    assert max(steps) - min(steps) < 0.2  # a decade a step is a straight line on a logarithmic axis
    assert steps[0] > 0
    assert rising[0][1] > rising[-1][1]
    assert flat[0][1] == flat[-1][1]
    texts = [text.text for text in root.iter(f"{SVG}text")]
    assert {"A & B: 35.00", "C: 29.00", "loss", "l2_loss", "500", "0.01"} <= set(texts)
    assert "1.0" not in texts


def test_a_log_without_anything_to_draw_is_drawn(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.write(iteration=1, psnr_y={})
    journal.draw()
    assert not list(ET.parse(tmp_path / "log.svg").getroot().iter(f"{SVG}polyline"))
    journal.write(iteration=1, loss=0.5)
    journal.draw()
    assert len(list(ET.parse(tmp_path / "log.svg").getroot().iter(f"{SVG}polyline"))) == 1

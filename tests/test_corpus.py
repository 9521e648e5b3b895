"""Odd, hostile and high-end video: the quick cases of the corpus. `scripts/corpus.py` runs all of them."""

from __future__ import annotations

import sys
from collections import Counter

import pytest
from corpus import all_cases
from corpus.case import run

CASES = list(all_cases())


@pytest.mark.parametrize("case", [case for case in CASES if case.quick], ids=lambda case: case.id)
def test_corpus(case, tmp_path):
    pytest.importorskip("onnx")
    folder = tmp_path / "case"
    folder.mkdir()
    assert run(case, folder).problems == []


def test_cases_have_names_of_their_own():
    assert [name for name, count in Counter(case.id for case in CASES).items() if count > 1] == []


def test_the_reference_knows_the_standards():
    """Figures that the standards print themselves."""
    reference = sys.modules["corpus.reference"]
    red = reference.ycc_from_rgb(1) @ (1, 0, 0)  # BT.709-6, 3.2 and 3.3
    assert red == pytest.approx((0.2126, -0.2126 / 1.8556, 0.5))
    white = reference.Coding(1, reference.LIMITED, 10, 1, 1, 0)
    assert [float(reference.code(v, p, white)) for v, p in ((0.0, 0), (1.0, 0), (0.0, 1), (0.5, 1))] == [
        64, 940, 512, 960,
    ]  # fmt: skip

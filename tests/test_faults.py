"""Faults around videosr: some of those that `scripts/faults.py` brings about, all of which are a matter of minutes."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "scripts"))
FAULTS = importlib.import_module("faults")


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    return FAULTS.Bench(tmp_path_factory.mktemp("faults"))


NAMES = ("input cut short while it is read", "killed", "an output is there, to be replaced, and the encoder fails")


@pytest.mark.parametrize("fault", [f for f in FAULTS.faults() if f.name in NAMES], ids=lambda fault: fault.name)
def test_fault(bench, fault):
    assert bench.problems(fault) == []


def test_names_of_faults():
    names = [fault.name for fault in FAULTS.faults()]
    assert len(set(names)) == len(names)
    assert set(NAMES) <= set(names)

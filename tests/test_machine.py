"""How many cores there are to use: what containers allow."""

from __future__ import annotations

import math
import os

import pytest

from videosr import machine

UNIFIED, OLD = "0::{}\n", "5:memory:/else\n4:cpu,cpuacct:{}\n0::/\n"


@pytest.mark.parametrize(
    ("form", "group", "files", "cores"),
    [
        (UNIFIED, "/", {"cpu.max": "150000 100000\n"}, 1.5),
        (UNIFIED, "/", {"cpu.max": "max 100000\n"}, math.inf),
        (UNIFIED, "/a/b", {"a/cpu.max": "200000 100000", "a/b/cpu.max": "max 100000"}, 2),
        (UNIFIED, "/../elsewhere", {"cpu.max": "100000 100000"}, 1),
        (UNIFIED, "/", {}, math.inf),
        (UNIFIED, "/", {"cpu.max": "nonsense"}, math.inf),
        (OLD, "/", {"cpu,cpuacct/cpu.cfs_quota_us": "50000", "cpu,cpuacct/cpu.cfs_period_us": "100000"}, 0.5),
        (OLD, "/docker/x", {"cpu,cpuacct/cpu.cfs_quota_us": "-1", "cpu,cpuacct/cpu.cfs_period_us": "100000"}, math.inf),
        # In a container its own group is mounted as the root, though it goes by its name outside.
        (OLD, "/docker/x", {"cpu,cpuacct/cpu.cfs_quota_us": "300000", "cpu,cpuacct/cpu.cfs_period_us": "100000"}, 3),
    ],
)
def test_a_container_allows_some_cores(tmp_path, form, group, files, cores):
    own, groups = tmp_path / "cgroup", tmp_path / "groups"
    own.write_text(form.format(group))
    for name, text in files.items():
        (groups / name).parent.mkdir(parents=True, exist_ok=True)
        (groups / name).write_text(text)
    assert machine.quota(own, groups) == cores


def test_where_there_are_no_groups_there_is_no_limit(tmp_path):
    assert machine.quota(tmp_path / "none", tmp_path) == math.inf


@pytest.mark.parametrize(("quota", "cores"), [(0.2, 1), (1.5, 2), (math.inf, None)])
def test_threads_fill_what_is_allowed(monkeypatch, quota, cores):
    monkeypatch.setattr(machine, "quota", lambda: quota)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    assert machine.cores() == (cores or 8)

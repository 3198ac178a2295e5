"""The processes of a machine share the cores that the first of them may use."""

from __future__ import annotations

import os

import pytest

from pae_framework.system.cores import threads_per_process, usable_cores


@pytest.mark.parametrize(
    ("cores", "processes", "threads"), [(8, 2, 4), (8, 3, 2), (2, 4, 1), (1, 1, 1)]
)
def test_cores_are_those_that_the_process_may_use(
    cores: int, processes: int, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(cores)))
    assert usable_cores() == cores
    assert threads_per_process(processes) == threads


def test_without_affinity_all_cores_are_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert threads_per_process(2) == 3
